"""Peers for the hooks of clients: an HTTP server on a loopback port that says what it is told to say, and remembers what it was asked."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

PATIENCE = 20.0


def reply(status=200, body=b"fine", **headers):
    """A whole answer."""
    fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*chunks, end=True, status=200):
    """An answer in chunks; without its end it breaks off."""
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if end else b"")


def halves(whole):
    """An answer whose body comes a little after its head."""
    head, end, body = whole.partition(b"\r\n\r\n")
    return head + end, 0.02, body


CUT = object()
"""Close the connection here."""
RESET = object()
"""Close it with a RST."""
HANG = object()
"""Say nothing more until the test ends."""


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """Answers the n-th request with the n-th of ``replies``, and with the last one from then on.

    A reply may be several parts: bytes, seconds to wait, and the ends above.
    """

    def __init__(self, *replies):
        self.replies = replies or (reply(),)
        self.asked = []
        self.connections = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._open = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _listen(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            try:
                while (asked := self._read(stream)) is not None:
                    with self._lock:
                        self.asked.append(asked)
                        parts = self.replies[min(len(self.asked), len(self.replies)) - 1]
                    for part in parts if isinstance(parts, tuple) else (parts,):
                        if part is HANG:
                            self._over.wait(PATIENCE)
                        if part is RESET:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        if part in (CUT, RESET, HANG):
                            return
                        if isinstance(part, float):
                            self._over.wait(part)
                        else:
                            connection.sendall(part)
            except (ConnectionError, ValueError):
                return

    @staticmethod
    def _read(stream):
        line = stream.readline().decode()
        if not line:
            return None
        method, path, _ = line.split(" ")
        headers = {}
        while header := stream.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if "chunked" in headers.get("transfer-encoding", ""):
            while size := int(stream.readline(), 16):
                body += stream.read(size)
                stream.readline()
            stream.readline()
        else:
            body = stream.read(int(headers.get("content-length", 0)))
        return Asked(method, path, headers, body)


def nobody():
    """A loopback address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
