"""Protocol faults at aiohttp: the same types as from a peer that really misbehaves, waits by the caller's own limits, clean pools."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager

import pytest

from somaresil import ConfigurationError
from somaresil.clock import ManualClock
from somaresil.testing.protocol import ProtocolFault, ProtocolFaults

aiohttp = pytest.importorskip("aiohttp", minversion="3.12")

from aiohttp import ClientTimeout  # noqa: E402 - below the question whether it is there

from somaresil.testing.aiohttp import fault_middleware  # noqa: E402

pytestmark = pytest.mark.asyncio

SOON = 0.05
"""A limit in real seconds, for peers that never answer."""
PATIENCE = 60
"""A limit in seconds that is never reached, unless by a clock that jumps."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


def chunked(*chunks, end=True, kind=b"text/plain"):
    """An answer in chunks, with or without its end."""
    return HEAD % kind + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if end else b"")


def sized(body, kind=b"application/json"):
    """An answer with its length."""
    return b"HTTP/1.1 200 OK\r\nX-Kept: 1\r\nSet-Cookie: a=1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)


def healthy(answer):
    """A peer that answers so."""

    async def behave(writer, _go):
        writer.write(answer)
        await writer.drain()

    return behave


ABCDEF = healthy(chunked(b"abc", b"def"))


def reset(writer):
    """Close with a RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def reset_early(writer, _go):
    """A RST instead of an answer."""
    reset(writer)


async def reset_late(writer, go):
    """A RST after the first chunk was read."""
    writer.write(chunked(b"abc", end=False))
    await go.wait()
    reset(writer)


async def broken_off(writer, go):
    """A FIN after the first chunk was read: not an end that HTTP knows."""
    writer.write(chunked(b"abc", end=False))
    await go.wait()


async def silent(_writer, go):
    """No answer at all."""
    await go.wait()


@asynccontextmanager
async def peer(behave):
    """A raw server that reads a request and then does what it is told; ``go`` is set by the client when it has read something."""
    go, requests, serving = asyncio.Event(), [], set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await behave(writer, go)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    go.requests = requests
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat?key=secret", go
    finally:
        go.set()
        server.close()
        await asyncio.gather(*serving)
        await server.wait_closed()


@asynccontextmanager
async def session(*faults, timeout=None, clock=None):
    """A session with these faults, and the faults."""
    collected = ProtocolFaults(*faults, clock=clock)
    timeout = timeout or ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(middlewares=(fault_middleware(collected),), timeout=timeout) as client:
        yield client, collected


async def run(client, url, *, go=None, method="POST", **options):
    """What a caller gets who reads the body as it comes: the error or the status, and the bytes."""
    got = []
    try:
        async with client.request(method, url, **options) as response:
            async for chunk in response.content.iter_any():
                got.append(chunk)
                if go:
                    go.set()
            return response.status, b"".join(got)
    except (aiohttp.ClientError, TimeoutError) as error:
        return error, b"".join(got)


def notes_of(error):
    """All notes in the chain of an error."""
    notes = []
    while error is not None:
        notes += getattr(error, "__notes__", [])
        error = error.__cause__
    return notes


# -- as in reality --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "fault", "limit", "expected"),
    [
        (reset_early, ProtocolFault("reset"), "total", (aiohttp.ClientOSError, b"")),
        (reset_late, ProtocolFault("reset_mid_body"), "total", (aiohttp.ClientPayloadError, b"abc")),
        (broken_off, ProtocolFault("reset_mid_body"), "total", (aiohttp.ClientPayloadError, b"abc")),
        (silent, ProtocolFault("read_timeout"), "sock_read", (aiohttp.SocketTimeoutError, b"")),
        (silent, ProtocolFault("read_timeout"), "total", (TimeoutError, b"")),
        (silent, ProtocolFault("lost_reply"), "sock_read", (aiohttp.SocketTimeoutError, b"")),
        (silent, ProtocolFault("lost_reply"), "total", (TimeoutError, b"")),
        (silent, ProtocolFault("latency", delay=99), "sock_read", (aiohttp.SocketTimeoutError, b"")),
        (silent, ProtocolFault("slow_first_byte", delay=99), "total", (TimeoutError, b"")),
        (healthy(chunked(b"abc")), ProtocolFault("truncated"), "total", (int, b"abc")),
    ],
    ids=lambda value: getattr(value, "kind", getattr(value, "__name__", value if isinstance(value, str) else "")),
)
async def test_a_fault_is_what_a_real_peer_does(behave, fault, limit, expected):
    """The caller gets the same type and the same bytes from a peer that misbehaves and from a fault before one that does not."""
    async with peer(behave) as (url, go), session(timeout=ClientTimeout(**{limit: SOON if behave is silent else PATIENCE})) as (client, _):
        end, body = await run(client, url, go=go if behave in {reset_late, broken_off} else None)
        real = type(end), body
    # A real limit may not be shorter than a busy machine is slow, so where the healthy peer answers, the wait is not real.
    timeout, clock = (PATIENCE, ManualClock()) if fault.passes else (SOON, None)
    async with peer(ABCDEF) as (url, _), session(fault, timeout=ClientTimeout(**{limit: timeout}), clock=clock) as (client, faults):
        end, body = await run(client, url)
        assert not client.connector._acquired
    assert (type(end), body) == real == expected
    assert faults.struck(fault) == 1
    if isinstance(end, Exception):
        name = url.partition("?")[0]
        assert notes_of(end) == [f"injected by somaresil.testing: {fault.kind} #1 of POST {name}"]


async def test_a_refused_connection_is_as_from_a_closed_port():
    """ClientConnectorError with its errno, host and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    async with session() as (client, _):
        real, _ = await run(client, url)
    async with session(ProtocolFault("connect_refused")) as (client, _):
        injected, _ = await run(client, url)
    for error in (real, injected):
        assert type(error) is aiohttp.ClientConnectorError
        assert (error.errno, error.host, error.port) == (111, "127.0.0.1", port)
        assert isinstance(error.__cause__, ConnectionRefusedError)
    assert str(injected).startswith(f"Cannot connect to host 127.0.0.1:{port} ssl:default")


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (ClientTimeout(sock_connect=SOON), aiohttp.ConnectionTimeoutError),
        (ClientTimeout(connect=SOON), aiohttp.ConnectionTimeoutError),
        (ClientTimeout(total=SOON), TimeoutError),
    ],
)
async def test_a_connect_timeout_is_as_from_a_full_backlog(timeout, expected):
    """By the limit that the caller has set."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with session(timeout=timeout) as (client, _):
            real, _ = await run(client, url)
        async with session(ProtocolFault("connect_timeout"), timeout=timeout) as (client, _):
            injected, _ = await run(client, url)
        for filler in fillers:
            filler.close()
    assert type(injected) is type(real) is expected


async def test_aiohttp_repeats_an_idempotent_request_that_was_reset():
    """As with a real peer: one reset of a GET is repaired, the second one is seen, and a POST is never repeated."""
    async with peer(reset_early) as (url, go), session() as (client, _):
        end, _ = await run(client, url, method="GET")
        assert (type(end), len(go.requests)) == (aiohttp.ClientOSError, 2)
    async with peer(ABCDEF) as (url, _), session(ProtocolFault("reset", times=1)) as (client, faults):
        assert await run(client, url, method="GET") == (200, b"abcdef")
        assert (faults.seen(), faults.struck()) == (2, 1)
    async with peer(ABCDEF) as (url, go), session(ProtocolFault("reset", calls=(1, 2))) as (client, _):
        end, _ = await run(client, url, method="GET")
        assert (type(end), go.requests) == (aiohttp.ClientOSError, [])


# -- waits ----------------------------------------------------------------------------------------------------------------------------

ALL = ClientTimeout(connect=4, sock_connect=2, sock_read=3, total=60)


@pytest.mark.parametrize(
    ("fault", "timeout", "error", "waited"),
    [
        (ProtocolFault("connect_timeout"), ALL, "ConnectionTimeoutError", 2.0),
        (ProtocolFault("connect_timeout"), ClientTimeout(connect=4, total=0), "ConnectionTimeoutError", 4.0),
        (ProtocolFault("connect_timeout"), ClientTimeout(connect=4, total=1), "TimeoutError", 1.0),
        (ProtocolFault("connect_timeout"), ClientTimeout(), "ConnectionTimeoutError", 30.0),
        (ProtocolFault("read_timeout"), ALL, "SocketTimeoutError", 3.0),
        (ProtocolFault("read_timeout"), ClientTimeout(total=60), "TimeoutError", 60.0),
        (ProtocolFault("read_timeout", delay=7), ClientTimeout(), "SocketTimeoutError", 7.0),
        (ProtocolFault("lost_reply"), ALL, "SocketTimeoutError", 3.0),
        (ProtocolFault("latency", delay=1.5), ALL, None, 1.5),
        (ProtocolFault("latency", delay=4), ALL, "SocketTimeoutError", 3.0),
        (ProtocolFault("latency", delay=400), ClientTimeout(), None, 400.0),
        (ProtocolFault("slow_first_byte", delay=1.5), ALL, None, 1.5),
        (ProtocolFault("slow_first_byte", delay=90), ClientTimeout(total=60), "TimeoutError", 60.0),
    ],
)
@pytest.mark.parametrize("own", [True, False])
async def test_waits_are_those_of_the_caller(fault, timeout, error, waited, own):
    """The shortest limit that applies, of the request or of the session, decides when and as what it ends."""
    clock = ManualClock()
    began = clock.monotonic()
    options = {"timeout": timeout} if own else {}
    async with (
        peer(ABCDEF) as (url, _),
        session(fault, timeout=ClientTimeout(total=77) if own else timeout, clock=clock) as (client, _),
    ):
        end, _ = await run(client, url, **options)
    assert (type(end).__name__ if isinstance(end, Exception) else None) == error
    assert clock.monotonic() - began == waited


async def test_limits_are_found_below_other_middlewares():
    """A request's own limits, with a middleware before and one after."""
    seen = []

    async def other(request, handler):
        seen.append(request.method)
        return await handler(request)

    clock = ManualClock()
    began = clock.monotonic()
    middlewares = (other, fault_middleware(ProtocolFaults(ProtocolFault("read_timeout"), clock=clock)), other)
    async with aiohttp.ClientSession(middlewares=middlewares) as client:
        end, _ = await run(client, "http://127.0.0.1:1/", timeout=ClientTimeout(sock_read=5))
    assert (type(end), clock.monotonic() - began, seen) == (aiohttp.SocketTimeoutError, 5.0, ["POST"])


async def test_limits_of_a_stranger_are_those_of_the_session():
    """A middleware that calls on with a handler of its own hides what the request was given."""

    class Own:
        def __init__(self, handler):
            self.handler = handler

        async def __call__(self, request):
            return await self.handler(request)

    def plain(handler):
        async def own(request):
            return await handler(request)

        return own

    clock = ManualClock()
    began = clock.monotonic()
    fault = fault_middleware(ProtocolFaults(ProtocolFault("read_timeout"), clock=clock))
    for wrap in (Own, plain):

        async def outer(request, handler, wrap=wrap):
            return await fault(request, wrap(handler))

        async with aiohttp.ClientSession(middlewares=(outer,), timeout=ClientTimeout(sock_read=2)) as client:
            end, _ = await run(client, "http://127.0.0.1:1/", timeout=ClientTimeout(sock_read=5))
        assert type(end) is aiohttp.SocketTimeoutError
    assert clock.monotonic() - began == 4.0


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
async def test_what_was_done_and_what_was_not(fault, sent):
    """Only a lost reply, a late one and a broken one have done the work."""
    async with peer(ABCDEF) as (url, go), session(fault, timeout=ALL, clock=ManualClock()) as (client, _):
        end, _ = await run(client, url, json={"n": 1})
        assert isinstance(end, aiohttp.ClientError)
        assert len(go.requests) == sent


# -- answers --------------------------------------------------------------------------------------------------------------------------


async def test_a_burst_of_429_then_clear():
    """Status, Retry-After, cookies and body, and the peer is asked only after the burst."""
    headers = {"X-Limit": "1", "Set-Cookie": "b=2"}
    fault = ProtocolFault("status", times=2, retry_after=7, headers=headers, body='{"error": "slow"}')
    async with peer(healthy(sized(b"{}"))) as (url, go), session(fault) as (client, faults):
        for _ in range(2):
            async with client.post(url, json={"n": 1}) as response:
                assert (response.status, response.reason, response.ok) == (429, "Too Many Requests", False)
                assert (response.headers["retry-after"], response.headers["x-limit"], await response.json()) == (
                    "7",
                    "1",
                    {"error": "slow"},
                )
                assert response.cookies["b"].value == "2"
                assert (b"X-Limit", b"1") in response.raw_headers
                assert (str(response.url), response.method, response.request_info.method) == (url, "POST", "POST")
                with pytest.raises(aiohttp.ClientResponseError):
                    response.raise_for_status()
        async with client.post(url) as response:
            assert (response.status, await response.json()) == (200, {})
        assert (len(go.requests), faults.struck()) == (1, 2)


@pytest.mark.parametrize(("status", "reason"), [(503, "Service Unavailable"), (529, "")])
async def test_an_answer_can_be_left_unread(status, reason):
    """Nothing is open, whatever the caller does with it, and numbers that nobody has named are fine."""
    async with session(ProtocolFault("status", status=status, body="x" * 300_000)) as (client, _):
        response = await client.get("http://127.0.0.1:1/")
        assert (response.status, response.reason, response.closed, response.connection) == (status, reason, True, None)
        assert [len(chunk) async for chunk in response.content.iter_chunked(200_000)] == [200_000, 100_000]
        async with client.head("http://127.0.0.1:1/") as response:
            assert (response.headers["Content-Length"], await response.read()) == ("300000", b"")
        with pytest.raises(aiohttp.ClientResponseError):
            await client.get("http://127.0.0.1:1/", raise_for_status=True)


@pytest.mark.parametrize(("body", "half"), [(b'{"id": 17}', b'{"id"'), (b"no json", None)])
async def test_malformed_json_looks_like_success(body, half):
    """200 and the right length, and half of the real answer, or of something else when that was no JSON."""
    async with peer(healthy(sized(body))) as (url, go), session(ProtocolFault("malformed_json")) as (client, faults):
        async with client.get(url) as response:
            with pytest.raises(json.JSONDecodeError):
                await response.json()
            read = await response.read()
        assert half is None or read == half
        assert (response.status, response.headers["X-Kept"], response.headers["Content-Length"]) == (200, "1", str(len(read)))
        assert response.cookies["a"].value == "1"
        assert len(go.requests) == faults.struck() == 1
        assert not client.connector._acquired


async def test_malformed_json_that_is_given_is_not_asked_for():
    """The peer sees nothing."""
    async with (
        session(ProtocolFault("malformed_json", body='{"answer": 42}')) as (client, _),
        client.get("http://127.0.0.1:1/") as response,
    ):
        assert await response.text() == '{"answe'


# -- bodies ---------------------------------------------------------------------------------------------------------------------------


async def read_all(response):
    return await response.read()


async def read_text(response):
    return (await response.text()).encode()


async def read_lines(response):
    return b"".join([line async for line in response.content])


async def read_any(response):
    return b"".join([piece async for piece in response.content.iter_any()])


async def read_chunks(response):
    return b"".join([piece async for piece, _ in response.content.iter_chunks()])


async def read_pieces(response):
    return b"".join([piece async for piece in response.content.iter_chunked(2)])


async def read_until_eof(response):
    await response.content.wait_eof()
    return response.content.read_nowait()


async def read_while(response):
    pieces = []
    while not response.content.at_eof():
        pieces.append(await response.content.readany())
    return b"".join(pieces)


READERS = [read_all, read_text, read_lines, read_any, read_chunks, read_pieces, read_until_eof, read_while]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("answer", [chunked(b"ab\n", b"cd\n", b"ef\n"), chunked(b"ab\ncd\n"), sized(b"ab\ncd\nef\n")])
async def test_a_truncated_body_looks_complete(read, answer):
    """However it is read and sent, it ends early, without an error and without the length that would give it away."""
    fault = ProtocolFault("truncated", after_chunks=1)
    async with peer(healthy(answer)) as (url, _), session(fault) as (client, faults):
        async with client.get(url) as response:
            assert response.status == 200
            body = await read(response)
        assert "Content-Length" not in response.headers
        assert b"Content-Length" not in dict(response.raw_headers)
        assert body in {b"ab\n", b"ab\nc"}
        assert faults.struck() == 1
        assert not client.connector._acquired


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("answer", [chunked(b"ab\n", b"cd\n"), sized(b"ab\ncd\n")])
async def test_a_reset_body_raises(read, answer):
    """However it is read and sent, and again when it is read again."""
    async with peer(healthy(answer)) as (url, _), session(ProtocolFault("reset_mid_body")) as (client, _):
        async with client.get(url) as response:
            for _ in range(2):
                with pytest.raises(aiohttp.ClientPayloadError, match="not completed") as raised:
                    await read(response)
        assert isinstance(raised.value.__cause__, ConnectionResetError)
        assert not client.connector._acquired


@pytest.mark.parametrize("kind", ["truncated", "reset_mid_body"])
@pytest.mark.parametrize("split", [True, False])
async def test_sse_goes_on_in_whole_events(kind, split):
    """However the events arrive, so many whole ones come through."""
    answer = chunked(*(EVENTS if split else [b"".join(EVENTS)]), kind=b"text/event-stream")
    async with peer(healthy(answer)) as (url, _), session(ProtocolFault(kind, after_chunks=2)) as (client, _):
        end, body = await run(client, url)
    assert body == EVENTS[0] + EVENTS[1]
    assert (end if kind == "truncated" else type(end)) == (200 if kind == "truncated" else aiohttp.ClientPayloadError)


async def test_events_are_handed_on_as_they_come():
    """A stream that never ends is cut without waiting for what comes next."""

    async def endless(writer, go):
        writer.write(chunked(*EVENTS[:2], end=False, kind=b"text/event-stream"))
        await go.wait()

    async with peer(endless) as (url, _), session(ProtocolFault("truncated", after_chunks=2)) as (client, _):
        assert await run(client, url) == (200, EVENTS[0] + EVENTS[1])


async def test_limits_apply_while_a_cut_body_is_read():
    """A peer that stops in mid body runs into the limit of the caller, as without a fault."""

    async def stalls(writer, go):
        writer.write(chunked(b"abc", end=False))
        await go.wait()

    async with peer(stalls) as (url, _), session(ProtocolFault("reset_mid_body", after_chunks=2)) as (client, _):
        end, body = await run(client, url, timeout=ClientTimeout(sock_read=SOON))
        assert (type(end), notes_of(end)) == (aiohttp.SocketTimeoutError, [])
        assert b"abc".startswith(body)  # on a busy machine the limit may be over before the first chunk
        end, _ = await run(client, url, timeout=ClientTimeout(total=SOON))
        assert type(end) is TimeoutError


@pytest.mark.parametrize("kind", ["truncated", "reset_mid_body", "malformed_json"])
async def test_without_a_body_there_is_nothing_to_break(kind):
    """The answer is left alone, and the strike is a miss."""
    async with peer(healthy(b"HTTP/1.1 204 No Content\r\n\r\n")) as (url, _), session(ProtocolFault(kind)) as (client, faults):
        assert await run(client, url) == (204, b"")
        assert (faults.struck(), faults.missed()) == (0, 1)


@pytest.mark.parametrize("kind", ["truncated", "lost_reply", "malformed_json", "slow_first_byte"])
async def test_a_real_failure_is_a_miss(kind):
    """What went wrong by itself was not injected."""
    fault = ProtocolFault(kind, delay=1) if kind == "slow_first_byte" else ProtocolFault(kind)
    async with peer(reset_early) as (url, _), session(fault) as (client, faults):
        end, _ = await run(client, url)
        assert (type(end), notes_of(end)) == (aiohttp.ClientOSError, [])
        assert (faults.struck(), faults.missed()) == (0, 1)


async def test_faults_are_layers():
    """A late answer that also ends early."""
    clock = ManualClock()
    began = clock.monotonic()
    faults = (ProtocolFault("slow_first_byte", delay=2), ProtocolFault("latency", delay=1), ProtocolFault("truncated"))
    async with peer(ABCDEF) as (url, _), session(*faults, timeout=ALL, clock=clock) as (client, _):
        assert await run(client, url) == (200, b"abc")
    assert clock.monotonic() - began == 3.0


async def test_the_kill_switch_lets_everything_pass():
    """From the next request on."""
    async with peer(ABCDEF) as (url, _), session(ProtocolFault("status")) as (client, faults):
        assert (await run(client, url))[0] == 429
        faults.stop()
        assert await run(client, url) == (200, b"abcdef")


async def test_a_wrong_collection_is_named():
    """A single fault is no collection."""
    with pytest.raises(ConfigurationError, match="fault_middleware"):
        fault_middleware(ProtocolFault("reset"))
