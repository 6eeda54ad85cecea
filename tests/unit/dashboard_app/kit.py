"""What the tests of the dashboard's app share: a process, its app, and requests to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from somaresil import ChaosCeilings, ChaosPlan, ManualClock, Resilience
from somaresil.chaos.plan import FaultWindow
from somaresil.dashboard import BearerToken

ALICE = "alice-0123456789-abcdefghijklmnop"
BOB = "bob-0123456789-abcdefghijklmnopqr"
KNOWN = {"authorization": f"Bearer {ALICE}"}
ROOT = "/_soma"
PLANS = {"slow model": ChaosPlan([FaultWindow("llm.*", "latency", 0, 30, delay=0.8, rate=0.2)])}


class Stand:
    """A process and its dashboard, mounted below ``ROOT``; Alice may do things, Bob may look."""

    def __init__(self, *, auth: Any = None, operators: Any = None, clock: Any = None, opt_in: bool = True, **options: Any) -> None:
        self.clock = ManualClock() if clock is None else clock
        self.resilience = Resilience("tests", clock=self.clock, seed=7, environment="test")
        self.chaos = self.resilience.chaos
        if opt_in:
            self.chaos.opt_in(ChaosCeilings())
        self.guard = self.resilience.guard("llm.invoke", breaker=True)
        self.plain = self.resilience.guard("tool.run")
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        if auth is None:
            auth, operators = BearerToken({"alice": ALICE, "bob": BOB}), operators or BearerToken({"alice": ALICE})
        self.app = self.resilience.dashboard(auth=auth, operators=operators, **{"plans": PLANS, **options})

    async def ask(
        self, method: str, path: str, *, headers: Any = None, known: bool = True, root_path: str = ROOT, client: Any = None, **more: Any
    ) -> httpx.Response:
        """Send one request, as Alice unless told otherwise."""
        transport = httpx.ASGITransport(self.app, root_path=root_path, client=client or ("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            given = {**(KNOWN if known else {}), **(headers or {})}
            request = http.build_request(method, f"{ROOT}{path}", headers={k: v for k, v in given.items() if v is not None}, **more)
            return await http.send(request)

    async def get(self, path: str, **more: Any) -> httpx.Response:
        """Look."""
        return await self.ask("GET", path, **more)

    async def post(self, path: str, data: Any = None, *, token: Any = "", **more: Any) -> httpx.Response:
        """Do something, with a token that is good unless told otherwise."""
        headers = more.pop("headers", {})
        if token == "":
            token = (await self.get("/api/session", headers={k: v for k, v in headers.items() if k == "authorization"})).json()["csrf"]
        headers = {"content-type": "application/json", "x-somaresil-csrf": token, **headers}
        content = b"" if data is None else json.dumps(data).encode()
        return await self.ask("POST", path, content=content, headers=headers, **more)


class Listener:
    """A client of the stream that is no server: what it was sent so far, message by message."""

    def __init__(self, app: Any, *, headers: Any = (), path: str = "/api/stream") -> None:
        self.sent: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self.left = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": f"{ROOT}{path}",
            "root_path": ROOT,
            "query_string": b"",
            "scheme": "http",
            "headers": [(b"host", b"service"), (b"authorization", KNOWN["authorization"].encode()), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    @property
    def status(self) -> int | None:
        return next((each["status"] for each in self.sent if each["type"] == "http.response.start"), None)

    @property
    def body(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self.sent)

    async def hears(self, what: Any, seconds: float = 10.0) -> bytes:
        """Wait until that is in what was sent (bytes, or a function of it)."""
        found = what if callable(what) else lambda body: what in body
        async with asyncio.timeout(seconds):
            while not found(self.body):
                self.news.clear()
                await self.news.wait()
        return self.body

    async def leaves(self) -> None:
        self.left.set()
        await asyncio.wait_for(self.task, 10.0)

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.takes.wait()
        self.sent.append(message)
        self.news.set()


def messages(body: bytes, kind: str) -> list[Any]:
    """The data of the events of that kind in a stream."""
    blocks = [block.split(b"\n") for block in body.split(b"\n\n")]
    found = [lines for lines in blocks if f"event: {kind}".encode() in lines]
    return [json.loads(line[6:]) for lines in found for line in lines if line.startswith(b"data: ")]
