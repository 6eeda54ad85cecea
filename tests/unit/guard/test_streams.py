"""Guarded generators and async generators: their protocols, their timeouts, and how they are judged."""

from __future__ import annotations

import asyncio
import gc
import inspect

import pytest

from somaresil import BulkheadFull, CallTimedOut, CircuitOpen, Fallback, Outcome, Resilience, Retry, Timeout
from somaresil.events import FallbackUsed
from somaresil.line import Line
from tests.behaviour.kit import Boom, Gate, Stand, both_paths, one_strike, turns


async def collect(stream):
    return [item async for item in stream]


# -- the protocol of generators ---------------------------------------------------------------------------------------------------------


def echo(stop="stop"):
    """Gives back what it is sent, and tells what happened to it in the end."""
    got = "first"
    while True:
        try:
            got = yield got
        except ValueError as error:
            got = f"caught {error}"
        if got == stop:
            return "the end"


@both_paths
def test_send_throw_and_the_return_value_reach_the_generator(held):
    """As with the bare generator (PEP 380)."""
    stand = Stand(held=held)
    stream = stand.guard(echo)()
    assert inspect.isgenerator(stream)
    assert next(stream) == "first"
    assert stream.send("hello") == "hello"
    assert next(stream) is None
    assert stream.throw(ValueError("oops")) == "caught oops"
    with pytest.raises(StopIteration) as ended:
        stream.send("stop")
    assert ended.value.value == "the end"
    assert stand.count(Outcome.GOOD) == stand.count() == 1
    with pytest.raises(StopIteration):
        next(stream)
    assert stand.count() == 1


def test_a_guarded_generator_can_be_delegated_to():
    """``yield from`` passes values, exceptions and the return value through it."""
    guarded = Stand().guard(echo)

    def outer():
        return (yield from guarded())

    stream = outer()
    assert next(stream) == "first"
    assert stream.throw(ValueError("oops")) == "caught oops"
    with pytest.raises(StopIteration) as ended:
        stream.send("stop")
    assert ended.value.value == "the end"


def test_an_exception_that_is_thrown_in_and_not_caught_comes_back():
    """The same object; the stream has failed."""
    stand = Stand(breaker=one_strike())
    stream = stand.guard(echo)()
    next(stream)
    error = Boom()
    with pytest.raises(Boom) as raised:
        stream.throw(error)
    assert raised.value is error
    assert stand.state == "open"


def test_nothing_happens_before_the_first_item_is_asked_for():
    """Calling a generator function is not yet a call of the dependency."""
    stand = Stand(bulkhead=1)
    stream = stand.guard(echo)()
    assert stand.guard.bulkhead.active == 0
    stream.close()
    assert stand.count() == 0


@both_paths
def test_an_early_close_reaches_the_generator_and_is_abandoned(held):
    """It may clean up; the breaker hears nothing; the slot is free."""
    stand = Stand(held=held, breaker=one_strike(), bulkhead=1)
    cleaned = []

    @stand.guard
    def stream():
        try:
            yield 1
            yield 2
        finally:
            cleaned.append("up")

    reading = stream()
    next(reading)
    assert stand.guard.bulkhead.active == 1
    reading.close()
    assert cleaned == ["up"]
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1
    assert stand.state == "closed"


def test_a_stream_that_is_forgotten_is_abandoned():
    """Dropping the last reference is leaving."""
    stand = Stand(bulkhead=1)
    stream = stand.guard(echo)()
    next(stream)
    del stream
    gc.collect()
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.ABANDONED) == 1


def test_a_generator_that_fails_while_it_cleans_up_has_failed():
    """An early close is no excuse: its error reaches the reader, and counts."""
    stand = Stand(bulkhead=1)

    @stand.guard
    def stream():
        try:
            yield 1
        finally:
            raise Boom

    reading = stream()
    next(reading)
    with pytest.raises(Boom):
        reading.close()
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.BAD) == 1


@both_paths
def test_an_empty_stream_is_a_good_call(held):
    """With its return value, and its permits given back."""
    stand = Stand(held=held, bulkhead=1, breaker=True)

    @stand.guard
    def stream():
        return "nothing"
        yield

    with pytest.raises(StopIteration) as ended:
        next(stream())
    assert ended.value.value == "nothing"
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == 1


@both_paths
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_stream_is_judged_by_its_end(held, at):
    """Failing at its first item or later, it is one bad call; the breaker opens."""
    stand = Stand(held=held, breaker=one_strike(), bulkhead=1)

    @stand.guard
    def stream():
        for item in range(4):
            if item == at:
                raise Boom
            yield item

    seen = []
    with pytest.raises(Boom):
        for item in stream():
            seen.append(item)
            assert stand.count() == 0
    assert seen == list(range(at))
    assert stand.count(Outcome.BAD) == stand.count() == 1
    assert stand.state == "open"
    assert stand.guard.bulkhead.active == 0


def test_a_stream_holds_its_permit_until_the_end():
    """A second stream is rejected until the first is read to its end."""
    stand = Stand(bulkhead=1)
    stream = stand.guard(lambda: iter([]))  # a plain function: not lasting
    assert list(stream()) == []

    @stand.guard
    def numbers():
        yield from (1, 2)

    first = numbers()
    next(first)
    with pytest.raises(BulkheadFull):
        next(numbers())
    assert list(first) == [2]
    assert list(numbers()) == [1, 2]


def test_a_stream_may_be_a_probe():
    """Half-open is decided when it ends."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.clock.advance(30.0)

    @stand.guard
    def numbers():
        yield from (1, 2)

    stream = numbers()
    next(stream)
    assert stand.state == "half_open"
    with pytest.raises(CircuitOpen):
        next(numbers())
    assert list(stream) == [2]
    assert stand.state == "closed"


def test_a_classifier_sees_what_a_stream_returned():
    """The return value of the generator is the result of the call."""
    stand = Stand(breaker=one_strike(), classify=lambda result, error: Outcome.BAD if result == "cut short" else None)

    @stand.guard
    def stream():
        yield 1
        return "cut short"

    assert list(stream()) == [1]
    assert stand.count(Outcome.BAD) == 1
    assert stand.state == "open"


# -- the protocol of async generators ---------------------------------------------------------------------------------------------------


async def async_echo():
    """As ``echo``, with a stop."""
    got = "first"
    while got != "stop":
        try:
            got = yield got
        except ValueError as error:
            got = f"caught {error}"


@both_paths
def test_asend_athrow_and_aclose_reach_the_async_generator(held):
    """As with the bare one."""
    stand = Stand(held=held)

    async def main():
        stream = stand.guard(async_echo)()
        assert inspect.isasyncgen(stream)
        assert await anext(stream) == "first"
        assert await stream.asend("hello") == "hello"
        assert await anext(stream) is None
        assert await stream.athrow(ValueError("oops")) == "caught oops"
        with pytest.raises(StopAsyncIteration):
            await stream.asend("stop")
        other = stand.guard(async_echo)()
        await anext(other)
        await other.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(other)

    asyncio.run(main())
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.ABANDONED)) == (1, 1)


@both_paths
def test_an_early_close_of_an_async_stream_waits_for_its_cleaning_up(held, monkeypatch):
    """The source has cleaned up, with awaits of its own, before the permit is given back."""
    stand = Stand(held=held, breaker=one_strike(), bulkhead=1)
    order = []
    leave = Line.leave
    monkeypatch.setattr(Line, "leave", lambda line, slot: order.append("permit back") or leave(line, slot))

    @stand.guard
    async def stream():
        try:
            yield 1
            yield 2
        finally:
            await turns(3)
            order.append("cleaned up")

    async def main():
        reading = stream()
        await anext(reading)
        await reading.aclose()

    asyncio.run(main())
    assert order == ["cleaned up", "permit back"]
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1
    assert stand.state == "closed"


def test_an_async_stream_that_fails_while_it_cleans_up_gives_its_permit_back():
    """Its error reaches the reader, the call has failed, and nothing is held any more."""
    stand = Stand(bulkhead=1)

    @stand.guard
    async def stream():
        try:
            yield 1
        finally:
            raise Boom

    async def main():
        reading = stream()
        await anext(reading)
        with pytest.raises(Boom):
            await reading.aclose()

    asyncio.run(main())
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.BAD) == 1


def test_a_task_that_is_cancelled_between_two_items_abandons_the_stream():
    """The source is closed; nobody is blamed."""
    stand = Stand(breaker=one_strike(), bulkhead=1)
    gate = Gate()

    @stand.guard
    async def stream():
        yield 1
        yield await gate.aenter()

    async def main():
        task = asyncio.ensure_future(collect(stream()))
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(main())
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1
    assert (stand.state, stand.guard.bulkhead.active) == ("closed", 0)


@both_paths
@pytest.mark.parametrize("at", [0, 2])
def test_an_async_stream_is_judged_by_its_end(held, at):
    """The same as with a generator."""
    stand = Stand(held=held, breaker=one_strike(), bulkhead=1)

    @stand.guard
    async def stream():
        for item in range(4):
            if item == at:
                raise Boom
            yield item

    with pytest.raises(Boom):
        asyncio.run(collect(stream()))
    assert stand.count(Outcome.BAD) == stand.count() == 1
    assert (stand.state, stand.guard.bulkhead.active) == ("open", 0)


@both_paths
def test_an_empty_async_stream_is_a_good_call(held):
    """And gives its permits back."""
    stand = Stand(held=held, bulkhead=1)

    @stand.guard
    async def stream():
        return
        yield

    assert asyncio.run(collect(stream())) == []
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == 1


class Feed:
    """An async iterator that is no generator: it has neither ``asend`` nor ``athrow`` nor ``aclose``."""

    def __init__(self) -> None:
        self.left = [1, 2]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


def test_an_async_fallback_stream_need_not_be_a_generator():
    """It is read to its end; an exception thrown in comes straight back, and leaving it early is no error."""
    stand = Stand(fallback=Feed)

    @stand.guard
    async def stream():
        raise Boom
        yield

    assert asyncio.run(collect(stream())) == [1, 2]

    async def throws():
        reading = stream()
        await anext(reading)
        with pytest.raises(ValueError, match="mine"):
            await reading.athrow(ValueError("mine"))
        other = stream()
        await anext(other)
        await other.aclose()

    asyncio.run(throws())
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.ABANDONED)) == (1, 1)


def test_a_fallback_list_can_be_left_early_and_thrown_into():
    """A list iterator has neither ``close`` nor ``throw``."""
    stand = Stand(fallback=lambda: [1, 2])

    @stand.guard
    def stream():
        raise Boom
        yield

    reading = stream()
    next(reading)
    reading.close()
    other = stream()
    next(other)
    with pytest.raises(ValueError, match="mine"):
        other.throw(ValueError("mine"))
    assert stand.count(Outcome.ABANDONED) == 1


# -- retry and fallback -----------------------------------------------------------------------------------------------------------------


def test_a_fallback_stream_takes_over_only_before_the_first_item():
    """After it the reader has the error: two halves of two streams are no stream."""
    stand = Stand(fallback=Fallback(lambda fail_at: ["instead"], on=Boom), retry=Retry(attempts=2, wait=0.0))

    @stand.guard
    def stream(fail_at):
        for item in range(3):
            if item == fail_at:
                raise Boom
            yield item

    assert list(stream(0)) == ["instead"]
    assert len(stand.told(FallbackUsed)) == 1
    reading = stream(1)
    assert next(reading) == 0
    with pytest.raises(Boom):
        next(reading)
    assert len(stand.told(FallbackUsed)) == 1
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_a_fallback_stream_answers_for_an_open_circuit():
    """And is a good call."""
    stand = Stand(fallback=lambda: ["instead"], breaker=True)
    stand.resilience.breaker("dependency").force_open()

    @stand.guard
    def stream():
        yield "never"

    assert list(stream()) == ["instead"]
    assert stand.count(Outcome.GOOD) == 1


# -- timeouts ---------------------------------------------------------------------------------------------------------------------------


def pausing(stand, *pauses):
    """A guarded generator that takes so long for each item."""

    @stand.guard
    def stream():
        for pause in pauses[:-1]:
            stand.clock.advance(pause)
            yield pause
        stand.clock.advance(pauses[-1])

    return stream()


@pytest.mark.parametrize(
    ("limits", "pauses", "outcome"),
    [
        ({"first_item": 2.0}, (2.0, 9.0, 9.0, 9.0), Outcome.GOOD),
        ({"first_item": 2.0}, (2.25, 0.0, 0.0, 0.0), Outcome.BAD),
        ({"idle": 2.0}, (9.0, 2.0, 2.0, 2.0), Outcome.GOOD),
        ({"idle": 2.0}, (0.0, 2.25, 0.0, 0.0), Outcome.BAD),
        ({"idle": 2.0}, (0.0, 0.0, 0.0, 2.25), Outcome.BAD),
        ({"total": 6.0}, (2.0, 2.0, 2.0, 0.0), Outcome.GOOD),
        ({"total": 10.0}, (2.0, 5.0, 2.0, 1.0), Outcome.GOOD),
        ({"total": 6.0}, (2.0, 2.0, 2.25, 0.0), Outcome.BAD),
        ({"total": 6.0}, (6.25, 0.0, 0.0, 0.0), Outcome.BAD),
        ({"total": 6.0, "first_item": 9.0}, (6.25, 0.0, 0.0, 0.0), Outcome.BAD),
        ({"total": 60.0, "first_item": 1.0, "idle": 3.0}, (1.0, 3.0, 3.0, 3.0), Outcome.GOOD),
    ],
)
def test_a_late_item_makes_a_sync_stream_bad(limits, pauses, outcome):
    """All items are delivered: a generator is not interrupted. The limits themselves are in time."""
    stand = Stand(timeout=Timeout(**limits), breaker=one_strike())
    assert list(pausing(stand, *pauses)) == list(pauses[:-1])
    assert stand.count(outcome) == stand.count() == 1
    assert stand.state == ("closed" if outcome is Outcome.GOOD else "open")


def test_the_readers_own_time_is_not_idle_time():
    """Only what the source takes counts."""
    stand = Stand(timeout=Timeout(idle=2.0))
    for _ in pausing(stand, 0.0, 1.0, 1.0, 1.0):
        stand.clock.advance(30.0)
    assert stand.count(Outcome.GOOD) == 1


def hanging(timeout, at):
    """A stream in real time that hangs at its n-th item, and what became of it."""
    resilience = Resilience("tests")
    guard = resilience.guard("dependency", timeout=timeout, bulkhead=1)
    cleaned = []

    @guard
    async def stream():
        try:
            for item in range(4):
                if item == at:
                    await asyncio.Event().wait()
                yield item
        finally:
            cleaned.append("up")

    async def main():
        seen = []
        with pytest.raises(CallTimedOut) as raised:
            async for item in stream():
                seen.append(item)
        return seen, raised.value

    seen, error = asyncio.run(main())
    assert cleaned == ["up"]
    assert guard.bulkhead.active == 0
    assert guard.recorder.counts().total(Outcome.BAD) == 1
    return seen, (error.phase, error.limit)


def test_an_async_stream_that_does_not_begin_is_ended():
    """The first-item limit, or the total when it is shorter."""
    assert hanging(Timeout(first_item=0.01), 0) == ([], ("first_item", 0.01))
    assert hanging(Timeout(0.01, first_item=60.0), 0) == ([], ("total", 0.01))


def test_an_async_stream_that_does_not_go_on_is_ended():
    """The idle limit counts from item to item."""
    seen, (phase, limit) = hanging(Timeout(60.0, idle=0.01), 2)
    assert (seen, phase, limit) == ([0, 1], "idle", 0.01)


def test_an_async_stream_that_takes_too_long_as_a_whole_is_ended():
    """The total, whatever the pauses."""
    seen, (phase, limit) = hanging(Timeout(0.02, idle=60.0), 2)
    assert (seen, phase) == ([0, 1], "total")
    assert limit <= 0.02


def test_an_item_that_follows_a_thrown_exception_has_a_limit_too():
    """``athrow`` asks for an item like any other."""
    guard = Resilience("tests").guard("dependency", timeout=Timeout(idle=0.01))

    @guard
    async def stream():
        try:
            yield 1
        except ValueError:
            await asyncio.Event().wait()

    async def main():
        reading = stream()
        await anext(reading)
        with pytest.raises(CallTimedOut):
            await reading.athrow(ValueError())

    asyncio.run(main())


def test_a_timeout_that_is_taken_away_in_the_middle_of_a_stream_no_longer_counts():
    """Options are read item by item."""
    stand = Stand(timeout=Timeout(idle=2.0))
    reading = pausing(stand, 0.0, 9.0, 9.0)
    next(reading)
    stand.guard.configure(timeout=None)
    assert list(reading) == [9.0]
    assert stand.count(Outcome.GOOD) == 1
