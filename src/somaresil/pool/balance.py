"""The endpoints of a pool at work: who gets the next call, what came of it, and who is out for a while.

Everything is decided under one lock, which is never held across a call; events are told outside it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.budget import RetryBudget
from somaresil.chance import draw
from somaresil.events import EndpointEjected, EndpointReturned, PoolPanicked
from somaresil.model.breaker import State
from somaresil.model.ejection import Cause, Change, Health, Outliers
from somaresil.model.pool import LEAST_SHARE, Candidate, PeakEwma, bounded, choose, halves, level_of, rendezvous, slow_start, spread
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from somaresil.chance import Chance
    from somaresil.events import Event
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.model.pool import Spread
    from somaresil.pool.options import Endpoint, PoolOptions
    from somaresil.typing import Clock

    _News = Event | Change

__all__ = ["Balance", "EndpointState", "EndpointView", "Member", "PoolView", "Visit"]


class EndpointState(StrEnum):
    """Where an endpoint stands with its pool."""

    HEALTHY = "healthy"
    """It gets its share of the calls."""
    SLOW_START = "slow_start"
    """It was added, or came back, and its share grows."""
    HALF_OPEN = "half_open"
    """Its breaker lets probes through: it gets a tenth of its share."""
    OPEN = "open"
    """Its breaker is open."""
    EJECTED = "ejected"
    """It did worse than the others."""
    DRAINING = "draining"
    """It was removed, and calls still run on it."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint at one moment."""

    name: str
    tier: int
    state: EndpointState
    weight: float
    """Its weight now, slow start included."""
    latency: float | None
    """Seconds; a moving average that rises at once and falls slowly. None: not known."""
    in_flight: int
    ejected_until: float | None
    """Wall-clock time in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool at one moment."""

    name: str
    endpoints: Mapping[str, EndpointView]
    tiers: Mapping[int, float]
    """The share of the calls that goes to each tier."""
    panic: bool
    """Whether a tier balances over all its endpoints, because too few are healthy."""


class Member:
    """One endpoint and what is known of it."""

    __slots__ = ("_starts", "_waiting", "breaker_era", "endpoint", "guard", "health", "in_flight", "latency", "opened", "since")

    def __init__(self, endpoint: Endpoint[Any], guard: Guard, health: Health, since: float | None) -> None:
        """``since``: when its slow start begins; None: it has none."""
        self.endpoint = endpoint
        self.guard = guard
        self.health = health
        self.since = since
        self.in_flight = 0
        self._waiting = 0
        self._starts = 0.0
        self.latency = PeakEwma()
        self.opened = False
        """Whether its breaker was not closed when it was last looked at."""
        self.breaker_era: int | None = None
        """The era of the breaker when it was last seen closed."""

    def waits(self, started: float) -> None:
        """A call waits for its answer from now on."""
        self._waiting += 1
        self._starts += started

    def answers(self, started: float) -> None:
        """It waits no more. When nobody does, errors of rounding end as well."""
        self._waiting -= 1
        self._starts = self._starts - started if self._waiting else 0.0

    def waited(self, now: float) -> float:
        """How long calls have waited for their answer, on average."""
        return max(0.0, now - self._starts / self._waiting) if self._waiting else 0.0

    def begin_anew(self, now: float) -> None:
        """It comes back."""
        self.since = now
        self.latency.forget()


class Visit:
    """One call on its way to one endpoint. It counts as in flight until it leaves."""

    __slots__ = ("_balance", "_era", "_here", "answered", "late", "member", "outcome", "started")

    def __init__(self, balance: Balance, member: Member, now: float) -> None:
        """It begins now."""
        self._balance = balance
        self._era = member.health.era
        self._here = True
        self.member = member
        self.started = now
        self.answered: float | None = None
        """Seconds to the first item of a stream."""
        self.outcome: Outcome | None = None
        self.late = False
        """Whether there is an answer that came too late."""

    def leave(self, outcome: Outcome, now: float) -> None:
        """It has ended. Only the first time counts."""
        if self._here:
            self._here = False
            self.outcome = outcome
            self._balance.left(self, self._era, outcome, now)


_ALL_PASS: Final = frozenset({State.CLOSED, State.DISABLED, State.METRICS_ONLY})
_KEY_SEED: Final = b""
"""Where a key belongs must be the same in every process of a service and after a restart, whatever the seed."""


class Balance:
    """The members of one pool. Safe to use from any number of threads and tasks."""

    def __init__(self, name: str, options: PoolOptions, clock: Clock, chance: Chance, listeners: Listeners) -> None:
        """Nobody is in yet."""
        self.name = name
        self.options = options
        self._clock = clock
        self._listeners = listeners
        self._draws = chance.sequence("pool.pick", name)
        self._lock = threading.RLock()
        self._outliers = Outliers(options.rules, clock.monotonic())
        self._tiers: tuple[tuple[Member, ...], ...] = ()
        self._members: dict[str, Member] = {}
        self._leaving: dict[Member, None] = {}
        self._panics = False
        self._ejections: dict[tuple[str, Cause], int] = {}
        self._guard: Guard | None = None
        self.budget: RetryBudget | None = None
        """What bounds the further attempts of all callers."""
        self._take_budget(options)

    def stand_behind(self, guard: Guard) -> None:
        """The guard of the pool: its calls are what the budget is a share of, and what is decided in shadow mode is noted there."""
        self._guard = guard
        self._take_budget(self.options)

    # -- endpoints --------------------------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> dict[str, Endpoint[Any]]:
        """Those that are in, by name."""
        return {name: member.endpoint for name, member in self._members.items()}

    def add(self, endpoint: Endpoint[Any], guard: Guard, *, slowly: bool) -> bool:
        """One more endpoint; False when there is one of this name."""
        now = self._clock.monotonic()
        with self._lock:
            if endpoint.name in self._members:
                return False
            health = self._outliers.add(endpoint.name, now)
            self._keep(self._members | {endpoint.name: Member(endpoint, guard, health, now if slowly else None)})
        return True

    def remove(self, name: str) -> bool:
        """No more calls for this one; False when it is not there or is the last."""
        now = self._clock.monotonic()
        with self._lock:
            member = self._members.get(name)
            if member is None or len(self._members) == 1:
                return False
            self._keep({other: kept for other, kept in self._members.items() if other != name})
            if member.in_flight:
                self._leaving[member] = None
            changes = self._outliers.remove(name, now)
            news = self._note(changes, now)
        self._tell(news)
        return True

    def set_weight(self, name: str, weight: float) -> bool:
        """Another weight from the next call on; False when there is no such endpoint."""
        with self._lock:
            member = self._members.get(name)
            if member is None:
                return False
            member.endpoint = replace(member.endpoint, weight=weight)
            return True

    def reconfigure(self, options: PoolOptions) -> None:
        """Choose by other options from now on; what is known of the endpoints stays."""
        now = self._clock.monotonic()
        with self._lock:
            self.options = options
            self._take_budget(options)
            news = self._note(self._outliers.reconfigure(options.rules, now), now)
        self._tell(news)

    # -- on the path of a call --------------------------------------------------------------------------------------------------------

    def take(self, tried: Collection[Member], key: str | None) -> Visit | None:
        """The next endpoint for a call, which counts as in flight there from now on; None: there is none that was not tried."""
        now = self._clock.monotonic()
        news: list[_News] = []
        defect: Exception | None = None
        with self._lock:
            try:
                news += self._turn(now)
                member = self._choose(now, tried, key, news)
            except Exception as found:  # noqa: BLE001 - fail open: a defect of ours must not keep a call from every endpoint
                defect = found
                member = next((other for other in self._members.values() if other not in tried), None)
            visit = None
            if member is not None:
                member.in_flight += 1
                member.waits(now)
                visit = Visit(self, member, now)
        if defect is not None:
            self._listeners.defect(f"choosing an endpoint of pool {self.name}", defect, self._clock.time(), "the first was taken")
            defect = None
        self._tell(news)
        return visit

    def left(self, visit: Visit, era: int, outcome: Outcome, now: float) -> None:
        """A call has left an endpoint. Never raises."""
        news: list[_News] = []
        member, answered, elapsed = visit.member, visit.answered, now - visit.started
        try:
            with self._lock:
                member.in_flight -= 1
                if answered is None:
                    member.answers(visit.started)
                if not member.in_flight:
                    self._leaving.pop(member, None)
                self._learn(member, outcome, answered, elapsed, now)
                known = self._members.get(member.endpoint.name) is member
                if known and (outcome is Outcome.GOOD or outcome is Outcome.BAD):
                    seconds = elapsed if answered is None else answered
                    change = self._outliers.note(member.endpoint.name, era, failed=outcome is Outcome.BAD, seconds=seconds, now=now)
                    news = self._note([change] if change is not None else [], now)
        except Exception as defect:  # noqa: BLE001 - the caller gets its answer whatever happens to our books
            self._listeners.defect(f"booking a call of pool {self.name}", defect, self._clock.time())
        self._tell(news)

    def answered(self, visit: Visit) -> None:
        """The first item of a stream is there: that is its latency, for how long a stream lasts is up to its reader as well."""
        now = self._clock.monotonic()
        visit.answered = now - visit.started
        with self._lock:
            visit.member.answers(visit.started)
            visit.member.latency.observe(visit.answered, now, self._decay)

    def pay(self, now: float) -> bool:
        """Whether the budget has room for one more attempt; then it is taken. It shrinks as that of retries does (``budget_aware``)."""
        budget, scale = self.budget, None if self._guard is None else self._guard.budget_scale
        return budget is None or budget.take(now, None if scale is None else lambda: scale)

    def give_back(self) -> None:
        """The attempt that was paid for is not made."""
        if self.budget is not None:
            self.budget.give_back()

    def soonest(self, now: float) -> float | None:
        """Seconds until the first of the endpoints that get no calls may get some; None: not known, or all get calls."""
        with self._lock:
            waits = [member.health.ejected_until - now for member in self._members.values() if member.health.ejected_until is not None]
            breakers = [member.guard.breaker for member in self._members.values() if member.opened]
        for breaker in breakers:
            wait = None if breaker is None else breaker.retry_after()
            if wait is not None:
                waits.append(wait)
        return min((max(0.0, wait) for wait in waits), default=None)

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    def view(self) -> PoolView:
        """Everything at one moment, frozen."""
        now, wall = self._clock.monotonic(), self._clock.time()
        with self._lock:
            news = self._turn(now)
            fit, shares = self._look(now)
            views = {member.endpoint.name: self._view(member, now, wall, leaving=True) for member in self._leaving}
            views |= {
                name: self._view(member, now, wall, fit=any(member in tier for tier in fit)) for name, member in self._members.items()
            }
            tiers = {tier[0].endpoint.tier: load for tier, load in zip(self._tiers, shares.loads, strict=True)}
        self._tell(news)
        return PoolView(self.name, views, tiers, any(shares.panics))

    def ejections(self) -> dict[tuple[str, Cause], int]:
        """How often each endpoint was ejected, by cause."""
        with self._lock:
            return dict(self._ejections)

    def _view(self, member: Member, now: float, wall: float, *, fit: bool = True, leaving: bool = False) -> EndpointView:
        until = member.health.ejected_until
        weight = 0.0 if leaving else self._weight(member, now, panic=False)
        state = EndpointState.HEALTHY if weight >= member.endpoint.weight else EndpointState.SLOW_START
        if leaving:
            state, until = EndpointState.DRAINING, None
        elif until is not None:
            state = EndpointState.EJECTED
        elif member.opened:
            state = EndpointState.HALF_OPEN if fit else EndpointState.OPEN
        return EndpointView(
            name=member.endpoint.name,
            tier=member.endpoint.tier,
            state=state,
            weight=weight if fit else 0.0,
            latency=member.latency.read(now, self._decay),
            in_flight=member.in_flight,
            ejected_until=None if until is None else wall + until - now,
        )

    # -- inside, with the lock held ---------------------------------------------------------------------------------------------------

    @property
    def _decay(self) -> float:
        return self.options.latency_decay  # type: ignore[return-value]  # options keep seconds as floats

    def _take_budget(self, options: PoolOptions) -> None:
        budget = options.budget
        if budget is None or isinstance(budget, RetryBudget):
            self.budget = budget
        elif self.budget is None or self.budget.ratio != budget:
            self.budget = RetryBudget(budget)
        if self.budget is not None and self._guard is not None:
            self.budget.join(self._guard.recorder, self._clock.monotonic())

    def _keep(self, members: dict[str, Member]) -> None:
        self._members = members
        tiers: dict[int, list[Member]] = {}
        for member in members.values():
            tiers.setdefault(member.endpoint.tier, []).append(member)
        self._tiers = tuple(tuple(tiers[tier]) for tier in sorted(tiers))

    def _turn(self, now: float) -> list[_News]:
        return self._note(self._outliers.turn(now), now) if now >= self._outliers.due else []

    def _choose(self, now: float, tried: Collection[Member], key: str | None, news: list[_News]) -> Member | None:
        fit, shares = self._look(now)
        panics = any(shares.panics)
        if panics is not self._panics:
            self._panics = panics
            news.append(PoolPanicked(self.name, self._clock.time(), panics, sum(map(len, fit)), len(self._members)))
        level = 0
        if len(self._tiers) > 1:
            # A key must not go to and fro between two tiers that share the calls.
            u = self._draws.next() if key is None else draw(_KEY_SEED, "pool.tier", f"{self.name} {key}", 0)
            level = level_of(shares.loads, u)
        for position in (level, *(other for other in range(len(self._tiers)) if other != level)):
            members = self._tiers[position] if shares.panics[position] else fit[position]
            members = [member for member in members if member not in tried]
            if members:
                return self._among(members, now, key, panic=shares.panics[position])
        return None

    def _look(self, now: float) -> tuple[list[list[Member]], Spread]:
        """Who may be taken in each tier, and how calls are spread over the tiers."""
        fit = [[member for member in tier if self._fits(member, now)] for tier in self._tiers]
        sizes = [(len(healthy), len(tier)) for healthy, tier in zip(fit, self._tiers, strict=True)]
        return fit, spread(sizes, self.options.overprovisioning, self.options.panic_threshold)

    def _fits(self, member: Member, now: float) -> bool:
        breaker = member.guard.breaker
        if breaker is None:
            member.opened = False
        elif breaker.state in _ALL_PASS:
            era = breaker.era
            if member.opened or member.breaker_era not in {None, era}:
                # It was not closed all the time since it was last seen.
                member.begin_anew(now)
            member.opened, member.breaker_era = False, era
        else:
            member.opened = True
        return member.health.ejected_until is None and not (breaker is not None and member.opened and breaker.refuse_until > now)

    def _among(self, members: list[Member], now: float, key: str | None, *, panic: bool) -> Member:
        weights = [self._weight(member, now, panic=panic) for member in members]
        if key is not None:
            draws = [draw(_KEY_SEED, "pool.key", f"{self.name}/{member.endpoint.name} {key}", 0) for member in members]
            in_flight = [member.in_flight for member in members]
            return members[bounded(rendezvous(weights, draws), in_flight, weights, self.options.key_spill)]
        if len(members) == 1:
            return members[0]
        candidates = [self._candidate(member, weight, now) for member, weight in zip(members, weights, strict=True)]
        return members[choose(candidates, *halves(self._draws.next()))]

    def _candidate(self, member: Member, weight: float, now: float) -> Candidate:
        # A probe does not lose against the others because the endpoint was slow before it was left alone.
        latency = None if member.opened else member.latency.read(now, self._decay)
        return Candidate(weight, latency, member.in_flight, weight < member.endpoint.weight, member.waited(now))

    def _weight(self, member: Member, now: float, *, panic: bool) -> float:
        if member.opened and not panic:
            return member.endpoint.weight * LEAST_SHARE
        return member.endpoint.weight * slow_start(member.since, now, self.options.slow_start)  # type: ignore[arg-type]

    def _learn(self, member: Member, outcome: Outcome, answered: float | None, elapsed: float, now: float) -> None:
        if outcome is Outcome.GOOD and answered is None:
            member.latency.observe(elapsed, now, self._decay)
        elif (outcome is Outcome.BAD or outcome is Outcome.ABANDONED) and answered is None:
            member.latency.at_least(elapsed, now, self._decay)

    def _note(self, changes: list[Change], now: float) -> list[_News]:
        """Bring the members in line; what is to be told of it."""
        news: list[_News] = []
        for change in changes:
            member = self._members.get(change.name)
            if change.cause is None:
                if member is not None:
                    member.begin_anew(now)
                news.append(EndpointReturned(self.name, self._clock.time(), change.name))
            elif self._outliers.rules.shadow:
                news.append(change)
            else:
                self._ejections[change.name, change.cause] = self._ejections.get((change.name, change.cause), 0) + 1
                news.append(EndpointEjected(self.name, self._clock.time(), change.name, change.cause.value, change.duration))
        return news

    # -- inside, with no lock held ----------------------------------------------------------------------------------------------------

    def _tell(self, news: list[_News]) -> None:
        for event in news:
            if isinstance(event, Change):
                if self._guard is not None:
                    self._guard.shadow.note("ejection", "eject", f"{event.name} for {event.duration:.3g} s: {event.cause}")
            elif self._listeners.wants(type(event)):
                self._listeners.emit(event)
