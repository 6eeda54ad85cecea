"""Answers that no good service gives: each is an error of its kind, and the run goes on."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from somaresil.load import Request, Scenario, Stage, run_scenario
from somaresil.load.sse import LARGEST
from tests.integration.servers import HOST

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
REQUEST = Request("a", "/", timeout=2.0)
STREAM = Request("a", "/", kind="sse", end="done", timeout=2.0)
SOCKET = Request("a", "/", kind="websocket", end="done", timeout=2.0)


def against(serve, request=REQUEST, *, arrivals=5, tls=None):
    """Run a few requests against a server of plain bytes; the book of what came of them."""

    async def main():
        async def connected(reader, writer):
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        async with await asyncio.start_server(connected, HOST, 0, ssl=tls) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"{'https' if tls else 'http'}://{'localhost' if tls else HOST}:{port}"
            scenario = Scenario("hostile", url, (request,), (Stage(0.5, arrivals * 2.0),), arrival="constant")
            return (await run_scenario(scenario)).run

    return asyncio.run(main())


def saying(data, *, then=None):
    """A server that answers every request with these bytes, and closes or waits then."""

    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()
            if then == "close":
                return
            if then == "wait":
                await reader.read()
                return

    return serve


@pytest.mark.parametrize(
    ("data", "then", "request_", "failure"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", None, REQUEST, "not HTTP"),
        (b"\x00\x01\x02\x03", None, REQUEST, "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "wait", REQUEST, "not HTTP"),
        (b"", "close", REQUEST, "closed"),
        (b"HTTP/1.1 200 OK\r\n", "close", REQUEST, "cut off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "close", REQUEST, "cut off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "wait", REQUEST, "timeout"),
        (b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"y" * 400_000, "wait", REQUEST, "a head too large"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None, REQUEST, "status 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None, STREAM, "truncated"),
        (SSE + b"5\r\ndata:\r\n0\r\n\r\n", None, STREAM, "truncated"),
        (SSE + b"ffffff\r\n" + b"data: " + b"x" * (LARGEST + 10), "wait", STREAM, "an event too large"),
        (SSE + b"d\r\ndata: token\n\n\r\n", "close", STREAM, "cut off"),
        (SSE + b"d\r\ndata: token\n\n\r\n", "wait", STREAM, "timeout"),
        (OK, None, SOCKET, "status 200"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", None, SOCKET, "not a WebSocket"),
        (b"", "close", SOCKET, "closed"),
        (b"", "wait", SOCKET, "timeout"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_its_kind(data, then, request_, failure):
    """Every request ends once, with the same failure, and nothing is left open."""
    run = against(saying(data, then=then), request_)
    book = run.books.total()
    assert book.errors == {failure: 5}
    assert (book.started, book.ended, book.good) == (5, 5, 0)
    assert run.complete


@pytest.mark.parametrize(
    ("data", "then"),
    [
        (OK, None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, None),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, None),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it is closed", "close"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "close"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "close"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None),
    ],
)
def test_unusual_answers_are_answers(data, then):
    """Interim answers, bodies without a length, old versions, connections that end with their answer."""
    book = against(saying(data, then=then)).books.total()
    assert (book.good, dict(book.errors)) == (5, {})


def test_answers_in_single_bytes_are_read():
    """Where a packet ends means nothing."""

    async def serve(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for byte in OK:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

    assert against(serve).books.total().good == 5


def test_a_kept_connection_that_was_just_closed_is_no_error():
    """A request that may be repeated is, once, when nothing of its answer came; that is a race nobody can win."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        # The next one is taken, and left.
        await reader.readuntil(b"\r\n\r\n")

    assert against(serve).books.total().good == 5
    posted = against(serve, Request("a", "/", method="POST", timeout=2.0)).books.total()
    assert posted.errors == {"closed": 2}


def test_an_answer_that_nobody_asked_for_closes_the_connection():
    """It would be taken for that of the next request."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 500 Stray\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    assert against(serve).books.total().good == 5


def test_tls_is_spoken_and_checked(tmp_path, monkeypatch):
    """A certificate of an authority that is known will do; any other is an error, not a warning."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", *names]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    assert against(saying(OK), tls=context).books.total().errors == {"tls": 5}
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert against(saying(OK), tls=context).books.total().good == 5
