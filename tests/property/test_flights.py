"""Shared calls: whoever comes, leaves or fails when, each caller has one end, and there is one call at a time for the same question."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from somaresil import Outcome
from tests.unit.policy.hedging import Timed


class Oops(Exception):
    """What calls fail with."""


@dataclass(frozen=True)
class Caller:
    """When it comes, what it asks for, when it is cancelled, and how long its own call would take and whether that would fail."""

    comes: float
    asks: str
    leaves: float | None
    lasts: float
    fails: bool


moments = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.25, 2.0])
callers = st.builds(
    Caller, comes=moments, asks=st.sampled_from("ab"), leaves=st.none() | st.none() | moments, lasts=moments, fails=st.booleans()
)


@settings(max_examples=120)
@given(st.lists(callers, min_size=1, max_size=8))
@example([Caller(0.0, "a", 1.0, 2.0, False), Caller(0.0, "a", 1.0, 2.0, False), Caller(0.5, "a", None, 1.0, True)])
def test_each_has_one_end_and_nobody_calls_beside_another(given_callers):
    """The end of a call is that of everybody who waited for it; a cancellation is that of one alone."""
    stand = Timed(single_flight=lambda caller, number: caller.asks, bulkhead=100)
    running: Counter[str] = Counter()
    made: list[tuple[str, float, Any]] = []
    """Question, time of the end, and how each call ended."""

    @stand.guard
    async def call(caller, number):
        loop = asyncio.get_running_loop()
        running[caller.asks] += 1
        assert running[caller.asks] == 1, "two at a time"
        end: Any = "left"
        try:
            await asyncio.sleep(caller.lasts)
            end = Oops(number) if caller.fails else number
            if caller.fails:
                raise end
            return number
        finally:
            running[caller.asks] -= 1
            made.append((caller.asks, loop.time(), end))

    async def one(caller, number):
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        await asyncio.sleep(caller.comes)
        timer = None if caller.leaves is None else loop.call_later(caller.leaves, task.cancel)
        try:
            end = await call(caller, number)
        except (Oops, asyncio.CancelledError) as error:
            end = error
        if timer is not None:
            timer.cancel()
        return end, loop.time(), task.cancelling()

    async def main():
        return await asyncio.gather(*(one(caller, number) for number, caller in enumerate(given_callers)))

    ends = stand.run(main())[0]
    for caller, (end, at, cancelling) in zip(given_callers, ends, strict=True):
        if isinstance(end, asyncio.CancelledError):
            assert caller.leaves is not None
            assert (at, cancelling) == (caller.comes + caller.leaves, 1)
            continue
        found = [how for asked, when, how in made if (asked, when) == (caller.asks, at)]
        if isinstance(end, Oops):
            assert end.args in [how.args for how in found if isinstance(how, Oops)]
        else:
            assert end in found
    failures = [end for end, _, _ in ends if isinstance(end, Oops)]
    assert len({id(error) for error in failures}) == len(failures)
    assert len(made) <= len(given_callers)
    assert stand.guard.single_flight._flights == {}
    assert stand.guard.bulkhead.active == 0
    assert stand.left == set()
    assert stand.count() == len(given_callers)
    assert stand.count(Outcome.ABANDONED) == sum(isinstance(end, asyncio.CancelledError) for end, _, _ in ends)
