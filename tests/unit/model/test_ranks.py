import math
import random

import pytest

from somaresil.model import ranks

# The example of R's wilcox.test (Hollander and Wolfe, permeability constants).
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
EARLY = [1.15, 0.88, 0.90, 0.74, 1.21]


def test_the_published_example_has_its_published_figures():
    """W = 35 and p = 0.1272, one-sided."""
    found = ranks.rank_test(TERM, EARLY)
    assert (found.u, found.exact) == (35.0, True)
    assert found.p_greater == pytest.approx(0.1272, abs=5e-5)
    assert found.p_value == pytest.approx(0.2544, abs=5e-5)


def test_figures_that_kayenta_and_r_are_tested_for():
    """Four against four that are fully apart, exactly; three against three with ties, by the normal distribution."""
    assert ranks.rank_test([10, 20, 30, 40], [1, 2, 3, 4]).p_value == pytest.approx(0.02857142857142857, rel=1e-12)
    assert ranks.rank_test([1, 2, 3], [2, 3, 4], exact=False).p_value == pytest.approx(0.3686882693617814, rel=1e-9)
    moved = ranks.shift([1, 2, 3], [2, 3, 4], 0.95)
    assert (moved.low, moved.high) == (-3.0, 1.0)
    assert moved.estimate == pytest.approx(-1.0, abs=ranks.ROOT_TOLERANCE)


def test_fully_apart_samples_have_one_arrangement():
    """One of comb(10, 5) ways to deal ten values has all the large ones on one side."""
    found = ranks.rank_test([6, 7, 8, 9, 10], [1, 2, 3, 4, 5])
    assert (found.u, found.p_greater, found.p_less) == (25.0, 1 / 252, 1.0)
    assert found.p_value == 2 / 252


def test_ties_are_halves_and_their_p_value_is_counted():
    """Of the six ways to deal 1, 1, 2, 2 one gives the first sample both 2s."""
    found = ranks.rank_test([2, 2], [1, 1])
    assert (found.u, found.p_greater) == (4.0, 1 / 6)
    assert ranks.rank_test([1, 2], [1, 2]).u == 2.0


@pytest.mark.parametrize("exact", [True, False])
def test_equal_values_throughout_show_nothing(exact):
    """No arrangement differs from another: every p-value is 1."""
    found = ranks.rank_test([3] * 8, [3] * 5, exact=exact)
    assert (found.p_value, found.p_greater, found.p_less) == (1.0, 1.0, 1.0)


def test_the_form_is_chosen_by_the_number_of_pairs():
    """Exact up to 2,500 pairs, whichever side has the values; asked for beyond, it is refused and not taken for something else."""
    draw = random.Random(5)
    fifty, more = [draw.random() for _ in range(50)], [draw.random() for _ in range(51)]
    assert ranks.rank_test(fifty, fifty[::-1]).exact
    assert ranks.rank_test([0.5], [draw.random() for _ in range(2500)]).exact
    assert not ranks.rank_test(fifty, more).exact
    with pytest.raises(ValueError, match="2550 pairs"):
        ranks.rank_test(fifty, more, exact=True)


def test_both_forms_agree_at_the_limit():
    """Where the form changes, the p-value does not jump."""
    draw = random.Random(6)
    x, y = [draw.randrange(30) for _ in range(50)], [draw.randrange(30) + 3 for _ in range(50)]
    exact, near = ranks.rank_test(x, y, exact=True), ranks.rank_test(x, y, exact=False)
    assert near.p_value == pytest.approx(exact.p_value, rel=0.05)
    assert near.p_less == pytest.approx(exact.p_less, rel=0.05)


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf], [1.0] * 10_001], ids=["empty", "NaN", "infinite", "too many"])
@pytest.mark.parametrize("of", [ranks.rank_test, ranks.shift, ranks.common_language, ranks.cliffs_delta, ranks.mean_ratio])
def test_what_cannot_be_ranked_is_refused_on_either_side(bad, of):
    """A sample that says nothing never becomes a p-value."""
    with pytest.raises(ValueError, match="a sample"):
        of(bad, [1.0, 2.0])
    with pytest.raises(ValueError, match="a sample"):
        of([1.0, 2.0], bad)


def test_the_known_miss_of_kayenta_is_reproduced():
    """Seven of ten values a hundred times as large: the test sees it (p = 0.003), the interval reaches down to almost nothing."""
    slow, even = [100.0] * 7 + [1.0] * 3, [1.0] * 10
    moved = ranks.shift(slow, even, 0.98)
    assert 0.0 <= moved.low < ranks.ROOT_TOLERANCE
    assert moved.high == pytest.approx(99.0, abs=1e-3)
    assert ranks.rank_test(slow, even).p_value == pytest.approx(0.0031, abs=5e-5)


def test_a_plain_shift_is_found_with_its_interval():
    """Samples that are apart by exactly 10 give an interval around 10."""
    y = [value + value * value / 100 for value in range(30)]
    moved = ranks.shift([value + 10 for value in y], y, 0.95)
    assert moved.low < moved.estimate < moved.high
    assert moved.estimate == pytest.approx(10.0, abs=0.5)


def test_a_wider_confidence_gives_a_wider_interval():
    """The interval of 99 % contains that of 90 %."""
    wide, narrow = ranks.shift(TERM, EARLY, 0.99), ranks.shift(TERM, EARLY, 0.9)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_constant_samples_have_a_known_shift():
    """Nothing varies, so nothing is unsure."""
    assert ranks.shift([5, 5, 5], [2, 2]) == ranks.Shift(3, 3, 3)
    assert ranks.shift([2], [2]) == ranks.Shift(0, 0, 0)


def test_samples_too_small_to_refuse_any_shift_have_the_widest_interval():
    """Two a side cannot refuse a shift at 98 %: the interval spans every difference of two values."""
    assert ranks.shift([1.0, 5.0], [0.0, 2.0], 0.98).low == -1.0
    assert ranks.shift([1.0, 5.0], [0.0, 2.0], 0.98).high == 5.0


def test_values_too_far_apart_are_refused():
    """The largest floats have no difference."""
    with pytest.raises(ValueError, match="too far apart"):
        ranks.shift([1.7e308, 1.0], [-1.7e308, 1.0])


def test_a_finer_tolerance_finds_small_shifts():
    """For ratios of errors 1e-4 is coarse; a finer tolerance finds the ends as it does for larger values."""
    y = [value + value * value / 100 for value in range(30)]
    x = [value + 3 for value in y]
    small = ranks.shift([value * 1e-6 for value in x], [value * 1e-6 for value in y], tolerance=1e-10)
    large = ranks.shift(x, y, tolerance=1e-4)
    assert small.low * 1e6 == pytest.approx(large.low, abs=3e-4)
    assert small.high * 1e6 == pytest.approx(large.high, abs=3e-4)


def test_effect_sizes_of_known_samples():
    """Three of four pairs are won by the first sample."""
    assert ranks.common_language([2, 4], [1, 3]) == 0.75
    assert ranks.cliffs_delta([2, 4], [1, 3]) == 0.5
    assert ranks.cliffs_delta([1], [2]) == -1.0
    assert ranks.mean_ratio([2, 4], [1, 3]) == 1.5


@pytest.mark.parametrize(("x", "y"), [([1], [0]), ([1], [-2, 1]), ([-1], [2]), ([0, 0], [0]), ([1e300], [1e-300])])
def test_a_ratio_that_says_nothing_is_none(x, y):
    """Means of zero below, negative means, and what is larger than a float."""
    assert ranks.mean_ratio(x, y) is None


def test_no_growth_is_a_ratio_of_zero():
    """All zeros beside something is a ratio, and it is 0."""
    assert ranks.mean_ratio([0, 0], [1, 3]) == 0.0
