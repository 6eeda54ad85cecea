"""``python -m somaresil replay plan.json``: run a plan again with the scenario that it was found with."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from somaresil.chaos.plan import ChaosPlan
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.testing.simulation import Scenario

if TYPE_CHECKING:
    from somaresil.testing.simulation import Simulation

__all__ = ["load_scenario", "replay"]


def replay(path: str, *, scenario: str | None = None, as_json: bool = False) -> int:
    """Run the plan in the file ``path`` (``-``: standard input) and print what came of it.

    The exit code is 0 when everything held, 1 when something is broken, and 2 when it was not run or no window has struck a call.
    ``scenario`` (``module:name``) takes the place of the one that the plan names. The module is imported, from the current folder too, as
    ``python -m`` would: look at where a plan comes from, or name the scenario yourself.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        return _refused(f"{path}: {unreadable}")
    try:
        plan = ChaosPlan.from_json(text)
        subject = load_scenario(scenario or plan.scenario)
        simulation = subject.run(plan)
    except ConfigurationError as wrong:
        return _refused(str(wrong))
    except SystemExit as left:
        return _refused(f"the scenario has left the process (SystemExit({left.code!r}))")
    print(json.dumps(_figures(simulation), indent=2) if as_json else simulation.report())
    if simulation.ok and plan.windows and not simulation.history.injected:
        return _refused(f"{path}: no window of the plan has struck a call of {subject.name}, so nothing was shown")
    return 0 if simulation.ok else 1


def load_scenario(reference: str | None) -> Scenario:
    """The scenario called ``module:name``. Raises :class:`~somaresil.errors.ConfigurationError` when there is none."""
    check = Checker("replay")
    if reference is None:
        check.problem("scenario", None, "module:name", "the plan names none; say --scenario module:name")
        check.finish()
    module, _, name = str(reference).partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    found: Any = None
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as broken:  # noqa: BLE001 - a module that is imported may raise anything
        check.problem("scenario", reference, "module:name of a Scenario", f"{type(broken).__name__}: {broken}")
    else:
        # Plans name scenarios and nothing else: what a module has besides is never called.
        check.type("scenario", found, Scenario, "a function decorated with @scenario(...)")
    check.finish()
    return cast("Scenario", found)


def _figures(simulation: Simulation) -> dict[str, Any]:
    history = simulation.history
    worst = history.worst_recovery
    return {
        "scenario": simulation.scenario.name,
        "ok": simulation.ok,
        "broken": [{"name": broken.name, "found": broken.found} for broken in simulation.broken],
        "error": None if simulation.error is None else f"{type(simulation.error).__qualname__}: {simulation.error}",
        "seconds": simulation.seconds,
        "cut": simulation.cut,
        "injected": history.injected,
        "struck_nothing": [window.as_dict() for window in simulation.idle],
        "touched": history.touched(),
        "absorbed": history.absorbed(),
        "worst_recovery": None if worst is None or worst == float("inf") else worst,
        "recovered": None if worst is None else worst != float("inf"),
        "plan": simulation.plan.as_dict(),
    }


def _refused(why: str) -> int:
    print(f"somaresil replay: {why}", file=sys.stderr)
    return 2
