"""A canary of two apps under a real server: streams that are cut, clients that stay and leave, and both lifespans."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import timedelta

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from somaresil import SLO, Resilience, ResilienceMiddleware
from somaresil.canary_app import CanaryApp, CanaryCookie

HOST = "127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a test that hangs fails. No test waits for it to pass."""


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


def version(name, seen, *, cuts=False):
    """One version of a service: ``/sse`` ends after three events, or breaks off after the first; ``/endless`` does not end."""

    async def sse(request):
        async def events():
            for number in range(3):
                yield f"data: {name} {number}\n\n"
                if cuts:
                    raise LookupError("the model is gone")

        return StreamingResponse(events(), media_type="text/event-stream")

    async def endless(request):
        async def events():
            while True:
                yield f"data: {name}\n\n"
                await asyncio.sleep(0.002)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def item(request):
        return PlainTextResponse(f"{name} {request.state.name}")

    @asynccontextmanager
    async def lifespan(app):
        seen.append(f"{name} started")
        yield {"name": name}
        seen.append(f"{name} ended")

    return Starlette(routes=[Route("/sse", sse), Route("/endless", endless), Route("/item", item)], lifespan=lifespan)


class Service:
    """A canary behind the middleware, served by uvicorn in a thread of this process."""

    def __init__(self, *, cuts=False):
        self.seen = []
        self.resilience = Resilience("gateway", environment="test", seed=1)
        self.resilience.slos.add(SLO("up", 99.0, timedelta(days=30)), SLO("whole", 95.0, timedelta(days=30), completion=True))
        self.canary = CanaryApp(
            version("old", self.seen),
            self.resilience,
            "gateway",
            candidate=version("new", self.seen, cuts=cuts),
            version="2",
            bad=["up", "whole"],
            key=CanaryCookie(),
            steps=[50, 100],
            interval=None,
        )
        app = ResilienceMiddleware(self.canary, self.resilience, slo="up")
        config = uvicorn.Config(app, host=HOST, port=0, log_config=None, lifespan="on", ws="none", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        self.port = 0

    @property
    def counts(self):
        return self.canary.controller.status().finding.counts

    def client(self):
        return httpx.Client(base_url=f"http://{HOST}:{self.port}", trust_env=False, timeout=PATIENCE)


@contextmanager
def running(service):
    thread = threading.Thread(target=service.server.run, name="uvicorn")
    thread.start()
    try:
        until(lambda: service.server.started or not thread.is_alive())
        service.port = service.server.servers[0].sockets[0].getsockname()[1]
        yield service
    finally:
        service.server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.server
def test_streams_that_are_cut_in_the_middle_roll_the_candidate_back():
    """Each client is a new user; those after the proof hear whole streams of the control."""
    with running(Service(cuts=True)) as service:
        cut, asked = 0, 0
        while service.canary.controller.phase != "rollback" and asked < 200:
            with service.client() as client:
                asked += 1
                try:
                    assert client.get("/sse").text.endswith("data: old 2\n\n")
                except httpx.RemoteProtocolError:
                    cut += 1
            until(lambda: service.counts.candidate + service.counts.control == asked)  # noqa: B023 - it is called here
        assert 1 <= cut <= 12
        assert (service.counts.candidate_bad, service.counts.control_bad) == (cut, 0)
        for _ in range(20):
            with service.client() as client:
                assert client.get("/sse").text.endswith("data: old 2\n\n")
        # The middleware around it has seen the same.
        assert service.resilience.routes.counts()["/sse"].total("bad") == cut


@pytest.mark.server
def test_a_browser_keeps_to_its_app_and_each_has_its_state():
    """The cookie comes back, and both apps are started and ended."""
    with running(Service()) as service:
        first = {}
        for user in range(30):
            with service.client() as client:
                said = {client.get("/item").text for _ in range(3)}
                assert len(said) == 1
                first[user] = said.pop()
        assert set(first.values()) == {"old old", "new new"}
        until(lambda: service.counts.candidate_good + service.counts.control_good == 90)
    assert sorted(service.seen) == ["new ended", "new started", "old ended", "old started"]


@pytest.mark.server
def test_clients_that_leave_a_stream_say_nothing():
    """Whichever app they were with."""
    with running(Service()) as service:
        for _ in range(10):
            with closing(socket.create_connection((HOST, service.port), timeout=PATIENCE)) as client:
                client.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
                heard = b""
                while b"data: " not in heard:
                    heard += client.recv(4096)
        until(lambda: "/endless" in service.resilience.routes.counts() and service.resilience.routes.counts()["/endless"].total() == 10)
        assert (service.counts.candidate, service.counts.control) == (0, 0)
