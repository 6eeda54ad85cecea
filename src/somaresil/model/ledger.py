"""Good and bad events by slot of time, in a form that can be written down, read back and added up.

A ring (``model.window``) counts in one process and ends with it. A :class:`Ledger` is what such a ring knew at one moment, taken out of it:
for each resolution the number of the first slot, and how much had happened at the end of each slot since then. Slots lie on the epoch, so
slot *i* means the same to every process that has ever counted, and the sum of two ledgers is a sum slot by slot: in any order, with nothing
counted twice and nothing lost.

It is immutable, and a window of it is one subtraction, as in a ring. Pure: what time it is, is an argument.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.model.window import SLO_TIERS, Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["EMPTY", "EMPTY_TRACK", "Ledger", "Spans", "Track", "covered", "joined"]

Spans = tuple[tuple[float, float], ...]
"""Stretches of time, (begin, end) in seconds since the epoch, in order and apart."""


class Track(NamedTuple):
    """One resolution: ``good[k]`` and ``bad[k]`` are what happened from the beginning of slot ``start`` to the end of ``start + k``."""

    start: int
    good: array[int]
    bad: array[int]

    @property
    def totals(self) -> tuple[int, int]:
        """Everything."""
        return (self.good[-1], self.bad[-1]) if self.good else (0, 0)

    def since(self, slot: int) -> tuple[int, int]:
        """What happened in ``slot`` and behind it."""
        good, bad = self.totals
        place = slot - self.start - 1
        if place < 0 or not self.good:
            return good, bad
        if place >= len(self.good):
            return 0, 0
        return good - self.good[place], bad - self.bad[place]

    def trimmed(self) -> Track:
        """The same without slots at either end in which nothing happened."""
        good, bad = self.totals
        if not good and not bad:
            return EMPTY_TRACK
        first = min(bisect_right(self.good, 0), bisect_right(self.bad, 0))
        last = max(bisect_left(self.good, good), bisect_left(self.bad, bad)) + 1
        return Track(self.start + first, self.good[first:last], self.bad[first:last])

    def between(self, oldest: int, newest: int) -> Track:
        """Only the slots from ``oldest`` to ``newest``."""
        if not self.good or (oldest <= self.start and newest >= self.start + len(self.good) - 1):
            return self
        first, last = max(0, oldest - self.start), max(0, newest - self.start + 1)
        good, bad = self.good[first:last], self.bad[first:last]
        if first:
            good, bad = (array("q", [mark - marks[first - 1] for mark in part]) for part, marks in ((good, self.good), (bad, self.bad)))
        return Track(self.start + first, good, bad).trimmed()

    def plus(self, other: Track) -> Track:
        """Both together, slot by slot."""
        if not self.good or not other.good:
            return self if self.good else other
        early, late = (self, other) if self.start <= other.start else (other, self)
        apart = late.start - early.start
        return Track(early.start, _added(early.good, late.good, apart), _added(early.bad, late.bad, apart))

    @property
    def sound(self) -> bool:
        """Whether it is what counting leaves behind: as many marks of both, none below zero, none that goes back."""
        return len(self.good) == len(self.bad) and all(
            not marks or (marks[0] >= 0 and all(earlier <= later for earlier, later in pairwise(marks))) for marks in (self.good, self.bad)
        )


def _added(early: array[int], late: array[int], apart: int) -> array[int]:
    """The marks of two tracks of which one begins ``apart`` slots after the other: what had happened so far adds up at each of them.

    Before the one begins and after the other has ended nothing of it happens, and there may be a month in between.
    """
    # Where they overlap there is nothing in between, and less than none of it is none.
    found = early[:apart] + array("q", [early[-1]]) * (apart - len(early))
    both = max(0, min(len(early) - apart, len(late)))
    found.extend(map(add, early[apart : apart + both], late[:both]))
    found.extend(map(late[-1].__add__, early[apart + both :]))
    found.extend(map(early[-1].__add__, late[both:]))
    return found


EMPTY_TRACK: Final = Track(0, array("q"), array("q"))


class Ledger(NamedTuple):
    """What one or several processes counted for one objective: a track for each of ``SLO_TIERS``, and when somebody was watching."""

    tracks: tuple[Track, ...]
    seen: Spans = ()

    @classmethod
    def of(cls, history: Mapping[float, tuple[int, Sequence[array[int]]]], seen: Spans) -> Ledger:
        """What :meth:`RingSet.history` gives, with good and bad as its columns."""
        tracks = []
        for tier in SLO_TIERS:
            start, (good, bad) = history[tier.resolution]
            tracks.append(Track(start, good, bad).trimmed())
        return cls(tuple(tracks), joined(seen))

    def within(self, now: float, seconds: float) -> tuple[int, int]:
        """Good and bad events of the last ``seconds``, as exact as in a ring: less than one slot may be missing at the far edge."""
        since = now - seconds
        for tier, track in zip(SLO_TIERS, self.tracks, strict=True):
            boundary = -int(-since // tier.resolution)
            if boundary > int(now // tier.resolution) - tier.slots:
                return track.since(boundary)
        return self.tracks[-1].since(-int(-since // SLO_TIERS[-1].resolution))

    def plus(self, other: Ledger) -> Ledger:
        """Both together."""
        tracks = tuple(mine.plus(theirs) for mine, theirs in zip(self.tracks, other.tracks, strict=True))
        return Ledger(tracks, joined((*self.seen, *other.seen)))

    def known_at(self, now: float, leeway: float = 0.0) -> Ledger:
        """Without what is too old to be asked for, and without what lies in the future by more than ``leeway`` seconds."""
        tracks = []
        for tier, track in zip(SLO_TIERS, self.tracks, strict=True):
            current = int(now // tier.resolution)
            tracks.append(track.between(current - tier.slots + 1, int((now + leeway) // tier.resolution)))
        horizon = now - _longest(SLO_TIERS)
        seen = tuple((max(begin, horizon), min(end, now)) for begin, end in self.seen if begin < now and end > horizon)
        return Ledger(tuple(tracks), seen)

    @property
    def totals(self) -> tuple[int, int]:
        """Everything it knows: good and bad events of the last 90 days."""
        return self.tracks[-1].totals


EMPTY: Final = Ledger((EMPTY_TRACK,) * len(SLO_TIERS))


def _longest(tiers: Sequence[Tier]) -> float:
    return max((tier.slots - 1) * tier.resolution for tier in tiers)


def joined(spans: Iterable[tuple[float, float]], most: int = 512) -> Spans:
    """Stretches in order, those that touch or overlap as one. Of more than ``most`` the shortest are forgotten: less was seen, not more."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > begin:
            found.append((begin, end))
    if len(found) > most:
        found = sorted(sorted(found, key=lambda span: span[1] - span[0])[-most:])
    return tuple(found)


def covered(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """The share of the time from ``begin`` to ``end`` that lies in one of the stretches."""
    # What lies outside has less than no length then, and is left out.
    inside = joined((max(first, begin), min(last, end)) for first, last in spans)
    return min(1.0, sum(last - first for first, last in inside) / (end - begin)) if end > begin else 0.0
