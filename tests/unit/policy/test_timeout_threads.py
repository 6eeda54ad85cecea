"""What of timeouts the rules do not say already: corners of abandoned threads and of limits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import CallTimedOut, Outcome, Resilience, Retry, Timeout
from tests.behaviour.kit import PATIENCE, Boom, Stand, both


def test_an_error_of_an_abandoned_callee_goes_nowhere():
    """Nobody waits for it: it is dropped, and the thread counts as back."""
    guard = Resilience("tests").guard("dependency", timeout=Timeout(0.01, abandon=True))
    free, ended = threading.Event(), threading.Event()

    @guard
    def fails_late():
        free.wait(PATIENCE)
        ended.set()
        raise Boom

    with pytest.raises(CallTimedOut):
        fails_late()
    assert guard.timeout.abandoned == 1
    free.set()
    assert ended.wait(PATIENCE)
    for _ in range(1000):
        if guard.timeout.abandoned == 0:
            break
        threading.Event().wait(0.005)
    assert guard.timeout.abandoned == 0


def test_a_callee_that_ends_in_the_moment_in_which_it_is_given_up_counts_as_back():
    """Its thread ended between the end of the wait and the giving up."""
    stand = Stand(timeout=Timeout(5.0, abandon=True))

    def too_late(event, timeout):
        assert event.wait(PATIENCE)
        return False

    stand.resilience.clock.wait = too_late
    with pytest.raises(CallTimedOut):
        stand.succeed()
    assert stand.guard.timeout.abandoned == 0


def test_abandoned_threads_do_not_keep_the_process_alive():
    """They are daemons, named after the guard."""
    guard = Resilience("tests").guard("llm.invoke", timeout=Timeout(PATIENCE, abandon=True))
    thread = guard(threading.current_thread)()
    assert thread.daemon
    assert thread.name == "somaresil-timeout-llm.invoke"


def test_a_stop_iteration_comes_out_of_the_other_thread():
    """As itself."""
    guard = Resilience("tests").guard("dependency", timeout=Timeout(PATIENCE, abandon=True))
    with pytest.raises(StopIteration):
        guard(next)(iter([]))


def test_abandoning_concerns_plain_calls():
    """A stream or a block with the same options runs where it is, in time or late."""
    stand = Stand(timeout=Timeout(5.0, abandon=True))
    here = threading.current_thread()

    @stand.guard
    def stream():
        yield threading.current_thread()

    assert list(stream()) == [here]
    with stand.guard:
        assert threading.current_thread() is here
    assert stand.count(Outcome.GOOD) == 2


def test_limits_of_streams_do_not_concern_plain_calls():
    """Only ``total`` does."""
    stand = Stand(timeout=Timeout(total=60.0, first_item=1.0, idle=1.0))
    stand.guard(lambda: stand.clock.advance(30.0))()
    assert stand.count(Outcome.GOOD) == 1

    @stand.guard
    async def call():
        return "fine"

    assert asyncio.run(call()) == "fine"
    with stand.guard:
        stand.clock.advance(30.0)
    assert stand.count(Outcome.GOOD) == 3


def test_a_timed_out_attempt_is_tried_again():
    """The timeout stands inside the retry, so each attempt has its own."""
    guard = Resilience("tests").guard("dependency", timeout=0.01, retry=Retry(attempts=2, on=CallTimedOut, wait=0.0))
    calls = []

    @guard
    async def slow_at_first():
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "fine"

    assert asyncio.run(slow_at_first()) == "fine"
    assert len(calls) == 2


@both
def test_a_late_first_attempt_does_not_make_the_second_late(suspends):
    """A retry on results: only what is returned is judged."""
    import tenacity

    on = tenacity.retry_if_result(lambda result: result == "empty")
    stand = Stand(timeout=Timeout(5.0), retry=Retry(attempts=2, on=on, wait=0.0))
    answers = ["empty", "fine"]

    def slow_at_first():
        if len(answers) == 2 and not suspends:
            stand.clock.advance(30.0)
        return answers.pop(0)

    assert stand.callable(slow_at_first, suspends)() == "fine"
    assert stand.count(Outcome.GOOD) == 1


def test_a_timeout_of_a_guard_inside_keeps_its_name():
    """The outer guard does not put its own name on it."""
    resilience = Resilience("tests")
    inner, outer = resilience.guard("inner", timeout=0.01), resilience.guard("outer", timeout=60.0)

    @outer
    @inner
    async def hangs():
        await asyncio.Event().wait()

    with pytest.raises(CallTimedOut) as raised:
        asyncio.run(hangs())
    assert raised.value.guard == "inner"
    assert resilience.guards["outer"].recorder.counts().total(Outcome.BAD) == 1


def test_a_timed_out_call_says_what_it_waited_for():
    """Guard, what for, how long; it has the cancelled work as its cause, and is a TimeoutError for those who expect one."""
    error = CallTimedOut("llm", 2.0, "first_item")
    assert str(error) == "guard 'llm' timed out: no first item within 2 s"
    assert str(CallTimedOut("llm", 0.5)) == "guard 'llm' timed out: no answer within 0.5 s"
    assert str(CallTimedOut("llm", 1.0, "idle")) == "guard 'llm' timed out: no next item within 1 s"
    assert isinstance(error, TimeoutError)
