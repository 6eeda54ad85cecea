"""Whatever objectives are compiled, promtool accepts the rules and their tests pass; and the tests notice rules that are wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from somaresil import SLO
from somaresil.config import Checker
from somaresil.interchange import dump_toml, import_text
from somaresil.model.slo import BurnPolicy, Window
from somaresil.settings.files import document_from_text
from somaresil.slo import defaults
from somaresil.slo.rules import Histogram, Queries, RuleOptions, compile_rules
from somaresil.slofile import slos_of

pytestmark = [pytest.mark.server]

NAMES = st.text("abcXYZ019_.:/{}-", min_size=1, max_size=20)
OPTIONS = RuleOptions(retention=timedelta(days=400), cap_unreachable=True)


@pytest.fixture(scope="module")
def promtool():
    """Give the path of promtool."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    return found


def judged(promtool: str, files: dict[str, str]) -> tuple[int, int, str]:
    """Exit codes of `check rules` and `test rules` for these files, and what was said."""
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        rules = sorted(name for name in files if name.endswith(".rules.yaml"))
        tests = sorted(name for name in files if name.endswith(".test.yaml"))
        said = [
            subprocess.run([promtool, what, "rules", *names], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
            for what, names in (("check", rules), ("test", tests))
            if names
        ]
    output = "".join(each.stdout + each.stderr for each in said)
    return said[0].returncode, said[-1].returncode if tests else 0, output[-3_000:]


@st.composite
def policies(draw):
    """Policies with windows of everything between seconds and days, with and without guards."""
    windows = []
    for _ in range(draw(st.integers(1, 3))):
        short = draw(st.sampled_from([60, 90, 300, 437, 1_800, 7_200]))
        long = short * draw(st.sampled_from([2, 3, 12]))
        windows.append(Window(float(long), float(short), draw(st.sampled_from([0.001, 0.02, Decimal("0.05"), 0.37, 1])), "page"))
    if draw(st.booleans()):
        windows.append(Window(86_400.0, 7_200.0, 0.1, "ticket"))
    return BurnPolicy("own", tuple(windows), draw(st.sampled_from([0, 1, 2, 50])), draw(st.sampled_from([None, 0.8, 0.99])))


@st.composite
def objectives(draw):
    """Objectives of every kind that has rules."""
    kind = draw(st.sampled_from(["availability", "latency", "recovery", "calendar"]))
    more = {"latency": {"latency": 2.0}, "recovery": {"recovery": 300.0}, "calendar": {"calendar": "month"}}.get(kind, {})
    if kind != "recovery" and draw(st.sampled_from([False, False, True])):
        more["group_by"] = "tenant"
    return SLO(
        draw(NAMES),
        draw(st.sampled_from([50.0, 90, 95.0, 99.0, 99.9, 99.95, 99.999]) | st.decimals("0.1", "99.99", places=2).map(float)),
        None if kind == "calendar" else timedelta(days=draw(st.sampled_from([1, 7, 28, 30, 90]))),
        draw(st.sampled_from(["fast_burn_alert", "gradual_burn"]) | policies()),
        description=draw(st.sampled_from(["", "{{ $value }} \"quoted\" 'too'", "Zeile\nzwei \U0001f600 #x: y"])),
        **more,
    )


@st.composite
def options(draw):
    """What rules depend on beside objectives."""
    return RuleOptions(
        retention=timedelta(days=400),
        cap_unreachable=True,
        service=draw(st.none() | NAMES),
        labels=draw(st.sampled_from([{}, {"job": 'a"b\\c{{'}, {"job": "a", "zone": "b"}])),
        alert_labels=draw(st.sampled_from([{}, {"team": "{{ $labels.slo }}"}])),
        runbook_url=draw(st.none() | st.just("https://wiki.example/{slo}?a={{b}}")),
        sloth=draw(st.booleans()),
    )


@pytest.mark.timeout(600)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(slos=st.lists(objectives(), min_size=1, max_size=2, unique_by=lambda slo: slo.name), given_options=options())
def test_promtool_accepts_and_passes_whatever_is_compiled(promtool, slos, given_options):
    """Names, periods, policies, guards, labels and descriptions of every kind."""
    compiled = compile_rules(slos, given_options)
    assert any(name.endswith(".test.yaml") for name in compiled.files)
    checked, tested, said = judged(promtool, dict(compiled.files))
    assert (checked, tested) == (0, 0), said


def test_the_four_objectives_of_the_plan(promtool):
    """As they come with the package."""
    checked, tested, said = judged(promtool, dict(compile_rules(defaults.ALL, OPTIONS).files))
    assert (checked, tested) == (0, 0), said


def test_rules_over_other_sources_are_accepted(promtool):
    """A histogram of another library, and queries of one's own."""
    slo = SLO("fast", 99.0, timedelta(days=7), latency=2.0)
    histogram = compile_rules([slo], OPTIONS, sources={"fast": Histogram("http_seconds", (1.0, 2.0), {"route": "/a"})})
    queries = compile_rules([slo], OPTIONS, sources={"fast": Queries("sum(rate(e[{{.window}}]))", "sum(rate(t[{{.window}}]))")})
    for compiled in (histogram, queries):
        checked, _, said = judged(promtool, dict(compiled.files))
        assert checked == 0, said


SELECTORS = st.sampled_from(["requests", 'requests{a="b"}', "requests{a=~'x|[y]',b!=\"{\"}", '{__name__="requests"}', "requests offset 5m"])


@st.composite
def specs(draw):
    """What Sloth, Pyrra and OpenSLO say of counters of others."""
    name = draw(st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True))
    bad, total = draw(SELECTORS), draw(SELECTORS)
    target = draw(st.sampled_from([90, 99, 99.9, 99.95]))
    form = draw(st.sampled_from(["sloth", "pyrra", "openslo"]))
    if form == "sloth":
        call = draw(st.sampled_from(["rate", "increase"]))
        events = {
            "error_query": f"sum({call}(requests{{a='b'}}[{{{{.window}}}}])) # bad",
            "total_query": f"sum({call}(all[{{{{ .window }}}}]))",
        }
        alerting = {"page_alert": {"disable": draw(st.booleans())}, "ticket_alert": {"disable": draw(st.booleans())}}
        slo = {"name": name, "objective": target, "sli": {"events": events}, "alerting": alerting}
        return form, {"version": "prometheus/v1", "service": draw(NAMES), "slos": [slo]}
    if form == "pyrra":
        indicator = draw(
            st.sampled_from(
                [
                    {"ratio": {"errors": {"metric": bad}, "total": {"metric": total}}},
                    {"latency": {"success": {"metric": 'h_bucket{le="0.1"}'}, "total": {"metric": "h_count"}}},
                    {"latencyNative": {"latency": "200ms", "total": {"metric": total}}},
                    {"bool_gauge": {"metric": bad}},
                ]
            )
        )
        spec = {"target": str(target), "window": draw(st.sampled_from(["1w", "2w", "4w", "30d"])), "indicator": indicator}
        return form, {"apiVersion": "pyrra.dev/v1alpha1", "kind": "ServiceLevelObjective", "metadata": {"name": name}, "spec": spec}
    metrics = {part: {"metricSource": {"type": "Prometheus", "spec": {"query": query}}} for part, query in (("bad", bad), ("total", total))}
    indicator = draw(
        st.sampled_from(
            [
                {"ratioMetric": {"counter": draw(st.booleans()), **metrics}},
                {"ratioMetric": {"counter": True, "good": metrics["bad"], "total": metrics["total"]}},
                {"thresholdMetric": metrics["bad"]},
            ]
        )
    )
    spec = {
        "service": "s",
        "indicator": {"metadata": {"name": "i"}, "spec": indicator},
        "timeWindow": [{"duration": "4w", "isRolling": True}],
        "budgetingMethod": "Occurrences",
        "objectives": [{"targetPercent": target, "op": "lte", "value": draw(st.sampled_from([0.5, -1, 0.0001, 123456789]))}],
    }
    return form, {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": name}, "spec": spec}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(spec=specs(), labels=st.booleans())
def test_promtool_accepts_rules_of_whatever_is_imported(promtool, spec, labels):
    """Counters of others, by way of a file of ours."""
    form, document = spec
    file = import_text(json.dumps(document), form).file
    check = Checker()
    file = slos_of(document_from_text(dump_toml(file), ".toml", "slo.toml", check))
    options = RuleOptions(retention=timedelta(days=400), cap_unreachable=True, sloth=labels, scrape_interval=5.0)
    compiled = compile_rules(file.slos, options, sources=file.sources, services=file.services)
    checked, _, said = judged(promtool, dict(compiled.files))
    assert checked == 0, said


SLOTH_DASHBOARD = {
    "slo:sli_error:ratio_rate5m": "0.5",
    "slo:sli_error:ratio_rate30m": "0.5",
    "slo:sli_error:ratio_rate1h": "0.5",
    "slo:sli_error:ratio_rate2h": "0.5",
    "slo:sli_error:ratio_rate6h": "0.5",
    "slo:sli_error:ratio_rate1d": "0.5",
    "slo:sli_error:ratio_rate3d": "0.5",
    "slo:sli_error:ratio_rate30d": "0.5",
    "slo:objective:ratio": "0.999",
    "slo:error_budget:ratio": "0.001",
    "slo:time_period:days": "30",
    "slo:current_burn_rate:ratio": "500",
    "slo:period_burn_rate:ratio": "500",
    "slo:period_error_budget_remaining:ratio": "-499",
    "sloth_slo_info": "1",
}
IN_ITS_WORDS = 'sloth_id="gw-up",sloth_service="gw",sloth_slo="up"'


@pytest.mark.parametrize("queries", [False, True])
def test_dashboards_of_sloth_find_what_they_ask_for(promtool, queries):
    """Each series that they ask for, by each of the three labels, with one value: of our counter, and of counters of others."""
    counter = "somaresil_sli_events_total"
    source = Queries(f'sum(rate({counter}{{outcome="bad"}}[{{{{.window}}}}]))', f"sum(rate({counter}[{{{{.window}}}}]))")
    options = RuleOptions(retention=timedelta(days=40), sloth=True, service="gw")
    compiled = compile_rules([SLO("up", 99.9, timedelta(days=30))], options, sources={"up": source} if queries else {})
    series = [{"series": f'{counter}{{slo="up",outcome="{outcome}"}}', "values": "0+10x120"} for outcome in ("good", "bad")]
    asked = [
        {
            "expr": f"round(max by () ({name}{{{IN_ITS_WORDS}}}) * 1e6) / 1e6",
            "eval_time": "2h",
            "exp_samples": [{"labels": "{}", "value": float(value)}],
        }
        for name, value in SLOTH_DASHBOARD.items()
    ]
    alerts = f'count(ALERTS{{{IN_ITS_WORDS},sloth_severity="page",alertstate="firing"}})'
    asked.append({"expr": alerts, "eval_time": "2h", "exp_samples": [{"labels": "{}", "value": 1}]})
    windows = "count(count by (sloth_window) ({__name__=~'slo:sli_error:ratio_rate.*'}))"
    asked.append({"expr": windows, "eval_time": "2h", "exp_samples": [{"labels": "{}", "value": 8}]})
    test = {"rule_files": ["up.rules.yaml"], "evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": series}]}
    test["tests"][0]["promql_expr_test"] = asked
    files = {"up.rules.yaml": compiled.files["up.rules.yaml"], "up.test.yaml": json.dumps(test)}
    checked, tested, said = judged(promtool, files)
    assert (checked, tested) == (0, 0), said


BROKEN = {
    "the first limit is never reached": (r"> 0\.0144\b", "> 1.44"),
    "the second limit is never reached": (r"> 0\.006\b", "> 1.44"),
    "a limit that is always reached": (r"> 0\.0144\b", "> 0.0001"),
    "the long windows alone": (r"\n +and slo:sli_error:ratio_rate\w+\{[^}]*\} > [\d.]+", ""),
    "good and bad exchanged": (r'outcome="bad"', 'outcome="good"'),
    "another objective": (r'somaresil_sli_events_total\{slo="up"', 'somaresil_sli_events_total{slo="down"'),
    "no least number of bad events": (r"\n +and round\([^)]*\) >= \d+", ""),
    "a budget that is not left": (r"1 - slo:period_burn_rate", "2 - slo:period_burn_rate"),
    "another severity": (r'severity: "page"', 'severity: "ticket"'),
    "a mean of ratios": (
        r"expr: 'slo:bad_events:increase30d[^\n]*'",
        "expr: 'avg_over_time(slo:sli_error:ratio_rate5m{slo=\"up\"}[30d])'",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_the_tests_notice_rules_that_are_wrong(promtool, how):
    """A test that cannot fail shows nothing: each of these mistakes fails one."""
    policy = BurnPolicy("own", (Window(3_600.0, 300.0, 0.02, "page"), Window(21_600.0, 1_800.0, 0.05, "page")), minimum_bad=5)
    files = dict(compile_rules([SLO("up", 99.9, timedelta(days=30), policy)], OPTIONS).files)
    before, files["up.rules.yaml"] = files["up.rules.yaml"], re.sub(*BROKEN[how], files["up.rules.yaml"])
    assert before != files["up.rules.yaml"]
    checked, tested, said = judged(promtool, files)
    assert (checked, tested) == (0, 1), said


def test_each_group_is_alerted_on_by_itself(promtool):
    """One tenant of three has an outage that the whole hardly feels: it is paged for, and nobody else."""
    slo = SLO("up", 99.0, timedelta(days=30), group_by="tenant")
    files = dict(compile_rules([slo], OPTIONS).files)
    assert {"up.groups.rules.yaml", "up.groups.page.test.yaml"} <= set(files)
    labels = {"slo": "up", "severity": "page"}
    annotations = re.search(
        r'"GroupErrorBudgetBurnPage".*?annotations:\n\s+summary: "([^"]*)"\n\s+description: "([^"]*)"',
        files["up.groups.rules.yaml"],
        re.DOTALL,
    )
    fires = {"exp_labels": labels | {"group": "bob"}, "exp_annotations": {"summary": annotations[1], "description": annotations[2]}}
    assert annotations[1] == "The error budget of a group of up burns too fast"
    counter = 'somaresil_sli_group_events_total{slo="up",group="%s",outcome="%s",instance="%s"}'
    whole = 'somaresil_sli_events_total{slo="up",outcome="%s"}'
    test = {
        "name": "groups",
        "interval": "1m",
        "input_series": [
            {"series": counter % ("ada", "good", "one"), "values": "0+1000x120"},
            {"series": counter % ("bob", "good", "one"), "values": "0+1x60 60+0x59"},
            {"series": counter % ("bob", "bad", "two"), "values": "0+0x60 1+1x59"},
            {"series": counter % ("_other", "good", "one"), "values": "0+10x120"},
            {"series": whole % "good", "values": "0+1011x60 60660+1010x59"},
            {"series": whole % "bad", "values": "0+0x60 1+1x59"},
        ],
        "alert_rule_test": [
            {"eval_time": "50m", "alertname": "GroupErrorBudgetBurnPage", "exp_alerts": []},
            {"eval_time": "110m", "alertname": "GroupErrorBudgetBurnPage", "exp_alerts": [fires]},
            {"eval_time": "110m", "alertname": "ErrorBudgetBurnPage", "exp_alerts": []},
        ],
    }
    rules = ["up.rules.yaml", "up.groups.rules.yaml"]
    files["groups.test.yaml"] = json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": [test]})
    checked, tested, said = judged(promtool, files)
    assert (checked, tested) == (0, 0), said
    files["up.groups.rules.yaml"] = files["up.groups.rules.yaml"].replace("sum by (group)", "sum")
    assert judged(promtool, files)[:2] == (0, 1)
