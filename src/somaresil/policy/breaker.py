"""Circuit breaker: stop calling what is failing, and find out gently when it is back.

It judges by a window over time or over the last calls, by failure rate, slow-call rate or failures in a row. The quiet path does not
tell it about successes: it reads them from the guard's recorder when a failure makes it look.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from somaresil.callwindow import CallWindow
from somaresil.config import Checker
from somaresil.errors import CircuitOpen, describe
from somaresil.events import BreakerChanged
from somaresil.model.breaker import NOTHING_SEEN, Breaker, Permit, State, Tally, Thresholds, Transition, Trigger
from somaresil.outcome import Outcome
from somaresil.runtime import original
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from somaresil.site import Site
    from somaresil.typing import Call, Next

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
    """How many probes decide. No more are ever let through at once."""
    probe_timeout: float | timedelta = 30.0
    """After how long a hung probe's place is given to another."""

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
        check.count("half_open_calls", self.half_open_calls, maximum=1_000)
        keep(self, "probe_timeout", check.seconds("probe_timeout", self.probe_timeout))
        check.finish()

    def build(self, site: Site) -> BreakerPolicy:
        """The breaker at work; adapters of other libraries' breakers build one of their own kind."""
        return BreakerPolicy(self, site)

    @property
    def thresholds(self) -> Thresholds:
        """What the model needs to know."""
        return Thresholds(
            failure_rate=self.failure_rate,
            slow_call_rate=self.slow_call_rate,
            consecutive_failures=self.consecutive_failures,
            minimum_calls=self.minimum_calls,
            open_duration=_as_float(self.open_duration),
            open_factor=self.open_factor,
            open_maximum=_as_float(self.open_maximum),
            open_jitter=self.open_jitter,
            half_open_calls=self.half_open_calls,
            probe_timeout=_as_float(self.probe_timeout),
        )


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
        "_slow_from",
        "_switch",
        "_u",
        "_why",
        "_window",
        "last_error",
        "name",
        "options",
        "refusals",
        "refuse_until",
    )
    rejection: ClassVar[type[CircuitOpen]] = CircuitOpen
    """What a call is refused with."""
    refusals: Iterator[object]
    """Its ``next`` counts a call that :meth:`refusal` refused. There when it first opens."""

    def __init__(self, options: CircuitBreaker, site: Site) -> None:
        """Start closed. ``site.recorder.bounds`` must contain ``options.slow_call_duration``."""
        self.name = site.name
        self._recorder = site.recorder
        self._switch = site.recorder.switch
        self._clock = site.clock
        self._listeners = site.listeners
        self._draws = site.chance.sequence("breaker.open_jitter", site.name)
        self._u = self._draws.next()
        self._lock = threading.RLock()
        self.last_error: str | None = None
        """Type and message of the error that opened it."""
        self._injected = False
        self._entered: dict[State, int] = {}
        self.refuse_until = float("-inf")
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
        """How often it has moved into each state since it was made."""
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
        if call.replayed is not None:
            permit, started = Permit(call.era, None), call.started
        else:
            try:
                permit = self.admit()
            except CircuitOpen as rejection:
                call.injected = call.injected or rejection.injected
                raise
            started = self._clock.monotonic()
        try:
            result = await inner(call)
        except BaseException as error:
            now = self._clock.monotonic()
            self.settle(permit, call.judge(None, error), now - started, now, original(error), injected=call.injected)
            raise
        if call.lasting:
            call.at_end(lambda outcome, now: self.settle(permit, outcome, now - started, now, injected=call.injected))
        else:
            now = self._clock.monotonic()
            self.settle(permit, call.judge(result, None), now - started, now, injected=call.injected)
        return result

    def refusal(self, now: float) -> CircuitOpen | None:
        """A rejection when the circuit is open at time ``now`` and stays so; None: ask :meth:`admit`. Takes no lock."""
        wait = self.refuse_until - now
        return None if wait <= 0.0 else self.refused(wait)

    def refused(self, wait: float) -> CircuitOpen:
        """The rejection of a call that came ``wait`` seconds before :attr:`refuse_until`."""
        return self.rejection(self.name, None if wait == _FOREVER else wait, self._why, self.last_error, self._injected)

    def admit(self) -> Permit:
        """Leave to call, to be settled; raises :class:`~somaresil.errors.CircuitOpen`."""
        now = self._clock.monotonic()
        try:
            with self._lock:
                permit, transition = self._model.admit(now)
                if transition is not None:
                    self._moved(transition, now)
                retry_after = self._model.retry_after(now) if permit is None else None
            if transition is not None:
                self._tell(transition, now)
        except Exception as defect:  # noqa: BLE001 - fail open: a defect of ours must not keep a call from its dependency
            self._listeners.defect(f"breaker of guard {self.name}", defect, self._clock.time())
            return _NO_SAY
        if permit is None:
            raise self.rejection(self.name, retry_after, self._why, self.last_error, self._injected)
        return permit

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        elapsed: float,
        now: float,
        error: BaseException | None = None,
        *,
        injected: bool = False,
    ) -> None:
        """Say how a permitted call ended. Only good and bad are verdicts; anything else gives the permit back. Never raises.

        ``injected``: an experiment has touched the call. A circuit that such a call opens was opened by the experiment, and what follows
        from that (rejections, the incident) is marked as the experiment's too.
        """
        try:
            with self._lock:
                if outcome is not Outcome.GOOD and outcome is not Outcome.BAD:
                    self._model.cancel(permit)
                    return
                if permit.era != self._model.era:
                    return
                failed = outcome is Outcome.BAD
                slow = self._slow_from is not None and elapsed > self._slow_from
                tally = self._note(now, failed=failed, slow=slow)
                transition = self._model.settle(permit, failed=failed, slow=slow, now=now, tally=tally, u=self._u)
                if transition is not None:
                    self._injected = injected and transition.after is State.OPEN
                    self._moved(transition, now)
            if transition is not None:
                if transition.after is State.OPEN:
                    self.last_error = None if error is None else describe(error)
                self._tell(transition, now)
        except Exception as defect:  # noqa: BLE001 - the caller gets its result or its own error whatever happens to our books
            self._listeners.defect(f"breaker of guard {self.name}", defect, self._clock.time())

    # -- controls ---------------------------------------------------------------------------------------------------------------------

    def trip(self, duration: float | None = None, *, injected: bool = False) -> int:
        """Open for ``duration`` seconds (default: ``open_duration``) and return the era that begins.

        Never waits for a call. Raises :class:`~somaresil.model.breaker.IllegalTransition` when it is forced open, disabled or only
        watching.
        """
        now = self._clock.monotonic()
        with self._lock:
            transition = self._model.trip(now, self._model.thresholds.open_duration if duration is None else duration)
            self._injected = injected
            self._first_failure = now
            self._moved(transition, now)
        self.last_error = None
        self._tell(transition, now)
        return transition.era

    def release(self, era: int) -> None:
        """End the opening that :meth:`trip` began, if it still lasts: the next call is a probe."""
        now = self._clock.monotonic()
        with self._lock:
            if self._model.era == era and self._model.state is State.OPEN:
                self._model.cut_short(now)
                self.refuse_until = self._model.open_until

    def control(self, trigger: Trigger) -> None:
        """Force open, disable, observe or reset."""
        now = self._clock.monotonic()
        with self._lock:
            transition = self._model.control(trigger)
            self._injected = False
            self._first_failure = now
            self._moved(transition, now)
        self.last_error = None
        self._tell(transition, now)

    def reconfigure(self, options: CircuitBreaker) -> None:
        """Use other options from now on; state and era stay, the window starts anew, and so does the count of probes."""
        now = self._clock.monotonic()
        with self._lock:
            self._apply(options)
            self._model.reconfigure(options.thresholds)
            self._restart(now)

    def redraw(self) -> None:
        """Draw the jitter of the next opening anew."""
        self._u = self._draws.next()

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
        self._watch_slow()
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
        self._slow_from = None if options.slow_call_duration is None else _as_float(options.slow_call_duration)
        self._watch_slow()

    def _watch_slow(self) -> None:
        """A quiet call that was slow must be seen: put an iterator of our own in the place of the cells above the threshold."""
        for bucket, counter in enumerate(self._recorder.quiet_counters):
            lower = self._recorder.bounds[bucket - 1] if bucket else 0.0
            watched = self._slow_from is not None and lower >= self._slow_from
            self._recorder.cells[bucket] = self._slow_call(bucket) if watched else counter

    def _slow_call(self, bucket: int) -> Iterator[object]:
        bounds = self._recorder.bounds
        elapsed = bounds[bucket] if bucket < len(bounds) else _FOREVER

        def count() -> None:
            try:
                self._recorder.add(Outcome.GOOD, elapsed)
            except Exception as defect:  # noqa: BLE001 - the quiet path has no net of its own
                self._listeners.defect(f"counting a slow call of guard {self.name}", defect, self._clock.time())
            self.settle(Permit(self._switch.era, None), Outcome.GOOD, elapsed, self._clock.monotonic())

        # An iterator that calls each time and never ends: what it gives is never the sentinel.
        return iter(count, _NEVER)

    def _restart(self, now: float) -> None:
        """Begin an empty window."""
        options = self.options
        self._window = CallWindow(self._recorder, _as_float(options.window), options.window_calls, now)
        self._switch.due = float("-inf")

    def _note(self, now: float, *, failed: bool, slow: bool) -> Tally:
        """Take a call that was not counted by the quiet path into the window."""
        state = self._model.state
        if state is not State.CLOSED and state is not State.METRICS_ONLY:
            return NOTHING_SEEN
        tally = self._window.note(now, failed=failed, slow=slow)
        if failed or slow:
            self._first_failure = self._window.first_failure
        return tally

    def _moved(self, transition: Transition, now: float) -> None:
        """Bring switch and window in line with the new state."""
        # The state now, not the one that the step led to: the lock may have been entered a second time meanwhile (see Recorder).
        after = self._model.state
        self._entered[transition.after] = self._entered.get(transition.after, 0) + 1
        if after is State.CLOSED or after is State.METRICS_ONLY:
            self._restart(now)
        if after is State.OPEN or after is State.FORCED_OPEN:
            # Before anybody can be refused.
            self.refusals = self._recorder.refusals
        if after is State.OPEN:
            self._u = self._draws.next()
            self.refuse_until = self._model.open_until
            self._why = _reason(transition)
        else:
            self.refuse_until = _FOREVER if after is State.FORCED_OPEN else float("-inf")
            if after is State.FORCED_OPEN:
                self._why = "forced open by an operator"
        self._switch.era = self._model.era
        self._switch.hold("breaker", after is not State.CLOSED)

    # -- inside, with no lock held ----------------------------------------------------------------------------------------------------

    def _tell(self, transition: Transition, now: float) -> None:
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
            )
        )


_FOREVER = float("inf")
_NEVER = object()
_NO_SAY = Permit(0, None)
"""Leave to call in an era that never was: what comes of the call changes nothing."""


def _reason(transition: Transition) -> str:
    tally = transition.tally
    if transition.trigger is Trigger.TRIP:
        return "tripped for a while"
    where = "probes" if transition.trigger is Trigger.RELAPSED else "calls"
    slow = f", {tally.slow} slow" if tally.slow else ""
    return f"{tally.failures} of {tally.calls} {where} failed{slow}"


def _as_float(value: float | timedelta | None) -> float:
    # Durations were turned into seconds when the options were made; this is for the type checker's sake and costs nothing worth naming.
    return value if isinstance(value, float) else float(value)  # type: ignore[arg-type]
