"""The worker: asks the model, has the tool run that it wants, answers. Whole answers and streams."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from somaresil.drill.answers import SOUND, chunks_of, completion, truth
from somaresil.drill.services.base import Service, failed
from somaresil.policy.timeout import Timeout
from somaresil.pool import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx
    from starlette.requests import Request

    from somaresil.drill.policies import Policies
    from somaresil.drill.topology import Instance, Settings
    from somaresil.typing import Clock

__all__ = ["Worker"]

THINKING: Final = 0.01
"""Seconds that the model takes for an answer, and for each token."""


class Worker(Service):
    """``POST /v1/task`` answers a question, ``GET /v1/tokens`` does it token by token, from the one on that is asked for."""

    def __init__(self, instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, clock: Clock | None) -> None:
        """Guard two models that can stand in for one another, and the tools."""
        super().__init__(instance, settings, policies, http, clock)
        models = [Endpoint("main", THINKING), Endpoint("spare", 2 * THINKING)]
        judged: dict[str, Any] = {"classify": SOUND, "idempotent": True}
        llm = self.resilience.pool("llm", models, **judged, **policies.pool(0.25))
        tool = self.resilience.pool("tool", self.endpoints("tools"), **judged, **policies.pool(0.3))
        tokens = self.resilience.pool("tokens", models, **policies.pool(Timeout(first_item=0.4, idle=0.3)))

        @llm
        async def invoke(endpoint: Endpoint[float], question: str) -> dict[str, Any]:
            return await self._think(endpoint.target, question)

        @tool
        async def call(endpoint: Endpoint[str], text: str) -> dict[str, Any]:
            return await self._tool(endpoint.target, text)

        @tokens
        async def speak(endpoint: Endpoint[float], question: str, start: int) -> AsyncIterator[dict[str, Any]]:
            async for chunk in self._speak(endpoint.target, question, start):
                yield chunk

        self._invoke: Callable[[str], Awaitable[dict[str, Any]]] = invoke
        self._call: Callable[[str], Awaitable[dict[str, Any]]] = call
        self._tokens: Callable[[str, int], AsyncIterator[dict[str, Any]]] = speak
        for model in models:
            self.ping(f"llm/{model.name}", partial(self._think, model.target, "ping"))
            self.ping_stream(f"tokens/{model.name}", partial(self._speak, model.target, "ping", 0))
        for each in self.endpoints("tools"):
            self.ping(f"tool/{each.name}", partial(self._tool, each.target, "ping"))
        self.serve(Route("/v1/task", self._task, methods=["POST"]), Route("/v1/tokens", self._stream))

    async def _think(self, seconds: float, question: str) -> dict[str, Any]:
        """The model."""
        await self.clock.asleep(seconds)
        return completion(question, truth(question))

    async def _speak(self, seconds: float, question: str, start: int) -> AsyncIterator[dict[str, Any]]:
        """The model, token by token."""
        for chunk in chunks_of(question, start):
            await self.clock.asleep(seconds)
            yield chunk

    async def _tool(self, url: str, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.post(f"{url}/v1/run", {"text": text})
        return answer

    async def _task(self, request: Request) -> Response:
        question = (await request.json())["question"]
        try:
            wanted = (await self._invoke(question))["choices"][0]["message"]["tool_calls"][0]["function"]
            result = await self._call(json.loads(wanted["arguments"])["text"])
            content = result["choices"][0]["message"]["content"]
        except Exception as error:  # noqa: BLE001 - to the caller it is a failed worker
            return failed(error)
        return JSONResponse(completion(question, content))

    async def _stream(self, request: Request) -> Response:
        question, start = request.query_params["question"], int(request.query_params["start"])

        async def events() -> AsyncIterator[bytes]:
            async for chunk in self._tokens(question, start):
                yield f"data: {json.dumps(chunk)}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")
