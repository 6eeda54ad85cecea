import math
import random
from itertools import pairwise

import pytest

from somaresil.model.dependence import autocorrelation, stretch, weakened
from somaresil.model.ranks import normal_scores


def series(seed, phi, count):
    """Give values of which each passes on a share of its distance from the level."""
    chance, values, drift = random.Random(seed), [], 0.0
    for _ in range(count):
        drift = phi * drift + chance.gauss(0.0, 1.0)
        values.append(drift)
    return values


@pytest.mark.parametrize("phi", [0.3, 0.6, 0.8])
def test_it_is_estimated_in_long_series(phi):
    assert autocorrelation(series(1, phi, 3000)) == pytest.approx(phi, abs=0.05)
    assert autocorrelation(*(series(seed, phi, 60) for seed in range(40))) == pytest.approx(phi, abs=0.1)


def test_chance_is_taken_as_none():
    """Of independent series about one in twenty is not seen as such."""
    assert sum(autocorrelation(series(seed, 0.0, 100)) > 0.0 for seed in range(400)) <= 40


def test_a_difference_of_the_samples_is_none():
    """Each is ranked by itself."""
    low, high = series(1, 0.0, 50), [value + 100.0 for value in series(2, 0.0, 50)]
    assert autocorrelation(low, high) == 0.0
    assert autocorrelation(low + high) > 0.5


def test_an_outlier_is_one_rank():
    values = series(3, 0.7, 200)
    assert autocorrelation([*values[:100], 1e9, *values[100:]]) == pytest.approx(autocorrelation(values), abs=0.05)


@pytest.mark.parametrize("values", [[], [1.0], [2.0] * 50])
def test_what_does_not_vary_has_none(values):
    assert autocorrelation(values) == 0.0
    assert autocorrelation() == 0.0


def test_it_is_bounded():
    """A trend resembles itself entirely, and is taken for nine tenths."""
    assert autocorrelation([float(v) for v in range(100)]) == 0.9
    assert stretch(0.0) == 1.0
    assert stretch(0.5) == pytest.approx(math.sqrt(3.0))


def test_a_p_value_is_weakened_as_its_distance_is():
    """Two standard deviations of which each is twice as long are one."""
    two, one = math.erfc(2.0 / math.sqrt(2.0)), math.erfc(1.0 / math.sqrt(2.0))
    assert weakened(two, 2.0) == pytest.approx(one, rel=1e-9)
    assert weakened(0.3, 1.0) == 0.3
    assert weakened(1.0, 3.0) == 1.0
    far = math.erfc(30.0 / math.sqrt(2.0))
    assert weakened(far, 3.0) == pytest.approx(math.erfc(10.0 / math.sqrt(2.0)), rel=1e-6)
    assert 0.0 < weakened(0.0, 4.0) < 1e-15


def test_short_series_are_corrected_for_their_length():
    """Up and up again: two scores of plus and minus 0.67 or so pass on a quarter, which is no more than chance."""
    assert autocorrelation([1.0, 2.0, 3.0, 4.0]) == 0.0
    rising = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    scores = normal_scores(rising)
    seen = sum(a * b for a, b in pairwise(scores)) / sum(score * score for score in scores)
    assert seen + 0.1 > 1.645 / math.sqrt(10)
    assert autocorrelation(rising) == pytest.approx(min(0.9, seen + (1.0 + 3.0 * seen) / 10))


def test_samples_are_taken_together_each_with_its_own_bias():
    """Products and squares add up; each sample takes off a share of one in all values."""
    one, other = series(5, 0.5, 40), series(6, 0.5, 30)
    products = squares = 0.0
    for sample in (one, other):
        scores = normal_scores(sample)
        products += sum(a * b for a, b in pairwise(scores))
        squares += sum(score * score for score in scores)
    seen = products / squares
    expected = seen + (1.0 + 3.0 * seen) * 2 / 70
    assert 0.2 < expected < 0.9
    assert autocorrelation(one, other) == pytest.approx(expected)
    assert autocorrelation(one, [], other, [3.0, 3.0]) == pytest.approx(expected)


def test_neighbours_that_turn_their_backs_are_none():
    """Up and down is less than chance, not more."""
    assert autocorrelation([float(place % 2) for place in range(100)]) == 0.0


def test_intervals_are_stretched_by_the_root_of_the_odds():
    """At 0.8 three times as wide."""
    assert stretch(0.8) == pytest.approx(3.0)
    assert stretch(0.6) == 2.0


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_factor_of_one_or_less_weakens_nothing(factor):
    assert weakened(0.01, factor) == 0.01


@pytest.mark.parametrize(
    ("p_value", "factor", "expected"), [(0.05, 1.959964 / 1.644854, 0.1), (0.01, 2.575829 / 1.959964, 0.05), (0.9999, 2.0, 0.99995)]
)
def test_weakened_p_values_are_those_of_the_tables(p_value, factor, expected):
    assert weakened(p_value, factor) == pytest.approx(expected, rel=1e-5)
