"""The same stack in one process and in virtual time: the services, users and faults of a real drill, without sockets and waiting.

What lives in processes cannot be struck here: resources, networks, Redis itself. All else is the code of the real drill, down to the
control app of each instance. A plan ends alike whenever it is run with the same seed.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from somaresil.drill.policies import Policies
from somaresil.drill.run import Drill
from somaresil.drill.services import build
from somaresil.drill.store import InProcess
from somaresil.drill.topology import SESSION, Settings, instances
from somaresil.testing.clock import VirtualClock
from somaresil.testing.faults import allow_chaos

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from somaresil.drill.plan import Strike
    from somaresil.drill.report import DrillReport
    from somaresil.drill.services.base import Service

__all__ = ["Simulation", "simulate"]

HOP: Final = 0.002
"""Seconds from one instance to another."""
_TOKEN: Final = "in-a-simulation-nobody-else-can-ask-0123456789"  # noqa: S105 - there is no door that it opens
_MOST_JUMPS: Final = 20_000_000
_COUNT: Final = re.compile(r'^somaresil_faults_injected_total\{.*?fault="(\w+)".*?\} ([0-9.e+]+)$', re.MULTILINE)


def simulate(
    strikes: Sequence[Strike],
    *,
    seed: int,
    rate: float,
    limit: float,
    policies: Policies | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> DrillReport:
    """Run a drill in virtual time. Raises :class:`RuntimeError` inside a running event loop."""
    clock = VirtualClock(most_jumps=_MOST_JUMPS)

    async def main() -> DrillReport:
        chosen = policies or Policies()
        async with Simulation(seed, clock, chosen) as stack:
            return await Drill(stack, strikes, seed=seed, rate=rate, limit=limit, balance=chosen.balance, tell=tell).run()

    return clock.run(main())


class Simulation:
    """A :class:`~somaresil.drill.run.Stack` in this process."""

    form = "virtual time"

    def __init__(self, seed: int, clock: VirtualClock, policies: Policies) -> None:
        """Nothing is begun."""
        self.clock = clock
        self.settings = Settings(seed, _TOKEN, {each.name: f"http://{each.name}" for each in instances()}, virtual=True)
        self.places: dict[str, Any] = {}
        self.services: dict[str, Service] = {}
        self._policies = policies
        self._shared: dict[str, set[str]] = {}
        self._stack = AsyncExitStack()
        self._wire = _Wire(self.services)
        self.http = httpx.AsyncClient(transport=self._wire, timeout=None)  # noqa: S113 - the guard around each call has one, with a name

    async def __aenter__(self) -> Self:
        """Begin all instances."""
        for instance in instances():
            service = build(instance, self.settings, self._policies, self.http, InProcess(self._shared, self._policies), self.clock)
            self.services[instance.name] = service
            self._stack.enter_context(allow_chaos(service.resilience))
            await service.start()
            self._stack.push_async_callback(service.stop)
        self._stack.push_async_callback(self._wire.aclose)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End them."""
        await self._stack.aclose()

    def check(self) -> None:
        """They live as long as this process."""

    async def kept(self) -> set[str]:
        """What is in the dictionary that stands for Redis."""
        return set(self._shared.get(SESSION, ()))

    async def footprint(self) -> None:
        """They are no processes."""

    async def counted(self) -> dict[tuple[str, str], float] | None:
        """Strikes by instance and kind, from the metrics of each instance."""
        found: dict[tuple[str, str], float] = {}
        for name, url in self.settings.urls.items():
            for kind, value in _COUNT.findall((await self.http.get(f"{url}/metrics")).text):
                found[name, kind] = found.get((name, kind), 0.0) + float(value)
        return found


class _Wire(httpx.AsyncBaseTransport):
    """Between the instances: a request is a task of its own that knows nothing of who has sent it, and its answer comes piece by piece.

    ``httpx.ASGITransport`` gives the whole answer at its end, so no time limit would ever meet a first piece.
    """

    def __init__(self, services: dict[str, Service]) -> None:
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request, await request.aread())
        app = self._services[request.url.host].app
        # As in another process: no deadline, no call path, no baggage comes along but in headers.
        task = asyncio.get_running_loop().create_task(exchange.serve(app), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await exchange.started.wait()
        except BaseException:
            exchange.leave()
            raise
        return httpx.Response(exchange.status, headers=exchange.headers, stream=exchange, request=request)

    async def aclose(self) -> None:
        leftover = tuple(self._tasks)
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer; what a server such as uvicorn makes of an application."""

    def __init__(self, request: httpx.Request, body: bytes) -> None:
        self._request = request
        self._body: bytes | None = body
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._left = asyncio.Event()
        self._broken = False
        self.started = asyncio.Event()
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []

    async def serve(self, app: Any) -> None:
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": ("127.0.0.1", 1),
            "server": (url.host, 80),
        }
        try:
            # Where everything takes no time at all, whoever was slow once is the slowest for ever.
            await asyncio.sleep(HOP)
            await app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - a server answers 500, or closes the connection when it has begun to answer
            self._broken = self.started.is_set()
        finally:
            self.started.set()
            self._pieces.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            # The head goes out with the first of the body, as servers do it.
            self.started.set()
            if message.get("body"):
                self._pieces.put_nowait(bytes(message["body"]))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
        if self._broken:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    def leave(self) -> None:
        """The client is gone."""
        self._left.set()

    async def aclose(self) -> None:
        self.leave()
