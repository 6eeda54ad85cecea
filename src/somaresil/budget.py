"""Retry budget: a bound on further attempts (retries and hedges) that all callers share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.model.budget import Allowance

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from somaresil.recorder import Recorder

__all__ = ["RetryBudget"]

_FLOOR: Final = 10.0
_WINDOW: Final = 10.0


class RetryBudget:
    """At most ``ratio`` further attempts a call, over the last ``window`` seconds, and ``floor`` a second whatever the traffic.

    The defaults are Finagle's. A guard whose retry says ``budget=0.2`` has one of its own; the same object given to several guards is one
    budget for all of them, over the calls of all of them. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    __slots__ = ("_allowance", "_lock", "_recorders", "floor", "ratio", "window")

    def __init__(self, ratio: float = 0.2, *, floor: float = _FLOOR, window: float | timedelta = _WINDOW) -> None:
        """Nothing spent."""
        check = Checker("RetryBudget")
        self.ratio = check.ratio("ratio", ratio)
        self.floor = check.number("floor", floor, minimum=0.0, maximum=1e6)
        self.window = check.seconds("window", window, maximum=3_600.0)
        check.finish()
        self._lock = threading.RLock()
        self._recorders: tuple[Recorder, ...] = ()
        self._allowance = Allowance(self.ratio, self.floor, self.window, 0.0)

    def __repr__(self) -> str:
        """As it was written."""
        return f"RetryBudget({self.ratio}, floor={self.floor}, window={self.window})"

    def join(self, recorder: Recorder, now: float) -> None:
        """Count the calls of this recorder, too, from monotonic time ``now`` on."""
        with self._lock:
            if recorder not in self._recorders:
                self._recorders = (*self._recorders, recorder)
                self._allowance.joined(now, recorder.calls())

    def take(self, now: float, scale: Callable[[], float] | None = None) -> bool:
        """Whether one more attempt may be made; then it is counted. ``scale`` in [0, 1] shrinks what is allowed."""
        with self._lock:
            return self._allowance.take(now, self._calls(), 1.0 if scale is None else scale())

    def give_back(self) -> None:
        """The attempt that was taken is not made after all."""
        with self._lock:
            self._allowance.give_back()

    def left(self, now: float, scale: float = 1.0) -> float:
        """How many attempts are left at monotonic time ``now``."""
        with self._lock:
            return self._allowance.left(now, self._calls(), scale)

    def _calls(self) -> int:
        return sum(recorder.calls() for recorder in self._recorders)
