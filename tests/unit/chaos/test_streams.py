"""Streams that start late, stall, drip, are throttled, torn or never say that they are finished; in threads and in tasks."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

from somaresil import ChaosConfig, ChaosPlan, FaultWindow, InjectedFault
from somaresil.chaos import Uniform
from tests.behaviour.kit import both


def arm(stand, kind, **options):
    return stand.chaos.arm(ChaosConfig(kind, "llm.invoke", options.pop("rate", 1.0), options.pop("duration", 600.0), **options))


def read(stand, items, suspends, *, tick=0.0, then=lambda: None):
    """Read a guarded stream: the items, when each came, and how it ended. ``then`` is called after each item."""
    began, found = stand.clock.monotonic(), []

    def note(item):
        found.append((round(stand.clock.monotonic() - began, 6), item))
        then()

    @stand.resilience.guard("llm.invoke")
    def stream():
        for item in items:
            stand.clock.advance(tick)
            yield item

    @stand.resilience.guard("llm.invoke")
    async def astream():
        for item in items:
            stand.clock.advance(tick)
            yield item

    async def consume():
        async for item in astream():
            note(item)

    try:
        if suspends:
            asyncio.run(consume())
        else:
            for item in stream():
                note(item)
    except InjectedFault as cut:
        return found, cut
    return found, None


def times(found):
    return [at for at, _ in found]


@both
def test_a_slow_start_holds_the_first_item_back_and_no_other(stand, suspends):
    """And counts as one strike."""
    run = arm(stand, "stream_slow_start", delay_seconds=3)
    found, error = read(stand, "abc", suspends)
    assert (times(found), error, run.injected) == ([3.0, 3.0, 3.0], None, 1)


@both
def test_a_stall_comes_after_so_many_items(stand, suspends):
    """Once; a stream that is shorter is not struck."""
    run = arm(stand, "stream_stall", delay_seconds=5, after_items=2)
    assert times(read(stand, "abcd", suspends)[0]) == [0.0, 0.0, 5.0, 5.0]
    assert times(read(stand, "ab", suspends)[0]) == [0.0, 0.0]
    assert run.injected == 1


@both
def test_a_drip_waits_before_each_item_but_the_first(stand, suspends):
    """Each wait is drawn for itself."""
    arm(stand, "stream_drip", delay_seconds=0.5)
    assert times(read(stand, "abc", suspends)[0]) == [0.0, 0.5, 1.0]
    stand.chaos.stop_all()
    arm(stand, "stream_drip", delay_seconds=Uniform(0.1, 0.9))
    gaps = [late - early for early, late in pairwise(times(read(stand, "abcd", suspends)[0]))]
    assert len(set(gaps)) == 3
    assert all(0.1 <= gap <= 0.9 for gap in gaps)


@both
def test_a_throttle_lets_so_many_items_through_in_a_second(stand, suspends):
    """And a source that is slow itself is not struck at all."""
    run = arm(stand, "stream_throttle", items_per_second=2)
    assert times(read(stand, "abcd", suspends)[0]) == [0.0, 0.5, 1.0, 1.5]
    assert run.injected == 1
    read(stand, "abcd", suspends, tick=1.0)
    assert run.injected == 1


@both
def test_a_throttle_counts_bytes_of_text(stand, suspends):
    """Each item takes the time of those before it; what is no text takes none."""
    arm(stand, "stream_throttle", bytes_per_second=10)
    assert times(read(stand, ["x" * 20, b"y" * 10, "z"], suspends)[0]) == [0.0, 2.0, 3.0]
    assert times(read(stand, [1, 2, 3], suspends)[0]) == [0.0, 0.0, 0.0]


@both
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_tear_gives_half_of_an_item_and_breaks_off(stand, suspends, after):
    """What has no half is left out."""
    run = arm(stand, "stream_tear", after_items=after)
    found, error = read(stand, ["abcd", "efgh", "ijkl"], suspends)
    whole = ["abcd", "efgh", "ijkl"]
    assert [item for _, item in found] == [*whole[:after], whole[after][:2]]
    assert isinstance(error, InjectedFault)
    assert run.injected == 1
    found, error = read(stand, [1, 2, 3], suspends)
    assert ([item for _, item in found], isinstance(error, InjectedFault)) == ([1, 2, 3][:after], True)


@both
def test_when_it_is_stopped_a_stream_goes_on_as_it_was(stand, suspends):
    """From the next item on."""
    run = arm(stand, "stream_drip", delay_seconds=1)
    found, _ = read(stand, "abcdef", suspends, then=lambda: stand.clock.monotonic() - 1_000_000.0 >= 2 and run.end())
    assert times(found) == [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]


@both
def test_a_hold_lasts_as_long_as_the_lease_at_most(stand, suspends):
    """And nothing is done after that."""
    run = arm(stand, "stream_drip", delay_seconds=20, duration=30)
    assert times(read(stand, "abcd", suspends)[0]) == [0.0, 20.0, 30.0, 30.0]
    assert (run.over, run.end_reason) == (True, "expired")


@both
def test_a_stream_that_was_struck_last_of_all_is_finished_as_it_was_begun(stand, suspends):
    """The next one is left alone."""
    run = arm(stand, "stream_drip", delay_seconds=1, max_injections=1)
    assert times(read(stand, "abc", suspends)[0]) == [0.0, 1.0, 2.0]
    assert times(read(stand, "abc", suspends)[0]) == [0.0, 0.0, 0.0]
    assert run.end_reason == "used up"


def chunk(text, finish=None):
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


@both
def test_a_stream_may_never_say_that_it_is_finished(stand, suspends):
    """Everything is there but that; what says nothing else is left out, also when it comes first."""
    run = arm(stand, "stream_unfinished")
    found, error = read(stand, [chunk("a"), chunk("b", "stop")], suspends)
    assert ([item for _, item in found], error) == ([chunk("a"), chunk("b")], None)
    found, _ = read(stand, [{"type": "message_stop"}, b'data: {"x": 1}\n\n', b"data: [DONE]\n\n"], suspends)
    assert [item for _, item in found] == [b'data: {"x": 1}\n\n']
    assert run.injected == 2
    assert read(stand, [{"type": "message_stop"}], suspends) == ([], None)
    assert read(stand, [chunk("a"), 5], suspends)[0] == [(0.0, chunk("a")), (0.0, 5)]
    assert run.injected == 3


@both
def test_items_are_damaged_one_by_one_and_alike_in_every_run(stand, suspends):
    """By a draw of each item's own; a stream is one strike."""
    items = [json.dumps({"a": number, "b": "text"}) for number in range(1, 9)]
    run = arm(stand, "corrupt_result")
    found = [item for _, item in read(stand, items, suspends)[0]]
    assert all(before != after for before, after in zip(items, found, strict=True))
    assert run.injected == 1
    stand.chaos.stop_all()
    again = stand.chaos.arm_plan(PLAN).runs[0]
    first = read(stand, items, suspends)
    again.end()
    stand.chaos.arm_plan(PLAN)
    assert [item for _, item in read(stand, items, suspends)[0]] == [item for _, item in first[0]]


PLAN = ChaosPlan([FaultWindow("llm.invoke", "corrupt_result", 0, 60)], seed=5)


@both
def test_a_reader_that_leaves_a_stream_that_is_held_leaves_nothing_behind(stand, suspends):
    """The source is closed, and nobody is delayed any more."""
    run = arm(stand, "stream_drip", delay_seconds=1)
    closed = []

    @stand.resilience.guard("llm.invoke")
    def stream():
        try:
            yield from "abc"
        finally:
            closed.append(True)

    @stand.resilience.guard("llm.invoke")
    async def astream():
        try:
            for item in "abc":
                yield item
        finally:
            closed.append(True)

    async def leave():
        source = astream()
        await anext(source)
        await source.aclose()

    if suspends:
        asyncio.run(leave())
    else:
        source = stream()
        next(source)
        source.close()
    assert (closed, run.delaying) == ([True], 0)
