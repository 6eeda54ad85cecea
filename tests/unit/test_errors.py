"""The errors of somaresil: whose fault, what is known, and that they survive copying and pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

import somaresil
from somaresil import (
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    InjectedFault,
    LoadShed,
    Problem,
    RateLimited,
    Rejected,
    SomaresilError,
)
from somaresil.errors import describe

REJECTIONS = [Rejected, CircuitOpen, BulkheadFull, RateLimited, LoadShed, DeadlineExceeded]


@pytest.mark.parametrize("kind", [*REJECTIONS, ConfigurationError, CallTimedOut, InjectedFault])
def test_every_error_is_ours_and_exported(kind):
    """Whoever catches SomaresilError catches all of them."""
    assert issubclass(kind, SomaresilError)
    assert getattr(somaresil, kind.__name__) is kind


def test_errors_are_what_others_expect_of_them():
    """A wrong configuration is a ValueError, a timeout a TimeoutError, all of them exceptions that can be caught."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(CallTimedOut, TimeoutError)
    assert issubclass(SomaresilError, Exception)


@pytest.mark.parametrize("kind", REJECTIONS)
def test_a_rejection_says_what_is_known(kind):
    """Guard and reason always, the rest when there is something to say."""
    bare = kind("llm")
    assert str(bare) == f"guard 'llm' rejected the call: {kind.reason}"
    assert (bare.guard, bare.retry_after, bare.detail, bare.last_error, bare.injected) == ("llm", None, "", None, False)
    full = kind("llm", 1.25, "5 of 9 calls failed", "Boom: down", True)
    assert str(full) == (
        f"guard 'llm' rejected the call: {kind.reason}; 5 of 9 calls failed; last error Boom: down; "
        "retry after 1.25 s; caused by a chaos experiment"
    )


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpen("llm", 1.25, "detail", "Boom: down", True),
        BulkheadFull("llm"),
        CallTimedOut("llm", 2.0, "idle"),
        InjectedFault("llm", "latency-1"),
        ConfigurationError([Problem("a.b", 5, "more", "try 6")]),
    ],
)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_survive_copying_and_pickling(error, clone):
    """They cross process borders: with type, text and everything known, notes included."""
    error.add_note("seen twice")
    again = clone(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__reduce__()[1] == error.__reduce__()[1]
    assert again.__notes__[0] == "seen twice"


def test_a_configuration_error_lists_every_problem():
    """A heading with the count, then a line each: path, value, what is allowed, hint. Long values are cut."""
    error = ConfigurationError([Problem("guard('x').retry", 0, "a number of attempts"), Problem("y", "v" * 200, "less", "shorten it")])
    heading, first, second = str(error).splitlines()
    assert heading == "2 problems in the configuration"
    assert first == "  guard('x').retry = 0: expected a number of attempts"
    assert second.endswith("vvv...: expected less (shorten it)")
    assert len(second) < 140
    assert str(ConfigurationError([Problem("x", 1, "2")])).startswith("1 problem in")
    assert [problem.path for problem in error.problems] == ["guard('x').retry", "y"]


def test_an_injected_fault_says_that_it_is_one():
    """Nobody shall hunt a ghost."""
    error = InjectedFault("llm.invoke", "error_injection-3")
    assert str(error) == "fault injected into 'llm.invoke' by chaos experiment error_injection-3"
    assert (error.component, error.experiment) == ("llm.invoke", "error_injection-3")


class Unreadable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (ValueError("two\nlines\tand \x1b[31mred"), "ValueError: two lines and [31mred"),
        (Unreadable(), "Unreadable: (its text cannot be read)"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_an_error_is_described_on_one_line(error, text):
    """Type and message, printable, whatever the message holds."""
    assert describe(error) == text


def test_a_description_has_at_most_200_characters():
    """A message may be a whole response body."""
    assert len(describe(ValueError("x" * 10_000))) == 200
