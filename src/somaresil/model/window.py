"""Sliding windows without forgetting anything by hand: prefix sums, and positions of failures.

A :class:`PrefixRing` does not keep what happened in each slot; it keeps, at every slot boundary, how much had happened *so far*. The amount
within a window is then one subtraction, whatever its length, and an expired slot cannot count: nothing has to be cleared (fluxgate counted
five-second-old failures in a two-second window because a clearing was missed). Counting itself is somebody else's work: counters may be
bumped anywhere, and a ring is rolled before the first event behind a boundary is counted. Totals cannot change between events, so rolling
late is exact.

Pure: what time it is and what the totals are, are arguments.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SLO_TIERS", "YEARS_TIER", "CountWindow", "PrefixRing", "RingSet", "Tier"]


class PrefixRing:
    """Cumulative totals at the last ``slots`` boundaries, ``resolution`` seconds apart, for ``columns`` counters.

    Boundaries are multiples of ``resolution`` on the time line of the caller; give it epoch time and slot *i* means the same in every
    process. Takes 8 bytes a slot and column.
    """

    __slots__ = ("_columns", "_current", "_first", "_marks", "forgotten", "resolution", "slots")

    def __init__(self, resolution: float, slots: int, columns: int, now: float) -> None:
        """Begin at time ``now`` with every total at zero."""
        self.resolution = resolution
        self.slots = slots
        self._columns = columns
        # The totals at one boundary stand next to one another: one array is smaller than one a column. Made by multiplication it has no
        # room to grow, which would be a sixteenth of it.
        self._marks = array("q", [0]) * (slots * columns)
        self._current = int(now // resolution)
        self._first = self._current
        self.forgotten = (self._current - slots) * resolution
        """The last boundary whose totals are not known any more, or would not be."""

    @property
    def due(self) -> float:
        """The next boundary: :meth:`roll` before counting anything at or behind it."""
        return (self._current + 1) * self.resolution

    def roll(self, now: float, totals: Sequence[int]) -> None:
        """Note ``totals`` at every boundary passed since the last roll. Costs at most one turn of the ring."""
        slot = int(now // self.resolution)
        if slot <= self._current:
            return
        if len(totals) != self._columns:
            raise ValueError(f"{len(totals)} totals for a ring of {self._columns} columns")
        many = min(slot - self._current, self.slots)
        place = (slot - many + 1) % self.slots * self._columns
        if many == 1:
            for column, total in enumerate(totals, place):
                self._marks[column] = total
        else:
            # A gap of a month is thousands of boundaries with the same totals: written in one piece, or in two round the end of the ring.
            marks = array("q", totals) * many
            until = min(len(marks), len(self._marks) - place)
            self._marks[place : place + until] = marks[:until]
            self._marks[: len(marks) - until] = marks[until:]
        self._current = slot
        self.forgotten = (slot - self.slots) * self.resolution

    def roll_along(self, now: float, totals_at: Callable[[float], Sequence[int]]) -> None:
        """As :meth:`roll`, for totals that grow by themselves: ``totals_at`` says what they were at a boundary."""
        slot = int(now // self.resolution)
        for index in range(max(self._current + 1, slot - self.slots + 1), slot + 1):
            start = index % self.slots * self._columns
            for place, total in zip(range(start, start + self._columns), totals_at(index * self.resolution), strict=True):
                self._marks[place] = total
        self._current = max(slot, self._current)
        self.forgotten = (self._current - self.slots) * self.resolution

    def within(self, since: float, totals: Sequence[int]) -> list[int]:
        """What happened from the first boundary at or behind ``since`` until now, given the totals of now. Roll first.

        It looks at less than the window by up to one ``resolution``, and never at more: a window shorter than a slot is empty.
        """
        boundary, current = -int(-since // self.resolution), self._current
        if boundary <= self._first:
            return list(totals)
        if boundary > current:
            return [0] * self._columns
        if len(totals) != self._columns:
            raise ValueError(f"{len(totals)} totals for a ring of {self._columns} columns")
        slots = self.slots
        if boundary <= current - slots:
            # The oldest that is known stands where the next one will.
            boundary = current + 1
        start = boundary % slots * self._columns
        marks = self._marks
        if self._columns == 2:  # noqa: PLR2004 - good and bad
            # Written out, as this is asked for each window of each objective.
            return [totals[0] - marks[start], totals[1] - marks[start + 1]]
        return [total - mark for total, mark in zip(totals, marks[start : start + self._columns], strict=True)]

    def ceiling(self, since: float) -> float:
        """The first boundary at or behind ``since``."""
        return -(-since // self.resolution) * self.resolution

    def history(self, totals: Sequence[int]) -> tuple[int, list[array[int]]]:
        """The number of the oldest slot that is still known, and for each column what had happened since then at the end of each slot.

        The last slot is the current one, which ends now with ``totals``. Roll first.
        """
        oldest = max(self._first, self._current - self.slots + 1)
        begin, many = (oldest + 1) % self.slots, self._current - oldest
        columns = []
        for column, total in enumerate(totals):
            ring = self._marks[column :: self._columns]
            marks = ring[begin : begin + many] + ring[: max(0, begin + many - self.slots)]
            marks.append(total)
            if oldest > self._first and (before := ring[oldest % self.slots]):
                marks = array("q", [mark - before for mark in marks])
            columns.append(marks)
        return oldest, columns


class Tier(NamedTuple):
    """One resolution of a :class:`RingSet`: seconds a slot, and how many."""

    resolution: float
    slots: int


SLO_TIERS = (Tier(10, 721), Tier(300, 865), Tier(3600, 2161))
"""10 s for 2 hours, 5 minutes for 3 days, 1 hour for 90 days, both ends included: 3,747 slots, 60 KB for good and bad."""


YEARS_TIER = Tier(21_600, 2_925)
"""6 hours for two years, for objectives of a calendar quarter or year: 46 KB more."""


_MOST_KNOWN = 8
"""Windows of which the totals at their beginning are remembered; of calendar periods each is another one."""


class RingSet:
    """Several prefix rings of different resolution over the same counters: short windows finely, 90 days coarsely.

    A window is read from the finest ring that reaches back far enough, so the edge is off by at most one slot of that ring: 1/24 of any
    window from 5 minutes to 90 days (1/30 and less up to 2 hours).
    """

    __slots__ = ("_known", "_rings", "due", "started")

    def __init__(self, now: float, columns: int = 2, tiers: Sequence[Tier] = SLO_TIERS) -> None:
        """Begin at time ``now``; ``tiers`` from fine to coarse."""
        self.started = now
        self._rings = [PrefixRing(tier.resolution, tier.slots, columns, now) for tier in tiers]
        self.due = min(ring.due for ring in self._rings)
        """The next boundary of any ring: that of the finest."""
        # By window: for which beginnings it has these totals to subtract. Until the next boundary; mostly the same few are asked for.
        self._known: dict[float, tuple[float, float, int, int]] = {}

    @property
    def longest(self) -> float:
        """The longest window it can answer, in seconds."""
        ring = self._rings[-1]
        return (ring.slots - 1) * ring.resolution

    def roll(self, now: float, totals: Sequence[int]) -> None:
        """Note the totals in every ring that has a boundary behind it."""
        if now < self.due:
            return
        for ring in self._rings:
            ring.roll(now, totals)
        self._rolled()

    def roll_along(self, now: float, totals_at: Callable[[float], Sequence[int]]) -> None:
        """As :meth:`roll`, for totals that grow by themselves."""
        if now < self.due:
            return
        for ring in self._rings:
            ring.roll_along(now, totals_at)
        self._rolled()

    def _rolled(self) -> None:
        self.due = min(ring.due for ring in self._rings)
        self._known = {}

    def within(self, now: float, seconds: float, totals: Sequence[int]) -> list[int]:
        """What happened in the last ``seconds``. Roll first."""
        since = now - seconds
        known = self._known.get(seconds)
        if known is not None and known[0] < since <= known[1]:
            return [totals[0] - known[2], totals[1] - known[3]]
        if since <= self.started:
            return list(totals)
        before, finer, ring = self._known, math.inf, self._rings[0]
        for ring in self._rings:
            if since > ring.forgotten:
                break
            # From there on a finer one is read.
            finer = ring.forgotten
        found = ring.within(since, totals)
        boundary = ring.ceiling(since)
        # What lies behind the last boundary is nothing, whatever the totals are.
        if len(found) == 2 and len(before) < _MOST_KNOWN and boundary < ring.due:  # noqa: PLR2004 - good and bad
            behind = max(boundary - ring.resolution, self.started)
            before[seconds] = (behind, min(boundary, finer), totals[0] - found[0], totals[1] - found[1])
        return found

    def history(self, totals: Sequence[int]) -> dict[float, tuple[int, list[array[int]]]]:
        """What every ring still knows, by its resolution: see :meth:`PrefixRing.history`. Roll first."""
        return {ring.resolution: ring.history(totals) for ring in self._rings}


class CountWindow:
    """How many of the last ``size`` calls failed, and how many were slow, kept as the positions of those calls.

    Successes are not told to it, so it costs the quiet path nothing: a position is the number of calls counted so far. Holds at most
    ``size`` positions of each kind.
    """

    __slots__ = ("_failed", "_slow", "size")

    def __init__(self, size: int) -> None:
        """A window over ``size`` calls (>= 1), nothing seen yet."""
        self.size = size
        self._failed: deque[int] = deque(maxlen=size)
        self._slow: deque[int] = deque(maxlen=size)

    def note(self, position: int, *, failed: bool, slow: bool) -> None:
        """The call that made the count ``position`` failed, was slow, or both."""
        if failed:
            self._failed.append(position)
        if slow:
            self._slow.append(position)

    def tally(self, position: int) -> tuple[int, int, int]:
        """Calls, failures and slow calls among the last ``size`` when ``position`` calls have been counted."""
        oldest = position - self.size
        for marks in (self._failed, self._slow):
            while marks and marks[0] <= oldest:
                marks.popleft()
        return min(position, self.size), len(self._failed), len(self._slow)

    def clear(self) -> None:
        """Forget what was noted; positions start anew."""
        self._failed.clear()
        self._slow.clear()
