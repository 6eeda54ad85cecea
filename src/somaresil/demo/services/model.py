"""The model: answers slowly at times, not at all at others, as its keyed chance will have it.

``POST /generate`` answers at once, ``GET /stream`` token by token. Latency is log-normal, as that of model APIs is: most answers are close
together, a few take several times as long. One request in a hundred fails; of the streams that fail, half break off in the middle.
"""

from __future__ import annotations

import asyncio
import json
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from somaresil.chance import Chance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from somaresil.demo.settings import Settings

__all__ = ["build", "latency"]

MEDIAN: Final = 0.12
SIGMA: Final = 0.6
"""With these, 95 % of the answers begin within 0.33 s and 99.9 % within 0.8 s."""
ERROR_RATE: Final = 0.01
TOKEN_SECONDS: Final = 0.012
ANSWER: Final = "A circuit that opens early saves the caller from waiting and the callee from drowning"

_NORMAL: Final = NormalDist()


def latency(u: float) -> float:
    """Seconds until an answer begins, for a draw ``u`` in [0, 1)."""
    # The quantile of 0 is minus infinity.
    return MEDIAN * math.exp(SIGMA * _NORMAL.inv_cdf(max(u, 1e-9)))


def build(settings: Settings) -> Starlette:
    """The application."""
    chance = Chance(settings.seed)
    waits, errors, breaks = (chance.sequence(rule) for rule in ("model.latency", "model.error", "model.break"))

    async def generate(request: Request) -> Response:
        prompt = (await request.json())["prompt"]
        await asyncio.sleep(latency(waits.next()))
        if errors.hit(ERROR_RATE):
            return JSONResponse({"error": "the model is overloaded"}, 503)
        return JSONResponse({"text": f"{ANSWER}. ({len(prompt)} characters asked)"})

    async def stream(_: Request) -> Response:
        await asyncio.sleep(latency(waits.next()))
        fails = errors.hit(ERROR_RATE)
        breaks_off = fails and breaks.hit(0.5)
        if fails and not breaks_off:
            return JSONResponse({"error": "the model is overloaded"}, 503)
        return StreamingResponse(_tokens(breaks_off), media_type="text/event-stream")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/generate", generate, methods=["POST"]), Route("/stream", stream), Route("/health", health)],
    )


async def _tokens(breaks_off: bool) -> AsyncIterator[bytes]:  # noqa: FBT001 - what happens to this stream
    words = ANSWER.split()
    for number, token in enumerate(words):
        if breaks_off and number == len(words) // 2:
            raise ConnectionError("the model broke off in the middle of an answer")
        await asyncio.sleep(TOKEN_SECONDS)
        yield f"data: {json.dumps({'token': token})}\n\n".encode()
    yield b"event: done\ndata: {}\n\n"
