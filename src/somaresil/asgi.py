"""ASGI middleware: every request judged, timed and, when an experiment says so, faulted. Pure ASGI for http, websocket and SSE.

    app = ResilienceMiddleware(app, resilience, slo="api_availability")

It wraps ``send`` and ``receive`` and changes nothing that passes through them (``BaseHTTPMiddleware`` costs 98 us a request, loses context
variables and breaks streams). **It can never raise into a request**: every step of its own is caught and reported once. In June 2026 a
metrics middleware that failed in its own route look-up answered every request of its users with a 500.

How a request counts:

- bad: a status of 500 or more, a response that was begun and not finished, an exception out of the app before the response was complete;
- abandoned: the client left (disconnect, or a ``send`` that fails) or the request was cancelled before the response was complete;
- good: the rest. A 404 is a good answer to a bad question.

A request ends with the last chunk of its response, so background tasks are no part of it. The route label is read then, from what the
framework left in the scope; nothing is matched a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.admission import Admission
from somaresil.chaos.ingress import MARK, arriving
from somaresil.config import Checker
from somaresil.deadline import HEADERS, LONGEST, DeadlineScope, time_of
from somaresil.errors import CallTimedOut, InjectedFault, Rejected
from somaresil.outcome import Outcome
from somaresil.requestprobes import CONVERSATIONS, METHODS, Ended, HttpExchange, RequestPace, RequestProbes
from somaresil.routes import MOST_WAITING, WEBSOCKET
from somaresil.runtime import Asyncio
from somaresil.templates import UNMATCHED, route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from datetime import timedelta

    from somaresil.admission import Entry
    from somaresil.chaos.flight import PlanInFlight
    from somaresil.chaos.run import ExperimentRun, Hit
    from somaresil.chaos.strikes import Reply
    from somaresil.policy.adaptive import AdaptiveLimit, AdaptivePolicy
    from somaresil.policy.bulkhead import Bulkhead, BulkheadPolicy
    from somaresil.resilience import Resilience
    from somaresil.routes import RouteCell
    from somaresil.switch import Switch

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["UNMATCHED", "HttpExchange", "ResilienceMiddleware", "route_template"]

_TIMES: Final = frozenset(name.encode() for name in HEADERS)
_SERVER_ERROR: Final = 500
_REMEMBERED: Final = 200
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013
_AT_ONCE: Final = 0.001
"""Deadlines are sent in milliseconds; a shorter wait for a permit is none."""
_TOO_MUCH: Final = b"there is too much to do; try again later\n"
# A member of an enumeration is looked up through its metaclass, at twice the price of a name of this module.
_GOOD: Final = Outcome.GOOD
_BAD: Final = Outcome.BAD
_WITH_THE_LAST: Final = -1.0
"""Time of the first byte of a body in one piece: that of its end, which saves reading the clock once more."""
_LAST: Final = 1
"""What is being sent completes the response. Alone it is an ordinary one, which one comparison shows."""
_ENDED: Final = 2
"""It was booked."""
_GONE: Final = 4
"""The client has left."""
_REJECTED: Final = 8
"""It was not let in."""
_STRUCK: Final = 16
"""An experiment has touched it."""
_LEFT_PROPERLY: Final = frozenset({1000, 1001, 1005})
"""1005 is no code at all: browsers that close without one, and with some servers clients that vanish."""


class ResilienceMiddleware:
    """Wraps an ASGI application. Mount it outermost, so that it sees what the client gets.

    ``slo`` names the objectives that each request counts for; they must have been added. All kinds but those about recovery are told of
    requests, as :mod:`somaresil.requestprobes` says; a composite stands for its parts. A websocket counts for those about availability and
    freshness: how long a conversation lasts says nothing about speed.

    A request has the deadline that its headers give it (:data:`somaresil.deadline.HEADERS`), at most ``deadline`` seconds; those that
    bring none have ``deadline``. None: no bound. When it passes, the request is cancelled and answered with 504.

    ``limit``: so many requests at once and no more; what is too much is answered with 503 and ``Retry-After`` before the app is called,
    and counts as rejected. Paths that experiments never touch (health, metrics) are always let in. ``priority`` says how much a request
    matters, to this limit and to every guard that it comes by: the name of a header that has the class in it, or a function of the scope
    that returns a class, a class and a tenant, or None. A header is for those who may be believed.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        app: ASGIApp,
        resilience: Resilience,
        *,
        slo: str | Sequence[str] = (),
        deadline: float | timedelta | None = None,
        limit: Bulkhead | AdaptiveLimit | None = None,
        priority: str | Callable[[Scope], str | tuple[str | None, str | None] | None] | None = None,
    ) -> None:
        """Check the objectives and register with the chaos engine."""
        self.app = app
        check = Checker("ResilienceMiddleware")
        names = (slo,) if isinstance(slo, str) else tuple(slo)
        resilience.check_slos("ResilienceMiddleware", names)
        self._longest = check.seconds("deadline", deadline, optional=True, maximum=LONGEST)
        names = resilience.slos.leaves(names)
        probes = resilience.slos.probes(names)
        self._probes = RequestProbes(probes) if probes else None
        # Responses that have to be listened to take the way of requests that have to be let in: the other one has no step for them.
        listens = self._probes is not None and self._probes.listens
        admission = None if limit is None and priority is None and not listens else Admission(resilience, limit, priority, check)
        check.finish()
        self._admission = admission
        self._slos = names
        self._socket_slos = tuple(name for name in names if resilience.slos[name].indicator in CONVERSATIONS)
        self._resilience = resilience
        self._chaos = resilience.chaos
        self._placement = resilience.chaos.placement
        self._plans = resilience.chaos.requests
        self.monotonic = resilience.clock.monotonic
        self._routes = resilience.routes
        self.plain: dict[tuple[int, Any, int], tuple[Any, list[float], Switch, RouteCell]] = {}
        """Cells by identity of the route, method and status, for routes whose template is their path. The route is kept: ids are reused.
        With it what of the cell an ordinary answer needs."""
        self._routes.remembered_by(self)
        resilience.requests_count_for(names)
        resilience.chaos.middleware_added()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912 - one frame, written out
        """Pass the request on, and watch."""
        if self._plans.accepting and (arrived := self._arrived(scope, send)) is not None:
            flight, marking = arrived
            with flight:
                await self(scope, receive, marking)
            return
        exchange: _Exchange | None = None
        try:
            kind = scope["type"]
            if kind == "http":
                # As _HttpExchange(...) would do, in half the time.
                made = _new(_HttpExchange)
                _begin(made, self, scope, receive, send)
                exchange = made
            elif kind == "websocket":
                exchange = _SocketExchange(self, scope, receive, send)
            elif kind == "lifespan" and (snapshot := self._resilience.slos.snapshot) is not None:
                send = snapshot.last_word(send)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("beginning a request", defect)
        if exchange is None:
            await self.app(scope, receive, send)
            return
        if self._admission is not None:
            await self._limited(self._admission, exchange)
            return
        try:
            if not self._placement.http or not await self._faulted(exchange):
                limit = None
                try:
                    # Most requests say nothing of a time: to look for it costs less here than in a frame of its own.
                    if self._longest is not None:
                        limit = self._deadline(scope)
                    else:
                        for name, _ in scope["headers"]:
                            if name in _TIMES:
                                limit = self._deadline(scope)
                                break
                except Exception as defect:  # noqa: BLE001 - never into a request
                    self.report("reading the deadline of a request", defect)
                if limit is None:
                    await self.app(scope, exchange, exchange.send)
                else:
                    await self._in_time(limit, scope, exchange, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        if not exchange.state & _ENDED:
            exchange.end(None)

    @property
    def limiter(self) -> BulkheadPolicy | AdaptivePolicy | None:
        """The limit at work, with ``limit``, ``active`` and ``waiting``; None: there is none."""
        return None if self._admission is None else self._admission.policy

    async def _limited(self, admission: Admission, exchange: _Exchange) -> None:
        """As :meth:`__call__`, for requests that have to be let in. Faults strike inside, so that the limit sees them as real ones."""
        scope, send = exchange.scope, exchange.send
        entry: Entry | None = None
        refusal: list[Message] = []
        if self._probes is not None and self._probes.listens and scope["type"] == "http":
            exchange.pace = pace = RequestPace(exchange._send, self.monotonic, self.report)  # noqa: SLF001 - they are one
            send = exchange.send
            exchange._send = pace.send  # noqa: SLF001
        try:
            limit = self._limit(scope)
            try:
                entry = await admission.admit(scope, exchange.send, None if limit is None else limit.seconds)
                send = entry.send
            except Rejected as rejection:
                refusal = self._too_much(admission, exchange, rejection)
            if refusal:
                await self._refuse(exchange, refusal)
            elif not self._placement.http or not await self._faulted(exchange):
                if limit is None:
                    await self.app(scope, exchange, send)
                else:
                    await self._in_time(self._rest_of(limit, exchange), scope, exchange, send)
        except BaseException as error:
            exchange.end(error)
            raise
        finally:
            if entry is not None:
                entry.leave(exchange.status)
        if not exchange.state & _ENDED:
            exchange.end(None)

    def _too_much(self, admission: Admission, exchange: _Exchange, rejection: Rejected) -> list[Message]:
        """What to answer to a request that is not let in; nothing: it goes on, for we cannot even say no."""
        try:
            messages = exchange.too_much(admission.refused(rejection, self.monotonic() - exchange.started))
            exchange.state |= _REJECTED
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("refusing a request", defect)
            return []
        return messages

    def _rest_of(self, limit: DeadlineScope, exchange: _Exchange) -> DeadlineScope:
        """The deadline without the time in line."""
        try:
            waited = self.monotonic() - exchange.started
            if limit.seconds is None or waited < _AT_ONCE:
                return limit
            return DeadlineScope(max(0.0, limit.seconds - waited), self.monotonic, usual=False)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("reading the deadline of a request", defect)
            return limit

    async def _refuse(self, exchange: _Exchange, messages: list[Message]) -> None:
        """Answer in place of the app. What the server says to that is not ours to catch."""
        if exchange.scope["type"] == "websocket" and (await exchange())["type"] != "websocket.connect":
            return
        for message in messages:
            await exchange.send(message)

    def _limit(self, scope: Scope) -> DeadlineScope | None:
        try:
            return self._deadline(scope)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("reading the deadline of a request", defect)
            return None

    def _deadline(self, scope: Scope) -> DeadlineScope | None:
        """How long a request may take; None: as long as it likes, which a conversation always may."""
        if scope["type"] != "http":
            return None
        seconds = self._longest
        for name, value in scope["headers"]:
            if name in _TIMES:
                try:
                    asked = time_of(name.decode(), value.decode("latin-1"))
                except ValueError:
                    self._resilience.ignored.note(name.decode())
                    continue
                seconds = asked if seconds is None else min(seconds, asked)
        return None if seconds is None else DeadlineScope(seconds, self.monotonic, usual=seconds == self._longest)

    async def _in_time(self, limit: DeadlineScope, scope: Scope, exchange: _Exchange, send: Send) -> None:
        """Let the app answer while somebody waits for it."""
        if limit.seconds:
            try:
                async with limit:
                    await self.app(scope, exchange, send)
            except CallTimedOut:
                # A scope inside may have timed out as well, and a response that was begun can only be cut off.
                if not limit.passed or exchange.begun:
                    raise
            else:
                return
        for message in _response(504, b"the deadline of the request has passed\n", "http"):
            await exchange.send(message)

    def _arrived(self, scope: Scope, send: Send) -> tuple[PlanInFlight, Send] | None:
        """The request plan that a request brings, and a ``send`` that marks its answer; None: none."""
        try:
            return arriving(self._plans, scope, send)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("reading the plan of a request", defect)
            return None

    async def _faulted(self, exchange: _Exchange) -> bool:
        """Whether an experiment has answered in place of the app. What goes wrong in deciding leaves the request alone."""
        scope = exchange.scope
        messages: list[Message] = []
        try:
            split = self._chaos.split
            if split is not None:
                # Each request has to come by where it is counted by its group.
                self.plain.clear()
                split.enter(scope, spared=self._placement.spares(scope["path"], exchange.root))
            struck = self._placement.strike_request(scope["path"], exchange.root, scope)
            if struck is None:
                return False
            run, hit = struck
            exchange.struck(run, hit)
            if hit.delay > 0.0 and not await run.hold(Asyncio(self._resilience.clock), hit.delay):
                # Stopped, or its time is over: a refusal now would be a fault after the end.
                return False
            if hit.reply is not None:
                messages = exchange.refusal(run.id, hit.reply)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("injecting a fault", defect)
        if messages:
            await self._refuse(exchange, messages)
        return bool(messages)

    def report(self, step: str, defect: Exception) -> None:
        """Say once that a step of ours failed; the request goes on. Never raises: a logging filter may."""
        try:
            self._resilience.listeners.defect(f"ASGI middleware, {step}", defect, 0.0, "the request went on without it")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return

    def count(
        self,
        exchange: _Exchange,
        status: int,
        outcome: Outcome,
        first_byte: float | None,
        slos: tuple[str, ...],
        error: BaseException | None,
    ) -> None:
        """Book a request that has ended."""
        now = self.monotonic()
        elapsed = now - exchange.started
        if first_byte is not None:
            first_byte = elapsed if first_byte is _WITH_THE_LAST else first_byte - exchange.started
        injected = exchange.experiment is not None
        self._cell(exchange, status, slos).add(outcome, elapsed, first_byte, now, injected)
        if self._probes is not None:
            pace: RequestPace | None = getattr(exchange, "pace", None)
            ended = Ended(exchange.scope, exchange.root, status, outcome, elapsed, first_byte, injected, error, pace)
            self._probes.tell(ended, now)
        split = self._chaos.split
        if split is not None:
            route = route_template(exchange.scope, exchange.root)
            split.ended(f"http:{route}", outcome.value, elapsed, injected=exchange.experiment is not None)

    def _cell(self, exchange: _Exchange, status: int, slos: tuple[str, ...]) -> RouteCell:
        """Where to count it. For a plain route this is remembered, as long as there are not too many of them."""
        scope, run = exchange.scope, exchange.experiment
        template = route_template(scope, exchange.root)
        if run is not None and template == UNMATCHED:
            template = run.config.target_component.removeprefix("http:")
        # By the kind of request: a client may send the word for a conversation as its method.
        if scope["type"] == "websocket":
            return self._routes.cell(WEBSOCKET, template, status, slos)
        method = scope.get("method", "")
        if method not in METHODS:
            return self._routes.cell("_OTHER", template, status, slos)
        cell = self._routes.cell(method, template, status, slos)
        route = scope.get("route")
        # FastAPI leads to one route from several places, and which of them it was stands elsewhere.
        plain = getattr(route, "path", None) == template and "fastapi" not in scope and self._probes is None
        if plain and len(self.plain) < _REMEMBERED and self._chaos.split is None:
            self.plain[id(route), method, status] = (route, cell.whole, cell.gate, cell)
        return cell


class _Exchange:
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

    def __init__(self, middleware: ResilienceMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
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
            self.state |= _GONE
            raise
        except InjectedFault:
            # It was broken off here, whatever the app says next.
            self.state &= ~_LAST
            raise
        if self.state & _LAST:
            self.end(None)

    def struck(self, run: ExperimentRun, hit: Hit) -> None:
        """Remember what an experiment does to it. A response whose body is to be struck is not touched before it is."""
        if hit.body is None:
            self.touched(run)
        else:
            self._send = hit.body.on(self._send, _Struck(self, run))

    def touched(self, run: ExperimentRun) -> None:
        """An experiment has touched it."""
        self._run = run
        self.state |= _STRUCK

    @property
    def experiment(self) -> ExperimentRun | None:
        """The experiment that has touched it."""
        return self._run if self.state & _STRUCK else None

    def delivered(self) -> None:
        """The first of the body goes out only now."""
        if self._first_byte is not None and self._first_byte is not _WITH_THE_LAST:
            self._first_byte = self.middleware.monotonic()

    def end(self, error: BaseException | None) -> None:
        """Book it, once. Never raises."""
        if self.state & _ENDED:
            return
        self.state |= _ENDED
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
        return _response(503, _TOO_MUCH, "http", retry_after)

    def heard(self, message: Message) -> None:
        raise NotImplementedError

    def said(self, message: Message) -> None:
        raise NotImplementedError

    def judged(self, error: BaseException | None) -> None:
        raise NotImplementedError


_new: Final = object.__new__
_begin: Final = _Exchange.__init__


class _HttpExchange(_Exchange):
    __slots__ = ()

    def heard(self, message: Message) -> None:
        # After the last chunk every server reports a disconnect; only before that it means that the client left.
        if message["type"] == "http.disconnect" and not self.state & _LAST:
            self.state |= _GONE

    async def send(self, message: Message) -> None:  # noqa: C901, PLR0912 - one frame, written out
        """Pass on what the app says. The messages of an ordinary response are read here: a frame for each is a tenth of the middleware."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self._status = message["status"]
            elif kind == "http.response.body":
                # Asked whether it is there first: most have no "more_body", and to ask politely costs more.
                if "more_body" not in message or not message["more_body"]:
                    self.state |= _LAST
                    if self._first_byte is None and "body" in message and message["body"]:
                        self._first_byte = _WITH_THE_LAST
                elif self._first_byte is None and message.get("body"):
                    self._first_byte = self.middleware.monotonic()
            else:
                self.said(message)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("reading a sent message", defect)
        try:
            await self._send(message)
        except OSError:
            self.state |= _GONE
            raise
        except InjectedFault:
            # It was broken off here, whatever the app says next.
            self.state &= ~_LAST
            raise
        if not self.state & _LAST:
            return
        status = self._status
        try:
            # What ended well on a plain route is booked here as well, for every frame more is felt by every request.
            if self.state != _LAST or status >= _SERVER_ERROR:
                self.end(None)
                return
            self.state = _LAST | _ENDED
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
            if first_byte is not _WITH_THE_LAST:
                cell.good(elapsed, None if first_byte is None else first_byte - self.started, now)
            elif now < switch.due and len(whole) < MOST_WAITING:
                whole.append(elapsed)
            else:
                cell.good(elapsed, elapsed, now)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.middleware.report("counting a request", defect)

    def said(self, message: Message) -> None:
        if message["type"] in _FILES:
            # Extensions with which the server sends a file by itself.
            if self._first_byte is None:
                self._first_byte = self.middleware.monotonic()
            if not message.get("more_body", False):
                self.state |= _LAST

    def judged(self, error: BaseException | None) -> None:
        status = self._status if self._status or error is None or not isinstance(error, Exception) else _SERVER_ERROR
        state = self.state
        if state & _REJECTED:
            outcome = Outcome.REJECTED
        elif error is None and state & (_LAST | _GONE) == _LAST:
            outcome = _BAD if status >= _SERVER_ERROR else _GOOD
        elif state & _GONE or (error is not None and not isinstance(error, Exception)):
            outcome = Outcome.ABANDONED
        else:
            outcome = _BAD
        self.middleware.count(self, status, outcome, self._first_byte, self.middleware._slos, error)  # noqa: SLF001


_FILES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class _SocketExchange(_Exchange):
    __slots__ = ("_begun", "_code", "_left")

    def __init__(self, middleware: ResilienceMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(middleware, scope, receive, send)
        self._begun = False
        self._code: int | None = None
        self._left: int | None = None

    def heard(self, message: Message) -> None:
        if message["type"] == "websocket.disconnect":
            self._left = message.get("code", 1005)

    def said(self, message: Message) -> None:
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
        if "websocket.http.response" in (self.scope.get("extensions") or {}):
            return _injected(experiment, reply, "websocket.http")
        # Without that extension of the server a handshake can only be refused with its 403.
        return [{"type": "websocket.close", "code": _INTERNAL_ERROR}]

    def too_much(self, retry_after: tuple[bytes, bytes]) -> list[Message]:
        if "websocket.http.response" in (self.scope.get("extensions") or {}):
            return _response(503, _TOO_MUCH, "websocket.http", retry_after)
        return [{"type": "websocket.close", "code": _TRY_AGAIN_LATER}]

    def judged(self, error: BaseException | None) -> None:
        if self.state & _REJECTED:
            outcome = Outcome.REJECTED
        elif error is not None and not isinstance(error, Exception):
            outcome = Outcome.ABANDONED
        elif self._left is not None:
            # Many apps let the disconnect surface as an exception of their framework: the client ended it all the same.
            outcome = Outcome.GOOD if self._left in _LEFT_PROPERLY else Outcome.ABANDONED
        elif self.state & _GONE:
            outcome = Outcome.ABANDONED
        elif error is not None or self._code == _INTERNAL_ERROR or not self._begun:
            outcome = Outcome.BAD
        else:
            outcome = Outcome.GOOD
        self.middleware.count(self, 0, outcome, None, self.middleware._socket_slos, error)  # noqa: SLF001


class _Struck:
    """A request as the faults on its body know it."""

    __slots__ = ("_exchange", "_run", "clock", "listeners", "runtime")

    def __init__(self, exchange: _Exchange, run: ExperimentRun) -> None:
        resilience = exchange.middleware._resilience  # noqa: SLF001 - they are one
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
        self._exchange.state &= ~_LAST
        self._exchange.end(cut)

    def complete(self) -> None:
        """For its client it is complete: what the server says from here on, a disconnect too, is about nothing that is missing."""
        self._exchange.state |= _LAST
        self._exchange.end(None)


def _injected(experiment: str, reply: Reply, kind: str) -> list[Message]:
    body = f"fault injected by chaos experiment {experiment}\n".encode() if reply.body is None else reply.body
    return _response(reply.status, body, kind, *reply.headers, (MARK, experiment.encode()), content_type=reply.content_type)


def _response(
    status: int, body: bytes, kind: str, *headers: tuple[bytes, bytes], content_type: bytes = b"text/plain; charset=utf-8"
) -> list[Message]:
    headers = (
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *headers,
    )
    return [
        {"type": f"{kind}.response.start", "status": status, "headers": list(headers)},
        {"type": f"{kind}.response.body", "body": body, "more_body": False},
    ]
