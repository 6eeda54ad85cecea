"""What both routers of the demo of a canary have in common: objectives, steps, and the operator's side, which starts and watches."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil import SLO, Resilience
from somaresil.errors import ConfigurationError
from somaresil.events import CanaryEnded, CanaryMoved, CanaryStarted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.canary import CanaryController
    from somaresil.events import Event

__all__ = ["ALPHA", "EVERY", "LIMIT", "LOOK_SECONDS", "MINIMUM_EVENTS", "OBJECTIVES", "STEPS", "TOLD", "operator_of"]

LIMIT: Final = 0.3
"""Seconds within which 95 % of the answers are to be complete."""
STEPS: Final = (10.0, 50.0, 100.0)
MINIMUM_EVENTS: Final = 5
EVERY: Final = 1.0
"""Seconds from one telling of a version to the next, where versions tell."""
ALPHA: Final = 0.01
LOOK_SECONDS: Final = 0.1
POINT_SECONDS: Final = 0.02
MOST_POINTS: Final = 5_000
MOST: Final = 1e12
"""Evidence beyond this is drawn as if it were this."""
TOLD: Final = ("availability", "latency")
"""Objectives whose events versions tell: each needs enough of its own, and a stream that breaks off is no available answer either."""
OBJECTIVES: Final = (
    SLO("availability", 99.0, timedelta(days=30)),
    SLO("latency", 95.0, timedelta(days=7), latency=LIMIT),
    SLO("whole_streams", 99.0, timedelta(days=7), completion=True),
)


def operator_of(resilience: Resilience, controller: CanaryController, token: str, end: Callable[[], Awaitable[None]]) -> ASGIApp:
    """The application below ``/_soma/``, with ``/health`` beside it. ``end`` is called when it ends."""
    curve = _Curve(resilience, controller)
    resilience.on(curve.hear)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        watching = asyncio.create_task(curve.watch())
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await end()

    async def start(request: Request) -> Response:
        wanted: dict[str, str] = await request.json()
        if "roll_back" in wanted:
            await controller.rollback(wanted["roll_back"])
            return JSONResponse(curve.state(0))
        try:
            # In a thread: a router may take its time.
            await controller.start_canary(wanted["version"])
        except ConfigurationError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(curve.state(0))

    async def state(request: Request) -> Response:
        return JSONResponse(curve.state(int(request.query_params.get("from", "0"))))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    inner = Starlette(
        routes=[Route("/_soma/canary", state), Route("/_soma/canary", start, methods=["POST"]), Route("/health", health)], lifespan=lifespan
    )
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope.get("path", "").startswith("/_soma/") and not hmac.compare_digest(given, expected):
            await JSONResponse({"error": "this needs the token of the demo's driver"}, 403)(scope, receive, send)
            return
        await inner(scope, receive, send)

    return guarded


class _Curve:
    """The evidence while it comes in, fifty times a second, and the moves. Times are of the monotonic clock of this machine."""

    def __init__(self, resilience: Resilience, controller: CanaryController) -> None:
        self._monotonic = resilience.clock.monotonic
        self._controller = controller
        self._points: list[dict[str, float]] = []
        self._moves: list[dict[str, Any]] = []

    def hear(self, event: Event) -> None:
        """The canary has moved."""
        if isinstance(event, CanaryStarted):
            # What was of the version before is forgotten only now: until here it was what there is to see.
            self._points, self._moves = [], []
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
