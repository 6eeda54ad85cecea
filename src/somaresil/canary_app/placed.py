"""A request or conversation that was placed, and a request whose answer may still be given by the control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.ingress import MARK
from somaresil.exchange import ENDED, GONE, LAST, Conversation, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.canary.state import Route
    from somaresil.canary_app.app import CanaryApp

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["MARKED", "Held", "PairedRequest", "Placed", "PlacedConversation", "PlacedRequest", "place"]

MARKED: Final = 32
"""State of an exchange that is no evidence: an experiment runs, or its answer says that it is the work of one."""
_SERVER_ERROR: Final = 500
_MOST_KEPT: Final = 65_536
"""Bytes of the body of a request that are kept for the control."""


class PlacedRequest(Request):
    """A request, and where it went."""

    __slots__ = ("candidate", "key", "route")
    middleware: CanaryApp

    def __init__(
        self,
        canary: CanaryApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route,
        key: str | None,
        candidate: bool,  # noqa: FBT001 - a name for it costs as much as two of the lines below
    ) -> None:
        # Written out, for it is a seventh of what a canary costs: the root path is looked up when somebody asks.
        self.middleware = canary
        self.scope = scope
        self._receive = receive
        self._send = send
        self.state = self._status = 0
        self._first_byte = None
        self.route = route
        self.candidate = candidate
        self.key = key
        self.started = canary.monotonic()

    async def send(self, message: Message) -> None:
        """Pass on what the app says. As :meth:`~somaresil.exchange.Request.send`, without the step that books ordinary answers."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self._status = status = message["status"]
                if status >= _SERVER_ERROR and any(name == MARK for name, _ in message.get("headers") or ()):
                    self.state |= MARKED
            elif kind == "http.response.body":
                # When the first of it came its pace knows, where somebody asks.
                if "more_body" not in message or not message["more_body"]:
                    self.state |= LAST
            else:
                self.said(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a sent message", defect)
        try:
            await self._send(message)
        except OSError:
            self.state |= GONE
            raise
        except BaseException:
            # A deadline, or a fault on the body: what was to be the last of it did not go out.
            self.state &= ~LAST
            raise
        state = self.state
        if not state & LAST:
            return
        try:
            # What ended well is booked here: every frame more is felt by every request.
            if state == LAST and self._status < _SERVER_ERROR:
                canary = self.middleware
                if canary.monotonic() - self.started <= canary.limit:
                    self.state = LAST | ENDED
                    next(self.route.good[self.candidate])
                    return
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("counting a request", defect)
        self.end(None)

    @property
    def refused(self) -> int:
        """The status of an answer that is kept back."""
        return self._status

    @refused.setter
    def refused(self, status: int) -> None:
        self._status = status

    @property
    def out(self) -> Send:
        """Where what the app says goes."""
        return self._send

    @out.setter
    def out(self, send: Send) -> None:
        self._send = send

    @property
    def receive(self) -> Receive:
        """Where what the server says comes from."""
        return self._receive


class PlacedConversation(Conversation):
    """A conversation, and where it went."""

    __slots__ = ("candidate", "key", "route")

    def __init__(
        self, canary: CanaryApp, scope: Scope, receive: Receive, send: Send, route: Route, key: str | None, *, candidate: bool
    ) -> None:
        super().__init__(canary, scope, receive, send)
        self.route = route
        self.candidate = candidate
        self.key = key


class PairedRequest(PlacedRequest):
    """A request that both sides are asked."""

    __slots__ = ("bad",)
    bad: bool | None
    """How it ended on its side; None: that says nothing."""


place: Final = PlacedRequest.__init__
Placed = PlacedRequest | PlacedConversation


class Held:
    """Holds a failure of the candidate back as long as the control can still answer."""

    def __init__(self, exchange: PlacedRequest) -> None:
        """Nothing was said yet."""
        self._exchange = exchange
        self._kept: list[Message] = []
        self._size = 0
        self._begun = False
        self._refused = False

    @property
    def replaceable(self) -> bool:
        """Whether the control can answer: nothing went out, the client is there, and what it sent was kept."""
        return not self._begun and not self._exchange.state & GONE and self._size <= _MOST_KEPT

    async def receive(self) -> Message:
        """Pass on what the server says, and keep it."""
        message = await self._exchange()
        if message["type"] == "http.request" and self._size <= _MOST_KEPT:
            self._size += len(message.get("body") or b"")
            self._kept.append(message)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the candidate says, unless it is a failure that nobody has to see."""
        if self._refused:
            return
        if not self._begun:
            if message["type"] == "http.response.start" and message["status"] >= _SERVER_ERROR and self.replaceable:
                self._refused = True
                self._exchange.refused = message["status"]
                return
            self._begun = True
        await self._exchange.send(message)

    async def again(self) -> Message:
        """What the server has said, for the control, and then what it says."""
        return self._kept.pop(0) if self._kept else await self._exchange.receive()
