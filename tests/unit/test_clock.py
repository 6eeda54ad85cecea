"""The clock of the machine, and the one that waits for nobody."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from somaresil import ManualClock, SystemClock
from tests.behaviour.kit import PATIENCE, together


def test_the_system_clock_is_that_of_the_machine():
    """Its readings are those of the time module, at no cost of a frame."""
    clock = SystemClock()
    assert clock.monotonic is time.monotonic
    assert clock.time is time.time


def test_the_system_clock_waits():
    """At least as long as it is told to; not at all for nothing or less."""
    clock = SystemClock()
    begin = time.monotonic()
    clock.sleep(0.01)
    asyncio.run(clock.asleep(0.01))
    assert not clock.wait(threading.Event(), 0.01)
    assert time.monotonic() - begin >= 0.03
    clock.sleep(0.0)
    clock.sleep(-1.0)


def test_the_system_clock_waits_for_events_and_futures():
    """True when they came first; a future whose time is up is not cancelled."""
    clock, event = SystemClock(), threading.Event()
    event.set()
    assert clock.wait(event, PATIENCE)
    assert clock.wait(event, None)

    async def main():
        future = asyncio.get_running_loop().create_future()
        late = await clock.await_(future, 0.005)
        assert not future.cancelled()
        future.set_result(None)
        return late, await clock.await_(future, PATIENCE)

    assert asyncio.run(main()) == (False, True)


def test_a_manual_clock_moves_only_when_told_to():
    """Both readings, by the same; sleeping moves it."""
    clock = ManualClock(monotonic=100.0, time=5000.0)
    assert (clock.monotonic(), clock.time()) == (100.0, 5000.0)
    clock.advance(2.5)
    clock.sleep(1.0)
    clock.sleep(-5.0)
    asyncio.run(clock.asleep(1.5))
    assert (clock.monotonic(), clock.time()) == (105.0, 5005.0)


def test_a_manual_clock_does_not_go_back():
    """The error says what was asked and what is possible; the wall clock may be set back."""
    clock = ManualClock(monotonic=100.0, time=5000.0)
    with pytest.raises(ValueError, match=r"advance\(-1.0\), expected seconds >= 0"):
        clock.advance(-1.0)
    clock.step_wall(-3600.0)
    assert (clock.monotonic(), clock.time()) == (100.0, 1400.0)


def test_a_manual_clock_waits_for_an_event_by_moving_on():
    """An event that is set costs no time; one that is not costs all of it; without a limit it is a real wait."""
    clock, event = ManualClock(monotonic=0.0), threading.Event()
    assert not clock.wait(event, 2.0)
    assert clock.monotonic() == 2.0
    event.set()
    assert clock.wait(event, 2.0)
    assert clock.wait(event, None)
    assert clock.monotonic() == 2.0


def test_a_manual_clock_waits_for_a_future_by_letting_the_others_run_first():
    """What can be done at once is done before time passes."""
    clock = ManualClock(monotonic=0.0)

    async def main():
        loop = asyncio.get_running_loop()
        done, never = loop.create_future(), loop.create_future()
        loop.call_soon(done.set_result, None)
        assert await clock.await_(done, 5.0)
        assert clock.monotonic() == 0.0
        assert not await clock.await_(never, 5.0)
        assert clock.monotonic() == 5.0
        loop.call_later(0.001, never.set_result, None)
        return await clock.await_(never, None)

    assert asyncio.run(main())


def test_a_manual_clock_may_be_moved_by_many_threads():
    """Nothing is lost."""
    clock = ManualClock(monotonic=0.0)

    def move(_):
        for _ in range(1000):
            clock.advance(1.0)

    together(4, move)
    assert clock.monotonic() == 4000.0
