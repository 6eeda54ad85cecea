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
