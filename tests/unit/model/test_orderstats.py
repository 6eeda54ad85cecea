import math
import random

import pytest

from somaresil.model.orderstats import exceedance, quantile_ranks


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, None), (5, None), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (100, (40, 61))],
)
def test_ranks_of_the_median_are_those_of_the_published_tables(count, expected):
    """At 95 %: five values are too few, six are just enough."""
    assert quantile_ranks(count, 0.5, 0.95) == expected


def test_a_high_quantile_needs_many_values():
    """The largest of n lies above the 0.99 quantile but for 0.99^n: 0.005 of 528 values, and one more below."""
    assert quantile_ranks(527, 0.99, 0.99) is None
    low, high = quantile_ranks(528, 0.99, 0.99)
    assert high == 528
    assert low < 523


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [20_000, 5_000_000, 10**12])
def test_many_values_are_judged_at_once(quantile, count):
    """A trillion calls cost no more than few, and their interval is narrow and around the quantile."""
    low, high = quantile_ranks(count, quantile, 0.98)
    assert low < count * quantile < high
    assert high - low < 8 * math.sqrt(count * quantile * (1 - quantile)) + 8


def test_the_two_ways_to_find_ranks_meet():
    """Where sums give way to the normal distribution, the interval gets no narrower and hardly wider."""
    for quantile in (0.5, 0.9, 0.99):
        edge = int(2500 / (quantile * (1 - quantile)))
        summed, near = quantile_ranks(edge - 1, quantile, 0.99), quantile_ranks(edge + 100, quantile, 0.99)
        widths = summed[1] - summed[0], near[1] - near[0]
        assert widths[0] <= widths[1] <= widths[0] + 12


@pytest.mark.parametrize(
    ("count", "quantile", "confidence"), [(-1, 0.5, 0.9), (5, 0.0, 0.9), (5, 1.0, 0.9), (5, 0.5, 1.0), (5, math.nan, 0.9)]
)
def test_what_is_no_quantile_is_refused(count, quantile, confidence):
    """Ends of the range and what is no number."""
    with pytest.raises(ValueError, match="lies above 0 and below 1"):
        quantile_ranks(count, quantile, confidence)


def test_the_interval_holds_the_quantile_as_often_as_it_says():
    """Of 2,000 samples of 200 values, 95 % intervals of the 0.9 quantile miss it in no more than 5 % and a little."""
    draw = random.Random(11)
    low, high = quantile_ranks(200, 0.9, 0.95)
    missed = 0
    for _ in range(2000):
        ordered = sorted(draw.random() for _ in range(200))
        missed += not ordered[low - 1] <= 0.9 <= ordered[high - 1]
    assert missed / 2000 < 0.06


def test_values_beyond_all_others_are_counted_with_their_chance():
    """Seven of ten beyond ten others: comb(10, 7) / comb(20, 7)."""
    assert exceedance([100] * 7 + [1] * 3, [1] * 10) == (7, math.comb(10, 7) / math.comb(20, 7))


def test_spared_values_hide_no_tail():
    """One outlier of the other side does not make six large values ordinary."""
    experiment, control = [100] * 7 + [1] * 3, [1] * 9 + [1000]
    assert exceedance(experiment, control) == (0, 1.0)
    above, chance = exceedance(experiment, control, spared=1)
    assert above == 7
    assert chance < 0.02


def test_ties_with_the_bound_are_not_beyond_it():
    """Equal samples show no tail."""
    assert exceedance([1, 2, 3], [1, 2, 3]) == (0, 1.0)


def test_more_cannot_be_spared_than_there_are():
    """Of three values at most two."""
    for spared in (-1, 3):
        with pytest.raises(ValueError, match="cannot be spared"):
            exceedance([1], [1, 2, 3], spared=spared)


def test_large_samples_have_the_chance_of_small_ones():
    """Logarithms and whole numbers agree where one gives way to the other."""
    x, y = [float(value) for value in range(150, 350)], [float(value) for value in range(200)]
    _, chance = exceedance(x, y, spared=20)
    _, larger = exceedance([*x, -1.0], y, spared=20)
    assert larger == pytest.approx(chance, rel=0.9)
    ways = sum(math.comb(200, i) * math.comb(201, 190 - i) for i in range(21))
    above, _ = exceedance([*x, -1.0], y, spared=20)
    assert above == 170
    assert larger == pytest.approx(ways / math.comb(401, 190), rel=1e-9)
