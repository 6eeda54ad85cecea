"""Which request and which guarded call log lines belong to, for who has asked for it.

Nothing is kept unless somebody who writes logs asks (:meth:`Resilience.follow_logs`). Then the middleware notes each request in a context
variable, which tasks and ``asyncio.to_thread`` inherit. Guarded calls are found without that in the task or thread that makes them
(:mod:`somaresil.guard.standing`); followed into the tasks and threads that a guarded function starts they are only on demand, for then
every call has to leave the quiet path.
"""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from somaresil.guard.standing import Standing, of_call, standing
from somaresil.templates import UNMATCHED, route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from somaresil.guard import Guard

    Scope = MutableMapping[str, Any]
    App = Callable[[Scope, Any, Any], Awaitable[None]]

__all__ = ["LogContext", "RequestAround", "current_call", "current_request"]


class Wrapped(Protocol):
    """A middleware: whatever is in ``app`` gets its requests, with the exchange as ``receive``."""

    app: Any


class Teller(Protocol):
    """Who has something to say at the end. A process that a server ends by a signal has no other end than that of its app."""

    def tell(self) -> None:
        """Say it."""
        ...


class RequestAround:
    """The request in which code runs. It keeps nothing of a request that has ended but its names, for tasks may outlive it for long."""

    __slots__ = ("_ended", "_exchange")

    def __init__(self, exchange: Any) -> None:
        """``exchange`` is that of the middleware."""
        self._exchange = exchange
        self._ended: tuple[str, str, Iterable[tuple[bytes, bytes]], str] = "", "", (), ""

    def end(self) -> None:
        """It is over."""
        self._ended = self.method, self.route, self.headers, self.experiment
        self._exchange = None

    @property
    def method(self) -> str:
        """As the client has sent it; ``WEBSOCKET`` for a conversation."""
        if self._exchange is None:
            return self._ended[0]
        scope = self._exchange.scope
        return "WEBSOCKET" if scope["type"] == "websocket" else str(scope.get("method", ""))

    @property
    def route(self) -> str:
        """The template of its route; empty: not known yet, or none has taken it."""
        if self._exchange is None:
            return self._ended[1]
        found = route_template(self._exchange.scope, self._exchange.root)
        return "" if found == UNMATCHED else found

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """As they came."""
        return self._ended[2] if self._exchange is None else self._exchange.scope.get("headers", ())

    @property
    def experiment(self) -> str:
        """The id of the experiment that has struck it, or an empty text."""
        if self._exchange is None:
            return self._ended[3]
        run = self._exchange.experiment
        return "" if run is None else str(run.id)


class _CallAround:
    """An attempt that is followed into tasks and threads."""

    __slots__ = ("ended", "guard", "outer", "standing")

    def __init__(self, call: Any, outer: _CallAround | None) -> None:
        self.guard = call.guard
        self.standing = of_call(call)
        self.outer = outer
        self.ended = False


_request: ContextVar[RequestAround | None] = ContextVar("somaresil_logged_request", default=None)
_call: ContextVar[_CallAround | None] = ContextVar("somaresil_logged_call", default=None)


def current_request() -> RequestAround | None:
    """The request around; None: there is none, or nobody follows them."""
    return _request.get()


def current_call() -> Standing | None:
    """The innermost guarded call around; None: none is known."""
    inner = standing()
    around = _call.get()
    while around is not None and around.ended:
        around = around.outer
    if around is not None and (inner is None or around.standing.started > inner.started):
        return around.standing
    return inner


class LogContext:
    """What is followed for logs. One of a process."""

    __slots__ = ("_calls", "_guards", "_lock", "_middlewares", "_requests", "_tellers")

    def __init__(self, guards: Callable[[], Mapping[str, Guard]]) -> None:
        """Nobody has asked."""
        self._guards = guards
        self._lock = threading.RLock()
        self._requests = self._calls = 0
        self._middlewares: weakref.WeakSet[Any] = weakref.WeakSet()
        self._tellers: weakref.WeakSet[Teller] = weakref.WeakSet()

    def teller_added(self, teller: Teller) -> None:
        """Have it say the rest when the app is shut down, as long as requests are followed. It is forgotten when nobody else has it."""
        with self._lock:
            self._tellers.add(teller)

    def tell(self) -> None:
        """The app is shut down. Never raises."""
        for teller in tuple(self._tellers):
            try:
                teller.tell()
            except Exception:  # noqa: BLE001, S112 - handlers of others; there is nobody left to tell
                continue

    def follow(self, *, calls: bool) -> Callable[[], None]:
        """Follow requests, and ``calls`` as well; returns a function that ends it."""
        self._count(1, calls)
        left = False

        def leave() -> None:
            nonlocal left
            with self._lock:
                if left:
                    return
                left = True
            self._count(-1, -calls)

        return leave

    def middleware_added(self, middleware: Wrapped) -> None:
        """Follow its requests too, if somebody asks. It is forgotten when nobody else has it."""
        with self._lock:
            self._middlewares.add(middleware)
            self._see_to(middleware)

    def guard_added(self, guard: Guard) -> None:
        """Follow its calls too, if somebody asks."""
        if self._calls:
            self._look_at(guard)

    def _count(self, requests: int, calls: int) -> None:
        with self._lock:
            self._requests += requests
            self._calls += calls
            for middleware in tuple(self._middlewares):
                self._see_to(middleware)
        if calls:
            # With no lock held: the garbage collector may be who ends it, in a thread that has the lock of a guard.
            for guard in self._guards().values():
                self._look_at(guard)

    def _see_to(self, middleware: Wrapped) -> None:
        followed = isinstance(middleware.app, _Followed)
        if self._requests and not followed:
            middleware.app = _Followed(middleware.app, self)
        elif followed and not self._requests:
            middleware.app = middleware.app.app

    def _look_at(self, guard: Guard) -> None:
        guard.faults.unlook(_FOLLOWER)
        if self._calls:
            guard.faults.look(_FOLLOWER)
            if not self._calls:
                # Another thread has ended it meanwhile, and may have been here before us.
                guard.faults.unlook(_FOLLOWER)


class _Followed:
    """An app that runs within its request."""

    __slots__ = ("_context", "app")

    def __init__(self, app: App, context: LogContext) -> None:
        self.app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if not hasattr(receive, "experiment"):
            # A request that the middleware does not watch is none that anything is known of.
            await self.app(scope, receive, self._last_word(send) if scope["type"] == "lifespan" else send)
            return
        around = RequestAround(receive)
        token = _request.set(around)
        try:
            await self.app(scope, receive, send)
        finally:
            try:
                around.end()
                _request.reset(token)
            except Exception:  # noqa: BLE001, S110 - closed by the garbage collector in another context; and never into a request
                pass

    def _last_word(self, send: Any) -> Any:
        """A ``send`` that lets those speak who have something left to say, before the server hears that the app is done."""

        async def sends(message: Any) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self._context.tell()
            await send(message)

        return sends


class _Follower:
    """Notes the attempts of calls in the context that they are made in (:class:`somaresil.typing.Onlooker`)."""

    def began(self, call: Any, /) -> None:
        """An attempt begins."""
        outer = _call.get()
        while outer is not None and outer.ended:
            # It ended in another context, which could not take it off here.
            outer = outer.outer
        _call.set(_CallAround(call, outer))

    def ended(self, call: Any, error: BaseException | None, /) -> None:  # noqa: ARG002 - however it ended
        """It has ended; of a stream: its first item is there."""
        around = _call.get()
        if around is not None and around.guard == call.guard:
            around.ended = True
            _call.set(around.outer)

    def struck(self, call: Any, /) -> None:
        """An experiment strikes it."""
        around = _call.get()
        if around is not None and around.guard == call.guard:
            around.standing = of_call(call)


_FOLLOWER = _Follower()
