"""What the control app shows: experiments, permissions and what is possible here, as plain data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from somaresil import chaos
from somaresil.chaos.vocabulary import SHORT_NAMES as SHORT
from somaresil.config import Checker
from somaresil.errors import describe
from somaresil.mounted.wire import problems_as_data

if TYPE_CHECKING:
    from somaresil.chaos.config import ChaosConfig
    from somaresil.chaos.run import ExperimentRun
    from somaresil.resilience import Resilience

__all__ = ["capabilities_of", "experiment", "lever", "status"]

_NAMED_APART: Final = ("experiment", "target_component", "failure_rate", "duration_seconds")
_DEEPEST: Final = 8


def experiment(run: ExperimentRun, by: str | None = None) -> dict[str, Any]:
    """One experiment; ``by``: who started it here, if it was started here. Seconds count down while it runs."""
    config = run.config
    # Asked first: this is what ends a lease whose time is over.
    live, reason = run.live, run.end_reason
    shown: dict[str, Any] = {
        "id": run.id,
        "kind": "track" if run.tracks else config.experiment.value,
        "target": config.target_component,
        "rate": float(config.failure_rate),
        "duration": float(config.duration_seconds),  # type: ignore[arg-type]
        "options": _options(config),
        "state": "running" if live else "ended" if reason is not None else "scheduled",
        "starts_at": run.started_at,
        "remaining": round(run.remaining, 3),
        "end_reason": reason,
        "injected": run.injected,
        "struck": run.struck,
        "delaying": run.delaying,
        "selected": run.selected,
        "by": by,
    }
    return shown


def _options(config: ChaosConfig) -> dict[str, Any]:
    """What of it is not as usual, by the names that a window of a plan has for it."""
    shown = {}
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if option.name not in _NAMED_APART and value != option.default:
            shown[SHORT.get(option.name, option.name)] = getattr(value, "__name__", None) or plain(value)
    return shown


def status(resilience: Resilience) -> dict[str, Any]:
    """Where this is, what may be done here, and what is."""
    engine = resilience.chaos
    permission, place, check = engine.permission(), engine.place, Checker("chaos")
    permission.check(check, place)
    limits = permission.limits
    return {
        "service": place.service,
        "instance": place.instance,
        "zone": place.zone,
        "region": place.region,
        "environment": place.environment,
        "process": os.getpid(),
        "allowed": not check.problems,
        "problems": problems_as_data(check.problems),
        "ceilings": plain(limits) if permission.ceilings is not None else None,
        "protected_paths": [*permission.protected, *engine.protected],
        "running": len(engine.runs),
        "engaged": lever(resilience),
        "switches": [switch.where for switch in engine.safety.switches],
        "targets": sorted(resilience.guards)[:_MOST_TARGETS],
        "breakers": {
            name: guard.breaker.state.value
            for name, guard in sorted(resilience.guards.items())[:_MOST_TARGETS]
            if guard.breaker is not None
        },
        "objectives": {name: _objective(resilience, name) for name in resilience.slos.names[:_MOST_TARGETS]},
    }


def lever(resilience: Resilience) -> str | None:
    """Who has engaged the safety lever, and why; None: it is released."""
    try:
        return resilience.chaos.engaged
    except OSError as broken:
        return f"nobody knows: {describe(broken)}"


def _objective(resilience: Resilience, name: str) -> dict[str, float | None]:
    """Burn rate of the last hour, and the share of the budget that is left; None: no event was seen."""
    budget = resilience.slos.error_budget(name)
    left = None if budget.remaining is None or not budget.total_budget else budget.remaining / budget.total_budget
    return {"burn_rate": budget.burn_rate, "budget_left": left}


_MOST_TARGETS: Final = 200


def capabilities_of(resilience: Resilience) -> Any:
    """What faults this process can do; None: nobody here can say."""
    ask = getattr(resilience.chaos, "capabilities", None) or getattr(chaos, "capabilities", None)
    return None if ask is None else plain(ask())


def plain(value: Any, depth: int = _DEEPEST) -> Any:
    """The same for JSON: what it does not know is shown as text."""
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {option.name: plain(getattr(value, option.name), depth - 1) for option in dataclasses.fields(value)}
    if depth and isinstance(value, Mapping):
        return {str(name): plain(each, depth - 1) for name, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth - 1) for each in value]
    return str(value)[:200]
