"""May we release? Three answers, and the dark is not green."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, Decision, DeploymentPolicy, ManualClock, Resilience, Verdict
from tests.unit.slo.kit import DAY, HOUR, availability, bad, breaker, good, process, recovery


def verdict(resilience, *names, **policy):
    return asyncio.run(resilience.slos.should_block_deployment(*names, policy=DeploymentPolicy(**policy) if policy else None))


def test_without_objectives_nothing_is_known():
    """And what is not known blocks."""
    answer = verdict(Resilience("x"))
    assert answer.decision is Decision.UNKNOWN
    assert bool(answer) is True
    assert "no objective is defined" in str(answer)


def test_an_objective_that_nothing_records_into_is_unknown():
    """A name that was forgotten in guard(..., slo=...) must not look like a healthy service."""
    resilience, _ = process(availability())
    answer = verdict(resilience)
    assert (answer.decision, bool(answer)) == (Decision.UNKNOWN, True)
    assert "nothing records into it" in answer.reasons[0]


def test_no_events_are_unknown():
    """No data is neither 100 % nor 0 %."""
    resilience, _ = process(availability())
    resilience.guard("x", slo="up")
    answer = verdict(resilience)
    assert (answer.decision, bool(answer)) == (Decision.UNKNOWN, True)
    assert answer.evidence[0].budget.consumed is None


@pytest.mark.parametrize(("events", "decision"), [(9, Decision.UNKNOWN), (10, Decision.ALLOW)])
def test_a_few_events_say_nothing(events, decision):
    """Ten are the least by default."""
    resilience, _ = process(availability())
    good(resilience.guard("x", slo="up"), events)
    assert verdict(resilience).decision is decision


def test_unknown_passes_only_when_the_policy_says_so():
    """The decision stays what it is; only what it means for the pipeline changes."""
    resilience, _ = process(availability())
    answer = verdict(resilience, on_unknown="allow")
    assert (answer.decision, bool(answer)) == (Decision.UNKNOWN, False)


def test_a_policy_never_lets_a_block_pass():
    """``on_unknown`` is about the unknown."""
    resilience, _ = process(availability())
    bad(resilience.guard("x", slo="up"), 20)
    answer = verdict(resilience, on_unknown="allow")
    assert (answer.decision, bool(answer)) == (Decision.BLOCK, True)


def test_a_healthy_service_may_release():
    """Falsy, with its evidence."""
    resilience, _ = process(availability())
    good(resilience.guard("x", slo="up"), 100)
    answer = verdict(resilience)
    assert (answer.decision, bool(answer)) == (Decision.ALLOW, False)
    assert answer.reasons == ("up: 100.0% of the error budget left (0 bad of 100)",)
    assert answer.evidence[0].budget.good == 100
    assert len(answer.evidence[0].conditions) == 2
    assert str(answer) == "ALLOW\n  up: 100.0% of the error budget left (0 bad of 100)"


@pytest.mark.parametrize(("failed", "decision"), [(90, Decision.ALLOW), (91, Decision.BLOCK)])
def test_a_budget_below_the_floor_blocks(failed, decision):
    """A tenth must be left; 1 % of 10,000 are 100, so 90 are just about allowed. The failures are old, so nothing burns."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    bad(guard, failed)
    clock.advance(7 * HOUR)
    good(guard, 10_000 - failed)
    assert verdict(resilience).decision is decision


def test_a_floor_may_be_set():
    """Half the budget, for the careful."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    bad(guard, 5)
    clock.advance(7 * HOUR)
    good(guard, 995)
    assert verdict(resilience).decision is Decision.ALLOW
    assert verdict(resilience, minimum_remaining=0.5).decision is Decision.ALLOW
    answer = verdict(resilience, minimum_remaining=0.6)
    assert answer.decision is Decision.BLOCK
    assert "50.0% of the error budget left, less than 60%" in answer.reasons[0]


def test_burning_too_fast_blocks_although_the_budget_is_there():
    """What is left lasts only if this ends: 20 % of the last hour failed, of a 99 % objective with a month of good calls behind it."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    good(guard, 20_000)
    clock.advance(DAY)
    for _ in range(12):
        good(guard, 8)
        bad(guard, 2)
        clock.advance(300.0)
    answer = verdict(resilience)
    assert answer.decision is Decision.BLOCK
    assert "burning 20.0 times too fast over 3600 s and 300 s (limit 14.4)" in answer.reasons[0]


def test_a_burn_that_can_be_kept_up_does_not_block():
    """In a period of a day the derived factor of the slow pair is 0.1: it fires, and the budget still lasts."""
    resilience, clock = process(availability("up", 90.0, days=1, error_budget_policy="gradual_burn"))
    guard = resilience.guard("x", slo="up")
    for _ in range(24):
        good(guard, 99)
        bad(guard, 1)
        clock.advance(HOUR)
    answer = verdict(resilience)
    assert any(condition.firing for condition in answer.evidence[0].conditions)
    assert answer.decision is Decision.ALLOW


def test_coverage_may_be_asked_for():
    """A process that was started a minute ago has seen next to nothing of thirty days."""
    resilience, clock = process(availability(), recovery())
    guard = resilience.guard("x", slo="up")
    good(guard, 100)
    clock.advance(3 * DAY)
    assert verdict(resilience).decision is Decision.ALLOW
    answer = verdict(resilience, minimum_coverage=0.5)
    assert answer.decision is Decision.UNKNOWN
    assert [reason.partition(":")[0] for reason in answer.reasons] == ["up", "recovery"]
    assert "10.00% of the period observed, less than 50.00%" in answer.reasons[0]
    clock.advance(12 * DAY)
    assert verdict(resilience, minimum_coverage=0.5).decision is Decision.ALLOW


def test_one_that_blocks_blocks_all():
    """It speaks before what is unknown, and only the reasons that matter are named."""
    resilience, _ = process(availability("fine"), availability("dark"), availability("spent"))
    good(resilience.guard("a", slo="fine"), 100)
    bad(resilience.guard("b", slo="spent"), 100)
    answer = verdict(resilience)
    assert answer.decision is Decision.BLOCK
    assert [reason.partition(":")[0] for reason in answer.reasons] == ["spent"]
    assert [evidence.decision for evidence in answer.evidence] == [Decision.ALLOW, Decision.UNKNOWN, Decision.BLOCK]


def test_one_that_is_unknown_makes_it_unknown():
    """A healthy objective does not speak for one in the dark."""
    resilience, _ = process(availability("fine"), availability("dark"))
    good(resilience.guard("a", slo="fine"), 100)
    answer = verdict(resilience)
    assert answer.decision is Decision.UNKNOWN
    assert [reason.partition(":")[0] for reason in answer.reasons] == ["dark"]


def test_objectives_may_be_named():
    """Only these are asked then."""
    resilience, _ = process(availability("fine"), availability("dark"))
    good(resilience.guard("a", slo="fine"), 100)
    assert verdict(resilience, "fine").decision is Decision.ALLOW


def test_an_unknown_name_is_an_error_and_no_answer():
    """A typing mistake in a pipeline must not open the gate."""
    resilience, _ = process(availability("api_availability"))
    with pytest.raises(ConfigurationError, match=r"did you mean 'api_availability'\?"):
        verdict(resilience, "api_availabilty")


def test_no_incident_is_good_news():
    """For an objective about recovery, silence is health."""
    resilience, _ = process(recovery())
    answer = verdict(resilience)
    assert answer.decision is Decision.ALLOW
    assert answer.reasons == ("recovery: no incident",)


def test_an_incident_under_way_is_not_known_yet():
    """A circuit is open at this moment: whether it will close in time, nobody knows; when it is overdue, it is bad."""
    resilience, clock = process(recovery())
    guard = resilience.guard("x", breaker=breaker())
    other = resilience.guard("y", breaker=breaker())
    bad(guard, 2)
    answer = verdict(resilience)
    assert answer.decision is Decision.UNKNOWN
    assert "1 incident under way" in answer.reasons[0]
    bad(other, 2)
    assert "2 incidents under way" in verdict(resilience).reasons[0]
    clock.advance(200.0)
    good(guard)
    good(other)
    assert verdict(resilience).decision is Decision.ALLOW
    bad(guard, 2)
    clock.advance(301.0)
    assert verdict(resilience, minimum_remaining=0.5).decision is Decision.BLOCK


def test_one_slow_recovery_is_enough_to_block():
    """The least number of events does not apply to incidents."""
    resilience, clock = process(recovery())
    guard = resilience.guard("x", breaker=breaker())
    bad(guard, 2)
    clock.advance(1000.0)
    good(guard)
    assert verdict(resilience).decision is Decision.BLOCK


def test_every_mistake_of_a_policy_is_named():
    """At once, with what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        DeploymentPolicy(minimum_remaining=2.0, minimum_events=0, minimum_coverage=-1.0, on_unknown="alow")
    assert [problem.path for problem in caught.value.problems] == [
        "DeploymentPolicy.minimum_remaining",
        "DeploymentPolicy.minimum_events",
        "DeploymentPolicy.minimum_coverage",
        "DeploymentPolicy.on_unknown",
    ]
    assert "did you mean 'allow'?" in str(caught.value)


@pytest.mark.parametrize(
    ("decision", "on_unknown", "blocks"),
    [
        (Decision.ALLOW, "block", False),
        (Decision.BLOCK, "allow", True),
        (Decision.UNKNOWN, "block", True),
        (Decision.UNKNOWN, "allow", False),
        (Decision.UNKNOWN, "alow", True),
    ],
)
def test_a_verdict_is_what_a_pipeline_acts_on(decision, on_unknown, blocks):
    """Truthy blocks, and in doubt it blocks."""
    assert bool(Verdict(decision, (), (), on_unknown)) is blocks


def test_a_latency_objective_goes_through_the_same_gate():
    """Slow answers spend a budget like failures do."""
    clock = ManualClock()
    resilience, _ = process(SLO("fast", 90.0, timedelta(days=1), latency=2.0), clock=clock)
    guard = resilience.guard("x", slo="fast")
    for seconds in [3.0] * 5 + [0.1] * 5:
        guard.call(clock.advance, seconds)
    assert verdict(resilience).decision is Decision.BLOCK
