"""The same plan and the same calls: the same faults, however the calls interleave, in tasks or in threads, in this run and in the next."""

from __future__ import annotations

import ast
import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from somaresil import ChaosPlan, FaultWindow, InjectedFault, ManualClock, Resilience
from somaresil.chaos import scope
from tests.behaviour.kit import PATIENCE

INTERLEAVINGS = 1_000
GUARDS = ("agent.turn", "llm.invoke", "db.query")
SCOPES = ("request-1", "request-2", "request-3/step", "client")
CALLS = 2
"""Calls of each guard in each scope."""

PLAN = ChaosPlan(
    [
        FaultWindow("*", "error", 0, 60, rate=0.3),
        FaultWindow("llm.*", "lost_reply", 0, 60, rate=0.4, error="ConnectionError"),
        FaultWindow("db.query", "error", 0, 60, calls=(2,), error="TimeoutError"),
        FaultWindow("agent.turn", "http_status", 0, 60, rate=0.6, every=2),
        FaultWindow("llm.*", "rate_limit", 0, 60, rate=0.5, first=1, where={"scope": "request-*"}),
        FaultWindow("agent.*", "latency", 0, 60, rate=0.5, delay={"uniform": [0.001, 0.002]}),
    ],
    seed=7,
)


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos, and let no setting of this machine have a say."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.delenv("SOMARESIL_SEED", raising=False)


def process(seed=None):
    """A process that runs the plan, and its guards by name."""
    resilience = Resilience("tests", environment="test", clock=ManualClock(), seed=seed)
    resilience.chaos.opt_in()
    guards = {name: resilience.guard(name) for name in GUARDS}
    resilience.chaos.arm_plan(PLAN)
    return guards


def order(chance):
    """The calls of one scope: in order for each guard, in any order of the guards. The n-th of a guard is (guard, n)."""
    names = [name for name in GUARDS for _ in range(CALLS)]
    chance.shuffle(names)
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name, seen[name]


def in_turn():
    """One scope after the other, with nothing in between: what every other run has to agree with."""
    guards, found = process(), {}
    for where in SCOPES:
        for name, number in order(random.Random(0)):
            acted = []
            with scope(where):
                found[where, name, number] = outcome(lambda guard=guards[name], acted=acted: guard.call(acted.append, True), acted)
    return found


def outcome(call, acted):
    """What became of a call: whether it was struck, with what, and whether its callee had acted."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, bool(acted)
    return "good", bool(acted)


def in_tasks(loop, chance):
    """All scopes at once, each in a task that gives way at random, inside the calls as well."""
    guards, found = process(), {}
    pauses = [chance.randrange(3) for _ in range(len(SCOPES) * len(GUARDS) * CALLS * 2)]

    async def give_way():
        for _ in range(pauses.pop()):
            await asyncio.sleep(0)

    async def callee(acted):
        acted.append(True)
        await give_way()

    async def request(where):
        calls = list(order(chance))
        with scope(where):
            for name, number in calls:
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                acted = []
                try:
                    await guards[name].acall(callee, acted)
                except (InjectedFault, ConnectionError, TimeoutError) as error:
                    found[where, name, number] = type(error).__name__, bool(acted)
                else:
                    found[where, name, number] = "good", bool(acted)

    async def main():
        await asyncio.gather(*(request(where) for where in chance.sample(SCOPES, len(SCOPES))))

    loop.run(main())
    return found


class Crew:
    """Threads that are kept for all runs, one a scope: starting some for each would be most of the work."""

    def __init__(self):
        self._begin = threading.Barrier(len(SCOPES) + 1)
        self._end = threading.Barrier(len(SCOPES) + 1)
        self._work = None
        self._threads = [threading.Thread(target=self._serve, args=(where,), daemon=True) for where in SCOPES]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.run(None)
        for thread in self._threads:
            thread.join(PATIENCE)

    def run(self, work):
        self._work = work
        self._begin.wait(PATIENCE)
        if work is not None:
            self._end.wait(PATIENCE)

    def _serve(self, where):
        while True:
            self._begin.wait(PATIENCE)
            if self._work is None:
                return
            self._work(where)
            self._end.wait(PATIENCE)


def in_threads(crew, chance):
    """All scopes at once, each in a thread, which give way inside their calls."""
    guards, found = process(), {}
    calls = {where: [(*call, chance.random() < 0.3) for call in order(chance)] for where in SCOPES}

    def request(where):
        with scope(where):
            for name, number, gives_way in calls[where]:
                acted = []

                def callee(acted=acted, gives_way=gives_way):
                    acted.append(True)
                    if gives_way:
                        time.sleep(0)

                found[where, name, number] = outcome(lambda guard=guards[name], callee=callee: guard.call(callee), acted)

    crew.run(request)
    return found


def differences(runs):
    """The calls that were decided differently from those that were made one after the other."""
    expected = in_turn()
    assert len(expected) == len(SCOPES) * len(GUARDS) * CALLS
    return [
        (run, call) for run, found in enumerate(runs) for call in expected.keys() | found.keys() if found.get(call) != expected.get(call)
    ]


def test_the_plan_strikes_in_every_way_and_lets_calls_pass():
    """Or the other tests here would prove nothing: each kind is there, and no two scopes or guards are decided alike."""
    found = in_turn()
    assert set(found.values()) == {
        ("good", True),
        ("InjectedFault", False),
        ("InjectedAnswer", False),
        ("ConnectionError", True),
        ("TimeoutError", False),
    }
    rows = {(where, name): tuple(found[where, name, number] for number in range(1, CALLS + 1)) for where in SCOPES for name in GUARDS}
    assert len({tuple(rows[where, name] for name in GUARDS) for where in SCOPES}) == len(SCOPES)
    assert len({tuple(rows[where, name] for where in SCOPES) for name in GUARDS}) == len(GUARDS)


def test_tasks_are_struck_alike_in_any_interleaving():
    """A thousand random ones: no call of any scope is decided differently."""
    with asyncio.Runner() as loop:
        runs = [in_tasks(loop, random.Random(number)) for number in range(INTERLEAVINGS)]
    assert differences(runs) == []
    assert len({tuple(found) for found in runs}) > INTERLEAVINGS / 2, "the calls ended in the same order: nothing interleaved"


def test_threads_are_struck_alike_in_any_interleaving():
    """A thousand times, with threads that change places as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Crew() as crew:
            runs = [in_threads(crew, random.Random(number)) for number in range(INTERLEAVINGS)]
    finally:
        sys.setswitchinterval(interval)
    assert differences(runs) == []


def test_the_next_run_is_struck_alike():
    """Its process has another seed and another clock; only plan and calls are the same."""
    assert differences([in_turn() for _ in range(10)]) == []


@pytest.mark.parametrize("hashes", ["0", "1"])
def test_the_next_process_is_struck_alike(hashes):
    """An interpreter of its own, that hashes strings otherwise."""
    code = "from tests.property.test_decisions import in_turn; print(sorted(in_turn().items()))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"PYTHONHASHSEED": hashes},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert differences([dict(ast.literal_eval(result.stdout))]) == []


@pytest.mark.parametrize("seed", [8, 2**62])
def test_another_plan_strikes_others(monkeypatch, seed):
    """It is the seed of the plan that decides."""
    expected = in_turn()
    monkeypatch.setattr(f"{__name__}.PLAN", ChaosPlan(PLAN.windows, seed=seed))
    assert in_turn() != expected
