"""Shapes of latency: how long a struck call is delayed, drawn from a distribution (:mod:`somaresil.model.distribution` has the formulas).

With keyed draws the n-th call is delayed alike in every run.

- *lognormal* is what services look like as a rule: the median is the usual answer, ``sigma`` 0.5 a calm tail, 1.5 a wild one.
- *pareto* has a heavy tail, with no mean at all for ``alpha`` <= 1.
- *percentiles* is what a dashboard says, *empirical* what was measured.

No shape is without bound: ``longest`` is the most that it ever gives, and that is what a ceiling is compared with. Where the formula has no
end of its own (lognormal, pareto) it ends at ``cap``, by default at its 99.9th percentile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Final, Protocol, cast

from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.model import distribution

__all__ = ["SHAPES", "Constant", "Distribution", "Empirical", "LogNormal", "Pareto", "Percentiles", "Uniform", "distribution_of"]

_LONGEST: Final = 86_400.0
"""Seconds that any shape may give."""
_MOST_SAMPLES: Final = 10_000
_WIDEST: Final = 10.0
_FLATTEST: Final = 0.05
_USUAL_END: Final = 0.999
_FULL: Final = 100.0


class Distribution(Protocol):
    """A shape of latency."""

    @property
    def longest(self) -> float:
        """The most seconds that it ever gives."""
        ...

    def quantile(self, u: float) -> float:
        """Seconds for a draw in [0, 1): never less for a higher draw, never more than :attr:`longest`."""
        ...

    def as_data(self) -> Any:
        """For JSON; :func:`distribution_of` reads it back."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    seconds: float

    def __post_init__(self) -> None:
        """Check it."""
        check = Checker("constant")
        object.__setattr__(self, "seconds", check.seconds("seconds", self.seconds, maximum=_LONGEST))
        check.finish()

    @property
    def longest(self) -> float:
        """What it gives."""
        return self.seconds

    def quantile(self, u: float) -> float:  # noqa: ARG002 - every draw gives the same
        """What it gives."""
        return self.seconds

    def as_data(self) -> Any:
        """For JSON."""
        return {"constant": self.seconds}


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything between two limits, all alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("uniform")
        low = check.seconds("low", self.low, exclusive=False, maximum=_LONGEST)
        high = check.seconds("high", self.high, maximum=_LONGEST)
        if not check.problems and low > high:
            check.problem("low", self.low, f"at most high, {high:g}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        check.finish()

    @property
    def longest(self) -> float:
        """The upper limit."""
        return self.high

    def quantile(self, u: float) -> float:
        """Seconds for a draw."""
        return distribution.uniform(u, self.low, self.high)

    def as_data(self) -> Any:
        """For JSON."""
        return {"uniform": [self.low, self.high]}


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Mostly near the median, sometimes much more."""

    median: float
    sigma: float
    """Standard deviation of the logarithm."""
    cap: float | None = None
    """The most; None: the 99.9th percentile."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("lognormal")
        keep = object.__setattr__
        keep(self, "median", check.seconds("median", self.median, maximum=_LONGEST))
        keep(self, "sigma", check.number("sigma", self.sigma, minimum=0.0, maximum=_WIDEST))
        keep(self, "cap", check.seconds("cap", self.cap, optional=True, maximum=_LONGEST))
        check.finish()
        if self.cap is None and self.longest > _LONGEST:
            check.problem("cap", None, f"seconds <= {_LONGEST:g}", f"without one it would be {self.longest:g}")
        check.finish()

    @property
    def longest(self) -> float:
        """The cap."""
        return self._at(_USUAL_END) if self.cap is None else self.cap

    def quantile(self, u: float) -> float:
        """Seconds for a draw."""
        return min(self.longest, self._at(u))

    def _at(self, u: float) -> float:
        return distribution.lognormal(u, self.median, self.sigma)

    def as_data(self) -> Any:
        """For JSON."""
        return {"lognormal": _given(self)}


@dataclass(frozen=True, slots=True)
class Pareto:
    """Never less than ``scale``, and a heavy tail."""

    scale: float
    alpha: float
    """How fast the tail falls off: the lower, the heavier."""
    cap: float | None = None
    """The most; None: the 99.9th percentile."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("pareto")
        keep = object.__setattr__
        keep(self, "scale", check.seconds("scale", self.scale, maximum=_LONGEST))
        keep(self, "alpha", check.number("alpha", self.alpha, minimum=_FLATTEST, maximum=1_000.0))
        keep(self, "cap", check.seconds("cap", self.cap, optional=True, maximum=_LONGEST))
        check.finish()
        if self.cap is None and self.longest > _LONGEST:
            check.problem("cap", None, f"seconds <= {_LONGEST:g}", f"without one it would be {self.longest:g}")
        elif self.cap is not None and self.cap < self.scale:
            check.problem("cap", self.cap, f"at least scale, {self.scale:g}")
        check.finish()

    @property
    def longest(self) -> float:
        """The cap."""
        return self._at(_USUAL_END) if self.cap is None else self.cap

    def quantile(self, u: float) -> float:
        """Seconds for a draw."""
        return min(self.longest, self._at(u))

    def _at(self, u: float) -> float:
        return distribution.pareto(u, self.scale, self.alpha)

    def as_data(self) -> Any:
        """For JSON."""
        return {"pareto": _given(self)}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What a dashboard says: ``Percentiles({50: 0.1, 95: 0.8, 99: 2.0})``."""

    table: tuple[tuple[float, float], ...]
    """Percentile and seconds, by percentile; a mapping is taken too, and its keys may be text, as in JSON."""
    _shares: tuple[float, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check everything, keep pairs in their order."""
        check = Checker("percentiles")
        given: Any = self.table
        pairs = given.items() if isinstance(given, Mapping) else given
        points: list[tuple[float, float]] = []
        if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable) or not (listed := list(pairs)):
            check.problem("", given, "percentiles and their seconds, such as {50: 0.1, 99: 2.0}")
            listed = []
        for pair in listed:
            if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004 - a pair
                check.problem("", pair, "a percentile and its seconds")
                continue
            percentile = check.number(f"{pair[0]}", _number(pair[0]), minimum=0.0, maximum=_FULL)
            points.append((percentile, check.seconds(f"{pair[0]}", pair[1], exclusive=False, maximum=_LONGEST)))
        points.sort()
        for (before, less), (after, more) in pairwise(points):
            if before == after:
                check.problem(f"{after:g}", more, "each percentile once")
            elif less > more:
                check.problem(f"{after:g}", more, f"at least {less:g}, what percentile {before:g} has")
        if points and not check.problems and points[-1][1] <= 0.0:
            check.problem(f"{points[-1][0]:g}", 0.0, "seconds > 0 at the last percentile")
        check.finish()
        object.__setattr__(self, "table", tuple(points))
        object.__setattr__(self, "_shares", tuple(percentile / _FULL for percentile, _ in points))

    @property
    def longest(self) -> float:
        """What the last percentile has."""
        return self.table[-1][1]

    def quantile(self, u: float) -> float:
        """Seconds for a draw."""
        return distribution.interpolated(u, self._shares, [seconds for _, seconds in self.table])

    def as_data(self) -> Any:
        """For JSON."""
        return {"percentiles": {f"{percentile:.15g}": seconds for percentile, seconds in self.table}}


@dataclass(frozen=True, slots=True)
class Empirical:
    """What was measured: one of up to 10,000 samples, all alike."""

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check everything, keep them in order."""
        check = Checker("empirical")
        given: Any = self.samples
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) or not (listed := list(given)):
            check.problem("", given, "seconds that were measured, such as [0.1, 0.2, 0.8]")
            listed = []
        if len(listed) > _MOST_SAMPLES:
            check.problem("", f"{len(listed)} samples", f"at most {_MOST_SAMPLES}")
            listed = []
        found = [check.seconds(f"[{index}]", each, exclusive=False, maximum=_LONGEST) for index, each in enumerate(listed)]
        if found and not check.problems and max(found) <= 0.0:
            check.problem("", given, "one sample > 0")
        check.finish()
        object.__setattr__(self, "samples", tuple(sorted(found)))

    @property
    def longest(self) -> float:
        """The longest that was measured."""
        return self.samples[-1]

    def quantile(self, u: float) -> float:
        """Seconds for a draw."""
        return distribution.empirical(u, self.samples)

    def as_data(self) -> Any:
        """For JSON."""
        return {"empirical": list(self.samples)}


SHAPES: Final[Mapping[str, Any]] = {
    "constant": Constant,
    "uniform": Uniform,
    "lognormal": LogNormal,
    "pareto": Pareto,
    "percentiles": Percentiles,
    "empirical": Empirical,
}
"""The shapes, by their names in plans."""

_IN_DATA: Final = 'seconds, or one of {"uniform": [0.1, 0.5]}, ' + ", ".join(f'{{"{name}": ...}}' for name in SHAPES if name != "uniform")


def distribution_of(check: Checker, name: str, value: object) -> Distribution | None:
    """The shape that ``value`` is or, as data, stands for; None, with every problem noted, when it is none.

    As data it is an object with one field, the name of the shape; its value is what the shape is made of: a list, or an object with
    the names of its fields.
    """
    if isinstance(value, Constant | Uniform | LogNormal | Pareto | Percentiles | Empirical):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        check.problem(name, value, _IN_DATA)
        return None
    word, made_of = next(iter(value.items()))
    if word not in SHAPES:
        check.one_of(name, word, tuple(SHAPES))
        return None
    kind, inner = SHAPES[word], check.child(f"{name}.{word}")
    try:
        return _made(kind, made_of, inner)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            inner.problem(problem.path.removeprefix(word).removeprefix("."), problem.value, problem.allowed, problem.hint)
        return None


def _made(kind: Any, made_of: object, check: Checker) -> Distribution | None:
    if kind in {Percentiles, Empirical}:
        drawn: Distribution = kind(cast("Any", made_of))
        return drawn
    names = [part.name for part in fields(kind) if part.init]
    needed = [part for part in names if part != "cap"]
    if isinstance(made_of, Mapping):
        given = dict(made_of)
        for wrong in [part for part in given if part not in names]:
            check.problem(str(wrong), given.pop(wrong), f"one of {', '.join(names)}")
    elif isinstance(made_of, list | tuple):
        given = dict(zip(names, made_of, strict=False))
        if len(made_of) > len(names):
            check.problem("", made_of, f"{', '.join(names)}")
            return None
    else:
        given = {names[0]: made_of}
    missing = [part for part in needed if part not in given]
    for part in missing:
        check.problem(part, None, "a value", "it is missing")
    if missing or check.problems:
        return None
    made: Distribution = kind(**given)
    return made


def _number(key: object) -> object:
    """A key of JSON, which is text, as the number that it is."""
    if isinstance(key, str):
        try:
            return float(key)
        except ValueError:
            return key
    return key


def _given(shape: Any) -> dict[str, float]:
    return {part.name: value for part in fields(shape) if (value := getattr(shape, part.name)) is not None}
