"""Models at the ends of their ranges: floats that run over, sums that are off, sequences that are nothing but a step."""

from __future__ import annotations

import math

import pytest

from somaresil.model import beta, changepoints, ranks
from somaresil.model.bootstrap import _inverse
from somaresil.model.changepoints import _Found
from somaresil.model.distribution import pareto
from somaresil.model.ledger import covered
from somaresil.model.orderstats import quantile_test
from somaresil.model.pool import _drawn, bounded
from somaresil.model.scalability import _least_squares, fit
from somaresil.model.sketch import HIGHEST, LOWEST, Sketch


def test_a_pareto_value_beyond_all_floats_is_infinite():
    assert pareto(1.0 - 2.0**-53, 1.0, 1e-3) == math.inf
    assert pareto(0.0, 2.0, 1e-3) == 2.0


def test_a_fraction_that_does_not_settle_gives_what_it_has_come_to(monkeypatch):
    exact = beta.incomplete_beta(0.3, 4.0, 5.0)
    monkeypatch.setattr(beta, "_TERMS", 6)
    assert beta.incomplete_beta(0.3, 4.0, 5.0) == pytest.approx(exact, rel=1e-2)


def test_a_root_that_is_not_narrowed_down_in_time_is_the_best_place_so_far(monkeypatch):
    monkeypatch.setattr(ranks, "_STEPS", 3)
    found = ranks._zero(lambda x: x**3 - 2.0, (0.0, -2.0), (2.0, 6.0), 1e-12)
    assert 0.0 < found < 2.0


@pytest.mark.parametrize(("x", "y", "quantile"), [([], [1.0], 0.5), ([1.0], [], 0.5), ([1.0], [1.0], 0.0), ([1.0], [1.0], 1.0)])
def test_a_quantile_of_nothing_or_of_no_place_is_refused_with_what_was_given(x, y, quantile):
    with pytest.raises(ValueError, match=rf"not {quantile} of {len(x)} and {len(y)}"):
        quantile_test(x, y, quantile)


def test_a_limit_outside_of_a_sketch_is_refused_with_its_bounds():
    sketch = Sketch()
    for limit in (LOWEST / 2.0, HIGHEST * 2.0, math.nan):
        with pytest.raises(ValueError, match="a limit lies from"):
            sketch.more_than(limit)
    assert "0 values" in repr(sketch)


def test_what_rounding_leaves_over_belongs_to_the_last_that_weighs_anything():
    assert _drawn([1.0, 2.0, 0.0], 1.0) == 1
    assert _drawn([1.0, 2.0], 0.0) == 0


def test_when_all_have_their_share_the_first_in_order_is_taken():
    assert bounded([1, 0], [9, 9], [0.0, 0.0001], 0.0) == 1
    assert bounded([1, 0], [0, 5], [1.0, 1.0], 1.25) == 0


def test_a_law_that_no_measurement_follows_is_none():
    assert fit([(1.0, 1.0), (2.0, 2.0), (2.0, 1.9)]) is None
    assert _least_squares([[0.0, 0.0], [0.0, 0.0]]) is None
    assert _least_squares([[1.0, 1.0], [1.0, 1.0]]) is None


def test_of_no_time_nothing_is_covered():
    assert covered([(0.0, 5.0)], 0.0, 10.0) == 0.5
    assert covered([(0.0, 5.0)], 3.0, 3.0) == 0.0


def test_an_end_between_two_ratios_is_a_number_beside_them():
    """Where the function steps at no ratio of two values, there is none to snap to."""
    found = _inverse(lambda ratio: 1.0 if ratio >= 1.5 else 0.0, 0.5, [1.0, 2.0], [1.0])
    assert found == pytest.approx(1.5)
    assert _inverse(lambda ratio: 1.0 if ratio >= 2.0 else 0.0, 0.5, [1.0, 2.0], [1.0]) == 2.0
    assert _inverse(lambda _: 1.0, 0.5, [1.0], [1.0]) == 0.0
    assert _inverse(lambda _: 0.0, 0.5, [1.0], [1.0]) == math.inf
    assert _inverse(lambda _: 0.0, 0.5, [0.0], [1.0]) == math.inf


def test_scores_that_are_nothing_but_a_step_are_surely_one():
    likelihood, place, _ = changepoints._likeliest([0.0] * 10 + [1.0] * 10)
    assert likelihood > 20.0
    assert 9 <= place <= 11
    assert changepoints._likeliest([0.5] * 20)[0] == 0.0


def test_changes_that_no_look_confirms_are_dropped_one_by_one(monkeypatch):
    monkeypatch.setattr(changepoints, "_step", lambda *_: None)
    found = [_Found(5, 0.001, 0.0), _Found(10, 0.002, 0.0)]
    assert changepoints._confirmed([1.0] * 15, found, 0.01, 5, 0.0) == ()
    assert found == []


def test_changes_that_are_not_settled_in_time_are_told_as_they_stand(monkeypatch):
    monkeypatch.setattr(changepoints, "_ROUNDS", 0)
    values = [1.0, 1.1, 1.2, 0.9, 1.0, 3.0, 3.1, 2.9, 3.2, 3.0]
    (change,) = changepoints._confirmed(values, [_Found(5, 0.001, 0.0)], 0.01, 5, 0.0)
    assert change.index == 5
