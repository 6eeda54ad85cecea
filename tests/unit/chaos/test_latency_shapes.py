"""Shapes of latency: exact where the formula is, bounded always, and read from data."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos.latency import (
    SHAPES,
    Constant,
    Empirical,
    LogNormal,
    Pareto,
    Percentiles,
    Uniform,
    distribution_of,
)
from somaresil.config import Checker
from somaresil.errors import ConfigurationError

seconds = st.floats(0.001, 1_000.0)
draws = st.floats(0.0, 1.0, exclude_max=True)
shapes = st.one_of(
    st.builds(Constant, seconds),
    st.tuples(seconds, seconds).map(lambda pair: Uniform(min(pair), max(pair))),
    st.builds(LogNormal, seconds, st.floats(0.0, 1.0), st.none() | st.floats(1.0, 1_000.0)),
    st.builds(Pareto, st.floats(0.001, 1.0), st.floats(1.0, 5.0), st.none() | st.floats(1.0, 1_000.0)),
    st.dictionaries(st.integers(0, 100), seconds, min_size=1).map(
        lambda table: Percentiles(dict(zip(sorted(table), sorted(table.values()), strict=True)))  # type: ignore[arg-type]
    ),
    st.lists(seconds, min_size=1).map(lambda samples: Empirical(tuple(samples))),
)


@given(shapes, draws, draws)
def test_more_of_a_draw_is_never_less_of_a_delay_and_never_more_than_the_longest(shape, one, other):
    """So a ceiling that the longest keeps is kept by every call."""
    low, high = sorted((one, other))
    assert 0.0 <= shape.quantile(low) <= shape.quantile(high) <= shape.longest
    assert math.isfinite(shape.longest)


@given(shapes)
def test_a_shape_comes_back_from_its_data(shape):
    """As a plan keeps it."""
    check = Checker()
    assert distribution_of(check, "delay", shape.as_data()) == shape
    assert not check.problems
    assert hash(shape) == hash(distribution_of(check, "delay", shape.as_data()))


def test_a_constant_is_the_same_for_every_draw():
    """Also for none at all."""
    assert Constant(2).quantile(0.0) == Constant(2).quantile(0.999) == 2.0


def test_uniform_is_a_straight_line():
    """From one limit to the other."""
    assert [Uniform(1, 3).quantile(u) for u in (0.0, 0.25, 0.5, 0.75)] == [1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize(
    ("u", "z"),
    [(0.5, 0.0), (0.8413447460685429, 1.0), (0.15865525393145707, -1.0), (0.9772498680518208, 2.0), (0.975, 1.959963984540054)],
)
def test_lognormal_is_the_median_times_the_exponential_of_a_normal_quantile(u, z):
    """Against quantiles from tables."""
    assert LogNormal(0.2, 0.7).quantile(u) == pytest.approx(0.2 * math.exp(0.7 * z), rel=1e-9)


def test_lognormal_begins_at_nothing_and_ends_at_its_cap():
    """By default where one call in a thousand is."""
    shape = LogNormal(0.2, 1.0)
    assert shape.quantile(0.0) == 0.0
    assert shape.quantile(1 - 2**-53) == shape.longest == pytest.approx(0.2 * math.exp(3.090232306167813))
    assert LogNormal(0.2, 1.0, 0.5).quantile(0.99) == LogNormal(0.2, 1.0, 0.5).longest == 0.5


@given(st.floats(0.001, 10.0), st.floats(1.0, 5.0), st.floats(0.0, 0.99))
def test_pareto_has_the_tail_that_it_says(scale, alpha, u):
    """P(X > x) = (scale / x) ** alpha, turned round."""
    x = Pareto(scale, alpha, 80_000.0).quantile(u)
    assert (scale / x) ** alpha == pytest.approx(1.0 - u, rel=1e-6)
    assert x >= scale


def test_percentiles_are_met_exactly_and_joined_by_lines():
    """From nothing at 0 to the last, and level after it."""
    shape = Percentiles({50: 0.1, "95": 0.8, 99: 2.0})
    found = [shape.quantile(u) for u in (0.0, 0.25, 0.5, 0.725, 0.95, 0.99, 0.9999)]
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.45, 0.8, 2.0, 2.0])
    assert Percentiles({0: 0.5, 100: 1.5}).quantile(0.5) == 1.0
    assert shape.longest == 2.0


@given(st.lists(seconds, min_size=1, max_size=50), draws)
def test_empirical_gives_what_was_measured_and_nothing_else(samples, u):
    """And each as often as it was: n draws in order give the n samples."""
    shape = Empirical(tuple(samples))
    assert shape.quantile(u) in samples
    assert [shape.quantile((place + 0.5) / len(samples)) for place in range(len(samples))] == sorted(samples)


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        ({"uniform": [-1, 2]}, ["delay.uniform.low"]),
        ({"uniform": [3, 2]}, ["delay.uniform.low"]),
        ({"uniform": [1]}, ["delay.uniform.high"]),
        ({"uniform": [1, 2, 3]}, ["delay.uniform"]),
        ({"uniform": {"low": 1, "hihg": 2}}, ["delay.uniform.hihg", "delay.uniform.high"]),
        ({"lognormal": {"median": 0, "sigma": -1}}, ["delay.lognormal.median", "delay.lognormal.sigma"]),
        ({"lognormal": {"median": 80_000, "sigma": 3}}, ["delay.lognormal.cap"]),
        ({"pareto": {"scale": 1, "alpha": 0}}, ["delay.pareto.alpha"]),
        ({"pareto": {"scale": 1, "alpha": 0.05}}, ["delay.pareto.cap"]),
        ({"pareto": {"scale": 2, "alpha": 1, "cap": 1}}, ["delay.pareto.cap"]),
        ({"percentiles": {}}, ["delay.percentiles"]),
        ({"percentiles": [50, 99]}, ["delay.percentiles", "delay.percentiles"]),
        ({"percentiles": {"50": 2, "99": 1}}, ["delay.percentiles.99"]),
        ({"percentiles": {"101": 2}}, ["delay.percentiles.101"]),
        ({"percentiles": {"x": 2}}, ["delay.percentiles.x"]),
        ({"percentiles": {"50": 0}}, ["delay.percentiles.50"]),
        ({"percentiles": [[50, 1], [50.0, 2]]}, ["delay.percentiles.50"]),
        ({"empirical": []}, ["delay.empirical"]),
        ({"empirical": [1, "2"]}, ["delay.empirical.[1]"]),
        ({"empirical": [0]}, ["delay.empirical"]),
        ({"empirical": [1] * 10_001}, ["delay.empirical"]),
        ({"constant": 0}, ["delay.constant.seconds"]),
        ({"unifrom": [1, 2]}, ["delay"]),
        ({"uniform": [1, 2], "constant": 1}, ["delay"]),
        ({}, ["delay"]),
        (5, ["delay"]),
        ("1s", ["delay"]),
    ],
)
def test_what_is_wrong_is_told_with_its_path(data, paths):
    """All of it, and no shape is made."""
    check = Checker()
    assert distribution_of(check, "delay", data) is None
    assert [problem.path for problem in check.problems] == paths


def test_a_misspelt_shape_is_recognised():
    """The error says which there are."""
    check = Checker()
    distribution_of(check, "delay", {"unifrom": [1, 2]})
    (problem,) = check.problems
    assert problem.hint == "did you mean 'uniform'?"


def test_in_code_a_shape_is_refused_where_it_is_made():
    """With the name of its field."""
    with pytest.raises(ConfigurationError, match=r"uniform\.high"):
        Uniform(0, 0)
    assert set(SHAPES) == {"constant", "uniform", "lognormal", "pareto", "percentiles", "empirical"}
