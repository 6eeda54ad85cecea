"""Fallback at a guard: its options, when it answers, for which kinds of calls, and what is told about it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from somaresil import Bulkhead, BulkheadFull, CallTimedOut, CircuitOpen, ConfigurationError, Fallback, Outcome, Rejected, Retry, StaleCache
from somaresil.events import CallEnded, DefectFound, FallbackUsed, ShadowDecision
from tests.behaviour.kit import Boom, Stand, both, both_paths
from tests.unit.policy.kit import Script, wrong


def spare(*args, **kwargs):
    """Answer in place of the dependency, with what it was asked."""
    return ("spare", args, kwargs)


async def suspending_spare(*args, **kwargs):
    """Answer after a while."""
    await asyncio.sleep(0)
    return spare(*args, **kwargs)


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """Any exception is answered."""
    options = Fallback(spare)
    assert (options.handler, options.on, options.when, options.needs_error, options.shadow) == (spare, Exception, None, False, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.on = Boom


@pytest.mark.parametrize("on", [(), None, 5, "Boom", int, BaseException, KeyboardInterrupt, [Boom], (Boom, int), (Boom, SystemExit)])
def test_wrong_kinds_of_errors_are_named(on):
    """Exception types only; exits are never answered."""
    assert wrong(Fallback, spare, on=on) == ["on"]


def test_a_constant_is_no_handler():
    """The error says how to answer with one; all problems come at once."""
    with pytest.raises(ConfigurationError, match=r"write lambda \*args, \*\*kwargs: value"):
        Fallback("cached")
    assert wrong(Fallback, None, on=()) == ["handler", "on"]


def test_a_function_is_a_handler():
    """The shorthand of the guard."""
    assert Stand(fallback=spare).guard.options.fallback == Fallback(spare)


@pytest.mark.parametrize("shorthand", ["cached", 0.5, {}])
def test_a_wrong_shorthand_is_named(shorthand):
    """The problem stands under the name of the guard's option."""
    assert wrong(Stand, fallback=shorthand) == ["fallback"]


def test_each_wrong_option_is_named():
    """All at once; no error is needed where answers are refused."""
    assert wrong(Fallback, spare, on=(), when=3, needs_error=1, shadow="no") == ["when", "needs_error", "shadow"]
    assert wrong(Fallback, spare, when=suspending_spare) == ["when"]
    assert Fallback(spare, on=(), when=bool).on == ()


@pytest.mark.parametrize("given", [[], [spare, "cached"], [spare, StaleCache(60)], [StaleCache(60), StaleCache(60)]])
def test_a_wrong_chain_is_named(given):
    """It has links, all of them functions or fallbacks; a cache has to come first."""
    assert wrong(Stand, fallback=given) == ["fallback"]


def test_a_chain_of_one_is_that_one():
    """Written as a list or not."""
    assert Stand(fallback=[spare]).guard.options.fallback == Stand(fallback=spare).guard.options.fallback
    assert Stand(fallback=[StaleCache(60)]).guard.options.fallback == Stand(fallback=StaleCache(60)).guard.options.fallback


# -- when it answers ------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_a_failed_call_is_answered_and_counts_as_good(suspends, held):
    """The handler gets the arguments of the call; the breaker hears of the failure."""
    stand = Stand(held=held, fallback=spare, breaker=True)
    assert stand.callable(Script(Boom()), suspends)(1, key="word") == ("spare", (1,), {"key": "word"})
    assert stand.count(Outcome.GOOD) == stand.count() == 1
    assert stand.breaker.tally().failures == 1
    assert stand.told(FallbackUsed) == [FallbackUsed("dependency", stand.clock.time(), "Boom", "spare")]
    assert stand.told(CallEnded) == []


@both_paths
@both
def test_a_call_that_goes_well_is_not_answered_twice(suspends, held):
    """The handler is not even called."""
    calls = []
    stand = Stand(held=held, fallback=lambda *args: calls.append(args))
    assert stand.succeed(suspends) == "fine"
    assert calls == []


@both_paths
@both
@pytest.mark.parametrize(("on", "answered"), [(Boom, True), ((KeyError, Boom), True), (KeyError, False), ((KeyError, IndexError), False)])
def test_only_what_is_named_is_answered(suspends, held, on, answered):
    """Anything else reaches the caller as it is and counts as bad."""
    stand = Stand(held=held, fallback=Fallback(spare, on=on))
    error = Boom()
    if answered:
        assert stand.callable(Script(error), suspends)() == ("spare", (), {})
        assert stand.count(Outcome.GOOD) == 1
    else:
        assert stand.fail(suspends, error) is error
        assert stand.count(Outcome.BAD) == 1
        assert stand.told(FallbackUsed) == []


@both_paths
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exit_is_never_answered(held, error):
    """The caller wants to leave."""
    stand = Stand(held=held, fallback=spare)
    assert type(stand.fail(error=error())) is error
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


def test_a_cancellation_is_never_answered():
    """The task is cancelled, not served."""
    stand = Stand(fallback=spare)

    @stand.guard
    async def hangs():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(hangs())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(main())
    assert stand.told(FallbackUsed) == []


@both
def test_rejections_are_answered(suspends):
    """It stands outside the breaker and the bulkhead."""
    stand = Stand(fallback=Fallback(spare, on=(CircuitOpen, BulkheadFull)), breaker=True, bulkhead=Bulkhead(1))
    stand.resilience.breaker("dependency").force_open()
    assert stand.callable(Script("fine"), suspends)() == ("spare", (), {})
    stand.resilience.breaker("dependency").reset()
    stand.fill()
    assert stand.callable(Script("fine"), suspends)() == ("spare", (), {})
    assert [event.error for event in stand.told(FallbackUsed)] == ["CircuitOpen", "BulkheadFull"]
    assert stand.count(Outcome.GOOD) == stand.count() == 2


def test_a_timeout_is_answered():
    """It stands outside the timeout, and is not limited by it."""
    stand = Stand(fallback=Fallback(suspending_spare, on=CallTimedOut), timeout=0.01)

    @stand.guard
    async def hangs():
        await asyncio.Event().wait()

    assert asyncio.run(hangs())[0] == "spare"
    assert stand.count(Outcome.GOOD) == 1


@both
def test_it_answers_after_the_last_attempt_only(suspends):
    """It stands outside the retry."""
    stand = Stand(fallback=spare, retry=Retry(attempts=3, wait=0.0))
    script = Script(Boom())
    assert stand.callable(script, suspends)()[0] == "spare"
    assert script.calls == 3
    assert len(stand.told(FallbackUsed)) == 1


@both_paths
def test_a_stop_iteration_is_answered(held):
    """An exception like any other, though coroutines cannot raise it; it is told by its own name."""
    stand = Stand(held=held, fallback=Fallback(spare, on=StopIteration))
    assert stand.guard(Script(StopIteration()))() == ("spare", (), {})
    assert stand.told(FallbackUsed)[0].error == "StopIteration"
    other = Stand(held=held, fallback=Fallback(spare, on=Boom))
    assert isinstance(other.fail(error=StopIteration()), StopIteration)


@both
def test_a_handler_that_fails_ends_the_call(suspends):
    """Its error reaches the caller, with the first one as context, and the call is bad."""
    first, second = Boom("first"), KeyError("second")
    stand = Stand(fallback=Script(second))
    assert stand.fail(suspends, first) is second
    assert second.__context__ is first
    assert stand.count(Outcome.BAD) == stand.count() == 1


def test_nobody_need_listen():
    """The event is built for listeners only."""
    stand = Stand(fallback=spare, listening=False)
    assert stand.guard(Script(Boom()))() == ("spare", (), {})


def test_a_classifier_judges_the_answer():
    """It may say that a lesser answer is a bad one."""
    stand = Stand(fallback=spare, classify=lambda result, error: Outcome.BAD if result and result[0] == "spare" else None)
    assert stand.guard(Script(Boom()))() == ("spare", (), {})
    assert stand.count(Outcome.BAD) == stand.count() == 1


# -- kinds of calls -------------------------------------------------------------------------------------------------------------------


@both_paths
@pytest.mark.parametrize("handler", [spare, suspending_spare])
def test_a_coroutine_function_may_have_a_handler_of_either_kind(held, handler):
    """What can be awaited is awaited."""
    stand = Stand(held=held, fallback=handler)

    @stand.guard
    async def fails(number):
        raise Boom

    assert asyncio.run(fails(1)) == ("spare", (1,), {})


@pytest.mark.parametrize("handler", [range, lambda count: (number for number in range(count))])
def test_a_generator_is_replaced_by_any_iterable(handler):
    """As long as it has not begun; afterwards the reader has had the beginning already."""
    stand = Stand(fallback=handler)

    @stand.guard
    def stream(count):
        if count:
            raise Boom
        yield "own"
        raise Boom

    assert list(stream(3)) == [0, 1, 2]
    own = stream(0)
    assert next(own) == "own"
    with pytest.raises(Boom):
        next(own)
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_an_async_generator_is_replaced_by_another():
    """The reader notices nothing but the items."""

    async def handler(count):
        for number in range(count):
            yield number

    stand = Stand(fallback=handler)

    @stand.guard
    async def stream(count):
        raise Boom
        yield

    async def read():
        return [item async for item in stream(3)]

    assert asyncio.run(read()) == [0, 1, 2]


def plain():
    """Stand for a synchronous callee."""


def generate():
    """Stand for a synchronous stream."""
    yield


async def agenerate():
    """Stand for an async generator as a handler."""
    yield


@pytest.mark.parametrize("handler", [suspending_spare, agenerate])
@pytest.mark.parametrize("target", [plain, generate, classmethod(plain), staticmethod(plain)])
def test_a_synchronous_callee_cannot_await_its_handler(target, handler):
    """That is said at decoration, not when it is needed."""
    stand = Stand(fallback=handler)
    with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
        stand.guard(target)


def test_a_single_synchronous_call_cannot_await_its_handler_either():
    """The call is refused before it is made."""
    stand = Stand(fallback=suspending_spare)
    calls = []
    with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
        stand.guard.call(calls.append, 1)
    with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
        stand.resilience.call("dependency", calls.append, 1)
    assert calls == []


def test_a_handler_may_be_given_and_taken_away_while_running():
    """What is decorated already takes it from its next call on."""
    stand = Stand()
    guarded = stand.guard(Script(Boom("mine")))
    with pytest.raises(Boom):
        guarded()
    stand.guard.configure(fallback=spare)
    assert guarded()[0] == "spare"
    stand.guard.configure(fallback=None)
    with pytest.raises(Boom):
        guarded()


@both_paths
def test_a_fallback_that_a_synchronous_call_cannot_await_is_not_used(held):
    """Given later by ``configure``: the call fails with its own error instead of answering with a coroutine, and it is reported."""
    stand = Stand(held=held)

    async def later():
        return "never"

    def fail():
        raise Boom

    guarded = stand.guard(fail)
    stand.guard.configure(fallback=later)
    with pytest.raises(Boom):
        guarded()
    assert stand.count(Outcome.BAD) == 1
    assert [defect.error for defect in stand.told(DefectFound)] == ["TypeError"]


# -- several, by result, with the error ---------------------------------------------------------------------------------------------------


@both_paths
@both
def test_several_are_tried_in_order(suspends, held):
    """The first that is there for the error and does not fail has the word; each that is asked is told."""
    second = Script(KeyError("miss"))
    third = Script("third")
    stand = Stand(held=held, fallback=[Fallback(Script("never"), on=IndexError), Fallback(second, on=Boom), third, Script("never")])
    assert stand.callable(Script(Boom()), suspends)(1) == "third"
    assert (second.calls, third.calls) == (1, 1)
    assert [(event.error, event.handler) for event in stand.told(FallbackUsed)] == [("Boom", "Script")] * 2
    assert stand.count(Outcome.GOOD) == stand.count() == 1


@both
def test_when_all_of_them_fail_the_last_error_is_raised(suspends):
    """With that of the call as its context, not those of the others."""
    first, last = Boom(), IndexError("last")
    stand = Stand(fallback=[Script(KeyError("miss")), Script(last)])
    assert stand.fail(suspends, first) is last
    assert last.__context__ is first
    assert stand.count(Outcome.BAD) == stand.count() == 1


@both
def test_an_error_that_none_of_them_is_there_for_is_raised(suspends):
    """As it is."""
    stand = Stand(fallback=[Fallback(spare, on=KeyError), Fallback(spare, on=IndexError)])
    error = Boom()
    assert stand.fail(suspends, error) is error
    assert error.__context__ is None


def test_one_that_a_synchronous_call_cannot_await_is_passed_over():
    """Given later by ``configure``: the next one answers."""
    stand = Stand()
    guarded = stand.guard(Script(Boom()))
    stand.guard.configure(fallback=[suspending_spare, spare])
    assert guarded() == ("spare", (), {})
    assert [defect.error for defect in stand.told(DefectFound)] == ["TypeError"]
    with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
        stand.guard(plain)


@both
def test_a_rejection_alone_may_be_answered(suspends):
    """By its type."""
    stand = Stand(fallback=Fallback(spare, on=Rejected), breaker=True)
    error = Boom()
    assert stand.fail(suspends, error) is error
    stand.resilience.breaker("dependency").force_open()
    assert stand.callable(Script("fine"), suspends)()[0] == "spare"


@both
def test_an_answer_may_be_refused(suspends):
    """The handler answers in its place; every call is looked at for that."""
    stand = Stand(fallback=Fallback(spare, when=lambda answer: answer == 503), breaker=True)
    assert stand.guard.switch.reasons == {"fallback"}
    assert stand.callable(Script(200), suspends)() == 200
    assert stand.told(FallbackUsed) == []
    assert stand.callable(Script(503), suspends)() == ("spare", (), {})
    assert [event.error for event in stand.told(FallbackUsed)] == ["refused answer"]
    assert stand.count(Outcome.GOOD) == stand.count() == 2
    # What the breaker thinks of it is the classifier's business.
    assert stand.breaker.tally().failures == 0
    stand.guard.configure(fallback=spare)
    assert stand.guard.switch.quiet


@both
def test_errors_need_not_be_answered_where_answers_are(suspends):
    """``on=()`` is for those who refuse answers only."""
    stand = Stand(fallback=Fallback(spare, on=(), when=lambda answer: answer == 503))
    error = Boom()
    assert stand.fail(suspends, error) is error
    assert stand.callable(Script(503), suspends)()[0] == "spare"


def test_a_predicate_that_fails_takes_no_answer_away():
    """It is reported, and the caller gets what there is."""
    stand = Stand(fallback=Fallback(spare, when=lambda answer: answer["status"] == 503))
    assert stand.guard(Script("fine"))() == "fine"
    assert [defect.error for defect in stand.told(DefectFound)] == ["TypeError"]


def test_a_stream_is_not_asked_about():
    """It has only begun when its first item is there."""
    stand = Stand(fallback=Fallback(range, when=lambda answer: True))

    @stand.guard
    def stream(count):
        yield "own"

    assert list(stream(3)) == ["own"]


@both_paths
@both
def test_a_handler_may_ask_for_the_error(suspends, held):
    """It comes before the arguments."""
    error = Boom()
    stand = Stand(held=held, fallback=Fallback(lambda failed, *args: (failed, args), needs_error=True))
    assert stand.callable(Script(error), suspends)(1, 2) == (error, (1, 2))


def test_a_handler_of_a_refused_answer_gets_no_error():
    """There is none."""
    stand = Stand(fallback=Fallback(lambda failed: failed, when=bool, needs_error=True))
    assert stand.guard(Script(503))() is None


@both_paths
@both
def test_in_shadow_mode_nothing_is_answered(suspends, held):
    """What would be is counted; one that is in earnest answers all the same."""
    handler = Script("never")
    stand = Stand(held=held, fallback=Fallback(handler, shadow=True))
    error = Boom()
    assert stand.fail(suspends, error) is error
    assert handler.calls == 0
    assert stand.guard.shadow.counts() == {("fallback", "answer"): 1}
    assert [event.detail for event in stand.told(ShadowDecision)] == ["Script"]
    stand.guard.configure(fallback=Fallback(handler, when=lambda answer: answer == 503, shadow=True))
    assert stand.callable(Script(503), suspends)() == 503
    assert stand.guard.shadow.counts() == {("fallback", "answer"): 2}
    stand.guard.configure(fallback=[Fallback(handler, shadow=True), spare])
    assert stand.callable(Script(error), suspends)()[0] == "spare"
