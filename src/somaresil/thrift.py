"""Budget awareness: further attempts shrink, and throttles shed more, while the error budget of an objective burns. Off by default."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from somaresil.model.thrift import Thrift

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["BudgetScale"]

_EVERY: Final = 1.0
"""Seconds between two looks at the budget: it is a sum over days, and whoever asks may do so at each failure."""


class BudgetScale:
    """How much of its budgets a guard may use now, from 0.1 to 1: what ``guard(budget_aware="objective")`` asks."""

    __slots__ = ("_clock", "_due", "_listeners", "_lock", "_model", "_remaining", "slo")

    def __init__(self, slo: str, remaining: Callable[[], float | None], clock: Clock, listeners: Listeners) -> None:
        """``remaining`` says what is left of the budget of ``slo``, as a share of it; None: not known."""
        self.slo = slo
        self._remaining = remaining
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._model = Thrift()
        self._due = float("-inf")

    def __call__(self) -> float:
        """The scale now. Never raises."""
        try:
            now = self._clock.monotonic()
            with self._lock:
                due = now >= self._due
                if due:
                    self._due = now + _EVERY
            # Read with no lock held: the objective has locks of its own.
            remaining = self._remaining() if due else None
            with self._lock:
                return self._model.see(remaining)
        except Exception as defect:  # noqa: BLE001 - a budget that cannot be read is no reason to give up a call
            self._listeners.defect(f"reading the budget of {self.slo}", defect, self._clock.time(), "the last scale was used")
            return self._model.scale
