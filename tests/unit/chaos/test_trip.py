"""Opening circuits on purpose: what is rejected says so, recovery is the ordinary one, and people are not overruled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import ChaosConfig, CircuitBreaker, CircuitOpen, Outcome
from somaresil.events import BreakerChanged, FaultInjected, IncidentClosed, IncidentOpened
from somaresil.model.breaker import IllegalTransition, State
from tests.behaviour.kit import Stand
from tests.unit.chaos.kit import LATENCY, TRIP, breaker


@pytest.fixture
def guard(stand):
    """A guard with a breaker that opens at two failures in a row."""
    return stand.resilience.guard("memory", breaker=breaker())


def trip(stand, target="memory", seconds=30.0):
    return asyncio.run(stand.chaos.trip_circuit_breaker(target, seconds))


def rejected(guard):
    with pytest.raises(CircuitOpen) as caught:
        guard.call(pytest.fail)
    return caught.value


def fail(guard, times=2):
    for _ in range(times):
        with pytest.raises(LookupError):
            guard.call(_raise)


def _raise():
    raise LookupError


def test_a_tripped_circuit_rejects_and_says_why(stand, guard):
    """The rejection is marked, and its cell, event and incident are."""
    run = trip(stand)
    rejection = rejected(guard)
    assert rejection.injected
    assert rejection.retry_after == 30.0
    assert "caused by a chaos experiment" in str(rejection)
    assert guard.recorder.counts().total(Outcome.REJECTED, injected=True) == 1
    assert guard.recorder.counts().total(injected=False) == 0
    assert run.injected == 1
    assert [event.injected for event in stand.told(BreakerChanged)] == [True]
    assert [event.injected for event in stand.told(IncidentOpened)] == [True]
    assert [event.fault for event in stand.told(FaultInjected)] == ["circuit_trip"]


def test_the_rate_of_a_trip_does_not_matter(stand, guard):
    """The shy default would otherwise decide whether anything happens at all."""
    stand.chaos.arm(ChaosConfig(TRIP, "memory"))
    assert rejected(guard).injected


def test_recovery_is_the_ordinary_one(stand, guard):
    """After the lease the next call is a probe, and a good one closes the circuit."""
    run = trip(stand)
    stand.clock.advance(29.9)
    rejected(guard)
    stand.clock.advance(0.1)
    assert guard.call(lambda: "answer") == "answer"
    assert guard.breaker.state is State.CLOSED
    assert guard.switch.quiet
    (incident,) = stand.told(IncidentClosed)
    assert (incident.duration, incident.injected, incident.recovered) == (pytest.approx(30.0), True, True)
    assert not run.live


def test_a_dependency_that_is_really_down_then_is_no_experiment(stand, guard):
    """The probe fails by itself: what is rejected from then on is not injected."""
    trip(stand)
    stand.clock.advance(30.0)
    fail(guard, 1)
    assert not rejected(guard).injected


@pytest.mark.parametrize("stop", ["stop", "stop_all"])
def test_stopping_releases_at_once(stand, guard, stop):
    """The next call is a probe."""
    run = trip(stand)
    rejected(guard)
    stand.chaos.stop(run) if stop == "stop" else stand.chaos.stop_all()
    assert guard.call(lambda: "answer") == "answer"
    assert guard.breaker.state is State.CLOSED


def test_stopping_from_another_thread_releases_too(stand, guard):
    """The thread of the calls need not do anything."""
    trip(stand)
    thread = threading.Thread(target=stand.chaos.stop_all)
    thread.start()
    thread.join()
    assert guard.call(lambda: "answer") == "answer"


def test_stopping_late_does_not_touch_a_later_opening(stand, guard):
    """The circuit has been closed and has opened for a reason since."""
    run = trip(stand, seconds=60.0)
    stand.resilience.breaker("memory").reset()
    fail(guard)
    rejected(guard)
    stand.chaos.stop(run)
    assert not rejected(guard).injected


@pytest.mark.parametrize(
    ("control", "state"), [("force_open", State.FORCED_OPEN), ("disable", State.DISABLED), ("observe", State.METRICS_ONLY)]
)
def test_an_operator_is_not_overruled(stand, guard, control, state):
    """Before the experiment or during it: what people have set stays, also when it is stopped."""
    getattr(stand.resilience.breaker("memory"), control)()
    run = trip(stand)
    assert guard.breaker.state is state
    assert run.injected == 0
    stand.chaos.stop(run)
    assert guard.breaker.state is state
    stand.resilience.breaker("memory").reset()
    run = trip(stand)
    getattr(stand.resilience.breaker("memory"), control)()
    stand.chaos.stop(run)
    assert guard.breaker.state is state


def test_an_operator_who_is_quicker_wins(stand, guard, monkeypatch):
    """Between the look at the state and the trip."""

    def quicker(self, *args, **options):
        raise IllegalTransition(State.DISABLED, "trip")

    monkeypatch.setattr(type(guard.breaker), "trip", quicker)
    run = trip(stand)
    assert run.injected == 0
    assert guard.call(lambda: "answer") == "answer"


def test_a_circuit_that_is_open_by_itself_is_left_alone(stand, guard):
    """An outage is not an experiment: its rejections are not marked, it is not prolonged, and stopping does not end it."""
    fail(guard)
    run = trip(stand)
    rejection = rejected(guard)
    assert (rejection.injected, rejection.retry_after) == (False, 10.0)
    assert run.injected == 0
    stand.chaos.stop(run)
    rejected(guard)
    stand.clock.advance(10.0)
    assert guard.call(lambda: "answer") == "answer"


def test_every_breaker_that_matches_is_opened(stand, guard):
    """Guards without one are left alone, guards made later are opened for what is left of the lease."""
    run = trip(stand, "*")
    stand.clock.advance(10.0)
    late = stand.resilience.guard("late", breaker=breaker())
    assert rejected(guard).retry_after == 20.0
    assert rejected(late).retry_after == 20.0
    assert stand.struck() == [False]
    assert stand.guard.switch.quiet
    assert run.injected == 2
    stand.chaos.stop_all()
    assert late.call(lambda: "answer") == "answer"


def test_a_stopped_trip_opens_nothing_more(stand, guard):
    """Not even a guard that is made in the same moment."""
    stand.resilience.on(lambda event: stand.chaos.stop_all(), FaultInjected)
    stand.resilience.guard("memory.two", breaker=breaker())
    trip(stand, "memory*")
    opened = [event.guard for event in stand.told(BreakerChanged)]
    assert opened == ["memory"]
    assert stand.resilience.guard("memory.two").call(lambda: "answer") == "answer"
    assert guard.call(lambda: "answer") == "answer"


def test_a_retry_sees_the_trip(stand):
    """And does not insist: a rejection is not tried again."""
    guard = stand.resilience.guard("retried", breaker=breaker(), retry=3, fallback=lambda: "lesser")
    trip(stand, "retried")
    assert guard.call(pytest.fail) == "lesser"
    assert guard.recorder.counts().total(Outcome.GOOD, injected=True) == 1


def test_a_trip_and_a_delay_at_once(stand, guard):
    """A rejected call is not delayed: the fault is inside the breaker."""
    trip(stand)
    stand.arm(LATENCY, "memory")
    before = stand.clock.monotonic()
    rejected(guard)
    assert stand.clock.monotonic() == before


def test_a_half_open_breaker_is_left_to_its_probes(stand):
    """It is in the middle of an outage of its own, which a trip would prolong and make its own."""
    guard = stand.resilience.guard("db", breaker=breaker())
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            guard.call(lambda: 1 // 0)
    stand.clock.advance(10.0)
    assert guard.breaker is not None
    guard.breaker.admit()
    assert guard.breaker.state == "half_open"
    run = stand.arm(TRIP, "db")
    assert run.injected == 0
    assert guard.breaker.state == "half_open"


def test_an_outage_that_follows_a_drill_is_no_drill(stand):
    """The circuit was tripped, and when it was probed the dependency was really gone: the incident is real from then on."""
    guard = stand.resilience.guard("db", breaker=breaker())
    stand.arm(TRIP, "db", duration=5.0)
    stand.clock.advance(6.0)
    with pytest.raises(ZeroDivisionError):
        guard.call(lambda: 1 // 0)
    (incident,) = stand.resilience.slos.incidents.running
    assert not incident.injected


def test_a_breaker_in_shadow_mode_is_left_alone(stand):
    """It would refuse nothing, so there is no circuit to open, at once or when a plan comes to it."""
    shadowed = stand.resilience.guard("memory", breaker=CircuitBreaker(shadow=True))
    run = trip(stand)
    stand.clock.advance(1.0)
    assert shadowed.call(lambda: "fine") == "fine"
    assert (run.injected, shadowed.breaker.state) == (0, State.CLOSED)


@pytest.mark.parametrize("options", [{}, {"retry": 2}], ids=["refused at once", "refused on the full path"])
def test_a_call_that_it_refuses_was_struck_and_has_ended(options):
    """Struck calls that have not ended yet are counted, and none is left when nobody calls."""
    stand = Stand(breaker=True, **options)
    stand.breaker.trip(injected=True)
    with pytest.raises(CircuitOpen):
        stand.guard.call(int)
    assert stand.guard.faults.unended == 0
    assert stand.guard.recorder.counts().total(injected=True) == 1
