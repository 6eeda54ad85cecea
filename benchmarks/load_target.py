"""The services that benchmarks/load_truth.py puts under load: an ASGI application for uvicorn, and one that is quicker than any client."""

import asyncio
import os
import time
from typing import Any

TOKEN = 0.02
WORKERS, SERVICE = 4, 0.02
STALL, EVERY = 1.0, 5.0
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"11")]
_busy = asyncio.Semaphore(WORKERS)
_stalls = os.environ.get("LOAD_TARGET_STALLS") == "1"
_begun = 0.0
_stalled = -1


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/sse":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(10):
            await asyncio.sleep(TOKEN)
            await send({"type": "http.response.body", "body": b"data: token%d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return
    if path == "/workers":
        async with _busy:
            await asyncio.sleep(SERVICE)
    if _stalls:
        _stand_still()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b'{"ok":true}'})


def _stand_still() -> None:
    """From the first request on, nothing moves for one second in each five: a garbage collection, a lock, a disk."""
    global _begun, _stalled  # noqa: PLW0603 - one process, one thread
    _begun = _begun or time.monotonic()
    period = int((time.monotonic() - _begun) // EVERY)
    if period > _stalled:
        _stalled = period
        time.sleep(STALL)


class Plain(asyncio.Protocol):
    """Answers each request without looking at it: a service that is no limit for whoever asks."""

    answer = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'

    def connection_made(self, transport: Any) -> None:
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(self.answer * data.count(b"\r\n\r\n"))


def run_plain(host: str, port: int) -> None:
    """Serve until the process is ended, on uvloop where it is installed."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Plain, host, port, backlog=2048)
        await server.serve_forever()

    try:
        from uvloop import new_event_loop
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
