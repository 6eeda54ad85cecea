import math

import pytest

from somaresil.model.beta import at_least, binomial_at_least, incomplete_beta


def test_figures_that_follow_from_the_definition():
    """I_x(1, 1) is x, I_x(a, 1) is x to the a, and a symmetric one is a half in the middle."""
    assert incomplete_beta(0.3, 1.0, 1.0) == pytest.approx(0.3, rel=1e-13)
    assert incomplete_beta(0.3, 4.0, 1.0) == pytest.approx(0.3**4, rel=1e-13)
    assert incomplete_beta(0.5, 500.0, 500.0) == pytest.approx(0.5, rel=1e-11)
    assert (incomplete_beta(-1.0, 2.0, 3.0), incomplete_beta(2.0, 2.0, 3.0)) == (0.0, 1.0)


def test_the_binomial_tail_is_the_sum_of_its_terms():
    for hits in range(13):
        terms = sum(math.comb(12, k) * 0.2**k * 0.8 ** (12 - k) for k in range(hits, 13))
        assert binomial_at_least(hits, 12, 0.2) == pytest.approx(terms, rel=1e-12)


def test_limits_of_a_share():
    """None of 1,000 may be three in a thousand: the rule of three. All of ten are at least 74 %."""
    assert 1.0 - at_least(1000, 1000, 0.95) == pytest.approx(0.002991, abs=1e-6)
    assert at_least(10, 10, 0.95) == pytest.approx(0.05**0.1, rel=1e-9)
    assert at_least(0, 10, 0.95) == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: incomplete_beta(0.5, 0.0, 1.0),
        lambda: incomplete_beta(0.5, 1.0, math.nan),
        lambda: binomial_at_least(2, 1, 0.5),
        lambda: binomial_at_least(1, 2, 1.5),
        lambda: at_least(2, 1, 0.5),
        lambda: at_least(1, 2, 1.0),
    ],
)
def test_arguments_that_are_none_are_refused(call):
    with pytest.raises(ValueError, match=r"beta|hits"):
        call()


@pytest.mark.parametrize(
    ("x", "a", "b"), [(0.2, 2, 3), (0.4, 2, 3), (0.41, 2, 3), (0.9, 2, 3), (0.5, 7, 2), (0.05, 1, 20), (0.95, 20, 1), (0.7, 12, 9)]
)
def test_whole_parameters_are_tails_of_the_binomial_distribution(x, a, b):
    """I_x(a, b) is how likely a or more of a + b - 1 are, on either side of the middle."""
    trials = a + b - 1
    tail = sum(math.comb(trials, k) * x**k * (1.0 - x) ** (trials - k) for k in range(a, trials + 1))
    assert incomplete_beta(x, a, b) == pytest.approx(tail, rel=1e-12)
    assert incomplete_beta(1.0 - x, b, a) == pytest.approx(1.0 - tail, rel=1e-12)


def test_halves_are_the_arc_sine():
    """I_x(1/2, 1/2) is 2 / pi times the arc sine of the root of x."""
    for x in (0.001, 0.25, 0.5, 0.75, 0.999):
        assert incomplete_beta(x, 0.5, 0.5) == pytest.approx(2.0 / math.pi * math.asin(math.sqrt(x)), rel=1e-12)


def test_ends_and_small_parameters_are_no_matter():
    """Nothing lies below 0, and everything below 1."""
    assert (incomplete_beta(0.0, 0.1, 0.1), incomplete_beta(1.0, 0.1, 0.1)) == (0.0, 1.0)
    assert incomplete_beta(1e-300, 1.0, 1.0) == pytest.approx(1e-300)
    assert incomplete_beta(0.999, 0.1, 50.0) == pytest.approx(1.0)


def test_shares_of_none_and_of_all_are_shares():
    """Nothing hits, or everything does; and no hit is always there."""
    assert (binomial_at_least(1, 5, 0.0), binomial_at_least(0, 5, 0.0), binomial_at_least(0, 0, 0.5)) == (0.0, 1.0, 1.0)
    assert (binomial_at_least(5, 5, 1.0), binomial_at_least(5, 5, 0.5)) == (1.0, pytest.approx(1 / 32))


@pytest.mark.parametrize(("hits", "trials", "low"), [(5, 10, 0.222441), (1, 10, 0.005116), (9, 10, 0.605836), (1, 1, 0.05)])
def test_lower_limits_are_those_of_the_tables(hits, trials, low):
    """Clopper and Pearson, one-sided at 95 %."""
    assert at_least(hits, trials, 0.95) == pytest.approx(low, abs=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: incomplete_beta(0.5, 1.0, 0.0),
        lambda: incomplete_beta(0.5, -1.0, 1.0),
        lambda: binomial_at_least(-1, 1, 0.5),
        lambda: binomial_at_least(1, 2, -0.5),
        lambda: at_least(-1, 1, 0.5),
        lambda: at_least(1, 2, 0.0),
    ],
)
def test_arguments_just_beyond_an_end_are_refused(call):
    with pytest.raises(ValueError, match=r"beta|hits"):
        call()
