"""Single flight: its options, who shares with whom, and what each of them gets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import threading
import weakref

import pytest

from somaresil import ConfigurationError, DeadlineExceeded, ManualClock, Outcome, Resilience, Retry, SingleFlight, StaleCache
from somaresil.events import CallEnded, DefectFound, ShadowDecision
from somaresil.policy import singleflight
from tests.behaviour.kit import PATIENCE, Boom, Gate, Stand, together, turns
from tests.unit.policy.hedging import Attempt, Dependency, Timed
from tests.unit.policy.kit import wrong

# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """By the arguments, in earnest."""
    assert dataclasses.astuple(SingleFlight()) == (None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SingleFlight().shadow = True


async def later():
    """Stand for a key that nobody would await."""


@pytest.mark.parametrize("key", ["user", 1, later])
def test_a_wrong_key_is_named(key):
    """All problems come at once."""
    assert wrong(SingleFlight, key, shadow=1) == ["key", "shadow"]


def test_true_and_a_function_are_enough():
    """The shorthands of the guard."""
    assert Stand(single_flight=True).guard.options.single_flight == SingleFlight()
    assert Stand(single_flight=str).guard.options.single_flight == SingleFlight(str)
    assert Stand(single_flight=False).guard.single_flight is None
    assert wrong(Stand, single_flight="user") == ["single_flight"]


def generate():
    yield


async def agenerate():
    yield


@pytest.mark.parametrize("stream", [generate, agenerate])
def test_a_stream_is_refused(stream):
    """At decoration: it has one reader."""
    with pytest.raises(ConfigurationError, match="a stream has one reader"):
        Stand(single_flight=True).guard(stream)


def test_a_stream_and_a_block_are_left_alone():
    """A stream that got it later begins twice; a block is refused."""
    stand = Stand()
    stream = stand.guard(generate)
    stand.guard.configure(single_flight=True)
    first, second = stream(), stream()
    assert (next(first), next(second)) == (None, None)
    with pytest.raises(ConfigurationError, match="a block cannot be run twice"), stand.guard:
        pass


# -- tasks ----------------------------------------------------------------------------------------------------------------------------


def test_those_who_ask_for_the_same_share_one_call():
    """One call, one verdict for the breaker, an answer for each, and each is counted."""
    stand = Timed(single_flight=True, breaker=True)
    dependency = Dependency(Attempt(1.0, "one"), Attempt(1.0, "two"))
    guarded = stand.guard(dependency)

    async def main():
        together = asyncio.gather(guarded(1), guarded(1), guarded(2), guarded(1))
        await asyncio.sleep(0.5)
        assert stand.guard.single_flight.waiting == 2
        return await together, await guarded(1)

    assert stand.run(main()) == ((["one", "one", "two", "one"], "two"), 2.0)
    assert len(dependency.begun) == 3
    assert stand.guard.single_flight.shared == 2
    assert stand.guard.breaker.tally().calls == 3
    assert stand.count(Outcome.GOOD) == stand.count() == 5
    assert stand.guard.single_flight._flights == {}


def test_an_error_comes_to_each_as_an_object_of_its_own():
    """With the place where it came from, and the breaker hears of one failure."""
    stand = Timed(single_flight=True, breaker=True)
    guarded = stand.guard(Dependency(Attempt(1.0, Boom("down", 1))))

    async def caller_of_the_leader():
        try:
            return await guarded()
        except Boom as error:
            await asyncio.sleep(0)
            return error

    async def main():
        return await asyncio.gather(caller_of_the_leader(), guarded(), guarded(), return_exceptions=True)

    errors = stand.run(main())[0]
    assert len({id(error) for error in errors}) == 3
    assert {(type(error), error.args) for error in errors} == {(Boom, ("down", 1))}
    places = [[frame.f_code.co_name for frame in walk(error)] for error in errors]
    assert [names.count("caller_of_the_leader") for names in places] == [1, 0, 0]
    assert [names[-1] for names in places] == ["__call__"] * 3
    assert stand.guard.breaker.tally().failures == 1
    assert stand.count(Outcome.BAD) == stand.count() == 3


def walk(error):
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def test_a_leader_that_is_cancelled_takes_nobody_with_it():
    """One of the others leads then, and the rest shares its call."""
    stand = Timed(single_flight=True, bulkhead=1)
    dependency = Dependency(Attempt(2.0, "first"), Attempt(2.0, "second"))
    guarded = stand.guard(dependency)

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(4)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends, took = stand.run(main())
    assert isinstance(ends[0], asyncio.CancelledError)
    assert (ends[1:], took, len(dependency.begun)) == (["second"] * 3, 3.0, 2)
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.ABANDONED)) == (3, 1)


def test_a_cancelled_follower_leaves_the_others_alone():
    """Nobody waits for it, and it is no longer waited for by anybody."""
    stand = Timed(single_flight=True)
    guarded = stand.guard(Dependency(Attempt(2.0, "answer")))

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(3)]
        await asyncio.sleep(1)
        tasks[1].cancel()
        await asyncio.sleep(0.5)
        waiting = stand.guard.single_flight.waiting
        return waiting, await asyncio.gather(*tasks, return_exceptions=True)

    (waiting, ends), took = stand.run(main())
    assert (waiting, took) == (1, 2.0)
    assert isinstance(ends[1], asyncio.CancelledError)
    assert ends[::2] == ["answer", "answer"]


def test_all_may_leave():
    """Leaders one after the other, and the last one too: nothing is left in the air."""
    stand = Timed(single_flight=True)
    dependency = Dependency(Attempt(60.0))
    guarded = stand.guard(dependency)

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(3)]
        for task in tasks:
            await asyncio.sleep(1)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert stand.run(main())[1] == 3.0
    assert len(dependency.begun) == 3
    assert stand.guard.single_flight._flights == {}


def test_a_follower_has_its_own_deadline():
    """It is rejected when that passes, and the leader goes on."""
    stand = Timed(single_flight=True)
    guarded = stand.guard(Dependency(Attempt(5.0, "answer")))

    async def hurried():
        with stand.resilience.deadline(2.0), pytest.raises(DeadlineExceeded, match="another caller's answer"):
            await guarded()
        return asyncio.get_running_loop().time()

    async def main():
        return await asyncio.gather(guarded(), hurried(), guarded())

    assert stand.run(main())[0] == ["answer", 2.0, "answer"]
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.REJECTED)) == (2, 1)


def test_the_mark_of_an_experiment_is_shared():
    """Who got a struck answer was struck."""
    stand = Timed(single_flight=True)
    guarded = stand.guard(Dependency(Attempt(1.0)))

    class Rule:
        live, over = True, False

        def decide(self, _call=None):
            return True

        def strike(self, _decided=None):
            return type("Strike", (), {"delay": 1.0, "error": None, "after": None})()

        async def hold(self, runtime, seconds):
            await runtime.sleep(seconds)
            return True

    stand.guard.faults.arm(Rule())

    async def main():
        await asyncio.gather(guarded(), guarded())

    stand.run(main())
    assert [event.injected for event in stand.told(CallEnded)] == [True, True]
    assert stand.guard.faults.unended == 0


def test_each_caller_has_his_own_fallback():
    """It stands outside; retry, hedge and the rest are the leader's."""
    stand = Timed(single_flight=True, retry=Retry(attempts=2, wait=1.0), fallback=[StaleCache(60), lambda number: ("instead", number)])
    stand.guard.configure(single_flight=lambda number: "same")
    dependency = Dependency(Attempt(1.0, Boom()))
    guarded = stand.guard(dependency)

    async def main():
        return await asyncio.gather(guarded(1), guarded(2))

    assert stand.run(main())[0] == [("instead", 1), ("instead", 2)]
    assert len(dependency.begun) == 2


def test_who_asks_himself_does_not_wait_for_himself():
    """Directly, in a task of his own, or around two corners: the call is made."""
    stand = Timed(single_flight=True)
    depth = []

    @stand.guard
    async def other_flight():
        await asyncio.sleep(1)

    @stand.guard
    async def ask(name):
        depth.append(name)
        if len(depth) == 1:
            # Another one, that somebody else leads and that ends: nothing of it is remembered.
            await asyncio.gather(other_flight(), other_flight())
            assert [flight.awaits for flight in singleflight._led.get()] == [[]]
        if len(depth) < 4:
            # The second flight is led by a task that is waited for by the first.
            return await asyncio.ensure_future(ask("other" if name == "one" else "one"))
        return "answer"

    assert stand.run(ask("one"))[0] == "answer"
    assert depth == ["one", "other", "one", "other"]


def test_two_leaders_do_not_wait_for_one_another():
    """Each of them asks for what the other is fetching."""
    stand = Timed(single_flight=True)
    other = stand.resilience.guard("other", single_flight=True)
    calls = []

    @stand.guard
    async def first(inside):
        calls.append("first")
        await asyncio.sleep(1)
        return await second(True) if not inside else "first"

    @other
    async def second(inside):
        calls.append("second")
        await asyncio.sleep(1)
        return await first(True) if not inside else "second"

    stand.guard.configure(single_flight=lambda inside: "same")
    other.configure(single_flight=lambda inside: "same")

    async def main():
        return await asyncio.gather(first(False), second(False))

    # Whoever comes second finds that the other waits for it, and makes its own call.
    assert sorted(stand.run(main())[0]) == ["first", "first"]
    assert calls == ["first", "second", "first"]


def test_what_has_no_key_is_called_by_itself():
    """It is reported once."""
    stand = Timed(single_flight=True)
    dependency = Dependency(Attempt(1.0))
    guarded = stand.guard(dependency)

    async def main():
        await asyncio.gather(guarded([]), guarded([]))

    stand.run(main())
    assert len(dependency.begun) == 2
    assert [defect.error for defect in stand.told(DefectFound)] == ["TypeError"]


def test_in_shadow_mode_what_would_be_shared_is_counted():
    """And called."""
    stand = Timed(single_flight=SingleFlight(shadow=True))
    dependency = Dependency(Attempt(1.0))
    guarded = stand.guard(dependency)

    async def main():
        await asyncio.gather(guarded(), guarded(), guarded())

    stand.run(main())
    assert len(dependency.begun) == 3
    assert stand.guard.shadow.counts() == {("single_flight", "share"): 2}
    assert len(stand.told(ShadowDecision)) == 2
    assert stand.guard.single_flight.shared == 0


def test_loops_do_not_share():
    """What an answer holds may belong to its loop."""
    stand = Stand(single_flight=True)
    calls = []
    both_in = threading.Barrier(2)

    @stand.guard
    async def call():
        calls.append(threading.get_ident())
        both_in.wait(PATIENCE)
        return calls[-1]

    together(2, lambda number: asyncio.run(call()))
    assert len(set(calls)) == 2


def test_a_call_that_began_quietly_is_not_shared():
    """Its first attempt is over already, and every policy has to hear of it."""
    stand = Timed(retry=Retry(attempts=2, wait=1.0), breaker=True)
    dependency = Dependency(Attempt(1.0, Boom()), Attempt(1.0, Boom()), Attempt(1.0, "answer"))
    guarded = stand.guard(dependency)

    async def main():
        asyncio.get_running_loop().call_later(0.5, lambda: stand.guard.configure(single_flight=True))
        return await asyncio.gather(guarded(), guarded())

    assert stand.run(main()) == (["answer", "answer"], 3.0)
    assert len(dependency.begun) == 4
    assert stand.guard.breaker.tally().failures == 2


def test_a_coroutine_that_is_closed_lets_the_others_lead():
    """GeneratorExit is a leaving like any other, in whichever context it happens."""
    stand = Timed(single_flight=True)
    dependency = Dependency(Attempt(1.0, "answer"))
    guarded = stand.guard(dependency)

    async def main():
        leader = guarded()
        leader.send(None)
        follower = asyncio.ensure_future(guarded())
        await asyncio.sleep(0)
        leader.close()
        return await follower

    assert stand.run(main())[0] == "answer"
    assert len(dependency.begun) == 2


def test_a_shared_error_leaves_nothing_behind():
    """Flights, errors and frames do not hang on one another."""
    stand = Timed(single_flight=True)

    class Token:
        pass

    @stand.guard
    async def call(number, token):
        await asyncio.sleep(1)
        raise Boom

    stand.guard.configure(single_flight=lambda number, token: "same")

    async def one(number, gone):
        token = Token()
        gone.append(weakref.ref(token))
        with contextlib.suppress(Boom):
            await call(number, token)

    async def main():
        gone = []
        await asyncio.gather(*(one(number, gone) for number in range(3)))
        await asyncio.sleep(5)
        return [reference() for reference in gone]

    gc.collect()
    gc.disable()
    try:
        assert stand.run(main())[0] == [None] * 3
    finally:
        gc.enable()


# -- threads --------------------------------------------------------------------------------------------------------------------------


def threads(count, work):
    """Begin threads one after the other; the results come into a list."""
    results = [None] * count

    def run(number):
        try:
            results[number] = work()
        except BaseException as error:
            results[number] = error

    started = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in started:
        thread.start()
    return started, results


def wait_for(condition):
    """Wait until it holds."""
    clock = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        clock.wait(0.001)
    raise AssertionError("it does not happen")


@pytest.mark.parametrize("error", [None, Boom("down")])
def test_threads_share_one_call(error):
    """Its answer, or an error each."""
    stand = Stand(single_flight=True)
    gate, calls = Gate(), []

    @stand.guard
    def call():
        calls.append(1)
        gate.enter()
        if error is not None:
            raise error
        return object()

    started, results = threads(4, call)
    wait_for(lambda: stand.guard.single_flight.waiting == 3)
    gate.open()
    for thread in started:
        thread.join(PATIENCE)
    assert len(calls) == 1
    assert len({id(result) for result in results}) == (1 if error is None else 4)
    assert {type(result) for result in results} == {object if error is None else Boom}
    assert stand.guard.single_flight.shared == 3


def test_a_thread_that_leaves_lets_another_lead():
    """KeyboardInterrupt comes to the leader alone."""
    stand = Stand(single_flight=True)
    gate, calls = Gate(), []

    @stand.guard
    def call():
        calls.append(1)
        if len(calls) == 1:
            gate.enter()
            raise KeyboardInterrupt
        return "answer"

    started, results = threads(3, call)
    wait_for(lambda: stand.guard.single_flight.waiting == 2)
    gate.open()
    for thread in started:
        thread.join(PATIENCE)
    assert sorted(map(repr, results)) == ["'answer'", "'answer'", "KeyboardInterrupt()"]
    assert 2 <= len(calls) <= 3


def test_a_thread_that_asks_itself_does_not_wait():
    """A synchronous call inside itself."""
    stand = Stand(single_flight=True)
    calls = []

    @stand.guard
    def call():
        calls.append(1)
        return call() if len(calls) == 1 else "answer"

    assert call() == "answer"
    assert len(calls) == 2


def test_a_synchronous_follower_has_its_own_deadline():
    """Its thread is not held longer than that."""
    clock = ManualClock()
    resilience = Resilience("tests", clock=clock)
    guard = resilience.guard("dependency", single_flight=True)
    gate = Gate()
    call = guard(gate.enter)
    started, results = threads(1, call)
    gate.await_inside(1)
    with resilience.deadline(2.0), pytest.raises(DeadlineExceeded):
        call()
    gate.open()
    started[0].join(PATIENCE)
    assert results == ["fine"]


def test_turns_of_threads_and_tasks_do_not_meet():
    """A synchronous and an asynchronous call of one guard are two."""
    stand = Stand(single_flight=lambda: "same")
    gate, order = Gate(), []

    @stand.guard
    def plain():
        order.append("plain")
        return gate.enter()

    @stand.guard
    async def suspends():
        order.append("suspends")
        return "fine"

    started, results = threads(1, plain)
    gate.await_inside(1)

    async def main():
        await turns()
        return await suspends()

    assert asyncio.run(main()) == "fine"
    gate.open()
    started[0].join(PATIENCE)
    assert results == ["fine"]
    assert order == ["plain", "suspends"]
