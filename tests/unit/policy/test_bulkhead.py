"""Bulkhead at a guard: its options, when a slot comes back, and who stands in line. See also test_bulkhead_slots."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from datetime import timedelta

import pytest

from somaresil import Bulkhead, BulkheadFull, Outcome, Resilience
from tests.behaviour.kit import PATIENCE, Boom, Gate, Stand, both, turns
from tests.unit.policy.kit import wrong

# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """Nobody waits unless told to."""
    options = Bulkhead(5)
    assert (options.max_concurrent, options.max_waiting, options.max_wait) == (5, 0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.max_concurrent = 6


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_concurrent", [0, -1, 1_000_001, 2.0, "5", None, True]),
        ("max_waiting", [-1, 1_000_001, 2.0, "5", None]),
        ("max_wait", [-1, 86_400.5, "5", None, float("inf")]),
    ],
)
def test_each_wrong_value_is_named(option, values):
    """An option outside its range is the one problem that is reported, whatever it would go together with."""
    for value in values:
        options = {"max_concurrent": 5, "max_waiting": 5, "max_wait": 5.0, option: value}
        assert wrong(Bulkhead, **options) == [option], value


def test_a_line_needs_a_time_and_a_time_needs_a_line():
    """One without the other means that nobody can wait; the missing one is named."""
    assert wrong(Bulkhead, 5, max_waiting=5) == ["max_wait"]
    assert wrong(Bulkhead, 5, max_wait=5.0) == ["max_waiting"]


def test_all_problems_come_at_once():
    """One error that lists them all."""
    assert wrong(Bulkhead, 0, max_waiting=-1, max_wait=-1) == ["max_concurrent", "max_waiting", "max_wait"]


def test_a_timedelta_is_as_good_as_seconds():
    """Both give the same options, kept as a float."""
    options = Bulkhead(5, 5, timedelta(milliseconds=500))
    assert options == Bulkhead(5, 5, 0.5)
    assert type(options.max_wait) is float


@pytest.mark.parametrize("shorthand", [0, -1, True, 2.5, "8", []])
def test_a_wrong_shorthand_is_named(shorthand):
    """The problem stands under the name of the guard's option; a whole number is the number of calls."""
    assert wrong(Stand, bulkhead=shorthand) == ["bulkhead"]
    assert Stand(bulkhead=8).guard.options.bulkhead == Bulkhead(8)


# -- slots ----------------------------------------------------------------------------------------------------------------------------


def nest(stand: Stand, depth: int) -> object:
    """Call the guard inside itself so often."""
    return stand.guard.call(lambda: nest(stand, depth - 1) if depth > 1 else "fine")


def test_so_many_calls_run_at_once_and_no_more():
    """The next one is rejected; afterwards all slots are free."""
    stand = Stand(bulkhead=3)
    assert stand.guard.switch.reasons == {"bulkhead"}
    assert nest(stand, 3) == "fine"
    with pytest.raises(BulkheadFull):
        nest(stand, 4)
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


@both
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_a_slot_comes_back_however_the_call_ends(suspends, error):
    """Result, error and exit alike."""
    stand = Stand(bulkhead=1)
    for _ in range(3):
        assert stand.succeed(suspends) == "fine"
        assert isinstance(stand.fail(suspends, error()), error)
    assert stand.guard.bulkhead.active == 0


def test_streams_and_blocks_hold_their_slot_to_the_end():
    """Also those that end early, with an error, or before they begin."""
    stand = Stand(bulkhead=1)

    @stand.guard
    def stream(fails):
        if fails:
            raise Boom
        yield 1
        yield 2

    items = stream(fails=False)
    assert next(items) == 1
    assert stand.guard.bulkhead.active == 1
    items.close()
    assert stand.guard.bulkhead.active == 0
    with pytest.raises(Boom):
        list(stream(fails=True))
    assert stand.guard.bulkhead.active == 0
    with pytest.raises(Boom), stand.guard:
        assert stand.guard.bulkhead.active == 1
        with pytest.raises(BulkheadFull):
            list(stream(fails=False))
        raise Boom
    assert stand.guard.bulkhead.active == 0


# -- the waiting line -----------------------------------------------------------------------------------------------------------------


def waiting(line: int = 10) -> Stand:
    """One slot and a line, on a clock that really runs; nobody's time is up before the test fails."""
    stand = Stand()
    stand.resilience = Resilience("tests")
    stand.guard = stand.resilience.guard("dependency", bulkhead=Bulkhead(1, max_waiting=line, max_wait=2 * PATIENCE))
    return stand


def test_who_comes_just_as_a_slot_is_free_goes_to_the_end_of_the_line():
    """Nobody overtakes."""
    stand = waiting()
    order: list[int] = []
    gate = Gate()

    @stand.guard
    async def call(number):
        order.append(number)
        await gate.aenter()

    async def main():
        tasks = []
        for number in range(5):
            tasks.append(asyncio.ensure_future(call(number)))
            await turns(1)
        assert stand.guard.bulkhead.waiting == 4
        gate.open()
        await tasks[0]
        await call(5)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == [0, 1, 2, 3, 4, 5]


def test_threads_are_served_in_the_order_in_which_they_came():
    """Four in line behind one that holds the slot."""
    stand = waiting()
    order: list[int] = []
    gate = Gate()
    first = threading.Thread(target=stand.guard(gate.enter), daemon=True)
    first.start()
    gate.await_inside(1)
    threads = [threading.Thread(target=stand.guard.call, args=(order.append, number), daemon=True) for number in range(4)]
    pause = threading.Event()
    for number, thread in enumerate(threads, 1):
        thread.start()
        for _ in range(int(PATIENCE / 0.001)):
            if stand.guard.bulkhead.waiting == number:
                break
            pause.wait(0.001)
        assert stand.guard.bulkhead.waiting == number
    gate.open()
    for thread in (first, *threads):
        thread.join(PATIENCE)
    assert order == [0, 1, 2, 3]
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


def test_a_task_that_waits_too_long_is_sent_away():
    """On a clock that moves by hand the time in line passes at once; the place in line is given up."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=2.5))
    before = stand.clock.monotonic()

    async def nested():
        with pytest.raises(BulkheadFull, match=r"no slot within 2\.5 s"):
            await stand.guard.acall(turns, 1)
        return stand.guard.bulkhead.waiting

    assert asyncio.run(stand.guard(nested)()) == 0
    assert stand.clock.monotonic() - before == 2.5
    assert (stand.count(Outcome.REJECTED), stand.guard.bulkhead.active) == (1, 0)


def test_a_cancelled_waiter_leaves_the_line_to_the_others():
    """The next one moves up."""
    stand = waiting()
    gate = Gate()

    async def main():
        call = stand.guard(gate.aenter)
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.ensure_future(call()))
            await turns(1)
        tasks[1].cancel()
        await turns()
        assert stand.guard.bulkhead.waiting == 1
        gate.open()
        assert await asyncio.gather(tasks[0], tasks[2]) == ["fine", "fine"]
        assert tasks[1].cancelled()

    asyncio.run(main())
    assert stand.count(Outcome.ABANDONED) == 1
    assert stand.guard.bulkhead.active == 0


def test_a_waiter_whose_loop_is_gone_does_not_keep_its_slot():
    """The loop was closed with a call in line: once the call is gone its slot is free again, and waking it raises nothing."""
    stand = waiting()
    bulkhead = stand.guard.bulkhead
    stand.fill()
    loop = asyncio.new_event_loop()
    call = stand.guard(turns)(1)
    # Not as a task: the loop would complain about a task that it never ended.
    loop.call_soon(call.send, None)
    loop.run_until_complete(turns(2))
    assert bulkhead.waiting == 1
    loop.close()
    stand.free()
    assert (bulkhead.active, bulkhead.waiting) == (1, 0)
    call.close()
    assert bulkhead.active == 0


def test_the_same_limits_again_change_nothing():
    """The bulkhead at work stays the same one, with its slots."""
    stand = Stand(bulkhead=2)
    before = stand.guard.bulkhead
    stand.guard.configure(bulkhead=2)
    stand.guard.configure(timeout=5.0)
    assert stand.guard.bulkhead is before
    stand.guard.configure(bulkhead=None)
    assert stand.guard.bulkhead is None
    assert stand.guard.switch.reasons == {"timeout"}


def test_more_slots_than_anybody_waits_for_stay_free():
    """Nobody is woken who is not there."""
    stand = Stand(bulkhead=1)
    stand.guard.configure(bulkhead=4)
    assert nest(stand, 4) == "fine"
    assert stand.guard.bulkhead.active == 0
