"""What was measured of many requests: a sketch for quantiles, and exact counts for the bounds that a judgement is about.

"95 % within 2 s" is counted, not estimated, like a bucket of a histogram; everything else is known within 1 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from somaresil.model.sketch import HIGHEST, LOWEST, Sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Measure"]


class Measure:
    """Seconds (or anything else that is not negative), counted. Two of them add up without losing anything.

    ``bounds``: values up to each of these are counted exactly.
    """

    __slots__ = ("_sketch", "_within")

    def __init__(self, bounds: Iterable[float] = ()) -> None:
        """Nothing counted."""
        self._sketch = Sketch()
        self._within: dict[float, int] = dict.fromkeys(map(float, bounds), 0)

    def __repr__(self) -> str:
        """How much is in it."""
        return f"<Measure count={self.count} p50={self.quantile(0.5)}>"

    @property
    def count(self) -> int:
        """How many values were counted."""
        return self._sketch.count

    @property
    def bounds(self) -> tuple[float, ...]:
        """What is counted exactly."""
        return tuple(self._within)

    @property
    def largest(self) -> float | None:
        """The largest value; None without values."""
        return self._sketch.largest if self.count else None

    def add(self, value: float) -> None:
        """Count a value. Raises :class:`ValueError` for one that is negative or not finite."""
        self._sketch.add(value)
        for bound in self._within:
            if value <= bound:
                self._within[bound] += 1

    def merge(self, other: Measure) -> None:
        """Count what the other has counted. A bound that only one of both has counted is exact no more, and is dropped."""
        if other.count:
            mine, theirs = self._within, other._within
            if self.count:
                self._within = {bound: mine[bound] + theirs[bound] for bound in mine if bound in theirs}
            else:
                self._within = {bound: times for bound, times in theirs.items() if not mine or bound in mine}
        self._sketch.merge(other._sketch)

    def quantile(self, q: float) -> float | None:
        """The value of rank ``ceil(q n)``, within 1 %; None without values."""
        found = self._sketch.quantile(q)
        # What lies outside of the range of a sketch is no duration: the extremes are what is known of it.
        return found if found is None or found <= HIGHEST else self._sketch.largest

    def at_most(self, limit: float) -> int:
        """How many values were at most ``limit``: exactly for a bound, else with the whole bucket in which the limit lies."""
        if limit in self._within:
            return self._within[limit]
        if limit < LOWEST:
            return 0 if limit < self._sketch.smallest else self._sketch.below
        surely, _ = self._sketch.more_than(min(limit, HIGHEST))
        return self.count - surely

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON: keys are text."""
        return {"count": self.count, **self._sketch.dump(), "within": {repr(bound): times for bound, times in self._within.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measure:
        """What :meth:`as_dict` has written. Raises :class:`ValueError` for anything else, or when the counts do not add up."""
        made = cls()
        made._sketch = Sketch.load(data)
        try:
            made._within = {float(bound): times for bound, times in data["within"].items()}
            count = data["count"]
        except (AttributeError, KeyError, TypeError) as broken:
            raise ValueError(f"no measure: {type(broken).__name__}: {broken}") from None
        whole = all(isinstance(times, int) and not isinstance(times, bool) for times in (count, *made._within.values()))
        if not whole or count != made.count or not all(0 <= times <= count for times in made._within.values()):
            raise ValueError("no measure: its counts do not add up")
        return made
