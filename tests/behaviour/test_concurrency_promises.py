"""What docs/guides/concurrency.md promises to threads, tasks, greenlets, forks and sub-interpreters."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from somaresil import BulkheadFull, Outcome, Resilience
from tests.behaviour.kit import PATIENCE, Boom

THREADS = 8
EACH = 200
PLACES = 3


def run(program: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Crowd:
    """Counts who is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def test_threads_share_a_guard():
    """Every call is counted once, by how it ended, and the bulkhead holds; afterwards all places are free."""
    guard = Resilience("tests").guard("db", bulkhead=PLACES)
    crowd = Crowd()
    full = []

    def work(number: int) -> None:
        with crowd:
            if number % 5 == 0:
                raise Boom

    def one(number: int) -> None:
        try:
            guard.call(work, number)
        except BulkheadFull:
            full.append(number)
        except Boom:
            pass

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(THREADS * EACH)))
    counts = guard.recorder.counts()
    assert counts.total(Outcome.REJECTED) == len(full)
    assert counts.total(Outcome.GOOD, Outcome.BAD) == THREADS * EACH - len(full)
    assert 1 <= crowd.most <= PLACES
    assert places_of(guard) == PLACES


def places_of(guard) -> int:
    """How many calls get in at once, now."""

    def deeper(level: int) -> int:
        with suppress(BulkheadFull):
            return guard.call(deeper, level + 1)
        return level

    return deeper(0)


async def cancelled(guard) -> None:
    """A call that is cancelled while it is inside."""
    inside = asyncio.Event()

    async def wait() -> None:
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(guard.acall(wait))
    await inside.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_tasks_share_a_guard():
    """All that is cancelled gives its place back, and counts neither as good nor as bad."""
    guard = Resilience("tests").guard("db", bulkhead=PLACES, breaker=True)

    async def leave() -> None:
        for _ in range(5):
            await asyncio.gather(*(cancelled(guard) for _ in range(PLACES)))

    asyncio.run(leave())
    counts = guard.recorder.counts()
    assert counts.total(Outcome.BAD) == 0
    assert counts.total(Outcome.ABANDONED) == 5 * PLACES
    assert places_of(guard) == PLACES


def test_loops_in_threads_share_a_guard():
    """Each thread has a loop, and what all of them call is counted together."""
    guard = Resilience("tests").guard("db", breaker=True, timeout=PATIENCE)

    async def calls() -> None:
        await asyncio.gather(*(guard.acall(asyncio.sleep, 0) for _ in range(EACH)))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: asyncio.run(calls()), range(THREADS)))
    assert guard.recorder.counts().total(Outcome.GOOD) == THREADS * EACH


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from somaresil import Resilience, Outcome, BulkheadFull
guard = Resilience("tests").guard("db", bulkhead=3, breaker=True)
inside, most, full = [], [0], []
def work():
    inside.append(1); most[0] = max(most[0], len(inside))
    time.sleep(0.001); inside.pop()
def one():
    try: guard.call(work)
    except BulkheadFull: full.append(1)
gevent.joinall([gevent.spawn(one) for _ in range(50)], raise_error=True)
counts = guard.recorder.counts()
print(most[0], counts.total(Outcome.GOOD) + len(full), counts.total(Outcome.REJECTED) == len(full))
"""


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_share_a_guard():
    """A process that was patched counts every call, and its bulkhead holds."""
    assert run(GREENLETS) == "3 50 True"


FORK = """
import os, signal
from concurrent.futures import ThreadPoolExecutor
from somaresil import Resilience
resilience = Resilience("tests")
guard = resilience.guard("db", breaker=True, bulkhead=64, retry=2)
pool = ThreadPoolExecutor(3)
list(pool.map(lambda _: guard.call(int), range(100)))
codes = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        guard.call(int); resilience.breaker("db").trip(1.0); resilience.breaker("db").reset(); guard.call(int); resilience.snapshot()
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
print(set(codes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_goes_on():
    """Threads of the parent that are in no call of ours are there no more: the child calls, opens and closes, and waits for nobody."""
    assert run(FORK) == "{0}"


SUB = """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
from somaresil import Resilience, Outcome
guard = Resilience("tests").guard("db", breaker=True)
guard.call(int)
other = interpreters.create()
failed = interpreters.run_string(other, '''
from somaresil import Resilience, Outcome
guard = Resilience("tests").guard("db", breaker=True)
for _ in range(3): guard.call(int)
assert guard.recorder.counts().total(Outcome.GOOD) == 3
''')
interpreters.destroy(other)
print(failed, guard.recorder.counts().total(Outcome.GOOD))
"""


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="the zoneinfo of Python 3.12 itself cannot be imported in a sub-interpreter")
def test_a_sub_interpreter_has_its_own():
    """What is called there is counted there."""
    assert run(SUB) == "None 1"


def test_every_test_that_the_page_names_is_there():
    """Or a promise would have none."""
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/guides/concurrency.md").read_text(encoding="utf-8")
    rows = [line.rpartition("| ")[2] for line in page.splitlines() if line.startswith("| ") and "`test" in line]
    named = [name for row in rows for name in row.split("`")[1::2]]
    assert len(named) > 8
    for name in named:
        assert (root / name).is_file() if "/" in name else name in globals()
