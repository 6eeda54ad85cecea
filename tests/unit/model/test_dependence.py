import math
import random

import pytest

from somaresil.model.dependence import autocorrelation, stretch, weakened


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
