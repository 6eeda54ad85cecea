"""The gateway of the demo of a canary: two versions behind one address, and the share of each by :class:`~somaresil.canary_app.CanaryApp`.

Both sides are proxies, small ASGI apps that ask a version over HTTP. A router in the same process as the apps would look the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse

from somaresil import Resilience
from somaresil.asgi import ResilienceMiddleware
from somaresil.canary_app import CanaryApp
from somaresil.demo.services.client import client
from somaresil.demo.services.pilot import ALPHA, LOOK_SECONDS, MINIMUM_EVENTS, OBJECTIVES, STEPS, operator_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.demo.settings import CanarySettings

__all__ = ["build"]


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

    async def end() -> None:
        await http.aclose()
        canary.controller.stop()

    operator = operator_of(resilience, canary.controller, settings.token, end)
    guarded = ResilienceMiddleware(canary, resilience, slo=names)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        ours = scope["type"] == "lifespan" or path == "/health" or path.startswith("/_soma/")
        await (operator if ours else guarded)(scope, receive, send)

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
