"""A service with logs of every kind, under a real uvicorn: run as a script with the port."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider

from somaresil import Resilience, ResilienceMiddleware, Retry
from somaresil.integrations.jsonlogs import configure_logging
from somaresil.integrations.logging import RateLimitFilter, log_events

resilience = Resilience("gateway", instance="gateway-1", environment="test")
resilience.on(log_events())
log = logging.getLogger("gateway.app")
tracer = TracerProvider().get_tracer("gateway")
app = FastAPI()
SECRET = "password=hunter" + str(2)
"""Not as one text: lines of the code stand in stacks."""


@resilience.guard("llm.invoke", retry=Retry(attempts=2, wait=0.0))
async def invoke(prompt: str, attempts: list[int]) -> str:
    attempts.append(1)
    log.warning("asking the model for %s", prompt, extra={"prompt_tokens": 3, "api_key": SECRET})
    if len(attempts) == 1:
        raise ConnectionError(SECRET)
    return prompt


@app.get("/ask/{topic}")
async def ask(topic: str) -> dict[str, str]:
    with tracer.start_as_current_span("ask"):
        return {"answer": await invoke(topic, [])}


@app.get("/blocking/{item}")
def blocking(item: str) -> dict[str, str]:
    log.info("in a thread")
    return {"item": item}


@app.get("/fails")
async def fails() -> None:
    raise ValueError(SECRET)


@app.get("/storm")
async def storm() -> None:
    for number in range(500):
        log.error("no answer from %s", number)
    await asyncio.sleep(0)


if __name__ == "__main__":
    limit = RateLimitFilter(resilience, per_second=0.001, burst=20)
    config = configure_logging(resilience, level="DEBUG", levels={"asyncio": "INFO"}, stream="stdout", limit=limit)
    uvicorn.run(ResilienceMiddleware(app, resilience), host="127.0.0.1", port=int(sys.argv[1]), log_config=config)
