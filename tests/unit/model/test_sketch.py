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


def bucket(value, error=0.01):
    """The bucket of a value, by its definition: the power of the growth that is the first not below it."""
    return math.ceil(math.log(value) / math.log((1.0 + error) / (1.0 - error)))


@pytest.mark.parametrize("error", [0.001, 0.01, 0.2])
def test_values_are_in_the_bucket_of_their_power(error):
    """And the middle of it is given for them, which is off by the error at most."""
    values = [1e-9, 0.003, 1.0, 2.0, 12_345.0, 1e9]
    sketch = Sketch(values, error=error)
    assert sketch.counts == {bucket(value, error): 1 for value in values}
    growth = (1.0 + error) / (1.0 - error)
    for rank, value in enumerate(values[1:-1], start=2):
        assert sketch.at_rank(rank) == pytest.approx(2.0 * growth ** bucket(value, error) / (growth + 1.0), rel=1e-9)
        assert sketch.at_rank(rank) == pytest.approx(value, rel=error * 1.000001)
    assert (sketch.at_rank(1), sketch.at_rank(6)) == (1e-9, 1e9)


def test_ends_of_the_range_are_in_it():
    """And what is just beyond them is not."""
    sketch = Sketch([LOWEST, HIGHEST])
    assert (sketch.below, sketch.above, sketch.count) == (0, 0, 2)
    sketch = Sketch([math.nextafter(LOWEST, 0.0), math.nextafter(HIGHEST, math.inf)])
    assert (sketch.below, sketch.above, sketch.counts) == (1, 1, {})
    assert (sketch.at_rank(1), sketch.at_rank(2)) == (0.0, math.inf)


def test_a_sketch_of_giants_alone_is_infinite():
    """The least of them is one as well."""
    sketch = Sketch([2e9, 3e9])
    assert (sketch.at_rank(1), sketch.at_rank(2)) == (math.inf, math.inf)
    assert Sketch([HIGHEST]).at_rank(1) == HIGHEST


def test_no_quantile_lies_beyond_what_was_seen():
    """Three equal values are that value, wherever it stands in its bucket."""
    for value in (1.0001, 1.5, 1.9999):
        assert [Sketch([value] * 3).at_rank(rank) for rank in (1, 2, 3)] == [value] * 3


def test_ranks_count_from_the_least_value():
    """Two below the range, three of one, two of two."""
    sketch = Sketch([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    assert [sketch.at_rank(rank) for rank in range(1, 8)] == pytest.approx([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0], rel=0.01)
    assert sketch.quantile(2 / 7) == 0.0
    assert sketch.quantile(3 / 7) == pytest.approx(1.0, rel=0.01)
    assert sketch.quantile(0.0) == 0.0


def test_merged_sketches_are_one_of_all_values():
    """Whatever the order."""
    first, second = [0.0, 1.0, 2.0, 2e9], [1e-10, 0.5, 2.0, 5e9, 5e9]
    for one, other in ((first, second), (second, first)):
        merged = Sketch(one)
        merged.merge(Sketch(other))
        assert merged.dump() == Sketch(first + second).dump()
        assert merged.count == 9


def test_a_dump_is_the_whole_of_it():
    """As text can hold it; and an empty one has no extremes."""
    sketch = Sketch([0.0, 1.0, 2.0, 2.0, 2e9])
    assert sketch.dump() == {
        "error": 0.01,
        "below": 1,
        "above": 1,
        "smallest": 0.0,
        "largest": 2e9,
        "counts": {"0": 1, str(bucket(2.0)): 2},
    }
    again = Sketch.load(json.loads(json.dumps(sketch.dump())))
    assert (again.dump(), again.count, again.smallest, again.largest) == (sketch.dump(), 5, 0.0, 2e9)
    assert (Sketch().dump()["smallest"], Sketch().dump()["largest"]) == (None, None)
    assert Sketch.load({**sketch.dump(), "counts": {"0": 1, "5": 0}}).counts == {0: 1}
    assert repr(sketch) == "Sketch(5 values, error=0.01)"


def test_buckets_at_the_ends_of_the_range_are_loaded_and_others_are_not():
    """What lies there is the least and the largest that counts."""
    lowest, highest = bucket(LOWEST), bucket(HIGHEST)
    for place in (lowest, highest):
        assert Sketch.load({**Sketch([1.0]).dump(), "counts": {str(place): 1}}).counts == {place: 1}
    for place in (lowest - 1, highest + 1):
        with pytest.raises(ValueError, match="outside of the range"):
            Sketch.load({**Sketch([1.0]).dump(), "counts": {str(place): 1}})


@pytest.mark.parametrize("count", [2**63, -1, True, 1.0, "1"])
def test_what_is_no_count_is_not_loaded(count):
    """In a bucket, below and above."""
    for change in ({"counts": {"0": count}}, {"below": count}, {"above": count}):
        with pytest.raises(ValueError, match="no count"):
            Sketch.load({**Sketch([1.0]).dump(), **change})
    assert Sketch.load({**Sketch([1.0]).dump(), "below": 2**63 - 1}).below == 2**63 - 1


@pytest.mark.parametrize(("smallest", "largest"), [(-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)])
def test_extremes_that_are_none_are_not_loaded(smallest, largest):
    with pytest.raises(ValueError, match="extremes"):
        Sketch.load({**Sketch([1.0]).dump(), "smallest": smallest, "largest": largest})
    assert Sketch.load({**Sketch([0.0]).dump(), "smallest": 0.0, "largest": 0.0}).largest == 0.0


def test_values_above_a_limit_at_the_ends_of_the_range():
    """Giants are surely above it; limits beyond the range are refused."""
    sketch = Sketch([0.0, 1.0, 2e9])
    assert sketch.more_than(HIGHEST) == (1, 1)
    assert sketch.more_than(LOWEST) == (2, 2)
    assert sketch.more_than(1.0) == (1, 2)
    assert Sketch([1.0, 1.0]).more_than(0.9999) == (0, 2)
    for limit in (LOWEST / 2.0, HIGHEST * 2.0, math.nan):
        with pytest.raises(ValueError, match="limit"):
            sketch.more_than(limit)


@pytest.mark.parametrize("error", [0.0009, 0.2001])
def test_errors_just_beyond_an_end_are_refused(error):
    with pytest.raises(ValueError, match="relative error"):
        Sketch(error=error)


def test_a_value_is_counted_once_or_more():
    with pytest.raises(ValueError, match="once or more"):
        Sketch().add(1.0, 0)
