"""Draws from distributions, by the inverse of their distribution functions: exact values, edges, and the order of draws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.distribution import empirical, interpolated, lognormal, pareto, uniform

DRAWS = st.floats(0.0, 1.0, exclude_max=True)
ALMOST = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(("u", "value"), [(0.0, 2.0), (0.25, 3.0), (0.5, 4.0), (1.0, 6.0)])
def test_a_uniform_draw_lies_on_the_line(u, value):
    """Between 2 and 6."""
    assert uniform(u, 2.0, 6.0) == value


@given(DRAWS, st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_no_uniform_draw_leaves_its_bounds(u, one, other):
    """Whatever rounding does."""
    low, high = min(one, other), max(one, other)
    assert low <= uniform(u, low, high) <= high


@pytest.mark.parametrize(
    ("u", "value"),
    [
        (0.5, 0.2),
        (0.841344746068543, 0.2 * math.exp(0.75)),
        (0.158655253931457, 0.2 * math.exp(-0.75)),
        (0.975, 0.2 * math.exp(0.75 * 1.959963984540054)),
    ],
)
def test_a_lognormal_draw_is_the_median_times_the_exponential_of_a_normal_one(u, value):
    """One standard deviation up and down, and the 97.5th percentile of the tables."""
    assert lognormal(u, 0.2, 0.75) == pytest.approx(value)


def test_the_least_lognormal_draw_is_zero():
    """Where the normal one would be minus infinity; the next float is a number."""
    assert lognormal(0.0, 0.2, 0.75) == 0.0
    assert 0.0 < lognormal(1e-300, 0.2, 0.75) < 0.2


@pytest.mark.parametrize(
    ("u", "alpha", "value"), [(0.0, 2.0, 3.0), (0.75, 2.0, 6.0), (0.75, 1.0, 12.0), (0.99, 2.0, 30.0), (0.875, 3.0, 6.0)]
)
def test_a_pareto_draw_is_the_scale_over_a_root_of_what_is_left(u, alpha, value):
    """A quarter is left at 0.75: its root is a half."""
    assert pareto(u, 3.0, alpha) == pytest.approx(value)


def test_a_pareto_draw_that_no_float_can_hold_is_infinite():
    """With a tail that heavy; a bound is the business of whoever draws."""
    assert pareto(ALMOST, 1.0, 0.01) == math.inf


SHARES, VALUES = (0.5, 0.9, 1.0), (0.1, 0.5, 2.5)


@pytest.mark.parametrize(
    ("u", "value"),
    [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.7, 0.3), (0.9, 0.5), (0.95, 1.5), (1.0, 2.5)],
)
def test_a_draw_between_points_lies_on_the_line_between_them(u, value):
    """From nothing at 0 to the last point."""
    assert interpolated(u, SHARES, VALUES) == pytest.approx(value)


def test_behind_the_last_point_the_line_is_level():
    """Percentiles may end at the 90th: nothing above is known."""
    assert interpolated(0.95, (0.5, 0.9), (0.1, 0.5)) == 0.5
    assert interpolated(0.9, (0.5, 0.9), (0.1, 0.5)) == 0.5


@given(DRAWS)
def test_a_draw_is_never_above_the_point_behind_it(u):
    """Whatever rounding does."""
    shares, values = (0.1, 0.3, 0.7), (0.1, 0.30000000000000004, 0.7)
    above = next((value for share, value in zip(shares, values, strict=True) if u < share), values[-1])
    assert interpolated(u, shares, values) <= above


@pytest.mark.parametrize(("u", "value"), [(0.0, 1.0), (0.24, 1.0), (0.25, 2.0), (0.5, 3.0), (0.75, 7.0), (ALMOST, 7.0), (1.0, 7.0)])
def test_an_empirical_draw_is_a_sample(u, value):
    """Each of four has a quarter of the draws, and there is none behind the last."""
    assert empirical(u, (1.0, 2.0, 3.0, 7.0)) == value


@given(DRAWS, DRAWS)
def test_a_higher_draw_never_gives_less(one, other):
    """Of any shape."""
    low, high = min(one, other), max(one, other)
    assert uniform(low, 1.0, 2.0) <= uniform(high, 1.0, 2.0)
    assert lognormal(low, 1.0, 0.5) <= lognormal(high, 1.0, 0.5)
    assert pareto(low, 1.0, 1.5) <= pareto(high, 1.0, 1.5)
    assert interpolated(low, SHARES, VALUES) <= interpolated(high, SHARES, VALUES)
    assert empirical(low, (1.0, 2.0, 3.0)) <= empirical(high, (1.0, 2.0, 3.0))
