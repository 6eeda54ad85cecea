"""R11 for errors that several callers get: each gets an object of his own, and thousands of them leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from itertools import pairwise

from somaresil import CircuitOpen, SingleFlight
from tests.behaviour.kit import Boom, Stand, one_strike


def depth(error: BaseException) -> int:
    trace, found = error.__traceback__, 0
    while trace is not None:
        trace, found = trace.tb_next, found + 1
    return found


async def crowd(guarded, count):
    return await asyncio.gather(*(guarded() for _ in range(count)), return_exceptions=True)


def test_r11_each_follower_has_an_error_of_his_own():
    """Its traceback is as long for the hundredth as for the second; a rejection is as fresh."""
    stand = Stand(single_flight=True, breaker=one_strike())

    @stand.guard
    async def call():
        await asyncio.sleep(0)
        raise Boom("down")

    errors = asyncio.run(crowd(call, 100))
    assert {type(error) for error in errors} == {Boom}
    assert len({id(error) for error in errors}) == 100
    assert len({depth(error) for error in errors[1:]}) == 1
    rejections = asyncio.run(crowd(call, 100))
    assert {type(error) for error in rejections} == {CircuitOpen}
    assert len({id(error) for error in rejections}) == 100


def test_r11_shared_errors_leave_memory_flat():
    """Neither flights nor errors nor frames are kept."""
    stand = Stand(single_flight=SingleFlight(), listening=False)

    @stand.guard
    async def call():
        await asyncio.sleep(0)
        raise Boom("down")

    def work():
        for _ in range(3):
            asyncio.run(crowd(call, 100))

    work()
    gc.collect()
    tracemalloc.start()
    try:
        # What is kept is kept each time. What others in this process do meanwhile, coverage for one, is not.
        held = []
        for _ in range(5):
            work()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        grown = min(after - before for before, after in pairwise(held))
    finally:
        tracemalloc.stop()
    assert grown < 16_384
