"""R3: of twenty callers who meet a half-open breaker, as many reach the backend as there are probes; the others are rejected at once.

pybreaker, circuitbreaker, aiobreaker, purgatory, hyx and pyresilience let all twenty through.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import CircuitOpen
from tests.behaviour.kit import PATIENCE, Gate, Stand, one_strike, turns

CALLERS = 20


def half_open(probes: int, **options: object) -> Stand:
    """A stand whose breaker is open, with the open time just over."""
    stand = Stand(breaker=one_strike(half_open_calls=probes), **options)
    stand.fail()
    assert stand.state == "open"
    stand.clock.advance(30.0)
    return stand


@pytest.mark.parametrize("probes", [1, 3])
def test_r03_of_twenty_threads_exactly_n_reach_the_backend(probes):
    """The rejected ones return while the probes are still inside, and say when to come back."""
    stand = half_open(probes)
    gate = Gate()
    guarded = stand.guard(gate.enter)
    ends: list[object] = []
    rejected = threading.Semaphore(0)

    def call():
        try:
            ends.append(guarded())
        except CircuitOpen as error:
            ends.append(error)
            rejected.release()

    threads = [threading.Thread(target=call, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for _ in range(CALLERS - probes):
        assert rejected.acquire(timeout=PATIENCE)
    gate.await_inside(probes)
    assert gate.inside == probes
    assert all(isinstance(error, CircuitOpen) and error.retry_after == 30.0 for error in ends)
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert ends.count("fine") == probes
    assert stand.state == "closed"


@pytest.mark.parametrize("probes", [1, 3])
def test_r03_of_twenty_tasks_exactly_n_reach_the_backend(probes):
    """The same with tasks."""
    stand = half_open(probes)
    gate = Gate()
    guarded = stand.guard(gate.aenter)

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(CALLERS)]
        await turns()
        assert gate.inside == probes
        assert sum(task.done() for task in tasks) == CALLERS - probes
        gate.open()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = asyncio.run(main())
    assert ends.count("fine") == probes
    assert sum(isinstance(end, CircuitOpen) for end in ends) == CALLERS - probes
    assert stand.state == "closed"


def test_r03_answers_do_not_make_room_for_more_probes():
    """Callers who come one after the other are no more than N either, until the verdict is there."""
    stand = half_open(3)
    for _ in range(2):
        stand.succeed()
        assert stand.state == "half_open"
    stand.succeed()
    assert stand.state == "closed"


def test_r03_with_a_fallback_the_rejected_callers_get_it():
    """A fallback answers those who are not let through; the backend still sees N."""
    stand = half_open(1, fallback=lambda: "instead")
    gate = Gate()
    guarded = stand.guard(gate.enter)
    probe = threading.Thread(target=guarded, daemon=True)
    probe.start()
    gate.await_inside(1)
    assert [guarded() for _ in range(5)] == ["instead"] * 5
    assert gate.inside == 1
    gate.open()
    probe.join(PATIENCE)
