"""The chaos engine: arms experiments and ends them.

Off by default, and it says so: it needs ``SOMARESIL_CHAOS=1`` in the environment *and* :meth:`ChaosEngine.opt_in` in the code, an
environment that was named, and for production a second key in both places. A disarmed engine costs a guard nothing but the flag that it
looks at anyway.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.run import ExperimentRun
from somaresil.config import Checker, did_you_mean, to_seconds
from somaresil.errors import ConfigurationError
from somaresil.events import ExperimentStarted
from somaresil.model.breaker import IllegalTransition, State
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

PROTECTED_PATHS: Final = (
    *("/health*", "/livez*", "/live", "/readyz*", "/ready*", "/startup*", "/ping", "/metrics*", "/-/*", "/_soma*"),
    *("*/health", "*/healthz", "*/livez", "*/readyz", "*/metrics"),
)
"""Never touched: an experiment that fails the health check has the orchestrator restart what it was meant to watch."""

_PRODUCTION: Final = frozenset({"production", "prod", "prd", "live"})
_NOT_YET: Final = frozenset({"pre", "non", "not"})

_KEPT: Final = 64
_MOST_PAIRS: Final = 200


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
        self.place = place
        self._guards = guards
        self._clock = clock
        self._chance = chance
        self._listeners = listeners
        self._lock = threading.RLock()
        self._ceilings: ChaosCeilings | None = None
        self._protected: tuple[str, ...] = PROTECTED_PATHS
        self._production = False
        self._number = 0
        self._runs: tuple[ExperimentRun, ...] = ()
        self._forgotten: dict[tuple[str, str], int] = {}
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
        check = Checker("chaos.opt_in")
        check.type("ceilings", ceilings, (ChaosCeilings, type(None)), "ChaosCeilings(...) or None")
        check.type("production", production, bool, "True or False")
        check.finish()
        self._ceilings = ceilings or ChaosCeilings()
        self._protected = (*PROTECTED_PATHS, *self._ceilings.protected_paths)
        self._production = production

    def _check_permission(self, check: Checker) -> None:
        environment = self.place.environment
        if self._ceilings is None:
            check.problem("opt_in", None, "resilience.chaos.opt_in() in the code", "chaos is off by default")
        if os.environ.get(SWITCH) != "1":
            check.problem(SWITCH, os.environ.get(SWITCH), "1", "chaos is off by default; set it in the environment of the process")
        if environment is None:
            check.problem(
                "environment", None, "a name", "pass environment= to Resilience or set SOMARESIL_ENVIRONMENT; unknown may be production"
            )
        elif _is_production(environment):
            key = os.environ.get(PRODUCTION_KEY)
            if not self._production or key != self.place.service:
                needed = f"opt_in(production=True) and {PRODUCTION_KEY}={self.place.service}"
                check.problem("environment", environment, f"another one, or {needed}", "production needs a second key")

    # -- starting ---------------------------------------------------------------------------------------------------------------------

    def arm(self, config: ChaosConfig) -> ExperimentRun:
        """Start an experiment. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is armed.

        Outside the blast radius nothing is armed either, and the run says so (:attr:`ExperimentRun.selected`).
        """
        check = Checker("chaos")
        self._check_permission(check)
        if not isinstance(config, ChaosConfig):
            check.problem("config", config, "a ChaosConfig")
            check.finish()
        ceilings = self._ceilings or ChaosCeilings()
        rate = 1.0 if config.experiment is ChaosExperiment.CIRCUIT_TRIP else config.failure_rate
        _check_ceilings(
            check,
            ceilings,
            failure_rate=rate,
            duration_seconds=config.duration_seconds,
            delay_seconds=config.delay_seconds,
        )
        self._check_target(check, config.target_component, config.experiment)
        selected = self._selected(config)
        _ = self.runs  # ends the leases that are over, with no lock held: listeners hear of it
        with self._lock:
            live = sum(run.end_reason is None for run in self._runs)
            if live >= ceilings.experiments:
                check.problem("experiments", live + 1, f"at most {ceilings.experiments} at once", "stop one first")
            check.finish()
            self._number += 1
            identity = f"{config.experiment.value}-{self._number}"
            run = ExperimentRun(identity, config, selected=selected, clock=self._clock, chance=self._chance, listeners=self._listeners)
            if not selected:
                return run
            self._runs = (*self._forget_old(), run)
        if self._listeners.wants(ExperimentStarted):
            self._listeners.emit(
                ExperimentStarted(
                    config.target_component,
                    run.started_at,
                    config.experiment.value,
                    run.id,
                    rate,
                    float(config.duration_seconds),  # type: ignore[arg-type]
                )
            )
        try:
            if config.on_http:
                with self._lock:
                    self.http = (*self.http, run)
                run.on_end(lambda: self._forget_http(run))
            else:
                # Asked for after the experiment can be seen: a guard that is made meanwhile is found here or arms itself.
                for guard in self._guards().values():
                    self._arm_guard(run, guard)
        except BaseException:
            run.end("failed")
            raise
        return run

    async def start(self, config: ChaosConfig) -> ExperimentRun:
        """See :meth:`arm`."""
        return self.arm(config)

    async def inject_latency(
        self, component: str, delay_ms: float | timedelta, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Delay a share of the calls by ``delay_ms`` milliseconds."""
        config = self._configured(
            ChaosExperiment.LATENCY_INJECTION, component, rate, duration_seconds, delay_seconds=_milliseconds(delay_ms), **options
        )
        return self.arm(config)

    async def inject_errors(
        self, component: str, error: Any = None, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Fail a share of the calls with ``error``; requests (``http:/path``) are answered with ``status=503``."""
        return self.arm(self._configured(ChaosExperiment.ERROR_INJECTION, component, rate, duration_seconds, error=error, **options))

    async def cut_streams(
        self, component: str, after_items: int = 1, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Break a share of the responses off after some body chunks (``http:/path`` only)."""
        return self.arm(self._configured(ChaosExperiment.STREAM_CUT, component, rate, duration_seconds, after_items=after_items, **options))

    async def trip_circuit_breaker(self, component: str, duration_seconds: float | timedelta = 30.0, **options: Any) -> ExperimentRun:
        """Open the breakers that match for some seconds; they are probed and closed in the ordinary way after that.

        A breaker that is open or half-open already, forced open, disabled or only watching is left alone: an outage is not an experiment.
        """
        return self.arm(self._configured(ChaosExperiment.CIRCUIT_TRIP, component, 1.0, duration_seconds, **options))

    # -- stopping ---------------------------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[ExperimentRun, ...]:
        """The experiments that run now."""
        return tuple(run for run in self._runs if run.live)

    @property
    def history(self) -> tuple[ExperimentRun, ...]:
        """The last 64 experiments, and all those that run."""
        return self._runs

    def faults(self) -> dict[tuple[str, str], int]:
        """How many calls were struck since the process began, by component and kind of fault; at most 200 pairs, then ``_other``."""
        with self._lock:
            counts = dict(self._forgotten)
            for run in self._runs:
                _add(counts, run)
        return counts

    def stop(self, run: ExperimentRun) -> None:
        """End one experiment, from any thread, at once; calls that it delays go on."""
        run.end("stopped")

    def stop_all(self) -> None:
        """The kill switch: end everything, from any thread, at once. No event loop is needed; calls that are being delayed go on."""
        for run in self._runs:
            run.end("stop_all")

    # -- for the other parts of the process -------------------------------------------------------------------------------------------

    def guard_added(self, guard: Guard) -> None:
        """A guard was made: experiments that match its name strike it too."""
        for run in self.runs:
            if not run.config.on_http:
                self._arm_guard(run, guard)

    def middleware_added(self) -> None:
        """A middleware is there to strike requests."""
        self._middlewares += 1

    def strike_request(self, path: str, root: str = "") -> tuple[ExperimentRun, Hit] | None:
        """What to do to a request; None: leave it alone. ``root`` is the root path, which servers put before the path of the app."""
        paths, prefix = [path], root.rstrip("/")
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            paths.append(path.removeprefix(prefix) or "/")
        for name in paths:
            plain = name.rstrip("/")
            if any(matches(pattern, name) or matches(pattern, plain) for pattern in self._protected):
                return None
        for run in self.http:
            if run.live and any(matches(run.config.target_component, f"http:{name}") for name in paths):
                hit = run.strike()
                if hit is not None:
                    return run, hit
        return None

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _configured(
        self, experiment: ChaosExperiment, component: str, rate: float, duration: float | timedelta, **options: Any
    ) -> ChaosConfig:
        """The configuration, or one error with its problems and those that :meth:`arm` would have found."""
        try:
            return ChaosConfig(experiment, component, rate, duration, **options)
        except ConfigurationError as wrong:
            check = Checker("chaos")
            self._check_permission(check)
            named = {problem.path.removeprefix("ChaosConfig.") for problem in wrong.problems}
            given = {"failure_rate": rate, "duration_seconds": duration, "delay_seconds": options.get("delay_seconds", 0.0)}
            _check_ceilings(check, self._ceilings or ChaosCeilings(), **{name: 0.0 if name in named else given[name] for name in given})
            if "target_component" not in named:
                self._check_target(check, component, experiment)
            raise ConfigurationError([*wrong.problems, *check.problems]) from None

    def _check_target(self, check: Checker, pattern: str, experiment: ChaosExperiment) -> None:
        if pattern.startswith("http:"):
            if not self._middlewares:
                hint = "no ResilienceMiddleware is mounted, so there are no requests to strike; frameworks mount it when the app starts"
                check.problem("target_component", pattern, "a guard, or a mounted middleware", hint)
            if experiment is ChaosExperiment.CIRCUIT_TRIP:
                check.problem("experiment", experiment.value, "latency, error or stream_cut on http:", "routes have no breaker")
            return
        guards = self._guards()
        found = [guard for name, guard in guards.items() if matches(pattern, name)]
        if not found:
            known = ", ".join(_some(guards)) or "there are none"
            check.problem("target_component", pattern, f"a guard or a pattern that matches one ({known})", did_you_mean(pattern, guards))
        if experiment is ChaosExperiment.STREAM_CUT:
            check.problem("experiment", experiment.value, "latency, error or circuit_trip on a guard", "stream_cut is for http: targets")
        if experiment is ChaosExperiment.CIRCUIT_TRIP and found and all(guard.breaker is None for guard in found):
            check.problem("target_component", pattern, "a guard with a breaker", "there is no circuit to open")

    def _selected(self, config: ChaosConfig) -> bool:
        me = self.place.member(config.blast_radius)
        if not config.candidates:
            return True
        # The key does not name the run, which each process numbers for itself: the same experiment chooses the same member everywhere.
        key = f"{config.experiment.value}|{config.target_component}"
        return me is not None and is_chosen(key, me, config.candidates)

    def _arm_guard(self, run: ExperimentRun, guard: Guard) -> None:
        if not matches(run.config.target_component, guard.name) or not run.first_arming(guard.name):
            return
        if run.config.experiment is not ChaosExperiment.CIRCUIT_TRIP:
            rule = run.rule(guard.name)
            guard.faults.arm(rule)
            run.on_end(lambda: guard.faults.disarm(rule))
            return
        breaker = guard.breaker
        # One that is open or half-open has an outage of its own, and its rejections must not pass for injected ones.
        if breaker is None or breaker.state is not State.CLOSED or not run.live:
            return
        try:
            era = breaker.trip(run.remaining, injected=True)
        except IllegalTransition:
            # An operator was quicker; an experiment does not overrule people.
            return
        run.on_end(lambda: breaker.release(era))
        run.claim(guard.name)

    def _forget_old(self) -> tuple[ExperimentRun, ...]:
        """The experiments to keep beside a new one. One that still runs is never forgotten: the kill switch must find it."""
        surplus = [run for run in self._runs if run.end_reason is not None and not run.delaying][: max(0, len(self._runs) + 1 - _KEPT)]
        for run in surplus:
            _add(self._forgotten, run)
        return tuple(run for run in self._runs if run not in surplus)

    def _forget_http(self, run: ExperimentRun) -> None:
        with self._lock:
            self.http = tuple(armed for armed in self.http if armed is not run)


def _add(counts: dict[tuple[str, str], int], run: ExperimentRun) -> None:
    for component, struck in run.struck.items():
        key = (component, run.config.experiment.value)
        if key not in counts and len(counts) >= _MOST_PAIRS:
            key = ("_other", "_other")
        counts[key] = counts.get(key, 0) + struck


def _check_ceilings(check: Checker, ceilings: ChaosCeilings, **values: Any) -> None:
    highest = {"failure_rate": ceilings.rate, "duration_seconds": ceilings.duration, "delay_seconds": ceilings.delay}
    for name, value in values.items():
        if to_seconds(value) > to_seconds(highest[name]):
            allowed = f"at most {highest[name]:g}, the ceiling"
            check.problem(name, value, allowed, "ceilings are set in code: opt_in(ChaosCeilings(...))")


def _is_production(environment: str) -> bool:
    """Whether a part of the name says so: ``prod-eu-1`` does, ``pre-prod`` and ``nonprod`` do not. In doubt it does."""
    words = re.split(r"[^a-z]+", environment.casefold())
    return any(word in _PRODUCTION and before not in _NOT_YET for before, word in zip(["", *words], words, strict=False))


def _milliseconds(value: Any) -> Any:
    """Seconds; what is no number is left for :class:`ChaosConfig` to refuse."""
    return value / 1000.0 if isinstance(value, int | float) and not isinstance(value, bool) else value


def _some(names: Iterable[str], most: int = 10) -> list[str]:
    listed = sorted(names)
    return listed if len(listed) <= most else [*listed[:most], f"and {len(listed) - most} more"]
