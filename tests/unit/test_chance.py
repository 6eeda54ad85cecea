"""Keyed chance: the same decisions for the same calls, in any order and on any machine."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chance import Chance, draw
from somaresil.errors import ConfigurationError

seeds = st.one_of(st.integers(), st.text(st.characters()), st.binary())
any_text = st.text(st.characters())  # lone surrogates included
numbers = st.integers(0, 2**64 - 1)

PINNED = (0.5961939870749445, 0.10456712077221342, 0.22271836534699507)


@given(st.binary(max_size=64), any_text, any_text, numbers)
def test_a_draw_depends_only_on_its_arguments_and_lies_below_one(seed, rule, key, n):
    """Any texts and numbers give a float in [0, 1), the same each time."""
    first = draw(seed, rule, key, n)
    assert 0.0 <= first < 1.0
    assert first == draw(seed, rule, key, n)


def test_draws_never_change_between_versions():
    """Three draws are pinned: a recorded experiment must replay after an upgrade."""
    assert draw(b"seed", "rule", "key", 0) == PINNED[0]
    assert draw(b"seed", "rule", "key", 1) == PINNED[1]
    assert Chance(7).draw("latency", "llm.invoke", 3) == PINNED[2]


def test_the_largest_digest_is_still_below_one(monkeypatch):
    """All bits set give the float just below 1, so that rate 1 always hits."""

    class AllOnes:
        def digest(self):
            return b"\xff" * 8

    monkeypatch.setattr("somaresil.chance.blake2b", lambda *args, **kwargs: AllOnes())
    assert draw(b"", "rule", "key", 0) == 1 - 2**-53


def test_rule_and_key_do_not_run_together():
    """Moving a character from the key to the rule is another draw."""
    assert draw(b"s", "a|b", "c", 0) != draw(b"s", "a", "b|c", 0)
    assert draw(b"s", "ab", "", 0) != draw(b"s", "a", "b", 0) != draw(b"s", "", "ab", 0)


@given(seeds, any_text, any_text, numbers)
def test_the_seed_as_text_replays_every_draw(seed, rule, key, n):
    """A Chance made from another one's seed decides alike, whatever the first was made from."""
    chance = Chance(seed)
    assert Chance(chance.seed).draw(rule, key, n) == chance.draw(rule, key, n)


def test_a_seed_from_the_environment_equals_the_number_in_the_code():
    """Whole numbers are taken as they print, bytes as hexadecimal."""
    assert Chance(7).draw("r", "k", 0) == Chance("7").draw("r", "k", 0)
    assert (Chance(7).seed, Chance("a b").seed, Chance(b"\x01\xff").seed) == ("7", "a b", "01ff")
    assert repr(Chance(7)) == "Chance(seed='7')"


def test_without_a_seed_every_chance_is_its_own_and_can_be_replayed():
    """The operating system chooses 16 bytes, readable as hexadecimal text."""
    one, other = Chance(), Chance()
    assert one.seed != other.seed
    assert len(bytes.fromhex(one.seed)) == 16
    assert Chance(one.seed).draw("r", "k", 5) == one.draw("r", "k", 5)


@pytest.mark.parametrize("seed", [True, 1.5, object(), ["a"]])
def test_a_seed_of_another_type_is_a_configuration_error(seed):
    """The problem names the seed and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        Chance(seed)
    (problem,) = caught.value.problems
    assert (problem.path, problem.value) == ("seed", seed)


@given(seeds, any_text, any_text, numbers)
def test_rate_zero_never_hits_and_rate_one_always_does(seed, rule, key, n):
    """The ends of the range are exact."""
    chance = Chance(seed)
    assert not chance.hit(0.0, rule, key, n)
    assert chance.hit(1.0, rule, key, n)


@given(st.lists(st.floats(0.0, 1.0), min_size=2), numbers)
def test_a_higher_rate_hits_everything_a_lower_one_does(rates, n):
    """Raising the rate of an experiment adds calls and exchanges none."""
    chance = Chance("s")
    hits = [chance.hit(rate, "r", "k", n) for rate in sorted(rates)]
    assert all(after or not before for before, after in pairwise(hits))


def test_decisions_do_not_depend_on_the_order_of_the_calls():
    """Two interleavings of the same calls are decided alike."""
    chance = Chance("game day")
    calls = [(key, n) for key in "abcd" for n in range(50)]
    shuffled = random.Random(1).sample(calls, len(calls))
    decided = {call: chance.hit(0.3, "latency", *call) for call in calls}
    assert {call: chance.hit(0.3, "latency", *call) for call in shuffled} == decided


def test_draws_are_spread_evenly():
    """Each tenth of [0, 1) gets about a tenth of 20,000 draws, and the share of hits is close to the rate."""
    chance = Chance("spread")
    tenths = [0] * 10
    for n in range(20_000):
        tenths[int(chance.draw("r", "k", n) * 10)] += 1
    assert all(1_800 < tenth < 2_200 for tenth in tenths)
    assert 5_700 < sum(chance.hit(0.3, "other", "k", n) for n in range(20_000)) < 6_300


def test_a_sequence_counts_from_zero():
    """next and hit take the draws of the rule one after the other."""
    chance = Chance("s")
    sequence = chance.sequence("opening", "llm")
    assert sequence.next() == chance.draw("opening", "llm", 0)
    assert sequence.hit(0.5) == chance.hit(0.5, "opening", "llm", 1)
    assert sequence.next() == chance.draw("opening", "llm", 2)
    assert chance.sequence("opening").next() == chance.draw("opening", "", 0)


def test_threads_sharing_a_sequence_get_each_draw_once():
    """Four threads take 4,000 draws and get exactly the first 4,000 of the rule."""
    chance = Chance("s")
    sequence = chance.sequence("r")
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda _: [sequence.next() for _ in range(1_000)], range(4))
        drawn = [u for part in parts for u in part]
    assert sorted(drawn) == sorted(chance.draw("r", "", n) for n in range(4_000))
