"""The gateway: an API on top of three guarded calls, with one middleware around it.

- ``POST /v1/session/message`` asks the worker and writes the exchange to memory;
- ``POST /v1/session/upload`` takes a file and says how large it was;
- ``GET /v1/llm/invoke/stream`` passes the tokens of the model on as server-sent events;
- ``/health``, ``/metrics``, and ``/_soma/`` for the driver of the demo (:mod:`somaresil.demo.services.control`).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, FastAPI, Header, HTTPException, Request
from fastapi.responses import StreamingResponse

from somaresil import ChaosCeilings, Resilience
from somaresil.asgi import ResilienceMiddleware
from somaresil.demo.services import control
from somaresil.demo.services.client import client
from somaresil.demo.services.dependencies import Entry, Outbox, answers_of, tokens_of
from somaresil.demo.services.witness import Witness
from somaresil.integrations.prometheus import metrics_app
from somaresil.slo import defaults

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.demo.settings import Settings

__all__ = ["Gateway", "assemble", "build"]

LARGEST_UPLOAD: Final = 1_048_576
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a gateway; what operators see of it is put beside them."""

    resilience: Resilience
    witness: Witness
    memory: Outbox
    api: ASGIApp
    """What users ask."""
    service: ASGIApp
    """The same with the middleware around it."""
    metrics: ASGIApp


def assemble(settings: Settings, rollout: str | None = None) -> Gateway:
    """Guards, routes and middleware; ``rollout``: the file of a canary of the model, None: there is none."""
    resilience = Resilience("gateway", environment="demo", seed=settings.seed)
    resilience.slos.add(*defaults.ALL)
    # Half of the permission; the other half is SOMARESIL_CHAOS=1 in the environment of this process.
    resilience.chaos.opt_in(ChaosCeilings(duration=600.0, delay=5.0))
    witness = Witness(resilience)
    http = client()
    ask = answers_of(settings.worker, resilience, http)
    tokens = tokens_of(settings.model, resilience, http, rollout)
    memory = Outbox(settings.memory, resilience, http, witness)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        emptying = asyncio.create_task(memory.empty())
        async with http:
            yield
            emptying.cancel()
            await asyncio.gather(emptying, return_exceptions=True)

    api = FastAPI(title="somaresil demo: gateway", lifespan=lifespan)

    @api.post("/v1/session/message")
    async def message(
        session: Annotated[str, Body()], text: Annotated[str, Body()], x_request_id: Annotated[str, Header()]
    ) -> dict[str, Any]:
        witness.begin(x_request_id)
        answer = await ask(session, text)
        await memory.write(Entry(x_request_id, session, text, answer))
        return {
            "answer": answer,
            "degraded": witness.degraded("worker.call"),
            "memory": "queued" if witness.degraded("memory.write") else "stored",
        }

    @api.post("/v1/session/upload")
    async def upload(session: str, request: Request) -> dict[str, Any]:
        received = 0
        async for piece in request.stream():
            received += len(piece)
            if received > LARGEST_UPLOAD:
                raise HTTPException(413, f"at most {LARGEST_UPLOAD} bytes")
        return {"session": session, "received": received}

    @api.get("/v1/llm/invoke/stream")
    async def stream(prompt: str, x_request_id: Annotated[str, Header()]) -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            witness.begin(x_request_id)
            async for token in tokens(prompt):
                yield f"data: {json.dumps({'token': token})}\n\n".encode()
            yield f"event: done\ndata: {json.dumps({'degraded': witness.degraded('llm.stream')})}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    guarded = ResilienceMiddleware(api, resilience, slo="api_availability")
    return Gateway(resilience, witness, memory, api, guarded, metrics_app(resilience))


def build(settings: Settings) -> ASGIApp:
    """The application."""
    parts = assemble(settings)
    operator = control.build(parts.resilience, parts.witness, settings.token, waiting=lambda: len(parts.memory))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # What operators ask is no traffic of users: it would make the availability look better than it is.
        path = scope.get("path", "")
        inner = parts.metrics if path == "/metrics" else operator if path.startswith("/_soma/") else parts.service
        await inner(scope, receive, send)

    return app
