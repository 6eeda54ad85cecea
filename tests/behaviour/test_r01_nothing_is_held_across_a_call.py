"""R1: nothing is held across the guarded call: callers do not wait for one another, operators do not wait for callers.

pybreaker holds its lock: 8 threads of 50 ms take 400 ms, and `open()` waits for the call that is running. What is asked here is an order of
events, not a time: everybody is inside at once, and the operator's call returns while a call is still inside.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import CircuitBreaker
from tests.behaviour.kit import PATIENCE, Gate, Stand, both_paths, together


@both_paths
def test_r01_eight_threads_are_inside_at_once(held):
    """Each of 8 threads waits in the callee for the other 7: with a lock around the call none would come out."""
    stand = Stand(held=held, breaker=CircuitBreaker(slow_call_rate=0.5, slow_call_duration=1.0))
    meeting = threading.Barrier(8)
    guarded = stand.guard(lambda: meeting.wait(PATIENCE))
    assert sorted(together(8, lambda _: guarded())) == list(range(8))
    assert stand.count() == 8


@both_paths
def test_r01_eight_tasks_are_inside_at_once(held):
    """The same with tasks."""
    stand = Stand(held=held, breaker=CircuitBreaker())
    inside = 0

    @stand.guard
    async def meet():
        nonlocal inside
        inside += 1
        while inside < 8:
            await asyncio.sleep(0)
        return "met"

    async def main():
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(meet() for _ in range(8)))

    assert asyncio.run(main()) == ["met"] * 8


@both_paths
@pytest.mark.parametrize("control", ["trip", "force_open", "disable", "observe", "reset"])
def test_r01_an_operator_does_not_wait_for_a_running_call(held, control):
    """The control returns, and has taken effect, while a call is inside; the call gets its result all the same."""
    stand = Stand(held=held, breaker=CircuitBreaker())
    gate = Gate()
    guarded = stand.guard(gate.enter)
    results: list[str] = []
    caller = threading.Thread(target=lambda: results.append(guarded()), daemon=True)
    caller.start()
    gate.await_inside(1)
    era = stand.breaker.era
    operator = threading.Thread(target=getattr(stand.resilience.breaker("dependency"), control), daemon=True)
    operator.start()
    operator.join(PATIENCE)
    assert not operator.is_alive()
    assert stand.breaker.era == era + 1
    assert results == []
    gate.open()
    caller.join(PATIENCE)
    assert results == ["fine"]


@both_paths
def test_r01_reading_and_reconfiguring_do_not_wait_for_a_running_call(held):
    """Snapshot, window and configure() return while a call is inside."""
    stand = Stand(held=held, breaker=CircuitBreaker())
    gate = Gate()
    caller = threading.Thread(target=stand.guard(gate.enter), daemon=True)
    caller.start()
    gate.await_inside(1)

    def look():
        stand.resilience.snapshot()
        stand.breaker.tally()
        stand.guard.configure(breaker=CircuitBreaker(window=5.0))

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    gate.open()
    caller.join(PATIENCE)
