"""The express path: limits are passed in one step each, and everything else goes the long way round, with the same result."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import CallTimedOut, Classify, Outcome, Resilience, Retry
from somaresil.events import CallEnded
from somaresil.testing import VirtualClock, VirtualLoop
from tests.behaviour.kit import Boom, one_strike


def run(main):
    """Run in virtual time; give what came of it."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main(Resilience("tests", clock=clock, seed=1)))


def guard_of(resilience, held, **options):
    """A guard with a breaker and a timeout of two seconds, held on the full path or not."""
    guard = resilience.guard("dependency", **{"timeout": 2.0, "breaker": one_strike(), **options})
    if held:
        guard.switch.hold("test")
    return guard


async def answers():
    await asyncio.sleep(1.0)
    return "fine"


async def fails():
    await asyncio.sleep(1.0)
    raise Boom("down")


async def hangs():
    await asyncio.sleep(60.0)


async def exits():
    raise SystemExit(3)


async def times_out_inside():
    raise TimeoutError("of its own")


ENDS = [answers, fails, hangs, exits, times_out_inside]


@pytest.mark.parametrize("retry", [None, Retry(attempts=2, wait=1.0, on=(Boom, CallTimedOut))], ids=["plain", "retried"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("classify", [None, Classify(ignored=Boom, fatal=CallTimedOut)], ids=["as usual", "classified"])
def test_it_means_the_same_as_the_full_path(classify, end, retry):
    """Result, error, counts, state, time and events of a call, however it ends and whatever a classifier says of errors."""

    def lived(held):
        async def main(resilience):
            guard = guard_of(resilience, held, classify=classify, **({} if retry is None else {"retry": retry, "breaker": None}))
            assert guard.switch.express is not held
            events = []
            resilience.on(events.append)
            calls = []

            @guard
            async def call():
                calls.append(resilience.clock.monotonic())
                return await end()

            try:
                came = await call()
            except BaseException as error:
                came = (type(error), str(error), type(error.__cause__))
            state = guard.breaker and (guard.breaker.state, guard.breaker.era, guard.breaker.last_error)
            return came, calls, guard.recorder.counts().cells, state, events, resilience.clock.monotonic()

        return run(main)

    assert lived(held=False) == lived(held=True)


def test_it_is_taken_while_only_limits_need_a_say():
    """Nothing of the full path runs; as soon as something else is up, it does."""

    async def main(resilience):
        guard = guard_of(resilience, held=False)
        guarded = guard(answers)
        assert (guard.switch.quiet, guard.switch.express) == (False, True)

        async def by_express():
            # Only there, and on the quiet path, a good call is counted by taking the next of a counter.
            before = sum(guard.recorder.quiet_counts())
            assert await guarded() == "fine"
            return sum(guard.recorder.quiet_counts()) > before

        assert await by_express()
        guard.switch.hold("fault")
        assert not await by_express()
        guard.switch.hold("fault", held=False)
        guard.configure(classify=lambda result, error: None)
        assert not await by_express()
        guard.configure(classify=None)
        assert await by_express()
        guard.configure(timeout=None)
        assert (guard.switch.quiet, guard.switch.express) == (True, False)

    run(main)


def test_a_plain_function_with_a_timeout_goes_the_long_way():
    """Its limit does not interrupt it and is looked at afterwards."""

    async def main(resilience):
        guard = guard_of(resilience, held=False, breaker=None)
        assert guard.call(lambda: resilience.clock.advance(3.0) or "late") == "late"
        return guard.recorder.counts().total(Outcome.BAD)

    assert run(main) == 1


@pytest.mark.parametrize("held", [False, True], ids=["express", "full"])
def test_the_cancellation_of_the_caller_passes(held):
    """The same object, no verdict, and no limit is left behind."""

    async def main(resilience):
        guard = guard_of(resilience, held)
        events = []
        resilience.on(events.append, CallEnded)
        task = asyncio.ensure_future(guard(hangs)())
        await asyncio.sleep(1.0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        await asyncio.sleep(5.0)
        return [event.outcome for event in events], guard.breaker.state.value

    assert run(main) == (["abandoned"], "closed")


@pytest.mark.parametrize("held", [False, True], ids=["express", "full"])
def test_a_deadline_that_has_passed_is_seen(held):
    """The call is refused and counted so."""

    async def main(resilience):
        guard = guard_of(resilience, held)
        with resilience.deadline(0.0), pytest.raises(Exception, match="deadline exceeded"):
            await guard(answers)()
        return guard.recorder.counts().total(Outcome.REJECTED)

    assert run(main) == 1
