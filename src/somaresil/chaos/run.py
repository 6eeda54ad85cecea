"""An armed experiment: a lease that ends by itself, and the rule that decides call by call.

Nothing has to be undone when it ends. Whether it still runs is asked at every call, of a flag and a monotonic deadline, so it ends in
time with the event loop blocked, after Ctrl-C, and without ``atexit`` (which runs only after the executor threads were joined: measured
3.1 s late).
"""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil import callpath
from somaresil.chaos.answers import LostReply, StreamEnd
from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.chaos.split import Side
from somaresil.events import ExperimentEnded, ExperimentStarted, FaultInjected
from somaresil.model.breaker import IllegalTransition, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.chance import Chance
    from somaresil.chaos.split import Split
    from somaresil.events import Listeners
    from somaresil.guard import Guard
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Aftermath, Clock

__all__ = ["ExperimentRun", "Hit", "Numbers", "Rule", "Tracker", "TripRule", "trip"]

USED_UP: Final = "used up"

_MOST_SEQUENCES: Final = 10_000
"""Scopes and paths that have numbers of their own in one experiment; what comes later shares those of its component."""


class Hit(NamedTuple):
    """What a struck call gets."""

    delay: float = 0.0
    error: BaseException | None = None
    status: int | None = None
    cut_after: int | None = None
    after: Aftermath | None = None


class ExperimentRun:
    """One experiment on its way. Returned by :meth:`ChaosEngine.start`."""

    def __init__(
        self,
        identity: str,
        config: ChaosConfig,
        *,
        selected: bool,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
        now: float | None = None,
        starts_in: float = 0.0,
        draws: str | None = None,
        seen: Callable[[str], object] | None = None,
    ) -> None:
        """Begin the lease ``starts_in`` seconds after ``now`` on the monotonic clock (None: its reading).

        ``selected``: whether this process lies inside the blast radius.

        ``draws`` names the rule by which it draws; None: by its id. The windows of a plan draw by their place in the plan, so that a plan
        decides alike whatever was started before it. ``seen`` is told the path of every call that comes by, and nothing is struck then.
        """
        self.id = identity
        self.config = config
        self.selected = selected
        """Whether this process takes part."""
        self.started_at = clock.time() + starts_in
        self._clock = clock
        self._listeners = listeners
        self._chance = chance
        self._draws = f"chaos.{identity}" if draws is None else draws
        self._begin = (clock.monotonic() if now is None else now) + starts_in
        self._deadline = self._begin + float(config.duration_seconds)  # type: ignore[arg-type]
        self.begun = False
        """Whether its time has come, as far as anybody has looked."""
        self._requests = Numbers("")
        self._seen = seen
        self.split: Split | None = None
        """Strikes the experiment group of this split alone; None: whatever comes by."""
        self._lock = threading.RLock()
        self._last_strike: float | None = None
        """When it was used up: from then on it strikes nothing."""
        self._ended: str | None = None if selected else "outside the blast radius"
        self._halted = not selected
        """Calls that are being delayed go on. Not so when the last strike was made: that call still gets its delay."""
        self._waiters: set[Waiter] = set()
        self._release: list[Callable[[], None]] = []
        self._armed: set[str] = set()
        self.injected = 0
        """How many calls were struck so far."""
        self._struck: dict[str, int] = {}

    def __repr__(self) -> str:
        """What it does to whom, and how it stands."""
        state = self._ended or (f"{self.remaining:.3g} s left" if self.live else "not begun")
        return f"<ExperimentRun {self.id} on {self.config.target_component!r}: {self.injected} struck, {state}>"

    # -- lease ------------------------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it runs. Ends the lease when its time is over."""
        if self._ended is not None:
            return False
        now = self._clock.monotonic()
        if now < self._begin:
            return False
        if not self.begun:
            self._tell_begin()
        if now >= self._deadline:
            self.end("expired")
            return False
        return True

    @property
    def over(self) -> bool:
        """Whether it has ended; False before it begins."""
        return not self.live and self._ended is not None

    @property
    def tracks(self) -> bool:
        """Whether it strikes nothing and only tells what comes by."""
        return self._seen is not None

    @property
    def span(self) -> tuple[float, float]:
        """Monotonic times at which its lease begins and ends; when it was ended before its time, that."""
        return self._begin, self._deadline if self._last_strike is None else self._last_strike

    @property
    def remaining(self) -> float:
        """Seconds until it ends by itself; all of its time before it begins."""
        return max(0.0, self._deadline - max(self._begin, self._clock.monotonic())) if self._ended is None else 0.0

    @property
    def end_reason(self) -> str | None:
        """``expired``, ``stopped``, ``stop_all``, ``used up`` (its last injection was made) or ``failed``; None while it runs."""
        return self._ended

    @property
    def struck(self) -> dict[str, int]:
        """How many calls were struck so far, by guard; requests are counted under the target of the experiment."""
        with self._lock:
            return dict(self._struck)

    @property
    def delaying(self) -> int:
        """How many calls it is holding up at the moment."""
        return len(self._waiters)

    def end(self, reason: str = "stopped") -> None:
        """End it now, from any thread: delayed calls go on, no further call is struck."""
        with self._lock:
            first = self._ended is None
            self._end(reason)
            self._halted = True
            waiters, self._waiters = self._waiters, set()
        self._run_all(waiter.wake for waiter in waiters)
        if first:
            self._let_go(reason)

    def on_end(self, undo: Callable[[], None]) -> None:
        """Have ``undo()`` called when it ends; at once when it has."""
        with self._lock:
            if self._ended is None:
                self._release.append(undo)
                return
        undo()

    # -- rule -------------------------------------------------------------------------------------------------------------------------

    def rule(self, component: str) -> Rule:
        """The experiment as one component sees it, with draws of its own."""
        return Rule(self, component) if self._seen is None else Tracker(self, component, self._seen)

    def first_arming(self, component: str) -> bool:
        """True once for each component: two threads may want to arm the same one."""
        with self._lock:
            if component in self._armed:
                return False
            self._armed.add(component)
            return True

    def strike(self, component: str | None = None) -> Hit | None:
        """What a struck call of ``component`` gets; counts and reports it. None: it is over.

        What is done to an answer counts when it is done (:meth:`claim`), for there may be no answer.
        """
        hit = self._hit(component or self.config.target_component)
        return hit if hit.cut_after is not None or hit.after is not None or self.claim(component) else None

    def strike_request(self) -> Hit | None:
        """Decide about a request; all of them share one sequence."""
        return self.strike() if self._seen is None and self.decide(self._requests) else None

    def decide(self, numbers: Numbers) -> bool:
        """Decide about the next call that ``numbers`` counts."""
        config = self.config
        if self.split is not None and self.split.side is not Side.EXPERIMENT:
            return False
        if config.path is not None:
            path = callpath.current_path()
            if path != config.path:
                return False
            number = numbers.next(f">{path}")
        else:
            number = numbers.next(scope := callpath.current_scope())
            if config.calls is None:
                key = f"{scope}|{numbers.component}" if scope else numbers.component
                return self._chance.hit(config.failure_rate, self._draws, key, number)
        if config.calls is not None and number + 1 not in config.calls:
            return False
        return self._chance.hit(config.failure_rate, self._draws, numbers.component, number)

    def claim(self, component: str | None = None) -> bool:
        """Count and report one strike. False when it is over, or its last injection was made; then there is none."""
        config = self.config
        component = component or config.target_component
        if not self.live:
            return False
        with self._lock:
            if self._ended is not None:
                return False
            self.injected += 1
            self._struck[component] = self._struck.get(component, 0) + 1
            last = self.injected == config.max_injections
            if last:
                # Nobody else may slip in before it has ended.
                self._end(USED_UP)
        if self._listeners.wants(FaultInjected):
            self._listeners.emit(FaultInjected(component, self._clock.time(), config.experiment.value, self.id))
        if last:
            self._let_go(USED_UP)
        return True

    async def hold(self, runtime: Runtime, seconds: float) -> bool:
        """Delay a call by ``seconds``, at most until the experiment ends; False when it ended first, and no fault may follow."""
        waiter = runtime.waiter()
        with self._lock:
            if self._halted:
                return False
            self._waiters.add(waiter)
        try:
            left = max(0.0, self._deadline - self._clock.monotonic())
            woken = await waiter.wait(min(seconds, left))
            return not woken and seconds <= left
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            # Calls that it delays after its last strike wait until their own time is over, not until this.
            if reason == USED_UP:
                self._last_strike = self._clock.monotonic()
            elif reason != "expired":
                self._deadline = min(self._deadline, max(self._begin, self._clock.monotonic()))

    def _tell_begin(self) -> None:
        with self._lock:
            begun, self.begun = self.begun, True
        config = self.config
        if not begun and self._seen is None and self._listeners.wants(ExperimentStarted):
            rate = 1.0 if config.experiment is ChaosExperiment.CIRCUIT_TRIP else config.failure_rate
            duration = float(config.duration_seconds)  # type: ignore[arg-type]
            self._listeners.emit(
                ExperimentStarted(config.target_component, self.started_at, config.experiment.value, self.id, rate, duration)
            )

    def _let_go(self, reason: str) -> None:
        with self._lock:
            release, self._release = self._release, []
        self._run_all(release)
        if self._seen is None and self._listeners.wants(ExperimentEnded):
            config = self.config
            self._listeners.emit(
                ExperimentEnded(config.target_component, self._clock.time(), config.experiment.value, self.id, reason, self.injected)
            )

    def _run_all(self, steps: Iterable[Callable[[], None]]) -> None:
        for step in steps:
            try:
                step()
            except Exception as defect:  # noqa: BLE001 - ending must reach everybody
                self._listeners.defect(f"end of chaos experiment {self.id}", defect, self._clock.time())

    def _hit(self, component: str) -> Hit:
        config = self.config
        delay = float(config.delay_seconds)  # type: ignore[arg-type]
        if config.experiment in {ChaosExperiment.STREAM_CUT, ChaosExperiment.STREAM_TRUNCATION}:
            if config.on_http:
                return Hit(cut_after=config.after_items)
            truncate = config.experiment is ChaosExperiment.STREAM_TRUNCATION
            return Hit(after=StreamEnd(self, component, config.after_items, truncate=truncate))
        if config.experiment is ChaosExperiment.LOST_REPLY:
            return Hit(after=LostReply(self, component, delay))
        if config.experiment is ChaosExperiment.ERROR_INJECTION:
            if config.on_http:
                return Hit(delay, status=config.status)
            return Hit(delay, config.make_error(component, self.id))
        return Hit(delay)


class Numbers:
    """The running numbers of one component in one experiment: one sequence for each scope or path.

    Threads share it: a step of ``count`` is atomic, in C under the GIL, by compare-and-exchange without it.
    """

    __slots__ = ("_by_key", "_shared", "component")

    def __init__(self, component: str) -> None:
        """Start at 0."""
        self.component = component
        self._shared: count[int] = count()
        self._by_key: dict[str, count[int]] = {}

    def next(self, key: str) -> int:
        """The next number for ``key``; without one that of the component."""
        if not key:
            return next(self._shared)
        sequences = self._by_key
        found = sequences.get(key)
        if found is None:
            if len(sequences) >= _MOST_SEQUENCES:
                return next(self._shared)
            found = sequences.setdefault(key, count())
        return next(found)


class Rule:
    """What is armed at a guard (:class:`somaresil.typing.FaultRule`).

    Each component has draws of its own, so how the calls of different guards interleave decides nothing: with the same seed the n-th
    call of a component is decided alike in every run, and with a :func:`~somaresil.callpath.scope` the n-th call of that scope.
    """

    __slots__ = ("_component", "_numbers", "run")

    def __init__(self, run: ExperimentRun, component: str) -> None:
        """Decide for ``run`` about the calls of ``component``."""
        self.run = run
        self._component = component
        self._numbers = Numbers(component)

    @property
    def live(self) -> bool:
        """Whether the lease runs."""
        return self.run.live

    @property
    def over(self) -> bool:
        """Whether the lease has ended."""
        return self.run.over

    def decide(self) -> bool:
        """Whether to strike this call."""
        return self.run.decide(self._numbers)

    def strike(self) -> Hit | None:
        """What to do to it; None: leave it alone, the experiment is over."""
        return self.run.strike(self._component)

    async def hold(self, runtime: Runtime, seconds: float) -> bool:
        """Delay a call; ends early, with False, when the experiment ends."""
        return await self.run.hold(runtime, seconds)


class Tracker(Rule):
    """Strikes nothing: keeps a guard on the path of calls while somebody looks for paths that go through it."""

    __slots__ = ("_tell",)

    def __init__(self, run: ExperimentRun, component: str, seen: Callable[[str], object] | None = None) -> None:
        """Tell ``seen`` the path of every call, if it is given."""
        super().__init__(run, component)
        self._tell = seen

    def decide(self) -> bool:
        """Leave the call alone."""
        if self._tell is not None:
            self._tell(callpath.current_path())
        return False


class TripRule(Rule):
    """Opens the breaker of a guard when the time of a planned trip has come and a call comes by, which is refused then.

    No thread and no timer: whether a circuit is open shows in its calls alone.
    """

    __slots__ = ("_done", "_guard")

    def __init__(self, run: ExperimentRun, guard: Guard) -> None:
        """Trip the breaker of this guard, once."""
        super().__init__(run, guard.name)
        self._guard = guard
        self._done = False

    def decide(self) -> bool:
        """The first call is the one; while the circuit is to be left alone, the first after that."""
        return not self._done

    def strike(self) -> Hit | None:
        """Refuse the call that finds the circuit tripped."""
        breaker = self._guard.breaker
        if breaker is None or not trip(self.run, self._guard):
            return None
        self._done = True
        return Hit(error=breaker.refused(breaker.retry_after() or 0.0))


def trip(run: ExperimentRun, guard: Guard) -> bool:
    """Open the breaker of a guard until the experiment ends; False when it is to be left alone.

    One that is open or half-open has an outage of its own, and its rejections must not pass for injected ones. One in shadow mode refuses
    nothing.
    """
    breaker = guard.breaker
    if breaker is None or breaker.state is not State.CLOSED or breaker.options.shadow or not run.live:
        return False
    try:
        era = breaker.trip(run.remaining, injected=True)
    except IllegalTransition:
        # An operator was quicker; an experiment does not overrule people.
        return False
    run.on_end(lambda: breaker.release(era))
    run.claim(guard.name)
    return True
