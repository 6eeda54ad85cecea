"""What type checkers make of the test kit, as a test suite uses it. Checked by the type checkers, never run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

import httpx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import rule
from hypothesis.strategies import SearchStrategy
from typing_extensions import override

from somaresil import SLO, ChaosPlan, ErrorBudget, FaultWindow, Resilience
from somaresil.chaos.plan import PlanRun
from somaresil.events import BreakerChanged
from somaresil.testing import (
    ChaosStateMachine,
    Exploration,
    History,
    Recovery,
    Scenario,
    Simulation,
    VirtualClock,
    VirtualLoop,
    World,
    allow_chaos,
    assert_absorbed,
    assert_breaker,
    assert_budget,
    assert_recovers,
    at_most_once,
    capture_events,
    explore,
    holds,
    inject,
    inject_plan,
    recovers_within,
    run,
    scenario,
)
from somaresil.testing.aiohttp import fault_middleware
from somaresil.testing.httpx import AsyncFaultTransport, FaultTransport, install
from somaresil.testing.protocol import ProtocolFault, ProtocolFaults
from somaresil.testing.strategies import fault_schedules, fault_windows, latencies

if TYPE_CHECKING:
    import aiohttp

    from somaresil.chaos.engine import ChaosEngine
    from somaresil.pytest_plugin import Objectives

clock = VirtualClock(monotonic=5.0)
resilience = Resilience("agent", environment="test", clock=clock)

# -- virtual time -------------------------------------------------------------------------------------------------------------------------


async def answer() -> int:
    """Answer in a minute that takes no time."""
    await asyncio.sleep(60)
    return 42


assert_type(clock.run(answer()), int)
assert_type(run(answer(), clock=clock), int)
assert_type(clock.new_loop(), VirtualLoop)
with asyncio.Runner(loop_factory=clock.new_loop) as runner:
    assert_type(runner.run(answer()), int)
with clock.patched():
    pass
VirtualClock("now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# -- faults, histories and assertions -----------------------------------------------------------------------------------------------------

with allow_chaos(resilience), capture_events(resilience) as history, inject(resilience, "llm.*", "error", error=ConnectionError) as struck:
    assert_type(history, History)
    assert_type(struck.injected, int)
    assert_type(history.of(BreakerChanged), list[BreakerChanged])
    assert_type(history.recovery("llm.invoke"), Recovery)
    assert_type(history.worst_recovery, float | None)
    assert_type(history.timeline(), str)
assert_type(assert_recovers(history, within=timedelta(minutes=5)), float)
assert_type(assert_absorbed(history, at_least=0.95), float)
assert_type(assert_budget(resilience, "api", remaining=0.1), float)
assert_breaker(history, "llm.invoke", "closed", opened=1)
assert_breaker(history, "llm.invoke", opened="once")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def inject_asynchronously(plan: ChaosPlan) -> None:
    """Blocks are of both kinds."""
    async with inject(resilience, "llm.*"), inject_plan(resilience, plan):
        pass
    assert_type(await resilience.chaos.run_plan(plan), PlanRun)


# -- plans and scenarios ------------------------------------------------------------------------------------------------------------------

plan = ChaosPlan([FaultWindow("llm.invoke", "error", 0, 30, rate=0.5, calls=(1, 2))], seed=7)
assert_type(ChaosPlan.from_json(plan.to_json()), ChaosPlan)
assert_type(plan.windows[0], FaultWindow)
assert_type(resilience.chaos.arm_plan(plan), PlanRun)


@scenario(recovers_within(300), at_most_once("memory.write"), holds("anything", lambda simulation: simulation.ok), horizon=600)
async def agent(world: World) -> None:
    """Live for ten minutes."""
    async for second in world.ticks(10.0):
        assert_type(second, float)
        world.acted("memory.write", second)


assert_type(agent, Scenario)
assert_type(agent.check(plan), Simulation)
assert_type(explore(agent, max_faults=2), Exploration)
assert_type(explore(agent).check(fail_under=50.0), Exploration)

# -- Hypothesis ---------------------------------------------------------------------------------------------------------------------------

assert_type(fault_schedules(agent, ["error", "lost_reply"], horizon=300), SearchStrategy[ChaosPlan])
assert_type(fault_windows(["llm.invoke"]), SearchStrategy[FaultWindow])
assert_type(latencies(2.5), SearchStrategy[float])


@given(fault_schedules(["llm.*"], known=resilience))
def search(plan: ChaosPlan) -> None:
    """Look for a plan that breaks it."""
    agent.check(plan)


class Machine(ChaosStateMachine):
    """Operations in any order."""

    kinds = ("error", "lost_reply")
    invariants_at_end = (recovers_within(300.0),)
    settle = 60.0

    @override
    def build(self, world: World) -> None:
        """Make the service."""
        self.write = world.resilience.guard("memory.write")(answer)

    @rule(number=st.integers(0, 5))
    def remember(self, number: int) -> None:
        """Write, whatever comes of it."""
        self.attempt(self.write())

    @override
    async def probe(self) -> None:
        """Write now and then."""
        await self.write()


# -- client seams -------------------------------------------------------------------------------------------------------------------------

seams = ProtocolFaults(ProtocolFault("status", retry_after=7), ProtocolFault("read_timeout", rate=0.5))
httpx.Client(transport=FaultTransport(httpx.HTTPTransport(), seams))
httpx.AsyncClient(transport=AsyncFaultTransport(httpx.AsyncHTTPTransport(), seams))
with httpx.Client() as client, install(client, seams) as installed:
    assert_type(installed, ProtocolFaults)
middleware: aiohttp.ClientMiddlewareType = fault_middleware(seams)

# -- fixtures -----------------------------------------------------------------------------------------------------------------------------


def test_with_all_fixtures(
    resilience: Resilience, chaos: ChaosEngine, virtual_time: VirtualClock, fault_events: History, slo: Objectives
) -> None:
    """As a suite that is checked annotates them."""
    assert_type(slo("api", 99.9, timedelta(days=30), latency=2.0), SLO)
    assert_type(slo.budget("api"), ErrorBudget)
    assert_type(slo.assert_budget("api"), float)
    chaos.stop_all()
    anything: Any = (resilience, virtual_time, fault_events)
    del anything
