"""The quantile of recent durations, from counts in two halves of a window, for decisions that are made while calls run.

Durations are counted in buckets that end at preferred numbers (ISO 3, the R20 series: twenty to a decade, 11 to 15 % apart), from a
millisecond to 100 seconds. A quantile is reported as the end of its bucket, so it is at most 15 % too high, never too low, and one of a
hundred numbers: what is timed by it can share timers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

__all__ = ["PREFERRED", "RecentDurations", "preferred"]

_R20: Final = (100, 112, 125, 140, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900)

PREFERRED: Final[tuple[float, ...]] = (*(float(f"{mantissa}e{power}") for power in range(-5, 0) for mantissa in _R20), 100.0)
"""Seconds."""


def preferred(seconds: float) -> float:
    """The first preferred number that is not below ``seconds``; ``seconds`` itself when it is above the last."""
    place = bisect_left(PREFERRED, seconds)
    return PREFERRED[place] if place < len(PREFERRED) else seconds


class RecentDurations:
    """Counts of the durations of the last ``window`` seconds, never of older ones.

    The counts are taken in halves: when one is full, the one before it is dropped. So as little as half a window may be known.
    """

    __slots__ = ("_before", "_current", "_half", "due")

    def __init__(self, window: float, now: float) -> None:
        """Nothing counted at time ``now``."""
        self._half = window / 2.0
        self.due = now + self._half
        """When the half that is being counted is full."""
        self._before = _nothing()
        self._current = _nothing()

    def note(self, seconds: float) -> None:
        """Count a duration. Two threads that do so in the same moment may count as one: an estimate does not mind."""
        self._current[bisect_left(PREFERRED, seconds)] += 1

    def roll(self, now: float) -> None:
        """Drop what is too old at time ``now``."""
        if now < self.due:
            return
        if now < self.due + self._half:
            self._before, self.due = self._current, self.due + self._half
        else:
            # Nobody came by for a whole half: what was counted in it is too old as well.
            self._before, self.due = _nothing(), now + self._half
        self._current = _nothing()

    @property
    def count(self) -> int:
        """How many durations it knows."""
        return sum(self._before) + sum(self._current)

    def quantile(self, q: float) -> float | None:
        """The end of the bucket in which the ``q``-quantile lies, 0 < q < 1. None when nothing is known, or when it is above 100 s."""
        counts = [old + new for old, new in zip(self._before, self._current, strict=True)]
        rank = q * sum(counts)
        seen = 0
        for bound, count in zip(PREFERRED, counts, strict=False):
            seen += count
            if count and seen >= rank:
                return bound
        return None


def _nothing() -> array[int]:
    return array("Q", bytes(8 * (len(PREFERRED) + 1)))
