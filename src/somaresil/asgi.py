"""ASGI middleware: every request judged, timed and, when an experiment says so, faulted. Pure ASGI for http, websocket and SSE.

    app = ResilienceMiddleware(app, resilience, slo="api_availability")

It wraps ``send`` and ``receive`` and changes nothing that passes through them (``BaseHTTPMiddleware`` costs 98 us a request, loses context
variables and breaks streams). **It can never raise into a request**: every step of its own is caught and reported once. In June 2026 a
metrics middleware that failed in its own route look-up answered every request of its users with a 500.

How a request counts:

- bad: an exception out of the app, a status of 500 or more, a response that was begun and not finished;
- abandoned: the client left (disconnect, or a ``send`` that fails), or the request was cancelled;
- good: the rest. A 404 is a good answer to a bad question.

The route label is read after the app has routed, from what the framework left in the scope; nothing is matched a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.errors import InjectedFault
from somaresil.outcome import Outcome
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from somaresil.chaos.run import ExperimentRun, Hit
    from somaresil.resilience import Resilience

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["UNMATCHED", "ResilienceMiddleware", "route_template"]

UNMATCHED: Final = "__unmatched__"
"""Route label of a request that no route took."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_SERVER_ERROR: Final = 500
_INTERNAL_ERROR: Final = 1011
_LEFT_PROPERLY: Final = frozenset({1000, 1001, 1005})


class ResilienceMiddleware:
    """Wraps an ASGI application. Mount it outermost, so that it sees what the client gets.

    ``slo`` names the objectives that each request counts for; they must have been added. A websocket counts for those without a latency
    threshold: how long a conversation lasts says nothing about speed.

    Raises :class:`~somaresil.errors.ConfigurationError` for an unknown objective.
    """

    def __init__(self, app: ASGIApp, resilience: Resilience, *, slo: str | Sequence[str] = ()) -> None:
        """Check the objectives and register with the chaos engine."""
        self.app = app
        check = Checker("ResilienceMiddleware")
        names = (slo,) if isinstance(slo, str) else tuple(slo)
        resilience.check_slos("ResilienceMiddleware", names)
        check.finish()
        self._slos = names
        self._socket_slos = tuple(name for name in names if resilience.slos[name].latency is None)
        self._resilience = resilience
        self._chaos = resilience.chaos
        self._monotonic = resilience.clock.monotonic
        self._routes = resilience.routes
        resilience.chaos.middleware_added()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch."""
        kind = scope["type"]
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        exchange = _HttpExchange(self, scope, receive, send) if kind == "http" else _SocketExchange(self, scope, receive, send)
        struck = self._strike(scope) if self._chaos.http else None
        try:
            if struck is None:
                await self.app(scope, exchange.receive, exchange.send)
            else:
                await self._faulted(scope, exchange, *struck)
        except BaseException as error:
            exchange.end(error)
            raise
        exchange.end(None)

    async def _faulted(self, scope: Scope, exchange: _Exchange, run: ExperimentRun, hit: Hit) -> None:
        exchange.experiment = run
        if hit.delay > 0.0:
            await run.hold(Asyncio(self._resilience.clock), hit.delay)
        if hit.status is not None and scope["type"] == "http":
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-somaresil-chaos", run.id.encode())]
            await exchange.send({"type": "http.response.start", "status": hit.status, "headers": headers})
            await exchange.send({"type": "http.response.body", "body": f"fault injected by chaos experiment {run.id}\n".encode()})
            return
        exchange.cut_after = hit.cut_after
        await self.app(scope, exchange.receive, exchange.send)

    def _strike(self, scope: Scope) -> tuple[ExperimentRun, Hit] | None:
        try:
            return self._chaos.strike_request(scope["path"])
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("deciding about a fault", defect)
            return None

    def report(self, step: str, defect: Exception) -> None:
        """Say once that a step of ours failed; the request goes on."""
        self._resilience.listeners.defect(f"ASGI middleware, {step}", defect, 0.0, "the request went on without it")

    def count(self, exchange: _Exchange, status: int, outcome: Outcome, first_byte: float | None, slos: tuple[str, ...]) -> None:
        """Book a request that has ended."""
        now = self._monotonic()
        scope = exchange.scope
        method = scope.get("method", "WEBSOCKET")
        if method not in _METHODS and scope["type"] == "http":
            method = "_OTHER"
        run = exchange.experiment
        route = route_template(scope, exchange.root)
        if route == UNMATCHED and run is not None:
            route = run.config.target_component.removeprefix("http:")
        cell = self._routes.cell(method, route, status, slos)
        since = exchange.started
        cell.add(outcome, now - since, None if first_byte is None else first_byte - since, now, injected=run is not None)


class _Exchange:
    """One request or conversation while it lasts."""

    __slots__ = ("_receive", "_send", "cut_after", "experiment", "gone", "middleware", "root", "scope", "started")

    def __init__(self, middleware: ResilienceMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.middleware = middleware
        self.scope = scope
        self.root: str = scope.get("root_path", "")
        self._receive = receive
        self._send = send
        self.gone = False
        self.cut_after: int | None = None
        self.experiment: ExperimentRun | None = None
        self.started = middleware._monotonic()  # noqa: SLF001 - one module, one clock

    async def receive(self) -> Message:
        """Pass on what the server says."""
        message = await self._receive()
        try:
            self.heard(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a received message", defect)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app says."""
        try:
            cut = self.said(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            cut = False
            self.middleware.report("reading a sent message", defect)
        if cut and self.experiment is not None:
            raise InjectedFault(self.experiment.config.target_component, self.experiment.id)
        try:
            await self._send(message)
        except OSError:
            # The server could not write: it is the client that is gone, not we who failed.
            self.gone = True
            raise

    def end(self, error: BaseException | None) -> None:
        """Book it. Never raises."""
        try:
            self.judged(error)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("counting a request", defect)

    def heard(self, message: Message) -> None:
        raise NotImplementedError

    def said(self, message: Message) -> bool:
        raise NotImplementedError

    def judged(self, error: BaseException | None) -> None:
        raise NotImplementedError


class _HttpExchange(_Exchange):
    __slots__ = ("_chunks", "_complete", "_first_byte", "_status")

    def __init__(self, middleware: ResilienceMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send)
        self._status = 0
        self._first_byte: float | None = None
        self._complete = False
        self._chunks = 0

    def heard(self, message: Message) -> None:
        # After the last chunk every server reports a disconnect; only before that it means that the client left.
        if message["type"] == "http.disconnect" and not self._complete:
            self.gone = True

    def said(self, message: Message) -> bool:
        kind = message["type"]
        if kind == "http.response.body":
            if self._first_byte is None and message.get("body"):
                self._first_byte = self.middleware._monotonic()  # noqa: SLF001
            if not message.get("more_body", False):
                self._complete = True
            if self.cut_after is not None:
                if self._chunks >= self.cut_after:
                    self._complete = False
                    return True
                self._chunks += bool(message.get("body"))
        elif kind == "http.response.start":
            self._status = message["status"]
        return False

    def judged(self, error: BaseException | None) -> None:
        status = self._status if self._status or error is None or not isinstance(error, Exception) else _SERVER_ERROR
        if self._complete and error is None:
            outcome = Outcome.BAD if status >= _SERVER_ERROR else Outcome.GOOD
        elif (self.gone and not self._complete) or (error is not None and not isinstance(error, Exception)):
            outcome = Outcome.ABANDONED
        else:
            outcome = Outcome.BAD
        self.middleware.count(self, status, outcome, self._first_byte, self.middleware._slos)  # noqa: SLF001


class _SocketExchange(_Exchange):
    __slots__ = ("_code", "_left")

    def __init__(self, middleware: ResilienceMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send)
        self._code: int | None = None
        self._left: int | None = None

    def heard(self, message: Message) -> None:
        if message["type"] == "websocket.disconnect":
            self._left = message.get("code", 1005)

    def said(self, message: Message) -> bool:
        kind = message["type"]
        if kind == "websocket.close":
            self._code = message.get("code", 1000)
        elif kind == "websocket.http.response.start":
            self._code = _INTERNAL_ERROR if message["status"] >= _SERVER_ERROR else 1000
        elif kind == "websocket.send" and self.cut_after is not None:
            self.cut_after -= 1
            return self.cut_after < 0
        return False

    def judged(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Exception):
            outcome = Outcome.ABANDONED
        elif self._left is not None:
            # Many apps let the disconnect surface as an exception of their framework: the client ended it all the same.
            outcome = Outcome.GOOD if self._left in _LEFT_PROPERLY else Outcome.ABANDONED
        elif self.gone:
            outcome = Outcome.ABANDONED
        elif error is not None or self._code == _INTERNAL_ERROR:
            outcome = Outcome.BAD
        else:
            outcome = Outcome.GOOD
        self.middleware.count(self, 0, outcome, None, self.middleware._socket_slos)  # noqa: SLF001


def route_template(scope: Scope, root: str = "") -> str:
    """The route that took a request, as a template: ``/v1/items/{id}``. ``root`` is the root path before routing.

    FastAPI keeps the full template aside when routers are nested; a mounted app leaves its prefix in ``root_path`` with real values in it,
    which are put back into the names of the path parameters.
    """
    fastapi = scope.get("fastapi")
    if fastapi is not None:
        context = fastapi.get("effective_route_context") if hasattr(fastapi, "get") else None
        path = getattr(context, "path", None)
        if isinstance(path, str):
            return _mounted(scope, root) + path
    path = getattr(scope.get("route"), "path", None)
    if isinstance(path, str):
        return _mounted(scope, root) + path
    endpoint = scope.get("endpoint")
    if endpoint is not None:
        return f"endpoint:{getattr(endpoint, '__module__', '?')}.{getattr(endpoint, '__qualname__', type(endpoint).__qualname__)}"
    return UNMATCHED


def _mounted(scope: Scope, root: str) -> str:
    now = scope.get("root_path", "")
    if now == root:
        return ""
    prefix = str(now).removeprefix(root)
    names = {str(value): name for name, value in (scope.get("path_params") or {}).items()}
    return "/".join("{" + names[part] + "}" if part in names else part for part in prefix.split("/"))
