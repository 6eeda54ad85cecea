"""What the tests of the middleware share: a process on a clock that is moved by hand, and a server that is a function call."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from somaresil import SLO, ChaosConfig, ManualClock, Outcome, Resilience, ResilienceMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HOUR = 3_600.0
START = {"type": "http.response.start", "status": 200, "headers": []}


def body(text: bytes = b"x", *, more: bool = False) -> dict[str, Any]:
    """Make a part of a response."""
    return {"type": "http.response.body", "body": text, "more_body": more}


class Stand:
    """A process with an objective about answers and one about two seconds, and a middleware around ``app``."""

    def __init__(self, app: Any, *, mounted: dict[str, Any] | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("tests", **{"clock": self.clock, "seed": 3, "environment": "test", **options})
        self.resilience.slos.add(SLO("up", 99.0, timedelta(days=30)), SLO("fast", 95.0, timedelta(days=7), latency=2.0))
        self.app = ResilienceMiddleware(app, self.resilience, slo=["up", "fast"], **(mounted or {}))
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        self.sent: list[dict[str, Any]] = []

    def arm(self, experiment: str, target: str = "http:*", rate: float = 1.0, **options: Any) -> Any:
        """Start an experiment on requests."""
        self.resilience.chaos.opt_in()
        return self.resilience.chaos.arm(ChaosConfig(experiment, target, rate, 60.0, **options))

    async def ask(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        kind: str = "http",
        received: Iterable[dict[str, Any]] = (),
        send: Callable[[dict[str, Any]], Any] | None = None,
        **scope: Any,
    ) -> dict[str, Any]:
        """Send one request through the middleware; the scope as the app has left it. What the app says is in ``sent``."""
        first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b"", "more_body": False}
        waiting = [first, *received]
        full: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "scheme": "http" if kind == "http" else "ws",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
            **({"method": method} if kind == "http" else {"subprotocols": []}),
            **scope,
        }
        self.sent = []

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop(0)
            await asyncio.Event().wait()
            raise AssertionError("nobody wakes it")

        async def keep(message: dict[str, Any]) -> None:
            if send is not None:
                await send(message)
            self.sent.append(message)

        await self.app(full, receive, keep)
        return full

    def ends(self, *, injected: bool | None = None) -> dict[Outcome, int]:
        """How all requests ended so far."""
        found: dict[Outcome, int] = {}
        for counts in self.resilience.routes.counts().values():
            for outcome in Outcome:
                number = counts.total(outcome, injected=injected)
                if number:
                    found[outcome] = found.get(outcome, 0) + number
        return found

    def labels(self) -> list[tuple[str, str, int]]:
        """The labels under which requests were counted so far."""
        return [tuple(key) for key, view in self.resilience.routes.views().items() if sum(view.durations)]

    def told(self, kind: type) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def says(*messages: dict[str, Any], then: BaseException | None = None) -> Any:
    """Make an app that says this, and then returns or raises."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))
        if then is not None:
            raise then

    return app
