"""From the first bad call until the circuit is closed again: one incident, one id, one duration."""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, Resilience
from somaresil.clock import ManualClock
from somaresil.events import BreakerChanged, IncidentClosed, IncidentOpened
from somaresil.listeners import Listeners
from somaresil.slo.durations import RECOVERY_BOUNDS
from somaresil.slo.incidents import IncidentLog
from tests.unit.slo.kit import DAY, HOUR, bad, breaker, good, process, recovery


@pytest.fixture
def stand():
    """A process with a recovery objective of five minutes and a guard with a breaker; the events about incidents."""
    resilience, clock = process(recovery())
    guard = resilience.guard("llm", breaker=breaker())
    events = []
    resilience.on(events.append, IncidentOpened, IncidentClosed)
    return resilience, clock, guard, events


def counts(resilience):
    return resilience.slos.counts("recovery", HOUR)


def rejected(guard):
    with pytest.raises(CircuitOpen):
        guard.call(lambda: None)


def test_an_incident_lasts_from_the_first_bad_call_until_the_circuit_is_closed(stand):
    """The time before it opened counts, and so does the probing after it."""
    resilience, clock, guard, events = stand
    began = clock.time()
    bad(guard)
    clock.advance(2.0)
    bad(guard)  # opens
    clock.advance(4.0)
    rejected(guard)
    clock.advance(7.0)
    good(guard)  # the probe closes
    opened, closed = events
    assert (opened.incident, opened.guard, opened.started_at, opened.injected) == ("llm#1", "llm", pytest.approx(began), False)
    assert (closed.incident, closed.duration, closed.recovered) == ("llm#1", pytest.approx(13.0), True)
    (incident,) = resilience.slos.incidents.ended
    assert (incident.id, incident.duration, incident.started_at) == ("llm#1", pytest.approx(13.0), pytest.approx(began))
    assert resilience.slos.incidents.running == ()
    assert counts(resilience) == (1, 0)


def test_a_relapse_is_the_same_incident(stand):
    """It is over when the circuit is closed, not when it is tried."""
    _, clock, guard, events = stand
    bad(guard, 2)
    for _ in range(3):
        clock.advance(100.0)
        bad(guard)  # a probe that fails
    assert len(events) == 1
    clock.advance(100.0)
    good(guard)
    assert [type(event) for event in events] == [IncidentOpened, IncidentClosed]
    assert events[1].duration == pytest.approx(400.0)


def test_each_incident_has_an_id_of_its_own(stand):
    """Numbered through all guards."""
    resilience, clock, guard, _ = stand
    other = resilience.guard("memory", breaker=breaker())
    for one in (guard, other, guard):
        bad(one, 2)
        clock.advance(11.0)
        good(one)
    assert [incident.id for incident in resilience.slos.incidents.ended] == ["llm#1", "memory#2", "llm#3"]
    assert counts(resilience) == (3, 0)


def test_two_guards_may_be_down_at_once(stand):
    """Their incidents overlap and know nothing of each other."""
    resilience, clock, guard, _ = stand
    other = resilience.guard("memory", breaker=breaker())
    bad(guard, 2)
    clock.advance(5.0)
    bad(other, 2)
    assert {incident.guard for incident in resilience.slos.incidents.running} == {"llm", "memory"}
    clock.advance(15.0)
    good(guard)
    clock.advance(400.0)
    good(other)
    assert [(i.guard, i.duration) for i in resilience.slos.incidents.ended] == [
        ("llm", pytest.approx(20.0)),
        ("memory", pytest.approx(415.0)),
    ]
    assert counts(resilience) == (1, 1)


@pytest.mark.parametrize(("after", "expected"), [(289.0, (1, 0)), (300.0, (1, 0)), (300.5, (0, 1)), (4000.0, (0, 1))])
def test_in_time_means_within_the_limit(stand, after, expected):
    """Five minutes is in time, a moment later is not."""
    resilience, clock, guard, _ = stand
    bad(guard, 2)
    clock.advance(after)
    good(guard)
    assert counts(resilience) == expected


def test_an_overdue_incident_is_bad_while_it_lasts_and_once_when_it_ends(stand):
    """Nobody has to wait for the end of an outage to hear that it is long; and no counter goes back."""
    resilience, clock, guard, _ = stand
    totals = resilience.slos.series("recovery").totals
    bad(guard, 2)
    clock.advance(300.0)
    assert (counts(resilience), totals()) == ((0, 0), (0, 0))
    clock.advance(1.0)
    assert (counts(resilience), totals()) == ((0, 1), (0, 1))
    clock.advance(10 * DAY)
    assert (counts(resilience), totals()) == ((0, 1), (0, 1))
    good(guard)
    assert (counts(resilience), totals()) == ((0, 1), (0, 1))
    clock.advance(2 * HOUR)
    assert counts(resilience) == (0, 0)
    assert resilience.slos.counts("recovery", DAY) == (0, 1)
    assert totals() == (0, 1)


def test_an_incident_lies_in_the_window_in_which_it_ended(stand):
    """It is noted at its end, and leaves the window like any event."""
    resilience, clock, guard, _ = stand
    bad(guard, 2)
    clock.advance(20.0)
    good(guard)
    assert counts(resilience) == (1, 0)
    clock.advance(HOUR + 11.0)
    assert counts(resilience) == (0, 0)
    assert resilience.slos.counts("recovery", DAY) == (1, 0)


def test_a_circuit_that_is_taken_out_of_service_has_not_recovered(stand):
    """Disabled while it was open: the incident is over, and bad."""
    resilience, clock, guard, events = stand
    bad(guard, 2)
    clock.advance(5.0)
    resilience.breaker("llm").disable()
    assert events[-1].recovered is False
    assert counts(resilience) == (0, 1)
    resilience.breaker("llm").reset()
    good(guard)
    assert len(events) == 2


def test_a_guard_that_loses_its_breaker_has_no_incident_any_more(stand):
    """Nobody would ever close it, and it would be overdue for good."""
    resilience, clock, guard, events = stand
    bad(guard, 2)
    guard.configure(breaker=None)
    assert events[-1].recovered is False
    clock.advance(DAY)
    assert resilience.slos.incidents.running == ()
    assert resilience.slos.counts("recovery", 2 * DAY) == (0, 1)


def test_a_breaker_that_is_given_back_counts_its_incidents_again(stand):
    """The eras of the new breaker go on where those of the old one left off, on the quiet path too."""
    _, clock, guard, events = stand
    call = guard(lambda fail: 1 / 0 if fail else None)
    for _ in range(3):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                call(True)
        clock.advance(11.0)
        call(False)
    guard.configure(breaker=None)
    guard.configure(breaker=breaker())
    del events[:]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call(True)
    clock.advance(11.0)
    call(False)
    assert [type(event) for event in events] == [IncidentOpened, IncidentClosed]


def test_an_operator_opens_an_incident_too(stand):
    """Forced open is not serving; reset is recovered."""
    resilience, clock, _, events = stand
    control = resilience.breaker("llm")
    control.force_open()
    clock.advance(50.0)
    control.reset()
    assert [type(event) for event in events] == [IncidentOpened, IncidentClosed]
    assert (events[1].duration, events[1].recovered) == (pytest.approx(50.0), True)


def test_forcing_an_open_circuit_is_the_same_incident(stand):
    """It began earlier."""
    resilience, clock, guard, events = stand
    bad(guard, 2)
    clock.advance(50.0)
    resilience.breaker("llm").force_open()
    clock.advance(50.0)
    resilience.breaker("llm").reset()
    assert len(events) == 2
    assert events[1].duration == pytest.approx(100.0)


def test_resetting_a_closed_circuit_is_no_incident(stand):
    """Nothing was wrong."""
    resilience, _, _, events = stand
    resilience.breaker("llm").reset()
    resilience.breaker("llm").observe()
    assert events == []


def test_injected_incidents_are_marked_and_may_be_left_out(monkeypatch):
    """A game day need not spend the budget of real recoveries; an overdue one neither."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    real = recovery(injected="exclude")
    resilience, clock = process(real)
    resilience.slos.add(type(real)("all", 50.0, real.measurement_window, recovery=300.0))
    resilience.chaos.opt_in()
    guard = resilience.guard("llm", breaker=breaker())
    asyncio.run(resilience.chaos.trip_circuit_breaker("llm", 400.0))
    (incident,) = resilience.slos.incidents.running
    assert incident.injected
    clock.advance(350.0)
    assert (counts(resilience), resilience.slos.counts("all", HOUR)) == ((0, 0), (0, 1))
    clock.advance(60.0)
    good(guard)
    assert resilience.slos.incidents.ended[0].injected
    assert (counts(resilience), resilience.slos.counts("all", HOUR)) == ((0, 0), (0, 1))


def test_an_objective_added_later_counts_what_ends_from_then_on():
    """What ended before is over; what lasts is its own."""
    resilience, clock = process()
    guard = resilience.guard("llm", breaker=breaker())
    bad(guard, 2)
    clock.advance(11.0)
    good(guard)
    bad(guard, 2)
    resilience.slos.add(recovery())
    assert resilience.slos.series("recovery").pending == 1
    clock.advance(11.0)
    good(guard)
    assert counts(resilience) == (1, 0)


def test_the_histogram_of_recoveries(stand):
    """Counted in buckets with an inclusive bound, summed, a guard."""
    resilience, clock, guard, _ = stand
    for seconds in (20.0, 30.0, 300.0, 300_000.0):
        bad(guard, 2)
        clock.advance(seconds)
        good(guard)
    buckets, total = resilience.slos.incidents.durations.read("recovery")["llm", ""]
    found = {bound: count for bound, count in zip((*RECOVERY_BOUNDS, "more"), buckets, strict=True) if count}
    assert found == {30.0: 2, 300.0: 1, "more": 1}
    assert total == pytest.approx(300_350.0)
    assert 300.0 in RECOVERY_BOUNDS


def test_only_the_last_incidents_are_kept(stand):
    """256 of them; the counts go on."""
    resilience, clock, guard, _ = stand
    for _ in range(260):
        bad(guard, 2)
        clock.advance(20.0)
        good(guard)
    ended = resilience.slos.incidents.ended
    assert len(ended) == 256
    assert ended[-1].id == "llm#260"
    assert sum(resilience.slos.incidents.durations.read("recovery")["llm", ""][0]) == 260


def test_a_step_of_the_wall_clock_changes_no_duration(stand):
    """Durations are measured; only the stamps are wall time."""
    _, clock, guard, events = stand
    bad(guard)
    clock.step_wall(-5 * DAY)
    clock.advance(3.0)
    bad(guard)
    clock.step_wall(900 * DAY)
    clock.advance(12.0)
    good(guard)
    assert events[1].duration == pytest.approx(15.0)


def test_a_recovery_objective_is_not_named_by_a_guard():
    """It watches every breaker by itself."""
    resilience, _ = process(recovery())
    with pytest.raises(ConfigurationError, match="watch every breaker by themselves"):
        resilience.guard("x", slo="recovery")


def test_a_slow_start_counts_from_the_first_slow_call():
    """A circuit that opens for slow calls has an incident that began with the first of them."""
    resilience, clock = process(recovery())
    options = CircuitBreaker(
        failure_rate=None,
        slow_call_rate=0.5,
        slow_call_duration=1.0,
        minimum_calls=2,
        open_duration=10.0,
        open_jitter=0.0,
        half_open_calls=1,
    )
    guard = resilience.guard("llm", breaker=options)
    for _ in range(2):
        guard.call(lambda: clock.advance(2.0))
    clock.advance(10.0)
    good(guard)
    assert resilience.slos.incidents.ended[0].duration == pytest.approx(12.0, abs=0.01)


# -- events that come in the wrong order ------------------------------------------------------------------------------------------------


def changed(after, era, at=0.0, guard="g"):
    return BreakerChanged(guard, at, "any", after, "any", 0, 0, 0, at, None, None, injected=False, era=era)


def told(*events):
    listeners = Listeners()
    log = IncidentLog(ManualClock(), listeners)
    for event in events:
        listeners.emit(event)
    return log


def test_an_opening_that_is_told_late_opens_nothing():
    """A thread is interrupted between the step and the telling; meanwhile somebody resets. The circuit is closed, so nothing is wrong."""
    log = told(changed("closed", 3), changed("open", 2))
    assert log.running == ()


def test_a_closing_that_is_told_late_closes_nothing():
    """The circuit has opened again since."""
    log = told(changed("open", 2), changed("open", 4), changed("closed", 3))
    assert [incident.id for incident in log.running] == ["g#1"]
    assert log.ended == ()


def test_events_without_an_era_are_taken_as_they_come():
    """Adapters of other libraries' breakers may not count eras."""
    log = told(changed("open", 5), changed("closed", 0), changed("open", 0))
    assert len(log.ended) == 1
    assert len(log.running) == 1


def test_eras_are_looked_at_guard_by_guard():
    """Each breaker counts its own."""
    log = told(changed("open", 50, guard="a"), changed("open", 2, guard="b"))
    assert {incident.guard for incident in log.running} == {"a", "b"}


def test_a_reader_never_sees_an_overdue_incident_vanish(stand):
    """While incidents end in one thread, the bad events that another one reads never become fewer."""
    resilience, clock, guard, _ = stand
    series = resilience.slos.series("recovery")
    done = threading.Event()
    seen = [0]

    def read():
        while not done.is_set():
            seen.append(series.totals()[1])

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        bad(guard, 2)
        clock.advance(301.0)
        good(guard)
    done.set()
    reader.join()
    assert series.totals() == (0, 200)
    assert seen == sorted(seen)


def test_two_threads_that_close_count_one_incident(stand):
    """Whoever comes second finds none."""
    resilience, _, guard, events = stand
    bad(guard, 2)
    log = resilience.slos.incidents
    subject = log.running[0].subject
    late = threading.Thread(target=log.close, args=(subject,), kwargs={"at": 0.0, "recovered": True})

    class Roll:
        def __call__(self, now):
            # In the middle of the first closing, before it is counted, another thread closes too.
            if not late.ident:
                late.start()
                late.join()

    objective = log._objectives[0]
    objective.roll = Roll()
    log.close(subject, at=0.0, recovered=True)
    assert len(log.ended) == 1
    assert (objective.good, objective.bad) == (1, 0)
    assert len(events) == 2


def test_a_listener_hears_of_the_open_circuit_before_it_hears_of_the_incident():
    """Cause before consequence: the incident log tells its part behind everybody who listens to the breaker."""
    resilience = Resilience("shop", clock=ManualClock())
    guard = resilience.guard("db", breaker=True)
    told: list[str] = []
    resilience.on(lambda event: told.append(type(event).__name__))
    resilience.breaker("db").trip(5.0)
    resilience.breaker("db").reset()
    assert guard.breaker is not None
    assert told == ["BreakerChanged", "IncidentOpened", "BreakerChanged", "IncidentClosed"]
