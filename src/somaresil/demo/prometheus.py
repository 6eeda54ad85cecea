"""A Prometheus server beside the gateway, so that its arithmetic can be compared with ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from somaresil.demo import DemoError
from somaresil.demo.processes import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.demo.processes import Child, Fleet

__all__ = ["BINARY", "WINDOW", "Comparison", "PrometheusServer", "find"]

BINARY: Final = "prometheus"
WINDOW: Final = 300
"""Seconds that both sides look back: the shortest window that an objective answers, and longer than a demo by default."""
_START_SECONDS: Final = 20.0
_CATCH_UP_SECONDS: Final = 10.0
_TRIES: Final = 3


def find() -> str:
    """The path of the binary. Raises :class:`DemoError` when it is not installed."""
    path = shutil.which(BINARY)
    if path is None:
        raise DemoError(
            f"--prometheus needs the program `{BINARY}`, and it is not on PATH. "
            "Install it (Debian: `apt-get install prometheus`) or leave the option out."
        )
    return path


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two burn rates of one objective over the same window; None: no event."""

    slo: str
    window: int
    in_process: float | None
    promql: float | None
    query: str

    @property
    def difference(self) -> float | None:
        """PromQL minus ours; None when either knows nothing."""
        return None if self.in_process is None or self.promql is None else self.promql - self.in_process

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "difference": self.difference}


class PrometheusServer:
    """One server, scraping the gateway every second. It ends with the fleet."""

    def __init__(self, fleet: Fleet, http: httpx.AsyncClient, gateway: str) -> None:
        """Nothing is started. Raises :class:`DemoError` when the program is not installed."""
        self._binary = find()
        self._fleet = fleet
        self._http = http
        self._gateway = gateway
        self._child: Child | None = None
        self._launched = 0
        self.url = ""
        """Its address, once it was launched."""

    def launch(self) -> None:
        """Start the process."""
        self._launched += 1
        folder = self._fleet.folder
        file = folder / "prometheus.yml"
        job = {"job_name": "gateway", "static_configs": [{"targets": [self._gateway.removeprefix("http://")]}]}
        # JSON is YAML.
        file.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}), encoding="utf-8")
        port = _free_port()
        arguments = [
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / f'prometheus-{self._launched}'}",
            f"--web.listen-address={HOST}:{port}",
            "--log.level=warn",
        ]
        leash = [sys.executable, "-m", "somaresil.demo.leash", str(os.getpid())]
        self._child = self._fleet.start("prometheus", [*leash, self._binary, *arguments])
        self.url = f"http://{HOST}:{port}"

    async def ready(self) -> None:
        """Wait for its first look at the gateway, for a rise before that is invisible to it. Raises :class:`DemoError` when none comes."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._has_looked():
                    self._relaunch_if_ended()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            words = self._fleet.last_words()
            raise DemoError(f"prometheus saw nothing of the gateway within {_START_SECONDS:g} s\n{words}") from None

    def _relaunch_if_ended(self) -> None:
        # It cannot take over a socket, so between choosing a port and using it somebody else may: then another one is tried.
        if self._child is not None and self._child.process.poll() is not None and self._launched < _TRIES:
            self._fleet.stop(self._child)
            self.launch()
        self._fleet.check()

    async def _has_looked(self) -> bool:
        try:
            ready = await self._http.get(f"{self.url}/-/ready", timeout=2.0)
        except httpx.TransportError:
            return False
        return ready.status_code == httpx.codes.OK and bool(await self._value("count(somaresil_sli_events_total)"))

    async def burn(self, slo: str, target_percentage: float) -> tuple[float | None, str]:
        """The burn rate as PromQL computes it, and the query."""
        bad = f'sum(increase(somaresil_sli_events_total{{slo="{slo}",outcome="bad"}}[{WINDOW}s]))'
        total = f'sum(increase(somaresil_sli_events_total{{slo="{slo}"}}[{WINDOW}s]))'
        query = f"{bad} / {total} / (1 - {target_percentage} / 100)"
        return await self._value(query), query

    async def compare(self, budgets: Mapping[str, Mapping[str, Any]]) -> list[Comparison]:
        """Burn rates side by side, once the server has scraped the counts in ``budgets``. Traffic must have ended when these were read."""
        try:
            await self._caught_up(budgets)
        except TimeoutError:
            raise DemoError(f"prometheus had not scraped the last counts of the gateway after {_CATCH_UP_SECONDS:g} s") from None
        found = []
        for slo, budget in budgets.items():
            promql, query = await self.burn(slo, budget["target"])
            found.append(Comparison(slo, WINDOW, budget["burn_5m"], promql, query))
        return found

    async def _caught_up(self, budgets: Mapping[str, Mapping[str, Any]]) -> None:
        async with asyncio.timeout(_CATCH_UP_SECONDS):
            for slo, budget in budgets.items():
                seen = -1.0
                while seen < budget["good"] + budget["bad"]:
                    seen = await self._value(f'sum(somaresil_sli_events_total{{slo="{slo}"}})') or 0.0
                    await asyncio.sleep(0.1)

    async def _value(self, query: str) -> float | None:
        reply = await self._http.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=5.0)
        reply.raise_for_status()
        result = reply.json()["data"]["result"]
        if not result:
            return None
        value = float(result[0]["value"][1])
        # 0 / 0 is NaN there: no event.
        return None if value != value else value  # noqa: PLR0124 - the test for NaN


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
