"""The drill itself: fault after fault, each from a steady state to a steady state, through the control app of every instance.

It is written against a :class:`Stack` and its clock, so it runs processes in real time and a simulation in virtual time alike.
"""

from __future__ import annotations

import asyncio
import platform
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from somaresil import __version__
from somaresil.drill import DrillError
from somaresil.drill.judge import STEADY, Observation, judge, recovery, unavailable
from somaresil.drill.report import Agreement, Budget, DrillReport, FaultResult
from somaresil.drill.topology import instances
from somaresil.drill.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from somaresil.drill.judge import Judgement
    from somaresil.drill.plan import Strike
    from somaresil.drill.report import Footprint
    from somaresil.drill.topology import Settings
    from somaresil.typing import Clock

__all__ = ["LIMIT", "Drill", "Stack"]

LIMIT: Final = 20.0
"""Seconds from a fault to the steady state after it: the promise is five minutes, but a drill of two hundred has not so long for each."""
BEFORE: Final = 10.0
"""Seconds that the stack may take to be steady before a fault."""
ARMINGS: Final = 13
"""How often a fault that struck nothing is armed: a lease is short, and perhaps no call came by. Partitions strike a share of the
*connections*, and a service at rest has one: at a rate of 0.7 four armings spare it once in 123 drills, which is what a build ran into."""
LOOK_EVERY: Final = 0.15
AGREEMENT_SECONDS: Final = 10.0
_GRACE: Final = 0.05
_ANSWER_SECONDS: Final = 10.0
_UNAVAILABLE: Final = "unavailable"
_MOST_REASONS: Final = 5


class Stack(Protocol):
    """The instances of the services, wherever they are."""

    @property
    def http(self) -> httpx.AsyncClient:
        """How they are reached."""
        ...

    @property
    def clock(self) -> Clock:
        """Their time."""
        ...

    @property
    def settings(self) -> Settings:
        """Where they are, and the token of the operator."""
        ...

    @property
    def places(self) -> Mapping[str, Any]:
        """What words in targets of networks stand for."""
        ...

    @property
    def form(self) -> str:
        """``processes`` or ``virtual time``."""
        ...

    def check(self) -> None:
        """Raise :class:`DrillError` when an instance has died."""
        ...

    async def kept(self) -> set[str]:
        """What the memory services have written, of the session of all users."""
        ...

    async def footprint(self) -> Mapping[str, Footprint] | None:
        """What each instance has of the machine; None: they are no processes."""
        ...

    async def counted(self) -> Mapping[tuple[str, str], float] | None:
        """Strikes by instance and kind, as Prometheus has them; None: there is none to ask."""
        ...


@dataclass(slots=True)
class _Counts:
    """What the guards of all instances have counted."""

    calls: Counter[str] = field(default_factory=Counter[str])
    touched: int = 0
    touched_good: int = 0
    waiting: int = 0
    first_sign: float | None = None
    sign: str = ""
    slos: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    @property
    def amplification(self) -> tuple[int, int]:
        """Calls of pools, and calls that they have made of them on their endpoints."""
        pools = {name.partition("/")[0] for name in self.calls if "/" in name}
        return (
            sum(count for name, count in self.calls.items() if name in pools),
            sum(count for name, count in self.calls.items() if "/" in name),
        )


class Drill:
    """One run."""

    def __init__(
        self,
        stack: Stack,
        strikes: Sequence[Strike],
        *,
        seed: int,
        rate: float,
        limit: float = LIMIT,
        balance: bool = True,
        tell: Callable[[str], object] = print,
    ) -> None:
        """Nothing has happened. ``balance``: whether the load balancer asks another gateway when one fails."""
        self._stack = stack
        self._clock = stack.clock
        self._strikes = tuple(strikes)
        self._seed = seed
        self._rate = rate
        self._limit = limit
        self._balance = balance
        self._tell = tell
        self._headers = {"authorization": f"Bearer {stack.settings.token}"}
        self._injected: Counter[tuple[str, str]] = Counter()

    async def run(self) -> DrillReport:
        """All of it. Raises :class:`DrillError` when it cannot be run to its end."""
        began, stamp = self._clock.monotonic(), self._clock.time()
        gateways = list(self._stack.settings.peers("gateway").values())
        results: list[FaultResult] = []
        missing = await self._capabilities()
        async with Users(self._stack.http, gateways, self._clock, rate=self._rate, balance=self._balance) as users:
            await self._steady(users, began)
            before, footprint = await self._counts(began), await self._stack.footprint()
            for strike in self._strikes:
                results.append(await self._strike(users, strike, missing))
                self._tell(f"{len(results)}/{len(self._strikes)} {results[-1].line}")
            await users.stop()
            requests, bad = users.count, users.bad
        after = await self._delivered(began)
        return DrillReport(
            version=__version__,
            seed=self._seed,
            form=self._stack.form,
            platform=platform.platform(),
            started_at=stamp,
            seconds=self._clock.monotonic() - began,
            rate=self._rate,
            limit=self._limit,
            requests=requests,
            bad_requests=bad,
            faults=tuple(results),
            budgets=tuple(_budget(name, before.slos.get(name), after.slos[name]) for name in sorted(after.slos)),
            agreement=await self._agreement(),
            acknowledged=len(users.acknowledged),
            lost=tuple(sorted(users.acknowledged - await self._stack.kept())),
            footprints=_footprints(footprint, await self._stack.footprint()),
        )

    # -- one fault --------------------------------------------------------------------------------------------------------------------

    async def _strike(self, users: Users, strike: Strike, missing: Mapping[str, str]) -> FaultResult:
        site = strike.site
        if site.capability is not None and site.capability in missing:
            return _result(strike, unavailable(missing[site.capability]))
        ready = await self._steady(users, self._clock.monotonic())
        seen, counts = await self._armed(users, strike) if ready else (self._not_started(), (_Counts(), _Counts()))
        calls, made = (now - then for now, then in zip(counts[1].amplification, counts[0].amplification, strict=True))
        return replace(
            _result(strike, judge(seen)),
            struck=tuple(name for name, count in seen.injected.items() if count),
            selected=seen.selected,
            sign=seen.sign,
            touched=counts[1].touched - counts[0].touched,
            touched_good=counts[1].touched_good - counts[0].touched_good,
            amplification=made / calls if calls else None,
            reasons=tuple(dict.fromkeys(request.why for request in seen.requests if request.why))[:_MOST_REASONS],
        )

    def _not_started(self) -> Observation:
        now = self._clock.monotonic()
        return Observation(now, now, self._limit, (), refused=f"the stack was not steady within {BEFORE:g} s before it")

    async def _armed(self, users: Users, strike: Strike) -> tuple[Observation, tuple[_Counts, _Counts]]:
        """Arm it, hold it, see what comes after it."""
        names = [each.name for each in instances() if each.role == strike.site.role]
        before = await self._counts(self._clock.monotonic())
        armed_at, lease_end, refused = self._clock.monotonic(), self._clock.monotonic(), ""
        injected, selected = Counter[str](), set[str]()
        for again in range(ARMINGS):
            armed_at = self._clock.monotonic()
            started = await asyncio.gather(*(self._start(name, strike, again) for name in names))
            lease_end = self._clock.monotonic() + strike.lease
            refused = "; ".join(f"{name}: {said}" for name, said in zip(names, started, strict=True) if isinstance(said, str))
            await self._clock.asleep(strike.lease + _GRACE)
            shown = await asyncio.gather(*(self._ask("GET", name, f"/experiments/{said}") for name, (said, _) in _running(names, started)))
            for (name, (_, chosen)), view in zip(_running(names, started), shown, strict=True):
                injected[name] += view["injected"]
                self._injected[name, strike.site.kind] += view["injected"]
                if chosen:
                    selected.add(name)
            if refused or sum(injected.values()):
                break
        clean_at, left, counts = await self._until_clean(users, armed_at, lease_end)
        turned = next((turn for turn in users.turns if turn >= armed_at), None)
        if turned is not None and (counts.first_sign is None or turned < counts.first_sign):
            counts.first_sign, counts.sign = turned, "another gateway (load balancer)"
        seen = Observation(
            armed_at=armed_at,
            lease_end=lease_end,
            limit=self._limit,
            requests=users.since(armed_at),
            selected=tuple(sorted(selected)),
            injected={name: injected[name] for name in names},
            first_sign=counts.first_sign,
            sign=counts.sign,
            clean_at=clean_at,
            left=left,
            refused=refused,
        )
        return seen, (before, counts)

    async def _start(self, name: str, strike: Strike, again: int) -> tuple[str, bool] | str:
        """Its id and whether the instance is inside the blast radius, or why it was refused."""
        url = f"{self._stack.settings.urls[name]}/_soma/chaos/experiments"
        reply = await self._request("POST", url, json=strike.plan(self._stack.places, again))
        if reply.status_code != httpx.codes.CREATED:
            return reply.text[:500]
        (experiment,) = reply.json()["experiments"]
        return str(experiment["id"]), bool(experiment["selected"])

    async def _until_clean(self, users: Users, armed_at: float, lease_end: float) -> tuple[float | None, tuple[str, ...], _Counts]:
        """Wait until users have a steady service and nothing is left, at most until the limit."""
        deadline = armed_at + self._limit
        clean_at: float | None = None
        while True:
            self._stack.check()
            users.check()
            left = await self._left()
            now = self._clock.monotonic()
            clean_at = (clean_at or now) if not left else None
            over = not users.waiting(lease_end) and recovery(users.since(armed_at), armed_at, lease_end) is not None
            counts = await self._counts(armed_at) if (over and not left) or now > deadline else None
            if counts is not None and counts.waiting and now <= deadline:
                clean_at, counts = None, None
            if counts is not None:
                if counts.waiting:
                    clean_at, left = None, (*left, f"{counts.waiting} writes wait")
                return clean_at, left, counts
            await self._clock.asleep(LOOK_EVERY)

    async def _steady(self, users: Users, since: float) -> bool:
        """Whether users have a steady service and nothing is left of anything, in time."""
        deadline = self._clock.monotonic() + BEFORE
        # What was good before counts too: between two faults nothing else has happened.
        since -= self._limit
        while not (users.steady(STEADY, since) and not await self._left()):
            self._stack.check()
            users.check()
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.asleep(LOOK_EVERY)
        return True

    async def _left(self) -> tuple[str, ...]:
        """What is not as in peace: circuits that are not closed, experiments that run."""
        names = [each.name for each in instances()]
        found: list[str] = []
        for name, status in zip(names, await asyncio.gather(*(self._ask("GET", name, "/status") for name in names)), strict=True):
            found += [f"{name}: circuit {guard} is {state}" for guard, state in status["breakers"].items() if state != "closed"]
            if status["running"]:
                found.append(f"{name}: {status['running']} experiments run")
        return tuple(found)

    # -- counts -----------------------------------------------------------------------------------------------------------------------

    async def _counts(self, since: float) -> _Counts:
        names = [each.name for each in instances()]
        urls = [f"{self._stack.settings.urls[name]}/_soma/seen?since={since!r}" for name in names]
        counts = _Counts()
        for name, reply in zip(names, await asyncio.gather(*(self._request("GET", url) for url in urls)), strict=True):
            said = reply.json()
            for guard, seen in said["guards"].items():
                counts.calls[guard] += seen["calls"]
                counts.touched += seen["touched"]
                counts.touched_good += seen["touched_good"]
            counts.waiting += said["waiting"]
            if said["first_sign"] is not None and (counts.first_sign is None or said["first_sign"] < counts.first_sign):
                counts.first_sign, counts.sign = said["first_sign"], f"{said['sign']} ({name})"
            for slo, budget in said["slos"].items():
                counts.slos[f"{name} {slo}"] = budget
        return counts

    async def _delivered(self, since: float) -> _Counts:
        """The counts when no write waits any more, or has waited too long."""
        deadline = self._clock.monotonic() + self._limit
        while (counts := await self._counts(since)).waiting and self._clock.monotonic() < deadline:
            await self._clock.asleep(LOOK_EVERY)
        return counts

    async def _capabilities(self) -> dict[str, str]:
        """What the platform cannot do, and why not; all instances are on the same one."""
        (first, *_) = instances()
        told = (await self._ask("GET", first.name, "/capabilities"))["capabilities"]
        return {name: said["reason"] or _UNAVAILABLE for name, said in told.items() if not said["available"]}

    async def _agreement(self) -> Agreement | None:
        """Whether Prometheus has counted what the control apps have; it may be a scrape behind, so it has some time."""
        ours = {key: count for key, count in self._injected.items() if count}
        deadline = self._clock.monotonic() + AGREEMENT_SECONDS
        while True:
            theirs = await self._stack.counted()
            if theirs is None:
                return None
            found = {key: count for key, count in theirs.items() if count}
            if found == ours or self._clock.monotonic() > deadline:
                return _agreement(ours, found)
            await self._clock.asleep(0.5)

    # -- asking -----------------------------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, name: str, path: str) -> Any:
        reply = await self._request(method, f"{self._stack.settings.urls[name]}/_soma/chaos{path}")
        if reply.status_code != httpx.codes.OK:
            raise DrillError(f"{method} {path} of {name} answered {reply.status_code}: {reply.text[:300]}")
        return reply.json()

    async def _request(self, method: str, url: str, json: Any = None) -> httpx.Response:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._stack.http.request(method, url, json=json, headers=self._headers)
        except (TimeoutError, httpx.HTTPError) as error:
            self._stack.check()
            where = re.sub(r"\?.*", "", url)
            raise DrillError(f"{method} {where} failed: {str(error) or type(error).__name__}") from error


def _running(names: Sequence[str], started: Sequence[tuple[str, bool] | str]) -> list[tuple[str, tuple[str, bool]]]:
    return [(name, said) for name, said in zip(names, started, strict=True) if not isinstance(said, str)]


def _result(strike: Strike, verdict: Judgement) -> FaultResult:
    site = strike.site
    return FaultResult(strike.number, site.kind, site.realm.value, site.role, site.label, strike.radius, strike.rate, verdict)


def _agreement(ours: Mapping[tuple[str, str], float], theirs: Mapping[tuple[str, str], float]) -> Agreement:
    both = sorted(ours.keys() | theirs.keys())
    counts = [(" ".join(key), ours.get(key, 0), theirs.get(key, 0)) for key in both]
    apart = tuple(f"{name}: {mine:g} and {other:g}" for name, mine, other in counts if mine != other)
    return Agreement(int(sum(ours.values())), int(sum(theirs.values())), apart)


def _footprints(
    before: Mapping[str, Footprint] | None, after: Mapping[str, Footprint] | None
) -> tuple[tuple[str, Footprint, Footprint], ...]:
    return () if before is None or after is None else tuple((name, before[name], after[name]) for name in before)


def _budget(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Budget:
    instance, _, slo = name.partition(" ")
    return Budget(instance, slo, after["good"], after["bad"], (before or {}).get("remaining"), after["remaining"])
