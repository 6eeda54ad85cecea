"""Performance: results of whichever tool, budgets that are kept or not, and regressions that are there or cannot be shown.

Names are loaded when they are first used, so a command that needs one of them does not pay for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somaresil.perf.budget import (
        PLAN_BUDGETS,
        PLAN_TARGETS,
        BudgetReport,
        BudgetStatus,
        LimitCheck,
        Measured,
        PerformanceBudget,
        check_all,
    )
    from somaresil.perf.detector import Change, Comparison, History, RegressionDetector, overall
    from somaresil.perf.machine import Machine, this_machine
    from somaresil.perf.samples import RunResult, Series, merge

__all__ = [
    "PLAN_BUDGETS",
    "PLAN_TARGETS",
    "BudgetReport",
    "BudgetStatus",
    "Change",
    "Comparison",
    "History",
    "LimitCheck",
    "Machine",
    "Measured",
    "PerformanceBudget",
    "RegressionDetector",
    "RunResult",
    "Series",
    "check_all",
    "merge",
    "overall",
    "this_machine",
]

_HOMES = {
    "budget": ("PLAN_BUDGETS", "PLAN_TARGETS", "BudgetReport", "BudgetStatus", "LimitCheck", "Measured", "PerformanceBudget", "check_all"),
    "detector": ("Change", "Comparison", "History", "RegressionDetector", "overall"),
    "machine": ("Machine", "this_machine"),
    "samples": ("RunResult", "Series", "merge"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module, once."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'somaresil.perf' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"somaresil.perf.{home}"), name)
    globals()[name] = value
    return value
