"""The quantile of recent durations, against a list of all of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.quantile import PREFERRED, RecentDurations, preferred

WINDOW = 60.0


def test_preferred_numbers_are_those_of_the_standard():
    """Twenty to a decade, each the same as ten times the one a decade below, from a millisecond to 100 seconds."""
    assert len(PREFERRED) == 101
    assert list(PREFERRED) == sorted(set(PREFERRED))
    assert (PREFERRED[0], PREFERRED[-1]) == (0.001, 100.0)
    assert PREFERRED[40:60] == (0.1, 0.112, 0.125, 0.14, 0.16, 0.18, 0.2, 0.224, 0.25, 0.28, *PREFERRED[50:60])
    assert all(math.isclose(larger, smaller * 10) for smaller, larger in zip(PREFERRED, PREFERRED[20:], strict=False))
    assert max(larger / smaller for smaller, larger in pairwise(PREFERRED)) < 1.15


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 0.001), (0.2, 0.2), (0.2001, 0.224), (99.0, 100.0), (100.0, 100.0), (123.0, 123.0)]
)
def test_the_next_preferred_number_is_not_below(seconds, expected):
    """One that is above the last stays what it is."""
    assert preferred(seconds) == expected


def test_nothing_is_known_of_nothing():
    """Nor of what is above the last bound."""
    durations = RecentDurations(WINDOW, 0.0)
    assert (durations.count, durations.quantile(0.5)) == (0, None)
    durations.note(500.0)
    assert (durations.count, durations.quantile(0.5)) == (1, None)


@given(
    st.lists(st.tuples(st.floats(0.0, 40.0), st.floats(0.0, 120.0)), max_size=60),
    st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.999]),
)
def test_it_says_what_the_list_says(history, q):
    """Only of what ended within the window, and at most to the next preferred number: nothing older, and all of the last half window."""
    durations, listed = RecentDurations(WINDOW, 0.0), []
    now = 0.0
    for pause, seconds in history:
        now += pause
        durations.roll(now)
        durations.note(seconds)
        listed.append((now, seconds))
        known = durations.count
        # As many as it knows are the latest ones: it forgets from the oldest on.
        latest = sorted(duration for _, duration in listed[len(listed) - known :])
        assert all(now - at <= WINDOW for at, _ in listed[len(listed) - known :])
        exact = latest[max(0, math.ceil(q * known) - 1)]
        assert durations.quantile(q) == (preferred(exact) if exact <= 100.0 else None)


def test_half_a_window_is_always_known_to_those_who_look_often():
    """It is dropped in halves."""
    durations = RecentDurations(WINDOW, 0.0)
    for second in range(1, 200):
        durations.roll(float(second))
        durations.note(1.0)
        if second >= 60:
            assert 30 <= durations.count <= 60


@pytest.mark.parametrize("gap", [60.0, 60.5, 89.0, 90.0, 119.0, 120.0, 1e6])
def test_after_any_gap_nothing_old_is_known(gap):
    """Odd and even multiples of the half alike."""
    durations = RecentDurations(WINDOW, 0.0)
    durations.note(1.0)
    durations.roll(gap + 0.001)
    assert durations.count == 0


def test_a_half_is_full_at_its_end():
    """Not before; what it held is known for one more half, and no longer."""
    durations = RecentDurations(WINDOW, 10.0)
    assert durations.due == 40.0
    durations.note(1.0)
    durations.roll(39.9)
    assert (durations.due, durations.count) == (40.0, 1)
    durations.roll(40.0)
    assert (durations.due, durations.count) == (70.0, 1)
    durations.note(2.0)
    durations.roll(99.9)
    assert (durations.due, durations.count, durations.quantile(0.5)) == (100.0, 1, 2.0)
    durations.roll(130.0)
    assert (durations.due, durations.count) == (160.0, 0)


def test_a_quantile_is_the_first_bucket_that_reaches_its_rank():
    """Of four values a half are two, and more than a half are three."""
    durations = RecentDurations(WINDOW, 0.0)
    for seconds in (0.1, 0.2, 0.4, 0.8):
        durations.note(seconds)
    assert [durations.quantile(q) for q in (0.01, 0.25, 0.26, 0.5, 0.51, 0.75, 0.99)] == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8]
