"""``with`` and ``async with`` blocks: permits, verdicts, timeouts, nesting, and ends in other places than beginnings."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from somaresil import BulkheadFull, CallTimedOut, CircuitOpen, ConfigurationError, Outcome, Resilience
from somaresil.guard.block import _open_blocks
from tests.behaviour.kit import Boom, Stand, both_paths, one_strike, together, turns


async def run_async_block(guard, body=lambda: None):
    async with guard:
        await asyncio.sleep(0)
        return body()


@both_paths
def test_a_block_is_a_call(held):
    """Its end is judged: good, bad with the same error, abandoned; the permit is held while it runs."""
    stand = Stand(held=held, breaker=True, bulkhead=1)
    with stand.guard as inside:
        assert inside is stand.guard
        assert stand.guard.bulkhead.active == 1
    error = Boom()
    with pytest.raises(Boom) as raised, stand.guard:
        raise error
    assert raised.value is error
    with pytest.raises(KeyboardInterrupt), stand.guard:
        raise KeyboardInterrupt
    assert stand.guard.bulkhead.active == 0
    assert [stand.count(outcome) for outcome in (Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED)] == [1, 1, 1]


@both_paths
def test_an_async_block_is_a_call(held):
    """The same."""
    stand = Stand(held=held, breaker=True, bulkhead=1)

    def fail():
        raise Boom

    assert asyncio.run(run_async_block(stand.guard, lambda: stand.guard.bulkhead.active)) == 1
    with pytest.raises(Boom):
        asyncio.run(run_async_block(stand.guard, fail))
    assert stand.guard.bulkhead.active == 0
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_a_block_opens_the_breaker_and_is_kept_out_by_it():
    """The body of a rejected block does not run."""
    stand = Stand(breaker=one_strike())
    with pytest.raises(Boom), stand.guard:
        raise Boom
    with pytest.raises(CircuitOpen), stand.guard:
        raise AssertionError
    with pytest.raises(CircuitOpen):
        asyncio.run(run_async_block(stand.guard))
    assert stand.count(Outcome.REJECTED) == 2


def test_blocks_nest():
    """In one guard and in several; each is a call of its own."""
    stand = Stand(bulkhead=3)
    other = stand.resilience.guard("other", bulkhead=1)
    with stand.guard, other, stand.guard:
        assert (stand.guard.bulkhead.active, other.bulkhead.active) == (2, 1)
        with pytest.raises(BulkheadFull), other:
            raise AssertionError
    assert (stand.guard.bulkhead.active, other.bulkhead.active) == (0, 0)
    assert stand.count(Outcome.GOOD) == 2


def test_the_time_of_nested_blocks_is_their_own():
    """The inner one of two blocks of one guard ends first, and is timed by itself."""
    stand = Stand(timeout=10.0)
    with stand.guard:
        stand.clock.advance(8.0)
        with stand.guard:
            stand.clock.advance(4.0)
        assert stand.count(Outcome.GOOD) == 1
    assert stand.count(Outcome.BAD) == 1


def test_tasks_and_threads_have_blocks_of_their_own():
    """Twenty at once, all ending in another order than they began in."""
    stand = Stand(bulkhead=40)

    async def block(turns_inside):
        async with stand.guard:
            await turns(turns_inside)

    async def main():
        await asyncio.gather(*(block(20 - number) for number in range(20)))

    asyncio.run(main())
    meeting = threading.Barrier(8)

    def in_thread(number):
        with stand.guard:
            meeting.wait(20)

    assert together(8, in_thread) == [None] * 8
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == stand.count() == 28


def test_blocks_of_interleaved_generators_end_in_any_order():
    """Two generators that are read in turns hold a block each; what ends first is not what began last."""
    stand = Stand(bulkhead=1)
    other = stand.resilience.guard("other", bulkhead=1)

    def holding(guard):
        with guard:
            yield

    first, second = holding(stand.guard), holding(other)
    next(first)
    next(second)
    first.close()
    assert (stand.guard.bulkhead.active, other.bulkhead.active) == (0, 1)
    second.close()
    assert other.bulkhead.active == 0


def test_a_block_may_end_in_another_context_than_it_began_in():
    """As in dependencies that a framework runs piece by piece in threads: the permit comes back, and the body's error stays its own."""
    stand = Stand(bulkhead=2)

    def dependency():
        with stand.guard:
            yield "session"

    for error in (None, Boom()):
        pieces = dependency()
        assert contextvars.copy_context().run(next, pieces) == "session"
        with pytest.raises(StopIteration if error is None else Boom):
            contextvars.copy_context().run(next, pieces) if error is None else contextvars.copy_context().run(pieces.throw, error)
    assert stand.guard.bulkhead.active == 0
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_a_block_that_ends_elsewhere_leaves_the_others_alone():
    """Whoever's call was taken for that of another: in the end every permit is back, and every block was counted once."""
    stand = Stand(bulkhead=3)

    def dependency():
        with stand.guard:
            yield

    elsewhere = dependency()
    contextvars.copy_context().run(next, elsewhere)
    with stand.guard:
        contextvars.copy_context().run(elsewhere.close)
    assert stand.guard.bulkhead.active == 0
    assert stand.count() == 2


def test_an_async_block_may_end_in_another_task_than_it_began_in():
    """As in fixtures whose two halves run in tasks of their own."""
    stand = Stand(bulkhead=1)

    async def fixture():
        async with stand.guard:
            yield

    async def main():
        halves = fixture()
        await asyncio.create_task(anext(halves))
        assert stand.guard.bulkhead.active == 1
        await asyncio.create_task(anext(halves, None))

    asyncio.run(main())
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.GOOD) == 1


def test_an_end_without_a_beginning_is_an_error():
    """Somebody calls the methods by hand."""
    stand = Stand()
    with pytest.raises(RuntimeError, match="'dependency' ends that has not begun"):
        stand.guard.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="'dependency' ends that has not begun"):
        asyncio.run(stand.guard.__aexit__(None, None, None))
    stand.guard.__enter__()
    with pytest.raises(RuntimeError, match="has not begun"):
        asyncio.run(stand.guard.__aexit__(None, None, None))
    stand.guard.__exit__(None, None, None)


@pytest.mark.parametrize(("option", "value"), [("retry", 2), ("fallback", lambda: None)])
def test_a_block_cannot_be_run_twice(option, value):
    """Guards with retry or fallback refuse blocks, and say what to use; nothing was admitted."""
    stand = Stand(bulkhead=1, **{option: value})
    with pytest.raises(ConfigurationError) as raised, stand.guard:
        raise AssertionError
    (problem,) = raised.value.problems
    assert (problem.path, problem.hint) == (f"guard('dependency').{option}", "a block cannot be run twice; use the decorator or call()")
    with pytest.raises(ConfigurationError):
        asyncio.run(run_async_block(stand.guard))
    assert stand.guard.bulkhead.active == 0


def test_a_late_block_is_bad_and_an_error_in_it_stays_the_error():
    """A sync block is not interrupted."""
    stand = Stand(timeout=10.0)
    with stand.guard:
        stand.clock.advance(10.0)
    assert stand.count(Outcome.GOOD) == 1
    with stand.guard:
        stand.clock.advance(10.25)
    assert stand.count(Outcome.BAD) == 1


def test_an_async_block_is_cancelled_when_its_time_is_up():
    """CallTimedOut comes out of the block; the task itself is not cancelled."""
    resilience = Resilience("tests")
    guard = resilience.guard("dependency", timeout=0.01, breaker=one_strike())

    async def main():
        with pytest.raises(CallTimedOut) as raised:
            async with guard:
                await asyncio.Event().wait()
        await asyncio.sleep(0)
        return raised.value

    error = asyncio.run(main())
    assert (error.guard, error.limit, error.phase) == ("dependency", 0.01, "total")
    assert guard.recorder.counts().total(Outcome.BAD) == 1
    assert guard.breaker.state == "open"


def test_an_async_block_that_is_cancelled_from_outside_is_abandoned():
    """The guard's own timeout has nothing to do with it."""
    stand = Stand(timeout=60.0, breaker=one_strike())

    async def main():
        task = asyncio.ensure_future(run_async_block(stand.guard, asyncio.current_task))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(main())
    assert stand.count(Outcome.ABANDONED) == 1
    assert stand.state == "closed"


def test_errors_in_an_async_block_with_a_timeout_stay_what_they_are():
    """Also a TimeoutError of the body's own."""
    stand = Stand(timeout=60.0)

    def fail():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(run_async_block(stand.guard, fail))
    assert stand.count(Outcome.BAD) == 1


def test_a_timeout_that_is_taken_away_during_an_async_block_strikes_nobody_later():
    """The scope around the block is ended with the block, whatever the options say by then."""
    guard = Resilience("tests").guard("dependency", timeout=0.02)

    async def main():
        async with guard:
            guard.configure(timeout=None)
        await asyncio.sleep(0.04)
        return "fine"

    assert asyncio.run(main()) == "fine"


def test_a_timeout_that_is_given_during_an_async_block_concerns_the_next_one():
    """The block has no scope to end."""
    guard = Resilience("tests").guard("dependency")

    async def main():
        async with guard:
            guard.configure(timeout=60.0)
        return "fine"

    assert asyncio.run(main()) == "fine"


class Fault:
    """An experiment that delays or breaks every call."""

    live = True
    after = None

    def __init__(self, delay: float = 0.0, error: BaseException | None = None) -> None:
        self.delay = delay
        self.error = error

    def decide(self, _call=None):
        return True

    def strike(self, _decided=None):
        return self

    async def hold(self, runtime, seconds):
        await asyncio.sleep(seconds)
        return True


def test_a_block_that_is_struck_before_it_begins_ends_its_scope():
    """An injected error, and an injected delay beyond the timeout: nothing is left armed, the permit is back."""
    guard = Resilience("tests").guard("dependency", timeout=0.02, bulkhead=1)

    async def main():
        guard.faults.arm(Fault(error=Boom()))
        with pytest.raises(Boom):
            await run_async_block(guard)
        await asyncio.sleep(0.04)
        guard.faults.disarm(guard.faults.rules[0])
        guard.faults.arm(Fault(delay=60.0))
        with pytest.raises(CallTimedOut):
            await run_async_block(guard)

    asyncio.run(main())
    assert guard.bulkhead.active == 0
    assert guard.recorder.counts().total(Outcome.BAD, injected=True) == 2


def test_blocks_that_end_in_another_context_leave_nothing_in_the_one_they_began_in():
    """A context that lives long, such as that of a thread, does not collect the blocks that began in it."""
    guard = Resilience("tests").guard("dependency")

    def depth():
        entry, count = _open_blocks.get(), 0
        while entry is not None:
            entry, count = entry[1], count + 1
        return count

    def main():
        for _ in range(20):
            guard.__enter__()
            contextvars.copy_context().run(guard.__exit__, None, None, None)
        return depth()

    assert contextvars.copy_context().run(main) == 1
