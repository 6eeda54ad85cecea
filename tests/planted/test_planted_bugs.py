"""Bugs that were planted are found, and shrink to schedules that a person understands at once; what was mended holds."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings

from somaresil import ChaosPlan
from somaresil.testing import InvariantBroken, Simulation
from somaresil.testing.strategies import SEARCH, fault_schedules
from tests.planted import services

BUGS = {
    # name: kinds, targets, most windows of the smallest schedule
    # Two shorter outages in a row do it as well, and neither can be left out: some searches end there.
    "doubling": (("error",), ["llm.invoke"], 2),
    "unkeyed": (("error", "latency", "lost_reply"), ["memory.write"], 1),
    "storm": (("error", "latency"), ["llm.invoke"], 1),
    "flood": (("error",), ["tool.run"], 1),
    "truncated": (("stream_cut", "stream_truncate"), ["llm.stream"], 1),
    "hidden": (("error",), ["memory.read"], 1),
}
MENDED = {"doubling": "doubling_mended", "unkeyed": "keyed", "storm": "storm_mended"} | {
    name: f"{name}_mended" for name in ("flood", "truncated", "hidden")
}


def search(name: str, subject, examples: int) -> None:
    """Let Hypothesis look for a schedule that breaks it; the same examples in every run."""
    kinds, targets, _ = BUGS[name]
    schedules = fault_schedules(targets, kinds, horizon=300, longest=400, known=subject)

    @settings(
        SEARCH,
        max_examples=examples,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules)
    def holds(plan: ChaosPlan) -> None:
        subject.check(plan)

    holds()


@cache
def found(name: str) -> Simulation:
    """What the search for this bug ends with."""
    with pytest.raises(InvariantBroken) as caught:
        search(name, getattr(services, name), 400)
    return caught.value.simulation


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_and_shrinks_to_few_windows(name):
    """Hypothesis finds a schedule, and what is left of it is one window, or two where the bug remembers, that say what it is."""
    simulation = found(name)
    plan = simulation.plan
    assert 1 <= len(plan.windows) <= BUGS[name][2]
    report = str(InvariantBroken(simulation))
    assert repr(plan) in report
    assert simulation.history.timeline() in report
    line = next(line for line in report.splitlines() if "plan.json" in line and "{" in line)
    shown = json.loads(line[line.index("{") :])
    again = ChaosPlan.from_dict(shown)
    assert again.windows == plan.windows
    assert again.scenario == f"tests.planted.services:{name}"


@pytest.mark.parametrize("name", BUGS)
def test_what_was_mended_survives_what_broke_it(name):
    """The smallest schedule of the bug, and fifty others, do no harm."""
    mended = getattr(services, MENDED[name])
    assert mended.check(found(name).plan).ok
    search(name, mended, 50)
