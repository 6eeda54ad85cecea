"""Retry at a guard: defaults, what no rule can do, rejections that are named, and hooks that fail. See also test_retry_attempts."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from datetime import timedelta

import pytest
import tenacity
import tenacity.asyncio.retry

from somaresil import BulkheadFull, CircuitBreaker, CircuitOpen, ConfigurationError, Outcome, Rejected, Retry
from somaresil.errors import RateLimited
from somaresil.events import AttemptFailed, DefectFound, RetryScheduled
from somaresil.policy.retry import _Result
from tests.behaviour.kit import Boom, Stand, both
from tests.unit.policy.kit import Script, wrong


def pauses(stand: Stand) -> list[float]:
    """How long the guard said that it would wait."""
    return [event.delay for event in stand.told(RetryScheduled)]


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """Three attempts on any exception, with the default pause and no limit of time."""
    options = Retry()
    assert (options.attempts, options.on, options.wait, options.stop, options.max_elapsed) == (3, Exception, None, None, None)


def test_options_are_keyword_only_and_frozen():
    """Nobody passes a pause where a number of attempts belongs."""
    with pytest.raises(TypeError):
        Retry(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry().attempts = 5


async def suspending(*args):
    """Stand for a hook that a synchronous call could not await."""


class Suspending:
    """Stand for such a hook that is an object."""

    async def __call__(self, *args):
        """Suspend."""


@pytest.mark.parametrize("option", ["on", "wait", "stop"])
@pytest.mark.parametrize("hook", [suspending, Suspending(), functools.partial(suspending, 1)])
def test_a_hook_that_nobody_would_await_is_refused(option, hook):
    """A coroutine is true whatever it would have found: it would be tried again always, or never."""
    with pytest.raises(ConfigurationError, match="a plain function"):
        Retry(**{option: hook})
    assert wrong(Retry, **{option: hook}) == [option]


def test_an_asynchronous_rule_of_tenacity_is_refused():
    """Its call gives a coroutine as well."""
    assert wrong(Retry, on=tenacity.asyncio.retry.retry_if_exception(suspending)) == ["on"]


@pytest.mark.parametrize("wait", [-1, "1", float("nan"), float("inf"), 86_400.5, timedelta(days=2)])
def test_a_pause_lasts_at_most_a_day(wait):
    """Beyond some length no clock can wait, and its complaint would take the place of the callee's error."""
    assert wrong(Retry, wait=wait) == ["wait"]


def test_all_problems_come_at_once():
    """One error that lists all of them, each exception type that does not fit included."""
    found = wrong(Retry, attempts=0, on=(int, SystemExit), wait=-1, stop=3, max_elapsed=0)
    assert found == ["attempts", "on", "on", "wait", "stop", "max_elapsed"]


@pytest.mark.parametrize("on", [int, BaseException, KeyboardInterrupt, asyncio.CancelledError, "Boom", 5, None, (), [], ("Boom",), (len,)])
def test_what_cannot_be_tried_again_on_is_named(on):
    """Exits and cancellations, what is no exception, and predicates among types."""
    assert wrong(Retry, on=on) == ["on"]


# -- what no rule can do ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_no_rule_makes_an_exit_tried_again(error):
    """A predicate that says yes to everything is not even asked."""
    asked = []
    stand = Stand(retry=Retry(on=lambda caught: asked.append(caught) or True, wait=0.0), held=True)
    script = Script(error())
    with pytest.raises(error):
        stand.guard(script)()
    assert (script.calls, asked) == (1, [])


def test_a_stop_iteration_is_tried_again_like_any_other_exception():
    """Though a coroutine cannot raise it; in the end it is raised as it is."""
    stand = Stand(held=True, retry=Retry(attempts=2, on=StopIteration, wait=0.0))
    script = Script(StopIteration(5))
    with pytest.raises(StopIteration) as raised:
        stand.guard(script)()
    assert (raised.value.value, script.calls) == (5, 2)


@both
@pytest.mark.parametrize(("limit", "calls"), [(3.75, 2), (4.0, 3), (timedelta(seconds=6), 4)])
def test_no_attempt_begins_after_max_elapsed(suspends, limit, calls):
    """An attempt may begin exactly then; the time of the callee counts."""
    stand = Stand(retry=Retry(attempts=10, wait=1.0, max_elapsed=limit))
    script = Script(Boom("down"))

    def slowly():
        stand.clock.advance(1.0)
        return script()

    with pytest.raises(Boom):
        stand.callable(slowly, suspends)()
    assert script.calls == calls


@both
def test_an_error_may_follow_a_result_that_was_not_wanted(suspends):
    """The end of the last attempt is the end of the call."""
    rule = tenacity.retry_any(tenacity.retry_if_result(lambda result: result is None), tenacity.retry_if_exception_type(Boom))
    stand = Stand(retry=Retry(attempts=3, on=rule, wait=0.0))
    with pytest.raises(KeyError):
        stand.callable(Script(None, Boom(), KeyError()), suspends)()
    assert [event.error for event in stand.told(RetryScheduled)] == [None, "Boom"]


def test_a_rule_about_results_holds_the_switch_as_long_as_it_is_set():
    """Every call that goes well has to be asked about."""
    stand = Stand(retry=Retry(on=tenacity.retry_always))
    assert stand.guard.switch.reasons == {"retry"}
    stand.guard.configure(retry=3)
    assert stand.guard.switch.quiet


def test_another_name_draws_other_pauses():
    """Two guards of one process, and two processes with other seeds, are not in step."""
    told = []
    for name in ("dependency", "dependency", "other"):
        stand = Stand(name, retry=10)
        stand.fail()
        told.append(pauses(stand))
    assert told[0] == told[1]
    assert told[0] != told[2]


@both
def test_without_listeners_it_tries_again_all_the_same(suspends):
    """Events are built for listeners only."""
    stand = Stand(retry=Retry(wait=0.0), listening=False)
    assert stand.callable(Script(Boom(), Boom(), "fine"), suspends)() == "fine"


# -- rejections -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [CircuitOpen, Rejected, (KeyError, CircuitOpen)])
def test_who_names_a_rejection_waits_for_the_circuit(on):
    """It says how long; the attempt after its time is a probe."""
    stand = Stand(retry=Retry(attempts=3, on=on, wait=20.0), breaker=CircuitBreaker(half_open_calls=1))
    stand.resilience.breaker("dependency").trip(30.0)
    assert stand.succeed() == "fine"
    assert pauses(stand) == [30.0]


def test_a_rejection_of_another_kind_is_not_tried_again():
    """Naming one kind does not name the others."""
    stand = Stand(retry=Retry(attempts=3, on=(Boom, RateLimited), wait=0.0), bulkhead=1)
    with pytest.raises(BulkheadFull):
        stand.guard(lambda: stand.guard.call(lambda: "inner"))()
    assert pauses(stand) == []


@both
def test_an_open_circuit_is_looked_at_once(suspends):
    """One rejection, one record, no pause."""
    stand = Stand(retry=Retry(attempts=5, wait=1.0), breaker=True)
    stand.resilience.breaker("dependency").force_open()
    assert isinstance(stand.fail(suspends), CircuitOpen)
    assert pauses(stand) == []
    assert stand.count(Outcome.REJECTED) == stand.count() == 1
    assert [event.attempt for event in stand.told(AttemptFailed)] == [1]


# -- hooks that fail --------------------------------------------------------------------------------------------------------------------


def broken(*args):
    """Stand for a hook with a bug."""
    raise ZeroDivisionError


@both
@pytest.mark.parametrize(
    "options",
    [
        {"on": broken},
        {"on": tenacity.retry_if_exception(broken)},
        {"wait": broken},
        {"wait": lambda attempts: "soon"},
        {"wait": lambda attempts: None},
        {"wait": lambda attempts: float("nan")},
        {"wait": lambda attempts: float("inf")},
        {"wait": lambda attempts: 1e12},
        {"stop": broken},
    ],
)
def test_a_hook_that_fails_ends_the_attempts_and_is_reported(suspends, options):
    """The caller gets the error of the callee; asking for a pause that no clock can wait for is a failure of the hook as well."""
    stand = Stand(retry=Retry(**options))
    error = Boom("mine")
    assert stand.fail(suspends, error) is error
    assert [event.where for event in stand.told(DefectFound)] == ["a retry hook of guard dependency"]
    assert pauses(stand) == []


def test_a_hook_that_fails_over_a_result_leaves_the_result():
    """The call went well."""
    stand = Stand(retry=Retry(on=tenacity.retry_if_result(broken)))
    assert stand.succeed() == "fine"
    assert len(stand.told(DefectFound)) == 1


def test_an_outcome_reads_like_a_future():
    """Tenacity's objects ask it for an exception or for a result, which raises the exception."""
    failed, ended = _Result(None, Boom()), _Result("fine", None)
    assert failed.failed
    with pytest.raises(Boom):
        failed.result()
    assert (ended.result(), ended.exception(), ended.failed) == ("fine", None, False)
