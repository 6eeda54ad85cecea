"""The middleware under a real server: uvicorn on loopback, with clients that stay, leave, and hear a stream break."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import closing, contextmanager
from datetime import timedelta

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, RejectConnection, Request

from somaresil import SLO, ChaosConfig, Outcome, Resilience, ResilienceMiddleware

PATIENCE = 20.0
"""Seconds after which a test that hangs fails. No test waits for it to pass."""
HOST = "127.0.0.1"
GOOD, BAD, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.002)


class Service:
    """A service with SSE, websockets and a guarded call, in a thread of this process."""

    def __init__(self):
        self.resilience = Resilience("gateway", environment="test", seed=1)
        self.resilience.slos.add(SLO("up", 99.0, timedelta(days=30)))
        self.resilience.chaos.opt_in()
        self.model = self.resilience.guard("llm.invoke")
        self.released = threading.Event()
        routes = [
            Route("/items/{id}", self.item),
            Route("/missing/{id}", self.missing),
            Route("/fails", self.fails),
            Route("/sse", self.sse),
            Route("/breaks", self.breaks),
            Route("/endless", self.endless),
            Route("/blocks", self.blocks),
            Route("/background", self.background),
            Route("/health", self.item),
            Mount("/t/{tenant}", routes=[Route("/items/{id}", self.item)]),
            WebSocketRoute("/ws/{room}", self.talk),
        ]
        self.port = 0
        app = ResilienceMiddleware(Starlette(routes=routes), self.resilience, slo="up")
        config = uvicorn.Config(app, host=HOST, port=0, log_config=None, lifespan="on", ws="wsproto", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)

    async def item(self, request):
        return PlainTextResponse("item")

    async def missing(self, request):
        return PlainTextResponse("no", status_code=404)

    async def fails(self, request):
        raise LookupError("the app is broken")

    async def sse(self, request):
        async def events():
            for number in range(5):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def breaks(self, request):
        async def events():
            yield "data: first\n\n"
            raise LookupError("the model is gone")

        return StreamingResponse(events(), media_type="text/event-stream")

    async def endless(self, request):
        async def events():
            while True:
                yield "data: again\n\n"
                await asyncio.sleep(0.005)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def blocks(self, request):
        # A synchronous call in a coroutine, as people write it: while it is delayed the event loop stands still.
        return PlainTextResponse(self.model.call(lambda: "answer"))

    async def background(self, request):
        return PlainTextResponse("accepted", background=BackgroundTask(self.later))

    async def later(self):
        while not self.released.is_set():
            await asyncio.sleep(0.002)

    async def talk(self, websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            if text == "fail":
                raise LookupError("the room is on fire")
            await websocket.send_text(text.upper())

    # -- asking ---------------------------------------------------------------------------------------------------------------------

    def get(self, path, **options):
        with httpx.Client(base_url=f"http://{HOST}:{self.port}", trust_env=False, timeout=PATIENCE) as client:
            return client.get(path, **options)

    def counted(self, route, *, injected=None, requests=1):
        """How the requests of a route ended, as soon as there are so many: a client has its answer a moment before it is booked."""
        until(lambda: route in self.resilience.routes.counts() and self.resilience.routes.counts()[route].total() >= requests)
        counts = self.resilience.routes.counts()[route]
        return {outcome: number for outcome in Outcome if (number := counts.total(outcome, injected=injected))}

    def arm(self, experiment, target, **options):
        return self.resilience.chaos.arm(ChaosConfig(experiment, target, 1.0, 60.0, **options))


@contextmanager
def running(service):
    thread = threading.Thread(target=service.server.run, name="uvicorn")
    thread.start()
    try:
        until(lambda: service.server.started or not thread.is_alive())
        service.port = service.server.servers[0].sockets[0].getsockname()[1]
        yield service
    finally:
        service.released.set()
        service.resilience.chaos.stop_all()
        service.server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def service(monkeypatch):
    """A running service; it is stopped after the test."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    with running(Service()) as service:
        yield service


def test_answers_errors_and_routes(service):
    """Good, not found, broken; each under the template of its route."""
    for path, status in (("/items/7", 200), ("/t/acme/items/7", 200), ("/missing/7", 404), ("/fails", 500), ("/no/such", 404)):
        assert service.get(path).status_code == status
    assert service.counted("/items/{id}") == {GOOD: 1}
    assert service.counted("/t/{tenant}/items/{id}") == {GOOD: 1}
    assert service.counted("/missing/{id}") == {GOOD: 1}
    assert service.counted("/fails") == {BAD: 1}
    assert service.counted("__unmatched__") == {GOOD: 1}
    assert service.resilience.slos.counts("up", 3600.0) == (4, 1)


def test_a_stream_that_is_heard_to_its_end_is_good(service):
    """Nothing of it is held back or changed."""
    response = service.get("/sse")
    assert response.text == "".join(f"data: {number}\n\n" for number in range(5))
    assert service.counted("/sse") == {GOOD: 1}
    (view,) = service.resilience.routes.views().values()
    assert sum(view.first_bytes) == 1
    assert 0.0 < view.first_byte_seconds < view.seconds


def test_a_stream_that_breaks_after_its_200_is_bad(service):
    """The client hears it break, and the books say so."""
    with pytest.raises(httpx.RemoteProtocolError):
        service.get("/breaks")
    assert service.counted("/breaks") == {BAD: 1}
    assert [key.status for key in service.resilience.routes.views()] == [200]


def test_a_client_that_leaves_a_stream_has_abandoned_it(service):
    """It spends no budget."""
    with closing(socket.create_connection((HOST, service.port), timeout=PATIENCE)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        heard = b""
        while b"data: again" not in heard:
            heard += client.recv(4096)
    assert service.counted("/endless") == {ABANDONED: 1}
    assert service.resilience.slos.counts("up", 3600.0) == (0, 0)


def test_a_background_task_is_no_part_of_the_request(service):
    """It is still running when the request has been counted."""
    assert service.get("/background").text == "accepted"
    assert service.counted("/background") == {GOOD: 1}
    assert not service.released.is_set()


def test_a_status_is_injected_and_health_is_not_touched(service):
    """The client sees whose doing it is."""
    run = service.arm("error", "http:*", status=503)
    response = service.get("/items/7")
    assert (response.status_code, response.headers["x-somaresil-chaos"]) == (503, run.id)
    assert run.id in response.text
    assert service.get("/health").status_code == 200
    service.resilience.chaos.stop_all()
    assert service.get("/items/7").status_code == 200
    assert service.counted("*", injected=True) == {BAD: 1}
    assert service.counted("/items/{id}") == {GOOD: 1}


def test_a_stream_is_cut(service):
    """After two chunks the connection breaks, which the client cannot take for an end."""
    service.arm("stream_cut", "http:/sse", after_items=2)
    heard = []
    with (
        httpx.Client(base_url=f"http://{HOST}:{service.port}", trust_env=False, timeout=PATIENCE) as client,
        pytest.raises(httpx.RemoteProtocolError),
        client.stream("GET", "/sse") as response,
    ):
        heard.extend(response.iter_text())
    assert "".join(heard) == "data: 0\n\ndata: 1\n\n"
    assert service.counted("/sse", injected=True) == {BAD: 1}


def heard(service, path="/sse"):
    """What a client reads of a stream, and the error with which that ends."""
    text = []
    with httpx.Client(base_url=f"http://{HOST}:{service.port}", trust_env=False, timeout=PATIENCE) as client:
        try:
            with client.stream("GET", path) as response:
                text.extend(response.iter_text())
        except httpx.TransportError as error:
            return "".join(text), type(error)
    return "".join(text), None


def test_a_connection_is_reset(service):
    """The client gets an RST in the middle of the stream, not an incomplete answer."""
    run = service.arm("stream_cut", "http:/sse", after_items=2, reset=True)
    text, error = heard(service)
    assert (error, run.unreset) == (httpx.ReadError, 0)
    assert "data: 0\n\ndata: 1\n\n".startswith(text)
    assert service.counted("/sse", injected=True) == {BAD: 1}


def test_a_chunk_is_torn(service):
    """Half of an event arrives, and the connection breaks."""
    service.arm("stream_tear", "http:/sse", after_items=1)
    assert heard(service) == ("data: 0\n\ndata", httpx.RemoteProtocolError)


def test_a_truncated_stream_is_whole_for_its_client(service):
    """It raises nothing: that is the fault."""
    service.arm("stream_truncate", "http:/sse", after_items=1)
    assert heard(service) == ("data: 0\n\n", None)
    assert service.counted("/sse", injected=True) == {GOOD: 1}


def test_a_body_is_damaged_and_can_be_read(service):
    """The length is that of what is sent."""
    service.arm("corrupt_result", "http:/items/*", corrupt="truncate")
    response = service.get("/items/7")
    assert len(response.text) < len("item") == 4
    assert int(response.headers["content-length"]) == len(response.content)


def test_the_kill_switch_frees_a_blocked_loop(service):
    """The loop of the server stands still in a delayed call; another thread stops the experiment, and the answer arrives."""
    run = service.arm("latency", "llm.invoke", delay_seconds=30.0)
    answers = []
    client = threading.Thread(target=lambda: answers.append(service.get("/blocks")))
    began = time.monotonic()
    client.start()
    until(lambda: run.delaying == 1)
    service.resilience.chaos.stop_all()
    client.join(PATIENCE)
    assert answers[0].text == "answer"
    assert time.monotonic() - began < PATIENCE
    assert service.counted("/blocks") == {GOOD: 1}


def test_the_kill_switch_lets_delayed_requests_go_on(service):
    """They wait in the middleware, not on the loop; both are answered at once."""
    run = service.arm("latency", "http:/items/*", delay_seconds=30.0)
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(service.get("/items/7").text)) for _ in range(2)]
    for client in clients:
        client.start()
    until(lambda: run.delaying == 2)
    service.resilience.chaos.stop(run)
    for client in clients:
        client.join(PATIENCE)
    assert answers == ["item", "item"]
    assert service.counted("/items/{id}", injected=True, requests=2) == {GOOD: 2}


# -- websockets -------------------------------------------------------------------------------------------------------------------------


class Talker:
    """A websocket client."""

    def __init__(self, port, path):
        self.socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self.connection = WSConnection(ConnectionType.CLIENT)
        self.waiting = []
        self.send(Request(host=HOST, target=path))

    def send(self, event):
        self.socket.sendall(self.connection.send(event))

    def hear(self, *kinds):
        """The next event of one of these kinds; None when the server has closed the connection."""
        while True:
            while self.waiting:
                event = self.waiting.pop(0)
                if isinstance(event, kinds):
                    return event
            data = self.socket.recv(4096)
            if not data:
                return None
            self.connection.receive_data(data)
            self.waiting.extend(self.connection.events())


def closed(talker):
    last = talker.hear(Message, CloseConnection)
    return last is None or getattr(last, "code", None) == 1011


@contextmanager
def talking(service, path="/ws/7"):
    talker = Talker(service.port, path)
    with closing(talker.socket):
        yield talker


def test_a_conversation_that_ends_properly_is_good(service):
    """Messages pass both ways."""
    with talking(service) as talker:
        assert talker.hear(AcceptConnection)
        talker.send(Message("hello"))
        assert talker.hear(Message).data == "HELLO"
        talker.send(CloseConnection(code=1000))
        talker.hear(CloseConnection)
    assert service.counted("/ws/{room}") == {GOOD: 1}


def test_a_client_that_vanishes_spends_no_budget(service):
    """Without a word; some servers tell it as 1006, others as 1005, which is also what a browser that closes properly says."""
    with talking(service) as talker:
        assert talker.hear(AcceptConnection)
    assert service.counted("/ws/{room}") in ({ABANDONED: 1}, {GOOD: 1})
    assert service.resilience.slos.counts("up", 3600.0)[1] == 0


def test_a_conversation_in_which_the_app_fails_is_bad(service):
    """The server closes, with 1011 or without a word."""
    with talking(service) as talker:
        assert talker.hear(AcceptConnection)
        talker.send(Message("fail"))
        assert closed(talker)
    assert service.counted("/ws/{room}") == {BAD: 1}


def test_a_handshake_is_refused_by_an_experiment(service):
    """With its status, for this server has the extension for it."""
    service.arm("error", "http:/ws/*", status=503)
    with talking(service) as talker:
        assert talker.hear(RejectConnection).status_code == 503
    assert service.counted("/ws/*", injected=True) == {BAD: 1}


def test_a_conversation_is_cut_by_an_experiment(service):
    """After one message."""
    service.arm("stream_cut", "http:/ws/*", after_items=1)
    with talking(service) as talker:
        assert talker.hear(AcceptConnection)
        talker.send(Message("one"))
        assert talker.hear(Message).data == "ONE"
        talker.send(Message("two"))
        assert closed(talker)
    assert service.counted("/ws/{room}", injected=True) == {BAD: 1}
