"""The worker: takes a task, asks the model, answers. Its one dependency has its one guard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, HTTPException

from somaresil import CircuitBreaker, Resilience, Retry
from somaresil.demo.services.client import client
from somaresil.demo.state import describe
from somaresil.slo.defaults import CIRCUIT_RECOVERY, LLM_LATENCY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from somaresil.demo.settings import Settings

__all__ = ["build"]


def build(settings: Settings) -> FastAPI:
    """The application."""
    resilience = Resilience("worker", environment="demo", seed=settings.seed)
    resilience.slos.add(LLM_LATENCY, CIRCUIT_RECOVERY)
    http = client()

    @resilience.guard(
        "llm.invoke",
        slo=LLM_LATENCY.name,
        timeout=0.8,
        retry=Retry(attempts=3),
        breaker=CircuitBreaker(window=5.0, open_duration=1.0, open_maximum=2.0),
    )
    async def invoke(prompt: str) -> str:
        answer = await http.post(f"{settings.model}/generate", json={"prompt": prompt})
        answer.raise_for_status()
        text: str = answer.json()["text"]
        return text

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with http:
            yield

    app = FastAPI(title="somaresil demo: worker", lifespan=lifespan)

    @app.post("/v1/tasks")
    async def work(prompt: Annotated[str, Body(embed=True)]) -> dict[str, str]:
        try:
            return {"text": await invoke(prompt)}
        except Exception as error:
            # Whatever it was: to the caller this is a gateway whose upstream failed.
            raise HTTPException(502, f"the model failed: {type(error).__name__}") from error

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/_soma/state")
    async def state() -> dict[str, Any]:
        return describe(resilience)

    return app
