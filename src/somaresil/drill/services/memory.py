"""The memory service: keeps entries in Redis. What cannot be written now waits in an outbox, and is written later."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil.drill.services.base import MOST_WAITING, Service, failed

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request

    from somaresil.drill.policies import Policies
    from somaresil.drill.store import Store
    from somaresil.drill.topology import Instance, Settings
    from somaresil.typing import Clock

__all__ = ["Memory"]


class Memory(Service):
    """``POST /v1/entries`` keeps an entry, once for each idempotency key; ``GET /v1/sessions/{session}`` counts those of a session."""

    def __init__(
        self, instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, clock: Clock | None, store: Store
    ) -> None:
        """Guard the writes; the store guards itself."""
        super().__init__(instance, settings, policies, http, clock)
        self._store = store
        self._outbox: deque[tuple[str, str]] = deque(maxlen=MOST_WAITING)

        @self.resilience.guard("entry.write", idempotent=True, fallback=self._keep if policies.fallback else None)
        async def write(key: str, session: str) -> str:
            await store.write(key, session)
            return "stored"

        self._write = write
        self.at_start.append(lambda: store.open(self.resilience))
        self.beside.append(lambda: self.deliver(self._outbox, write))
        self.witness.waiting = lambda: len(self._outbox)
        self.pings["store"] = store.ping
        self.serve(Route("/v1/entries", self._put, methods=["POST"]), Route("/v1/sessions/{session}", self._session))

    async def _keep(self, key: str, session: str) -> str:
        self._outbox.append((key, session))
        return "queued"

    async def _put(self, request: Request) -> Response:
        key, session = request.headers["idempotency-key"], (await request.json())["session"]
        try:
            how = await self._write(key, session)
            await self._store.log(session)
        except Exception as error:  # noqa: BLE001 - to the caller it is a failed memory
            return failed(error)
        return JSONResponse({"memory": how, "key": key})

    async def _session(self, request: Request) -> Response:
        session = request.path_params["session"]
        try:
            turns = await self._store.turns(session)
        except Exception as error:  # noqa: BLE001 - as above
            return failed(error)
        return JSONResponse({"session": session, "turns": turns, "at": self.clock.monotonic()})
