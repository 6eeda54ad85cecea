"""Rendezvous hashing chooses alike everywhere and moves as little as possible."""

from __future__ import annotations

import math
from collections import Counter
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.selector import can_meet, chosen, is_chosen, is_in_share, matches, weight

texts = st.text(st.characters(), max_size=12)  # lone surrogates included
groups = st.lists(texts, min_size=1, max_size=12, unique=True)
sizes = st.integers(0, 14)

PINNED = (11002630657738561130, 14558143475431885848)


def test_weights_never_change_between_versions():
    """Two weights are pinned: replicas of different releases must choose alike."""
    assert weight("experiment-1", "gateway-0") == PINNED[0]
    assert weight("", "") == PINNED[1]


@given(texts, texts)
def test_a_weight_has_64_bits(key, member):
    """It is a number in [0, 2**64), the same each time."""
    assert 0 <= weight(key, member) < 2**64
    assert weight(key, member) == weight(key, member)


def test_key_and_member_do_not_run_together():
    """Moving a character from one to the other is another weight."""
    assert weight("ab", "c") != weight("a", "bc")


@given(texts, groups, sizes)
def test_exactly_count_members_are_chosen(key, members, count):
    """As many as asked for, all different, all members; everyone when there are fewer."""
    selection = chosen(key, members, count)
    assert len(selection) == len(set(selection)) == min(count, len(members))
    assert set(selection) <= set(members)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_chooses_nobody(count):
    """Nothing is chosen from the end of the list by accident."""
    assert chosen("key", ["a", "b"], count) == ()


def test_nobody_is_chosen_from_an_empty_group():
    """No members, no choice."""
    assert chosen("key", []) == ()


@given(texts, groups, sizes, st.randoms(use_true_random=False))
def test_order_and_repetition_of_the_members_do_not_matter(key, members, count, rng):
    """Every instance may keep its own list in its own order."""
    shuffled = [*members, *members]
    rng.shuffle(shuffled)
    assert chosen(key, shuffled, count) == chosen(key, members, count)


@given(texts, groups, sizes)
def test_removing_a_member_that_is_not_chosen_changes_nothing(key, members, count):
    """Scaling in elsewhere leaves the blast radius where it is."""
    selection = chosen(key, members, count)
    for other in set(members) - set(selection):
        assert chosen(key, [member for member in members if member != other], count) == selection


@given(texts, groups, st.integers(1, 14))
def test_removing_a_chosen_member_keeps_the_others(key, members, count):
    """Only its own place is given to somebody else."""
    selection = chosen(key, members, count)
    remaining = chosen(key, [member for member in members if member != selection[0]], count)
    assert set(selection[1:]) <= set(remaining)


@given(texts, groups, texts, st.integers(1, 14))
def test_a_new_member_replaces_at_most_one(key, members, newcomer, count):
    """Scaling out either leaves the choice alone or brings in the newcomer itself."""
    before, after = set(chosen(key, members, count)), set(chosen(key, [*members, newcomer], count))
    assert after - before <= {newcomer}
    assert len(before - after) <= 1


@given(texts, groups, sizes)
def test_a_smaller_choice_begins_a_larger_one(key, members, count):
    """Widening an experiment keeps those who were in it."""
    assert chosen(key, members, count + 1)[:count] == chosen(key, members, count)


@given(texts, groups, texts, sizes)
def test_is_chosen_agrees_with_chosen(key, members, stranger, count):
    """Each member gets the answer of the whole choice, and a stranger is never in it."""
    selection = chosen(key, members, count)
    assert [member for member in members if is_chosen(key, member, members, count)] == [m for m in members if m in selection]
    assert is_chosen(key, stranger, members, count) == (stranger in selection)
    assert is_chosen(key, members[0], members) == (chosen(key, members) == (members[0],))


def test_choices_are_spread_evenly_over_the_members():
    """Over 10,000 keys each of ten members is chosen about as often as the others."""
    members = [f"gateway-{i}" for i in range(10)]
    times = Counter(chosen(f"experiment-{n}", members)[0] for n in range(10_000))
    assert all(850 < times[member] < 1_150 for member in members)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("llm.invoke", "llm.invoke", True),
        ("llm.*", "llm.invoke", True),
        ("llm.*", "llm.invoke.fast", True),
        ("llm.*", "llm", False),
        ("*", "", True),
        ("LLM.*", "llm.invoke", False),
        ("invoke", "llm.invoke", False),
        ("worker-?", "worker-1", True),
        ("worker-?", "worker-10", False),
        ("worker-[12]", "worker-2", True),
        ("worker-[!12]", "worker-2", False),
        ("/items/{id}", "/items/{id}", True),
        ("a.b", "axb", False),
    ],
)
def test_patterns_match_whole_names(pattern, name, expected):
    """Shell-style wildcards, case counts, and a dot is a dot."""
    assert matches(pattern, name) is expected


# -- shares -----------------------------------------------------------------------------------------------------------------------------


def test_a_share_of_those_who_are_known_is_that_many_of_them():
    """Rounded down and one at the least; 0.29 of a hundred are 29, whatever floats make of it."""
    members = [f"gateway-{number}" for number in range(100)]
    for share, count in ((0.0, 1), (0.001, 1), (0.01, 1), (0.0199, 1), (0.02, 2), (0.29, 29), (0.999, 99), (1.0, 100)):
        there = [member for member in members if is_in_share("key", member, share, members)]
        assert sorted(there) == sorted(chosen("key", members, count))
    assert not is_in_share("key", "stranger", 1.0, members)


def test_a_share_of_those_who_are_not_known_goes_by_the_weight():
    """Strictly below that part of all weights: at none nobody, at all everybody."""
    place = PINNED[0] / 2**64
    assert is_in_share("experiment-1", "gateway-0", math.nextafter(place, 1.0))
    assert not is_in_share("experiment-1", "gateway-0", math.nextafter(place, 0.0))
    assert not is_in_share("experiment-1", "gateway-0", 0.0)
    assert is_in_share("experiment-1", "gateway-0", 1.0)


# -- patterns that meet -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("llm.*", "*.invoke", True),
        ("llm.*", "db.*", False),
        ("", "", True),
        ("", "*", True),
        ("*", "*", True),
        ("", "?", False),
        ("a", "a", True),
        ("a", "b", False),
        ("a", "ab", False),
        ("?", "a", True),
        ("??", "a", False),
        ("a*", "*b", True),
        ("a*b", "a*c", False),
        ("a*b*c", "*x*", True),
        ("[ab]", "[bc]", True),
        ("[ab]", "[cd]", False),
        ("[!ab]", "[ab]", False),
        ("[!ab]", "[bc]", True),
        ("[bc]", "[!ab]", True),
        ("[!ab]", "[!bc]", True),
        ("[a-c]", "b", True),
        ("[a-c]", "c", True),
        ("[a-c]", "a", True),
        ("[a-c]", "d", False),
        ("[a-c]", "-", False),
        ("[!a-c]", "b", False),
        ("[!a-c]", "d", True),
        ("[c-a]", "b", False),
        ("[a-]", "-", True),
        ("[a-]", "b", False),
        ("[-a]", "-", True),
        ("[a-cx-z]", "y", True),
        ("[a-cx-z]", "w", False),
        ("[ab]c", "bc", True),
        ("[]a]", "]", True),
        ("[]a]", "a", True),
        ("[]a]", "[", False),
        ("[!]a]", "]", False),
        ("[!]a]", "b", True),
        ("[]", "[]", True),
        ("[", "[", True),
        ("[!", "[!", True),
        ("[!]", "[!]", True),
        ("[a", "a", False),
        ("x[a", "x[a", True),
        ("worker-[12]", "worker-?", True),
        ("worker-[12]", "worker-??", False),
    ],
)
def test_two_patterns_meet_when_a_name_fits_both(one, other, expected):
    """In either order; brackets are read as fnmatch reads them."""
    assert can_meet(one, other) is expected
    assert can_meet(other, one) is expected


PIECES = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "[!ab]", "[a-b]"]), max_size=3).map("".join)
NAMES = ["".join(letters) for length in range(7) for letters in product("abc", repeat=length)]


@given(PIECES, PIECES)
def test_patterns_that_meet_have_a_name_to_show_for_it(one, other):
    """Of all short names one fits both; and if none does, they do not meet."""
    assert can_meet(one, other) is any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in NAMES)


def test_long_patterns_that_do_not_meet_are_found_out_in_bounded_work():
    """Each pair of places is looked at once."""
    assert not can_meet("*a" * 15 + "x", "*a" * 15 + "y")
