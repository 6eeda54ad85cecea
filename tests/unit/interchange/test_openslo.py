"""OpenSLO v1: what its documents become, what is refused with the path of every problem, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import yaml

from somaresil import SLO, ConfigurationError
from somaresil.interchange import dump_openslo, import_text
from somaresil.model.slo import BurnPolicy, Window
from somaresil.slo.rules import Queries
from somaresil.slofile import read_slos
from tests.unit.interchange.kit import OPENSLO, changed, document, metric, problems, read, text_of

SPEC = (0, "spec")
OBJECTIVE = (0, "spec", "objectives", 0)
RATIO = (1, "spec", "ratioMetric")


def test_documents_that_name_one_another_become_an_objective():
    """An indicator, a data source, a policy and its condition, in any order."""
    for documents in (OPENSLO, OPENSLO[::-1]):
        found = read("openslo", documents)
        (slo,) = found.file.slos
        assert (slo.name, slo.target_percentage, slo.measurement_window) == ("availability", 99.9, timedelta(days=28))
        assert slo.burn_policy == BurnPolicy("openslo", (Window(3_600.0, 300.0, 0.02, "page"),))
        assert found.file.services == {"availability": "shop"}
        assert found.file.sources == {
            "availability": Queries(
                "",
                "sum(increase(http_requests_total[{{.window}}]))",
                rates=False,
                good_query='sum(increase(http_requests_total{code!~"5.."}[{{.window}}]))',
            )
        }
    told = [note.partition(": ")[2].partition(": not carried over")[0] for note in read("openslo", OPENSLO).notes]
    assert told == [
        "SLO availability: spec.objectives.0.displayName",
        "DataSource fleet",
        "AlertNotificationTarget phone: spec",
        "AlertCondition burns: spec.condition.alertAfter",
    ]


@pytest.mark.parametrize(
    ("calendar", "unit", "zone"),
    [
        (("1d", "2026-03-05 00:00:00"), "day", "UTC"),
        (("1w", "2026-03-02 00:00:00"), "week", "Europe/Berlin"),
        (("1M", "2020-02-01 00:00:00"), "month", "America/New_York"),
        (("1Q", "2020-04-01 00:00:00"), "quarter", "Asia/Kolkata"),
        (("3M", "2020-01-01"), "quarter", "UTC"),
        (("1Y", "2020-01-01 00:00:00"), "year", "UTC"),
    ],
)
def test_calendar_windows(calendar, unit, zone):
    """From the beginning of a unit, by the clocks of a zone; YAML may make a date of the start."""
    window = {"duration": calendar[0], "calendar": {"startTime": calendar[1], "timeZone": zone}}
    text = text_of(changed(OPENSLO, ((*SPEC, "timeWindow"), [window]), ((*SPEC, "alertPolicies"), [])))
    for written in (text, text.replace(f"'{calendar[1]}'", calendar[1])):
        (slo,) = import_text(written, "openslo").file.slos
        assert (slo.calendar, slo.time_zone, slo.measurement_window) == (unit, zone, None)


def test_slices():
    """A number is one of minutes; slices are known to the process alone, so an indicator of others cannot have them."""
    ours = {
        "ratioMetric": {
            "good": metric('somaresil_sli_events_total{slo="availability",outcome="good"}'),
            "total": metric('somaresil_sli_events_total{slo="availability"}'),
        }
    }
    for objective, kind, target in (
        ({"target": 0.99, "timeSliceWindow": 1, "timeSliceTarget": 0.95}, "Timeslices", 0.95),
        ({"target": 0.99, "timeSliceWindow": "1m"}, "RatioTimeslices", None),
    ):
        slices = changed(OPENSLO, ((*SPEC, "budgetingMethod"), kind), (OBJECTIVE, objective))
        found = read("openslo", changed(slices, ((1, "spec"), ours)))
        (slo,) = found.file.slos
        assert (slo.time_slice_window, slo.time_slice_target, found.file.sources) == (60.0, target, {})
        assert problems("openslo", slices) == ["SLI requests: spec"]


def test_a_threshold_is_looked_at_once_a_minute():
    """Each minute is an event, good when the comparison holds."""
    documents = changed(
        OPENSLO,
        ((1, "spec"), {"thresholdMetric": metric("avg(latency_seconds)")}),
        (OBJECTIVE, {"op": "lte", "value": 0.5, "targetPercent": 95}),
    )
    (source,) = read("openslo", documents).file.sources.values()
    assert source.good_query == "count_over_time(((avg(latency_seconds)) <= 0.5)[{{.window}}:1m])"
    assert source.total_query == "count_over_time((avg(latency_seconds))[{{.window}}:1m])"
    assert problems("openslo", changed(documents, (OBJECTIVE, {"target": 0.9}))) == [
        "SLO availability: spec.objectives.0.op",
        "SLO availability: spec.objectives.0.value",
    ]


@pytest.mark.parametrize(
    ("query", "counter", "found"),
    [
        ("up{a='b'}", True, "sum(increase(up{a='b'}[{{.window}}]))"),
        ("sum by (job) ((up offset 5m))", None, "sum(increase(up[{{.window}} offset 5m]))".replace("}} offset 5m]", "}}] offset 5m")),
        ("sum(up) by (job)", True, "sum(increase(up[{{.window}}]))"),
        ('{__name__="up"}', True, 'sum(increase({__name__="up"}[{{.window}}]))'),
        ("sum(errors)", False, "sum(sum_over_time(errors[{{.window}}]))"),
        ('sum(rate(up{a="[5m]"}[5m])) # [1h]', True, 'sum(rate(up{a="[5m]"}[{{.window}}]))'),
        ("sum(increase(up[$__range]))", False, "sum(increase(up[{{.window}}]))"),
        ("sum(rate(up[{{ .window }}]))", False, "sum(rate(up[{{ .window }}]))"),
    ],
)
def test_queries_that_are_understood(query, counter, found):
    """A selector of a counter or a sum of one; increases of one range; what has its window already."""
    documents = changed(OPENSLO, (RATIO, {"bad": metric(query), "total": metric("sum(increase(t[5m]))"), "counter": counter}))
    if "rate(" in query:
        documents = changed(documents, ((*RATIO, "total"), metric("sum(rate(t[5m]))")))
    (source,) = read("openslo", documents).file.sources.values()
    assert source.bad_query == found


@pytest.mark.parametrize(
    "query",
    ["up / down", "sum(up) + 1", "rate(up[5m]) / rate(up[1h])", "max_over_time(up[5m])", "rate(up[5m:1m])", "{{.service}}", "max(up)"],
)
def test_queries_that_are_not_are_refused(query):
    """Never guessed at; with ``partial`` they are left out, and told."""
    documents = changed(OPENSLO, ((*RATIO, "total"), metric(query)))
    assert problems("openslo", documents) == ["SLI requests: spec.ratioMetric.total.metricSource.spec"]
    second = document("SLO", "second", {**OPENSLO[0]["spec"], "indicatorRef": "more"})
    whole = [*documents, second, document("SLI", "more", OPENSLO[1]["spec"])]
    found = read("openslo", whole, partial=True)
    assert [slo.name for slo in found.file.slos] == ["second"]
    assert [note for note in found.notes if note.startswith("left out: a.yaml")]
    assert problems("openslo", documents, partial=True) == ["objectives"]


UNFIT = {
    "a threshold on a window": (
        ((1, "spec"), {"thresholdMetric": metric("avg_over_time(a[{{.window}}])")}),
        "SLI requests: spec.thresholdMetric",
    ),
    "a ratio without events": ((RATIO, {"raw": metric("x"), "rawType": "success"}), "SLI requests: spec.ratioMetric.raw"),
    "another language": (((2, "spec", "type"), "Datadog"), "SLI requests: spec.ratioMetric.good.metricSource.type"),
    "a condition that fires while all is well": (((5, "spec", "condition", "op"), "lte"), "AlertCondition burns: spec.condition.op"),
    "a period that is too long": (((*SPEC, "timeWindow", 0, "duration"), "1Y"), "SLO availability: spec.timeWindow.0.duration"),
    "a name that is no label": (((0, "metadata", "name"), "my slo"), "SLO my slo: metadata.name"),
    "a service that is no label": (((*SPEC, "service"), "my shop"), "SLO availability: spec.service"),
    "a target of nothing": (((*OBJECTIVE, "target"), 0), "SLO availability: spec.objectives.0.target"),
    "a month from its middle": (
        ((*SPEC, "timeWindow"), [{"duration": "1M", "calendar": {"startTime": "2026-01-15 00:00:00", "timeZone": "UTC"}}]),
        "SLO availability: spec.timeWindow.0.calendar.startTime",
    ),
    "two months": (
        ((*SPEC, "timeWindow"), [{"duration": "2M", "calendar": {"startTime": "2026-01-01 00:00:00", "timeZone": "UTC"}}]),
        "SLO availability: spec.timeWindow.0.duration",
    ),
    "a window longer than the period": (((*SPEC, "timeWindow", 0, "duration"), "30m"), "AlertCondition burns: spec.condition"),
}


@pytest.mark.parametrize("how", UNFIT)
def test_what_is_valid_and_cannot_be_said_here_is_a_problem(how):
    """With the path of what says it, and left out by ``partial`` alone."""
    change, path = UNFIT[how]
    documents = changed(OPENSLO, change, ((*OBJECTIVE, "op"), "lte"), ((*OBJECTIVE, "value"), 1))
    assert path in problems("openslo", documents)
    sli = {"ratioMetric": {"good": metric("a"), "total": metric("b"), "counter": True}}
    inline = {"indicatorRef": None, "indicator": {"metadata": {"name": "x"}, "spec": sli}, "alertPolicies": []}
    window = [{"duration": "4w", "isRolling": True}]
    second = document("SLO", "second", {**OPENSLO[0]["spec"], **inline, "timeWindow": window})
    if "service" not in how:
        assert [slo.name for slo in read("openslo", [*documents, second], partial=True).file.slos][-1:] == ["second"]


WRONG = {
    "no version": (((0, "apiVersion"), ...), ["SLO availability: apiVersion"]),
    "an old version": (((0, "apiVersion"), "openslo/v1alpha"), ["SLO availability: apiVersion"]),
    "an unknown kind": (((3, "kind"), "Servce"), ["Servce shop: kind"]),
    "a kind that is none": (((3, "kind"), []), ["document 4: kind"]),
    "no name": (((3, "metadata", "name"), ...), ["document 4: metadata"]),
    "a misspelt name": (((*SPEC, "timeWindows"), []), ["SLO availability: spec.timeWindows"]),
    "no objectives": (((*SPEC, "objectives"), []), ["SLO availability: spec.objectives"]),
    "both targets": (((*OBJECTIVE, "targetPercent"), 99), ["SLO availability: spec.objectives.0"]),
    "a target of everything": (((*OBJECTIVE, "target"), 1.0), ["SLO availability: spec.objectives.0.target"]),
    "a percentage as a target": (((*OBJECTIVE, "target"), 99.9), ["SLO availability: spec.objectives.0.target"]),
    "NaN": (((*OBJECTIVE, "target"), float("nan")), ["SLO availability: spec.objectives.0.target"]),
    "a text": (((*OBJECTIVE, "target"), "0.99"), ["SLO availability: spec.objectives.0.target"]),
    "no window": (((*SPEC, "timeWindow"), ...), ["SLO availability: spec.timeWindow"]),
    "two windows": (((*SPEC, "timeWindow"), [{"duration": "1d", "isRolling": True}] * 2), ["SLO availability: spec.timeWindow"]),
    "a window that does neither": (((*SPEC, "timeWindow"), [{"duration": "1d"}]), ["SLO availability: spec.timeWindow.0"]),
    "a length that is none": (((*SPEC, "timeWindow", 0, "duration"), "0d"), ["SLO availability: spec.timeWindow.0.duration"]),
    "a length with a blank": (((*SPEC, "timeWindow", 0, "duration"), "1 d"), ["SLO availability: spec.timeWindow.0.duration"]),
    "an unknown method": (((*SPEC, "budgetingMethod"), "Occurences"), ["SLO availability: spec.budgetingMethod"]),
    "slices without a length": (
        ((*SPEC, "budgetingMethod"), "Timeslices"),
        [
            "SLO availability: spec.objectives.0.timeSliceWindow",
            "SLO availability: spec.objectives.0.timeSliceTarget",
            "SLI requests: spec",
        ],
    ),
    "a zone that is none": (
        ((*SPEC, "timeWindow"), [{"duration": "1M", "calendar": {"startTime": "2026-01-01 00:00:00", "timeZone": "Mars/Base"}}]),
        ["SLO availability: spec.timeWindow.0.calendar.timeZone"],
    ),
    "a start with a zone": (
        ((*SPEC, "timeWindow"), [{"duration": "1M", "calendar": {"startTime": "2026-01-01T00:00:00Z", "timeZone": "UTC"}}]),
        ["SLO availability: spec.timeWindow.0.calendar.startTime"],
    ),
    "both indicators": (((*SPEC, "indicator"), {"metadata": {"name": "x"}, "spec": {}}), ["SLO availability: spec"]),
    "no indicator": (((*SPEC, "indicatorRef"), ...), ["SLO availability: spec"]),
    "an indicator that is not there": (((*SPEC, "indicatorRef"), "request"), ["SLO availability: spec.indicatorRef"]),
    "a policy that is not there": (
        ((*SPEC, "alertPolicies", 0, "alertPolicyRef"), "x"),
        ["SLO availability: spec.alertPolicies.0.alertPolicyRef"],
    ),
    "a condition that is not there": (
        ((4, "spec", "conditions", 0, "conditionRef"), "x"),
        ["AlertPolicy fast: spec.conditions.0.conditionRef"],
    ),
    "two conditions": (((4, "spec", "conditions"), [{"conditionRef": "burns"}] * 2), ["AlertPolicy fast: spec.conditions"]),
    "a source that is not there": (
        ((*RATIO, "good", "metricSource", "metricSourceRef"), "x"),
        ["SLI requests: spec.ratioMetric.good.metricSource.metricSourceRef"],
    ),
    "no source": (
        ((*RATIO, "good", "metricSource", "metricSourceRef"), ...),
        ["SLI requests: spec.ratioMetric.good.metricSource.type"],
    ),
    "good and bad": (((*RATIO, "bad"), metric("x")), ["SLI requests: spec.ratioMetric"]),
    "no total": (((*RATIO, "total"), ...), ["SLI requests: spec.ratioMetric"]),
    "raw of an unknown kind": ((RATIO, {"raw": metric("x")}), ["SLI requests: spec.ratioMetric.rawType"]),
    "both kinds of metrics": (((1, "spec", "thresholdMetric"), metric("x")), ["SLI requests: spec"]),
    "no metric": (((1, "spec"), {}), ["SLI requests: spec"]),
    "raw and total": (((*RATIO, "raw"), metric("x")), ["SLI requests: spec.ratioMetric"]),
    "a kind of raw without raw": (((*RATIO, "rawType"), "success"), ["SLI requests: spec.ratioMetric.rawType"]),
    "a type that is not that of the source": (
        ((*RATIO, "good", "metricSource", "type"), "Datadog"),
        ["SLI requests: spec.ratioMetric.good.metricSource.type"],
    ),
    "a policy by name and written out": (
        ((*SPEC, "alertPolicies", 0, "spec"), OPENSLO[4]["spec"]),
        ["SLO availability: spec.alertPolicies.0"],
    ),
    "a policy that is neither": (((*SPEC, "alertPolicies"), [{}]), ["SLO availability: spec.alertPolicies.0"]),
    "a start that is no time": (
        ((*SPEC, "timeWindow"), [{"duration": "1M", "calendar": {"startTime": "today", "timeZone": "UTC"}}]),
        ["SLO availability: spec.timeWindow.0.calendar.startTime"],
    ),
    "a share that is no number in the annotation": (
        (
            (0, "metadata", "annotations"),
            {"somaresil/options": '{"error_budget_policy": {"name": "x", "windows": [{"budget_share": "much", "long": 9}]}}'},
        ),
        ["SLO availability: metadata.annotations.somaresil/options"] * 3,
    ),
    "no query": (((*RATIO, "total", "metricSource", "spec"), {"sql": "x"}), ["SLI requests: spec.ratioMetric.total.metricSource.spec"]),
    "an open bracket": (
        ((*RATIO, "total"), metric("sum(x")),
        ["SLI requests: spec.ratioMetric.total.metricSource.spec.query"],
    ),
    "a long query": (((*RATIO, "total"), metric("x" * 3_000)), ["SLI requests: spec.ratioMetric.total.metricSource.spec.query"]),
    "a weight without indicator": (((*OBJECTIVE, "compositeWeight"), 1), ["SLO availability: spec.objectives.0.compositeWeight"]),
    "an annotation that is no JSON": (((0, "metadata", "annotations"), {"somaresil/options": "["}), None),
    "an annotation of depth": (((0, "metadata", "annotations"), {"somaresil/options": "[" * 50_000}), None),
    "an annotation with a misspelt option": (
        ((0, "metadata", "annotations"), {"somaresil/options": '{"latncy": 2}'}),
        ["SLO availability: metadata.annotations.somaresil/options"],
    ),
    "a name that is no text in the annotation": (((0, "metadata", "annotations"), {"somaresil/options": '{"name": []}'}), None),
}


@pytest.mark.parametrize("how", WRONG)
def test_invalid_documents_are_refused_by_path(how):
    """Also with ``partial``: that leaves out what we cannot say, not what is wrong."""
    change, paths = WRONG[how]
    documents = changed(OPENSLO, change)
    paths = ["SLO availability: metadata.annotations.somaresil/options"] if paths is None else paths
    assert problems("openslo", documents) == paths
    assert set(problems("openslo", documents, partial=True)) <= {*paths, "objectives"}


def test_every_problem_of_all_documents_is_told_at_once():
    """With file and line."""
    documents = changed(
        OPENSLO,
        ((*OBJECTIVE, "target"), 2),
        ((*SPEC, "budgetingMethod"), "None"),
        ((5, "spec", "condition", "threshold"), "much"),
        ((6, "spec"), {"targett": "x"}),
    )
    documents.append(OPENSLO[3])
    with pytest.raises(ConfigurationError) as caught:
        read("openslo", documents)
    lines = text_of(documents).split("\n")
    assert [problem.path.split(": ", 1)[1] for problem in caught.value.problems] == [
        "SLO availability: spec.budgetingMethod",
        "SLO availability: spec.objectives.0.target",
        "AlertCondition burns: spec.condition.threshold",
        "AlertNotificationTarget phone: spec",
        "AlertNotificationTarget phone: spec.targett",
        "Service shop: metadata.name",
    ]
    for problem in caught.value.problems:
        line = int(problem.path.split(":")[1])
        key = problem.path.rpartition(": ")[2].rpartition(".")[2]
        assert f"{key}:" in lines[line - 1]


def test_several_objectives_are_several():
    """Each with a number; the annotation is that of a document with one."""
    documents = changed(OPENSLO, ((*SPEC, "objectives"), [{"target": 0.9}, {"targetPercent": 99.5}]))
    assert [(slo.name, slo.target_percentage) for slo in read("openslo", documents).file.slos] == [
        ("availability-1", 90.0),
        ("availability-2", 99.5),
    ]


# -- composites ---------------------------------------------------------------------------------------------------------------------------


def ours(name):
    """An indicator that is our own counter."""
    counter = "somaresil_sli_events_total"
    return {"ratioMetric": {"good": metric(f'{counter}{{slo="{name}",outcome="good"}}'), "total": metric(f'{counter}{{slo="{name}"}}')}}


def composite(*objectives):
    """A document over several indicators."""
    window = [{"duration": "30d", "isRolling": True}]
    return document("SLO", "whole", {"service": "s", "timeWindow": window, "budgetingMethod": "Occurrences", "objectives": [*objectives]})


def inline(name, **more):
    """An objective with an indicator of its own."""
    return {"indicator": {"metadata": {"name": name}, "spec": ours(name)}, **more}


def test_a_composite_is_one_over_its_parts():
    """Parts that have no document of their own become objectives; as a whole it has the mean of their targets by weight."""
    found = read("openslo", [composite(inline("whole-1", target=0.9, compositeWeight=3), inline("whole-2", target=0.98))])
    one, two, whole = found.file.slos
    assert (one.target_percentage, two.target_percentage) == (90.0, 98.0)
    assert whole.weights == {"whole-1": 3, "whole-2": 1.0}
    assert whole.target_percentage == 92.0
    assert any("92 %" in note for note in found.notes)


def test_a_part_may_be_an_objective_of_another_document():
    """The one that is about the same indicator."""
    part = document("SLO", "part", {**composite().get("spec"), "objectives": [{"target": 0.9}], "indicatorRef": "part"})
    sli = document("SLI", "part", ours("part"))
    found = read("openslo", [composite({"indicatorRef": "part", "target": 0.9}), part, sli])
    assert {slo.name: slo.weights for slo in found.file.slos} == {"whole": {"part": 1.0}, "part": {}}
    twice = composite({"indicatorRef": "part", "target": 0.9}, {"indicatorRef": "part", "target": 0.9})
    assert problems("openslo", [twice, part, sli]) == ["SLO whole: spec.objectives.1"]


def test_composites_of_others_are_not_added_up():
    """Their parts can be judged; with ``partial`` these are what is left."""
    foreign = {"indicator": {"metadata": {"name": "x"}, "spec": OPENSLO[1]["spec"]}, "target": 0.9}
    documents = [composite(foreign, inline("whole-2", target=0.98)), OPENSLO[2]]
    assert problems("openslo", documents) == ["SLO whole: spec.objectives"]
    assert [slo.name for slo in read("openslo", documents, partial=True).file.slos] == ["whole-1", "whole-2"]
    slices = changed(documents, ((0, "spec", "budgetingMethod"), "RatioTimeslices"))
    assert "SLO whole: spec.objectives.0.timeSliceWindow" in problems("openslo", slices)


# -- writing ------------------------------------------------------------------------------------------------------------------------------

FILE = {
    "slos": {
        "LLM latency".replace(" ", "_"): {"target_percentage": 95.0, "measurement_window": "7d", "latency": 2.0},
        "plain": {"target_percentage": 99.9, "measurement_window": "30d", "service": "shop"},
    }
}


def test_what_is_written_says_what_others_will_not_see():
    """In notes; the annotation holds nothing else."""
    made = dump_openslo(read_slos(FILE))
    assert made.notes == (
        "LLM_latency: only somaresil understands name, latency, error_budget_policy (somaresil/options)",
        "plain: only somaresil understands error_budget_policy (somaresil/options)",
    )
    slos = {each["metadata"]["name"]: each for each in yaml.safe_load_all(made.text) if each["kind"] == "SLO"}
    assert json.loads(slos["llm-latency"]["metadata"]["annotations"]["somaresil/options"]) == {
        "name": "LLM_latency",
        "latency": 2.0,
        "error_budget_policy": None,
        "service": None,
    }
    assert slos["plain"]["spec"]["service"] == "shop"


def test_an_annotation_that_contradicts_its_document_is_a_problem():
    """One of both was changed alone; whose it is may be changed."""
    text = dump_openslo(read_slos(FILE)).text
    for old, new, where in (
        ("threshold: 14.4", "threshold: 10", "spec.alertPolicies"),
        ('"latency": 2.0', '"measurement_window": 60480.0, "latency": 2.0', "timeWindow"),
    ):
        assert old in text
        with pytest.raises(ConfigurationError) as caught:
            import_text(text.replace(old, new), "openslo")
        assert "change both, or remove the annotation" in str(caught.value)
        assert where in str(caught.value)
    found = import_text(text.replace('service: "shop"', 'service: "store"'), "openslo")
    assert found.file.services == {"plain": "store"}


def test_services_that_differ_little_stay_apart():
    """A name that a document cannot have has none, and is the service all the same."""
    tables = {name: {**FILE["slos"]["plain"], "service": service} for name, service in (("a", "shop"), ("b", "Shop"), ("c", ":"))}
    file = read_slos({"slos": tables})
    text = dump_openslo(file).text
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(text) if each["kind"] == "Service"] == ["shop"]
    assert import_text(text, "openslo").file.services == file.services


def test_a_histogram_and_decimals_go_there_and_back():
    """As counters of its buckets for others; a decimal stays the number that it is."""
    file = read_slos({"slos": {"fast": {**FILE["slos"]["plain"], "latency": 0.5, "source": {"histogram": "h", "buckets": [0.5]}}}})
    policy = BurnPolicy("own", (Window(3_600.0, 300.0, Decimal("0.02"), "page"),), minimum_bad=3, confidence=0.9)
    file = type(file)((replace(file.slos[0], error_budget_policy=policy),), file.policy, (), file.sources, file.services)
    text = dump_openslo(file).text
    (indicator,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "SLI")
    queries = {name: each["metricSource"]["spec"]["query"] for name, each in indicator["spec"]["ratioMetric"].items() if name != "counter"}
    assert queries == {"good": 'h_bucket{le="0.5"}', "total": 'h_bucket{le="+Inf"}'}
    again = import_text(text, "openslo").file
    assert (again.slos, again.sources) == (file.slos, file.sources)
    assert isinstance(again.slos[0].burn_policy.windows[0].budget_share, Decimal)


def test_actions_are_not_carried_over():
    """OpenSLO has no words for them."""
    actions = [{"action": "warn", "below": 0.5}]
    assert "actions are not carried over" in dump_openslo(read_slos({**FILE, "actions": actions})).notes


def test_what_is_code_cannot_be_written():
    """Functions, and composites without their parts or of composites."""
    window = timedelta(days=30)
    slos = (
        SLO("a", 99.0, window, good_when=lambda *_: True),
        SLO("b", 99.0, window, group_by=lambda: "x"),
        SLO("c", 99.0, window, parts={"nobody": 1.0, "d": 1}),
        SLO("d", 99.0, window, parts={"b": 1.0}),
    )
    file = read_slos(FILE)
    with pytest.raises(ConfigurationError) as caught:
        dump_openslo(type(file)(slos, file.policy))
    assert [problem.path for problem in caught.value.problems] == ["slos.a.good_when", "slos.b.group_by", "slos.c.parts", "slos.c.parts"]


def test_what_is_there_for_readers_is_told_wherever_it_stands():
    """Names for display, descriptions, labels and annotations; an SLO keeps its own description, or its name for display."""
    prose = {"displayName": "X", "labels": {"a": ["b"]}, "annotations": {"c/d": "e"}}
    documents = changed(
        OPENSLO,
        ((0, "metadata"), {"name": "availability", **prose}),
        ((*SPEC, "description"), ...),
        ((1, "metadata", "displayName"), "X"),
        ((1, "spec", "description"), "X"),
        ((4, "spec", "conditions"), [{"kind": "AlertCondition", "metadata": {"name": "y", **prose}, "spec": OPENSLO[5]["spec"]}]),
        ((6, "spec", "description"), "X"),
    )
    found = read("openslo", documents)
    assert found.file.slos[0].description == "X"
    told = [note.partition(": ")[2].partition(": not carried over")[0] for note in found.notes]
    at = "AlertPolicy fast: spec.conditions.0"
    assert told == [
        "SLO availability: metadata.labels",
        "SLO availability: metadata.annotations.c/d",
        "SLO availability: spec.objectives.0.displayName",
        "SLI requests: metadata.displayName",
        "SLI requests: spec.description",
        "DataSource fleet",
        f"{at}.metadata.displayName",
        f"{at}.metadata.labels",
        f"{at}.metadata.annotations.c/d",
        "AlertNotificationTarget phone: spec.description",
        "AlertNotificationTarget phone: spec",
        f"{at}.spec.condition.alertAfter",
        "AlertCondition burns",
    ]
    more = [*OPENSLO, document("Service", "other", {}), document("AlertNotificationTarget", "mail", {"target": "mail"})]
    assert [note for note in read("openslo", more).notes if "nothing names it" in note] == [
        "a.yaml: AlertNotificationTarget mail: not carried over; nothing names it",
        "a.yaml: Service other: not carried over; nothing names it",
    ]
    both = read("openslo", changed(OPENSLO, ((0, "metadata", "displayName"), "X")))
    assert any("displayName: not carried over, as there is a description" in note for note in both.notes)


def test_more_than_can_be_read_back_is_told():
    """A note says so when it is written, and reading it is refused."""
    slos = tuple(SLO(f"s{number}", 99.0, timedelta(days=30)) for number in range(200))
    made = dump_openslo(type(read_slos(FILE))(slos, read_slos(FILE).policy))
    assert "bytes" in made.notes[-1]
    with pytest.raises(ConfigurationError, match="its size"):
        import_text(made.text, "openslo")


def test_other_severities_and_policies_about_something_else():
    """A severity of any name is a page unless it sounds like less; a policy that does not tell of burning is left out."""
    for severity, kind in (("sev1", "page"), ("Warning", "ticket"), ("page", "page"), ("ticket", "ticket")):
        found = read("openslo", changed(OPENSLO, ((5, "spec", "severity"), severity)))
        assert [window.severity for window in found.file.slos[0].burn_policy.windows] == [kind]
        assert any("is taken for" in note for note in found.notes) is (severity != kind)
    found = read("openslo", changed(OPENSLO, ((4, "spec", "alertWhenBreaching"), False), ((4, "spec", "alertWhenNoData"), False)))
    assert found.file.slos[0].error_budget_policy == "fast_burn_alert"
    assert len([note for note in found.notes if "AlertPolicy fast" in note]) == 2
    none = read("openslo", changed(OPENSLO[:4], ((*SPEC, "alertPolicies"), [])))
    assert any("has no alert policy" in note for note in none.notes)
