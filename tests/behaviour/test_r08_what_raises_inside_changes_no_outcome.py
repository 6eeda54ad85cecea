"""R8: a listener, classifier, clock or hook that raises never changes what the caller gets nor the state machine, and is reported once.

Nor does a defect of ours: every internal step is made to fail in turn.
"""

from __future__ import annotations

import asyncio
import logging

import pytest

from somaresil import Bulkhead, BulkheadFull, CircuitBreaker, CircuitOpen, Fallback, Outcome, Resilience, Retry
from somaresil.callwindow import CallWindow
from somaresil.events import BreakerChanged, CallEnded, DefectFound
from somaresil.line import Line
from somaresil.model.breaker import Breaker
from somaresil.policy.breaker import BreakerPolicy
from somaresil.recorder import Recorder
from tests.behaviour.kit import Boom, Stand, both, both_paths, one_strike


class Broken(Exception):
    """What hooks of these tests raise."""


def broken(*args, **kwargs):
    raise Broken("hook")


@both_paths
@both
def test_r08_a_raising_listener_is_dropped_and_reported_once(suspends, held, caplog):
    """The call, its records and the breaker do not notice; the other listeners still hear everything."""
    stand = Stand(held=held, breaker=one_strike(consecutive_failures=2))
    heard = []

    def listener(event):
        heard.append(event)
        raise Broken("listener")

    stand.resilience.on(listener)
    error = Boom("mine")
    assert stand.fail(suspends, error) is error
    stand.fail(suspends)
    assert stand.state == "open"
    assert len(heard) == 1
    assert len(stand.told(DefectFound)) == 1
    assert "test_r08_a_raising_listener" in stand.told(DefectFound)[0].where
    assert [record.levelno for record in caplog.records if record.name == "somaresil"] == [logging.ERROR]
    assert len(stand.told(BreakerChanged)) == 1
    assert len(stand.told(CallEnded)) == 2


@both
def test_r08_a_raising_classifier_is_reported_once_and_the_usual_judgement_holds(suspends):
    """Good stays good, bad stays bad."""
    stand = Stand(breaker=one_strike(consecutive_failures=2), classify=broken)
    assert stand.succeed(suspends) == "fine"
    assert isinstance(stand.fail(suspends), Boom)
    assert isinstance(stand.fail(suspends), Boom)
    assert stand.state == "open"
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 2)
    assert len(stand.told(DefectFound)) == 1


@pytest.mark.parametrize("answer", ["awful", 5, object()])
def test_r08_an_answer_that_is_no_outcome_is_reported_and_the_usual_judgement_holds(answer):
    """A classifier that says nonsense is one that raises."""
    stand = Stand(classify=lambda result, error: answer)
    assert stand.succeed() == "fine"
    assert stand.count(Outcome.GOOD) == 1
    assert len(stand.told(DefectFound)) == 1


@both
@pytest.mark.parametrize("hook", ["on", "wait", "stop"])
def test_r08_a_raising_retry_hook_leaves_the_callees_error_alone(suspends, hook):
    """The call is not tried again, and the caller gets its own error."""
    stand = Stand(retry=Retry(**({"attempts": 3, "on": Boom} | {hook: broken})))
    error = Boom("mine")
    for _ in range(2):
        assert stand.fail(suspends, error) is error
    assert error.__context__ is None
    assert stand.count(Outcome.BAD) == 2
    assert len(stand.told(DefectFound)) == 1


class Clock:
    """A user's clock, which may break."""

    def __init__(self) -> None:
        self.working = True
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now if self.working else broken()

    def time(self) -> float:
        return 1e9 + self.now if self.working else broken()

    def sleep(self, seconds: float) -> None:
        self.now += seconds if self.working else broken()

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def wait(self, event, timeout) -> bool:
        return event.is_set() if self.working else broken()

    async def await_(self, future, timeout) -> bool:
        return future.done() if self.working else broken()


@both_paths
@both
def test_r08_a_raising_clock_changes_no_outcome(suspends, held):
    """Its last reading stands; results, errors, records and the breaker are as they would have been. It is reported once a method."""
    clock = Clock()
    stand = Stand(held=held)
    resilience = stand.resilience = Resilience("tests", clock=clock)
    stand.guard = resilience.guard("dependency", breaker=one_strike(consecutive_failures=2))
    defects = []
    resilience.on(defects.append, DefectFound)
    assert stand.succeed(suspends) == "fine"
    clock.working = False
    assert stand.succeed(suspends) == "fine"
    assert isinstance(stand.fail(suspends), Boom)
    assert isinstance(stand.fail(suspends), Boom)
    assert stand.state == "open"
    assert isinstance(stand.fail(suspends), CircuitOpen)
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD), stand.count(Outcome.REJECTED)) == (2, 2, 1)
    assert sorted(defect.where for defect in defects) == ["clock.monotonic", "clock.time"]
    clock.working = True
    clock.now += 60.0
    assert stand.succeed(suspends) == "fine"
    assert stand.state == "closed"


@both
def test_r08_a_clock_that_cannot_sleep_does_not_end_a_retry(suspends):
    """The call is tried again at once."""
    clock = Clock()
    stand = Stand()
    stand.resilience = Resilience("tests", clock=clock)
    stand.guard = stand.resilience.guard("dependency", retry=Retry(attempts=3, wait=1.0))
    calls = []

    def second_time_lucky():
        calls.append(1)
        if len(calls) == 1:
            clock.working = False
            raise Boom("once")
        return "fine"

    assert stand.callable(second_time_lucky, suspends)() == "fine"


@both
def test_r08_a_clock_that_cannot_wait_does_not_break_the_bulkhead(suspends):
    """Who waits is rejected; nothing is lost."""
    clock = Clock()
    stand = Stand()
    stand.resilience = Resilience("tests", clock=clock)
    stand.guard = stand.resilience.guard("dependency", bulkhead=Bulkhead(1, max_waiting=1, max_wait=1.0))
    clock.working = False
    if suspends:

        async def nested():
            with pytest.raises(BulkheadFull):
                await guarded()
            return "fine"

        guarded = stand.guard(nested)
        assert asyncio.run(guarded()) == "fine"
    else:

        def nested_call():
            with pytest.raises(BulkheadFull):
                guarded_call()
            return "fine"

        guarded_call = stand.guard(nested_call)
        assert guarded_call() == "fine"
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


STEPS = {
    "model.admit": (Breaker, "admit"),
    "model.settle": (Breaker, "settle"),
    "model.cancel": (Breaker, "cancel"),
    "model.retry_after": (Breaker, "retry_after"),
    "window": (CallWindow, "_totals"),
    "restart": (BreakerPolicy, "_restart"),
    "switch": (BreakerPolicy, "_moved"),
    "events": (BreakerPolicy, "_tell"),
    "recorder.add": (Recorder, "add"),
    "recorder.settle": (Recorder, "settle"),
    "recorder.quiet": (Recorder, "quiet_counts"),
}


@both_paths
@both
@pytest.mark.parametrize("rescue", [{}, {"retry": Retry(attempts=2, on=Boom, wait=0.0)}], ids=["plain", "retry"])
@pytest.mark.parametrize("step", STEPS)
def test_r08_a_defect_of_ours_never_reaches_the_caller(step, rescue, suspends, held, monkeypatch):
    """Whatever step of ours raises: results come back, errors are the callee's own, and the defect is reported."""
    slow = {"slow_call_rate": 0.5, "slow_call_duration": 1.0}
    stand = Stand(held=held, breaker=one_strike(consecutive_failures=3, **slow), **rescue)
    owner, name = STEPS[step]
    monkeypatch.setattr(owner, name, broken)

    def slowly():
        stand.clock.advance(2.0)
        return "slow"

    error = Boom("mine")
    for _ in range(3):
        assert stand.succeed(suspends) == "fine"
        assert stand.callable(slowly, suspends)() == "slow"
        assert stand.fail(suspends, error) is error
        assert type(stand.fail(suspends, KeyboardInterrupt())) is KeyboardInterrupt or suspends
        stand.clock.advance(7.0)


@both
def test_r08_a_defect_while_the_circuit_is_open_does_not_let_calls_through_nor_change_the_error(suspends, monkeypatch):
    """Booking a rejection fails: the caller still gets the rejection."""
    stand = Stand(breaker=CircuitBreaker())
    stand.resilience.breaker("dependency").force_open()
    monkeypatch.setattr(Recorder, "add", broken)
    monkeypatch.setattr(Recorder, "settle", broken)
    assert isinstance(stand.fail(suspends), CircuitOpen)


@both
def test_r08_a_good_call_that_cannot_be_counted_is_still_a_good_call(suspends, monkeypatch):
    """The first quiet call settles the books; when that fails, the caller has its result."""
    stand = Stand(breaker=CircuitBreaker())
    monkeypatch.setattr(Recorder, "count_quiet", broken)
    assert stand.succeed(suspends) == "fine"
    assert len(stand.told(DefectFound)) == 1


@both_paths
def test_r08_a_defect_at_the_end_of_a_stream_does_not_reach_its_reader(held, monkeypatch):
    """Whoever waits for the end of a lasting call may fail: the others are told, the reader has its items, and it is reported."""
    monkeypatch.setattr(Line, "leave", broken)
    stand = Stand(held=held, bulkhead=2, breaker=one_strike())

    @stand.guard
    def stream():
        yield 1
        raise Boom

    reading = stream()
    assert next(reading) == 1
    with pytest.raises(Boom):
        next(reading)
    assert stand.state == "open"
    assert len(stand.told(DefectFound)) == 1


@both_paths
@both
def test_r08_a_fallback_that_raises_is_the_callers_to_see(suspends, held):
    """A fallback is part of the call, not a hook: its error is the end of the call, with the first error as context."""
    stand = Stand(held=held, fallback=Fallback(broken, on=Boom))
    first = Boom("first")
    last = stand.fail(suspends, first)
    assert isinstance(last, Broken)
    assert last.__context__ is first
    assert stand.count(Outcome.BAD) == 1
