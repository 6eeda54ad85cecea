"""The virtual clock as somaresil's clock: readings, plain waiting, threads among themselves, and policies that wait on it."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from somaresil import (
    Bulkhead,
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    ConfigurationError,
    Resilience,
    Retry,
    Timeout,
)
from somaresil.testing import VirtualClock
from somaresil.testing.clock import EPOCH
from tests.behaviour.kit import PATIENCE, Boom, one_strike

pytestmark = pytest.mark.timeout(PATIENCE)

SOON = 0.03


def started(*works):
    """Threads that do ``works``."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads):
    """All of them at their end."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"


def raced(work, times=40):
    """What ``work`` came to in each of many goes, without repetition: chance shall not hide a race."""
    return {repr(work()) for _ in range(times)}


# -- readings -----------------------------------------------------------------------------------------------------------------------------


def test_it_begins_at_a_known_moment():
    """Zero for measuring, New Year 2026 on the wall: a failure reads the same in every run."""
    clock = VirtualClock()
    assert (clock.monotonic(), clock.time()) == (0.0, EPOCH)
    assert datetime.fromtimestamp(EPOCH, UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    clock = VirtualClock(monotonic=100.0, time=5_000.0)
    assert (clock.monotonic(), clock.time()) == (100.0, 5_000.0)


def test_both_readings_move_together():
    """By sleeping and by advancing, and not by what is no time at all."""
    clock = VirtualClock(monotonic=100.0, time=5_000.0)
    clock.advance(2.5)
    clock.sleep(1.5)
    clock.sleep(0.0)
    clock.sleep(-5.0)
    assert (clock.monotonic(), clock.time()) == (104.0, 5_004.0)


def test_it_does_not_go_back():
    """The error says what was asked; the wall clock may be set back, and nothing that measures notices."""
    clock = VirtualClock()
    with pytest.raises(ValueError, match=r"advance\(-1.0\), expected seconds >= 0"):
        clock.advance(-1.0)
    clock.step_wall(-3_600.0)
    assert (clock.monotonic(), clock.time()) == (0.0, EPOCH - 3_600.0)
    clock.step_wall(7_200.0)
    assert (clock.monotonic(), clock.time()) == (0.0, EPOCH + 3_600.0)


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_it_does_not_move_by_what_is_no_length_of_time(seconds):
    """A mistake in a computation of pauses is told where it is made."""
    clock = VirtualClock()
    with pytest.raises(ValueError):
        clock.advance(seconds)
    assert clock.monotonic() == 0.0


def test_whoever_wants_to_know_is_told_when_time_has_moved():
    """After sleeping, advancing and setting the wall clock, until they have enough."""
    clock = VirtualClock()
    told = []
    end = clock.on_move(lambda: told.append(clock.time() - EPOCH))
    clock.sleep(1)
    clock.advance(2)
    clock.step_wall(10)
    end()
    end()
    clock.sleep(1)
    assert told == [1.0, 3.0, 13.0]


def test_options_are_checked_together():
    """Every problem is found in one go, with its place."""
    with pytest.raises(ConfigurationError) as caught:
        VirtualClock(monotonic=-1.0, time="now", stall=0.0, io_grace=-1.0)
    assert sorted(problem.path for problem in caught.value.problems) == [
        "VirtualClock.io_grace",
        "VirtualClock.monotonic",
        "VirtualClock.stall",
        "VirtualClock.time",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"stall": 3_601},
        {"stall": math.inf},
        {"stall": True},
        {"io_grace": 11},
        {"monotonic": math.nan},
        {"time": math.inf},
        {"stall": None},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    """By name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        VirtualClock(**options)


def test_options_at_their_limits_are_taken():
    """Durations may be ``timedelta``; no grace at all is a choice."""
    clock = VirtualClock(stall=timedelta(seconds=2), io_grace=0)
    assert (clock.stall, clock.io_grace) == (2.0, 0.0)
    assert VirtualClock(stall=3_600, io_grace=10).stall == 3_600.0


# -- waiting without a loop ---------------------------------------------------------------------------------------------------------------


def test_waiting_for_an_event_moves_time_on():
    """One that is set costs nothing, one that is not costs all of it, and no more than nothing when there is no time."""
    clock, event = VirtualClock(), threading.Event()
    assert not clock.wait(event, 2.0)
    assert clock.monotonic() == 2.0
    assert not clock.wait(event, 0.0)
    assert not clock.wait(event, -1.0)
    event.set()
    assert clock.wait(event, 2.0)
    assert clock.wait(event, None)
    assert clock.monotonic() == 2.0


def test_tasks_of_another_loop_move_it_on():
    """In a loop that is not virtual, sleeping moves the clock and lets the others run."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        ran = []
        loop.call_soon(ran.append, 1)
        await clock.asleep(10)
        assert ran
        done, never = loop.create_future(), loop.create_future()
        loop.call_soon(done.set_result, None)
        assert await clock.await_(done, 5)
        assert clock.monotonic() == 10.0
        assert not await clock.await_(never, 5)
        assert not never.cancelled()
        return clock.monotonic()

    assert asyncio.run(main()) == 15.0


def test_tasks_of_its_own_loop_wait_like_any_other():
    """``asleep`` and ``await_``, with and without a limit."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        await clock.asleep(10)
        await clock.asleep(-1)
        soon, never = loop.create_future(), loop.create_future()
        loop.call_later(3, soon.set_result, None)
        assert await clock.await_(soon, 5)
        assert clock.monotonic() == 13.0
        assert not await clock.await_(never, 5)
        assert not never.done()
        loop.call_later(2, never.set_result, None)
        assert await clock.await_(never, None)
        return clock.monotonic()

    assert clock.run(main()) == 20.0


def test_plain_code_inside_of_a_task_moves_time_on():
    """It blocks the loop as it would for real: timers that have come due meanwhile fire late, in order."""
    clock = VirtualClock()
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        for when in (2, 1, 20):
            loop.call_later(when, lambda when=when: fired.append((when, loop.time())))
        clock.sleep(10)
        assert not clock.wait(threading.Event(), 5)
        await asyncio.sleep(10)

    clock.run(main())
    assert fired == [(1, 15.0), (2, 15.0), (20, 20.0)]


def test_a_day_of_plain_sleep_takes_no_time():
    """Nobody else is there, so nothing is waited for."""
    clock, begin = VirtualClock(), time.perf_counter()
    for _ in range(1_000):
        clock.sleep(86.4)
    assert time.perf_counter() - begin < 20.0
    assert clock.monotonic() == pytest.approx(86_400.0)


# -- threads among themselves -------------------------------------------------------------------------------------------------------------


def _naps():
    clock = VirtualClock()
    log = []

    def nap(step, times):
        for _ in range(times):
            clock.sleep(step)
            log.append(clock.monotonic())

    joined(started(lambda: nap(1, 4), lambda: nap(10, 1), lambda: nap(2.5, 2)))
    return log


def test_threads_that_sleep_wake_in_the_order_of_their_times():
    """Each at its own moment, as if they slept for real."""
    assert raced(_naps) == {"[1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0]"}


def test_an_old_view_moves_nothing():
    """Of two threads that have looked around, the second must not move time past what the first has woken."""
    clock, log = VirtualClock(), []

    def nap(seconds):
        clock.sleep(seconds)
        log.append(clock.monotonic())

    with clock.paused():
        threads = started(lambda: nap(5), lambda: nap(10))
        while len(clock._parked) < 2:
            time.sleep(0.001)
        looked = clock._changes
        assert clock._jump(None, looked)
        assert clock.monotonic() == 5.0
        assert clock._jump(None, looked), "it is to look again, and not to take this for a stall"
        assert clock.monotonic() == 5.0
    joined(threads)
    assert log == [5.0, 10.0]


def test_a_thread_is_told_by_another_that_sleeps_on_the_clock():
    """It goes on at the moment at which its event is set, not when the other one wakes up next."""

    def tell():
        clock, event, got = VirtualClock(), threading.Event(), []

        def teller():
            clock.sleep(5)
            event.set()
            clock.sleep(100)

        def told():
            got.append((clock.wait(event, 1_000), clock.monotonic()))

        joined(started(told, teller))
        return got

    assert raced(tell, 10) == {"[(True, 5.0)]"}


def test_a_thread_that_waits_for_a_plain_event_goes_on_in_time():
    """An event that knows nothing of the clock, and a sleep right after it."""

    def tell():
        clock, event, got = VirtualClock(), threading.Event(), []

        def teller():
            clock.sleep(5)
            event.set()
            clock.sleep(100)

        def told():
            event.wait(PATIENCE)
            clock.sleep(1)
            got.append(clock.monotonic())

        joined(started(told, teller))
        return got

    assert raced(tell, 10) == {"[6.0]"}


def test_a_thread_waits_for_an_event_that_the_last_sleeper_sets():
    """With nobody else due, the wait ends exactly then; without a limit too."""

    def tell(limit):
        clock, event, got = VirtualClock(), threading.Event(), []

        def teller():
            clock.sleep(5)
            event.set()

        thread = started(teller)
        got.append((clock.wait(event, limit), clock.monotonic()))
        joined(thread)
        return got

    assert raced(lambda: tell(None), 20) == {"[(True, 5.0)]"}


def test_threads_that_advance_lose_nothing():
    """Moving is atomic."""
    clock = VirtualClock()

    def move():
        for _ in range(500):
            clock.step_wall(1.0)

    joined(started(*[move] * 4))
    assert clock.time() == EPOCH + 2_000.0


def test_advancing_from_several_threads_is_atomic():
    """No step is lost when two threads move time at once; seen by stopping one between its reading and its setting."""

    class Slow(VirtualClock):
        @property
        def now(self):
            found = self._found
            if threading.current_thread().name == "slow" and not entered.is_set():
                entered.set()
                assert release.wait(PATIENCE)
            return found

        @now.setter
        def now(self, to):
            self._found = to

    entered, release = threading.Event(), threading.Event()
    clock = Slow()
    thread = threading.Thread(target=clock.advance, args=(10,), name="slow", daemon=True)
    thread.start()
    assert entered.wait(PATIENCE)
    other = threading.Thread(target=clock.advance, args=(5,), daemon=True)
    other.start()
    other.join(SOON)
    release.set()
    joined([thread, other])
    assert clock.monotonic() == 15.0


def test_a_new_thread_is_no_bystander_because_of_an_old_one():
    """Who was there before the clock is known by more than a number that is given again."""
    leave, idents = threading.Event(), []
    old = started(*[lambda: leave.wait(PATIENCE)] * 4)
    clock = VirtualClock()
    assert all(clock.is_bystander(thread.ident) for thread in old)
    leave.set()
    joined(old)
    del old
    gc.collect()
    stay = threading.Event()
    new = started(*[lambda: stay.wait(PATIENCE)] * 4)
    idents = [clock.is_bystander(thread.ident) for thread in new]
    stay.set()
    joined(new)
    assert idents == [False] * 4


def test_a_thread_that_works_counts_although_another_has_gone():
    """A bystander that ended does not make up for a thread that came after the clock and works."""
    leave, stay, entered = threading.Event(), threading.Event(), threading.Event()
    keep = threading.Event()
    old = started(lambda: leave.wait(PATIENCE), lambda: keep.wait(PATIENCE))
    clock = VirtualClock()
    leave.set()
    joined(old[:1])

    def work():
        entered.set()
        while not stay.is_set():
            time.sleep(0.001)

    worker = threading.Thread(target=work)
    worker.start()
    assert entered.wait(PATIENCE)
    seen = clock.held
    stay.set()
    keep.set()
    joined([*old, worker])
    assert seen


def test_a_thread_that_works_is_waited_for_by_one_that_sleeps():
    """No jump while real work is being done, daemon or not as long as somebody waits for an event."""
    clock, seen = VirtualClock(), []
    entered, release = threading.Event(), threading.Event()

    def work():
        entered.set()
        end = time.perf_counter() + SOON
        while time.perf_counter() < end:
            pass
        seen.append(clock.monotonic())
        release.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert entered.wait(PATIENCE)
    clock.sleep(100)
    seen.append(clock.monotonic())
    joined([worker])
    assert seen == [0.0, 100.0]


def test_a_pause_holds_for_threads_too():
    """Let no time pass in here, whoever sleeps."""
    clock = VirtualClock()
    with clock.paused():
        sleeper = started(lambda: clock.sleep(10))
        sleeper[0].join(SOON)
        inside = clock.monotonic()
    joined(sleeper)
    assert (inside, clock.monotonic()) == (0.0, 10.0)


# -- policies that wait on it -------------------------------------------------------------------------------------------------------------


def guarded(**options):
    """A guard on a virtual clock."""
    clock = VirtualClock(stall=1.0)
    return clock, Resilience("tests", clock=clock, seed=7).guard("dependency", **options)


def failing(times, result="fine"):
    """A dependency that fails so often first."""
    left = [times]

    def call():
        left[0] -= 1
        if left[0] >= 0:
            raise Boom("down")
        return result

    return call


def test_a_plain_retry_pauses_in_virtual_time():
    """Two pauses of a minute, and then it goes well."""
    clock, guard = guarded(retry=Retry(attempts=3, wait=60.0))
    assert guard.call(failing(2)) == "fine"
    assert clock.monotonic() == 120.0


def test_a_retry_in_a_task_pauses_in_virtual_time():
    """The same, next to others."""
    clock, guard = guarded(retry=Retry(attempts=3, wait=60.0))
    call = failing(2)

    async def dependency():
        return call()

    async def main():
        answer, _ = await asyncio.gather(guard.acall(dependency), asyncio.sleep(30))
        return answer

    assert clock.run(main()) == "fine"
    assert clock.monotonic() == 120.0


def test_a_retry_in_a_thread_of_the_loop_pauses_among_tasks():
    """Plain code behind ``to_thread``."""
    clock, guard = guarded(retry=Retry(attempts=3, wait=60.0))

    async def main():
        return await asyncio.gather(asyncio.to_thread(guard.call, failing(2)), asyncio.sleep(90, clock))

    assert clock.run(main())[0] == "fine"
    assert clock.monotonic() == 120.0


def test_a_circuit_stays_open_for_virtual_time():
    """Thirty seconds sharp, then it takes a probe."""
    clock, guard = guarded(breaker=one_strike())
    with pytest.raises(Boom):
        guard.call(failing(1))
    clock.sleep(29.999)
    with pytest.raises(CircuitOpen):
        guard.call(failing(0))
    clock.sleep(0.001)
    assert guard.call(failing(0)) == "fine"


def test_a_circuit_recovers_in_tasks():
    """A loop that asks every second is answered again after thirty."""
    clock, guard = guarded(breaker=one_strike())

    async def good():
        return "fine"

    async def bad():
        raise Boom("down")

    async def main():
        with pytest.raises(Boom):
            await guard.acall(bad)
        while True:
            await asyncio.sleep(1)
            try:
                await guard.acall(good)
            except CircuitOpen:
                continue
            return asyncio.get_running_loop().time()

    assert clock.run(main()) == 30.0


def test_a_coroutine_is_timed_out_in_virtual_time():
    """It is cancelled at its limit."""
    clock, guard = guarded(timeout=10.0)
    ended = []

    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(clock.monotonic())

    async def main():
        with pytest.raises(CallTimedOut):
            await guard.acall(slow)

    clock.run(main())
    assert ended == [10.0]


def test_a_stream_is_timed_out_in_virtual_time():
    """Between two items."""
    clock, guard = guarded(timeout=Timeout(idle=10.0))

    @guard
    async def numbers():
        for number in range(5):
            yield number
            await asyncio.sleep(9 if number < 3 else 11)

    async def main():
        got = []
        with pytest.raises(CallTimedOut):
            async for number in numbers():
                got.append(number)
        return got

    assert clock.run(main()) == [0, 1, 2, 3]
    assert clock.monotonic() == 37.0


def test_a_plain_call_that_sleeps_too_long_is_left_behind_in_virtual_time():
    """``Timeout(abandon=True)``: the caller goes on at the limit, the thread at its own time."""

    def left_behind():
        clock, guard = guarded(timeout=Timeout(10.0, abandon=True))
        log = []

        def slow():
            clock.sleep(60)
            log.append(clock.monotonic())

        try:
            guard.call(slow)
        except CallTimedOut:
            log.append(clock.monotonic())
        clock.sleep(100)
        for thread in threading.enumerate():
            if thread.name == "somaresil-timeout-dependency":
                thread.join(PATIENCE)
        return [*log, clock.monotonic()]

    assert raced(left_behind) == {"[10.0, 60.0, 110.0]"}


def test_a_plain_call_that_is_in_time_is_never_timed_out():
    """However the threads interleave: a thread that has only just begun is at work."""

    def in_time():
        clock, guard = guarded(timeout=Timeout(10.0, abandon=True))

        def quick():
            clock.sleep(3)
            return clock.monotonic()

        return guard.call(quick)

    assert raced(in_time, 60) == {"3.0"}


def test_a_plain_call_that_really_works_is_waited_for():
    """Its virtual limit is not reached by real work."""
    clock, guard = guarded(timeout=Timeout(0.001, abandon=True))

    def work():
        end = time.perf_counter() + SOON
        while time.perf_counter() < end:
            pass
        return "worked"

    assert guard.call(work) == "worked"
    assert clock.monotonic() == 0.0


def test_a_plain_call_in_a_thread_of_the_loop_is_left_behind():
    """The same in ``to_thread``, among tasks, where the loop moves time on."""
    clock, guard = guarded(timeout=Timeout(10.0, abandon=True))
    log = []

    def work():
        try:
            guard.call(lambda: clock.sleep(60))
        except CallTimedOut:
            log.append(clock.monotonic())

    async def main():
        await asyncio.gather(asyncio.to_thread(work), asyncio.sleep(100))

    clock.run(main())
    assert log == [10.0]
    assert clock.monotonic() == 100.0


def test_threads_in_line_for_a_bulkhead_wait_in_virtual_time():
    """Of two in the pool's line one gets the slot when the first leaves, the other's time runs out."""
    clock, guard = guarded(bulkhead=Bulkhead(1, max_waiting=2, max_wait=15.0))
    log = []

    def call(name, begins):
        clock.sleep(begins)
        try:
            guard.call(lambda: clock.sleep(10))
            log.append((name, "served", clock.monotonic()))
        except BulkheadFull:
            log.append((name, "refused", clock.monotonic()))

    async def main():
        await asyncio.gather(*(asyncio.to_thread(call, name, begins) for name, begins in (("a", 0), ("b", 1), ("c", 2))))

    clock.run(main())
    assert log == [("a", "served", 10.0), ("c", "refused", 17.0), ("b", "served", 20.0)]


def test_tasks_in_line_for_a_bulkhead_wait_in_virtual_time():
    """The same with coroutines."""
    clock, guard = guarded(bulkhead=Bulkhead(1, max_waiting=2, max_wait=15.0))
    log = []

    async def call(name, begins):
        await asyncio.sleep(begins)
        try:
            await guard.acall(asyncio.sleep, 10)
            log.append((name, "served", clock.monotonic()))
        except BulkheadFull:
            log.append((name, "refused", clock.monotonic()))

    async def main():
        await asyncio.gather(call("a", 0), call("b", 1), call("c", 2))

    clock.run(main())
    assert log == [("a", "served", 10.0), ("c", "refused", 17.0), ("b", "served", 20.0)]
