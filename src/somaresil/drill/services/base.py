"""What every service of the drill is and has."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil.asgi import ResilienceMiddleware
from somaresil.chaos.config import ChaosCeilings
from somaresil.control.app import chaos_control
from somaresil.drill.policies import LATE
from somaresil.drill.witness import Witness
from somaresil.integrations.prometheus import metrics_app
from somaresil.model.breaker import State
from somaresil.mounted.auth import BearerToken
from somaresil.pool import Endpoint
from somaresil.resilience import Resilience
from somaresil.slo.objective import SLO

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping

    import httpx
    from starlette.requests import Request

    from somaresil.drill.policies import Policies
    from somaresil.drill.topology import Instance, Settings
    from somaresil.typing import Clock

    Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

__all__ = ["AVAILABILITY", "MOST_WAITING", "Service", "failed"]

AVAILABILITY: Final = "availability"
"""The objective of every service."""
MOST_WAITING: Final = 10_000
"""Writes that an outbox holds; what is more than that is lost, and the drill would say so."""
LOOK_EVERY: Final = 0.1
"""Seconds between two looks at circuits and outboxes."""
_PING_SECONDS: Final = 0.5
_CONTROL: Final = "/_soma/chaos"


class Service:
    """One instance: an ASGI application, and the tasks beside it."""

    def __init__(self, instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, clock: Clock | None) -> None:
        """Nothing runs."""
        self.instance = instance
        self.settings = settings
        self.policies = policies
        self.http = http
        self.resilience = Resilience(
            instance.role,
            instance=instance.name,
            zone=instance.zone,
            region=instance.region,
            environment="drill",
            clock=clock,
            seed=f"{settings.seed}/{instance.name}",
        )
        self.clock = self.resilience.clock
        # Half of the permission; the other half is SOMARESIL_CHAOS=1 in the environment of the process.
        ceilings = ChaosCeilings(duration=60.0, delay=5.0, block=1.0)
        self.resilience.chaos.opt_in(ceilings, switch="off" if settings.virtual else None)
        self.resilience.slos.add(SLO(AVAILABILITY, 99.0, timedelta(hours=1), latency=LATE))
        self.witness = Witness(self.resilience)
        self.at_start: list[Callable[[], Awaitable[None]]] = []
        self.beside: list[Callable[[], Awaitable[None]]] = [self._probe]
        """What is done over and over as long as the service lives."""
        self.pings: dict[str, Callable[[], Awaitable[object]]] = {}
        """A call of each guard that costs nothing, for circuits that nobody else would close."""
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.app: Application = _nowhere

    def serve(self, *routes: Route) -> None:
        """Serve these, and what every instance has: health, metrics, the control app, and what its witness has seen."""
        api = Starlette(routes=[*routes, Route("/health", _health)], lifespan=self._lifespan)
        guarded: Any = ResilienceMiddleware(api, self.resilience, slo=AVAILABILITY)
        auth = BearerToken(self.settings.token, principal="drill")
        control: Any = chaos_control(self.resilience, auth=auth, at=_CONTROL)
        witness: Any = Starlette(routes=[Route("/_soma/seen", self._seen)])
        metrics: Any = metrics_app(self.resilience)

        async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            # What operators ask is no traffic of users: it would make the availability look better than it is.
            path = scope.get("path", "")
            if path.startswith(_CONTROL):
                await control({**scope, "path": path.removeprefix(_CONTROL), "root_path": _CONTROL}, receive, send)
            elif path.startswith("/_soma/"):
                await (_nowhere if auth(scope) is None else witness)(scope, receive, send)
            else:
                await (metrics if path == "/metrics" else guarded)(scope, receive, send)

        self.app = app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        await self.start()
        yield
        await self.stop()

    async def _seen(self, request: Request) -> Response:
        return JSONResponse(self.witness.since(float(request.query_params["since"])))

    async def start(self) -> None:
        """Begin what runs beside the application."""
        for begin in self.at_start:
            await begin()
        self._tasks = [asyncio.create_task(self._over_and_over(step)) for step in self.beside]

    async def stop(self) -> None:
        """End it."""
        leftover = [*self._tasks, *self._probing.values()]
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    async def _over_and_over(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self.clock.asleep(LOOK_EVERY)
            # What fails now is tried again; a service goes on.
            with suppress(Exception):
                await step()

    # -- health checks ----------------------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Health checks as load balancers make them: a circuit that is not closed is tried, whether a user comes by or not."""
        for name, ping in self.pings.items():
            guard = self.resilience.guard(name)
            busy = self._probing.get(name)
            if guard.breaker is not None and guard.breaker.state is not State.CLOSED and (busy is None or busy.done()):
                self._probing[name] = asyncio.create_task(_tried(ping))

    def ping(self, name: str, ask: Callable[[], Awaitable[Any]]) -> None:
        """Try the circuit of the guard called ``name`` by this call, through that guard."""

        @self.resilience.guard(name)
        async def guarded() -> Any:
            return await ask()

        self.pings[name] = guarded

    def ping_stream(self, name: str, ask: Callable[[], AsyncIterator[Any]]) -> None:
        """The same for the guard of a stream, by a whole one."""

        @self.resilience.guard(name)
        async def guarded() -> AsyncIterator[Any]:
            async for item in ask():
                yield item

        async def ping() -> None:
            async for _ in guarded():
                pass

        self.pings[name] = ping

    # -- for the services -------------------------------------------------------------------------------------------------------------

    def endpoints(self, role: str) -> list[Endpoint[str]]:
        """The instances of another role."""
        return [Endpoint(name, url) for name, url in self.settings.peers(role).items()]

    async def get(self, url: str) -> Any:
        """Ask another service. Raises ``httpx.HTTPError`` for whatever is no answer."""
        return _read(await self.http.get(url))

    async def post(self, url: str, body: Any, **headers: str) -> Any:
        """As :meth:`get`."""
        return _read(await self.http.post(url, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}))

    async def deliver(self, waiting: deque[tuple[str, str]], write: Callable[[str, str], Awaitable[object]]) -> None:
        """Write what waits, until one has to wait again: writes go through their guard, whose fallback puts them back at the end."""
        for _ in range(len(waiting)):
            before = len(waiting)
            await write(*waiting.popleft())
            if len(waiting) >= before:
                break


def failed(error: Exception) -> Response:
    """Whatever it was: to the caller this is a service whose own dependency failed."""
    return JSONResponse({"error": type(error).__name__}, 502)


def _read(reply: httpx.Response) -> Any:
    reply.raise_for_status()
    return reply.json()


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _tried(ping: Callable[[], Awaitable[object]]) -> None:
    with suppress(Exception):
        async with asyncio.timeout(_PING_SECONDS):
            await ping()


async def _nowhere(scope: Any, receive: Any, send: Any) -> None:
    await Response("not here", 404)(scope, receive, send)
