"""Protocol faults at httpx: the same types as from a peer that really misbehaves, waits by the caller's own limits, clean pools."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import threading
from contextlib import contextmanager

import httpx
import pytest

from somaresil import ConfigurationError
from somaresil.clock import ManualClock
from somaresil.testing.httpx import AsyncFaultTransport, FaultTransport, install
from somaresil.testing.protocol import ProtocolFault, ProtocolFaults

SOON = 0.05
"""A limit in real seconds, for peers that never answer."""
PATIENCE = 60
"""A limit in seconds that is never reached, unless by a clock that jumps."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = (b"3\r\nabc\r\n", b"3\r\ndef\r\n")
END = b"0\r\n\r\n"
UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without it httpx would read all certificates of the machine for each transport."""
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


@pytest.fixture(params=["sync", "async"])
def mode(request):
    """Both kinds of client."""
    return request.param


@contextmanager
def peer(behave):
    """A raw server that reads a request and then does what it is told; ``go`` is set by the client when it has read something."""
    go = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while b"\r\n\r\n" not in connection.recv(65_536):
                            pass
                        behave(connection, go)
                    except ConnectionError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", go
        finally:
            go.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def healthy(connection, _go):
    """Two chunks and the end."""
    connection.sendall(HEAD + CHUNKS[0] + CHUNKS[1] + END)


def reset(connection):
    """Close with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_early(connection, _go):
    """A RST instead of an answer."""
    reset(connection)


def reset_late(connection, go):
    """A RST after the first chunk was read."""
    connection.sendall(HEAD + CHUNKS[0])
    go.wait(5)
    reset(connection)


def broken_off(connection, go):
    """A FIN after the first chunk was read: not an end that HTTP knows."""
    connection.sendall(HEAD + CHUNKS[0])
    go.wait(5)


def silent(_connection, go):
    """No answer at all."""
    go.wait(5)


def ended_early(connection, _go):
    """One chunk and the end."""
    connection.sendall(HEAD + CHUNKS[0] + END)


def run(mode, url, *, transport=None, go=None, timeout=PATIENCE, method="GET"):
    """What a caller gets who reads the body as a stream: the type of the error or the status, and the bytes."""
    got = []
    transport = transport or (httpx.HTTPTransport(verify=UNUSED_TLS) if mode == "sync" else httpx.AsyncHTTPTransport(verify=UNUSED_TLS))

    def sync():
        with httpx.Client(transport=transport, timeout=timeout) as client, client.stream(method, url) as response:
            for chunk in response.iter_raw():
                got.append(chunk)
                if go:
                    go.set()
            return response.status_code

    async def suspended():
        async with httpx.AsyncClient(transport=transport, timeout=timeout) as client, client.stream(method, url) as response:
            async for chunk in response.aiter_raw():
                got.append(chunk)
                if go:
                    go.set()
            return response.status_code

    try:
        end = sync() if mode == "sync" else asyncio.run(suspended())
    except httpx.HTTPError as error:
        end = error
    return end, b"".join(got)


def over(mode, inner, *faults, **options):
    """A fault transport of this mode over ``inner``, None for a real one, and its faults."""
    collected = ProtocolFaults(*faults, **options)
    if mode == "sync":
        return FaultTransport(inner or httpx.HTTPTransport(verify=UNUSED_TLS), collected), collected
    return AsyncFaultTransport(inner or httpx.AsyncHTTPTransport(verify=UNUSED_TLS), collected), collected


def answering(*args, **kwargs):
    """A mock that counts, and answers alike each time."""

    def answer(request):
        mock.calls += 1
        return httpx.Response(*args, **kwargs)

    mock = httpx.MockTransport(answer)
    mock.calls = 0
    return mock


def ask(mode, transport, method="GET", **options):
    """One request whose body is read at once, through a client with a timeout of 2 s to connect and 3 s to read."""
    timeout = options.pop("timeout", httpx.Timeout(3, connect=2))
    if mode == "sync":
        with httpx.Client(transport=transport, timeout=timeout) as client:
            return client.request(method, "https://api.example.com/v1/chat?key=secret", **options)

    async def suspended():
        async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
            return await client.request(method, "https://api.example.com/v1/chat?key=secret", **options)

    return asyncio.run(suspended())


# -- as in reality --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "fault", "expected"),
    [
        (reset_early, ProtocolFault("reset"), (httpx.ReadError, b"")),
        (reset_late, ProtocolFault("reset_mid_body"), (httpx.ReadError, b"abc")),
        (silent, ProtocolFault("read_timeout"), (httpx.ReadTimeout, b"")),
        (silent, ProtocolFault("lost_reply"), (httpx.ReadTimeout, b"")),
        (silent, ProtocolFault("latency", delay=99), (httpx.ReadTimeout, b"")),
        (silent, ProtocolFault("slow_first_byte", delay=99), (httpx.ReadTimeout, b"")),
        (ended_early, ProtocolFault("truncated"), (int, b"abc")),
    ],
    ids=lambda value: getattr(value, "kind", getattr(value, "__name__", "")),
)
def test_a_fault_is_what_a_real_peer_does(mode, behave, fault, expected):
    """The caller gets the same type and the same bytes from a peer that misbehaves and from a fault before one that does not."""
    with peer(behave) as (url, go):
        go_on = go if behave is reset_late else None
        end, body = run(mode, url, go=go_on, timeout=httpx.Timeout(PATIENCE, read=SOON if behave is silent else PATIENCE))
        real = type(end), body
    # A real limit may not be shorter than a busy machine is slow, so where the healthy peer answers, the wait is not real.
    limit, clock = (PATIENCE, ManualClock()) if fault.passes else (SOON, None)
    with peer(healthy) as (url, _):
        transport, faults = over(mode, None, fault, clock=clock)
        end, body = run(mode, url, transport=transport, timeout=httpx.Timeout(PATIENCE, read=limit))
    assert (type(end), body) == real == expected
    assert faults.struck(fault) == 1


def test_a_refused_connection_is_as_from_a_closed_port(mode):
    """ConnectError, with the errno of the socket as its cause."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    real, _ = run(mode, url)
    injected, _ = run(mode, url, transport=over(mode, None, ProtocolFault("connect_refused"))[0])
    assert type(injected) is type(real) is httpx.ConnectError
    assert isinstance(injected.__cause__, ConnectionRefusedError)


def test_a_connect_timeout_is_as_from_a_full_backlog(mode):
    """ConnectTimeout, after the caller's own limit."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        real, _ = run(mode, url, timeout=httpx.Timeout(PATIENCE, connect=SOON))
        injected, _ = run(
            mode, url, transport=over(mode, None, ProtocolFault("connect_timeout"))[0], timeout=httpx.Timeout(PATIENCE, connect=SOON)
        )
        for filler in fillers:
            filler.close()
    assert type(injected) is type(real) is httpx.ConnectTimeout


def test_a_body_that_is_broken_off_is_neither(mode):
    """Why no kind is called like that: a FIN in mid body is a RemoteProtocolError, a RST a ReadError, and a clean early end no error."""
    with peer(broken_off) as (url, go):
        end, body = run(mode, url, go=go)
    assert (type(end), body) == (httpx.RemoteProtocolError, b"abc")


# -- waits ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "timeout", "error", "waited"),
    [
        (ProtocolFault("connect_timeout"), httpx.Timeout(3, connect=2), httpx.ConnectTimeout, 2.0),
        (ProtocolFault("connect_timeout"), None, httpx.ConnectTimeout, 30.0),
        (ProtocolFault("read_timeout"), httpx.Timeout(3, connect=2), httpx.ReadTimeout, 3.0),
        (ProtocolFault("read_timeout", delay=7), httpx.Timeout(3, connect=2), httpx.ReadTimeout, 3.0),
        (ProtocolFault("read_timeout", delay=7), None, httpx.ReadTimeout, 7.0),
        (ProtocolFault("lost_reply"), httpx.Timeout(3, connect=2), httpx.ReadTimeout, 3.0),
        (ProtocolFault("latency", delay=1.5), httpx.Timeout(3, connect=2), None, 1.5),
        (ProtocolFault("latency", delay=4), httpx.Timeout(3, connect=2), httpx.ReadTimeout, 3.0),
        (ProtocolFault("latency", delay=400), None, None, 400.0),
        (ProtocolFault("slow_first_byte", delay=1.5), httpx.Timeout(3, connect=2), None, 1.5),
        (ProtocolFault("slow_first_byte", delay=4), httpx.Timeout(3, connect=2), httpx.ReadTimeout, 3.0),
    ],
)
def test_waits_are_those_of_the_caller(mode, fault, timeout, error, waited):
    """Each kind waits by the limit that it is about, and a wait that is longer than the caller's patience ends with it."""
    clock = ManualClock()
    began = clock.monotonic()
    transport, _ = over(mode, answering(200, text="ok"), fault, clock=clock)
    if error is None:
        assert ask(mode, transport, timeout=timeout).text == "ok"
    else:
        with pytest.raises(error):
            ask(mode, transport, timeout=timeout)
    assert clock.monotonic() - began == waited


@pytest.mark.parametrize(
    ("fault", "sent"),
    [
        (ProtocolFault("connect_refused"), 0),
        (ProtocolFault("connect_timeout"), 0),
        (ProtocolFault("read_timeout"), 0),
        (ProtocolFault("reset"), 0),
        (ProtocolFault("latency", delay=9), 0),
        (ProtocolFault("lost_reply"), 1),
        (ProtocolFault("slow_first_byte", delay=9), 1),
        (ProtocolFault("reset_mid_body"), 1),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_what_was_done_and_what_was_not(mode, fault, sent):
    """Only a lost reply, a late one and a broken one have done the work; every error says that it is injected, without the query."""
    mock = answering(200, text="done")
    transport, _ = over(mode, mock, fault, clock=ManualClock())
    with pytest.raises(httpx.TransportError) as raised:
        ask(mode, transport, "POST", json={"n": 1})
    assert mock.calls == sent
    assert raised.value.__notes__ == [f"injected by somaresil.testing: {fault.kind} #1 of POST https://api.example.com/v1/chat"]
    assert raised.value.request.method == "POST"


def test_without_a_clock_waits_are_real(mode):
    """By the thread or the loop."""
    transport, faults = over(mode, answering(200), ProtocolFault("latency", delay=0.001))
    assert ask(mode, transport).status_code == 200
    assert faults.struck() == 1


def test_a_cancelled_wait_gives_the_connection_back():
    """Somebody else's timeout ends a lost reply, and the pool is clean."""

    async def cancelled(url):
        inner = httpx.AsyncHTTPTransport(verify=UNUSED_TLS)
        async with httpx.AsyncClient(transport=AsyncFaultTransport(inner, ProtocolFaults(ProtocolFault("lost_reply")))) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON):
                    await client.get(url)
            return inner._pool.connections

    with peer(healthy) as (url, _):
        assert asyncio.run(cancelled(url)) == []


# -- answers --------------------------------------------------------------------------------------------------------------------------


def test_a_burst_of_429_then_clear(mode):
    """Status, Retry-After and body, and the peer is asked only after the burst."""
    mock = answering(200, text="ok")
    transport, faults = over(
        mode, mock, ProtocolFault("status", times=2, retry_after=7, headers={"X-Limit": "1"}, body='{"error": "slow"}')
    )
    answers = [ask(mode, transport) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    first = answers[0]
    assert (first.headers["retry-after"], first.headers["x-limit"], first.json()) == ("7", "1", {"error": "slow"})
    assert first.extensions["somaresil"] == "injected by somaresil.testing: status #1 of GET https://api.example.com/v1/chat"
    assert (mock.calls, faults.report()) == (1, "status 429 on any method *: 3 seen, 2 struck")
    with pytest.raises(httpx.HTTPStatusError):
        first.raise_for_status()


def test_an_answer_to_head_has_no_body(mode):
    """Its headers are the same."""
    transport, _ = over(mode, answering(200), ProtocolFault("status", status=503, body="busy"))
    answer = ask(mode, transport, "HEAD")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (503, "4", b"")


@pytest.mark.parametrize(
    ("real", "rest"),
    [
        ({"content": b'{"id":17,"name":"x"}', "headers": {"X-Kept": "1"}}, b'{"id":17,"'),
        ({"status_code": 500, "text": "no json"}, None),
        ({"content": b"{}", "headers": {"Content-Encoding": "identity"}}, b"{"),
    ],
)
def test_malformed_json_looks_like_success(mode, real, rest):
    """200 and the right length, and half of the real answer, or of something else when that was no JSON."""
    transport, _ = over(mode, answering(**{"status_code": 200, **real}), ProtocolFault("malformed_json"))
    answer = ask(mode, transport)
    assert answer.status_code == 200
    if rest is not None:
        assert answer.content == rest
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    assert answer.headers.get("x-kept") == real.get("headers", {}).get("X-Kept")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_malformed_json_that_is_given_is_not_asked_for(mode):
    """The peer sees nothing."""
    mock = answering(200, json={})
    transport, _ = over(mode, mock, ProtocolFault("malformed_json", body='{"answer": 42}'))
    assert (ask(mode, transport).text, mock.calls) == ('{"answe', 0)


# -- bodies ---------------------------------------------------------------------------------------------------------------------------


def test_a_small_answer_is_truncated_too(mode):
    """One chunk ends in its middle, without the length that would give it away."""
    transport, faults = over(mode, answering(200, text="0123456789"), ProtocolFault("truncated"))
    answer = ask(mode, transport)
    assert (answer.status_code, answer.text) == (200, "01234")
    assert "content-length" not in answer.headers
    assert faults.struck() == 1


def test_a_small_answer_is_reset_too(mode):
    """The error comes where the end should have been."""
    transport, _ = over(mode, answering(200, text="0123456789"), ProtocolFault("reset_mid_body", after_chunks=3))
    with pytest.raises(httpx.ReadError):
        ask(mode, transport)


@pytest.mark.parametrize("split", [True, False])
def test_sse_ends_after_whole_events(mode, split):
    """However the events arrive: one by one, or all in one piece as ASGITransport gives them."""
    pieces = EVENTS if split else [b"".join(EVENTS)]

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    inner = httpx.ASGITransport(app)
    if mode == "sync":
        inner = httpx.MockTransport(
            lambda request: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
        )
    transport, _ = over(mode, inner, ProtocolFault("truncated", after_chunks=2))
    assert ask(mode, transport).content == EVENTS[0] + EVENTS[1]


def test_compressed_events_are_cut_as_chunks(mode):
    """Nobody can see events in there; the decoder does not complain about a missing end, as on the wire."""
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    transport, _ = over(mode, answering(200, headers=headers, content=gzip.compress(b"".join(EVENTS))), ProtocolFault("truncated"))
    assert len(ask(mode, transport).content) < len(b"".join(EVENTS))


def test_an_answer_that_was_read_before_is_cut_too(mode):
    """A mock may hand on what another client has read."""
    other = httpx.MockTransport(lambda request: httpx.Response(200, content=iter([b"0123", b"4567"])))

    def forward(request):
        with httpx.Client(transport=other) as client:
            return client.get("http://other/")

    transport, _ = over(mode, httpx.MockTransport(forward), ProtocolFault("truncated"))
    assert ask(mode, transport).content == b"0123"


@pytest.mark.parametrize("kind", ["truncated", "reset_mid_body", "malformed_json"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_without_a_body_there_is_nothing_to_break(mode, kind, method, status):
    """The answer is left alone, and the strike is a miss."""
    transport, faults = over(mode, answering(status, headers={"content-length": "3"}), ProtocolFault(kind))
    assert ask(mode, transport, method).status_code == status
    assert (faults.struck(), faults.missed()) == (0, 1)


@pytest.mark.parametrize("kind", ["truncated", "lost_reply", "malformed_json"])
def test_a_real_failure_is_a_miss(mode, kind):
    """What went wrong by itself was not injected."""

    def fail(request):
        raise httpx.ConnectError("real", request=request)

    transport, faults = over(mode, httpx.MockTransport(fail), ProtocolFault(kind))
    with pytest.raises(httpx.ConnectError) as raised:
        ask(mode, transport)
    assert not hasattr(raised.value, "__notes__")
    assert (faults.struck(), faults.missed()) == (0, 1)


def test_faults_are_layers(mode):
    """A slow first byte, and then the stream ends early."""
    clock = ManualClock()
    began = clock.monotonic()
    faults = (ProtocolFault("slow_first_byte", delay=2), ProtocolFault("latency", delay=1), ProtocolFault("truncated"))
    transport, _ = over(mode, answering(200, text="01234567"), *faults, clock=clock)
    assert ask(mode, transport).text == "0123"
    assert clock.monotonic() - began == 3.0


# -- transports and clients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["truncated", "reset_mid_body", "lost_reply", "malformed_json"])
@pytest.mark.parametrize("leave", [True, False])
def test_the_pool_is_clean(fault, leave):
    """No connection of a broken answer stays, whether the caller reads on or leaves after the first chunk."""
    collected = ProtocolFaults(ProtocolFault(fault), clock=ManualClock())

    def sync(url):
        inner = httpx.HTTPTransport(verify=UNUSED_TLS)
        with httpx.Client(transport=FaultTransport(inner, collected)) as client:
            try:
                with client.stream("GET", url) as response:
                    for _ in response.iter_raw():
                        if leave:
                            break
            except httpx.TransportError:
                pass
            return [connection for connection in inner._pool.connections if not connection.is_idle()]

    async def suspended(url):
        inner = httpx.AsyncHTTPTransport(verify=UNUSED_TLS)
        async with httpx.AsyncClient(transport=AsyncFaultTransport(inner, collected)) as client:
            try:
                async with client.stream("GET", url) as response:
                    async for _ in response.aiter_raw():
                        if leave:
                            break
            except httpx.TransportError:
                pass
            return [connection for connection in inner._pool.connections if not connection.is_idle()]

    with peer(healthy) as (url, _):
        assert sync(url) == []
        assert asyncio.run(suspended(url)) == []
    assert collected.struck() + collected.missed() == 2


def test_install_wraps_a_client_and_puts_back_what_was_there(mode):
    """Transport and mounts are struck while the block runs, and are the same objects afterwards."""
    main, mounted = answering(200, text="main"), answering(200, text="mounted")
    kind = httpx.Client if mode == "sync" else httpx.AsyncClient
    client = kind(transport=main, mounts={"all://mounted": mounted, "all://direct": None})
    before = client._transport, dict(client._mounts)

    def get(url):
        return client.get(url) if mode == "sync" else asyncio.run(client.get(url))

    with install(client, ProtocolFaults(ProtocolFault("status", status=503))) as faults:
        assert [get(f"http://{host}/").status_code for host in ("x", "mounted", "direct")] == [503, 503, 503]
    assert (client._transport, client._mounts) == before
    assert list(client._mounts) == list(before[1])
    assert get("http://mounted/").text == "mounted"
    assert (faults.struck(), main.calls, mounted.calls) == (3, 0, 1)


def test_install_leaves_what_came_later(mode):
    """A wrapper that somebody put around ours stays, and ours lets everything pass."""
    main = answering(200, text="main")
    client = (httpx.Client if mode == "sync" else httpx.AsyncClient)(transport=main)
    with install(client, ProtocolFaults(ProtocolFault("reset"))):
        later = client._transport = (FaultTransport if mode == "sync" else AsyncFaultTransport)(client._transport, ProtocolFaults())
    assert client._transport is later
    answer = client.get("http://x/") if mode == "sync" else asyncio.run(client.get("http://x/"))
    assert answer.text == "main"


def test_a_real_transport_is_opened_and_closed_as_the_client_is(mode):
    """Entering and leaving reach the transport below."""

    class Inner(httpx.MockTransport):
        steps = ()

        def __enter__(self):
            self.steps += ("enter",)

        def __exit__(self, *args):
            self.steps += ("exit",)

        def close(self):
            self.steps += ("close",)

        async def __aenter__(self):
            self.steps += ("enter",)

        async def __aexit__(self, *args):
            self.steps += ("exit",)

        async def aclose(self):
            self.steps += ("close",)

    inner = Inner(lambda request: httpx.Response(200))
    transport, _ = over(mode, inner, ProtocolFault("reset", calls=(2,)))
    assert ask(mode, transport).status_code == 200
    if mode == "sync":
        transport.close()
    else:
        asyncio.run(transport.aclose())
    assert inner.steps == ("enter", "exit", "close")


@pytest.mark.parametrize("make", [FaultTransport, AsyncFaultTransport])
def test_wrong_parts_are_named(make):
    """A single fault is no collection, and a transport of the other kind no transport."""
    with pytest.raises(ConfigurationError) as raised:
        make(object(), ProtocolFault("reset"))
    assert [problem.path for problem in raised.value.problems] == [f"{make.__name__}.inner", f"{make.__name__}.faults"]
    with pytest.raises(ConfigurationError, match=r"an httpx\.Client"), install(object(), ProtocolFaults()):
        pass


def test_a_request_has_the_name_that_is_on_the_wire():
    """Percent-encoded, with the port unless it is the usual one, without query and user."""
    faults = ProtocolFaults(ProtocolFault("latency", url="http://h:8080/a%20b", delay=1), clock=ManualClock())
    with httpx.Client(transport=FaultTransport(answering(200), faults)) as client:
        for url in ("http://h:8080/a%20b?q=1", "http://h:80/a b", "http://user:pw@h:8080/a b"):
            client.get(url)
    assert faults.seen() == 2
