"""Objectives where it is rare: rules of groups, what a fork keeps, shares with and without experiments, and limits."""

from __future__ import annotations

import threading
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import yaml

from somaresil import SLO, ConfigurationError
from somaresil.events import AlertFired
from somaresil.model.slo import BurnPolicy, Window
from somaresil.slo import alerting, calendar, judge, probe, records
from somaresil.slo.journal import Journal
from somaresil.slo.objective import ErrorBudget
from somaresil.slo.rules import Queries, RuleOptions, compile_rules, promtest
from tests.unit.slo.kit import DAY, HOUR, availability, bad, good, process, recovery

LONG = RuleOptions(retention=timedelta(days=100))


def refused(make, *given, **named):
    """Path and what is allowed, of every problem."""
    with pytest.raises(ConfigurationError) as caught:
        make(*given, **named)
    return {problem.path: problem.allowed for problem in caught.value.problems}


# -- rules ----------------------------------------------------------------------------------------------------------------------------


def test_groups_have_rules_of_their_own_beside_those_of_the_whole():
    """By their label, over all replicas; an alert says whose budget burns, and each file has its tests."""
    compiled = compile_rules([availability(group_by="tenant")], LONG)
    name = next(name for name in compiled.files if name.endswith(".groups.rules.yaml"))
    groups = yaml.safe_load(compiled.files[name])["groups"]
    rules = {rule.get("record") or rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert "GroupErrorBudgetBurnPage" in rules
    bad_events = rules["slo_group:bad_events:increase1h"]["expr"]
    assert bad_events.startswith('sum by (group) (increase(somaresil_sli_group_events_total{slo="up",outcome="bad"}[1h])) or 0 * ')
    assert "a group of up" in str(rules["GroupErrorBudgetBurnPage"]["annotations"])
    tests = [each for each in compiled.files if each.startswith(name.removesuffix(".rules.yaml")) and each.endswith(".test.yaml")]
    assert tests
    assert all(yaml.safe_load(compiled.files[each])["rule_files"] == [name] for each in tests)


QUERIES = Queries("sum(rate(bad[{{.window}}]))", "sum(rate(all[{{.window}}]))")


def test_what_rules_cannot_have_is_noted():
    """Queries of one's own know neither groups nor labels of ours."""
    compiled = compile_rules(
        [availability(group_by="tenant")], RuleOptions(retention=timedelta(days=100), labels={"a": "b"}), sources={"up": QUERIES}
    )
    told = " ".join(compiled.notes)
    assert "up: its groups have no series" in told
    assert "up: labels are not added to queries of one's own" in told
    assert not [name for name in compiled.files if ".groups." in name]


def test_objectives_of_rules_are_objectives_and_each_once():
    """Two under one name would be one series."""
    assert refused(compile_rules, ["up", availability(), availability()], LONG) == {"slos.slo": "an SLO", "slos.up": "each name once"}


def test_windows_that_prometheus_cannot_have_are_refused():
    """It knows whole milliseconds, and what it keeps."""
    odd = SLO("up", 99.0, timedelta(days=30, microseconds=1))
    (path,) = refused(compile_rules, [odd], LONG)
    assert path.endswith("measurement_window")
    policy = BurnPolicy("own", (Window(HOUR + 0.0001, 300.0, 0.02, "page"), Window(20 * DAY, DAY, 0.5, "ticket")))
    found = refused(compile_rules, [availability(days=30, error_budget_policy=policy)], RuleOptions(retention=timedelta(days=15)))
    assert any(path.endswith("windows[0].long") and "whole milliseconds" in allowed for path, allowed in found.items())
    assert any(path.endswith("windows[1].long") and "what Prometheus keeps (15d)" in allowed for path, allowed in found.items())


def test_options_of_rules_are_of_their_kind():
    """Mappings, and not too many labels."""
    found = refused(RuleOptions, events_per_hour=7, labels=["a"], alert_labels={f"l{number}": "x" for number in range(100)})
    assert "a mapping of objectives to events" in found.values()
    assert sum("labels to values" in allowed for allowed in found.values()) == 2


def test_a_source_says_whether_it_has_rates():
    """True or False, and nothing that looks like it."""
    odd = Queries(QUERIES.bad_query, QUERIES.total_query, rates="yes")
    found = refused(compile_rules, [availability()], LONG, sources={"up": odd})
    assert any(path.endswith("source.rates") and allowed == "True or False" for path, allowed in found.items())


def test_tests_that_would_take_too_long_are_left_out(monkeypatch):
    """The rules are the same."""
    whole = compile_rules([availability()], LONG).files
    monkeypatch.setattr(promtest, "_LONGEST", 1)
    left = compile_rules([availability()], LONG).files
    assert [name for name in whole if name not in left]
    assert {name: whole[name] for name in left} == left


# -- objectives -----------------------------------------------------------------------------------------------------------------------


def test_an_objective_has_so_many_windows_and_parts_with_names():
    """And slices are not struck as a whole."""
    many = BurnPolicy("own", (Window(HOUR, 300.0, 0.02, "page"),) * 100)
    assert any("at most" in allowed for allowed in refused(availability, error_budget_policy=many).values())
    assert "the name of an objective" in refused(SLO, "both", 99.0, timedelta(days=1), parts=((7, 1.0),)).values()
    found = refused(availability, budgeting="timeslices", time_slice_window=60.0, time_slice_target=0.9, injected="separate")
    assert any("with slices" in allowed for allowed in found.values())


def budget(good=90, bad=10, **options):
    return ErrorBudget("up", 0.2, bad / (good + bad), 0.2 - bad / (good + bad), 1.0, good, bad, **options)


def test_what_is_left_is_told_with_and_without_experiments():
    """Whether they count for the budget or not; without telling them apart nothing is known."""
    counted = budget(injected_good=5, injected_bad=5, counts_injected=True)
    assert counted.remaining_share_with_injected == pytest.approx(1 - 10 / 100 / 0.2)
    assert counted.remaining_share_without_injected == pytest.approx(1 - 5 / 90 / 0.2)
    apart = budget(injected_good=5, injected_bad=5, counts_injected=False, chaos_budget=0.1)
    assert apart.remaining_share_without_injected == pytest.approx(1 - 10 / 100 / 0.2)
    assert apart.remaining_share_with_injected == pytest.approx(1 - 15 / 110 / 0.2)
    assert apart.chaos_remaining_share == pytest.approx(1 - 5 / 110 / 0.1)
    untold = budget()
    assert untold.remaining_share_with_injected is untold.remaining_share_without_injected is untold.chaos_remaining_share is None
    nothing = budget(good=5, bad=5, injected_good=5, injected_bad=5)
    assert nothing.remaining_share_without_injected is None


def test_events_of_incidents_and_of_composites_are_told_for_both():
    """Incidents and refreshes as the objective counts them; a composite is as old as its youngest part."""
    fresh = SLO("fresh", 90.0, timedelta(days=1), freshness=60.0)
    whole = SLO("whole", 90.0, timedelta(days=1), parts={"up": 1.0, "two": 3.0})
    resilience, clock = process(availability(), availability("two"), recovery(), fresh, whole)
    guard, other = resilience.guard("g", slo="up"), resilience.guard("h", slo="two")
    good(guard, 3)
    bad(other, 2)
    assert resilience.slos.series("recovery").totals_by(injected=True) == resilience.slos.series("recovery").totals()
    series = resilience.slos.series("fresh")
    assert series.refreshed_ago is None
    resilience.slos.refreshed("fresh")
    clock.advance(7.0)
    assert series.refreshed_ago == pytest.approx(7.0)
    assert series.totals_by(injected=False) == series.totals()
    composite = resilience.slos.series("whole")
    assert composite.parts == (("up", 1.0), ("two", 3.0))
    assert composite.totals() == (3, 2)
    assert composite.totals_by(injected=False) == (3, 2)
    assert composite.totals_by(injected=True) == (3, 2)
    assert composite.age == min(resilience.slos.series(name).age for name in ("up", "two"))
    assert resilience.slos.series("up").slices() == (0, 0)


@pytest.mark.parametrize(("day", "begins"), [(date(2024, 3, 30), "2024-03-30"), (date(2026, 6, 15), "2026-06-15")])
def test_a_day_in_which_midnight_comes_twice_is_the_one_that_began_last(day, begins):
    """In Greenland clocks went back at midnight to the evening before."""
    where = "America/Godthab"
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(where)).timestamp()
    begin, end = calendar.bounds("day", where, noon)
    assert begin <= noon < end
    assert datetime.fromtimestamp(begin, ZoneInfo(where)).date().isoformat() == begins
    moment = begin
    for _ in range(100):
        moment += 900.0
        first, last = calendar.bounds("day", where, moment)
        assert first <= moment < last


# -- limits and forks -----------------------------------------------------------------------------------------------------------------


def held_by_nobody(lock):
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken == [True]


def test_locks_of_alerts_and_incidents_are_new_ones_in_a_fork():
    """The thread that held them stayed behind."""
    resilience, _ = process(availability())
    watch = alerting.Alerting(resilience.slos, resilience.clock, resilience.listeners, interval=60.0)
    slos = resilience.slos
    owners = (watch, slos.burning, slos.burning._incidents, slos.burning._incidents.durations)
    for owner in owners:
        owner._lock.acquire()
        assert not held_by_nobody(owner._lock)
    watch._forget_lock()
    assert all(held_by_nobody(owner._lock) for owner in owners)


def test_a_journal_is_written_by_its_own_process_and_in_a_folder_that_is_there(tmp_path, monkeypatch):
    """What a fork wrote would be added twice."""
    resilience, _ = process(availability())
    assert "a path in a folder that is there" in refused(_journal, resilience, tmp_path / "none" / "x").values()
    journal = _journal(resilience, tmp_path / "x.jsonl")
    good(resilience.guard("g", slo="up"), 3)
    monkeypatch.setattr(journal, "_pid", 1)
    journal.write(final=True)
    assert not (tmp_path / "x.jsonl").exists()
    monkeypatch.undo()
    journal.write(final=True)
    assert (tmp_path / "x.jsonl").exists()


def _journal(resilience, path):
    return Journal(path, service="test", instance="a", slos=resilience.slos, clock=resilience.clock, listeners=resilience.listeners)


def test_a_line_of_a_journal_that_is_longer_than_any_is_none():
    """It is not even parsed."""
    assert records._parse(b'"' + b"x" * records._LONGEST_LINE + b'"') is None


def test_an_alert_about_what_is_not_known_here_is_an_incident_without_counts():
    """Somebody else has told of it."""
    resilience, clock = process(availability())
    event = AlertFired("elsewhere", clock.time(), "page", 3_600.0, 300.0, 20.0, 14.4, None)
    resilience.slos.burning._fired(event)
    (subject,) = resilience.slos.burning._incidents._running
    assert subject.slo == "elsewhere"


def test_a_judgement_that_takes_long_is_reported_and_used(monkeypatch):
    """Every call has waited for it."""
    resilience, clock = process()
    told = []
    resilience.on(told.append)

    def judges(result, error, elapsed):
        clock.advance(probe._SLOW * 2)
        return True

    resilience.slos.add(availability(good_when=judges))
    guard = resilience.guard("g", slo="up")
    bad(guard, 1)
    assert resilience.slos.counts("up", HOUR) == (1, 0)
    assert any("the time of good_when" in getattr(event, "where", "") for event in told)


def test_groups_of_slices_are_unknown_to_a_store():
    """Only the process itself has seen the slices; the answer is found once."""
    sliced = availability(budgeting="timeslices", time_slice_window=60.0, time_slice_target=0.9)

    class Store:
        name = "somewhere"

        def read(self, slo, window):
            raise AssertionError

    asked = judge.Composed(Store(), {})
    said = asked.read_groups(sliced, HOUR)
    assert "only the process itself" in said
    assert asked.read_groups(sliced, HOUR) is said
