"""A process that is forked while its threads call: the child waits for none of the locks that they held."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")

HELD = """
import gc, os, signal, sys, threading, warnings
from datetime import timedelta
warnings.simplefilter("ignore")
from somaresil import SLO, Resilience, forks
resilience = Resilience("tests", environment="test")
resilience.slos.add(SLO("answers", 99.0, timedelta(days=1), group_by="tenant"))
guard = resilience.guard("db", breaker=True, bulkhead=64, retry=2, timeout=5.0, slo="answers")
keyed = guard.keyed("acme")
def use():
    guard.call(int)
    keyed.call(int)
    resilience.breaker("db").trip(1.0)
    resilience.breaker("db").reset()
    guard.call(int)
    guard.configure(retry=3)
    resilience.snapshot()
    resilience.slos.error_budget("answers")
    resilience.guard("later", rate_limit=None)
use()
def below(root):
    seen, left, locks = set(), [root], []
    while left:
        for found in gc.get_referents(left.pop()):
            kind = type(found)
            if kind in (type(threading.RLock()), type(threading.Lock())):
                locks.append(found)
            elif id(found) not in seen and (kind in forks._HOLDERS or kind.__module__.startswith("somaresil")):
                seen.add(id(found))
                left.append(found)
    return locks
from somaresil.guard.assembly import configuring
locks = [configuring, *below(resilience)]
held, go = threading.Event(), threading.Event()
def hold():
    for lock in locks:
        lock.acquire(blocking=False)
    held.set()
    go.wait(60)
thread = threading.Thread(target=hold, daemon=True)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(20)
    if len(sys.argv) > 1:
        signal.alarm(2)
        for lock in locks:
            lock.acquire(blocking=False)
        threading.Thread(target=use).start()
        [each.join() for each in threading.enumerate() if each is not threading.current_thread()]
    use()
    os._exit(0)
status = os.waitpid(child, 0)[1]
print(len(locks), status)
os._exit(0)
"""


def run(*arguments):
    done = subprocess.run([sys.executable, "-c", HELD, *arguments], capture_output=True, text=True, timeout=90, check=False)
    assert done.stderr == ""
    locks, status = done.stdout.split()
    return int(locks), int(status)


def test_no_lock_of_the_parents_threads_is_held_in_the_child():
    """All that there are, held by another thread at the moment of the fork: the child calls, trips, changes options and counts."""
    locks, status = run()
    assert locks > 20
    assert status == 0


def test_a_child_in_which_they_are_held_does_wait():
    """Or the test above would pass whatever happens."""
    assert run("held")[1] != 0


def test_a_lock_that_the_forking_thread_holds_stays_its_own():
    """It gives it back itself."""
    code = (
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "from somaresil import Resilience\n"
        "guard = Resilience('tests').guard('db')\n"
        "with guard.recorder.lock:\n"
        "    child = os.fork()\n"
        "if child == 0: os._exit(0)\n"
        "print(os.waitpid(child, 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
