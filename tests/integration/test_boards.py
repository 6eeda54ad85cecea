"""Every query of every board, asked of a real Prometheus that scrapes a service to which everything happens: each of them has an answer."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from somaresil import SLO
from somaresil.model.slo import BurnPolicy, Window
from somaresil.render import RenderOptions, render
from somaresil.render.grafana import boards
from somaresil.render.recording import RECORDED
from tests.integration.servers import HOST, Server, find_victoria_metrics, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUICK = BurnPolicy("quick", (Window(long=12.0, short=10.0, budget_share=0.02, severity="page"),), minimum_bad=2)
SLICED = {"budgeting": "timeslices", "time_slice_window": 10.0, "time_slice_target": 0.9}
OBJECTIVES = (
    SLO("api", 50.0, timedelta(days=30), group_by="route"),
    SLO("model", 95.0, timedelta(days=7), "gradual_burn"),
    SLO("quick", 90.0, timedelta(minutes=5), QUICK),
    SLO("sliced", 90.0, timedelta(days=1), **SLICED),
    SLO("apart", 90.0, timedelta(days=1), injected="separate", chaos_budget_percentage=2.5),
    SLO("all", 90.0, timedelta(days=1), parts={"model": 1.0, "apart": 2.0}),
)
DAILY = SLO("daily", 90.0, calendar="day")
RULED = tuple(slo for slo in OBJECTIVES if slo.name in {"api", "model", "quick"})
"""Those whose rules are loaded: of slices and parts there are none, and windows of a day say in a minute what others say."""


OPTIONS = RenderOptions(
    service="gateway", environment="demo", slos=RULED, scrape_interval=1.0, retention=timedelta(days=400), cap_unreachable=True
)
BOARDS = boards(OPTIONS)
CHOSEN = {
    "$__rate_interval": "15s",
    "$__range": "2m",
    "$service": "gateway",
    "$environment": "demo",
    "$guard": ".*",
    "$slo": ".*",
    "$canary": "answer",
    "$scenario": "boards",
}
"""What Grafana would put in for what is chosen."""
PATIENCE = 50.0
SCENARIO = """
name = "boards"
arrival = "constant"
timeout = 2.0
target = "http://127.0.0.1:1"


stages = [{ name = "steady", seconds = 55, rate = 30 }]

[[requests]]
name = "ask"
weight = 6
path = "/ask"

[[requests]]
name = "fail"
path = "/fail"

[[requests]]
name = "stream"
kind = "sse"
path = "/stream"
end = "[DONE]"

[thresholds]
error_rate = 0.9
"""


def chosen(text):
    """An expression with everything put in; none may be left."""
    for name, value in sorted(CHOSEN.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


def queries():
    """Every expression of every board, by where it stands."""
    found = {}
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == "prometheus":
                    found[f"{name}: {panel['title']}: {target['refId']}"] = chosen(target["expr"])
        for annotation in board["annotations"]["list"]:
            if annotation["datasource"]["type"] == "prometheus":
                found[f"{name}: annotation {annotation['name']}"] = chosen(annotation["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", chosen(variable["query"]["query"])).groups()
                found[f"{name}: variable {variable['name']}"] = f"count by ({label}) ({selector})"
    return found


@pytest.fixture
def service(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.integration.boards_app:app", "--host", HOST, "--port", str(port)]
    command += ["--log-level", "warning", "--lifespan", "on"]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    environment |= {"SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": str(tmp_path / "switch")}
    with Server(command, port=port, folder=tmp_path, ready="/ready", environment=environment) as server:
        yield server


@pytest.fixture
def generator(service, tmp_path):
    """Load, for as long as the test may take; it tells how it goes."""
    file, port = tmp_path / "scenario.toml", free_port()
    file.write_text(SCENARIO)
    command = [sys.executable, "-m", "somaresil", "load", "run", file, "--target", service.url, "--quiet", "--metrics", f"{HOST}:{port}"]
    with Server(command, port=port, folder=tmp_path, ready="/metrics") as server:
        yield server


def scraping(service, generator):
    """What is scraped, with the labels by which boards tell services apart."""
    own = {"service": "gateway", "environment": "demo"}
    return [
        {"job_name": "gateway", "static_configs": [{"targets": [f"{HOST}:{service.port}"], "labels": own}]},
        {"job_name": "others", "metrics_path": "/others", "static_configs": [{"targets": [f"{HOST}:{service.port}"], "labels": own}]},
        {"job_name": "load", "static_configs": [{"targets": [f"{HOST}:{generator.port}"]}]},
    ]


@contextmanager
def victoria_metrics(folder, jobs, prometheus):
    """VictoriaMetrics that scrapes the same, and takes from Prometheus what that has recorded; None where it is not installed."""
    binary = find_victoria_metrics()
    if binary is None:
        yield None
        return
    recorded = {
        "job_name": "recorded",
        "honor_labels": True,
        "metrics_path": "/federate",
        "params": {"match[]": ['{__name__=~"(somaresil|slo):.*|ALERTS"}']},
        "static_configs": [{"targets": [f"{HOST}:{prometheus.port}"]}],
    }
    file, port = folder / "victoria.yml", free_port()
    file.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [*jobs, recorded]}))
    command = [binary, f"-promscrape.config={file}", f"-storageDataPath={folder / 'victoria'}", f"-httpListenAddr={HOST}:{port}"]
    # It looks half a minute back by itself, for those who come late.
    command += ["-search.latencyOffset=1s", "-loggerLevel=ERROR", "-search.disableCache"]
    with Server(command, port=port, folder=folder, ready="/health") as server:
        yield server


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        with refused:
            pytest.fail(f"{url}: {refused.read().decode()}")


def answered(server, expression):
    """Whether a query has an answer in which a number stands."""
    found = get(f"{server.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    if found["resultType"] == "scalar":
        return True
    return any(series["value"][1] not in {"NaN", "+Inf", "-Inf"} for series in found["result"])


def labels_of(server, expression):
    """The labels of each series of an answer."""
    found = get(f"{server.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    return [series["metric"] for series in found["result"]] if found["resultType"] == "vector" else [{}]


def legend(text, labels):
    """What Grafana makes of the name of a line."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), text)


def unfit(server, panel):
    """What of the answers a panel could not show as it is meant to."""
    found, names = [], []
    for target in panel["targets"]:
        series = labels_of(server, chosen(target["expr"]))
        if panel["type"] == "stat" and len(series) > 1:
            found.append(f"{panel['title']}: {len(series)} figures in place of one")
        if panel["type"] == "table":
            keys = set(panel["transformations"][2]["options"]["renameByName"])
            found += [f"{panel['title']}: {target['refId']} has {set(labels) - keys}" for labels in series if not set(labels) <= keys]
        elif panel["type"] != "stat":
            names += [legend(target["legendFormat"], labels) for labels in series]
    if len(set(names)) < len(names):
        found.append(f"{panel['title']}: several lines of one name in {sorted(names)}")
    return found


def left(server, expressions, patience):
    """Those that had no answer at any time within so many seconds."""
    waiting, deadline = dict(expressions), time.monotonic() + patience
    while waiting and time.monotonic() < deadline:
        for where, expression in list(waiting.items()):
            if answered(server, expression):
                del waiting[where]
        time.sleep(0.5)
    return waiting


@pytest.mark.timeout(120)
def test_every_query_of_every_board_has_an_answer(service, generator, prometheus, tmp_path):
    """Panels, annotations, what can be chosen and what is recorded, with rules from the same options; and exemplars lead to traces."""
    rendered = {name: text for name, text in render("prometheus-rules", OPTIONS).items() if name.endswith(".rules.yaml")}
    # A whole period is summed every two minutes, and nobody waits that long here.
    rules = {name: re.sub(r'interval: "?2m"?', 'interval: "1s"', text) for name, text in rendered.items()}
    assert rules != rendered
    recorded = {f"recorded: {each.name}": f'{each.name}{{service="gateway"}}' for each in RECORDED}
    jobs, expressions = scraping(service, generator), queries() | recorded
    assert len(expressions) > 120
    server = prometheus(jobs, rules=rules, features=["exemplar-storage"])
    with victoria_metrics(tmp_path, jobs, server) as other:
        assert left(server, expressions, PATIENCE) == {}
        if other is not None:
            assert left(other, expressions, 10.0) == {}
        # Neither says yes to everything.
        for each in filter(None, (server, other)):
            assert left(each, {"nobody": "sum(somaresil_cals_total)", "never": "sum(somaresil_calls_total) < 0"}, 1.0).keys() == {
                "nobody",
                "never",
            }
    for board in BOARDS.values():
        asking = [panel for panel in board["panels"] if panel.get("targets") and panel["datasource"]["type"] == "prometheus"]
        assert [problem for panel in asking for problem in unfit(server, panel)] == []
        for panel in asking:
            for target in panel["targets"]:
                if target.get("exemplar"):
                    asked = {"query": chosen(target["expr"]), "start": time.time() - 60.0, "end": time.time()}
                    found = get(f"{server.url}/api/v1/query_exemplars?{urllib.parse.urlencode(asked)}")
                    traces = {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}
                    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traces)
                    assert traces, panel["title"]
