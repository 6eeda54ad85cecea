"""The game day: steady state, latency, errors, a tripped breaker, the kill switch, recovery. Under load all the time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import httpx

from somaresil import __version__
from somaresil.demo import DemoError
from somaresil.demo.load import Load
from somaresil.demo.processes import ROLES, Fleet
from somaresil.demo.prometheus import PrometheusServer
from somaresil.demo.report import Absorbed, Budget, Chaos, Failure, Incident, Memory, PhaseResult, Report
from somaresil.demo.services.client import client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from somaresil.demo import Options
    from somaresil.demo.load import Figures, Sample
    from somaresil.demo.settings import Settings

__all__ = ["PHASES", "Moment", "Phase", "View", "run"]

START_SECONDS: Final = 30.0
"""How long the services may take to start."""
ANSWER_SECONDS: Final = 10.0
"""How long an answer to the driver's own questions may take."""
RECOVERY_GRACE: Final = 15.0
"""How much longer than planned the recovery may take, with the load going on, until every circuit is closed and the outbox is empty."""
LOOK_EVERY: Final = 0.5
_LOOKS: Final = 20
_BETWEEN_LOOKS: Final = 0.05
LONGER_THAN_THE_TIMEOUT: Final = 1_500.0
"""Milliseconds: an attempt that is delayed by this much is given up by the guard after 1 s, and tried again."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One experiment, as the operator of the gateway asks for it."""

    action: str
    component: str
    arguments: Mapping[str, float] = field(default_factory=dict)
    until_stopped: bool = False
    """Its lease would outlast the drill, so only the kill switch ends it in time; otherwise the lease ends with the phase."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase, and what is done when it begins."""

    name: str
    share: float
    """Of the whole duration."""
    says: str
    """What to watch, for the person before the screen."""
    attacks: tuple[Attack, ...] = ()
    stops: bool = False
    """Whether it begins with the kill switch."""


PHASES: Final = (
    Phase("steady", 0.20, "nothing is done to the service; the model fails one call in a hundred by itself"),
    Phase(
        "latency",
        0.20,
        "a quarter of the calls to worker and model hang for 1.5 s: given up after 1 s and tried again",
        (
            Attack("inject_latency", "worker.call", {"delay_ms": LONGER_THAN_THE_TIMEOUT, "rate": 0.25}),
            Attack("inject_latency", "llm.stream", {"delay_ms": LONGER_THAN_THE_TIMEOUT, "rate": 0.25}),
        ),
    ),
    Phase(
        "errors",
        0.20,
        "3 in 10 calls to worker and model fail, 8 in 10 memory writes: that circuit opens, writes wait in an outbox",
        (
            Attack("inject_errors", "worker.call", {"rate": 0.3}),
            Attack("inject_errors", "llm.stream", {"rate": 0.3}),
            Attack("inject_errors", "memory.write", {"rate": 0.8}, until_stopped=True),
        ),
    ),
    Phase(
        "trip",
        0.15,
        "the circuit to the worker is pulled open, fallbacks answer; memory goes on failing",
        (Attack("trip_circuit_breaker", "worker.call", until_stopped=True),),
    ),
    Phase("stop", 0.05, "the kill switch ends every experiment at once", stops=True),
    Phase("recovery", 0.20, "circuits probe and close, the outbox is written"),
)
"""The drill."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is seen at one moment of the drill, to be shown."""

    phase: Phase
    elapsed: float
    duration: float
    seen: Figures
    in_flight: int
    gateway: dict[str, Any]
    worker: dict[str, Any]


class View(Protocol):
    """Who shows the drill while it runs."""

    def note(self, text: str) -> None:
        """Something happened."""
        ...

    def phase(self, phase: Phase) -> None:
        """A phase begins."""
        ...

    def moment(self, moment: Moment) -> None:
        """Twice a second."""
        ...

    def ended(self, result: PhaseResult) -> None:
        """A phase is over, and its last requests may still be running."""
        ...


async def run(options: Options, view: View) -> Report:
    """Run the whole drill. Raises :class:`DemoError` when it cannot be run to its end; whatever happens, nothing is left running."""
    async with AsyncExitStack() as stack:
        view.note("starting a gateway, a worker, a model and a memory store on loopback ...")
        fleet = stack.enter_context(Fleet())
        http = await stack.enter_async_context(client())
        settings = fleet.start_services(options.seed)
        server = PrometheusServer(fleet, http, settings.gateway) if options.prometheus else None
        if server is not None:
            # It takes some seconds until its first scrape, so it begins while the services start.
            server.launch()
        await _ready(fleet, http, settings)
        view.note(f"gateway {settings.gateway}, worker {settings.worker}, model {settings.model}, memory {settings.memory}")
        if server is not None:
            await server.ready()
            view.note(f"prometheus {server.url} scrapes {settings.gateway}/metrics every second")
        load = await stack.enter_async_context(Load(settings.gateway, rate=options.rate, seed=options.seed))
        return await _Drill(options, view, fleet, http, settings, load).run(server)


class _Span(NamedTuple):
    phase: Phase
    begin: float
    end: float
    injected: int


class _Drill:
    """The state of one run."""

    def __init__(self, options: Options, view: View, fleet: Fleet, http: httpx.AsyncClient, settings: Settings, load: Load) -> None:
        self._options = options
        self._view = view
        self._fleet = fleet
        self._http = http
        self._settings = settings
        self._load = load
        self._token = {"authorization": f"Bearer {settings.token}"}
        self._started = time.monotonic()
        self._spans: list[_Span] = []
        self._stop_milliseconds = 0.0
        self._injected_at_stop = 0

    async def run(self, server: PrometheusServer | None) -> Report:
        before: tuple[dict[str, Any], dict[str, Any]] | None = None
        for phase in PHASES:
            gateway, worker = await self._play(phase)
            before = before or (gateway, worker)
        await self._load.stop()
        gateway, worker = await self._states()
        touched = await self._ask("GET", "/_soma/touched")
        stored = await self._ask("GET", f"{self._settings.memory}/keys")
        compared = None
        if server is not None:
            compared = tuple(c.as_dict() for c in await server.compare(gateway["budgets"]))
        samples = self._load.samples
        went_well = {sample.request: sample.failure is None for sample in samples}
        by_request: dict[str, int] = touched["by_request"]
        known = {request: count for request, count in by_request.items() if request in went_well}
        guards = gateway["guards"].values()
        keys = set(stored["keys"])
        return Report(
            version=__version__,
            seed=self._options.seed,
            rate=self._options.rate,
            seconds=time.monotonic() - self._started,
            phases=tuple(self._result(span) for span in self._spans),
            failures=_failures(samples, by_request),
            chaos=Chaos(tuple(gateway["experiments"]), self._stop_milliseconds, _injected(gateway) - self._injected_at_stop),
            absorbed=Absorbed(
                touched=sum(guard["touched"] for guard in guards),
                touched_good=sum(guard["touched_good"] for guard in guards),
                by_ending=touched["by_ending"],
                for_clients=sum(known.values()),
                for_clients_good=sum(count for request, count in known.items() if went_well[request]),
            ),
            incidents=tuple(Incident(**incident) for state in (gateway, worker) for incident in state["incidents"]),
            budgets=_budgets(before or (gateway, worker), (gateway, worker)),
            memory=Memory(
                acknowledged=len(self._load.remembered),
                missing=len(self._load.remembered - keys),
                queued=gateway["fallbacks"].get("memory.write", 0),
                waiting=gateway["waiting"],
                repeated=stored["repeated"],
            ),
            verdict=gateway["verdict"],
            prometheus=compared,
        )

    async def _play(self, phase: Phase) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run one phase; what the services said at its end."""
        begin = time.monotonic()
        seconds = phase.share * self._options.duration
        self._view.phase(phase)
        if phase.stops:
            await self._stop_experiments()
        for attack in phase.attacks:
            lease = self._options.duration * 2.0 if attack.until_stopped else seconds
            # The lease of the phase before ends now: by the clock of the gateway that may be a moment later.
            wanted = {"action": attack.action, "component": attack.component, "duration_seconds": lease, "allow_overlap": True}
            wanted |= attack.arguments
            await self._ask("POST", "/_soma/experiments", wanted)
        last = phase is PHASES[-1]
        while True:
            self._fleet.check()
            self._load.check()
            gateway, worker = await self._states()
            now = time.monotonic()
            elapsed, planned = now - self._started, self._options.duration
            self._view.moment(Moment(phase, elapsed, planned, self._load.recent(), self._load.in_flight, gateway, worker))
            left = begin + seconds - now
            if left <= 0.0 and (not last or _quiet(gateway) or left < -RECOVERY_GRACE):
                break
            await asyncio.sleep(min(LOOK_EVERY, left) if left > 0.0 else LOOK_EVERY)
        before = sum(span.injected for span in self._spans)
        self._spans.append(_Span(phase, begin, time.monotonic(), _injected(gateway) - before))
        self._view.ended(self._result(self._spans[-1]))
        return gateway, worker

    def _result(self, span: _Span) -> PhaseResult:
        # Asked for once more at the end, when the last requests of the phase have their answers too.
        return PhaseResult(span.phase.name, span.end - span.begin, self._load.between(span.begin, span.end), span.injected)

    async def _stop_experiments(self) -> None:
        begin = time.perf_counter()
        answer = await self._ask("POST", "/_soma/stop")
        self._stop_milliseconds = (time.perf_counter() - begin) * 1000.0
        self._injected_at_stop = answer["injected"]

    async def _states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        gateway, worker = await asyncio.gather(self._ask("GET", "/_soma/state"), self._ask("GET", f"{self._settings.worker}/_soma/state"))
        return gateway, worker

    async def _ask(self, method: str, where: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the operator's side of the gateway, or another service by its full address."""
        ours = where.startswith("/")
        url = self._settings.gateway + where if ours else where
        try:
            headers = self._token if ours else None
            reply = await self._http.request(method, url, json=body, headers=headers, timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            # The connections of a process that is killed break a moment before it can be seen to have ended.
            for _ in range(_LOOKS):
                self._fleet.check()
                await asyncio.sleep(_BETWEEN_LOOKS)
            raise DemoError(f"{method} {url} failed: {str(error) or type(error).__name__}") from error
        if reply.status_code != httpx.codes.OK:
            raise DemoError(f"{method} {url} answered {reply.status_code}: {reply.text}\n{self._fleet.last_words()}")
        answer: dict[str, Any] = reply.json()
        return answer


async def _ready(fleet: Fleet, http: httpx.AsyncClient, settings: Settings) -> None:
    """Wait until every service answers. Raises :class:`DemoError` when one of them has ended instead, or takes too long."""

    async def healthy(address: str) -> None:
        # Once: the socket is bound, so the question waits in its backlog until somebody is there to answer it.
        (await http.get(f"{address}/health", timeout=START_SECONDS)).raise_for_status()

    asked = [asyncio.create_task(healthy(getattr(settings, role))) for role in ROLES]
    try:
        while (await asyncio.wait(asked, timeout=0.1))[1]:
            fleet.check(ROLES)
        for answer in asked:
            answer.result()
    except httpx.HTTPError as error:
        fleet.check(ROLES)
        raise DemoError(f"the services did not start: {str(error) or type(error).__name__}") from error
    finally:
        for answer in asked:
            answer.cancel()


def _failures(samples: Iterable[Sample], touched: Mapping[str, int]) -> tuple[Failure, ...]:
    failed = [sample for sample in samples if sample.failure is not None]
    kinds = Counter((sample.kind, str(sample.failure)) for sample in failed)
    struck = Counter((sample.kind, str(sample.failure)) for sample in failed if sample.request in touched)
    return tuple(Failure(kind, what, count, struck[kind, what]) for (kind, what), count in kinds.most_common())


def _quiet(gateway: dict[str, Any]) -> bool:
    return not gateway["waiting"] and all(guard["state"] == "closed" for guard in gateway["guards"].values())


def _injected(gateway: dict[str, Any]) -> int:
    return sum(experiment["injected"] for experiment in gateway["experiments"])


def _budgets(before: tuple[dict[str, Any], ...], after: tuple[dict[str, Any], ...]) -> tuple[Budget, ...]:
    return tuple(
        Budget(then["service"], slo, budget["target"], then["budgets"][slo], budget)
        for then, now in zip(before, after, strict=True)
        for slo, budget in now["budgets"].items()
    )
