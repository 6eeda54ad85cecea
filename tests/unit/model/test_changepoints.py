import math
import random
from itertools import pairwise

import pytest

from somaresil.model import changepoints
from somaresil.model.changepoints import change_points, fewest_points


def history(seed, steps, count=100, noise=0.05, phi=0.0):
    """Give log-normal noise around a level of 100 that is multiplied at each of the steps."""
    chance, values, drift = random.Random(seed), [], 0.0
    for place in range(count):
        drift = phi * drift + chance.gauss(0.0, noise)
        values.append(100.0 * math.exp(drift) * math.prod(factor for at, factor in steps if place >= at))
    return values


def test_one_clear_step_is_found_where_it_is():
    """With its size, its p-value and how many values stand on either side."""
    (found,) = change_points(history(1, [(60, 1.2)]))
    assert abs(found.index - 60) <= 1
    assert found.p_value < 1e-6
    assert (found.points_before, found.points_after) == (found.index, 100 - found.index)
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(1.2, abs=0.03) == found.after / found.before
    assert found.autocorrelation < 0.4


def test_a_step_down_is_one_too():
    """Its ratio is below 1."""
    (found,) = change_points(history(2, [(40, 0.8)]))
    assert abs(found.index - 40) <= 1
    assert found.ratio == pytest.approx(0.8, abs=0.03)


def test_several_steps_are_found_in_order():
    """Also up and down again, of which the whole shows nothing."""
    steps = [(70, 1.2), (120, 1 / 1.2), (200, 1.2), (300, 1.2)]
    found = change_points(history(3, steps, count=365))
    assert [min(abs(each.index - at) for each in found) <= 2 for at, _ in steps] == [True] * 4
    assert len(found) == 4
    assert [each.index for each in found] == sorted(each.index for each in found)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_histories_without_a_step_have_none(phi):
    """At a level of 0.05 no more than 5 of 100, however much neighbours resemble each other."""
    alarms = sum(bool(change_points(history(seed, [], phi=phi), alpha=0.05)) for seed in range(100))
    assert alarms <= 5


def test_outliers_are_no_step():
    """Single values that are a thousand times as large move nothing; nor does one at each end hide a step."""
    flat = history(4, [])
    for place in (0, 30, 31, 99):
        flat[place] *= 1000.0
    assert change_points(flat) == ()
    stepped = history(5, [(50, 1.2)])
    stepped[0], stepped[99] = 1e6, 1e-6
    (found,) = change_points(stepped)
    assert abs(found.index - 50) <= 1


@pytest.mark.parametrize("values", [[], [1.0], [5.0] * 300, list(range(11)), [1.0] * 50 + [2.0]])
def test_what_cannot_show_a_step_shows_none(values):
    """Nothing, one value throughout, too few, and a single value that differs."""
    assert change_points(values) == ()


@pytest.mark.parametrize(("count", "place"), [(20, 10), (24, 12), (40, 30)])
def test_a_short_history_shows_a_clear_step(count, place):
    """Twice as slow, with noise of 2 %: nobody needs a hundred values to see that."""
    for seed in range(20):
        (found,) = change_points(history(seed, [(place, 2.0)], count=count, noise=0.02))
        assert found.index == place


def test_many_levels_are_all_found():
    """Up and down every forty values: from afar that is noise, so windows are searched as well."""
    steps = [(place, 1.1 if place % 80 else 1 / 1.1) for place in range(40, 360, 40)]
    found = change_points(history(8, steps, count=360, noise=0.01))
    assert [each.index for each in found] == [place for place, _ in steps]


def test_a_step_without_noise_is_found_exactly():
    """Two levels and nothing else."""
    (found,) = change_points([1.0] * 20 + [2.0] * 20)
    assert (found.index, found.before, found.after, found.ratio) == (20, 1.0, 2.0, 2.0)
    assert found.p_value >= 2 / math.comb(40, 20)


def test_a_step_is_told_once_enough_values_follow_it():
    """Four values after it are too few for minimum_points of five, and five suffice."""
    before = history(6, [], count=60, noise=0.01)
    assert change_points([*before, *[200.0] * 4]) == ()
    (found,) = change_points([*before, 201.0, 202.0, 203.0, 204.0, 205.0])
    assert found.index == 60
    assert change_points([*before, 201.0, 202.0, 203.0, 204.0, 205.0], minimum_points=6) == ()


def test_small_steps_are_dropped_and_the_rest_stays():
    """A clear step of 3 % is none when 5 % are asked for, in either direction; one of 20 % beside it stays."""
    values = history(7, [(100, 1.2), (200, 1 / 1.03)], count=300, noise=0.005)
    assert len(change_points(values)) == 2
    (found,) = change_points(values, minimum_effect=0.05)
    assert abs(found.index - 100) <= 1


def test_levels_that_are_not_above_zero_have_no_ratio():
    """Any step counts then: what is not known excuses nothing."""
    (found,) = change_points([0.0] * 30 + [5.0 + 0.01 * place for place in range(30)], minimum_effect=0.5)
    assert (found.ratio, found.low, found.high) == (None, None, None)
    assert found.index == 30


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e200, -1e200])
def test_values_that_are_no_numbers_are_refused(wrong):
    """Wherever they stand."""
    with pytest.raises(ValueError, match="finite"):
        change_points([*range(30), wrong])


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 1.0}, {"minimum_points": 2}, {"minimum_effect": -0.1}])
def test_options_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        change_points([1.0] * 20, **options)


def test_more_values_than_promised_are_refused():
    with pytest.raises(ValueError, match="10001"):
        change_points([1.0] * 10_001)


def test_how_many_values_a_history_needs():
    """Twelve, or both sides, or as many as the level needs orders."""
    assert fewest_points() == 12
    assert fewest_points(minimum_points=10) == 20
    assert fewest_points(alpha=1e-6) == 24
    assert 2 / math.comb(24, 12) <= 1e-6 < 2 / math.comb(23, 11)


def test_the_windows_take_no_more_error_than_there_is():
    """What is left to all stretches together is one, and each is inside of the history."""
    for count in (12, 47, 48, 365, 10_000):
        windows = list(changepoints._windows(count))
        assert sum(1 / searched for _, _, searched in windows) <= 1 + 1e-9
        assert all(0 <= start < end <= count for start, end, _ in windows)


@pytest.mark.parametrize("table", [changepoints._REACHED, changepoints._REACHED_BY_DISTANCE])
def test_the_tables_only_fall(table):
    """A larger L is never more likely, at any length, and nothing jumps where a table ends."""
    for count in (12, 20, 50, 100, 500):
        chances = [changepoints._chance(step / 10.0, count, table) for step in range(600)]
        assert all(after <= before for before, after in pairwise(chances))
        assert chances[0] == 1.0
        assert all(after > 0.8 * before for before, after in pairwise(chances))
