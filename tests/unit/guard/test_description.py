"""A guard in words: its pipeline, the longest call, how often it repeats, what differs from the code, what is wrong."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from somaresil import Bulkhead, CircuitBreaker, Fallback, Resilience, Retry, Timeout
from somaresil.guard import GuardOptions
from somaresil.guard.estimate import amplification, longest_line, pauses, worst_case
from tests.behaviour.kit import Stand


def handler(*args):
    return "instead"


def classify(result, error):
    return None


def estimates(**options):
    made = GuardOptions.of("x", options)
    return worst_case(made), worst_case(made, asked=True), amplification(made)


@pytest.mark.parametrize(
    ("options", "worst", "asked", "calls"),
    [
        ({}, None, None, 1),
        ({"retry": 3}, None, None, 3),
        ({"timeout": 10.0}, 10.0, 10.0, 1),
        ({"timeout": Timeout(idle=1.0)}, None, None, 1),
        ({"timeout": 10.0, "retry": 1}, 10.0, 10.0, 1),
        ({"timeout": 10.0, "retry": 3}, 30.3, 150.3, 3),
        ({"timeout": 10.0, "retry": Retry(attempts=3, max_retry_after=None)}, 30.3, 30.3, 3),
        ({"timeout": 10.0, "retry": Retry(attempts=3, wait=2.0)}, 34.0, 150.0, 3),
        ({"timeout": 10.0, "retry": Retry(attempts=3, wait=70.0)}, 170.0, 170.0, 3),
        ({"timeout": 1.0, "retry": Retry(attempts=10)}, 10 + 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 + 5 + 5, None, 10),
        ({"timeout": 10.0, "retry": Retry(attempts=9, max_elapsed=12.0)}, 22.0, 22.0, 9),
        ({"timeout": 10.0, "retry": Retry(attempts=2, max_elapsed=99.0, max_retry_after=None)}, 20.1, 20.1, 2),
        ({"timeout": 10.0, "retry": Retry(attempts=2, wait=lambda attempt: 1)}, None, None, 2),
        ({"timeout": 10.0, "retry": Retry(attempts=2, wait=lambda attempt: 1, max_elapsed=5.0)}, 15.0, 15.0, 2),
        ({"timeout": 10.0, "bulkhead": Bulkhead(1, 1, 4.0)}, 14.0, 14.0, 1),
        ({"timeout": 10.0, "bulkhead": Bulkhead(1, 1, 4.0), "retry": Retry(attempts=2, wait=1.0, max_retry_after=0)}, 29.0, 29.0, 2),
        ({"timeout": 10.0, "retry": Retry(attempts=5, shadow=True)}, 10.0, 10.0, 1),
        ({"timeout": Timeout(10.0, shadow=True)}, None, None, 1),
    ],
)
def test_the_longest_call_and_the_most_calls(options, worst, asked, calls):
    """Each attempt takes as long as it may and fails, each pause is the longest; shadows do nothing."""
    found = estimates(**options)
    assert found[0] == pytest.approx(worst)
    if asked is not None:
        assert found[1] == pytest.approx(asked)
    assert found[2] == calls


def options_with_hedge(**hedge):
    made = GuardOptions.of("x", {"timeout": 4.0, "retry": Retry(attempts=2, wait=1.0)})
    given = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    hedge = SimpleNamespace(shadow=False, delay=None, max_hedges=2) if not hedge else SimpleNamespace(**hedge)
    # A stand-in that has the fields of the options and one more.
    return type("Options", (), {"__dataclass_fields__": made.__dataclass_fields__, **given, "hedge": hedge})()


def test_a_hedge_makes_calls_beside_the_first():
    """Each with all the retries inside it, the last of them begun after all delays, or when the one before it has ended."""
    assert amplification(options_with_hedge(delay=0.5, max_hedges=2, shadow=False)) == 6
    assert worst_case(options_with_hedge(delay=0.5, max_hedges=2, shadow=False)) == pytest.approx(9.0 + 1.0)
    assert worst_case(options_with_hedge(delay=60.0, max_hedges=1, shadow=False)) == pytest.approx(18.0)
    assert worst_case(options_with_hedge()) == pytest.approx(27.0)
    assert amplification(options_with_hedge(delay=0.5, max_hedges=2, shadow=True)) == 2


def test_lines_and_pauses_are_told_apart():
    """Waiting to be let through, and waiting to try again."""
    made = GuardOptions.of("x", {"bulkhead": Bulkhead(1, 1, 4.0), "retry": Retry(attempts=3, wait=1.5)})
    assert longest_line(made) == 4.0
    assert pauses(made) == 3.0
    assert pauses(made, asked=True) == 120.0


def test_a_guard_describes_itself():
    """As text, outermost first, with what is not as usual."""
    guard = Resilience("shop").guard(
        "llm.invoke",
        timeout=10.0,
        retry=Retry(attempts=2, on=ConnectionError),
        breaker=True,
        bulkhead=Bulkhead(8, 4, 2.0),
        fallback=handler,
        classify=classify,
    )
    guard.where = "gateway.py:12"
    assert guard.describe().splitlines() == [
        "llm.invoke  (gateway.py:12)",
        "  record",
        "  fallback   handler=handler",
        "  retry      attempts=2, on=ConnectionError",
        "  breaker",
        "  bulkhead   max_concurrent=8, max_waiting=4, max_wait=2.0",
        "  timeout    total=10.0",
        "  fault",
        "  callee",
        "  classify=classify",
        "  worst case 24.1 s (84.1 s when answers ask for pauses; longer for a plain function), at most 2 calls of the dependency",
    ]


def test_a_guard_without_policies_says_so():
    """Nothing bounds it."""
    text = Resilience("shop").guard("bare").describe()
    assert text.splitlines()[1:] == ["  record", "  fault", "  callee", "  worst case without bound, at most 1 call of the dependency"]


def test_what_is_not_as_in_the_code_is_told():
    """Live changes and settings alike; what the code itself has configured is the code's."""
    resilience = Resilience("shop")
    guard = resilience.guard("x", timeout=10.0)
    guard.configure(retry=2)
    assert guard.description().changed == ()
    resilience.reconfigure({"x": {"timeout": {"total": 4.0}, "bulkhead": 3}})
    assert guard.description().changed == ("bulkhead None -> Bulkhead(max_concurrent=3)", "timeout.total 10.0 -> 4.0")
    assert "  not as in the code: timeout.total 10.0 -> 4.0" in guard.describe()


def test_what_was_decided_in_shadow_mode_is_told():
    """By policy and decision."""
    stand = Stand(retry=Retry(attempts=2, shadow=True))
    stand.fail()
    stand.fail()
    description = stand.guard.description()
    assert description.shadow == (("retry", "retry", 2),)
    assert [layer.name for layer in description.pipeline if layer.shadow] == ["retry"]
    assert "  shadow: retry would have decided 'retry' 2 times" in str(description)


def test_findings_are_told_and_a_deadline_that_is_given_is_held():
    """With the place and what to do."""
    guard = Resilience("shop").guard("x", timeout=5.0, breaker=CircuitBreaker(), bulkhead=Bulkhead(2, 1, 6.0))
    assert [finding.code for finding in guard.description().findings] == ["breaker-blind", "waits-longer-than-it-works"]
    assert "\n  ! bulkhead.max_wait: the timeout of 5 s begins when" in guard.describe()
    assert "past-deadline" in [finding.code for finding in guard.description(deadline=8.0).findings]


def test_a_description_is_frozen():
    """It is one moment."""
    guard = Resilience("shop").guard("x", fallback=Fallback(handler))
    description = guard.description()
    guard.configure(fallback=None)
    assert [layer.name for layer in description.pipeline] == ["record", "fallback", "fault", "callee"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        description.guard = "y"
