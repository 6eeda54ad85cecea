"""R7: an end that ``classify`` ignores is neither success nor failure, and every permit is given back. Other ends count as it says."""

from __future__ import annotations

import pytest

from somaresil import CircuitBreaker, Outcome
from tests.behaviour.kit import Boom, Stand, both, one_strike


def ignore_lookups(result, error):
    return Outcome.IGNORED if isinstance(error, LookupError) else None


@both
def test_r07_an_ignored_error_opens_nothing_and_is_not_in_the_window(suspends):
    """However many there are."""
    stand = Stand(breaker=one_strike(), classify=ignore_lookups)
    for _ in range(5):
        assert isinstance(stand.fail(suspends, KeyError("not there")), KeyError)
    assert stand.state == "closed"
    assert stand.breaker.tally().calls == 0
    assert stand.count(Outcome.IGNORED) == stand.count() == 5


@both
def test_r07_an_ignored_error_does_not_end_a_row_of_failures(suspends):
    """Two failures with something ignored between them are two in a row."""
    stand = Stand(breaker=one_strike(consecutive_failures=2), classify=ignore_lookups)
    stand.fail(suspends)
    stand.fail(suspends, KeyError())
    assert stand.state == "closed"
    stand.fail(suspends)
    assert stand.state == "open"


@both
def test_r07_an_ignored_probe_gives_its_place_back(suspends):
    """It neither closes nor opens; the next caller decides."""
    stand = Stand(breaker=one_strike(), classify=ignore_lookups, bulkhead=1)
    stand.fail(suspends)
    stand.clock.advance(30.0)
    stand.fail(suspends, KeyError())
    assert stand.state == "half_open"
    assert stand.guard.bulkhead.active == 0
    stand.succeed(suspends)
    assert stand.state == "closed"


@both
def test_r07_a_result_may_be_bad_and_an_error_good(suspends):
    """The classifier sees either, and its word counts for breaker and records; the caller gets what the callee gave."""

    def classify(result, error):
        if result == "error page":
            return "bad"
        return Outcome.GOOD if isinstance(error, LookupError) else None

    stand = Stand(breaker=one_strike(), classify=classify)
    stand.fail(suspends, KeyError())
    assert (stand.state, stand.count(Outcome.GOOD)) == ("closed", 1)
    assert stand.callable(lambda: "error page", suspends)() == "error page"
    assert (stand.state, stand.count(Outcome.BAD)) == ("open", 1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
def test_r07_nobody_is_asked_about_a_caller_who_left_or_was_rejected(kind):
    """Abandoned and rejected calls are what they are."""
    asked = []

    def classify(result, error):
        asked.append(error)
        return Outcome.BAD

    stand = Stand(breaker=one_strike(), classify=classify)
    stand.fail(error=kind())
    assert asked == []
    assert stand.state == "closed"
    stand.resilience.breaker("dependency").force_open()
    stand.fail()
    assert asked == []
    assert (stand.count(Outcome.ABANDONED), stand.count(Outcome.REJECTED)) == (1, 1)


def test_r07_a_nested_rejection_is_an_error_of_the_callee():
    """What another guard inside rejects is this guard's dependency failing; its own rejection is not."""
    stand = Stand("outer", breaker=CircuitBreaker())
    inner = stand.resilience.guard("inner", breaker=one_strike())
    stand.resilience.breaker("inner").force_open()
    stand.guard(inner(lambda: "never"))
    with pytest.raises(Exception, match="'inner' rejected"):
        stand.guard(inner(lambda: "never"))()
    assert stand.count(Outcome.BAD) == stand.count() == 1
    assert isinstance(stand.fail(), Boom)
