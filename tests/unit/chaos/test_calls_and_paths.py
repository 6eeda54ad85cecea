"""Which calls are meant: by number, by the guards around them, and by the request that they belong to."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from somaresil import ChaosConfig, ConfigurationError, InjectedFault, Outcome, Retry
from somaresil.callpath import current_path, current_scope, enter, leave
from somaresil.chaos import scope
from somaresil.chaos.run import Numbers
from somaresil.events import DefectFound, ExperimentEnded, ExperimentStarted
from tests.behaviour.kit import both, together
from tests.unit.chaos.kit import LATENCY


def nested(stand, *names, suspends=False):
    """Call through these guards, the first outermost; whether the innermost was struck."""
    guards = [stand.resilience.guard(name) for name in names]

    def inward(index):
        return guards[index].call(inward, index + 1) if index < len(guards) else None

    async def ainward(index):
        await asyncio.sleep(0)
        return await guards[index].acall(ainward, index + 1) if index < len(guards) else None

    try:
        asyncio.run(ainward(0)) if suspends else inward(0)
    except InjectedFault as error:
        return error.component == names[-1]
    return False


# -- calls ------------------------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("calls", "expected"), [((2,), [2]), ((1, 4), [1, 4]), ([5, 1, 5], [1, 5]), ((7,), []), (range(2, 4), [2, 3])])
def test_these_calls_alone_are_struck(stand, suspends, calls, expected):
    """Counted from 1."""
    run = stand.arm(calls=calls)
    found = [number for number in range(1, 7) if nested(stand, "llm.invoke", suspends=suspends)]
    assert (found, run.injected) == (expected, len(expected))


def test_each_guard_counts_for_itself(stand):
    """A pattern names several."""
    stand.arm(target="llm.*", calls=(2,))
    names = ["llm.invoke", "llm.embed", "llm.embed", "llm.invoke", "llm.invoke", "llm.embed"]
    assert [nested(stand, name) for name in names] == [False, False, True, True, False, False]


def test_each_attempt_is_a_call(stand):
    """The second of three fails, the third goes well."""
    guard = stand.resilience.guard("saved", retry=Retry(attempts=3, wait=0.0))
    stand.arm(target="saved", calls=(1, 2, 4))
    acted = []
    assert [guard.call(lambda: acted.append(True) or len(acted)) for _ in range(2)] == [1, 2]
    assert guard.recorder.counts().total(Outcome.GOOD, injected=True) == 2


def test_a_call_that_another_experiment_fails_is_a_call(stand):
    """Each experiment counts all that come by, whichever of them was armed first."""
    first, second = stand.arm(calls=(1,)), stand.arm(calls=(2,))
    third = stand.arm(LATENCY, calls=(1, 3))
    assert stand.struck(4) == [True, True, False, False]
    assert [run.injected for run in (first, second)] == [1, 1]
    assert third.injected == 1


def test_a_rate_thins_the_calls_out(make):
    """Among those that are named, and no others."""
    stand = make(seed=3)
    run = stand.arm(rate=0.5, calls=range(1, 101, 2))
    found = stand.struck(100)
    assert not any(found[1::2])
    assert 10 < sum(found[::2]) == run.injected < 40


@pytest.mark.parametrize("calls", [(), 1, "1", b"1", (0,), (-1,), (1.5,), (True,), (None,), tuple(range(1, 1002)), {}])
def test_calls_are_numbers_from_one(calls):
    """A single number would not say whether it is the only one."""
    with pytest.raises(ConfigurationError) as caught:
        ChaosConfig("error", "x", calls=calls)
    assert [problem.path for problem in caught.value.problems] == ["ChaosConfig.calls"]


def test_one_of_many_calls_at_once_is_the_second(make):
    """Tasks and threads: exactly one is struck, whichever it is."""
    stand = make()
    run = stand.arm(calls=(2,))

    async def answer():
        await asyncio.sleep(0)

    async def main():
        return await asyncio.gather(*(stand.guard.acall(answer) for _ in range(20)), return_exceptions=True)

    assert sum(isinstance(result, InjectedFault) for result in asyncio.run(main())) == 1
    stand.chaos.stop(run)
    stand.arm(calls=(2,))
    results = together(8, lambda _: sum(stand.struck(10)))
    assert sum(results) == 1


# -- paths ------------------------------------------------------------------------------------------------------------------------------


@both
def test_a_path_means_calls_along_it(stand, suspends):
    """Not those from elsewhere, nor those of the guards on the way; and it counts its own alone."""
    run = stand.arm(path="agent.turn > llm.invoke", calls=(2,))
    turn = ("agent.turn", "llm.invoke")
    ways = [turn, ("llm.invoke",), ("tool", "llm.invoke"), ("agent.turn",), turn, ("llm.invoke",), turn]
    assert [nested(stand, *way, suspends=suspends) for way in ways] == [False, False, False, False, True, False, False]
    assert (run.injected, run.struck) == (1, {"llm.invoke": 1})


@both
def test_a_path_may_be_long_and_come_back_to_itself(stand, suspends):
    """Guards may call themselves."""
    stand.resilience.guard("b")
    stand.arm(target="b", path="a > b > a > b")
    assert not nested(stand, "a", "b", suspends=suspends)
    assert nested(stand, "a", "b", "a", "b", suspends=suspends)
    assert not nested(stand, "b", "a", "b", suspends=suspends)


def test_the_guards_of_a_path_may_come_later(stand):
    """And are quiet again when the experiment is over."""
    run = stand.arm(path="agent.turn > llm.invoke")
    outer = stand.resilience.guard("agent.turn")
    assert nested(stand, "agent.turn", "llm.invoke")
    assert outer.switch.reasons == {"fault"}
    run.end()
    assert outer.switch.quiet
    assert outer.faults.rules == ()
    assert not nested(stand, "agent.turn", "llm.invoke")


@pytest.mark.parametrize(
    ("path", "way"),
    [
        ("llm.invoke", ("agent.turn", "llm.invoke")),
        ("llm.invoke", ("job", "agent.turn", "llm.invoke")),
        ("agent.turn > llm.invoke", ("agent.turn", "tool", "llm.invoke")),
        ("agent.turn > llm.invoke", ("job", "agent.turn", "llm.invoke")),
    ],
)
def test_a_path_is_the_whole_path(stand, path, way):
    """What else is armed decides nothing: a guard in between or around makes it another path."""
    for name in way:
        stand.resilience.guard(name)
    stand.arm(path=path)
    stand.arm(LATENCY, target="*", rate=0.0)
    armed_too = nested(stand, *way)
    stand.chaos.stop_all()
    stand.arm(path=path)
    assert nested(stand, *way) == armed_too is False
    assert nested(stand, *path.split(" > "))


def test_a_path_that_is_left_by_an_error_is_left(stand):
    """The next call is made from where it is made."""
    stand.arm(path="agent.turn > llm.invoke")
    outer = stand.resilience.guard("agent.turn")
    with pytest.raises(ZeroDivisionError):
        outer.call(lambda: 1 // 0)
    assert current_path() == ""
    assert not nested(stand, "llm.invoke")
    assert nested(stand, "agent.turn", "llm.invoke")
    assert not nested(stand, "llm.invoke")


@both
def test_the_callee_sees_its_path(stand, suspends):
    """While something is armed; a quiet call pays nothing for it."""

    async def look():
        return current_path()

    def seen():
        outer = stand.resilience.guard("agent.turn")
        if suspends:
            return asyncio.run(outer.acall(lambda: stand.guard.acall(look)))
        return outer.call(lambda: stand.guard.call(current_path))

    assert seen() == ""
    stand.arm(rate=0.0, path="agent.turn > llm.invoke")
    assert seen() == "agent.turn > llm.invoke"
    assert current_path() == ""


def test_paths_of_tasks_do_not_mix(stand):
    """Each task is where it was made, also while others are elsewhere; threads that a task starts are there too."""
    stand.arm(target="*", rate=0.0)
    names = ["a", "b", "c"]
    for name in names:
        stand.resilience.guard(name)

    async def look(name):
        found = []
        for _ in range(5):
            await asyncio.sleep(0)
            found.append(current_path())
            found.append(await asyncio.to_thread(current_path))
            found.append(await asyncio.create_task(stand.guard.acall(inside)))
        return found == [name, name, f"{name} > llm.invoke"] * 5

    async def inside():
        await asyncio.sleep(0)
        return current_path()

    async def main():
        return await asyncio.gather(*(stand.resilience.guard(name).acall(look, name) for name in names))

    assert asyncio.run(main()) == [True] * 3


def test_blocks_and_streams_are_no_part_of_a_path(stand):
    """The body of a block, and a stream that has begun, are run by whoever reads them."""
    outer = stand.resilience.guard("agent.turn")
    stand.arm(path="agent.turn > llm.invoke")
    with outer:
        assert current_path() == ""
        assert not nested(stand, "llm.invoke")

    @outer
    def stream():
        yield current_path()
        yield current_path()

    assert list(stream()) == ["agent.turn", ""]


def test_a_coroutine_that_is_closed_in_another_context_leaves_no_path(stand):
    """As those that are forgotten and closed by the garbage collector; the call is abandoned, and nothing is reported."""
    stand.arm(rate=0.0)

    async def main():
        async def forever():
            await asyncio.Event().wait()

        coroutine = stand.guard.acall(forever)
        contextvars.copy_context().run(coroutine.send, None)
        assert current_path() == ""
        coroutine.close()
        assert current_path() == ""

    asyncio.run(main())
    assert stand.guard.recorder.counts().total(Outcome.ABANDONED) == 1
    assert stand.told(DefectFound) == []


def test_a_step_is_left_in_its_own_context_alone():
    """In another one there is nothing to put back."""
    there = contextvars.copy_context()
    token = there.run(enter, "a")
    leave(token)
    assert current_path() == ""
    assert there.run(current_path) == "a"
    there.run(leave, token)
    assert there.run(current_path) == ""


@pytest.mark.parametrize("path", ["", 5, b"a", ["a"], "x" * 1001])
def test_a_path_is_a_text(path):
    """With something in it."""
    with pytest.raises(ConfigurationError) as caught:
        ChaosConfig("error", "x", path=path)
    assert [problem.path for problem in caught.value.problems] == ["ChaosConfig.path"]


# -- scopes -----------------------------------------------------------------------------------------------------------------------------


def test_scopes_nest():
    """What the caller has named, outermost first; left by errors too."""
    assert current_scope() == ""
    with scope("request-17"):
        with pytest.raises(LookupError), scope("step-2"):
            assert current_scope() == "request-17/step-2"
            raise LookupError
        assert current_scope() == "request-17"
    assert current_scope() == ""


@pytest.mark.parametrize("name", ["", "a b", 5, None, "x" * 121, "a|b", "a>b"])
def test_a_scope_has_a_name(name):
    """What is none is refused before anything is named."""
    with pytest.raises(ConfigurationError) as caught, scope(name):
        pytest.fail("it was entered")
    assert [problem.path for problem in caught.value.problems] == ["scope.name"]
    assert current_scope() == ""


def test_each_scope_counts_for_itself(stand):
    """The second call of each, however they alternate; calls without one have a sequence of their own."""
    stand.arm(calls=(2,))
    found = []
    for name in ("a", "b", "", "b", "a", "", "a"):
        if name:
            with scope(name):
                found += stand.struck()
        else:
            found += stand.struck()
    assert found == [False, False, False, True, True, True, False]


def test_a_scope_goes_on_where_it_was_left(make):
    """Its n-th call is decided alike whether it was entered once or often, and differently from that of other scopes."""

    def found(*names):
        stand = make(seed=5)
        stand.arm(rate=0.5)
        decided = {name: [] for name in names}
        for name in names:
            with scope(name):
                decided[name] += stand.struck(60 // names.count(name))
        return decided

    once, often = found("a", "b"), found("a", "b", "a", "a", "b")
    assert once == often
    assert once["a"] != once["b"]
    stand = make(seed=5)
    stand.arm(rate=0.5)
    assert stand.struck(60) not in once.values()


def test_a_scope_follows_tasks_and_threads_of_asyncio(stand):
    """And no other thread."""
    stand.arm(calls=(1,))

    async def look():
        return current_scope()

    async def main():
        with scope("request"):
            task = asyncio.create_task(look())
            in_thread = await asyncio.to_thread(current_scope)
            struck = await asyncio.to_thread(stand.struck, 2)
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(current_scope()))
        with scope("other"):
            thread.start()
            thread.join()
        return await task, in_thread, struck, elsewhere

    assert asyncio.run(main()) == ("request", "request", [True, False], [""])
    assert stand.struck(2) == [True, False]


def test_there_is_no_end_of_scopes_but_of_sequences(stand, monkeypatch):
    """Names made of user input cost no memory without end: what comes late shares the numbers of the guard, and those known go on."""
    monkeypatch.setattr("somaresil.chaos.triggers._MOST_SEQUENCES", 2)
    stand.arm(calls=(2, 5))
    found = []
    for name in ("a", "b", "c", "d", "e", "a", "f", "g", "b"):
        with scope(name):
            found += stand.struck()
    assert found == [False, False, False, True, False, True, False, True, True]
    (rule,) = stand.guard.faults.rules
    assert len(rule._numbers._by_key) == 2


def test_the_numbers_of_a_component_are_bounded():
    """Ten thousand scopes and paths have numbers of their own."""
    numbers = Numbers("llm.invoke")
    assert [numbers.next(f"request-{number}") for number in range(10_000)] == [0] * 10_000
    assert [numbers.next(f"late-{number}") for number in range(3)] == [0, 1, 2]
    assert numbers.next("") == 3
    assert numbers.next("request-9999") == 1
    assert len(numbers._by_key) == 10_000


# -- looking for paths ------------------------------------------------------------------------------------------------------------------


@both
def test_whoever_tracks_is_told_every_path_and_strikes_nothing(stand, suspends):
    """Guards that are made later tell too; nothing is counted, marked or told to listeners."""
    paths = []
    run = stand.chaos.track(paths.append)
    assert not nested(stand, "agent.turn", "tool", "llm.invoke", suspends=suspends)
    assert not nested(stand, "llm.invoke", suspends=suspends)
    assert paths == ["agent.turn", "agent.turn > tool", "agent.turn > tool > llm.invoke", "llm.invoke"]
    assert (run.injected, stand.events) == (0, [])
    run.end()
    assert all(guard.switch.quiet for guard in stand.resilience.guards.values())
    nested(stand, "llm.invoke", suspends=suspends)
    assert len(paths) == 4
    assert stand.told(ExperimentStarted) == stand.told(ExperimentEnded) == []


def test_tracking_is_a_lease(stand):
    """It ends by itself, and by the kill switch."""
    paths = []
    stand.chaos.track(paths.append, duration_seconds=10.0)
    other = stand.chaos.track(paths.append)
    stand.clock.advance(10.0)
    nested(stand, "llm.invoke")
    assert paths == ["llm.invoke"]
    stand.chaos.stop_all()
    assert not other.live
    assert stand.guard.switch.quiet


def test_tracking_needs_the_permission_of_an_experiment(make, monkeypatch):
    """It takes the quiet path away."""
    monkeypatch.delenv("SOMARESIL_CHAOS")
    stand = make(opt_in=False, environment=None)
    with pytest.raises(ConfigurationError) as caught:
        stand.chaos.track(print)
    assert [problem.path for problem in caught.value.problems] == ["chaos.opt_in", "chaos.SOMARESIL_CHAOS", "chaos.environment"]
    assert stand.guard.switch.quiet


def test_a_tracker_that_raises_is_reported_once(stand):
    """The calls go on."""
    stand.chaos.track(lambda path: 1 / 0)
    assert [stand.guard.call(lambda: "answer") for _ in range(3)] == ["answer"] * 3
    assert [event.error for event in stand.told(DefectFound)] == ["ZeroDivisionError"]
