"""The loop in virtual time: what waits is jumped over, what works is waited for, and order and times are those of a real loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from somaresil.testing import StalledError, VirtualClock, VirtualLoop, run
from tests.behaviour.kit import PATIENCE

pytestmark = pytest.mark.timeout(PATIENCE)

SOON = 0.03
"""Real seconds in which a loop that does not hold still would have jumped far."""


def finishes(work, patience=0.6, rescue=lambda: None):
    """Whether ``work`` comes to an end in a thread of its own; what it came to. A thread that hangs is let go by ``rescue``."""
    ended, outcome = threading.Event(), []

    def run_it():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run_it, daemon=True)
    thread.start()
    in_time = ended.wait(patience)
    if not in_time:
        rescue()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return in_time, outcome[0]


# -- timers -------------------------------------------------------------------------------------------------------------------------------


def test_an_hour_of_sleep_takes_no_time():
    """Time jumps to the end of a sleep, exactly, and on the clock as well as on the loop."""
    clock = VirtualClock()

    async def main():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    begin = time.perf_counter()
    assert clock.run(main()) == clock.monotonic() == 3600.0
    assert time.perf_counter() - begin < 20.0
    assert clock.jumps == 1


def test_sleeps_end_in_the_order_of_their_times():
    """Whatever the order in which they began; each wakes at its own time."""
    woken = []

    async def main():
        loop = asyncio.get_running_loop()

        async def nap(seconds):
            await asyncio.sleep(seconds)
            woken.append((seconds, loop.time()))

        await asyncio.gather(*(nap(seconds) for seconds in (5, 1, 3, 2, 4, 1_000, 0.5)))

    run(main())
    assert woken == [(seconds, seconds) for seconds in (0.5, 1, 2, 3, 4, 5, 1_000)]


def test_timers_for_one_moment_all_fire_at_it():
    """In one turn of the loop, with no jump between them; their order is asyncio's business."""
    clock = VirtualClock()
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        for number in range(10):
            loop.call_at(7.0, lambda number=number: fired.append((number, loop.time())))
        await asyncio.sleep(8)

    clock.run(main())
    assert sorted(fired) == [(number, 7.0) for number in range(10)]
    assert clock.jumps == 2


def test_a_sleep_of_nothing_lets_the_others_run_and_no_time_pass():
    """Nor does a negative one."""
    clock = VirtualClock()

    async def main():
        seen = []
        asyncio.get_running_loop().call_soon(seen.append, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(-5)
        return seen

    assert clock.run(main()) == [1]
    assert (clock.monotonic(), clock.jumps) == (0.0, 0)


@pytest.mark.parametrize("start", [0.0, 1e6, 1e7])
def test_timers_are_exact_far_from_the_beginning(start):
    """``call_at`` fires at its moment and never before it, also a million seconds and a quarter of a year in."""
    clock = VirtualClock(monotonic=start)
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        for step in (0.1, 0.25, 1 / 3, 1.0, 1e6, 1e6 + 1e-3):
            when = start + step
            loop.call_at(when, lambda when=when: fired.append((when, loop.time())))
        await asyncio.sleep(2e6)

    clock.run(main())
    assert len(fired) == 6
    for when, now in fired:
        assert when <= now <= when + 1e-8


@pytest.mark.parametrize("start", [2.0**24, 1e9])
def test_timers_fire_further_from_the_beginning(start):
    """More than half a year in, and at readings of the size of a wall clock's, a sleep still ends."""
    clock = VirtualClock(monotonic=start)

    def work():
        clock.run(asyncio.sleep(1 / 3))
        return clock.monotonic()

    in_time, now = finishes(work, 0.15, rescue=lambda: clock.advance(1))
    assert (in_time, now) == (True, pytest.approx(start + 1 / 3, abs=1e-6))


def test_ten_thousand_steps_do_not_drift():
    """The sum of many short sleeps is what floats make of it, and the loop neither stands still nor runs away."""
    clock = VirtualClock(monotonic=1e6)

    async def main():
        for _ in range(10_000):
            await asyncio.sleep(0.1)

    clock.run(main())
    assert clock.monotonic() == pytest.approx(1e6 + 1e3, abs=1e-5)


def test_a_sleep_longer_than_a_select_may_last_is_one_sleep():
    """asyncio caps a wait at a day: a week is still exact."""
    clock = VirtualClock()
    clock.run(asyncio.sleep(7 * 86_400.0))
    assert clock.monotonic() == 7 * 86_400.0


def test_a_cancelled_timer_is_not_waited_for():
    """Time stops at the last one that is due."""
    clock = VirtualClock()

    async def main():
        asyncio.get_running_loop().call_later(1_000, lambda: None).cancel()
        await asyncio.sleep(1)

    clock.run(main())
    assert clock.monotonic() == 1.0


def test_timeouts_strike_at_their_time():
    """``asyncio.timeout``, ``wait_for`` and ``wait``; one that is not reached costs nothing."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(300):
                await asyncio.sleep(3600)
        assert loop.time() == 300.0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 100)
        assert loop.time() == 400.0
        assert await asyncio.wait_for(asyncio.sleep(5, "in time"), 100) == "in time"
        assert loop.time() == 405.0
        done, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1)), asyncio.ensure_future(asyncio.sleep(9))], timeout=3)
        assert (len(done), len(pending), loop.time()) == (1, 1, 408.0)
        for task in pending:
            task.cancel()

    clock.run(main())
    assert clock.monotonic() == 408.0


def test_nested_timeouts_end_the_right_one():
    """The shorter strikes; the longer around it does not notice."""

    async def main():
        async with asyncio.timeout(50) as outer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await asyncio.sleep(20)
            await asyncio.sleep(30)
        return outer.expired(), asyncio.get_running_loop().time()

    assert run(main()) == (False, 40.0)


def test_a_timeout_shortly_after_the_result():
    """A microsecond is enough to be in time."""

    async def main():
        async with asyncio.timeout(10):
            await asyncio.sleep(9.999999)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(9.999999)


def test_a_task_group_ends_with_its_slowest_and_is_cancelled_by_its_first_error():
    """At the exact moment of the error."""

    async def main():
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for seconds in (1, 60, 3):
                group.create_task(asyncio.sleep(seconds))
        assert loop.time() == 60.0
        cancelled = []

        async def long():
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                cancelled.append(loop.time())
                raise

        async def failing():
            await asyncio.sleep(7)
            raise ValueError("now")

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(long())
                group.create_task(failing())
        return cancelled, loop.time()

    assert run(main()) == ([67.0], 67.0)


def test_cancel_scopes_of_anyio_live_in_virtual_time():
    """``move_on_after``, ``fail_after``, ``sleep_until``, task groups, and their idea of now."""

    async def main():
        loop = asyncio.get_running_loop()
        with anyio.move_on_after(100) as scope:
            await anyio.sleep(1e6)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            with anyio.fail_after(5):
                await anyio.sleep_forever()
        await anyio.sleep_until(anyio.current_time() + 10)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 20)
            group.start_soon(anyio.sleep, 30)
        return anyio.current_time(), loop.time()

    assert run(main()) == (145.0, 145.0)


def test_queues_and_conditions_between_tasks():
    """A producer that pauses and a consumer that waits meet at the producer's times."""

    async def main():
        loop, queue, got = asyncio.get_running_loop(), asyncio.Queue(1), []

        async def produce():
            for number in range(5):
                await asyncio.sleep(10)
                await queue.put(number)

        async def consume():
            for _ in range(5):
                got.append((await queue.get(), loop.time()))

        await asyncio.gather(produce(), consume())
        return got

    assert run(main()) == [(number, 10.0 * (number + 1)) for number in range(5)]


# -- threads that work --------------------------------------------------------------------------------------------------------------------


def test_time_stands_still_while_a_thread_works():
    """A timer that is due long before does not fire, however long the thread takes; then both go on."""
    clock = VirtualClock()
    order = []

    async def main():
        release = threading.Event()
        loop = asyncio.get_running_loop()
        loop.call_later(1, order.append, "timer")
        working = asyncio.create_task(asyncio.to_thread(release.wait, PATIENCE))
        threading.Timer(SOON, release.set).start()
        assert await working
        order.append(("thread", loop.time()))
        await asyncio.sleep(2)

    clock.run(main())
    assert order == [("thread", 0.0), "timer"]


def test_a_pool_of_ones_own_is_waited_for():
    """``run_in_executor`` too, and context variables go along with ``to_thread``."""
    variable = contextvars.ContextVar("variable", default="outer")

    async def main():
        loop, release = asyncio.get_running_loop(), threading.Event()
        variable.set("inner")
        with ThreadPoolExecutor(1) as pool:
            first = loop.run_in_executor(pool, release.wait, PATIENCE)
            second = loop.run_in_executor(pool, threading.current_thread)
            threading.Timer(SOON, release.set).start()
            async with asyncio.timeout(0.001):
                assert await first
                assert (await second).name.startswith("ThreadPoolExecutor")
        return await asyncio.to_thread(variable.get), loop.time()

    assert run(main()) == ("inner", 0.0)


def test_what_a_thread_raises_arrives():
    """And nothing is waited for after that."""

    def broken():
        raise LookupError("in a thread")

    async def main():
        with pytest.raises(LookupError, match="in a thread"):
            await asyncio.to_thread(broken)
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert run(main()) == 100.0


def test_many_threads_at_once_never_overtake_a_timeout():
    """A limit of a virtual millisecond is not reached by work that takes real time, in pools of all sizes."""

    async def main():
        for _ in range(20):
            async with asyncio.timeout(0.001):
                await asyncio.gather(*(asyncio.to_thread(sum, range(50)) for _ in range(12)))
        return asyncio.get_running_loop().time()

    assert run(main()) == 0.0


def test_a_result_on_its_way_is_waited_for():
    """Until the loop has it the job is not over: a pool may do something after the function has returned."""
    clock = VirtualClock()

    class Accounting(ThreadPoolExecutor):
        def submit(self, function, /, *args, **kwargs):
            def counted():
                result = function(*args, **kwargs)
                threading.Event().wait(SOON)
                return result

            return super().submit(counted)

    async def main():
        with Accounting(1) as pool:
            async with asyncio.timeout(100):
                await asyncio.get_running_loop().run_in_executor(pool, int)

    clock.run(main())
    assert clock.monotonic() == 0.0


def test_a_call_from_a_thread_in_the_last_moment_is_not_jumped_over():
    """What a thread hands to the loop after it has polled, and before it looks who is at work, runs before time moves."""
    seen = []

    class Watched(VirtualClock):
        armed = False

        @property
        def held(self):
            if self.armed:
                self.armed = False
                caller = threading.Thread(target=self._loop.call_soon_threadsafe, args=(lambda: seen.append(self.monotonic()),))
                caller.start()
                caller.join()
            return super().held

    clock = Watched()

    async def main():
        clock.armed = True
        await asyncio.sleep(100)

    clock.run(main())
    assert seen == [0.0]


def test_a_pool_smaller_than_its_jobs_that_sleep_on_the_clock():
    """Those in line begin when those before them have slept; nothing stalls and the times are those of a real pool."""
    clock = VirtualClock(stall=0.2)
    ended = []

    def nap(number):
        clock.sleep(10)
        ended.append((number, clock.monotonic()))

    async def main():
        with ThreadPoolExecutor(2) as pool:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(pool, nap, number) for number in range(6)))

    clock.run(main())
    assert sorted(ended) == [(number, 10.0 * (number // 2 + 1)) for number in range(6)]


def test_threads_of_to_thread_sleep_among_tasks():
    """They and the tasks interleave by virtual time."""
    clock = VirtualClock()
    log = []

    def thread(name, step):
        for _ in range(3):
            clock.sleep(step)
            log.append((clock.monotonic(), name))

    async def task(name, step):
        for _ in range(3):
            await asyncio.sleep(step)
            log.append((clock.monotonic(), name))

    async def main():
        await asyncio.gather(asyncio.to_thread(thread, "t1", 10), task("a", 4), asyncio.to_thread(thread, "t2", 7), task("b", 25))

    clock.run(main())
    times = [(10 * n, "t1") for n in (1, 2, 3)] + [(7 * n, "t2") for n in (1, 2, 3)]
    times += [(4 * n, "a") for n in (1, 2, 3)] + [(25 * n, "b") for n in (1, 2, 3)]
    assert log == sorted(times)


def test_plain_threads_sleep_among_tasks():
    """Nobody has told the loop of them; each wakes at its own time, and time waits for it until it sleeps again or is over."""
    clock = VirtualClock()
    log = []

    def thread(step):
        for _ in range(3):
            clock.sleep(step)
            log.append(clock.monotonic())

    async def main():
        others = [threading.Thread(target=thread, args=(step,)) for step in (10, 7, 3.5)]
        for other in others:
            other.start()
        for _ in range(3):
            await asyncio.sleep(4)
            log.append(clock.monotonic())
        await asyncio.sleep(100)
        return others

    for other in clock.run(main()):
        other.join(PATIENCE)
    assert log == [3.5, 4, 7, 7, 8, 10, 10.5, 12, 14, 20, 21, 30]


def test_a_plain_thread_that_runs_a_function_of_c():
    """It has no frame of its own, and works all the same."""
    clock = VirtualClock()

    async def main():
        thread = threading.Thread(target=time.sleep, args=(SOON,))
        thread.start()
        await asyncio.sleep(100)
        return thread.is_alive()

    assert not clock.run(main())


def test_a_thread_that_calls_into_the_loop():
    """``call_soon_threadsafe`` from a thread that sleeps on the clock runs at the thread's time."""
    clock = VirtualClock()
    seen = []

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def outside():
            # The loop is closed before its time when the test fails.
            with contextlib.suppress(RuntimeError):
                for _ in range(3):
                    clock.sleep(5)
                    loop.call_soon_threadsafe(lambda: seen.append(loop.time()))
                    clock.sleep(5)
                loop.call_soon_threadsafe(done.set)

        thread = threading.Thread(target=outside)
        thread.start()
        await done.wait()
        thread.join(PATIENCE)
        return loop.time()

    assert clock.run(main()) == 30.0
    assert seen == [5.0, 15.0, 25.0]


def test_a_cancelled_job_that_has_not_begun_is_not_waited_for():
    """It never will begin."""
    clock = VirtualClock(stall=0.2)
    begun = []

    async def main():
        loop, release = asyncio.get_running_loop(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            first = loop.run_in_executor(pool, release.wait, PATIENCE)
            second = loop.run_in_executor(pool, begun.append, 1)
            await asyncio.sleep(0)
            assert second.cancel()
            # The pool hears of it in the next turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            release.set()
            await first
            await asyncio.sleep(100)

    clock.run(main())
    assert (clock.monotonic(), begun) == (100.0, [])


def test_a_cancelled_job_that_runs_is_waited_for():
    """Its thread still works, and time does not run away from it."""
    clock = VirtualClock()
    order = []

    async def main():
        release, entered = threading.Event(), threading.Event()

        def work():
            entered.set()
            release.wait(PATIENCE)
            order.append(("thread", clock.monotonic()))

        task = asyncio.create_task(asyncio.to_thread(work))
        while not entered.is_set():
            await asyncio.sleep(0)
        task.cancel()
        threading.Timer(SOON, release.set).start()
        await asyncio.sleep(10)
        order.append(("task", clock.monotonic()))

    clock.run(main())
    assert order == [("thread", 0.0), ("task", 10.0)]


def test_a_process_pool_is_waited_for():
    """Its jobs are pickled as they are; timers stand still meanwhile."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            async with asyncio.timeout(0.001):
                other = await loop.run_in_executor(pool, os.getpid)
        await asyncio.sleep(10)
        return other

    assert clock.run(main()) != os.getpid()
    assert clock.monotonic() == 10.0


def test_a_pool_that_refuses_a_job_leaves_nothing_behind():
    """The error is the caller's, and time goes on."""
    clock = VirtualClock(stall=0.1)

    async def main():
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            asyncio.get_running_loop().run_in_executor(pool, int)
        await asyncio.sleep(10)

    clock.run(main())
    assert clock.monotonic() == 10.0


def test_no_default_executor_after_its_shutdown():
    """As asyncio's own: whoever comes later is refused."""

    async def main():
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="shutdown"):
            await loop.run_in_executor(None, int)

    run(main())


def test_a_job_that_waits_for_its_own_loop():
    """``run_coroutine_threadsafe(...).result()`` in a thread of the pool: it waits for the loop, so the loop must not wait for it."""
    clock = VirtualClock(stall=0.1)

    async def main():
        loop = asyncio.get_running_loop()

        def ask():
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(50, "answer"), loop).result(PATIENCE)

        return await asyncio.to_thread(ask)

    assert clock.run(main()) == "answer"
    assert clock.monotonic() == 50.0


def test_a_worker_of_anyio_that_calls_back_into_its_loop():
    """``anyio.from_thread.run`` of something that sleeps, as plain dependencies of FastAPI do it."""
    clock = VirtualClock(stall=0.1)

    async def main():
        return await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(asyncio.sleep, 50, "answer"))

    assert clock.run(main()) == "answer"
    assert clock.monotonic() == 50.0


@pytest.mark.parametrize("how", ["result", "map", "wait", "join"])
def test_a_job_that_waits_for_threads_of_its_own(how):
    """They sleep on the clock, as a client with a pool inside does when ``time.sleep`` is patched: the job waits, it does not work."""
    clock = VirtualClock(stall=0.1)

    def job():
        if how == "join":
            threads = [threading.Thread(target=clock.sleep, args=(seconds,)) for seconds in (30, 10, 20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return
        with ThreadPoolExecutor(3) as pool:
            if how == "result":
                pool.submit(clock.sleep, 30).result()
            elif how == "map":
                list(pool.map(clock.sleep, (30, 10, 20)))
            else:
                wait([pool.submit(clock.sleep, seconds) for seconds in (30, 10, 20)])

    async def main():
        async with asyncio.timeout(40):
            await asyncio.to_thread(job)
        return clock.monotonic()

    try:
        assert clock.run(main()) == 30.0
    finally:
        clock.advance(100)


def test_a_job_that_waits_for_threads_of_its_own_that_work():
    """Their work is waited for in real time, in a pool of threads and in a thread by itself."""

    def work():
        end = time.perf_counter() + SOON
        while time.perf_counter() < end:
            pass
        return "worked"

    def job():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    async def main():
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(job)

    assert run(main()) == "worked"


def test_a_job_that_waits_for_a_loop_in_real_time():
    """A coroutine that it gave to somebody else's loop takes its real time, and is waited for."""
    theirs = asyncio.new_event_loop()
    thread = threading.Thread(target=theirs.run_forever)
    thread.start()

    async def main():
        def job():
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(SOON, "slept"), theirs).result(PATIENCE)

        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(job)

    try:
        assert run(main()) == "slept"
    finally:
        theirs.call_soon_threadsafe(theirs.stop)
        thread.join(PATIENCE)
        theirs.close()


def test_a_job_that_waits_for_another_process():
    """A pool of processes inside a thread: nothing of it runs in a thread of ours, and it is waited for."""

    def job():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(os.getpid).result(PATIENCE)

    async def main():
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(job)

    assert run(main()) != os.getpid()


def test_a_worker_that_calls_a_plain_function_of_its_loop():
    """``anyio.from_thread.run_sync`` needs no time, and gets its answer."""
    clock = VirtualClock()

    async def main():
        return await anyio.to_thread.run_sync(lambda: anyio.from_thread.run_sync(asyncio.get_running_loop))

    assert isinstance(clock.run(main()), VirtualLoop)


def test_a_worker_that_calls_through_a_portal():
    """It waits for what the loop does, so time goes on."""
    clock = VirtualClock()

    async def main():
        async with anyio.from_thread.BlockingPortal() as portal:
            return await anyio.to_thread.run_sync(lambda: (portal.call(anyio.sleep, 7), clock.monotonic()))

    assert clock.run(main()) == (None, 7.0)


def test_workers_of_anyio_are_waited_for():
    """Timers of anyio and asyncio stand still while they work."""

    async def main():
        release = threading.Event()
        threading.Timer(SOON, release.set).start()
        with anyio.fail_after(0.001):
            assert await anyio.to_thread.run_sync(release.wait, PATIENCE)
        return anyio.current_time()

    assert run(main()) == 0.0


def test_a_limiter_smaller_than_its_jobs_that_sleep_on_the_clock():
    """Those in line behind it do not count as work that has not begun."""
    clock = VirtualClock(stall=0.2)
    ended = []

    def nap():
        clock.sleep(10)
        ended.append(clock.monotonic())

    async def main():
        limiter = anyio.CapacityLimiter(2)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(lambda: anyio.to_thread.run_sync(nap, limiter=limiter))

    clock.run(main())
    assert ended == [10.0, 10.0, 20.0, 20.0, 30.0]


def test_a_limiter_that_a_task_has_borrowed():
    """A thread waits in line behind a task that sleeps: nothing works, so time goes on."""
    clock = VirtualClock(stall=0.1)

    async def main():
        limiter = anyio.CapacityLimiter(1)

        async def keep():
            async with limiter:
                await anyio.sleep(10)

        async with anyio.create_task_group() as group:
            group.start_soon(keep)
            await anyio.sleep(1)
            await anyio.to_thread.run_sync(int, limiter=limiter)

    clock.run(main())
    assert clock.monotonic() == 10.0


def test_limiters_do_not_count_one_anothers_threads():
    """Sleepers of one limiter say nothing about the line in front of another."""
    clock = VirtualClock(stall=0.2)

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.to_thread.run_sync, clock.sleep, 50)
            await anyio.sleep(1)
            limiter = anyio.CapacityLimiter(1)
            for _ in range(50):
                assert await anyio.to_thread.run_sync(clock.monotonic, limiter=limiter) == 1.0

    clock.run(main())
    assert clock.monotonic() == 50.0


@pytest.mark.parametrize("how", ["pool", "join"])
def test_a_loop_whose_thread_is_blocked_by_one_that_sleeps_on_the_clock(how):
    """Leaving ``with ThreadPoolExecutor()`` or joining a thread blocks the loop: time goes on in the threads, as it would for real."""
    clock = VirtualClock(stall=0.1)

    async def main():
        if how == "pool":
            with ThreadPoolExecutor(1) as pool:
                asyncio.get_running_loop().run_in_executor(pool, clock.sleep, 10)
        else:
            thread = threading.Thread(target=clock.sleep, args=(10,))
            thread.start()
            thread.join()
        return clock.monotonic()

    assert finishes(lambda: clock.run(main()), 0.2, rescue=lambda: clock.advance(100)) == (True, 10.0)


# -- shutdown -----------------------------------------------------------------------------------------------------------------------------


def test_the_default_executor_is_shut_down_with_the_loop():
    """Its threads are gone, and work that was left behind was waited for."""
    done = []

    async def main():
        await asyncio.to_thread(int)
        entered = threading.Event()

        def late():
            entered.set()
            threading.Event().wait(SOON)
            done.append(threading.current_thread())

        task = asyncio.create_task(asyncio.to_thread(late))
        while not entered.is_set():
            await asyncio.sleep(0)
        task.cancel()

    run(main())
    assert len(done) == 1
    assert not done[0].is_alive()


def test_a_thread_that_sleeps_on_the_clock_is_waited_for_at_the_end():
    """The shutdown of the executor goes on with virtual time, as a real one would with real time."""
    clock = VirtualClock(stall=0.1)

    async def main():
        task = asyncio.create_task(asyncio.to_thread(clock.sleep, 50))
        await asyncio.sleep(1)
        task.cancel()

    try:
        clock.run(main())
    finally:
        clock.advance(100)
    assert clock.monotonic() >= 150.0
    assert clock.jumps >= 2


def test_async_generators_are_closed_at_the_end():
    """One that is left in the middle ends with its loop, and may still sleep."""
    clock = VirtualClock()
    closed = []
    kept = []

    async def numbers():
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(5)
            closed.append(clock.monotonic())

    async def main():
        kept.append(numbers())
        async for number in kept[0]:
            if number == 3:
                break

    clock.run(main())
    assert closed == [8.0]


def test_tasks_that_are_left_are_cancelled_at_the_end():
    """They may take virtual time for it."""
    clock = VirtualClock()
    ended = []

    async def left():
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(3)
            ended.append(clock.monotonic())

    async def main():
        task = asyncio.create_task(left())
        await asyncio.sleep(1)
        assert not task.done()

    clock.run(main())
    assert ended == [4.0]


def test_an_error_of_the_main_coroutine_comes_out():
    """As from ``asyncio.run``, and the clock is free again."""
    clock = VirtualClock()

    async def main():
        await asyncio.sleep(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        clock.run(main())
    assert clock.run(asyncio.sleep(1, "again")) == "again"
    assert clock.monotonic() == 2.0


def test_closing_a_loop_frees_its_clock():
    """Time goes on where it was; a closed loop may be closed again."""
    clock = VirtualClock()
    for expected in (10.0, 20.0):
        loop = clock.new_loop()
        loop.run_until_complete(asyncio.sleep(10))
        loop.close()
        loop.close()
        assert clock.monotonic() == expected


def test_a_second_loop_on_one_clock_is_refused():
    """It says why, leaves the first alone, and leaves no socket open."""
    clock = VirtualClock()
    loop = clock.new_loop()
    try:
        with pytest.raises(RuntimeError, match="another loop runs on this VirtualClock"):
            clock.new_loop()
        gc.collect()
        loop.run_until_complete(asyncio.sleep(10))
        assert clock.monotonic() == 10.0
    finally:
        loop.close()


def test_closing_an_old_loop_does_not_free_the_clock_of_a_new_one():
    """``close`` may be called twice, also by somebody who comes late."""
    clock = VirtualClock()
    old = clock.new_loop()
    old.close()
    new = clock.new_loop()
    old.close()
    with pytest.raises(RuntimeError, match="another loop"):
        clock.new_loop()
    new.close()


def test_a_runner_on_a_clock():
    """Several runs on one loop; what stands between them waits on the same clock."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=clock.new_loop) as runner:
        runner.run(asyncio.sleep(10))
        runner.run(asyncio.sleep(10))
        clock.advance(5)
        assert runner.get_loop().time() == 25.0
    assert clock.monotonic() == 25.0


@pytest.mark.parametrize("wait", [lambda clock: clock.sleep(10), lambda clock: clock.wait(threading.Event(), 10)], ids=["sleep", "wait"])
def test_code_between_two_runs_may_sleep(wait):
    """A loop that is open and does not run drives nothing: plain code, of a fixture say, moves time on by itself."""
    clock = VirtualClock(stall=0.1)

    def work():
        with asyncio.Runner(loop_factory=clock.new_loop) as runner:
            runner.run(asyncio.sleep(1))
            wait(clock)
            runner.run(asyncio.sleep(1))
        return clock.monotonic()

    assert finishes(work, 0.2, rescue=lambda: clock.advance(100)) == (True, 12.0)


def test_an_idle_loop_in_a_thread_waits_for_work():
    """``run_forever`` with nothing to do is no stall while somebody may call in from outside."""
    clock = VirtualClock()
    loop = clock.new_loop()

    def serve():
        try:
            loop.run_forever()
        except StalledError as error:
            stalls.append(error)

    stalls = []
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        thread.join(SOON)
        assert not stalls
        answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(3600, "from afar"), loop)
        assert answer.result(PATIENCE) == "from afar"
        assert clock.monotonic() == 3600.0
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


def test_a_loop_in_a_thread():
    """Its main task listens to what comes from outside, with its time limit in virtual time."""
    clock = VirtualClock()
    ended = []

    async def main():
        await asyncio.sleep(10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 50)
        await asyncio.to_thread(clock.sleep, 5)
        ended.append(asyncio.get_running_loop().time())

    thread = threading.Thread(target=clock.run, args=(main(),))
    thread.start()
    thread.join(PATIENCE)
    assert ended == [65.0]


def test_two_loops_in_two_threads_on_two_clocks():
    """Each has its own time, and neither waits for the other's."""
    clocks = VirtualClock(), VirtualClock()
    ended = []

    async def main(step):
        for _ in range(50):
            await asyncio.sleep(step)
        ended.append(asyncio.get_running_loop().time())

    threads = [threading.Thread(target=clock.run, args=(main(step),)) for clock, step in zip(clocks, (1, 3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(ended) == [50.0, 150.0]


def test_a_loop_inside_of_a_running_one_is_refused():
    """As asyncio does it: at once, and with nothing left behind; the other clock is free."""
    other = VirtualClock()

    async def main():
        coroutine = asyncio.sleep(1)
        try:
            with pytest.raises(RuntimeError, match="running"):
                other.run(coroutine)
        finally:
            coroutine.close()
        await asyncio.sleep(5)
        return asyncio.get_running_loop().time()

    assert run(main()) == 5.0
    gc.collect()
    other.run(asyncio.sleep(1))
    assert other.monotonic() == 1.0


def test_a_virtual_loop_inside_a_thread_of_another():
    """Work in a thread that itself runs a loop on a clock of its own."""

    def inner():
        clock = VirtualClock()
        clock.run(asyncio.sleep(100))
        return clock.monotonic()

    async def main():
        return await asyncio.to_thread(inner), asyncio.get_running_loop().time()

    assert run(main()) == (100.0, 0.0)


# -- modes of asyncio ---------------------------------------------------------------------------------------------------------------------


def test_debug_mode(caplog):
    """asyncio's debug mode works, and blames a task that sleeps on the clock in the loop for the time that it blocked."""
    clock = VirtualClock()

    async def main():
        await asyncio.to_thread(int)
        await asyncio.sleep(10)
        clock.sleep(5)
        await asyncio.sleep(0)

    with asyncio.Runner(debug=True, loop_factory=clock.new_loop) as runner:
        runner.run(main())
    assert clock.monotonic() == 15.0
    assert "took 5.000 seconds" in caplog.text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks():
    """Tasks that begin at once keep order and times."""
    log = []

    async def step(number):
        log.append(number)
        await asyncio.sleep(10 - number)
        log.append((number, asyncio.get_running_loop().time()))

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        tasks = [asyncio.create_task(step(number)) for number in range(3)]
        assert log == [0, 1, 2]
        await asyncio.gather(*tasks)

    run(main())
    assert log[3:] == [(2, 8.0), (1, 9.0), (0, 10.0)]


def test_a_representation_that_says_where_the_clock_stands():
    """For messages of debuggers and asyncio."""
    clock = VirtualClock()

    async def main():
        await asyncio.sleep(2.5)
        return repr(asyncio.get_running_loop())

    assert clock.run(main()) == "<VirtualLoop at 2.5 s running=True closed=False>"
    assert repr(clock) == "<VirtualClock 2.5 s, 1 jumps>"


def test_a_task_that_never_lets_go_is_not_overtaken():
    """While something is ready time stands still, however many turns it takes."""
    clock = VirtualClock()

    async def main():
        fired = []
        asyncio.get_running_loop().call_later(0.001, fired.append, 1)
        for _ in range(2_000):
            await asyncio.sleep(0)
        return fired

    assert clock.run(main()) == []
    assert clock.monotonic() == 0.0


# -- sockets and processes ----------------------------------------------------------------------------------------------------------------


def test_a_real_server_on_the_loopback():
    """Talk takes no virtual time, pauses take no real time, and the limits of both sides hold."""
    clock = VirtualClock()

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            async with asyncio.timeout(30):
                for _ in range(20):
                    writer.write(b"x")
                    assert await reader.readexactly(1) == b"x"
                    await asyncio.sleep(1)
            writer.close()
            await writer.wait_closed()

    clock.run(main())
    assert clock.monotonic() == 20.0


def test_a_server_that_does_not_answer():
    """The client's time runs out in virtual time, with the connection open."""
    clock = VirtualClock()

    async def main():
        gone = asyncio.Event()

        async def silent(reader, writer):
            await gone.wait()
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 600)
            gone.set()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    clock.run(main())
    assert clock.monotonic() == 600.0


def test_two_tasks_talk_over_a_pair_of_sockets():
    """``sock_recv`` and ``sock_sendall`` with pauses between."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.setblocking(False)

            async def answer():
                for _ in range(5):
                    data = await loop.sock_recv(there, 10)
                    await asyncio.sleep(2)
                    await loop.sock_sendall(there, data.upper())

            task = asyncio.create_task(answer())
            for _ in range(5):
                await loop.sock_sendall(here, b"x")
                assert await loop.sock_recv(here, 10) == b"X"
            await task

    clock.run(main())
    assert clock.monotonic() == 10.0


def test_names_are_looked_up_in_a_thread_that_is_waited_for():
    """``getaddrinfo`` of the loop is work like any other."""

    async def main():
        async with asyncio.timeout(0.001):
            return await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    assert run(main())[0][4] == ("127.0.0.1", 80)


def test_a_child_process_in_a_pause():
    """While the clock is paused a process takes its real time, and timers stand still."""
    clock = VirtualClock()
    fired = []

    async def main():
        asyncio.get_running_loop().call_later(1, fired.append, 1)
        with clock.paused():
            process = await asyncio.create_subprocess_exec(sys.executable, "-Ic", "print('child')", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert (fired, clock.monotonic()) == ([], 0.0)
        await asyncio.sleep(2)
        return out

    assert clock.run(main()) == b"child\n"
    assert fired == [1]


def test_pauses_may_be_nested():
    """Time goes on when the last has ended."""
    clock = VirtualClock()

    async def main():
        loop = asyncio.get_running_loop()
        release = loop.create_future()
        threading.Timer(SOON, loop.call_soon_threadsafe, (release.set_result, None)).start()
        with clock.paused():
            with clock.paused():
                pass
            sleeper = asyncio.create_task(asyncio.sleep(10))
            await release
            assert not sleeper.done()
        await sleeper

    clock.run(main())
    assert clock.monotonic() == 10.0


def test_nothing_sleeps_through_a_pause():
    """A pause has no end that time could bring: a sleep inside it stalls, and says so."""
    clock = VirtualClock(stall=0.05)

    async def main():
        with clock.paused():
            await asyncio.sleep(10)

    with pytest.raises(StalledError):
        clock.run(main())
    assert clock.monotonic() == 0.0
    clock.run(asyncio.sleep(10))
    assert clock.monotonic() == 10.0


# -- web frameworks -----------------------------------------------------------------------------------------------------------------------


def test_a_stream_of_events_through_an_app_in_process():
    """A thousand virtual seconds of server-sent events by httpx and Starlette."""
    clock = VirtualClock()

    async def events(_request):
        async def lines():
            for number in range(100):
                yield f"data: {number}\n\n"
                await asyncio.sleep(10)

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def main():
        app = Starlette(routes=[Route("/events", events)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            answer = await client.get("/events")
        return answer.text.count("data:")

    assert clock.run(main()) == 100
    assert clock.monotonic() == 1000.0


def test_plain_endpoints_sleep_on_the_clock():
    """FastAPI runs them in anyio's threads: they and a slow coroutine endpoint live in one time."""
    clock = VirtualClock()
    app = FastAPI()

    @app.get("/plain")
    def plain() -> float:
        clock.sleep(30)
        return clock.monotonic()

    @app.get("/slow")
    async def slow() -> float:
        await asyncio.sleep(20)
        return clock.monotonic()

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            answers = await asyncio.gather(client.get("/plain"), client.get("/slow"), client.get("/plain"))
        return [answer.json() for answer in answers]

    assert clock.run(main()) == [30.0, 20.0, 30.0]


def test_a_plain_endpoint_that_works_for_real():
    """The client's virtual limit does not run out meanwhile."""
    release = threading.Event()

    def plain(_request):
        assert release.wait(PATIENCE)
        return PlainTextResponse("done")

    async def main():
        app = Starlette(routes=[Route("/", plain)])
        threading.Timer(SOON, release.set).start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client, asyncio.timeout(0.001):
            return (await client.get("/")).text

    assert run(main()) == "done"


# -- plugins of pytest --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[pytest.param(("asyncio", {"loop_factory": VirtualClock().new_loop}), id="virtual")])
def anyio_backend(request):
    """anyio's plugin with a virtual loop."""
    return request.param


@pytest.mark.anyio
@pytest.mark.parametrize("turn", [1, 2])
async def test_the_plugin_of_anyio(anyio_backend_name, turn):
    """A loop factory is all it needs, for one test after another on one clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    before = anyio.current_time()
    await anyio.sleep(3600)
    await anyio.to_thread.run_sync(int)
    assert anyio.current_time() == before + 3600.0


@pytest.mark.virtual_time
async def test_the_marker_runs_a_coroutine_in_virtual_time(virtual_time):
    """On the clock of the fixture."""
    await asyncio.sleep(3600)
    assert virtual_time.monotonic() == asyncio.get_running_loop().time() == 3600.0
