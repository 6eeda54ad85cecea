"""The gate on composites and groups: by their parts and one by one, the worst decides, and what is not known is not allowed."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, Decision, DeploymentPolicy, ManualClock
from somaresil.cli import main
from somaresil.integrations import prometheus_store
from somaresil.integrations._prometheus_api import Answer, Sample
from somaresil.integrations.prometheus_store import PrometheusStore
from somaresil.slo.judge import Composed, budget_of, judge
from somaresil.slo.store import GroupStore, Reading
from tests.unit.slo.kit import process

WEEK = timedelta(days=7)


class Told:
    """A store that answers as told: (good, bad), a problem, or nothing known of a name. It counts how often it is asked."""

    name = "told"

    def __init__(self, **events):
        self.events = events
        self.asked = 0

    def read(self, slo, window):
        """The same for each window."""
        self.asked += 1
        found = self.events[slo.name]
        return Reading.unknown("told", found) if isinstance(found, str) else Reading(*found, 0.9, "told", 5.0)


class Grouped(Told):
    """One that knows groups as well."""

    def __init__(self, groups, **events):
        super().__init__(**events)
        self.groups = groups

    def read_groups(self, slo, window):
        """The same for each window."""
        if isinstance(self.groups, str):
            return self.groups
        return {group: Reading(*counts, 0.9, "told", 5.0) for group, counts in self.groups.items()}


PARTS = (SLO("a", 90.0, WEEK), SLO("b", 90.0, WEEK), SLO("both", 90.0, WEEK, parts={"a": 1.0, "b": 3.0}))
COMPOSITES = [
    ({"a": (95, 5), "b": (99, 1)}, Decision.ALLOW, 8),
    ({"a": (95, 5), "b": (80, 20)}, Decision.BLOCK, 65),
    ({"a": (1_000_000, 0), "b": (80, 20)}, Decision.BLOCK, 60),
    ({"a": (2, 0), "b": (3, 0)}, Decision.UNKNOWN, 0),
    ({"a": (95, 5), "b": (0, 0)}, Decision.ALLOW, 20),
    ({"a": (95, 5), "b": "stale"}, Decision.UNKNOWN, None),
]


@pytest.mark.parametrize(("events", "decision", "per_mille"), COMPOSITES)
def test_a_composite_is_judged_by_its_parts(events, decision, per_mille):
    """By weight, not by traffic; a part of which nobody knows makes the whole unknown."""
    store = Told(**events)
    verdict = judge(PARTS[2:], Composed(store, {slo.name: slo for slo in PARTS}), DeploymentPolicy())
    assert verdict.decision is decision
    budget = verdict.evidence[0].budget
    if per_mille is None:
        assert budget.problem == "its part b: stale"
    else:
        assert budget.consumed == pytest.approx(per_mille / 400)
        assert (budget.good + budget.bad, budget.coverage) == (sum(sum(each) for each in events.values()), 0.9)
    assert store.asked <= 2 * len({budget.window, 300.0, 1_800.0, 3_600.0, 21_600.0}), "once a part and window"


def test_parts_that_nobody_names_are_unknown():
    """Not left out: the rest might look better than the whole."""
    assert budget_of(PARTS[2], Told(a=(1, 0), b=(1, 0))).problem == "its part a is not defined here"
    assert judge(PARTS, Told(a=(95, 5), b=(99, 1)), DeploymentPolicy()).decision is Decision.ALLOW
    sliced = SLO("a", 90.0, WEEK, budgeting="ratio_timeslices", time_slice_window=60.0)
    verdict = judge((sliced, *PARTS[1:]), Told(a=(95, 5), b=(99, 1)), DeploymentPolicy())
    assert [each.decision for each in verdict.evidence] == [Decision.UNKNOWN, Decision.ALLOW, Decision.UNKNOWN]


def test_each_group_is_judged_in_the_process():
    """One tenant whose budget is gone blocks although all together are well; those with too few events say nothing by themselves."""
    resilience, clock = process(SLO("up", 90.0, WEEK, group_by="tenant"))

    @resilience.guard("x", slo="up")
    def call(tenant, fine=True):
        if not fine:
            raise LookupError

    for number in range(200):
        call(f"t{number % 5}")
    for _ in range(9):
        with suppress(LookupError):
            call("few", fine=False)
    assert resilience.slos.verdict().decision is Decision.ALLOW
    for number in range(20):
        with suppress(LookupError):
            call("acme", fine=number % 2 == 0)
    verdict = resilience.slos.verdict()
    assert verdict.decision is Decision.BLOCK
    assert verdict.reasons == ("up of 'acme': -400.0% of the error budget left, less than 10% (10 bad of 20)",)
    assert [each.budget.group for each in verdict.evidence] == [None, "acme"]
    assert resilience.slos.verdict(policy=DeploymentPolicy(groups=False)).decision is Decision.ALLOW
    clock.advance(8 * 86_400.0)
    assert resilience.slos.verdict().decision is Decision.UNKNOWN


GROUPS = [
    ({"a": (99, 1), "b": (500, 0)}, Decision.ALLOW, 1),
    ({"a": (99, 1), "b": (50, 50)}, Decision.BLOCK, 2),
    ({"a": (99, 1), "few": (0, 9)}, Decision.ALLOW, 1),
    ({f"t{number}": (50, 50) for number in range(300)}, Decision.BLOCK, 21),
    ("Prometheus: no", Decision.UNKNOWN, 2),
]


@pytest.mark.parametrize(("groups", "decision", "evidence"), GROUPS)
def test_each_group_is_judged_by_a_store(groups, decision, evidence):
    """The worst decides; of many that are bad the worst are shown."""
    slo = SLO("up", 90.0, WEEK, group_by="tenant")
    store = Grouped(groups, up=(9_900, 100))
    assert isinstance(store, GroupStore)
    resilience, _ = process(slo)
    for verdict in (judge((slo,), store, DeploymentPolicy()), resilience.slos.verdict(store=store)):
        assert (verdict.decision, len(verdict.evidence)) == (decision, evidence)


def test_a_store_without_groups_makes_them_unknown():
    """Unless the policy judges the whole alone."""
    slo = SLO("up", 90.0, WEEK, group_by="tenant")
    verdict = judge((slo,), Told(up=(99, 1)), DeploymentPolicy())
    assert verdict.decision is Decision.UNKNOWN
    assert "knows nothing of its groups" in verdict.reasons[0]
    assert judge((slo,), Told(up=(99, 1)), DeploymentPolicy(groups=False)).decision is Decision.ALLOW


NOW = 1_700_000_000.0
WHOLE = [({"part": "good"}, 99.0), ({"part": "bad"}, 1.0), ({"part": "newest"}, NOW - 5.0), ({"part": "seen"}, 361.0)]
GROUP = [({"group": "a", "outcome": "good"}, 90.0), ({"group": "a", "outcome": "bad"}, 1.2), ({"group": "b", "outcome": "good"}, 9.0)]


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        (GROUP, {"a": (90, 1), "b": (9, 0)}),
        ([], "none of its groups"),
        ([*GROUP, ({"group": "c", "outcome": "good"}, float("nan"))], "no number of events"),
        ([*GROUP, GROUP[0]], "not asked for"),
        ([*GROUP, ({"group": "c", "outcome": "ugly"}, 1.0)], "not asked for"),
        ("partial", "partial"),
        (TimeoutError("no answer within 10 s"), "no answer"),
    ],
)
def test_groups_in_prometheus(monkeypatch, groups, found):
    """One question for all groups of a window; what is not whole and finite is not known."""
    queries = []

    def answers(url, query, timeout, authorization):
        queries.append(query)
        given = WHOLE if "label_replace" in query else groups
        if isinstance(given, Exception):
            raise given
        partial = given == "partial"
        return Answer(tuple(Sample(labels, NOW, value) for labels, value in (GROUP if partial else given)), partial)

    monkeypatch.setattr(prometheus_store, "ask_server", answers)
    store = PrometheusStore("http://127.0.0.1:1", labels={"job": "x"}, clock=ManualClock(time=NOW))
    said = store.read_groups(SLO("up", 90.0, WEEK, group_by="tenant"), 3_600.0)
    assert queries[-1] == 'sum by (group, outcome) (increase(somaresil_sli_group_events_total{slo="up",job="x"}[3600s]))'
    if isinstance(found, str):
        assert isinstance(said, str)
        assert found in said
    else:
        assert {group: (reading.good, reading.bad) for group, reading in said.items()} == found
        assert {reading.age for reading in said.values()} == {5.0}


def test_the_command_judges_composites_and_refuses_parts_that_are_not_there(tmp_path, capsys):
    """With --only too: the parts are known although they are not judged. Snapshots know no groups."""
    file = tmp_path / "slo.toml"
    file.write_text(
        "[gate]\nminimum_coverage = 0.0\n[slos.a]\ntarget_percentage = 90\nmeasurement_window = '7d'\n"
        "[slos.both]\ntarget_percentage = 90\nmeasurement_window = '7d'\nparts = { a = 1.0 }\n"
        "[slos.by]\ntarget_percentage = 90\nmeasurement_window = '7d'\ngroup_by = 'header:x-tenant'\n"
    )
    from somaresil import Resilience
    from somaresil.slofile import read_slos

    resilience = Resilience("x", slo_snapshot=tmp_path / "kept")
    resilience.slos.add(*read_slos(file).slos)
    guard = resilience.guard("g", slo=["both", "by"])
    for _ in range(20):
        guard.call(int)
    resilience.slos.snapshot.save()
    ask = ["gate", "--slo", str(file), "--snapshot", str(tmp_path / "kept")]
    assert main([*ask, "--only", "both"]) == 0
    assert "20 good, 0 bad" in capsys.readouterr().out
    assert main(ask) == 2
    assert "knows nothing of its groups" in capsys.readouterr().out
    file.write_text(file.read_text().replace("minimum_coverage = 0.0", "minimum_coverage = 0.0\ngroups = false"))
    assert main(ask) == 0
    file.write_text(file.read_text().replace("a = 1.0", "A = 1.0"))
    assert main(ask) == 3
    assert "did you mean 'a'" in capsys.readouterr().err
