"""The interceptors of ``grpc.aio``: what :mod:`somaresil.integrations.grpc` says, for the asynchronous API."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import grpc

from somaresil.errors import CallTimedOut
from somaresil.guard.call import Opened
from somaresil.integrations._client import AsyncClientCall, Ending, anext_item
from somaresil.integrations._grpc import AioRefused, Desk, Ended, Rpc, guard_limit, refused, timeout_of
from somaresil.runtime import run_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from somaresil.guard import Guard

__all__ = ["AioStreamStream", "AioStreamUnary", "AioUnaryStream", "AioUnaryUnary"]


class AioUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """One message for another."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Send it through its guard."""
        guard, continuation = self._desk.guard(client_call_details), self._desk.asending(continuation)
        if guard is None:
            return await continuation(_details(client_call_details), request)

        async def begin(rpc: Rpc) -> Opened:
            details = _details(client_call_details)
            await _cross(self._desk, rpc, details)
            rpc.last = made = await continuation(details, request)
            try:
                ended = Ended(made, await made, None)
            except grpc.RpcError as error:
                rpc.weigh(error)
                ended = Ended(made, None, error)
            return Opened(None, ended, ended=True)

        rpc = Rpc(begin, guard, self._desk.codes, whole=True)
        call = AsyncClientCall(guard, rpc, request)
        opened = await _driven(guard, rpc, call)
        Ending(guard, call, call.judge(opened.first, None)).complete()
        return opened.first.rpc if isinstance(opened.first, Ended) else _Given(opened.first)


class AioStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    """Many messages for one."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def intercept_stream_unary(self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any) -> Any:
        """Send it through its guard."""
        guard, continuation = self._desk.guard(client_call_details), self._desk.asending(continuation)
        if guard is None:
            return await continuation(_details(client_call_details), request_iterator)

        async def begin(rpc: Rpc) -> Opened:
            # Nobody can wait for it here: the caller writes its messages when he has it.
            details = _details(client_call_details, guard_limit(guard, rpc.call, stream=False))
            await _cross(self._desk, rpc, details)
            rpc.last = made = await continuation(details, request_iterator)
            return Opened(None, made, ended=True)

        rpc = Rpc(begin, guard, self._desk.codes, whole=False)
        call = AsyncClientCall(guard, rpc, request_iterator)
        opened = await _driven(guard, rpc, call)
        pending = opened.first is rpc.last and rpc.last is not None
        ending = Ending(guard, call, call.judge(None if pending else opened.first, None))
        if not pending:
            ending.complete()
            return _Given(opened.first)
        _watch(opened.first, ending)
        return opened.first


class AioUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    """One message for many."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Send it through its guard."""
        return await _many(self._desk, continuation, client_call_details, request, whole=True)


class AioStreamStream(grpc.aio.StreamStreamClientInterceptor):
    """Many messages for many."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def intercept_stream_stream(self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any) -> Any:
        """Send it through its guard."""
        return await _many(self._desk, continuation, client_call_details, request_iterator, whole=False)


async def _many(desk: Desk, continuation: Callable[..., Any], details: Any, request: Any, *, whole: bool) -> Any:
    guard, continuation = desk.guard(details), desk.asending(continuation)
    if guard is None:
        return await continuation(_details(details), request)

    async def begin(rpc: Rpc) -> Opened:
        told = _details(details)
        await _cross(desk, rpc, told)
        rpc.last = made = await continuation(told, request)
        source = _Source(made)
        if rpc.eager or (whole and guard.timeout is not None):
            # By the task of the interceptor, which keeps nobody waiting.
            error = await source.look()
            if error is not None:
                rpc.weigh(error)
        return Opened(source, made)

    rpc = Rpc(begin, guard, desk.codes, whole=whole)
    call = AsyncClientCall(guard, rpc, request)
    opened = await _driven(guard, rpc, call)
    ending = Ending(guard, call, call.judge(None, None))
    if opened.ended:
        ending.complete()
        # A fallback has answered, or an experiment has truncated everything.
        return _Given(opened.first or ())
    _watch(opened.first, ending)
    return _Stream(opened.source, ending)


async def _cross(desk: Desk, rpc: Rpc, details: Any) -> None:
    """Fail as gRPC does when an experiment has cut its service off."""
    cut = await desk.cross(rpc.call, details.timeout, patient=bool(details.wait_for_ready))
    if cut is not None:
        error = grpc.aio.AioRpcError(cut[0], grpc.aio.Metadata(), grpc.aio.Metadata(), details=cut[1])
        rpc.weigh(error)
        rpc.final()
        raise error


async def _driven(guard: Guard, rpc: Rpc, call: AsyncClientCall) -> Opened:
    try:
        opened: Opened = await guard.adrive(call)
    except Exception as error:
        if not rpc.ours(error):
            raise
        ours: Any = error
    else:
        return opened
    try:
        raise refused(ours, AioRefused)
    finally:
        del ours


def _details(given: Any, *limits: float | None) -> Any:
    return grpc.aio.ClientCallDetails(
        given.method, timeout_of(given.timeout, *limits), given.metadata, given.credentials, given.wait_for_ready
    )


def _watch(made: Any, ending: Ending) -> None:
    """End the call when the RPC ends. Until then gRPC itself holds on to it, also when it is forgotten."""
    context = contextvars.copy_context()

    def over(made: Any) -> None:
        context.run(_over, ending, made)

    made.add_done_callback(over)


def _over(ending: Ending, made: Any) -> None:
    if ending.reading:
        return
    if made.cancelled():
        ending.left()
        return
    try:
        # It is over, so these do not suspend.
        code = run_sync(made.code())
        error = (
            None
            if code is grpc.StatusCode.OK
            else grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), run_sync(made.details()))
        )
    except RuntimeError as unknown:
        error = unknown
    if error is None:
        ending.complete()
    else:
        ending.failed(error)


_aio: Any = grpc.aio
"""Its calls are generic to the type checkers that know them, and not at run time."""


class _Given(_aio.UnaryUnaryCall, _aio.UnaryStreamCall, _aio.StreamUnaryCall, _aio.StreamStreamCall):
    """What a fallback gives, a message or several, as an RPC that went well."""

    _done_writing_flag = True

    def __init__(self, given: Any) -> None:
        self._given = given
        self._messages: AsyncIterator[Any] | None = None

    def __await__(self) -> Any:
        return self._given
        yield  # what makes it a generator, as gRPC asks for

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._each()
        return self._messages

    async def _each(self) -> AsyncIterator[Any]:
        if hasattr(self._given, "__aiter__"):
            async for message in self._given:
                yield message
        else:
            for message in self._given:
                yield message

    async def read(self) -> Any:
        return await anext(self.__aiter__(), _aio.EOF)

    async def write(self, request: Any) -> None:
        """Nobody reads it."""

    async def done_writing(self) -> None:
        """Nobody waits for it."""

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def time_remaining(self) -> Any:
        return None

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        callback(self)

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def code(self) -> Any:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def debug_error_string(self) -> str:
        return ""

    async def wait_for_connection(self) -> None:
        """It is over."""


class _Source:
    """As :class:`_Source`."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._messages: Any = None
        self._seen: list[tuple[Any, BaseException | None]] = []

    async def look(self) -> BaseException | None:
        try:
            self._seen.append((await self._next(), None))
        except StopAsyncIteration as stop:
            self._seen.append((None, stop))
        except grpc.RpcError as error:
            failed: BaseException = error
            self._seen.append((None, failed))
            return failed
        return None

    async def _next(self) -> Any:
        if self._messages is None:
            self._messages = self._made.__aiter__()
        return await self._messages.__anext__()

    async def __anext__(self) -> Any:
        if not self._seen:
            return await self._next()
        message, error = self._seen.pop()
        if error is not None:
            raise error
        return message

    async def aclose(self) -> None:
        self._made.cancel()


class _Stream:
    """The messages of a stream, by way of the guard."""

    def __init__(self, source: Any, ending: Ending) -> None:
        self._source = source
        self._ending = ending

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext_item(self._source, self._ending)
        except CallTimedOut as error:
            if error.guard != self._ending.guard.name:
                raise
            late = error
        await self._source.aclose()
        try:
            raise refused(late, AioRefused) from late.__cause__
        finally:
            del late
