"""Debian's Prometheus scrapes a real service, and PromQL says what the service says of itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.integration.servers import HOST, Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

SERVICE = """
import asyncio
from datetime import timedelta
from fastapi import APIRouter, FastAPI, HTTPException
from somaresil import SLO, CircuitBreaker, Resilience, ResilienceMiddleware
from somaresil.integrations.prometheus import metrics_app
from somaresil.model.histogram import quantile
from somaresil.outcome import Outcome

resilience = Resilience("gateway")
resilience.slos.add(
    SLO("model_up", 99.9, timedelta(days=30)), SLO("model_fast", 95.0, timedelta(days=7), latency=0.02), SLO("api", 99.0, timedelta(days=7))
)
model = resilience.guard("model", slo=["model_up", "model_fast"], breaker=CircuitBreaker(minimum_calls=1000))
router = APIRouter(prefix="/v1")

@model
async def invoke(what):
    if what == "bad":
        raise ValueError
    if what == "slow":
        await asyncio.sleep(0.06)
    return what

@router.get("/ask/{what}")
async def ask(what: str):
    try:
        return await invoke(what)
    except ValueError:
        raise HTTPException(503)

api = FastAPI()
api.include_router(router)
api.mount("/metrics", metrics_app(resilience))

@api.get("/state")
async def state():
    counts = model.recorder.counts()
    durations = counts.histogram(Outcome.GOOD, Outcome.BAD)
    return {
        "burn": {name: resilience.slos.burn_rate(name, 3600) for name in resilience.slos.names},
        "good": counts.total(Outcome.GOOD),
        "bad": counts.total(Outcome.BAD),
        "p90": quantile(counts.bounds, durations, 0.9),
    }

@api.post("/trip")
async def trip():
    resilience.breaker("model").trip()

app = ResilienceMiddleware(api, resilience, slo="api")
"""


def ask(server, path, method="GET"):
    request = urllib.request.Request(server.url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.fixture
def service(tmp_path):
    (tmp_path / "gateway.py").write_text(SERVICE)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "gateway:app", "--app-dir", tmp_path, "--host", HOST, "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with Server(command, port=port, folder=tmp_path, ready="/state", environment=environment) as server:
        yield server


BURN = """
sum by (slo) (increase(somaresil_sli_events_total{outcome="bad"}[5m])) / sum by (slo) (increase(somaresil_sli_events_total[5m]))
/ (1 - max by (slo) (somaresil_slo_objective_ratio))
"""


def test_promql_and_the_process_say_the_same(service, prometheus):
    """Calls, burn rates, quantile, breaker state and request labels, as Prometheus reads them in its own preferred format."""
    server = prometheus([f"{HOST}:{service.port}"], metrics_path="/metrics/")
    # Once with nothing counted: a rate needs a beginning.
    server.wait_for('somaresil_sli_events_total{slo="model_up",outcome="bad"} == 0')
    for what, number in (("good", 60), ("slow", 20), ("bad", 20)):
        for _ in range(number):
            ask(service, f"/v1/ask/{what}")
    server.wait_for('somaresil_calls_total{guard="model",outcome="good"} == 80')
    state = json.loads(ask(service, "/state"))
    assert (state["good"], state["bad"]) == (80, 20)
    assert server.value('sum(somaresil_calls_total{guard="model"})') == 100.0

    burn = {labels["slo"]: value for labels, value in server.query(BURN)}
    assert burn["model_up"] == pytest.approx(200.0, rel=1e-6)
    assert {"model_up": burn["model_up"], "model_fast": burn["model_fast"]} == pytest.approx(
        {name: state["burn"][name] for name in ("model_up", "model_fast")}, rel=1e-6
    )
    # Requests for metrics and state go on meanwhile, so the two are read at different moments.
    assert burn["api"] == pytest.approx(state["burn"]["api"], rel=0.2)

    p90 = 'histogram_quantile(0.9, sum by (le) (somaresil_call_duration_seconds_bucket{guard="model"}))'
    assert server.value(p90) == pytest.approx(state["p90"], rel=1e-9)
    assert state["p90"] > 0.05
    rate = 'histogram_quantile(0.9, sum by (le) (rate(somaresil_call_duration_seconds_bucket{guard="model"}[1m])))'
    assert server.value(rate) == pytest.approx(state["p90"], rel=1e-9)

    requests = {
        labels["http_response_status_code"]: (value, labels.get("error_type"))
        for labels, value in server.query('http_server_request_duration_seconds_count{http_route="/v1/ask/{what}"}')
    }
    assert requests == {"200": (80.0, None), "503": (20.0, "503")}
    assert server.value('http_server_time_to_first_byte_seconds_count{http_route="/v1/ask/{what}",error_type=""}') == 80.0

    ask(service, "/trip", "POST")
    ((labels, _),) = server.wait_for('somaresil_breaker_state{guard="model",state="open"} == 1')
    assert labels["job"] == "somaresil"
    assert server.value('sum(somaresil_breaker_state{guard="model"})') == 1.0
    assert server.value('increase(somaresil_breaker_transitions_total{guard="model",to="open"}[1m]) > 0') is not None
    assert server.value('up{job="somaresil"}') == 1.0


def test_promtool_accepts_what_is_served(service):
    """The linter of Prometheus finds nothing wrong with the text that a service under load serves."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    for what in ("good", "bad", "slow"):
        ask(service, f"/v1/ask/{what}")
    text = ask(service, "/metrics/")
    assert 'http_route="/v1/ask/{what}"' in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
