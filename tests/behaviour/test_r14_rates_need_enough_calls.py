"""R14: 80 % of failures trip, one failure of three calls does not. pybreaker never trips at 80 % while one call in five succeeds."""

from __future__ import annotations

from somaresil import CircuitBreaker
from tests.behaviour.kit import Stand, both, both_paths


@both_paths
@both
def test_r14_eighty_percent_of_failures_trip(suspends, held):
    """Four failures and a success, again and again: at the first failure at which the window holds the minimum of calls."""
    stand = Stand(held=held, breaker=CircuitBreaker())
    calls = 0
    while stand.state == "closed" and calls < 100:
        calls += 1
        stand.fail(suspends) if calls % 5 else stand.succeed(suspends)
    # The 20th call is a success; the 21st fails.
    assert (stand.state, calls) == ("open", 21)


@both_paths
@both
def test_r14_one_failure_of_three_does_not_trip(suspends, held):
    """Three calls are too few to speak of a rate."""
    stand = Stand(held=held, breaker=CircuitBreaker(failure_rate=0.3))
    stand.succeed(suspends)
    stand.fail(suspends)
    stand.succeed(suspends)
    assert stand.state == "closed"


@both_paths
@both
def test_r14_below_the_rate_nothing_trips_however_long(suspends, held):
    """Two failures in five calls stay below one half for ever."""
    stand = Stand(held=held, breaker=CircuitBreaker(minimum_calls=5))
    for call in range(60):
        stand.fail(suspends) if call % 5 in {1, 3} else stand.succeed(suspends)
    assert stand.state == "closed"


@both_paths
def test_r14_failures_in_a_row_are_broken_by_a_success_on_either_path(held):
    """Two failures, a success, two failures are not three in a row; a third one is."""
    stand = Stand(held=held, breaker=CircuitBreaker(failure_rate=None, consecutive_failures=3))
    for outcome in "FFSFF":
        stand.fail() if outcome == "F" else stand.succeed()
    assert stand.state == "closed"
    stand.fail()
    assert stand.state == "open"


@both_paths
@both
def test_r14_slow_calls_trip_by_a_rate_of_their_own(suspends, held):
    """Good but slow answers open; the threshold itself is not slow."""
    breaker = CircuitBreaker(failure_rate=None, slow_call_rate=0.5, slow_call_duration=2.0, minimum_calls=4, window=3600.0)
    stand = Stand(held=held, breaker=breaker)

    def lasting(seconds: float):
        return stand.callable(lambda: stand.clock.advance(seconds), suspends)

    for _ in range(8):
        lasting(2.0)()
    assert stand.state == "closed"
    for _ in range(7):
        lasting(2.25)()
        assert stand.state == "closed"
    lasting(2.25)()
    assert stand.state == "open"
    assert stand.fail().detail == "8 of 16 calls took longer than 2 s in 3600 s (50 % >= 50 %)"
