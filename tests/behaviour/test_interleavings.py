"""Eight threads at one moment: whatever order they come in, what comes of it is one of the outcomes that are allowed.

A short form; `python benchmarks/interleavings.py --check` runs 200,000 rounds.
"""

from __future__ import annotations

import time

import pytest

from tests.behaviour.interleaving import SCENARIOS, Scenario, explore

ROUNDS = 64


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_outcome_is_allowed(name):
    """In each round exactly what the scenario says may come of it."""
    scenario = SCENARIOS[name]
    found = explore(scenario, ROUNDS)
    assert set(found) <= scenario.allowed
    assert found.total() == ROUNDS


def test_an_outcome_that_is_not_allowed_is_seen():
    """Eight threads that count without a lock lose some: the harness would notice."""

    def add(counter, role):
        seen = counter[0]
        time.sleep(0)
        counter[0] = seen + 1

    lossy = Scenario(make=lambda: [0], act=add, seen=lambda counter, ends: counter[0], allowed=frozenset({8}))
    assert set(explore(lossy, 200)) - lossy.allowed
