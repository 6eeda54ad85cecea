"""Results of measurements, whoever has made them: what was measured, in which unit, which way is better, where and of what.

A :class:`Series` holds the values of one metric of one thing: all durations of one benchmark, or the 95th percentile of an endpoint under
load, once a run. A :class:`RunResult` holds the series of one run. Values are in base units: seconds, bytes, requests a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from somaresil.config import Checker, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.perf.machine import Machine

__all__ = [
    "BETTER",
    "LONGEST",
    "MOST_VALUES",
    "UNITS",
    "Better",
    "RunResult",
    "Series",
    "base_unit",
    "better_of",
    "merge",
    "problem_of",
    "unit_hint",
]

Better: TypeAlias = Literal["lower", "higher"]
BETTER: Final[tuple[Better, ...]] = ("lower", "higher")
UNITS: Final = ("seconds", "bytes", "requests_per_second", "ratio", "count")
"""The base units of values."""
MOST_VALUES: Final = 1_000_000
"""Values in a series."""
LONGEST: Final = 500
"""Characters in the name of a series."""
_LARGEST: Final = 1e300
_FACTORS: Final[dict[str, tuple[str, float]]] = {
    "seconds": ("seconds", 1.0),
    "second": ("seconds", 1.0),
    "s": ("seconds", 1.0),
    "m": ("seconds", 60.0),
    "min": ("seconds", 60.0),
    "h": ("seconds", 3600.0),
    "ms": ("seconds", 1e-3),
    "us": ("seconds", 1e-6),
    "µs": ("seconds", 1e-6),
    "ns": ("seconds", 1e-9),
    "bytes": ("bytes", 1.0),
    "byte": ("bytes", 1.0),
    "B": ("bytes", 1.0),
    "kB": ("bytes", 1e3),
    "MB": ("bytes", 1e6),
    "GB": ("bytes", 1e9),
    "KiB": ("bytes", 1024.0),
    "MiB": ("bytes", 1024.0**2),
    "GiB": ("bytes", 1024.0**3),
    "requests_per_second": ("requests_per_second", 1.0),
    "rps": ("requests_per_second", 1.0),
    "req/s": ("requests_per_second", 1.0),
    "ratio": ("ratio", 1.0),
    "%": ("ratio", 0.01),
    "count": ("count", 1.0),
    "integer": ("count", 1.0),
}
_HIGHER: Final = ("throughput", "success_rate")


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one metric of one thing.

    Raises :class:`~somaresil.errors.ConfigurationError` for a name that cannot be shown, a unit that is none of :data:`UNITS`, no values,
    more than :data:`MOST_VALUES`, and values that are no finite numbers of at least 0.
    """

    name: str
    """What was measured: the full name of a benchmark, an endpoint, a command. At most :data:`LONGEST` printable characters."""
    unit: str
    values: tuple[float, ...]
    """In the order in which they were measured."""
    better: Better = "lower"
    metric: str = "duration"
    """``duration`` for one value an execution; ``p50``, ``p95``, ``mean``, ``throughput``, ``error_rate`` … for one value a run."""
    rounding: float = 0.0
    """How far a true value may lie from the one that was written, in the unit: tools round."""

    def __post_init__(self) -> None:
        check = Checker("Series")
        if (wrong := problem_of(self.name)) is not None:
            check.problem("name", self.name, f"a text of 1 to {LONGEST} printable characters", wrong)
        check.name("metric", self.metric)
        check.one_of("unit", self.unit, UNITS)
        check.one_of("better", self.better, BETTER)
        check.number("rounding", self.rounding, minimum=0.0)
        if not 1 <= len(self.values) <= MOST_VALUES:
            check.problem("values", f"{len(self.values)} values", f"1 to {MOST_VALUES} values")
        for place, value in enumerate(self.values):
            if not _is_measured(value):
                check.problem(f"values[{place}]", value, "a finite number >= 0")
                break
        check.finish()

    @property
    def key(self) -> tuple[str, str]:
        """What tells series of one run apart: name and metric."""
        return self.name, self.metric


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run has measured.

    Raises :class:`~somaresil.errors.ConfigurationError` when it holds no series, or two with the same name and metric.
    """

    series: tuple[Series, ...]
    source: str
    """Where it was read: the name of a file, a query."""
    commit: str | None = None
    """Of what was measured, as the full hash; None: not known."""
    at: float | None = None
    """Seconds since 1970; None: not known."""
    machine: Machine | None = None
    form: str = "somaresil"
    """The format in which it was written."""
    notes: tuple[str, ...] = ()
    """What whoever judges it should know: figures that were left out, percentiles that were rounded."""

    def __post_init__(self) -> None:
        check = Checker(self.source)
        if not self.series:
            check.problem("series", "none", "at least one series", "an empty result proves nothing")
        seen: set[tuple[str, str]] = set()
        for each in self.series:
            if each.key in seen:
                check.problem("series", each.name, f"one series of the metric {each.metric}", "it is there twice")
            seen.add(each.key)
        check.finish()

    @property
    def when(self) -> str:
        """The time as text in UTC; ``""`` when it is not known."""
        try:
            return "" if self.at is None else datetime.fromtimestamp(self.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        except (ValueError, OverflowError, OSError):
            return ""

    def get(self, name: str, metric: str) -> Series | None:
        """One series; None when it is not there."""
        return next((each for each in self.series if each.key == (name, metric)), None)


def merge(results: Iterable[RunResult]) -> dict[tuple[str, str], Series]:
    """The series of several runs of the same thing, each with the values of all of them, in the order given.

    Raises :class:`~somaresil.errors.ConfigurationError` when runs do not agree about the unit of a series or which way is better.
    """
    check = Checker()
    found: dict[tuple[str, str], list[Series]] = {}
    for result in results:
        for each in result.series:
            listed = found.setdefault(each.key, [])
            if listed and (listed[0].unit, listed[0].better) != (each.unit, each.better):
                allowed = f"{listed[0].unit}, {listed[0].better} is better, as in the runs before"
                check.problem(f"{result.source}: {each.name} ({each.metric})", f"{each.unit}, {each.better} is better", allowed)
            listed.append(each)
    check.finish()
    return {
        key: Series(
            name=key[0],
            unit=listed[0].unit,
            values=tuple(value for each in listed for value in each.values),
            better=listed[0].better,
            metric=key[1],
            rounding=max(each.rounding for each in listed),
        )
        for key, listed in found.items()
    }


def base_unit(unit: str) -> tuple[str, float] | None:
    """The base unit of what others write (``ms``, ``MiB``, ``%``), and the factor into it; None when it is not known."""
    return _FACTORS.get(unit)


def better_of(metric: str) -> Better:
    """Which way a metric is better when nobody says it: higher for throughput and success rate, lower for everything else."""
    return "higher" if metric in _HIGHER else "lower"


def problem_of(name: object) -> str | None:
    """Why something cannot be the name of a series; None when it can."""
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}, not text"
    if not name.strip():
        return "it is empty"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters"
    strange = next((character for character in name if not character.isprintable()), None)
    return None if strange is None else f"{strange!r} is not allowed"


def _is_measured(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= _LARGEST


def unit_hint(unit: object) -> str:
    """What somebody may have meant by a unit."""
    return did_you_mean(unit, _FACTORS)
