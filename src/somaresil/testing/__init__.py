"""The test kit: virtual time, faults that end with their test, fault schedules that shrink, and assertions that show what happened.

Nothing here needs pytest. ``somaresil.testing.strategies`` and ``ChaosStateMachine`` need Hypothesis, ``VirtualClock.patched`` needs
time-machine:
``pip install 'somaresil[pytest]'``. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somaresil.testing.asserts import assert_absorbed, assert_breaker, assert_budget, assert_recovers
    from somaresil.testing.clock import VirtualClock, run
    from somaresil.testing.exploration import Counterexample, Exploration, ExplorationFailed, Point, explore
    from somaresil.testing.faults import TEST_CEILINGS, allow_chaos, inject, inject_plan
    from somaresil.testing.invariants import (
        Invariant,
        amplification_below,
        at_most_once,
        budget_kept,
        burst_below,
        holds,
        never_lost,
        no_hidden_outage,
        recovers_within,
    )
    from somaresil.testing.leaks import Leak, LeakDetector, no_leaks
    from somaresil.testing.loop import VirtualLoop
    from somaresil.testing.machine import ChaosStateMachine
    from somaresil.testing.marks import NothingStruck
    from somaresil.testing.simulation import InvariantBroken, Scenario, Simulation, World, scenario
    from somaresil.testing.stall import StalledError
    from somaresil.testing.watch import History, Recovery, capture_events

__all__ = [
    "TEST_CEILINGS",
    "ChaosStateMachine",
    "Counterexample",
    "Exploration",
    "ExplorationFailed",
    "History",
    "Invariant",
    "InvariantBroken",
    "Leak",
    "LeakDetector",
    "NothingStruck",
    "Point",
    "Recovery",
    "Scenario",
    "Simulation",
    "StalledError",
    "VirtualClock",
    "VirtualLoop",
    "World",
    "allow_chaos",
    "amplification_below",
    "assert_absorbed",
    "assert_breaker",
    "assert_budget",
    "assert_recovers",
    "at_most_once",
    "budget_kept",
    "burst_below",
    "capture_events",
    "explore",
    "holds",
    "inject",
    "inject_plan",
    "never_lost",
    "no_hidden_outage",
    "no_leaks",
    "recovers_within",
    "run",
    "scenario",
]

_HOMES = {
    "asserts": ("assert_absorbed", "assert_breaker", "assert_budget", "assert_recovers"),
    "clock": ("VirtualClock", "run"),
    "exploration": ("Counterexample", "Exploration", "ExplorationFailed", "Point", "explore"),
    "faults": ("TEST_CEILINGS", "allow_chaos", "inject", "inject_plan"),
    "invariants": (
        "Invariant",
        "amplification_below",
        "at_most_once",
        "budget_kept",
        "burst_below",
        "holds",
        "never_lost",
        "no_hidden_outage",
        "recovers_within",
    ),
    "leaks": ("Leak", "LeakDetector", "no_leaks"),
    "loop": ("VirtualLoop",),
    "machine": ("ChaosStateMachine",),
    "marks": ("NothingStruck",),
    "simulation": ("InvariantBroken", "Scenario", "Simulation", "World", "scenario"),
    "stall": ("StalledError",),
    "watch": ("History", "Recovery", "capture_events"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module, once."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'somaresil.testing' has no attribute {name!r}")

    value: object = getattr(importlib.import_module(f"somaresil.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
