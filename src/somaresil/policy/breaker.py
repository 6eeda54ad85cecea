"""Circuit breaker: stop calling what is failing, and find out gently when it is back.

It judges by a window over time or over the last calls, by failure rate, slow-call rate or failures in a row. The quiet path does not
tell it about successes: it reads them from the guard's recorder when a failure makes it look.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from somaresil.callwindow import CallWindow, watch_slow
from somaresil.config import Checker
from somaresil.errors import CircuitOpen, describe
from somaresil.events import BreakerChanged
from somaresil.model.breaker import NOTHING_SEEN, Breaker, Permit, State, Tally, Thresholds, Transition, Trigger
from somaresil.model.why import why
from somaresil.outcome import Outcome
from somaresil.retryafter import asked_or_none
from somaresil.runtime import original
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from somaresil.guard.keyed import KeyedBreakers
    from somaresil.outcome import Fatal
    from somaresil.site import Site
    from somaresil.typing import Call, Coordinator, Next

__all__ = ["BreakerPolicy", "CircuitBreaker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """When a circuit opens and how it closes again. Durations are seconds, as a number or a ``timedelta``.

    The defaults lie between those of resilience4j (100 calls at least, 60 s open) and Polly (10 % of 100 calls in 30 s, 5 s open): a
    dependency of an agent gets tens of calls a minute, not thousands.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    failure_rate: float | None = 0.5
    """Open when this share of the calls in the window failed; in (0, 1], None to look at failures in a row only."""
    slow_call_rate: float | None = None
    """Open when this share of the calls took longer than ``slow_call_duration``."""
    slow_call_duration: float | timedelta | None = None
    """From which duration on a call is slow."""
    consecutive_failures: int | None = None
    """Open after so many failures in a row, however few calls there were."""
    window: float | timedelta = 30.0
    """How far back to look."""
    window_calls: int | None = None
    """Look at so many calls instead of at a time."""
    minimum_calls: int = 20
    """Judge rates only when the window holds so many calls."""
    open_duration: float | timedelta = 30.0
    """How long the first opening lasts."""
    open_factor: float = 2.0
    """How many times longer each further opening lasts when the probes fail."""
    open_maximum: float | timedelta | None = None
    """The longest opening; None: four times ``open_duration``."""
    open_jitter: float = 0.1
    """Share by which an opening is longer or shorter, drawn once for each opening, so that a fleet does not probe in step."""
    half_open_calls: int = 3
    """How many probes decide."""
    half_open_concurrency: int | None = None
    """How many probes may be under way at once; None: all of them."""
    probe_timeout: float | timedelta = 30.0
    """After how long a hung probe's place is given to another."""
    ramp_up: float | timedelta = 0.0
    """How long it takes after good probes until all calls pass again: the share grows evenly. 0: all of them at once."""
    ramp_up_from: float = 0.1
    """The share with which the ramp begins."""
    max_retry_after: float | timedelta | None = 300.0
    """A failing answer that asks for it (``Retry-After``) makes the opening at least so long as it asks, and at most this.

    None: what it asks for is not looked at.
    """
    max_keys: int = 1_000
    """How many keys may have a circuit of their own (:meth:`Guard.keyed`). The one used longest ago makes room if it is closed."""
    per_key = True
    """Whether such options may build a breaker for each key of a guard."""
    shadow: bool = False
    """Judge, open, probe and close as in earnest, and refuse nothing: what would have been refused is counted."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("CircuitBreaker")
        keep = object.__setattr__
        if self.failure_rate is not None:
            keep(self, "failure_rate", check.ratio("failure_rate", self.failure_rate, allow_zero=False))
        if self.slow_call_rate is not None:
            keep(self, "slow_call_rate", check.ratio("slow_call_rate", self.slow_call_rate, allow_zero=False))
        keep(self, "slow_call_duration", check.seconds("slow_call_duration", self.slow_call_duration, optional=True))
        if (self.slow_call_rate is None) != (self.slow_call_duration is None):
            missing = "slow_call_duration" if self.slow_call_duration is None else "slow_call_rate"
            check.problem(missing, None, "a value", "slow_call_rate and slow_call_duration go together")
        check.count("consecutive_failures", self.consecutive_failures, optional=True)
        if self.failure_rate is None and self.slow_call_rate is None and self.consecutive_failures is None:
            check.problem(
                "failure_rate", None, "at least one of failure_rate, slow_call_rate, consecutive_failures", "nothing would open it"
            )
        keep(self, "window", check.seconds("window", self.window, maximum=86_400.0))
        # What goes together is looked at only when each of the two is right by itself: one mistake is one problem.
        found = len(check.problems)
        check.count("window_calls", self.window_calls, maximum=100_000, optional=True)
        check.count("minimum_calls", self.minimum_calls)
        if len(check.problems) == found and self.window_calls is not None and self.minimum_calls > self.window_calls:
            check.problem(
                "minimum_calls", self.minimum_calls, f"at most window_calls ({self.window_calls})", "the breaker could never open"
            )
        found = len(check.problems)
        keep(self, "open_duration", check.seconds("open_duration", self.open_duration))
        maximum = check.seconds("open_maximum", self.open_maximum, optional=True)
        keep(self, "open_maximum", 4.0 * _as_float(self.open_duration) if maximum is None else maximum)
        if len(check.problems) == found and _as_float(self.open_maximum) < _as_float(self.open_duration):
            check.problem("open_maximum", self.open_maximum, f"at least open_duration ({self.open_duration})")
        keep(self, "open_factor", check.number("open_factor", self.open_factor, minimum=1.0, maximum=10.0))
        keep(self, "open_jitter", check.ratio("open_jitter", self.open_jitter))
        found = len(check.problems)
        check.count("half_open_calls", self.half_open_calls, maximum=1_000)
        at_once = check.count("half_open_concurrency", self.half_open_concurrency, maximum=1_000, optional=True)
        if len(check.problems) == found and at_once is not None and at_once > self.half_open_calls:
            check.problem("half_open_concurrency", at_once, f"at most half_open_calls ({self.half_open_calls})", "there are no more probes")
        keep(self, "probe_timeout", check.seconds("probe_timeout", self.probe_timeout))
        keep(self, "ramp_up", check.seconds("ramp_up", self.ramp_up, exclusive=False, maximum=86_400.0))
        keep(self, "ramp_up_from", check.ratio("ramp_up_from", self.ramp_up_from, allow_zero=False))
        keep(self, "max_retry_after", check.seconds("max_retry_after", self.max_retry_after, optional=True, maximum=86_400.0))
        check.count("max_keys", self.max_keys, maximum=100_000)
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def build(self, site: Site) -> BreakerPolicy:
        """The breaker at work; adapters of other libraries' breakers build one of their own kind."""
        return BreakerPolicy(self, site)

    @property
    def thresholds(self) -> Thresholds:
        """What the model needs to know: those of its fields are options of the same name."""
        given = {field.name: getattr(self, field.name) for field in fields(Thresholds)}
        return Thresholds(**given | {"half_open_concurrency": self.half_open_concurrency or self.half_open_calls})


class BreakerPolicy:
    """One breaker at work. Safe to use from any number of threads and tasks; its lock is never held across a call.

    It is a view on the recorder: quiet calls are counted there and read here. Locks are taken in the order breaker, recorder, switch.
    """

    __slots__ = (
        "_clock",
        "_draws",
        "_entered",
        "_first_failure",
        "_injected",
        "_listeners",
        "_lock",
        "_model",
        "_recorder",
        "_site",
        "_slow_from",
        "_switch",
        "_u",
        "_why",
        "_window",
        "commanded",
        "coordinator",
        "key",
        "keys",
        "last_error",
        "name",
        "options",
        "refusals",
        "refuse_until",
    )
    rejection: ClassVar[type[CircuitOpen]] = CircuitOpen
    """What a call is refused with."""
    refusals: Iterator[object]
    """Its ``next`` counts a call that :meth:`refused` refused. There when it first opens."""

    def __init__(self, options: CircuitBreaker, site: Site) -> None:
        """Start closed. ``site.recorder.bounds`` must contain ``options.slow_call_duration``, if calls may be quiet there."""
        self.name = site.name
        self.key = site.key
        self.keys: KeyedBreakers | None = None
        """The circuits of the keys of its guard, if there are any."""
        self._recorder = site.recorder
        self._switch = site.recorder.switch
        self._clock = site.clock
        self._listeners = site.listeners
        self._site = site
        self._draws = site.chance.sequence("breaker.open_jitter", site.name if site.key is None else f"{site.name}#{site.key}")
        self._u = self._draws.next()
        self._lock = threading.RLock()
        self.coordinator: Coordinator | None = None
        """Who moves it together with those of other processes, if anybody does."""
        self.last_error: str | None = None
        """Type and message of the error that opened it."""
        self.commanded = False
        """Whether a person or an experiment has moved it, and it has not closed since."""
        self._injected = False
        self._entered: dict[State, int] = {}
        self.refuse_until = _LONG_AGO
        """Monotonic time until which every call is refused; only the first call after it asks the model."""
        self._why = ""
        self._first_failure = 0.0
        self._slow_from: float | None = None
        self._apply(options)
        self._model = Breaker(options.thresholds)
        # A breaker that is given to a guard later goes on in the era where an earlier one has left off, for quiet calls carry that number.
        self._model.era = self._switch.era
        self._restart(site.clock.monotonic())
        site.recorder.attach(self)

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state now. An open breaker turns half-open when the first caller asks after its time, not before."""
        return self._model.state

    @property
    def era(self) -> int:
        """Which era it is; each transition starts a new one."""
        return self._model.era

    def transitions(self) -> dict[State, int]:
        """How often it has moved into each state since it was made, shadow mode apart."""
        with self._lock:
            return {state: self._entered.get(state, 0) for state in State}

    def tally(self) -> Tally:
        """What the window shows now."""
        now = self._clock.monotonic()
        with self._lock:
            return self._window.look(now)

    def retry_after(self) -> float | None:
        """Seconds until a call may be let through; None while forced open."""
        now = self._clock.monotonic()
        with self._lock:
            return self._model.retry_after(now)

    # -- on the path of a call --------------------------------------------------------------------------------------------------------

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through and judge it, or raise :class:`~somaresil.errors.CircuitOpen`."""
        if call.key is not None and self.keys is not None and not self.commanded:
            circuit = self.keys.lend(call.key)
            if circuit is not None:
                return await self.keys.through(circuit, inner, call)
        if call.replayed is not None:
            permit, started = Permit(call.era, None), call.started
        else:
            try:
                permit = self.admit()
            except CircuitOpen as rejection:
                if rejection.injected:
                    call.touch()
                raise
            started = self._clock.monotonic()
        try:
            result = await inner(call)
        except BaseException as error:
            now = self._clock.monotonic()
            outcome = call.judge(None, error)
            self.settle(permit, outcome, now - started, now, original(error), fatal=call.fatal, injected=call.injected)
            raise
        if call.lasting:
            call.at_end(lambda outcome, now: self.settle(permit, outcome, now - started, now, fatal=call.fatal, injected=call.injected))
        else:
            now = self._clock.monotonic()
            outcome = call.judge(result, None)
            self.settle(permit, outcome, now - started, now, answer=result, fatal=call.fatal, injected=call.injected)
        return result

    def refused(self, wait: float) -> CircuitOpen:
        """The rejection of a call that came ``wait`` seconds before :attr:`refuse_until`. Takes no lock."""
        return self.rejection(self.name, None if wait == _FOREVER else wait, self._why, self.last_error, self._injected)

    def admit(self) -> Permit:
        """Leave to call, to be settled; raises :class:`~somaresil.errors.CircuitOpen`."""
        now = self._clock.monotonic()
        try:
            with self._lock:
                permit, transition = self._model.admit(now) if self.coordinator is None else self.coordinator.admit(self._model, now)
                if transition is not None:
                    self._moved(transition, now)
                retry_after = self._model.retry_after(now) if permit is None else None
                detail = self._detail(now) if permit is None else ""
            if transition is not None:
                self._tell(transition, now)
            if permit is None and self.options.shadow:
                self._site.shadow.note("breaker", "reject", detail)
                return _NO_SAY
        except Exception as defect:  # noqa: BLE001 - fail open: a defect of ours must not keep a call from its dependency
            self._listeners.defect(f"breaker of guard {self.name}", defect, self._clock.time())
            return _NO_SAY
        if permit is None:
            raise self.rejection(self.name, retry_after, detail, self.last_error, self._injected)
        return permit

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        elapsed: float,
        now: float,
        error: BaseException | None = None,
        *,
        answer: object = None,
        fatal: Fatal | None = None,
        injected: bool = False,
    ) -> None:
        """Say how a permitted call ended. Only good and bad are verdicts; anything else gives the permit back. Never raises.

        ``answer``: what it returned, if it did. ``fatal``: its end opens the circuit by itself. ``injected``: an experiment has touched the
        call. A circuit that such a call opens was opened by the experiment, and what follows from that (rejections, the incident) is marked
        as the experiment's too.
        """
        try:
            with self._lock:
                if outcome is not Outcome.GOOD and outcome is not Outcome.BAD:
                    self._model.cancel(permit)
                    if self.coordinator is not None:
                        self.coordinator.settled(permit, now, None)
                    return
                if permit.era != self._model.era:
                    return
                failed = outcome is Outcome.BAD
                slow = self._slow_from is not None and elapsed > self._slow_from
                tally = self._note(now, failed=failed, slow=slow)
                ended: dict[str, Any] = {"now": now, "tally": tally, "u": self._u}
                if fatal is not None:
                    ended |= {"fatal": failed, "open_for": fatal.duration}
                transition = self._model.settle(permit, failed=failed, slow=slow, **ended)
                if self.coordinator is not None:
                    self.coordinator.settled(permit, now, outcome, slow=slow)
                unopened = (failed or slow) and self._model.would_open(**ended)
                if transition is not None:
                    self._injected = injected and transition.after is State.OPEN
                    self._moved(transition, now)
            if transition is not None:
                if transition.after is State.OPEN:
                    self.last_error = None if error is None else describe(error)
                    if fatal is None or fatal.duration is None:
                        transition = self._as_asked(transition, answer if error is None else error, now)
                self._tell(transition, now)
            elif unopened:
                trigger = Trigger.EXCEEDED if fatal is None else Trigger.FATAL
                self._site.shadow.note("breaker", "open", why(trigger, tally, self._model.thresholds))
        except Exception as defect:  # noqa: BLE001 - the caller gets its result or its own error whatever happens to our books
            self._listeners.defect(f"breaker of guard {self.name}", defect, self._clock.time())

    # -- controls ---------------------------------------------------------------------------------------------------------------------

    def trip(self, duration: float | None = None, *, injected: bool = False) -> int:
        """Open for ``duration`` seconds (default: ``open_duration``) and return the era that begins.

        Never waits for a call. Raises :class:`~somaresil.model.breaker.IllegalTransition` when it is forced open, disabled or only
        watching.
        """
        seconds = self._model.thresholds.open_duration if duration is None else duration
        return self._command(lambda now: self._model.trip(now, seconds), injected=injected)

    def release(self, era: int) -> None:
        """End the opening that :meth:`trip` began, if it still lasts: the next call is a probe."""
        now = self._clock.monotonic()
        with self._lock:
            if self._model.era == era and self._model.state is State.OPEN:
                self._model.cut_short(now)
                self._refuse()

    def control(self, trigger: Trigger) -> None:
        """Force open, disable, observe or reset."""
        self._command(lambda now: self._model.control(trigger))  # noqa: ARG005 - it is the same at any time
        if trigger is Trigger.RESET and self.keys is not None:
            self.keys.forget()

    def _command(self, step: Callable[[float], Transition], *, injected: bool = False) -> int:
        now = self._clock.monotonic()
        with self._lock:
            transition = step(now)
            self._injected = injected
            self._first_failure = now
            self._moved(transition, now)
        self.last_error = None
        self._tell(transition, now)
        return transition.era

    def follow(self, move: Callable[[Breaker, float, float], Transition | None]) -> None:
        """Have a coordinator look at the model, and move it: ``move(model, now, u)``, with the lock held."""
        now = self._clock.monotonic()
        with self._lock:
            transition = move(self._model, now, self._u)
            self._refuse()
            if transition is not None:
                self._injected = False
                if transition.before is State.CLOSED:
                    self._first_failure = now
                self._moved(transition, now)
        if transition is not None:
            self.last_error = None
            self._tell(transition, now)

    def reconfigure(self, options: CircuitBreaker) -> None:
        """Use other options from now on; state and era stay, the window starts anew, and so does the count of probes.

        A circuit that is not closed is closed when it comes out of the shadow or goes into it: what it does from then on begins there.
        """
        if options.shadow is not self.options.shadow and self.state not in _LETS_PASS:
            self.control(Trigger.RESET)
        now = self._clock.monotonic()
        with self._lock:
            self._apply(options)
            self._model.reconfigure(options.thresholds)
            self._restart(now)

    def redraw(self) -> None:
        """Draw the jitter of the next opening anew."""
        self._u = self._draws.next()
        if self.keys is not None:
            self.keys.redraw()

    def retire(self) -> None:
        """Let go of recorder and switch: the guard has no breaker any more."""
        with self._lock:
            closed = self.state is State.CLOSED
            if closed:
                # Calls that it has let in may still end, and retries may still begin: none of them may open it.
                self._model.control(Trigger.DISABLE)
                self._switch.era = self._model.era
        if not closed:
            # Whoever follows an incident must hear that nobody will close this circuit.
            self.control(Trigger.DISABLE)
        self._recorder.detach(self)
        self._slow_from = None
        watch_slow(self._recorder, None, self._slow_call)
        with self._lock:
            self._switch.hold("breaker", held=False)
            # Somebody may still have the controls of this breaker. What he does with them is not to reach the one that comes after it.
            self._switch = Switch()

    # -- view on the recorder ---------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """The next boundary of the time window."""
        return self._window.due

    def roll(self, now: float) -> None:
        """Note the totals at the boundaries passed."""
        with self._lock:
            self._window.roll(now)

    # -- inside, with the lock held ---------------------------------------------------------------------------------------------------

    def _apply(self, options: CircuitBreaker) -> None:
        self.options = options
        self._slow_from = options.thresholds.slow_call_duration
        watch_slow(self._recorder, self._slow_from, self._slow_call)

    def _slow_call(self, elapsed: float) -> None:
        try:
            self._recorder.add(Outcome.GOOD, elapsed)
        except Exception as defect:  # noqa: BLE001 - the quiet path has no net of its own
            self._listeners.defect(f"counting a slow call of guard {self.name}", defect, self._clock.time())
        self.settle(Permit(self._switch.era, None), Outcome.GOOD, elapsed, self._clock.monotonic())

    def _restart(self, now: float) -> None:
        """Begin an empty window."""
        options = self.options
        self._window = CallWindow(self._recorder, _as_float(options.window), options.window_calls, now)
        self._switch.due = _LONG_AGO

    def _note(self, now: float, *, failed: bool, slow: bool) -> Tally:
        """Take a call that was not counted by the quiet path into the window."""
        if self._model.state not in _JUDGES_BY_WINDOW:
            return NOTHING_SEEN
        tally = self._window.note(now, failed=failed, slow=slow)
        if failed or slow:
            self._first_failure = self._window.first_failure
        return tally

    def _moved(self, transition: Transition, now: float) -> None:
        """Bring switch and window in line with the new state."""
        # The state now, not the one that the step led to: the lock may have been entered a second time meanwhile (see Recorder).
        after = self._model.state
        if not self.options.shadow:
            self._entered[transition.after] = self._entered.get(transition.after, 0) + 1
        self.commanded = after is not State.CLOSED and (self.commanded or transition.trigger in _COMMANDS)
        # What was seen while it ramped up is the beginning of what is seen when it has recovered.
        if after in _JUDGES_BY_WINDOW and (transition.before, transition.trigger) != (State.RAMPING, Trigger.RECOVERED):
            self._restart(now)
        if after is State.OPEN or after is State.FORCED_OPEN:
            # Before anybody can be refused.
            self.refusals = self._recorder.refusals
            self._why = why(transition.trigger, transition.tally, self._model.thresholds)
        if after is State.OPEN:
            self._u = self._draws.next()
        self._refuse()
        self._switch.era = self._model.era
        self._switch.hold("breaker", after is not State.CLOSED)
        if self.coordinator is not None:
            self.coordinator.moved(self._model, transition, injected=self._injected)

    def _refuse(self) -> None:
        """Have calls refused at once for as long as the state wants it; in the shadow nothing is refused."""
        state = self._model.state
        until = self._model.open_until if state is State.OPEN else _FOREVER if state is State.FORCED_OPEN else _LONG_AGO
        self.refuse_until = _LONG_AGO if self.options.shadow else until

    def _detail(self, now: float) -> str:
        """Why a call is refused now."""
        state = self._model.state
        if state is State.RAMPING:
            return f"ramping up: {100.0 * self._model.share(now):.0f} %"
        return f"being probed; {self._why}" if state is State.HALF_OPEN else self._why

    # -- inside, with no lock held ----------------------------------------------------------------------------------------------------

    def _as_asked(self, transition: Transition, answer: object, now: float) -> Transition:
        """Let an opening last as long as the failing answer asks, and a little longer, so that a fleet does not come back in step.

        Looked at with no lock held: what is asked may be a property of somebody's exception.
        """
        longest = self.options.max_retry_after
        asked = None if longest is None else asked_or_none(answer, self._site)
        if not asked or transition.open_until is None:
            return transition
        until = now + min(asked, _as_float(longest)) * (1.0 + self.options.open_jitter * self._draws.next())
        if until <= transition.open_until:
            return transition
        with self._lock:
            if self._model.era == transition.era:
                self._model.prolong(transition.era, until)
                self._why = f"{self._why}; asked to be left alone for {asked:.3g} s"
                self._refuse()
                if self.coordinator is not None:
                    self.coordinator.prolonged(self._model)
        return transition._replace(open_until=until)

    def _tell(self, transition: Transition, now: float) -> None:
        if self.options.shadow and transition.after is State.OPEN:
            self._site.shadow.note("breaker", "open", self._why)
        if not self._listeners.wants(BreakerChanged):
            return
        wall = self._clock.time()
        tally = transition.tally
        self._listeners.emit(
            BreakerChanged(
                guard=self.name,
                at=wall,
                before=transition.before.value,
                after=transition.after.value,
                cause=transition.trigger.value,
                calls=tally.calls,
                failures=tally.failures,
                slow=tally.slow,
                first_failure_at=wall - (now - self._first_failure),
                open_duration=None if transition.open_until is None else transition.open_until - now,
                last_error=self.last_error,
                injected=self._injected,
                era=transition.era,
                shadow=self.options.shadow,
                key=self.key,
            )
        )


_FOREVER = float("inf")
_LONG_AGO = float("-inf")
_LETS_PASS = frozenset({State.CLOSED, State.DISABLED, State.METRICS_ONLY})
_JUDGES_BY_WINDOW = frozenset({State.CLOSED, State.RAMPING, State.METRICS_ONLY})
_COMMANDS = frozenset({Trigger.TRIP, Trigger.FORCE_OPEN, Trigger.DISABLE, Trigger.OBSERVE})
_NO_SAY = Permit(0, None)
"""Leave to call in an era that never was: what comes of the call changes nothing."""


def _as_float(value: float | timedelta | None) -> float:
    # Durations were turned into seconds when the options were made; this is for the type checker's sake and costs nothing worth naming.
    return value if isinstance(value, float) else float(value)  # type: ignore[arg-type]
