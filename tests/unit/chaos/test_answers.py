"""Faults on answers: the callee has acted, and its answer is lost, broken off or cut short."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import pytest

from somaresil import CallTimedOut, ChaosConfig, ChaosPlan, CircuitOpen, FaultWindow, InjectedFault, ManualClock, Outcome, Resilience, Retry
from somaresil.chaos.answers import StreamFault
from somaresil.chaos.run import Decision, ExperimentRun
from somaresil.events import AttemptFailed, CallEnded, DefectFound, FaultInjected
from somaresil.guard.call import Opened
from somaresil.runtime import run_sync
from tests.behaviour.kit import both, turns
from tests.unit.chaos.kit import LATENCY, Stand, breaker

LOST, CUT, TRUNCATE = "lost_reply", "stream_cut", "stream_truncate"

ends = pytest.mark.parametrize("kind", [CUT, TRUNCATE])


def arm(stand, kind, rate=1.0, target="llm.invoke", **options):
    return stand.chaos.arm(ChaosConfig(kind, target, rate, options.pop("duration", 60.0), **options))


def call(guard, function, suspends):
    """What a call of ``function`` gives, errors as values."""

    async def suspended():
        await asyncio.sleep(0)
        return function()

    try:
        return asyncio.run(guard.acall(suspended)) if suspends else guard.call(function)
    except Exception as error:
        return error


def totals(guard):
    """How its calls ended so far: outcome and mark."""
    counts = guard.recorder.counts()
    pairs = [(outcome.value, injected) for outcome in Outcome for injected in (False, True)]
    return {pair: counts.total(Outcome(pair[0]), injected=pair[1]) for pair in pairs if counts.total(Outcome(pair[0]), injected=pair[1])}


# -- lost replies -----------------------------------------------------------------------------------------------------------------------


@both
def test_the_callee_acts_and_the_caller_is_not_told(stand, suspends):
    """Once; the call is bad and marked, and the experiment counts it."""
    run, acted = arm(stand, LOST), []
    error = call(stand.guard, lambda: acted.append(True), suspends)
    assert type(error) is InjectedFault
    assert (error.component, error.experiment) == ("llm.invoke", run.id)
    assert acted == [True]
    assert totals(stand.guard) == {("bad", True): 1}
    assert (run.injected, run.struck) == (1, {"llm.invoke": 1})
    assert [(event.component, event.fault, event.experiment) for event in stand.told(FaultInjected)] == [("llm.invoke", LOST, run.id)]
    assert [(event.outcome, event.injected) for event in stand.told(CallEnded)] == [("bad", True)]


@both
def test_a_reply_may_be_missed_for_a_while(stand, suspends):
    """The callee acts at once; its caller waits, and then has the error that it was told to get."""
    arm(stand, LOST, delay_seconds=3.0, error=TimeoutError("hung"))
    began, acted = stand.clock.monotonic(), []
    error = call(stand.guard, lambda: acted.append(stand.clock.monotonic() - began), suspends)
    assert (type(error), str(error)) == (TimeoutError, "hung")
    assert acted == [0.0]
    assert stand.clock.monotonic() - began == 3.0


class Stopping(ManualClock):
    """Whoever waits on it finds that the experiment was stopped meanwhile."""

    stop = staticmethod(lambda: None)

    def wait(self, event, timeout):
        self.stop()
        return event.is_set()

    async def await_(self, future, timeout):
        self.stop()
        await turns(3)
        return future.done()


@both
def test_a_reply_that_is_held_when_the_experiment_is_stopped_is_delivered(suspends):
    """Late, and marked, since its caller has waited; but no fault comes after the end."""
    stand = Stand(clock=Stopping())
    stand.clock.stop = stand.chaos.stop_all
    run = arm(stand, LOST, delay_seconds=3.0)
    assert call(stand.guard, lambda: "answer", suspends) == "answer"
    assert run.end_reason == "stop_all"
    assert totals(stand.guard) == {("good", True): 1}


@both
def test_a_reply_that_is_held_when_the_lease_ends_is_delivered(stand, suspends):
    """At its end."""
    arm(stand, LOST, delay_seconds=20.0, duration=5.0)
    began = stand.clock.monotonic()
    assert call(stand.guard, lambda: "answer", suspends) == "answer"
    assert stand.clock.monotonic() - began == 5.0
    assert totals(stand.guard) == {("good", True): 1}


@both
@pytest.mark.parametrize("kind", [LOST, CUT, TRUNCATE])
def test_an_answer_that_comes_after_the_lease_is_not_struck(stand, suspends, kind):
    """The experiment was over before there was anything to strike."""
    run = arm(stand, kind, duration=5.0)
    if kind == LOST:
        found = call(stand.guard, lambda: stand.clock.advance(6.0) or "answer", suspends)
        assert found == "answer"
    else:
        source = Source(stand, 3, before={1: lambda: stand.clock.advance(6.0)})
        assert read(source.guarded(suspends)) == ([0, 1, 2], "the end" if not suspends else None)
        assert source.closed == 1
    assert (run.injected, run.end_reason) == (0, "expired")
    assert totals(stand.guard) == {("good", False): 1}


def test_a_fault_whose_lease_ends_in_the_delay_of_another_is_not_made(stand):
    """It was decided in time, and would come too late."""
    stand.arm(LATENCY, delay_seconds=10.0)
    run = stand.arm(duration=5.0)
    assert stand.guard.call(lambda: "answer") == "answer"
    assert run.injected == 0


@both
def test_a_callee_that_fails_by_itself_has_no_reply_to_lose(stand, suspends):
    """Its caller has its own error at once; nothing is counted and nothing is marked."""
    run = arm(stand, LOST, delay_seconds=3.0)
    began = stand.clock.monotonic()
    assert type(call(stand.guard, lambda: 1 // 0, suspends)) is ZeroDivisionError
    assert stand.clock.monotonic() == began
    assert run.injected == 0
    assert stand.told(FaultInjected) == []
    assert totals(stand.guard) == {("bad", False): 1}


@both
def test_who_repeats_a_call_acts_twice(stand, suspends):
    """That is what it is for: without an idempotency key the work is done again."""
    guard = stand.resilience.guard("paid", retry=Retry(attempts=3, wait=0.0))
    run, acted = arm(stand, LOST, target="paid", max_injections=1), []
    assert call(guard, lambda: acted.append(True) or "receipt", suspends) == "receipt"
    assert acted == [True, True]
    assert [(event.attempt, event.injected) for event in stand.told(AttemptFailed)] == [(1, True)]
    assert (run.injected, run.end_reason) == (1, "used up")
    assert totals(guard) == {("good", True): 1}


@both
def test_the_last_attempt_speaks_for_itself(stand, suspends):
    """Each is lost, each has acted, and each is a strike."""
    guard = stand.resilience.guard("paid", retry=Retry(attempts=3, wait=0.0), fallback=lambda: "unknown")
    run, acted = arm(stand, LOST, target="paid"), []
    assert call(guard, lambda: acted.append(True), suspends) == "unknown"
    assert (len(acted), run.injected) == (3, 3)


@both
def test_the_last_reply_to_be_lost_is_the_last(stand, suspends):
    """Used up is over; a delay that it has begun is waited out."""
    run = arm(stand, LOST, max_injections=2, delay_seconds=1.0)
    found = [type(call(stand.guard, lambda: "answer", suspends)) for _ in range(4)]
    assert found == [InjectedFault, InjectedFault, str, str]
    assert (run.injected, stand.guard.switch.quiet) == (2, True)


@both
def test_a_breaker_sees_lost_replies(stand, suspends):
    """It opens, and what it refuses is the experiment's doing."""
    guard = stand.resilience.guard("paid", breaker=breaker())
    arm(stand, LOST, target="paid")
    found = [call(guard, lambda: "answer", suspends) for _ in range(3)]
    assert [type(error) for error in found] == [InjectedFault, InjectedFault, CircuitOpen]
    assert found[2].injected


def test_a_timeout_lies_around_the_lost_reply():
    """A caller that waits for half a minute has given up before that; the callee has acted all the same."""
    resilience = Resilience("tests", environment="test")
    resilience.chaos.opt_in()
    guard, acted = resilience.guard("slow", timeout=0.01), []
    run = resilience.chaos.arm(ChaosConfig(LOST, "slow", 1.0, 60.0, delay_seconds=30.0))
    assert type(call(guard, lambda: acted.append(True), suspends=True)) is CallTimedOut
    assert (acted, run.injected, run.delaying) == ([True], 1, 0)
    assert totals(guard) == {("bad", True): 1}


def test_a_synchronous_caller_has_the_error_however_late(stand):
    """It is not interrupted; the call is bad either way."""
    guard = stand.resilience.guard("slow", timeout=1.0)
    arm(stand, LOST, target="slow", delay_seconds=2.0)
    assert type(call(guard, lambda: "answer", suspends=False)) is InjectedFault
    assert totals(guard) == {("bad", True): 1}


@both
def test_the_reply_of_one_guard_is_not_that_of_another(stand, suspends):
    """The pattern names whose replies are lost."""
    other = stand.resilience.guard("memory")
    run = arm(stand, LOST)
    assert call(other, lambda: "answer", suspends) == "answer"
    assert (run.injected, other.switch.quiet) == (0, True)


@pytest.mark.parametrize("kind", [LOST, CUT, TRUNCATE])
@pytest.mark.parametrize("after", [0, 1])
def test_a_block_has_no_answer(stand, kind, after):
    """It runs and ends as if nothing were armed, with ``with`` and with ``async with``."""
    run, ran = arm(stand, kind, after_items=after), []

    async def main():
        async with stand.guard:
            ran.append("async")

    with stand.guard:
        ran.append("sync")
    asyncio.run(main())
    assert ran == ["sync", "async"]
    assert (run.injected, totals(stand.guard)) == (0, {("good", False): 2})


@both
def test_the_short_form_loses_replies(stand, suspends):
    """With a delay in milliseconds."""
    run = asyncio.run(stand.chaos.lose_replies("llm.*", 1500, max_injections=1))
    began = stand.clock.monotonic()
    assert type(call(stand.guard, lambda: "answer", suspends)) is InjectedFault
    assert stand.clock.monotonic() - began == 1.5
    assert run.config.experiment == LOST


# -- streams ----------------------------------------------------------------------------------------------------------------------------


class Source:
    """A stream of numbers that knows how far it was asked and how often it was closed."""

    def __init__(self, stand, count, before=None, name="llm.invoke"):
        self.guard = stand.resilience.guard(name)
        self.count = count
        self.before = before or {}
        self.asked = 0
        self.closed = 0

    def _step(self, number):
        self.asked += 1
        self.before.get(number, lambda: None)()
        return number

    def sync(self):
        try:
            for number in range(self.count):
                yield self._step(number)
        finally:
            self.closed += 1
        return "the end"

    async def suspending(self):
        try:
            for number in range(self.count):
                await asyncio.sleep(0)
                yield self._step(number)
        finally:
            await asyncio.sleep(0)
            self.closed += 1

    def guarded(self, suspends):
        return self.guard(self.suspending if suspends else self.sync)


def read(stream):
    """The items of a stream, and how it ended: what it returned, or the type of its error."""
    items = []

    def all_of_it():
        try:
            items.append((yield from stream()))
        except Exception as error:
            items.append(type(error))

    async def main():
        try:
            async for item in stream():
                items.append(item)
            items.append(None)
        except Exception as error:
            items.append(type(error))

    if inspect.isasyncgenfunction(stream):
        asyncio.run(main())
        return items[:-1], items[-1]
    seen = list(all_of_it())
    return seen, items[0]


@both
@ends
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_stream_ends_after_so_many_items(stand, suspends, kind, after):
    """With an error or cleanly; its source is closed once, when one item more was there; counted and marked once."""
    run, source = arm(stand, kind, after_items=after), Source(stand, 5)
    items, end = read(source.guarded(suspends))
    assert items == list(range(after))
    assert end is (InjectedFault if kind == CUT else None)
    assert (source.asked, source.closed) == (after + 1, 1)
    assert totals(stand.guard) == {("bad" if kind == CUT else "good", True): 1}
    assert (run.injected, run.struck) == (1, {"llm.invoke": 1})
    assert [(event.component, event.fault) for event in stand.told(FaultInjected)] == [("llm.invoke", kind)]
    assert [event.injected for event in stand.told(CallEnded)] == [True]


@both
@ends
@pytest.mark.parametrize(("count", "after"), [(0, 0), (0, 1), (1, 1), (2, 3), (3, 3)])
def test_a_stream_that_is_not_longer_is_not_struck(stand, suspends, kind, count, after):
    """It ends by itself, with its own return value; nothing is counted or marked, and it is closed once."""
    run, source = arm(stand, kind, after_items=after), Source(stand, count)
    assert read(source.guarded(suspends)) == (list(range(count)), None if suspends else "the end")
    assert (run.injected, source.closed, totals(stand.guard)) == (0, 1, {("good", False): 1})


@both
@ends
def test_a_stream_that_fails_before_that_is_not_struck(stand, suspends, kind):
    """Its reader has its own error."""
    run, source = arm(stand, kind, after_items=2), Source(stand, 5, before={2: lambda: 1 // 0})
    assert read(source.guarded(suspends)) == ([0, 1], ZeroDivisionError)
    assert (run.injected, source.closed, totals(stand.guard)) == (0, 1, {("bad", False): 1})


@pytest.fixture
def step():
    """Takes one step of a stream of either kind: ``next``, ``send``, ``throw`` or ``close``."""
    with asyncio.Runner() as runner:

        def take(stream, how="next", *given):
            if not inspect.isasyncgen(stream):
                return getattr(stream, "__next__" if how == "next" else how)(*given)

            async def awaited():
                return await getattr(stream, "__anext__" if how == "next" else f"a{how}")(*given)

            return runner.run(awaited())

        yield take


ENDED = (StopIteration, StopAsyncIteration)


@both
@ends
def test_no_more_streams_are_struck_than_may_be(stand, step, suspends, kind):
    """The others go to their end, also one that had begun before the last was struck."""
    run = arm(stand, kind, max_injections=1)
    sources = [Source(stand, 3) for _ in range(3)]
    early = sources[0].guarded(suspends)()
    found = [step(early)]
    assert read(sources[1].guarded(suspends)) == ([0], InjectedFault if kind == CUT else None)
    found += [step(early), step(early)]
    with pytest.raises(ENDED):
        step(early)
    assert found == [0, 1, 2]
    assert read(sources[2].guarded(suspends))[0] == [0, 1, 2]
    assert (run.injected, run.end_reason) == (1, "used up")
    assert [source.closed for source in sources] == [1, 1, 1]


@both
@ends
def test_an_experiment_that_is_stopped_leaves_open_streams_alone(stand, suspends, kind):
    """What has begun goes on to its end; nothing is marked."""
    run, source = arm(stand, kind, after_items=2), Source(stand, 5, before={1: stand.chaos.stop_all})
    assert read(source.guarded(suspends)) == ([0, 1, 2, 3, 4], None if suspends else "the end")
    assert (run.injected, source.closed, totals(stand.guard)) == (0, 1, {("good", False): 1})


@both
@ends
def test_a_reader_that_leaves_early_has_left(stand, step, suspends, kind):
    """Before it was struck: abandoned, not marked, and the source is closed once."""
    run, source = arm(stand, kind, after_items=2), Source(stand, 5)
    stream = source.guarded(suspends)()
    assert step(stream) == 0
    step(stream, "close")
    assert (run.injected, source.closed, totals(stand.guard)) == (0, 1, {("abandoned", False): 1})


@both
@ends
def test_a_stream_that_was_struck_is_over(stand, step, suspends, kind):
    """Whoever asks again gets nothing more, and is not counted again; what it held is free."""
    guard = stand.resilience.guard("held", bulkhead=1, breaker=breaker(consecutive_failures=1))
    arm(stand, kind, target="held")
    stream = Source(stand, 3, name="held").guarded(suspends)()
    assert step(stream) == 0
    with pytest.raises(InjectedFault if kind == CUT else ENDED):
        step(stream)
    with pytest.raises(ENDED):
        step(stream)
    assert guard.bulkhead.active == 0
    assert guard.breaker.state == ("open" if kind == CUT else "closed")
    assert guard.recorder.counts().total() == 1


def echo(log):
    """Gives back what it is sent and what is thrown into it."""
    got = "first"
    try:
        while True:
            try:
                got = yield got
            except ValueError as error:
                got = f"caught {error}"
    finally:
        log.append("closed")


async def async_echo(log):
    """As ``echo``."""
    got = "first"
    try:
        while True:
            try:
                got = yield got
            except ValueError as error:
                got = f"caught {error}"
    finally:
        log.append("closed")


@both
@ends
@pytest.mark.parametrize("last", [("next",), ("send", "more"), ("throw", ValueError("more"))], ids=lambda last: last[0])
def test_what_is_sent_and_thrown_reaches_the_source_and_counts(stand, step, suspends, kind, last):
    """An item is an item, whatever it was asked with; so is the one that strikes."""
    arm(stand, kind, after_items=4)
    log = []
    stream = stand.guard(async_echo if suspends else echo)(log)
    found = [step(stream), step(stream, "send", "hello"), step(stream, "throw", ValueError("oops")), step(stream)]
    assert found == ["first", "hello", "caught oops", None]
    with pytest.raises(InjectedFault if kind == CUT else ENDED) as ended:
        step(stream, *last)
    assert getattr(ended.value, "value", None) is None
    assert log == ["closed"]
    assert totals(stand.guard) == {("bad" if kind == CUT else "good", True): 1}


@both
@ends
def test_what_is_thrown_in_and_not_caught_comes_back(stand, step, suspends, kind):
    """As it is; the stream has failed by itself."""
    run, error = arm(stand, kind, after_items=2), LookupError()
    stream = stand.guard(async_echo if suspends else echo)([])
    step(stream)
    with pytest.raises(LookupError) as caught:
        step(stream, "throw", error)
    assert caught.value is error
    assert (run.injected, totals(stand.guard)) == (0, {("bad", False): 1})


@both
@pytest.mark.parametrize("kind", [CUT, TRUNCATE])
def test_what_is_no_stream_is_left_alone(stand, suspends, kind):
    """A call has no items."""
    run = arm(stand, kind, after_items=0)
    assert call(stand.guard, lambda: [1, 2, 3], suspends) == [1, 2, 3]
    assert (run.injected, totals(stand.guard)) == (0, {("good", False): 1})


@both
def test_the_earlier_of_two_ends_is_the_end(stand, suspends):
    """The other one has nothing left to strike."""
    cut, truncated = arm(stand, CUT, after_items=3), arm(stand, TRUNCATE, after_items=1, allow_overlap=True)
    source = Source(stand, 5)
    assert read(source.guarded(suspends)) == ([0], None)
    assert (cut.injected, truncated.injected, source.closed) == (0, 1, 1)


@both
def test_a_cut_before_the_first_item_may_be_tried_again(stand, suspends):
    """After it nothing is repeated: the reader would see the beginning twice."""
    guard = stand.resilience.guard("tried", retry=Retry(attempts=3, wait=0.0))
    first = arm(stand, CUT, target="tried", after_items=0, max_injections=1)
    source = Source(stand, 2, name="tried")
    assert read(source.guarded(suspends))[0] == [0, 1]
    assert (first.injected, source.closed) == (1, 2)
    arm(stand, CUT, target="tried", after_items=1, max_injections=1)
    assert read(source.guarded(suspends)) == ([0], InjectedFault)
    assert totals(guard) == {("good", True): 1, ("bad", True): 1}


@both
def test_a_stream_whose_reply_is_lost_is_closed(stand, suspends):
    """It was opened, so its callee has acted; nobody will read it."""
    run, source = arm(stand, LOST, delay_seconds=2.0), Source(stand, 3)
    assert read(source.guarded(suspends)) == ([], InjectedFault)
    assert (source.asked, source.closed, run.injected) == (1, 1, 1)
    assert totals(stand.guard) == {("bad", True): 1}


@both
def test_an_empty_stream_can_be_lost_as_well(stand, suspends):
    """That there is nothing is an answer."""
    source = Source(stand, 0)
    arm(stand, LOST)
    assert read(source.guarded(suspends)) == ([], InjectedFault)
    assert source.closed == 1


def test_a_stream_whose_caller_goes_away_while_its_reply_is_held_is_closed(stand):
    """With the call, and not some time later."""
    clock = Stopping()
    stand = Stand(clock=clock)
    source = Source(stand, 3)
    arm(stand, LOST, delay_seconds=2.0)

    async def main():
        task = asyncio.current_task()
        clock.stop = task.cancel
        stream = source.guarded(suspends=True)()
        with pytest.raises(asyncio.CancelledError):
            await anext(stream)
        task.uncancel()
        return source.closed

    assert asyncio.run(main()) == 1


@both
@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_a_share_of_the_answers_is_struck(make, suspends, rate):
    """The same calls for the same seed, whatever the kind; a call that fails by itself has used its number all the same."""

    def found(kind, fails=()):
        stand = make()
        stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", kind, 0, 60, rate=rate)]))
        log = []
        for number in range(40):
            if kind == LOST:
                result = call(stand.guard, lambda number=number: 1 // (number not in fails), suspends)
            else:
                result = read(Source(stand, 3).guarded(suspends))[1]
            log.append(result is InjectedFault or type(result) is InjectedFault)
        return log

    lost = found(LOST)
    assert 0 < sum(lost) < 40
    assert found(CUT) == lost
    assert found(LOST, fails=(3, 5, 8)) == [hit and number not in (3, 5, 8) for number, hit in enumerate(lost)]


# -- sources that are no generators -----------------------------------------------------------------------------------------------------


class Feed:
    """An async iterator with nothing but items."""

    def __init__(self, count):
        self.left = list(range(count))

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


class Closable(Feed):
    """One that can be closed, and counts it."""

    closed = 0

    async def aclose(self):
        self.closed += 1


def opened(stand, kind, source, first=0, **options):
    """What is left of a stream that has begun, and its call."""
    run = arm(stand, kind, **options)
    guard = stand.guard.suspending if hasattr(source, "__anext__") else stand.guard.blocking
    made = SimpleNamespace(block=False, injected=False, runtime=guard, listeners=stand.resilience.listeners, clock=stand.clock)
    made.touch = lambda: setattr(made, "injected", True)
    end = StreamFault(run, "llm.invoke", Decision("llm.invoke", 0))
    return run_sync(end(made, Opened(source, first))), made


@ends
def test_a_plain_iterator_is_ended_too(stand, kind):
    """It has neither ``close`` nor ``throw``: leaving it is no error, and what is thrown in comes straight back."""
    stream = opened(stand, kind, iter([1, 2, 3]), after_items=2)[0].source
    assert iter(stream) is stream
    assert next(stream) == 1
    with pytest.raises(KeyError):
        stream.throw(KeyError())
    stream.close()
    with pytest.raises(InjectedFault if kind == CUT else StopIteration):
        next(stream)


@ends
def test_a_plain_async_iterator_is_ended_too(stand, kind):
    """As a plain one."""

    async def main():
        stream = opened(stand, kind, Feed(4), after_items=2)[0].source
        assert aiter(stream) is stream
        assert await anext(stream) == 0
        with pytest.raises(KeyError):
            await stream.athrow(KeyError())
        await stream.aclose()
        with pytest.raises(InjectedFault if kind == CUT else StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())


@ends
@pytest.mark.parametrize("source", [iter([1]), Feed(1), Closable(1)])
def test_a_source_of_any_kind_may_be_ended_before_its_first_item(stand, kind, source):
    """It is closed if it can be."""
    if kind == CUT:
        with pytest.raises(InjectedFault):
            opened(stand, kind, source, after_items=0)
    else:
        left, made = opened(stand, kind, source, after_items=0)
        assert (left.first, left.ended, made.injected) == (None, True, True)
    assert getattr(source, "closed", 1) >= 1


@ends
def test_a_source_is_closed_when_it_is_struck(stand, kind):
    """Once."""

    async def main():
        source = Closable(3)
        stream = opened(stand, kind, source)[0].source
        with pytest.raises(InjectedFault if kind == CUT else StopAsyncIteration):
            await anext(stream)
        return source.closed

    assert asyncio.run(main()) == 1


# -- a defect is no fault ---------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", [LOST, CUT])
def test_a_function_that_cannot_make_an_error_lets_the_answer_pass(stand, suspends, kind):
    """A user's mistake in an experiment is no outage, and no injection is counted."""
    run = arm(stand, kind, error=lambda: 1 / 0)
    if kind == LOST:
        assert call(stand.guard, lambda: "answer", suspends) == "answer"
    else:
        source = Source(stand, 3)
        assert read(source.guarded(suspends))[0] == [0, 1, 2]
        assert source.closed == 1
    assert run.injected == 0
    assert [event.error for event in stand.told(DefectFound)] == ["ZeroDivisionError"]
    assert totals(stand.guard) == {("good", False): 1}


@both
@pytest.mark.parametrize("kind", [LOST, CUT, TRUNCATE])
def test_a_defect_in_counting_lets_the_answer_pass(stand, monkeypatch, suspends, kind):
    """As before a call: the caller gets what the callee gave, and the defect is reported once."""
    arm(stand, kind)

    def breaks(*args, **options):
        raise RuntimeError("planted")

    monkeypatch.setattr(ExperimentRun, "claim", breaks)
    for _ in range(3):
        if kind == LOST:
            assert call(stand.guard, lambda: "answer", suspends) == "answer"
        else:
            assert read(Source(stand, 3).guarded(suspends))[0] == [0, 1, 2]
    assert [event.error for event in stand.told(DefectFound)] == ["RuntimeError"]
