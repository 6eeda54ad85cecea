"""What has shown nothing is not good: a service that dies in silence, faults that strike nothing, invariants about nobody."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from somaresil import ChaosPlan, CircuitBreaker, ConfigurationError, FaultWindow, InjectedFault, Resilience, Retry
from somaresil.testing import (
    ChaosStateMachine,
    ExplorationFailed,
    InvariantBroken,
    VirtualClock,
    amplification_below,
    assert_absorbed,
    assert_recovers,
    at_most_once,
    burst_below,
    capture_events,
    explore,
    holds,
    inject,
    never_lost,
    recovers_within,
    scenario,
)
from somaresil.testing.replay import replay
from somaresil.testing.strategies import SEARCH, fault_schedules

ERRORS = ChaosPlan([FaultWindow("llm.invoke", "error", 30, 60)])


def asks(world, name="llm.invoke", **options):
    """A guarded call that takes a moment."""

    @world.resilience.guard(name, **options)
    async def ask():
        await asyncio.sleep(0.1)

    return ask


# -- services that stop -------------------------------------------------------------------------------------------------------------------


def test_a_service_that_hangs_has_not_recovered():
    """It was struck, it is not called any more, and there was time."""

    @scenario(recovers_within(30), horizon=600)
    async def deadlock(world):
        ask = asks(world)
        async for _ in world.ticks(1):
            try:
                await ask()
            except Exception:
                await asyncio.Event().wait()

    with pytest.raises(InvariantBroken, match=r"llm\.invoke: was struck, and not called any more after the last fault") as caught:
        deadlock.check(ERRORS)
    assert caught.value.simulation.cut
    assert "then it was cut off" in str(caught.value)


def test_a_call_that_never_ends_has_not_recovered():
    """Its end is never told, its strike was."""

    @scenario(recovers_within(30), horizon=600)
    async def stuck(world):
        @world.resilience.guard("llm.invoke")
        async def ask():
            await asyncio.sleep(0.1)

        async def patient():
            try:
                await ask()
            except Exception:
                await asyncio.Event().wait()

        turn = world.resilience.guard("agent.turn")(patient)
        async for _ in world.ticks(1):
            await turn()

    with pytest.raises(InvariantBroken, match="not called any more"):
        stuck.check(ERRORS)


def test_a_fault_that_lasts_to_the_end_leaves_nothing_to_judge():
    """There was no time to recover in."""

    @scenario(recovers_within(30), horizon=100)
    async def short(world):
        ask = asks(world)
        async for _ in world.ticks(1):
            try:
                await ask()
            except Exception:
                continue

    assert short.check(ERRORS).ok
    assert short.check(ChaosPlan([FaultWindow("llm.invoke", "error", 30, 1_000)])).ok


def test_a_worker_that_dies_in_the_background_is_a_finding():
    """Nobody has looked at its failure, and everything else goes on as if nothing were."""

    @scenario(horizon=100)
    async def service(world):
        ask = asks(world)

        async def work():
            while True:
                await ask()

        worker = asyncio.create_task(work())
        async for _ in world.ticks(1):
            pass
        assert worker

    with pytest.raises(InvariantBroken, match=r"work ended with InjectedFault") as caught:
        service.check(ERRORS)
    assert [broken.name for broken in caught.value.simulation.broken] == ["no task fails without anybody looking"]
    assert service.check(ChaosPlan()).ok


def test_a_failure_that_is_looked_at_is_none():
    """By a group, by gather, by whoever awaits the task later."""

    @scenario(horizon=100)
    async def service(world):
        ask = asks(world)

        async def work():
            while True:
                await ask()

        workers = [asyncio.create_task(work()) for _ in range(3)]
        found = await asyncio.gather(*workers[:2], return_exceptions=True)
        await asyncio.sleep(1)
        try:
            await workers[2]
        except Exception as error:
            found.append(error)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
        except* Exception:
            world.facts["found"] = len(found)

    simulation = service.check(ERRORS)
    assert simulation.world.facts == {"found": 3}


def test_exploration_finds_a_test_that_does_not_end():
    """A worker has died, whoever waits for it waits for ever: the assertion at the end is never reached."""

    async def turn(world):
        queue = asyncio.Queue()
        write = asks(world, "memory.write")

        async def work():
            while True:
                await queue.get()
                await write()
                queue.task_done()

        worker = asyncio.create_task(work())
        queue.put_nowait("a")
        await queue.join()
        worker.cancel()

    with pytest.raises(ExplorationFailed, match=r"error at memory\.write #1: .*work ended with InjectedFault"):
        explore(turn, kinds=["error"]).check()


def test_exploration_finds_what_only_waits():
    """With nobody who dies, too: it has to end in its time."""

    async def turn(world):
        ask = asks(world)
        try:
            await ask()
        except Exception:
            await asyncio.Event().wait()

    with pytest.raises(ExplorationFailed, match=r"error at llm\.invoke #1: it did not end within 900 s"):
        explore(turn, kinds=["error"]).check()


# -- faults that strike nothing -----------------------------------------------------------------------------------------------------------


def test_nothing_has_recovered_where_nothing_was_struck():
    """A fault was armed, and met no call."""
    resilience = Resilience("tests", environment="test")
    call = resilience.guard("llm.invoke")(lambda: 1)
    with capture_events(resilience) as history:
        with inject(resilience, "llm.invoke", "stream_cut"):
            call()
        call()
    with pytest.raises(AssertionError, match="no fault has struck a call"):
        assert_recovers(history, within=1.0)


@pytest.mark.parametrize(
    ("kind", "why"), [("stream_cut", "guards no generator"), ("stream_truncate", "guards no generator"), ("circuit_trip", "has no breaker")]
)
def test_a_fault_that_a_guard_cannot_have_is_refused(kind, why):
    """In a plan, when it has run; in a search, when it is written."""

    @scenario(recovers_within(30), horizon=100)
    async def service(world):
        ask = asks(world)
        async for _ in world.ticks(1):
            await ask()

    with pytest.raises(ConfigurationError, match=rf"plan\.windows\[0\]\.kind.*{why}"):
        service.check(ChaosPlan([FaultWindow("llm.*", kind, 0, 10)]))
    with pytest.raises(ConfigurationError, match=rf"kinds.*{why}"):
        fault_schedules(service, ["error", kind])


def test_guards_that_can_have_them_do():
    """A breaker trips, a stream is cut."""

    @scenario(horizon=100)
    async def service(world):
        @world.resilience.guard("llm.stream", breaker=CircuitBreaker())
        async def stream():
            yield "a"
            yield "b"

        async for _ in world.ticks(1):
            try:
                async for _ in stream():
                    pass
            except Exception:
                continue

    for kind in ("stream_cut", "stream_truncate", "circuit_trip"):
        assert service.check(ChaosPlan([FaultWindow("llm.*", kind, 0, 10)])).history.injected
        fault_schedules(service, [kind])


@scenario(recovers_within(30), horizon=100)
async def told(world):
    """For the command line."""
    ask = asks(world, retry=Retry(attempts=2, wait=0.1))
    async for _ in world.ticks(1):
        try:
            await ask()
        except Exception:
            continue


def test_a_plan_that_strikes_nothing_shows_nothing(tmp_path, capsys):
    """The report names the windows, and the command does not end well."""
    plan = ChaosPlan([FaultWindow("llm.invoke", "error", 500, 60)], scenario=f"{__name__}:told")
    assert told.check(plan).idle == plan.windows
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert replay(str(tmp_path / "plan.json"), as_json=True) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["struck_nothing"] == [plan.windows[0].as_dict()]
    assert "no window of the plan has struck a call of told" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guards": "lmm.*"}, "no call of a guard that may be faulted was reached"),
        ({"kinds": ["stream_cut"]}, "no fault of these kinds has struck anywhere"),
    ],
)
def test_an_exploration_that_has_tried_nothing_fails(options, said):
    """With or without a limit."""

    async def turn(world):
        try:
            await asks(world, retry=2)()
        except Exception:
            return

    exploration = explore(turn, **options)
    assert exploration.coverage == 0.0
    with pytest.raises(ExplorationFailed, match=said):
        exploration.check()


@pytest.mark.parametrize("kinds", [[], "error", ["eror"]])
def test_kinds_of_an_exploration_are_checked(kinds):
    """None at all are too few."""
    with pytest.raises(ConfigurationError, match="kinds"):
        explore(told, kinds=kinds)


# -- invariants about nobody --------------------------------------------------------------------------------------------------------------


def test_invariants_name_what_there_is():
    """All of those that do not are told, with what comes near."""

    @scenario(
        at_most_once("memory.wirte"),
        never_lost("memory.wirte"),
        recovers_within(10, guard="memroy.write"),
        amplification_below(1, "memroy.write", "agent.trun"),
        burst_below(1, "memroy.write"),
        horizon=100,
    )
    async def service(world):
        write = asks(world, "memory.write")
        async for second in world.ticks(10):
            await write()
            world.acted("memory.write", second)

    with pytest.raises(ConfigurationError) as caught:
        service.check(ChaosPlan())
    assert [(problem.path, problem.hint) for problem in caught.value.problems] == [
        (f"{service.name}.at_most_once.effect", "did you mean 'memory.write'?"),
        (f"{service.name}.never_lost.effect", "did you mean 'memory.write'?"),
        (f"{service.name}.recovers_within.guard", "did you mean 'memory.write'?"),
        (f"{service.name}.amplification_below.dependency", "did you mean 'memory.write'?"),
        (f"{service.name}.amplification_below.per", ""),
        (f"{service.name}.burst_below.dependency", "did you mean 'memory.write'?"),
    ]


def test_an_effect_that_a_fault_prevents_exists_all_the_same():
    """It is there without the fault, and that is asked once."""

    @scenario(at_most_once("memory.write"), recovers_within(200, "memory.read"), horizon=100)
    async def service(world):
        @world.resilience.guard("llm.invoke")
        async def ask():
            world.facts["runs"] = world.facts.get("runs", 0) + 1

        try:
            await ask()
        except Exception:
            return
        await asks(world, "memory.read")()
        world.acted("memory.write", 1)

    assert service.check(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 60)])).ok


def test_a_scenario_that_tells_of_no_effect_cannot_promise_any():
    """Or the promise would be kept by saying nothing."""

    @scenario(at_most_once(), horizon=10)
    async def service(world):
        await asks(world)()

    with pytest.raises(ConfigurationError, match=r"world\.acted"):
        service.check(ChaosPlan())


def test_a_state_machine_asks_for_its_guards_too():
    """When it ends."""

    class Machine(ChaosStateMachine):
        invariants_at_end = (recovers_within(10, "memroy.write"),)
        settle = 10.0

        def build(self, world):
            self.write = asks(world, "memory.write")

        @rule()
        def remember(self):
            self.attempt(self.write())

    with pytest.raises(ConfigurationError, match=r"did you mean 'memory\.write'"):
        run_state_machine_as_test(Machine, settings=settings(SEARCH, max_examples=2, database=None))


# -- scenarios that are none --------------------------------------------------------------------------------------------------------------


def test_a_scenario_without_parentheses_says_so():
    """The function would be taken for an invariant."""
    with pytest.raises(ConfigurationError, match=r"@scenario\(\.\.\.\), with parentheses"):

        @scenario
        async def service(world):
            pass


def test_a_stray_yield_is_no_scenario():
    """Its body would never run."""

    async def asynchronous(world):
        raise RuntimeError
        yield

    def plain(world):
        raise RuntimeError
        yield

    for function in (asynchronous, plain):
        with pytest.raises(ConfigurationError, match="there is a yield in it"):
            explore(function)
        with pytest.raises(ConfigurationError, match="there is a yield in it"):
            scenario(holds("all", lambda simulation: True))(function)


def test_what_a_scenario_raises_is_not_hidden_behind_its_guards():
    """They are missing because it has failed."""

    @scenario(recovers_within(30))
    async def broken(world):
        raise LookupError("no such setting")

    for attempt in (lambda: broken.check(ERRORS), lambda: broken.guards, lambda: fault_schedules(broken)):
        with pytest.raises(LookupError, match="no such setting"):
            attempt()


def test_a_scenario_inside_of_a_loop_says_so_at_once():
    """Before anything of it has begun."""

    async def main():
        told.check(ERRORS)

    with pytest.raises(RuntimeError, match="inside of a running event loop"):
        asyncio.run(main())


# -- machines -----------------------------------------------------------------------------------------------------------------------------


def test_an_attempt_runs_what_a_function_returns():
    """A coroutine that is not run does nothing, and nothing breaks."""

    class Machine(ChaosStateMachine):
        kinds = ("lost_reply",)
        invariants_at_end = (at_most_once("memory.write"),)
        settle = 10.0

        def build(self, world):
            self.number = 0

            @world.resilience.guard("memory.write", retry=Retry(attempts=3, wait=0.1))
            async def write(key):
                world.acted("memory.write", key)

            self.write = write

        @rule()
        def remember(self):
            self.number += 1
            self.attempt(lambda: self.write(self.number))

    with pytest.raises(InvariantBroken, match="was done"):
        run_state_machine_as_test(
            Machine,
            settings=settings(SEARCH, max_examples=100, stateful_step_count=8, database=None, derandomize=True, phases=(Phase.generate,)),
        )


# -- figures ------------------------------------------------------------------------------------------------------------------------------


def test_a_struck_call_that_never_ends_is_not_absorbed():
    """One of ten went well, nine hang: that is a tenth, and no whole."""
    clock = VirtualClock()
    resilience = Resilience("tests", clock=clock, environment="test")
    served = []

    @resilience.guard("llm.invoke", retry=Retry(attempts=2, wait=0.1))
    async def ask():
        if served:
            await asyncio.Event().wait()
        served.append(1)

    async def main():
        with capture_events(resilience) as history:
            with inject(resilience, "llm.invoke", "error", calls=tuple(range(1, 11))):
                tasks = [asyncio.create_task(ask()) for _ in range(10)]
                await asyncio.sleep(600)
            assert (history.touched(), history.unended(), history.absorbed()) == (10, 9, 0.1)
            with pytest.raises(AssertionError, match=r"10\.0% of 10 touched calls ended well"):
                assert_absorbed(history, at_least=0.95)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return history

    history = clock.run(main())
    assert (history.touched(), history.absorbed()) == (10, 0.1), "as it was when the watching ended"
    assert resilience.guard("llm.invoke").faults.unended == 0


def test_repetitions_are_attempts_of_a_burst():
    """What counts is how often the dependency is asked, not how many callers began it."""

    @scenario(burst_below(10, "db.query"), horizon=20)
    async def storm(world):
        @world.resilience.guard("db.query", retry=Retry(attempts=10, wait=0.01))
        async def query():
            raise ConnectionError

        async def one():
            try:
                await query()
            except ConnectionError:
                return

        async for _ in world.ticks(5):
            await asyncio.gather(*(one() for _ in range(10)))

    with pytest.raises(InvariantBroken, match=r"100 calls of db\.query began within 1 s"):
        storm.check(ChaosPlan())


def test_a_call_each_second_is_one_in_a_second():
    """A span covers its first moment and not its last."""

    @scenario(burst_below(1, "db.query", per=1.0), horizon=20)
    async def steady(world):
        @world.resilience.guard("db.query")
        async def query():
            return None

        async for _ in world.ticks(1):
            await query()

    assert steady.check(ChaosPlan()).ok


def test_a_repetition_that_never_came_is_no_attempt():
    """It was announced; then the caller gave up, or the circuit opened."""

    @scenario(amplification_below(1.0, "db.query", per="gateway.request"), horizon=200)
    async def impatient(world):
        @world.resilience.guard("db.query", retry=Retry(attempts=2, wait=10.0))
        async def query():
            await asyncio.sleep(0.01)
            raise ConnectionError

        @world.resilience.guard("gateway.request", timeout=2.0)
        async def request():
            await query()

        async for _ in world.ticks(5):
            try:
                await request()
            except Exception:
                continue

    simulation = impatient.check(ChaosPlan())
    assert simulation.history.attempts("db.query") == 40


def test_a_fault_that_is_used_up_has_ended_with_its_last_strike():
    """What comes after that is the recovery, though the lease would have gone on."""
    clock = VirtualClock()
    resilience = Resilience("tests", clock=clock, environment="test")
    call = resilience.guard("llm.invoke")(lambda: 1)
    with capture_events(resilience) as history, inject(resilience, "llm.invoke", "error", max_injections=1):
        clock.advance(3)
        with pytest.raises(InjectedFault):
            call()
        clock.advance(2)
        call()
    assert history.windows == ((0.0, 3.0, "llm.invoke", "error"),)
    assert assert_recovers(history, within=10) <= 2.0


def test_no_fault_of_a_history_is_forgotten():
    """The engine remembers the last 64, a history all that it has seen."""
    clock = VirtualClock()
    resilience = Resilience("tests", clock=clock, environment="test")
    call = resilience.guard("llm.invoke")(lambda: 1)
    with capture_events(resilience) as history:
        for _ in range(100):
            with inject(resilience, "llm.invoke", "latency", delay=1.0):
                call()
    assert len(history.windows) == 100


def test_a_trip_that_overlaps_another_comes_when_that_is_over():
    """The circuit is probed and closed, and tripped again for the rest of the second window."""

    @scenario(horizon=120)
    async def service(world):
        served = world.facts.setdefault("served", [])

        @world.resilience.guard("db.query", breaker=CircuitBreaker(open_jitter=0.0))
        async def query():
            served.append(world.now)

        async for _ in world.ticks(1):
            try:
                await query()
            except Exception:
                continue

    plan = ChaosPlan([FaultWindow("db.query", "circuit_trip", 10, 20), FaultWindow("db.query", "circuit_trip", 25, 60)])
    simulation = service.check(plan)
    assert simulation.idle == ()
    assert not [at for at in simulation.world.facts["served"] if 40 < at < 85]


# -- what cannot be judged ----------------------------------------------------------------------------------------------------------------


def test_a_judge_that_raises_is_a_broken_invariant():
    """With the report and the plan, as any other."""

    @scenario(holds("the sum is right", lambda simulation: 1 / 0), horizon=10)
    async def service(world):
        await asks(world)()

    with pytest.raises(InvariantBroken, match="it cannot be judged: ZeroDivisionError"):
        service.check(ChaosPlan())


@scenario(horizon=10)
async def leaves(world):
    """For the command line."""
    asks(world)
    raise SystemExit(0)


@scenario(horizon=60)
async def late(world):
    """For the command line: no call follows the fault."""
    ask = asks(world)
    async for _ in world.ticks(5):
        try:
            await ask()
        except Exception:
            continue


def test_a_scenario_that_leaves_the_process_was_not_run(tmp_path, capsys):
    """Its zero is no success; nor is that of a module that leaves when it is imported."""
    (tmp_path / "plan.json").write_text(ERRORS.to_json())
    assert replay(str(tmp_path / "plan.json"), scenario=f"{__name__}:leaves") == 2
    assert "has left the process" in capsys.readouterr().err


def test_nothing_is_said_about_a_recovery_that_nobody_saw(tmp_path, capsys):
    """No call came after the fault: it is neither recovered nor lost."""
    (tmp_path / "plan.json").write_text(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 60)]).to_json())
    replay(str(tmp_path / "plan.json"), scenario=f"{__name__}:late", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["recovered"], told["worst_recovery"], told["absorbed"]) == (None, None, 0.0)
