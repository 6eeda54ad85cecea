"""What the tests of the control app share: a process, its app, and requests to it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from somaresil import ChaosCeilings, ManualClock, Resilience
from somaresil.control import BearerToken, chaos_control

ALICE = "alice-0123456789-abcdefghijklmnop"
OPS = "operator-0123456789-abcdefghijklm"
KNOWN = {"authorization": f"Bearer {ALICE}"}
ROOT = "/_soma/chaos"
WINDOW = {"target": "llm.*", "kind": "error", "duration": 30}


class Stand:
    """A process and its control app, mounted below ``ROOT``."""

    def __init__(self, *, auth: Any = None, opt_in: bool = True, ceilings: ChaosCeilings | None = None, **options: Any) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7, environment="test")
        self.chaos = self.resilience.chaos
        if opt_in:
            self.chaos.opt_in(ceilings)
        self.guard = self.resilience.guard("llm.invoke", breaker=True)
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        self.app = chaos_control(self.resilience, auth=auth or BearerToken({"alice": ALICE, "ops": [OPS]}), **options)

    async def ask(
        self, method: str, path: str, *, headers: Any = None, known: bool = True, client: Any = None, **more: Any
    ) -> httpx.Response:
        """Send one request, with a token unless told otherwise."""
        transport = httpx.ASGITransport(self.app, root_path=ROOT, raise_app_exceptions=True, client=client or ("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            given = {**(KNOWN if known else {}), **(headers or {})}
            request = http.build_request(method, f"{ROOT}{path}", headers={k: v for k, v in given.items() if v is not None}, **more)
            return await http.send(request)

    async def post(self, path: str, data: Any = None, **more: Any) -> httpx.Response:
        """Send JSON."""
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        return await self.ask("POST", path, content=b"" if data is None else json.dumps(data).encode(), headers=headers, **more)

    async def start(self, **window: Any) -> dict[str, Any]:
        """Start an experiment; what was answered."""
        answer = await self.post("/experiments", {**WINDOW, "allow_overlap": True, **window})
        assert answer.status_code == 201, answer.text
        return answer.json()


async def raw(app: Any, *messages: dict[str, Any], **scope: Any) -> list[dict[str, Any]]:
    """Send a request message by message; what the app has said."""
    sent: list[dict[str, Any]] = []
    waiting = list(messages)
    full = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"{ROOT}/stop",
        "root_path": ROOT,
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"service"), (b"authorization", KNOWN["authorization"].encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        **scope,
    }

    async def receive() -> dict[str, Any]:
        import asyncio

        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes it")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(full, receive, send)
    return sent
