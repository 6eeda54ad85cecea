"""gRPC: guard every RPC of a channel by client interceptors. Each service has a guard of its own, with its own breaker.

    channel = guard_channel(grpc.insecure_channel(target), resilience, timeout=2.0, breaker=True)
    channel = grpc.aio.insecure_channel(target, interceptors=aio_interceptors(resilience, timeout=2.0, breaker=True))

The errors of gRPC stay what they are. What is ours is gRPC's as well: a refusal is a :class:`~somaresil.errors.Rejected` and a
``grpc.RpcError`` (``grpc.aio.AioRpcError``), with ``code()`` UNAVAILABLE for an open circuit, RESOURCE_EXHAUSTED for a limit and
DEADLINE_EXCEEDED for a deadline; a time-out of the guard is a :class:`~somaresil.errors.CallTimedOut` with DEADLINE_EXCEEDED.

How an RPC counts: bad with one of ``bad_codes`` (UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNKNOWN, DATA_LOSS,
ABORTED), abandoned with CANCELLED, good with any other. A stream lasts until its last message, a future until it is done; permits are held
until then.

Only an RPC whose guard was told that it is ``idempotent`` is made again, for no RPC says so by itself, when its request is one message and
it ended with one of ``retry_codes`` (UNAVAILABLE, RESOURCE_EXHAUSTED); a stream only before its first message, for which the interceptor
then waits. ``idempotent`` may be a function of the request message.

The native timeout of an RPC is the shortest of what the caller asks for, what is left of the deadline of the request, and, for blocking
stubs, the guard's own: a thread that waits for gRPC cannot be interrupted.
"""

from __future__ import annotations

import contextvars
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import wrapt

from somaresil.guard.call import Opened
from somaresil.integrations._client import ClientCall, Ending, next_item
from somaresil.integrations._grpc import (
    BAD_CODES,
    RETRY_CODES,
    Answer,
    Desk,
    Ended,
    Lost,
    Refused,
    Rpc,
    guard_limit,
    refused,
    timeout_of,
)
from somaresil.integrations._grpc_aio import AioStreamStream, AioStreamUnary, AioUnaryStream, AioUnaryUnary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from somaresil.guard import Guard
    from somaresil.resilience import Resilience

__all__ = ["GuardInterceptor", "aio_interceptors", "guard_channel"]

NAME: Final = "grpc.{service}"
"""The usual name of a guard."""
MOST_GUARDS: Final = 64
"""How many guards a channel makes, as a rule."""


def guard_channel(
    channel: grpc.Channel,
    resilience: Resilience,
    *,
    name: str | Callable[[Any], str | None] = NAME,
    bad_codes: Collection[Any] = BAD_CODES,
    retry_codes: Collection[Any] = RETRY_CODES,
    most_guards: int = MOST_GUARDS,
    host: str | None = None,
    target: str | None = None,
    **options: Any,
) -> grpc.Channel:
    """The channel with every RPC guarded; for channels of ``grpc.aio`` see :func:`aio_interceptors`.

    ``name`` is the name of the guard: a template (``{service}``, ``{method}``), or a function of gRPC's call details, whose None lets the
    RPC pass unguarded. The guard of a name is made with ``options``, those of :meth:`Resilience.guard`; one that exists is used as it is.
    After ``most_guards`` the rest share one, ``grpc.other`` for the usual template. ``host`` says where the channel leads, which gRPC does
    not tell: to a host that may have request plans they go along; None: they never do. ``target`` is what the channel was made with
    (``host:port``): partitions of the network are met by it, for gRPC connects past all hooks of Python. None: the channel is asked.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    given: dict[str, Any] = {"bad_codes": bad_codes, "retry_codes": retry_codes, "most_guards": most_guards, "host": host, **options}
    interceptor = GuardInterceptor(resilience, name=name, target=_target_of(channel) if target is None else target, **given)
    return grpc.intercept_channel(channel, interceptor)


def aio_interceptors(
    resilience: Resilience,
    *,
    name: str | Callable[[Any], str | None] = NAME,
    bad_codes: Collection[Any] = BAD_CODES,
    retry_codes: Collection[Any] = RETRY_CODES,
    most_guards: int = MOST_GUARDS,
    host: str | None = None,
    target: str | None = None,
    **options: Any,
) -> list[grpc.aio.ClientInterceptor]:
    """The ``interceptors=`` of a channel of ``grpc.aio``, one for each kind of RPC.

    The options are those of :func:`guard_channel`; partitions of the network are met only when ``target`` is given.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    desk = Desk("aio_interceptors", resilience, name, bad_codes, retry_codes, most_guards, options, host=host, suspends=True, target=target)
    return [AioUnaryUnary(desk), AioUnaryStream(desk), AioStreamUnary(desk), AioStreamStream(desk)]


def _target_of(channel: Any) -> str | None:
    """What a channel was made with, as far as it says."""
    try:
        target = channel._channel.target()  # noqa: SLF001 - nothing public says it; without it partitions are met below
        return target.decode() if isinstance(target, bytes) else str(target)
    except Exception:  # noqa: BLE001 - a channel of another kind
        return None


class _Details(NamedTuple):
    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _CallDetails(_Details, grpc.ClientCallDetails):
    """What an interceptor says about an RPC."""


def _details(given: Any, *limits: float | None) -> Any:
    """The details of an RPC with the timeout that it has."""
    known = {field: getattr(given, field, None) for field in _Details._fields}
    return _CallDetails(**{**known, "timeout": timeout_of(known["timeout"], *limits)})


class GuardInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Guards blocking stubs and their futures. The options are those of :func:`guard_channel`, which is the short way to it."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        name: str | Callable[[Any], str | None] = NAME,
        bad_codes: Collection[Any] = BAD_CODES,
        retry_codes: Collection[Any] = RETRY_CODES,
        most_guards: int = MOST_GUARDS,
        host: str | None = None,
        target: str | None = None,
        **options: Any,
    ) -> None:
        self._desk = Desk(
            "GuardInterceptor", resilience, name, bad_codes, retry_codes, most_guards, options, host=host, suspends=False, target=target
        )

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """One message for another."""
        return self._one(continuation, client_call_details, request, whole=True)

    def intercept_stream_unary(self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any) -> Any:
        """Many messages for one."""
        return self._one(continuation, client_call_details, request_iterator, whole=False)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """One message for many."""
        return self._many(continuation, client_call_details, request, whole=True)

    def intercept_stream_stream(self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any) -> Any:
        """Many messages for many."""
        return self._many(continuation, client_call_details, request_iterator, whole=False)

    def _one(self, continuation: Callable[..., Any], details: Any, request: Any, *, whole: bool) -> Any:
        guard, continuation = self._desk.guard(details), self._desk.sending(continuation)
        if guard is None:
            return continuation(_details(details), request)

        async def begin(rpc: Rpc) -> Opened:
            told = _details(details, guard_limit(guard, rpc.call, stream=False))
            cut = await self._desk.cross(rpc.call, told.timeout, patient=bool(told.wait_for_ready))
            rpc.last = made = continuation(told, request) if cut is None else Lost(*cut)
            if not made.done():
                # The caller asked for a future.
                return Opened(None, made, ended=True)
            error = None if made.cancelled() else made.exception()
            if error is not None:
                rpc.weigh(error)
            response = None if error is not None or made.cancelled() else made.result()
            return Opened(None, Ended(made, response, error), ended=True)

        rpc = Rpc(begin, guard, self._desk.codes, whole=whole)
        call = ClientCall(guard, rpc, request)
        opened = _driven(guard, rpc, call)
        if opened is None:
            return rpc.last
        pending = opened.first is rpc.last and rpc.last is not None
        ending = Ending(guard, call, call.judge(None if pending else opened.first, None))
        if pending:
            rpc.last = None
            _watch(opened.first, ending)
            return opened.first
        ending.complete()
        return opened.first.rpc if isinstance(opened.first, Ended) else Answer(opened.first)

    def _many(self, continuation: Callable[..., Any], details: Any, request: Any, *, whole: bool) -> Any:
        guard, continuation = self._desk.guard(details), self._desk.sending(continuation)
        if guard is None:
            return continuation(_details(details), request)

        async def begin(rpc: Rpc) -> Opened:
            told = _details(details, guard_limit(guard, rpc.call, stream=True))
            cut = await self._desk.cross(rpc.call, told.timeout, patient=bool(told.wait_for_ready))
            rpc.last = made = continuation(told, request) if cut is None else Lost(*cut)
            source = _Source(made)
            error = source.look() if rpc.eager else None
            if error is not None:
                rpc.weigh(error)
            return Opened(source, made)

        rpc = Rpc(begin, guard, self._desk.codes, whole=whole)
        call = ClientCall(guard, rpc, request)
        opened = _driven(guard, rpc, call)
        if opened is None:
            return rpc.last
        ending = Ending(guard, call, call.judge(None, None))
        if opened.ended:
            ending.complete()
            # A fallback has answered, or an experiment has truncated everything.
            return iter(opened.first or ())
        # What is left of the call must not keep gRPC's object alive: whoever forgets that cancels the stream.
        rpc.last = None
        _watch(opened.first, ending)
        return _Stream(opened.first, opened.source, ending)


def _driven(guard: Guard, rpc: Rpc, call: ClientCall) -> Opened | None:
    """Take an RPC through its guard; None: it ended with an error of gRPC, which stands in ``rpc.last``."""
    try:
        opened: Opened = guard.drive(call)
    except Exception as error:
        if rpc.last is not None and isinstance(error, grpc.RpcError) and _is_of(error, rpc.last):
            return None
        if not rpc.ours(error):
            raise
        ours: Any = error
    else:
        return opened
    try:
        raise refused(ours, Refused)
    finally:
        del ours


def _is_of(error: BaseException, made: Any) -> bool:
    return error is made or (made.done() and not made.cancelled() and made.exception() is error)


def _watch(made: Any, ending: Ending) -> None:
    """End the call when the RPC ends, whoever has it by then."""
    # Not by the RPC itself: whoever forgets it cancels it, and a reference of ours would keep him from that.
    context, reference = contextvars.copy_context(), weakref.ref(made)

    def over() -> None:
        context.run(_over, reference, ending)

    if not made.add_callback(over):
        over()


def _over(reference: Callable[[], Any], ending: Ending) -> None:
    if ending.reading:
        return
    made = reference()
    if made is None or made.cancelled():
        ending.left()
        return
    error = made.exception()
    if error is None:
        ending.complete()
    else:
        ending.failed(error)


class _Source:
    """The messages of a stream, of which the first may have been looked at already."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._seen: list[tuple[Any, BaseException | None]] = []

    def look(self) -> BaseException | None:
        """Wait for the first message; gives the error that came in its place."""
        try:
            self._seen.append((next(self._made), None))
        except StopIteration as stop:
            self._seen.append((None, stop))
        except grpc.RpcError as error:
            failed: BaseException = error
            self._seen.append((None, failed))
            return failed
        return None

    def __next__(self) -> Any:
        if not self._seen:
            return next(self._made)
        message, error = self._seen.pop()
        if error is not None:
            raise error
        return message

    def close(self) -> None:
        self._made.cancel()


_Proxy: Any = wrapt.ObjectProxy


class _Stream(_Proxy):
    """gRPC's own object for a stream, whose messages come by way of the guard."""

    def __init__(self, made: Any, source: Any, ending: Ending) -> None:
        super().__init__(made)
        self._self_source = source
        self._self_ending = ending

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next_item(self._self_source, self._self_ending)

    def next(self) -> Any:
        """As gRPC's streams have it."""
        return self.__next__()
