"""R11: each rejected call gets an exception of its own, and a hundred thousand of them leave nothing behind.

purgatory raises one shared object: after 20,000 rejections its traceback has 120,000 entries, 29 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc

import pytest

from somaresil import Bulkhead, BulkheadFull, CircuitOpen, Outcome
from somaresil.events import CallEnded
from tests.behaviour.kit import Stand, both, one_strike

MANY = 100_000


def depth(error: BaseException) -> int:
    trace, found = error.__traceback__, 0
    while trace is not None:
        trace, found = trace.tb_next, found + 1
    return found


@both
@pytest.mark.parametrize("options", [{}, {"retry": 2}], ids=["plain", "retry"])
def test_r11_each_rejection_is_an_object_of_its_own(suspends, options):
    """With a traceback of its own, which is as long for the hundredth as for the first."""
    stand = Stand(breaker=one_strike(), **options)
    stand.resilience.breaker("dependency").trip()
    errors = [stand.fail(suspends) for _ in range(100)]
    assert all(type(error) is CircuitOpen for error in errors)
    assert len({id(error) for error in errors}) == 100
    assert len({depth(error) for error in errors}) == 1


def growth(work) -> int:
    """Bytes that ``work`` leaves behind when it is done once more."""
    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("listening", [False, True], ids=["nobody listens", "somebody listens"])
def test_r11_a_hundred_thousand_rejections_leave_memory_flat(listening):
    """Counted, all of them, and nothing is kept."""
    stand = Stand(breaker=one_strike(), listening=False)
    if listening:
        stand.resilience.on(lambda event: None, CallEnded)
    guarded = stand.guard(lambda: "never")
    stand.resilience.breaker("dependency").force_open()
    rounds = 3

    def work():
        for _ in range(MANY // rounds + 1):
            with contextlib.suppress(CircuitOpen):
                guarded()

    assert growth(work) < 16_384
    assert stand.count(Outcome.REJECTED) == rounds * (MANY // rounds + 1) >= MANY


def test_r11_rejections_on_the_full_path_leave_memory_flat():
    """The same for coroutines, bulkheads and fallbacks."""
    stand = Stand(bulkhead=Bulkhead(1), fallback=lambda: "instead", listening=False)

    @stand.guard
    async def call():
        return "never"

    stand.fill()

    async def many():
        for _ in range(3_000):
            assert await call() == "instead"

    assert growth(lambda: asyncio.run(many())) < 16_384
    stand.guard.configure(fallback=None)
    with pytest.raises(BulkheadFull):
        asyncio.run(call())


def test_r11_a_rejection_says_what_is_known():
    """Guard, reason, when to come back, what was measured, and the error behind it as text."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    rejected = stand.fail()
    assert isinstance(rejected, CircuitOpen)
    assert (rejected.guard, rejected.reason, rejected.retry_after) == ("dependency", "circuit open", 30.0)
    assert rejected.detail == "1 of 1 calls failed in 30 s, 1 in a row (>= 1)"
    assert rejected.last_error == "Boom: down"
    assert not rejected.injected
    assert (
        "guard 'dependency' rejected the call: circuit open; 1 of 1 calls failed in 30 s, 1 in a row (>= 1); last error Boom: down"
        in str(rejected)
    )


def test_r11_a_reconfigured_breaker_still_says_why_it_is_open():
    """Options that change do not change what has happened."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.guard.configure(breaker=one_strike(window=5.0))
    rejected = stand.fail()
    assert isinstance(rejected, CircuitOpen)
    assert rejected.detail == "1 of 1 calls failed in 30 s, 1 in a row (>= 1)"
