"""Game days: experiments with a hypothesis, phases and groups, played against a running service, and what came of them.

gameday = GameDay.from_toml(plan)
report = await gameday.run(resilience)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somaresil.gameday.day import GameDay, GameDayRun
    from somaresil.gameday.entry import ScheduledRun
    from somaresil.gameday.experiment import Experiment, Gate
    from somaresil.gameday.figures import Figures, Objective, Outage, Tally
    from somaresil.gameday.groups import Comparison, Groups, Judgement
    from somaresil.gameday.html import to_html
    from somaresil.gameday.junit import to_junit
    from somaresil.gameday.leader import Leader
    from somaresil.gameday.markdown import to_markdown
    from somaresil.gameday.probes import Probe, Reading
    from somaresil.gameday.remote import Remote, RemoteTarget, figures_of
    from somaresil.gameday.report import ExperimentReport, Finding, GameDayReport, Status
    from somaresil.gameday.schedule import Blackout, Occurrence, Schedule, Window
    from somaresil.gameday.scheduler import Scheduler
    from somaresil.gameday.target import FaultStatus, InProcess, Target

__all__ = [
    "Blackout",
    "Comparison",
    "Experiment",
    "ExperimentReport",
    "FaultStatus",
    "Figures",
    "Finding",
    "GameDay",
    "GameDayReport",
    "GameDayRun",
    "Gate",
    "Groups",
    "InProcess",
    "Judgement",
    "Leader",
    "Objective",
    "Occurrence",
    "Outage",
    "Probe",
    "Reading",
    "Remote",
    "RemoteTarget",
    "Schedule",
    "ScheduledRun",
    "Scheduler",
    "Status",
    "Tally",
    "Target",
    "Window",
    "figures_of",
    "to_html",
    "to_junit",
    "to_markdown",
]

_HOMES = {
    "day": ("GameDay", "GameDayRun"),
    "entry": ("ScheduledRun",),
    "experiment": ("Experiment", "Gate"),
    "figures": ("Figures", "Objective", "Outage", "Tally"),
    "groups": ("Comparison", "Groups", "Judgement"),
    "html": ("to_html",),
    "junit": ("to_junit",),
    "leader": ("Leader",),
    "markdown": ("to_markdown",),
    "probes": ("Probe", "Reading"),
    "remote": ("Remote", "RemoteTarget", "figures_of"),
    "report": ("ExperimentReport", "Finding", "GameDayReport", "Status"),
    "schedule": ("Blackout", "Occurrence", "Schedule", "Window"),
    "scheduler": ("Scheduler",),
    "target": ("FaultStatus", "InProcess", "Target"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module, once: the arguments of the command line need none of them."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'somaresil.gameday' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"somaresil.gameday.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
