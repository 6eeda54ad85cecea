"""HTTP/1.1 for the generator: requests as bytes, connections that are kept, answers read where they arrive.

There is no task, no queue and no timer a request: a generator that needs as much of a processor as the service measures itself. The parser
is that of Node.js (httptools), which takes 1 us an answer where h11 takes 60; WebSockets are those of wsproto. Both come with
``pip install "somaresil[load]"``.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from somaresil.chaos.ingress import MARK
from somaresil.clock import SystemClock
from somaresil.load.books import Ending
from somaresil.load.measure import Measure
from somaresil.load.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.load.generator import Order
    from somaresil.load.websocket import WebSocket
    from somaresil.typing import Clock

__all__ = ["INSTALL", "HttpCaller", "Payload", "Target", "missing"]

INSTALL: Final = 'pip install "somaresil[load]"'
_IDLE: Final = 4.0
"""Seconds after which a connection is not used again: servers close them after 5 or more, and might just do so."""
_DRAIN: Final = 1.0
"""Seconds that a stream may go on after its last event before its connection is closed."""
_KEPT: Final = 2_000
"""Connections that are kept for later."""
_LARGEST_HEAD: Final = 262_144
"""Bytes in which the head of an answer must be complete."""


def missing() -> tuple[str, ...]:
    """What the generator needs and is not installed."""
    from importlib.util import find_spec

    return tuple(name for name in ("httptools", "wsproto") if find_spec(name) is None)


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    tls: bool = False
    path: str = ""
    """What comes before the path of every request."""

    @classmethod
    def of(cls, url: str) -> Target:
        """That of ``http://host:port/path`` or ``https://...``. Raises :class:`ValueError` for anything else."""
        if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("expected a text of printable ASCII characters without spaces")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("expected http:// or https://, a host and a path, without user, query or fragment")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """For the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Payload:
    """One request, ready to be sent."""

    kind: str
    """``http``, ``sse`` or ``websocket``."""
    data: bytes
    """The whole request; for a WebSocket the path."""
    expect: frozenset[int] | None = None
    """Statuses that are good; None: 200 to 299."""
    end: str | None = None
    """The data or the name of the last event of a stream; None: it ends with its connection or body."""
    safe: bool = False
    """Whether it may be sent once more when a kept connection was closed before anything of the answer came."""
    messages: tuple[str, ...] = ()
    """What is sent through a WebSocket."""
    items: int | None = None
    """So many messages of a WebSocket are waited for; None: up to ``end``, or until it is closed."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of a WebSocket."""


class HttpCaller:
    """Makes the requests of a generator to one target. A :class:`~somaresil.load.generator.Caller`."""

    def __init__(self, target: Target, *, clock: Clock | None = None, gap_bounds: tuple[float, ...] = ()) -> None:
        """No connection yet. ``gap_bounds``: gaps that are to be counted exactly."""
        self.target = target
        self.monotonic = (SystemClock() if clock is None else clock).monotonic
        self.gap_bounds = gap_bounds
        self.idle: list[_Connection] = []
        self.open: set[_Connection | WebSocket] = set()
        self.opening: set[asyncio.Task[None]] = set()
        self.opened = 0
        """Connections that were opened."""
        self._tls = ssl.create_default_context() if target.tls else None

    def call(self, order: Order, due: float, ended: Callable[[Ending], None]) -> Exchange:
        """Send it through a connection that is free, or a new one."""
        payload: Payload = order.payload
        exchange = Exchange(self, order.request, payload, due, ended)
        if payload.kind == "websocket":
            from somaresil.load.websocket import WebSocket

            self.connect(exchange, functools.partial(WebSocket, exchange))
            return exchange
        now = self.monotonic()
        while self.idle:
            connection = self.idle.pop()
            if now - connection.since < _IDLE and not connection.transport.is_closing():
                connection.begin(exchange)
                return exchange
            connection.transport.close()
        self.connect(exchange, functools.partial(_Connection, self, exchange))
        return exchange

    def connect(self, exchange: Exchange, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Open a connection for an exchange, which the protocol begins when it is made."""
        exchange.task = task = asyncio.ensure_future(self._connect(exchange, protocol))
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _connect(self, exchange: Exchange, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self.opened += 1
        loop = asyncio.get_running_loop()
        host = self.target.host if self._tls is not None else None
        try:
            await loop.create_connection(protocol, self.target.host, self.target.port, ssl=self._tls, server_hostname=host)
        except ssl.SSLError:
            exchange.finish("tls")
        except ConnectionRefusedError:
            exchange.finish("refused")
        except OSError as error:
            # No names and numbers of this connection: the kinds of errors are counted.
            exchange.finish("no file descriptor is left" if error.errno in {23, 24} else f"connect: {type(error).__name__}")
        except UnicodeError:
            exchange.finish("connect: no name of a host")

    async def close(self) -> None:
        """Close every connection."""
        for task in [*self.opening]:
            task.cancel()
        await asyncio.gather(*self.opening, return_exceptions=True)
        for connection in [*self.open]:
            connection.transport.abort()
        self.idle.clear()
        # Transports close in the next round of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Exchange:
    """One request and its answer. A :class:`~somaresil.load.generator.Flight`."""

    __slots__ = (
        "_ended",
        "begun",
        "caller",
        "carrier",
        "due",
        "first",
        "gaps",
        "injected",
        "items",
        "last",
        "over",
        "payload",
        "reader",
        "received",
        "request",
        "retried",
        "status",
        "task",
        "terminal",
    )

    def __init__(self, caller: HttpCaller, request: str, payload: Payload, due: float, ended: Callable[[Ending], None]) -> None:
        self.caller = caller
        self._ended = ended
        self.request = request
        self.payload = payload
        self.due = due
        self.over = False
        self.task: asyncio.Task[None] | None = None
        self.carrier: Any = None
        """The protocol that has it; its ``drop`` closes the connection."""
        self.status = 0
        self.received = 0
        self.injected = False
        self.reader: EventReader | None = None
        self.first: float | None = None
        self.last: float | None = None
        self.gaps: Measure | None = None
        self.items = 0
        self.terminal = False
        """Whether the last event of the stream has come."""
        self.begun = False
        """Whether the answer is a stream that has begun."""
        self.retried = False

    def abort(self, failure: str) -> None:
        """End it with this failure, and its connection."""
        if self.over:
            return
        carrier, task = self.carrier, self.task
        self.finish(failure)
        if carrier is not None:
            carrier.drop()
        elif task is not None:
            task.cancel()

    def item(self, now: float) -> None:
        """An item of the stream has come."""
        self.items += 1
        if self.first is None:
            self.first = now
        else:
            if self.gaps is None:
                self.gaps = Measure(self.caller.gap_bounds)
            self.gaps.add(now - (self.last or now))
        self.last = now

    def finish(self, failure: str | None, *, at: float | None = None) -> None:
        """It is over."""
        if self.over:
            return
        self.over = True
        self.carrier = None
        stream = self.begun
        truncated = stream and not self.terminal and failure is not None
        self._ended(
            Ending(
                self.request,
                self.due,
                self.caller.monotonic() if at is None else at,
                failure,
                stream,
                truncated,
                self.first,
                self.gaps,
                self.items,
                self.received,
                self.injected,
            )
        )


class _Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    transport: asyncio.Transport

    def __init__(self, caller: HttpCaller, exchange: Exchange) -> None:
        import httptools

        self._caller = caller
        self._waiting: Exchange | None = exchange
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        # An answer that wants to go on in another protocol was not asked for.
        self._broken = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self._head = 0
        self._now = 0.0
        self._fresh = True
        """Whether nothing of the answer has come."""
        self._used = False
        """Whether it has carried an exchange before."""
        self._headers = False
        self._length = False
        """Whether the answer says where it ends."""
        self._draining: asyncio.TimerHandle | None = None
        self.since = 0.0
        """Since when it is free."""

    # -- asyncio ------------------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what it was opened for."""
        # Not an instance of it with every loop, but always what streams have.
        self.transport = cast("asyncio.Transport", transport)
        self._caller.open.add(self)
        exchange, self._waiting = self._waiting, None
        if exchange is None or exchange.over:
            self._free()
        else:
            self.begin(exchange)

    def begin(self, exchange: Exchange) -> None:
        """Send a request."""
        self._exchange = exchange
        exchange.carrier = self
        self._fresh, self._headers, self._length, self._head = True, False, False, 0
        self.transport.write(exchange.payload.data)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._now = self._caller.monotonic()
        exchange = self._exchange
        if exchange is None and self._draining is None:
            # Nobody has asked for anything.
            self.transport.abort()
            return
        self._fresh = False
        if exchange is not None:
            exchange.received += len(data)
        try:
            self._parser.feed_data(data)
        except self._broken:
            self._end("not HTTP", keep=False)
            return
        if not self._headers and self._exchange is not None:
            self._head += len(data)
            if self._head > _LARGEST_HEAD:
                self._end("a head too large", keep=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer may be complete with that, or cut off."""
        self._caller.open.discard(self)
        if self in self._caller.idle:
            self._caller.idle.remove(self)
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.over:
            return
        exchange.carrier = None
        if self._headers and not self._length:
            exchange.finish(_judged(exchange))
        elif not self._fresh:
            exchange.finish("cut off")
        elif self._used and exchange.payload.safe and not exchange.retried:
            exchange.retried = True
            self._caller.connect(exchange, functools.partial(_Connection, self._caller, exchange))
        else:
            exchange.finish("closed" if exc is None else "reset")

    def drop(self) -> None:
        """Close it, whatever it carries."""
        self._exchange = None
        self.transport.abort()

    # -- the parser -----------------------------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Three of them matter."""
        name = name.lower()
        if name in {b"content-length", b"transfer-encoding"}:
            self._length = True
        elif name == MARK and value and self._exchange is not None:
            self._exchange.injected = True

    def on_headers_complete(self) -> None:
        """The status is known."""
        exchange = self._exchange
        status = self._parser.get_status_code()
        if exchange is None or status < 200:  # noqa: PLR2004 - an interim answer
            return
        self._headers = True
        exchange.status = status
        self._length = self._length or status in {204, 304}
        if exchange.payload.kind == "sse" and _good(exchange):
            exchange.begun = True
            exchange.reader = EventReader()

    def on_body(self, body: bytes) -> None:
        """Only streams are looked at."""
        exchange = self._exchange
        if exchange is None or exchange.reader is None:
            return
        end = exchange.payload.end
        try:
            events = exchange.reader.feed(body)
        except ValueError:
            # Out of here nothing may be raised: the parser would take it for its own.
            exchange.finish("an event too large", at=self._now)
            self.drop()
            return
        for event in events:
            if end is not None and end in {event.data, event.kind}:
                exchange.terminal = True
                exchange.finish(None, at=self._now)
                # The body ends soon; then the connection is free.
                self._exchange = None
                self._draining = asyncio.get_running_loop().call_later(_DRAIN, self.drop)
                return
            exchange.item(self._now)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if self._parser.get_status_code() < 200:  # noqa: PLR2004 - an interim answer
            self._length = False
            return
        keep = self._parser.should_keep_alive()
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
            self._free(keep=keep)
            return
        exchange = self._exchange
        if exchange is not None:
            self._end(_judged(exchange), keep=keep)

    # -- ends -----------------------------------------------------------------------------------------------------------------------------

    def _end(self, failure: str | None, *, keep: bool) -> None:
        exchange, self._exchange = self._exchange, None
        # Free first: what follows the end may begin the next one.
        self._free(keep=keep)
        if exchange is not None:
            exchange.finish(failure, at=self._now)

    def _free(self, *, keep: bool = True) -> None:
        self._used = True
        if keep and len(self._caller.idle) < _KEPT and not self.transport.is_closing():
            self.since = self._caller.monotonic()
            self._caller.idle.append(self)
        else:
            self.transport.close()


def _good(exchange: Exchange) -> bool:
    expect = exchange.payload.expect
    return 200 <= exchange.status < 300 if expect is None else exchange.status in expect  # noqa: PLR2004 - as HTTP means it


def _judged(exchange: Exchange) -> str | None:
    """What is wrong with an answer that has come to the end of its body."""
    if not _good(exchange):
        return f"status {exchange.status}"
    if exchange.payload.kind == "sse":
        if exchange.payload.end is not None:
            return "truncated"
        exchange.terminal = True
    return None
