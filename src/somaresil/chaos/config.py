"""What an experiment is told to do, and how far it may go."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["BLAST_RADII", "ChaosCeilings", "ChaosConfig", "ChaosExperiment"]

BLAST_RADII: Final = ("single_instance", "zone", "region")


class ChaosExperiment(StrEnum):
    """The kinds of fault of the plan."""

    LATENCY_INJECTION = "latency"
    ERROR_INJECTION = "error"
    CIRCUIT_TRIP = "circuit_trip"
    STREAM_CUT = "stream_cut"
    """Break a response of the ASGI middleware off after some chunks."""
    RESOURCE_EXHAUSTION = "resource_exhaust"
    """Named by the plan; not in this version, and refused as such."""
    NETWORK_PARTITION = "network_partition"
    """Named by the plan; not in this version, and refused as such."""


AVAILABLE: Final = (
    ChaosExperiment.LATENCY_INJECTION,
    ChaosExperiment.ERROR_INJECTION,
    ChaosExperiment.CIRCUIT_TRIP,
    ChaosExperiment.STREAM_CUT,
)


@dataclass(frozen=True, slots=True)
class ChaosConfig:
    """One experiment.

    ``target_component`` is the name of a guard, or a pattern over names (``llm.*``); ``http:/path/*`` means requests to the ASGI
    middleware by their path. ``failure_rate`` is the share of calls that are struck, decided by a keyed hash, so the same seed strikes
    the same calls in any interleaving. Every experiment is a lease: it ends after ``duration_seconds`` whatever else happens.

    ``blast_radius`` says how much of a fleet takes part when the same experiment is started everywhere: one instance, one zone or one
    region, chosen among ``candidates`` (names of instances, zones or regions) by rendezvous hash with no coordinator. Without candidates
    it is this instance, zone or region.

    The defaults are shy, as Polly's are: one call in a thousand, for a minute.
    """

    experiment: ChaosExperiment
    target_component: str
    failure_rate: float = 0.001
    duration_seconds: float | timedelta = 60.0
    blast_radius: str = "single_instance"
    _: KW_ONLY
    delay_seconds: float | timedelta = 0.0
    """How long a struck call is delayed (latency)."""
    error: type[BaseException] | BaseException | Callable[[], BaseException] | None = None
    """What a struck call raises: a type, an exception, or a function that makes one. None: :class:`~somaresil.errors.InjectedFault`."""
    status: int = 503
    """What a struck request is answered (error on ``http:``)."""
    after_items: int = 1
    """After how many body chunks a struck response breaks off."""
    max_injections: int | None = None
    """End after so many strikes."""
    candidates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosConfig")
        keep = object.__setattr__
        keep(self, "experiment", check.one_of("experiment", self.experiment, tuple(ChaosExperiment)))
        if self.experiment in ChaosExperiment and self.experiment not in AVAILABLE:
            check.problem("experiment", str(self.experiment), " | ".join(AVAILABLE), "the plan names it; this version cannot do it yet")
        check.pattern("target_component", self.target_component)
        check.ratio("failure_rate", self.failure_rate)
        keep(self, "duration_seconds", check.seconds("duration_seconds", self.duration_seconds))
        radius = "zone" if self.blast_radius == "az" else self.blast_radius
        keep(self, "blast_radius", check.one_of("blast_radius", radius, BLAST_RADII))
        keep(self, "delay_seconds", check.seconds("delay_seconds", self.delay_seconds, exclusive=False))
        if self.experiment == ChaosExperiment.LATENCY_INJECTION and not self.delay_seconds:
            check.problem("delay_seconds", self.delay_seconds, "seconds > 0 for a latency experiment")
        if not (self.error is None or callable(self.error) or isinstance(self.error, Exception)):
            check.problem("error", self.error, "an exception type, an exception or a function that makes one")
        elif isinstance(self.error, type) and not issubclass(self.error, Exception):
            check.problem("error", self.error, "a subclass of Exception", "an experiment does not pretend that the caller went away")
        check.count("status", self.status, minimum=400, maximum=599)
        check.count("after_items", self.after_items, minimum=0, maximum=1_000_000)
        check.count("max_injections", self.max_injections, optional=True)
        keep(self, "candidates", tuple(self.candidates))
        check.finish()

    @property
    def on_http(self) -> bool:
        """Whether it is about requests to the ASGI middleware."""
        return self.target_component.startswith("http:")

    def make_error(self, component: str, experiment: str) -> BaseException:
        """A fresh exception for each struck call."""
        from somaresil.errors import InjectedFault

        error: Any = self.error
        if error is None:
            return InjectedFault(component, experiment)
        if isinstance(error, BaseException):
            return type(error)(*error.args)
        made = error()
        return made if isinstance(made, Exception) else InjectedFault(component, experiment)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosCeilings:
    """The most that any experiment in this process may do. Set in code, at opt-in; nothing that arrives at run time can raise it."""

    duration: float | timedelta = 600.0
    rate: float = 1.0
    delay: float | timedelta = 30.0
    experiments: int = 8
    """How many may be armed at once."""
    protected_paths: tuple[str, ...] = ()
    """Paths of the ASGI middleware that are never touched, besides health, readiness, metrics and control routes."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosCeilings")
        object.__setattr__(self, "duration", check.seconds("duration", self.duration, maximum=86_400.0))
        check.ratio("rate", self.rate)
        object.__setattr__(self, "delay", check.seconds("delay", self.delay))
        check.count("experiments", self.experiments, maximum=1_000)
        check.finish()
