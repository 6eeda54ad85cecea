"""Several real worker processes: every request is counted once, whichever worker took it and whichever is scraped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.integration.servers import HOST, Server, free_port

ASGI = """
import os
from somaresil import Resilience, ResilienceMiddleware
from somaresil.integrations.prometheus import metrics_app

resilience = Resilience("service")
guard = resilience.guard("work", breaker=True)
metrics = metrics_app(resilience, interval=0.2)

@guard
async def work(path):
    if path == "/fail":
        raise ValueError
    return str(os.getpid()).encode()

async def answer(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/metrics":
        return await metrics(scope, receive, send)
    try:
        status, body = 200, await work(scope["path"])
    except ValueError:
        status, body = 500, b""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})

app = ResilienceMiddleware(answer, resilience)
"""

WSGI = """
import os
from prometheus_client import CollectorRegistry, make_wsgi_app
from somaresil import Resilience
from somaresil.integrations.prometheus import install

resilience = Resilience("service")
guard = resilience.guard("work", breaker=True)
registry = CollectorRegistry()
install(resilience, registry, interval=0.2)
metrics = make_wsgi_app(registry)

@guard
def work():
    return str(os.getpid()).encode()

for _ in range(3):
    work()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    body = work()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def get(port, path="/"):
    """Give status and body; a connection of its own for each request, so that the workers share them."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def scrape(port):
    """Give {(sample, labels that matter): value}."""
    found = {}
    for family in parse(get(port, "/metrics")[1]):
        for sample in family.samples:
            key = tuple(value for name, value in sorted(sample.labels.items()) if name in {"guard", "outcome", "state", "le"})
            found[sample.name, *key] = found.get((sample.name, *key), 0.0) + sample.value
    return found


def calls(port, outcome="good"):
    return scrape(port).get(("somaresil_calls_total", "work", outcome), 0.0)


def closed(port):
    return scrape(port)["somaresil_breaker_state", "work", "closed"]


def becomes(expected, ask, port, *, at_most=None):
    """Ask until it is as expected; the other workers write every 0.2 s. It may never be more than that."""
    deadline = time.monotonic() + 20.0
    while (found := ask(port)) != expected:
        assert at_most is None or found <= at_most
        assert time.monotonic() < deadline, f"{found}, not {expected}"
        time.sleep(0.05)


def load(port, number, path="/"):
    """Send so many requests and give the workers that answered, with how many each took."""
    took = Counter()
    for _ in range(number):
        _, body = get(port, path)
        took[body] += 1
    return took


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "metrics"
    return {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}


def files(tmp_path):
    return [json.loads(path.read_text()) for path in (tmp_path / "metrics").glob("somaresil_[0-9]*.json")]


@pytest.mark.slow
def test_uvicorn_workers_are_scraped_as_one(tmp_path, environment):
    """Three spawned workers: one scrape of any of them shows exactly the requests of all, also after one of them was killed."""
    (tmp_path / "spawned.py").write_text(ASGI)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "spawned:app", "--workers", "3", "--app-dir", tmp_path, "--host", HOST]
    command += ["--port", str(port), "--lifespan", "off", "--log-level", "warning"]
    with Server(command, port=port, folder=tmp_path, ready="/metrics", environment=environment):
        becomes(3.0, closed, port)
        took = load(port, 200)
        assert len(took) > 1
        load(port, 10, "/fail")
        becomes(200.0, calls, port, at_most=200.0)
        becomes(10.0, lambda port: calls(port, "bad"), port, at_most=10.0)
        # Whoever answers, the answer is the same now.
        assert {calls(port) for _ in range(20)} == {200.0}
        found = scrape(port)
        assert found["somaresil_call_duration_seconds_bucket", "work", "+Inf"] == 210.0
        # The scrapes are requests too, and each is counted after it was answered.
        becomes(True, lambda port: scrape(port)["http_server_request_duration_seconds_count",] >= 210.0, port)

        os.kill(int(next(iter(took))), signal.SIGKILL)
        becomes(4, lambda _: len(files(tmp_path)), port)
        assert {calls(port) for _ in range(20)} == {200.0}
        becomes(3.0, closed, port)
        load(port, 50)
        becomes(250.0, calls, port, at_most=250.0)


@pytest.mark.slow
def test_gunicorn_workers_forked_from_a_loaded_app_count_once(tmp_path, environment):
    """Three calls before the fork, 150 after it, workers that are replaced every twenty requests: exactly 153 at each moment of rest."""
    pytest.importorskip("gunicorn")
    (tmp_path / "preloaded.py").write_text(WSGI)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "preloaded:app", "--preload", "--workers", "2", "--pythonpath", tmp_path]
    command += ["--bind", f"{HOST}:{port}", "--max-requests", "20", "--log-level", "warning", "--worker-class", "sync"]
    with Server(command, port=port, folder=tmp_path, ready="/metrics", environment=environment) as server:
        becomes(3.0, calls, port, at_most=3.0)
        took = load(port, 150)
        assert len(took) > 4
        assert str(server.pid) not in took
        becomes(153.0, calls, port, at_most=153.0)
        # The master has loaded the app, calls nothing any more, and is no worker.
        becomes(2.0, closed, port)
        masters = [file for file in files(tmp_path) if file["pid"] == server.pid]
        assert [file["live"] for file in masters] == [False]
    stopped = files(tmp_path)
    assert not any(file["live"] for file in stopped)
