"""Four real worker processes and one budget: each answers for all, a killed one loses its last interval at most, a restart nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from somaresil import SLO, Resilience
from somaresil.clock import SystemClock
from somaresil.slo.snapshot import SnapshotStore
from tests.integration.servers import HOST, Server, free_port

pytestmark = pytest.mark.slow

INTERVAL = 0.3
THIRTY = timedelta(days=30)
APP = f"""
import json, os
from datetime import timedelta
from somaresil import SLO, Resilience, ResilienceMiddleware

resilience = Resilience("service")
resilience.slos.keep(os.environ["FOLDER"], service="service", interval={INTERVAL})
resilience.slos.add(SLO("up", 99.0, timedelta(days=30)))
guard = resilience.guard("work", slo="up")

def work(path):
    try:
        with guard:
            if path == "/fail":
                raise ValueError
    except ValueError:
        pass
    return str(os.getpid())

def answer_to(path):
    if path == "/budget":
        budget = resilience.slos.error_budget("up")
        verdict = resilience.slos.verdict()
        return json.dumps([budget.good, budget.bad, budget.source, verdict.decision, os.getpid()])
    return work(path)

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    body = answer_to(scope["path"]).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}})
    await send({{"type": "http.response.body", "body": body}})

app = ResilienceMiddleware(asgi, resilience)

def wsgi(environ, start_response):
    body = answer_to(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def get(port, path="/"):
    """A connection of its own for each request, so that the workers share them."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def load(port, number, path="/"):
    """Eight at a time, or one worker would take them all."""
    with ThreadPoolExecutor(8) as threads:
        return Counter(map(int, threads.map(lambda _: get(port, path), range(number))))


def budget(port):
    good, bad, source, decision, pid = json.loads(get(port, "/budget"))
    assert source == "snapshot"
    return (good, bad), decision, pid


def settled(port, least, most, workers=4):
    """Ask until so many workers say the same: what was counted, when everybody had the time to write and to read."""
    begun = time.monotonic()
    while True:
        said = {}
        with ThreadPoolExecutor(8) as threads:
            for (good, bad), _, pid in threads.map(lambda _: budget(port), range(60)):
                assert (good, bad) <= most
                said[pid] = good, bad
        waited = time.monotonic() - begun
        if waited > 4 * INTERVAL and len(said) >= workers and len({*said.values()}) == 1 and min(said.values()) >= least:
            return next(iter(said.values()))
        assert waited < 30.0, f"{said}, not from {least} to {most}"


def command(server, port, tmp_path):
    if server == "uvicorn":
        made = [sys.executable, "-m", "uvicorn", "service:app", "--workers", "4", "--app-dir", tmp_path, "--log-level", "warning"]
        return [*made, "--host", HOST, "--port", str(port)]
    made = [sys.executable, "-m", "gunicorn", "service:wsgi", "--workers", "4", "--pythonpath", tmp_path, "--log-level", "warning"]
    return [*made, "--bind", f"{HOST}:{port}", *(["--preload"] if server == "gunicorn --preload" else [])]


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "gunicorn --preload"])
def test_four_workers_are_one_budget(server, tmp_path):
    """Exact after each rest; kill -9 of one loses at most what it took since its last writing; a restart of all loses nothing."""
    pytest.importorskip(server.split()[0])
    (tmp_path / "service.py").write_text(APP)
    folder = tmp_path / "slo"
    environment = {**os.environ, "FOLDER": str(folder)}
    port = free_port()
    with Server(command(server, port, tmp_path), port=port, folder=tmp_path, environment=environment):
        # The first one to be there would take everything before the others are.
        settled(port, (0, 0), (0, 0))
        took = load(port, 200)
        assert len(took) >= 2
        assert sum(load(port, 20, "/fail").values()) == 20
        settled(port, (200, 20), (200, 20))
        assert budget(port)[1] == "block"

        # Everything is written. What the victim takes now may be lost with it, and nothing else.
        more = load(port, 60)
        victim = max(took, key=lambda pid: more[pid])
        os.kill(victim, signal.SIGKILL)
        kept, _ = settled(port, (260 - more[victim], 20), (260, 20), workers=3)
        # The server has put another in its place, or three go on.
        load(port, 60)
        settled(port, (kept + 60, 20), (kept + 60, 20), workers=3)

    # All are gone, and all had said their last word: whoever comes next knows everything, and so does who only reads.
    store = SnapshotStore(folder, clock=SystemClock())
    reading = store.read(SLO("up", 99.0, THIRTY), THIRTY.total_seconds())
    assert reading.counts == (kept + 60, 20)
    again = free_port()
    with Server(command(server, again, tmp_path), port=again, folder=tmp_path, environment=environment):
        assert budget(again)[0] == (kept + 60, 20)
        load(again, 40)
        settled(again, (kept + 100, 20), (kept + 100, 20))
    resilience = Resilience("service", slo_snapshot=folder)
    resilience.slos.add(SLO("up", 99.0, THIRTY))
    assert resilience.slos.counts("up", THIRTY) == (kept + 100, 20)
    resilience.slos.snapshot.stop()
