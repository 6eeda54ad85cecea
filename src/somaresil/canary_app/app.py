"""Two ASGI apps behind one: some of the requests go to the candidate, more as long as nothing speaks against it, none once something does.

    app = CanaryApp(old_app, resilience, "gateway", candidate=new_app, version="2.0", bad="availability", key=CanaryCookie())

For http, websocket and SSE. A request counts as the middleware counts it (:mod:`somaresil.asgi`), by the same objectives: a status of 500
or more, an exception, a response that was begun and not finished, and what is too late by an objective about latency, first bytes or gaps.
A client that leaves says nothing. Nothing that passes through is changed, but for the cookie of those who have none.

It is mounted inside the middleware, or around one for each app. **No evidence** is what happens while an experiment runs in this process,
on a request whose plan has struck, or with an answer that is marked as the work of an experiment.

In the mode ``fallback`` the control answers for a candidate that has failed before its answer began. In the mode ``shadow`` it always
answers, and the candidate is asked the same afterwards (:mod:`somaresil.canary_app.shadow`).
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, cast

from somaresil.canary.config import config_of
from somaresil.canary.controller import CanaryController
from somaresil.canary_app.keys import CanaryCookie, Giving, reader_of
from somaresil.canary_app.lifespan import Life
from somaresil.canary_app.placed import MARKED, Held, PairedRequest, PlacedConversation, PlacedRequest, place
from somaresil.canary_app.shadow import Shadows
from somaresil.chaos.flight import current as plan_in_flight
from somaresil.config import Checker
from somaresil.deadline import cut_off
from somaresil.errors import InjectedFault
from somaresil.exchange import ENDED, new
from somaresil.requestprobes import CONVERSATIONS, METHODS, Ended, RequestPace, RequestProbes
from somaresil.slo.probe import Probe
from somaresil.slo.series import Series

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from datetime import timedelta

    from somaresil.canary.state import Route
    from somaresil.canary_app.placed import Placed
    from somaresil.exchange import Exchange
    from somaresil.outcome import Outcome
    from somaresil.resilience import Resilience

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["CanaryApp"]

_MODES: Final = ("split", "fallback", "shadow")
_IDEMPOTENT: Final = ("GET", "HEAD", "OPTIONS")
_CAUSES: Final = 10
_PLACED: Final = frozenset({"http", "websocket"})


class CanaryApp:
    """Wraps two ASGI applications. ``app`` is the control, and answers when the candidate does not start.

    ``version`` and ``checksum`` are what the evidence belongs to; without a version nothing is started, and all traffic goes to the control
    until somebody calls ``canary.controller.start(...)``. ``bad`` names the objectives that say which requests are bad: all kinds but
    those about recovery; a websocket counts for those about availability. ``key`` says who a request is from, so that a user keeps to his
    app, and whoever is with the candidate stays there as its share grows: ``"header:x-user"``, ``"cookie:session"``, a
    :class:`CanaryCookie`, or a function of the scope. A request without a key is placed by chance, and so are all of them with None.

    ``mode="fallback"``: when the candidate answers with 500 or more, or raises, before its answer has begun, the control answers. For the
    methods in ``idempotent``, and bodies of up to 64 KiB. The failure counts.

    ``mode="shadow"``: the control always answers, and for the share of the phase the candidate is asked the same afterwards, GET and HEAD
    without a body only: at most ``shadow_limit`` at once, each for at most ``shadow_timeout`` seconds; its answers go nowhere. A pair says
    something when one of the two was bad and the other was not. Never for what has side effects.

    Both apps have a lifespan, each with a state of its own. A candidate that refuses to start, or does not within ``start_timeout``
    seconds, is rolled back, and the control serves. ``options`` are those of :class:`~somaresil.canary.config.CanaryConfig`.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        app: ASGIApp,
        resilience: Resilience,
        name: str,
        *,
        candidate: ASGIApp,
        bad: str | Sequence[str],
        version: str | None = None,
        checksum: str | None = None,
        key: str | CanaryCookie | Callable[[Scope], object] | None = None,
        mode: str = "split",
        idempotent: Sequence[str] = _IDEMPOTENT,
        shadow_limit: int = 8,
        shadow_timeout: float | timedelta = 10.0,
        start_timeout: float | timedelta = 30.0,
        snapshot: str | os.PathLike[str] | None = None,
        leader: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        """Check everything, make the controller, and start the version."""
        check = Checker(f"CanaryApp({name!r})")
        for side, given in (("app", app), ("candidate", candidate)):
            if not callable(given):
                check.problem(side, given, "an ASGI application")
        check.one_of("mode", mode, _MODES)
        methods: Any = idempotent
        if isinstance(methods, str) or not all(method in METHODS for method in methods):
            check.problem("idempotent", idempotent, f"methods of HTTP ({', '.join(sorted(METHODS))})")
        if mode == "shadow" and key is not None:
            check.problem("key", key, "None with shadow", "nobody sees the answers of the candidate")
        most = check.count("shadow_limit", shadow_limit, maximum=10_000)
        longest = check.seconds("shadow_timeout", shadow_timeout, maximum=3_600.0)
        self._start_timeout = check.seconds("start_timeout", start_timeout, maximum=3_600.0)
        self._key_of = reader_of(key, check)
        self._cookie = key if isinstance(key, CanaryCookie) else None
        config = config_of(check, name, bad=bad, sticky=key is not None, options=options)
        check.finish()
        if config is None:  # pragma: no cover - finish has raised
            raise TypeError(name)
        config.levels(resilience.slos)
        self.resilience = resilience
        self.monotonic = resilience.clock.monotonic
        self.plain: dict[tuple[int, Any, int], Any] = {}
        self.slos = config.objectives
        slos = tuple(resilience.slos[objective] for objective in config.objectives)
        self.socket_slos = tuple(slo.name for slo in slos if slo.indicator in CONVERSATIONS)
        found = [resilience.slos.series(slo.name) for slo in slos]
        probes = tuple(Probe(series, None, resilience.clock, resilience.listeners) for series in found if isinstance(series, Series))
        self._probes = RequestProbes(probes)
        self._listens = self._probes.listens
        limit = min((cast("float", slo.latency) for slo in slos if slo.latency is not None), default=math.inf)
        self.limit = limit if mode != "shadow" and all(slo.read_from_cells for slo in slos) else -math.inf
        """Seconds in which an answer is good if its status is, without anybody being asked."""
        self._chaos = resilience.chaos
        self._candidate = candidate
        # What was only asked beside it never takes its place: nobody has seen what it does with a POST.
        self._sides: tuple[ASGIApp, ASGIApp] = (app, app if mode == "shadow" else candidate)
        self._splits = mode != "shadow"
        """Whether requests are placed at all."""
        self._out = False
        """Whether the candidate did not start: then it gets nothing here, and nothing is evidence."""
        self._states: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._falls_back = frozenset(idempotent) if mode == "fallback" else frozenset()
        self.controller = CanaryController(resilience, config, snapshot=snapshot, leader=leader)
        """Decides; ``controller.roll_back(...)`` sends every request to the control from the next one on."""
        self._shadows = Shadows(self.controller, self._asked_too, self.report, most, longest) if mode == "shadow" else None
        if version is not None:
            self.controller.start(version, checksum=checksum)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912 - one frame, written out
        """Pass the request on to one of the apps, and watch."""
        kind, route = scope["type"], self.controller.route
        if route.settled and self._states is None and kind != "lifespan":
            await self._sides[route.weight > 0.0](scope, receive, send)
            return
        if route.settled or not self._splits or kind not in _PLACED:
            await self._otherwise(route, kind, scope, receive, send)
            return
        exchange: Placed | None = None
        candidate = False
        try:
            key: Any = None
            if self._key_of is None:
                candidate = self.controller.draw() < route.cut
            else:
                key = self._key_of(scope)
                if key is None and self._cookie is not None:
                    key, send = self._given(self._cookie, scope, send)
                elif key.__class__ is not str and key is not None:
                    key = str(key)
                candidate = self.controller.place(key) < route.cut
            if kind == "websocket":
                exchange = PlacedConversation(self, scope, receive, send, route, key, candidate=candidate)
            else:
                # As PlacedRequest(...) would do, in half the time.
                made = new(PlacedRequest)
                out = send
                if self._listens:
                    made.pace = pace = RequestPace(send, self.monotonic, self.report)
                    out = pace.send
                place(made, self, scope, receive, out, route, key, candidate)
                exchange = made
            # What an experiment may strike is nobody's fault, from its beginning on.
            if self._chaos.history and self._chaos.runs:
                exchange.state |= MARKED
            if self._states is not None:
                scope["state"] = {**scope.get("state", {}), **self._states[candidate]}
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("placing a request", defect)
            candidate, exchange = False, None
        if exchange is None:
            await self._sides[candidate](scope, receive, send)
            return
        if candidate and self._falls_back and kind == "http" and scope["method"] in self._falls_back:
            await self._or_control(cast("PlacedRequest", exchange), scope)
            return
        try:
            await self._sides[candidate](scope, exchange, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        if not exchange.state & ENDED:
            exchange.end(None)

    async def _otherwise(self, route: Route, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no request, one of a canary that is over or without a candidate, or one with a shadow."""
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if self._shadows is not None and not route.settled and not self._out:
            await self._paired(self._shadows, route, scope, receive, send)
            return
        candidate = route.weight > 0.0 and not self._out and self._shadows is None
        if self._states is not None:
            scope["state"] = {**scope.get("state", {}), **self._states[candidate]}
        await self._sides[candidate](scope, receive, send)

    def _given(self, cookie: CanaryCookie, scope: Scope, send: Send) -> tuple[str, Send]:
        """A key for a request that has none, and a ``send`` that tells its client."""
        draw = self.controller.draw
        key = f"{draw():08x}{draw():08x}"
        return key, Giving(send, cookie.header(key, encrypted=scope.get("scheme") in {"https", "wss"}), self.report).send

    # -- judging ----------------------------------------------------------------------------------------------------------------------

    def count(
        self,
        exchange: Exchange,
        status: int,
        outcome: Outcome,
        first_byte: float | None,  # noqa: ARG002 - as the middleware has it
        slos: tuple[str, ...],  # noqa: ARG002 - the same
        error: BaseException | None,
    ) -> None:
        """Tell the controller of a request that has ended."""
        placed = cast("Placed", exchange)
        now = self.monotonic()
        elapsed = now - placed.started
        if placed.state & MARKED or (self._chaos.history and self._chaos.runs) or self._injected(error):
            return
        # Cancelled because its time was up is not the same as cancelled because nobody waits.
        outcome = cut_off(outcome, error, placed.started, now)
        pace: RequestPace | None = getattr(placed, "pace", None)
        first = None if pace is None or pace.first is None else pace.first - placed.started
        ended = Ended(placed.scope, placed.scope.get("root_path", ""), status, outcome, elapsed, first, False, error, pace)  # noqa: FBT003 - not injected
        said = self._probes.verdicts(ended, now)
        if said <= {None}:
            return
        if isinstance(placed, PairedRequest):
            placed.bad = False in said
        else:
            self.controller.ended(placed.route, candidate=placed.candidate, bad=False in said, key=placed.key)

    def _injected(self, error: BaseException | None) -> bool:
        """Whether an experiment is behind this end, or has struck the request on its way."""
        if self.resilience.chaos.requests.accepting:
            flight = plan_in_flight()
            if flight is not None and flight.struck:
                return True
        for _ in range(_CAUSES):
            if error is None:
                return False
            if isinstance(error, InjectedFault):
                return True
            error = error.__cause__ or error.__context__
        return False

    def report(self, step: str, defect: Exception) -> None:
        """Say once that a step of ours failed; the request goes on. Never raises: a logging filter may."""
        try:
            where = f"canary {self.controller.config.name}, {step}"
            self.resilience.listeners.defect(where, defect, self.resilience.clock.time(), "the request went on without it")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return

    # -- fallback ---------------------------------------------------------------------------------------------------------------------

    async def _or_control(self, exchange: PlacedRequest, scope: Scope) -> None:
        """The candidate is asked, and the control when that has failed before its answer began."""
        before, out = dict(scope), exchange.out
        held = Held(exchange)
        error: Exception | None = None
        try:
            await self._sides[1](scope, held.receive, held.send)
        except Exception as failure:  # noqa: BLE001 - raised again when it is too late for the control
            error = failure
        except BaseException as failure:
            exchange.end(failure)
            raise
        exchange.end(error)
        if not held.replaceable:
            if error is not None:
                raise error
            return
        # In place: whoever looks at the scope afterwards must find what the app that has answered left in it.
        scope.clear()
        scope.update(before)
        if self._states is not None:
            scope["state"] = {**scope.get("state", {}), **self._states[0]}
        await self._sides[0](scope, held.again, out)

    # -- shadow -----------------------------------------------------------------------------------------------------------------------

    async def _paired(self, shadows: Shadows, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """The control answers, and the candidate is asked the same afterwards, if it may be."""
        exchange: PairedRequest | None = None
        before: Scope = {}
        try:
            if shadows.wants(route, scope) and not (self._chaos.history and self._chaos.runs):
                before = {**scope, "headers": [*scope["headers"]]}
                exchange = self._pair(route, scope, receive, send, candidate=False)
            if self._states is not None:
                scope["state"] = {**scope.get("state", {}), **self._states[0]}
        except Exception as defect:  # noqa: BLE001 - never into a request
            self.report("placing a request", defect)
            exchange = None
        if exchange is None:
            await self._sides[0](scope, receive, send)
            return
        try:
            await self._sides[0](scope, exchange, exchange.send)
        except BaseException as error:
            exchange.end(error)
            raise
        finally:
            exchange.end(None)
            shadows.begin(route, before, control_bad=exchange.bad)

    def _pair(self, route: Route, scope: Scope, receive: Receive, send: Send, *, candidate: bool) -> PairedRequest:
        exchange = new(PairedRequest)
        if self._listens:
            exchange.pace = pace = RequestPace(send, self.monotonic, self.report)
            send = pace.send
        place(exchange, self, scope, receive, send, route, None, candidate)
        exchange.bad = None
        return exchange

    async def _asked_too(self, route: Route, scope: Scope, receive: Receive, send: Send) -> bool | None:
        """Ask the candidate what the control was asked; whether that ended badly."""
        if self._states is not None:
            scope["state"] = {**scope.get("state", {}), **self._states[1]}
        exchange = self._pair(route, scope, receive, send, candidate=True)
        try:
            await self._candidate(scope, exchange, exchange.send)
        except asyncio.CancelledError:
            # Given up, which is bad in every sense, whatever it has sent by now. At the end of the process nobody asks.
            exchange.end(TimeoutError())
            return None if self._chaos.history and self._chaos.runs else True
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            exchange.end(error)
        else:
            exchange.end(None)
        return exchange.bad

    # -- lifespan ---------------------------------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        control, candidate = Life(self._sides[0], scope), Life(self._candidate, scope)
        lives = (control, candidate)
        try:
            await receive()
            # One that was rolled back before, in another process, is not asked.
            wanted = self.controller.phase != "rollback"
            refused, _ = await asyncio.gather(self._started(candidate) if wanted else _gone(), control.start())
            if control.failed is not None:
                await self._ended(candidate)
                await send({"type": "lifespan.startup.failed", "message": control.said})
                if control.error is not None:
                    raise control.error
                return
            if refused is not None:
                await candidate.leave()
                self._without_candidate(refused if wanted else None)
            if not control.lives and not candidate.lives:
                # Neither knows of it, and the server decides what it makes of that.
                if control.error is not None:
                    raise control.error
                return
            states = [life.scope.get("state", {}) for life in lives]
            if states[0] or states[1]:
                self._states = (states[0], states[1])
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if self._shadows is not None:
                await self._shadows.leave()
            await asyncio.gather(self._ended(candidate), control.end())
            await asyncio.to_thread(self.controller.stop)
            if control.failed is None:
                await send({"type": "lifespan.shutdown.complete"})
            else:
                await send({"type": "lifespan.shutdown.failed", "message": control.said})
        finally:
            for life in lives:
                await life.leave()

    async def _started(self, candidate: Life) -> str | None:
        """Why the candidate did not start; None: it did, or knows of no lifespan."""
        try:
            async with asyncio.timeout(self._start_timeout):
                await candidate.start()
        except TimeoutError:
            return f"it did not start within {self._start_timeout:g} s"
        return candidate.failed

    def _without_candidate(self, why: str | None) -> None:
        self._sides, self._out, self._splits = (self._sides[0], self._sides[0]), True, False
        if why is None:
            return
        reason = f"the candidate did not start: {why}"
        if self.controller.phase:
            self.controller.roll_back(reason)
        self.report("starting the candidate", RuntimeError(why))

    async def _ended(self, candidate: Life) -> None:
        """The candidate may take as long for its end as for its start, and no more."""
        if self._out:
            return
        try:
            async with asyncio.timeout(self._start_timeout):
                await candidate.end()
        except TimeoutError:
            candidate.failed = f"it did not end within {self._start_timeout:g} s"
        if candidate.failed is not None:
            self.report("ending the candidate", RuntimeError(candidate.failed))


async def _gone() -> str:
    return "it was rolled back"
