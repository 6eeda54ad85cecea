"""The state machine: rules of Hypothesis, faults between them, and invariants when all is quiet again."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from somaresil import ChaosPlan, CircuitBreaker, Retry
from somaresil.testing import ChaosStateMachine, InvariantBroken, at_most_once, inject, never_lost, recovers_within

QUIET = settings(
    max_examples=40, stateful_step_count=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


class Memory(ChaosStateMachine):
    """A store that is written to by turns of an agent."""

    kinds = ("error", "lost_reply", "latency")
    invariants_at_end = (at_most_once("memory.write"), never_lost("memory.write"), recovers_within(200.0))
    settle = 240.0  # the longest opening (4 x 30 s and a tenth), and probes
    probe_every = 20.0
    keyed = True

    def build(self, world):
        rows = set()
        self.turns = 0

        @world.resilience.guard("memory.write", timeout=2.0, retry=Retry(attempts=3, wait=0.1), breaker=CircuitBreaker(minimum_calls=5))
        async def write(key):
            await asyncio.sleep(0.01)
            if not self.keyed or key not in rows:
                rows.add(key)
                world.acted("memory.write", key)

        self.write = write

    @rule(count=st.integers(1, 3))
    def remember(self, count):
        for _ in range(count):
            self.attempt(self.turn())

    async def turn(self):
        self.turns += 1
        key = self.turns
        await self.write(key)
        self.world.acknowledged("memory.write", key)

    def probe(self):
        return self.turn()


class Careless(Memory):
    """The same, without looking at the key."""

    keyed = False
    kinds = ("lost_reply",)


def test_a_service_that_bears_its_faults_passes():
    """In any order of operations, faults and pauses."""
    run_state_machine_as_test(Memory, settings=QUIET)


def test_a_bug_is_found_and_told_as_a_plan():
    """One window of a lost reply, which is the bug."""
    with pytest.raises(InvariantBroken) as caught:
        run_state_machine_as_test(Careless, settings=settings(QUIET, max_examples=300, phases=(Phase.generate, Phase.shrink)))
    simulation = caught.value.simulation
    assert [window.kind for window in simulation.plan.windows] == ["lost_reply"]
    assert "was done" in str(caught.value)
    assert ChaosPlan.from_json(simulation.plan.to_json()) == simulation.plan


def test_nothing_is_left_behind():
    """Each run takes its permission back and closes its loop."""
    import os

    before = os.environ.get("SOMARESIL_CHAOS")
    run_state_machine_as_test(Memory, settings=settings(QUIET, max_examples=3))
    assert os.environ.get("SOMARESIL_CHAOS") == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_machine_without_a_service_says_what_is_missing():
    """build(self, world)."""

    class Empty(ChaosStateMachine):
        @rule()
        def nothing(self):
            pass

    with pytest.raises(NotImplementedError, match="build"):
        run_state_machine_as_test(Empty, settings=QUIET)


def test_coroutines_may_build_and_probe():
    """As services that connect when they begin."""

    class Asynchronous(ChaosStateMachine):
        settle = 20.0
        probes = 0

        async def build(self, world):
            await asyncio.sleep(5.0)
            self.call = world.resilience.guard("call")(self.callee)

        async def callee(self):
            type(self).probes += 1

        async def probe(self):
            await self.call()

        @rule()
        def operate(self):
            self.attempt(self.call())

    run_state_machine_as_test(Asynchronous, settings=settings(QUIET, max_examples=2))
    assert Asynchronous.probes > 0


def test_a_pause_in_which_nobody_calls_is_no_outage():
    """Ordinary operations go on while time passes, so a recovery is seen when it happens and not a pause later."""
    machine = Memory()
    try:
        machine.begin()
        with inject(machine.resilience, "memory.write", "error"):
            machine.remember(1)
        machine.time_passes(100)
        assert machine.history.recovery("memory.write").seconds <= Memory.probe_every
    finally:
        machine.teardown()
