"""Eight threads at one moment: whatever order they come in, what comes of it is one of the outcomes that are allowed.

A short form; `python benchmarks/interleavings.py --check` runs 200,000 rounds.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ManualClock, RateLimit, Resilience
from tests.behaviour.interleaving import SCENARIOS, Dependency, Scenario, explore

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 64
FEW = 8
"""Rounds in which each line gives way."""
BATCHES = 40


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_outcome_is_allowed(name):
    """In each round exactly what the scenario says may come of it."""
    scenario = SCENARIOS[name]
    found = explore(scenario, ROUNDS)
    assert set(found) <= scenario.allowed
    assert found.total() == ROUNDS


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_outcome_is_allowed_where_each_line_gives_way(name):
    """Also when all eight stop before each line of ours, and another one goes on."""
    scenario = SCENARIOS[name]
    assert set(explore(scenario, FEW, restless=True)) <= scenario.allowed


def test_an_outcome_that_is_not_allowed_is_seen():
    """Eight threads that count without a lock lose some: the harness would notice."""

    def add(counter, role):
        seen = counter[0]
        time.sleep(0)
        counter[0] = seen + 1

    lossy = Scenario(make=lambda: [0], act=add, seen=lambda counter, ends: counter[0], allowed=frozenset({8}))
    assert set(explore(lossy, 200)) - lossy.allowed


def _without(lock_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def plant(thing: Any) -> Any:
        lock_of(thing)._lock = nullcontext()
        return thing

    return plant


def _rate_without_its_lock(thing: Dependency) -> Dependency:
    """Guards look up once how a limit counts: this one is given to a new guard, without a lock."""
    resilience = Resilience("tests", clock=ManualClock())
    limiter = resilience.rate_limit("calls", RateLimit(3, per=3600.0))
    limiter._lock = nullcontext()
    limiter.try_count = limiter._limits.tally(int, int)
    thing.guard = resilience.guard("dependency", rate_limit=limiter)
    return thing


PLANTED: dict[str, Callable[[Any], Any]] = {
    "half-open": _without(lambda thing: thing.breaker),
    "probes at once": _without(lambda thing: thing.breaker),
    "ramp": _without(lambda thing: thing.breaker),
    "controls": _without(lambda thing: thing.breaker),
    "bulkhead": _without(lambda thing: thing.guard.bulkhead.line),
    "rate limit": _rate_without_its_lock,
    "one name": _without(lambda resilience: resilience),
    "uses of a plan": _without(lambda nonces: nonces),
}
"""What is taken away of the thing of a scenario: its lock."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_lock_that_is_missing_is_seen(name, monkeypatch):
    """The same scenario, without the lock that it is about, has an outcome that is not allowed."""
    scenario, plant = SCENARIOS[name], PLANTED[name]
    if name == "one name":
        # It is held around that of the registry.
        monkeypatch.setattr("somaresil.resilience.configuring", nullcontext())
    broken = replace(scenario, make=lambda: plant(scenario.make()))
    assert any(set(explore(broken, FEW, restless=True)) - scenario.allowed for _ in range(BATCHES))
