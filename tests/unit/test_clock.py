"""The clock of the machine, and the one that waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from somaresil import ManualClock, SystemClock
from somaresil.clock import SteeredClock
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


def test_a_steered_clock_is_that_of_the_machine_until_somebody_steers_it():
    """Both readings, within what lies between two looks."""
    clock, before, wall = SteeredClock(), time.monotonic(), time.time()
    assert before <= clock.monotonic() <= time.monotonic()
    assert wall <= clock.time() <= time.time()


def test_a_steered_clock_moves_with_the_one_that_steers_it_and_never_jumps():
    """Its measuring reading goes on from where it was, in and out again; the wall reading is that of the clock behind it."""
    clock, manual = SteeredClock(), ManualClock(monotonic=5.0, time=500.0)
    before = clock.monotonic()
    with clock.by(manual):
        begin = clock.monotonic()
        assert before <= begin <= before + PATIENCE
        assert clock.monotonic() == begin
        manual.advance(3600.0)
        assert clock.monotonic() == pytest.approx(begin + 3600.0, abs=1e-6)
        assert clock.time() == 4100.0
        manual.step_wall(-100.0)
        assert clock.time() == 4000.0
        inside = clock.monotonic()
    after = clock.monotonic()
    assert inside <= after <= inside + PATIENCE
    assert abs(clock.time() - time.time()) < PATIENCE


def test_a_clock_may_be_steered_by_one_after_the_other_and_by_one_within_the_other():
    """The former one takes over again, also after an error; no change of hands is seen in the reading."""
    clock, outer, inner = SteeredClock(), ManualClock(monotonic=1e6), ManualClock(monotonic=0.0)
    with clock.by(outer):
        begin = clock.monotonic()
        with pytest.raises(LookupError), clock.by(inner):
            assert clock.monotonic() == pytest.approx(begin, abs=1e-6)
            outer.advance(50.0)
            inner.advance(7.0)
            raise LookupError
        assert clock.monotonic() == pytest.approx(begin + 7.0, abs=1e-6)
        outer.advance(1.0)
        assert clock.monotonic() == pytest.approx(begin + 8.0, abs=1e-6)
    with clock.by(inner):
        reading = clock.monotonic()
        inner.advance(2.0)
        assert clock.monotonic() == pytest.approx(reading + 2.0, abs=1e-6)


def test_whoever_waits_on_a_steered_clock_waits_on_the_one_behind_it():
    """Threads and tasks, for time, events and futures; nobody waits for real."""
    clock, manual, event = SteeredClock(), ManualClock(monotonic=0.0), threading.Event()

    async def main():
        future = asyncio.get_running_loop().create_future()
        await clock.asleep(1000.0)
        late = await clock.await_(future, 1000.0)
        future.set_result(None)
        return late, await clock.await_(future, 1000.0)

    with clock.by(manual):
        clock.sleep(1000.0)
        assert not clock.wait(event, 1000.0)
        event.set()
        assert clock.wait(event, 1000.0)
        assert asyncio.run(main()) == (False, True)
    assert manual.monotonic() == 4000.0


class Interrupted(ManualClock):
    """While it is read, something else happens once."""

    meanwhile = staticmethod(lambda: None)

    def monotonic(self):
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return super().monotonic()


def test_a_steered_clock_that_changes_hands_while_it_is_read_does_not_jump():
    """A thread of a service may read it when the test begins or ends: a lease would be over, or never be."""
    clock, manual = SteeredClock(), Interrupted(monotonic=1e6)
    with contextlib.ExitStack() as stack:
        stack.enter_context(clock.by(manual))
        begin = clock.monotonic()
        manual.meanwhile = lambda: stack.enter_context(clock.by(ManualClock(monotonic=0.0)))
        assert clock.monotonic() == pytest.approx(begin, abs=1e-6)
        assert clock.monotonic() == pytest.approx(begin, abs=1e-6)
