"""What an experiment is told to do, and how far it may go."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.errors import InjectedFault, describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["BLAST_RADII", "PROCESS_TARGETS", "ChaosCeilings", "ChaosConfig", "ChaosExperiment"]

BLAST_RADII: Final = ("single_instance", "zone", "region")
PROCESS_TARGETS: Final = ("resource:", "net:")
"""What targets in the process begin with: a resource by its name, or a part of the network by host, address or CIDR."""


class ChaosExperiment(StrEnum):
    """The kinds of fault."""

    LATENCY_INJECTION = "latency"
    ERROR_INJECTION = "error"
    CIRCUIT_TRIP = "circuit_trip"
    LOST_REPLY = "lost_reply"
    """The callee acts, and its answer is dropped."""
    STREAM_CUT = "stream_cut"
    """Break a stream, or a response of the ASGI middleware, off after some items."""
    STREAM_TRUNCATION = "stream_truncate"
    """End a stream early and cleanly, as if that had been all."""
    RESOURCE_EXHAUSTION = "resource_exhaust"
    """Not in this version, and refused as such."""
    NETWORK_PARTITION = "network_partition"
    """Not in this version, and refused as such."""


AVAILABLE: Final = (
    ChaosExperiment.LATENCY_INJECTION,
    ChaosExperiment.ERROR_INJECTION,
    ChaosExperiment.CIRCUIT_TRIP,
    ChaosExperiment.LOST_REPLY,
    ChaosExperiment.STREAM_CUT,
    ChaosExperiment.STREAM_TRUNCATION,
)

_WITHOUT_DELAY: Final = frozenset({ChaosExperiment.CIRCUIT_TRIP, ChaosExperiment.STREAM_CUT, ChaosExperiment.STREAM_TRUNCATION})
_WITH_ERROR: Final = frozenset({ChaosExperiment.ERROR_INJECTION, ChaosExperiment.LOST_REPLY, ChaosExperiment.STREAM_CUT})
_LONGEST_PATH: Final = 1_000
_MOST_CALLS: Final = 1_000


@dataclass(frozen=True, slots=True)
class ChaosConfig:
    """One experiment.

    ``target_component`` is the name of a guard, or a pattern over names (``llm.*``); ``http:/path/*`` means requests to the ASGI
    middleware by their path. ``failure_rate`` is the share of calls that are struck, decided by a keyed hash, so with the same
    seed the n-th call of a component is decided alike in every run, however the calls of several components interleave (requests share one
    sequence). A circuit trip opens every breaker that matches and is not open, whatever the rate. Every experiment is a lease: it ends
    after ``duration_seconds`` whatever else happens.

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
    """How long a struck call is delayed (latency; before the error, if any; for a lost reply, after the callee has acted)."""
    error: type[BaseException] | BaseException | Callable[[], BaseException] | None = None
    """What a struck call raises: a type, an exception, or a function that makes one. None: :class:`~somaresil.errors.InjectedFault`."""
    status: int = 503
    """What a struck request is answered (error on ``http:``); a websocket is refused with it if the server can, else closed with 1011."""
    after_items: int = 1
    """How many items of a stream pass, body chunks of a response or messages of a websocket; what is shorter is not struck."""
    max_injections: int | None = None
    """End after so many strikes."""
    candidates: tuple[str, ...] = ()
    calls: tuple[int, ...] | None = None
    """Strike these calls alone, counted from 1 for each guard (each attempt of a retry is one); None: any."""
    amount: float | None = None
    """How much of a resource is taken (``resource_exhaust``), in its own unit."""
    mode: str | None = None
    """How a part of the network is cut off (``network_partition``)."""
    loss: float | None = None
    """Share of the packets that are lost, where the partition loses packets."""
    path: str | None = None
    """Strike, and count, only calls that are made along this path of guards: ``agent.turn > llm.invoke``; None: any."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosConfig")
        keep = object.__setattr__
        known = self.experiment in AVAILABLE
        keep(self, "experiment", check.one_of("experiment", self.experiment, tuple(ChaosExperiment)))
        if self.experiment not in AVAILABLE:
            check.problem("experiment", str(self.experiment), " | ".join(AVAILABLE), "this version cannot do it yet")
        check.pattern("target_component", self.target_component)
        check.ratio("failure_rate", self.failure_rate)
        keep(self, "duration_seconds", check.seconds("duration_seconds", self.duration_seconds))
        radius = "zone" if self.blast_radius == "az" else self.blast_radius
        keep(self, "blast_radius", check.one_of("blast_radius", radius, BLAST_RADII))
        keep(self, "delay_seconds", check.seconds("delay_seconds", self.delay_seconds, exclusive=False))
        self._check_error(check)
        check.count("status", self.status, minimum=400, maximum=599)
        check.count("after_items", self.after_items, minimum=0, maximum=1_000_000)
        check.count("max_injections", self.max_injections, optional=True)
        if isinstance(self.candidates, str | bytes) or not isinstance(self.candidates, Iterable):
            check.problem("candidates", self.candidates, "names of instances, zones or regions", "a list or tuple, also for a single name")
        else:
            keep(self, "candidates", tuple(check.name("candidates", name) for name in self.candidates))
        self._check_calls(check)
        if known:
            self._check_options(check)
            self._check_process(check)
        check.finish()

    def _check_calls(self, check: Checker) -> None:
        calls = self.calls
        if calls is not None:
            numbers = tuple(calls) if isinstance(calls, Iterable) and not isinstance(calls, str | bytes) else ()
            if not 0 < len(numbers) <= _MOST_CALLS or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
                check.problem("calls", calls, f"1 to {_MOST_CALLS} whole numbers >= 1, or None", "the first call is number 1")
            else:
                object.__setattr__(self, "calls", tuple(sorted(set(numbers))))
        if self.path is not None and not (isinstance(self.path, str) and 0 < len(self.path) <= _LONGEST_PATH):
            check.problem("path", self.path, "names of guards with ' > ' between them, or None")

    def _check_error(self, check: Checker) -> None:
        error = self.error
        if error is None:
            return
        if not (callable(error) or isinstance(error, Exception)):
            check.problem("error", error, "an exception type, an exception or a function that makes one")
            return
        kind = error if isinstance(error, type) else type(error)
        if isinstance(error, type) and not issubclass(error, Exception):
            check.problem("error", error, "a subclass of Exception", "an experiment does not pretend that the caller went away")
        elif issubclass(kind, StopIteration | StopAsyncIteration):
            check.problem("error", error, "an exception that a call may raise", "this one only ends iterations")
        elif issubclass(kind, Exception):
            try:
                self.make_error("", "")
            except Exception as broken:  # noqa: BLE001 - it is user code; what it cannot do now, it cannot do for a struck call
                hint = f"{describe(broken)}; give a function that makes one"
                check.problem("error", error, "an exception that can be made again for each struck call", hint)

    def _check_options(self, check: Checker) -> None:
        """What does not go together: an option that is not looked at is a mistake about what the experiment does."""
        experiment = self.experiment
        if experiment is ChaosExperiment.LATENCY_INJECTION and not self.delay_seconds:
            check.problem("delay_seconds", self.delay_seconds, "seconds > 0 for a latency experiment")
        if experiment in _WITHOUT_DELAY and self.delay_seconds:
            check.problem("delay_seconds", self.delay_seconds, f"0 for {experiment.value}", "start a latency experiment beside it")
        if experiment is ChaosExperiment.CIRCUIT_TRIP and self.max_injections is not None:
            check.problem("max_injections", self.max_injections, "None for circuit_trip", "it opens each breaker once")
        if experiment is ChaosExperiment.CIRCUIT_TRIP and (self.calls is not None or self.path is not None):
            check.problem("calls", self.calls or self.path, "None for circuit_trip", "it opens each breaker once, whatever is called")
        if self.path is not None and self.on_http:
            check.problem("path", self.path, "None on http:", "requests have no guards around them")
        if experiment in {ChaosExperiment.LOST_REPLY, ChaosExperiment.STREAM_TRUNCATION} and self.on_http:
            check.problem("experiment", experiment.value, "latency, error or stream_cut on http:", "aim at a guard")
        if self.error is not None and experiment not in _WITH_ERROR:
            check.problem("error", self.error, f"None for {experiment.value}", "start an error experiment beside it")
        if self.error is not None and self.on_http:
            check.problem("error", self.error, "None on http:", "requests are answered with status=")

    def _check_process(self, check: Checker) -> None:
        """What goes with faults of the process, and with no other."""
        experiment = self.experiment
        process = experiment in {ChaosExperiment.RESOURCE_EXHAUSTION, ChaosExperiment.NETWORK_PARTITION}
        if process != self.on_process:
            allowed = "resource:NAME or net:HOST" if process else "a guard, or http:/path"
            hint = f"{experiment.value} strikes {'the process' if process else 'calls'}"
            check.problem("target_component", self.target_component, allowed, hint)
        if self.amount is not None and experiment is not ChaosExperiment.RESOURCE_EXHAUSTION:
            check.problem("amount", self.amount, f"None for {experiment.value}")
        for name in ("mode", "loss"):
            if getattr(self, name) is not None and experiment is not ChaosExperiment.NETWORK_PARTITION:
                check.problem(name, getattr(self, name), f"None for {experiment.value}")

    @property
    def on_http(self) -> bool:
        """Whether it is about requests to the ASGI middleware."""
        return isinstance(self.target_component, str) and self.target_component.startswith("http:")

    @property
    def on_process(self) -> bool:
        """Whether it strikes the process itself: a resource of it, or its network."""
        return isinstance(self.target_component, str) and self.target_component.startswith(PROCESS_TARGETS)

    def make_error(self, component: str, experiment: str) -> BaseException:
        """A fresh exception for each struck call."""
        error: Any = self.error
        if error is None:
            return InjectedFault(component, experiment)
        if isinstance(error, BaseException):
            return _anew(error)
        made = error()
        return made if isinstance(made, Exception) else InjectedFault(component, experiment)


def _anew(error: BaseException) -> BaseException:
    """An exception like this one, with arguments and attributes and without its history."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - whatever its constructor says
        # Its class cannot be called with its arguments (httpx.HTTPStatusError takes keywords): made without __init__, attributes put in.
        other = type(error).__new__(type(error), *error.args)
        other.__dict__.update(error.__dict__)
        return other


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
        if isinstance(self.protected_paths, str) or not all(isinstance(path, str) and path for path in self.protected_paths):
            check.problem("protected_paths", self.protected_paths, "path patterns", "a tuple such as ('/admin/*',), also for a single one")
        check.finish()
