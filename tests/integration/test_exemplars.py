"""From a bad or slow request to its trace: Debian's Prometheus keeps the exemplars that a real service serves."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.integration.servers import HOST, Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

SERVICE = """
import asyncio
from datetime import timedelta
from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from somaresil import SLO, Resilience, ResilienceMiddleware
from somaresil.integrations.prometheus import metrics_app

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("gateway")
resilience = Resilience("gateway")
resilience.slos.add(SLO("fast", 95.0, timedelta(days=7), latency=0.05))
model = resilience.guard("model", slo="fast")
inner = FastAPI()
inner.mount("/metrics", metrics_app(resilience, exemplars=True))
seen = {}

@model
async def invoke(what):
    if what == "bad":
        raise ValueError
    if what == "slow":
        await asyncio.sleep(0.06)

@inner.get("/ask/{what}")
async def ask(what: str):
    context = trace.get_current_span().get_span_context()
    seen[what] = [trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)]
    try:
        await invoke(what)
    except ValueError:
        raise HTTPException(503)

@inner.get("/seen")
async def show():
    return seen

guarded = ResilienceMiddleware(inner, resilience, slo="fast")

async def app(scope, receive, send):
    if scope["type"] != "http":
        return await guarded(scope, receive, send)
    with tracer.start_as_current_span("request"):
        await guarded(scope, receive, send)
"""


def ask(server, path, accept="*/*"):
    request = urllib.request.Request(server.url + path, headers={"accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def exemplars(server, query, wanted):
    """What Prometheus has kept, as soon as there are ``wanted`` series with exemplars."""
    deadline = time.monotonic() + 20.0
    while True:
        now = time.time()
        found = server.api("query_exemplars", query=query, start=f"{now - 300:.0f}", end=f"{now + 60:.0f}")
        if len(found) >= wanted:
            return found
        assert time.monotonic() < deadline, f"{query}: {found}"
        time.sleep(0.2)


def test_prometheus_leads_to_the_trace(tmp_path, prometheus):
    """Of bad calls, slow calls and bad requests; not of the quick ones, and not in plain text."""
    (tmp_path / "gateway.py").write_text(SERVICE)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "gateway:app", "--app-dir", tmp_path, "--host", HOST, "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with Server(command, port=port, folder=tmp_path, ready="/seen", environment=environment) as service:
        server = prometheus([f"{HOST}:{port}"], metrics_path="/metrics/", features=["exemplar-storage"])
        for what in ("good", "bad", "slow"):
            ask(service, f"/ask/{what}")
        seen = json.loads(ask(service, "/seen"))

        calls = exemplars(server, "somaresil_calls_total", 2)
        found = {each["seriesLabels"]["outcome"]: each["exemplars"][-1]["labels"] for each in calls}
        assert [found["bad"]["trace_id"], found["bad"]["span_id"]] == seen["bad"]
        assert [found["good"]["trace_id"], found["good"]["span_id"]] == seen["slow"]

        buckets = exemplars(server, 'somaresil_call_duration_seconds_bucket{guard="model"}', 2)
        traces = {each["exemplars"][-1]["labels"]["trace_id"]: float(each["seriesLabels"]["le"]) for each in buckets}
        assert set(traces) == {seen["bad"][0], seen["slow"][0]}
        assert traces[seen["slow"][0]] > 0.05

        requests = exemplars(server, 'http_server_request_duration_seconds_bucket{http_route="/ask/{what}"}', 2)
        kept = {each["exemplars"][-1]["labels"]["trace_id"] for each in requests}
        assert {seen["bad"][0], seen["slow"][0]} <= kept
        assert seen["good"][0] not in kept

        plain, rich = ask(service, "/metrics/", "text/plain"), ask(service, "/metrics/", "application/openmetrics-text; version=1.0.0")
        assert (seen["bad"][0] in plain, seen["bad"][0] in rich) == (False, True)
        labels = re.findall(r"# \{([^}]*)\}", rich)
        assert labels
        assert max(len(re.sub(r'[="],?', "", text)) for text in labels) <= 128
