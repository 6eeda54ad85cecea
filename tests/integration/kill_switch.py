"""The trial of the kill switch: real workers, every request struck, a bounded load, and one stop from outside."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from somaresil.chaos.killswitch import stop_host
from tests.integration.servers import HOST, Server, free_port

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "kill-switch"
APP = "tests.integration.kill_switch_app:app"
SERVERS = {
    "gunicorn": ("gunicorn", APP, "-k", "uvicorn.workers.UvicornWorker", "--graceful-timeout", "2", "--log-level", "error"),
    "uvicorn": ("uvicorn", APP, "--log-level", "error", "--timeout-graceful-shutdown", "2"),
}
_PATIENCE = 60.0


@dataclass
class Found:
    """What the clients saw. Times are seconds after the stop was said."""

    pids: set[int] = field(default_factory=set)
    struck: int = 0
    good_after: int = 0
    last_fault: float = float("-inf")
    last_release: float = float("-inf")
    failed: int = 0
    rate: float = 0.0


def trial(server: str, folder: Path, *, workers: int = 4, rate: float = 500.0, before: float = 3.0, after: float = 2.0) -> Found:
    """Run it once: `before` seconds of faults, then the stop, then `after` seconds more of the same load."""
    switch = folder / "trial.switch"
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", *SERVERS[server], "--workers", str(workers)]
    command += ["--bind", f"{HOST}:{port}"] if server == "gunicorn" else ["--host", HOST, "--port", str(port)]
    environment = os.environ | {
        "SOMARESIL_CHAOS": "1",
        "SOMARESIL_CHAOS_SWITCH": str(switch),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    with Server(command, port=port, folder=folder, ready="/error", environment=environment):
        return asyncio.run(_load(port, switch, workers, rate, before, after))


async def _load(port: int, switch: Path, workers: int, rate: float, before: float, after: float) -> Found:
    found = Found()
    stopped: list[float] = []
    clients, held = 10 * workers, 4 * workers
    begun = time.monotonic()
    while len(found.pids) < workers:
        # Which worker takes a connection is up to the system: ask until each has answered.
        await asyncio.gather(*(_once(port, found) for _ in range(workers)))
        if time.monotonic() - begun > _PATIENCE:
            raise TimeoutError(f"only {len(found.pids)} of {workers} workers answer")
    waiting = [asyncio.create_task(_held(port, found, stopped)) for _ in range(held)]
    begun = time.monotonic()
    asked = found.struck
    running = [asyncio.create_task(_client(port, found, stopped, clients / rate, begun + before + after)) for _ in range(clients)]
    await asyncio.sleep(before)
    found.rate = (found.struck - asked) / (time.monotonic() - begun)
    stopped.append(time.monotonic())
    stop_host(SERVICE, path=switch)
    await asyncio.gather(*running)
    done, late = await asyncio.wait(waiting, timeout=10.0)
    found.failed += len(late) + sum(task.exception() is not None for task in done)
    for task in late:
        task.cancel()
    return found


async def _once(port: int, found: Found) -> None:
    _note(found, await _ask(*await asyncio.open_connection(HOST, port), "/error", close=True), [])


async def _client(port: int, found: Found, stopped: list[float], pause: float, until: float) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    due = time.monotonic()
    try:
        while time.monotonic() < until:
            _note(found, await _ask(reader, writer, "/error"), stopped)
            due = max(due + pause, time.monotonic() - pause)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    except (OSError, asyncio.IncompleteReadError):
        found.failed += 1
    finally:
        writer.close()


async def _held(port: int, found: Found, stopped: list[float]) -> None:
    await _ask(*await asyncio.open_connection(HOST, port), "/slow", close=True)
    found.last_release = max(found.last_release, time.monotonic() - stopped[0])


async def _ask(reader: Any, writer: Any, path: str, *, close: bool = False) -> tuple[str, int, float]:
    ending = "close" if close else "keep-alive"
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: {ending}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    said, pid, at = (await reader.readexactly(length)).decode().split()
    if close:
        writer.close()
    return said, int(pid), float(at)


def _note(found: Found, answer: tuple[str, int, float], stopped: list[float]) -> None:
    said, pid, at = answer
    found.pids.add(pid)
    if said == "injected":
        found.struck += 1
        if stopped:
            found.last_fault = max(found.last_fault, at - stopped[0])
    elif stopped:
        found.good_after += 1
    else:
        found.failed += 1
