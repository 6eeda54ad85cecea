"""The timetable: a pure function of stages, kind and seed."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.load.arrivals import Stage, arrivals, expected, rate_at

RATES = st.floats(min_value=0.0, max_value=200.0)
STAGES = st.lists(
    st.builds(Stage, st.floats(min_value=0.1, max_value=20.0), RATES, st.none() | RATES),
    min_size=1,
    max_size=4,
)


@given(STAGES, st.sampled_from(["poisson", "constant"]), st.integers(0, 5))
def test_times_rise_and_stay_within_the_stages(stages, arrival, seed):
    """No arrival is before an earlier one, before the beginning or after the end, and the same definition gives the same times."""
    times = list(arrivals(stages, arrival, seed=seed))
    assert times == sorted(times)
    assert all(0.0 <= at <= math.fsum(stage.seconds for stage in stages) + 1e-9 for at in times)
    assert times == list(arrivals(stages, arrival, seed=seed))


@given(STAGES)
def test_constant_arrivals_are_as_many_as_expected_at_any_time(stages):
    """At each arrival the area under the rate is its number and a half: never one ahead, never one behind."""
    times = list(arrivals(stages, "constant"))
    assert abs(len(times) - expected(stages)) <= 0.5 + 1e-6
    for number, at in enumerate(times):
        done, area = 0.0, 0.0
        for stage in stages:
            inside = min(max(at - done, 0.0), stage.seconds)
            area += inside * (stage.rate + (stage.rate + (stage.end_rate - stage.rate) * inside / stage.seconds)) / 2.0
            done += stage.seconds
        assert area == pytest.approx(number + 0.5, abs=1e-5)


def test_constant_arrivals_of_one_rate_are_evenly_spaced():
    """Ten a second are a tenth of a second apart."""
    assert list(arrivals([Stage(1.0, 10.0)], "constant")) == pytest.approx([0.05 + 0.1 * number for number in range(10)])


def test_poisson_gaps_are_exponential():
    """Mean and standard deviation of the gaps are equal, and their median is ln 2 of the mean."""
    times = list(arrivals([Stage(200.0, 100.0)], seed=3))
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(times))
    mean = math.fsum(gaps) / len(gaps)
    deviation = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert mean == pytest.approx(0.01, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)
    assert gaps[len(gaps) // 2] == pytest.approx(mean * math.log(2), rel=0.05)


def test_a_ramp_has_a_quarter_of_its_arrivals_in_its_first_half():
    """From nothing to everything the area grows with the square of the time."""
    for arrival in ("poisson", "constant"):
        times = list(arrivals([Stage(100.0, 0.0, 200.0)], arrival, seed=1))
        assert sum(at < 50.0 for at in times) / len(times) == pytest.approx(0.25, abs=0.02)


def test_another_seed_is_another_timetable():
    """Chance is seeded, not fixed."""
    assert list(arrivals([Stage(1.0, 50.0)], seed=1)) != list(arrivals([Stage(1.0, 50.0)], seed=2))


def test_the_rate_at_a_time_follows_the_stages():
    """Steps, slopes, and nothing after the end."""
    stages = [Stage(10.0, 5.0), Stage(10.0, 5.0, 15.0)]
    assert [rate_at(stages, at) for at in (0.0, 9.0, 15.0, 25.0)] == [5.0, 5.0, 10.0, 0.0]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"seconds": 0.0, "rate": 1.0}, "seconds"),
        ({"seconds": math.inf, "rate": 1.0}, "seconds"),
        ({"seconds": 1.0, "rate": -1.0}, "rate"),
        ({"seconds": 1.0, "rate": "10"}, "rate"),
        ({"seconds": 1.0, "rate": 1.0, "to": math.nan}, "to"),
        ({"seconds": 1.0, "rate": 1.0, "name": "a b"}, "name"),
    ],
)
def test_a_wrong_stage_is_named(given, path):
    """Nothing is corrected in silence."""
    with pytest.raises(ConfigurationError) as wrong:
        Stage(**given)
    assert [problem.path for problem in wrong.value.problems] == [path]


def test_an_unknown_kind_of_arrival_is_refused():
    """There are two."""
    with pytest.raises(ValueError, match="poisson or constant"):
        list(arrivals([Stage(1.0, 1.0)], "bursts"))
