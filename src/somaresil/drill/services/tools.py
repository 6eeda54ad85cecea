"""The tool executor: runs plain functions in threads, so there are limits that an experiment may take away."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil.drill.answers import completion, digest, truth
from somaresil.drill.services.base import Service, failed

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request

    from somaresil.drill.policies import Policies
    from somaresil.drill.topology import Instance, Settings
    from somaresil.typing import Clock

__all__ = ["Tools"]


class Tools(Service):
    """``POST /v1/run`` runs the one tool that there is: it computes the digest of a text."""

    def __init__(self, instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, clock: Clock | None) -> None:
        """Guard the tool."""
        super().__init__(instance, settings, policies, http, clock)

        @self.resilience.guard("tool.run", retry=policies.attempts, **policies.guard(0.3))
        async def run(text: str) -> dict[str, str]:
            return {"text": text, "digest": digest(text) if settings.virtual else await _in_threads(text)}

        self._run = run
        self.pings["tool.run"] = lambda: run("ping")
        self.serve(Route("/v1/run", self._execute, methods=["POST"]))

    async def _execute(self, request: Request) -> Response:
        text = (await request.json())["text"]
        try:
            result: Any = await self._run(text)
            right = result["digest"] == digest(text)
        except Exception as error:  # noqa: BLE001 - to the caller it is a failed tool
            return failed(error)
        return JSONResponse(completion(text, truth(text))) if right else failed(ValueError(result))


async def _in_threads(text: str) -> str:
    """In the two ways in which services call plain functions: anyio's, as Starlette does it, and asyncio's."""
    import anyio.to_thread

    return await asyncio.to_thread(str, await anyio.to_thread.run_sync(_computed, text))


def _computed(text: str) -> str:
    """The digest, by way of a file: a tool that needs a descriptor."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        nowhere.write(text)
    return digest(text)
