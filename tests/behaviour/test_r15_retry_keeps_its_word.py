"""R15: ``attempts=3`` means three; a cancellation fires inside a retry; nothing is repeated after the first item or a response's start.

hyx executes four times; tenacity swallows cancellations and retries KeyboardInterrupt; stamina restarts streams, so that the reader sees
[0, 1, 0, 1].
"""

from __future__ import annotations

import asyncio

import pytest

from somaresil import Outcome, Resilience, ResilienceMiddleware, Retry
from somaresil.events import AttemptFailed, RetryScheduled
from tests.behaviour.kit import Boom, Stand, both, both_paths, one_strike, turns


@both_paths
@both
@pytest.mark.parametrize("attempts", [1, 2, 3, 7])
def test_r15_attempts_means_attempts(suspends, held, attempts):
    """The callee is called exactly so often; the last error is raised, and it is one call in the records."""
    stand = Stand(held=held, retry=Retry(attempts=attempts, wait=0.5))
    errors: list[Boom] = []

    def fails():
        errors.append(Boom(len(errors) + 1))
        raise errors[-1]

    with pytest.raises(Boom) as raised:
        stand.callable(fails, suspends)()
    assert len(errors) == attempts
    assert raised.value is errors[-1]
    assert stand.count(Outcome.BAD) == stand.count() == 1
    assert [event.attempt for event in stand.told(AttemptFailed)] == list(range(1, attempts + 1))
    assert [event.delay for event in stand.told(RetryScheduled)] == [0.5] * (attempts - 1)


@both_paths
@both
def test_r15_a_second_attempt_that_goes_well_is_a_good_call(suspends, held):
    """The caller never hears of the first; the breaker hears of both."""
    stand = Stand(held=held, retry=Retry(attempts=3, wait=0.0), breaker=one_strike(consecutive_failures=5))
    calls = []

    def second_time_lucky():
        calls.append(1)
        if len(calls) == 1:
            raise Boom
        return "fine"

    assert stand.callable(second_time_lucky, suspends)() == "fine"
    assert len(calls) == 2
    assert stand.count(Outcome.GOOD) == stand.count() == 1
    assert (stand.breaker.tally().calls, stand.breaker.tally().failures) == (2, 1)


def test_r15_a_timeout_around_a_retry_fires():
    """``asyncio.timeout`` of the caller ends the call in the middle of its attempts; the cancellation is not taken for a failure."""
    resilience = Resilience("tests")
    calls = []

    @resilience.guard("dependency", retry=Retry(attempts=50, wait=0.01))
    async def hangs_then_fails():
        calls.append(1)
        await asyncio.sleep(0.01)
        raise Boom

    async def main():
        async with asyncio.timeout(0.05):
            await hangs_then_fails()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert 1 <= len(calls) < 50
    assert resilience.guards["dependency"].recorder.counts().total(Outcome.ABANDONED) == 1


def test_r15_a_cancellation_in_an_attempt_is_not_retried():
    """The task is cancelled after one attempt."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    calls = []

    @stand.guard
    async def hangs():
        calls.append(1)
        await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(hangs())
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(main())
    assert len(calls) == 1


def test_r15_a_stream_is_begun_anew_only_before_its_first_item():
    """It fails before its first item: again. It fails after it: the reader gets what there was, once, and the error."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    begun = []

    @stand.guard
    def stream(fail_at):
        begun.append(fail_at)
        for item in range(3):
            if item == fail_at and len(begun) < 3:
                raise Boom
            yield item

    assert list(stream(0)) == [0, 1, 2]
    assert len(begun) == 3
    begun.clear()
    seen = []
    with pytest.raises(Boom):
        for item in stream(1):
            seen.append(item)
    assert (seen, len(begun)) == ([0], 1)


def test_r15_an_async_stream_is_begun_anew_only_before_its_first_item():
    """The same with an async generator."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    begun = []

    @stand.guard
    async def stream(fail_at):
        begun.append(fail_at)
        for item in range(3):
            if item == fail_at and len(begun) < 3:
                raise Boom
            yield item

    async def collect(fail_at):
        seen = []
        try:
            async for item in stream(fail_at):
                seen.append(item)
        except Boom:
            seen.append("boom")
        return seen

    assert asyncio.run(collect(0)) == [0, 1, 2]
    assert len(begun) == 3
    begun.clear()
    assert asyncio.run(collect(1)) == [0, "boom"]
    assert len(begun) == 1


def test_r15_a_response_starts_once():
    """An application that fails after its response began: the middleware sends no second start, and the error goes on."""
    resilience = Resilience("tests")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise Boom

    sent = []

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(Boom):
        asyncio.run(ResilienceMiddleware(app, resilience)(scope, receive, send))
    assert sent == ["http.response.start", "http.response.body"]


@both_paths
@both
def test_r15_the_error_of_the_callee_survives_a_rejected_attempt(suspends, held):
    """The breaker opens on the first failure and rejects the second attempt: the caller gets the callee's error, with its own cause."""
    stand = Stand(held=held, retry=Retry(attempts=3, wait=0.0), breaker=one_strike())
    error, cause = Boom("mine"), KeyError("why")

    def fails():
        raise error from cause

    with pytest.raises(Boom) as raised:
        stand.callable(fails, suspends)()
    assert raised.value is error
    assert error.__cause__ is cause
    assert stand.state == "open"
    assert stand.count(Outcome.BAD) == 1


@both
def test_r15_no_attempt_begins_later_than_max_elapsed(suspends):
    """Two seconds of pause each, five in all: the first and two more."""
    stand = Stand(retry=Retry(attempts=10, wait=2.0, max_elapsed=5.0))
    calls = []

    def fails():
        calls.append(stand.clock.monotonic())
        raise Boom

    with pytest.raises(Boom):
        stand.callable(fails, suspends)()
    assert [at - calls[0] for at in calls] == [0.0, 2.0, 4.0]
