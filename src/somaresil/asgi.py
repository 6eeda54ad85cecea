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
from somaresil.chaos.ingress import arriving
from somaresil.config import Checker
from somaresil.deadline import HEADERS, LONGEST, DeadlineScope, time_of
from somaresil.errors import CallTimedOut, Rejected
from somaresil.exchange import ENDED, REJECTED, WITH_THE_LAST, Conversation, Request, begin, new, response
from somaresil.requestprobes import CONVERSATIONS, METHODS, Ended, HttpExchange, RequestPace, RequestProbes
from somaresil.routes import WEBSOCKET
from somaresil.runtime import Asyncio
from somaresil.templates import UNMATCHED, route_template

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from datetime import timedelta

    from somaresil.admission import Entry
    from somaresil.chaos.flight import PlanInFlight
    from somaresil.exchange import Exchange
    from somaresil.outcome import Outcome
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
_REMEMBERED: Final = 200
_AT_ONCE: Final = 0.001
"""Deadlines are sent in milliseconds; a shorter wait for a permit is none."""


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
        self.slos = names
        self.socket_slos = tuple(name for name in names if resilience.slos[name].indicator in CONVERSATIONS)
        self.resilience = resilience
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
        resilience.log_context.middleware_added(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912 - one frame, written out
        """Pass the request on, and watch."""
        if self._plans.accepting and (arrived := self._arrived(scope, send)) is not None:
            flight, marking = arrived
            with flight:
                await self(scope, receive, marking)
            return
        exchange: Exchange | None = None
        try:
            kind = scope["type"]
            if kind == "http":
                # As Request(...) would do, in half the time.
                made = new(Request)
                begin(made, self, scope, receive, send)
                exchange = made
            elif kind == "websocket":
                exchange = Conversation(self, scope, receive, send)
            elif kind == "lifespan" and (snapshot := self.resilience.slos.snapshot) is not None:
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
        if not exchange.state & ENDED:
            exchange.end(None)

    @property
    def limiter(self) -> BulkheadPolicy | AdaptivePolicy | None:
        """The limit at work, with ``limit``, ``active`` and ``waiting``; None: there is none."""
        return None if self._admission is None else self._admission.policy

    async def _limited(self, admission: Admission, exchange: Exchange) -> None:
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
        if not exchange.state & ENDED:
            exchange.end(None)

    def _too_much(self, admission: Admission, exchange: Exchange, rejection: Rejected) -> list[Message]:
        """What to answer to a request that is not let in; nothing: it goes on, for we cannot even say no."""
        try:
            messages = exchange.too_much(admission.refused(rejection, self.monotonic() - exchange.started))
            exchange.state |= REJECTED
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("refusing a request", defect)
            return []
        return messages

    def _rest_of(self, limit: DeadlineScope, exchange: Exchange) -> DeadlineScope:
        """The deadline without the time in line."""
        try:
            waited = self.monotonic() - exchange.started
            if limit.seconds is None or waited < _AT_ONCE:
                return limit
            return DeadlineScope(max(0.0, limit.seconds - waited), self.monotonic, usual=False)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("reading the deadline of a request", defect)
            return limit

    async def _refuse(self, exchange: Exchange, messages: list[Message]) -> None:
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
                    self.resilience.ignored.note(name.decode())
                    continue
                seconds = asked if seconds is None else min(seconds, asked)
        return None if seconds is None else DeadlineScope(seconds, self.monotonic, usual=seconds == self._longest)

    async def _in_time(self, limit: DeadlineScope, scope: Scope, exchange: Exchange, send: Send) -> None:
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
        for message in response(504, b"the deadline of the request has passed\n", "http"):
            await exchange.send(message)

    def _arrived(self, scope: Scope, send: Send) -> tuple[PlanInFlight, Send] | None:
        """The request plan that a request brings, and a ``send`` that marks its answer; None: none."""
        try:
            return arriving(self._plans, scope, send)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("reading the plan of a request", defect)
            return None

    async def _faulted(self, exchange: Exchange) -> bool:
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
            if hit.delay > 0.0 and not await run.hold(Asyncio(self.resilience.clock), hit.delay):
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
            self.resilience.listeners.defect(f"ASGI middleware, {step}", defect, 0.0, "the request went on without it")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return

    def count(
        self,
        exchange: Exchange,
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
            first_byte = elapsed if first_byte is WITH_THE_LAST else first_byte - exchange.started
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

    def _cell(self, exchange: Exchange, status: int, slos: tuple[str, ...]) -> RouteCell:
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
