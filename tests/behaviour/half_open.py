"""A half-open circuit and a crowd: how many of those who come at once reach the dependency."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from somaresil import CircuitBreaker, CircuitOpen, ManualClock, Resilience
from tests.behaviour.kit import PATIENCE

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from somaresil import Guard

CALLERS = 100


def half_open(probes: int) -> Guard:
    """A guard whose circuit was opened, and whose open time is just over."""
    clock = ManualClock()
    guard = Resilience("tests", clock=clock, seed=7).guard("dependency", breaker=CircuitBreaker(half_open_calls=probes))
    guard.breaker.trip(5.0)
    clock.advance(5.0)
    return guard


async def tasks_that_reach_it(probes: int) -> tuple[int, int]:
    """Of so many tasks at once: how many were let in, and how many refused."""
    guard = half_open(probes)
    inside, refused, all_have_come = 0, 0, asyncio.Event()

    @guard
    async def dependency() -> None:
        nonlocal inside
        inside += 1
        await all_have_come.wait()

    async def caller() -> None:
        nonlocal refused
        try:
            await dependency()
        except CircuitOpen:
            refused += 1

    callers = [asyncio.ensure_future(caller()) for _ in range(CALLERS)]
    while inside + refused < CALLERS:
        await asyncio.sleep(0)
    all_have_come.set()
    await asyncio.gather(*callers)
    return inside, refused


def threads_that_reach_it(probes: int, crowd: Executor) -> tuple[int, int]:
    """The same with threads; ``crowd`` has one for each caller."""
    guard = half_open(probes)
    together, counting = threading.Barrier(CALLERS), threading.Lock()
    inside, refused, all_have_come = 0, 0, threading.Event()

    def count(*, let_in: bool) -> None:
        nonlocal inside, refused
        with counting:
            inside += let_in
            refused += not let_in
            if inside + refused == CALLERS:
                all_have_come.set()

    @guard
    def dependency() -> None:
        count(let_in=True)
        assert all_have_come.wait(PATIENCE)

    def caller() -> None:
        together.wait(PATIENCE)
        try:
            dependency()
        except CircuitOpen:
            count(let_in=False)

    for future in [crowd.submit(caller) for _ in range(CALLERS)]:
        future.result(PATIENCE)
    return inside, refused
