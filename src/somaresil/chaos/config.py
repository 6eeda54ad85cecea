"""What an experiment is told to do, and how far it may go."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.bounds import check_bounds
from somaresil.chaos.latency import Constant, distribution_of
from somaresil.chaos.transforms import CORRUPTIONS
from somaresil.chaos.triggers import check_after, check_where
from somaresil.chaos.vocabulary import SHORT_NAMES, Realm, check_options, realm_of
from somaresil.config import Checker
from somaresil.errors import InjectedFault, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.conditions import StopCondition
    from somaresil.chaos.latency import Distribution
    from somaresil.chaos.transforms import Corrupter

__all__ = ["BLAST_RADII", "PROCESS_TARGETS", "ChaosCeilings", "ChaosConfig", "ChaosExperiment"]

BLAST_RADII: Final = ("single_instance", "zone", "region")
PROCESS_TARGETS: Final = (Realm.RESOURCE.value, Realm.NETWORK.value)
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
    HTTP_STATUS = "http_status"
    """Answer with a status, in place of the server that a client asks."""
    RATE_LIMIT = "rate_limit"
    """Answer that it was too much, and when to come back."""
    FAKE_RESULT = "fake_result"
    """Answer in place of the callee."""
    CORRUPT_RESULT = "corrupt_result"
    """Damage an answer."""
    STALE_RESULT = "stale_result"
    """Give an earlier answer once more."""
    STREAM_SLOW_START = "stream_slow_start"
    """Hold the first item of a stream back."""
    STREAM_STALL = "stream_stall"
    """Stop a stream for a time."""
    STREAM_DRIP = "stream_drip"
    """Wait between the items of a stream."""
    STREAM_THROTTLE = "stream_throttle"
    """Let only so much through in a second."""
    STREAM_TEAR = "stream_tear"
    """Break a stream off in the middle of an item."""
    STREAM_UNFINISHED = "stream_unfinished"
    """Take the finish reason out of the answer of a model."""
    CONTEXT_LENGTH = "context_length"
    """Refuse a prompt as too long, as a model does."""
    MALFORMED_TOOL_CALL = "malformed_tool_call"
    """Have a model call a tool with arguments that are no JSON."""
    EMPTY_ANSWER = "empty_answer"
    """Have a model say nothing."""
    REPEATED_TOKENS = "repeated_tokens"
    """Have a model say its last word over and over."""
    WRONG_MODEL = "wrong_model"
    """Have another model answer, by what the answer says."""
    RESOURCE_EXHAUSTION = "resource_exhaust"
    """Take a resource of the process away; the target is ``resource:NAME``."""
    NETWORK_PARTITION = "network_partition"
    """Cut a part of the network off; the target is ``net:HOST`` or ``net:HOST:PORT``."""


AVAILABLE: Final = tuple(ChaosExperiment)
"""The kinds that a configuration may name; whether this process can do one is asked where it is armed."""

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
    it is this instance, zone or region. With ``blast_share`` that share of them takes part in place of one.

    The defaults are shy, as Polly's are: one call in a thousand, for a minute.
    """

    experiment: ChaosExperiment
    target_component: str
    failure_rate: float = 0.001
    duration_seconds: float | timedelta = 60.0
    blast_radius: str = "single_instance"
    _: KW_ONLY
    delay_seconds: float | timedelta | Distribution = 0.0
    """How long a struck call is delayed (latency; before the error, if any; for a lost reply, after the callee has acted), or a stream is.
    A number, or a shape (:mod:`somaresil.chaos.latency`), from which a time is drawn for each call."""
    error: type[BaseException] | BaseException | Callable[[], BaseException] | None = None
    """What a struck call raises: a type, an exception, or a function that makes one. None: :class:`~somaresil.errors.InjectedFault`."""
    status: int = 503
    """What a struck request is answered (error on ``http:``); a websocket is refused with it if the server can, else closed with 1011."""
    after_items: int = 1
    """How many items of a stream pass, body chunks of a response or messages of a websocket; what is shorter is not struck."""
    max_injections: int | None = None
    """End after so many strikes."""
    candidates: tuple[str, ...] = ()
    blast_share: float | None = None
    """Share of the candidates that takes part: rounded down, at least one. Without candidates each member is drawn by its own name, so of a
    small fleet it may be none. None: one of the candidates."""
    calls: tuple[int, ...] | None = None
    """Strike these calls alone, counted from 1 for each guard (each attempt of a retry is one); None: any."""
    amount: float | None = None
    """How much of a resource is taken (``resource_exhaust``), in its own unit."""
    mode: str | None = None
    """How a part of the network is cut off (``network_partition``): ``refuse`` (or None), ``blackhole``, ``reset``, ``drop``, ``loss``."""
    loss: float | None = None
    """Share of the packets that are lost, where the partition loses packets."""
    path: str | None = None
    """Strike, and count, only calls that are made along this path of guards: ``agent.turn > llm.invoke``; None: any."""
    every: int | None = None
    """Strike each call whose number is a multiple of this."""
    first: int | None = None
    """Strike only the first so many calls: then all is clear."""
    after: str | None = None
    """Strike, and count, only what comes after something was seen: ``call:GUARD``, ``fault:GUARD`` or ``event:NAME[:GUARD]``."""
    ramp_seconds: float | timedelta = 0.0
    """The rate goes from ``ramp_from`` to ``failure_rate`` within so many seconds, then it stays."""
    ramp_from: float = 0.0
    """Where the rate begins."""
    where: Mapping[str, str] | tuple[tuple[str, str], ...] | None = None
    """Strike, and count, only calls that fit: patterns by ``tenant``, ``class``, ``scope``, ``method``, ``host`` or ``header:NAME``."""
    result: Any = None
    """What ``fake_result`` answers: a value, or a function of the arguments of the call."""
    corrupt: str | Corrupter = "any"
    """How ``corrupt_result`` damages: ``any``, ``truncate``, ``drop_keys``, ``flip_numbers``, or a function of an answer and a draw."""
    retry_after: float | timedelta = 1.0
    """Seconds after which ``rate_limit`` asks to come back."""
    bytes_per_second: float | None = None
    """What ``stream_throttle`` lets through; for items that are text."""
    items_per_second: float | None = None
    """What ``stream_throttle`` lets through."""
    chunk_bytes: int = 16
    """In pieces of how many bytes ``stream_drip`` sends a body."""
    reset: bool = False
    """Break a connection off with a TCP reset, where the server lets us at it."""
    max_active_faults: int | None = None
    """So many calls may be held up by it at once, and no more; what is too much passes unharmed and is counted. None: up to the ceiling."""
    allow_overlap: bool = False
    """Whether it may strike what another experiment strikes at the same time."""
    stop_when: tuple[StopCondition | str | Callable[[], object], ...] = ()
    """What ends it early (:mod:`somaresil.chaos.conditions`): conditions, names of those that the engine knows, or plain functions."""
    dry_run: bool = False
    """Strike nothing, and count what would have been struck."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosConfig")
        keep = object.__setattr__
        known = self.experiment in AVAILABLE
        keep(self, "experiment", check.one_of("experiment", self.experiment, tuple(ChaosExperiment)))
        check.pattern("target_component", self.target_component)
        check.ratio("failure_rate", self.failure_rate)
        keep(self, "duration_seconds", check.seconds("duration_seconds", self.duration_seconds))
        radius = "zone" if self.blast_radius == "az" else self.blast_radius
        keep(self, "blast_radius", check.one_of("blast_radius", radius, BLAST_RADII))
        keep(self, "delay_seconds", _delay(check, self.delay_seconds))
        self._check_error(check)
        check.count("status", self.status, minimum=400, maximum=599)
        check.count("after_items", self.after_items, minimum=0, maximum=1_000_000)
        check.count("max_injections", self.max_injections, optional=True)
        if isinstance(self.candidates, str | bytes) or not isinstance(self.candidates, Iterable):
            check.problem("candidates", self.candidates, "names of instances, zones or regions", "a list or tuple, also for a single name")
        else:
            keep(self, "candidates", tuple(check.name("candidates", name) for name in self.candidates))
        if self.blast_share is not None:
            keep(self, "blast_share", check.ratio("blast_share", self.blast_share, allow_zero=False))
        self._check_calls(check)
        self._check_triggers(check)
        self._check_contents(check)
        check_bounds(check, self)
        if self.amount is not None:
            keep(self, "amount", check.number("amount", self.amount, minimum=0.0, maximum=1e15))
        if self.mode is not None:
            check.name("mode", self.mode)
        if self.loss is not None:
            keep(self, "loss", check.ratio("loss", self.loss, allow_zero=False))
        if known and isinstance(self.target_component, str):
            check_options(check, self.experiment.value, self.target_component, self.options(), _USUAL)
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

    def _check_triggers(self, check: Checker) -> None:
        keep = object.__setattr__
        check.count("every", self.every, optional=True, maximum=1_000_000_000)
        check.count("first", self.first, optional=True, maximum=1_000_000_000)
        check_after(check, self.after)
        keep(self, "ramp_seconds", check.seconds("ramp_seconds", self.ramp_seconds, exclusive=False))
        check.ratio("ramp_from", self.ramp_from)
        if self.ramp_from and not self.ramp_seconds:
            check.problem("ramp_from", self.ramp_from, "0.0 without a ramp", "ramp_seconds says how long it takes")
        keep(self, "where", check_where(check, self.where))

    def _check_contents(self, check: Checker) -> None:
        keep = object.__setattr__
        if not callable(self.corrupt):
            check.one_of("corrupt", self.corrupt, tuple(CORRUPTIONS))
        keep(self, "retry_after", check.seconds("retry_after", self.retry_after, exclusive=False))
        for name in ("bytes_per_second", "items_per_second"):
            if (value := getattr(self, name)) is not None:
                keep(self, name, check.number(name, value, minimum=0.001, maximum=1e12))
        check.count("chunk_bytes", self.chunk_bytes, maximum=1_000_000)
        check.type("reset", self.reset, bool, "True or False")

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

    def options(self) -> dict[str, Any]:
        """Every option that some kind takes, by its short name."""
        return {SHORT_NAMES.get(name, name): getattr(self, name) for name in _OPTIONS}

    @property
    def realm(self) -> Realm:
        """Where it strikes."""
        return realm_of(self.target_component)

    @property
    def on_http(self) -> bool:
        """Whether it is about requests to the ASGI middleware."""
        return self.realm is Realm.HTTP

    @property
    def on_process(self) -> bool:
        """Whether it strikes the process itself: a resource of it, or its network."""
        return self.realm in {Realm.RESOURCE, Realm.NETWORK}

    @property
    def longest_delay(self) -> float:
        """The most seconds that one delay of it lasts: what a ceiling is compared with."""
        delay: Any = self.delay_seconds
        return float(delay) if isinstance(delay, int | float) else float(delay.longest)

    @property
    def highest_rate(self) -> float:
        """The highest rate that it reaches; a circuit trip strikes whatever its rate."""
        return 1.0 if self.experiment is ChaosExperiment.CIRCUIT_TRIP else max(self.failure_rate, self.ramp_from)

    def delay(self, u: float) -> float:
        """Seconds for a draw."""
        delay: Any = self.delay_seconds
        return float(delay) if isinstance(delay, int | float) else float(delay.quantile(u))

    def make_error(self, component: str, experiment: str) -> BaseException:
        """A fresh exception for each struck call."""
        error: Any = self.error
        if error is None:
            return InjectedFault(component, experiment)
        if isinstance(error, BaseException):
            return _anew(error)
        made = error()
        return made if isinstance(made, Exception) else InjectedFault(component, experiment)


_SELECTING: Final = frozenset(
    {"experiment", "target_component", "failure_rate", "duration_seconds", "blast_radius", "candidates", "blast_share", "_"}
)
_OPTIONS: Final = tuple(option.name for option in fields(ChaosConfig) if option.name not in _SELECTING)
_USUAL: Final = {SHORT_NAMES.get(o.name, o.name): o.default for o in fields(ChaosConfig) if o.name in _OPTIONS}


def _delay(check: Checker, value: Any) -> float | Distribution:
    """Seconds, or a shape; of a constant shape its seconds."""
    if isinstance(value, int | float | timedelta) or not (isinstance(value, Mapping) or hasattr(value, "quantile")):
        return check.seconds("delay_seconds", value, exclusive=False)
    shape = distribution_of(check, "delay_seconds", value)
    return 0.0 if shape is None else shape.seconds if isinstance(shape, Constant) else shape


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
    memory: int = 256 << 20
    """Bytes of memory that experiments may hold, all together; so with the next ones."""
    disk: int = 1 << 30
    """Bytes of disk space."""
    cores: float = 2.0
    """Cores that may be kept busy."""
    threads: int = 64
    """Threads that may be started to want the interpreter, or held in executors."""
    descriptors: int | None = None
    """File descriptors; None: all that are free but a reserve."""
    connections: int = 256
    """Connections of registered pools."""
    block: float | timedelta = 2.0
    """Seconds for which an event loop may be blocked in one piece."""
    active_faults: int = 1_000
    """How many calls all experiments together may hold up at once; what is too much passes unharmed and is counted."""
    protected_paths: tuple[str, ...] = ()
    """Paths of the ASGI middleware that are never touched, besides health, readiness, metrics and control routes."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosCeilings")
        object.__setattr__(self, "duration", check.seconds("duration", self.duration, maximum=86_400.0))
        check.ratio("rate", self.rate)
        object.__setattr__(self, "delay", check.seconds("delay", self.delay))
        check.count("experiments", self.experiments, maximum=1_000)
        check.count("memory", self.memory, minimum=0)
        check.count("disk", self.disk, minimum=0)
        check.number("cores", self.cores, minimum=0.0)
        check.count("threads", self.threads, minimum=0, maximum=10_000)
        check.count("descriptors", self.descriptors, minimum=0, optional=True)
        check.count("connections", self.connections, minimum=0, maximum=1_000_000)
        object.__setattr__(self, "block", check.seconds("block", self.block, maximum=60.0))
        check.count("active_faults", self.active_faults, maximum=1_000_000)
        if isinstance(self.protected_paths, str) or not all(isinstance(path, str) and path for path in self.protected_paths):
            check.problem("protected_paths", self.protected_paths, "path patterns", "a tuple such as ('/admin/*',), also for a single one")
        check.finish()
