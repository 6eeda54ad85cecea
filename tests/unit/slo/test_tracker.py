"""Objectives by name, and what is left of their budgets."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError
from tests.unit.slo.kit import DAY, HOUR, availability, bad, good, process


def test_adding_the_same_objective_again_changes_nothing():
    """Two modules may both say what they need; counts stay."""
    resilience, _ = process(availability())
    bad(resilience.guard("x", slo="up"))
    series = resilience.slos.series("up")
    resilience.slos.add(availability(), availability())
    assert resilience.slos.series("up") is series
    assert resilience.slos.names == ("up",)


def test_another_objective_of_the_same_name_is_refused():
    """Also within one call, and then none of them is taken."""
    resilience, _ = process()
    with pytest.raises(ConfigurationError, match="a name that is not taken"):
        resilience.slos.add(availability("new"), availability(), availability(target=50.0))
    assert resilience.slos.names == ()
    resilience.slos.add(availability())
    with pytest.raises(ConfigurationError, match="a name that is not taken"):
        resilience.slos.add(availability("new"), availability(target=50.0))
    assert resilience.slos.names == ("up",)
    assert resilience.slos["up"].target_percentage == 99.0


def test_what_is_no_objective_is_refused():
    """With everything else that is wrong."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        resilience.slos.add("up", availability(target=1.0))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda slos, name: slos[name],
        lambda slos, name: slos.series(name),
        lambda slos, name: slos.counts(name, HOUR),
        lambda slos, name: slos.burn_rate(name),
        lambda slos, name: slos.error_budget(name),
        lambda slos, name: slos.conditions(name),
        lambda slos, name: slos.verdict(name),
        lambda slos, name: slos.thresholds((name,)),
        lambda slos, name: slos.attach(name, None),
        lambda slos, name: asyncio.run(slos.calculate_error_budget(name)),
        lambda slos, name: asyncio.run(slos.check_burn_rate(name)),
        lambda slos, name: asyncio.run(slos.should_block_deployment(name)),
    ],
)
def test_an_unknown_name_says_what_was_meant(ask):
    """Every question does, and lists what there is."""
    resilience, _ = process(availability("api_availability"))
    with pytest.raises(ConfigurationError) as caught:
        ask(resilience.slos, "api_availibility")
    assert "did you mean 'api_availability'?" in str(caught.value)
    assert "an objective that was added (api_availability)" in str(caught.value)


def test_a_guard_that_names_an_unknown_objective_says_what_was_meant():
    """At decoration, before anything runs."""
    resilience, _ = process(availability("memory_writes"))
    with pytest.raises(ConfigurationError, match="did you mean 'memory_writes'"):
        resilience.guard("x", slo="memory_write")
    with pytest.raises(ConfigurationError, match="none is defined"):
        process()[0].guard("x", slo="anything")


def test_no_event_is_not_known():
    """No figure is made up: None, and a burn of None."""
    resilience, _ = process(availability())
    resilience.guard("x", slo="up")
    budget = asyncio.run(resilience.slos.calculate_error_budget("up"))
    assert (budget.consumed, budget.remaining, budget.burn_rate, budget.remaining_share) == (None, None, None, None)
    assert (budget.good, budget.bad, budget.total_budget) == (0, 0, 0.01)
    assert asyncio.run(resilience.slos.check_burn_rate("up")) is None


@pytest.mark.parametrize(("served", "failed", "left"), [(100, 0, 1.0), (995, 5, 0.5), (990, 10, 0.0), (900, 100, -9.0)])
def test_consumed_and_remaining_add_up_to_the_budget(served, failed, left):
    """Shares of all events: 1 % may fail, and what failed is taken off."""
    resilience, _ = process(availability())
    guard = resilience.guard("x", slo="up")
    good(guard, served)
    bad(guard, failed)
    budget = asyncio.run(resilience.slos.calculate_error_budget("up"))
    assert budget.slo_name == "up"
    assert budget.total_budget == 0.01
    assert budget.consumed == pytest.approx(failed / (served + failed))
    assert budget.consumed + budget.remaining == pytest.approx(budget.total_budget)
    assert budget.remaining_share == pytest.approx(left)
    assert (budget.good, budget.bad, budget.window) == (served, failed, 30 * DAY)
    assert budget.burn_rate == pytest.approx(budget.consumed / 0.01)


def test_a_budget_looks_at_its_own_window():
    """Failures of last week are not this day's."""
    resilience, clock = process(availability("day", days=1), availability("month"))
    guard = resilience.guard("x", slo=["day", "month"])
    bad(guard, 10)
    clock.advance(3 * DAY)
    good(guard, 90)
    assert resilience.slos.error_budget("day").bad == 0
    assert resilience.slos.error_budget("month").consumed == pytest.approx(0.1)


def test_a_burn_rate_is_of_its_window():
    """2 % of a 1 % budget is twice too fast in the last hour, and less over the day."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    good(guard, 900)
    clock.advance(2 * HOUR)
    good(guard, 98)
    bad(guard, 2)
    assert asyncio.run(resilience.slos.check_burn_rate("up")) == pytest.approx(2.0)
    assert resilience.slos.burn_rate("up", timedelta(days=1)) == pytest.approx(0.2)
    assert resilience.slos.burn_rate("up", 300.0) == pytest.approx(2.0)
    clock.advance(2 * HOUR)
    assert resilience.slos.burn_rate("up") is None


def test_the_conditions_are_those_of_the_policy():
    """1 h and 6 h for the fast one, 1 d and 3 d for the gradual one, each with its short window."""
    resilience, _ = process(availability(), availability("slow", error_budget_policy="gradual_burn"))
    assert [(c.long, c.short) for c in resilience.slos.conditions("up")] == [(HOUR, 300.0), (6 * HOUR, 1800.0)]
    assert [(c.long, c.short) for c in resilience.slos.conditions("slow")] == [(DAY, 2 * HOUR), (3 * DAY, 6 * HOUR)]


def test_an_alert_fires_and_clears_with_its_short_window():
    """Fifteen minutes of failing calls fire; soon after they end, it is over, long before the hour is."""
    resilience, clock = process(availability(target=99.9))
    guard = resilience.guard("x", slo="up")

    def fires():
        return resilience.slos.conditions("up")[0].firing

    for minute in range(120):
        (bad if 60 <= minute < 75 else good)(guard, 10)
        clock.advance(60.0)
        if minute == 59:
            assert fires() is False
        if minute == 74:
            assert fires() is True
        if minute == 81:
            assert fires() is False


def test_coverage_grows_to_one():
    """The share of the period for which there has been anybody to see anything."""
    resilience, clock = process(availability(days=10))
    assert resilience.slos.error_budget("up").coverage == 0.0
    clock.advance(5 * DAY)
    assert resilience.slos.error_budget("up").coverage == pytest.approx(0.5)
    clock.advance(50 * DAY)
    assert resilience.slos.error_budget("up").coverage == 1.0


def test_thresholds_are_bounds_of_whoever_records():
    """Three seconds is no default bound; a guard that feeds such an objective has it."""
    resilience, _ = process(SLO("slow", 99.0, timedelta(days=1), latency=timedelta(seconds=3)))
    assert resilience.slos.thresholds(("slow",)) == (3.0,)
    assert 3.0 in resilience.guard("x", slo="slow").recorder.bounds
    assert 3.0 not in resilience.guard("y").recorder.bounds


def test_the_snapshot_shows_budgets_and_incidents():
    """All objectives, frozen at one moment."""
    resilience, _ = process(availability())
    good(resilience.guard("x", slo="up"), 3)
    snapshot = resilience.snapshot()
    assert snapshot.budgets["up"].good == 3
    assert snapshot.incidents == ()
