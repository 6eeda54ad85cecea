"""Classify: exception types and predicates in the place of a function of one's own."""

from __future__ import annotations

import pytest

from somaresil import CircuitBreaker, Classify, ConfigurationError, Fatal, Outcome
from somaresil.events import DefectFound
from tests.behaviour.kit import Boom, Stand, both, one_strike
from tests.unit.policy.kit import wrong


class Gone(Boom):
    """A failure among failures."""


def test_by_default_every_error_is_bad_and_every_result_as_usual():
    """It changes nothing by itself."""
    classify = Classify()
    assert classify(None, Boom()) is Outcome.BAD
    assert classify("fine", None) is None


def test_errors_are_asked_for_in_the_order_fatal_ignored_good_bad():
    """The first that names it decides, however it is named."""
    every = Classify(fatal=Gone, ignored=Boom, good=LookupError, bad=(OSError, lambda error: "bad" in str(error)))
    said = [every(None, error) for error in (Gone(), Boom(), KeyError(), OSError(), ValueError("bad"), ValueError("else"))]
    assert said == [Fatal(), Outcome.IGNORED, Outcome.GOOD, Outcome.BAD, Outcome.BAD, Outcome.IGNORED]


def test_an_error_that_nothing_names_is_ignored():
    """Who says what is a failure has not said that the rest are successes."""
    assert Classify(bad=OSError)(None, ValueError()) is Outcome.IGNORED


@pytest.mark.parametrize("collection", [list, set, tuple, iter])
def test_several_rules_may_come_in_any_collection(collection):
    """They are kept, and may be asked again and again."""
    classify = Classify(fatal=collection([Gone, OSError]))
    assert [classify(None, error) for error in (Gone(), Gone(), OSError(), Boom())] == [Fatal(), Fatal(), Fatal(), Outcome.BAD]


def test_results_are_judged_by_predicates():
    """Fatal before bad; the rest is as usual. Errors are not shown to them."""
    classify = Classify(bad_result=lambda text: text != "fine", fatal_result=lambda text: text == "revoked", fatal_duration=60)
    assert [classify(text, None) for text in ("fine", "odd", "revoked")] == [None, Outcome.BAD, Fatal(60.0)]
    assert classify(None, Boom()) is Outcome.BAD


def test_the_duration_goes_for_errors_as_well():
    """Both say for how long."""
    assert Classify(fatal=Gone, fatal_duration=60)(None, Gone()) == Fatal(60.0)


@pytest.mark.parametrize("name", ["bad", "good", "ignored", "fatal"])
@pytest.mark.parametrize("rule", [KeyboardInterrupt, int, "Boom", 5, None, (Boom, None)])
def test_what_names_no_error_is_refused(name, rule):
    """Types that are no exceptions, and what is neither type nor predicate."""
    assert wrong(Classify, **{name: rule}) == [name]


async def later(value):
    return value


class Later:
    async def __call__(self, value):
        return value


@pytest.mark.parametrize("name", ["bad", "fatal", "bad_result", "fatal_result"])
@pytest.mark.parametrize("predicate", [later, Later()])
def test_a_predicate_that_nobody_awaits_is_refused(name, predicate):
    """A coroutine is always true."""
    assert wrong(Classify, **{name: predicate}) == [name]


def test_all_problems_come_at_once():
    """Each by its name, in order."""
    assert wrong(Classify, ignored=5, bad_result=ValueError, fatal_result="x", fatal_duration=0) == [
        "ignored",
        "bad_result",
        "fatal_result",
        "fatal_duration",
    ]
    with pytest.raises(ConfigurationError, match=r"Fatal\.duration"):
        Fatal(-1)


@both
def test_a_guard_that_judges_errors_only_stays_quiet(suspends):
    """Good calls are not looked at, and errors are judged as on the full path."""
    stand = Stand(breaker=one_strike(), classify=Classify(ignored=KeyError, good=IndexError))
    assert stand.guard.switch.quiet
    stand.succeed(suspends)
    stand.fail(suspends, KeyError())
    stand.fail(suspends, IndexError())
    assert stand.state == "closed"
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.IGNORED)) == (2, 1)
    assert sum(stand.guard.recorder.quiet_counts()) == 1
    stand.fail(suspends)
    assert stand.state == "open"


def test_a_guard_that_judges_results_is_not_quiet():
    """Every answer is shown to the predicate."""
    stand = Stand(breaker=one_strike(), classify=Classify(bad_result=lambda text: text == "fine"))
    assert stand.guard.switch.reasons == {"classify"}
    assert stand.succeed() == "fine"
    assert stand.state == "open"
    stand.guard.configure(classify=None)
    assert "classify" not in stand.guard.switch.reasons


@both
def test_a_predicate_that_raises_is_reported_once_and_the_usual_rule_judges(suspends):
    """A failure stays one."""

    def broken(error):
        raise RuntimeError

    stand = Stand(breaker=one_strike(consecutive_failures=2), classify=Classify(fatal=broken))
    stand.fail(suspends)
    stand.fail(suspends)
    assert stand.state == "open"
    assert len(stand.told(DefectFound)) == 1


def test_a_classifier_of_ones_own_may_say_fatal():
    """The answer of a plain function is enough."""
    stand = Stand(breaker=CircuitBreaker(), classify=lambda result, error: Fatal(7.0) if error else None)
    stand.fail()
    assert stand.state == "open"
    assert stand.breaker.retry_after() == 7.0
