"""A sketch of many values: quantiles within 1 %, in little memory, that can be added to others without losing anything.

Positive values are counted in buckets whose bounds grow by a constant factor, so a quantile is wrong by at most a share of itself,
wherever it lies (C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
VLDB 2019). Two sketches are merged by adding their counts, which gives just what one sketch of all values would have had; that is what
makes results of several processes one result.

A bound that a judgement is about is counted exactly, like the bounds of a histogram: "95 % within 2 s" is not estimated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ERROR", "VERSION", "LogSketch"]

ERROR: Final = 0.01
"""The largest relative error of a quantile."""
VERSION: Final = 1
"""The version of the form that :meth:`LogSketch.as_dict` has."""

_GAMMA: Final = (1.0 + ERROR) / (1.0 - ERROR)
_SCALE: Final = 1.0 / math.log(_GAMMA)
_LEAST: Final = 1e-7
_MOST: Final = 1e9
_FIRST: Final = math.ceil(math.log(_LEAST) * _SCALE)
_LAST: Final = math.ceil(math.log(_MOST) * _SCALE)

_ceil, _log = math.ceil, math.log


class LogSketch:
    """Counts of values that are not negative.

    ``bounds``: values up to each of these are counted exactly. Quantiles of values from 1e-7 to 1e9 are within 1 %; beyond, they are one
    of these two, and never outside of the least and the largest value. At most 1,843 buckets, whatever the values are.
    """

    __slots__ = ("_buckets", "_within", "count", "largest", "least", "total")

    def __init__(self, bounds: Iterable[float] = ()) -> None:
        """Nothing counted."""
        self._buckets: dict[int, int] = {}
        self._within: dict[float, int] = dict.fromkeys(map(float, bounds), 0)
        self.count = 0
        self.total = 0.0
        """The sum of the values."""
        self.least = math.inf
        self.largest = -math.inf

    def __len__(self) -> int:
        """How many values were counted."""
        return self.count

    def __repr__(self) -> str:
        """How much is in it."""
        return f"<LogSketch count={self.count} p50={self.quantile(0.5)}>"

    def add(self, value: float) -> None:
        """Count a value. Raises :class:`ValueError` for one that is negative or not finite."""
        if not 0.0 <= value < math.inf:
            raise ValueError(f"a sketch counts finite values that are not negative, not {value!r}")
        index = _ceil(_log(value) * _SCALE) if _LEAST < value < _MOST else _FIRST if value <= _LEAST else _LAST
        buckets = self._buckets
        buckets[index] = buckets.get(index, 0) + 1
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.largest = max(self.largest, value)
        for bound in self._within:
            if value <= bound:
                self._within[bound] += 1

    def merge(self, other: LogSketch) -> None:
        """Count what the other has counted. Bounds that only one of both counts exactly are exact no more, and are dropped."""
        for index, times in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + times
        if other.count:
            mine, theirs = self._within, other._within
            if self.count:
                self._within = {bound: mine[bound] + theirs[bound] for bound in mine if bound in theirs}
            else:
                self._within = {bound: times for bound, times in theirs.items() if not mine or bound in mine}
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.largest = max(self.largest, other.largest)

    @property
    def bounds(self) -> tuple[float, ...]:
        """What is counted exactly."""
        return tuple(self._within)

    @property
    def mean(self) -> float | None:
        """The mean, which is exact; None without values."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The value of rank ``ceil(q n)``, within 1 %; None without values."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is asked for by a share in [0, 1], not {q!r}")
        if not self.count:
            return None
        rank = max(1, math.ceil(q * self.count))
        if rank == 1:
            return self.least
        if rank == self.count:
            return self.largest
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= rank:
                return min(self.largest, max(self.least, 2.0 * _GAMMA**index / (_GAMMA + 1.0)))
        return self.largest

    def at_most(self, limit: float) -> int:
        """How many values were at most ``limit``: exactly for a bound, else with the whole bucket in which the limit lies."""
        if limit in self._within:
            return self._within[limit]
        if limit < self.least:
            return 0
        if limit >= self.largest:
            return self.count
        last = _ceil(_log(limit) * _SCALE) if _LEAST < limit < _MOST else _FIRST if limit <= _LEAST else _LAST
        return sum(times for index, times in self._buckets.items() if index <= last)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON: keys are text."""
        return {
            "version": VERSION,
            "error": ERROR,
            "count": self.count,
            "sum": self.total,
            "min": self.least if self.count else None,
            "max": self.largest if self.count else None,
            "buckets": {str(index): times for index, times in sorted(self._buckets.items())},
            "within": {repr(bound): times for bound, times in self._within.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LogSketch:
        """What :meth:`as_dict` has written. Raises :class:`ValueError` for anything else, or when the counts do not add up."""
        try:
            if data["version"] != VERSION or data["error"] != ERROR:
                raise ValueError(f"a sketch of version {data['version']!r} with error {data['error']!r} is not known here")
            made = cls()
            made._buckets = {int(index): _whole(times) for index, times in data["buckets"].items()}
            made._within = {float(bound): _whole(times) for bound, times in data["within"].items()}
            made.count = _whole(data["count"])
            made.total = float(data["sum"])
            if made.count:
                made.least, made.largest = float(data["min"]), float(data["max"])
        except (AttributeError, KeyError, TypeError) as broken:
            raise ValueError(f"not a sketch: {type(broken).__name__}: {broken}") from None
        if sum(made._buckets.values()) != made.count or any(not _FIRST <= index <= _LAST for index in made._buckets):
            raise ValueError("the counts of a sketch do not add up")
        if made.count and not 0.0 <= made.least <= made.largest < math.inf:
            raise ValueError("the least and largest values of a sketch are finite and not negative")
        if any(times > made.count for times in made._within.values()):
            raise ValueError("the counts of a sketch do not add up")
        return made


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value
