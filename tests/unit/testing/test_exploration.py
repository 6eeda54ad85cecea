"""Systematic exploration: what it tries, what it finds, what it leaves out, and what it says about what was never tried."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import ChaosPlan, ConfigurationError, Retry
from somaresil.testing import ExplorationFailed, Point, World, at_most_once, explore, holds, scenario


async def a_turn(world: World, *, keyed: bool, degrade: bool) -> None:
    """A turn of an agent: a model, another one in its place, and a write that is tried three times."""
    rows: set[str] = set()
    guard = world.resilience.guard

    @guard("llm.primary", timeout=2.0)
    async def primary():
        await asyncio.sleep(0.3)
        return "answer"

    @guard("llm.secondary", timeout=2.0)
    async def secondary():
        await asyncio.sleep(0.3)
        return "answer"

    @guard("memory.write", timeout=1.0, retry=Retry(attempts=3, wait=0.1))
    async def write(key):
        if not keyed or key not in rows:
            rows.add(key)
            world.acted("memory.write", key)

    @guard("agent.turn")
    async def turn():
        try:
            answer = await primary()
        except Exception:
            try:
                answer = await secondary()
            except Exception:
                if not degrade:
                    raise
                return "degraded"
        try:
            await write("row")
        except Exception:
            return "degraded"
        return answer

    world.facts["answer"] = await turn()


def answered(simulation):
    return simulation.world.facts.get("answer") in {"answer", "degraded"}


RULES = (at_most_once("memory.write"), holds("every turn is answered", answered))


@scenario(*RULES, horizon=60.0)
async def careless(world):
    """A write without a key, and no answer when both models are down."""
    await a_turn(world, keyed=False, degrade=False)


@scenario(*RULES, horizon=60.0)
async def careful(world):
    """Neither of the two."""
    await a_turn(world, keyed=True, degrade=True)


def test_findings_are_the_smallest_ones():
    """A lost reply alone, and both models together; nothing that contains one of these."""
    found = explore(careless, guards="[lm]*")
    faults = {example.faults for example in found.counterexamples}
    write = Point("agent.turn > memory.write", 1)
    assert ((write, "lost_reply"),) in faults
    for first in ("error", "lost_reply"):
        for second in ("error", "lost_reply"):
            assert ((Point("agent.turn > llm.primary", 1), first), (Point("agent.turn > llm.secondary", 1), second)) in {
                tuple(sorted(each)) for each in faults
            }
    smallest = [set(example.faults) for example in found.counterexamples]
    assert not any(one < other for one in smallest for other in smallest)
    assert found.complete
    assert found.runs < 100


def test_a_finding_is_a_plan_that_breaks_it_again():
    """The same plan, through JSON too, in the same scenario."""
    for example in explore(careless, guards="[lm]*").counterexamples:
        plan = ChaosPlan.from_json(example.plan.to_json())
        assert plan == example.plan
        assert plan.scenario == f"{careless.function.__module__}:careless"
        assert not careless.run(plan).ok


def test_what_only_a_fault_makes_happen_is_found_and_faulted_too():
    """The second model, and the second and third attempt to write, are no part of a run that goes well."""
    found = explore(careful, guards="[lm]*")
    assert found.counterexamples == ()
    assert {str(point) for point in found.points} >= {
        "agent.turn > llm.primary #1",
        "agent.turn > llm.secondary #1",
        "agent.turn > memory.write #1",
        "agent.turn > memory.write #2",
        "agent.turn > memory.write #3",
    }
    assert Point("agent.turn > memory.write", 2) in found.faulted
    assert Point("agent.turn > memory.write", 3) not in found.faulted  # it takes two faults to get there, and two is the limit
    assert found.coverage == pytest.approx(4 / 5)
    assert found.check() is found
    assert found.check(fail_under=0.8) is found


def test_three_faults_reach_further():
    """What two cannot show, three do."""
    found = explore(careful, guards="[lm]*", max_faults=3)
    assert Point("agent.turn > memory.write", 3) in found.faulted
    assert found.coverage == 1.0


def test_guards_that_were_never_faulted_are_named():
    """Nothing is known about them, and a limit can say that this is not enough."""
    found = explore(careful, guards="memory.*")
    assert found.never_faulted == ("agent.turn", "llm.primary", "llm.secondary")
    assert "guards never faulted: agent.turn, llm.primary, llm.secondary" in found.report()
    with pytest.raises(ExplorationFailed, match="less than the 100% asked for was faulted"):
        explore(careful, guards="[lm]*").check(fail_under=1.0)


def test_a_failed_check_shows_plans():
    """A line to copy, and JSON."""
    with pytest.raises(ExplorationFailed) as caught:
        explore(careless, guards="[lm]*").check()
    text = str(caught.value)
    assert "lost_reply at agent.turn > memory.write #1" in text
    assert (
        'ChaosPlan([FaultWindow("memory.write", "lost_reply", start=0, duration=60, calls=(1,), path="agent.turn > memory.write")])' in text
    )
    assert '"path": "agent.turn > memory.write"' in text


def test_a_plain_function_will_do():
    """It fails by raising."""

    async def test(world):
        @world.resilience.guard("llm.invoke")
        async def invoke():
            return "answer"

        assert await invoke() == "answer"

    found = explore(test, kinds=["error"], max_faults=1)
    assert [str(example) for example in found.counterexamples] == [
        "error at llm.invoke #1: InjectedFault: fault injected into 'llm.invoke' by chaos experiment error-1"
    ]


def test_a_plain_function_without_a_loop_will_do():
    """Synchronous code is explored as well."""

    def test(world):
        call = world.resilience.guard("llm.invoke", retry=Retry(attempts=2, wait=1.0))(lambda: "answer")
        assert call() == "answer"

    found = explore(test, kinds=["error"])
    assert [len(example.faults) for example in found.counterexamples] == [2]


def test_something_that_is_broken_without_faults_is_not_explored():
    """One run, one finding."""

    async def test(world):
        raise AssertionError("broken anyway")

    found = explore(test)
    assert found.runs == 1
    assert str(found.counterexamples[0]) == "no fault at all: AssertionError: broken anyway"


def test_runs_that_show_nothing_new_are_not_built_upon():
    """A fault that changes nothing that can be seen is a leaf; the findings are those of a search without pruning."""

    async def test(world):
        quiet = world.resilience.guard("metrics.send", fallback=lambda: None)(lambda: None)
        call = world.resilience.guard("llm.invoke")(lambda: "answer")
        for _ in range(3):
            quiet()
        call()

    pruned, whole = explore(test, kinds=["error"]), explore(test, kinds=["error"], prune=False)
    assert pruned.pruned > 0
    assert pruned.runs < whole.runs
    assert pruned.counterexamples == whole.counterexamples != ()
    assert whole.pruned == 0


def test_a_search_that_was_cut_short_does_not_pass():
    """What was not tried is not known."""
    found = explore(careful, max_runs=3)
    assert not found.complete
    assert found.runs == 3
    with pytest.raises(ExplorationFailed, match="not complete: raise max_runs"):
        found.check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ["eror"]}, "did you mean 'error'?"),
        ({"max_faults": 0}, "max_faults"),
        ({"max_runs": 0}, "max_runs"),
        ({"guards": " "}, "guards"),
    ],
)
def test_wrong_options_are_refused(options, said):
    """Before anything runs."""
    with pytest.raises(ConfigurationError, match=said.replace("?", r"\?")):
        explore(careful, **options)
