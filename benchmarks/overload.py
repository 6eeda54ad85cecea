"""A real service at three times its capacity, with an adaptive limit that sheds by priority and without any limit.

uvicorn in a process of its own serves requests that each need one of six workers for a tenth of a second: sixty a second is all that it
can do. A client sends 180 a second at fixed times, whatever comes back (an open loop: that is how the world behaves), and gives up on each
after a second. A fifth of the requests are critical, two fifths normal, two fifths low; ``x-priority`` says which. Counted are answers
with 200 in time, after a second of warming up.

Without a limit the queue grows for as long as the load lasts, and nearly everything is answered after its client has gone. With one, those
who are too much are told so at once, and what is let in is answered in time. These figures need a machine that has
time for both sides.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import Benchmark, Ratio, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("somaresil", "uvicorn")
HOST = "127.0.0.1"
WORKERS = 6
WORK = 0.1
CAPACITY = WORKERS / WORK
RATE = 3.0 * CAPACITY
PATIENCE = 1.0
WARMING_UP = 1.0
MIX = ("critical", "normal", "low", "normal", "low")
VARIABLE = "SOMARESIL_BENCHMARK_LIMIT"


def service() -> Any:
    """The application; the environment says whether there is a limit."""
    from somaresil import AdaptiveLimit, Resilience, ResilienceMiddleware

    workers = asyncio.Semaphore(WORKERS)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != "/health":
            async with workers:
                await asyncio.sleep(WORK)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    limit = AdaptiveLimit(initial=2 * WORKERS, max_waiting=WORKERS, max_wait=PATIENCE / 4) if os.environ.get(VARIABLE) else None
    return ResilienceMiddleware(app, Resilience("bench"), limit=limit, priority="x-priority")


@contextmanager
def serving(*, limited: bool) -> Iterator[int]:
    """The service in a process of its own; its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "overload:service", "--factory", "--host", HOST, "--port", str(port), "--lifespan", "off"]
    environment = {**os.environ, VARIABLE: "1" if limited else ""}
    process = subprocess.Popen(
        [*command, "--no-access-log", "--log-level", "critical"], cwd=Path(__file__).parent, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30.0
        while not asyncio.run(ask(port, "/health", "normal"))[0]:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service does not start")
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


async def ask(port: int, path: str, level: str) -> tuple[int, float]:
    """The status of one answer, 0 when there was none in time; and how long that took."""
    began = time.monotonic()
    status, writer = 0, None
    with suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nx-priority: {level}\r\nconnection: close\r\n\r\n".encode())
            status = int((await reader.readline()).split()[1])
            await reader.read()
    if writer is not None:
        writer.close()
    return status, time.monotonic() - began


async def load(port: int, seconds: float) -> dict[str, Counter[str]]:
    """How the requests of each class ended that were sent after warming up."""
    ends: dict[str, Counter[str]] = {level: Counter() for level in MIX}
    loop = asyncio.get_running_loop()

    async def one(level: str, *, counted: bool) -> None:
        status, took = await ask(port, "/", level)
        if counted:
            ends[level]["good" if status == 200 and took <= PATIENCE else "told at once" if status == 503 else "too late"] += 1

    begin, tasks = loop.time(), []
    for number in range(int(seconds * RATE)):
        at = number / RATE
        await asyncio.sleep(max(0.0, begin + at - loop.time()))
        tasks.append(asyncio.create_task(one(MIX[number % len(MIX)], counted=at >= WARMING_UP)))
    await asyncio.gather(*tasks)
    return ends


def run(bench: Benchmark, name: str, seconds: float, *, limited: bool) -> tuple[float, float]:
    """The share of critical requests that were answered in time, and all answers in time as a share of what can be done."""
    with serving(limited=limited) as port:
        ends = asyncio.run(load(port, seconds))
    table = Table(name, ("good", "told at once", "too late"))
    for level, found in ends.items():
        table.rows[level] = tuple(float(found[end]) for end in table.columns)
    bench.tables.append(table)
    good = sum(found["good"] for found in ends.values())
    return ends["critical"]["good"] / max(1, ends["critical"].total()), good / ((seconds - WARMING_UP) * CAPACITY)


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    seconds = 2.0 if bench.quick else 6.0
    critical, goodput = run(bench, "adaptive limit, by priority", seconds, limited=True)
    _, collapsed = run(bench, "no limit", seconds, limited=False)
    bench.ratios += [
        Ratio("critical requests that were not served in time", 1.0 - critical, 0.01, "of them"),
        Ratio("goodput that is lost", max(0.0, 1.0 - goodput), 0.10, "of capacity"),
        Ratio("goodput without a limit", collapsed, 0.5, "of capacity"),
    ]
    bench.finish()


if __name__ == "__main__":
    main()
