"""Protocol faults for httpx: transports that wrap any other transport and raise httpx's own exceptions.

Wrap a transport where the client is made (``httpx.Client(transport=FaultTransport(inner, faults))``), or a client that is there already
(``with install(client, faults)``). Both stand above whatever answers, a mock too, so no mock hides a fault. What a struck request gets
carries a note: exceptions in ``__notes__``, answers in ``response.extensions["somaresil"]``.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

import anyio
import httpx

from somaresil.config import Checker
from somaresil.runtime import run_sync
from somaresil.testing.protocol import Cut, ProtocolFaults, as_bytes, halved_json, has_body, is_event_stream, target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from types import TracebackType

    from somaresil.testing.protocol import Strike

__all__ = ["AsyncFaultTransport", "FaultTransport", "install"]

_FRAMING: Final = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"content-type"))


class FaultTransport(httpx.BaseTransport):
    """Wraps a synchronous transport; waits by the clock of the faults, or ``time.sleep``. Closing it closes ``inner``.

    ``ConfigurationError`` when ``inner`` is no synchronous transport or ``faults`` no :class:`~somaresil.testing.protocol.ProtocolFaults`.
    """

    def __init__(self, inner: httpx.BaseTransport, faults: ProtocolFaults) -> None:
        _check(type(self).__name__, inner, httpx.BaseTransport, faults)
        self.inner = inner
        self.faults = faults
        self.live = True
        """While False every request passes untouched."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Strike the request, or let ``inner`` answer it."""
        if not self.live:
            return self.inner.handle_request(request)
        return run_sync(_handle(_Blocking(self.inner, self.faults), request, self.faults))

    def close(self) -> None:
        """Close ``inner``."""
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)


class AsyncFaultTransport(httpx.AsyncBaseTransport):
    """Wraps an asynchronous transport; waits by the clock of the faults, or ``anyio.sleep``. Closing it closes ``inner``.

    ``ConfigurationError`` when ``inner`` is no asynchronous transport or ``faults`` no :class:`~somaresil.testing.protocol.ProtocolFaults`.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, faults: ProtocolFaults) -> None:
        _check(type(self).__name__, inner, httpx.AsyncBaseTransport, faults)
        self.inner = inner
        self.faults = faults
        self.live = True
        """While False every request passes untouched."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Strike the request, or let ``inner`` answer it."""
        if not self.live:
            return await self.inner.handle_async_request(request)
        return await _handle(_Suspending(self.inner, self.faults), request, self.faults)

    async def aclose(self) -> None:
        """Close ``inner``."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc_value, traceback)


@contextmanager
def install(client: httpx.Client | httpx.AsyncClient, faults: ProtocolFaults) -> Generator[ProtocolFaults]:
    """Wrap the transports of a client while the block runs, those of its mounts too; then put back exactly what was there.

    What somebody else has put in our place meanwhile stays; a wrapper of ours that is left below it lets everything pass from then on.
    """
    check = Checker("install")
    check.type("client", client, (httpx.Client, httpx.AsyncClient), "an httpx.Client or httpx.AsyncClient")
    check.finish()
    # httpx has no public way to the transports of a client; since httpx 0.14 they have had these names.
    main_of, mounts_of = "_transport", "_mounts"
    wrap: Callable[[Any, ProtocolFaults], Any] = FaultTransport if isinstance(client, httpx.Client) else AsyncFaultTransport
    main: Any = wrap(getattr(client, main_of), faults)
    mounted: dict[Any, Any] = getattr(client, mounts_of)
    mounts: dict[Any, Any] = {pattern: wrap(transport, faults) for pattern, transport in mounted.items() if transport is not None}
    setattr(client, main_of, main)
    mounted.update(mounts)
    try:
        yield faults
    finally:
        if getattr(client, main_of) is main:
            setattr(client, main_of, main.inner)
        for pattern, wrapper in mounts.items():
            if mounted[pattern] is wrapper:
                mounted[pattern] = wrapper.inner
        for wrapper in (main, *mounts.values()):
            wrapper.live = False


def _check(name: str, inner: object, kind: type[Any], faults: object) -> None:
    check = Checker(name)
    check.type("inner", inner, kind, f"an httpx.{kind.__name__}")
    check.type("faults", faults, ProtocolFaults, "ProtocolFaults(fault, ...)")
    check.finish()


class _Way(Protocol):
    """How a request goes on: what differs between threads and tasks. Everything else is written once, as in somaresil.runtime."""

    async def send(self, request: httpx.Request) -> httpx.Response: ...
    async def sleep(self, seconds: float) -> None: ...
    async def read(self, response: httpx.Response) -> bytes: ...
    async def close(self, response: httpx.Response) -> None: ...
    def cut(self, stream: Any, cut: Cut, request: httpx.Request) -> httpx.SyncByteStream | httpx.AsyncByteStream: ...


class _Blocking:
    def __init__(self, inner: httpx.BaseTransport, faults: ProtocolFaults) -> None:
        self._inner = inner
        self._sleep = time.sleep if faults.clock is None else faults.clock.sleep

    async def send(self, request: httpx.Request) -> httpx.Response:
        return self._inner.handle_request(request)

    async def sleep(self, seconds: float) -> None:
        self._sleep(seconds)

    async def read(self, response: httpx.Response) -> bytes:
        return response.read()

    async def close(self, response: httpx.Response) -> None:
        response.close()

    def cut(self, stream: Any, cut: Cut, request: httpx.Request) -> httpx.SyncByteStream:
        return _CutStream(stream, cut, request)


class _Suspending:
    def __init__(self, inner: httpx.AsyncBaseTransport, faults: ProtocolFaults) -> None:
        self._inner = inner
        # Not asyncio's: httpx runs on trio too, and a clock of somaresil is only for asyncio.
        self._sleep = anyio.sleep if faults.clock is None else faults.clock.asleep

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self._inner.handle_async_request(request)

    async def sleep(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def read(self, response: httpx.Response) -> bytes:
        return await response.aread()

    async def close(self, response: httpx.Response) -> None:
        # Shielded: a cancelled request must give its connection back all the same.
        with anyio.CancelScope(shield=True):
            await response.aclose()

    def cut(self, stream: Any, cut: Cut, request: httpx.Request) -> httpx.AsyncByteStream:
        return _AsyncCutStream(stream, cut, request)


async def _handle(way: _Way, request: httpx.Request, faults: ProtocolFaults) -> httpx.Response:
    url = request.url
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return await _apply(way, request, faults.decide(request.method, target(url.scheme, url.host, url.port, path)))


async def _apply(way: _Way, request: httpx.Request, strikes: tuple[Strike, ...]) -> httpx.Response:
    """One layer a strike, the first outermost."""
    if not strikes:
        return await way.send(request)
    if strikes[0].fault.passes:
        return await _let_through(way, request, strikes[0], strikes[1:])
    return await _turn_away(way, request, strikes[0])


async def _turn_away(way: _Way, request: httpx.Request, strike: Strike) -> httpx.Response:
    """What needs no peer. The causes are the socket's own errors, as at the end of httpx's chains."""
    fault = strike.fault
    if fault.kind == "connect_refused":
        refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        raise strike.mark(httpx.ConnectError(str(refused), request=request)) from refused
    if fault.kind == "connect_timeout":
        await _run_out(way, request, strike, "connect", httpx.ConnectTimeout)
    if fault.kind == "read_timeout":
        await _run_out(way, request, strike, "read", httpx.ReadTimeout)
    if fault.kind == "reset":
        _reset(request, strike)
    if fault.kind == "malformed_json":
        return _malformed(request, strike, [], as_bytes(fault.body))
    headers, body = fault.reply()
    return _answer(request, strike, fault.status, [(name.encode(), value.encode()) for name, value in headers], body)


async def _let_through(way: _Way, request: httpx.Request, strike: Strike, rest: tuple[Strike, ...]) -> httpx.Response:
    """What lets the request through, before or after the peer has answered."""
    kind = strike.fault.kind
    if kind == "latency":
        await _lag(way, request, strike)
        return await _apply(way, request, rest)
    try:
        response = await _apply(way, request, rest)
    except BaseException:
        strike.miss()
        raise
    try:
        if kind == "lost_reply":
            await _run_out(way, request, strike, "read", httpx.ReadTimeout)
        if kind == "slow_first_byte":
            await _lag(way, request, strike)
            return response
        if not has_body(request.method, response.status_code, response.headers.get("content-length")):
            strike.miss()
            return response
        if kind == "malformed_json":
            body = await way.read(response)
            return _malformed(request, strike, response.headers.raw, body)
    except BaseException:
        await way.close(response)
        raise
    return _cut_off(way, request, strike, response)


async def _run_out(way: _Way, request: httpx.Request, strike: Strike, limit: str, error: type[httpx.TimeoutException]) -> NoReturn:
    """Wait as long as the caller would, and raise what he would get."""
    seconds = _limits(request).get(limit)
    await way.sleep(strike.fault.seconds if seconds is None else seconds)
    raise strike.mark(error("timed out", request=request)) from TimeoutError("timed out")


async def _lag(way: _Way, request: httpx.Request, strike: Strike) -> None:
    """Be late. A caller whose read timeout is shorter does not wait for it."""
    seconds = _limits(request).get("read")
    if seconds is not None and seconds < strike.fault.seconds:
        await _run_out(way, request, strike, "read", httpx.ReadTimeout)
    await way.sleep(strike.fault.seconds)


def _limits(request: httpx.Request) -> dict[str, float | None]:
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    return limits


def _reset(request: httpx.Request, strike: Strike) -> NoReturn:
    reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    raise strike.mark(httpx.ReadError(str(reset), request=request)) from reset


def _malformed(request: httpx.Request, strike: Strike, headers: list[tuple[bytes, bytes]], body: bytes) -> httpx.Response:
    half = halved_json(body)
    kept = [pair for pair in headers if pair[0].lower() not in _FRAMING]
    framing = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(half)).encode())]
    return _answer(request, strike, 200, [*kept, *framing], half)


def _answer(request: httpx.Request, strike: Strike, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> httpx.Response:
    # As a stream, since an answer of the wire is one: with content= it would count as read, and iter_raw() would refuse.
    stream = httpx.ByteStream(b"" if request.method == "HEAD" else body)
    return httpx.Response(status, headers=headers, stream=stream, extensions={"somaresil": strike.note})


def _cut_off(way: _Way, request: httpx.Request, strike: Strike, response: httpx.Response) -> httpx.Response:
    """The same answer with a body that breaks off. A new one: an answer of a mock may hold its body already, past any stream."""
    encoded = "content-encoding" in response.headers
    cut = Cut(strike, events=is_event_stream(response.headers.get("content-type")) and not encoded)
    dropped = set() if cut.breaks else {b"content-length"}
    stream = response.stream
    if response.is_stream_consumed and not isinstance(stream, httpx.ByteStream):
        stream = httpx.ByteStream(response.content)
        dropped.add(b"content-encoding")
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in dropped]
    extensions = {**response.extensions, "somaresil": strike.note}
    return httpx.Response(response.status_code, headers=headers, stream=way.cut(stream, cut, request), extensions=extensions)


class _CutStream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, cut: Cut, request: httpx.Request) -> None:
        self._inner = inner
        self._cut = cut
        self._request = request
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        cut = self._cut
        for chunk in self._inner if not cut.over else ():
            if piece := cut.feed(chunk):
                yield piece
            if cut.over:
                break
        if not cut.over and (piece := cut.end()):
            yield piece
        self.close()
        if cut.breaks:
            _reset(self._request, cut.strike)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._inner.close()


class _AsyncCutStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, cut: Cut, request: httpx.Request) -> None:
        self._inner = inner
        self._cut = cut
        self._request = request
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        cut = self._cut
        if not cut.over:
            chunks = self._inner.__aiter__()
            async for chunk in chunks:
                if piece := cut.feed(chunk):
                    yield piece
                if cut.over:
                    break
            if isinstance(chunks, AsyncGenerator):
                # Left to the garbage collector it would be ended by whatever runs then, and trio would warn.
                await chunks.aclose()
        if not cut.over and (piece := cut.end()):
            yield piece
        await self.aclose()
        if cut.breaks:
            _reset(self._request, cut.strike)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._inner.aclose()
