"""Starts everything, says where it is, and keeps it going until it is cancelled."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from somaresil.demo import DemoError
from somaresil.demo.processes import HOST, Fleet
from somaresil.demo.services.client import client
from somaresil.load.arrivals import Stage
from somaresil.load.orders import Request
from somaresil.load.scenario import Scenario
from somaresil.load.session import Session

if TYPE_CHECKING:
    from somaresil.demo.live import LiveOptions
    from somaresil.demo.settings import LiveSettings

__all__ = ["Place", "View", "run", "scenario_of"]

START_SECONDS: Final = 60.0
LOOK_EVERY: Final = 0.5
SPELL: Final = 3_600.0
"""Seconds of one run of the load generator; then the next one begins, so that no book grows with the days."""
MOST_IN_FLIGHT: Final = 256
PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look."""

    url: str
    """The dashboard."""
    service: str
    """What the users of the gateway ask."""
    actor: str
    token: str
    """Made for this run."""
    processes: dict[str, int]
    """Process ids by name."""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "url": self.url,
            "service": self.service,
            "actor": self.actor,
            "token": self.token,
            "processes": self.processes,
        }


class View(Protocol):
    """Who tells the user."""

    def note(self, text: str) -> None:
        """Something happened."""
        ...

    def ready(self, place: Place) -> None:
        """Everything runs."""
        ...


async def run(options: LiveOptions, view: View) -> None:
    """Run until the time is over, or for ever. Raises :class:`DemoError`; whatever happens, nothing is left running."""
    async with AsyncExitStack() as stack:
        view.note(f"starting a gateway of {options.workers} processes, a worker, a model and a memory store on loopback ...")
        fleet = stack.enter_context(Fleet())
        http = await stack.enter_async_context(client())
        try:
            settings = fleet.start_live(options.seed, workers=options.workers, port=options.port)
        except OSError as error:
            raise DemoError(f"port {options.port} of {HOST} cannot be had: {error.strerror}. Choose another, or none") from None
        await _ready(fleet, http, settings, options.workers)
        view.ready(Place(f"{settings.gateway}/_soma/", settings.gateway, settings.actor, settings.token, fleet.pids))
        end = None if options.duration is None else time.monotonic() + options.duration
        load = asyncio.create_task(_offer(settings.gateway, options)) if options.load else None
        try:
            await _watch(fleet, view, load, end)
        finally:
            if load is not None:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)


async def _ready(fleet: Fleet, http: httpx.AsyncClient, settings: LiveSettings, workers: int) -> None:
    """Wait until every process answers."""
    deadline = time.monotonic() + START_SECONDS
    for address in (settings.model, settings.memory, settings.worker):
        await _answer(fleet, http, address, deadline)
    seen: set[str] = set()
    while len(seen) < workers:
        # Each request is dealt to one of them by chance.
        seen.add(await _answer(fleet, http, settings.gateway, deadline))


async def _answer(fleet: Fleet, http: httpx.AsyncClient, address: str, deadline: float) -> str:
    """Who has answered there."""
    while True:
        fleet.check()
        try:
            answer = await http.get(f"{address}/health", timeout=2.0)
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise DemoError(f"{address} did not answer within {START_SECONDS:.0f} s ({error})\n{fleet.last_words()}") from error
            await asyncio.sleep(0.05)
        else:
            if answer.status_code == httpx.codes.OK:
                return str(answer.headers.get("x-served-by", ""))
        if time.monotonic() > deadline:
            raise DemoError(f"the services were not ready within {START_SECONDS:.0f} s\n{fleet.last_words()}")


def scenario_of(service: str, rate: float, seed: int) -> Scenario:
    """The load: questions, streams and a few files."""
    identity = {"x-request-id": "{id}"}
    requests = (
        Request(
            "message",
            "/v1/session/message",
            weight=7.0,
            method="POST",
            headers=identity,
            json={"session": "{session}", "text": "question {n}"},
            timeout=PATIENCE,
        ),
        Request(
            "stream",
            "/v1/llm/invoke/stream?prompt=question",
            weight=2.5,
            kind="sse",
            headers=identity,
            end="done",
            timeout=PATIENCE,
        ),
        Request("upload", "/v1/session/upload?session=s1", weight=0.5, method="POST", body="a file " * 500, timeout=PATIENCE),
    )
    return Scenario("live", service, requests, (Stage(SPELL, rate),), seed=seed, max_in_flight=MOST_IN_FLIGHT)


async def _offer(service: str, options: LiveOptions) -> None:
    spell = 0
    while True:
        await Session(scenario_of(service, options.rate, abs(options.seed) + spell)).run()
        spell += 1


async def _watch(fleet: Fleet, view: View, load: asyncio.Task[None] | None, end: float | None) -> None:
    """Until the end. A process of the gateway may be missing: what the dashboard makes of that is worth a look."""
    while end is None or time.monotonic() < end:
        if load is not None and load.done():
            load.result()
        for name, code in fleet.ended().items():
            if not name.startswith("gateway-"):
                raise DemoError(f"the {name} process ended with code {code}")
            view.note(f"{name} ended with code {code}; the others go on without it")
        if not any(name.startswith("gateway-") for name in fleet.pids):
            raise DemoError("every process of the gateway has ended")
        await asyncio.sleep(LOOK_EVERY if end is None else max(0.0, min(LOOK_EVERY, end - time.monotonic())))
