import math

import pytest

from somaresil.model.orderstats import quantile_ranks
from somaresil.model.ranks import rank_test
from somaresil.model.samplesize import can_decide, fewest_for_quantile, fewest_values, values_for_width


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 4), (0.01, 5), (0.005, 6), (0.001, 7)])
def test_the_fewest_values_are_those_with_which_the_test_can_reach_its_level(alpha, fewest):
    """Fully apart they do, and with one less they do not."""
    assert fewest_values(alpha) == fewest
    for count, decides in ((fewest, True), (fewest - 1, False)):
        apart = rank_test([float(v) for v in range(count)], [float(v) + 100.0 for v in range(count)])
        assert (apart.p_value <= alpha) is decides is can_decide(count, count, alpha)


def test_one_side_may_make_up_for_the_other():
    assert can_decide(2, 40, 0.01)
    assert not can_decide(1, 40, 0.01)
    assert not can_decide(0, 40, 0.5)


@pytest.mark.parametrize(("quantile", "confidence"), [(0.5, 0.95), (0.95, 0.95), (0.99, 0.99)])
def test_the_fewest_values_for_a_quantile_have_both_ends(quantile, confidence):
    fewest = fewest_for_quantile(quantile, confidence)
    assert quantile_ranks(fewest, quantile, confidence) is not None
    assert quantile_ranks(fewest - 1, quantile, confidence) is None


def test_half_the_width_needs_four_times_the_values():
    assert values_for_width(20, 0.1, 0.05) == 80
    assert values_for_width(20, 0.0, 0.05) == 1


@pytest.mark.parametrize("wrong", [(0, 0.1, 0.1), (1, math.nan, 0.1), (1, 0.1, 0.0), (1, math.inf, 0.1)])
def test_widths_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="above zero"):
        values_for_width(*wrong)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_levels_that_are_none_are_refused(alpha):
    with pytest.raises(ValueError, match="level"):
        fewest_values(alpha)


def test_a_quantile_that_no_sample_reaches_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        fewest_for_quantile(1.0 - 1e-12, 0.99)


def test_no_values_decide_nothing():
    """Whatever the level."""
    assert [can_decide(n, m, 1.0) for n, m in ((0, 5), (5, 0), (1, 1))] == [False, False, True]


def test_just_the_level_is_enough():
    """Of four a side 2 of 70 ways are fully apart."""
    assert can_decide(4, 4, 2 / 70)
    assert not can_decide(4, 4, math.nextafter(2 / 70, 0.0))


def test_values_that_resemble_their_neighbours_count_less():
    """A factor of 2 halves the distance: 2 of 70 are 2.19 standard deviations, and half of them no 5 %."""
    assert not can_decide(4, 4, 0.05, 2.0)
    assert fewest_values(0.05, 1.0) == 4
    assert fewest_values(0.05, 2.0) > 8
    assert fewest_values(0.05, 10.0) > fewest_values(0.05, 2.0)


@pytest.mark.parametrize("factor", [0.99, 10.01, math.nan])
def test_factors_that_are_none_are_refused(factor):
    with pytest.raises(ValueError, match="factor"):
        fewest_values(0.05, factor)


@pytest.mark.parametrize(
    ("quantile", "confidence", "fewest"), [(0.5, 0.95, 6), (0.5, 0.5, 2), (0.9, 0.95, 36), (0.1, 0.95, 36), (0.99, 0.99, 528)]
)
def test_the_fewest_values_for_a_quantile_are_those_of_the_tables(quantile, confidence, fewest):
    """0.5 to the sixth, twice, is below 5 %; 0.9 to the 36th is below 2.5 %."""
    assert fewest_for_quantile(quantile, confidence) == fewest


def test_values_for_a_width_are_rounded_up_and_one_at_least():
    """Three tenths of a width take 11.1 times the values."""
    assert values_for_width(1, 1.0, 0.3) == 12
    assert values_for_width(9, 1.0, 0.3) == 101
    assert values_for_width(1, 0.5, 5.0) == 1
    for wrong in ((1, 0.1, math.inf), (1, -0.1, 0.1), (1, 0.1, math.nan)):
        with pytest.raises(ValueError, match="above zero"):
            values_for_width(*wrong)
