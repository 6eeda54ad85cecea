"""The guarded call around is found from the frames that are there anyway, in every way in which a guard can be used."""

from __future__ import annotations

import asyncio
import gc

import pytest

from somaresil import CircuitBreaker, Hedge, ManualClock, Resilience, Retry
from somaresil.guard.standing import MOST_FRAMES, standing


@pytest.fixture
def resilience():
    return Resilience("service")


def here():
    found = standing()
    return None if found is None else (found.guard, found.attempt)


async def ahere():
    return here()


def test_outside_of_every_call_there_is_none():
    """Nothing is made up."""
    assert standing() is None


@pytest.mark.parametrize("options", [{}, {"breaker": CircuitBreaker()}, {"retry": 3}, {"bulkhead": 5}, {"fallback": lambda: None}])
def test_a_quiet_call_is_found(resilience, options):
    """A plain function, with limits on the express path as well."""
    assert resilience.guard("g", **options)(here)() == ("g", 1)
    assert here() is None


@pytest.mark.parametrize("options", [{}, {"breaker": CircuitBreaker()}, {"retry": 3}, {"bulkhead": 5}, {"timeout": 5.0}])
@pytest.mark.asyncio
async def test_a_quiet_coroutine_is_found(resilience, options):
    """Also behind an await."""

    async def deeper():
        await asyncio.sleep(0)
        return await ahere()

    assert await resilience.guard("g", **options)(deeper)() == ("g", 1)


@pytest.mark.asyncio
async def test_calls_that_need_a_look_are_found(resilience):
    """On the full path, of both kinds."""
    guard = resilience.guard("g")
    resilience.observe(lambda _: None)
    assert guard.call(here) == ("g", 1)
    assert await guard.acall(ahere) == ("g", 1)


@pytest.mark.asyncio
async def test_streams_are_found_at_every_item(resilience):
    """A generator runs when its reader asks."""

    @resilience.guard("g")
    def items():
        yield here()
        yield here()

    @resilience.guard("h")
    async def aitems():
        yield here()
        await asyncio.sleep(0)
        yield here()

    assert list(items()) == [("g", 1)] * 2
    assert [item async for item in aitems()] == [("h", 1)] * 2


@pytest.mark.asyncio
async def test_blocks_are_found_and_follow_their_context(resilience):
    """A block is a guard's; a task that is started in it stands in it, until it ends."""
    guard = resilience.guard("g")
    go = asyncio.Event()

    async def later():
        await go.wait()
        return here()

    with guard:
        assert here() == ("g", 1)
        assert await asyncio.to_thread(here) == ("g", 1)
        task = asyncio.create_task(later())
    go.set()
    assert await task is None
    async with guard:
        assert here() == ("g", 1)


def test_the_innermost_call_counts(resilience):
    """Of calls in calls, blocks in calls, and calls in blocks."""
    outer, inner = resilience.guard("outer"), resilience.guard("inner")

    def with_block():
        with inner:
            return here()

    def with_call():
        return inner.call(here), here()

    assert outer.call(with_block) == ("inner", 1)
    assert outer.call(with_call) == (("inner", 1), ("outer", 1))
    with outer:
        assert inner.call(here) == ("inner", 1)
        assert here() == ("outer", 1)


@pytest.mark.asyncio
async def test_attempts_are_counted(resilience):
    """The first runs on the quiet path, the others do not."""
    seen = []

    def fails():
        seen.append(here())
        raise ConnectionError

    async def afails():
        fails()

    guard = resilience.guard("g", retry=Retry(attempts=3, wait=0.0), fallback=here)
    assert guard.call(fails) == ("g", 3)
    assert await resilience.guard("h", retry=Retry(attempts=2, wait=0.0), fallback=here).acall(afails) == ("h", 2)
    assert seen == [("g", 1), ("g", 2), ("g", 3), ("h", 1), ("h", 2)]


@pytest.mark.asyncio
async def test_attempts_of_a_hedge_are_found(resilience):
    """They run in tasks of their own."""
    seen = []

    async def slow():
        seen.append(here())
        await asyncio.sleep(0.05 if len(seen) == 1 else 0)

    await resilience.guard("g", hedge=Hedge(delay=0.001, quantile=None), idempotent=True).acall(slow)
    assert seen == [("g", 1), ("g", 1)]


@pytest.mark.asyncio
async def test_a_task_that_a_guarded_function_starts_is_another_place(resilience):
    """Its frames end with it: what is not seen is not claimed."""

    async def starts():
        return await asyncio.create_task(ahere())

    assert await resilience.guard("g").acall(starts) is None


def test_an_experiment_is_known_in_the_call_that_it_strikes(resilience):
    """While it is held up and afterwards, in the callee and in the fallback; not in others."""
    clock = ManualClock()
    resilience = Resilience("service", environment="test", clock=clock, seed=1)
    resilience.chaos.opt_in()
    seen = []

    def reads():
        seen.append(standing().experiment)

    guard = resilience.guard("g", fallback=reads)
    quiet = resilience.guard("quiet")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOMARESIL_CHAOS", "1")
        delay = asyncio.run(resilience.chaos.inject_latency("g", delay_ms=10, rate=1.0))
        guard.call(reads)
        quiet.call(reads)
        resilience.chaos.stop_all()
        error = asyncio.run(resilience.chaos.inject_errors("g", rate=1.0))
        guard.call(lambda: None)
        resilience.chaos.stop_all()
        guard.call(reads)
    assert seen == [delay.id, "", error.id, ""]


def test_what_is_too_far_out_is_not_found(resilience):
    """The search is bounded, whatever the depth."""

    def dive(depth):
        return here() if depth == 0 else dive(depth - 1)

    assert resilience.guard("g").call(dive, 10) == ("g", 1)
    assert resilience.guard("g").call(dive, MOST_FRAMES) is None


@pytest.mark.asyncio
async def test_looking_keeps_nothing_alive(resilience):
    """The locals of the frames that were read do not hold an error in a circle."""

    class LostError(Exception):
        pass

    def fails():
        here()
        raise LostError

    async def afails():
        fails()

    guard = resilience.guard("g", retry=Retry(attempts=2, wait=0.0))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(LostError):
                guard.call(fails)
            with pytest.raises(LostError):
                await guard.acall(afails)
        alive = [thing for thing in gc.get_objects() if isinstance(thing, LostError)]
        assert alive == []
    finally:
        gc.enable()
