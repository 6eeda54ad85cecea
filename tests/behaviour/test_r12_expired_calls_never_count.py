"""R12: what is older than the window never counts, after any idle gap. fluxgate counts five-second-old failures in a two-second window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.events import BreakerChanged
from tests.behaviour.kit import Stand, both_paths, one_strike

WINDOW = 20.0
SLOT = WINDOW / 10


def watching(held: bool, **changes: object) -> Stand:
    """A breaker that sees everything and never opens by itself."""
    options = {"consecutive_failures": None, "failure_rate": 1.0, "minimum_calls": 10_000, "window": WINDOW} | changes
    return Stand(held=held, breaker=one_strike(**options))


@both_paths
@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5, 11, 12, 13, 24, 25, 1001])
def test_r12_after_an_idle_gap_of_any_multiple_nothing_is_left(held, turns):
    """Odd and even multiples of the window, and of the ring that keeps it, with and without a call in between."""
    for gap in (turns * WINDOW, turns * 12 * SLOT, turns * WINDOW + SLOT):
        stand = watching(held)
        stand.fail()
        stand.clock.advance(gap + SLOT)
        assert stand.breaker.tally() == (0, 0, 0, 1)
        stand.succeed()
        assert stand.breaker.tally() == (1, 0, 0, 0)


@both_paths
def test_r12_old_failures_do_not_help_new_ones_to_open(held):
    """Two failures now and two a window ago are not four."""
    stand = watching(held, failure_rate=0.5, minimum_calls=4)
    for _ in range(2):
        stand.fail()
    stand.clock.advance(WINDOW + SLOT)
    for _ in range(2):
        stand.fail()
    assert stand.state == "closed"
    for _ in range(2):
        stand.fail()
    assert stand.state == "open"


@both_paths
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, 19.5, 20.0, 24.0, 30.0, 48.5, 72.0, 240.0]), st.booleans()),
        max_size=20,
    )
)
def test_r12_the_window_agrees_with_counting(held, steps):
    """At any moment it shows the calls of the last window, less at most the oldest slot."""
    stand = watching(held)
    log: list[tuple[float, bool]] = []
    for pause, failed in steps:
        stand.clock.advance(pause)
        now = stand.clock.monotonic()
        stand.fail() if failed else stand.succeed()
        log.append((now, failed))
        tally = stand.breaker.tally()
        inside = [bad for at, bad in log if at >= now - WINDOW]
        surely = [bad for at, bad in log if at >= now - WINDOW + SLOT]
        assert len(surely) <= tally.calls <= len(inside)
        assert sum(surely) <= tally.failures <= sum(inside)


@both_paths
def test_r12_a_window_over_calls_looks_at_no_more_than_those(held):
    """The failures before the last four calls are gone, however recent they are."""
    stand = watching(held, window_calls=4, minimum_calls=4, failure_rate=0.75)
    for outcome in "FSFSSFSF":
        stand.fail() if outcome == "F" else stand.succeed()
        assert stand.breaker.tally().calls <= 4
        assert stand.state == "closed"
    # With this one, the last four are F, S, F, F.
    stand.fail()
    assert stand.state == "open"


def first_failure_of_opening(stand: Stand) -> float:
    return stand.told(BreakerChanged)[-1].first_failure_at - 1_700_000_000.0


@both_paths
def test_r12_an_incident_begins_with_the_first_failure_in_the_window(held):
    """A failure that has left the window is not the beginning of the trouble of now."""
    stand = watching(held, failure_rate=0.5, minimum_calls=3)
    stand.fail()
    stand.clock.advance(12.0)
    stand.fail()
    stand.clock.advance(12.0)
    stand.fail()
    assert stand.state == "closed"
    stand.clock.advance(1.0)
    stand.fail()
    assert stand.state == "open"
    assert first_failure_of_opening(stand) == 12.0


@both_paths
def test_r12_an_incident_over_calls_begins_with_the_first_failure_among_them(held):
    """The same for a window over calls."""
    stand = watching(held, window_calls=4, minimum_calls=4, failure_rate=0.75)
    for outcome in "FSSSFFF":
        stand.clock.advance(1.0)
        stand.fail() if outcome == "F" else stand.succeed()
    assert stand.state == "open"
    assert first_failure_of_opening(stand) == 5.0


@both_paths
def test_r12_an_incident_may_begin_with_a_call_that_failed_slowly(held):
    """One call that failed and was slow is one beginning."""
    stand = Stand(held=held, breaker=one_strike(slow_call_rate=1.0, slow_call_duration=1.0))

    def fail_slowly():
        stand.clock.advance(2.0)
        raise ValueError

    with pytest.raises(ValueError):
        stand.guard(fail_slowly)()
    assert stand.state == "open"
    assert first_failure_of_opening(stand) == 2.0
