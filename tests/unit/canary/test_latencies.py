import math
import random
from bisect import bisect_left

import pytest

from somaresil.canary.latencies import Interval, Latencies, judge_latencies
from somaresil.errors import ConfigurationError
from somaresil.outcome import Outcome
from somaresil.recorder import Counts

BOUNDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def counted(values, bounds=BOUNDS):
    """Count values as a recorder does."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return Latencies(bounds, counts)


def test_a_slower_version_is_high_at_its_quantiles():
    """Everything ten times as slow."""
    found = judge_latencies(Latencies(BOUNDS, [900, 100, 0, 0, 0, 0, 0]), Latencies(BOUNDS, [0, 0, 0, 900, 100, 0, 0]))
    assert [each.classification for each in found.quantiles] == ["high", "high", "high"]
    assert found.quantiles[0].control == Interval(0.0, 0.1)
    assert found.reason == "quantile 0.5: it is higher, 0.5 to 1 s beside 0 to 0.1 s"


def test_only_a_slower_tail_is_seen_where_it_is():
    """Three in a hundred took seconds: the median and p95 pass, p99 does not."""
    found = judge_latencies(Latencies(BOUNDS, [9000, 1000, 0, 0, 0, 0, 0]), Latencies(BOUNDS, [8700, 1000, 0, 0, 0, 300, 0]))
    assert [each.classification for each in found.quantiles] == ["pass", "pass", "high"]
    assert found.classification == "high"


def test_equal_versions_pass_when_there_are_enough_calls():
    """A thousand calls are enough for p99, a hundred are enough for the median alone, and too few are no pass."""
    many, few = Latencies(BOUNDS, [900, 100, 0, 0, 0, 0, 0]), Latencies(BOUNDS, [90, 10, 0, 0, 0, 0, 0])
    assert judge_latencies(many, many).classification == "pass"
    scarce = judge_latencies(many, few)
    assert [each.classification for each in scarce.quantiles] == ["pass", "nodata", "nodata"]
    assert scarce.classification == "nodata"
    assert scarce.quantiles[2].experiment is None
    assert "the experiment has too few calls" in scarce.reason


def test_p99_needs_as_many_calls_as_the_module_says():
    """637 a side at the defaults, and not one less."""
    enough, scarce = Latencies((1.0,), [637, 0]), Latencies((1.0,), [636, 0])
    assert judge_latencies(enough, enough).classification == "pass"
    assert judge_latencies(enough, scarce).classification == "nodata"


def test_no_calls_are_no_data():
    """On either side and on both."""
    some, none = Latencies(BOUNDS, [900, 100, 0, 0, 0, 0, 0]), Latencies(BOUNDS, [0] * 7)
    for control, experiment in ((some, none), (none, some), (none, none)):
        assert judge_latencies(control, experiment).classification == "nodata"


def test_beyond_the_last_bound_nothing_is_known():
    """Both may take five seconds or five hours; an experiment that does while the control does not is high."""
    slow, fast = Latencies(BOUNDS, [0] * 6 + [1000]), Latencies(BOUNDS, [1000] + [0] * 6)
    assert judge_latencies(slow, slow).classification == "nodata"
    assert judge_latencies(fast, slow).classification == "high"
    assert judge_latencies(slow, fast).classification == "nodata"
    assert judge_latencies(slow, fast, direction="either").classification == "low"


def test_what_is_allowed_passes():
    """From at most 0.1 to more than 0.5 is certainly five times as much, not six."""
    control, experiment = Latencies(BOUNDS, [1000] + [0] * 6), Latencies(BOUNDS, [0, 0, 0, 1000, 0, 0, 0])
    assert judge_latencies(control, experiment, allowed_increase=5.0).classification == "high"
    assert judge_latencies(control, experiment, allowed_increase=6.0).classification == "pass"
    assert judge_latencies(experiment, control, direction="decrease", allowed_decrease=0.2).classification == "low"
    assert judge_latencies(experiment, control, direction="decrease", allowed_decrease=0.1).classification == "pass"


def test_sides_may_have_other_bounds():
    """Versions that were set up differently are compared by what each knows."""
    assert judge_latencies(Latencies((0.3,), [1000, 0]), Latencies((0.2, 0.7), [0, 0, 1000])).classification == "high"


def test_equal_versions_seldom_differ():
    """Of 500 pairs from one distribution, three quantiles together, no more than 2 % and a little."""
    draw = random.Random(31)
    bounds = tuple(1.02**place / 100 for place in range(400))
    wrong = 0
    for _ in range(500):
        sides = [counted((draw.lognormvariate(0, 0.5) for _ in range(800)), bounds) for _ in "ab"]
        wrong += judge_latencies(*sides, direction="either").classification in ("high", "low")
    assert wrong <= 15


def test_the_counts_of_a_recorder_are_taken_by_outcome():
    """Only the calls that ended well."""
    reading = Counts((1.0,), {(Outcome.GOOD, False): [3, 1], (Outcome.BAD, False): [0, 7]})
    assert Latencies.of(reading, Outcome.GOOD).counts == (3, 1)
    assert Latencies.of(reading).total == 11


@pytest.mark.parametrize(
    ("bounds", "counts", "wrong"),
    [
        ((1.0, 1.0), [1, 2, 3], "bounds"),
        ((2.0, 1.0), [1, 2, 3], "bounds"),
        ((math.nan,), [1, 2], "bounds[0]"),
        ((-1.0,), [1, 2], "bounds[0]"),
        ((math.inf,), [1, 2], "bounds[0]"),
        ((1.0,), [1], "counts"),
        ((1.0,), [1, -2], "counts[1]"),
        ((1.0,), [1, 2.0], "counts[1]"),
        ((1.0,), [1, 2**60], "counts[1]"),
        ("12", [1, 2], "bounds"),
        ((1.0,), None, "counts"),
        (tuple(range(10_001)), [0], "bounds"),
    ],
)
def test_what_are_no_buckets_is_refused(bounds, counts, wrong):
    """Each at its path."""
    with pytest.raises(ConfigurationError) as caught:
        Latencies(bounds, counts)
    assert f"Latencies.{wrong}" in {problem.path for problem in caught.value.problems}


def test_arguments_that_are_none_are_refused_together():
    """Every one of them, at once."""
    with pytest.raises(ConfigurationError) as caught:
        judge_latencies(
            None,
            Latencies(BOUNDS, [0] * 7),
            quantiles=(0.5, 1.0),
            direction="up",
            allowed_increase=0.5,
            allowed_decrease=2,
            confidence=1,
        )
    names = "control quantiles[1] direction allowed_increase allowed_decrease confidence"
    assert [problem.path for problem in caught.value.problems] == [f"judge_latencies.{name}" for name in names.split()]
    with pytest.raises(ConfigurationError):
        judge_latencies(Latencies(BOUNDS, [0] * 7), Latencies(BOUNDS, [0] * 7), quantiles=())
