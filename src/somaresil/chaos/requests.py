"""Request-scoped chaos: a request brings a signed plan along, and only what is done for that request is struck.

The way of a plan: the ASGI middleware finds it in the ``baggage`` header, :func:`~somaresil.chaos.token.verify` says whether it is one, and
from then until the request has ended it is *in flight*: a context variable says whose calls are meant, and each approved rule that it names
is an experiment of its own, armed in the guards and routes that it aims at, which decides about the calls of this request and no other.
Without a plan in flight nothing is armed, so guards keep their quiet path.

A plan is a wish, not an order. It names rules that this code has approved, may only lower them, and is held to the permission and the
ceilings of the moment at which it arrives. What is wrong with it is counted by reason and said in the log now and then; the request goes
on as if it had brought none. Nothing of a header ever stands in the log.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from somaresil.chance import Chance
from somaresil.chaos import baggage
from somaresil.chaos.baggage import BaggageRefused
from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.chaos.flight import CarriedStream, PlanInFlight, current, enter, leave
from somaresil.chaos.token import (
    LONGEST,
    REASONS,
    ChaosKeys,
    Lower,
    Nonces,
    PlanRefused,
    RequestPlan,
    is_rule_name,
    new_nonce,
    read_lower,
    sign,
    verify,
)
from somaresil.chaos.uses import HostUses
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.events import PlanIgnored
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from datetime import timedelta

    from somaresil.chaos.engine import ChaosEngine
    from somaresil.chaos.flight import RequestRun
    from somaresil.chaos.plan import ErrorMakers, FaultWindow
    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["ACCEPTED", "IGNORED", "Outgoing", "PlanInFlight", "RequestPlans"]

_T = TypeVar("_T")

ACCEPTED: Final = "accepted"
"""The count of plans that were taken."""
IGNORED: Final = (*REASONS, "duplicate", "replayed", "crowded", "protected", "not_permitted", "stopped", "busy", "nothing_approved")
"""Why a plan was ignored: what :func:`~somaresil.chaos.token.verify` finds, and

- ``duplicate``: the baggage has two of them;
- ``replayed``: it was used as often as it may be; ``crowded``: that cannot be remembered, for want of room or of a file;
- ``protected``: the request is for a path that no experiment touches;
- ``not_permitted``: chaos is off here; ``stopped``: somebody has pulled the kill switch since plans were accepted;
- ``busy``: as many are in flight as may be;
- ``nothing_approved``: it names no rule that is approved here.
"""
UNKNOWN_RULE: Final = "unknown_rule"
"""The count of rules that a plan named and nobody has approved here. The others of the plan are taken."""

_NEVER: Final = frozenset({ChaosExperiment.CIRCUIT_TRIP, ChaosExperiment.RESOURCE_EXHAUSTION, ChaosExperiment.NETWORK_PARTITION})
"""Kinds that strike everybody, however they are begun."""
_MOST_APPROVED: Final = 100
_QUIET_SECONDS: Final = 60.0
"""Seconds between two lines in the log for one reason."""

_log = logging.getLogger("somaresil")


class Outgoing(NamedTuple):
    """What a request that goes out says: the ``baggage`` header, None: none; and the plan that stands in it, None: none."""

    header: str | None
    plan: str | None


@dataclass(frozen=True, slots=True)
class _Terms:
    """On which terms plans are accepted."""

    keys: ChaosKeys
    audience: str
    longest: float
    leeway: float
    most_in_flight: int


class RequestPlans:
    """What an engine knows of request plans: the keys, the approved rules, what is in flight, and what was counted."""

    def __init__(self, engine: ChaosEngine, *, clock: Clock, listeners: Listeners) -> None:
        """Accept nothing, approve nothing."""
        self._engine = engine
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._terms: _Terms | None = None
        self._nonces = Nonces(0)
        self._uses: HostUses | None = None
        self._approved: dict[str, ChaosConfig] = {}
        self._counts: dict[str, int] = {}
        self._said: dict[str, tuple[float, int]] = {}
        self._used: dict[str, tuple[float, int]] = {}
        """When the use of a rule was told last, and how often it was used since."""
        self._pass_to: tuple[str, ...] = ()
        self._in_flight: tuple[PlanInFlight, ...] = ()
        self.accepting = False
        """Whether plans are looked for; the middleware looks at this and nothing else."""
        self.stopped = False
        """Whether somebody has pulled the kill switch since plans were accepted."""

    # -- setting up -------------------------------------------------------------------------------------------------------------------

    def accept_plans(
        self,
        keys: ChaosKeys,
        *,
        audience: str | None = None,
        longest: float | timedelta = 300.0,
        leeway: float | timedelta = 5.0,
        most_in_flight: int = 64,
        most_remembered: int = 10_000,
    ) -> None:
        """Look for request plans in the ``baggage`` of requests from now on, also after a :meth:`ChaosEngine.stop_all`.

        A plan must be signed with one of ``keys`` for ``audience`` (None: the name of the environment), must not end later than ``longest``
        seconds from now, and may begin ``leeway`` seconds ahead of our clock. ``most_in_flight``: so many requests have one at the same
        time; ``most_remembered``: of so many plans this process knows how often they were used. What is beyond is ignored.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found. Whether chaos is permitted is asked for each plan.
        """
        check = Checker("chaos.accept_plans")
        check.type("keys", keys, ChaosKeys, "ChaosKeys({'k1': secret}) or ChaosKeys.from_environment()")
        place = self._engine.place
        given = place.environment if audience is None else audience
        if given is None:
            check.problem("audience", None, "a name", "pass audience=, or environment= to Resilience: who a plan is meant for")
        else:
            check.name("audience", given)
        seconds = check.seconds("longest", longest, maximum=float(LONGEST))
        ahead = check.seconds("leeway", leeway, exclusive=False, maximum=300.0)
        check.count("most_in_flight", most_in_flight, maximum=1_000)
        check.count("most_remembered", most_remembered, maximum=1_000_000)
        check.finish()
        self._engine.safety.note()
        with self._lock:
            if self._terms is None or self._nonces.most != most_remembered:
                self._nonces = Nonces(most_remembered)
            self._terms = _Terms(keys, str(given), seconds, ahead, most_in_flight)
            self.stopped = False
            self.accepting = True
        self._engine.audit.note("accept_plans", f"request plans for {given} are accepted")

    def refuse_plans(self) -> None:
        """Look for request plans no more, and end what is in flight."""
        with self._lock:
            self._terms = None
            self.accepting = False
        self.stop("stopped")
        self._engine.audit.note("refuse_plans", "request plans are ignored")

    def approve(
        self, name: str, fault: ChaosConfig | FaultWindow, *, errors: ErrorMakers | None = None, await_guards: bool = False
    ) -> None:
        """Let request plans name ``fault`` as ``name``. What it says are the local ceilings of the rule: a plan can only lower them.

        Its duration counts from the arrival of a request. Of a window the start must be 0; ``errors`` and ``await_guards`` are as in
        :meth:`ChaosEngine.arm_plan`. Approving again replaces the rule for plans that arrive from then on; :meth:`revoke` takes it back.

        Nothing is armed by it: whether chaos is permitted is asked for each plan, so a service may approve its rules wherever it runs.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found: what is above the ceilings is refused as in every
        experiment, and kinds that would strike other requests too (``circuit_trip``, faults of the process) as well.
        """
        check = Checker(f"chaos.approve({name!r})")
        if not isinstance(name, str) or not is_rule_name(name):
            check.problem("name", name, "a name of 1 to 64 characters from A-Z a-z 0-9 _ . : / -")
        config = self._engine.checked(check, fault, errors, await_guards=await_guards)
        if config is not None and config.experiment in _NEVER:
            hint = "it strikes every request, whoever asked for it"
            check.problem("experiment", config.experiment.value, "a kind that strikes single calls", hint)
        with self._lock:
            if name not in self._approved and len(self._approved) >= _MOST_APPROVED:
                check.problem("name", name, f"at most {_MOST_APPROVED} approved rules")
            check.finish()
            if config is not None:
                self._approved = {**self._approved, name: config}
        self._engine.audit.note("approve", "approved for request plans", experiment=name, config=config)

    def revoke(self, name: str) -> bool:
        """Approve a rule no longer, and end it in the plans that are in flight. False when it was not approved."""
        with self._lock:
            known = name in self._approved
            self._approved = {other: config for other, config in self._approved.items() if other != name}
        for run in self.runs:
            if run.name == name:
                run.end("stopped")
        self._used.pop(name, None)
        self._engine.audit.note("revoke", "revoked" if known else "it was not approved", experiment=name)
        return known

    def pass_plans_to(self, *hosts: str) -> None:
        """Name the hosts that our guarded clients pass plans on to, as patterns such as ``*.internal``; no host: none.

        Everybody else gets the ``baggage`` header without our member. Raises :class:`~somaresil.errors.ConfigurationError` for a pattern
        that would mean every host.
        """
        check = Checker("chaos.pass_plans_to")
        for host in hosts:
            check.pattern("hosts", host)
            if isinstance(host, str) and not host.replace("*", "").replace(".", ""):
                check.problem("hosts", host, "a pattern with a name in it", "a plan would be told to everybody")
        check.finish()
        self._pass_to = tuple(host.lower() for host in hosts)

    # -- views ------------------------------------------------------------------------------------------------------------------------

    @property
    def approved(self) -> Mapping[str, ChaosConfig]:
        """The approved rules by name."""
        return dict(self._approved)

    @property
    def runs(self) -> tuple[RequestRun, ...]:
        """What plans in flight have armed."""
        return tuple(run for plan in self._in_flight for run in plan.runs)

    @property
    def in_flight(self) -> int:
        """How many plans are in flight."""
        return len(self._in_flight)

    def counts(self) -> dict[str, int]:
        """How many plans were accepted, and ignored by reason."""
        with self._lock:
            return dict(self._counts)

    # -- signing ----------------------------------------------------------------------------------------------------------------------

    def sign_plan(
        self,
        rules: Iterable[str] | Mapping[str, Lower | Mapping[str, float]],
        *,
        ttl: float | timedelta = 60.0,
        uses: int | None = None,
        audience: str | None = None,
        starts_in: float | timedelta = 0.0,
        nonce: str | None = None,
    ) -> str:
        """Sign a plan with the keys of :meth:`accept_plans`; it is sent as ``baggage: somaresil.chaos=TEXT``.

        ``rules`` are names of approved rules, or a dictionary that says how far each is lowered: ``{"slow-llm": {"rate": 0.5}}``. It is
        good for ``ttl`` whole seconds, for ``uses`` requests to the service on each host (None: any number; where the kill switch of the
        host is off, to each process), and for ``audience`` (None: our own). The
        same ``nonce`` (None: a new one) decides alike again.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        check = Checker("chaos.sign_plan")
        terms = self._terms
        if terms is None:
            check.problem("keys", None, "keys to sign with", "chaos.accept_plans(keys) first")
        seconds = check.seconds("ttl", ttl, minimum=1.0, exclusive=False, maximum=float(LONGEST))
        ahead = check.seconds("starts_in", starts_in, exclusive=False, maximum=float(LONGEST))
        if isinstance(rules, str) or not isinstance(rules, Iterable):
            check.problem("rules", rules, "names of rules", "a list, also for a single one")
        named: Mapping[str, Any] = rules if isinstance(rules, Mapping) else {} if check.problems else dict.fromkeys(rules, Lower())
        lowered = {name: read_lower(check.child(f"rules.{name}"), lower) for name, lower in named.items()}
        check.finish()
        if terms is None:
            raise KeyError("keys")
        begins = int(self._clock.time() + ahead)
        plan = RequestPlan(
            terms.audience if audience is None else audience, lowered, begins, begins + int(seconds), nonce or new_nonce(), uses
        )
        return sign(plan, terms.keys)

    def signed_child(self, plan: RequestPlan, *parts: object) -> str:
        """A single use of ``plan`` for somebody else, signed here."""
        terms = self._terms
        if terms is None:
            raise PlanRefused("stopped")
        try:
            return sign(plan.child(self._engine.place.instance, *parts), terms.keys)
        except ConfigurationError:
            # It was as large as a plan may be, and its child has a longer nonce.
            raise PlanRefused("oversized") from None

    # -- arriving ---------------------------------------------------------------------------------------------------------------------

    def arriving(self, headers: Iterable[bytes | str], paths: Iterable[str] = ()) -> PlanInFlight | None:
        """The plan that the ``baggage`` of a request brings, counted as one use; None: none, or one that is ignored.

        ``paths`` are those of the request. A plan of ours that is in flight in this context goes before what the header says: the
        request was seen already.
        """
        flight = current()
        if flight is not None and flight.belongs_to(self):
            return None
        try:
            text = baggage.find(headers)
            if text is not None and any(self._engine.is_protected(path) for path in paths):
                self._ignore("protected")
                return None
            return None if text is None else self._taken(text)
        except (BaggageRefused, PlanRefused) as refused:
            self._ignore(refused.reason)
            return None

    def carried(self, text: str | bytes | None) -> PlanInFlight | None:
        """The plan in a text that :meth:`carry` gave; None: none, or one that is ignored."""
        if not text:
            return None
        try:
            # What is no ASCII is refused there, in whatever letters it comes.
            return self._taken(text.decode("latin-1") if isinstance(text, bytes) else text)
        except PlanRefused as refused:
            self._ignore(refused.reason)
            return None

    def _taken(self, text: str) -> PlanInFlight:
        terms = self._terms
        if self.stopped or terms is None:
            raise PlanRefused("stopped")
        plan = verify(text, terms.keys, audience=terms.audience, now=self._clock.time(), longest=terms.longest, leeway=terms.leeway)
        if not self._engine.permits():
            raise PlanRefused("not_permitted")
        if self.stopped:
            # Found out just now: another process has pulled it.
            raise PlanRefused("stopped")
        approved = self._approved
        if unknown := sum(name not in approved for name in plan.rules):
            self._count(UNKNOWN_RULE, unknown)
        if unknown == len(plan.rules):
            raise PlanRefused("nothing_approved")
        if len(self._in_flight) >= terms.most_in_flight:
            # Requests that hang, and those whose process was forked away, hold a place no longer than their plan lasts.
            for flight in self._in_flight:
                if all(run.over for run in flight.runs):
                    self.end(flight)
            if len(self._in_flight) >= terms.most_in_flight:
                raise PlanRefused("busy")
        now = self._clock.monotonic()
        use = self._nonces.use(plan.nonce, plan.uses, now, now + terms.longest + 2 * terms.leeway)
        if plan.uses is not None and (uses := self._uses_on_host()) is not None:
            # Here it was not used too often; elsewhere it may have been. Which use it is counts over all processes too.
            use = uses.use(plan.nonce, plan.uses, self._clock.time())
        self._count(ACCEPTED)
        self._note_use(plan, now)
        return PlanInFlight(self, plan, text, use)

    def _uses_on_host(self) -> HostUses | None:
        """Who counts uses over all processes of the host; None: nobody can."""
        switch = self._engine.safety.host
        if switch is None:
            return None
        if self._uses is None or self._uses.switch is not switch:
            self._uses = HostUses(switch)
        return self._uses

    def _note_use(self, plan: RequestPlan, now: float) -> None:
        """Tell the audit log that rules are used, each once a minute: it is for people, and plans may come with every request."""
        for name in plan.rules:
            if name not in self._approved:
                continue
            with self._lock:
                last, number = self._used.get(name, (float("-inf"), 0))
                told = now - last >= _QUIET_SECONDS
                self._used[name] = (now, 0) if told else (last, number + 1)
            if told:
                before = f", and {number} more since the last entry" if number else ""
                self._engine.audit.note("use", f"by a request plan{before}", experiment=name, who=f"key {plan.kid}")

    def begin(self, flight: PlanInFlight) -> None:
        """Arm what it names. Never raises: a defect is reported once, and then nothing of the plan stays armed."""
        try:
            flight.runs = self._runs_of(flight)
            with self._lock:
                flight.active = not self.stopped
                if flight.active:
                    self._in_flight = (*self._in_flight, flight)
            for run in flight.runs if flight.active else ():
                self._engine.place_run(run)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._listeners.defect("arming a request plan", defect, self._clock.time(), "the request went on without it")
            self.end(flight)

    def _runs_of(self, flight: PlanInFlight) -> tuple[RequestRun, ...]:
        plan, approved = flight.plan, self._approved
        chance = Chance(plan.nonce)
        remaining = plan.expires - self._clock.time()
        runs = []
        for name, lower in plan.rules.items():
            if name in approved and remaining > 0.0:
                config = self._lowered(approved[name], lower, remaining)
                # By the number of the use, so that a plan of many uses does not strike all of its requests alike.
                run = self._engine.request_run(f"{name}@{plan.nonce}", config, chance, f"request.{name}.{flight.use}")
                run.flight, run.name, run.longest_delay = flight, name, self._longest(lower)
                runs.append(run)
        # A call that an error has ended is not delayed any more, and the order of the names in a plan says nothing.
        return tuple(sorted(runs, key=lambda run: run.config.experiment is not ChaosExperiment.LATENCY_INJECTION))

    def end(self, flight: PlanInFlight) -> None:
        """Disarm it. Calls that it delays go on. Never raises."""
        with self._lock:
            known = flight in self._in_flight
            self._in_flight = tuple(other for other in self._in_flight if other is not flight)
            flight.active = False
        try:
            for run in flight.runs:
                run.end("request over")
            if known:
                self._engine.forget_runs(flight.runs)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._listeners.defect("ending a request plan", defect, self._clock.time(), "its lease ends it")

    def stop(self, reason: str) -> None:
        """End everything in flight."""
        for run in self.runs:
            run.end(reason)

    def kill(self) -> None:
        """The kill switch: end everything in flight, and take no more plans until :meth:`accept_plans` is called again."""
        with self._lock:
            # A plan that begins at this moment either sees it or is seen.
            self.stopped = True
        self.stop("stop_all")

    def guard_added(self, guard: Guard, arm: Callable[[ExperimentRun, Guard], None]) -> None:
        """A guard was made: plans in flight strike it too."""
        for run in self.runs:
            if not run.over and not run.config.on_http:
                arm(run, guard)

    # -- carrying ---------------------------------------------------------------------------------------------------------------------

    def carry(self) -> str | None:
        """The plan of this request as text for whoever goes on with it elsewhere, in the headers of a message for example; None: none.

        Treat it as a secret until it expires: whoever has it can use it where it is meant for.
        """
        flight = self._mine()
        try:
            return None if flight is None else flight.onward("carried")
        except PlanRefused:
            return None

    @contextmanager
    def carrying(self, text: str | bytes | None) -> Generator[bool]:
        """``with``: what is done in it belongs to the plan that :meth:`carry` gave, in this process or another one.

        It is verified as one that arrives with a request, and ignored in the same way. The value is whether there is one. None is none, and
        then no other plan holds either.
        """
        flight = self.carried(text)
        if flight is None:
            # Not that of whoever happens to call: a worker that serves many must not mix them up.
            token = enter(None)
            try:
                yield False
            finally:
                leave(token)
        else:
            with flight:
                yield True

    def carry_stream(self, source: AsyncIterator[_T]) -> AsyncIterator[_T]:
        """The stream, each of whose steps belongs to the plan of this request, whoever reads it and however late.

        The body of an async generator runs in the context of its reader, which may know nothing of the request.
        """
        flight = self._mine()
        return source if flight is None else CarriedStream(source, flight)

    # -- leaving ----------------------------------------------------------------------------------------------------------------------

    def outgoing(self, host: str | None, header: str | None) -> Outgoing:
        """What a request to ``host`` says in ``baggage``, where ``header`` would stand: no plan, unless the host is to have it.

        To a host that is to have it goes the plan in flight, or what stood there already. Never raises.
        """
        if host is None or not any(matches(pattern, host.lower()) for pattern in self._pass_to):
            return Outgoing(baggage.replace(header, None), None)
        flight = self._mine()
        try:
            plan = None if flight is None else flight.onward(host)
        except PlanRefused:
            return Outgoing(baggage.replace(header, None), None)
        return Outgoing(header, None) if plan is None else Outgoing(baggage.replace(header, plan), plan)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _mine(self) -> PlanInFlight | None:
        flight = current()
        return flight if flight is not None and flight.active and flight.belongs_to(self) else None

    def _longest(self, lower: Lower) -> float:
        """The most seconds that anything may be delayed by."""
        limit = float(self._engine.permission().limits.delay)  # type: ignore[arg-type]
        return limit if lower.delay is None else min(limit, lower.delay)

    def _lowered(self, config: ChaosConfig, lower: Lower, remaining: float) -> ChaosConfig:
        """The approved rule, as far as the plan, the ceilings of the moment and the end of the plan leave it."""
        limits = self._engine.permission().limits
        lowered = copy.copy(config)
        limit = float(limits.delay)  # type: ignore[arg-type]
        delay = config.delay_seconds
        # Each is a number that was checked, or less than one; to check them all again would cost more than the rest of the plan.
        values = {
            "failure_rate": min(config.failure_rate, limits.rate, 1.0 if lower.rate is None else lower.rate),
            # What is drawn from a shape is lowered when it is drawn (RequestRun.delay).
            "delay_seconds": min(delay, limit, delay if lower.delay is None else lower.delay) if isinstance(delay, int | float) else delay,
            "duration_seconds": min(
                float(config.duration_seconds),  # type: ignore[arg-type]
                float(limits.duration),  # type: ignore[arg-type]
                remaining,
                remaining if lower.duration is None else lower.duration,
            ),
        }
        for name, value in values.items():
            object.__setattr__(lowered, name, value)
        return lowered

    def _count(self, result: str, number: int = 1) -> None:
        with self._lock:
            self._counts[result] = self._counts.get(result, 0) + number

    def _ignore(self, reason: str) -> None:
        """Count a plan that is ignored; say so once a minute for each reason, for anybody may send what he likes as often as he likes."""
        now = self._clock.monotonic()
        with self._lock:
            self._counts[reason] = self._counts.get(reason, 0) + 1
            last, unsaid = self._said.get(reason, (None, 0))
            says = last is None or now - last >= _QUIET_SECONDS
            self._said[reason] = (now, 0) if says else (last, unsaid + 1)  # type: ignore[assignment]
        if not says:
            return
        _log.warning("request plans are ignored: %s (%d times since it was last said)", reason, unsaid + 1)
        if self._listeners.wants(PlanIgnored):
            self._listeners.emit(PlanIgnored(reason, unsaid + 1, self._clock.time()))
