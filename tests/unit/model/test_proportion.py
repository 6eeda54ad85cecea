"""Shares and their intervals: against published figures, against exact sums, and what holds for any counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.proportion import difference, distribution, normal_quantile, wilson

COUNTS = st.integers(1, 5_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
CONFIDENCES = st.floats(0.5, 0.999)


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.5, 0.674490), (0.8, 1.281552), (0.9, 1.644854), (0.95, 1.959964), (0.99, 2.575829), (0.999, 3.290527)]
)
def test_quantiles_are_those_of_the_tables(confidence, expected):
    """Of the normal distribution, two-sided."""
    assert normal_quantile(confidence) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 2.0, math.nan])
def test_a_confidence_lies_between_nothing_and_certainty(confidence):
    """Both ends are refused."""
    with pytest.raises(ValueError, match="confidence"):
        normal_quantile(confidence)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits, trials, low, high):
    """To the four digits that the paper has."""
    assert wilson(hits, trials) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    # Newcombe, "Interval estimation for the difference ...", Statistics in Medicine 17 (1998), table II, method 10.
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_differences_have_the_published_intervals(one, other, low, high):
    """To the four digits that the paper has."""
    found = difference(*one, *other)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_the_test_statistic_is_the_pooled_one():
    """56 of 70 against 48 of 80: z = 0.2 / sqrt(0.6933 * 0.3067 * (1/70 + 1/80))."""
    found = difference(56, 70, 48, 80)
    assert found is not None
    assert found.z == pytest.approx(2.6505, abs=1e-3)
    assert found.p_value == pytest.approx(0.0080, abs=1e-4)
    assert found.fair


def test_without_data_nothing_is_said():
    """None, neither 0 nor 100 %; and impossible counts are refused."""
    assert wilson(0, 0) is None
    assert difference(0, 0, 1, 2) is None
    assert difference(1, 2, 0, 0) is None
    assert distribution([]) is None
    for hits, trials in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="hits"):
            wilson(hits, trials)


def test_where_all_ends_are_alike_nothing_is_tested():
    """The pooled deviation is 0 there: the interval says what can be said."""
    found = difference(10, 10, 20, 20)
    assert found is not None
    assert (found.value, found.z, found.p_value, found.fair) == (0.0, None, None, False)


@given(COUNTS, CONFIDENCES)
def test_an_interval_holds_the_share_and_stays_within_bounds(counts, confidence):
    """0 <= low <= share <= high <= 1, and its mirror image is that of the misses."""
    hits, trials = counts
    low, high = wilson(hits, trials, confidence)
    assert 0.0 <= low <= hits / trials <= high <= 1.0
    assert wilson(trials - hits, trials, confidence) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-9)


@given(COUNTS, CONFIDENCES)
def test_its_ends_solve_the_equation_that_defines_them(counts, confidence):
    """At each end p the share is z standard deviations of p away."""
    hits, trials = counts
    z = normal_quantile(confidence)
    for end in wilson(hits, trials, confidence):
        assert (hits / trials - end) ** 2 == pytest.approx(z * z * end * (1.0 - end) / trials, abs=1e-9)


@given(COUNTS, st.integers(2, 20))
def test_more_of_the_same_narrows_the_interval(counts, times):
    """The same share of more trials is surer."""
    hits, trials = counts
    low, high = wilson(hits, trials)
    surer_low, surer_high = wilson(hits * times, trials * times)
    assert surer_high - surer_low < high - low
    assert surer_low >= low or hits == 0
    assert surer_high <= high or hits == trials


@given(COUNTS, COUNTS, CONFIDENCES)
def test_a_difference_turns_its_sign_with_the_groups(one, other, confidence):
    """And its interval holds it."""
    forward, backward = difference(*one, *other, confidence), difference(*other, *one, confidence)
    assert -1.0 <= forward.low <= forward.value <= forward.high <= 1.0
    assert (backward.value, backward.low, backward.high) == pytest.approx((-forward.value, -forward.high, -forward.low))
    assert forward.p_value is None or 0.0 <= forward.p_value <= 1.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1))
def test_a_distribution_tells_of_values_that_were_seen(values):
    """Percentiles are members, in order, and the mean lies between the ends."""
    found = distribution(values)
    assert found.count == len(values)
    assert {found.least, found.p50, found.p90, found.p95, found.most} <= set(values)
    assert found.least <= found.p50 <= found.p90 <= found.p95 <= found.most
    assert found.least <= found.mean <= found.most
    assert sum(value <= found.p90 for value in values) >= 0.9 * len(values)


def test_five_of_each_kind_are_enough_to_be_fair():
    """Five of ten on either side are just expected; of nine they are not."""
    assert difference(5, 10, 5, 10).fair
    assert not difference(5, 9, 5, 10).fair
    assert not difference(5, 10, 4, 9).fair


def test_a_distribution_in_short():
    """Of ten values by the nearest rank, with their mean."""
    found = distribution([10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    assert (found.count, found.least, found.mean, found.p50, found.p90, found.p95, found.most) == (10, 1.0, 5.5, 5.0, 9.0, 10.0, 10.0)
    assert distribution([7.0]).mean == distribution([7.0]).p50 == 7.0


def test_rounding_makes_no_interval_that_ends_above_all():
    """All but one of very many, where the formula comes to a little more than 1."""
    low, high = wilson(7_459_596_193_386_742, 7_459_596_193_386_743)
    assert low < high == 1.0
