"""R10: steps of the wall clock and time zones have no effect. aiobreaker's 60 s are five hours in New York."""

from __future__ import annotations

import time

import pytest

from somaresil import CircuitOpen
from somaresil.events import BreakerChanged
from tests.behaviour.kit import Stand, both, one_strike


@both
@pytest.mark.parametrize("step", [-1e9, -3600.0, 3600.0, 1e9])
def test_r10_a_step_of_the_wall_clock_neither_shortens_nor_lengthens_an_opening(suspends, step):
    """30 seconds are 30 seconds of the monotonic clock."""
    stand = Stand(breaker=one_strike())
    stand.fail(suspends)
    stand.clock.step_wall(step)
    stand.clock.advance(29.75)
    rejected = stand.fail(suspends)
    assert isinstance(rejected, CircuitOpen)
    assert rejected.retry_after == 0.25
    stand.clock.advance(0.25)
    stand.succeed(suspends)
    assert stand.state == "closed"


@pytest.mark.parametrize("step", [-1e9, 1e9])
def test_r10_a_step_of_the_wall_clock_expires_nothing_from_the_window(step):
    """Failures before and after the step are in one window."""
    stand = Stand(breaker=one_strike(consecutive_failures=None, failure_rate=0.5, minimum_calls=3))
    for _ in range(2):
        stand.fail()
    stand.clock.step_wall(step)
    assert stand.breaker.tally().failures == 2
    stand.fail()
    assert stand.state == "open"


def test_r10_a_lease_and_a_probe_do_not_look_at_the_wall_clock():
    """Half-open too."""
    stand = Stand(breaker=one_strike(probe_timeout=5.0))
    stand.fail()
    stand.clock.advance(30.0)
    permit = stand.breaker.admit()
    stand.clock.step_wall(1e9)
    assert stand.breaker.retry_after() == 5.0
    assert permit.probe is not None


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_r10_a_time_zone_has_no_effect(zone, monkeypatch):
    """Open time, retry-after and the stamps of events are the same everywhere."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        stand = Stand(breaker=one_strike())
        stand.fail()
        (opened,) = stand.told(BreakerChanged)
        assert (opened.at, opened.first_failure_at, opened.open_duration) == (1_700_000_000.0, 1_700_000_000.0, 30.0)
        assert stand.breaker.retry_after() == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()
