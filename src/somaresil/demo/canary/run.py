"""Deploys one version after the other, under load all the time, and watches what the canary makes of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from somaresil import __version__
from somaresil.demo import DemoError, nginx
from somaresil.demo.canary.acts import ACTS, BAKE_SHARE, USUAL_ERRORS
from somaresil.demo.canary.report import CanaryReport, Point, result_of, side_of
from somaresil.demo.load import Load
from somaresil.demo.processes import Fleet
from somaresil.demo.services.client import client
from somaresil.demo.services.pilot import ALPHA, LIMIT
from somaresil.demo.services.steer import TOKEN
from somaresil.demo.settings import CanarySettings

if TYPE_CHECKING:
    from somaresil.demo.canary import CanaryOptions
    from somaresil.demo.canary.acts import Act
    from somaresil.demo.canary.report import ActResult, Side

__all__ = ["Moment", "View", "run"]

ROUTERS: Final = {
    "gateway": "the gateway process, somaresil.canary_app.CanaryApp",
    "nginx": "nginx, somaresil.integrations.nginx.NginxWeights",
}
CONTROL: Final = "1.4.2"
START_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 10.0
LOOK_EVERY: Final = 0.1
AFTERWARDS: Final = 1.0
"""Seconds of load after a decision: to see where requests go then, and for those that were under way."""
SEEN_FOR: Final = 5.0
NGINX_SHARE: Final = 0.4
"""Of the whole duration, for one version at most: what versions tell is a second old, and each step is a reload."""
RELOAD_SECONDS: Final = 1.5
"""What nginx may take from a decision until nothing goes to the candidate any more."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is seen at one moment, to be shown."""

    act: Act
    elapsed: float
    longest: float
    phase: str
    weight: float
    reason: str
    latest: Point | None
    threshold: float
    candidate: Side
    control: Side
    """The last five seconds."""
    in_flight: int


class View(Protocol):
    """Who shows it while it runs."""

    def note(self, text: str) -> None:
        """Something happened."""
        ...

    def act(self, act: Act) -> None:
        """A version is deployed."""
        ...

    def moment(self, moment: Moment) -> None:
        """Ten times a second."""
        ...

    def ended(self, result: ActResult) -> None:
        """A version is done with."""
        ...


async def run(options: CanaryOptions, view: View) -> CanaryReport:
    """Run it all. Raises :class:`DemoError` when it cannot be run to its end; whatever happens, nothing is left running."""
    async with AsyncExitStack() as stack:
        view.note(f"starting version {CONTROL} and a gateway on loopback ...")
        fleet = stack.enter_context(Fleet())
        http = await stack.enter_async_context(client())
        places = {name: fleet.listen() for name in ("control", "candidate", "gateway")}
        settings = CanarySettings(
            seed=options.seed,
            # As long as the evidence apps ask for.
            token=secrets.token_urlsafe(32),
            control=places["control"][1],
            candidate=places["candidate"][1],
            bake=options.duration * BAKE_SHARE,
            version=CONTROL,
            errors=USUAL_ERRORS,
        )
        # With nginx the third of the addresses is that of the process which steers it.
        gateway = pilot = places["gateway"][1]
        if options.router == "nginx":
            binary = nginx.find()
            gateway, probe = await asyncio.to_thread(nginx.prepare, binary, fleet.folder, settings.control, settings.candidate)
            settings = replace(settings, role="control", nginx=binary, folder=str(fleet.folder), probe=probe)
            told = settings.to_environment() | {TOKEN: settings.token}
            fleet.serve("steer", "steering", places["gateway"][0], told)
            command = [sys.executable, "-m", "somaresil.demo.leash", str(os.getpid()), *nginx.run_command(binary, fleet.folder)]
            fleet.start("nginx", command)
        else:
            fleet.serve("split", "gateway", places["gateway"][0], settings.to_environment())
        fleet.serve("version", "control", places["control"][0], settings.to_environment())
        for address in (settings.control, pilot, gateway):
            await _healthy(fleet, http, address)
        view.note(f"gateway {gateway}, version {CONTROL} {settings.control}, new versions {settings.candidate}")
        load = await stack.enter_async_context(Load(gateway, rate=options.rate, seed=options.seed))
        play = _Play(options, view, fleet, http, settings, load, pilot)
        started = time.monotonic()
        acts: list[ActResult] = []
        for act in ACTS:
            acts.append(await play.act(act, places["candidate"][0]))
            if acts[-1].outcome == "complete":
                # It has all of the traffic now: a bad one as well, and then there is nothing more to show.
                break
        await load.stop()
        behind = max((sample.began - sample.due for sample in load.samples), default=0.0)
        return CanaryReport(
            __version__,
            options.seed,
            options.rate,
            time.monotonic() - started,
            ROUTERS[options.router],
            1.0 / ALPHA,
            LIMIT,
            tuple(acts),
            behind,
        )


class _Play:
    """The state of one run."""

    def __init__(
        self,
        options: CanaryOptions,
        view: View,
        fleet: Fleet,
        http: httpx.AsyncClient,
        settings: CanarySettings,
        load: Load,
        pilot: str,
    ) -> None:
        self._by_nginx = options.router == "nginx"
        self._longest = options.duration * (NGINX_SHARE if self._by_nginx else 1.0 / len(ACTS))
        self._afterwards = AFTERWARDS + (RELOAD_SECONDS if self._by_nginx else 0.0)
        self._view = view
        self._fleet = fleet
        self._http = http
        self._settings = settings
        self._load = load
        self._url = f"{pilot}/_soma/canary"
        self._headers = {"authorization": f"Bearer {settings.token}"}

    async def act(self, act: Act, listening: Any) -> ActResult:
        """Deploy a version, and see what becomes of it."""
        self._view.act(act)
        told = replace(self._settings, version=act.version, errors=act.errors, slow=act.slow, cut=act.cut)
        if self._by_nginx:
            told = replace(told, role="candidate")
        child = self._fleet.serve("version", f"version {act.version}", listening, told.to_environment())
        await _healthy(self._fleet, self._http, self._settings.candidate)
        points: list[dict[str, float]] = []
        began = time.monotonic()
        state = await self._ask("POST", {"version": act.version})
        started = float(state["moves"][0]["at"])
        decided: float | None = None
        while decided is None or time.monotonic() < decided + self._afterwards:
            self._fleet.check()
            self._load.check()
            state = await self._look(points)
            now = time.monotonic()
            self._show(act, state, points, started, now)
            if decided is None and (state["over"] or now > began + self._longest - self._afterwards):
                decided = now
            await asyncio.sleep(LOOK_EVERY)
        # What was begun until here belongs to this version, however long its answers take.
        ended = time.monotonic()
        await self._load.answered(ended)
        state = await self._look(points)
        samples = [sample for sample in self._load.samples if started <= sample.began <= ended]
        result = result_of(act, samples, state, points, started=started, limit=LIMIT, reload=RELOAD_SECONDS if self._by_nginx else None)
        self._view.ended(result)
        if result.outcome != "complete":
            if not state["over"]:
                await self._ask("POST", {"roll_back": "its time is up"})
            await asyncio.to_thread(self._fleet.stop, child)
        return result

    async def _look(self, points: list[dict[str, float]]) -> dict[str, Any]:
        state = await self._ask("GET", None, {"from": str(len(points))})
        points += state.pop("points")
        return state

    def _show(self, act: Act, state: dict[str, Any], points: list[dict[str, float]], started: float, now: float) -> None:
        recent = self._load.ended_since(max(started, now - SEEN_FOR))
        candidate, control = (side_of([one for one in recent if one.served_by == name], LIMIT) for name in ("candidate", "control"))
        latest = None
        if points:
            last = points[-1]
            latest = Point(last["at"], int(last["candidate"]), int(last["bad"]), last["worse"], last["too_bad"], last["weight"])
        self._view.moment(
            Moment(
                act=act,
                elapsed=now - started,
                longest=self._longest,
                phase=state["phase"],
                weight=state["weight"],
                reason=state["reason"],
                latest=latest,
                threshold=1.0 / ALPHA,
                candidate=candidate,
                control=control,
                in_flight=self._load.in_flight,
            )
        )

    async def _ask(self, method: str, body: dict[str, Any] | None, query: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            reply = await self._http.request(method, self._url, json=body, params=query, headers=self._headers, timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            self._fleet.check()
            raise DemoError(f"{method} {self._url} failed: {str(error) or type(error).__name__}") from error
        if reply.status_code != httpx.codes.OK:
            raise DemoError(f"{method} {self._url} answered {reply.status_code}: {reply.text}\n{self._fleet.last_words()}")
        answer: dict[str, Any] = reply.json()
        return answer


async def _healthy(fleet: Fleet, http: httpx.AsyncClient, address: str) -> None:
    """Wait until a service answers. Where the socket is bound already, the question waits in its backlog until somebody is there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        asked = asyncio.create_task(http.get(f"{address}/health", timeout=START_SECONDS))
        try:
            while not (await asyncio.wait([asked], timeout=LOOK_EVERY))[0]:
                fleet.check()
            asked.result().raise_for_status()
        except httpx.HTTPError as error:
            fleet.check()
            # nginx binds its port itself.
            if not isinstance(error, httpx.ConnectError) or time.monotonic() > deadline:
                raise DemoError(f"{address} did not start: {str(error) or type(error).__name__}") from error
            await asyncio.sleep(LOOK_EVERY)
        else:
            return
        finally:
            asked.cancel()
