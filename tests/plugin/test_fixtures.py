"""The fixtures, used as in a service's tests."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from somaresil import SLO, ChaosCeilings, CircuitBreaker, ConfigurationError, InjectedFault, Resilience, SystemClock
from somaresil.events import FaultInjected
from somaresil.testing import VirtualClock, assert_absorbed, assert_breaker, assert_recovers


def guarded(resilience, **options):
    """A dependency that always answers."""

    @resilience.guard("llm.invoke", **options)
    async def invoke():
        await asyncio.sleep(0.1)
        return "answer"

    return invoke


def test_resilience_is_new_for_each_test(resilience):
    """No guard of another test is there, and real time passes."""
    assert isinstance(resilience, Resilience)
    assert dict(resilience.guards) == {}
    assert isinstance(resilience.clock, SystemClock)
    resilience.guard("made.here")


def test_resilience_is_new_for_each_test_whichever_comes_first(resilience):
    """As above, in the other order."""
    assert dict(resilience.guards) == {}
    resilience.guard("made.here")


def test_chaos_is_refused_without_its_fixture(resilience):
    """Asking for the process alone permits nothing."""
    resilience.guard("llm.invoke")
    with pytest.raises(ConfigurationError, match="chaos is off by default"):
        resilience.chaos.arm_plan(plan())


def plan():
    from somaresil import ChaosPlan, FaultWindow

    return ChaosPlan([FaultWindow("llm.*", "error", 0, 60)])


@pytest.mark.asyncio
async def test_chaos_is_allowed_and_ends_with_the_test(resilience, chaos):
    """Experiments start, strike, and are left running on purpose: the end of the test ends them."""
    invoke = guarded(resilience)
    run = await chaos.inject_errors("llm.*", duration_seconds=3_600)
    with pytest.raises(InjectedFault):
        await invoke()
    assert run.live


def test_chaos_ends_although_the_test_fails_in_its_own_way(resilience, chaos):
    """A plan that goes on for a day is over when the test is."""
    resilience.guard("llm.invoke")
    chaos.arm_plan(plan())
    assert chaos.runs


def test_experiments_of_other_processes_end_too():
    """A Resilience that the test has made by itself is looked after as well."""
    mine = Resilience("mine", environment="test")
    mine.guard("llm.invoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMARESIL_CHAOS", "1")
        mine.chaos.opt_in(ChaosCeilings(duration=3_600))
        mine.chaos.arm_plan(plan())
    assert mine.chaos.runs
    KEPT.append(mine)


KEPT: list[Resilience] = []
"""Keeps it alive beyond its test."""


async def test_virtual_time_makes_a_test_virtual(virtual_time):
    """A day passes at once; the fixture is the clock of the loop."""
    assert isinstance(virtual_time, VirtualClock)
    await asyncio.sleep(86_400)
    assert virtual_time.monotonic() == asyncio.get_running_loop().time() == 86_400


async def test_virtual_time_is_that_of_the_process(virtual_time, resilience):
    """Guards, windows and breakers live in it."""
    assert resilience.clock is virtual_time
    invoke = guarded(resilience, timeout=5.0)
    assert await invoke() == "answer"
    assert virtual_time.monotonic() == pytest.approx(0.1)


def test_virtual_time_of_a_plain_test_moves_when_somebody_sleeps(virtual_time, resilience):
    """No loop is needed."""
    assert resilience.clock is virtual_time
    virtual_time.sleep(600)
    assert virtual_time.monotonic() == 600


async def test_fault_events_tell_everything(virtual_time, resilience, chaos, fault_events):
    """Strikes, ends of calls, the circuit, and the time line of all of it."""
    invoke = guarded(resilience, breaker=CircuitBreaker(minimum_calls=3, open_jitter=0.0))
    await chaos.inject_errors("llm.*", duration_seconds=10)
    for _ in range(60):
        with suppress(Exception):
            await invoke()
        await asyncio.sleep(1)
    assert len(fault_events.of(FaultInjected)) == fault_events.injected == 3
    assert "circuit closed -> open" in fault_events.timeline()
    assert_recovers(fault_events, within=30)
    assert_breaker(fault_events, "llm.invoke", "closed", opened=1)


async def test_what_is_absorbed_is_shown(virtual_time, resilience, chaos, fault_events):
    """A retry bears what strikes every other call."""
    invoke = guarded(resilience, retry=4)
    await chaos.inject_errors("llm.*", rate=0.3, duration_seconds=600)
    for _ in range(50):
        await invoke()
    assert assert_absorbed(fault_events) == 1.0


async def test_slo_declares_and_judges(virtual_time, slo, resilience):
    """One line an objective, one line a budget."""
    assert isinstance(slo("latency", 95.0, latency=2.0), SLO)
    invoke = guarded(resilience, slo="latency")
    with pytest.raises(AssertionError, match="nothing is known"):
        slo.assert_budget("latency")
    await invoke()
    assert slo.budget("latency").good == 1
    assert slo.assert_budget("latency", remaining=1.0) == 1.0


class TestInAClass:
    """Methods are tests too."""

    async def test_a_method_is_virtual(self, virtual_time):
        """The fixture makes it so."""
        await asyncio.sleep(600)
        assert virtual_time.monotonic() == 600
