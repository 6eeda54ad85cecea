"""Streams that break after some items and are gone on with, where the retry says how."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import Bulkhead, CallTimedOut, CircuitBreaker, Outcome, Resilience, Retry, StreamProgress, Timeout
from somaresil.events import AttemptFailed, DefectFound, RetryDenied, RetryScheduled
from somaresil.testing import VirtualClock, VirtualLoop
from tests.behaviour.kit import Boom, Stand, both
from tests.unit.policy.kit import wrong

BREAKER = CircuitBreaker(failure_rate=None, consecutive_failures=5)


def by_count(progress):
    """Go on with the number of items that the reader has had."""
    return (progress.items,), {}


class Source:
    """Numbers from a start to five, that break before some of them, each time once."""

    def __init__(self, *breaks, error=Boom):
        self.breaks = list(breaks)
        self.error = error
        self.begun = []

    def _due(self, number):
        if self.breaks and self.breaks[0] == number:
            self.breaks.pop(0)
            return True
        return False

    def plain(self, start=0):
        self.begun.append(start)
        for number in range(start, 5):
            if self._due(number):
                raise self.error
            yield number
        return "the end"

    async def suspended(self, start=0):
        for number in self.plain(start):
            yield number


def read(stand, source, suspends):
    """Read the guarded stream to its end; the items and what came out of it."""
    seen = []
    try:
        if suspends:

            async def main():
                async for item in stand.guard(source.suspended)():
                    seen.append(item)

            asyncio.run(main())
        else:
            seen.extend(stand.guard(source.plain)())
    except Exception as error:
        return seen, type(error)
    return seen, None


def stand_of(**retry):
    return Stand(breaker=BREAKER, bulkhead=Bulkhead(1), retry=Retry(**{"wait": 2.0, "resume": by_count, **retry}))


@both
def test_the_reader_notices_nothing_but_a_pause(suspends):
    """No item twice and none left out; one good call, and a failure for the breaker."""
    stand, source = stand_of(), Source(2)
    assert read(stand, source, suspends) == ([0, 1, 2, 3, 4], None)
    assert source.begun == [0, 2]
    assert (stand.count(Outcome.GOOD), stand.count()) == (1, 1)
    assert stand.breaker.tally().failures == 1
    assert [(event.attempt, event.error) for event in stand.told(AttemptFailed)] == [(1, "Boom")]
    assert [event.delay for event in stand.told(RetryScheduled)] == [2.0]
    assert stand.guard.bulkhead.active == 0


@both
def test_it_is_gone_on_with_so_often_as_there_are_attempts(suspends):
    """Also when it breaks at the item with which it goes on, or before any more; the last error is the stream's."""
    stand, source = stand_of(attempts=3), Source(1, 1, 3)
    assert read(stand, source, suspends) == ([0, 1, 2], Boom)
    assert source.begun == [0, 1, 1]
    assert (stand.count(Outcome.BAD), stand.count()) == (1, 1)
    assert stand.guard.bulkhead.active == 0


@both
def test_nothing_more_is_an_end(suspends):
    """A stream that breaks after its last item has ended well."""
    stand = stand_of()
    source = Source(5)

    def plain(start=0):
        yield from source.plain(start)
        if source._due(5):
            raise Boom

    source_of = Source()
    source_of.plain = plain
    assert read(stand, source_of, suspends) == ([0, 1, 2, 3, 4], None)
    assert (source.begun, stand.count(Outcome.GOOD), stand.guard.bulkhead.active) == ([0, 5], 1, 0)


def test_the_return_value_is_that_of_the_part_that_ended():
    """As PEP 380 has it."""
    stand, source, got = stand_of(), Source(2), []

    def delegating():
        got.append((yield from stand.guard(source.plain)()))

    assert list(delegating()) == [0, 1, 2, 3, 4]
    assert got == ["the end"]


@both
@pytest.mark.parametrize(
    ("hook", "defects"),
    [(lambda progress: None, 0), (lambda progress: 1 / 0, 1), (lambda progress: "no", 1), (lambda progress: ((1,),), 1)],
)
def test_who_cannot_say_how_gets_the_error(hook, defects, suspends):
    """None ends it; a hook that raises, or says something else, is reported."""
    stand = stand_of(resume=hook)
    assert read(stand, Source(2), suspends) == ([0, 1], Boom)
    assert len(stand.told(DefectFound)) == defects
    assert stand.count(Outcome.BAD) == 1


def test_the_hook_is_told_how_far_it_has_come():
    """The arguments of the part that broke, and what the reader has had in all."""
    told = []

    def resume(progress):
        told.append(progress)
        return by_count(progress)

    read(stand_of(resume=resume), Source(1, 3), suspends=False)
    assert told == [StreamProgress((), {}, 1, 0), StreamProgress((1,), {}, 3, 2)]


@both
def test_the_other_rules_of_retries_hold(suspends):
    """Not for errors that are not named, not when it may not be repeated."""
    assert read(stand_of(on=KeyError), Source(2), suspends) == ([0, 1], Boom)
    stand = Stand(idempotent=False, retry=Retry(resume=by_count))
    assert read(stand, Source(2), suspends) == ([0, 1], Boom)
    assert [event.reason for event in stand.told(RetryDenied)] == ["idempotency"]


def test_what_the_reader_throws_into_it_is_his_own():
    """An error that came by throw is not the source's."""
    stand = stand_of()
    stream = stand.guard(Source().plain)()
    assert next(stream) == 0
    with pytest.raises(Boom):
        stream.throw(Boom())

    async def main():
        stream = stand.guard(Source().suspended)()
        assert await anext(stream) == 0
        with pytest.raises(Boom):
            await stream.athrow(Boom())

    asyncio.run(main())
    assert stand.told(RetryScheduled) == []


class Strikes:
    """An experiment that delays so many calls by nothing worth naming."""

    live, over = True, False

    def __init__(self, count):
        self.left = count

    def decide(self, _call=None):
        self.left -= 1
        return self.left >= 0

    def strike(self, _decided=None):
        return type("Strike", (), {"delay": 0.25, "error": None, "after": None})()

    async def hold(self, runtime, seconds):
        return True


@both
@pytest.mark.parametrize("strikes", [1, 2])
@pytest.mark.parametrize("breaks", [(2,), (2, 2, 2), (5,)], ids=["gone on with", "in the end broken", "nothing more"])
def test_a_call_that_was_struck_in_any_part_is_one_struck_call(strikes, breaks, suspends):
    """It is marked once, and none is left unended."""
    stand, source = stand_of(), Source(*breaks)
    stand.guard.faults.arm(Strikes(strikes))
    read(stand, source, suspends)
    assert stand.guard.faults.unended == 0
    assert (stand.count(), stand.guard.recorder.counts().total(injected=True)) == (1, 1)


def test_a_stream_that_stalls_is_gone_on_with():
    """The idle limit ends the part; with it the wait for the next item begins anew."""

    async def main(resilience):
        begun = []

        @resilience.guard("llm", timeout=Timeout(idle=1.0), retry=Retry(resume=by_count, wait=0.0, on=CallTimedOut))
        async def tokens(start=0):
            begun.append(start)
            for number in range(start, 3):
                if number == 1 and len(begun) == 1:
                    await asyncio.sleep(60.0)
                yield number

        return [token async for token in tokens()], begun, resilience.clock.monotonic()

    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        assert runner.run(main(Resilience("tests", clock=clock))) == ([0, 1, 2], [0, 1], 1.0)


def test_what_is_no_function_is_refused():
    """A coroutine function as well: nobody awaits it."""

    async def resume(progress):
        return None

    assert wrong(Retry, resume=3) == ["resume"]
    assert wrong(Retry, resume=resume) == ["resume"]
