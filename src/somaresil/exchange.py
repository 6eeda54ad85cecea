"""One request or conversation under the middleware: what passes through, what an experiment does to it, and how it ended.

Everything here runs once or more for each request, so it is written for that: see :class:`Request`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.chaos.ingress import MARK
from somaresil.errors import InjectedFault
from somaresil.outcome import Outcome
from somaresil.routes import MOST_WAITING
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.chaos.run import ExperimentRun, Hit
    from somaresil.chaos.strikes import Reply
    from somaresil.requestprobes import RequestPace
    from somaresil.resilience import Resilience
    from somaresil.routes import RouteCell
    from somaresil.switch import Switch

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["ENDED", "GONE", "LAST", "REJECTED", "WITH_THE_LAST", "Books", "Conversation", "Exchange", "Request", "begin", "new", "response"]

_SERVER_ERROR: Final = 500
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013
_TOO_MUCH: Final = b"there is too much to do; try again later\n"
# A member of an enumeration is looked up through its metaclass, at twice the price of a name of this module.
_GOOD: Final = Outcome.GOOD
_BAD: Final = Outcome.BAD
WITH_THE_LAST: Final = -1.0
"""Time of the first byte of a body in one piece: that of its end, which saves reading the clock once more."""
LAST: Final = 1
"""What is being sent completes the response. Alone it is an ordinary one, which one comparison shows."""
ENDED: Final = 2
"""It was booked."""
GONE: Final = 4
"""The client has left."""
REJECTED: Final = 8
"""It was not let in."""
STRUCK: Final = 16
"""An experiment has touched it."""
_LEFT_PROPERLY: Final = frozenset({1000, 1001, 1005})
"""1005 is no code at all: browsers that close without one, and with some servers clients that vanish."""


class Books(Protocol):
    """Who books requests when they have ended."""

    resilience: Resilience
    slos: tuple[str, ...]
    """Objectives that a request counts for."""
    socket_slos: tuple[str, ...]
    """Those that a conversation counts for."""
    monotonic: Callable[[], float]
    plain: dict[tuple[int, Any, int], tuple[Any, list[float], Switch, RouteCell]]
    """See :class:`somaresil.asgi.ResilienceMiddleware`; empty: every request is counted by :meth:`count`."""

    def count(
        self,
        exchange: Exchange,
        status: int,
        outcome: Outcome,
        first_byte: float | None,
        slos: tuple[str, ...],
        error: BaseException | None,
        /,
    ) -> None:
        """Book a request that has ended."""
        ...

    def report(self, step: str, defect: Exception, /) -> None:
        """Say once that a step of ours failed. Never raises."""
        ...


class Exchange:
    """One request or conversation while it lasts."""

    pace: RequestPace
    """Who listens to its response, when an objective has to know more than its time; else it is not set."""

    __slots__ = (
        "_first_byte",
        "_receive",
        "_run",
        "_send",
        "_status",
        "middleware",
        "pace",
        "root",
        "scope",
        "started",
        "state",
    )

    def __init__(self, middleware: Books, scope: Scope, receive: Receive, send: Send) -> None:
        self.middleware = middleware
        self.scope = scope
        try:
            self.root: str = scope["root_path"]
        except KeyError:
            self.root = ""
        self._receive = receive
        self._send = send
        # One number for all that may be so: four flags and a reference that few requests need were a tenth of what the middleware costs,
        # and so is a second constructor for what only http has. ``_run`` is there once the number says that it was struck.
        self.state = self._status = 0
        self._first_byte: float | None = None
        self._run: ExperimentRun
        self.started = middleware.monotonic()

    async def __call__(self) -> Message:
        """Pass on what the server says. It is itself the ``receive`` of the app: most never ask, and a method would be made for each."""
        message = await self._receive()
        try:
            self.heard(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a received message", defect)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the app says."""
        try:
            self.said(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a sent message", defect)
        try:
            await self._send(message)
        except OSError:
            # The server could not write: it is the client that is gone, not we who failed.
            self.state |= GONE
            raise
        except InjectedFault:
            # It was broken off here, whatever the app says next.
            self.state &= ~LAST
            raise
        if self.state & LAST:
            self.end(None)

    def struck(self, run: ExperimentRun, hit: Hit) -> None:
        """Remember what an experiment does to it. A response whose body is to be struck is not touched before it is."""
        if hit.body is None:
            self.touched(run)
        else:
            self._send = hit.body.on(self._send, Struck(self, run))

    def touched(self, run: ExperimentRun) -> None:
        """An experiment has touched it."""
        self._run = run
        self.state |= STRUCK

    @property
    def experiment(self) -> ExperimentRun | None:
        """The experiment that has touched it."""
        return self._run if self.state & STRUCK else None

    def delivered(self) -> None:
        """The first of the body goes out only now."""
        if self._first_byte is not None and self._first_byte is not WITH_THE_LAST:
            self._first_byte = self.middleware.monotonic()

    def end(self, error: BaseException | None) -> None:
        """Book it, once. Never raises."""
        if self.state & ENDED:
            return
        self.state |= ENDED
        try:
            self.judged(error)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("counting a request", defect)

    @property
    def status(self) -> int:
        """The status of the response; 0: it has not begun."""
        return self._status

    @property
    def begun(self) -> bool:
        """Whether the response has begun."""
        return self._status > 0

    def refusal(self, experiment: str, reply: Reply) -> list[Message]:
        """The messages of an answer in place of the app's."""
        return _injected(experiment, reply, "http")

    def too_much(self, retry_after: tuple[bytes, bytes]) -> list[Message]:
        """The messages of an answer that there is too much to do."""
        return response(503, _TOO_MUCH, "http", retry_after)

    def heard(self, message: Message) -> None:
        """The server said this to the app."""
        raise NotImplementedError

    def said(self, message: Message) -> None:
        """The app said this to the server."""
        raise NotImplementedError

    def judged(self, error: BaseException | None) -> None:
        """It is over: find out how it ended, and book it."""
        raise NotImplementedError


new: Final = object.__new__
begin: Final = Exchange.__init__


class Request(Exchange):
    """A request over http and its response."""

    __slots__ = ()

    def heard(self, message: Message) -> None:
        """The server said this to the app."""
        # After the last chunk every server reports a disconnect; only before that it means that the client left.
        if message["type"] == "http.disconnect" and not self.state & LAST:
            self.state |= GONE

    async def send(self, message: Message) -> None:  # noqa: C901, PLR0912 - one frame, written out
        """Pass on what the app says. The messages of an ordinary response are read here: a frame for each is a tenth of the middleware."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self._status = message["status"]
            elif kind == "http.response.body":
                # Asked whether it is there first: most have no "more_body", and to ask politely costs more.
                if "more_body" not in message or not message["more_body"]:
                    self.state |= LAST
                    if self._first_byte is None and "body" in message and message["body"]:
                        self._first_byte = WITH_THE_LAST
                elif self._first_byte is None and message.get("body"):
                    self._first_byte = self.middleware.monotonic()
            else:
                self.said(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a sent message", defect)
        try:
            await self._send(message)
        except OSError:
            self.state |= GONE
            raise
        except InjectedFault:
            # It was broken off here, whatever the app says next.
            self.state &= ~LAST
            raise
        if not self.state & LAST:
            return
        status = self._status
        try:
            # What ended well on a plain route is booked here as well, for every frame more is felt by every request.
            if self.state != LAST or status >= _SERVER_ERROR:
                self.end(None)
                return
            self.state = LAST | ENDED
            middleware, scope = self.middleware, self.scope
            try:
                # Subscripts, for to ask politely costs twice as much; a request without any of these is none that is remembered.
                known, whole, switch, cell = middleware.plain[id(route := scope["route"]), scope["method"], status]
                same = known is route and scope["root_path"] == self.root
            except KeyError:
                self.judged(None)
                return
            if not same:
                self.judged(None)
                return
            now, first_byte = middleware.monotonic(), self._first_byte
            elapsed = now - self.started
            if first_byte is not WITH_THE_LAST:
                cell.good(elapsed, None if first_byte is None else first_byte - self.started, now)
            elif now < switch.due and len(whole) < MOST_WAITING:
                whole.append(elapsed)
            else:
                cell.good(elapsed, elapsed, now)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("counting a request", defect)

    def said(self, message: Message) -> None:
        """The app said this to the server."""
        if message["type"] in _FILES:
            # Extensions with which the server sends a file by itself.
            if self._first_byte is None:
                self._first_byte = self.middleware.monotonic()
            if not message.get("more_body", False):
                self.state |= LAST

    def judged(self, error: BaseException | None) -> None:
        """It is over: find out how it ended, and book it."""
        status = self._status if self._status or error is None or not isinstance(error, Exception) else _SERVER_ERROR
        state = self.state
        if state & REJECTED:
            outcome = Outcome.REJECTED
        elif error is None and state & (LAST | GONE) == LAST:
            outcome = _BAD if status >= _SERVER_ERROR else _GOOD
        elif state & GONE or (error is not None and not isinstance(error, Exception)):
            outcome = Outcome.ABANDONED
        else:
            outcome = _BAD
        self.middleware.count(self, status, outcome, self._first_byte, self.middleware.slos, error)


_FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class Conversation(Exchange):
    """A conversation over a websocket."""

    __slots__ = ("_begun", "_code", "_left")

    def __init__(self, middleware: Books, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send)
        self._begun = False
        self._code: int | None = None
        self._left: int | None = None

    def heard(self, message: Message) -> None:
        """The server said this to the app."""
        if message["type"] == "websocket.disconnect":
            self._left = message.get("code", 1005)

    def said(self, message: Message) -> None:
        """The app said this to the server."""
        kind = message["type"]
        if kind == "websocket.accept":
            self._begun = True
        elif kind == "websocket.close":
            self._begun = True
            self._code = message.get("code", 1000)
        elif kind == "websocket.http.response.start":
            self._begun = True
            self._code = _INTERNAL_ERROR if message["status"] >= _SERVER_ERROR else 1000

    def refusal(self, experiment: str, reply: Reply) -> list[Message]:
        """The messages of an answer in place of the app's."""
        if "websocket.http.response" in (self.scope.get("extensions") or {}):
            return _injected(experiment, reply, "websocket.http")
        # Without that extension of the server a handshake can only be refused with its 403.
        return [{"type": "websocket.close", "code": _INTERNAL_ERROR}]

    def too_much(self, retry_after: tuple[bytes, bytes]) -> list[Message]:
        """The messages of an answer that there is too much to do."""
        if "websocket.http.response" in (self.scope.get("extensions") or {}):
            return response(503, _TOO_MUCH, "websocket.http", retry_after)
        return [{"type": "websocket.close", "code": _TRY_AGAIN_LATER}]

    def judged(self, error: BaseException | None) -> None:
        """It is over: find out how it ended, and book it."""
        if self.state & REJECTED:
            outcome = Outcome.REJECTED
        elif error is not None and not isinstance(error, Exception):
            outcome = Outcome.ABANDONED
        elif self._left is not None:
            # Many apps let the disconnect surface as an exception of their framework: the client ended it all the same.
            outcome = Outcome.GOOD if self._left in _LEFT_PROPERLY else Outcome.ABANDONED
        elif self.state & GONE:
            outcome = Outcome.ABANDONED
        elif error is not None or self._code == _INTERNAL_ERROR or not self._begun:
            outcome = Outcome.BAD
        else:
            outcome = Outcome.GOOD
        self.middleware.count(self, 0, outcome, None, self.middleware.socket_slos, error)


class Struck:
    """A request as the faults on its body know it."""

    __slots__ = ("_exchange", "_run", "clock", "listeners", "runtime")

    def __init__(self, exchange: Exchange, run: ExperimentRun) -> None:
        resilience = exchange.middleware.resilience
        self._exchange = exchange
        self._run = run
        self.clock = resilience.clock
        self.listeners = resilience.listeners
        self.runtime = Asyncio(resilience.clock)

    def touch(self) -> None:
        """It is struck now."""
        self._exchange.touched(self._run)

    def delivered(self) -> None:
        """The first of the body goes out now: what held it back is felt by the client."""
        self._exchange.delivered()

    def broken_off(self, cut: BaseException) -> None:
        """It ends here, and badly: that the client hears of it and leaves is our doing."""
        self._exchange.state &= ~LAST
        self._exchange.end(cut)

    def complete(self) -> None:
        """For its client it is complete: what the server says from here on, a disconnect too, is about nothing that is missing."""
        self._exchange.state |= LAST
        self._exchange.end(None)


def _injected(experiment: str, reply: Reply, kind: str) -> list[Message]:
    body = f"fault injected by chaos experiment {experiment}\n".encode() if reply.body is None else reply.body
    return response(reply.status, body, kind, *reply.headers, (MARK, experiment.encode()), content_type=reply.content_type)


def response(
    status: int, body: bytes, kind: str, *headers: tuple[bytes, bytes], content_type: bytes = b"text/plain; charset=utf-8"
) -> list[Message]:
    """The messages of a whole answer of ours."""
    headers = (
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *headers,
    )
    return [
        {"type": f"{kind}.response.start", "status": status, "headers": list(headers)},
        {"type": f"{kind}.response.body", "body": body, "more_body": False},
    ]
