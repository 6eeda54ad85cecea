"""The gateway of the demo of a canary: two versions behind one address, and the share of each by :class:`~somaresil.canary_app.CanaryApp`.

Both sides are proxies, small ASGI apps that ask a version over HTTP. A router in the same process as the apps would look the same.
"""

from __future__ import annotations

import asyncio
import hmac
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil import SLO, Resilience
from somaresil.asgi import ResilienceMiddleware
from somaresil.canary_app import CanaryApp
from somaresil.demo.services.client import client
from somaresil.errors import ConfigurationError
from somaresil.events import CanaryEnded, CanaryMoved, CanaryStarted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.canary import CanaryController
    from somaresil.demo.settings import CanarySettings
    from somaresil.events import Event

__all__ = ["ALPHA", "LIMIT", "STEPS", "build"]

LIMIT: Final = 0.3
"""Seconds within which 95 % of the answers are to be complete."""
STEPS: Final = (10.0, 50.0, 100.0)
MINIMUM_EVENTS: Final = 5
ALPHA: Final = 0.01
LOOK_SECONDS: Final = 0.1
POINT_SECONDS: Final = 0.02
MOST_POINTS: Final = 5_000
MOST: Final = 1e12
"""Evidence beyond this is drawn as if it were this."""
OBJECTIVES: Final = (
    SLO("availability", 99.0, timedelta(days=30)),
    SLO("latency", 95.0, timedelta(days=7), latency=LIMIT),
    SLO("whole_streams", 99.0, timedelta(days=7), completion=True),
)


def build(settings: CanarySettings) -> ASGIApp:
    """The application."""
    resilience = Resilience("gateway", environment="demo", seed=settings.seed)
    resilience.slos.add(*OBJECTIVES)
    names = [slo.name for slo in OBJECTIVES]
    http = client()
    canary = CanaryApp(
        _Proxy(http, settings.control, "control"),
        resilience,
        "gateway",
        candidate=_Proxy(http, settings.candidate, "candidate"),
        bad=names,
        steps=STEPS,
        bake=settings.bake,
        minimum_events=MINIMUM_EVENTS,
        alpha=ALPHA,
        interval=LOOK_SECONDS,
    )
    curve = _Curve(resilience, canary.controller)
    resilience.on(curve.hear)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        watching = asyncio.create_task(curve.watch())
        async with http:
            yield
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        canary.controller.stop()

    async def start(request: Request) -> Response:
        wanted: dict[str, str] = await request.json()
        if "roll_back" in wanted:
            canary.controller.roll_back(wanted["roll_back"])
            return JSONResponse(curve.state(0))
        curve.begin()
        try:
            # In a thread: it may write a file, which here it does not.
            await canary.controller.start_canary(wanted["version"])
        except ConfigurationError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(curve.state(0))

    async def state(request: Request) -> Response:
        return JSONResponse(curve.state(int(request.query_params.get("from", "0"))))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    operator = Starlette(
        routes=[Route("/_soma/canary", state), Route("/_soma/canary", start, methods=["POST"]), Route("/health", health)], lifespan=lifespan
    )
    guarded = ResilienceMiddleware(canary, resilience, slo=names)
    expected = f"Bearer {settings.token}".encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "lifespan" and path != "/health" and not path.startswith("/_soma/"):
            await guarded(scope, receive, send)
            return
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if path.startswith("/_soma/") and not hmac.compare_digest(given, expected):
            await JSONResponse({"error": "this needs the token of the demo's driver"}, 403)(scope, receive, send)
            return
        await operator(scope, receive, send)

    return app


class _Proxy:
    """Asks a version what it is asked, and passes the answer on as it comes."""

    def __init__(self, http: httpx.AsyncClient, address: str, side: str) -> None:
        self._http = http
        self._address = address
        self._side = (b"x-served-by", side.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Request(scope, receive)
        url = httpx.URL(self._address).copy_with(path=asked.url.path, query=asked.url.query.encode())
        kind = asked.headers.get("content-type", "application/json")
        question = self._http.build_request(asked.method, url, content=await asked.body(), headers={"content-type": kind})
        try:
            answer = await self._http.send(question, stream=True)
        except httpx.HTTPError as error:
            refusal = JSONResponse({"error": f"no answer: {type(error).__name__}"}, 502)
            refusal.raw_headers.append(self._side)
            await refusal(scope, receive, send)
            return
        try:
            headers = [(b"content-type", answer.headers.get("content-type", "").encode()), self._side]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            # What breaks off there breaks off here.
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()


class _Curve:
    """The evidence while it comes in, fifty times a second, and the moves. Times are of the monotonic clock of this machine."""

    def __init__(self, resilience: Resilience, controller: CanaryController) -> None:
        self._monotonic = resilience.clock.monotonic
        self._controller = controller
        self._points: list[dict[str, float]] = []
        self._moves: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Forget the version before."""
        self._points, self._moves = [], []

    def hear(self, event: Event) -> None:
        """The canary has moved."""
        if isinstance(event, CanaryStarted):
            self._moved("start", event.phase, "")
        elif isinstance(event, CanaryMoved):
            self._moved(event.step, event.phase, event.reason)
        elif isinstance(event, CanaryEnded):
            self._moved(event.outcome, event.outcome, event.reason)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(POINT_SECONDS)

    def state(self, first: int) -> dict[str, Any]:
        """Where the canary is, and the points of the curve from ``first`` on."""
        self._look()
        status = self._controller.status()
        counts = status.finding.counts
        return {
            "version": status.version,
            "phase": status.phase,
            "weight": status.weight,
            "baked": status.baked,
            "reason": status.reason,
            "over": status.over,
            "counts": {
                "candidate_good": counts.candidate_good,
                "candidate_bad": counts.candidate_bad,
                "control_good": counts.control_good,
                "control_bad": counts.control_bad,
            },
            "moves": self._moves,
            "points": self._points[first:],
        }

    def _moved(self, step: str, phase: str, reason: str) -> None:
        self._look()
        self._moves.append({"at": self._monotonic(), "step": step, "phase": phase, "reason": reason})

    def _look(self) -> None:
        status = self._controller.status()
        finding, points = status.finding, self._points
        seen = {
            "candidate": finding.counts.candidate,
            "bad": finding.counts.candidate_bad,
            # JSON knows no infinity.
            "worse": min(finding.worse, MOST),
            "too_bad": min(finding.too_bad, MOST),
            "weight": status.weight,
        }
        if len(points) < MOST_POINTS and (not points or any(points[-1][name] != value for name, value in seen.items())):
            points.append({"at": self._monotonic(), **seen})
