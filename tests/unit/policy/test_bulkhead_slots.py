"""The bulkhead: one capacity, a line in order of arrival, no slot ever lost."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import Bulkhead, BulkheadFull, Outcome, Resilience
from tests.behaviour.kit import PATIENCE, Gate, Stand, both_paths, together, turns


def real(**options) -> Resilience:
    """A process on the clock of the machine."""
    return Resilience("tests", **options)


def test_without_a_line_a_full_bulkhead_rejects_at_once():
    """The rejection says how many run and wait."""
    stand = Stand(bulkhead=2)
    with stand.guard, stand.guard:
        with pytest.raises(BulkheadFull) as raised:
            stand.succeed()
        assert stand.guard.bulkhead.active == 2
    assert raised.value.detail == "2 calls running, 0 waiting"
    assert raised.value.retry_after is None
    assert stand.count(Outcome.REJECTED) == 1
    assert stand.succeed() == "fine"


def test_waiting_tasks_are_served_in_the_order_of_arrival():
    """First come, first served; beyond the line calls are rejected."""
    guard = real().guard("dependency", bulkhead=Bulkhead(1, max_waiting=3, max_wait=60.0))
    gates = [Gate() for _ in range(4)]
    order = []

    @guard
    async def work(number):
        order.append(number)
        await gates[number].aenter()

    async def main():
        tasks = []
        for number in range(4):
            tasks.append(asyncio.ensure_future(work(number)))
            await turns()
        assert (guard.bulkhead.active, guard.bulkhead.waiting) == (1, 3)
        with pytest.raises(BulkheadFull, match="1 calls running, 3 waiting"):
            await work(4)
        for gate in gates:
            gate.open()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == [0, 1, 2, 3]
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)


def test_threads_and_tasks_stand_in_one_line():
    """A thread that leaves serves a task of a loop, and a task serves a thread."""
    guard = real().guard("dependency", bulkhead=Bulkhead(1, max_waiting=2, max_wait=60.0))
    gate, order = Gate(), []
    first = threading.Thread(target=guard(gate.enter), daemon=True)
    first.start()
    gate.await_inside(1)
    second = threading.Thread(target=guard(lambda: order.append("thread")), daemon=True)
    second.start()

    @guard
    async def task():
        order.append("task")

    async def main():
        while guard.bulkhead.waiting < 1:
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(task())
        while guard.bulkhead.waiting < 2:
            await asyncio.sleep(0)
        gate.open()
        await waiting

    asyncio.run(main())
    for thread in (first, second):
        thread.join(PATIENCE)
    assert order == ["thread", "task"]
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)


def test_a_waiter_whose_loop_is_closed_is_not_woken():
    """Waking somebody who is gone is no error."""
    from somaresil.clock import SystemClock
    from somaresil.runtime import Asyncio

    async def main():
        return Asyncio(SystemClock()).waiter()

    asyncio.run(main()).wake()


def test_no_slot_is_lost_under_threads():
    """Eight threads through three slots, five hundred times: never more than three inside, and all slots free at the end."""
    guard = real().guard("dependency", bulkhead=Bulkhead(3, max_waiting=8, max_wait=60.0))
    inside, most, lock = 0, 0, threading.Lock()

    @guard
    def work():
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    def many(_):
        for _ in range(60):
            work()

    assert together(8, many) == [None] * 8
    assert most <= 3
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)
    assert guard.recorder.counts().total(Outcome.GOOD) == 480


def test_a_thread_whose_wait_is_over_is_rejected():
    """It says how long it waited."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=2.5))
    with stand.guard, pytest.raises(BulkheadFull, match=r"no slot within 2\.5 s"):
        stand.succeed()
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


def test_a_slot_that_is_granted_in_the_last_moment_is_taken():
    """The wait is over and the slot was granted before the waiter left the line: it is served, not rejected."""
    stand = Stand(bulkhead=Bulkhead(1, max_waiting=1, max_wait=2.0))
    stand.fill()

    def late(event, timeout):
        stand.free()
        return False

    stand.resilience.clock.wait = late
    assert stand.succeed() == "fine"
    assert stand.guard.bulkhead.active == 0


def test_a_larger_bulkhead_serves_those_who_wait():
    """At once, and no more than there is room for."""
    guard = real().guard("dependency", bulkhead=Bulkhead(1, max_waiting=5, max_wait=60.0))
    gate = Gate()
    work = guard(gate.aenter)

    async def main():
        tasks = [asyncio.ensure_future(work()) for _ in range(5)]
        await turns()
        assert gate.inside == 1
        guard.configure(bulkhead=Bulkhead(3, max_waiting=5, max_wait=60.0))
        while gate.inside < 3:
            await asyncio.sleep(0)
        await turns()
        assert (guard.bulkhead.active, guard.bulkhead.waiting) == (3, 2)
        gate.open()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)


def test_a_smaller_bulkhead_lets_those_inside_finish():
    """Slots above the new limit are not handed on; afterwards it holds as many as it should."""
    stand = Stand(bulkhead=Bulkhead(3, max_waiting=2, max_wait=60.0))
    bulkhead = stand.guard.bulkhead
    with stand.guard:
        with stand.guard:
            with stand.guard:
                stand.guard.configure(bulkhead=Bulkhead(1))
                assert bulkhead.active == 3
            assert bulkhead.active == 2
            with pytest.raises(BulkheadFull):
                stand.succeed()
        assert bulkhead.active == 1
        with pytest.raises(BulkheadFull):
            stand.succeed()
    assert stand.succeed() == "fine"


def test_a_smaller_bulkhead_hands_slots_on_only_below_its_limit():
    """Those who wait are served once enough have left."""
    guard = real().guard("dependency", bulkhead=Bulkhead(2, max_waiting=2, max_wait=60.0))
    gates = [Gate() for _ in range(3)]
    order = []

    @guard
    async def work(number):
        order.append(number)
        await gates[number].aenter()

    async def main():
        tasks = [asyncio.ensure_future(work(number)) for number in range(3)]
        await turns()
        guard.configure(bulkhead=Bulkhead(1, max_waiting=2, max_wait=60.0))
        gates[0].open()
        await turns()
        assert order == [0, 1]
        assert guard.bulkhead.waiting == 1
        gates[1].open()
        await turns()
        while 2 not in order:
            await asyncio.sleep(0)
        gates[2].open()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)


@both_paths
def test_a_rescued_call_needs_no_slot_for_what_it_has_done_already(held):
    """A call that failed before the bulkhead was given is not rejected for its first attempt."""
    stand = Stand(held=held, fallback=lambda: "instead")

    @stand.guard
    def fails():
        stand.guard.configure(bulkhead=1)
        stand.fill()
        raise ValueError

    from somaresil.events import FallbackUsed

    assert fails() == "instead"
    assert [event.error for event in stand.told(FallbackUsed)] == ["ValueError"]


@given(
    size=st.integers(1, 3),
    steps=st.lists(st.sampled_from(["come", "leave", "cancel", "grow", "shrink"]), max_size=30),
)
def test_slots_and_line_agree_with_a_plain_count(size, steps):
    """After any arrivals, departures, cancellations and changes of size: nobody waits while there is room, and nothing is lost."""
    guard = real().guard("dependency", bulkhead=Bulkhead(size, max_waiting=100, max_wait=60.0))

    async def main(limit):
        tasks, gates = [], {}

        async def inner(gate):
            gates[gate] = asyncio.current_task()
            while not gate.is_set():
                await asyncio.sleep(0)

        work = guard(inner)
        gates_open = []
        for step in steps:
            inside = [gate for gate, task in gates.items() if not task.done()]
            waiting = [task for task in tasks if not task.done() and task not in gates.values()]
            if step == "come":
                gates_open.append(asyncio.Event())
                tasks.append(asyncio.ensure_future(work(gates_open[-1])))
            elif step == "leave" and inside:
                inside[0].set()
            elif step == "cancel" and waiting:
                waiting[0].cancel()
            elif step in {"grow", "shrink"}:
                limit = max(1, limit + (1 if step == "grow" else -1))
                guard.configure(bulkhead=Bulkhead(limit, max_waiting=100, max_wait=60.0))
            await turns(6)
            running = sum(not task.done() for task in gates.values())
            left = [task for task in tasks if not task.done() and task not in gates.values()]
            assert guard.bulkhead.active == running
            assert guard.bulkhead.waiting == len(left)
            assert running >= limit or not left
        for gate in gates_open:
            gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main(size))
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)
