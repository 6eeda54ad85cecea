"""Measures: quantiles within 1 %, merging without loss, exact bounds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.load.measure import Measure

VALUES = st.lists(st.floats(min_value=1e-6, max_value=1e8), min_size=1, max_size=200)


def measure_of(values, bounds=()):
    made = Measure(bounds)
    for value in values:
        made.add(value)
    return made


@given(VALUES, st.floats(min_value=0.0, max_value=1.0))
def test_a_quantile_is_within_one_percent_of_the_value_of_its_rank(values, q):
    """Whatever the values are, the quantile is that of the nearest rank, within the promised error."""
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert measure_of(values).quantile(q) == pytest.approx(exact, rel=0.010001)


@given(VALUES, VALUES)
def test_merging_is_the_same_as_having_seen_all_values(some, others):
    """Two processes that add their sketches know what one process would have known."""
    merged = measure_of(some, (0.5, 2.0))
    merged.merge(measure_of(others, (0.5, 2.0)))
    assert merged.as_dict() == measure_of(some + others, (0.5, 2.0)).as_dict()


@given(VALUES, st.sampled_from([1e-3, 0.5, 2.0]))
def test_a_bound_is_counted_exactly(values, bound):
    """A judgement about a bound is no estimate."""
    assert measure_of(values, (bound,)).at_most(bound) == sum(value <= bound for value in values)


@given(VALUES, st.floats(min_value=1e-6, max_value=1e8))
def test_any_other_limit_is_wrong_by_one_bucket_at_most(values, limit):
    """What lies within the bucket of the limit may be counted, nothing beyond it."""
    found = measure_of(values).at_most(limit)
    assert sum(value <= limit for value in values) <= found <= sum(value <= limit * 1.0203 for value in values)


@given(VALUES)
def test_json_keeps_everything(values):
    """A sketch that was written and read is the same."""
    made = measure_of(values, (0.25,))
    assert Measure.from_dict(json.loads(json.dumps(made.as_dict()))).as_dict() == made.as_dict()


def test_an_empty_sketch_knows_nothing():
    """No values, no quantile, and an empty one changes nothing when it is merged."""
    empty = Measure((1.0,))
    assert empty.quantile(0.5) is None
    assert empty.largest is None
    full = measure_of([0.5, 3.0], (1.0,))
    full.merge(empty)
    assert full.as_dict() == measure_of([0.5, 3.0], (1.0,)).as_dict()
    empty.merge(full)
    assert empty.as_dict() == full.as_dict()
    assert Measure.from_dict(json.loads(json.dumps(Measure().as_dict()))).count == 0


def test_a_bound_that_only_one_counts_is_dropped():
    """Half of an exact count would be a wrong one."""
    merged = measure_of([0.5], (1.0, 2.0))
    merged.merge(measure_of([0.5], (1.0,)))
    assert merged.bounds == (1.0,)
    assert merged.at_most(1.0) == 2


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_duration_is_refused(value):
    """A NaN in a sketch would make every later figure a lie."""
    with pytest.raises(ValueError, match="finite"):
        Measure().add(value)


def test_extremes_stay_within_memory():
    """Zero and the absurdly large have a bucket, and the reported values stay those that were seen."""
    made = measure_of([0.0, 1e-12, 1e12])
    assert made.quantile(0.0) == 0.0
    assert made.quantile(1.0) == 1e12


@pytest.mark.parametrize(
    "change",
    [
        {"error": 7},
        {"count": 3},
        {"count": -1},
        {"count": True},
        {"counts": {"x": 1}},
        {"counts": {"5": 1.5}},
        {"counts": {"99999": 2}},
        {"counts": []},
        {"smallest": math.nan},
        {"largest": -1.0},
        {"within": {"1.0": 7}},
        {"within": {"1.0": -1}},
        {"within": 5},
    ],
)
def test_a_damaged_sketch_is_refused(change):
    """What does not add up is named, not used."""
    data = {**measure_of([0.5, 2.0], (1.0,)).as_dict(), **change}
    with pytest.raises(ValueError):
        Measure.from_dict(data)


def test_a_share_out_of_range_is_refused():
    """95 is no quantile."""
    with pytest.raises(ValueError, match="quantile"):
        Measure().quantile(95)
