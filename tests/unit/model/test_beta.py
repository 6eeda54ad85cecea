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
