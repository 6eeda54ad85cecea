"""A small service that answers the page as the contract of the dashboard says, with a picture that the test made up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from importlib import resources
from urllib.parse import parse_qs, unquote

import uvicorn

from tests.browser import pictures

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "txt": "text/plain", "md": "text/plain"}
MOUNT = "/_soma"
PLAIN = b"""<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>plain</title>
<h1>Status</h1><table><tr><td>llm.invoke</td></tr></table>"""

SEEN = """
name => {
  const look = () => {
    const row = [...document.querySelectorAll('tbody tr')].find(row => row.querySelector('th')?.textContent === name);
    if (row?.querySelector('.badge.bad')) { document.body.dataset.opened ||= String(Date.now() / 1000); }
  };
  delete document.body.dataset.opened;
  const everything = {subtree: true, childList: true, attributes: true, characterData: true};
  new MutationObserver(look).observe(document.querySelector("main"), everything);
}
"""
"""Writes down when a line of the table first says that a breaker is open."""


class Stub:
    """What the page is sent, and what it sent; the test changes both while the page is open."""

    def __init__(self) -> None:
        self.make = pictures.picture
        self.events = pictures.events()
        self.may = list(pictures.EVERYTHING)
        self.posts: list[tuple[str, dict, dict]] = []
        self.answer: tuple[int, dict] = (200, {"done": True, "sources": [{"name": "gateway-4711", "done": True, "problem": ""}]})
        self.silent = False
        self.closed = False
        self.more: list[dict] = []
        self.tick = 0.5
        self.address = ""

    @property
    def page(self) -> str:
        return f"{self.address}{MOUNT}/"

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode().removeprefix(MOUNT).lstrip("/")
        if scope["method"] == "POST":
            await self._post(path, scope, receive, send)
        elif path == "api/stream":
            await self._stream(send)
        elif path.startswith("api/"):
            status, body = self._api(path[4:], scope["query_string"].decode())
            await self._say(send, status, json.dumps(body).encode(), "application/json")
        else:
            await self._file(path, send)

    async def _file(self, path: str, send) -> None:
        if path == "plain":
            await self._say(
                send,
                200,
                PLAIN,
                "text/html",
            )
            return
        file = resources.files("somaresil.dashboard").joinpath("static", *(path or "static/index.html").removeprefix("static/").split("/"))
        if file.is_file():
            await self._say(send, 200, file.read_bytes(), TYPES[file.name.rpartition(".")[2]])
        else:
            await self._say(send, 404, b"{}", "application/problem+json")

    def _api(self, path: str, query: str) -> tuple[int, object]:
        whole = self.make()
        kind, _, name = path.partition("/")
        if kind == "picture":
            return 200, whole
        if kind == "session":
            return 200, {"actor": "alice", "csrf": "token", "may": self.may}
        if kind == "events":
            about = parse_qs(query).get("about", [""])[0]
            return 200, {
                "events": [one for one in self.events if not about or one["about"] == about],
                "next": len(self.events) + 1,
                "lost": 0,
            }
        if kind == "guards":
            found = pictures.detail(whole, unquote(name))
        else:
            found = next((one for one in whole["objectives"] if one["name"] == unquote(name)), None)
            found = found and found | {"incidents": whole["incidents"], "guards": ["llm.invoke"]}
        return (404, {"title": "Not found", "detail": "it is not here"}) if found is None else (200, found)

    async def _post(self, path: str, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.posts.append((path, json.loads(body), headers))
        await self._say(send, self.answer[0], json.dumps(self.answer[1]).encode(), "application/json")

    async def _stream(self, send) -> None:
        if self.closed:
            await self._say(send, 503, b"{}", "application/problem+json")
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        sent = len(self.more)
        last = 0.0
        while not self.closed:
            if not self.silent and time.monotonic() - last >= self.tick:
                last = time.monotonic()
                await self._tell(send, "picture", self.make())
            for one in self.more[sent:]:
                await self._tell(send, "event", one)
            sent = len(self.more)
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send, kind: str, value: dict) -> None:
        body = f"event: {kind}\ndata: {json.dumps(value)}\n\n"
        await send({"type": "http.response.body", "body": body.encode(), "more_body": True})

    async def _say(self, send, status: int, body: bytes, kind: str) -> None:
        headers = [
            (b"content-type", f"{kind}; charset=utf-8".encode()),
            (b"content-security-policy", CSP.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def serving():
    """Serve a stub on loopback while the block runs."""
    stub = Stub()
    server = uvicorn.Server(uvicorn.Config(stub, host="127.0.0.1", port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.005)
    stub.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        stub.closed = True
        server.should_exit = True
        thread.join(timeout=10)
