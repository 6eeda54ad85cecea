"""A WebSocket for the generator: it is opened, says what it has to say, and takes text messages until the last one has come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from somaresil.chaos.ingress import MARK

if TYPE_CHECKING:
    from somaresil.load.http import Exchange, HttpCaller

__all__ = ["WebSocket"]

_LARGEST: Final = 1_048_576
"""Characters of a message that are put together."""


class WebSocket(asyncio.Protocol):
    """The connection of one exchange; it is closed when that is over."""

    def __init__(self, exchange: Exchange) -> None:
        from wsproto import ConnectionType, WSConnection

        self._exchange = exchange
        self._caller: HttpCaller = exchange.caller
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._parts: list[str] = []
        self._size = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        from wsproto.events import Request

        self._transport = stream = cast("asyncio.Transport", transport)
        self._caller.open.add(self)
        if self._exchange.over:
            stream.abort()
            return
        self._exchange.carrier = self
        payload = self._exchange.payload
        target = payload.data.decode("ascii")
        stream.write(self._wire.send(Request(self._caller.target.authority, target, extra_headers=[*payload.headers])))

    def data_received(self, data: bytes) -> None:
        """Read on."""
        from wsproto.utilities import LocalProtocolError, RemoteProtocolError

        now = self._caller.monotonic()
        self._exchange.received += len(data)
        try:
            self._wire.receive_data(data)
            for event in self._wire.events():
                self._take(event, now)
                if self._exchange.over:
                    return
        except (LocalProtocolError, RemoteProtocolError):
            self._over("not a WebSocket", now)
        except ValueError:
            self._over("a message too large", now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was still to come does not."""
        self._caller.open.discard(self)
        if not self._exchange.over:
            self._exchange.carrier = None
            self._exchange.finish("truncated" if self._exchange.begun else "closed" if exc is None else "reset")

    def drop(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def transport(self) -> asyncio.Transport:
        """The connection; it is there since it was made."""
        if self._transport is None:
            raise RuntimeError("this WebSocket has no connection yet")
        return self._transport

    def _take(self, event: Any, now: float) -> None:
        from wsproto import events

        exchange, payload = self._exchange, self._exchange.payload
        if isinstance(event, events.AcceptConnection):
            exchange.begun = True
            exchange.injected = any(bytes(name).lower() == MARK for name, _ in event.extra_headers)
            for message in payload.messages:
                self._send(events.TextMessage(message))
        elif isinstance(event, events.RejectConnection):
            exchange.injected = any(bytes(name).lower() == MARK for name, _ in event.headers)
            self._over(f"status {event.status_code}", now)
        elif isinstance(event, events.Message):
            self._message(event, now)
        elif isinstance(event, events.Ping):
            self._send(event.response())
        elif isinstance(event, events.CloseConnection):
            self._send(event.response())
            complete = payload.end is None and (payload.items is None or exchange.items >= payload.items)
            exchange.terminal = complete
            self._over(None if complete else "truncated", now)

    def _message(self, event: Any, now: float) -> None:
        data = event.data
        text = data if isinstance(data, str) else bytes(data).decode("utf-8", "replace")
        self._size += len(text)
        if self._size > _LARGEST:
            raise ValueError("a message too large")
        self._parts.append(text)
        if not event.message_finished:
            return
        whole, self._parts, self._size = "".join(self._parts), [], 0
        exchange, payload = self._exchange, self._exchange.payload
        if payload.end is not None and whole == payload.end:
            exchange.terminal = True
        else:
            exchange.item(now)
            exchange.terminal = payload.items is not None and exchange.items >= payload.items
        if exchange.terminal:
            from wsproto.events import CloseConnection

            self._send(CloseConnection(code=1000))
            self._over(None, now)

    def _send(self, event: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._wire.send(event))

    def _over(self, failure: str | None, now: float) -> None:
        self._exchange.finish(failure, at=now)
        if self._transport is not None:
            self._transport.close()
