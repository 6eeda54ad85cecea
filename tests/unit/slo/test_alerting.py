"""Alerts in the process, and what is done as budgets run out."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from somaresil import SLO, ChaosConfig, ChaosExperiment, ConfigurationError, Resilience
from somaresil.events import AlertCleared, AlertFired, BudgetActionBegan, BudgetActionEnded, DefectFound
from somaresil.model.slo import FAST_BURN, BurnPolicy, Window
from somaresil.slo import BudgetAction
from somaresil.slo.store import Reading
from tests.unit.slo.kit import HOUR, availability, bad, good, process

SHORT = BurnPolicy("own", (Window(long=600.0, short=60.0, budget_share=0.001, severity="page"),))
TOLD = (AlertFired, AlertCleared, BudgetActionBegan, BudgetActionEnded)


class Store:
    """A store that says what it is told to say."""

    name = "told"

    def __init__(self) -> None:
        self.reading: Reading | Exception = Reading.unknown("told", "not yet")

    def read(self, slo: SLO, window: float) -> Reading:
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


@pytest.fixture
def watched():
    """Give a factory of processes that are looked at by hand: the process, clock, alerting, and what was told."""
    made = []

    def make(*slos, actions=(), store=None):
        resilience, clock = process(*slos)
        events = []
        resilience.on(events.append, *TOLD)
        # The thread looks once at the beginning and then an hour later, by the clock of the machine: tests look by themselves.
        alerting = resilience.alerting(*actions, interval=3_600.0, store=store)
        made.append(alerting)
        return resilience, clock, alerting, events

    yield make
    for alerting in made:
        alerting.stop()


def test_an_outage_fires_once_and_the_short_window_ends_it(watched):
    """One event when it begins, one when it is over, however often one looks; the long window still burns then."""
    resilience, clock, alerting, events = watched(availability(days=1))
    guard = resilience.guard("g", slo="up")
    good(guard, 50)
    alerting.look()
    assert (events, alerting.firing) == ([], ())
    bad(guard, 50)
    began = clock.time()
    alerting.look()
    alerting.look()
    (fired,) = events
    assert (fired.slo, fired.at, fired.severity, fired.long, fired.short, fired.group) == ("up", began, "page", HOUR, 300.0, None)
    assert fired.burn == pytest.approx(50.0)
    assert fired.threshold == pytest.approx(0.02 * 24)
    assert [(alert.slo, alert.severity, alert.fired_at) for alert in alerting.firing] == [("up", "page", began)]
    clock.advance(1_900.0)
    good(guard, 10)
    alerting.look()
    assert resilience.slos.burn_rate("up", HOUR) > 0.02 * 24
    assert events[1:] == [AlertCleared("up", clock.time(), "page", 1_900.0, None)]
    assert alerting.firing == ()


def test_without_traffic_nothing_burns(watched):
    """An outage after which nobody calls any more is over for the alert."""
    resilience, clock, alerting, events = watched(availability(error_budget_policy=SHORT))
    bad(resilience.guard("g", slo="up"), 10)
    alerting.look()
    clock.advance(90.0)
    alerting.look()
    assert [type(event) for event in events] == [AlertFired, AlertCleared]


def test_a_store_that_does_not_know_changes_nothing(watched):
    """Neither fired nor cleared by an answer that there is not."""
    store = Store()
    _, _, alerting, events = watched(availability(), store=store)
    alerting.look()
    assert events == []
    store.reading = Reading(0, 100, 1.0, "told", 0.0)
    alerting.look()
    store.reading = Reading.unknown("told", "no connection")
    alerting.look()
    assert [type(event) for event in events] == [AlertFired]
    store.reading = Reading(100, 0, 1.0, "told", 0.0)
    alerting.look()
    assert [type(event) for event in events] == [AlertFired, AlertCleared]


def test_a_store_that_raises_is_reported_once_and_hides_no_other_objective(watched):
    """One broken objective, one defect, and the others are looked at."""
    store = Store()
    resilience, _, alerting, events = watched(availability("a"), availability("b"), store=store)
    defects = []
    resilience.on(defects.append, DefectFound)
    store.reading = RuntimeError("broken")
    alerting.look()
    alerting.look()
    assert {defect.where for defect in defects} <= {"alerting on a", "alerting on b"}
    assert len(defects) == len({defect.where for defect in defects})
    store.reading = Reading(0, 100, 1.0, "told", 0.0)
    alerting.look()
    assert [event.slo for event in events] == ["a", "b"]


def test_each_severity_is_an_alert_of_its_own(watched):
    """A ticket fires where a page does not."""
    windows = (Window(3_600.0, 300.0, 0.5, "page"), Window(3_600.0, 300.0, 0.001, "ticket"))
    resilience, _, alerting, events = watched(availability(days=1, error_budget_policy=BurnPolicy("two", windows)))
    guard = resilience.guard("g", slo="up")
    good(guard, 95)
    bad(guard, 5)
    alerting.look()
    assert [event.severity for event in events] == ["ticket"]
    bad(guard, 20)
    alerting.look()
    assert [event.severity for event in events] == ["ticket", "page"]


def test_few_bad_events_wait_for_more(watched):
    """With minimum_bad a single failure in a quiet hour is no page."""
    resilience, _, alerting, events = watched(availability(error_budget_policy=replace(FAST_BURN, minimum_bad=5)))
    guard = resilience.guard("g", slo="up")
    bad(guard, 4)
    alerting.look()
    assert events == []
    bad(guard)
    alerting.look()
    assert [type(event) for event in events] == [AlertFired]


def test_groups_fire_by_themselves(watched):
    """One tenant burns, and is named."""
    resilience, _, alerting, events = watched(
        SLO("up", 90.0, timedelta(days=1), error_budget_policy=BurnPolicy("own", (Window(600.0, 60.0, 0.05, "page"),)), group_by="tenant")
    )

    @resilience.guard("g", slo="up")
    def ask(tenant, fails=False):
        if fails:
            raise LookupError

    for _ in range(990):
        ask("acme")
    for _ in range(10):
        with pytest.raises(LookupError):
            ask("zeta", fails=True)
    alerting.look()
    assert [(event.slo, event.group) for event in events] == [("up", "zeta")]


def test_actions_begin_and_end_apart(watched):
    """Below one threshold it begins, and ends only at a higher one."""
    action = BudgetAction("freeze_features", below=0.5, until=0.8, slo="up")
    resilience, _, alerting, events = watched(availability(target=90.0, days=1), actions=(action,))
    guard = resilience.guard("g", slo="up")
    good(guard, 94)
    bad(guard, 6)
    alerting.look()
    assert resilience.slos.actions.active("freeze_features", "up")
    assert resilience.slos.actions.active("freeze_features")
    assert not resilience.slos.actions.active("freeze_features", "down")
    assert not resilience.slos.actions.active("warn")
    good(guard, 60)
    alerting.look()
    assert resilience.slos.remaining_share("up") == pytest.approx(0.625)
    assert resilience.slos.actions.active("freeze_features")
    good(guard, 200)
    alerting.look()
    assert not resilience.slos.actions.active("freeze_features")
    told = [event for event in events if not isinstance(event, AlertFired | AlertCleared)]
    assert [type(event) for event in told] == [BudgetActionBegan, BudgetActionEnded]
    assert told[0].remaining == pytest.approx(0.4)


def test_few_events_take_no_action(watched):
    """One failure at the start of a process is not the end of a month's budget."""
    resilience, _, alerting, _ = watched(availability(), actions=(BudgetAction("warn", below=0.5),))
    guard = resilience.guard("g", slo="up")
    bad(guard, 9)
    alerting.look()
    assert not resilience.slos.actions.active("warn")
    bad(guard)
    alerting.look()
    assert resilience.slos.actions.active("warn")


def test_a_blocked_deployment_is_blocked_by_the_gate(watched):
    """While the action lasts the verdict is BLOCK, and says why; then it is what the figures say."""
    resilience, _, alerting, _ = watched(availability(target=90.0), actions=(BudgetAction("block_deployment", below=0.5, until=0.8),))
    guard = resilience.guard("g", slo="up")
    good(guard, 9_400)
    bad(guard, 600)
    quiet = [condition.firing for condition in resilience.slos.conditions("up")]
    before = resilience.slos.verdict()
    alerting.look()
    verdict = resilience.slos.verdict()
    assert not any(quiet)
    assert before.decision == "allow"
    assert verdict.decision == "block"
    assert verdict.reasons == ("up: block_deployment: 40.0% of the error budget of up left",)
    alerting.stop()
    assert resilience.slos.verdict().decision == "allow"


def test_shrunk_retries_are_those_of_an_empty_budget(watched):
    """A guard that is aware of the budget makes as few further attempts as if nothing were left."""
    resilience, clock, alerting, _ = watched(availability(target=50.0), actions=(BudgetAction("shrink_retries", below=0.9),))
    guard = resilience.guard("g", slo="up", retry=2, budget_aware="up")
    good(guard, 90)
    bad(guard, 10)
    scale = resilience._scale("up")
    assert scale() == 1.0
    alerting.look()
    clock.advance(2.0)
    assert scale() == pytest.approx(0.1)


def test_experiments_end_and_none_begins_while_chaos_is_stopped(watched, monkeypatch):
    """By a stop condition like any other: its reason names the budget."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience, clock, alerting, _ = watched(availability(target=90.0), actions=(BudgetAction("stop_chaos", below=0.5),))
    resilience.chaos.opt_in()
    guard = resilience.guard("g", slo="up")
    good(guard, 94)
    config = ChaosConfig(
        ChaosExperiment.LATENCY_INJECTION, target_component="g", failure_rate=0.01, duration_seconds=600, delay_seconds=0.001
    )
    run = resilience.chaos.arm(config)
    bad(guard, 6)
    alerting.look()
    clock.advance(2.0)
    good(guard)
    assert run.end_reason == "condition budget_policy"
    with pytest.raises(ConfigurationError, match=r"stop_chaos: 4\d\.\d% of the error budget of up left"):
        resilience.chaos.arm(config)


def test_there_is_one_at_a_time():
    """Two would say everything twice; after the first has stopped there may be another."""
    resilience = Resilience("x")
    first = resilience.alerting()
    with pytest.raises(ConfigurationError, match="looks already"):
        resilience.alerting()
    first.stop()
    resilience.alerting().stop()


def test_all_problems_are_named_at_once():
    """Interval, store and each action."""
    resilience = Resilience("x")
    with pytest.raises(ConfigurationError) as caught:
        resilience.alerting("warn", BudgetAction("warn", below=0.1, slo="nobody"), interval=0.0, store=object())
    assert [problem.path for problem in caught.value.problems] == [
        "alerting.interval",
        "alerting.actions[0]",
        "alerting.actions[1].slo",
        "alerting.store",
    ]
    with pytest.raises(ConfigurationError) as caught:
        BudgetAction("wran", below=2, until=-1, slo="two words", minimum_events=0)
    assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == ["action", "below", "until", "slo", "minimum_events"]
    with pytest.raises(ConfigurationError, match="end before it began"):
        BudgetAction("warn", below=0.5, until=0.4)


def test_whoever_looks_by_hand_has_looked_when_it_returns(watched):
    """Also while a thread is in the middle of a look that began before; and a listener that looks is not held up by itself."""
    resilience, _, alerting, events = watched(availability(days=1))
    guard = resilience.guard("g", slo="up")
    within, go_on = threading.Event(), threading.Event()

    def slow(_):
        alerting.look()
        within.set()
        assert go_on.wait(30.0)

    resilience.on(slow, AlertFired)
    bad(guard, 50)
    thread = threading.Thread(target=alerting.look)
    thread.start()
    assert within.wait(30.0)
    by_hand = threading.Thread(target=lambda: (alerting.look(), events.append("looked")))
    by_hand.start()
    by_hand.join(0.05)
    assert "looked" not in events
    go_on.set()
    by_hand.join(30.0)
    thread.join(30.0)
    assert isinstance(events[0], AlertFired)
    assert events[-1] == "looked"


def test_one_thread_looks_for_all_and_ends():
    """However many objectives there are; and a stopped one has none."""
    resilience = Resilience("x")
    resilience.slos.add(*(availability(f"slo{number}") for number in range(20)))
    fired = threading.Event()
    resilience.on(lambda _: fired.set(), AlertFired)
    bad(resilience.guard("g", slo="slo0"), 10)
    before = {thread.ident for thread in threading.enumerate()}
    alerting = resilience.alerting(interval=1.0)
    assert fired.wait(10.0)
    mine = [thread for thread in threading.enumerate() if thread.name == "somaresil-alerting" and thread.ident not in before]
    assert len(mine) == 1
    alerting.stop()
    mine[0].join(10.0)
    assert not mine[0].is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_looks_too():
    """Where the parent had a thread the child has one, and its locks are free."""
    resilience = Resilience("x")
    resilience.slos.add(availability())
    alerting = resilience.alerting(interval=3_600.0)
    alerting._lock.acquire()
    child = os.fork()
    if not child:
        code = 1
        try:
            found = []
            resilience.on(found.append, AlertFired)
            bad(resilience.guard("g", slo="up"), 10)
            walking = alerting._patrol.walking
            finished = threading.Thread(target=alerting.look, daemon=True)
            finished.start()
            finished.join(10.0)
            code = 0 if walking and found else 2
        finally:
            os._exit(code)
    alerting._lock.release()
    _, status = os.waitpid(child, 0)
    alerting.stop()
    assert os.waitstatus_to_exitcode(status) == 0
