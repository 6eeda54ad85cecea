"""The chaos engine: arms experiments and ends them.

Off by default, and it says so: it needs ``SOMARESIL_CHAOS=1`` in the environment *and* :meth:`ChaosEngine.opt_in` in the code, an
environment that was named, and for production a second key in both places. A disarmed engine costs a guard nothing but the flag that it
looks at anyway.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.run import ExperimentRun
from somaresil.config import Checker, did_you_mean, to_seconds
from somaresil.events import ExperimentStarted
from somaresil.model.breaker import IllegalTransition
from somaresil.model.selector import is_chosen, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from somaresil.chance import Chance
    from somaresil.chaos.run import Hit
    from somaresil.events import Listeners
    from somaresil.guard import Guard
    from somaresil.typing import Clock

__all__ = ["PROTECTED_PATHS", "ChaosEngine", "Place"]

SWITCH: Final = "SOMARESIL_CHAOS"
PRODUCTION_KEY: Final = "SOMARESIL_CHAOS_PRODUCTION"

PROTECTED_PATHS: Final = ("/health*", "/livez*", "/live", "/readyz*", "/ready*", "/ping", "/metrics*", "/_soma*")
"""Never touched: an experiment that fails the health check has the orchestrator restart what it was meant to watch."""

_KEPT: Final = 64


class Place:
    """Where this process runs: what a blast radius chooses among."""

    __slots__ = ("environment", "instance", "region", "service", "zone")

    def __init__(self, service: str, instance: str, zone: str | None, region: str | None, environment: str | None) -> None:
        """Keep the names; None: nobody has said."""
        self.service = service
        self.instance = instance
        self.zone = zone
        self.region = region
        self.environment = environment

    def member(self, blast_radius: str) -> str | None:
        """Our name at this level."""
        return {"single_instance": self.instance, "zone": self.zone, "region": self.region}[blast_radius]


class ChaosEngine:
    """Arms faults in the guards and routes of one process."""

    def __init__(
        self, place: Place, guards: Callable[[], Mapping[str, Guard]], *, clock: Clock, chance: Chance, listeners: Listeners
    ) -> None:
        """Disarmed, and not opted in."""
        self._place = place
        self._guards = guards
        self._clock = clock
        self._chance = chance
        self._listeners = listeners
        self._lock = threading.RLock()
        self._ceilings: ChaosCeilings | None = None
        self._production = False
        self._number = 0
        self._runs: tuple[ExperimentRun, ...] = ()
        self._middlewares = 0
        self.http: tuple[ExperimentRun, ...] = ()
        """Experiments on requests; the middleware looks at this and nothing else."""

    # -- permission -------------------------------------------------------------------------------------------------------------------

    def opt_in(self, ceilings: ChaosCeilings | None = None, *, production: bool = False) -> None:
        """Allow experiments in this process, up to ``ceilings``.

        ``production=True`` is one half of the second key; the other is the environment variable ``SOMARESIL_CHAOS_PRODUCTION`` with the
        name of the service. The environment variable ``SOMARESIL_CHAOS=1`` is needed as well, and asked for at each start, so an
        operator can forbid what the code allows.
        """
        self._ceilings = ceilings or ChaosCeilings()
        self._production = production

    def _check_permission(self, check: Checker) -> None:
        environment = self._place.environment
        if self._ceilings is None:
            check.problem("opt_in", None, "resilience.chaos.opt_in() in the code", "chaos is off by default")
        if os.environ.get(SWITCH) != "1":
            check.problem(SWITCH, os.environ.get(SWITCH), "1", "chaos is off by default; set it in the environment of the process")
        if environment is None:
            check.problem(
                "environment", None, "a name", "pass environment= to Resilience or set SOMARESIL_ENVIRONMENT; unknown may be production"
            )
        elif environment.casefold() in {"production", "prod", "live"}:
            key = os.environ.get(PRODUCTION_KEY)
            if not self._production or key != self._place.service:
                needed = f"opt_in(production=True) and {PRODUCTION_KEY}={self._place.service}"
                check.problem("environment", environment, f"another one, or {needed}", "production needs a second key")

    # -- starting ---------------------------------------------------------------------------------------------------------------------

    def arm(self, config: ChaosConfig) -> ExperimentRun:
        """Start an experiment. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is armed."""
        check = Checker("chaos")
        self._check_permission(check)
        ceilings = self._ceilings or ChaosCeilings()
        self._check_ceilings(check, config, ceilings)
        targets = self._targets(check, config)
        live = self.runs
        if len(live) >= ceilings.experiments:
            check.problem("experiments", len(live) + 1, f"at most {ceilings.experiments} at once", "stop one first")
        check.finish()
        selected = self._selected(config)
        with self._lock:
            self._number += 1
            identity = f"{config.experiment.value}-{self._number}"
        run = ExperimentRun(identity, config, selected=selected, clock=self._clock, chance=self._chance, listeners=self._listeners)
        if not selected:
            return run
        with self._lock:
            self._runs = (*self._runs, run)[-_KEPT:]
        if self._listeners.wants(ExperimentStarted):
            self._listeners.emit(
                ExperimentStarted(
                    config.target_component,
                    run.started_at,
                    config.experiment.value,
                    run.id,
                    config.failure_rate,
                    float(config.duration_seconds),  # type: ignore[arg-type]
                )
            )
        if config.on_http:
            with self._lock:
                self.http = (*self.http, run)
            run.on_end(lambda: self._forget_http(run))
        for guard in targets:
            self._arm_guard(run, guard)
        return run

    async def start(self, config: ChaosConfig) -> ExperimentRun:
        """See :meth:`arm`."""
        return self.arm(config)

    async def inject_latency(
        self, component: str, delay_ms: float, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Delay a share of the calls by ``delay_ms`` milliseconds."""
        return self.arm(
            ChaosConfig(
                ChaosExperiment.LATENCY_INJECTION, component, rate, duration_seconds, delay_seconds=_milliseconds(delay_ms), **options
            )
        )

    async def inject_errors(
        self, component: str, error: Any = None, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Fail a share of the calls with ``error``; requests (``http:/path``) are answered with ``status=503``."""
        return self.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, component, rate, duration_seconds, error=error, **options))

    async def cut_streams(
        self, component: str, after_items: int = 1, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Break a share of the responses off after some body chunks (``http:/path`` only)."""
        return self.arm(ChaosConfig(ChaosExperiment.STREAM_CUT, component, rate, duration_seconds, after_items=after_items, **options))

    async def trip_circuit_breaker(self, component: str, duration_seconds: float | timedelta = 30.0, **options: Any) -> ExperimentRun:
        """Open the breakers for some seconds; they are probed and closed in the ordinary way after that."""
        return self.arm(ChaosConfig(ChaosExperiment.CIRCUIT_TRIP, component, 1.0, duration_seconds, **options))

    # -- stopping ---------------------------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[ExperimentRun, ...]:
        """The experiments that run now."""
        return tuple(run for run in self._runs if run.live)

    @property
    def history(self) -> tuple[ExperimentRun, ...]:
        """The last 64 experiments, those that run included."""
        return self._runs

    def stop(self, run: ExperimentRun) -> None:
        """End one experiment, from any thread, at once."""
        run.end("stopped")

    def stop_all(self) -> None:
        """The kill switch: end everything, from any thread, at once. No event loop is needed; calls that are being delayed go on."""
        for run in self._runs:
            run.end("stop_all")

    # -- for the other parts of the process -------------------------------------------------------------------------------------------

    def guard_added(self, guard: Guard) -> None:
        """A guard was made: experiments that match its name strike it too."""
        for run in self.runs:
            if not run.config.on_http and matches(run.config.target_component, guard.name):
                self._arm_guard(run, guard)

    def middleware_added(self) -> None:
        """A middleware is there to strike requests."""
        self._middlewares += 1

    def strike_request(self, path: str) -> tuple[ExperimentRun, Hit] | None:
        """What to do to a request; None: leave it alone."""
        ceilings = self._ceilings or ChaosCeilings()
        if any(matches(pattern, path) for pattern in (*PROTECTED_PATHS, *ceilings.protected_paths)):
            return None
        for run in self.http:
            if run.live and matches(run.config.target_component, f"http:{path}"):
                hit = run.strike()
                if hit is not None:
                    return run, hit
        return None

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _check_ceilings(self, check: Checker, config: ChaosConfig, ceilings: ChaosCeilings) -> None:
        for name, value, ceiling in (
            ("failure_rate", config.failure_rate, ceilings.rate),
            ("duration_seconds", config.duration_seconds, ceilings.duration),
            ("delay_seconds", config.delay_seconds, ceilings.delay),
        ):
            if float(value) > float(ceiling):  # type: ignore[arg-type]
                check.problem(name, value, f"at most {ceiling:g}, the ceiling", "ceilings are set in code: opt_in(ChaosCeilings(...))")

    def _targets(self, check: Checker, config: ChaosConfig) -> list[Guard]:
        pattern = config.target_component
        if config.on_http:
            if not self._middlewares:
                check.problem(
                    "target_component", pattern, "a guard", "no ResilienceMiddleware is mounted, so there are no requests to strike"
                )
            if config.experiment is ChaosExperiment.CIRCUIT_TRIP:
                check.problem("experiment", config.experiment.value, "latency, error or stream_cut on http:", "routes have no breaker")
            return []
        guards = self._guards()
        found = [guard for name, guard in guards.items() if matches(pattern, name)]
        if not found:
            known = ", ".join(_some(guards)) or "there are none"
            check.problem("target_component", pattern, f"a guard or a pattern that matches one ({known})", did_you_mean(pattern, guards))
        if config.experiment is ChaosExperiment.STREAM_CUT:
            check.problem(
                "experiment", config.experiment.value, "latency, error or circuit_trip on a guard", "stream_cut is for http: targets"
            )
        if config.experiment is ChaosExperiment.CIRCUIT_TRIP and found and not any(guard.breaker is not None for guard in found):
            check.problem("target_component", pattern, "a guard with a breaker", "there is no circuit to open")
        return found

    def _selected(self, config: ChaosConfig) -> bool:
        me = self._place.member(config.blast_radius)
        if not config.candidates:
            return True
        # The key does not name the run, which each process numbers for itself: the same experiment chooses the same member everywhere.
        key = f"{config.experiment.value}|{config.target_component}"
        return me is not None and is_chosen(key, me, config.candidates)

    def _arm_guard(self, run: ExperimentRun, guard: Guard) -> None:
        if run.config.experiment is not ChaosExperiment.CIRCUIT_TRIP:
            guard.faults.arm(run)
            run.on_end(lambda: guard.faults.disarm(run))
            return
        breaker = guard.breaker
        if breaker is None:
            return
        try:
            era = breaker.trip(run.remaining, injected=True)
        except IllegalTransition:
            # An operator has forced it open or taken it out of service; an experiment does not overrule people.
            return
        run.struck()
        run.on_end(lambda: breaker.release(era))

    def _forget_http(self, run: ExperimentRun) -> None:
        with self._lock:
            self.http = tuple(armed for armed in self.http if armed is not run)


def _milliseconds(value: float) -> float:
    return to_seconds(value) / 1000.0


def _some(names: Iterable[str], most: int = 10) -> list[str]:
    listed = sorted(names)
    return listed if len(listed) <= most else [*listed[:most], f"and {len(listed) - most} more"]
