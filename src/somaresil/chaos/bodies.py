"""Faults on the bodies of responses, and on the messages of websockets, between the middleware and the server.

The same shapings as for the streams of guards (:mod:`somaresil.chaos.streams`), with chunks for items. A response that is broken off is
broken off as an app breaks it: with an exception before it is complete, which servers answer by closing the connection. With ``reset`` the
connection is reset (RST) where the transport of the server can be reached, which is so under uvicorn when nothing stands between;
elsewhere it is closed, and that is counted (:attr:`ExperimentRun.unreset`) and reported once.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.chaos.streams import END, SKIP, Drip, Shaping, Touched, shaping_of, tell
from somaresil.errors import InjectedFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.chaos.run import ExperimentRun
    from somaresil.chaos.strikes import Decision

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Body", "BodyFault", "Request"]

_SAME_LENGTH: Final = frozenset({"stream_cut", "stream_slow_start", "stream_stall", "stream_drip", "stream_throttle", "stream_tear"})
"""Kinds that leave the length of a body as it was announced: what they break off is seen to be incomplete by that, too."""
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_NORMAL: Final = 1000


class Request(Touched, Protocol):
    """A request whose body is struck."""

    def delivered(self) -> None:
        """The first of its body goes out."""
        ...

    def broken_off(self, cut: BaseException) -> None:
        """It is broken off with this error."""
        ...

    def complete(self) -> None:
        """Its client has been told that this is all."""
        ...


class BodyFault:
    """What an experiment will do to the body of one response."""

    __slots__ = ("_component", "_decision", "_run")

    def __init__(self, run: ExperimentRun, component: str, decision: Decision) -> None:
        """By the kind of the experiment."""
        self._run = run
        self._component = component
        self._decision = decision

    def on(self, send: Send, request: Request) -> Send:
        """Stand before ``send`` of a server."""
        return Body(shaping_of(self._run, self._component, self._decision, request), send, request).send


class Body:
    """The body of one response, or one websocket, while a fault is on it."""

    def __init__(self, shaping: Shaping, send: Send, request: Request) -> None:
        """Pass to ``send`` what is left of it."""
        self._shaping = shaping
        self._send = send
        self._request = request
        self._delivered = False
        self._held: Message | None = None
        """The start of the response, while it is not known how long that will be."""
        self._over = False
        """The client has been told that it is complete."""
        self._cut: BaseException | None = None
        """What it was broken off with: an app that sends on is told so again."""
        self._keeps_length = shaping.config.experiment.value in _SAME_LENGTH

    async def send(self, message: Message) -> None:
        """Pass a message of the app on, or what is made of it."""
        kind = message["type"]
        if self._over:
            return
        if kind == "http.response.start" and not self._keeps_length and _length_of(message) is not None:
            self._held = message
        elif kind == "http.response.body":
            await self._chunk(message)
        elif kind == "websocket.send":
            await self._message(message)
        else:
            await self._let_go(None, keep=True)
            await self._send(message)

    async def _chunk(self, message: Message) -> None:
        shaping, chunk, more = self._shaping, bytes(message.get("body") or b""), bool(message.get("more_body", False))
        await self._broken()
        if not chunk and not (shaping.ends_empty and shaping.index >= shaping.config.after_items):
            await self._let_go(None, keep=not more)
            await self._send(message)
            return
        made = await self._seen(chunk)
        if made is END:
            await self._let_go(None)
            self._over = True
            await self._send({**message, "body": b"", "more_body": False})
            self._completed()
            return
        body = b"" if made is SKIP else made if isinstance(made, bytes) else str(made).encode()
        await self._let_go(None if more else len(body), keep=not more and body == chunk)
        self._out()
        if isinstance(shaping, Drip) and len(body) > shaping.config.chunk_bytes:
            await self._in_pieces(message, body, more=more)
        elif body or not more:
            # What is half of a chunk is not the end of the response.
            await self._send({**message, "body": body, "more_body": more or shaping.pending is not None})
        await self._broken()

    async def _in_pieces(self, message: Message, body: bytes, *, more: bool) -> None:
        shaping, size = self._shaping, self._shaping.config.chunk_bytes
        for at in range(0, len(body), size):
            if at:
                await shaping.see(b"")
            if shaping.struck is False:
                await self._send({**message, "body": body[at:], "more_body": more})
                return
            await self._send({**message, "body": body[at : at + size], "more_body": more or at + size < len(body)})

    async def _message(self, message: Message) -> None:
        await self._broken()
        text = message.get("text")
        content = text if text is not None else message.get("bytes") or b""
        made = await self._seen(content)
        if made is END:
            self._over = True
            await self._send({"type": "websocket.close", "code": _NORMAL})
            self._completed()
        elif made is not SKIP:
            await self._send({**message, "text" if text is not None else "bytes": made})
            await self._broken()

    async def _seen(self, item: Any) -> Any:
        try:
            return await self._shaping.see(item)
        except InjectedFault as cut:
            self._break_off(cut)
            raise cut from None

    async def _broken(self) -> None:
        if self._cut is not None:
            raise self._cut
        pending, self._shaping.pending = self._shaping.pending, None
        if pending is not None:
            self._break_off(pending)
            raise pending

    def _break_off(self, cut: BaseException) -> None:
        """Reset the connection, when that is wanted. The error that follows ends the response in any case."""
        self._cut = cut
        try:
            self._request.broken_off(cut)
        except Exception as defect:  # noqa: BLE001 - never into a request
            tell(self._request, "end of a struck response", defect)
        run = self._shaping.run
        if not run.config.reset:
            return
        try:
            # Attribute by attribute: what is missing is named in the report.
            transport: Any = self._send.__self__.transport  # type: ignore[attr-defined]
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            transport.abort()
        except Exception as why:  # noqa: BLE001 - closed is broken off, too
            run.unreset += 1
            tell(self._shaping.call, "reset of a connection", why, "it was closed without a reset")

    def _completed(self) -> None:
        try:
            self._request.complete()
        except Exception as defect:  # noqa: BLE001 - never into a request
            tell(self._request, "end of a struck response", defect)

    def _out(self) -> None:
        if self._delivered:
            return
        self._delivered = True
        try:
            self._request.delivered()
        except Exception as defect:  # noqa: BLE001 - never into a request
            tell(self._request, "first byte of a struck response", defect)

    async def _let_go(self, length: int | None, *, keep: bool = False) -> None:
        """Send the start of the response that was held, with the length that it has now; None: nobody knows yet. ``keep`` it as it is."""
        held, self._held = self._held, None
        if held is None:
            return
        if keep:
            await self._send(held)
            return
        headers = [pair for pair in held["headers"] if bytes(pair[0]).lower() != b"content-length"]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self._send({**held, "headers": headers})


def _length_of(start: Message) -> bytes | None:
    return next((bytes(value) for name, value in start.get("headers", ()) if bytes(name).lower() == b"content-length"), None)
