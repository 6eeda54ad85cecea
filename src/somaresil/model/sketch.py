"""A sketch of many values: quantiles within 1 % of the value that was seen, in little memory, and two of them add up exactly.

Values are counted in buckets whose bounds grow by a constant factor ``g = (1 + e) / (1 - e)``: bucket ``i`` holds the values from above
``g^(i-1)`` up to ``g^i``, and stands for ``2 g^i / (g + 1)``, which no value in it is farther away from than the share ``e`` of itself.
Counts are whole numbers, so sketches of several workers, merged in any order and grouping, are the sketch of all their values: equal, not
nearly equal.

Source: C. Masson, J. E. Rim and H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
Proceedings of the VLDB Endowment 12 (2019). Unlike there, no bucket is ever collapsed into another: which ones are would depend on the
order of merging. The buckets cover a fixed range instead, with 1 % from 1e-9 to 1e9 (a nanosecond to thirty years); what lies outside
counts at its end, where a quantile says so by being 0 or infinite.

Promises: at most about ``41.5 / (2 e)`` buckets, 2,075 with 1 %; a quantile of ``q`` is within ``e`` of the value of rank ``ceil(q n)``,
inside of the range; NaN, infinity and values below zero are a ``ValueError``. Sums are not kept: they would depend on the order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HIGHEST", "LOWEST", "Sketch"]

LOWEST: Final = 1e-9
HIGHEST: Final = 1e9
_MOST_COUNT: Final = 2**63
_FINEST: Final = 0.001
_COARSEST: Final = 0.2


class Sketch:
    """Counts of values in buckets that grow with the value.

    Not safe to write to from several threads at once: give each its own, and merge.
    """

    __slots__ = ("_highest", "_lowest", "_scale", "above", "below", "count", "counts", "error", "largest", "smallest")

    def __init__(self, values: Iterable[float] = (), *, error: float = 0.01) -> None:
        """An empty sketch, or one of ``values``. ``error`` is the relative error of quantiles, 0.001 to 0.2."""
        if not _FINEST <= error <= _COARSEST:
            raise ValueError(f"a relative error lies from {_FINEST} to {_COARSEST}, not at {error!r}")
        self.error = error
        self.counts: dict[int, int] = {}
        """How many values are in each bucket that is not empty."""
        self.below = 0
        """How many values are below :data:`LOWEST`, zeros too."""
        self.above = 0
        """How many values are above :data:`HIGHEST`."""
        self.count = 0
        self.smallest = math.inf
        """The least value, exactly; infinity while there is none."""
        self.largest = 0.0
        self._scale = 1.0 / math.log((1.0 + error) / (1.0 - error))
        self._lowest, self._highest = math.ceil(math.log(LOWEST) * self._scale), math.ceil(math.log(HIGHEST) * self._scale)
        for value in values:
            self.add(value)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, so many times. Raises ``ValueError`` for one that is no finite number from zero on."""
        if not 0.0 <= value < math.inf or times < 1:
            raise ValueError(f"a sketch counts finite numbers from zero on, once or more, not {value!r} {times!r} times")
        if value < LOWEST:
            self.below += times
        elif value > HIGHEST:
            self.above += times
        else:
            bucket = math.ceil(math.log(value) * self._scale)
            self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.count += times
        self.smallest = min(self.smallest, value)
        self.largest = max(self.largest, value)

    def merge(self, other: Sketch) -> None:
        """Add what another one has counted. Raises ``ValueError`` when its buckets are others."""
        if other.error != self.error:
            raise ValueError(f"sketches with errors {self.error!r} and {other.error!r} have different buckets")
        for bucket, times in list(other.counts.items()):
            self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.below += other.below
        self.above += other.above
        self.count += other.count
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def quantile(self, q: float) -> float | None:
        """About the value of rank ``ceil(q count)``, 0 <= q <= 1; 0 below the range, infinity above it. None: nothing was counted."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies from 0 to 1, not at {q!r}")
        return self.at_rank(max(1, math.ceil(q * self.count))) if self.count else None

    def at_rank(self, rank: int) -> float:
        """About the value of this rank; 1 is the least value."""
        if not 1 <= rank <= self.count:
            raise ValueError(f"a rank lies from 1 to {self.count}, not at {rank!r}")
        if rank <= self.below:
            return 0.0
        # The extremes are known exactly, and no value lies beyond them.
        if rank == 1:
            return self.smallest if self.smallest <= HIGHEST else math.inf
        seen = self.below
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return self.largest if rank == self.count else min(max(self._middle(bucket), self.smallest), self.largest)
        return math.inf

    def more_than(self, limit: float) -> tuple[int, int]:
        """How many values are surely above ``limit``, and how many may be.

        Values in the bucket of ``limit`` itself may be on either side.
        """
        if not LOWEST <= limit <= HIGHEST:
            raise ValueError(f"a limit lies from {LOWEST:g} to {HIGHEST:g}, not at {limit!r}")
        if self.largest <= limit:
            return 0, 0
        bucket = math.ceil(math.log(limit) * self._scale)
        surely = self.above + sum(times for place, times in self.counts.items() if place > bucket)
        return surely, surely + self.counts.get(bucket, 0)

    def dump(self) -> dict[str, Any]:
        """It as what JSON can hold: keys are text. :meth:`load` gives an equal one."""
        return {
            "error": self.error,
            "below": self.below,
            "above": self.above,
            "smallest": self.smallest if self.count else None,
            "largest": self.largest if self.count else None,
            "counts": {str(bucket): times for bucket, times in sorted(self.counts.items())},
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Sketch:
        """The sketch of a :meth:`dump`. Raises ``ValueError`` for what none has written."""
        try:
            sketch = cls(error=float(dumped["error"]))
            counts = {int(bucket): _whole(times) for bucket, times in dumped["counts"].items() if _whole(times)}
            sketch.below, sketch.above = _whole(dumped["below"]), _whole(dumped["above"])
            sketch.count = sketch.below + sketch.above + sum(counts.values())
            if sketch.count:
                sketch.smallest, sketch.largest = float(dumped["smallest"]), float(dumped["largest"])
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"not the dump of a sketch: {error!r}") from error
        if counts and not sketch._lowest <= min(counts) <= max(counts) <= sketch._highest:
            raise ValueError("not the dump of a sketch: a bucket lies outside of the range")
        if sketch.count and not 0.0 <= sketch.smallest <= sketch.largest < math.inf:
            raise ValueError("not the dump of a sketch: the extremes are none")
        sketch.counts = counts
        return sketch

    def __repr__(self) -> str:
        return f"Sketch({self.count} values, error={self.error:g})"

    def _middle(self, bucket: int) -> float:
        growth = (1.0 + self.error) / (1.0 - self.error)
        return 2.0 * math.exp(bucket / self._scale) / (growth + 1.0)


def _whole(times: object) -> int:
    if not isinstance(times, int) or isinstance(times, bool) or not 0 <= times < _MOST_COUNT:
        raise TypeError(f"{times!r} is no count")
    return times
