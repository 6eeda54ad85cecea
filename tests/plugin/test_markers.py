"""The markers, used as in a service's tests."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import anyio
import pytest
import pytest_asyncio

from somaresil import CallTimedOut, CircuitBreaker, InjectedFault
from somaresil.testing import VirtualClock, VirtualLoop


class LLMError(Exception):
    """What a client raises."""


@pytest_asyncio.fixture
async def service(resilience):
    """A service whose fixtures are coroutines themselves: they share the loop of the test."""
    loop = asyncio.get_running_loop()

    @resilience.guard("llm.invoke", timeout=2.0, breaker=CircuitBreaker(minimum_calls=5))
    async def invoke():
        await asyncio.sleep(0.1)
        return "answer"

    await asyncio.sleep(1.0)
    yield invoke
    assert asyncio.get_running_loop() is loop


@pytest.mark.virtual_time
async def test_a_marked_coroutine_needs_no_other_mark(service):
    """Its fixtures have lived in virtual time as well."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    assert loop.time() == 1.0
    await asyncio.sleep(3_600)
    assert loop.time() == 3_601.0


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_both_marks_do_no_harm():
    """As pytest-asyncio's users write it."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)


@pytest.mark.asyncio
async def test_others_keep_their_loop():
    """A test without the mark notices nothing."""
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)


@pytest.mark.parametrize("seconds", [1, 1_000])
@pytest.mark.virtual_time
async def test_parameters_go_with_it(seconds):
    """Each case has a clock that starts at 0."""
    await asyncio.sleep(seconds)
    assert asyncio.get_running_loop().time() == seconds


@pytest.mark.virtual_time(patched=True)
async def test_third_parties_live_in_it_on_request():
    """time.monotonic, time.time, time.sleep and datetime.now."""
    before = time.monotonic(), time.time(), datetime.now(UTC)
    await asyncio.sleep(600)
    await asyncio.to_thread(time.sleep, 60)
    assert (time.monotonic() - before[0], time.time() - before[1]) == (660, 660)
    assert (datetime.now(UTC) - before[2]).total_seconds() == 660


@pytest.mark.virtual_time
async def test_third_parties_are_left_alone_otherwise():
    """The machine's time is not ours to change."""
    before = time.monotonic()
    await asyncio.sleep(600)
    assert time.monotonic() - before < 60


@pytest.fixture
def anyio_backend():
    """A virtual loop for anyio's own plugin."""
    return "asyncio", {"loop_factory": VirtualClock().new_loop}


@pytest.mark.anyio
async def test_anyio_can_have_it_too():
    """Its backend takes a loop factory."""
    with anyio.move_on_after(600) as scope:
        await anyio.sleep(3_600)
    assert scope.cancelled_caught
    assert asyncio.get_running_loop().time() == 600


@pytest.mark.virtual_time
@pytest.mark.chaos("llm.*", "error", start=30, duration=60, error=LLMError)
async def test_a_fault_comes_and_goes(service):
    """In its window, with the client's own error."""
    await service()
    await asyncio.sleep(30)
    with pytest.raises(LLMError):
        await service()
    await asyncio.sleep(60)
    assert await service() == "answer"


@pytest.mark.virtual_time
@pytest.mark.chaos("llm.invoke", "latency", delay=5.0, calls=2)
@pytest.mark.chaos("llm.invoke", "error", calls=(3,))
async def test_faults_add_up(service):
    """Each mark is a window of its own; calls are counted."""
    assert await service() == "answer"
    with pytest.raises(CallTimedOut):
        await service()
    with pytest.raises(InjectedFault):
        await service()
    assert await service() == "answer"


@pytest.mark.chaos("made.later", "error")
def test_a_guard_may_be_made_in_the_test(resilience):
    """The fault waits for it."""

    @resilience.guard("made.later")
    def call():
        return "answer"

    with pytest.raises(InjectedFault):
        call()


@pytest.mark.chaos("llm.invoke", "lost_reply")
def test_a_lost_reply_leaves_its_deed(resilience):
    """The callee has acted, the caller is not told."""
    rows = []

    @resilience.guard("llm.invoke")
    def write():
        rows.append("row")

    with pytest.raises(InjectedFault):
        write()
    assert rows == ["row"]


@pytest.mark.chaos("llm.stream", "stream_truncate", after_items=2)
def test_a_truncated_stream_looks_like_a_whole_one(resilience):
    """Nothing is raised: only who looks for a finish reason knows."""

    @resilience.guard("llm.stream")
    def tokens():
        yield from ["a", "b", "c", "<stop>"]

    assert list(tokens()) == ["a", "b"]


@pytest.mark.virtual_time
class TestMarkedClass:
    """A mark on a class is one on each of its tests."""

    async def test_it_is_virtual(self):
        """So is its loop."""
        assert isinstance(asyncio.get_running_loop(), VirtualLoop)

    def test_a_plain_one_too(self, resilience):
        """Its clock moves when somebody sleeps."""
        resilience.clock.sleep(100)
        assert resilience.clock.monotonic() == 100
