"""Defects that other libraries have (read in their source or seen in a run) about retry, timeout, bulkhead and middleware: ours have none.

Those about breakers stand in test_peer_defects_breaker. Where a rule says the same, its file is named and the test is there:

- a retry swallows cancellation, or a timeout around it never fires (tenacity #529); streams are begun anew after their first item
  (stamina); ``attempts=3`` makes four (hyx 0.0.2): test_r15
- a pool of four threads makes healthy synchronous calls time out, loses context variables, throws into pool threads (pyresilience):
  test_r16
- sync and async functions of one name have two states, new options take no effect (pyresilience); a bulkhead has one capacity for
  each loop (nopanic): test_r17
- a cancelled waiter leaks its slot (hyx): test_r04
"""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from somaresil import Bulkhead, CircuitBreaker, Outcome, Resilience, ResilienceMiddleware, Retry, RetryBudget, Timeout
from somaresil.model.breaker import State
from tests.behaviour.kit import PATIENCE, Boom, Stand, both, together


@both
def test_tenacity_wraps_the_last_error_and_ours_raises_it(suspends):
    """tenacity raises RetryError unless told otherwise: callers that catch the client's errors catch ours."""
    stand = Stand(retry=Retry(attempts=2, wait=0.0))
    error = Boom("down")
    assert stand.fail(suspends, error) is error


def test_tenacity_counts_two_callers_as_one_and_ours_counts_each():
    """Its statistics are one dictionary a function, so that four attempts of two callers read as two; ours belong to the call."""
    stand = Stand(listening=False, retry=Retry(attempts=2, wait=0.0, budget=None))
    attempts: contextvars.ContextVar[int] = contextvars.ContextVar("attempts", default=0)
    start = threading.Barrier(2)

    @stand.guard
    def dependency():
        attempts.set(attempts.get() + 1)
        if attempts.get() == 1:
            start.wait(PATIENCE)
        raise Boom

    def caller(_):
        with pytest.raises(Boom):
            dependency()
        return attempts.get()

    assert together(2, caller) == [2, 2]
    assert stand.guard.retry.decisions()["made"] == 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_tenacity_tries_again_what_ends_a_process_and_ours_does_not(kind):
    """``retry_if_not_exception_type`` of tenacity retries a KeyboardInterrupt three times; ours passes it on as it is."""
    import tenacity

    stand = Stand(retry=Retry(on=tenacity.retry_if_not_exception_type(ValueError), wait=0.0))
    calls = []

    def interrupted():
        calls.append(1)
        raise kind

    with pytest.raises(kind):
        stand.guard.call(interrupted)
    assert calls == [1]


def test_tenacity_and_llama_index_leave_async_generators_alone_and_ours_guards_them():
    """A retry decorator on an async generator does nothing there (tenacity #63, llama_index #21346)."""
    stand = Stand(retry=Retry(attempts=2, wait=0.0))
    begun = []

    @stand.guard
    async def tokens():
        begun.append(1)
        if len(begun) == 1:
            raise Boom
        yield "a"

    async def read():
        return [token async for token in tokens()]

    assert asyncio.run(read()) == ["a"]
    assert begun == [1, 1]


def test_pyresilience_promises_a_shared_budget_and_ours_keeps_it():
    """Its README gives RetryConfig a budget, which raises TypeError, and the one it has belongs to one decorator; ours is shared."""
    shared = RetryBudget(0.0, floor=0.2)
    stand = Stand(retry=Retry(wait=0.0, budget=shared))
    other = stand.resilience.guard("other", retry=Retry(wait=0.0, budget=shared))
    for guard in (stand.guard, other):
        with pytest.raises(Boom):
            guard.call(_fail)
    assert (stand.guard.retry.decisions()["made"], other.retry.decisions()["made"]) == (2, 0)


def _fail():
    raise Boom


def test_hyx_needs_a_running_loop_to_decorate_and_ours_does_not():
    """Its timeout cannot be applied at import time; services decorate at import time."""
    guarded = Stand(timeout=1.0, bulkhead=Bulkhead(1, 1, 1.0)).guard(asyncio.sleep)
    assert asyncio.run(guarded(0, "fine")) == "fine"


@both
def test_polly_and_resilience4j_lose_their_state_with_new_options_and_ours_keeps_it(suspends):
    """Polly rebuilds the pipeline, resilience4j replaces the instance: an open circuit closes. Ours stays open, and keeps its count."""
    stand = Stand(breaker=CircuitBreaker(failure_rate=None, consecutive_failures=1, open_jitter=0.0))
    stand.fail(suspends)
    assert stand.state == "open"
    stand.guard.configure(breaker=CircuitBreaker(failure_rate=0.9, minimum_calls=50, open_duration=5.0))
    assert stand.state == "open"
    assert stand.guard.recorder.counts().total(Outcome.BAD) == 1


def test_resilience4j_admits_more_probes_when_a_late_call_gives_its_permit_back_and_ours_does_not():
    """A call admitted while closed that is ignored in half-open adds a permit there; ours has one from an era that is over."""
    stand = Stand(
        breaker=CircuitBreaker(failure_rate=None, consecutive_failures=1, open_jitter=0.0, half_open_calls=1),
        classify=lambda result, error: Outcome.IGNORED if isinstance(error, LookupError) else None,
    )
    late = stand.breaker.admit()
    stand.fail()
    stand.clock.advance(30.0)
    probe = stand.breaker.admit()
    assert stand.state == "half_open"
    stand.breaker.settle(late, Outcome.IGNORED, 1.0, stand.clock.monotonic())
    with pytest.raises(Exception, match="circuit open"):
        stand.breaker.admit()
    stand.breaker.settle(probe, Outcome.GOOD, 1.0, stand.clock.monotonic())
    assert stand.breaker.state is State.CLOSED


# -- middleware: defects of pyresilience 0.4.1 ------------------------------------------------------------------------------------------


async def asked(app, **options):
    """Send a request through a middleware; what the client got, and the process."""
    resilience = Resilience("tests")
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "extensions": {}}
    await ResilienceMiddleware(app, resilience, **options)(scope, receive, send)
    return sent, resilience


def answering(status, *chunks):
    """An app that answers so, in so many pieces, one a turn of the loop."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": []})
        for number, chunk in enumerate(chunks):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": chunk, "more_body": number + 1 < len(chunks)})

    return app


def test_an_answer_of_500_is_a_failure():
    """There it is a success."""
    _, resilience = asyncio.run(asked(answering(500, b"x")))
    (counts,) = resilience.routes.counts().values()
    assert counts.total(Outcome.BAD) == 1


def test_a_healthy_stream_is_not_killed_by_a_timeout_for_answers():
    """There its timeout for a response ends server-sent events; ours has none but the deadline that somebody asked for."""
    sent, resilience = asyncio.run(asked(answering(200, *[b"data: x\n\n"] * 50)))
    assert len(sent) == 51
    (counts,) = resilience.routes.counts().values()
    assert counts.total(Outcome.GOOD) == 1


def test_a_timeout_of_the_dependency_does_not_begin_the_response_a_second_time():
    """There a retry runs the app again after its response has begun: three ``http.response.start``. Ours repeats calls, not responses."""
    stand = Stand(timeout=Timeout(total=5.0), retry=Retry(attempts=3, wait=0.0))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(Boom):
            await stand.guard.acall(_afail)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    sent, _ = asyncio.run(asked(app))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def _afail():
    raise Boom
