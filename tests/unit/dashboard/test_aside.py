"""Work beside an event loop: in threads of its own, few of them, and the same question once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from somaresil.dashboard.aside import Aside


@pytest.fixture
def aside():
    return Aside("aside")


def test_the_same_question_at_once_is_answered_once(aside):
    """Everybody who asks meanwhile gets the same; who asks later gets a new one."""
    release, called = threading.Event(), []

    def work():
        called.append(1)
        release.wait(10.0)
        return object()

    async def ask():
        tasks = [asyncio.create_task(aside.run("a", work)) for _ in range(5)]
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks)

    first = asyncio.run(ask())
    assert len({*map(id, first)}) == len(called) == 1
    asyncio.run(ask())
    assert len(called) > 1


def test_what_is_raised_is_raised_where_it_was_asked_for(aside):
    """And the thread goes on."""

    async def ask():
        with pytest.raises(KeyError):
            await aside.run("bad", lambda: {}["a"])
        return await aside.run("good", lambda: 1)

    assert asyncio.run(ask()) == 1


def test_who_does_not_wait_any_more_ends_nothing(aside):
    """A request that was cancelled, or whose loop is gone, is not told; others are."""
    release = threading.Event()

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aside.run("a", lambda: release.wait(10.0)), 0.01)

    asyncio.run(give_up())
    release.set()
    assert asyncio.run(aside.run("b", lambda: 2)) == 2


def test_there_are_never_more_than_eight_threads(aside):
    """Whoever comes then waits in line; when all is done there is none left."""
    running, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.005)
        with lock:
            running -= 1

    async def ask():
        await asyncio.gather(*(aside.run(number, work) for number in range(40)))

    asyncio.run(ask())
    assert 1 <= most <= 8
    until = time.monotonic() + 10.0
    while any(thread.name == "aside" for thread in threading.enumerate()):
        assert time.monotonic() < until
