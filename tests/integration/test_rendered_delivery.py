"""A rendered alert on its way: a real Prometheus with the rendered rules, a real Alertmanager with the rendered routes, a webhook."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from somaresil.render import RenderOptions, render
from tests.integration.servers import HOST

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(120)]

METRICS = """\
# TYPE somaresil_workers gauge
somaresil_workers{service_name="gateway",deployment_environment="production"} 2
# TYPE somaresil_kill_switch gauge
somaresil_kill_switch{state="released"} 0
somaresil_kill_switch{state="none"} 2
# TYPE somaresil_experiments gauge
somaresil_experiments{component="llm.invoke",fault="latency"} %d
"""


@pytest.fixture
def here():
    """Give a server that is a service and two receivers: the number of its experiments can be set, and it keeps what it is told."""
    state = {"experiments": 0, "page": [], "ticket": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = (METRICS % state["experiments"]).encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state[self.path.strip("/")].append(told)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, state
    server.shutdown()
    server.server_close()
    thread.join(5.0)


def wait_for(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_page_reaches_its_receiver_with_everything_that_whoever_is_woken_needs(here, prometheus, alertmanager):
    """An experiment in production pages within seconds: with its labels, description, runbook and board, and no ticket goes to it."""
    port, state = here
    options = RenderOptions(
        service="gateway",
        series={"job": "somaresil"},
        scrape_interval=1.0,
        labels={"team": "edge"},
        page_to=f"webhook:http://{HOST}:{port}/page",
        ticket_to=f"webhook:http://{HOST}:{port}/ticket",
        runbook_base="https://docs.example/runbooks",
        grafana_url="https://grafana.example",
    )
    manager = alertmanager("", configuration=render("alertmanager", options)["alertmanager.yml"])
    rules = render("prometheus-rules", options)["somaresil.alerts.rules.yaml"]
    server = prometheus([f"{HOST}:{port}"], rules=rules, alertmanager=f"{HOST}:{manager.port}")
    server.wait_for('somaresil_workers{job="somaresil"}')
    assert server.query('ALERTS{alertstate="firing"}') == []
    state["experiments"] = 1
    server.wait_for('ALERTS{alertname="FaultsInProduction",alertstate="firing"}')
    wait_for(lambda: state["page"], 40.0)
    told = state["page"][0]
    assert told["receiver"] == "page"
    (alert,) = told["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "FaultsInProduction",
        "component": "llm.invoke",
        "fault": "latency",
        "job": "somaresil",
        "service": "gateway",
        "severity": "page",
        "team": "edge",
    }
    assert alert["annotations"] == {
        "summary": "Faults are injected in production",
        "description": "An experiment strikes llm.invoke with latency in what says that it is production.",
        "runbook_url": "https://docs.example/runbooks/faults-in-production",
        "dashboard_url": "https://grafana.example/d/somaresil-chaos?var-service=gateway",
    }
    assert all(alert["labels"]["severity"] == "ticket" for message in state["ticket"] for alert in message["alerts"])
