"""What the middleware tells the objectives that have to hear of each request: see :mod:`somaresil.slo.probe`.

====================  ================================================================================================================
``first_item``        every response is an event: good when the first byte of its body came in time. One with a status of 500 or more
                      has none: an error page is not what was asked for
``idle``              events are responses in several pieces that have begun; a gap is the time between a piece that the server has
                      taken and the next one. A client that is slow to read makes none; one that leaves has waited until then
``completion``        events are the same: good when the last piece came
``freshness``         a request that ended well has refreshed it
``good_when``         is given an :class:`HttpExchange` as result, the exception out of the app, and the seconds to the last byte
``group_by``          ``route`` (its template), ``method``, ``header:<name>``, the name of a path parameter, ``tenant`` (a path
                      parameter, or whom the request is made for), or a function of the scope
====================  ================================================================================================================

A conversation over a websocket is an event of objectives about availability and freshness, and of no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.pace import Measured, Pace
from somaresil.priority import caller
from somaresil.templates import route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from somaresil.outcome import Outcome
    from somaresil.slo.probe import Probe

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["CONVERSATIONS", "METHODS", "HttpExchange", "RequestPace", "RequestProbes"]

CONVERSATIONS: Final = frozenset({"availability", "freshness"})
"""Indicators of which a websocket is an event."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""Methods that are labels; clients may send any other word."""
_SERVER_ERROR: Final = 500
_HEADER: Final = "header:"


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """A request and its response, as ``good_when`` of an objective gets it. The body is not kept."""

    scope: Scope
    """What the server and the framework said of the request. Do not change it."""
    method: str
    route: str
    """The template that took it, such as ``/items/{id}``."""
    status: int
    """Of the response; 0: it has not begun."""
    response_headers: tuple[tuple[bytes, bytes], ...]
    first_byte: float | None
    """Seconds to the first byte of the body; None: it had none."""
    longest_gap: float
    """The longest time between two pieces of the body, in seconds."""
    pieces: int
    """How many pieces the body came in."""

    def request_header(self, name: str) -> str | None:
        """The first value of a header of the request; None: it has none."""
        return _header(self.scope["headers"], name)

    def response_header(self, name: str) -> str | None:
        """The first value of a header of the response; None: it has none."""
        return _header(self.response_headers, name)


class RequestPace(Pace):
    """Listens to what goes out to the server: behind all faults, so that what they hold back is felt here as it is by the client."""

    __slots__ = ("_monotonic", "_report", "_send", "headers", "pieces")

    def __init__(self, send: Send, monotonic: Callable[[], float], report: Callable[[str, Exception], None]) -> None:
        """Nothing went out yet."""
        super().__init__()
        self._send = send
        self._monotonic = monotonic
        self._report = report
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.pieces = 0

    async def send(self, message: Message) -> None:
        """Pass it on."""
        more = False
        try:
            more = self._goes(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._report("timing a response", defect)
        await self._send(message)
        if more:
            self.asked = self._now()

    def _goes(self, message: Message) -> bool:
        """Note a piece that is about to go out; whether another one is waited for from then on."""
        if message["type"] == "http.response.start":
            self.headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        if message["type"] != "http.response.body":
            return False
        more = bool(message.get("more_body", False))
        # The end is as good as a piece for whoever waits; an empty piece in the middle is none.
        if message.get("body") or (not more and self.first is not None):
            self.pieces += bool(message.get("body"))
            self.came(self._monotonic())
            return more
        return False

    def _now(self) -> float | None:
        try:
            return self._monotonic()
        except Exception as defect:  # noqa: BLE001 - as above
            self._report("timing a response", defect)
            return None

    def gap(self, now: float) -> float:
        """The longest wait, that for a piece which never came included."""
        return self.longest if self.asked is None else max(self.longest, now - self.asked)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request or conversation that has ended, as the middleware knows it."""

    scope: Scope
    root: str
    status: int
    outcome: Outcome
    elapsed: float
    first_byte: float | None
    injected: bool
    error: BaseException | None
    pace: RequestPace | None
    """None: nobody has listened, or it is a conversation."""


class RequestProbes:
    """All objectives of one middleware that have to hear of each request."""

    def __init__(self, probes: tuple[Probe, ...]) -> None:
        """Tell ``probes``."""
        self._probes = probes
        self.listens = any(probe.slo.about_streams or probe.slo.good_when is not None for probe in probes)
        """Whether an objective has to know more of a response than its time."""
        self._asks = any(probe.slo.good_when is not None for probe in probes)
        self._conversations = tuple(probe for probe in probes if probe.slo.indicator in CONVERSATIONS)

    def tell(self, ended: Ended, now: float) -> None:
        """Tell of a request that ended at ``now``."""
        scope = ended.scope

        def label(by: str | Callable[..., object]) -> object:
            return _label(scope, ended.root, by) if isinstance(by, str) else by(scope)

        for probe, measured in self._measured(ended, now):
            probe.note(measured, now, label)

    def verdicts(self, ended: Ended, now: float) -> set[bool | None]:
        """What the objectives say of a request that ended at ``now``, without telling them: good, bad, or nothing (None)."""
        return {probe.verdict(measured) for probe, measured in self._measured(ended, now)}

    def _measured(self, ended: Ended, now: float) -> Iterator[tuple[Probe, Measured]]:
        """Each objective with what the request is to it."""
        scope, pace = ended.scope, ended.pace
        if pace is None:
            measured = Measured(ended.outcome, ended.elapsed, ended.injected, None, ended.error)
            for probe in self._conversations if scope["type"] == "websocket" else self._probes:
                yield probe, measured
            return
        gap = pace.gap(now)
        first = ended.first_byte if ended.status < _SERVER_ERROR else None
        result = _exchange(ended, pace, gap) if self._asks else None
        whole = Measured(ended.outcome, ended.elapsed, ended.injected, result, ended.error, stream=True, first=first, gap=gap)
        # An answer in one piece has neither pace nor an end of its own.
        streamed = whole._replace(stream=pace.asked is not None or pace.pieces > 1)
        for probe in self._probes:
            yield probe, streamed if probe.slo.indicator in {"idle", "completion"} else whole


def _exchange(ended: Ended, pace: RequestPace, gap: float) -> HttpExchange:
    scope = ended.scope
    method, route = scope.get("method", ""), route_template(scope, ended.root)
    return HttpExchange(scope, method, route, ended.status, pace.headers, ended.first_byte, gap, pace.pieces)


def _label(scope: Scope, root: str, by: str) -> object:
    if by == "route":
        return route_template(scope, root)
    if by == "method":
        method = scope.get("method", "WEBSOCKET")
        return method if method in METHODS or scope["type"] == "websocket" else "_OTHER"
    if by.startswith(_HEADER):
        return _header(scope["headers"], by.removeprefix(_HEADER))
    parameters = scope.get("path_params") or {}
    if by in parameters:
        return parameters[by]
    who = caller() if by == "tenant" else None
    return None if who is None else who.tenant


def _header(headers: Any, name: str) -> str | None:
    wanted = name.lower().encode("latin-1", "replace")
    return next((value.decode("latin-1").strip() for key, value in headers if key.lower() == wanted), None)
