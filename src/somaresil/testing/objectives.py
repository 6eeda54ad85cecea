"""Objectives of a test: what the fixture ``slo`` gives."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from somaresil.slo import SLO
from somaresil.testing.asserts import assert_budget

if TYPE_CHECKING:
    from somaresil.resilience import Resilience
    from somaresil.slo import ErrorBudget
    from somaresil.testing.watch import History

__all__ = ["Objectives"]


class Objectives:
    """What the fixture ``slo`` gives: declare an objective in one line, and ask for its budget."""

    def __init__(self, resilience: Resilience, history: History) -> None:
        """Speak of the objectives of this process."""
        self._resilience = resilience
        self._history = history

    def __call__(
        self, name: str, target_percentage: float = 99.0, measurement_window: timedelta = timedelta(days=30), **options: Any
    ) -> SLO:
        """Add an objective, before the guard that names it. The options are those of :class:`somaresil.SLO`."""
        slo = SLO(name, target_percentage, measurement_window, **options)
        self._resilience.slos.add(slo)
        return slo

    def budget(self, name: str) -> ErrorBudget:
        """Its error budget now."""
        return self._resilience.slos.error_budget(name)

    def assert_budget(self, name: str, *, remaining: float = 0.0) -> float:
        """At least this share of its budget is left; fails with the time line. Returns the share."""
        return assert_budget(self._history, name, remaining=remaining)
