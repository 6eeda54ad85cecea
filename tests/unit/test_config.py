"""Configuration checking: all problems at once, each with path, value, what is allowed and a hint."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from enum import Enum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.config import Checker, did_you_mean, to_seconds
from somaresil.errors import ConfigurationError, Problem

NOT_NUMBERS = [True, False, math.nan, math.inf, -math.inf, "0.5", None, [0.5], 1j, Decimal("0.5")]
TOO_LARGE = 10**400

numbers = st.floats(allow_nan=False, allow_infinity=False)


class Fault(StrEnum):
    LATENCY = "latency"
    ERRORS = "errors"


class Phase(Enum):
    CANARY = "canary"
    FULL = "full"


def only_problem(check: Checker) -> Problem:
    (problem,) = check.problems
    return problem


def test_all_problems_are_raised_at_once_in_the_order_of_the_checks():
    """Three wrong values give one error with three problems."""
    check = Checker("chaos.checkout")
    check.ratio("rate", 5)
    check.seconds("duration", -1)
    check.one_of("blast_radius", "single-instance", ("single_instance", "zone", "region"))

    with pytest.raises(ConfigurationError) as caught:
        check.finish()

    assert caught.value.problems == (
        Problem("chaos.checkout.rate", 5, "a ratio in [0, 1]", "5 % is 0.05"),
        Problem("chaos.checkout.duration", -1, "seconds > 0"),
        Problem(
            "chaos.checkout.blast_radius", "single-instance", "'single_instance' | 'zone' | 'region'", "did you mean 'single_instance'?"
        ),
    )


def test_finish_is_quiet_when_nothing_is_wrong():
    """A checker without problems raises nothing."""
    check = Checker("Retry")
    check.count("attempts", 3)
    check.finish()
    assert check.problems == ()


def test_a_child_adds_to_the_problems_of_its_parent_under_a_longer_path():
    """Parent, child and grandchild share one list, and each path says where the value stands."""
    check = Checker("guard")
    check.child("breaker").problem("window", 0, "seconds > 0")
    check.child("retry").child("budget").problem("ratio", 2, "a ratio in [0, 1]", "a hint")
    check.problem("name", "", "a name")

    assert [problem.path for problem in check.problems] == ["guard.breaker.window", "guard.retry.budget.ratio", "guard.name"]
    assert check.problems[1].hint == "a hint"


def test_a_checker_without_a_prefix_uses_the_bare_name_as_path():
    """An empty prefix leaves no dot behind."""
    check = Checker()
    check.problem("seed", 1.5, "a whole number")
    assert only_problem(check).path == "seed"


@given(st.floats(0.0, 1.0))
def test_every_number_from_zero_to_one_is_a_ratio(value):
    """A ratio comes back unchanged, as a float."""
    check = Checker()
    result = check.ratio("rate", value)
    assert result == value
    assert isinstance(result, float)
    assert not check.problems


def test_whole_numbers_are_ratios_at_both_ends():
    """0 and 1 are accepted and become floats."""
    check = Checker()
    assert repr([check.ratio("rate", 0), check.ratio("rate", 1, allow_zero=False)]) == "[0.0, 1.0]"
    assert not check.problems


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -0.1, 1.0001, TOO_LARGE])
def test_what_is_not_a_ratio_is_a_problem(value):
    """Anything but a number in [0, 1] is refused, and construction can go on with a valid ratio."""
    check = Checker()
    assert 0.0 < check.ratio("rate", value) <= 1.0
    assert only_problem(check).allowed == "a ratio in [0, 1]"


def test_zero_is_refused_where_it_makes_no_sense():
    """With allow_zero=False the range is open below."""
    check = Checker()
    check.ratio("failure_rate", 0.0, allow_zero=False)
    assert only_problem(check).allowed == "a ratio in (0, 1]"


@pytest.mark.parametrize(
    ("value", "hint"),
    [(50, "50 % is 0.5"), (100.0, "100 % is 1"), (101, ""), (-1, ""), ("0.5", "text is not converted; give the number itself")],
)
def test_a_ratio_that_looks_like_a_percentage_is_explained(value, hint):
    """The hint for a number up to 100 is the ratio that was probably meant."""
    check = Checker()
    check.ratio("rate", value)
    assert only_problem(check).hint == hint


def test_a_number_is_accepted_at_its_limits_unless_they_are_exclusive():
    """Both ends belong to the range by default, neither does when exclusive."""
    check = Checker()
    assert check.number("factor", 1, minimum=1, maximum=10) == 1.0
    assert check.number("factor", 10, minimum=1, maximum=10) == 10.0
    assert check.number("factor", 1e300, minimum=1) == 1e300
    assert not check.problems

    check.number("target", 0, minimum=0, maximum=100, exclusive=True)
    check.number("target", 100, minimum=0, maximum=100, exclusive=True)
    assert [problem.allowed for problem in check.problems] == ["a number > 0 and < 100"] * 2


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0.5, TOO_LARGE])
def test_what_is_not_a_number_in_range_is_a_problem(value):
    """The fallback for a wrong number lies inside the range."""
    check = Checker()
    assert check.number("factor", value, minimum=1) > 1
    assert only_problem(check).allowed == "a number >= 1"


@given(st.one_of(numbers.filter(lambda x: x > 0), st.integers(1, 10**9), st.timedeltas(min_value=timedelta(microseconds=1))))
def test_positive_numbers_and_timedeltas_are_seconds(value):
    """A duration becomes a float of seconds, whichever way it was written."""
    check = Checker()
    result = check.seconds("window", value)
    assert isinstance(result, float)
    assert result == to_seconds(value) > 0
    assert not check.problems


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, -1.0, timedelta(0), timedelta(seconds=-1), TOO_LARGE])
def test_what_is_not_a_positive_duration_is_a_problem(value):
    """Zero, negative and non-finite durations, text and bool are refused."""
    check = Checker()
    assert check.seconds("window", value) > 0
    assert only_problem(check).allowed == "seconds > 0"


def test_none_is_a_duration_only_where_it_is_optional():
    """None passes when optional, and the allowed text says so for other values."""
    check = Checker()
    assert check.seconds("timeout", None, optional=True) is None
    assert not check.problems
    check.seconds("timeout", "10s", optional=True)
    assert only_problem(check) == Problem("timeout", "10s", "seconds > 0, or None", "text is not converted; give the number itself")


def test_seconds_keep_to_their_limits():
    """The minimum belongs to the range when not exclusive; the maximum always does."""
    check = Checker()
    assert check.seconds("max_wait", 0, exclusive=False, maximum=60) == 0.0
    assert check.seconds("max_wait", 60, exclusive=False, maximum=60) == 60.0
    assert not check.problems
    assert 0 <= check.seconds("max_wait", 61, exclusive=False, maximum=60) <= 60
    assert only_problem(check).allowed == "seconds >= 0 and <= 60"


@given(st.integers(2, 5))
def test_whole_numbers_within_the_limits_are_counts(value):
    """A count comes back unchanged."""
    check = Checker()
    assert check.count("attempts", value, minimum=2, maximum=5) == value
    assert check.count("attempts", value + 10**6, minimum=2) == value + 10**6
    assert not check.problems


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 3.0, 1, 6, -3])
def test_what_is_not_a_whole_number_in_range_is_a_problem(value):
    """Floats, bool, text and numbers outside the limits are refused; the fallback is the minimum."""
    check = Checker()
    assert check.count("attempts", value, minimum=2, maximum=5) == 2
    assert only_problem(check).allowed == "a whole number >= 2 and <= 5"


def test_limits_are_printed_in_full():
    """A large limit is not shortened to a power of ten."""
    check = Checker()
    check.count("calls", 0, maximum=1_234_567)
    assert only_problem(check).allowed == "a whole number >= 1 and <= 1234567"


def test_none_is_a_count_only_where_it_is_optional():
    """None passes when optional, and the allowed text says so for other values."""
    check = Checker()
    assert check.count("window_calls", None, optional=True) is None
    assert not check.problems
    check.count("window_calls", 0, optional=True)
    assert only_problem(check).allowed == "a whole number >= 1, or None"


def test_one_of_returns_the_choice_itself():
    """The text of a StrEnum member becomes the member, so later code may compare by identity."""
    check = Checker()
    assert check.one_of("fault", "latency", tuple(Fault)) is Fault.LATENCY
    assert check.one_of("phase", Phase.FULL, tuple(Phase)) is Phase.FULL
    assert not check.problems


@pytest.mark.parametrize(
    ("value", "hint"), [("latancy", "did you mean 'latency'?"), ("ERRORS", "did you mean 'errors'?"), ("partition", ""), (7, ""), ({}, "")]
)
def test_a_value_that_is_no_choice_is_a_problem_with_the_nearest_choice(value, hint):
    """The allowed text lists what a user would write, and the hint names a near miss."""
    check = Checker()
    assert check.one_of("fault", value, tuple(Fault)) is Fault.LATENCY
    assert only_problem(check) == Problem("fault", value, "'latency' | 'errors'", hint)


@pytest.mark.parametrize("value", ["llm.invoke", "GET:/items/{id}", "a", "x" * 120, "memory_write-2"])
def test_names_of_guards_and_routes_are_names(value):
    """Dotted names and route templates are accepted as they are."""
    check = Checker()
    assert check.name("name", value) == value
    assert not check.problems


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("", "it is empty"),
        ("x" * 121, "it has 121 characters"),
        ("two words", "' ' is not allowed"),
        ("line\nbreak", "'\\n' is not allowed"),
        ("name\n", "'\\n' is not allowed"),
        ("größe", "'ö' is not allowed"),
        ("llm.*", "'*' is not allowed"),
        (b"llm", "it is a bytes, not text"),
        (None, "it is a NoneType, not text"),
    ],
)
def test_what_would_spoil_a_label_is_no_name(value, hint):
    """Empty, long, unprintable or non-text names are refused, and the hint says which of these it is."""
    check = Checker()
    assert check.name("name", value) == "unnamed"
    assert only_problem(check).hint == hint


def test_a_pattern_may_hold_wildcards_and_a_name_may_not():
    """Only patterns take *, ? and character sets."""
    check = Checker()
    assert check.pattern("target_component", "llm.*[!x]?") == "llm.*[!x]?"
    assert not check.problems
    check.pattern("target_component", "llm. *")
    assert only_problem(check).hint == "' ' is not allowed"


def test_type_returns_the_value_whether_right_or_wrong():
    """An instance passes; anything else is a problem described by the caller's words."""
    check = Checker()
    assert check.type("wait", 3, (int, float), "a number") == 3
    assert not check.problems
    assert check.type("wait", "3", int, "a whole number") == "3"
    assert only_problem(check) == Problem("wait", "3", "a whole number")


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.timedeltas(), st.lists(st.integers())))
def test_no_check_raises_whatever_it_is_given(value):
    """Each check returns, and only finish raises: one problem for each wrong value, with that value in it."""
    check = Checker("x")
    check.ratio("a", value)
    check.number("b", value, minimum=0, maximum=1)
    check.seconds("c", value)
    check.count("d", value)
    check.one_of("e", value, ("on", "off"))
    check.name("f", value)
    check.pattern("g", value)
    check.type("h", value, dict, "a table")

    assert check.problems[-1].path == "x.h"
    assert all(problem.value is value and problem.allowed for problem in check.problems)
    with pytest.raises(ConfigurationError):
        check.finish()


def test_did_you_mean_names_the_nearest_choice_as_a_user_writes_it():
    """Case does not count, enum members are shown by their values, and far values give no hint."""
    assert did_you_mean("GRADUAL-BURN", ["fast_burn", "gradual_burn"]) == "did you mean 'gradual_burn'?"
    assert did_you_mean("canery", Phase) == "did you mean 'canary'?"
    assert did_you_mean("zzz", Phase) == ""
    assert did_you_mean(None, []) == ""


def test_to_seconds_takes_numbers_and_timedeltas():
    """Both become floats."""
    assert repr([to_seconds(2), to_seconds(0.5), to_seconds(timedelta(minutes=1))]) == "[2.0, 0.5, 60.0]"


@pytest.mark.parametrize("value", [True, "2", None])
def test_to_seconds_refuses_other_types(value):
    """Text, bool and None are a TypeError that names the type."""
    with pytest.raises(TypeError, match=type(value).__name__):
        to_seconds(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, TOO_LARGE])
def test_to_seconds_refuses_numbers_that_are_not_finite(value):
    """NaN, infinity and numbers beyond a float are a ValueError."""
    with pytest.raises(ValueError, match="finite"):
        to_seconds(value)
