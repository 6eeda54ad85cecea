import math
import random

import pytest

from somaresil.model.bootstrap import bootstrap_ratio, quantile_of, ratio_bounds


def drawn(chance, x, y, quantile, resamples):
    """Give the ratios of quantiles of resamples that were really drawn, in rising order."""
    return sorted(
        quantile_of(sorted(chance.choices(x, k=len(x))), quantile) / quantile_of(sorted(chance.choices(y, k=len(y))), quantile)
        for _ in range(resamples)
    )


@pytest.mark.parametrize(("n", "m", "quantile"), [(15, 21, 0.5), (25, 11, 0.5), (40, 60, 0.9)])
def test_the_interval_is_what_endless_resampling_comes_to(n, m, quantile):
    """The share of drawn ratios below each end is what the level says."""
    chance = random.Random(n)
    x, y = ([chance.lognormvariate(0.0, 0.3) for _ in range(count)] for count in (n, m))
    low, high = bootstrap_ratio(x, y, quantile, 0.9)
    ratios = drawn(chance, x, y, quantile, 4000)
    below, up_to = sum(ratio < low * (1 - 1e-9) for ratio in ratios) / 4000, sum(ratio <= low * (1 + 1e-9) for ratio in ratios) / 4000
    assert below - 0.015 <= 0.05 <= up_to + 0.015
    below, up_to = sum(ratio < high * (1 - 1e-9) for ratio in ratios) / 4000, sum(ratio <= high * (1 + 1e-9) for ratio in ratios) / 4000
    assert below - 0.015 <= 0.95 <= up_to + 0.015


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_interval_holds_the_true_ratio_as_often_as_it_says(confidence):
    """Of 400 pairs of small samples; four standard deviations are allowed for chance."""
    chance = random.Random(9)
    held = 0
    for _ in range(400):
        x, y = ([chance.lognormvariate(0.0, 1.0) for _ in range(12)] for _ in range(2))
        low, high = bootstrap_ratio(x, y, 0.5, confidence)
        held += low <= 1.0 <= high
    assert held / 400 >= confidence - 4.0 * math.sqrt(confidence * (1.0 - confidence) / 400)


def test_ends_are_ratios_of_values_that_were_seen():
    """Constant samples have an interval without width; of ten and twenty every ratio is two, exactly."""
    assert bootstrap_ratio([3.0] * 5, [3.0] * 9) == (1.0, 1.0)
    assert bootstrap_ratio([20.0] * 5, [10.0] * 5) == (2.0, 2.0)
    assert ratio_bounds([20.0] * 10, [10.0] * 10) == (2.0, 2.0)


def test_zeros_are_no_accident():
    """A ratio to zero is infinite, zero itself is zero, and nothing is divided."""
    assert bootstrap_ratio([0.0] * 5, [1.0] * 5) == (0.0, 0.0)
    assert bootstrap_ratio([1.0] * 5, [0.0] * 5) == (math.inf, math.inf)
    assert bootstrap_ratio([0.0] * 5, [0.0] * 5) == (0.0, 0.0)
    assert ratio_bounds([1.0] * 10, [0.0] * 10) == (math.inf, math.inf)
    low, high = bootstrap_ratio([0.0, 0.0, 1.0, 2.0, 3.0], [1.0] * 5)
    assert (low, high) == (0.0, 3.0)


def test_ratios_of_values_that_are_far_apart():
    """The largest and the smallest that are allowed."""
    assert bootstrap_ratio([1e150] * 5, [1e-150] * 5) == pytest.approx((1e300, 1e300), rel=1e-12)
    assert bootstrap_ratio([1e-150] * 5, [1e150] * 5) == pytest.approx((1e-300, 1e-300), rel=1e-12)


def test_bounds_need_values_on_both_ends():
    """For a median at 95 % seven a side, each with its own share of the error; for less there is no answer."""
    assert ratio_bounds([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is None
    low, high = ratio_bounds([float(v) for v in range(1, 31)], [float(v) for v in range(1, 31)])
    assert low < 1.0 < high


def test_bounds_are_wider_than_the_bootstrap():
    """They promise more."""
    chance = random.Random(3)
    x, y = ([chance.lognormvariate(0.0, 0.5) for _ in range(30)] for _ in range(2))
    narrow, wide = bootstrap_ratio(x, y), ratio_bounds(x, y)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_the_quantile_is_the_usual_one():
    """The mean of two in the middle of an even number, else the nearest rank."""
    assert quantile_of([1.0, 2.0, 3.0, 10.0], 0.5) == 2.5
    assert quantile_of([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile_of([float(v) for v in range(1, 101)], 0.95) == 95.0
    assert quantile_of([float(v) for v in range(1, 101)], 0.001) == 1.0
    assert quantile_of([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], "empty"),
        ([math.nan], "finite"),
        ([math.inf], "finite"),
        ([-1.0], "from zero on"),
        ([1e200], "no number"),
        ([5e-324], "no number"),
    ],
)
def test_samples_that_are_none_are_refused(x, message):
    for function in (bootstrap_ratio, ratio_bounds):
        with pytest.raises(ValueError, match=message):
            function(x, [1.0])
        with pytest.raises(ValueError, match=message):
            function([1.0], x)


@pytest.mark.parametrize("options", [(0.0, 0.95), (1.0, 0.95), (0.5, 0.0), (0.5, 1.0), (math.nan, 0.5)])
def test_options_that_are_none_are_refused(options):
    for function in (bootstrap_ratio, ratio_bounds):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            function([1.0], [1.0], *options)
