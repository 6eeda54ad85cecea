"""The gateway: whole answers and streams for users, on top of workers and memory services of which any may fail."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from somaresil.classify import Classify
from somaresil.drill.answers import SORRY, chunks_of, completion, is_sound, text_of
from somaresil.drill.services.base import MOST_WAITING, Service, failed
from somaresil.drill.topology import SESSION
from somaresil.policy.fallback import Fallback
from somaresil.policy.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx
    from starlette.requests import Request

    from somaresil.drill.policies import Policies
    from somaresil.drill.topology import Instance, Settings
    from somaresil.pool import Endpoint
    from somaresil.typing import Clock

__all__ = ["Gateway"]

OLDEST: Final = 0.4
"""Seconds after which what was read is stale."""


class Gateway(Service):
    """``POST /v1/message`` answers a question and remembers it, ``GET /v1/stream`` answers token by token."""

    def __init__(self, instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, clock: Clock | None) -> None:
        """Guard workers and memory services, with something to say when none of them can be had."""
        super().__init__(instance, settings, policies, http, clock)
        self._unwritten: deque[tuple[str, str]] = deque(maxlen=MOST_WAITING)
        self._make_pools()
        self.beside.append(lambda: self.deliver(self._unwritten, self._write))
        self.witness.waiting = lambda: len(self._unwritten)
        for each in self.endpoints("worker"):
            self.ping(f"worker/{each.name}", partial(self._ask_at, each.target, "ping"))
            self.ping_stream(f"stream/{each.name}", partial(self._speak_at, each.target, "ping", 0))
        for each in self.endpoints("memory"):
            self.ping(f"memory/{each.name}", partial(self._write_at, each.target, "ping", "ping"))
            self.ping(f"session/{each.name}", partial(self._turns_at, each.target, "ping"))
        self.serve(Route("/v1/message", self._message, methods=["POST"]), Route("/v1/stream", self._stream))

    def _make_pools(self) -> None:
        policies, workers, memories = self.policies, self.endpoints("worker"), self.endpoints("memory")

        def options(answers: Callable[..., Any], good: Callable[[Any], bool], timeout: float) -> dict[str, Any]:
            # A bad answer is a failure of its endpoint, so another one is asked. When all are bad, the last goes to the caller as it is,
            # unless the fallback says that it answers for those too.
            last = {"fallback": Fallback(answers, when=_not(good))} if policies.fallback else {}
            return {"idempotent": True, "classify": Classify(bad_result=_not(good)), **last, **policies.pool(timeout)}

        worker = self.resilience.pool("worker", workers, **options(self._sorry, is_sound, 0.8))
        stream = self.resilience.pool("stream", workers, **policies.pool(Timeout(first_item=0.5, idle=0.5)))
        memory = self.resilience.pool("memory", memories, **options(self._forget, _is_written, 0.4))
        hedge: dict[str, Any] = {} if policies.hedge is None else {"hedge_delay": policies.hedge}
        session = self.resilience.pool("session", memories, **options(self._unknown, self._is_fresh, 0.4), **hedge)

        @worker
        async def ask(endpoint: Endpoint[str], question: str) -> dict[str, Any]:
            return await self._ask_at(endpoint.target, question)

        @stream
        async def speak(endpoint: Endpoint[str], question: str, start: int) -> AsyncIterator[dict[str, Any]]:
            async for chunk in self._speak_at(endpoint.target, question, start):
                yield chunk

        @memory
        async def write(endpoint: Endpoint[str], key: str, session: str) -> dict[str, Any]:
            return await self._write_at(endpoint.target, key, session)

        @session
        async def turns(endpoint: Endpoint[str], session: str) -> dict[str, Any]:
            return await self._turns_at(endpoint.target, session)

        self._ask: Callable[[str], Awaitable[dict[str, Any]]] = ask
        self._speak: Callable[[str, int], AsyncIterator[dict[str, Any]]] = speak
        self._write: Callable[[str, str], Awaitable[dict[str, Any]]] = write
        self._turns: Callable[[str], Awaitable[dict[str, Any]]] = turns

    # -- one endpoint -----------------------------------------------------------------------------------------------------------------

    async def _ask_at(self, url: str, question: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.post(f"{url}/v1/task", {"question": question})
        return answer

    async def _speak_at(self, url: str, question: str, start: int) -> AsyncIterator[dict[str, Any]]:
        asked = {"question": question, "start": str(start)}
        async with self.http.stream("GET", f"{url}/v1/tokens", params=asked) as reply:
            reply.raise_for_status()
            number = start
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    chunk = json.loads(line.removeprefix("data: "))
                    # A wrong chunk is a failure of this endpoint, and its circuit shall know.
                    text_of(chunk, question, number)
                    number += 1
                    yield chunk
        if number < len(chunks_of(question)):
            raise ConnectionError("the stream of the worker has ended before its finish reason")

    async def _write_at(self, url: str, key: str, session: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.post(f"{url}/v1/entries", {"session": session}, idempotency_key=key)
        return answer

    async def _turns_at(self, url: str, session: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.get(f"{url}/v1/sessions/{session}")
        return answer

    def _is_fresh(self, answer: Any) -> bool:
        return bool(answer["turns"] >= 0 and self.clock.monotonic() - answer["at"] < OLDEST)

    # -- when there is none -------------------------------------------------------------------------------------------------------------

    async def _sorry(self, question: str) -> dict[str, Any]:
        return completion(question, SORRY)

    async def _unknown(self, session: str) -> dict[str, Any]:
        return {"session": session, "turns": None}

    async def _forget(self, key: str, session: str) -> dict[str, Any]:
        self._unwritten.append((key, session))
        return {"memory": "queued", "key": key}

    # -- for users --------------------------------------------------------------------------------------------------------------------

    async def _message(self, request: Request) -> Response:
        question = (await request.json())["question"]
        try:
            known, answer = await asyncio.gather(self._turns(SESSION), self._ask(question))
            await self._write(question, SESSION)
            spoken = answer["choices"][0]["message"]["content"] == SORRY
        except Exception as error:  # noqa: BLE001 - to the user it is a gateway whose services failed
            return failed(error)
        degraded = "no answer of a worker" if spoken else "no history" if known["turns"] is None else None
        return JSONResponse(answer, headers={"x-degraded": degraded} if degraded else None)

    async def _stream(self, request: Request) -> Response:
        question = request.query_params["question"]

        async def events() -> AsyncIterator[bytes]:
            async for chunk in self._resumed(question):
                yield f"data: {json.dumps(chunk)}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _resumed(self, question: str) -> AsyncIterator[dict[str, Any]]:
        """The chunks of an answer. Tokens that a user has are not taken back: when a stream breaks, another worker goes on behind them."""
        number, left, wanted = 0, self.policies.resume, len(chunks_of(question))
        while number < wanted:
            try:
                async for chunk in self._speak(question, number):
                    text_of(chunk, question, number)
                    yield chunk
                    number += 1
            except Exception:
                if not left:
                    raise
            if number < wanted:
                if not left:
                    raise ConnectionError("the stream has ended before its finish reason")
                left -= 1


def _is_written(answer: Any) -> bool:
    return answer["memory"] in {"stored", "queued"} and bool(answer["key"])


def _not(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether an answer is not like this; what cannot be looked at is not like it."""

    def refuses(answer: Any) -> bool:
        try:
            return not good(answer)
        except (KeyError, TypeError, ValueError):
            return True

    return refuses
