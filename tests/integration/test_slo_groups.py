"""A service under uvicorn that streams and has tenants; Prometheus scrapes it, and the gate judges its tenants and its composite."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request

import pytest

from somaresil.cli import main
from somaresil.integrations.prometheus_store import PrometheusStore
from somaresil.slofile import read_slos
from tests.integration.servers import HOST, Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

SERVICE = """
import asyncio
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from somaresil import Resilience, ResilienceMiddleware
from somaresil.integrations.prometheus import metrics_app
from somaresil.slofile import read_slos

resilience = Resilience("gateway")
resilience.slos.add(*read_slos(Path(__file__).with_name("slo.toml")).slos)

async def answer(request):
    return PlainTextResponse("x", 500 if request.query_params.get("bad") else 200)

async def events(request):
    async def pieces():
        for wait in request.query_params["waits"].split(","):
            await asyncio.sleep(float(wait))
            yield "data: x\\n\\n"
    return StreamingResponse(pieces(), media_type="text/event-stream")

routes = [Route("/answer", answer), Route("/events", events)]
inner = ResilienceMiddleware(Starlette(routes=routes), resilience, slo=["tenants", "whole", "pace"])
app = Starlette(routes=[Mount("/metrics", metrics_app(resilience)), Mount("/", inner)])
"""

OBJECTIVES = """
[gate]
minimum_coverage = 0.0

[slos.tenants]
target_percentage = 90
measurement_window = "1h"
group_by = "header:x-tenant"

[slos.first]
target_percentage = 50
measurement_window = "1h"
first_item = 30.0

[slos.pace]
target_percentage = 50
measurement_window = "1h"
idle = 0.3

[slos.whole]
target_percentage = 90
measurement_window = "1h"
parts = { tenants = 1.0, first = 1.0 }
"""


@pytest.fixture
def service(tmp_path):
    """Run the service in a folder with its objectives."""
    (tmp_path / "gateway.py").write_text(SERVICE)
    (tmp_path / "slo.toml").write_text(OBJECTIVES)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "gateway:app", "--app-dir", tmp_path, "--host", HOST, "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with Server(command, port=port, folder=tmp_path, ready="/metrics/", environment=environment) as server:
        yield server


def ask(server, path, tenant):
    """Send a request of a tenant, and give its answer."""
    request = urllib.request.Request(server.url + path, headers={"X-Tenant": tenant})
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        error.close()
        return b""


def test_tenants_and_parts_from_a_real_service_to_the_gate(service, prometheus, tmp_path, capsys, monkeypatch):
    """What one tenant suffers blocks, named; the composite is the mean of its parts; a stream that stalls is one bad event."""
    monkeypatch.chdir(tmp_path)
    server = prometheus([f"{HOST}:{service.port}"], metrics_path="/metrics/")
    for tenant in ("acme", "small", "umbrella"):
        ask(service, "/answer", tenant)
    # A rate needs a beginning: the first sample of a series is none.
    server.wait_for('count(somaresil_sli_group_events_total{slo="tenants"}) == 6')
    for number in range(100):
        ask(service, "/answer", "umbrella")
        ask(service, "/answer?bad=1" if number < 15 and number % 2 else "/answer", "acme" if number < 15 else "umbrella")
    assert ask(service, "/events?waits=0,0.6", "small").count(b"data") == 2
    assert ask(service, "/events?waits=0,0.01", "small").count(b"data") == 2
    server.wait_for('sum(somaresil_sli_group_events_total{slo="tenants"}) == 205')
    assert server.value('somaresil_sli_events_total{slo="pace",outcome="bad"}') == 1.0
    assert server.value('somaresil_sli_events_total{slo="pace",outcome="good"}') == 1.0
    assert server.value('somaresil_slo_part_weight{slo="whole",part="first"}') == 1.0

    slos = {slo.name: slo for slo in read_slos("slo.toml").slos}
    store = PrometheusStore(server.url)
    deadline = time.monotonic() + 20.0
    while True:
        found = store.read_groups(slos["tenants"], 3_600.0)
        assert not isinstance(found, str), found
        if {name: reading.good + reading.bad >= 1 for name, reading in found.items()}.get("acme") and found["acme"].bad >= 7:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert set(found) == {"acme", "small", "umbrella"}
    assert found["acme"].bad / (found["acme"].good + found["acme"].bad) == pytest.approx(7 / 15, rel=0.15)
    assert found["umbrella"].bad == 0

    ask_gate = ["gate", "--slo", "slo.toml", "--prometheus", server.url]
    assert main([*ask_gate, "--only", "tenants"]) == 1
    said = capsys.readouterr().out
    assert "tenants of 'acme'" in said
    assert "umbrella" not in said
    assert main([*ask_gate, "--only", "whole"]) == 0
    assert "whole: allow (prometheus)" in capsys.readouterr().out
