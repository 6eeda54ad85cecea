"""First bad, detected, mitigated, closed: the stages of incidents, of guards and of objectives."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ChaosConfig, ChaosExperiment
from somaresil.events import AlertCleared, AlertFired, DefectFound, IncidentClosed, IncidentMitigated, IncidentOpened
from somaresil.model.slo import BurnPolicy, Window
from somaresil.sla.month import month_of, period
from somaresil.sla.render import files_of
from somaresil.slo.burning import onset
from somaresil.slo.durations import BETWEEN_BOUNDS, RECOVERY_BOUNDS, STAGES
from somaresil.slo.incidents import CALM, Calm, Subject
from somaresil.slo.journal import read_journals
from somaresil.slo.records import read_lines
from tests.unit.slo.kit import DAY, availability, bad, breaker, good, process, recovery

TOLD = (IncidentOpened, IncidentMitigated, IncidentClosed)
SHORT = BurnPolicy("own", (Window(long=600.0, short=60.0, budget_share=0.001, severity="page"),))


def told(resilience):
    """What is told about incidents from now on."""
    events = []
    resilience.on(events.append, *TOLD)
    return events


def count(resilience, stage, guard="", slo=""):
    """How many were counted, and their seconds."""
    counts, seconds = resilience.slos.incidents.durations.read(stage).get((guard, slo), ([], 0.0))
    return sum(counts), seconds


def calls(guard, clock, seconds, *, failing=False):
    """A call a second."""
    for _ in range(int(seconds)):
        clock.advance(1.0)
        (bad if failing else good)(guard)


# -- of guards ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved():
    """A guard whose fallback answers while its circuit is open, for a minute at least."""
    resilience, clock = process(recovery())
    guard = resilience.guard("llm", breaker=breaker(open_duration=60.0), fallback=lambda: None)
    return resilience, clock, guard, told(resilience)


def failing(guard, times):
    for _ in range(times):
        guard.call(_raise)


def _raise():
    raise LookupError


def test_a_fallback_mitigates_an_outage_before_the_circuit_is_closed(saved):
    """Every stage has its event and its seconds; what callers were answered is no bad call."""
    resilience, clock, guard, events = saved
    unsaved = resilience.guard("tool", breaker=breaker(open_duration=60.0))
    for one in (guard, unsaved):
        one.configure(fallback=None)
    bad(guard)
    clock.advance(3.0)
    bad(guard)
    guard.configure(fallback=lambda: None)
    calls(guard, clock, 30.0)
    (opened, mitigated) = events
    assert (opened.guard, opened.slo, opened.at - opened.started_at) == ("llm", None, pytest.approx(3.0))
    assert (mitigated.incident, mitigated.injected) == (opened.incident, False)
    assert mitigated.elapsed == pytest.approx(3.0, abs=1.5)
    assert mitigated.at == pytest.approx(opened.at + CALM, abs=2.5)
    (running,) = resilience.slos.incidents.running
    assert (running.detected_after, running.mitigated_after) == (pytest.approx(3.0), mitigated.elapsed)
    calls(guard, clock, 40.0)
    closed = events[-1]
    assert (closed.detected_after, closed.mitigated_after) == (pytest.approx(3.0), mitigated.elapsed)
    assert closed.duration > 60.0
    assert count(resilience, "detection", "llm") == (1, pytest.approx(3.0))
    assert count(resilience, "mitigation", "llm") == (1, pytest.approx(mitigated.elapsed))
    assert count(resilience, "recovery", "llm") == (1, pytest.approx(closed.duration))
    assert count(resilience, "between", "llm") == (0, 0.0)


def test_calls_that_are_refused_are_no_mitigation():
    """Whoever gets a rejection is not served; it is over when the circuit is closed, and not before."""
    resilience, clock = process(recovery())
    guard = resilience.guard("llm", breaker=breaker(open_duration=60.0))
    events = told(resilience)
    bad(guard, 2)
    for _ in range(59):
        clock.advance(1.0)
        with pytest.raises(Exception, match="circuit open"):
            good(guard)
    clock.advance(2.0)
    good(guard)
    assert [type(event) for event in events] == [IncidentOpened, IncidentClosed]
    assert events[-1].mitigated_after is None
    assert count(resilience, "mitigation", "llm") == (1, pytest.approx(events[-1].duration))


def test_without_calls_nothing_is_mitigated(saved):
    """Silence is no good news."""
    resilience, clock, guard, events = saved
    failing(guard, 2)
    for _ in range(50):
        clock.advance(1.0)
        assert resilience.slos.incidents.running[0].mitigated_after is None
    assert [type(event) for event in events] == [IncidentOpened]


def test_a_fallback_that_fails_later_takes_the_mitigation_back(saved):
    """And it is told again when it is better again."""
    resilience, clock, guard, events = saved
    failing(guard, 2)
    calls(guard, clock, 15.0)
    assert resilience.slos.incidents.running[0].mitigated_after is not None
    guard.configure(fallback=None)
    for _ in range(5):
        clock.advance(1.0)
        with pytest.raises(Exception, match="circuit open"):
            good(guard)
    guard.configure(fallback=lambda: None)
    calls(guard, clock, 3.0)
    assert resilience.slos.incidents.running[0].mitigated_after is None
    calls(guard, clock, 15.0)
    first, second = [event.elapsed for event in events if isinstance(event, IncidentMitigated)]
    assert (first, second) == (pytest.approx(0.0, abs=1.1), pytest.approx(20.0, abs=2.1))


def test_the_recorder_is_watched_only_while_an_incident_lasts(saved):
    """A good call pays nothing for it, before and after."""
    _, clock, guard, _ = saved
    before = len(guard.recorder._views)
    failing(guard, 2)
    assert len(guard.recorder._views) == before + 1
    clock.advance(61.0)
    good(guard)
    assert len(guard.recorder._views) == before


def test_from_the_end_of_one_to_the_begin_of_the_next():
    """Counted when the next one is noticed, without the time that it took."""
    resilience, clock = process(recovery())
    guard = resilience.guard("llm", breaker=breaker())
    bad(guard, 2)
    clock.advance(20.0)
    good(guard)
    clock.advance(1_000.0)
    bad(guard)
    clock.advance(5.0)
    bad(guard)
    assert count(resilience, "between", "llm") == (1, pytest.approx(1_000.0))


def test_an_incident_names_the_experiment_that_made_it(monkeypatch):
    """So that it can be found in the report of a game day; an outage of its own names none."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience, clock = process(recovery())
    resilience.chaos.opt_in()
    guard = resilience.guard("llm", breaker=breaker())
    other = resilience.guard("tool", breaker=breaker())
    events = told(resilience)
    run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm", failure_rate=1.0, duration_seconds=60.0))
    for _ in range(2):
        with pytest.raises(Exception, match="injected"):
            good(guard)
    bad(other, 2)
    assert [(event.guard, event.injected, event.experiment) for event in events] == [("llm", True, run.id), ("tool", False, None)]
    clock.advance(100.0)
    good(guard)
    assert (events[-1].guard, events[-1].experiment) == ("llm", run.id)


# -- of objectives ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched():
    """A process with alerts that are looked at by hand."""
    resilience, clock = process(replace(availability(days=1), error_budget_policy=SHORT))
    alerting = resilience.alerting(interval=3_600.0)
    yield resilience, clock, alerting, told(resilience)
    alerting.stop()


def looking(guard, clock, alerting, seconds, *, failing=False):
    """A call a second, and a look every ten."""
    for _ in range(int(seconds) // 10):
        calls(guard, clock, 10.0, failing=failing)
        alerting.look()


def test_an_objective_has_incidents_of_its_own(watched):
    """From the first bad event, worked out from the windows, to the last alert that is cleared; guards and recovery know nothing of it."""
    resilience, clock, alerting, events = watched
    guard = resilience.guard("g", slo="up")
    looking(guard, clock, alerting, 300.0)
    began = clock.time()
    looking(guard, clock, alerting, 100.0, failing=True)
    looking(guard, clock, alerting, 120.0)
    opened, mitigated, closed = events
    assert (opened.guard, opened.slo, opened.group, opened.incident) == (None, "up", None, "up#1")
    assert opened.started_at == pytest.approx(began, abs=10.0)
    assert mitigated.elapsed == pytest.approx(100.0, abs=20.0)
    assert (closed.recovered, closed.mitigated_after) == (True, mitigated.elapsed)
    assert closed.duration > 140.0
    (incident,) = resilience.slos.incidents.ended
    assert (incident.guard, incident.slo, incident.subject) == (None, "up", Subject(None, "up"))
    assert count(resilience, "recovery", slo="up") == (1, pytest.approx(closed.duration))


def test_a_second_severity_is_the_same_incident(watched):
    """It is over when none of them stands any more."""
    resilience, clock, _, events = watched
    listeners, now = resilience.listeners, clock.time()
    listeners.emit(AlertFired("up", now, "page", 600.0, 60.0, 20.0, 14.4, None))
    listeners.emit(AlertFired("up", now, "ticket", 600.0, 60.0, 20.0, 14.4, None))
    clock.advance(100.0)
    listeners.emit(AlertCleared("up", clock.time(), "page", 100.0, None))
    assert [type(event) for event in events] == [IncidentOpened]
    listeners.emit(AlertCleared("up", clock.time(), "ticket", 100.0, None))
    listeners.emit(AlertCleared("up", clock.time(), "ticket", 100.0, None))
    assert [type(event) for event in events] == [IncidentOpened, IncidentClosed]
    # Nothing was counted here: it is known from elsewhere, and began within the short window.
    assert events[-1].duration == pytest.approx(160.0)


def test_stopping_the_alerts_ends_incidents_without_recovery(watched):
    """Nobody would end them later."""
    resilience, clock, alerting, events = watched
    guard = resilience.guard("g", slo="up")
    looking(guard, clock, alerting, 100.0, failing=True)
    alerting.stop()
    assert (type(events[-1]), events[-1].recovered) == (IncidentClosed, False)
    assert resilience.slos.incidents.running == ()
    assert count(resilience, "mitigation", slo="up") == (0, 0.0)


def test_an_experiment_is_blamed_when_there_would_be_no_incident_without_it(watched, monkeypatch):
    """Named by its id; errors of the service's own are not."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience, clock, alerting, events = watched
    resilience.chaos.opt_in()
    guard = resilience.guard("g", slo="up")
    looking(guard, clock, alerting, 100.0)
    run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "g", failure_rate=1.0, duration_seconds=60.0))
    for _ in range(50):
        clock.advance(1.0)
        with pytest.raises(Exception, match="injected"):
            good(guard)
    alerting.look()
    assert [(event.injected, event.experiment) for event in events] == [(True, run.id)]
    clock.advance(10.0)
    looking(guard, clock, alerting, 1_000.0)
    looking(guard, clock, alerting, 100.0, failing=True)
    assert [(event.injected, event.experiment) for event in events if isinstance(event, IncidentOpened)] == [(True, run.id), (False, None)]


@pytest.mark.parametrize(
    "slo",
    [
        availability("any", latency=2.0),
        availability("any", budgeting="timeslices", time_slice_target=0.9, time_slice_window=60.0),
        availability("any", freshness=30.0),
        availability("any", parts={"up": 1.0, "other": 2.0}),
        availability("any", recovery=60.0),
        availability("any", good_when=lambda result, _error, _elapsed: result is not None),
        availability("any", injected="exclude"),
    ],
    ids=["latency", "slices", "freshness", "composite", "recovery", "predicate", "excluding"],
)
def test_objectives_of_every_kind_have_incidents(slo):
    """Whatever their events are, an alert is an incident that begins within its windows and ends with it."""
    resilience, clock = process(availability("up"), availability("other"))
    resilience.slos.add(slo)
    guard = resilience.guard("g", slo=["up", "other", *(["any"] if slo.about_calls else [])], breaker=breaker(consecutive_failures=50))
    events, defects = told(resilience), []
    resilience.on(defects.append, DefectFound)
    calls(guard, clock, 300.0)
    calls(guard, clock, 45.0, failing=True)
    resilience.listeners.emit(AlertFired("any", clock.time(), "page", 3_600.0, 300.0, 20.0, 0.5, None))
    calls(guard, clock, 60.0)
    resilience.slos.burning.look("any", None)
    calls(guard, clock, 60.0)
    resilience.slos.burning.look("any", None)
    resilience.listeners.emit(AlertCleared("any", clock.time(), "page", 100.0, None))
    assert [type(event) for event in events if event.slo == "any" and not isinstance(event, IncidentMitigated)] == [
        IncidentOpened,
        IncidentClosed,
    ]
    assert 0.0 <= events[0].at - events[0].started_at <= 3_600.0
    assert events[-1].recovered
    assert defects == []


def test_groups_have_incidents_and_the_histograms_count_the_whole_once():
    """A label of a group is in no metric."""
    resilience, clock = process(replace(availability(days=1), error_budget_policy=SHORT, group_by="tenant"))
    events = told(resilience)
    alerting = resilience.alerting(interval=3_600.0)
    guard = resilience.guard("g", slo="up")

    def work(tenant):
        raise LookupError(tenant)

    for _ in range(60):
        clock.advance(1.0)
        with pytest.raises(LookupError):
            guard.call(work, "acme")
    alerting.look()
    assert {(event.slo, event.group) for event in events} == {("up", None), ("up", "acme")}
    assert count(resilience, "detection", slo="up")[0] == 1
    alerting.stop()


def test_a_journal_carries_every_stage(watched, tmp_path):
    """The last line about an incident says all that is known of it."""
    resilience, clock, alerting, events = watched
    journal = resilience.journal(tmp_path / "journal")
    guard = resilience.guard("g", slo="up")
    looking(guard, clock, alerting, 300.0)
    looking(guard, clock, alerting, 100.0, failing=True)
    looking(guard, clock, alerting, 120.0)
    journal.stop()
    (read,) = read_lines((tmp_path / "journal").read_bytes().splitlines()).incidents
    closed = events[-1]
    assert (read.guard, read.slo, read.id, read.duration) == (None, "up", closed.incident, closed.duration)
    assert read.detected - read.started == pytest.approx(closed.detected_after)
    assert read.mitigated - read.started == pytest.approx(closed.mitigated_after)


def test_the_report_of_the_month_has_the_means_of_an_objective(watched, tmp_path):
    """From a process to the table: the same seconds that its events have told."""
    resilience, clock, alerting, events = watched
    journal = resilience.journal(tmp_path / "journal")
    guard = resilience.guard("g", slo="up")
    for _ in range(2):
        looking(guard, clock, alerting, 300.0)
        looking(guard, clock, alerting, 100.0, failing=True)
        looking(guard, clock, alerting, 700.0)
    journal.stop()
    first, second = [event for event in events if isinstance(event, IncidentClosed)]
    when = period(datetime.fromtimestamp(clock.time(), UTC).strftime("%Y-%m"))
    month = month_of(read_journals(tmp_path / "journal"), when, now=clock.time())
    ((kind, name, outages),) = month.outages_by
    assert (kind, name, outages.incidents, month.outages.incidents) == ("objective", "test/up", 2, 0)
    assert outages.mttd == pytest.approx((first.detected_after + second.detected_after) / 2)
    assert outages.mttm == pytest.approx((first.mitigated_after + second.mitigated_after) / 2)
    assert outages.mttr == pytest.approx((first.duration + second.duration) / 2)
    assert outages.mtbf == pytest.approx(count(resilience, "between", slo="up")[1])
    assert f"| objective | test/up | 2 | 0 | {outages.mttd:.1f} |" in files_of(month)[f"sla-{when.name}.md"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_is_not_held_up_by_a_thread_of_its_parent(watched):
    """Whoever looked at alerts at that moment stayed behind."""
    resilience, _, _, _ = watched
    log = resilience.slos.incidents
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with log._lock, log.durations._lock, resilience.slos.burning._lock:
            held.set()
            go_on.wait(30.0)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        signal.alarm(10)
        log.detect(Subject(None, "up"), at=0.0, age=1.0, injected=False)
        log.close(Subject(None, "up"), at=0.0, recovered=True)
        os._exit(0)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_memory_of_ends_is_bounded():
    """Names of groups may come without end."""
    resilience, _ = process()
    log = resilience.slos.incidents
    for number in range(1_500):
        subject = Subject(None, "up", f"g{number}")
        log.detect(subject, at=0.0, age=1.0, injected=False)
        log.close(subject, at=0.0, recovered=True)
    assert (len(log._last_end), len(log.ended), log.running) == (1_000, 256, ())


# -- the arithmetic -----------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.floats(0.1, 1.0), st.floats(0.0, 0.02), st.integers(10, 500))
def test_an_outage_is_found_however_many_errors_there_always_were(slots, outage, trickle, per_slot):
    """Counts of slots of ten seconds: an outage above the limit in the latest ones, and errors below it before."""

    def counts(window):
        inside = min(window / 10.0, slots)
        before = window / 10.0 - inside
        broken = per_slot * (inside * outage + before * trickle)
        return per_slot * window / 10.0 - broken, broken

    assert onset(counts, 7_200.0, 0.05) == slots * 10.0


def test_without_too_many_errors_there_is_no_onset():
    """Also when there is nothing at all."""
    assert onset(lambda _: (0, 0), 3_600.0, 0.1) is None
    assert onset(lambda window: (int(window) * 99, int(window)), 3_600.0, 0.1) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_calm_is_what_has_come_since_the_last_bad_look(steps):
    """Against the plain definition: the look before the first good one after the last bad one."""
    calm, good_, bad_ = Calm(0.0, 0, 0), 0, 0
    expected = None
    for second, (more_good, more_bad) in enumerate(steps, 1):
        good_, bad_ = good_ + more_good, bad_ + more_bad
        calm.look(float(second), good_, bad_)
        if more_bad:
            expected = None
        elif more_good and expected is None:
            expected = second - 1.0
    assert calm.since == expected


def test_bounds_ascend_and_have_what_people_ask_for():
    """Five minutes, an hour and a day are bounds."""
    assert all(list(bounds) == sorted(set(bounds)) for bounds in STAGES.values())
    assert {300.0, 3_600.0, DAY} <= set(RECOVERY_BOUNDS)
    assert {3_600.0, DAY, 30 * DAY} <= set(BETWEEN_BOUNDS)
