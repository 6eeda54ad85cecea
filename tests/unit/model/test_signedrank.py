"""Signed ranks: equal to scipy, and right about how often they are wrong."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from scipy import stats

from somaresil.model.signedrank import EXACT, MOST, averages, bounds, center, fewest_pairs, p_value


def sample(count, shift, seed):
    """Give differences around a shift."""
    generator = random.Random(seed)
    return [generator.gauss(shift, 1.0) for _ in range(count)]


@pytest.mark.parametrize("count", [5, 17, 40, EXACT, EXACT + 1, 150])
def test_p_values_equal_those_of_scipy(count):
    """Counted up to a size, from the normal distribution above it."""
    for seed in range(5):
        differences = sample(count, 0.2, seed)
        wanted = stats.wilcoxon(differences, method="exact" if count <= EXACT else "approx", correction=True).pvalue
        assert p_value(differences) == pytest.approx(wanted, rel=1e-9)


def test_the_bounds_are_where_the_test_stops_to_refuse():
    """A shift just inside of a bound is not refused, one just outside is."""
    differences = sample(20, 0.5, 1)
    low, high = bounds(differences, 0.025)
    for edge, outside in ((low, -1e-9), (high, 1e-9)):
        assert stats.wilcoxon([each - edge - outside for each in differences], method="exact").pvalue <= 0.05
        assert stats.wilcoxon([each - edge + outside for each in differences], method="exact").pvalue > 0.05
    assert low < center(differences) < high


@pytest.mark.parametrize("count", [8, 30, 100])
def test_a_bound_is_wrong_as_rarely_as_it_says(count):
    """Of heavy-tailed differences around nothing, one in twenty bounds at most lies above it, give or take chance."""
    generator = random.Random(7)
    wrong = sum(bounds([generator.gauss(0.0, 1.0) ** 3 for _ in range(count)], 0.05)[0] > 0.0 for _ in range(600))
    assert wrong <= 600 * 0.05 + 3.0 * math.sqrt(600 * 0.05 * 0.95)


def test_every_way_to_sign_four_ranks_is_counted_once():
    """The chance of all above zero is one in sixteen."""
    seen = [p_value([sign * (place + 1.0) for place, sign in enumerate(signs)]) for signs in product((-1.0, 1.0), repeat=4)]
    assert seen.count(2 / 16) == 2
    assert fewest_pairs(1 / 16) == 4
    assert bounds([1.0, 2.0, 3.0, 4.0], 1 / 16)[0] == 1.0
    assert bounds([1.0, 2.0, 3.0], 1 / 16) == (-math.inf, math.inf)


def test_turned_over_and_moved():
    """Swapping both sides turns the answer over; a shift moves it."""
    differences = sample(30, 0.3, 2)
    low, high = bounds(differences, 0.01)
    assert bounds([-each for each in differences], 0.01) == (-high, -low)
    assert p_value([-each for each in differences]) == p_value(differences)
    assert center([each + 5.0 for each in differences]) == pytest.approx(center(differences) + 5.0)


def test_differences_of_nothing():
    """Zeros speak for nobody."""
    assert p_value([0.0] * 10) == 1.0
    assert bounds([0.0] * 10, 0.05) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [[], [1.0] * (MOST + 1), [1.0, math.nan], [math.inf]])
def test_what_are_no_differences(wrong):
    """None, too many, and what is no number."""
    with pytest.raises(ValueError, match="differences"):
        averages(wrong)
