"""What an SLO may say, and what an error budget promises."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, ErrorBudget, Resilience
from somaresil.model.slo import FAST_BURN, GRADUAL_BURN, BurnPolicy, Window
from somaresil.slo import defaults


def test_the_names_of_the_plan_stay_valid():
    """The four fields of the seed may be given by position, in its order."""
    slo = SLO("api", 99.9, timedelta(days=30), "gradual_burn")
    assert (slo.name, slo.target_percentage, slo.measurement_window, slo.error_budget_policy) == (
        "api",
        99.9,
        timedelta(days=30),
        "gradual_burn",
    )
    assert slo.period == 30 * 86_400
    assert slo.burn_policy is GRADUAL_BURN
    assert SLO("api", 99.9, timedelta(days=30)).burn_policy is FAST_BURN


@pytest.mark.parametrize(
    ("options", "indicator"), [({}, "availability"), ({"latency": 2}, "latency"), ({"recovery": timedelta(minutes=5)}, "recovery")]
)
def test_an_objective_has_one_indicator(options, indicator):
    """Availability unless a threshold is named; thresholds become seconds."""
    slo = SLO("x", 95.0, timedelta(days=7), **options)
    assert slo.indicator == indicator
    assert slo.latency in {None, 2.0}
    assert slo.recovery in {None, 300.0}


def test_every_mistake_is_named_at_once():
    """One error lists all of them, each with its path and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        SLO("two words", 100.0, timedelta(minutes=4), "gradual_bun", latency=-1, recovery=0, injected="no")
    assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == [
        "name",
        "target_percentage",
        "measurement_window",
        "error_budget_policy",
        "latency",
        "recovery",
        "recovery",
        "injected",
    ]
    assert "did you mean" in str(caught.value)


@pytest.mark.parametrize("window", [timedelta(minutes=5), timedelta(days=90)])
def test_both_ends_of_the_windows_are_allowed(window):
    """5 minutes and 90 days themselves."""
    assert SLO("x", 99.0, window).measurement_window == window


@pytest.mark.parametrize("window", [timedelta(seconds=299), timedelta(days=90, seconds=1), 3600, "30d", None])
def test_other_windows_are_refused(window):
    """Shorter, longer, or no timedelta."""
    with pytest.raises(ConfigurationError, match="5 minutes to 90 days"):
        SLO("x", 99.0, window)


@pytest.mark.parametrize("target", [0, 100, -1, 101, float("nan"), "99", True])
def test_a_target_without_budget_or_objective_is_refused(target):
    """0 % and 100 % promise nothing that can be kept track of."""
    with pytest.raises(ConfigurationError, match="target_percentage"):
        SLO("x", target, timedelta(days=1))


def test_an_objective_is_frozen():
    """Nobody moves a target while it is being watched."""
    with pytest.raises(FrozenInstanceError):
        SLO("x", 99.0, timedelta(days=1)).target_percentage = 10.0


def test_nothing_known_is_none():
    """A budget without events has no figures, and no share."""
    budget = ErrorBudget("x", 0.01, None, None, None)
    assert budget.remaining_share is None


@pytest.mark.parametrize(("consumed", "share"), [(0.0, 1.0), (0.005, 0.5), (0.01, 0.0), (0.02, -1.0)])
def test_the_share_that_is_left(consumed, share):
    """1 untouched, 0 used up, negative overspent."""
    budget = ErrorBudget("x", 0.01, consumed, 0.01 - consumed, 0.0)
    assert budget.remaining_share == pytest.approx(share)


def test_the_four_objectives_of_the_plan():
    """API 99.9 % in 30 d, LLM 95 % under 2 s in 7 d, memory writes 99.5 % in 30 d, recovery under 5 min."""
    figures = [(slo.name, slo.target_percentage, slo.measurement_window.days, slo.latency, slo.recovery) for slo in defaults.ALL]
    assert figures == [
        ("api_availability", 99.9, 30, None, None),
        ("llm_latency_p95", 95.0, 7, 2.0, None),
        ("memory_writes", 99.5, 30, None, None),
        ("circuit_recovery", 95.0, 30, None, 300.0),
    ]
    assert defaults.ALL == (defaults.API_AVAILABILITY, defaults.LLM_LATENCY, defaults.MEMORY_WRITES, defaults.CIRCUIT_RECOVERY)
    assert all(slo.description for slo in defaults.ALL)
    resilience = Resilience("x")
    resilience.slos.add(*defaults.ALL)
    assert resilience.slos.names == tuple(slo.name for slo in defaults.ALL)


def test_what_a_file_may_hold_is_a_problem_and_no_defect():
    """A calendar or a description of any kind: files have mappings and lists where texts belong."""
    policy = BurnPolicy("own", (Window(60.0, 10.0, 0.5, "page"),))
    for strange in ({}, [], (), 3):
        with pytest.raises(ConfigurationError) as caught:
            SLO("a", 99.0, error_budget_policy=policy, calendar=strange, description=strange)
        assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == ["calendar", "description"]
