"""An armed experiment: a lease that ends by itself, and the rule that decides call by call.

Nothing has to be undone when it ends. Whether it still runs is asked at every call, of a flag and a monotonic deadline, so it ends in
time with the event loop blocked, after Ctrl-C, and without ``atexit`` (which runs only after the executor threads were joined: measured
3.1 s late).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.events import ExperimentEnded, FaultInjected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.chance import Chance, ChanceSequence
    from somaresil.events import Listeners
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Clock

__all__ = ["ExperimentRun", "Hit", "Rule"]

USED_UP: Final = "used up"


class Hit(NamedTuple):
    """What a struck call gets."""

    delay: float = 0.0
    error: BaseException | None = None
    status: int | None = None
    cut_after: int | None = None


class ExperimentRun:
    """One experiment on its way. Returned by :meth:`ChaosEngine.start`."""

    def __init__(self, identity: str, config: ChaosConfig, *, selected: bool, clock: Clock, chance: Chance, listeners: Listeners) -> None:
        """Begin the lease now. ``selected``: whether this process lies inside the blast radius."""
        self.id = identity
        self.config = config
        self.selected = selected
        """Whether this process takes part."""
        self.started_at = clock.time()
        self._clock = clock
        self._listeners = listeners
        self._chance = chance
        self._deadline = clock.monotonic() + float(config.duration_seconds)  # type: ignore[arg-type]
        self._draws = self._draws_of("")
        self._lock = threading.RLock()
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
        state = self._ended or f"{self.remaining:.3g} s left"
        return f"<ExperimentRun {self.id} on {self.config.target_component!r}: {self.injected} struck, {state}>"

    # -- lease ------------------------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it still runs. Ends the lease when its time is over."""
        if self._ended is not None:
            return False
        if self._clock.monotonic() >= self._deadline:
            self.end("expired")
            return False
        return True

    @property
    def remaining(self) -> float:
        """Seconds until it ends by itself."""
        return max(0.0, self._deadline - self._clock.monotonic()) if self._ended is None else 0.0

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
            self._ended = self._ended or reason
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
        return Rule(self, component, self._draws_of(component))

    def first_arming(self, component: str) -> bool:
        """True once for each component: two threads may want to arm the same one."""
        with self._lock:
            if component in self._armed:
                return False
            self._armed.add(component)
            return True

    def strike(self, draws: ChanceSequence | None = None, component: str | None = None) -> Hit | None:
        """Decide about one call of ``component``; counts and reports a hit. A response to be cut counts when it is cut: :meth:`claim`."""
        if not (draws or self._draws).hit(self.config.failure_rate):
            return None
        hit = self._hit(component or self.config.target_component)
        return hit if hit.cut_after is not None or self.claim(component) else None

    def claim(self, component: str | None = None) -> bool:
        """Count and report one strike. False when it is over, or its last injection was made; then there is none."""
        config = self.config
        component = component or config.target_component
        with self._lock:
            if self._ended is not None:
                return False
            self.injected += 1
            self._struck[component] = self._struck.get(component, 0) + 1
            last = self.injected == config.max_injections
            if last:
                # Nobody else may slip in before it has ended.
                self._ended = USED_UP
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

    def _let_go(self, reason: str) -> None:
        with self._lock:
            release, self._release = self._release, []
        self._run_all(release)
        if self._listeners.wants(ExperimentEnded):
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

    def _draws_of(self, component: str) -> ChanceSequence:
        return self._chance.sequence(f"chaos.{self.id}", component)

    def _hit(self, component: str) -> Hit:
        config = self.config
        delay = float(config.delay_seconds)  # type: ignore[arg-type]
        if config.experiment is ChaosExperiment.STREAM_CUT:
            return Hit(cut_after=config.after_items)
        if config.experiment is ChaosExperiment.ERROR_INJECTION:
            if config.on_http:
                return Hit(delay, status=config.status)
            return Hit(delay, config.make_error(component, self.id))
        return Hit(delay)


class Rule:
    """What is armed at a guard (:class:`somaresil.typing.FaultRule`).

    Each component has draws of its own, so how the calls of different guards interleave decides nothing: with the same seed the n-th
    call of a component is decided alike in every run.
    """

    __slots__ = ("_component", "_draws", "run")

    def __init__(self, run: ExperimentRun, component: str, draws: ChanceSequence) -> None:
        """Decide for ``run`` about the calls of ``component`` by ``draws``."""
        self.run = run
        self._component = component
        self._draws = draws

    @property
    def live(self) -> bool:
        """Whether the lease still runs."""
        return self.run.live

    def strike(self) -> Hit | None:
        """What to do to this call; None: leave it alone."""
        return self.run.strike(self._draws, self._component)

    async def hold(self, runtime: Runtime, seconds: float) -> bool:
        """Delay a call; ends early, with False, when the experiment ends."""
        return await self.run.hold(runtime, seconds)
