"""What keeps one experiment in bounds, checked: see the fields of the same names of :class:`~somaresil.chaos.config.ChaosConfig`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from somaresil.chaos.config import ChaosConfig
    from somaresil.config import Checker

__all__ = ["check_bounds"]

_MOST_CONDITIONS: Final = 32


def check_bounds(check: Checker, config: ChaosConfig) -> None:
    """Note what is wrong; keeps the conditions as a tuple, also a single one."""
    check.count("max_active_faults", config.max_active_faults, maximum=1_000_000, optional=True)
    check.type("allow_overlap", config.allow_overlap, bool, "True or False")
    check.type("dry_run", config.dry_run, bool, "True or False")
    given: Any = config.stop_when
    conditions = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else (given,)
    for condition in conditions:
        if isinstance(condition, str):
            check.name("stop_when", condition)
        elif not (callable(condition) or callable(getattr(condition, "watch", None))):
            check.problem("stop_when", condition, "conditions, names of conditions, or functions", "see somaresil.chaos.conditions")
    if len(conditions) > _MOST_CONDITIONS:
        check.problem("stop_when", f"{len(conditions)} conditions", f"at most {_MOST_CONDITIONS}")
    object.__setattr__(config, "stop_when", conditions)
