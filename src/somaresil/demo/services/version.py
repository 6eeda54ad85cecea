"""One version of the service that the demo of a canary deploys: answers, and streams token by token, as well or as badly as it is told to.

What is wrong with it is wrong with a share of its requests, by keyed chance: with the same seed the same of them.
"""

from __future__ import annotations

import asyncio
import json
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from somaresil import Resilience
from somaresil.asgi import ResilienceMiddleware
from somaresil.canary.telling import EvidenceTeller
from somaresil.chance import Chance
from somaresil.demo.services.pilot import EVERY, OBJECTIVES, TOLD
from somaresil.mounted.auth import BearerToken
from somaresil.verdict.pod import evidence_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.demo.settings import CanarySettings

__all__ = ["build"]

MEDIAN: Final = 0.03
SIGMA: Final = 0.4
"""With these, 99.9 % of the answers begin within 0.11 s."""
LATE: Final = 0.5
"""Seconds that a late answer takes longer."""
TOKEN_SECONDS: Final = 0.006
ANSWER: Final = "The share grows as long as nothing speaks against it"

_NORMAL: Final = NormalDist()


def build(settings: CanarySettings) -> ASGIApp:
    """The application; with a ``role`` it counts its own requests, and tells them to who asks with the token."""
    api = _api(settings)
    if not settings.role:
        return api
    resilience = Resilience("answers", environment="demo", seed=settings.seed)
    resilience.slos.add(*OBJECTIVES)
    checksum = settings.version if settings.role == "candidate" else ""
    role: Any = settings.role
    teller = EvidenceTeller(resilience, bad=TOLD, role=role, version=settings.version, checksum=checksum, every=EVERY)
    teller.start()
    guarded = ResilienceMiddleware(api, resilience, slo=TOLD)
    evidence = evidence_app(teller, resilience=resilience, auth=BearerToken(settings.token))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        inner: Any = evidence if path == "/evidence" else api if path == "/health" else guarded
        await inner(scope, receive, send)

    return app


def _api(settings: CanarySettings) -> Starlette:
    chance = Chance(settings.seed)
    waits, errors, late, cuts = (chance.sequence(rule, settings.version) for rule in ("wait", "error", "late", "cut"))

    async def wait() -> None:
        await asyncio.sleep(MEDIAN * math.exp(SIGMA * _NORMAL.inv_cdf(max(waits.next(), 1e-9))))
        if late.hit(settings.slow):
            await asyncio.sleep(LATE)

    async def message(request: Request) -> Response:
        asked: dict[str, Any] = await request.json()
        await wait()
        if errors.hit(settings.errors):
            return JSONResponse({"error": "the new index is empty"}, 503)
        return JSONResponse({"answer": f"{ANSWER}: {asked['text']}", "degraded": False, "memory": "none", "version": settings.version})

    async def stream(_: Request) -> Response:
        await wait()
        if errors.hit(settings.errors):
            return JSONResponse({"error": "the new index is empty"}, 503)
        return StreamingResponse(_tokens(cut=cuts.hit(settings.cut)), media_type="text/event-stream")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "version": settings.version})

    return Starlette(
        routes=[
            Route("/v1/session/message", message, methods=["POST"]),
            Route("/v1/llm/invoke/stream", stream),
            Route("/health", health),
        ]
    )


async def _tokens(*, cut: bool) -> AsyncIterator[bytes]:
    words = ANSWER.split()
    for number, token in enumerate(words):
        if cut and number == len(words) // 2:
            raise ConnectionError("the model broke off in the middle of an answer")
        await asyncio.sleep(TOKEN_SECONDS)
        yield f"data: {json.dumps({'token': token})}\n\n".encode()
    yield b'event: done\ndata: {"degraded": false}\n\n'
