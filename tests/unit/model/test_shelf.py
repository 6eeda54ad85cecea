"""The bounded store: what it forgets, and what it never does."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from somaresil.model.shelf import Shelf


def filled(size: int, *keys: str) -> Shelf[str, str]:
    shelf: Shelf[str, str] = Shelf(size)
    for key in keys:
        assert shelf.make_room(lambda entry: False)
        shelf.put(key, key.upper())
        shelf.let_go(key)
    return shelf


def test_what_was_let_go_longest_ago_makes_room():
    """Not what was put first: it was used again."""
    shelf = filled(2, "a", "b")
    shelf.hold("a")
    shelf.let_go("a")
    assert shelf.make_room(lambda entry: False)
    shelf.put("c", "C")
    assert sorted(shelf.values()) == ["A", "C"]


def test_what_is_held_is_never_forgotten():
    """Then there is no room for another."""
    shelf = filled(2, "a", "b")
    shelf.hold("a")
    shelf.hold("b")
    assert not shelf.make_room(lambda entry: False)
    assert sorted(shelf.values()) == ["A", "B"]


def test_what_matters_although_it_was_let_go_is_held_from_then_on():
    """It is asked once, not at every new key."""
    shelf = filled(2, "a", "b")
    asked = []

    def matters(entry):
        asked.append(entry)
        return True

    assert not shelf.make_room(matters)
    assert not shelf.make_room(matters)
    assert asked == ["A", "B"]
    assert len(shelf) == 2


def test_a_smaller_size_is_reached_by_forgetting():
    """As many go as have to."""
    shelf = filled(4, "a", "b", "c", "d")
    shelf.size = 2
    assert shelf.make_room(lambda entry: False)
    assert list(shelf.values()) == ["D"]


def test_keys_that_are_not_there_are_no_mistake():
    """An entry may have been forgotten meanwhile."""
    shelf = filled(1, "a")
    shelf.hold("b")
    shelf.let_go("b")
    assert (shelf.get("b"), len(shelf)) == (None, 1)


class Life(RuleBasedStateMachine):
    """Any order of uses, against a list of entries in the order of their last use."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size):
        self.shelf: Shelf[int, int] = Shelf(size)
        self.size = size
        self.entries: list[list] = []

    def known(self, key):
        return next((entry for entry in self.entries if entry[0] == key), None)

    @rule(key=st.integers(0, 6))
    def use(self, key):
        entry = self.known(key)
        assert (self.shelf.get(key) is None) == (entry is None)
        if entry is not None:
            entry[1] = True
            self.shelf.hold(key)
            return
        while len(self.entries) >= self.size and any(not held for _, held in self.entries):
            self.entries.remove(next(entry for entry in self.entries if not entry[1]))
        room = len(self.entries) < self.size
        assert self.shelf.make_room(lambda entry: False) is room
        if room:
            self.entries.append([key, True])
            self.shelf.put(key, key)

    @rule(key=st.integers(0, 6))
    def let_go(self, key):
        entry = self.known(key)
        if entry is not None and entry[1]:
            self.entries.remove(entry)
            self.entries.append([key, False])
        self.shelf.let_go(key)

    @rule(size=st.integers(1, 4))
    def resize(self, size):
        self.size = self.shelf.size = size

    @invariant()
    def the_same_entries(self):
        if hasattr(self, "shelf"):
            assert sorted(self.shelf.values()) == sorted(key for key, _ in self.entries)


Life.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestAnyLife = Life.TestCase


def test_what_matters_is_kept_and_the_next_one_goes():
    """One entry too many, of which the oldest matters."""
    shelf = filled(3, "a", "b", "c")
    assert shelf.make_room(lambda entry: entry == "A")
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c"), len(shelf)) == ("A", None, "C", 2)
    shelf.let_go("a")
    assert list(shelf.values()) == ["C", "A"]
