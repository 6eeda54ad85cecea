"""Objectives as rules: what is written, what is refused before it is, and the command."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from somaresil import SLO, ConfigurationError
from somaresil.model.slo import FAST_BURN, BurnPolicy
from somaresil.slo import defaults
from somaresil.slo.rules import Histogram, Queries, RuleOptions, compile_rules
from somaresil.slo.rules.text import duration, number
from somaresil.slo.rules.text import yaml as write
from tests.unit.slo.kit import availability

LONG = RuleOptions(retention=timedelta(days=100))


def rules_of(slo, options=LONG, **more):
    """Compile one objective; give its rules by name or alert, and its groups."""
    compiled = compile_rules([slo], options, **more)
    (name,) = (name for name in compiled.files if name.endswith(".rules.yaml"))
    groups = yaml.safe_load(compiled.files[name])["groups"]
    return {rule.get("record") or rule["alert"]: rule for group in groups for rule in group["rules"]}, groups


def problems_of(slos, options=LONG, **more):
    """Compile what is refused; give the paths of its problems."""
    with pytest.raises(ConfigurationError) as caught:
        compile_rules(slos, options, **more)
    return [problem.path for problem in caught.value.problems]


def test_thresholds_are_exact_decimals():
    """14.4 times a budget of 0.001, without the noise of binary fractions, for any period."""
    rules, _ = rules_of(availability(target=99.9))
    assert rules["ErrorBudgetBurnPage"]["expr"].split("\n")[1] == '  slo:sli_error:ratio_rate1h{slo="up",service=""} > 0.0144'
    assert rules["slo:error_budget:ratio"]["expr"] == "vector(0.001)"
    assert rules["slo:objective:ratio"]["expr"] == "vector(0.999)"
    rules, _ = rules_of(availability(target=99.95, days=7))
    assert "> 0.00168\n" in rules["ErrorBudgetBurnPage"]["expr"]


def test_ratios_are_of_events_in_every_window():
    """Increases of the counter over the window itself, divided; nothing is averaged over time or replicas."""
    compiled = compile_rules([*defaults.ALL], RuleOptions(retention=timedelta(days=31), cap_unreachable=True))
    text = "".join(compiled.files.values())
    assert "avg" not in text
    assert "_over_time" not in text
    rules, _ = rules_of(availability())
    for window in ("5m", "30m", "1h", "6h", "30d"):
        assert rules[f"slo:bad_events:increase{window}"]["expr"] == (
            f'sum(increase(somaresil_sli_events_total{{slo="up",outcome="bad"}}[{window}]))'
        )
        assert rules[f"slo:sli_error:ratio_rate{window}"]["expr"] == (
            f'slo:bad_events:increase{window}{{slo="up",service=""}} / (slo:events:increase{window}{{slo="up",service=""}} > 0)'
        )


def test_alerts_say_what_whoever_is_woken_needs():
    """Severity, objective, service, further labels; a summary, a description and the runbook."""
    options = RuleOptions(
        retention=timedelta(days=30),
        service="gateway",
        alert_labels={"team": "edge"},
        runbook_url="https://wiki/{alert}/{slo}",
        labels={"job": "gw"},
    )
    rules, _ = rules_of(availability(target=99.9, description="Requests are answered."), options)
    alert = rules["ErrorBudgetBurnPage"]
    assert alert["labels"] == {"slo": "up", "service": "gateway", "team": "edge", "severity": "page"}
    assert alert["annotations"]["runbook_url"] == "https://wiki/error-budget-burn-page/up"
    assert alert["annotations"]["description"].startswith(
        "Requests are answered. Objective: 99.9 % in 30d. It fires at any of: more than 2 %"
    )
    assert 'job="gw"' in rules["slo:events:increase5m"]["expr"]
    assert rules["ObjectiveUnseen"]["expr"] == 'absent(sum(somaresil_sli_events_total{slo="up",job="gw"}))'


def test_what_stands_in_names_and_descriptions_is_no_template():
    """Braces of a name or a description stay text in every annotation and label of an alert."""
    rules, _ = rules_of(availability("a{{b}}", description="{{ $value }}"))
    alert = rules["ErrorBudgetBurnPage"]
    assert alert["labels"]["slo"] == 'a{{"{{"}}b}}'
    assert '{{"{{"}} $value }}' in alert["annotations"]["description"]


def test_guards_against_little_traffic_stand_in_the_rule():
    """The least number of bad events and Wilson's lower end, as the calculator has them."""
    policy = BurnPolicy("own", FAST_BURN.windows[:1], minimum_bad=5, confidence=0.95)
    rules, _ = rules_of(availability(target=99.9, error_budget_policy=policy))
    lines = [line.strip() for line in rules["ErrorBudgetBurnPage"]["expr"].split("\n")]
    bad, events = 'slo:bad_events:increase1h{slo="up",service=""}', 'slo:events:increase1h{slo="up",service=""}'
    spread = number(Decimal("3.841459") * Decimal("0.0144") * Decimal("0.9856"))
    assert lines[3:5] == [f"and round({bad}) >= 5", f"and ({bad} - 0.0144 * {events}) ^ 2 > {spread} * {events}"]


def test_a_calendar_period_has_alerts_and_no_rolling_budget():
    """What is left of a month is not what is left of 30 days, and a note says that it is not recorded."""
    slo = SLO("up", 99.9, calendar="month")
    rules, groups = rules_of(slo)
    assert "ErrorBudgetBurnPage" in rules
    assert "slo:period_error_budget_remaining:ratio" not in rules
    assert len(groups) == 1
    assert compile_rules([slo], LONG).notes == ("up: what is left of the month is not recorded, for PromQL knows only windows that roll",)


def test_sloth_names_and_labels():
    """Its dashboards find their series: labels, windows, and the info series."""
    rules, _ = rules_of(availability(target=99.9), RuleOptions(retention=timedelta(days=30), service="gw", sloth=True))
    assert rules["slo:sli_error:ratio_rate5m"]["labels"] == {
        "slo": "up",
        "service": "gw",
        "sloth_id": "gw-up",
        "sloth_service": "gw",
        "sloth_slo": "up",
        "sloth_window": "5m",
    }
    assert rules["sloth_slo_info"]["labels"]["sloth_objective"] == "99.9"
    assert rules["ErrorBudgetBurnPage"]["labels"]["sloth_severity"] == "page"
    assert {
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
    } <= set(rules)


# -- refused ------------------------------------------------------------------------------------------------------------------------------


def test_what_would_not_work_is_refused_all_of_it_at_once():
    """Unreachable factors, short windows of too few scrapes, periods that nobody keeps, slices, parts: each by its path."""
    parts = SLO("parts", 99.0, timedelta(days=1), parts={"up": 1.0, "wide": 2.0})
    slices = availability("slices", budgeting="timeslices", time_slice_window=60, time_slice_target=0.9)
    options = RuleOptions(scrape_interval=120.0, retention=timedelta(days=10))
    assert problems_of([availability("wide", target=90.0), parts, slices], options) == [
        "slos.wide.measurement_window",
        "slos.wide.error_budget_policy.windows[0].short",
        "slos.wide.error_budget_policy.windows[0].budget_share",
        "slos.parts.parts",
        "slos.parts.error_budget_policy.windows[0].short",
        "slos.slices.budgeting",
        "slos.slices.measurement_window",
        "slos.slices.error_budget_policy.windows[0].short",
    ]


def test_an_unreachable_condition_is_refused_or_capped():
    """14.4 times a budget of 10 % is 144 % of errors; capped it fires at 99 %, as in the process."""
    with pytest.raises(ConfigurationError, match=r"14\.40 times a budget of 10 % is 144% of errors"):
        compile_rules([availability(target=90.0)], LONG)
    rules, _ = rules_of(availability(target=90.0), RuleOptions(retention=timedelta(days=30), cap_unreachable=True))
    assert "> 0.99\n" in rules["ErrorBudgetBurnPage"]["expr"]


def test_where_a_single_bad_event_would_fire_traffic_is_too_low():
    """10 requests an hour at 99.9 %: one of them is 10 % of errors. With enough bad events asked for it is accepted."""
    slow = RuleOptions(retention=timedelta(days=30), events_per_hour={"up": 10.0, "*": 1e6})
    assert problems_of([availability(target=99.9)], slow) == [
        "slos.up.error_budget_policy.windows[0].long",
        "slos.up.error_budget_policy.windows[1].long",
    ]
    policy = BurnPolicy("own", FAST_BURN.windows, minimum_bad=5)
    assert compile_rules([availability(target=99.9, error_budget_policy=policy), availability("busy", target=99.9)], slow).files


@pytest.mark.parametrize("buckets", [(1.0, 2.5), ()])
def test_a_threshold_that_is_no_bucket_is_refused(buckets):
    """For a histogram of another library, and for our own when its bounds are given."""
    slo = availability(latency=2.0, target=99.9)
    assert problems_of([slo], LONG, sources={"up": Histogram("http_server_request_duration_seconds", buckets)}) == ["slos.up.latency"]
    assert problems_of([slo], RuleOptions(retention=timedelta(days=30), buckets=buckets)) == ["slos.up.latency"]


def test_a_histogram_counts_what_took_longer():
    """All less those in the bucket at the threshold, however its bound is written."""
    slo = availability(latency=2.0, target=99.9)
    rules, _ = rules_of(slo, sources={"up": Histogram("http_seconds", (0.5, 2.0), {"route": "/a"})})
    assert rules["slo:bad_events:increase1h"]["expr"] == (
        'sum(increase(http_seconds_bucket{route="/a",le="+Inf"}[1h])) - sum(increase(http_seconds_bucket{route="/a",le=~"2(\\\\.0)?"}[1h]))'
    )
    assert problems_of([availability()], LONG, sources={"up": Histogram("two words", (2.0,))}) == [
        "slos.up.source.metric",
        "slos.up.source",
    ]


def test_queries_of_ones_own():
    """With the place for the window; rates become events; no bad events are none."""
    source = Queries('sum(rate(errors{a="b"}[{{.window}}]))', "sum(rate(requests[{{ .window }}]))")
    rules, _ = rules_of(availability(target=99.9), sources={"up": source})
    assert rules["slo:events:increase5m"]["expr"] == "(sum(sum(rate(requests[5m]))) * 300)"
    assert rules["slo:bad_events:increase5m"]["expr"] == (
        '(sum(sum(rate(errors{a="b"}[5m]))) * 300) or 0 * (sum(sum(rate(requests[5m]))) * 300)'
    )
    good = Queries(total_query="increase(requests[{{.window}}]) # all", good_query="increase(fine[{{.window}}])", rates=False)
    rules, _ = rules_of(availability(target=99.9), sources={"up": good})
    assert rules["slo:bad_events:increase5m"]["expr"] == (
        "sum(increase(requests[5m])) - (sum(increase(fine[5m])) or 0 * sum(increase(requests[5m])))"
    )
    assert compile_rules([availability()], LONG, sources={"up": source}).notes == (
        "up: no tests are made for events that are not in somaresil_sli_events_total",
    )
    assert problems_of([availability()], LONG, sources={"up": Queries("a", "b"), "down": source}) == [
        "slos.up.source.total_query",
        "slos.up.source.bad_query",
        "slos.sources.down",
    ]


WRONG_QUERIES = {
    "it would end what is around it": "a[{{.window}}]) or (b",
    "a bracket is open": "sum(a[{{.window}}]",
    "brackets cross": "sum(a[{{.window}})]",
    "a quote is open": 'a{b="c}[{{.window}}]',
    "another template": "a{b='{{.service}}'}[{{.window}}]",
    "no window": "sum(a)",
    "long": "a[{{.window}}]" + " " * 2_000,
}


@pytest.mark.parametrize("how", WRONG_QUERIES)
def test_what_is_no_query_is_refused(how):
    """A query stands within others, so it must be whole; brackets in texts and comments are none."""
    fine = "sum(a[{{.window}}])"
    assert problems_of([availability()], LONG, sources={"up": Queries(WRONG_QUERIES[how], fine)}) == ["slos.up.source.bad_query"]
    assert problems_of([availability()], LONG, sources={"up": Queries(fine, fine, good_query=fine)}) == ["slos.up.source.bad_query"]
    odd = Queries('a{b=")\\"("}[{{.window}}] # (', 'b{c=`"(`}[{{.window}}]')
    assert compile_rules([availability()], LONG, sources={"up": odd}).files


def test_windows_that_dashboards_of_sloth_choose_from():
    """All of them with its labels, and only those of the policy without; none longer than what is kept."""
    own = {name for name in rules_of(availability())[0] if "ratio_rate" in name}
    assert own == {f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "6h", "30d")}
    with_sloth = {
        name for name in rules_of(availability(), RuleOptions(retention=timedelta(days=100), sloth=True))[0] if "ratio_rate" in name
    }
    assert with_sloth - own == {f"slo:sli_error:ratio_rate{window}" for window in ("2h", "1d", "3d")}
    short, _ = rules_of(availability(days=2), RuleOptions(retention=timedelta(days=2), sloth=True))
    assert "slo:sli_error:ratio_rate1d" in short
    assert "slo:sli_error:ratio_rate3d" not in short


def test_a_service_of_its_own():
    """Where the file says whose an objective is, that is the label, and not the one of all."""
    slos = [availability("up"), availability("down")]
    options = RuleOptions(retention=timedelta(days=100), service="gw", sloth=True)
    files = compile_rules(slos, options, services={"up": "shop"}).files
    assert 'sloth_id: "shop-up"' in files["up.rules.yaml"]
    assert 'sloth_id: "gw-down"' in files["down.rules.yaml"]
    assert problems_of(slos, options, services={"left": "x"}) == ["slos.services.left"]


def test_options_are_checked_all_at_once():
    """Each with its path."""
    with pytest.raises(ConfigurationError) as caught:
        RuleOptions(
            scrape_interval=0.0,
            retention=-1,
            service="two words",
            labels={"slo": "x"},
            alert_labels={"1a": "x", "ok": ""},
            runbook_url="javascript:x",
            events_per_hour={"up": -1.0},
            buckets=(-1.0,),
            sloth="yes",
            cap_unreachable=1,
        )
    assert [problem.path.removeprefix("RuleOptions.") for problem in caught.value.problems] == [
        "scrape_interval",
        "retention",
        "service",
        "labels",
        "alert_labels",
        "alert_labels.ok",
        "runbook_url",
        "events_per_hour.up",
        "buckets[0]",
        "cap_unreachable",
        "sloth",
    ]


# -- text ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300, "5m"), (86_400, "1d"), (5_400.0, "90m"), (0.5, "500ms"), (30 * 86_400, "30d"), (90, "90s"), (61.5, "61500ms")],
)
def test_durations_in_their_largest_unit(seconds, text):
    """As exact as Prometheus can say it."""
    assert duration(seconds) == text


texts = st.text() | st.sampled_from(
    ["a: b", "- x", "yes", "1", "'", '"', "{{x}}", "a\nb", "a\nb\n", "a\n\nb\n\n", "a\n", "#", "\\", "\u2028", "\U0001f600", ""]
)
keys = st.from_regex(r"k_[a-z_]{1,8}", fullmatch=True)
trees = st.recursive(
    texts | st.booleans() | st.integers() | st.none(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(keys, below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, trees, min_size=1, max_size=4))
def test_what_is_written_is_read_as_it_was(tree):
    """Whatever strings are in it: another reader of YAML gives the same back. Keys are ours, and plain."""
    assert yaml.safe_load(write(tree)) == tree


def test_names_of_files_differ_and_are_plain():
    """Two objectives whose names differ only in letters that files do not have get two files."""
    files = compile_rules([availability("a/b"), availability("a:b"), availability("A_B")], LONG).files
    assert [name for name in files if name.endswith(".rules.yaml")] == ["a_b.rules.yaml", "a_b-2.rules.yaml", "A_B-3.rules.yaml"]
