"""Budgeting by slices of time: an objective looks at the minutes of its window, not at single events.

Two ways, those of OpenSLO v1. ``Timeslices``: a slice is good when at least ``target`` of its events are, and the objective is about the
share of good slices. ``RatioTimeslices``: the mean of the ratios of the slices, so that a busy minute weighs no more than a quiet one.

A slice without traffic is neither good nor bad: it is no event. It is judged when it is over, and never again. Pure.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

__all__ = ["PARTS", "Slicer", "weighted"]

PARTS: Final = 1_000_000
"""A ratio is kept as so many parts of its slice (or of a composite), in whole numbers, so that it can be summed and compared exactly."""


class Slicer:
    """Counts the slices of one objective. Slices lie on multiples of their length on the time line of the caller."""

    __slots__ = ("_mark", "_target", "bad", "end", "good", "length")

    def __init__(self, length: float, target: float | None, now: float) -> None:
        """Begin at ``now``; ``target`` is the ratio from which a slice is good, None: the mean of the ratios is asked for."""
        self.length = length
        self._target = None if target is None else Fraction(str(target))
        self._mark = (0, 0)
        self.good = 0
        """Good slices that are over, or parts of them."""
        self.bad = 0
        self.end = (now // length + 1) * length
        """When the current slice is over."""

    @property
    def unit(self) -> int:
        """How many of its counts are one slice."""
        return PARTS if self._target is None else 1

    def close(self, good: int, bad: int, now: float) -> None:
        """The current slice is over with these totals of good and bad events; nothing has happened since, and it is ``now``."""
        more_good, more_bad = good - self._mark[0], bad - self._mark[1]
        self._mark = (good, bad)
        self.end = (now // self.length + 1) * self.length
        total = more_good + more_bad
        if total <= 0:
            return
        ratio = Fraction(more_good, total)
        parts = round(ratio * PARTS) if self._target is None else int(ratio >= self._target)
        self.good += parts
        self.bad += self.unit - parts


def weighted(parts: list[tuple[float, int, int]]) -> tuple[int, int]:
    """One ratio of several: the mean of their ratios by weight, as parts good and parts bad. ``parts`` are (weight, good, bad).

    One without events is left out, as if it had no weight; without any event both are 0.
    """
    known = [(Fraction(str(weight)), good, bad) for weight, good, bad in parts if good + bad > 0]
    if not known:
        return 0, 0
    ratio = sum(weight * Fraction(bad, good + bad) for weight, good, bad in known) / sum(weight for weight, _, _ in known)
    scale = PARTS * 1_000
    bad_parts = round(ratio * scale)
    return scale - bad_parts, bad_parts
