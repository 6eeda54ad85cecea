"""Hypothesis strategies: what they make, what they shrink to, what they refuse when tests are collected."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from somaresil import ChaosPlan, ConfigurationError, FaultWindow, Resilience
from somaresil.chaos.plan import KINDS
from somaresil.testing.strategies import SEARCH, fault_kinds, fault_schedules, fault_targets, fault_windows, faults, latencies
from tests.planted import services

QUIET = settings(SEARCH, database=None, derandomize=True, max_examples=300, suppress_health_check=list(HealthCheck))


@given(
    fault_schedules(["llm.*", "memory.write"], KINDS, horizon=500, longest=50, min_windows=1, max_windows=3, errors=("OSError",), items=7)
)
def test_schedules_stay_within_what_was_asked_for(plan):
    """Targets, kinds, number, begin and length of the windows."""
    assert 1 <= len(plan.windows) <= 3
    for window in plan.windows:
        assert window.target in {"llm.*", "memory.write"}
        assert window.kind in KINDS
        assert 0 <= window.start <= 500
        assert 1 <= window.duration <= 50
        assert window.error in {None, "OSError"}
        assert window.after_items <= 7


@given(fault_schedules(["x"], ["error"], rates=(0.1, 0.5), seeds=st.integers(0, 99)))
def test_rates_and_seeds_are_drawn(plan):
    """Each plan decides by its own seed."""
    assert 0 <= plan.seed <= 99
    assert all(window.rate in {0.1, 0.5} for window in plan.windows)


def test_schedules_shrink_to_nothing_in_particular():
    """No window, if none is needed; one of a second, at once, of the first kind, if one is."""
    assert find(fault_schedules(["a", "b"]), lambda _: True, settings=QUIET) == ChaosPlan()
    smallest = find(fault_schedules(["a", "b"], ["error", "latency"]), lambda plan: bool(plan.windows), settings=QUIET)
    assert smallest == ChaosPlan([FaultWindow("a", "error", 0, 1)])


def test_times_shrink_to_whole_small_numbers():
    """As a person would write them."""
    long = find(
        fault_schedules(["a"], ["latency"]), lambda plan: any(w.delay > 3.2 and w.duration > 40 for w in plan.windows), settings=QUIET
    )
    assert long == ChaosPlan([FaultWindow("a", "latency", 0, 41, delay=4.0)])


@given(latencies(2.5))
def test_latencies_have_a_limit(seconds):
    """More than none, and no more than asked for."""
    assert 0.0 < seconds <= 2.5


@given(latencies(0.0005))
def test_short_latencies_exist_too(seconds):
    """Below a millisecond as well."""
    assert 0.0 < seconds <= 0.0005


@given(st.data())
def test_faults_are_options_of_windows(data):
    """Whatever is drawn makes a window."""
    assert FaultWindow("x", start=0, duration=1, **data.draw(faults(KINDS)))
    assert data.draw(fault_kinds(["latency"])) == "latency"
    assert data.draw(fault_windows(["x"], horizon=5, longest=2)).end <= 7


def test_targets_are_those_of_a_scenario_or_a_process():
    """All of its guards, found by looking."""
    resilience = Resilience("svc")
    resilience.guard("one")
    with pytest.raises(NoSuchExample):
        find(fault_targets(resilience), lambda target: target != "one", settings=QUIET)
    assert find(fault_targets(services.sound), lambda target: target == "memory.write", settings=QUIET) == "memory.write"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fault_schedules(["llm.invok"], known=services.sound), "did you mean 'llm.invoke'"),
        (lambda: fault_schedules(["x"], known=["y"]), "expected a guard"),
        (lambda: fault_targets(["agent.tunr"], known=services.sound), "did you mean 'agent.turn'"),
        (lambda: fault_schedules("llm.invoke"), "a list also for a single one"),
        (lambda: fault_schedules([]), "names of guards"),
        (lambda: fault_schedules(Resilience("empty")), "that has some"),
        (lambda: fault_schedules(["x"], ["eror"]), "did you mean 'error'"),
        (lambda: fault_schedules(["x"], "error"), "a list also for a single one"),
        (lambda: fault_schedules(["x y"]), "not allowed"),
        (lambda: fault_schedules(["x"], horizon=0), "horizon"),
        (lambda: fault_schedules(["x"], longest=0.5), "longest"),
        (lambda: fault_schedules(["x"], max_windows=0), "max_windows"),
        (lambda: fault_schedules(["x"], ["error"], rates=(2,)), "rates"),
        (lambda: faults(["error"], items=-1), "items"),
        (lambda: fault_kinds([]), "kinds"),
        (lambda: latencies(0), "longest"),
    ],
)
def test_wrong_options_are_refused_when_they_are_written(make, said):
    """Which is when tests are collected, with the names that come near."""
    with pytest.raises(ConfigurationError, match=said.replace("?", r"\?")):
        make()


def test_all_problems_are_told_at_once():
    """Kinds and targets in one go."""
    with pytest.raises(ConfigurationError) as caught:
        fault_schedules(["llm.invok", "memory.wriet"], ["eror", "lost"], known=services.sound, max_windows=0)
    assert len(caught.value.problems) == 5
