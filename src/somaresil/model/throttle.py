"""Adaptive throttling in the client: how likely a request should be refused before it is sent, by how many were accepted of late.

``max(0, (requests - k * accepts) / (requests + 1))`` over a sliding window: "Handling Overload", chapter 21 of "Site Reliability
Engineering" (Beyer, Jones, Petoff, Murphy, 2016). Requests are all that were wanted, also those refused here; accepts are those that the
backend did not turn away. With k = 2 a backend that accepts everything is left alone, one that accepts nothing is asked less and less, and
of those that it does get, it accepts about half.

Pure: what time it is, is an argument. Not safe to share: the policy holds its lock around each method.
"""

from __future__ import annotations

from typing import NamedTuple

from somaresil.model.window import PrefixRing

__all__ = ["Requests", "Throttling"]

_SLOTS = 30
"""Slots of the window: it looks at up to a thirtieth less than its length, and never at more. Takes half a kilobyte."""


class Requests(NamedTuple):
    """What the window shows."""

    requests: int
    accepts: int


class Throttling:
    """The requests of the last ``window`` seconds, in memory that does not grow."""

    __slots__ = ("_accepts", "_before", "_requests", "_ring", "window")

    def __init__(self, window: float, now: float) -> None:
        """Nothing asked at time ``now``."""
        self.window = window
        self._ring = PrefixRing(window / _SLOTS, _SLOTS + 2, 2, now)
        self._requests = self._accepts = 0
        self._before = (0, 0)
        """The totals at the beginning of the window: they are the same until the next boundary."""

    def note(self, now: float, *, accepted: bool) -> None:
        """A request was accepted, or turned away, here or there."""
        self._roll(now)
        self._requests += 1
        self._accepts += accepted

    def look(self, now: float) -> Requests:
        """What the window shows at time ``now``."""
        self._roll(now)
        return Requests(self._requests - self._before[0], self._accepts - self._before[1])

    def probability(self, now: float, *, k: float, ceiling: float, minimum: int) -> float:
        """How likely a request should be refused, at most ``ceiling``; 0 while the window shows less than ``minimum`` requests."""
        self._roll(now)
        requests = self._requests - self._before[0]
        surplus = requests - k * (self._accepts - self._before[1])
        if surplus <= 0.0 or requests < minimum:
            return 0.0
        return min(ceiling, surplus / (requests + 1))

    def _roll(self, now: float) -> None:
        ring = self._ring
        if now < ring.due:
            return
        totals = (self._requests, self._accepts)
        ring.roll(now, totals)
        # From the boundary that is in the window until the next roll. Half a slot keeps rounding away from the boundaries.
        requests, accepts = ring.within(ring.due - self.window - ring.resolution / 2, totals)
        self._before = (self._requests - requests, self._accepts - accepts)
