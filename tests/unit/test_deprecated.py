"""What goes away warns first, where it is used, and is gone when it was said to be."""

from __future__ import annotations

import sys
import types
import warnings

import pytest

from somaresil import __version__, clock, deprecated
from somaresil.deprecated import GOING, Gone, overdue

PLANTED = {"planted.Watch": Gone("somaresil.clock:SystemClock", "0.4.0")}


@pytest.fixture
def planted(monkeypatch):
    """A module with a name that goes away."""
    module = types.ModuleType("planted")
    module.__getattr__ = lambda name: deprecated.name("planted", name, PLANTED)
    monkeypatch.setitem(sys.modules, "planted", module)
    return module


def test_nothing_is_there_that_was_to_be_gone_in_this_release():
    assert overdue(GOING, __version__) == []


@pytest.mark.parametrize(
    ("version", "late"), [("0.3.9", False), ("0.4.0", True), ("0.4.1", True), ("0.10.0", True), ("0.4.0.dev1", True), ("1.0.0", True)]
)
def test_a_name_is_overdue_from_the_release_on_in_which_it_was_to_be_gone(version, late):
    """Versions are compared by their numbers."""
    assert bool(overdue(PLANTED, version)) is late


def test_every_name_that_goes_away_says_what_to_use_instead():
    """And that is there: whoever asks for the old name is given it."""
    for name in GOING:
        module, _, attribute = name.rpartition(".")
        with pytest.warns(DeprecationWarning, match="is deprecated"):
            assert deprecated.name(module, attribute) is not None


def test_a_deprecated_name_works_and_warns_at_the_line_that_uses_it(planted):
    with pytest.warns(DeprecationWarning, match=r"^planted\.Watch is deprecated and will be gone in somaresil 0\.4\.0; use ") as caught:
        assert planted.Watch is clock.SystemClock
    assert caught[0].filename == __file__


def test_a_name_that_is_none_is_an_attribute_error(planted):
    with pytest.raises(AttributeError, match="'planted' has no attribute 'Wotch'"):
        planted.Wotch  # noqa: B018 - asking is what fails


def test_it_warns_once_for_each_place_that_uses_it(planted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            planted.Watch  # noqa: B018 - asking is what warns
        planted.Watch  # noqa: B018 - from another line
    assert len(caught) == 2


def test_an_option_warns_at_the_line_of_the_caller():
    def takes(**options):
        if "delay" in options:
            deprecated.warn("takes(delay=...)", instead="wait", removed_in="0.4.0")

    with pytest.warns(DeprecationWarning, match="use wait") as caught:
        takes(delay=1)
    assert caught[0].filename == __file__
    assert caught[0].lineno == test_an_option_warns_at_the_line_of_the_caller.__code__.co_firstlineno + 6
