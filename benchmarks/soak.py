"""A real service for minutes or an hour: does it keep anything, and does it count every request.

The service is uvicorn in a process of its own, with the middleware, a guard (breaker, retry, bulkhead, timeout), an objective, the
dashboard and metrics. A round is: viewers come (one of them never reads), requests that go well, fail and take too long, an experiment
begins and is ended, the breaker is tripped, metrics are scraped, the viewers leave, and so do the connections. Then the service is at
rest, and is asked what it holds: resident memory after a collection, descriptors, threads, tasks, and what it has counted.

Memory is judged by the slope of Theil and Sen over what was read after the warm-up, the first half; the interval is Sen's (95 %), of
medians of blocks, so that neighbours that resemble each other do not make it narrower than it is. It is said what a run of this length
can tell. Less than an hour cannot tell a megabyte an hour from what fills up once: half a megabyte in all is allowed for that, so ten
minutes tell some six megabytes an hour. From an hour on nothing is allowed for, and an interval that reaches over the limit has failed.

--plant leaks on purpose, in the service, and has to end with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from itertools import combinations, count
from pathlib import Path
from typing import Any

TOKEN = "benchmark-0123456789-abcdefghijklmn"
ROOT = "/_soma"
PLANTS = ("leak", "fd", "task", "thread")
LIMIT = 1.0
"""Megabytes an hour."""
ONCE = 0.5
"""Megabytes that may fill up once in less than an hour, after the warm-up."""
HOUR = 3_600.0
BLOCKS = 40
"""Medians of blocks of readings that a slope is found through, at most."""
SLACK = 2
"""Descriptors, threads and tasks by which a median at rest may differ: one of a connection that is just being closed is there or not."""
HELD = ("descriptors", "threads", "tasks")
CONNECTIONS = 4


# -- the service ---------------------------------------------------------------------------------------------------------------------------


def leaking(plant: str, kept: list[Any]) -> None:
    """Lose one thing."""
    if plant == "leak":
        kept.append(bytearray(20_000))
    elif plant == "fd":
        kept.append(os.open(os.devnull, os.O_RDONLY))
    elif plant == "task":
        kept.append(asyncio.ensure_future(asyncio.Event().wait()))
    elif plant == "thread" and len(kept) < 400:
        kept.append(threading.Thread(target=threading.Event().wait, daemon=True))
        kept[-1].start()


def held(resilience: Any) -> bytes:
    """What the process holds now, and has counted."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    calls = resilience.guards["work"].recorder.counts().cells
    counted: Counter[str] = Counter()
    for (kind, _), cells in calls.items():
        counted[kind.value] += sum(cells)
    return json.dumps(
        {
            "memory": int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6,
            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
            "counted": counted,
            "routes": sum(sum(map(sum, counts.cells.values())) for counts in resilience.snapshot().routes.values()),
            "live": sum(run.live for run in resilience.snapshot().experiments),
        }
    ).encode()


def made() -> tuple[Any, Any]:
    """What is soaked, and what its metrics are read from."""
    from prometheus_client import CollectorRegistry

    from somaresil import SLO, Bulkhead, CircuitBreaker, Resilience, Retry
    from somaresil.integrations import prometheus

    registry = CollectorRegistry()
    resilience = Resilience("soak", environment="test", seed=1)
    prometheus.install(resilience, registry=registry)
    resilience.slos.add(SLO("work", 90.0, timedelta(days=1)))
    resilience.chaos.opt_in()
    resilience.guard(
        "work",
        slo="work",
        breaker=CircuitBreaker(minimum_calls=50, open_duration=0.1),
        retry=Retry(attempts=2),
        bulkhead=Bulkhead(CONNECTIONS),
        timeout=0.03,
        idempotent=True,
    )
    return resilience, registry


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def disturb(resilience: Any) -> bytes:
    """An experiment begins and is ended, and the breaker is tripped."""
    from somaresil import ChaosConfig

    run = await resilience.chaos.start(ChaosConfig("error", "work", 0.5, 30.0, error=ConnectionError("injected")))
    await asyncio.sleep(0.1)
    resilience.chaos.stop(run)
    resilience.breaker("work").trip(0.05)
    return b"done"


def serve(port: int, plant: str) -> None:
    """In a process of its own."""
    import uvicorn
    from prometheus_client import generate_latest

    from somaresil import Rejected, ResilienceMiddleware
    from somaresil.dashboard import BearerToken

    resilience, registry = made()
    work = resilience.guards["work"]
    dashboard = resilience.dashboard(auth=BearerToken({"ops": TOKEN}))
    kept: list[Any] = []

    async def depend(kind: str) -> None:
        await asyncio.sleep(0.2 if kind == "slow" else 0.001)
        if kind == "fail":
            raise ConnectionError(kind)

    async def outcome(kind: str) -> bytes:
        leaking(plant, kept)
        try:
            await work.acall(depend, kind)
        except Rejected:
            return b"rejected"
        except Exception:
            return b"bad"
        return b"good"

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, await outcome(scope["query_string"].decode()))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == "/probe":
            await answer(send, held(resilience))
        elif path == "/metrics":
            await answer(send, generate_latest(registry))
        elif path == "/disturb":
            await answer(send, await disturb(resilience))
        elif path.startswith(ROOT):
            await dashboard(scope, receive, send)
        else:
            await guarded(scope, receive, send)

    guarded = ResilienceMiddleware(inner, resilience)
    uvicorn.run(app, port=port, log_level="critical", access_log=False, lifespan="off")


class Service:
    """The service, as a child."""

    def __init__(self, plant: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # It finds what we find, wherever that is.
        path = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        program = f"import soak; soak.serve({self.port}, {plant!r})"
        environment = {**os.environ, "PYTHONPATH": path, "SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": "off"}
        self._child = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent, env=environment)

    async def begin(self) -> None:
        until = time.monotonic() + 30.0
        while True:
            try:
                await asyncio.to_thread(lambda: socket.create_connection(("127.0.0.1", self.port), 1.0).close())
            except OSError:
                if time.monotonic() > until or self._child.poll() is not None:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    def close(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(10.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10.0)


# -- rounds --------------------------------------------------------------------------------------------------------------------------------


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nhost: service\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path}: {head.decode()}")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.split(b":")[1]))


async def once(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await ask(reader, writer, path)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def caller(port: int, number: int, seconds: float, seen: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    end = time.monotonic() + seconds
    for turn in count(number):
        if time.monotonic() > end:
            break
        kind = "slow" if turn % 23 == 0 else "fail" if turn % 7 == 0 else "good"
        seen[(await ask(reader, writer, f"/work?{kind}")).decode()] += 1
        await asyncio.sleep(0.01)
    writer.close()


async def viewer(port: int, *, reads: bool, done: asyncio.Event) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {ROOT}/api/stream HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode())
    left = asyncio.ensure_future(done.wait())
    while reads and not left.done():
        more = asyncio.ensure_future(reader.read(1 << 16))
        await asyncio.wait({more, left}, return_when=asyncio.FIRST_COMPLETED)
        if more.done() and not more.result():
            break
        more.cancel()
    await left
    # As a browser that is shut: without a farewell.
    writer.transport.abort()


async def round_of(port: int, seconds: float, seen: Counter[str]) -> None:
    done = asyncio.Event()
    viewers = [asyncio.ensure_future(viewer(port, reads=number > 0, done=done)) for number in range(3)]
    callers = [caller(port, number * 3, seconds, seen) for number in range(CONNECTIONS)]
    await asyncio.gather(*callers, once(port, "/disturb"), once(port, "/metrics"))
    done.set()
    await asyncio.gather(*viewers)


async def at_rest(port: int, least: dict[str, int]) -> dict[str, Any]:
    """What is held when all have left: asked until it is as little as it was before, or for a second."""
    until = time.monotonic() + 1.0
    while True:
        found: dict[str, Any] = json.loads(await once(port, "/probe"))
        if time.monotonic() > until or all(found[name] <= least.get(name, 0) for name in HELD):
            for name in HELD:
                least[name] = min(least.get(name, found[name]), found[name])
            return found
        await asyncio.sleep(0.05)


async def soak(service: Service, seconds: float, each: float) -> tuple[list[tuple[float, dict[str, Any]]], Counter[str], list[str], int]:
    """Readings by time, requests by outcome, miscounts, and what Prometheus was told at the end."""
    await service.begin()
    began = time.monotonic()
    readings: list[tuple[float, dict[str, Any]]] = []
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    least: dict[str, int] = {}
    while (now := time.monotonic() - began) < seconds:
        await round_of(service.port, each, seen)
        found = await at_rest(service.port, least)
        readings.append((time.monotonic() - began, found))
        if (problem := miscounted(found, seen)) and len(wrong) < 5:
            wrong.append(f"after {now:.0f} s: {problem}")
    told = sum(
        float(line.rpartition(" ")[2])
        for line in (await once(service.port, "/metrics")).decode().splitlines()
        if line.startswith("somaresil_calls_total{") and 'guard="work"' in line
    )
    return readings, seen, wrong, int(told)


# -- the verdict ---------------------------------------------------------------------------------------------------------------------------


def miscounted(found: dict[str, Any], seen: Counter[str]) -> str:
    """What was counted otherwise than it was answered; nothing is fine."""
    counted = Counter({name: number for name, number in found["counted"].items() if number})
    problem = "" if counted == seen else f"counted {dict(counted)} of {dict(seen)}"
    return problem or ("" if found["routes"] == seen.total() else f"the middleware counted {found['routes']} of {seen.total()}")


def slope(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The slope of Theil and Sen, and Sen's interval of 95 %."""
    size = max(1, math.ceil(len(points) / BLOCKS))
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    middles = [(statistics.median(at for at, _ in block), statistics.median(value for _, value in block)) for block in blocks]
    slopes = sorted((b - a) / (end - start) for (start, a), (end, b) in combinations(middles, 2))
    if not slopes:
        return 0.0, -math.inf, math.inf
    n = len(middles)
    reach = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = math.floor((len(slopes) - reach) / 2), math.ceil((len(slopes) + reach) / 2)
    return statistics.median(slopes), slopes[low] if low >= 0 else -math.inf, slopes[high] if high < len(slopes) else math.inf


def judge(readings: list[tuple[float, dict[str, Any]]], wrong: list[str]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong, and the evidence."""
    last = readings[-1][0]
    settled = [(at, found) for at, found in readings if at >= last / 2]
    hours = (settled[-1][0] - settled[0][0]) / HOUR
    each, low, high = (value * HOUR for value in slope([(at, found["memory"]) for at, found in settled]))
    whole = last >= HOUR * 0.99
    limit = LIMIT if whole else max(LIMIT, ONCE / hours if hours else math.inf)
    problems = list(wrong)
    if low > limit or (whole and high > limit):
        problems.append(f"memory grows by {each:.2f} MB/h (95 %: {low:.2f} to {high:.2f}), limit {limit:.2f}")
    evidence: dict[str, Any] = {
        "memory": [readings[0][1]["memory"], settled[0][1]["memory"], settled[-1][1]["memory"]],
        "slope": [each, low, high],
        "limit told": limit,
        "a megabyte an hour": "below" if high <= LIMIT else "above" if low > limit else "not resolved",
    }
    quarter = max(1, len(settled) // 4)
    for name in HELD:
        values = [found[name] for _, found in settled]
        before, after = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        evidence[name] = [before, after, max(values)]
        if after - before > SLACK:
            problems.append(f"{name} grow: {before:g} at rest after the warm-up, {after:g} at the end")
    if readings[-1][1]["live"]:
        problems.append(f"{readings[-1][1]['live']} experiments are live at rest")
    return problems, evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; an hour can tell a megabyte an hour")
    parser.add_argument("--quick", action="store_true", help="ten seconds: shows that everything runs and counts")
    parser.add_argument("--check", action="store_true", help="exit with 1 when something is kept or miscounted; always so with --plant")
    parser.add_argument("--json", action="store_true", help="print the evidence as JSON")
    parser.add_argument("--plant", choices=PLANTS, default="", help="leak this on purpose: it has to be found, and the exit code is 1")
    arguments = parser.parse_args()
    seconds, each = (10.0, 0.3) if arguments.quick else (arguments.minutes * 60.0, 2.0 if arguments.minutes >= 5 else 0.5)
    service = Service(arguments.plant)
    try:
        readings, seen, wrong, told = asyncio.run(soak(service, seconds, each))
    finally:
        service.close()
    if told != seen.total():
        wrong.append(f"Prometheus was told of {told} calls of {seen.total()}")
    problems, evidence = judge(readings, wrong)
    evidence |= {
        "requests": seen.total(),
        "outcomes": dict(seen),
        "told to Prometheus": told,
        "rounds": len(readings),
        "seconds": readings[-1][0],
    }
    if arguments.json:
        print(json.dumps({"problems": problems, **evidence}, indent=2, default=str))
    else:
        report(evidence)
        print(
            "NOT MET\n  " + "\n  ".join(problems) if problems else "nothing is kept, and everything is counted, as far as this run can tell"
        )
    if problems and (arguments.check or arguments.plant):
        sys.exit(1)


def report(evidence: dict[str, Any]) -> None:
    first, settled, last = evidence["memory"]
    each, low, high = evidence["slope"]
    print(f"{evidence['rounds']} rounds in {evidence['seconds']:.0f} s, {evidence['requests']:,} requests: {evidence['outcomes']}")
    print(f"told to Prometheus: {evidence['told to Prometheus']:,} calls")
    print(f"memory: {first:.1f} MB after the first round, {settled:.1f} after the warm-up, {last:.1f} at the end")
    print(
        f"slope: {each:.2f} MB/h, with 95 % between {low:.2f} and {high:.2f}; a run of this length tells {evidence['limit told']:.1f} MB/h"
    )
    print(f"a megabyte an hour: {evidence['a megabyte an hour']}")
    for name in HELD:
        before, after, most = evidence[name]
        print(f"{name} at rest: {before:g} after the warm-up, {after:g} at the end, {most:g} at most")


if __name__ == "__main__":
    main()
