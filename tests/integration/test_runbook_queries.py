"""Every query of the runbooks, before a real Prometheus that evaluates every rendered rule."""

from __future__ import annotations

import re
import urllib.error
from datetime import timedelta
from pathlib import Path

import pytest

from somaresil import SLO
from somaresil.render import RenderOptions, render
from somaresil.slo.rules.text import yaml
from tests.integration.servers import ServerFailedError

pytestmark = [pytest.mark.server]

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "runbooks"


def test_the_queries_of_runbooks_are_understood(prometheus):
    """Each is PromQL that Prometheus evaluates; a planted one that is none is not."""
    queries = {
        (page.stem, query.strip())
        for page in FOLDER.glob("*.md")
        for query in re.findall(r"^ *```promql\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    }
    assert len(queries) > 50
    server = prometheus(["127.0.0.1:9"])
    for page, query in sorted(queries):
        try:
            server.query(query)
        except (ServerFailedError, urllib.error.URLError) as wrong:
            pytest.fail(f"{page}: {wrong}")
    with pytest.raises(ServerFailedError):
        server.query("sum(somaresil_calls_total{service=gateway})")


def test_prometheus_evaluates_every_rendered_rule(prometheus):
    """None of them has an error, whatever is there and is not."""
    from somaresil.config import Checker
    from somaresil.render.rules import groups

    slos = (SLO("up", 99.9, timedelta(days=30), group_by="tenant"), SLO("slow", 99.0, timedelta(days=7), "gradual_burn", latency=2.0))
    options = RenderOptions(service="gateway", slos=slos, retention=timedelta(days=31))
    assert render("prometheus-rules", options)
    found = groups(options, Checker("test"))
    server = prometheus(["127.0.0.1:9"], rules=yaml({"groups": found}))
    server.wait_for('ALERTS{alertname="ObjectiveUnseen"}')
    told = server.api("rules")["groups"]
    assert {group["name"] for group in told} == {group["name"] for group in found}
    rules = [rule for group in told for rule in group["rules"]]
    assert len(rules) == sum(len(group["rules"]) for group in found)
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []
