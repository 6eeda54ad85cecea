"""R13: how long an opening lasts is drawn once. fluxgate draws at every look, and its jitter collapses to the lower bound."""

from __future__ import annotations

from somaresil.events import BreakerChanged
from tests.behaviour.kit import Stand, both, one_strike


@both
def test_r13_looking_often_does_not_shorten_an_opening(suspends):
    """However often it is asked, the end of the opening stays where it was, and the event has said it."""
    stand = Stand(breaker=one_strike(open_jitter=0.5))
    stand.fail(suspends)
    (opened,) = stand.told(BreakerChanged)
    wait = stand.breaker.retry_after()
    assert wait == opened.open_duration
    for _ in range(20):
        assert stand.breaker.retry_after() == wait
        assert stand.fail(suspends).retry_after == wait
    stand.clock.advance(wait / 2)
    assert abs(stand.breaker.retry_after() - wait / 2) < 1e-6
    assert len(stand.told(BreakerChanged)) == 1


def test_r13_each_opening_has_a_draw_of_its_own():
    """Openings differ, inside their bounds, and a second process with the same seed draws the same."""

    def lengths() -> list[float]:
        stand = Stand(breaker=one_strike(open_jitter=0.5, open_factor=1.0))
        for _ in range(50):
            stand.fail()
            stand.clock.advance(stand.breaker.retry_after())
        return [event.open_duration for event in stand.told(BreakerChanged) if event.after == "open"]

    drawn = lengths()
    assert len(drawn) == len(set(drawn)) == 50
    assert all(15.0 <= length <= 45.0 for length in drawn)
    assert max(drawn) > 35.0
    assert min(drawn) < 25.0
    assert lengths() == drawn


def test_r13_a_trip_by_hand_is_not_spread():
    """An operator who says 10 seconds gets 10 seconds."""
    stand = Stand(breaker=one_strike(open_jitter=0.5))
    stand.resilience.breaker("dependency").trip(10.0)
    assert stand.breaker.retry_after() == 10.0
