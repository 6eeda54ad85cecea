"""Hedge at a guard: its options, when a further attempt is made, and whose answer counts. Races of all kinds stand in tests/property."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import sys
import threading
import weakref
from datetime import timedelta
from types import MethodType

import pytest

from somaresil import SLO, BulkheadFull, ConfigurationError, Hedge, Outcome, Retry, RetryBudget
from somaresil.events import AttemptFailed, CallEnded, DefectFound, HedgeStarted, HedgeWon, ShadowDecision
from somaresil.model.breaker import State
from tests.behaviour.kit import Boom, Stand, one_strike, together
from tests.unit.policy.hedging import Attempt, Dependency, Timed, Turnstile
from tests.unit.policy.kit import wrong

SLOW = Attempt(60.0, "slow")
QUICK = Attempt(0.5, "quick")


@pytest.fixture(params=[False, True], ids=["express", "full"], autouse=True)
def _path(request, monkeypatch):
    """Whatever holds, holds on both paths."""
    monkeypatch.setattr(Timed, "held", request.param)


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """One further attempt for five per cent of the calls; the quantile looks back a minute and wants twenty calls."""
    options = Hedge(0.2)
    assert dataclasses.astuple(options) == (0.2, None, 0.01, 20, 60.0, 1, 0.05, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.delay = 1.0


@pytest.mark.parametrize("delay", [0, -1, "1", True, float("nan"), timedelta(0), 3_601])
def test_a_wrong_delay_is_named(delay):
    """It is more than nothing and at most an hour."""
    assert wrong(Hedge, delay) == ["delay"]


@pytest.mark.parametrize("quantile", [0, 1, 95, -0.1, "0.9", True])
def test_a_wrong_quantile_is_named(quantile):
    """It lies between 0 and 1."""
    assert wrong(Hedge, quantile=quantile) == ["quantile"]


def test_somebody_has_to_say_when():
    """A delay, a quantile, or both."""
    assert wrong(Hedge) == ["delay"]
    assert Hedge(0.2, quantile=0.9).delay == 0.2
    assert Hedge(quantile=0.9).delay is None


def test_all_problems_come_at_once():
    """One error that lists them all."""
    given = {"minimum_delay": 0, "minimum_calls": 0, "window": 0, "max_hedges": 11, "budget": 2, "shadow": 1}
    assert wrong(Hedge, 0, quantile=2, **given) == ["delay", "quantile", *given]


@pytest.mark.parametrize("shorthand", [2, 2.0, timedelta(seconds=2)])
def test_a_number_or_timedelta_is_the_delay(shorthand):
    """The shorthands of the guard."""
    assert Timed(hedge=shorthand).guard.options.hedge == Hedge(2.0)


@pytest.mark.parametrize("shorthand", [0, True, "2", []])
def test_a_wrong_shorthand_is_named(shorthand):
    """The problem stands under the name of the guard's option."""
    assert wrong(Timed, hedge=shorthand) == ["hedge"]


@pytest.mark.parametrize("idempotent", [None, False])
def test_a_guard_must_say_that_its_calls_may_be_repeated(idempotent):
    """A hedge calls while the first attempt is still running: nobody may find that out from a double booking."""
    assert wrong(Timed, hedge=1.0, idempotent=idempotent) == ["idempotent"]
    stand = Timed(idempotent=idempotent)
    assert wrong(stand.guard.configure, hedge=1.0) == ["idempotent"]
    assert stand.guard.hedge is None


def plain():
    """Stand for a synchronous callee."""


def generate():
    """Stand for a synchronous stream."""
    yield


@pytest.mark.parametrize("target", [plain, generate, classmethod(plain), staticmethod(plain)])
def test_a_synchronous_function_is_refused(target):
    """Two attempts need two tasks. That is said at decoration, and for a single call before it is made."""
    stand = Timed(hedge=1.0)
    with pytest.raises(ConfigurationError, match="two attempts need two tasks"):
        stand.guard(target)
    with pytest.raises(ConfigurationError, match="two attempts need two tasks"):
        stand.guard.call(plain)


def test_a_plain_function_that_returns_an_awaitable_is_hedged():
    """For a single asynchronous call it is as good as a coroutine function."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(SLOW, QUICK)

    def begins():
        return dependency()

    assert stand.run(stand.guard.acall(begins)) == ("quick", 1.5)


def test_a_synchronous_function_that_got_a_hedge_later_is_called_once():
    """Given by ``configure``: in a loop as well, where a limit could be begun."""
    stand = Timed()
    guarded = stand.guard(lambda: "fine")
    stand.guard.configure(hedge=1.0)
    assert guarded() == "fine"

    async def main():
        return guarded()

    assert stand.run(main())[0] == "fine"


def test_a_block_cannot_be_hedged():
    """It cannot be run twice."""
    stand = Timed(hedge=1.0)

    async def main():
        async with stand.guard:
            pass

    with pytest.raises(ConfigurationError, match="a block cannot be run twice"):
        stand.run(main())


def test_a_guard_with_a_hedge_is_never_quiet():
    """Somebody has to look at the clock, and may do so on the express path."""
    stand = Timed(hedge=1.0)
    stand.guard.switch.hold("test", held=False)
    assert (stand.guard.switch.reasons, stand.guard.switch.express) == ({"hedge"}, True)
    assert stand.guard.pipeline == ("record", "hedge", "fault", "callee")
    stand.guard.configure(hedge=None)
    assert stand.guard.switch.quiet


# -- whose answer -----------------------------------------------------------------------------------------------------------------------


def test_a_call_that_is_answered_in_time_is_made_once():
    """No attempt, no task, no event; the timer that it leaves behind does nothing."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(QUICK)
    tasks = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **rest: tasks.append(1) or asyncio.Task(coroutine, loop=loop, **rest))
        answer = await stand.guard(dependency)()
        ended = loop.time()
        await asyncio.sleep(10)
        return answer, ended, len(tasks)

    assert stand.run(main())[0] == ("quick", 0.5, 0)
    assert (len(dependency.begun), stand.events) == (1, [])
    assert stand.guard.hedge.results() == {"won": 0, "lost": 0, "failed": 0, "budget": 0, "idempotency": 0}


def test_a_further_attempt_that_answers_first_has_the_word():
    """The first one is cancelled; the call took its time, counts once and is good."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(SLOW, QUICK)
    assert stand.run(stand.guard(dependency)()) == ("quick", 1.5)
    assert dependency.ended == {0: "CancelledError", 1: "answered"}
    assert stand.count(Outcome.GOOD) == stand.count() == 1
    now = stand.clock.time()
    assert stand.events == [HedgeStarted("dependency", now - 0.5, 1, 1.0), HedgeWon("dependency", now, 1)]
    assert stand.guard.hedge.results()["won"] == 1
    assert stand.left == set()


def test_the_first_attempt_that_answers_after_all_has_the_word():
    """The other one is cancelled, and has ended when the caller goes on."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(1.25, "first"), SLOW)
    assert stand.run(stand.guard(dependency)()) == ("first", 1.25)
    assert dependency.ended == {0: "answered", 1: "CancelledError"}
    assert stand.guard.hedge.results()["lost"] == 1
    assert [type(event) for event in stand.events] == [HedgeStarted]


def test_a_first_attempt_that_fails_ends_nothing_while_another_is_running():
    """Nobody hears of the error."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(1.25, Boom()), QUICK)
    assert stand.run(stand.guard(dependency)()) == ("quick", 1.5)
    assert stand.count(Outcome.GOOD) == stand.count() == 1


def test_a_further_attempt_that_fails_ends_nothing_while_another_is_running():
    """The first goes on, uninterrupted."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(3.0, "first"), Attempt(0.5, Boom()))
    assert stand.run(stand.guard(dependency)()) == ("first", 3.0)
    assert stand.guard.hedge.results()["failed"] == 1


def test_a_call_that_fails_within_the_delay_fails_at_once():
    """A hedge is no retry."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(0.5, Boom()))

    async def main():
        with pytest.raises(Boom):
            await stand.guard(dependency)()

    assert stand.run(main())[1] == 0.5
    assert len(dependency.begun) == 1


@pytest.mark.parametrize("last", [1.25, 3.0])
def test_when_all_fail_the_error_is_that_of_the_first_attempt(last):
    """Whichever failed last: the same object, with its history as it was."""
    stand = Timed(hedge=1.0)
    first, cause = Boom("first"), KeyError("why")
    first.__context__ = cause
    dependency = Dependency(Attempt(last, first), Attempt(1.0, Boom("second")))

    async def main():
        with pytest.raises(Boom) as caught:
            await stand.guard(dependency)()
        return caught.value

    error, took = stand.run(main())
    assert error is first
    assert error.__context__ is cause
    assert took == max(2.0, last)
    assert stand.count(Outcome.BAD) == stand.count() == 1


def test_a_rejected_first_attempt_leaves_the_word_to_one_that_was_made():
    """The first waited for its turn in vain; the second was made, and failed."""
    stand = Timed(hedge=1.0)
    begun = []

    async def inside(call):
        begun.append(call)
        await asyncio.sleep(3.0 if len(begun) == 1 else 1.0)
        raise BulkheadFull(call.guard) if len(begun) == 1 or call is begun[0] else Boom("made")

    stand.guard.switch.hold("test")
    stand.guard._chain = MethodType(stand.guard.hedge.__call__, inside)

    async def main():
        with pytest.raises(Boom, match="made"):
            await stand.guard(plain_coroutine)()

    assert stand.run(main())[1] == 3.0
    assert stand.count(Outcome.BAD) == stand.count() == 1


async def plain_coroutine():
    """Stand for an asynchronous callee."""


def test_there_may_be_several_each_after_a_further_delay():
    """And no more than that."""
    stand = Timed(hedge=Hedge(1.0, max_hedges=3, budget=None))
    dependency = Dependency(SLOW, SLOW, SLOW, Attempt(5.0, "last"), QUICK)
    assert stand.run(stand.guard(dependency)()) == ("last", 8.0)
    assert dependency.begun == [0.0, 1.0, 2.0, 3.0]
    assert [event.hedge for event in stand.told(HedgeStarted, HedgeWon)] == [1, 2, 3, 3]
    assert stand.guard.hedge.results() == {"won": 1, "lost": 2, "failed": 0, "budget": 0, "idempotency": 0}


def test_no_further_attempt_is_made_when_all_have_failed():
    """Though there might have been one more."""
    stand = Timed(hedge=Hedge(1.0, max_hedges=3))
    dependency = Dependency(Attempt(1.25, Boom()), Attempt(0.5, Boom()))

    async def main():
        with pytest.raises(Boom):
            await stand.guard(dependency)()
        await asyncio.sleep(10)

    stand.run(main())
    assert len(dependency.begun) == 2


def test_a_stubborn_first_attempt_does_not_change_the_answer():
    """It answers although it was told to leave: that is too late, and no cancellation is left to the task."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(60.0, "stubborn", stubborn=True), QUICK)

    async def main():
        return await stand.guard(dependency)(), asyncio.current_task().cancelling()

    assert stand.run(main())[0] == ("quick", 0)


def test_a_first_attempt_that_fails_when_it_is_told_to_leave_does_not_change_the_answer():
    """Clients make errors of their own of a cancellation."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(60.0, Boom("torn"), stubborn=True), QUICK)

    async def main():
        return await stand.guard(dependency)(), asyncio.current_task().cancelling()

    assert stand.run(main())[0] == ("quick", 0)


def test_a_first_attempt_that_fails_because_its_caller_leaves_ends_the_call():
    """As without a hedge: what the client makes of the cancellation comes out, and nobody waits for the other attempt."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(60.0, Boom("torn"), stubborn=True), SLOW)

    async def main():
        task = asyncio.ensure_future(stand.guard(dependency)())
        asyncio.get_running_loop().call_later(2.0, task.cancel)
        await asyncio.gather(task, return_exceptions=True)
        return task.exception()

    error, took = stand.run(main())
    assert (str(error), took) == ("torn", 2.0)
    assert dependency.ended == {0: "Boom", 1: "CancelledError"}


def test_two_that_answer_in_one_moment_give_one_answer():
    """Nothing of the other one is left."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2))
    dependency = Dependency(Attempt(1.5, "first"), Attempt(0.5, "second"))

    async def main():
        return await stand.guard(dependency)(), asyncio.current_task().cancelling()

    (answer, cancelling), took = stand.run(main())
    assert (answer in {"first", "second"}, cancelling, took, stand.left) == (True, 0, 1.5, set())
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == stand.count() == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("second", [Attempt(0.0, "second"), Attempt(0.0, Boom())], ids=["answers", "fails"])
def test_an_attempt_may_end_before_it_has_become_a_task(second):
    """With eager tasks it runs within the timer, as far as it comes."""
    stand = Timed(hedge=1.0)
    begun = []

    @stand.guard
    async def attempt():
        begun.append(1)
        if len(begun) == 1:
            await asyncio.sleep(3)
            return "first"
        if isinstance(second.end, Exception):
            raise second.end
        return second.end

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await attempt(), asyncio.current_task().cancelling()

    assert stand.run(main()) == ((("second", 0), 1.0) if second.end == "second" else (("first", 0), 3.0))
    assert stand.left == set()


# -- what is inside ---------------------------------------------------------------------------------------------------------------------


def test_each_attempt_has_its_own_retries():
    """What one has used up, the other has still."""
    stand = Timed(hedge=2.0, retry=Retry(attempts=2, wait=1.0))
    dependency = Dependency(Attempt(0.5, Boom()), SLOW, Attempt(0.5, Boom()), Attempt(0.5, "saved"))
    assert stand.run(stand.guard(dependency)()) == ("saved", 4.0)
    assert [event.attempt for event in stand.told(AttemptFailed)] == [1, 1]


def test_the_time_of_all_attempts_counts_from_the_beginning_of_the_call():
    """So that no retry of a further attempt begins when the call has taken too long."""
    stand = Timed(hedge=2.0, retry=Retry(attempts=9, wait=1.0, max_elapsed=3.0))
    dependency = Dependency(Attempt(10.0, "first"), Attempt(0.5, Boom()))
    assert stand.run(stand.guard(dependency)()) == ("first", 10.0)
    assert dependency.begun == [0.0, 2.0]


def test_losers_give_back_what_they_hold_and_are_no_verdict():
    """A half-open breaker with two probes: the one that was cancelled says nothing, the one that answered closes nothing by itself."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2), breaker=one_strike(half_open_calls=2, open_duration=5.0))
    dependency = Dependency(Attempt(0.0, Boom()), SLOW, QUICK)
    guarded = stand.guard(dependency)

    async def main():
        with pytest.raises(Boom):
            await guarded()
        await asyncio.sleep(6)
        return await guarded()

    assert stand.run(main())[0] == "quick"
    assert stand.guard.breaker.state is State.HALF_OPEN
    assert stand.guard.bulkhead.active == 0
    stand.run(guarded())
    assert stand.guard.breaker.state is State.CLOSED


def test_an_answer_of_an_earlier_era_tells_the_breaker_nothing():
    """It counts as good, and not in the window of the circuit that was opened meanwhile."""
    stand = Timed(hedge=1.0, breaker=True)

    async def main():
        asyncio.get_running_loop().call_later(0.25, stand.guard.breaker.trip, 5.0)
        return await stand.guard(Dependency(QUICK))()

    assert stand.run(main())[0] == "quick"
    assert stand.count(Outcome.GOOD) == 1
    assert stand.guard.breaker.tally().calls == 0


def test_a_timeout_inside_is_one_of_the_attempt():
    """The first attempt times out while the other is running."""
    stand = Timed(hedge=1.0, timeout=2.0)
    dependency = Dependency(SLOW, Attempt(1.5, "second"))
    assert stand.run(stand.guard(dependency)()) == ("second", 2.5)


def test_a_timeout_outside_is_none_of_ours():
    """All attempts end, and its cancellation is found by whoever made it."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2))
    dependency = Dependency(SLOW)

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await stand.guard(dependency)()
        return asyncio.current_task().cancelling()

    assert stand.run(main()) == (0, 5.0)
    assert dependency.ended == {0: "CancelledError", 1: "CancelledError"}
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


def test_an_injected_fault_marks_the_call_whichever_attempt_it_struck():
    """Its answer came as it did because of the experiment."""
    stand = Timed(hedge=1.0)
    strikes = [True, False]

    class Rule:
        live, over = True, False

        def decide(self, _call=None):
            return strikes.pop(0)

        def strike(self, _decided=None):
            return type("Strike", (), {"delay": 30.0, "error": None, "after": None})()

        async def hold(self, runtime, seconds):
            await runtime.sleep(seconds)
            return True

    for struck, lasts, answered in (([True, False], 0.5, 1.5), ([False, True], 5.0, 5.0), ([True, True], 0.5, 30.5)):
        strikes[:] = struck
        stand.guard.faults.arm(Rule())
        dependency = Dependency(Attempt(lasts))
        assert stand.run(stand.guard(dependency)())[1] == answered
        stand.guard.faults.disarm(stand.guard.faults.rules[0])
    assert [event.injected for event in stand.told(CallEnded)] == [True] * 3
    assert stand.guard.faults.unended == 0


def test_what_classify_calls_bad_is_no_answer():
    """A quick 503 does not win against an answer; without a better one the first attempt's is given."""
    stand = Timed(hedge=1.0, classify=lambda result, error: Outcome.BAD if result and result.startswith("503") else None)
    dependency = Dependency(Attempt(3.0, "200"), Attempt(0.5, "503"))
    assert stand.run(stand.guard(dependency)()) == ("200", 3.0)
    dependency = Dependency(Attempt(1.25, "503 first"), Attempt(0.5, "503 second"))
    assert stand.run(stand.guard(dependency)()) == ("503 first", 1.5)
    dependency = Dependency(Attempt(1.25, "503"), Attempt(0.5, "200"))
    assert stand.run(stand.guard(dependency)()) == ("200", 1.5)


def test_an_error_that_classify_calls_none_is_an_answer():
    """Not found is an answer, from whichever attempt it comes."""
    stand = Timed(hedge=1.0, classify=lambda result, error: Outcome.IGNORED if isinstance(error, KeyError) else None)
    for dependency in (Dependency(SLOW, Attempt(0.5, KeyError("none"))), Dependency(Attempt(1.5, KeyError("none")), SLOW)):

        async def main(dependency=dependency):
            with pytest.raises(KeyError):
                await stand.guard(dependency)()
            return asyncio.current_task().cancelling()

        assert stand.run(main()) == (0, 1.5)
    assert stand.count(Outcome.IGNORED) == stand.count() == 2


# -- contexts -----------------------------------------------------------------------------------------------------------------------------

where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


def test_further_attempts_see_the_context_of_the_call():
    """As it was when the call began, though another call has set the timer; what they change, they change for themselves."""
    stand = Timed(hedge=1.0)
    seen = []
    heard = []
    stand.resilience.on(lambda event: heard.append(where.get()), HedgeStarted, HedgeWon)

    @stand.guard
    async def attempt():
        seen.append(where.get())
        if len(seen) != 4:
            where.set("changed")
            await asyncio.sleep(60)
        where.set("hedge")
        return where.get()

    async def one(name):
        where.set(name)
        return await attempt(), where.get()

    async def main():
        first = asyncio.ensure_future(one("first"))
        second = asyncio.ensure_future(one("second"))
        ended, _ = await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        return [task.result() for task in ended]

    # The first attempt runs in the task of its caller, so what it changes stays changed there, as without a hedge.
    assert stand.run(main())[0] == [("hedge", "changed")]
    assert seen == ["first", "second", "first", "second"]
    assert heard == ["first", "second", "changed"]


# -- when not -----------------------------------------------------------------------------------------------------------------------------


def test_a_call_without_its_key_is_made_once():
    """What may not be repeated is not hedged, and counted."""
    stand = Timed(hedge=1.0, idempotent="key")
    dependency = Dependency(Attempt(3.0, "first"), QUICK)

    @stand.guard
    async def pay(key=None):
        return await dependency()

    assert stand.run(pay()) == ("first", 3.0)
    assert stand.guard.hedge.results()["idempotency"] == 1
    dependency.begun.clear()
    assert stand.run(pay(key="1")) == ("quick", 1.5)


def test_the_budget_bounds_further_attempts():
    """Three at once, then a twentieth of the calls."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(3.0))
    guarded = stand.guard(dependency)

    async def main():
        await asyncio.gather(*(guarded() for _ in range(10)))
        return len(dependency.begun)

    assert stand.run(main())[0] == 13
    assert stand.guard.hedge.results()["budget"] == 7


def test_a_budget_may_be_shared():
    """One object bounds the hedges of two guards together; in shadow mode nothing of it is spent."""
    budget = RetryBudget(0.0, floor=0.1, window=10.0)
    stand = Timed(hedge=Hedge(1.0, budget=budget))
    other = stand.resilience.guard("other", idempotent=True, hedge=Hedge(1.0, budget=budget))
    dependency = Dependency(Attempt(3.0))

    async def main(first, second):
        await asyncio.gather(first(dependency)(), second(dependency)())

    stand.guard.configure(hedge=Hedge(1.0, budget=budget, shadow=True))
    stand.run(main(stand.guard, stand.guard))
    assert stand.guard.shadow.counts() == {("hedge", "hedge"): 2}
    stand.guard.configure(hedge=Hedge(1.0, budget=budget))
    stand.run(main(stand.guard, other))
    assert stand.guard.hedge.results()["budget"] + other.hedge.results()["budget"] == 1


@pytest.mark.parametrize("aware", [False, True])
def test_a_budget_shrinks_while_the_error_budget_burns(aware):
    """For a guard that is aware of an objective: when nothing is left of that, a tenth of three attempts is none."""
    stand = Timed()
    stand.resilience.slos.add(SLO("there", 99.0, timedelta(hours=1)))
    guard = stand.resilience.guard("aware", slo="there", budget_aware="there" if aware else None, idempotent=True, hedge=1.0)
    guarded = guard(Dependency(*[Attempt(0.0, Boom())] * 50, Attempt(3.0)))

    async def main():
        for _ in range(50):
            await asyncio.gather(guarded(), return_exceptions=True)
        await asyncio.sleep(1)
        await asyncio.gather(*(guarded() for _ in range(5)))

    stand.run(main())
    assert guard.hedge.results()["budget"] == (5 if aware else 0)


def test_no_budget_is_no_bound():
    """For those who know what they do."""
    stand = Timed(hedge=Hedge(1.0, budget=None))
    dependency = Dependency(Attempt(3.0))

    async def main():
        await asyncio.gather(*(stand.guard(dependency)() for _ in range(50)))

    stand.run(main())
    assert len(dependency.begun) == 100


def test_in_shadow_mode_what_would_be_done_is_counted():
    """And not done."""
    stand = Timed(hedge=Hedge(1.0, shadow=True))
    dependency = Dependency(Attempt(3.0, "first"), QUICK)
    assert stand.run(stand.guard(dependency)()) == ("first", 3.0)
    assert len(dependency.begun) == 1
    assert stand.guard.shadow.counts() == {("hedge", "hedge"): 1}
    assert [event.detail for event in stand.told(ShadowDecision)] == ["no answer within 1 s"]


def test_nothing_is_asked_again_when_nobody_wants_it_any_more():
    """The deadline of the request has passed, and the first attempt does not notice."""
    stand = Timed(hedge=2.0)
    dependency = Dependency(Attempt(3.0, "first"), QUICK)

    async def main():
        with stand.resilience.deadline(2.0):
            return await stand.guard(dependency)()

    assert stand.run(main()) == ("first", 3.0)
    assert len(dependency.begun) == 1


def test_a_call_that_began_quietly_is_not_hedged():
    """Its first attempt is over when it comes by here."""
    stand = Timed(retry=Retry(attempts=2, wait=3.0))
    dependency = Dependency(Attempt(0.5, Boom()), QUICK)

    @stand.guard
    async def guarded():
        if len(dependency.begun) == 0:
            stand.guard.configure(hedge=1.0)
        return await dependency()

    assert stand.run(guarded()) == ("quick", 4.0)
    assert len(dependency.begun) == 2


@pytest.mark.parametrize("options", [None, 30.0], ids=["taken away", "another one"])
@pytest.mark.parametrize(
    ("script", "end", "took"),
    [((SLOW, QUICK), "quick", 1.5), ((Attempt(1.5, "first"), SLOW), "first", 1.5), ((Attempt(1.25, Boom()), QUICK), "quick", 1.5)],
)
def test_a_hedge_that_is_changed_meanwhile_ends_what_it_has_begun(options, script, end, took):
    """The race is on; nothing is called a third time."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2))
    dependency = Dependency(*script)

    async def main():
        asyncio.get_running_loop().call_later(1.125, lambda: stand.guard.configure(hedge=options))
        return await stand.guard(dependency)()

    assert stand.run(main()) == (end, took)
    assert len(dependency.begun) == 2
    assert stand.guard.bulkhead.active == 0
    assert stand.left == set()


# -- the quantile -------------------------------------------------------------------------------------------------------------------------


def test_the_delay_follows_the_quantile():
    """Unknown until there were enough successful calls; then the next of the preferred numbers, and never below the floor."""
    stand = Timed(hedge=Hedge(quantile=0.9, minimum_calls=10, minimum_delay=0.02))
    hedge = stand.guard.hedge

    async def calls(count, lasts, end="answer"):
        guarded = stand.guard(Dependency(Attempt(lasts, end)))
        for _ in range(count):
            await asyncio.gather(guarded(), return_exceptions=True)
        await asyncio.sleep(1)

    stand.run(calls(9, 0.21))
    stand.run(calls(20, 0.1, Boom()))
    assert hedge.delay is None
    stand.run(calls(1, 0.21))
    stand.run(calls(1, 0.21))
    assert hedge.delay == 0.224
    # A minute later nothing of that is known any more.
    stand.clock.advance(61.0)
    stand.run(calls(1, 0.001))
    assert hedge.delay is None
    stand.run(calls(20, 0.001))
    stand.run(calls(1, 0.001))
    assert hedge.delay == 0.02


def test_a_delay_holds_until_the_quantile_is_known():
    """Both may be given."""
    stand = Timed(hedge=Hedge(5.0, quantile=0.5, minimum_calls=2, budget=None))
    guarded = stand.guard(Dependency(SLOW, Attempt(1.0, "second"), Attempt(0.875), Attempt(0.875), SLOW, QUICK))

    async def main():
        times = []
        for _ in range(4):
            begun = asyncio.get_running_loop().time()
            await guarded()
            times.append(asyncio.get_running_loop().time() - begun)
        return times

    # Of six seconds five were the delay; after that half of the calls took no more than 0.875.
    assert stand.run(main())[0] == pytest.approx([6.0, 0.875, 0.875, 1.4])
    assert stand.guard.hedge.delay == 0.9


def test_other_options_hold_from_the_next_call_on():
    """What is known of the durations stays while the window does."""
    stand = Timed(hedge=Hedge(quantile=0.5, minimum_calls=2))
    guarded = stand.guard(Dependency(Attempt(1.0)))

    async def three():
        for _ in range(3):
            await guarded()

    stand.run(three())
    assert stand.guard.hedge.delay == 1.0
    stand.guard.configure(hedge=Hedge(quantile=0.5, minimum_calls=3))
    stand.run(guarded())
    assert stand.guard.hedge.delay == 1.0
    stand.guard.configure(hedge=Hedge(quantile=0.5, minimum_calls=3, window=30.0))
    stand.run(guarded())
    assert stand.guard.hedge.delay is None
    stand.guard.configure(hedge=2.0)
    assert stand.guard.hedge.delay == 2.0


# -- streams ------------------------------------------------------------------------------------------------------------------------------


def streams(stand, *script):
    """Guard an async generator that goes through a script of (seconds to the first item, name); the names of those that were closed."""
    closed = []
    begun = []

    @stand.guard
    async def stream():
        lasts, name = script[len(begun)]
        begun.append(name)
        try:
            await asyncio.sleep(lasts)
            yield f"{name} 1"
            await asyncio.sleep(1)
            yield f"{name} 2"
        finally:
            closed.append(name)

    return stream, closed


def test_of_a_stream_the_first_item_decides():
    """The whole stream is the winner's; the other is closed, and its permit given back at once. The winner's is held until the end."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2), breaker=True, timeout=30.0)
    stream, closed = streams(stand, (60, "first"), (0.5, "second"))

    async def main():
        items, held = [], []
        async for item in stream():
            items.append(item)
            held.append((stand.guard.bulkhead.active, list(closed)))
        return items, held

    (items, held), took = stand.run(main())
    assert (items, took) == (["second 1", "second 2"], 2.5)
    assert held == [(1, ["first"])] * 2
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == stand.count() == 1
    assert stand.guard.breaker.tally().calls == 1


def test_a_stream_that_has_begun_is_not_hedged():
    """Nothing is repeated after the first item, however long the next takes."""
    stand = Timed(hedge=0.5)
    stream, closed = streams(stand, (0.25, "first"))

    async def main():
        return [item async for item in stream()]

    assert stand.run(main())[0] == ["first 1", "first 2"]
    assert (closed, stand.events) == (["first"], [])


def test_a_stream_that_comes_too_late_is_closed():
    """Two begin in one moment: one is read, the other closed, and both permits are settled."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2), breaker=True)
    stream, closed = streams(stand, (1.5, "first"), (0.5, "second"))

    async def main():
        return [item async for item in stream()]

    items, _ = stand.run(main())
    assert [item[:-2] for item in items] == [items[0][:-2]] * 2
    assert sorted(closed) == ["first", "second"]
    assert stand.guard.bulkhead.active == 0
    assert stand.left == set()


def test_a_stream_that_won_when_its_reader_was_leaving_is_closed():
    """Both in one moment: nobody reads it, and its permits are given back."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2), breaker=True)
    stream, closed = streams(stand, (60, "first"), (0.5, "second"))

    async def read():
        return [item async for item in stream()]

    async def main():
        task = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        # In the turn after the one in which the second has begun.
        stand.resilience.on(lambda event: asyncio.get_running_loop().call_later(0.5, later, task.cancel), HedgeStarted)
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    def later(cancel):
        asyncio.get_running_loop().call_soon(cancel)

    assert stand.run(main()) == (True, 1.5)
    assert sorted(closed) == ["first", "second"]
    assert stand.guard.bulkhead.active == 0
    assert stand.guard.hedge.results()["lost"] == 1
    assert stand.left == set()


def test_a_late_stream_that_cannot_be_closed_is_reported():
    """The reader gets the other one all the same."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2))
    begun = []

    @stand.guard
    async def stream():
        begun.append(1)
        first = len(begun) == 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60 if first else 0.5)
        try:
            yield "first" if first else "second"
        finally:
            if first:
                raise Boom("cannot")

    async def main():
        return [item async for item in stream()]

    assert stand.run(main())[0] == ["second"]
    assert [event.error for event in stand.told(DefectFound)] == ["Boom"]
    assert stand.guard.bulkhead.active == 0


# -- defects ------------------------------------------------------------------------------------------------------------------------------


def test_a_coroutine_that_is_driven_without_a_loop_is_not_hedged():
    """There is no task to race with: it is called all the same, and the defect is reported once."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(1))

    @stand.guard
    async def call():
        return "fine"

    for _ in range(2):
        with pytest.raises(StopIteration) as ended:
            call().send(None)
        assert ended.value.value == "fine"
    assert [event.error for event in stand.told(DefectFound)] == ["RuntimeError"]
    assert stand.guard.bulkhead.active == 0


def test_a_loop_that_makes_no_task_costs_the_hedge_only():
    """The call goes on by itself, the next as well, and the defect is reported."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(3.0, "first"))

    def refuse(loop, coroutine, **rest):
        coroutine.close()
        raise MemoryError("no room for a task")

    async def main():
        asyncio.get_running_loop().set_task_factory(refuse)
        try:
            return [await stand.guard(dependency)(), await stand.guard(dependency)()]
        finally:
            asyncio.get_running_loop().set_task_factory(None)

    assert stand.run(main()) == (["first", "first"], 6.0)
    assert [event.error for event in stand.told(DefectFound)] == ["MemoryError"]


def test_a_coroutine_that_is_closed_takes_the_others_with_it():
    """It may wait for nothing any more. They end by themselves, and every slot is given back."""
    stand = Timed(hedge=1.0, bulkhead=Turnstile(2))
    dependency = Dependency(SLOW)

    class Closed:
        """An awaitable that closes the coroutine inside it after a while, as a framework may that was told to."""

        def __await__(self):
            coroutine = stand.guard(dependency)()
            waits = coroutine.__await__()
            future = next(waits)
            asyncio.get_running_loop().call_later(2, asyncio.current_task().cancel)
            try:
                yield future
            except asyncio.CancelledError:
                held.append(stand.guard.bulkhead.active)
                coroutine.close()

    held = []

    async def main():
        await Closed()
        await asyncio.sleep(1)
        return stand.guard.bulkhead.active

    assert stand.run(main())[0] == 0
    assert held == [2]
    assert dependency.ended == {0: "GeneratorExit", 1: "CancelledError"}
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


@pytest.mark.parametrize("verdict", [Outcome.BAD, Outcome.IGNORED], ids=["all fail", "an error is the answer"])
def test_a_race_leaves_nothing_behind(verdict):
    """Neither its errors nor its arguments hang on one another: they are gone without the garbage collector."""
    stand = Timed(hedge=Hedge(1.0, budget=None), classify=lambda result, error: verdict)

    class Token:
        pass

    begun = []

    @stand.guard
    async def attempt(token):
        begun.append(1)
        await asyncio.sleep(3 if len(begun) == 1 else 1)
        raise Boom(token)

    async def main():
        token = Token()
        gone = weakref.ref(token)
        with contextlib.suppress(Boom):
            await attempt(token)
        del token
        await asyncio.sleep(5)
        return gone() is None

    gc.collect()
    gc.disable()
    try:
        assert stand.run(main())[0]
    finally:
        gc.enable()


def test_loops_in_several_threads_share_a_hedge():
    """Each call is hedged in its own loop; the counts are those of all."""
    stand = Stand(idempotent=True, hedge=Hedge(0.005, budget=None))
    if Timed.held:
        stand.guard.switch.hold("test")
    calls = []

    @stand.guard
    async def attempt(name):
        calls.append(name)
        if calls.count(name) == 1:
            await asyncio.Event().wait()
        return threading.get_ident()

    async def several(thread):
        return await asyncio.gather(*(attempt((thread, number)) for number in range(20)))

    answers = together(3, lambda thread: (threading.get_ident(), asyncio.run(several(thread))))
    assert all(found == [ident] * 20 for ident, found in answers)
    assert stand.guard.hedge.results()["won"] == 60
