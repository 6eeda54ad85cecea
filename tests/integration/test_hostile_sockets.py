"""All apps of ours under a real server, and connections that speak no good HTTP: afterwards a good request is answered as before."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest
import uvicorn

from tests.security.hostile import ALICE, SECRETS, control, dashboard, evidence, verdicts

pytestmark = pytest.mark.timeout(120)

PATIENCE = 20.0
BEARER = f"Authorization: Bearer {ALICE}\r\n"
LOOKS = {"control": "/_soma/chaos/status", "dashboard": "/_soma/api/session", "verdicts": "/canary/canaries", "evidence": "/evidence"}
ACTS = {"control": "/_soma/chaos/check", "dashboard": "/_soma/api/experiments", "verdicts": "/canary/evidence"}


class Fleet:
    """Every guarded app in one server, each below its root. Time is the tests': what is late is late at once."""

    def __init__(self):
        self.surfaces = {each.name: each for each in (control(), dashboard(), verdicts(), evidence())}
        self.raised = []
        self.port = 0

    async def __call__(self, scope, receive, send):
        by_length = sorted(self.surfaces.values(), key=lambda each: -len(each.root))
        found = next((each for each in by_length if scope["path"].startswith(each.root)), self.surfaces["control"])
        of_the_server = []

        async def sending(message):
            try:
                await send(message)
            except Exception as broken:
                # A server that has given a connection up takes no answer any more.
                of_the_server.append(broken)
                raise

        try:
            await found.app({**scope, "root_path": found.root}, receive, sending)
        except Exception as raised:
            if raised not in of_the_server:
                self.raised.append(raised)
            raise

    def state(self):
        return {name: each.state() for name, each in self.surfaces.items()}

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        return closing(connection)

    def send(self, *pieces, ends=True):
        """Send that, and read to the end; ``ends``: tell the server that nothing more comes."""
        with self.connect() as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                # It was closed before everything was sent, which is right for some; what was answered is looked at.
                pass
            return _read(connection)

    def is_well(self):
        """Whether each app answers a good request."""
        for path in LOOKS.values():
            answer = self.send(f"GET {path} HTTP/1.1\r\nHost: service\r\n{BEARER}Connection: close\r\n\r\n".encode(), ends=False)
            assert answer.startswith(b"HTTP/1.1 200"), (path, answer[:200])
        assert self.raised == []
        assert [each.defects for each in self.surfaces.values()] == [[]] * len(self.surfaces)


def _read(connection):
    answer = b""
    try:
        while chunk := connection.recv(65_536):
            answer += chunk
    except ConnectionError:
        # A server that closes with unread bytes resets the connection: what came before that was read.
        pass
    return answer


@pytest.fixture(scope="module", params=["h11", "httptools"])
def fleet(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMARESIL_CHAOS", "1")
        if request.param == "httptools":
            pytest.importorskip("httptools")
        made = Fleet()
        with served(made, request.param):
            yield made


@contextmanager
def served(made, http):
    listener = socket.create_server(("127.0.0.1", 0))
    made.port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(made, http=http, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield
    finally:
        made.surfaces["dashboard"].app.stop()
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def _request(line, headers=BEARER, body=b"", host="Host: service\r\n"):
    return f"{line}\r\n{host}{headers}Connection: close\r\n\r\n".encode("latin-1") + body


MALFORMED = {
    "nothing": b"",
    "bytes": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "a line end": b"\r\n\r\n\r\n",
    "half a line": b"GET /_soma",
    "half a header": b"GET /_soma/ HTTP/1.1\r\nHost: ser",
    "no version": _request("GET /_soma/"),
    "version 9": _request("GET /_soma/ HTTP/9.9"),
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space before the colon": _request("GET /_soma/ HTTP/1.1", "Authorization : Bearer x\r\n"),
    "a folded header": _request("GET /_soma/ HTTP/1.1", f"Authorization: Bearer\r\n {ALICE}\r\n"),
    "NUL in a header": _request("GET /_soma/ HTTP/1.1", "X: a\x00b\r\n"),
    "CR in a header": _request("GET /_soma/ HTTP/1.1", "X: a\rX-Injected: 1\r\n"),
    "NUL in the path": _request("GET /_soma/\x00 HTTP/1.1"),
    "bytes in the path": _request("GET /_soma/\xff\xfe HTTP/1.1"),
    "a space in the path": _request("GET /_soma/ x HTTP/1.1"),
    "two lengths": _request("POST /_soma/chaos/stop HTTP/1.1", "Content-Length: 2\r\nContent-Length: 5\r\n", b"{}"),
    "a negative length": _request("POST /_soma/chaos/stop HTTP/1.1", "Content-Length: -2\r\n", b"{}"),
    "length and chunks": _request(
        "POST /_soma/chaos/stop HTTP/1.1",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"0\r\n\r\nPOST /_soma/chaos/stop HTTP/1.1\r\n\r\n",
    ),
    "a chunk of no length": _request("POST /_soma/chaos/stop HTTP/1.1", "Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunks in disguise": _request("POST /_soma/chaos/stop HTTP/1.1", "Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "a long path": _request("GET /_soma/" + "a" * 200_000 + " HTTP/1.1"),
    "a long header": _request("GET /_soma/ HTTP/1.1", "X: " + "a" * 200_000 + "\r\n"),
    "many headers": _request("GET /_soma/ HTTP/1.1", "".join(f"X-{n}: v\r\n" for n in range(10_000))),
    "no host": _request("GET /_soma/ HTTP/1.1", host=""),
    "two hosts": _request("GET /_soma/ HTTP/1.1", "Host: evil.example\r\n"),
    "another server": _request("GET http://evil.example/ HTTP/1.1"),
    "a tunnel": _request("CONNECT evil.example:443 HTTP/1.1"),
    "traversal": _request("GET /_soma/static/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1"),
    "encoded surrogates": _request("GET /canary/flagger/%ed%a0%80/rollout HTTP/1.1"),
    "an upgrade": _request("GET /_soma/ HTTP/1.1", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"),
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in MALFORMED.items()])
def test_what_is_no_good_http_moves_nothing_and_the_next_request_is_answered(fleet, sent):
    before = fleet.state()
    answer = fleet.send(sent)
    assert len(answer) < 65_536
    assert not any(secret in answer for secret in SECRETS)
    assert b"traceback" not in answer.lower()
    assert b"\nx-injected" not in answer.lower()
    assert not answer or answer.startswith(b"HTTP/1.")
    assert fleet.state() == before
    fleet.is_well()


@pytest.mark.parametrize("name", [*ACTS])
def test_a_body_that_stops_coming_is_given_up_and_the_connection_closed(fleet, name):
    """The head says a hundred bytes, five come, and then nothing: it is our side that ends it, by the clock of the process."""
    before = fleet.state()
    extra = "".join(f"{key.decode()}: {value.decode()}\r\n" for key, value in fleet.surfaces[name].headers)
    head = f"POST {ACTS[name]} HTTP/1.1\r\nHost: service\r\n{BEARER}{extra}Content-Length: 100\r\n\r\n".encode()
    answer = fleet.send(head + b'{"a":', ends=False)
    assert answer.startswith(b"HTTP/1.1 408"), answer[:200]
    assert b"connection: close" in answer.lower()
    assert fleet.state() == before
    fleet.is_well()


def test_connections_that_say_little_and_wait_keep_nobody_else_out(fleet):
    """Fifty of them stay open, at every point of a request, while others are answered; then they leave without a word."""
    before = fleet.state()
    whole = f"POST /_soma/chaos/check HTTP/1.1\r\nHost: service\r\n{BEARER}Content-Type: application/json\r\n".encode()
    waiting = [socket.create_connection(("127.0.0.1", fleet.port), timeout=PATIENCE) for _ in range(50)]
    try:
        for number, connection in enumerate(waiting):
            connection.sendall(whole[: number * len(whole) // 50])
        fleet.is_well()
    finally:
        for connection in waiting:
            connection.close()
    fleet.is_well()
    assert fleet.state() == before


def test_who_leaves_in_the_middle_of_a_body_moves_nothing(fleet):
    before = fleet.state()
    for name, path in ACTS.items():
        extra = "".join(f"{key.decode()}: {value.decode()}\r\n" for key, value in fleet.surfaces[name].headers)
        with fleet.connect() as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: service\r\n{BEARER}{extra}Content-Length: 50000\r\n\r\n{{".encode())
    fleet.is_well()
    assert fleet.state() == before


def test_requests_in_one_packet_are_answered_in_their_order_each_by_its_own_credentials(fleet):
    """What a stranger puts behind a good request is his own: it is not let in by that of the one before."""
    good = f"GET /canary/canaries HTTP/1.1\r\nHost: service\r\n{BEARER}\r\n"
    stranger = (
        "POST /canary/canaries/gateway/promote HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    last = f"GET /evidence HTTP/1.1\r\nHost: service\r\n{BEARER}Connection: close\r\n\r\n"
    before = fleet.state()
    answer = fleet.send((good + stranger + last).encode(), ends=False)
    statuses = [int(piece[:3]) for piece in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 401, 200]
    assert fleet.state() == before
    fleet.is_well()
