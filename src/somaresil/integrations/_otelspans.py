"""Spans of guarded calls, and what the framework knows on the spans of requests. See :mod:`somaresil.integrations.opentelemetry`."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from somaresil._version import __version__
from somaresil.config import Checker
from somaresil.eventtext import harmless
from somaresil.guard.shape import Shape, check_decoratable, shape_of
from somaresil.integrations._baggage import own_baggage
from somaresil.listeners import Listeners
from somaresil.templates import UNMATCHED, route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, MutableMapping
    from types import TracebackType

    from opentelemetry.trace import Span, TracerProvider

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["CallSpan", "ServerSpans", "call_span"]

_F = TypeVar("_F")
_SERVER_ERROR: Final = 500


class CallSpan:
    """One span for each call. See :func:`call_span`, which makes it."""

    def __init__(self, guard: str, *, kind: Literal["client", "internal", "producer"], tracer_provider: TracerProvider | None) -> None:
        """Import OpenTelemetry; begin no span."""
        check = Checker("call_span")
        check.name("guard", guard)
        check.one_of("kind", kind, ("client", "internal", "producer"))
        if tracer_provider is not None and not callable(getattr(tracer_provider, "get_tracer", None)):
            check.problem("tracer_provider", tracer_provider, "a TracerProvider of OpenTelemetry, or None for the global one")
        check.finish()
        from opentelemetry.trace import SpanKind, StatusCode, get_tracer, use_span

        self._guard = guard
        self._tracer = get_tracer("somaresil", __version__, tracer_provider)
        self._kind = SpanKind[kind.upper()]
        self._error = StatusCode.ERROR
        self._use_span = use_span
        self._entered: Any = None

    # -- as a decorator -----------------------------------------------------------------------------------------------------------------

    def __call__(self, function: _F) -> _F:
        """``function``, of the same kind, in a span of its own each time; a stream has one from its first item to its last.

        Raises :class:`~somaresil.errors.ConfigurationError` for what is no function.
        """
        if isinstance(function, classmethod | staticmethod):
            method: Any = type(function)(self(function.__func__))
            wrapped: _F = method
            return wrapped
        check_decoratable(self._guard, function)
        target: Any = function
        wrapper: Any = _WRAPPERS[shape_of(target)](self, target)
        made: _F = wrapper
        return made

    # -- as a block ---------------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Span:
        """Begin the span, and make it the current one. One object is for one block at a time: make it where it is used."""
        if self._entered is not None:
            raise RuntimeError(f'call_span("{self._guard}") is in use: make one for each block')
        self._entered = self._current()
        span: Span = self._entered.__enter__()
        return span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it."""
        entered, self._entered = self._entered, None
        entered.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Span:
        """As ``with``."""
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """As ``with``."""
        self.__exit__(kind, error, traceback)

    # -- spans --------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _current(self) -> Generator[Span]:
        span = self.start()
        try:
            with self.step(span):
                yield span
        finally:
            span.end()

    def start(self) -> Span:
        """Begin a span. It is not the current one."""
        return self._tracer.start_span(self._guard, kind=self._kind, attributes={"somaresil.guard": self._guard})

    @contextmanager
    def step(self, span: Span) -> Generator[None]:
        """Make it the current one for a while, and note what is raised meanwhile: its type, never its message."""
        with self._use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except (StopIteration, StopAsyncIteration):
                raise
            except Exception as error:
                self.failed(span, error)
                raise
            except BaseException:
                self.left(span)
                raise

    def failed(self, span: Span, error: Exception) -> None:
        """It ended with this error."""
        if span.is_recording():
            span.set_attribute("error.type", type_of(error))
            span.set_status(self._error)

    def left(self, span: Span) -> None:
        """Its caller went away: nobody has failed."""
        if span.is_recording():
            span.set_attribute("somaresil.outcome", "abandoned")


def call_span(
    guard: str, *, kind: Literal["client", "internal", "producer"] = "client", tracer_provider: TracerProvider | None = None
) -> CallSpan:
    """Make a span for each call of a guarded function, above the decorator of the guard, or for a block.

    ``with call_span("llm.invoke"):`` is the latter. It is called as ``guard``, and lasts as long as the caller waits: over all attempts,
    pauses and fallbacks. What clients are instrumented with makes its children. With
    :func:`~somaresil.integrations.opentelemetry.span_events` it has the events, and ``somaresil.outcome`` unless the call ended well. An
    error that reaches the caller sets the status and ``error.type``.

    ``kind`` is ``client`` for a dependency elsewhere, ``internal`` for one in this process, ``producer`` for a queue. Without an SDK it
    costs a span that does nothing. Raises :class:`~somaresil.errors.ConfigurationError` for a wrong argument, ``ImportError`` when
    ``opentelemetry-api`` is not installed.
    """
    return CallSpan(guard, kind=kind, tracer_provider=tracer_provider)


def type_of(error: BaseException) -> str:
    """The type of an error as ``error.type`` has it: the name of its class, with its module unless it is built in. Short and harmless."""
    kind = type(error)
    return harmless(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


# -- wrappers, one for each way of being called -----------------------------------------------------------------------------------------


def _function(spans: CallSpan, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        span = spans.start()
        try:
            with spans.step(span):
                return function(*args, **kwargs)
        finally:
            span.end()

    return traced


def _coroutine(spans: CallSpan, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        span = spans.start()
        try:
            with spans.step(span):
                return await function(*args, **kwargs)
        finally:
            span.end()

    return traced


def _generator(spans: CallSpan, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        span = spans.start()
        source = function(*args, **kwargs)
        advance: Callable[[], Any] = functools.partial(next, source)
        try:
            while True:
                # Only while it works: between two items whoever reads it has a span of his own.
                try:
                    with spans.step(span):
                        item = advance()
                except StopIteration as stop:
                    return stop.value
                try:
                    sent = yield item
                    advance = functools.partial(source.send, sent)
                except GeneratorExit:
                    spans.left(span)
                    raise
                except BaseException as thrown:  # noqa: BLE001 - as PEP 380 has it
                    advance = functools.partial(source.throw, thrown)
        finally:
            with spans.step(span):
                source.close()
            span.end()

    return traced


def _async_generator(spans: CallSpan, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        span = spans.start()
        source = function(*args, **kwargs)
        advance: Callable[[], Any] = source.__anext__
        try:
            while True:
                try:
                    with spans.step(span):
                        item = await advance()
                except StopAsyncIteration:
                    return
                try:
                    sent = yield item
                    advance = functools.partial(source.asend, sent)
                except GeneratorExit:
                    spans.left(span)
                    raise
                except BaseException as thrown:  # noqa: BLE001 - as above
                    advance = functools.partial(source.athrow, thrown)
        finally:
            with spans.step(span):
                await source.aclose()
            span.end()

    return traced


_WRAPPERS: Final = {
    Shape.FUNCTION: _function,
    Shape.COROUTINE: _coroutine,
    Shape.GENERATOR: _generator,
    Shape.ASYNC_GENERATOR: _async_generator,
}


# -- requests ---------------------------------------------------------------------------------------------------------------------------


class ServerSpans:
    """Pure ASGI: says on the current span of a request which route took it, and that it failed. Makes no span.

    Mount it inside of what makes the span (``OpenTelemetryMiddleware``, an instrumentor). ``http.route`` is what the framework has matched,
    as in our metrics, and the span is called ``GET /v1/items/{id}`` then, as the semantic conventions have it; a route that somebody else
    has set stays, with the name. ``error.type`` is the status from 500 on, or the type of what the app has raised.

    What stands in OpenTelemetry's baggage as a request plan of ours is taken out of it: OpenTelemetry would send it to every host that is
    asked for something, and :meth:`~somaresil.chaos.requests.RequestPlans.pass_plans_to` says who may have it.

    Costs two look-ups when the span is not recording. Raises ``ImportError`` when ``opentelemetry-api`` is not installed.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        from opentelemetry.trace import StatusCode, get_current_span

        self.app = app
        self._current_span: Callable[[], Any] = get_current_span
        self._error = StatusCode.ERROR
        # There is no Resilience here; its kind of report is wanted all the same: once for each place, in the log.
        self._listeners = Listeners()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Nothing of what passes through is changed."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        with own_baggage(None):
            await self._pass(self._current_span(), scope, receive, send)

    async def _pass(self, span: Any, scope: Scope, receive: Receive, send: Send) -> None:
        if not span.is_recording():
            await self.app(scope, receive, send)
            return
        seen = _Seen(span, scope, self._error, self._listeners)

        async def told(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept", "websocket.close"}:
                # Now: who makes spans may end them with the last of the response, before the app returns.
                seen.begun(message.get("status", 0))
            await send(message)

        try:
            await self.app(scope, receive, told)
        except Exception as error:
            seen.raised(error)
            raise

    def __getattr__(self, name: str) -> Any:
        """What is not ours is the app's: routers and state are looked for on the outermost object."""
        return getattr(self.__dict__["app"], name)


class _Seen:
    """One request."""

    __slots__ = ("_error", "_listeners", "_root", "_scope", "_span", "_told")

    def __init__(self, span: Any, scope: Scope, error: Any, listeners: Listeners) -> None:
        self._listeners = listeners
        self._span = span
        self._scope = scope
        self._error = error
        self._root: str = scope.get("root_path", "")
        self._told = False

    def begun(self, status: int) -> None:
        """The response begins."""
        if self._told:
            return
        self._told = True
        try:
            self._route()
            if status >= _SERVER_ERROR:
                self._failed(str(status))
        except Exception as broken:  # noqa: BLE001 - what a span says never changes an answer
            self._listeners.defect("ServerSpans", broken, consequence="the span lacks what it should say")

    def raised(self, error: Exception) -> None:
        """The app raised."""
        self.begun(0)
        try:
            if self._span.is_recording():
                self._failed(type_of(error))
        except Exception as broken:  # noqa: BLE001 - as above
            self._listeners.defect("ServerSpans", broken, consequence="the span lacks what it should say")

    def _route(self) -> None:
        known = getattr(self._span, "attributes", None) or {}
        route = route_template(self._scope, self._root)
        if "http.route" in known or route == UNMATCHED or route.startswith("endpoint:"):
            return
        self._span.set_attribute("http.route", route)
        if self._scope["type"] == "http":
            self._span.update_name(f"{self._scope['method']} {route}")

    def _failed(self, kind: str) -> None:
        known = getattr(self._span, "attributes", None) or {}
        if "error.type" not in known:
            self._span.set_attribute("error.type", kind)
        self._span.set_status(self._error)
