"""Admission under a real server: who is let in, who is sent away with what, and when a permit comes back."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from somaresil import Bulkhead, Outcome, Resilience, ResilienceMiddleware

PATIENCE = 20.0
"""Seconds after which a test that hangs fails. No test waits for it to pass."""


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


class Service:
    """One permit, a line of one, and a stream that goes on until it is told to end."""

    def __init__(self):
        self.resilience = Resilience("gateway")
        self.release = threading.Event()
        routes = [Route("/sse", self.sse), Route("/items", self.item), Route("/health", self.item)]
        self.app = ResilienceMiddleware(
            Starlette(routes=routes),
            self.resilience,
            limit=Bulkhead(1, max_waiting=1, max_wait=2 * PATIENCE),
            priority="x-priority",
        )
        self.server = uvicorn.Server(uvicorn.Config(self.app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=5))
        self.port = 0

    async def item(self, request):
        return PlainTextResponse("item")

    async def sse(self, request):
        async def events():
            yield "data: first\n\n"
            while not self.release.is_set():
                await asyncio.sleep(0.005)
                yield ": still here\n\n"
            yield "data: last\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.server.run, daemon=True)
        thread.start()
        until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            self.release.set()
            self.server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()

    @property
    def counts(self):
        return self.resilience.snapshot().routes

    @property
    def limiter(self):
        return self.app.limiter


@pytest.fixture
def service():
    found = Service()
    with found.running() as found.url:
        yield found


def ask(service, level: str, path: str = "/items") -> httpx.Response:
    return httpx.get(service.url + path, headers={"x-priority": level}, timeout=PATIENCE, trust_env=False)


class Asked:
    """A request in a thread of its own."""

    def __init__(self, service, level: str) -> None:
        self.answers: list[httpx.Response] = []
        self.thread = threading.Thread(target=lambda: self.answers.append(ask(service, level)), daemon=True)
        self.thread.start()

    @property
    def answer(self) -> httpx.Response:
        self.thread.join(PATIENCE)
        return self.answers[0]


@pytest.mark.server
def test_critical_requests_are_let_in_and_low_ones_shed(service):
    """While a stream holds the permit: a low one waits, a critical one takes its place, and both are told apart by their answers."""
    with httpx.stream("GET", f"{service.url}/sse", timeout=PATIENCE, trust_env=False) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: first"
        low = Asked(service, "low")
        until(lambda: service.limiter.waiting == 1)
        at_once = ask(service, "low")
        assert (at_once.status_code, at_once.headers["retry-after"]) == (503, "1")
        critical = Asked(service, "critical")
        assert (low.answer.status_code, low.answer.headers["retry-after"]) == (503, "1")
        assert (service.limiter.active, service.limiter.waiting) == (1, 1)
        assert ask(service, "low", "/health").status_code == 200
        assert not critical.answers
        service.release.set()
        assert "data: last" in list(lines)
        assert (critical.answer.status_code, critical.answer.text) == (200, "item")
    until(lambda: service.limiter.active == 0)
    # A client has its answer a moment before it is booked.
    until(lambda: "/items" in service.counts and "/sse" in service.counts)
    assert service.counts["__unmatched__"].total(Outcome.REJECTED) == 2
    assert service.counts["/items"].total(Outcome.GOOD) == 1
    assert service.counts["/sse"].total(Outcome.GOOD) == 1


@pytest.mark.server
def test_a_reader_who_leaves_a_stream_gives_the_permit_back(service):
    """The next request is let in; the stream counts as abandoned."""
    with httpx.stream("GET", f"{service.url}/sse", timeout=PATIENCE, trust_env=False) as stream:
        # Kept: a generator that is forgotten closes the response.
        lines = stream.iter_lines()
        assert next(lines) == "data: first"
        assert service.limiter.active == 1
    until(lambda: service.limiter.active == 0)
    assert ask(service, "normal").status_code == 200
    until(lambda: "/sse" in service.counts)
    assert service.counts["/sse"].total(Outcome.ABANDONED) == 1
