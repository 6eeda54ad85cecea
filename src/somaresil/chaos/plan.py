"""A fault plan: windows of faults on a time line, as data. The same plan runs in a simulation, in CI and against a live service.

A plan names kinds of faults and errors that the code knows already; nothing in it is imported or called. (chaos-monkey-spring-boot lets its
control endpoint name any static method; that is what this must never become.) It draws by its own seed, so it decides alike wherever it
runs.

As JSON::

    {"somaresil_plan": 1, "seed": 7, "windows": [{"target": "llm.invoke", "kind": "error", "start": 0, "duration": 312}]}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, cast

from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.chaos.transforms import CORRUPTIONS, Corrupter
from somaresil.chaos.vocabulary import KINDS, LONG_NAMES, short_path
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.latency import Distribution

__all__ = ["ERRORS", "KINDS", "VERSION", "ChaosPlan", "Corrupters", "ErrorMakers", "FaultWindow", "PlanRun"]

VERSION: Final = 1
"""The version of the JSON form that this release writes, and the highest that it reads."""

ERRORS: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind for kind in (BrokenPipeError, ConnectionError, ConnectionRefusedError, ConnectionResetError, OSError, TimeoutError)
}
"""Errors that a plan may name without anybody having allowed them."""

ErrorMakers = Mapping[str, "type[Exception] | Callable[[], Exception]"]
"""More errors, by the names that plans use for them: types or functions that make one."""

Corrupters = Mapping[str, Corrupter]
"""Ways to damage an answer, by the names that plans use for them."""

LONGEST: Final = 31 * 86_400.0
"""Seconds from the start of a plan to its end, at most."""
MOST_WINDOWS: Final = 1_000
_LARGEST_RESULT: Final = 100_000
_LARGEST: Final = 1_000_000
"""Characters of JSON that are read."""


def _literal(value: object) -> str:
    """Write a value as Python does, but a string in the other quotes where that needs no escape."""
    written = repr(value)
    return f'"{written[1:-1]}"' if written.startswith("'") and '"' not in written else written


@dataclass(frozen=True, slots=True)
class FaultWindow:
    """One fault, from ``start`` for ``duration`` seconds; options as in :class:`~somaresil.chaos.config.ChaosConfig`, by shorter names.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found; paths are the field names.
    """

    target: str
    """Name of a guard or a pattern over names; ``http:`` and a path pattern for requests; ``resource:NAME``; ``net:HOST[:PORT]``."""
    kind: str
    """Name of a kind of fault (:data:`~somaresil.chaos.vocabulary.FAULTS`)."""
    start: float
    """Seconds after the beginning of the plan."""
    duration: float
    """Seconds."""
    _: KW_ONLY
    rate: float = 1.0
    """Share of the calls that are struck."""
    delay: float | Distribution | Mapping[str, Any] = 0.0
    """Seconds: what ``latency`` is about; before an ``error``; in which the caller of a ``lost_reply`` waits. Or a shape, as it is or as
    data: ``{"uniform": [0.1, 0.5]}``."""
    error: str | None = None
    """Name of the error to raise (see :data:`ERRORS`); None: :class:`~somaresil.errors.InjectedFault`."""
    status: int = 503
    """What ``error`` on ``http:`` answers."""
    after_items: int = 1
    """Items of a stream that pass before ``stream_cut`` and ``stream_truncate``."""
    calls: tuple[int, ...] | None = None
    """These calls alone, counted from 1."""
    amount: float | None = None
    """How much of a resource ``resource_exhaust`` takes, in its own unit."""
    mode: str | None = None
    """How ``network_partition`` cuts off."""
    loss: float | None = None
    """Share of the packets that a partition loses."""
    path: str | None = None
    """Only along this path of guards."""
    every: int | None = None
    """Each call whose number is a multiple of this."""
    first: int | None = None
    """The first so many calls."""
    after: str | None = None
    """Only after ``call:GUARD``, ``fault:GUARD`` or ``event:NAME[:GUARD]`` was seen."""
    ramp: float = 0.0
    """Seconds in which the rate goes from ``ramp_from`` to ``rate``."""
    ramp_from: float = 0.0
    """Where the rate begins."""
    where: Mapping[str, str] | tuple[tuple[str, str], ...] | None = None
    """Only calls that fit these patterns, by ``tenant``, ``class``, ``scope``, ``method``, ``host`` or ``header:NAME``."""
    result: Any = None
    """What ``fake_result`` answers; anything that JSON has."""
    corrupt: str = "any"
    """How ``corrupt_result`` damages: ``any``, ``truncate``, ``drop_keys``, ``flip_numbers``, or the name of a corrupter."""
    retry_after: float = 1.0
    """Seconds after which ``rate_limit`` asks to come back."""
    bytes_per_second: float | None = None
    """What ``stream_throttle`` lets through."""
    items_per_second: float | None = None
    """What ``stream_throttle`` lets through."""
    chunk_bytes: int = 16
    """In pieces of how many bytes ``stream_drip`` sends a body."""
    reset: bool = False
    """Whether ``stream_cut`` and ``stream_tear`` reset the connection of a request."""
    max_active_faults: int | None = None
    """So many calls are held up at once, and no more."""
    allow_overlap: bool = False
    """Whether it may strike what runs beside the plan strikes too; the windows of one plan always may."""
    stop_when: tuple[str, ...] = ()
    """Names of conditions that end it early, as the engine knows them."""
    dry_run: bool = False
    """Strike nothing, and count what would have been struck."""
    blast_radius: str = "single_instance"
    """How much of a fleet takes part when the same window is started everywhere: ``single_instance``, ``zone`` or ``region``."""
    candidates: tuple[str, ...] = ()
    """Names of instances, zones or regions among which the radius chooses; without any, those who start it take part."""

    def __post_init__(self) -> None:
        """Check everything, keep numbers as they are read best."""
        check = Checker()
        keep = object.__setattr__
        keep(self, "start", _plain(check.seconds("start", self.start, exclusive=False, maximum=LONGEST)))
        keep(self, "duration", _plain(check.seconds("duration", self.duration, maximum=LONGEST)))
        if self.error is not None:
            # Whether the name means something is known where the plan runs.
            check.name("error", self.error)
        if not isinstance(self.corrupt, str) or self.corrupt not in CORRUPTIONS:
            check.name("corrupt", self.corrupt)
        if self.result is not None:
            keep(self, "result", _json(check, "result", self.result))
        try:
            # Any error will do here; one that is no text has its problem already.
            config = self._config(OSError if isinstance(self.error, str) else None, _stand_in)
        except ConfigurationError as wrong:
            said = {problem.path for problem in check.problems}
            for problem in wrong.problems:
                name = short_path(problem.path.removeprefix("ChaosConfig."))
                if name not in said:
                    check.problem(name, problem.value, problem.allowed, problem.hint)
        else:
            keep(self, "kind", config.experiment.value)
            delay = config.delay_seconds
            keep(self, "delay", _plain(float(delay)) if isinstance(delay, int | float) else delay)
            keep(self, "ramp", _plain(config.ramp_seconds))  # type: ignore[arg-type]
            keep(self, "retry_after", _plain(config.retry_after))  # type: ignore[arg-type]
            keep(self, "where", config.where)
            keep(self, "calls", config.calls)
            keep(self, "stop_when", config.stop_when)
            keep(self, "blast_radius", config.blast_radius)
            keep(self, "candidates", config.candidates)
            for condition in config.stop_when:
                if not isinstance(condition, str):
                    check.problem("stop_when", condition, "a name", "chaos.condition(name, ...) says what it means")
            if self.end > LONGEST:
                check.problem("duration", self.duration, f"an end within {LONGEST:.0f} seconds of the start of the plan")
        check.finish()

    def __repr__(self) -> str:
        """A line to copy: what is as usual is left out, and strings stand in the quotes that formatters want."""
        shown = {name: value for name, value in self.as_dict().items() if name not in {"target", "kind"}}
        named = [f"{name}={_literal(tuple(value) if name == 'calls' else value)}" for name, value in shown.items()]
        return f"FaultWindow({', '.join([_literal(self.target), _literal(self.kind), *named])})"

    @property
    def end(self) -> float:
        """Seconds after the beginning of the plan at which it is over."""
        return self.start + self.duration

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what differs from the defaults."""
        shown = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.default is MISSING or value != option.default:
                shown[option.name] = _data(option.name, value)
        return shown

    def config(self, errors: ErrorMakers = ERRORS, corrupters: Corrupters | None = None) -> ChaosConfig:
        """The experiment that it stands for; ``errors`` says what the names of errors mean, ``corrupters`` those of ways to damage."""
        error = None if self.error is None else errors[self.error]
        return self._config(error, None if self.corrupt in CORRUPTIONS else (corrupters or {})[self.corrupt])

    def _config(self, error: type[Exception] | Callable[[], Exception] | None, corrupter: Corrupter | None) -> ChaosConfig:
        options = {LONG_NAMES.get(name, name): getattr(self, name) for name in _OPTIONS}
        if corrupter is not None and self.corrupt not in tuple(CORRUPTIONS):
            options["corrupt"] = corrupter
        # A word becomes its member there.
        return ChaosConfig(cast("ChaosExperiment", self.kind), self.target, self.rate, self.duration, error=error, **options)


_SELECTING: Final = frozenset({"target", "kind", "start", "duration", "rate", "error", "_"})
_OPTIONS: Final = tuple(option.name for option in fields(FaultWindow) if option.name not in _SELECTING)
_FIELDS: Final = tuple(option.name for option in fields(FaultWindow))
_REQUIRED: Final = tuple(option.name for option in fields(FaultWindow) if option.default is MISSING)


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """Windows of faults, at most 1,000, and the seed by which they decide.

    ``scenario`` says which simulation it was found with, as ``module:name``; only ``python -m somaresil replay`` looks at it.
    Two plans are equal when they do the same. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    windows: tuple[FaultWindow, ...] = ()
    _: KW_ONLY
    seed: int = 0
    scenario: str | None = field(default=None, compare=False)

    if TYPE_CHECKING:
        # Kept as a tuple, taken as a list too: the line that a failure prints is written with one.
        def __init__(self, windows: Iterable[FaultWindow] = (), *, seed: int = 0, scenario: str | None = None) -> None: ...

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("ChaosPlan")
        windows = self.windows
        if isinstance(windows, FaultWindow) or not isinstance(windows, Iterable):
            check.problem("windows", windows, "a list or tuple of FaultWindow", "also for a single one")
        else:
            object.__setattr__(self, "windows", tuple(windows))
            for index, window in enumerate(self.windows):
                if not isinstance(window, FaultWindow):
                    check.problem(f"windows[{index}]", window, "a FaultWindow")
            if len(self.windows) > MOST_WINDOWS:
                check.problem("windows", f"{len(self.windows)} windows", f"at most {MOST_WINDOWS}")
        check.count("seed", self.seed, minimum=0, maximum=2**63 - 1)
        if self.scenario is not None and not _is_reference(self.scenario):
            check.problem("scenario", self.scenario, "module:name, or None")
        check.finish()

    def __repr__(self) -> str:
        """A line to copy."""
        seed = f", seed={self.seed}" if self.seed else ""
        return f"ChaosPlan([{', '.join(map(repr, self.windows))}]{seed})"

    @property
    def duration(self) -> float:
        """Seconds from its beginning until its last window is over."""
        return max((window.end for window in self.windows), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plan: dict[str, Any] = {"somaresil_plan": VERSION, "seed": self.seed}
        if self.scenario is not None:
            plan["scenario"] = self.scenario
        return {**plan, "windows": [window.as_dict() for window in self.windows]}

    def to_json(self, *, indent: int | None = None) -> str:
        """The plan as JSON; :meth:`from_json` reads it back."""
        return json.dumps(self.as_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> ChaosPlan:
        """Read a plan. Raises :class:`~somaresil.errors.ConfigurationError` with the path of each problem.

        Refused are: what is no JSON, a newer version, unknown and repeated fields, NaN and infinity, more than a million characters.
        """
        check = Checker("plan")
        if not isinstance(text, str | bytes):
            check.problem("text", text, "JSON as text", "from_dict reads a dictionary")
            check.finish()
        if len(text) > _LARGEST:
            check.problem("size", f"{len(text)} characters", f"at most {_LARGEST}")
            check.finish()
        try:
            data = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_number)
        except (ValueError, RecursionError) as broken:
            shown = text[:40] if isinstance(text, str) else repr(text[:40])
            check.problem("text", shown, "JSON", str(broken)[:120])
            check.finish()
            raise
        return cls._of(data, check)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChaosPlan:
        """Read a plan from what :meth:`as_dict` gives; as strict as :meth:`from_json`."""
        return cls._of(data, Checker("plan"))

    @classmethod
    def _of(cls, data: object, check: Checker) -> ChaosPlan:
        if not isinstance(data, Mapping):
            check.problem("", data, 'an object with "somaresil_plan", "seed" and "windows"')
            check.finish()
            raise TypeError(type(data))
        version = data.get("somaresil_plan")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            check.problem("somaresil_plan", version, f"the version of the format, {VERSION}", "is it a plan at all?")
        elif version > VERSION:
            # What the other fields mean there is not for this release to say.
            check.problem("somaresil_plan", version, f"at most {VERSION}", "it was written by a newer somaresil; upgrade this one")
            check.finish()
        _check_fields(check, data, ("somaresil_plan", "seed", "scenario", "windows"))
        windows = []
        listed = data.get("windows")
        if not isinstance(listed, list | tuple):
            check.problem("windows", listed, "a list of windows")
            listed = ()
        if len(listed) > MOST_WINDOWS:
            check.problem("windows", f"{len(listed)} windows", f"at most {MOST_WINDOWS}")
        for index, window in enumerate(listed[:MOST_WINDOWS]):
            found = _window(check.child(f"windows[{index}]"), window)
            if found is not None:
                windows.append(found)
        plan = None
        try:
            plan = cls(tuple(windows), seed=data.get("seed", 0), scenario=data.get("scenario"))
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(problem.path.removeprefix("ChaosPlan."), problem.value, problem.allowed, problem.hint)
        check.finish()
        if plan is None:
            raise TypeError(data)
        return plan


@dataclass(frozen=True, slots=True)
class PlanRun:
    """A plan on its way: one experiment a window, in its order."""

    plan: ChaosPlan
    runs: tuple[Any, ...]
    """The :class:`~somaresil.chaos.run.ExperimentRun` of each window."""
    ends_at: float
    """Monotonic time at which the last window is over."""

    @property
    def injected(self) -> int:
        """How many calls were struck so far."""
        return sum(run.injected for run in self.runs)

    @property
    def over(self) -> bool:
        """Whether every window has ended."""
        # Each is asked, so that each tells of its end.
        return not [run for run in self.runs if not run.over]

    def stop(self) -> None:
        """End every window now, those that have not begun as well; from any thread."""
        for run in self.runs:
            run.end("stopped")


class _Pairs(dict[str, Any]):
    """An object of JSON that remembers which of its fields stood there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number here")


def _check_fields(check: Checker, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            check.problem(str(name), data[name], f"one of {', '.join(known)}", did_you_mean(name, known))
    for name in getattr(data, "repeated", ()):
        check.problem(name, data[name], "each field once", "it stands there twice")


def _window(check: Checker, data: object) -> FaultWindow | None:
    if not isinstance(data, Mapping):
        check.problem("", data, "an object with target, kind, start and duration")
        return None
    _check_fields(check, data, _FIELDS)
    missing = [name for name in _REQUIRED if name not in data]
    for name in missing:
        check.problem(name, None, "a value", "it is missing")
    # A stand-in lets the other fields be checked too; the problem of the missing one is told already.
    given: dict[str, Any] = {"target": "x", "kind": "error", "start": 0.0, "duration": 1.0}
    given |= {name: data[name] for name in _FIELDS if name in data}
    for name in ("calls", "stop_when", "candidates"):
        if isinstance(given.get(name), list):
            given[name] = tuple(given[name])
    try:
        return FaultWindow(**given)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            if problem.path not in missing:
                check.problem(problem.path, problem.value, problem.allowed, problem.hint)
    return None


def _stand_in(answer: Any, u: float) -> Any:  # noqa: ARG001 - it stands for any corrupter
    return answer


def _data(name: str, value: Any) -> Any:
    """The value of an option for JSON."""
    if name == "where":
        return dict(value)
    if name == "delay" and not isinstance(value, int | float):
        return value.as_data()
    return list(value) if isinstance(value, tuple) else value


def _json(check: Checker, name: str, value: Any) -> Any:
    """A copy of what is JSON; what is not is a problem."""
    try:
        written = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as wrong:
        check.problem(name, type(value).__name__, "what JSON has: text, numbers, true, false, null, lists and objects", str(wrong)[:120])
        return None
    if len(written) > _LARGEST_RESULT:
        check.problem(name, f"{len(written)} characters", f"at most {_LARGEST_RESULT}")
    return json.loads(written)


def _plain(seconds: float) -> float:
    """A whole number of seconds as one: ``312``, not ``312.0``."""
    return int(seconds) if isinstance(seconds, float) and seconds.is_integer() else seconds


def _is_reference(text: object) -> bool:
    if not isinstance(text, str) or len(text) > 300:  # noqa: PLR2004 - longer than any name of a module
        return False
    module, _, name = text.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), *name.split(".")])
