"""A page that is worth waking somebody for, from the first bad call to the webhook and back: in the process, and by a real Prometheus."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from somaresil import SLO
from somaresil.model.slo import BurnPolicy, Window
from somaresil.slo.rules import RuleOptions, compile_rules
from tests.integration.servers import HOST, Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

# 30 % of errors within 20 seconds and within 10: what a real policy says of hours, said of seconds.
POLICY = BurnPolicy("quick", (Window(long=20.0, short=10.0, budget_share=0.2, severity="page"),), minimum_bad=3, confidence=0.9)
OBJECTIVE = SLO("api_availability", 90.0, timedelta(minutes=5), POLICY, description="Requests are answered.")

SERVICE = """
from fastapi import FastAPI, HTTPException

from somaresil import ChaosConfig, ChaosExperiment, Resilience
from somaresil.events import AlertCleared, AlertFired
from somaresil.integrations.prometheus import metrics_app
from tests.integration.test_alerting import OBJECTIVE

resilience = Resilience("gateway", environment="test")
resilience.slos.add(OBJECTIVE)
resilience.chaos.opt_in()
told = []
resilience.on(lambda event: told.append([type(event).__name__, event.severity, event.at]), AlertFired, AlertCleared)
resilience.alerting(interval=1.0)
guard = resilience.guard("model", slo="api_availability")
app = FastAPI()
app.mount("/metrics", metrics_app(resilience))

@guard
async def invoke():
    return "answer"

@app.get("/ask")
async def ask():
    try:
        return await invoke()
    except Exception:
        raise HTTPException(503)

@app.get("/told")
async def tell():
    return told

@app.post("/strike")
async def strike():
    resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "model", 1.0, 60.0))

@app.post("/stop")
async def stop():
    resilience.chaos.stop_all()
"""


def ask(server: Server, path: str, method: str = "GET"):
    """Ask, and give the answer; what is refused is an answer as well."""
    with (
        suppress(urllib.error.HTTPError),
        urllib.request.urlopen(urllib.request.Request(server.url + path, method=method), timeout=5.0) as response,
    ):
        return json.loads(response.read() or "null")
    return None


@pytest.fixture
def service(tmp_path):
    """Give a running service that has an experiment to start and to stop."""
    (tmp_path / "paged.py").write_text(SERVICE)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "paged:app", "--app-dir", tmp_path, "--host", HOST, "--port", str(port)]
    paths = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    environment |= {"SOMARESIL_CHAOS": "1", "PYTHONPATH": paths, "SOMARESIL_CHAOS_SWITCH": "off"}
    with Server(command, port=port, folder=tmp_path, ready="/told", environment=environment) as server:
        yield server


@pytest.fixture
def webhook():
    """Give the URL of a webhook, and what it was told: pairs of status and labels."""
    told: list[tuple[str, dict[str, str], dict[str, str]]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.extend((alert["status"], alert["labels"], alert["annotations"]) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((HOST, 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{HOST}:{server.server_port}/", told
    server.shutdown()
    server.server_close()
    thread.join(5.0)


def call_until(server: Server, holds, *, timeout: float = 25.0) -> float:
    """Call twenty times a second until something holds; give how long that took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > timeout:
            raise AssertionError(f"not within {timeout:g} s; told: {ask(server, '/told')}")
        ask(server, "/ask")
        time.sleep(0.05)
    return time.monotonic() - began


def test_an_experiment_pages_and_its_end_ends_the_page(service, prometheus, alertmanager, webhook):
    """The webhook gets the page with severity, objective, description and runbook while it lasts, and that it is over soon after it.

    The process, which looks at the same events by itself, has said the same.
    """
    url, told = webhook
    options = RuleOptions(scrape_interval=1.0, service="gateway", runbook_url="https://wiki.example/{slo}")
    rules = compile_rules([OBJECTIVE], options).files["api_availability.rules.yaml"]
    manager = alertmanager(url)
    server = prometheus([f"{HOST}:{service.port}"], metrics_path="/metrics/", rules=rules, alertmanager=f"{HOST}:{manager.port}")
    call_until(service, lambda: server.value('slo:sli_error:ratio_rate10s{slo="api_availability"} == 0') is not None)
    assert (told, ask(service, "/told")) == ([], [])

    ask(service, "/strike", "POST")
    call_until(service, lambda: told and len(ask(service, "/told")) == 1)
    (status, labels, annotations), *_ = told
    assert status == "firing"
    assert labels == {"alertname": "ErrorBudgetBurnPage", "slo": "api_availability", "service": "gateway", "severity": "page"}
    assert annotations["runbook_url"] == "https://wiki.example/api_availability"
    assert annotations["description"].startswith("Requests are answered. Objective: 90 % in 5m.")

    ask(service, "/stop", "POST")
    call_until(service, lambda: told[-1][0] == "resolved" and len(ask(service, "/told")) == 2)
    assert [status for status, _, _ in told] == ["firing", "resolved"]
    assert [event[:2] for event in ask(service, "/told")] == [["AlertFired", "page"], ["AlertCleared", "page"]]
    # The short window has ended it: over the long one there was still too much.
    assert server.value('max_over_time(slo:sli_error:ratio_rate20s{slo="api_availability"}[5s])') > 0.3
