"""What boards ask for is there: every metric and every label of every expression is exported, recorded, or Prometheus' own."""

from __future__ import annotations

import re

import pytest

from somaresil.integrations._families import FAMILIES
from somaresil.integrations.loadmetrics import LOAD_FAMILIES
from somaresil.render.recording import RECORDED
from tests.unit.render.test_grafana import BOARDS, OPTIONS

SCRAPED = {"service", "environment"}
"""Labels of every target."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OBJECTIVES = {"slo", "service"}
ALERTS = {"alertname", "alertstate", "severity", "slo", "group", "guard", *SCRAPED}
FUNCTIONS = {"sum", "max", "min", "count", "rate", "increase", "histogram_quantile", "vector", "ln", "clamp_min", "label_values"}
WORDS = {"by", "on", "or", "and", "bool", "group_left", "unless", "without"}
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def exported():
    """Labels of each series, by its name."""
    found = {}
    for family in FAMILIES.values():
        unit = f"_{family.unit}" if family.unit and not family.name.endswith(f"_{family.unit}") else ""
        for suffix in SUFFIXES[family.kind]:
            found[f"{family.name}{unit}{suffix}"] = {*family.labels, *SCRAPED, *(("le",) if suffix == "_bucket" else ())}
    for name, (kind, labels, _) in LOAD_FAMILIES.items():
        for suffix in SUFFIXES[kind]:
            found[f"{name}{suffix}"] = {*labels, *(("le",) if suffix == "_bucket" else ())}
    for rule in RECORDED:
        found[rule.name] = {*re.split(r",\s*", rule.by), *SCRAPED}
    for name in (
        *("objective:ratio", "error_budget:ratio", "time_period:days", "current_burn_rate:ratio", "period_burn_rate:ratio"),
        "period_error_budget_remaining:ratio",
        *(f"sli_error:ratio_rate{window}" for window in WINDOWS),
    ):
        found[f"slo:{name}"] = OBJECTIVES
    return {**found, "ALERTS": ALERTS}


SERIES = exported()
SELECTOR = re.compile(r"(?<![\w:.$\"])([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")


def expressions():
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == "prometheus":
                    yield f"{name}: {panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            if annotation["datasource"]["type"] == "prometheus":
                yield f"{name}: {annotation['name']}", annotation["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{name}: {variable['name']}", variable["query"]["query"]


def problems(where, text):
    """What an expression asks for and nobody has."""
    found = []
    names = SELECTOR.findall(text)
    labels = set()
    for name, matchers in names:
        if name not in SERIES:
            found.append(f"{where}: no series {name}")
            continue
        labels |= SERIES[name]
        found += [f"{where}: {name} has no {label}" for label in re.findall(r"(\w+)(?:=~|!=|=)", matchers) if label not in SERIES[name]]
    if not names:
        bare = [name for name in re.findall(r"\w+", text) if name in SERIES]
        labels = {label for name in bare for label in SERIES[name]}
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", text):
        found += [f"{where}: nothing has {label}" for label in re.split(r",\s*", group) if label and label not in labels]
    plain = re.sub(r'"[^"]*"', "", SELECTOR.sub("", text))
    known = {*FUNCTIONS, *WORDS, *SERIES, *labels, "le"}
    found += [f"{where}: what is {word}?" for word in re.findall(r"(?<![\w$])[a-zA-Z_]\w*", plain) if word not in known]
    return found


def test_every_series_and_label_that_is_asked_for_exists():
    """A metric that is renamed would leave an empty panel, and nobody would see it until it is needed."""
    assert [problem for where, text in expressions() for problem in problems(where, text)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('sum(rate(somaresil_call_total{guard="x"}[5m]))', "no series somaresil_call_total"),
        ('sum(rate(somaresil_calls_total{gaurd="x"}[5m]))', "has no gaurd"),
        ("sum by (route) (rate(somaresil_calls_total{}[5m]))", "nothing has route"),
        ("summ(rate(somaresil_calls_total{}[5m]))", "what is summ?"),
        ("somaresil:guard_error:rate5m{}", "no series somaresil:guard_error:rate5m"),
    ],
)
def test_what_nobody_has_is_found(text, said):
    """The test above can fail."""
    assert any(said in problem for problem in problems("x", text))


def test_quantiles_of_a_histogram_without_a_sum_are_not_asked_for_a_mean():
    """Guards keep no sum of their durations; a mean of them would be empty."""
    for where, text in expressions():
        assert "somaresil_call_duration_seconds_sum" not in text, where
        assert "somaresil_call_duration_seconds_count" not in text, where
        assert not re.search(r"somaresil_load_\w+_seconds_(sum|count)", text), where


def test_thresholds_of_each_objective_stand_on_its_board():
    """14.4 and 6 for thirty days, and what the windows of others come to."""
    (note,) = [panel for panel in BOARDS["slos"]["panels"] if panel["title"] == "When alerts fire"]
    rows = [row for row in note["options"]["content"].splitlines() if row.startswith(("| api_availability", "| llm_latency"))]
    assert rows == [
        "| api_availability | page | 1h and 5m | 14.4 |",
        "| api_availability | page | 6h and 30m | 6 |",
        "| llm_latency | ticket | 1d and 2h | 0.7 |",
        "| llm_latency | ticket | 3d and 6h | 0.2333 |",
    ]
    assert {slo.name for slo in OPTIONS.slos} == {"api_availability", "llm_latency"}
