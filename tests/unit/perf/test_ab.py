"""Paired measurements: the order, the looks, and what is said of versions whose truth is known."""

from __future__ import annotations

import math
import random

import pytest

from somaresil.chance import Chance
from somaresil.errors import ConfigurationError
from somaresil.perf import Change, Series
from somaresil.perf.ab import PairedTest

KEY = ("command", "duration")


def measured(count, ratio, seed, *, noise=0.05, better="lower"):
    """Give both sides of pairs that a common disturbance makes slower, each with noise of its own."""
    generator = random.Random(seed)
    before, after = [], []
    for _ in range(count):
        common = generator.lognormvariate(0.0, 0.5)
        before.append(common * generator.lognormvariate(0.0, noise))
        after.append(common * ratio * generator.lognormvariate(0.0, noise))
    return ({KEY: Series("command", "seconds", tuple(values), better)} for values in (before, after))


def only(test, baseline, current):
    """Give the one comparison."""
    (found,) = test.compare(baseline, current)
    return found


def test_half_of_the_pairs_begin_with_each_by_lot():
    """Of two neighbours one does; which one depends on the seed."""
    test = PairedTest()
    orders = {seed: [test.current_first(pair, Chance(seed)) for pair in range(40)] for seed in range(8)}
    for order in orders.values():
        assert all(order[place] != order[place + 1] for place in range(0, 40, 2))
    assert len({tuple(order) for order in orders.values()}) == 8


def test_each_look_has_twice_as_many_pairs():
    """And the last is where it ends."""
    assert PairedTest(fewest=20, most=160).looks == (20, 40, 80, 160)
    assert PairedTest(fewest=20, most=100).looks == (20, 40, 80, 100)
    assert PairedTest(fewest=5, most=5).looks == (5,)


def test_a_slowdown_is_seen_through_what_disturbs_both():
    """Values spread by 50 %, pairs by 7 %: 5 % are found, in either direction, whichever is better."""
    test = PairedTest(fewest=80, most=80)
    assert only(test, *measured(80, 1.05, 1)).change is Change.REGRESSED
    assert only(test, *measured(80, 1 / 1.05, 1)).change is Change.IMPROVED
    assert only(test, *measured(80, 1.05, 1, better="higher")).change is Change.IMPROVED
    found = only(test, *measured(80, 1.05, 1))
    assert found.low > 1.02
    assert "80 pairs" in found.reason


def test_equal_versions_are_hardly_ever_told_apart():
    """Looking at 20, 40 and 80 pairs, as rarely as is allowed, give or take chance; and never by more than counts."""
    test = PairedTest(fewest=20, most=80, minimum_effect=0.0)
    alarms = 0
    for seed in range(400):
        baseline, current = measured(80, 1.0, seed)
        cut = [tuple({KEY: Series("command", "seconds", side[KEY].values[:count])} for side in (baseline, current)) for count in test.looks]
        alarms += any(only(test, *each).change is not Change.UNCHANGED for each in cut)
    assert alarms <= 400 * test.alpha + 3.0 * math.sqrt(400 * test.alpha * (1.0 - test.alpha))
    with_effect = PairedTest(fewest=80, most=80)
    assert sum(only(with_effect, *measured(80, 1.0, seed)).change is not Change.UNCHANGED for seed in range(200)) == 0


def test_it_is_clear_when_more_pairs_would_change_nothing():
    """A regression, and the same within what counts; not a ratio that could still be either."""
    test = PairedTest(fewest=160, most=160)
    for ratio, clear in ((1.10, True), (1.0, True), (1.02, False)):
        assert test.clear(test.compare(*measured(160, ratio, 3, noise=0.02))) is clear
    unclear = only(test, *measured(160, 1.02, 3, noise=0.02))
    assert unclear.change is Change.UNCHANGED
    assert "perhaps by less than counts" in unclear.reason


def test_so_few_pairs_can_say_nothing():
    """And how many could is said."""
    found = only(PairedTest(fewest=2, most=160), *measured(2, 2.0, 1))
    assert found.change is Change.UNKNOWN
    assert found.needed > 2
    assert f"{found.needed} can" in found.reason


def test_pairs_that_show_too_little_say_how_many_would_do():
    """With twice the noise four times as many."""
    found = only(PairedTest(fewest=20, most=20), *measured(20, 1.0, 1, noise=0.2))
    assert found.change is Change.UNCHANGED
    assert "no difference can be shown" in found.reason
    assert 20 < found.needed < 20_000


def test_errors_that_never_happen_are_unchanged_and_zeros_have_no_ratio():
    """The same value in each pair is the same; otherwise a ratio to nothing is unknown."""
    zeros = {KEY: Series("command", "ratio", (0.0,) * 20)}
    some = {KEY: Series("command", "ratio", (0.0,) * 19 + (0.5,))}
    test = PairedTest()
    assert only(test, zeros, zeros).change is Change.UNCHANGED
    assert test.clear(test.compare(zeros, zeros))
    assert only(test, zeros, some).change is Change.UNKNOWN


def test_what_is_wrong_is_told_at_once():
    """Options, and figures that only one side has or that are no pairs."""
    with pytest.raises(ConfigurationError) as refused:
        PairedTest(minimum_effect=-1.0, alpha=0.0, fewest=1, most=0)
    assert [problem.path.rpartition(".")[2] for problem in refused.value.problems] == ["minimum_effect", "alpha", "fewest", "most"]
    one, two = {KEY: Series("command", "seconds", (1.0,))}, {KEY: Series("command", "seconds", (1.0, 2.0))}
    with pytest.raises(ConfigurationError, match="one for each pair"):
        PairedTest().compare(one, two)
    with pytest.raises(ConfigurationError, match="a figure of both versions"):
        PairedTest().compare(one, {})
