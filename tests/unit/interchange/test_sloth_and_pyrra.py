"""Specs of Sloth and Pyrra: what they become, and what is told or refused."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from somaresil.interchange import dump_toml, import_slos, import_text
from somaresil.model.slo import burn_threshold
from somaresil.slo.rules import Queries, RuleOptions, compile_rules
from somaresil.slofile import read_slos
from tests.unit.interchange.kit import PYRRA, SLOTH, changed, problems, read, text_of

SLO_ = (0, "slos", 0)
EVENTS = (0, "slos", 0, "sli", "events")


def factors(slo):
    """Burn rates of its windows, long and short window, severity."""
    return [
        (round(float(burn_threshold(each.budget_share, slo.period, each.long)), 6), each.long, each.short, each.severity)
        for each in slo.burn_policy.windows
    ]


def test_a_spec_of_sloth():
    """Queries as they are, and its alerts at 30 days."""
    found = read("sloth", [SLOTH])
    (slo,) = found.file.slos
    assert found.notes == ()
    assert (slo.name, slo.target_percentage, slo.measurement_window) == ("availability", 99.9, timedelta(days=30))
    assert factors(slo) == [
        (14.4, 3_600.0, 300.0, "page"),
        (6.0, 21_600.0, 1_800.0, "page"),
        (3.0, 86_400.0, 7_200.0, "ticket"),
        (1.0, 259_200.0, 21_600.0, "ticket"),
    ]
    events = SLOTH["slos"][0]["sli"]["events"]
    assert found.file.sources == {"availability": Queries(events["error_query"], events["total_query"])}
    assert found.file.services == {"availability": "shop"}
    (slo,) = read("sloth", [SLOTH], period=timedelta(days=28)).file.slos
    assert [factor for factor, *_ in factors(slo)] == [13.44, 5.6, 2.8, 0.933333]


def test_other_periods_are_told():
    """Sloth has none of its own for them."""
    (note,) = read("sloth", [SLOTH], period=timedelta(days=7)).notes
    assert "28 and 30 days alone" in note


def test_the_guide_shows_what_is_written():
    """The spec on the page, and the file that becomes of it."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "openslo.md").read_text(encoding="utf-8")
    spec = re.search(r'"""\n(version: prometheus/v1\n.*?)"""', page, re.DOTALL)[1]
    assert re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1] == dump_toml(import_text(spec, "sloth").file)


def test_a_query_of_several_lines():
    """What takes too long is what is not in a bucket; comments of it are no part of what is written."""
    query = """
(
  sum(rate(h_count{verb!="WATCH"}[{{.window}}]))   # all
  -
  sum(rate(h_bucket{le="0.4",verb!="WATCH"}[{{.window}}]))
)"""
    (source,) = read("sloth", changed([SLOTH], ((*EVENTS, "error_query"), query))).file.sources.values()
    assert source.bad_query == query.strip()
    assert "#" not in source.bad(300.0)
    assert source.rates is True


def test_alerts_that_are_disabled():
    """One leaves the other; both leave what an objective has by default, and that is told."""
    page = changed([SLOTH], ((*SLO_, "alerting", "ticket_alert"), {"disable": True}))
    assert [severity for *_, severity in factors(read("sloth", page).file.slos[0])] == ["page", "page"]
    none = changed(page, ((*SLO_, "alerting", "page_alert"), {"disable": True}))
    found = read("sloth", none)
    assert found.file.slos[0].error_budget_policy == "fast_burn_alert"
    assert "disabled" in found.notes[0]


def test_what_is_not_carried_over_is_told():
    """Labels, annotations and names of alerts, each with its path."""
    more = {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    documents = changed(
        [SLOTH],
        ((0, "labels"), {"owner": "us"}),
        ((*SLO_, "labels"), {"tier": "1"}),
        ((*SLO_, "alerting"), {"name": "Broken", **more, "page_alert": more}),
    )
    told = [note.partition("spec: ")[2].partition(": ")[0] for note in read("sloth", documents).notes]
    at = "slos.0.alerting"
    assert told == [
        "labels",
        "slos.0.labels",
        f"{at}.name",
        f"{at}.labels",
        f"{at}.annotations",
        f"{at}.page_alert.labels",
        f"{at}.page_alert.annotations",
    ]


def test_services_keep_objectives_of_one_name_apart():
    """Two specs in a file."""
    found = read("sloth", [SLOTH, {**SLOTH, "service": "store"}])
    assert [slo.name for slo in found.file.slos] == ["shop-availability", "store-availability"]
    assert len([note for note in found.notes if "is called" in note]) == 2
    assert problems("sloth", [SLOTH, SLOTH]) == ["document 2: slos.0"]


@pytest.mark.parametrize(
    ("queries", "rates"),
    [
        (("sum(rate(a[{{.window}}]))", "sum(irate(b[{{.window}}]))"), True),
        (("sum(increase(a[{{.window}}]))", "count_over_time(b[{{.window}}])"), False),
        (('sum(increase(a{b="rate("}[{{.window}}]))', "increase(b[{{.window}}])"), False),
        (("sum(a:rate{{.window}})", "sum(b:rate{{.window}})"), True),
    ],
)
def test_rates_and_counts_are_told_apart(queries, rates):
    """By the functions that they ask with."""
    documents = changed([SLOTH], (EVENTS, dict(zip(("error_query", "total_query"), queries, strict=True))))
    assert read("sloth", documents).file.sources["availability"].rates is rates


SLOTH_WRONG = {
    "another version": (((0, "version"), "prometheus/v2"), "version"),
    "a service level of Kubernetes": (((0, "apiVersion"), "sloth.slok.dev/v1"), "apiVersion"),
    "no service": (((0, "service"), ...), ""),
    "a service that is no label": (((0, "service"), "my shop"), "service"),
    "a name that is no label": (((*SLO_, "name"), "my slo"), "slos.0.name"),
    "no objectives": (((0, "slos"), []), "slos"),
    "an objective of all": (((*SLO_, "objective"), 100), "slos.0.objective"),
    "an objective of nothing": (((*SLO_, "objective"), 0), "slos.0.objective"),
    "a text": (((*SLO_, "objective"), "99.9"), "slos.0.objective"),
    "no name": (((*SLO_, "name"), ...), "slos.0"),
    "a ratio": (((*SLO_, "sli"), {"raw": {"error_ratio_query": "a[{{.window}}]"}}), "slos.0.sli.raw"),
    "a plugin": (((*SLO_, "sli"), {"plugin": {"id": "a"}}), "slos.0.sli.plugin"),
    "no indicator": (((*SLO_, "sli"), {}), "slos.0.sli"),
    "a query without a window": (((*EVENTS, "error_query"), "sum(a)"), "slos.0.sli.events.error_query"),
    "a query that closes what is around it": (((*EVENTS, "error_query"), "a[{{.window}}]) or (b"), "slos.0.sli.events.error_query"),
    "another template": (((*EVENTS, "total_query"), "a{b='{{.service}}'}[{{.window}}]"), "slos.0.sli"),
    "a misspelt name": (((*SLO_, "objectve"), 1), "slos.0.objectve"),
}


@pytest.mark.parametrize("how", SLOTH_WRONG)
def test_specs_of_sloth_that_are_refused(how):
    """With the path."""
    change, path = SLOTH_WRONG[how]
    (found,) = problems("sloth", changed([SLOTH], change))
    assert found.startswith(f"spec: {path}" if path else "spec")


# -- Pyrra --------------------------------------------------------------------------------------------------------------------------------


def test_a_spec_of_pyrra():
    """Its factors and its windows, which go with the period."""
    found = read("pyrra", [PYRRA])
    (slo,) = found.file.slos
    assert (slo.name, slo.target_percentage, slo.measurement_window) == ("answers", 99.5, timedelta(days=28))
    assert factors(slo) == [
        (14.0, 3_600.0, 300.0, "page"),
        (7.0, 21_600.0, 1_800.0, "page"),
        (2.0, 86_400.0, 7_200.0, "ticket"),
        (1.0, 345_600.0, 21_600.0, "ticket"),
    ]
    (slo,) = read("pyrra", changed([PYRRA], ((0, "spec", "window"), "7d"))).file.slos
    assert [(long, short) for _, long, short, _ in factors(slo)] == [(900, 60), (5_400, 480), (21_600, 1_800), (86_400, 5_400)]
    assert found.file.sources["answers"] == Queries(
        'sum(increase(http_requests_total{job="shop",code=~"5.."}[{{.window}}]))',
        'sum(increase(http_requests_total{job="shop"}[{{.window}}]))',
        rates=False,
    )


def test_a_target_may_be_a_number():
    """As it is written in the wild, and as Go reads it."""
    for target in ("99", 99, 99.0):
        assert read("pyrra", changed([PYRRA], ((0, "spec", "target"), target))).file.slos[0].target_percentage == 99.0


def test_what_is_not_carried_over_from_pyrra_is_told():
    """Its groups, its names of alerts, its metadata, and what it alone can do."""
    documents = changed(
        [PYRRA],
        ((0, "metadata"), {"name": "answers", "namespace": "monitoring", "labels": {"role": "rules"}}),
        ((0, "spec", "alerting"), {"name": "X", "absentName": "Y", "absent": False, "burnRateType": "dynamic"}),
        ((0, "spec", "partial_response_strategy"), "warn"),
        ((0, "spec", "indicator", "ratio", "grouping"), ["handler"]),
    )
    told = [note.partition("answers")[2].removeprefix(": ").partition(": ")[0] for note in read("pyrra", documents).notes]
    at = "spec.alerting"
    assert told[:-1] == [
        "metadata.namespace",
        "metadata.labels",
        "spec.partial_response_strategy",
        "spec.indicator.ratio.grouping",
        f"{at}.name",
        f"{at}.absentName",
        f"{at}.absent",
        f"{at}.burnRateType",
    ]
    off = read("pyrra", changed([PYRRA], ((0, "spec", "alerting"), {"burnrates": False})))
    assert off.file.slos[0].error_budget_policy == "fast_burn_alert"
    assert "disabled" in off.notes[0]


INDICATORS = {
    "latency": (
        {"success": {"metric": 'h_bucket{le="0.1"}'}, "total": {"metric": "h_count"}},
        'sum(increase(h_bucket{le="0.1"}[{{.window}}]))',
        "sum(increase(h_count[{{.window}}]))",
    ),
    "latencyNative": (
        {"latency": "200ms", "total": {"metric": "h"}},
        "histogram_fraction(0, 0.2, sum(increase(h[{{.window}}]))) * histogram_count(sum(increase(h[{{.window}}])))",
        "histogram_count(sum(increase(h[{{.window}}])))",
    ),
    "bool_gauge": (
        {"metric": "up{job='a'}"},
        "sum(sum_over_time(up{job='a'}[{{.window}}]))",
        "sum(count_over_time(up{job='a'}[{{.window}}]))",
    ),
}


@pytest.mark.parametrize("kind", INDICATORS)
def test_indicators_of_pyrra(kind):
    """Each as good and all events."""
    given, good, total = INDICATORS[kind]
    (source,) = read("pyrra", changed([PYRRA], ((0, "spec", "indicator"), {kind: given}))).file.sources.values()
    assert (source.good_query, source.total_query, source.rates) == (good, total, False)


PYRRA_WRONG = {
    "a word": (((0, "spec", "target"), "high"), "spec.target"),
    "NaN": (((0, "spec", "target"), float("nan")), "spec.target"),
    "a target of all": (((0, "spec", "target"), "100"), "spec.target"),
    "no window": (((0, "spec", "window"), ...), "spec"),
    "a period that is too long": (((0, "spec", "window"), "1y"), "spec.window"),
    "no indicator": (((0, "spec", "indicator"), {}), "spec.indicator"),
    "an expression": (((0, "spec", "indicator", "ratio", "errors", "metric"), "a + b"), "spec.indicator.ratio.errors.metric"),
    "another kind": (((0, "kind"), "List"), "kind"),
    "no name": (((0, "metadata"), {}), "metadata"),
    "a name that is no label": (((0, "metadata", "name"), "a b"), "metadata.name"),
}


@pytest.mark.parametrize("how", PYRRA_WRONG)
def test_specs_of_pyrra_that_are_refused(how):
    """With the path."""
    change, path = PYRRA_WRONG[how]
    found = problems("pyrra", changed([PYRRA], change))
    assert found
    assert all(path in each for each in found)


def test_a_day_of_pyrra_has_windows():
    """It makes a short window of nothing of it; ours has ten seconds at least."""
    (slo,) = read("pyrra", changed([PYRRA], ((0, "spec", "window"), "1d"))).file.slos
    assert min(short for _, _, short, _ in factors(slo)) >= 10.0


# -- both ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "document"), [("sloth", SLOTH), ("pyrra", PYRRA)])
def test_imported_objectives_have_rules(form, document, tmp_path):
    """By way of a file of ours."""
    (tmp_path / "in.yaml").write_text(text_of([document]))
    (tmp_path / "slo.toml").write_text(dump_toml(import_slos(tmp_path / "in.yaml", form).file))
    file = read_slos(tmp_path / "slo.toml")
    options = RuleOptions(retention=timedelta(days=40), sloth=True)
    (text,) = compile_rules(file.slos, options, sources=file.sources, services=file.services).files.values()
    assert "http_requests_total" in text
    assert "somaresil_sli_events_total" not in text


def test_files_that_are_none():
    """No document, another format, an alias."""
    for text, form in (("", "sloth"), ("a: &x 1\nb: *x", "pyrra"), ("a: 1", "sloth"), ("a: 1", "pyrra"), ("a: 1", "openslo")):
        with pytest.raises(Exception, match="problem"):
            import_text(text, form)
    with pytest.raises(Exception, match="form"):
        import_text(text_of([SLOTH]), "slothh")
