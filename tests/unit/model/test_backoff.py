"""Delays grow to a ceiling, and jitter stays inside its limits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.backoff import equal_jitter, exponential, full_jitter, opening_duration

attempts = st.integers(1, 10**12)
delays = st.floats(0.001, 1e6)
factors = st.floats(1.0, 1e3)
shares = st.floats(0.0, 1.0)
draws = st.floats(0.0, 1.0, exclude_max=True)


def test_delays_double_until_the_ceiling():
    """The default factor is 2, and the first attempt waits the base."""
    assert [exponential(k, base=0.5, maximum=5.0) for k in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@given(attempts, delays, factors, delays)
def test_a_delay_is_finite_and_never_above_the_ceiling(attempt, base, factor, maximum):
    """No attempt, however late, overflows or exceeds the maximum."""
    delay = exponential(attempt, base=base, factor=factor, maximum=maximum)
    assert min(base, maximum) <= delay <= maximum
    assert math.isfinite(delay)


@given(st.integers(1, 50), delays, factors, delays)
def test_delays_never_shrink(attempt, base, factor, maximum):
    """With a factor of at least 1 each attempt waits as long as the one before it or longer."""
    series = [exponential(k, base=base, factor=factor, maximum=maximum) for k in range(attempt, attempt + 5)]
    assert all(before <= after for before, after in pairwise(series))


@pytest.mark.parametrize("attempt", [0, -1, -(10**9)])
def test_attempts_below_the_first_wait_the_base(attempt):
    """A wrong attempt number does not shorten the wait."""
    assert exponential(attempt, base=2.0, maximum=60.0) == 2.0


def test_late_attempts_overflow_to_the_ceiling_whatever_the_number_types():
    """Whole-number factors do not grow into huge integers, and a base of zero stays zero."""
    assert exponential(10**9, base=1, factor=2, maximum=60) == 60
    assert exponential(10**9, base=0.0, factor=2, maximum=60.0) == 0.0
    assert exponential(10**9, base=3.0, factor=1.0, maximum=60.0) == 3.0


@given(delays, draws)
def test_full_jitter_lies_between_zero_and_the_delay(delay, u):
    """The draw decides the share of the delay."""
    assert 0.0 <= full_jitter(delay, u) <= delay
    assert full_jitter(delay, 0.0) == 0.0
    assert full_jitter(delay, 0.5) == delay / 2


@given(delays, draws)
def test_equal_jitter_keeps_half_the_delay(delay, u):
    """The jitter is in the upper half."""
    assert delay / 2 <= equal_jitter(delay, u) <= delay
    assert equal_jitter(delay, 0.0) == delay / 2


@given(attempts, st.tuples(delays, factors, delays), shares, draws)
def test_an_opening_lasts_its_backoff_give_or_take_the_jitter_share(opening, backoff, jitter, u):
    """The duration stays within the jitter share of the backoff, on both sides."""
    open_duration, factor, maximum = backoff
    plain = exponential(opening, base=open_duration, factor=factor, maximum=maximum)
    duration = opening_duration(opening, open_duration=open_duration, factor=factor, maximum=maximum, jitter=jitter, u=u)
    assert plain * (1 - jitter) * (1 - 1e-12) <= duration <= plain * (1 + jitter) * (1 + 1e-12)


def test_openings_without_jitter_are_the_plain_backoff():
    """30 s, 60 s, 120 s, then the ceiling, whatever is drawn."""
    lasts = [opening_duration(k, open_duration=30.0, factor=2.0, maximum=150.0, jitter=0.0, u=0.9) for k in (1, 2, 3, 4, 5)]
    assert lasts == [30.0, 60.0, 120.0, 150.0, 150.0]


@pytest.mark.parametrize(("u", "expected"), [(0.0, 24.0), (0.25, 27.0), (0.5, 30.0), (0.75, 33.0)])
def test_the_draw_moves_an_opening_evenly_across_its_range(u, expected):
    """A draw of one half changes nothing; smaller ones shorten, larger ones lengthen."""
    assert opening_duration(1, open_duration=30.0, factor=2.0, maximum=300.0, jitter=0.2, u=u) == pytest.approx(expected)


def test_jitter_still_spreads_openings_at_the_ceiling():
    """Replicas that all reached the maximum do not come back together."""
    late = [opening_duration(99, open_duration=30.0, factor=2.0, maximum=300.0, jitter=0.1, u=u) for u in (0.0, 0.5, 0.99)]
    assert late == pytest.approx([270.0, 300.0, 329.4])


def test_an_overflow_is_the_ceiling_unless_there_is_nothing_to_grow():
    """A base of zero stays zero, and one below zero, which nobody may configure, is no long wait."""
    assert exponential(5_000, base=0.5, factor=2.0, maximum=60.0) == 60.0
    assert exponential(5_000, base=0.0, factor=2.0, maximum=60.0) == 0.0
    assert exponential(2, base=0.0, factor=2.0, maximum=60.0) == 0.0
