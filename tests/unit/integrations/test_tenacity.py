"""tenacity's objects say when to try again, how long to wait and when to stop, in synchronous and asynchronous guards alike."""

from __future__ import annotations

import asyncio
import threading

import pytest
import tenacity
from tenacity import (
    retry_all,
    retry_always,
    retry_any,
    retry_if_exception,
    retry_if_exception_cause_type,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_if_not_result,
    retry_if_result,
    retry_never,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    stop_any,
    stop_before_delay,
    stop_never,
    stop_when_event_set,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)

from somaresil import ManualClock, Resilience, Retry
from somaresil.events import RetryScheduled


class RetryLaterError(Exception):
    """Says when to come back, as a 429 does."""

    def __init__(self, after):
        super().__init__(f"come back in {after} s")
        self.after = after


class Calls:
    """Goes through a script: an exception is raised, anything else returned; the last entry is repeated."""

    def __init__(self, *script, takes=0.0, clock=None):
        self.script = script
        self.count = 0
        self._takes = takes
        self._clock = clock

    def __call__(self):
        step = self.script[min(self.count, len(self.script) - 1)]
        self.count += 1
        if self._takes:
            self._clock.advance(self._takes)
        if isinstance(step, BaseException):
            raise step
        return step

    async def awaited(self):
        return self()


@pytest.fixture(params=["sync", "async"])
def outcome(request):
    """Give `outcome(retry, *script)` -> what the call ended with, number of calls, pauses between them."""

    def run(retry, *script, takes=0.0):
        clock = ManualClock()
        resilience = Resilience("service", clock=clock, seed=1)
        pauses = []
        resilience.on(lambda event: pauses.append(event.delay), RetryScheduled)
        calls = Calls(*script, takes=takes, clock=clock)
        guard = resilience.guard("tried", retry=retry)
        try:
            end = guard.call(calls) if request.param == "sync" else asyncio.run(guard.acall(calls.awaited))
        except Exception as error:
            end = error
        return end, calls.count, pauses

    return run


def test_the_object_is_used_and_tenacity_is_not_entered(outcome):
    """The last error itself is raised, as from any guard, never tenacity's RetryError."""
    error = ValueError()
    end, count, _ = outcome(Retry(attempts=2, wait=wait_none(), stop=stop_never), error)
    assert end is error
    assert not isinstance(end, tenacity.RetryError)
    assert count == 2


@pytest.mark.parametrize(
    ("wait", "pauses"),
    [
        (wait_none(), [0.0, 0.0, 0.0]),
        (wait_fixed(2), [2.0, 2.0, 2.0]),
        (wait_incrementing(start=1, increment=2), [1.0, 3.0, 5.0]),
        (wait_exponential(multiplier=1, max=3), [1.0, 2.0, 3.0]),
        (wait_chain(wait_fixed(1), wait_fixed(4), wait_fixed(9)), [1.0, 4.0, 9.0]),
        (wait_chain(*[wait_fixed(1)] * 2, wait_fixed(7)), [1.0, 1.0, 7.0]),
        (wait_fixed(1) + wait_incrementing(start=0, increment=1), [1.0, 2.0, 3.0]),
        (wait_combine(wait_fixed(1), wait_fixed(0.5)), [1.5, 1.5, 1.5]),
    ],
    ids=["none", "fixed", "incrementing", "exponential", "chain", "chain-repeats-its-last", "sum", "combine"],
)
def test_pauses_are_those_of_the_wait_object(outcome, wait, pauses):
    """Each attempt waits what the object says for its number."""
    assert outcome(Retry(attempts=4, wait=wait), ValueError())[2] == pauses


@pytest.mark.parametrize(
    ("wait", "ceilings"),
    [
        (wait_random(min=1, max=2), [2.0, 2.0, 2.0]),
        (wait_random_exponential(multiplier=1, max=3), [1.0, 2.0, 3.0]),
        (wait_exponential_jitter(initial=1, max=5, jitter=0.5), [1.5, 2.5, 4.5]),
    ],
    ids=["random", "random-exponential", "exponential-jitter"],
)
def test_random_pauses_stay_under_their_ceiling(outcome, wait, ceilings):
    """Three pauses, each between nothing and what the object allows at most."""
    pauses = outcome(Retry(attempts=4, wait=wait), ValueError())[2]
    assert len(pauses) == 3
    assert all(0.0 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))


@pytest.mark.skipif(not hasattr(tenacity, "wait_exception"), reason="wait_exception came with tenacity 9.1.3")
def test_the_error_may_say_how_long_to_wait(outcome):
    """wait_exception reads the pause out of the error, a Retry-After for instance."""
    wait = tenacity.wait_exception(predicate=lambda error: error.after)
    assert outcome(Retry(attempts=3, wait=wait), RetryLaterError(3.0), RetryLaterError(8.0), "done") == ("done", 3, [3.0, 8.0])


@pytest.mark.parametrize(
    ("stop", "count"),
    [
        (stop_after_attempt(2), 2),
        (stop_never, 9),
        (stop_after_delay(2.5), 4),
        (stop_before_delay(2.5), 3),
        (stop_after_attempt(3) | stop_after_delay(100), 3),
        (stop_any(stop_after_attempt(5), stop_after_delay(1.5)), 3),
        (stop_after_attempt(2) & stop_after_delay(3), 4),
        (stop_all(stop_after_attempt(6), stop_after_delay(1)), 6),
    ],
    ids=["attempt", "never", "after-delay", "before-delay", "or", "any", "and", "all"],
)
def test_stop_objects_end_it(outcome, stop, count):
    """Calls take no time here and each pause a second, so delays are counted in attempts; nine attempts is the limit of the guard."""
    assert outcome(Retry(attempts=9, wait=wait_fixed(1), stop=stop), ValueError())[1] == count


def test_delays_count_what_the_calls_take(outcome):
    """Three calls of 0.9 s are more than 2.5 s."""
    assert outcome(Retry(attempts=9, wait=wait_none(), stop=stop_after_delay(2.5)), ValueError(), takes=0.9)[1] == 3


def test_an_event_stops_it(outcome):
    """Whoever sets the event, during a shutdown for instance, ends the retries."""
    event = threading.Event()
    event.set()
    assert outcome(Retry(attempts=9, wait=0.0, stop=stop_when_event_set(event)), ValueError())[1] == 1


@pytest.mark.parametrize(
    ("rule", "error", "again"),
    [
        (retry_if_exception_type(OSError), OSError(), True),
        (retry_if_exception_type((OSError, KeyError)), KeyError(), True),
        (retry_if_exception_type(OSError), ValueError(), False),
        (retry_if_not_exception_type(OSError), ValueError(), True),
        (retry_if_not_exception_type(OSError), OSError(), False),
        (retry_unless_exception_type(OSError), ValueError(), True),
        (retry_unless_exception_type(OSError), OSError(), False),
        (retry_if_exception(lambda error: error.args == (1,)), ValueError(1), True),
        (retry_if_exception(lambda error: error.args == (1,)), ValueError(2), False),
        (retry_if_exception_message(match="try .*"), ValueError("try again"), True),
        (retry_if_exception_message(message="try"), ValueError("try again"), False),
        (retry_if_not_exception_message(match="fatal"), ValueError("try again"), True),
        (retry_if_not_exception_message(match="fatal"), ValueError("fatal"), False),
        (retry_always, ValueError(), True),
        (retry_never, ValueError(), False),
        (retry_any(retry_if_exception_type(OSError), retry_if_exception_type(ValueError)), ValueError(), True),
        (retry_any(retry_if_exception_type(OSError), retry_if_exception_type(KeyError)), ValueError(), False),
        (retry_all(retry_if_exception_type(ValueError), retry_if_exception_message(match="try")), ValueError("try"), True),
        (retry_all(retry_if_exception_type(ValueError), retry_if_exception_message(match="try")), ValueError("stop"), False),
        (retry_if_exception_type(OSError) | retry_if_exception_type(ValueError), ValueError(), True),
        (retry_if_exception_type(ValueError) & retry_if_exception_message(match="try"), ValueError("stop"), False),
    ],
)
def test_rules_about_errors_decide(outcome, rule, error, again):
    """The call is made twice when the rule says so, and once when it does not."""
    assert outcome(Retry(attempts=2, on=rule, wait=0.0), error)[1] == (2 if again else 1)


def test_the_cause_of_an_error_may_decide(outcome):
    """An error that was raised from a network error is tried again."""
    error = ValueError()
    error.__cause__ = ConnectionResetError()
    assert outcome(Retry(attempts=2, on=retry_if_exception_cause_type(ConnectionError), wait=0.0), error)[1] == 2
    assert outcome(Retry(attempts=2, on=retry_if_exception_cause_type(ConnectionError), wait=0.0), ValueError())[1] == 1


@pytest.mark.parametrize(
    ("rule", "script", "end"),
    [
        (retry_if_result(lambda result: result is None), (None, None, "done"), ("done", 3)),
        (retry_if_result(lambda result: result is None), (None,), (None, 3)),
        (retry_if_not_result(lambda result: result == "done"), ("wait", "done"), ("done", 2)),
        (retry_if_exception_type(OSError) | retry_if_result(lambda result: result is None), (OSError(), None, "done"), ("done", 3)),
        (retry_any(retry_if_exception_type(OSError), retry_if_result(lambda result: result is None)), (None, OSError(), 1), (1, 3)),
        (retry_if_result(lambda result: result is None), (ValueError(),), None),
        (retry_unless_exception_type(OSError), ("again",), ("again", 3)),
    ],
    ids=["until-there", "gives-up-with-the-last", "not-result", "or", "any", "errors-are-not-results", "unless-also-repeats-results"],
)
def test_rules_about_results_decide_from_the_first_call_on(outcome, rule, script, end):
    """A result that is not wanted is asked for again, also when it is the first one."""
    found = outcome(Retry(attempts=3, on=rule, wait=0.0), *script)
    if end is None:
        assert (type(found[0]), found[1]) == (ValueError, 1)
    else:
        assert found[:2] == end


def test_a_rule_that_raises_costs_the_retry_not_the_error(outcome):
    """The caller gets the error of the dependency."""
    end, count, _ = outcome(Retry(attempts=3, on=retry_if_exception(lambda error: error.missing), wait=0.0), KeyError("x"))
    assert (type(end), count) == (KeyError, 1)


def test_cancellation_is_never_tried_again():
    """tenacity's "everything but ValueError" swallows a cancellation (tenacity #529); here the task ends."""

    async def main():
        resilience = Resilience("service")
        count = 0

        @resilience.guard("tried", retry=Retry(attempts=3, on=retry_if_not_exception_type(ValueError), wait=wait_none()))
        async def hang():
            nonlocal count
            count += 1
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await hang()
        assert count == 1

    asyncio.run(main())
