"""The stack as processes on loopback: twelve instances, a Redis and a Prometheus. On leaving the block all of it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from somaresil.clock import SystemClock
from somaresil.demo.processes import HOST, Fleet
from somaresil.demo.services.client import client
from somaresil.drill import DrillError
from somaresil.drill.report import Footprint
from somaresil.drill.topology import SESSION, Settings, instances

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PROGRAMS", "Processes", "absent"]

PROGRAMS: Final = {"redis-server": "redis-server", "prometheus": "prometheus"}
"""Programs that are needed, and the Debian packages that have them."""
START_SECONDS: Final = 60.0


def absent() -> list[str]:
    """Which of the programs are not on PATH."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class Processes:
    """A :class:`~somaresil.drill.run.Stack` of processes."""

    form = "processes"

    def __init__(self, seed: int) -> None:
        """Nothing is started."""
        self.clock = SystemClock()
        self._seed = seed
        self._stack = AsyncExitStack()
        self._fleet = Fleet()
        self.http: httpx.AsyncClient = client()
        self.settings = Settings(seed, "")
        self.places: dict[str, Any] = {}
        self._prometheus = ""

    async def __aenter__(self) -> Self:
        """Start everything, and wait until it answers. Raises :class:`DrillError` when something does not."""
        try:
            self._stack.enter_context(self._fleet)
            await self._stack.enter_async_context(self.http)
            self._start()
            await self._ready()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End every process."""
        await self._stack.aclose()

    def check(self) -> None:
        """Raise :class:`DrillError` with the last words of a process that has ended."""
        self._fleet.check()

    def _start(self) -> None:
        with ExitStack() as sockets:
            bound = {each.name: sockets.enter_context(_listening()) for each in instances()}
            urls = {name: f"http://{HOST}:{listening.getsockname()[1]}" for name, listening in bound.items()}
            redis = _free_port()
            self.settings = Settings(self._seed, secrets.token_urlsafe(32), urls, redis, str(self._fleet.folder))
            self.places = {"redis": redis}
            self._start_servers(redis)
            chaos = {"SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": str(self._fleet.folder / "kill-switch")}
            for name, listening in bound.items():
                command = [sys.executable, "-m", "somaresil.drill.serve", name, str(listening.fileno()), str(os.getpid())]
                self._fleet.start(name, command, {**self.settings.to_environment(), **chaos}, pass_fds=(listening.fileno(),))

    def _start_servers(self, redis: int) -> None:
        """Redis and Prometheus; they cannot take over a socket, so for a moment their port is free."""
        leash = [sys.executable, "-m", "somaresil.demo.leash", str(os.getpid())]
        folder = self._fleet.folder
        alone = ["--bind", HOST, "--port", str(redis), "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self._fleet.start("redis", [*leash, _found("redis-server"), *alone])
        targets = [
            {"targets": [url.removeprefix("http://")], "labels": {"name": name, "role": name.partition("-")[0]}}
            for name, url in self.settings.urls.items()
        ]
        jobs = [{"job_name": "drill", "static_configs": targets}]
        file = folder / "prometheus.yml"
        # JSON is YAML.
        file.write_text(json.dumps({"global": {"scrape_interval": "2s"}, "scrape_configs": jobs}), encoding="utf-8")
        port = _free_port()
        self._prometheus = f"http://{HOST}:{port}"
        arguments = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={HOST}:{port}"]
        self._fleet.start("prometheus", [*leash, _found("prometheus"), *arguments, "--log.level=warn"])

    async def _ready(self) -> None:
        wanted = [f"{url}/health" for url in self.settings.urls.values()] + [f"{self._prometheus}/-/ready"]
        try:
            async with asyncio.timeout(START_SECONDS):
                for url in wanted:
                    while not await self._answers(url):
                        self.check()
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise DrillError(f"the stack did not start within {START_SECONDS:g} s\n{self._fleet.last_words()}") from None

    async def _answers(self, url: str) -> bool:
        try:
            reply = await self.http.get(url, timeout=5.0)
        except httpx.TransportError:
            return False
        return reply.status_code == httpx.codes.OK

    async def kept(self) -> set[str]:
        """What is in Redis."""
        import redis.asyncio

        async with redis.asyncio.Redis(host=HOST, port=self.settings.redis, decode_responses=True) as client:
            members: Any = client.smembers(SESSION)
            return set(await members)

    async def footprint(self) -> dict[str, Footprint] | None:
        """As the kernel has it; None where it does not say."""
        pids = {name: Path(f"/proc/{pid}") for name, pid in self._fleet.pids.items() if name in self.settings.urls}
        if sys.platform != "linux":
            return None
        return {name: await asyncio.to_thread(_footprint, entry) for name, entry in pids.items()}

    async def counted(self) -> dict[tuple[str, str], float] | None:
        """Strikes by instance and kind, as Prometheus has scraped them."""
        query = "sum by (name, fault) (somaresil_faults_injected_total)"
        reply = await self.http.get(f"{self._prometheus}/api/v1/query", params={"query": query}, timeout=10.0)
        reply.raise_for_status()
        found = reply.json()["data"]["result"]
        return {(each["metric"]["name"], each["metric"]["fault"]): float(each["value"][1]) for each in found}


def _footprint(entry: Path) -> Footprint:
    status = dict(line.split(":", 1) for line in (entry / "status").read_text(encoding="utf-8").splitlines())
    descriptors = sum(1 for _ in (entry / "fd").iterdir())
    return Footprint(descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0]) << 10)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise DrillError(f"the program {program} is not on PATH; Debian: apt-get install {PROGRAMS[program]}")
    return path


def _listening() -> socket.socket:
    listening = socket.socket()
    listening.bind((HOST, 0))
    listening.listen(512)
    return listening


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
