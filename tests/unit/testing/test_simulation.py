"""Scenarios: how they run, what they are given, and what they say when something does not hold."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, ChaosPlan, ConfigurationError, FaultWindow, InjectedFault, Retry
from somaresil.testing import (
    InvariantBroken,
    amplification_below,
    at_most_once,
    budget_kept,
    burst_below,
    holds,
    never_lost,
    no_hidden_outage,
    recovers_within,
    scenario,
)
from tests.planted import services

NO_FAULTS = ChaosPlan()
OUTAGE = ChaosPlan([FaultWindow("llm.invoke", "error", start=10, duration=30)])


@scenario(recovers_within(60.0), horizon=120.0)
async def steady(world):
    """A call a second."""

    @world.resilience.guard("llm.invoke")
    async def invoke():
        await asyncio.sleep(0.1)

    async for _ in world.ticks(1.0):
        try:
            await invoke()
        except InjectedFault:
            continue


def broken(invariant, function, plan=NO_FAULTS, horizon=120.0):
    """What an invariant says of a scenario; None: it holds."""
    simulation = scenario(invariant, horizon=horizon)(function).run(plan)
    assert simulation.error is None, simulation.error
    return simulation.broken[0].found if simulation.broken else None


# -- running ------------------------------------------------------------------------------------------------------------------------------


def test_each_run_is_a_world_of_its_own():
    """Nothing of one plan is left for the next: equal plans, equal time lines."""
    first, between, second = steady.check(OUTAGE), steady.check(ChaosPlan()), steady.check(OUTAGE)
    assert first.history.timeline() == second.history.timeline() != between.history.timeline()
    assert first.world.resilience is not second.world.resilience
    assert first.history.injected == 30
    assert between.history.injected == 0


def test_ticks_come_in_time_and_late_ones_are_left_out():
    """As a client at a fixed rate that waits for its answer."""
    seen = []

    async def slow(world):
        async for second in world.ticks(10.0):
            seen.append(second)
            if second == 20.0:
                await asyncio.sleep(35.0)

    scenario(horizon=100.0)(slow).run(ChaosPlan())
    assert seen == [0, 10, 20, 55, 60, 70, 80, 90]


def test_a_scenario_is_ended_at_its_horizon():
    """One that would go on for ever as well; its calls are abandoned, not failed."""

    async def endless(world):
        @world.resilience.guard("llm.invoke")
        async def invoke():
            await asyncio.sleep(1e6)

        while True:
            await invoke()

    simulation = scenario(horizon=50.0)(endless).run(ChaosPlan())
    assert simulation.ok
    assert simulation.seconds == 50.0
    assert [event.outcome for event in simulation.history.of(object) if hasattr(event, "outcome")] == ["abandoned"]


def test_a_timeout_of_its_own_is_no_horizon():
    """What the scenario raises is what it raises."""

    async def impatient(world):
        async with asyncio.timeout(1.0):
            await asyncio.sleep(10.0)

    with pytest.raises(TimeoutError) as caught:
        scenario(horizon=50.0)(impatient).check(ChaosPlan())
    assert "impatient" in caught.value.__notes__[0]


def test_a_plain_function_moves_the_clock_itself():
    """Synchronous services are simulated as well."""

    def blocking(world):
        call = world.resilience.guard("llm.invoke")(lambda: "answer")
        while world.now < world.horizon:
            with suppress(InjectedFault):
                call()
            world.clock.sleep(1.0)

    simulation = scenario(recovers_within(5.0), horizon=60.0)(blocking).check(OUTAGE)
    assert simulation.history.injected == 30


def test_guards_are_known_after_one_run():
    """Without faults, and without being told."""
    assert steady.guards == ("llm.invoke",)


def test_an_unknown_target_is_refused_with_near_names():
    """Each with the path of its window."""
    plan = ChaosPlan([FaultWindow("llm.*", "error", 0, 1), FaultWindow("llm.invok", "error", 0, 1), FaultWindow("tool", "error", 0, 1)])
    with pytest.raises(ConfigurationError) as caught:
        steady.run(plan)
    assert [problem.path for problem in caught.value.problems] == ["plan.windows[1].target", "plan.windows[2].target"]
    assert caught.value.problems[0].hint == "did you mean 'llm.invoke'?"


def test_errors_may_be_named_by_the_scenario():
    """A plan names them; the code says what they are."""

    class LLMError(Exception):
        pass

    caught = []

    @scenario(horizon=10.0, errors={"overloaded": LLMError})
    async def named(world):
        @world.resilience.guard("llm.invoke")
        async def invoke():
            return "answer"

        try:
            await invoke()
        except LLMError as error:
            caught.append(error)

    assert named.check(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 5, error="overloaded")])).ok
    assert len(caught) == 1
    with pytest.raises(ConfigurationError, match="did you mean 'overloaded'"):
        named.run(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 5, error="overload")]))


def test_what_is_broken_is_told_with_everything():
    """The invariant, what was found, a line and a plan to run again, and the time line."""
    with pytest.raises(InvariantBroken) as caught:
        services.unkeyed.check(plan := ChaosPlan([FaultWindow("memory.write", "lost_reply", 0, 1)], seed=3))
    text = str(caught.value)
    for part in (
        "broken    memory.write is done at most once a key",
        "found     memory.write 0 was done 3 times",
        'run again unkeyed.check(ChaosPlan([FaultWindow("memory.write", "lost_reply", start=0, duration=1)], seed=3))',
        "python -m somaresil replay plan.json",
        "0.0 - 1.0  fault: lost_reply on memory.write",
        "memory.write: good",
    ):
        assert part in text, part
    shown = next(line for line in text.splitlines() if line.strip().startswith("plan.json"))
    assert ChaosPlan.from_json(shown.partition("plan.json ")[2]).windows == plan.windows


def test_plans_are_kept_where_a_folder_is_named(tmp_path, monkeypatch):
    """One file a plan; the same plan is one file."""
    monkeypatch.setenv("SOMARESIL_PLANS", str(tmp_path / "plans"))
    for _ in range(2):
        with pytest.raises(InvariantBroken):
            services.unkeyed.check(ChaosPlan([FaultWindow("memory.write", "lost_reply", 0, 1)]))
    (file,) = (tmp_path / "plans").iterdir()
    assert file.name.startswith("unkeyed-")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["scenario"] == "tests.planted.services:unkeyed"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: scenario(recovers_within(60.0), horizon=0)(print), "horizon"),
        (lambda: scenario("recovers")(print), "holds"),
        (lambda: scenario()(7), "function"),
        (lambda: recovers_within(-1), "limit"),
    ],
)
def test_wrong_scenarios_are_refused(make, said):
    """When they are made."""
    with pytest.raises(ConfigurationError, match=said):
        make()


# -- invariants: each holds, and each can be broken ---------------------------------------------------------------------------------------


async def failing_from(world, begin, end):
    """A dependency with an outage of its own, called once a second."""

    @world.resilience.guard("llm.invoke")
    async def invoke():
        if begin <= world.now < end:
            raise OSError

    async for _ in world.ticks(1.0):
        try:
            await invoke()
        except Exception:
            continue


@pytest.mark.parametrize(("end", "limit", "holds_"), [(45, 25.0, True), (45, 24.9, False), (1_000, 90.0, False)])
def test_recovery_counts_from_the_end_of_the_last_fault(end, limit, holds_):
    """Until the first good call after which none fails; never is longer than any limit."""
    plan = ChaosPlan([FaultWindow("llm.invoke", "latency", 10, 10, delay=0.1)])
    found = broken(recovers_within(limit), lambda world: failing_from(world, 15, end), plan)
    assert (found is None) is holds_
    if not holds_:
        assert ("not recovered" in found) is (end == 1_000)


def test_what_was_done_twice_is_counted_by_key():
    """And what was acknowledged must have been done."""

    async def ledger(world):
        world.acted("mail.send", "a")
        world.acted("mail.send", "a")
        world.acted("row.write", "b")
        world.acknowledged("row.write", "b")
        world.acknowledged("row.write", "c")

    assert broken(at_most_once(), ledger) == "mail.send 'a' was done 2 times"
    assert broken(at_most_once("row.*"), ledger) is None
    assert broken(never_lost(), ledger) == "row.write 'c' was acknowledged and not done"
    assert broken(never_lost("mail.*"), ledger) is None


def test_a_budget_is_kept_or_not():
    """By what is left of it; an objective that saw nothing is not judged."""

    async def spends(world):
        world.resilience.slos.add(SLO("calls", 90.0, timedelta(days=1)), SLO("unused", 90.0, timedelta(days=1)))
        call = world.resilience.guard("llm.invoke", slo="calls")(lambda good: good or 1 / 0)
        for number in range(100):
            try:
                call(number % 20 > 0)
            except ZeroDivisionError:
                continue

    assert broken(budget_kept("calls", remaining=0.5), spends) is None
    assert "50.0% of the budget of calls is left" in broken(budget_kept("calls", remaining=0.51), spends)
    assert broken(budget_kept("unused", remaining=1.0), spends) is None


@pytest.mark.parametrize(("attempts", "limit", "holds_"), [(1, 1.0, True), (3, 3.0, True), (3, 2.9, False)])
def test_amplification_is_attempts_for_each_call(attempts, limit, holds_):
    """Of the dependency, in the worst minute."""

    async def retries(world):
        @world.resilience.guard("llm.invoke", retry=Retry(attempts=attempts, wait=0.1))
        async def invoke():
            raise OSError

        @world.resilience.guard("request")
        async def request():
            await invoke()

        async for _ in world.ticks(5.0):
            try:
                await request()
            except OSError:
                continue

    found = broken(amplification_below(limit, "llm.invoke", per="request"), retries)
    assert (found is None) is holds_
    assert holds_ or "3.00 times for each call of request" in found


def test_bursts_are_counted_in_any_span():
    """Also when they straddle a full second."""

    async def bursts(world):
        @world.resilience.guard("llm.invoke")
        async def invoke():
            await asyncio.sleep(5.0)

        await asyncio.sleep(0.9)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(invoke())
                await asyncio.sleep(0.1)

    assert broken(burst_below(4, "llm.invoke", per=1.0), bursts) is None
    assert broken(burst_below(3, "llm.invoke", per=1.0), bursts) == "4 calls of llm.invoke began within 1 s from 0.9 s on"
    assert broken(burst_below(2, "llm.invoke", per=0.15), bursts) is None


def test_an_outage_behind_a_fallback_is_hidden_where_the_objective_sees_answers_only():
    """On the guard with the fallback; not on that of the dependency."""
    plan = ChaosPlan([FaultWindow("memory.read", "error", 0, 300)])
    assert services.hidden.run(plan).broken[0].found == "60 calls of memory.read failed and recall has counted no bad event"
    assert services.hidden_mended.run(plan).ok
    assert services.hidden.run(ChaosPlan([FaultWindow("memory.read", "error", 0, 20)])).ok  # 4 calls: fewer than are asked for


def test_a_fallback_on_the_dependency_itself_hides_as_well():
    """Its calls end well; that a fallback answered is known all the same."""

    async def hides(world):
        world.resilience.slos.add(SLO("calls", 90.0, timedelta(days=1)))
        call = world.resilience.guard("llm.invoke", slo="calls", fallback=lambda: None)(lambda: 1 / 0)
        for _ in range(20):
            call()

    assert "20 calls of llm.invoke failed" in broken(no_hidden_outage("calls", "llm.invoke"), hides)


@pytest.mark.parametrize(
    ("said", "found"), [(True, None), (None, None), (False, "it does not: False"), (0, "it does not: 0"), ("half", "half")]
)
def test_an_invariant_of_ones_own(said, found):
    """True and None hold, a text says what does not."""

    async def nothing(world):
        return

    assert broken(holds("mine", lambda simulation: said), nothing) == found
