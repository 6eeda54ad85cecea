"""What a dashboard costs a service: the way of an event to the screen, a picture of 1,000 guards, the page, two hundred who look.

The service is a real one, in a process of its own: uvicorn, the middleware, fifty guards, an endpoint that waits 20 ms for a dependency.
"event to screen" is the time from the call that tells of an event until its bytes are read by a client of the stream. "p99 with viewers" is
measured in turns with the same service while nobody looks; 180 viewers read in another process, and 20 have asked for the stream and never
read a byte. A turn's p99 is that of one turn; the smallest of each kind are compared. "in memory" is what the service has more.
Pictures are measured in processor time.

A service that has no dashboard has none of its modules, threads or listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _measure import Benchmark, Ratio, Table

PACKAGES = ("somaresil", "uvicorn")
TOKEN = "benchmark-0123456789-abcdefghijklmn"
ROOT = "/_soma"
WAITS = 0.02
A_SECOND = 200
CONNECTIONS = 10
MOST_SCRIPT = 40_000
WORSE = 1.05


# -- the service ---------------------------------------------------------------------------------------------------------------------------


def serve(port: int, pace: float) -> None:
    """In a process of its own."""
    import uvicorn

    from somaresil import Resilience, ResilienceMiddleware
    from somaresil.dashboard import BearerToken

    resilience = Resilience("gateway", environment="test")
    for number in range(50):
        resilience.guard(f"tool.{number}", breaker=True).call(int)
    model = resilience.guard("llm.invoke", breaker=True, timeout=5.0)
    dashboard = resilience.dashboard(auth=BearerToken({"ops": TOKEN}))

    async def tell() -> None:
        while True:
            await asyncio.sleep(pace)
            resilience.deployed(str(time.monotonic_ns()))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            keep.append(asyncio.ensure_future(tell()))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"].startswith(ROOT):
            await dashboard(scope, receive, send)
        else:
            await model.acall(asyncio.sleep, WAITS)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    keep: list[Any] = []
    uvicorn.run(ResilienceMiddleware(app, resilience), port=port, log_level="critical", access_log=False, backlog=1_024)


def look(port: int, readers: int, stalled: int) -> None:
    """In a process of its own: many who look, until its input ends. Says when all of them have seen something."""
    selector = selectors.DefaultSelector()
    idle = [ask_for_stream(port, buffer=4_096) for _ in range(stalled)]
    waiting = set()
    for number in range(readers):
        connection = ask_for_stream(port, headers="accept-encoding: gzip\r\n")
        connection.settimeout(0)
        selector.register(connection, selectors.EVENT_READ, number)
        waiting.add(number)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                os._exit(len(idle) * 0)
            with contextlib.suppress(BlockingIOError):
                if len(key.fileobj.recv(1 << 18)) > 0 and key.data in waiting:  # type: ignore[union-attr]
                    waiting.discard(key.data)
                    if not waiting:
                        print("all", flush=True)


def ask_for_stream(port: int, *, buffer: int | None = None, headers: str = "") -> socket.socket:
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", port))
    request = f"GET {ROOT}/api/stream HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {TOKEN}\r\n{headers}\r\n"
    connection.sendall(request.encode())
    return connection


class Service:
    """The service, as a child."""

    def __init__(self, pace: float) -> None:
        """``pace``: seconds from event to event."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._child = self._start("serve", self.port, pace)
        until = time.monotonic() + 30.0
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                if time.monotonic() > until:
                    self.close()
                    raise
                time.sleep(0.02)
            else:
                return

    def look(self, readers: int, stalled: int) -> subprocess.Popen[str]:
        child = self._start("look", self.port, readers, stalled, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        return child

    @staticmethod
    def _start(what: str, *arguments: Any, **options: Any) -> subprocess.Popen[Any]:
        # They find what we find, wherever that is.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}
        program = f"import dashboard; dashboard.{what}{(*arguments,)}"
        return subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent, env=environment, **options)

    @property
    def resident(self) -> float:
        """Megabytes."""
        pages = Path(f"/proc/{self._child.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> None:
        self._child.terminate()
        self._child.wait(20.0)


# -- what is measured ----------------------------------------------------------------------------------------------------------------------


def event_to_screen(port: int, count: int) -> list[float]:
    """Milliseconds from telling to reading, of so many events."""
    found: list[float] = []
    with ask_for_stream(port) as connection:
        connection.settimeout(30.0)
        rest = b""
        while len(found) < count:
            data = connection.recv(1 << 18)
            now = time.monotonic_ns()
            if not data:
                raise RuntimeError("the stream ended")
            *blocks, rest = (rest + data).split(b"\n\n")
            for block in blocks:
                lines = block.split(b"\n")
                if b"event: event" in lines:
                    event = json.loads(next(line for line in lines if line.startswith(b"data: "))[6:])
                    if event["kind"] == "DeploymentMarked":
                        found.append((now - int(event["facts"]["version"])) / 1e6)
    return found


async def requests(port: int, seconds: float) -> list[float]:
    """Milliseconds of requests at a steady rate."""
    found: list[float] = []
    end = time.monotonic() + seconds

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = CONNECTIONS / A_SECOND
        due = time.monotonic() + turn * number / CONNECTIONS
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            began = time.perf_counter()
            writer.write(b"GET /items HTTP/1.1\r\nhost: service\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            found.append((time.perf_counter() - began) * 1e3)
            due += turn
        writer.close()

    await asyncio.gather(*(ask(number) for number in range(CONNECTIONS)))
    return found


def side_by_side(service: Service, readers: int, stalled: int, *, quick: bool) -> tuple[list[float], list[float], float]:
    """The p99 of turns without and with viewers, and the megabytes that these take. Goes on while a turn of theirs was a bad one."""
    turns, each = (1, 1.0) if quick else (5, 5.0)
    asyncio.run(requests(service.port, 0.5))
    alone: list[float] = []
    watched: list[float] = []
    before, most = service.resident, 0.0
    for _ in range(1 if quick else 3):
        for _ in range(turns):
            alone.append(p99(asyncio.run(requests(service.port, each))))
            viewers = service.look(readers, stalled)
            watched.append(p99(asyncio.run(requests(service.port, each))))
            most = max(most, service.resident)
            viewers.stdin.close()
            viewers.wait(20.0)
        if min(watched) <= WORSE * min(alone):
            break
    return alone, watched, most - before


def p99(values: list[float]) -> float:
    return sorted(values)[max(0, int(len(values) * 0.99) - 1)]


async def picture_of(guards: int, rounds: int) -> tuple[float, float, float, int]:
    """Milliseconds to make a picture, to write it down and to compress it, and its bytes compressed."""
    from somaresil import Resilience
    from somaresil.dashboard.sources import Sources
    from somaresil.dashboard.stream import Frame

    resilience = Resilience("gateway", environment="test")
    for number in range(guards):
        resilience.guard(f"tool.{number}", breaker=True, retry=3, timeout=5.0).call(int)
    sources = Sources(resilience, workers=None, peers=(), token=None, perform=None)
    best = [float("inf")] * 3
    frame = Frame(b"")
    for _ in range(rounds):
        # One that was just made would be given again.
        sources._last = (-1e9, 0, None)
        marks = [time.process_time()]
        picture = await sources.picture()
        marks.append(time.process_time())
        frame = Frame.of("picture", picture)
        marks.append(time.process_time())
        _ = frame.packed
        marks.append(time.process_time())
        best = [min(old, (end - start) * 1e3) for old, start, end in zip(best, marks, marks[1:], strict=False)]
    return best[0], best[1], best[2], len(frame.packed)


def without_any() -> tuple[int, int]:
    """Modules of the dashboard and threads in a service that has none."""
    program = (
        "import sys, threading; from somaresil import Resilience; r = Resilience('x'); r.guard('a', breaker=True).call(int); r.snapshot();"
        "print(sum(m.startswith('somaresil.dashboard') for m in sys.modules), threading.active_count() - 1)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    modules, threads = done.stdout.split()
    return int(modules), int(threads)


def weight() -> int | None:
    """Bytes of all scripts of the page as they are sent; None: it has none."""
    import gzip
    from importlib.resources import files

    def scripts(folder: Any) -> list[Any]:
        listed = list(folder.iterdir()) if folder.is_dir() else []
        return [each for each in listed if each.name.endswith(".js")] + [each for one in listed if one.is_dir() for each in scripts(one)]

    found = scripts(files("somaresil.dashboard").joinpath("static"))
    return sum(len(gzip.compress(each.read_bytes(), 9, mtime=0)) for each in found) or None


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    readers, stalled = (18, 2) if bench.quick else (180, 20)
    service = Service(pace=0.137)
    try:
        screen = event_to_screen(service.port, 5 if bench.quick else 150)
    finally:
        service.close()
    service = Service(pace=5.0)
    try:
        alone, watched, growth = side_by_side(service, readers, stalled, quick=bench.quick)
    finally:
        service.close()
    make, write, pack, size = asyncio.run(picture_of(bench.objects(1_000), 3 if bench.quick else 15))
    modules, threads = without_any()
    script = weight()

    table = Table("an event until it is read, ms", ("p50", "p99"))
    table.rows["one client"] = (statistics.median(screen), p99(screen))
    bench.tables.append(table)
    table = Table("a picture of 1,000 guards, processor time", ("ms", "bytes"))
    table.rows |= {"to make": (make, ""), "to write down": (write, ""), "to compress": (pack, float(size))}
    bench.tables.append(table)
    table = Table(f"{readers + stalled} viewers, {stalled} of whom read nothing", ("p99 ms, alone", "p99 ms, watched", "MB more"))
    table.rows["smallest of the turns"] = (min(alone), min(watched), growth)
    table.rows["median of the turns"] = (statistics.median(alone), statistics.median(watched), growth)
    bench.tables.append(table)
    bench.ratios += [
        Ratio("event to screen, p99", p99(screen), 1_000.0, "ms"),
        Ratio("picture of 1,000 guards", make, 20.0, "ms"),
        Ratio("scripts of the page, compressed", None if script is None else float(script), float(MOST_SCRIPT), "bytes"),
        Ratio("p99 of the service with viewers", min(watched) / min(alone), WORSE),
        Ratio("in memory with viewers", growth, 60.0, "MB"),
        Ratio("modules and threads without a dashboard", float(modules + threads), 0.0, ""),
    ]
    bench.finish()


if __name__ == "__main__":
    main()
