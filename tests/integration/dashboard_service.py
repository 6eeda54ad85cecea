"""A service with a dashboard, and what it takes to look at it: real servers on the loopback, raw sockets that never read."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from somaresil import ChaosCeilings, ChaosPlan, Resilience, ResilienceMiddleware
from somaresil.chaos.plan import FaultWindow
from somaresil.dashboard import BearerToken
from somaresil.dashboard.stream import Pace

TOKEN = "integration-0123456789-abcdefghijk"
KNOWN = {"authorization": f"Bearer {TOKEN}"}
ROOT = "/_soma"
PATIENCE = 20.0
PLANS = {"slow model": ChaosPlan([FaultWindow("llm.*", "latency", 0, 30, delay=0.2)])}


class Service:
    """An app that answers, and has a dashboard."""

    def __init__(self, *, mount=None, guards=20, instance=None, **options):
        self.resilience = Resilience("gateway", instance=instance, environment="test", seed=1)
        self.resilience.chaos.opt_in(ChaosCeilings(experiments=1_000))
        for number in range(guards):
            self.resilience.guard(f"tool.{number}", breaker=True)
        self.guard = self.resilience.guard("llm.invoke", breaker=True)
        self.dashboard = self.resilience.dashboard(auth=BearerToken({"ops": TOKEN}), **{"plans": PLANS, **options})
        self.app = ResilienceMiddleware((mount or by_path)(self.dashboard), self.resilience)
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{ROOT}"

    @contextmanager
    def served(self):
        """Under a real server, in a thread."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until = time.monotonic() + PATIENCE
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.005)
        try:
            yield self
        finally:
            self.dashboard.stop()
            server.should_exit = True
            thread.join(PATIENCE)
            listener.close()


def by_path(dashboard):
    """What somebody without a framework does."""

    async def app(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith(ROOT):
            await dashboard(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    return app


def in_fastapi(dashboard):
    from fastapi import FastAPI

    app = FastAPI()
    app.mount(ROOT, dashboard)
    return app


def in_starlette(dashboard):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(ROOT, app=dashboard)])


def open_stream(port, *, buffer=None, headers=""):
    """A raw connection that has asked for the stream. ``buffer``: bytes that the kernel keeps for who does not read."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    request = f"GET {ROOT}/api/stream HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {TOKEN}\r\n{headers}\r\n"
    connection.sendall(request.encode())
    return connection


class Readers:
    """Many who look, in one thread: how many pictures each has seen, and when events came."""

    def __init__(self, port, count, headers=""):
        import selectors

        self.seen = [0] * count
        self.tails = [b""] * count
        self.arrived = {}
        self._stop = False
        self._connections = []
        self._selector = selectors.DefaultSelector()
        for number in range(count):
            connection = open_stream(port, headers=headers)
            connection.setblocking(False)
            self._connections.append(connection)
            self._selector.register(connection, selectors.EVENT_READ, number)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while not self._stop:
            for key, _ in self._selector.select(0.2):
                with suppress(BlockingIOError):
                    data = key.fileobj.recv(1 << 20)
                    if not data:
                        self._selector.unregister(key.fileobj)
                        continue
                    self._take(key.data, data)

    def _take(self, number, data):
        text = self.tails[number] + data
        self.seen[number] += text.count(b"event: picture") - self.tails[number].count(b"event: picture")
        self.tails[number] = text[-40:]

    def close(self):
        self._stop = True
        self._thread.join(PATIENCE)
        for connection in self._connections:
            connection.close()
        self._selector.close()


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(holds, seconds=PATIENCE):
    """Ask until it holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def events_of(response):
    """Messages of a stream: kind and data."""
    kind = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])


FAST = Pace(tick=0.1, soonest=0.05, look=0.01, heartbeat=1.0, patience=1.0)
