import json
import math
import random

import pytest

from somaresil.model.sketch import HIGHEST, LOWEST, Sketch


def test_quantiles_are_within_one_percent():
    """Of the value of the same rank, over nine orders of magnitude."""
    chance = random.Random(1)
    values = sorted(math.exp(chance.uniform(-14.0, 7.0)) for _ in range(5000))
    sketch = Sketch(values)
    for q in (0.001, 0.25, 0.5, 0.95, 0.99, 0.999):
        assert sketch.quantile(q) == pytest.approx(values[math.ceil(q * 5000) - 1], rel=0.01)
    assert (sketch.quantile(0.0), sketch.quantile(1.0)) == (values[0], values[-1])


def test_what_lies_outside_of_the_range_says_so():
    """Zeros count at the lower end, giants at the upper; neither is given for something it is not."""
    sketch = Sketch([0.0, LOWEST / 2, 1.0, HIGHEST * 2])
    assert [sketch.quantile(q) for q in (0.25, 0.5, 1.0)] == [0.0, 0.0, math.inf]
    assert sketch.quantile(0.75) == pytest.approx(1.0, rel=0.01)
    assert (sketch.count, sketch.below, sketch.above) == (4, 2, 1)
    assert (sketch.smallest, sketch.largest) == (0.0, 2 * HIGHEST)


def test_nothing_counted_has_no_quantile():
    assert Sketch().quantile(0.5) is None
    assert Sketch().more_than(1.0) == (0, 0)
    assert Sketch.load(json.loads(json.dumps(Sketch().dump()))).dump() == Sketch().dump()


def test_the_number_of_buckets_is_bounded():
    """However many values come, however far apart."""
    sketch = Sketch(min(HIGHEST, LOWEST * (HIGHEST / LOWEST) ** (step / 20_000)) for step in range(20_001))
    assert len(sketch.counts) <= 2075
    assert (sketch.below, sketch.above) == (0, 0)


def test_values_above_a_limit_are_counted_with_what_is_not_known():
    """Those in the bucket of the limit may be on either side."""
    sketch = Sketch([1.0, 1.5, 2.001, 2.5, 3.0])
    surely, maybe = sketch.more_than(2.0)
    assert (surely, maybe) == (2, 3)
    assert sketch.more_than(3.0) == (0, 0)
    assert sketch.more_than(0.5) == (5, 5)


def test_a_value_may_be_counted_many_times():
    assert Sketch([2.0] * 7).dump() == _counted(2.0, 7).dump()


def _counted(value, times):
    sketch = Sketch()
    sketch.add(value, times)
    return sketch


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_what_is_no_measurement_is_refused(wrong):
    sketch = Sketch([1.0])
    with pytest.raises(ValueError, match="finite"):
        sketch.add(wrong)
    assert sketch.count == 1


@pytest.mark.parametrize("error", [0.0, 0.5, math.nan])
def test_errors_that_are_none_are_refused(error):
    with pytest.raises(ValueError, match="relative error"):
        Sketch(error=error)


def test_other_buckets_do_not_merge():
    with pytest.raises(ValueError, match="different buckets"):
        Sketch().merge(Sketch(error=0.02))


@pytest.mark.parametrize(
    "call", [lambda s: s.quantile(1.1), lambda s: s.quantile(math.nan), lambda s: s.at_rank(0), lambda s: s.at_rank(3)]
)
def test_questions_that_are_none_are_refused(call):
    with pytest.raises(ValueError, match="lies from"):
        call(Sketch([1.0, 2.0]))


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"1": -1}},
        {"counts": {"x": 1}},
        {"counts": {"1": 1.5}},
        {"counts": {"999999": 1}},
        {"counts": []},
        {"error": 7},
        {"below": True},
        {"smallest": 5.0, "largest": 1.0},
        {"smallest": None},
        {"largest": "1e999"},
    ],
)
def test_a_dump_that_none_wrote_is_refused(change):
    with pytest.raises(ValueError, match=r"sketch|error|literal"):
        Sketch.load({**Sketch([1.0, 2.0]).dump(), **change})


def test_a_dump_without_a_part_is_refused():
    dumped = Sketch([1.0]).dump()
    for key in dumped:
        with pytest.raises(ValueError, match="sketch"):
            Sketch.load({other: value for other, value in dumped.items() if other != key})
