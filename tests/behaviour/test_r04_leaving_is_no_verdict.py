"""R4: a caller who goes away says nothing about the dependency. The same object propagates, no verdict, every permit is given back.

pybreaker and purgatory open on a cancellation, pybreaker turns Ctrl-C into CircuitBreakerError, grit is wedged half-open by a cancelled
probe, hyx loses the slot of a cancelled waiter.
"""

from __future__ import annotations

import asyncio

import pytest

from somaresil import Bulkhead, BulkheadFull, Outcome, Retry, Timeout
from tests.behaviour.kit import Gate, Stand, both_paths, one_strike, turns

LEAVING = [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit]
leaving = pytest.mark.parametrize("kind", LEAVING)
RESCUES = {
    "plain": {},
    "retry": {"retry": 3},
    "fallback": {"fallback": lambda: "instead"},
    "both": {"retry": 3, "fallback": lambda: "instead"},
}
rescues = pytest.mark.parametrize("rescue", RESCUES)


def drive(coroutine):
    """Run a coroutine with no loop, which would have its own idea of KeyboardInterrupt."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value


def calling(stand, function, suspends):
    if not suspends:
        return stand.guard(function)

    async def suspended():
        return function()

    guarded = stand.guard(suspended)
    return lambda: drive(guarded())


@both_paths
@leaving
@rescues
@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
def test_r04_the_same_object_propagates_and_nobody_is_blamed(suspends, rescue, kind, held):
    """Not retried, not answered by a fallback, counted as abandoned; a breaker that opens at the first failure stays closed."""
    stand = Stand(held=held, breaker=one_strike(), **RESCUES[rescue])
    leaver = kind("bye")
    calls = []

    def leave():
        calls.append(1)
        raise leaver

    with pytest.raises(kind) as raised:
        calling(stand, leave, suspends)()
    assert raised.value is leaver
    assert len(calls) == 1
    assert stand.state == "closed"
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


@leaving
@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
def test_r04_an_abandoned_probe_gives_its_place_back(suspends, kind):
    """The breaker stays half-open, and the next caller is the probe."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.clock.advance(30.0)

    def leave():
        raise kind

    with pytest.raises(kind):
        calling(stand, leave, suspends)()
    assert stand.state == "half_open"
    stand.succeed()
    assert stand.state == "closed"


@leaving
@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
def test_r04_an_abandoned_call_gives_its_slot_back(suspends, kind):
    """A bulkhead with one slot serves the next caller."""
    stand = Stand(bulkhead=1)

    def leave():
        raise kind

    with pytest.raises(kind):
        calling(stand, leave, suspends)()
    assert stand.guard.bulkhead.active == 0
    assert stand.succeed() == "fine"


@both_paths
def test_r04_a_cancelled_task_is_cancelled(held):
    """The task ends as cancelled, with the message that it was cancelled with."""
    stand = Stand(held=held, breaker=one_strike(), retry=3, fallback=lambda: "instead")
    gate = Gate()
    guarded = stand.guard(gate.aenter)

    async def main():
        task = asyncio.ensure_future(guarded())
        await turns()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        return task.cancelled()

    assert asyncio.run(main())
    assert stand.count(Outcome.ABANDONED) == 1
    assert stand.state == "closed"


def test_r04_a_cancelled_waiter_leaves_the_line():
    """Its place in the line is free, nobody's slot is lost, and those behind it are served."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=2, max_wait=3600.0))
    # A clock that really waits: nobody is served by the passing of time here.
    stand.resilience.clock.await_ = _patient
    gate, order = Gate(), []

    @stand.guard
    async def work(name):
        order.append(name)
        return await gate.aenter()

    async def main():
        first = asyncio.ensure_future(work("first"))
        await turns()
        second, third = asyncio.ensure_future(work("second")), asyncio.ensure_future(work("third"))
        await turns()
        assert stand.guard.bulkhead.waiting == 2
        second.cancel()
        await turns()
        assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (1, 1)
        gate.open()
        assert await asyncio.gather(first, third) == ["fine", "fine"]
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(main())
    assert order == ["first", "third"]
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


async def _patient(future, timeout):
    await asyncio.wait((future,))
    return True


def test_r04_a_slot_that_is_granted_to_a_cancelled_waiter_goes_to_the_next():
    """Cancelled in the very moment in which it was served: the slot is handed on, not lost."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=2, max_wait=3600.0))
    stand.resilience.clock.await_ = _patient
    gate = Gate()
    work = stand.guard(gate.aenter)

    async def main():
        first = asyncio.ensure_future(work())
        await turns()
        second, third = asyncio.ensure_future(work()), asyncio.ensure_future(work())
        await turns()
        gate.open()
        # One turn: the first call ends and grants its slot to the second, which has not woken up yet.
        while stand.guard.bulkhead.waiting == 2:
            await asyncio.sleep(0)
        second.cancel()
        assert await asyncio.gather(first, third) == ["fine", "fine"]
        await asyncio.gather(second, return_exceptions=True)

    asyncio.run(main())
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


def test_r04_a_waiter_whose_time_is_up_leaves_the_line():
    """It is rejected, and its place is free."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=2.0))
    gate = Gate()
    work = stand.guard(gate.aenter)

    async def main():
        first = asyncio.ensure_future(work())
        await turns()
        with pytest.raises(BulkheadFull, match="no slot within 2 s"):
            await work()
        assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (1, 0)
        gate.open()
        await first

    asyncio.run(main())
    assert stand.guard.bulkhead.active == 0


def test_r04_a_call_cancelled_while_it_waits_for_its_retry_is_cancelled():
    """The pause of a retry is no place to get lost in."""
    stand = Stand(retry=Retry(attempts=3, wait=3600.0))

    async def forever(seconds):
        await asyncio.Event().wait()

    stand.resilience.clock.asleep = forever

    @stand.guard
    async def fails():
        raise ValueError

    async def main():
        task = asyncio.ensure_future(fails())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


def test_r04_a_cancellation_from_outside_is_not_a_timeout():
    """A guard with a timeout hands on what it did not cause itself."""
    stand = Stand(timeout=Timeout(3600.0), breaker=one_strike())
    gate = Gate()
    guarded = stand.guard(gate.aenter)

    async def main():
        task = asyncio.ensure_future(guarded())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert stand.state == "closed"


@both_paths
def test_r04_a_coroutine_that_is_closed_in_the_middle_gives_everything_back(held):
    """GeneratorExit comes into a coroutine that nobody awaits any more."""
    stand = Stand(held=held, breaker=one_strike())
    guarded = stand.guard(Gate().aenter)
    coroutine = guarded()
    coroutine.send(None)
    coroutine.close()
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1
