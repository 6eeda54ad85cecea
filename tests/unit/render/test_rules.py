"""Rules of a service beyond its objectives: what they read, what they say, and that each has histories to be tested with."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from somaresil import ConfigurationError
from somaresil.chaos.permission import _is_production
from somaresil.integrations._families import FAMILIES
from somaresil.render import RenderOptions, render
from somaresil.render.alerts import ALERTS, OBJECTIVES, STACK
from somaresil.render.alerts.chaos import NOT_YET, PRODUCTION
from somaresil.render.grafana.common import BOARDS
from somaresil.render.recording import RECORDED
from somaresil.render.series import Series
from somaresil.slo.rules.text import page_of
from tests.unit.slo.kit import availability

LABELS = {"service", "environment", "instance", "le", "metric", "__name__"}


def rules_of(options):
    """Give the rules of the service's own files, by name."""
    files = render("prometheus-rules", options)
    found = {}
    for name, text in files.items():
        if name.startswith("somaresil.") and name.endswith(".rules.yaml"):
            for group in yaml.safe_load(text)["groups"]:
                found |= {rule.get("record") or rule["alert"]: rule for rule in group["rules"]}
    return found


def exported():
    """Give the names that Prometheus has of each family, with the labels of the family."""
    found = {"up": set()}
    for family in FAMILIES.values():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}[family.kind]
        unit = f"_{family.unit}" if family.unit and not family.name.endswith(family.unit) else ""
        found |= {f"{family.name}{unit}{ending}": set(family.labels) for ending in endings}
    return found | {recorded.name: set(recorded.by.split(", ")) for recorded in RECORDED}


@pytest.mark.parametrize("name", [*(alert.name for alert in ALERTS), *(recorded.name for recorded in RECORDED)])
def test_whatever_is_read_exists(name):
    """Each metric is exported or recorded, and each label that is matched is one of its own."""
    expression = rules_of(RenderOptions(service="gateway"))[name]["expr"]
    known = exported()
    for metric, matchers in re.findall(r"([a-z_][\w:]*)?\{([^}]*)\}", expression):
        labels = {matcher[0] for matcher in re.findall(r"(\w+)\s*(=~|!~|!=|=)", matchers)}
        assert not metric or metric in known, metric
        assert labels <= LABELS | (known[metric] if metric else {"guard", "component", "pool", "canary", "place", "http_route"}), metric
        assert 'service="gateway"' in matchers


@pytest.mark.parametrize("alert", [*ALERTS, *STACK], ids=lambda alert: alert.name)
def test_every_alert_has_histories(alert):
    """One in which it fires, at least one in which it does not; with a severity, and texts that end as sentences do."""
    assert alert.fires.series
    assert alert.silent
    assert alert.severity in {"page", "ticket"}
    assert alert.description.endswith(".")
    assert not alert.summary.endswith(".")
    assert alert.board in {"", *BOARDS}
    assert ("$value" in alert.description) == bool(alert.fires.value)


def test_names_are_told_apart():
    """No two alerts have one name, and none has that of an alert of objectives."""
    names = [*(alert.name for alert in (*ALERTS, *STACK)), *OBJECTIVES]
    assert len(set(names)) == len(names)


def test_alerts_say_where_to_go_on():
    """Severity, service, environment and labels; the runbook, and the board for this service where Grafana is known."""
    options = RenderOptions(
        service="gate/way",
        environment="prod",
        labels={"team": "edge"},
        runbook_base="https://docs.example/runbooks",
        grafana_url="https://grafana.example",
    )
    rule = rules_of(options)["ExperimentOutOfHours"]
    assert rule["labels"] == {"service": "gate/way", "environment": "prod", "team": "edge", "severity": "ticket"}
    assert rule["annotations"]["runbook_url"] == "https://docs.example/runbooks/experiment-out-of-hours"
    assert rule["annotations"]["dashboard_url"] == "https://grafana.example/d/somaresil-chaos?var-service=gate/way"
    assert 'somaresil_experiments{service="gate/way",environment="prod"}' in rule["expr"]
    recorded = rules_of(options)["somaresil:guard_calls:rate5m"]
    assert recorded["labels"] == {"service": "gate/way", "environment": "prod"}


def test_runbooks_may_be_files_of_a_site():
    """With the ending that the site gives them; nothing but the page is put in."""
    rule = rules_of(RenderOptions(service="gateway", runbook_base="https://docs.example/runbooks/{page}.html"))["ChaosEngaged"]
    assert rule["annotations"]["runbook_url"] == "https://docs.example/runbooks/chaos-engaged.html"
    slo = availability(target=99.9)
    options = RenderOptions(service="gateway", runbook_base="r/{page}.html", slos=(slo,), retention=timedelta(days=31))
    assert 'runbook_url: "r/error-budget-burn-page.html"' in render("prometheus-rules", options)["up.rules.yaml"]
    for wrong in ("r/{slo}", "r/{page}/x", "javascript:{page}", "r/{page}.html?x"):
        with pytest.raises(ConfigurationError):
            RenderOptions(service="gateway", runbook_base=wrong)


def test_series_can_be_told_apart_by_other_labels():
    """Where nothing that is scraped has a label service: what is recorded has both."""
    rules = rules_of(RenderOptions(service="gateway", series={"job": "gw"}))
    assert rules["somaresil:guard_calls:rate5m"]["expr"] == 'sum by (guard) (rate(somaresil_calls_total{job="gw"}[5m]))'
    assert rules["somaresil:guard_calls:rate5m"]["labels"] == {"job": "gw", "service": "gateway"}
    assert 'somaresil:guard_rejected:ratio_rate5m{job="gw"}' in rules["GuardRejections"]["expr"]


def test_what_would_not_work_is_refused_all_of_it_at_once():
    """Too few scrapes in 5 minutes, and everything that is wrong with objectives."""
    with pytest.raises(ConfigurationError) as caught:
        render("prometheus-rules", RenderOptions(service="gateway", slos=(availability(),), scrape_interval=120))
    assert {problem.path for problem in caught.value.problems} >= {
        "render.scrape_interval",
        "render.slos.up.measurement_window",
        "render.slos.up.error_budget_policy.windows[0].short",
    }


def test_objectives_are_counted_by_the_same_labels():
    """And alerts of objectives lead to their own pages."""
    options = RenderOptions(service="gateway", slos=(availability(target=99.9),), retention=timedelta(days=31))
    text = render("prometheus-rules", options)["up.rules.yaml"]
    assert 'somaresil_sli_events_total{slo="up",outcome="bad",service="gateway"}' in text
    assert 'runbook_url: "runbooks/error-budget-burn-page"' in text


def test_a_counter_that_was_not_there_before_has_grown():
    """Its first step is no increase, so the series itself is looked at too."""
    text = Series({"service": "a"}).appeared("x_total", "place", "15m", 'kind="b"')
    assert text == (
        '(sum by (place) (increase(x_total{service="a",kind="b"}[15m])) > 0)\n'
        'or\n(sum by (place) (x_total{service="a",kind="b"} unless x_total{service="a",kind="b"} offset 15m) > 0)'
    )


@pytest.mark.parametrize(
    "environment",
    [
        "production",
        "prod",
        "PROD-eu-1",
        "prd",
        "live_2",
        "eu.live",
        "pre-prod",
        "nonprod",
        "non_production",
        "not.live",
        "test",
        "staging",
        "delivery",
    ],
)
def test_production_is_what_the_permission_takes_for_it(environment):
    """The alert and the permission of experiments read names of environments alike."""
    told = bool(re.fullmatch(PRODUCTION, environment)) and not re.fullmatch(NOT_YET, environment)
    assert told == _is_production(environment)


def test_the_guide_has_tables_of_them():
    """What is recorded by which labels, and which alerts there are, with their severities and pages."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "alerting.md").read_text(encoding="utf-8")
    recorded = re.findall(r"^\| `(somaresil:[\w:]+)` \| (.+?) \| (.+) \|$", page, re.MULTILINE)
    assert recorded == [(each.name, ", ".join(f"`{label}`" for label in each.by.split(", ")), each.about) for each in RECORDED]
    alerts = re.findall(r"^\| \[`(\w+)`\]\(\.\./runbooks/([\w-]+)\.md\) \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert alerts == [(alert.name, page_of(alert.name), alert.severity, alert.about) for alert in (*ALERTS, *STACK)]
