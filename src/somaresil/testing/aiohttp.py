"""Protocol faults for aiohttp: a client middleware (aiohttp >= 3.12) that raises aiohttp's own exceptions.

``aiohttp.ClientSession(middlewares=(fault_middleware(faults),))``. Name it last, innermost: middlewares after it would not see its faults.
Exceptions carry a note; when ``ClientTimeout.total`` ends a wait, aiohttp itself makes the exception and the note is on its cause.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict, CIMultiDictProxy

from somaresil.config import Checker
from somaresil.testing.protocol import Cut, ProtocolFaults, as_bytes, halved_json, has_body, is_event_stream, target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.testing.protocol import Strike

__all__ = ["fault_middleware"]

_FRAMING: Final = frozenset(("content-length", "content-encoding", "transfer-encoding", "content-type"))


def fault_middleware(faults: ProtocolFaults) -> aiohttp.ClientMiddlewareType:
    """Make the middleware. It waits by the clock of the faults, or ``asyncio.sleep``.

    aiohttp repeats an idempotent request once when its connection breaks: a single ``reset`` of a GET is seen here, not by its caller.
    ``ConfigurationError`` when ``faults`` is no :class:`~somaresil.testing.protocol.ProtocolFaults`.
    """
    check = Checker("fault_middleware")
    check.type("faults", faults, ProtocolFaults, "ProtocolFaults(fault, ...)")
    check.finish()

    async def strike_or_pass(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        url = request.url
        port = None if url.is_default_port() else url.port
        strikes = faults.decide(request.method, target(url.scheme, url.host or "", port, url.raw_path))
        return await _Passage(request, handler, faults).through(strikes)

    return strike_or_pass


class _Passage:
    """One request on its way through the strikes."""

    def __init__(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType, faults: ProtocolFaults) -> None:
        self._request = request
        self._handler = handler
        self._sleep = asyncio.sleep if faults.clock is None else faults.clock.asleep

    async def through(self, strikes: tuple[Strike, ...]) -> aiohttp.ClientResponse:
        """One layer a strike, the first outermost."""
        if not strikes:
            return await self._handler(self._request)
        if strikes[0].fault.passes:
            return await self._let_through(strikes[0], strikes[1:])
        return await self._turn_away(strikes[0])

    async def _turn_away(self, strike: Strike) -> aiohttp.ClientResponse:
        """What needs no peer."""
        fault, request = strike.fault, self._request
        if fault.kind == "connect_refused":
            refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            raise strike.mark(aiohttp.ClientConnectorError(request.connection_key, refused)) from refused
        if fault.kind == "connect_timeout":
            await self._run_out(strike, self._connect_limits())
        if fault.kind == "read_timeout":
            await self._run_out(strike, self._read_limits())
        if fault.kind == "reset":
            reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            raise strike.mark(aiohttp.ClientOSError(*reset.args)) from reset
        if fault.kind == "malformed_json":
            return await self._malformed((), as_bytes(fault.body))
        headers, body = fault.reply()
        return await self._answer(fault.status, headers, body)

    async def _let_through(self, strike: Strike, rest: tuple[Strike, ...]) -> aiohttp.ClientResponse:
        """What lets the request through, before or after the peer has answered."""
        kind = strike.fault.kind
        if kind == "latency":
            await self._lag(strike)
            return await self.through(rest)
        try:
            response = await self.through(rest)
        except BaseException:
            strike.miss()
            raise
        try:
            if kind == "lost_reply":
                await self._run_out(strike, self._read_limits())
            if kind == "slow_first_byte":
                await self._lag(strike)
                return response
            if not has_body(response.method, response.status, response.headers.get("Content-Length")):
                strike.miss()
                return response
            if kind == "malformed_json":
                body = await response.read()
                return await self._malformed(response.headers.items(), body)
        except BaseException:
            response.close()
            raise
        _cut_off(response, strike)
        return response

    async def _lag(self, strike: Strike) -> None:
        """Be late. A caller whose limit is shorter does not wait for it."""
        limits = [limit for limit in self._read_limits() if limit[0] and limit[0] < strike.fault.seconds]
        if limits:
            await self._run_out(strike, limits)
        await self._pause(strike, strike.fault.seconds)

    async def _run_out(self, strike: Strike, limits: list[tuple[float | None, Callable[[], Exception]]]) -> NoReturn:
        """Wait as long as the caller would, and raise what he would get: the shortest limit decides. 0 means none, as in aiohttp."""
        given = [(seconds, make) for seconds, make in limits if seconds]
        seconds, make = min(given, key=lambda limit: limit[0]) if given else (strike.fault.seconds, limits[0][1])
        await self._pause(strike, seconds)
        raise strike.mark(make())

    async def _pause(self, strike: Strike, seconds: float) -> None:
        try:
            await self._sleep(seconds)
        except asyncio.CancelledError as cancelled:
            # As a rule the total timeout, of which aiohttp makes a TimeoutError with this one as its cause.
            strike.mark(cancelled)
            raise

    def _connect_limits(self) -> list[tuple[float | None, Callable[[], Exception]]]:
        timeout = _timeout_of(self._request, self._handler)

        def expired() -> Exception:
            return aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}")

        return [(timeout.connect, expired), (timeout.sock_connect, expired), (timeout.total, TimeoutError)]

    def _read_limits(self) -> list[tuple[float | None, Callable[[], Exception]]]:
        timeout = _timeout_of(self._request, self._handler)

        def expired() -> Exception:
            return aiohttp.SocketTimeoutError("Timeout on reading data from socket")

        return [(timeout.sock_read, expired), (timeout.total, TimeoutError)]

    async def _malformed(self, headers: Iterable[tuple[str, str]], body: bytes) -> aiohttp.ClientResponse:
        half = halved_json(body)
        kept = [pair for pair in headers if pair[0].lower() not in _FRAMING]
        return await self._answer(200, [*kept, ("Content-Type", "application/json"), ("Content-Length", str(len(half)))], half)

    async def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> aiohttp.ClientResponse:
        """An answer that came over no wire, made by aiohttp's own constructor and ``start()``, which take what they need from ours."""
        request = self._request
        reason = next((known.phrase for known in HTTPStatus if known == status), "")
        wire = _Wire(request.loop)
        content = aiohttp.StreamReader(wire, len(body) + 1, loop=request.loop)
        if request.method != "HEAD":
            content.feed_data(body)
        content.feed_eof()
        raw = tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers)
        fields = CIMultiDictProxy(CIMultiDict(headers))
        wire.answer = SimpleNamespace(version=aiohttp.HttpVersion11, code=status, reason=reason, headers=fields, raw_headers=raw), content
        given: dict[str, Any] = {
            "writer": None,
            "continue100": None,
            "timer": None,
            "request_info": request.request_info,
            "traces": getattr(request, "_traces", []),
            "loop": request.loop,
            "session": request.session,
            "stream_writer": SimpleNamespace(output_size=0),
        }
        # The constructor is not for us, and its arguments differ from version to version.
        known = inspect.signature(request.response_class.__init__).parameters
        response = request.response_class(
            request.method, request.original_url, **{name: value for name, value in given.items() if name in known}
        )
        connection: Any = _Unconnected(wire)
        return await response.start(connection)


class _Wire(BaseProtocol):
    """The end of a connection that is not there: an answer lies ready, and there is nothing to pause."""

    answer: Any = None
    upgraded = False

    async def read(self) -> Any:
        return self.answer

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's signature
        pass


class _Unconnected:
    """Stands for the connection while the answer starts; released at once, since the body is complete."""

    def __init__(self, wire: _Wire) -> None:
        self.protocol = wire

    def release(self) -> None:
        pass

    close = release


def _timeout_of(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientTimeout:
    """The limits of this request.

    A middleware is not told them. They are in the closure of aiohttp's own handler, at the end of the chain of middlewares; where that
    looks different, the session's are taken.
    """
    while code := getattr(handler, "__code__", None):
        held = dict(zip(code.co_freevars, handler.__closure__ or (), strict=True))
        if "real_timeout" in held:
            timeout: aiohttp.ClientTimeout = held["real_timeout"].cell_contents
            return timeout
        if "next_h" not in held:
            break
        handler = held["next_h"].cell_contents
    return request.session.timeout


def _cut_off(response: aiohttp.ClientResponse, strike: Strike) -> None:
    """Let the body of the answer break off."""
    cut = Cut(strike, events=is_event_stream(response.headers.get("Content-Type")))
    if not cut.breaks and "Content-Length" in response.headers:
        kept = CIMultiDict(response.headers)
        kept.popall("Content-Length")
        # Headers are read-only for users. The cache holds them as they were read just now.
        response._headers = CIMultiDictProxy(kept)  # noqa: SLF001
        response._raw_headers = tuple(pair for pair in response.raw_headers if pair[0].lower() != b"content-length")  # noqa: SLF001
        response._cache.clear()  # noqa: SLF001
    response.content = _CutReader(response, cut)


class _CutReader(aiohttp.StreamReader):
    """Reads from the real stream what is asked for, until the cut.

    Every reading method of a StreamReader takes from its buffer, and calls ``_wait`` while that is empty: the one place to fill it.
    """

    def __init__(self, response: aiohttp.ClientResponse, cut: Cut) -> None:
        loop = asyncio.get_running_loop()
        self._inner = response.content
        self._connection = response.connection
        self._cut = cut
        self._chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        super().__init__(_Wire(loop), self._inner.get_read_buffer_limits()[0], loop=loop)
        if self._chunked:
            self.begin_http_chunk_receiving()

    async def wait_eof(self) -> None:
        """Read on to the end."""
        while not self.is_eof():
            await self._wait("wait_eof")

    async def _wait(self, func_name: str) -> None:  # noqa: ARG002 - aiohttp's signature
        cut, piece, more = self._cut, b"", True
        while more and not piece and not cut.over:
            data, ends = await self._inner.readchunk()
            more = bool(data) or ends
            piece = cut.feed(data, whole=ends or not self._chunked) if more else cut.end()
        if piece:
            self.feed_data(piece)
            if self._chunked:
                self.end_http_chunk_receiving()
        # An error waits until the buffer is read: a StreamReader that has one gives nothing else.
        elif self._connection is not None:
            self._connection.close()
        if not piece and cut.breaks:
            reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            error = cut.strike.mark(aiohttp.ClientPayloadError(f"Response payload is not completed: {reset!r}"))
            self.set_exception(error)
            raise error from reset
        if not piece:
            self.feed_eof()
