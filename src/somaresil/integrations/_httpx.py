"""One request of httpx on its way through a guard, written once for both kinds of client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from somaresil.chaos.network.board import BOARD
from somaresil.deadline import HEADER, header_value, time_left
from somaresil.errors import CallTimedOut, Rejected
from somaresil.guard.call import Opened
from somaresil.integrations._baggage import HEADER as HEADER_OF_PLANS
from somaresil.integrations._baggage import joined, own_baggage
from somaresil.integrations._client import AsyncClientCall, ClientCall, Ending, anext_item, as_theirs, blame, next_item
from somaresil.integrations._http import Statuses, has_no_body, is_idempotent, kept_length
from somaresil.integrations._partition import REFUSED, cut_off

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from somaresil.chaos.requests import RequestPlans
    from somaresil.guard import Guard
    from somaresil.outcome import Outcome

__all__ = ["BadStatus", "Blocking", "HttpxExchange", "Suspending", "outgoing"]

_LIMITS: Final = ("connect", "read", "write", "pool")
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""What fails before a byte of the request has left."""


class BadStatus(httpx.HTTPStatusError):
    """An answer with a bad status, or one that is asked for again, inside the guard. Nobody outside ever gets it."""

    def __init__(self, response: httpx.Response, request: httpx.Request) -> None:
        """Say which, and nothing of what may be secret in an address."""
        super().__init__(f"{response.status_code} {response.reason_phrase} from {request.url.host}", request=request, response=response)


class _Way(Protocol):
    """How a request goes on: what differs between threads and tasks. Everything else is written once, as in somaresil.runtime."""

    async def drive(self, guard: Guard, call: Any) -> Opened: ...
    def limit(self, guard: Guard, call: Any) -> float | None: ...
    async def send(self, request: httpx.Request, plan: str | None) -> httpx.Response: ...
    async def read(self, response: httpx.Response) -> bytes: ...
    async def close(self, response: httpx.Response) -> None: ...
    def chunks(self, stream: Any) -> _Chunks | _AsyncChunks: ...
    def body(self, source: Any, ending: Ending) -> httpx.SyncByteStream | httpx.AsyncByteStream: ...


class Blocking:
    """A thread that waits."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    async def drive(self, guard: Guard, call: ClientCall) -> Opened:
        opened: Opened = guard.drive(call)
        return opened

    def limit(self, guard: Guard, call: ClientCall) -> float | None:
        timeout = guard.timeout
        return None if timeout is None or timeout.options.shadow else timeout.first_limit(call)[0]

    async def send(self, request: httpx.Request, plan: str | None) -> httpx.Response:
        with own_baggage(plan):
            return self._inner.handle_request(request)

    async def read(self, response: httpx.Response) -> bytes:
        stream = _sync(response.stream)
        try:
            return b"".join(stream)
        finally:
            stream.close()

    async def close(self, response: httpx.Response) -> None:
        response.close()

    def chunks(self, stream: Any) -> _Chunks:
        return _Chunks(stream)

    def body(self, source: Any, ending: Ending) -> httpx.SyncByteStream:
        return _Body(source, ending)


class Suspending:
    """A task that waits."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def drive(self, guard: Guard, call: AsyncClientCall) -> Opened:
        opened: Opened = await guard.adrive(call)
        return opened

    def limit(self, guard: Guard, call: AsyncClientCall) -> float | None:  # noqa: ARG002 - the guard interrupts by itself
        return None

    async def send(self, request: httpx.Request, plan: str | None) -> httpx.Response:
        with own_baggage(plan):
            return await self._inner.handle_async_request(request)

    async def read(self, response: httpx.Response) -> bytes:
        stream = _async(response.stream)
        try:
            return b"".join([chunk async for chunk in stream])
        finally:
            await stream.aclose()

    async def close(self, response: httpx.Response) -> None:
        await response.aclose()

    def chunks(self, stream: Any) -> _AsyncChunks:
        return _AsyncChunks(stream)

    def body(self, source: Any, ending: Ending) -> httpx.AsyncByteStream:
        return _AsyncBody(source, ending)


def _sync(stream: object) -> httpx.SyncByteStream:
    # httpx says of an answer only that it has one of the two.
    return stream  # type: ignore[return-value]


def _async(stream: object) -> httpx.AsyncByteStream:
    return stream  # type: ignore[return-value]


class HttpxExchange:
    """One request."""

    __slots__ = ("_guard", "_kept", "_open", "_plans", "_statuses", "_unsent", "_way", "call", "request")
    call: Any

    def __init__(self, way: _Way, guard: Guard, request: httpx.Request, statuses: Statuses, plans: RequestPlans) -> None:
        self.request = request
        self._plans = plans
        self._way = way
        self._guard = guard
        self._statuses = statuses
        self._kept: httpx.Response | None = None
        """The answer of the last attempt, when it may have to be asked for again."""
        self._open: list[httpx.Response] = []
        """Such answers that may not be closed yet. Attempts that are made at once are copies of this, and share it."""
        self._unsent = False

    async def through(self, call: ClientCall | AsyncClientCall) -> httpx.Response:
        """Take it through the guard."""
        answer: httpx.Response | None = None
        ours: Rejected | CallTimedOut
        try:
            opened = await self._way.drive(self._guard, call)
            answer = opened.first
        except BadStatus as bad:
            answer = bad.response
            return answer
        except (Rejected, CallTimedOut) as error:
            if error.guard != self._guard.name:
                raise
            ours = error
        else:
            return self._watched(opened, Ending(self._guard, call, call.judge(answer, None)))
        finally:
            for response in self._open:
                if response is not answer:
                    await self._way.close(response)
        theirs = httpx.TimeoutException if isinstance(ours, CallTimedOut) else httpx.TransportError
        try:
            raise as_theirs(ours, theirs, _request=None)
        finally:
            del ours

    def send(self, request: httpx.Request) -> object:
        """Stands for :meth:`attempt` where a guard shows what it calls."""
        raise NotImplementedError

    async def attempt(self) -> Opened:
        """Send it once."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await self._way.close(kept)
        self._unsent = False
        try:
            request, *rest = outgoing(self.request, self._way.limit(self._guard, self.call), self._plans)
            if BOARD.cuts:
                await self._cross(request)
            response = await self._way.send(request, *rest)
        except _NEVER_SENT:
            self._unsent = True
            raise
        return await self._judged(response)

    async def answered(self, status: int, headers: list[tuple[str, str]], body: bytes) -> Opened:
        """What an experiment answers in place of the server: it is judged, and tried again, as if the server had."""
        return await self._judged(httpx.Response(status, headers=headers, stream=httpx.ByteStream(body)))

    async def _judged(self, response: httpx.Response) -> Opened:
        # As the client does a little later: whoever judges the answer may ask.
        response.request = self.request
        status = response.status_code
        again = status in self._statuses.retry and self.call.may_come_again()
        if again or (status in self._statuses.bad and self._guard.fallback is not None):
            self._kept = response
            self._open.append(response)
            if again and kept_length(response.headers.get("Content-Length")):
                response.stream = httpx.ByteStream(await self._way.read(response))
            raise BadStatus(response, self.request)
        return Opened(self._way.chunks(response.stream), response)

    async def _cross(self, request: httpx.Request) -> None:
        """Fail in httpx's own words when an experiment has cut its host off."""
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        told = await cut_off(url.host, port, self.call, request.extensions.get("timeout", {}).get("connect"))
        if told == REFUSED:
            raise httpx.ConnectError("[Errno 111] Connection refused", request=request)
        if told is not None:
            raise httpx.ConnectTimeout("timed out", request=request)

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """A bad status is an answer."""
        return (error.response, None) if isinstance(error, BadStatus) else (answer, error)

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:
        """The status decides; errors are bad as usual."""
        if isinstance(error, httpx.TimeoutException):
            return blame(self.call)
        return self._statuses.verdict(answer.status_code) if error is None and isinstance(answer, httpx.Response) else None

    def can_be_sent_again(self, *, at_once: bool) -> bool:
        """Whether its body is still there after it was sent: not one that is produced on the way, nor a file that is being read."""
        stream = self.request.stream
        return isinstance(stream, httpx.ByteStream) or (not at_once and _rewinds(stream))

    def is_idempotent(self) -> bool:
        """By method or key; what was never sent has done nothing at all."""
        return self._unsent or is_idempotent(self.request.method, self.request.headers)

    def _watched(self, opened: Opened, ending: Ending) -> httpx.Response:
        """The answer, with the call lasting as long as it is read."""
        answer: httpx.Response | None = opened.first
        if answer is None:
            # A truncation of nothing: the connection ended before the answer began.
            lost = httpx.RemoteProtocolError("Server disconnected without sending a response.", request=self.request)
            ending.failed(lost)
            raise lost
        struck = not opened.ended and not isinstance(opened.source, _Chunks | _AsyncChunks)
        if answer.is_closed and struck:
            # The answer of a mock has its body already, past any stream.
            answer = httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream, extensions=answer.extensions)
        if opened.ended or answer.is_closed or has_no_body(self.request.method, answer.status_code, answer.headers.get("Content-Length")):
            ending.complete()
        else:
            answer.stream = self._way.body(opened.source, ending)
        return answer


def outgoing(request: httpx.Request, limit: float | None, plans: RequestPlans) -> tuple[httpx.Request, str | None]:
    """What is sent, and the request plan that goes along.

    It is the request itself, or one that says how much time is left, waits no longer than that, and tells of no plan to whom it must not.
    """
    left = time_left()
    limits = [seconds for seconds in (left, limit) if seconds is not None]
    header = joined(request.headers.get_list(HEADER_OF_PLANS))
    leaving = plans.outgoing(request.url.host, header)
    if not limits and leaving.header == header:
        return request, leaving.plan
    extensions = dict(request.extensions)
    if limits:
        asked: dict[str, float | None] = request.extensions.get("timeout", {})
        extensions["timeout"] = {what: min(limits) if asked.get(what) is None else min(asked[what] or 0.0, *limits) for what in _LIMITS}
    # A copy: what the caller holds, and what redirects are made of, says nothing of it.
    copied = httpx.Request(request.method, request.url, headers=request.headers, stream=request.stream, extensions=extensions)
    if isinstance(request.stream, httpx.ByteStream):
        # As it was made: transports for tests look at the content.
        copied.read()
    told = header_value()
    if told is not None:
        copied.headers.setdefault(HEADER, told)
    if leaving.header is None:
        copied.headers.pop(HEADER_OF_PLANS, None)
    elif leaving.header != header:
        copied.headers[HEADER_OF_PLANS] = leaving.header
    return copied, leaving.plan


def _rewinds(stream: object) -> bool:
    """Whether a body is a form, all of whose files can be read anew: httpx rewinds them by itself."""
    parts = getattr(stream, "fields", None)
    files: list[Any] = [getattr(part, "file", b"") for part in parts] if isinstance(parts, list) else [None]
    return all(isinstance(file, str | bytes) or (hasattr(file, "seekable") and file.seekable()) for file in files)


class _Chunks:
    """The body of an answer as a source that can be closed."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream
        self._chunks: Iterator[bytes] | None = None

    def __next__(self) -> bytes:
        if self._chunks is None:
            self._chunks = iter(self._stream)
        return next(self._chunks)

    def close(self) -> None:
        self._stream.close()


class _AsyncChunks:
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks: AsyncIterator[bytes] | None = None

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._stream.__aiter__()
        return await self._chunks.__anext__()

    async def aclose(self) -> None:
        try:
            close = getattr(self._chunks, "aclose", None)
            if close is not None:
                # Left to the garbage collector it would be ended by whatever runs then.
                await close()
        finally:
            await self._stream.aclose()


class _Body(httpx.SyncByteStream):
    """A body whose end is the end of a call."""

    def __init__(self, source: Any, ending: Ending) -> None:
        self._source = source
        self._ending = ending

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk: bytes = next_item(self._source, self._ending)
        return chunk

    def close(self) -> None:
        try:
            self._source.close()
        finally:
            self._ending.left()


class _AsyncBody(httpx.AsyncByteStream):
    """As :class:`_Body`; a limit that runs out breaks it off."""

    def __init__(self, source: Any, ending: Ending) -> None:
        self._source = source
        self._ending = ending

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await anext_item(self._source, self._ending)
        except CallTimedOut as late:
            if late.guard == self._ending.guard.name:
                raise as_theirs(late, httpx.TimeoutException, _request=None) from late.__cause__
            raise
        return chunk

    async def aclose(self) -> None:
        try:
            await self._source.aclose()
        finally:
            self._ending.left()
