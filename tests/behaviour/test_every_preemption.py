"""One thread is stopped before each of its lines in turn, and another one does the same thing whole: what comes of it is always right.

Unlike a storm of threads this finds the same in every run. A second thread that waits for the first one's lock goes on after it.
"""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext, suppress
from itertools import count
from typing import Any

from somaresil import CircuitOpen, Outcome
from somaresil.budget import RetryBudget
from tests.behaviour.interleaving import Dependency, fails
from tests.behaviour.kit import PATIENCE, one_strike

BLOCKED = 0.005
"""Seconds after which the second thread is taken to wait for the first."""


def preempted(make: Any, act: Any) -> list[tuple[Any, list[Any]]]:
    """What came of it, for each line of somaresil at which the first thread can be stopped: the thing and what both have got."""
    found = []
    for stop in count():
        thing, ends = make(), []
        other = threading.Thread(target=lambda thing=thing, ends=ends: ends.append(act(thing)), daemon=True)
        lines = count()

        def trace(frame, event, argument, stop=stop, other=other, lines=lines):
            if "somaresil" not in frame.f_globals.get("__name__", ""):
                return None
            if event == "line" and next(lines) == stop:
                other.start()
                other.join(BLOCKED)
            return trace

        def first(thing=thing, ends=ends, trace=trace):
            sys.settrace(trace)
            try:
                ends.append(act(thing))
            finally:
                sys.settrace(None)

        thread = threading.Thread(target=first, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if other.ident is None:
            return found
        other.join(PATIENCE)
        assert len(ends) == 2
        found.append((thing, ends))
    raise AssertionError


def one_attempt() -> RetryBudget:
    """Exactly one further attempt is allowed."""
    return RetryBudget(0.0, floor=1.0, window=1.0)


def test_the_last_attempt_of_a_budget_is_given_once():
    """Two that ask at once for one attempt: one of them gets it."""
    found = preempted(one_attempt, lambda budget: budget.take(0.0))
    assert len(found) > 3
    assert all(sorted(ends) == [False, True] for _, ends in found)


def test_a_budget_without_its_lock_is_seen():
    """The test above can fail: without the lock the attempt is given twice."""

    def unlocked():
        budget = one_attempt()
        budget._lock = nullcontext()
        return budget

    assert any(ends == [True, True] for _, ends in preempted(unlocked, lambda budget: budget.take(0.0)))


def test_every_call_is_counted_once():
    """Two calls that end at once are two calls."""
    found = preempted(Dependency, lambda thing: thing.guard.recorder.add(Outcome.BAD, 0.1))
    assert len(found) > 3
    assert all(thing.guard.recorder.counts().total(Outcome.BAD) == 2 for thing, _ in found)


def test_a_circuit_is_opened_with_one_event():
    """Two failures that end at once, each of which is enough: the circuit opens once, and everything agrees on it."""

    def strike(thing):
        with suppress(LookupError, CircuitOpen):
            thing.guard.call(fails)

    found = preempted(lambda: Dependency(breaker=one_strike()), strike)
    assert len(found) > 3
    assert all(len(thing.told) == 1 and thing.whole() for thing, _ in found)
