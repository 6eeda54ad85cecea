"""What stands in place of a test that hangs: an error that says who waits, and where."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import linecache
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from somaresil.testing import StalledError, VirtualClock, schedule
from tests.behaviour.kit import PATIENCE

pytestmark = pytest.mark.timeout(PATIENCE)

STALL = 0.06
HERE = Path(__file__).name


def stall_of(main, clock=None, **options):
    """The error that ``main()`` ends with."""
    with pytest.raises(StalledError) as caught:
        (clock or VirtualClock(**{"stall": STALL} | options)).run(main())
    return caught.value


def line_of(function, text):
    """The number of the line of ``function`` that contains ``text``."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


async def forever():
    """Wait for what nobody does."""
    await asyncio.Event().wait()


# -- at once ------------------------------------------------------------------------------------------------------------------------------


def test_nothing_pending_stalls_at_once():
    """With no timer, thread or socket there is nothing to wait for, whatever ``stall`` says."""
    begin = time.perf_counter()
    error = stall_of(forever, stall=3_600.0)
    assert time.perf_counter() - begin < 20.0
    assert error.why == "there is no timer, no thread at work and no open socket"
    assert error.at == 0.0


def test_it_names_task_file_line_function_and_code():
    """Enough to find the line without a debugger."""

    async def main():
        await asyncio.sleep(12)
        asyncio.current_task().set_name("the culprit")
        await asyncio.Event().wait()

    error = stall_of(main)
    (one,) = error.waiting
    assert one.what == "task 'the culprit'"
    assert one.file == __file__
    assert one.line == line_of(main, "Event().wait()")
    assert one.function.endswith("main")
    assert one.code == "await asyncio.Event().wait()"
    assert one.inside == "Event.wait"
    text = str(error)
    assert text.startswith("virtual time stalled at 12 s: ")
    assert f"task 'the culprit' at {__file__}:{one.line} in " in text
    assert text.endswith("await asyncio.Event().wait() (in Event.wait)")


def test_of_nested_coroutines_the_innermost_line_of_a_user():
    """Not the one that has called it."""

    async def outer():
        await middle()

    async def middle():
        async with contextlib.AsyncExitStack():
            await forever()

    (one,) = stall_of(outer).waiting
    assert one.code == "await asyncio.Event().wait()"
    assert one.line == line_of(forever, "await")


def test_what_a_library_waits_in_is_told_beside_the_line():
    """For a queue it is the queue's get."""

    async def main():
        await asyncio.Queue().get()

    (one,) = stall_of(main).waiting
    assert (one.code, one.inside) == ("await asyncio.Queue().get()", "Queue.get")


def test_a_bare_future_is_the_line_itself():
    """There is nothing inside it."""

    async def main():
        await asyncio.get_running_loop().create_future()

    (one,) = stall_of(main).waiting
    assert (one.code, one.inside) == ("await asyncio.get_running_loop().create_future()", "")


def test_awaitable_objects_lead_on():
    """A generator behind ``__await__`` is looked through."""

    class Answer:
        def __await__(self):
            yield from asyncio.get_running_loop().create_future()

    async def main():
        await Answer()

    (one,) = stall_of(main).waiting
    assert one.code == "yield from asyncio.get_running_loop().create_future()"


def _through_async_for(generator):
    async def main():
        async for _ in generator():
            pass

    return main


def _through_anext(generator):
    async def main():
        await anext(generator(), None)

    return main


def _through_aclose(generator):
    async def main():
        suspended = generator()
        await suspended.asend(None)
        await suspended.aclose()

    return main


@pytest.mark.parametrize("way", [_through_async_for, _through_anext], ids=["async for", "anext"])
def test_inside_of_an_async_generator(way):
    """The line in it that waits, not the loop over it."""

    async def numbers():
        await forever()
        yield 1

    (one,) = stall_of(way(numbers)).waiting
    assert one.code == "await asyncio.Event().wait()"
    assert one.line == line_of(forever, "await")


def test_inside_of_the_end_of_an_async_generator():
    """Its ``finally`` may be what waits."""

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.Event().wait()

    (one,) = stall_of(_through_aclose(numbers)).waiting
    assert one.line == line_of(numbers, "Event().wait()")


def test_an_async_generator_that_is_waited_for_is_at_least_named_by_its_loop():
    """The task, its file and a line of the user are never missing."""

    async def numbers():
        await forever()
        yield 1

    (one,) = stall_of(_through_async_for(numbers)).waiting
    assert one.file == __file__
    assert one.code


def test_every_task_of_a_gather():
    """The one that gathers and those that are gathered, each with its line."""

    async def main():
        await asyncio.gather(*(asyncio.create_task(forever(), name=f"child {number}") for number in range(3)))

    error = stall_of(main)
    by_name = {one.what: one for one in error.waiting}
    assert len(by_name) == 4
    for number in range(3):
        assert by_name[f"task 'child {number}'"].line == line_of(forever, "await")
    (parent,) = [one for name, one in by_name.items() if "child" not in name]
    assert parent.code.startswith("await asyncio.gather(")


def test_every_task_of_task_groups():
    """asyncio's and anyio's: the parent is named by the line of its block."""

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(forever(), name="of asyncio")
            async with anyio.create_task_group() as other:
                other.start_soon(forever, name="of anyio")

    names = [one.what for one in stall_of(main).waiting]
    assert {"task 'of asyncio'", "task 'of anyio'"} < set(names)
    assert len(names) == 3


def test_two_tasks_that_wait_for_one_another():
    """A deadlock shows both sides."""

    async def main():
        one, other = asyncio.Lock(), asyncio.Lock()

        async def first():
            async with one:
                await asyncio.sleep(1)
                async with other:
                    pass

        async def second():
            async with other:
                await asyncio.sleep(1)
                async with one:
                    pass

        await asyncio.gather(first(), second())

    error = stall_of(main)
    assert error.at == 1.0
    assert {"async with other:", "async with one:"} <= {one.code for one in error.waiting}


def test_many_tasks_are_listed_up_to_a_limit():
    """All are in ``waiting``; the text says how many more there are."""

    async def main():
        await asyncio.gather(*(asyncio.create_task(forever(), name=f"child {number:02}") for number in range(30)))

    error = stall_of(main)
    assert len(error.waiting) == 31
    text = str(error)
    assert text.count("\n  task ") == 20
    assert "  and 11 more" in text


def test_tasks_that_are_done_are_no_part_of_it():
    """Only who waits is named."""

    async def main():
        done = asyncio.create_task(asyncio.sleep(0), name="done")
        await done
        await forever()

    assert [one.what for one in stall_of(main).waiting if "done" in one.what] == []


def test_code_that_cannot_be_read_is_no_problem():
    """A line of generated code has a number and no text."""
    scope = {"asyncio": asyncio}
    exec(compile("async def main():\n    await asyncio.Event().wait()\n", "<generated>", "exec"), scope)
    linecache.clearcache()
    error = stall_of(scope["main"])
    assert (error.waiting[0].file, error.waiting[0].line, error.waiting[0].code) == ("<generated>", 2, "")
    assert "<generated>:2 in main: ? (in Event.wait)" in str(error)


def test_the_error_can_be_caught_with_others():
    """It is a ``RuntimeError`` and no ``TimeoutError``: retries on time-outs do not take it for one."""
    error = stall_of(forever)
    assert isinstance(error, RuntimeError)
    assert not isinstance(error, TimeoutError | OSError)


# -- after some real time -----------------------------------------------------------------------------------------------------------------


def test_a_thread_that_really_sleeps():
    """Time stands still for it, so a timer never comes: after ``stall`` real seconds the job and its line are named."""

    def job():
        time.sleep(0.2)

    async def main():
        async with asyncio.timeout(5):
            await asyncio.to_thread(job)

    begin = time.perf_counter()
    error = stall_of(main)
    assert time.perf_counter() - begin >= STALL
    assert error.why == f"a thread works for this loop, but nothing has happened for {STALL:g} s"
    (thread,) = [one for one in error.waiting if one.what.startswith("thread")]
    assert (thread.file, thread.line, thread.code) == (__file__, line_of(job, "sleep"), "time.sleep(0.2)")
    assert thread.function.endswith("job")
    assert [one.code for one in error.waiting if one.what.startswith("task")] == ["await asyncio.to_thread(job)"]
    assert str(error).endswith("let it sleep on the clock, or use VirtualClock.patched().")


def test_a_job_that_is_a_function_of_c():
    """It has no frame; the name of the function stands for it."""

    async def main():
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.15)

    (thread,) = [one for one in stall_of(main).waiting if one.what.startswith("thread")]
    assert thread.code == "sleep"
    assert str(thread).endswith("in a pool: sleep")


def test_a_worker_of_anyio_that_really_sleeps():
    """Named as well."""

    def job():
        time.sleep(0.15)

    async def main():
        await anyio.to_thread.run_sync(job)

    (thread,) = [one for one in stall_of(main).waiting if one.what.startswith("thread")]
    assert thread.code == "time.sleep(0.15)"


@pytest.mark.parametrize("kind", ["lock", "event"])
def test_a_thread_that_waits_for_one_that_sleeps_on_the_clock(kind):
    """From outside it looks like one that works, so time stands still for it: the error names both lines, and nothing hangs."""
    clock = VirtualClock(stall=STALL)
    lock, event, held = threading.Lock(), threading.Event(), threading.Event()

    def sleeper():
        with lock:
            held.set()
            clock.sleep(10)

    def waiter():
        held.wait(PATIENCE)
        if kind == "lock":
            lock.acquire()
            lock.release()
        else:
            event.wait(PATIENCE)

    async def main():
        await asyncio.gather(asyncio.to_thread(sleeper), asyncio.to_thread(waiter))

    error = stall_of(main, clock)
    lines = {one.code for one in error.waiting if one.what.startswith("thread")}
    assert {"clock.sleep(10)", "lock.acquire()" if kind == "lock" else "event.wait(PATIENCE)"} <= lines
    event.set()
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio_"):
            thread.join(1.0)
            assert not thread.is_alive()


def test_an_idle_open_socket():
    """Somebody may still send something: not at once, but after ``stall`` real seconds."""

    async def main():
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            await asyncio.get_running_loop().sock_recv(here, 1)

    begin = time.perf_counter()
    error = stall_of(main)
    assert time.perf_counter() - begin >= STALL
    assert error.why == f"sockets are open, but nothing has come for {STALL:g} s"
    assert [one.code for one in error.waiting] == ["await asyncio.get_running_loop().sock_recv(here, 1)"]


def test_a_socket_on_which_something_comes_in_time():
    """Data from a thread outside ends the wait, and the count of idle seconds begins anew."""
    clock = VirtualClock(stall=0.4)

    async def main():
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            got = b""
            for _ in range(4):
                threading.Timer(0.15, there.send, (b"x",)).start()
                got += await asyncio.get_running_loop().sock_recv(here, 1)
        return got

    assert clock.run(main()) == b"xxxx"


def test_threads_that_finish_one_after_the_other_are_no_stall():
    """Each that ends is something that happens: together they may take longer than ``stall``."""
    clock = VirtualClock(stall=0.1)

    async def main():
        for _ in range(4):
            await asyncio.to_thread(threading.Event().wait, 0.04)

    clock.run(main())
    assert clock.monotonic() == 0.0


def test_an_event_that_nobody_sets_in_a_thread_of_the_loop():
    """``clock.wait`` without a limit raises where it waits, and so in who awaits that thread."""
    clock = VirtualClock(stall=STALL)

    async def main():
        await asyncio.to_thread(clock.wait, threading.Event(), None)

    error = stall_of(main, clock)
    assert error.why.startswith("a thread waits for an event") or error.why.startswith("there is no timer")


def test_an_event_that_nobody_sets_with_no_loop():
    """The same without a loop, in the thread itself; afterwards the clock still works."""
    clock = VirtualClock(stall=STALL)
    with pytest.raises(StalledError, match=f"a thread waits for an event, and nothing has happened for {STALL:g} s"):
        clock.wait(threading.Event(), None)
    clock.sleep(5)
    assert clock.monotonic() == 5.0


def test_an_event_that_nobody_sets_names_the_line():
    """The text alone is enough to find it, as with tasks."""
    clock = VirtualClock(stall=STALL)
    with pytest.raises(StalledError) as caught:
        clock.wait(threading.Event(), None)
    assert any(one.file == __file__ and "clock.wait(" in one.code for one in caught.value.waiting)


def test_an_event_that_nobody_sets_inside_of_a_task():
    """A blocking wait in the loop's own thread does not hang either."""
    clock = VirtualClock(stall=STALL)

    async def main():
        clock.wait(threading.Event(), None)

    error = stall_of(main, clock)
    assert [one.code for one in error.waiting if one.what.startswith("task")] == ["clock.wait(threading.Event(), None)"]


def test_an_event_that_takes_long_while_much_happens_is_no_stall(monkeypatch):
    """As long as virtual time moves on, whoever waits goes on waiting."""
    clock = VirtualClock(stall=STALL)
    # Real time, as it would pass if each virtual second took half of what is allowed.
    monkeypatch.setattr(schedule, "_monotonic", lambda: clock.now * STALL / 2)

    async def main():
        event = threading.Event()
        waiting = asyncio.create_task(asyncio.to_thread(clock.wait, event, None))
        for _ in range(100):
            await asyncio.sleep(1)
        event.set()
        return await waiting

    assert clock.run(main())


def test_who_waits_beside_a_timer_that_comes_again_and_again_is_told_too():
    """A heartbeat keeps time moving for ever; after ``most_jumps`` it is enough, and what waits is named."""

    async def beat():
        while True:
            await asyncio.sleep(1)

    async def main():
        heart = asyncio.create_task(beat())
        try:
            await forever()
        finally:
            heart.cancel()

    clock = VirtualClock(most_jumps=1_000)
    error = stall_of(main, clock)
    assert error.why == "time has jumped 1,000 times, and it has not ended"
    assert any("await forever()" in one.code or "Event().wait()" in one.code for one in error.waiting)
    assert clock.monotonic() < 1_100.0


# -- afterwards ---------------------------------------------------------------------------------------------------------------------------


def test_after_a_stall_the_loop_can_go_on():
    """The error is raised out of ``run_until_complete``; what can still run does, and the loop closes as usual."""
    clock = VirtualClock(stall=STALL)
    loop = clock.new_loop()
    event = asyncio.Event()
    task = loop.create_task(event.wait())
    with pytest.raises(StalledError):
        loop.run_until_complete(task)
    assert loop.stalled
    event.set()
    assert loop.run_until_complete(task)
    loop.run_until_complete(asyncio.sleep(10))
    loop.close()
    assert clock.monotonic() == 10.0


def test_after_a_stall_tasks_are_cancelled():
    """Their ``finally`` runs before the error comes out of ``run``, and the clock is free."""
    clock = VirtualClock()
    ended = []

    async def main():
        try:
            await forever()
        finally:
            await asyncio.sleep(1)
            ended.append(clock.monotonic())

    stall_of(main, clock)
    assert ended == [1.0]
    clock.run(asyncio.sleep(1))
    assert clock.monotonic() == 2.0


def test_after_a_stall_a_thread_that_hangs_is_not_waited_for():
    """The default executor is left behind at once: ``run`` returns while the job still works."""
    clock = VirtualClock(stall=STALL)
    release, ended = threading.Event(), threading.Event()

    def job():
        release.wait(PATIENCE)
        ended.set()

    async def main():
        await asyncio.to_thread(job)

    begin = time.perf_counter()
    stall_of(main, clock)
    assert time.perf_counter() - begin < 20.0
    assert not ended.is_set()
    release.set()
    assert ended.wait(PATIENCE)


def test_after_a_stall_another_loop_can_run():
    """When the thread that hung is done, the same clock serves the next loop."""
    clock = VirtualClock(stall=STALL)
    release, ended = threading.Event(), threading.Event()

    def job():
        release.wait(PATIENCE)

    async def main():
        await asyncio.to_thread(job)

    stall_of(main, clock)
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio_"):
            thread.join(PATIENCE)
    ended.set()
    clock.run(asyncio.sleep(10))
    assert clock.monotonic() == 10.0


def test_a_job_that_hangs_in_a_pool_of_ones_own():
    """The loop gives up; the pool is its owner's to end."""
    clock = VirtualClock(stall=STALL)
    release = threading.Event()
    pool = ThreadPoolExecutor(1)

    async def main():
        await asyncio.get_running_loop().run_in_executor(pool, release.wait, PATIENCE)

    error = stall_of(main, clock)
    assert [one.what for one in error.waiting if one.what.startswith("thread")]
    release.set()
    pool.shutdown()


def test_a_stall_inside_of_a_stall():
    """A task that does not end when it is cancelled stalls again, at once, and nothing hangs."""

    async def main():
        # It is never going to end, and asyncio would say so.
        asyncio.current_task()._log_destroy_pending = False
        try:
            await forever()
        finally:
            await asyncio.Event().wait()

    error = stall_of(main)
    assert error.waiting[0].code == "await asyncio.Event().wait()"


def test_threads_that_were_there_before_the_clock_are_no_part_of_it():
    """They belong to somebody else, whatever they do."""
    release, entered = threading.Event(), threading.Event()

    def earlier():
        entered.set()
        while not release.is_set():
            time.sleep(0.001)

    thread = threading.Thread(target=earlier, name="earlier")
    thread.start()
    entered.wait(PATIENCE)
    try:
        error = stall_of(forever)
        assert not [one for one in error.waiting if one.what.startswith("thread")]
    finally:
        release.set()
        thread.join()


def test_the_name_of_this_file_is_in_the_text():
    """The shortest check that somebody who reads it finds the way."""
    assert HERE in str(stall_of(forever))
