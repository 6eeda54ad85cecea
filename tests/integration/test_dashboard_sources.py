"""Four real worker processes and one picture: all are counted, a killed one is missed, a stopped one is stale, commands reach all."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.servers import HOST, Server, free_port

pytestmark = pytest.mark.slow

APP = """
import asyncio, json, os
from somaresil import Resilience
from somaresil.dashboard.sources import Sources

resilience = Resilience("service", environment="test")
guard = resilience.guard("work", breaker=True)
done = []

def perform(command, actor):
    if command.get("do") == "trip":
        resilience.breaker("work").trip(60.0)
    done.append((command.get("do"), actor))
    return {"done": True, "pid": os.getpid()}

sources = Sources(resilience, workers=os.environ["FOLDER"], perform=perform)
sources.start()

def work(path):
    try:
        with guard:
            if path == "/fail":
                raise ValueError
    except Exception:
        pass
    return str(os.getpid())

async def answer(path):
    if path == "/picture":
        return json.dumps({"by": os.getpid(), **await sources.picture()}, allow_nan=False)
    if path == "/guard":
        return json.dumps(await sources.guard("work"), allow_nan=False)
    if path == "/events":
        return json.dumps(await sources.events(), allow_nan=False)
    if path == "/trip":
        return json.dumps(await sources.command({"do": "trip"}, "alice"))
    return work(path)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                sources.stop()
                return
    body = (await answer(scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    body = asyncio.run(answer(environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def get(port, path="/"):
    """A connection of its own for each request, so that the workers share them."""
    connection = http.client.HTTPConnection(HOST, port, timeout=20.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def load(port, number, path="/"):
    """Eight at a time, or one worker would take them all."""
    with ThreadPoolExecutor(8) as threads:
        return Counter(map(int, threads.map(lambda _: get(port, path), range(number))))


def picture(port):
    return json.loads(get(port, "/picture"))


def counted(shown):
    """Good and bad calls; more than there were is more than can be waited for."""
    totals = shown["guards"][0]["totals"]
    assert totals["good"] <= 100
    return totals["good"], totals["bad"]


def states(shown):
    return Counter(source["state"] for source in shown["sources"])


def until(port, holds, seconds=20.0):
    """The first picture of which something holds."""
    begun = time.monotonic()
    while True:
        shown = picture(port)
        if holds(shown):
            return shown, time.monotonic() - begun
        assert time.monotonic() - begun < seconds, (shown["sources"], shown["guards"])


def command(server, port, tmp_path):
    if server == "uvicorn":
        made = [sys.executable, "-m", "uvicorn", "service:app", "--workers", "4", "--app-dir", tmp_path, "--log-level", "warning"]
        return [*made, "--host", HOST, "--port", str(port)]
    made = [sys.executable, "-m", "gunicorn", "service:wsgi", "--workers", "4", "--threads", "4", "--pythonpath", tmp_path]
    return [*made, "--log-level", "warning", "--bind", f"{HOST}:{port}", *(["--preload"] if server == "gunicorn --preload" else [])]


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "gunicorn --preload"])
def test_four_workers_are_one_picture(server, tmp_path):
    """Sums are exact, whoever answers; the process that only begins others is none of them; a command is done by each."""
    pytest.importorskip(server.split()[0])
    (tmp_path / "service.py").write_text(APP)
    folder = tmp_path / "workers"
    port = free_port()
    with Server(command(server, port, tmp_path), port=port, folder=tmp_path, environment={**os.environ, "FOLDER": str(folder)}):
        until(port, lambda shown: states(shown) == {"live": 4})
        assert len(load(port, 100)) >= 2
        load(port, 10, "/fail")
        for _ in range(8):
            # Whoever has not answered within half a second is shown as it was a moment ago.
            shown, _ = until(port, lambda shown: counted(shown) == (100, 10))
            assert shown["guards"][0]["states"] == {"closed": 4}
            assert Counter(source["kind"] for source in shown["sources"]) == {"self": 1, "worker": 3}
        assert sum(map(sum, filter(None, json.loads(get(port, "/guard"))["heat"]["cells"]))) <= 110

        said = json.loads(get(port, "/trip"))
        assert said["done"]
        assert len({source["pid"] for source in said["sources"]}) == 4
        shown, _ = until(port, lambda shown: shown["guards"][0]["states"] == {"open": 4})
        assert shown["guards"][0]["state"] == "open"
        events = json.loads(get(port, "/events"))["events"]
        assert len({event["source"] for event in events if event["kind"] == "BreakerChanged"}) == 4
        assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    if server != "uvicorn":
        # Gunicorn ends its workers without a word to the app: they leave by themselves.
        assert not [path for path in folder.iterdir() if path.suffix == ".sock"]


def test_a_killed_worker_is_missed_and_a_stopped_one_is_stale(tmp_path):
    """Within two seconds each; the counts of the stopped one stay, and neither delays the page."""
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(APP)
    port = free_port()
    made = command("gunicorn", port, tmp_path)
    with Server(made, port=port, folder=tmp_path, environment={**os.environ, "FOLDER": str(tmp_path / "workers")}):
        shown, _ = until(port, lambda shown: states(shown) == {"live": 4})
        load(port, 50)
        pids = [source["process"] for source in shown["sources"]]
        for _ in range(20):
            # Every worker has to know what the one that will be stopped has counted.
            until(port, lambda shown: counted(shown) == (50, 0))
        stopped = pids[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            # The kernel may still give connections to the one that is stopped: those are given up, and asked again.
            shown, waited = _until_served(port, lambda shown: states(shown)["stale"] == 1)
            assert waited < 6.0
            (stale,) = [source for source in shown["sources"] if source["state"] == "stale"]
            assert stale["process"] == stopped
            assert shown["guards"][0]["totals"]["good"] == 50
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(port, lambda shown: states(shown) == {"live": 4})

        victim = pids[2]
        os.kill(victim, signal.SIGKILL)
        shown, waited = until(port, lambda shown: states(shown)["missing"] == 1)
        assert waited < 2.0
        (missing,) = [source for source in shown["sources"] if source["state"] == "missing"]
        assert (missing["process"], "ended" in missing["why"]) == (victim, True)


def _until_served(port, holds, seconds=20.0):
    begun = time.monotonic()
    while True:
        connection = http.client.HTTPConnection(HOST, port, timeout=1.5)
        try:
            connection.request("GET", "/picture")
            shown = json.loads(connection.getresponse().read())
        except OSError:
            shown = None
        finally:
            connection.close()
        if shown is not None and holds(shown):
            return shown, time.monotonic() - begun
        assert time.monotonic() - begun < seconds, shown


POD = """
import json, os
from somaresil import Resilience
from somaresil.dashboard.sources import Sources

resilience = Resilience("service", environment="test")
guard = resilience.guard("work", breaker=True)
sources = Sources(resilience, peers=[os.environ["PEER"]], token="a-token")
sources.start()

async def answer(scope):
    path = scope["path"]
    if path == "/picture":
        return 200, json.dumps(await sources.picture(), allow_nan=False)
    if path == "/_soma/api/picture":
        known = dict(scope["headers"]).get(b"authorization") == b"Bearer a-token" and scope["query_string"] == b"own=1"
        return (200, json.dumps(await sources.own(), allow_nan=False)) if known else (404, "{}")
    with guard:
        return 200, str(os.getpid())

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                sources.stop()
                return
    status, text = await answer(scope)
    headers = [(b"content-length", str(len(text)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
"""


def test_two_pods_see_each_other_and_miss_each_other(tmp_path):
    """By address and by name; one that is gone is stale with its counts, and delays nothing."""
    pytest.importorskip("uvicorn")
    (tmp_path / "pod.py").write_text(POD)
    one, other = free_port(), free_port()

    def pod(port, peer):
        made = [sys.executable, "-m", "uvicorn", "pod:app", "--app-dir", tmp_path, "--log-level", "warning"]
        made += ["--host", HOST, "--port", str(port)]
        return Server(made, port=port, folder=tmp_path, environment={**os.environ, "PEER": peer})

    with pod(one, f"dns+http://localhost:{other}/_soma"):
        with pod(other, f"http://{HOST}:{one}/_soma"):
            load(one, 3)
            load(other, 4)
            for port in (one, other):
                shown, _ = until(port, lambda shown: counted(shown) == (7, 0))
                assert states(shown) == {"live": 2}
                assert shown["guards"][0]["states"] == {"closed": 2}
        begun = time.monotonic()
        shown, _ = until(one, lambda shown: states(shown)["stale"] == 1)
        assert counted(shown) == (7, 0)
        (stale,) = [source for source in shown["sources"] if source["state"] == "stale"]
        assert (stale["kind"], "refused" in stale["why"].lower()) == ("peer", True)
        slowest = max(_timed(one) for _ in range(5))
        assert slowest < 2.0
        assert time.monotonic() - begun < 20.0


def _timed(port):
    begun = time.monotonic()
    picture(port)
    return time.monotonic() - begun
