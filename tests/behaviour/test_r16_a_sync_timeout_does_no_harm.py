"""R16: the timeout of a synchronous call. Waiting in line is not the callee's time, context variables are visible, and no exception is
thrown into a thread that may be somebody else's by then.

pyresilience's pool of 4 lets half of 8 healthy callers time out, loses context variables and hits the next task of the thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from somaresil import Bulkhead, BulkheadFull, CallTimedOut, Outcome, Resilience, Timeout
from tests.behaviour.kit import PATIENCE, Gate, Stand, together, turns

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def abandoning(limit: float = 0.02, **options: object) -> Stand:
    """A guard that leaves late callees behind, on a clock that really runs."""
    stand = Stand()
    stand.resilience = Resilience("tests")
    stand.guard = stand.resilience.guard("dependency", timeout=Timeout(limit, abandon=True, **options))
    return stand


def test_r16_time_in_line_is_not_the_callees_time():
    """A call that waits for its slot for longer than the timeout, and is then quick, is good."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=60.0), timeout=10.0)
    stand.fill()

    def served_late(event, timeout):
        stand.clock.advance(30.0)
        stand.free()
        return event.is_set()

    stand.resilience.clock.wait = served_late
    assert stand.succeed() == "fine"
    assert stand.count(Outcome.GOOD) == 1


def test_r16_time_in_line_is_not_the_blocks_time():
    """The same for a ``with`` block."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=60.0), timeout=10.0)
    stand.fill()

    def served_late(event, timeout):
        stand.clock.advance(30.0)
        stand.free()
        return event.is_set()

    stand.resilience.clock.wait = served_late
    with stand.guard:
        pass
    assert stand.count(Outcome.GOOD) == 1
    stand.fill()
    with stand.guard:
        stand.clock.advance(11.0)
    assert stand.count(Outcome.BAD) == 1


@pytest.mark.parametrize("waits", [0.0, 30.0])
def test_r16_time_in_line_is_not_the_streams_time(waits):
    """The same for a generator: its total begins when it begins."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=60.0), timeout=Timeout(10.0))
    stand.fill()

    def served_late(event, timeout):
        stand.clock.advance(waits)
        stand.free()
        return event.is_set()

    stand.resilience.clock.wait = served_late

    @stand.guard
    def stream(*pauses):
        for pause in pauses:
            stand.clock.advance(pause)
            yield pause

    assert list(stream(3.0, 3.0, 3.0)) == [3.0, 3.0, 3.0]
    assert stand.count(Outcome.GOOD) == 1
    stand.fill()
    assert list(stream(3.0, 3.0, 3.0, 3.0)) == [3.0, 3.0, 3.0, 3.0]
    assert stand.count(Outcome.BAD) == 1


def test_r16_a_late_answer_is_returned_and_counts_as_bad():
    """Work that is done is not thrown away, but it was late. On time is not late."""
    stand = Stand(timeout=10.0)
    slow = stand.guard(stand.clock.advance)
    slow(10.0)
    assert stand.count(Outcome.GOOD) == 1
    assert stand.guard(lambda: stand.clock.advance(10.25) or "late")() == "late"
    assert stand.count(Outcome.BAD) == 1


def test_r16_a_caller_does_not_wait_for_an_abandoned_thread():
    """The caller gets CallTimedOut, the thread goes on by itself, ends without noticing, and its slot comes back."""
    stand = abandoning()
    gate, ended = Gate(), threading.Event()

    def hangs():
        gate.enter()
        ended.set()

    with pytest.raises(CallTimedOut, match=r"'dependency' timed out: no answer within 0\.02 s") as raised:
        stand.guard(hangs)()
    assert isinstance(raised.value, TimeoutError)
    assert stand.guard.timeout.abandoned == 1
    assert stand.count(Outcome.BAD) == 1
    gate.open()
    # The thread comes to its own end: nothing was thrown into it.
    assert ended.wait(PATIENCE)
    _until(lambda: stand.guard.timeout.abandoned == 0)


def _until(condition) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    assert condition()


def test_r16_context_variables_are_visible_and_stay_the_callers():
    """The callee sees the caller's context, in a copy."""
    stand = abandoning(limit=PATIENCE)
    tenant.set("blue")

    def reads_and_writes():
        seen = tenant.get()
        tenant.set("red")
        return seen, threading.current_thread()

    seen, thread = stand.guard(reads_and_writes)()
    assert seen == "blue"
    assert thread is not threading.current_thread()
    assert tenant.get() == "blue"


def test_r16_results_and_errors_come_back_as_they_are():
    """The same objects, from the other thread."""
    stand = abandoning(limit=PATIENCE)
    answer, error = object(), ValueError("mine")

    def fails():
        raise error

    assert stand.guard(lambda: answer)() is answer
    with pytest.raises(ValueError, match="mine") as raised:
        stand.guard(fails)()
    assert raised.value is error
    assert error.__context__ is None


def test_r16_healthy_callers_never_time_out_for_want_of_a_thread():
    """There is no pool to wait for: 32 callers are inside at once."""
    stand = abandoning(limit=PATIENCE)
    meeting = threading.Barrier(32)
    guarded = stand.guard(lambda: meeting.wait(PATIENCE))
    assert sorted(together(32, lambda _: guarded())) == list(range(32))


def test_r16_beyond_the_cap_calls_are_rejected():
    """While as many threads as allowed are left behind, no other is started; when one comes back, one more may go."""
    stand = abandoning(max_abandoned=2)
    gate = Gate()
    hangs = stand.guard(gate.enter)
    for _ in range(2):
        with pytest.raises(CallTimedOut):
            hangs()
    with pytest.raises(BulkheadFull, match="2 timed-out threads are still running"):
        hangs()
    assert gate.inside == 2
    assert stand.count(Outcome.REJECTED) == 1
    gate.open()
    _until(lambda: stand.guard.timeout.abandoned == 0)
    assert hangs() == "fine"


def test_r16_an_async_call_is_cancelled_when_its_time_is_up():
    """The callee sees the cancellation and may clean up; the caller gets CallTimedOut, which is a TimeoutError."""
    resilience = Resilience("tests")
    seen = []

    @resilience.guard("dependency", timeout=0.01)
    async def hangs():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cleaned up")
            raise

    with pytest.raises(CallTimedOut) as raised:
        asyncio.run(hangs())
    assert seen == ["cleaned up"]
    assert (raised.value.guard, raised.value.limit, raised.value.phase) == ("dependency", 0.01, "total")
    assert resilience.guards["dependency"].recorder.counts().total(Outcome.BAD) == 1


def test_r16_a_timeout_error_of_the_callee_is_the_callees():
    """A TimeoutError that comes out of the callee is not taken for ours."""
    stand = Stand(timeout=60.0)
    mine = TimeoutError("database")

    @stand.guard
    async def fails():
        await turns(1)
        raise mine

    with pytest.raises(TimeoutError) as raised:
        asyncio.run(fails())
    assert raised.value is mine
