"""One thread is stopped before each of its lines in turn, and another one does the same thing whole: what comes of it is always right.

Unlike a storm of threads this finds the same in every run. A second thread that waits for the first one's lock goes on after it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext, suppress
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from somaresil import CircuitOpen, ManualClock, Outcome, RateLimit, Resilience
from somaresil.budget import RetryBudget
from somaresil.chaos.killswitch import HostSwitch
from somaresil.chaos.token import Nonces, PlanRefused
from somaresil.chaos.uses import HostUses
from somaresil.limiter import Permit
from tests.behaviour.interleaving import Dependency, fails
from tests.behaviour.kit import PATIENCE, one_strike

BLOCKED = 0.005
"""Seconds after which the second thread is taken to wait for the first."""


def preempted(make: Any, act: Any, *, within: str = "somaresil") -> list[tuple[Any, list[Any]]]:
    """What came of it, for each line of modules ``within`` at which the first thread can be stopped: the thing and what both have got."""
    found = []
    for stop in count():
        thing, ends = make(), []
        other = threading.Thread(target=lambda thing=thing, ends=ends: ends.append(act(thing)), daemon=True)
        lines = count()

        def trace(frame, event, argument, stop=stop, other=other, lines=lines):
            if within not in frame.f_globals.get("__name__", ""):
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


def probes(thing: Dependency) -> bool:
    """Whether it was let in as a probe."""
    try:
        return thing.breaker.admit().probe is not None
    except CircuitOpen:
        return False


def one_probe() -> Dependency:
    """A half-open circuit that takes one probe."""
    return Dependency(breaker=one_strike()).half_open()


def test_a_half_open_circuit_admits_one_probe_where_one_was_asked_for():
    """Two come when its time is over: the one opens the door by half, and one of them goes through."""
    found = preempted(one_probe, probes)
    assert len(found) > 3
    assert all(sorted(ends) == [False, True] and thing.whole() for thing, ends in found)


def test_a_breaker_without_its_lock_is_seen():
    """Both are probes, of one that was asked for."""

    def unlocked():
        thing = one_probe()
        thing.breaker._lock = nullcontext()
        return thing

    assert any(ends == [True, True] for _, ends in preempted(unlocked, probes))


def one_call() -> Any:
    """A rate limit that has one call left."""
    return Resilience("tests", clock=ManualClock()).rate_limit("calls", RateLimit(1, per=3600.0))


def counted(limiter: Any) -> bool:
    """Whether it was let in by count alone."""
    return limiter.try_count(0.0)


def permitted(limiter: Any) -> bool:
    """Whether it was let in with a permit."""
    return limiter.take(Permit([1.0], limiter), limiter.windows)


@pytest.mark.parametrize("act", [counted, permitted])
def test_the_last_call_of_a_rate_is_let_in_once(act):
    """Two that come at once for one call: one of them gets it, on either path."""
    found = preempted(one_call, act)
    assert len(found) > 3
    assert all(sorted(ends) == [False, True] for _, ends in found)


@pytest.mark.parametrize("act", [counted, permitted])
def test_a_rate_limit_without_its_lock_is_seen(act):
    """Both are let in."""

    def unlocked():
        limiter = one_call()
        limiter._lock = nullcontext()
        limiter.try_count = limiter._limits.tally(int, int)
        return limiter

    assert any(ends == [True, True] for _, ends in preempted(unlocked, act))


def one_slot() -> Any:
    """The line of a bulkhead with one slot, which nobody has had."""
    return Dependency(bulkhead=1).guard.bulkhead.line


def used_slot() -> Any:
    """The same after somebody was there."""
    line = one_slot()
    line.leave(line.try_enter())
    return line


@pytest.mark.parametrize("make", [one_slot, used_slot])
def test_the_last_slot_is_held_by_one(make):
    """Two that come at once for one slot: one of them gets it, whether it has to be made or lies there."""
    found = preempted(make, lambda line: line.try_enter() is not None)
    assert len(found) > 3
    assert all(sorted(ends) == [False, True] and line.active == 1 for line, ends in found)


def test_a_line_without_its_lock_is_seen():
    """Both hold a slot, of one that there is."""

    def unlocked():
        line = one_slot()
        line._lock = nullcontext()
        return line

    assert any(ends == [True, True] for _, ends in preempted(unlocked, lambda line: line.try_enter() is not None))


def named(resilience: Resilience) -> Any:
    """The guard of a name that both use."""
    return resilience.guard("db", bulkhead=3)


def test_two_that_name_a_guard_for_the_first_time_get_the_same():
    """Wherever the other one comes between: one name is one guard, and everything that is counted is counted there."""
    found = preempted(lambda: Resilience("tests"), named, within="somaresil.resilience")
    assert len(found) > 3
    assert all(ends[0] is ends[1] is resilience.guards["db"] for resilience, ends in found)


def test_a_registry_without_its_locks_is_seen(monkeypatch):
    """There are two guards of one name, and one of them is known to its user alone."""
    monkeypatch.setattr("somaresil.resilience.configuring", nullcontext())

    def unlocked():
        resilience = Resilience("tests")
        resilience._lock = nullcontext()
        return resilience

    assert any(ends[0] is not ends[1] for _, ends in preempted(unlocked, named, within="somaresil.resilience"))


def used(uses: Any) -> int:
    """The number of a use of a plan that may be used once, 0: it was refused."""
    try:
        return uses.use("smoke", 1, 0.0, 60.0) if isinstance(uses, Nonces) else uses.use("smoke", 1, 0.0)
    except PlanRefused:
        return 0


def test_a_single_use_is_taken_once_in_a_process():
    """Two requests with one plan at once: one of them carries it out."""
    found = preempted(lambda: Nonces(8), used)
    assert len(found) > 3
    assert all(sorted(ends) == [0, 1] for _, ends in found)


def test_uses_of_a_process_without_their_lock_are_seen():
    """Both carry it out."""

    def unlocked():
        nonces = Nonces(8)
        nonces._lock = nullcontext()
        return nonces

    assert any(ends == [1, 1] for _, ends in preempted(unlocked, used))


needs_a_switch = pytest.mark.skipif(not hasattr(os, "pread"), reason="this platform has no kill switch of the host")


@pytest.fixture
def on_a_host(tmp_path):
    """Makes the uses of a host of its own."""
    hosts = count()
    return lambda: HostUses(HostSwitch([tmp_path / str(next(hosts)) / "gateway.switch"]))


@needs_a_switch
def test_a_single_use_is_taken_once_on_a_host(on_a_host):
    """There is no lock between processes: that the file grows by one byte at a time is enough."""
    found = preempted(on_a_host, used)
    assert len(found) > 3
    assert all(sorted(ends) == [0, 1] for _, ends in found)


@needs_a_switch
def test_uses_of_a_host_that_are_not_appended_are_seen(on_a_host, monkeypatch):
    """Both write the first byte, and carry it out."""
    monkeypatch.setattr("somaresil.chaos.uses.os", SimpleNamespace(**vars(os) | {"O_APPEND": 0}))
    assert any(ends == [1, 1] for _, ends in preempted(on_a_host, used))
