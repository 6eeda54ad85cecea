"""Deadlines: what is not begun any more, what is cut off, who is blamed, and how they travel."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import CallTimedOut, ConfigurationError, DeadlineExceeded, Outcome, Resilience, Retry, Timeout
from somaresil.deadline import HEADER, LONGEST, header_value, time_left, time_of
from somaresil.events import CallEnded, RetryDenied
from somaresil.testing import VirtualClock, VirtualLoop
from tests.behaviour.kit import PATIENCE, Boom, Stand, both, both_paths, one_strike


def run(main):
    """Run in virtual time; give what came of it and how long it took."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        result = runner.run(main(Resilience("tests", clock=clock, seed=1)))
    return result, clock.monotonic()


# -- what is begun --------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_nothing_is_begun_after_it(suspends, held):
    """The call is refused before anything is done, counted as rejected, and no fallback answers."""
    stand = Stand(held=held, breaker=one_strike(), fallback=lambda: "lesser")
    calls = []
    guarded = stand.callable(lambda: calls.append(1), suspends)
    with stand.resilience.deadline(5.0):
        stand.clock.advance(5.0)
        with pytest.raises(DeadlineExceeded, match="it passed 0 s before the call"):
            guarded()
    assert calls == []
    assert (stand.count(Outcome.REJECTED), stand.count(), stand.state) == (1, 1, "closed")
    assert [event.outcome for event in stand.told(CallEnded)] == ["rejected"]


@both_paths
@both
def test_what_begins_before_it_may_end_after_it(suspends, held):
    """A plain function is not interrupted, and its answer counts."""
    stand = Stand(held=held)
    guarded = stand.callable(lambda: stand.clock.advance(9.0) or "late", suspends)
    with stand.resilience.deadline(5.0):
        assert guarded() == "late"
    assert stand.count(Outcome.GOOD) == 1


def test_streams_and_blocks_are_refused_as_well():
    """Whatever shape the call has."""
    stand = Stand()
    items = stand.guard(lambda: iter("ab"))
    with stand.resilience.deadline(0.0):
        with pytest.raises(DeadlineExceeded):
            list(stand.guard(_letters)())
        with pytest.raises(DeadlineExceeded), stand.guard:
            raise AssertionError
        with pytest.raises(DeadlineExceeded):
            items()


def _letters():
    yield "a"


@both
def test_no_pause_is_begun_that_it_would_not_outlast(suspends):
    """The error of the dependency is raised at once, and the event says why it was not tried again."""
    stand = Stand(retry=Retry(attempts=5, wait=2.0, on=Boom))
    with stand.resilience.deadline(5.0):
        before = stand.clock.monotonic()
        assert isinstance(stand.fail(suspends), Boom)
        assert stand.clock.monotonic() - before == 4.0
    assert [(event.attempt, event.reason) for event in stand.told(RetryDenied)] == [(3, "deadline")]


def test_a_thread_that_may_be_left_behind_is_left_then():
    """The limit is the shorter of the two, and the error says which it was."""
    stand = Stand(timeout=Timeout(60.0, abandon=True))
    release = threading.Event()
    waited = []
    stand.clock.wait = lambda event, timeout: waited.append(timeout) or event.wait(0.0)
    with stand.resilience.deadline(5.0), pytest.raises(CallTimedOut, match="cut off by a deadline after 5 s") as raised:
        stand.guard.call(release.wait, PATIENCE)
    release.set()
    assert (raised.value.phase, waited) == ("deadline", [5.0])


# -- what is cut off ------------------------------------------------------------------------------------------------------------------


def test_its_body_is_cancelled_when_it_passes():
    """At that moment, and what comes out is a CallTimedOut."""

    async def main(resilience):
        with pytest.raises(CallTimedOut) as raised:
            async with resilience.deadline(timedelta(seconds=5), name="turn"):
                await asyncio.sleep(60.0)
        assert asyncio.current_task().cancelling() == 0
        return raised.value

    late, seconds = run(main)
    assert (late.guard, late.limit, late.phase, seconds) == ("turn", 5.0, "deadline", 5.0)


def test_a_cancellation_by_somebody_else_stays_one():
    """Also when it comes in the moment in which the deadline passes."""

    async def main(resilience):
        async def body():
            async with resilience.deadline(5.0):
                await asyncio.sleep(60.0)

        task = asyncio.ensure_future(body())
        await asyncio.sleep(5.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


@pytest.mark.parametrize(("before", "outcome"), [(0.0, Outcome.BAD), (2.0, Outcome.BAD), (3.0, Outcome.ABANDONED)])
@pytest.mark.parametrize("held", [False, True], ids=["quiet", "full"])
def test_a_call_is_to_blame_when_it_had_half_of_the_time(before, outcome, held):
    """What came late and got the rest is abandoned: of five seconds a call needs two and a half to be the one that was slow."""

    async def main(resilience):
        guard = resilience.guard("dependency", breaker=one_strike())
        if held:
            guard.switch.hold("test")

        @guard
        async def hangs():
            await asyncio.sleep(60.0)

        with pytest.raises(CallTimedOut):
            async with resilience.deadline(5.0):
                await asyncio.sleep(before)
                await hangs()
        return guard.recorder.counts().total(outcome), guard.breaker.state.value

    assert run(main)[0] == (1, "open" if outcome is Outcome.BAD else "closed")


@pytest.mark.parametrize(("spent", "outcome"), [(2.0, Outcome.ABANDONED), (5.0, Outcome.BAD)])
def test_a_refusal_further_in_is_judged_by_who_used_up_the_time(spent, outcome):
    """The guard around it is bad when the time went by in it, and has abandoned the call when it came late itself."""
    stand = Stand()
    inner = stand.resilience.guard("inner")

    def work():
        stand.clock.advance(spent)
        inner.call(int)

    with stand.resilience.deadline(5.0):
        stand.clock.advance(5.0 - spent)
        with pytest.raises(DeadlineExceeded):
            stand.guard.call(work)
    assert stand.count(outcome) == stand.count() == 1


def test_it_is_one_timer_whatever_is_called_in_it():
    """Guards inside add none: the timers of a loop do not grow with the calls."""

    async def main(resilience):
        guarded = resilience.guard("dependency")(asyncio.sleep)
        async with resilience.deadline(5.0):
            before = len(asyncio.get_running_loop()._scheduled)
            for _ in range(20):
                await guarded(0)
            return len(asyncio.get_running_loop()._scheduled) - before

    assert run(main)[0] == 0


# -- where it is seen -----------------------------------------------------------------------------------------------------------------


@given(outer=st.floats(0.0, 100.0), inner=st.floats(0.0, 100.0))
def test_a_deadline_inside_ends_with_the_outer_one_at_the_latest(outer, inner):
    """And when the inner one is left, the outer one is there again."""
    stand = Stand()
    with stand.resilience.deadline(outer):
        with stand.resilience.deadline(inner):
            assert time_left() == pytest.approx(min(outer, inner), abs=1e-6)
        assert time_left() == pytest.approx(outer, abs=1e-6)
    assert time_left() is None


def test_tasks_and_threads_with_the_context_see_it():
    """As a task, by asyncio.to_thread, and by a copy of the context; not in a bare thread."""

    async def main(resilience):
        async with resilience.deadline(5.0):
            inherited = await asyncio.create_task(_time_left())
            in_thread = await asyncio.to_thread(time_left)
            copied = await asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, time_left)
            bare = await asyncio.get_running_loop().run_in_executor(None, time_left)
        return inherited, in_thread, copied, bare

    assert run(main)[0] == (5.0, 5.0, 5.0, None)


async def _time_left():
    return time_left()


def test_work_that_outlives_the_request_can_say_so():
    """With no seconds there is no deadline."""
    stand = Stand()
    with stand.resilience.deadline(5.0), stand.resilience.deadline(None):
        assert time_left() is None


def test_a_scope_is_entered_once():
    """A second time would forget what was outside."""
    scope = Stand().resilience.deadline(5.0)
    with scope, pytest.raises(RuntimeError, match="entered once"), scope:
        pass


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", True, LONGEST + 1])
def test_what_is_no_duration_is_refused(seconds):
    """With the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=r"deadline\.seconds"):
        Stand().resilience.deadline(seconds)


# -- how it travels -------------------------------------------------------------------------------------------------------------------


def test_what_is_left_goes_along_in_milliseconds():
    """Nothing without a deadline, and never 0."""
    stand = Stand()
    assert header_value() is None
    with stand.resilience.deadline(1.5):
        assert header_value() == "1500"
        stand.clock.advance(2.0)
        assert header_value() == "1"


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        (HEADER, "1500", 1.5),
        (HEADER, " 0 ", 0.0),
        (HEADER, "999999999999", LONGEST),
        ("x-envoy-expected-rq-timeout-ms", "250", 0.25),
        ("grpc-timeout", "2H", 7_200.0),
        ("grpc-timeout", "3M", 180.0),
        ("grpc-timeout", "4S", 4.0),
        ("grpc-timeout", "100m", 0.1),
        ("grpc-timeout", "5000u", 0.005),
        ("grpc-timeout", "99999999n", 0.099999999),
    ],
)
def test_headers_are_read(name, value, seconds):
    """Milliseconds, or gRPC's number and unit; at most a day."""
    assert time_of(name, value) == pytest.approx(seconds)


@given(name=st.sampled_from([HEADER, "grpc-timeout"]), value=st.text(max_size=20) | st.from_regex(r"[0-9]{0,14}[A-Za-z.]?", fullmatch=True))
def test_whatever_a_header_says_is_seconds_or_a_value_error(name, value):
    """Nothing else comes out, and no number is negative or longer than a day."""
    try:
        seconds = time_of(name, value)
    except ValueError:
        return
    assert 0.0 <= seconds <= LONGEST
