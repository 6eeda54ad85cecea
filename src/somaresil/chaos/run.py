"""An armed experiment: a lease that ends by itself, and the rule that decides call by call.

Nothing has to be undone when it ends. Whether it still runs is asked at every call, of a flag and a monotonic deadline, so it ends in
time with the event loop blocked, after Ctrl-C, and without ``atexit`` (which runs only after the executor threads were joined: measured
3.1 s late).
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.events import ExperimentEnded, FaultInjected

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chance import Chance
    from somaresil.events import Listeners
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Clock

__all__ = ["ExperimentRun", "Hit"]


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
        self._deadline = clock.monotonic() + float(config.duration_seconds)  # type: ignore[arg-type]
        self._draws = chance.sequence("chaos", identity)
        self._lock = threading.RLock()
        self._ended: str | None = None if selected else "outside the blast radius"
        self._waiters: set[Waiter] = set()
        self._release: list[Callable[[], None]] = []
        self._struck = itertools.count(1)
        self.injected = 0
        """How many calls were struck so far."""

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
        """``expired``, ``stopped``, ``stop_all``, ``used up``; None while it runs."""
        return self._ended

    def end(self, reason: str = "stopped") -> None:
        """End it now, from any thread: delayed calls go on, no further call is struck."""
        with self._lock:
            if self._ended is not None:
                return
            self._ended = reason
            waiters, self._waiters = self._waiters, set()
            release, self._release = self._release, []
        for waiter in waiters:
            waiter.wake()
        for undo in release:
            try:
                undo()
            except Exception as defect:  # noqa: BLE001 - ending must reach everybody
                self._listeners.defect(f"end of chaos experiment {self.id}", defect, self._clock.time())
        if self._listeners.wants(ExperimentEnded):
            config = self.config
            self._listeners.emit(
                ExperimentEnded(config.target_component, self._clock.time(), config.experiment.value, self.id, reason, self.injected)
            )

    def on_end(self, undo: Callable[[], None]) -> None:
        """Have ``undo()`` called when it ends; at once when it has."""
        with self._lock:
            if self._ended is None:
                self._release.append(undo)
                return
        undo()

    # -- rule -------------------------------------------------------------------------------------------------------------------------

    def strike(self) -> Hit | None:
        """Decide about one call; counts and reports a hit."""
        config = self.config
        if not self._draws.hit(config.failure_rate):
            return None
        number = next(self._struck)
        if config.max_injections is not None and number > config.max_injections:
            self.end("used up")
            return None
        hit = self._hit()
        self.struck()
        return hit

    def struck(self) -> None:
        """Count and report one strike."""
        with self._lock:
            self.injected += 1
        if self._listeners.wants(FaultInjected):
            config = self.config
            self._listeners.emit(FaultInjected(config.target_component, self._clock.time(), config.experiment.value, self.id))

    async def hold(self, runtime: Runtime, seconds: float) -> None:
        """Delay a call by ``seconds``, at most until the experiment ends."""
        waiter = runtime.waiter()
        with self._lock:
            if self._ended is not None:
                return
            self._waiters.add(waiter)
        try:
            await waiter.wait(min(seconds, max(0.0, self._deadline - self._clock.monotonic())))
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _hit(self) -> Hit:
        config = self.config
        delay = float(config.delay_seconds)  # type: ignore[arg-type]
        if config.experiment is ChaosExperiment.STREAM_CUT:
            return Hit(delay, cut_after=config.after_items)
        if config.experiment is ChaosExperiment.ERROR_INJECTION:
            if config.on_http:
                return Hit(delay, status=config.status)
            return Hit(delay, config.make_error(config.target_component, self.id))
        return Hit(delay)
