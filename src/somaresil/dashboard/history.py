"""The last ten minutes of each guard and route, in columns of five seconds on the epoch, so that those of several processes add up.

A row holds the calls of one column: by outcome (:data:`OUTCOMES`), how many an experiment touched, and those that ended well or badly by
latency bucket. What is not known is not 0: a column in which the process slept, or in which the clock was set, is marked as such.

Bounded: 120 columns; a guard that nobody calls has none, and beyond :data:`MOST_RINGS` the quietest lose theirs. 5 KB a guard, twice as
much for one that has more than 65,535 calls of a kind in five seconds.
"""

from __future__ import annotations

import sys
from array import array
from operator import add, sub
from typing import TYPE_CHECKING, Any, Final

from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from somaresil.recorder import Counts

__all__ = ["COLUMNS", "INJECTED", "MOST_RINGS", "OUTCOMES", "STEP", "WINDOW", "Curve", "History", "Row", "row_of"]

STEP: Final = 5.0
"""Seconds of a column."""
COLUMNS: Final = 120
WINDOW: Final = 12
"""Columns, and the one that is being counted, in what is called recent."""
MOST_RINGS: Final = 1_000

OUTCOMES: Final = ("good", "bad", "rejected", "abandoned", "ignored")
"""The first places of a row; :data:`INJECTED` is the next, and then the buckets begin."""
INJECTED: Final = len(OUTCOMES)
HEAD: Final = INJECTED + 1

_PLACE: Final = {Outcome(outcome): place for place, outcome in enumerate(OUTCOMES)}
_NARROW: Final = 0xFFFF
_LATE: Final = 2.0
"""Seconds after the end of a column; who looks later than that does not know what belongs to which."""
_PROMPT: Final = 0.25
_JUMP: Final = 1.0

Row = list[int]


def row_of(counts: Counts) -> Row:
    """What a recorder has counted, as a row. The last bucket has no upper bound."""
    head = [0] * HEAD
    buckets: list[int] | None = None
    for (outcome, injected), cell in counts.cells.items():
        calls = sum(cell)
        if not calls:
            continue
        head[_PLACE[outcome]] += calls
        if injected:
            head[INJECTED] += calls
        if outcome is Outcome.GOOD or outcome is Outcome.BAD:
            buckets = cell if buckets is None else list(map(add, buckets, cell))
    return head + ([0] * (len(counts.bounds) + 1) if buckets is None else buckets)


class _Track:
    """One guard or route."""

    __slots__ = ("bounds", "cut", "last", "recent", "ring")

    def __init__(self, bounds: tuple[float, ...], row: Row) -> None:
        self.bounds = bounds
        self.last = array("q", row)
        """What had been counted when the column that is being counted began."""
        self.recent: array[int] | None = None
        """The sum of the last :data:`WINDOW` columns; None: no call in them."""
        self.ring: array[int] | None = None
        self.cut: int | None = None
        """The column in which its ring was taken away, for there were too many; None: never."""

    def at(self, column: int) -> array[int] | None:
        """The row of a column; None: nothing is kept."""
        if self.ring is None:
            return None
        width = len(self.last)
        place = column % COLUMNS * width
        return self.ring[place : place + width]

    def put(self, column: int, row: array[int]) -> None:
        width = len(row)
        if self.ring is None:
            self.ring = array("H", bytes(2 * COLUMNS * width))
        if self.ring.itemsize == 2 and max(row) > _NARROW:  # noqa: PLR2004 - bytes of "H"
            self.ring = array("I", self.ring)
        place = column % COLUMNS * width
        self.ring[place : place + width] = array(self.ring.typecode, row)


class History:
    """Rings by name. Not safe for use from several threads at once: whoever has it holds a lock."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._tracks: dict[str, _Track] = {}
        self._known = bytearray(COLUMNS)
        self._drift: float | None = None
        self.index: int | None = None
        """The column that is being counted; None before the first sample."""
        self._since = 0.0
        self._whole = True

    def due(self, wall: float, monotonic: float) -> bool:
        """Whether a column has ended, or the clock was set: whether :meth:`sample` would change anything."""
        drift = self._drift
        return self.index is None or drift is None or int(wall // STEP) != self.index or abs(wall - monotonic - drift) > _JUMP

    def sample(self, wall: float, monotonic: float, rows: Iterable[tuple[str, tuple[float, ...], Row]]) -> None:
        """Note what has been counted up to now, by name, with the bounds of its buckets. Within a column it changes nothing.

        ``wall`` is in seconds since the epoch. Columns between the last sample and this one are known when this one comes in time.
        """
        index, drift = int(wall // STEP), wall - monotonic
        before, jumped = self.index, self._drift is not None and abs(drift - self._drift) > _JUMP
        if before is not None and index == before and not jumped:
            return
        self._drift = drift
        if before is None:
            self._begin(index, wall, rows, whole=True)
            return
        in_time = not jumped and index == before + 1 and wall - index * STEP <= _LATE
        if jumped:
            # Which columns the past lies in is not known any more.
            self._known = bytearray(COLUMNS)
            for track in self._tracks.values():
                track.ring = track.recent = None
            self._begin(index, wall, rows, whole=False)
            return
        self._close(before, index, rows, known=in_time and self._whole)
        # Who wakes up just as a column begins misses nothing of it.
        self.index, self._whole = index, in_time or wall - index * STEP <= _PROMPT
        self._since = index * STEP if in_time else wall

    def _begin(self, index: int, wall: float, rows: Iterable[tuple[str, tuple[float, ...], Row]], *, whole: bool) -> None:
        self.index, self._whole, self._since = index, whole, wall
        self._tracks = {name: _Track(bounds, row) for name, bounds, row in rows}

    def _close(self, before: int, index: int, rows: Iterable[tuple[str, tuple[float, ...], Row]], *, known: bool) -> None:
        passed = range(before, min(index, before + COLUMNS))
        leaving = [column for column in range(before - WINDOW, min(index - WINDOW, before)) if self._is_known(column, before)]
        for column in passed:
            self._known[column % COLUMNS] = 0
        self._known[before % COLUMNS] = known
        there = set()
        for name, bounds, row in rows:
            there.add(name)
            track = self._tracks.get(name)
            if track is None or len(track.last) != len(row) or track.bounds != bounds:
                track = self._tracks[name] = _Track(bounds, [0] * len(row) if track is None else row)
            delta = array("q", map(sub, row, track.last))
            if track.ring is not None or track.recent is not None or any(delta):
                self._shift(track, delta if known and min(delta) >= 0 else None, passed, leaving)
                track.last = array("q", row)
        for name in [name for name in self._tracks if name not in there]:
            del self._tracks[name]
        self._bound()

    @staticmethod
    def _shift(track: _Track, delta: array[int] | None, passed: range, leaving: list[int]) -> None:
        width = len(track.last)
        for column in leaving:
            old = track.at(column)
            if old is not None and track.recent is not None:
                track.recent = array("q", map(sub, track.recent, old))
        if track.ring is not None:
            nothing = array("q", bytes(8 * width))
            for column in passed:
                track.put(column, nothing)
        if delta is not None and any(delta):
            track.put(passed.start, delta)
            track.recent = delta if track.recent is None else array("q", map(add, track.recent, delta))
        if track.recent is not None and not any(track.recent):
            track.recent = None
        if track.recent is None and track.ring is not None and not any(track.ring):
            track.ring = None

    def _bound(self) -> None:
        rings = [(sum(track.recent or ()), name) for name, track in self._tracks.items() if track.ring is not None]
        for _, name in sorted(rings)[: max(0, len(rings) - MOST_RINGS)]:
            track = self._tracks[name]
            track.ring, track.recent, track.cut = None, None, self.index

    def _is_known(self, column: int, index: int) -> bool:
        return index - COLUMNS <= column < index and self._known[column % COLUMNS] == 1

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def known(self) -> list[int]:
        """Of each of the last 120 columns, oldest first, whether it is known: 1 or 0."""
        index = self.index
        if index is None:
            return [0] * COLUMNS
        return [int(self._is_known(column, index)) for column in range(index - COLUMNS, index)]

    def seconds(self, wall: float) -> float:
        """How many seconds what is called recent comes from."""
        index = self.index
        if index is None:
            return 0.0
        whole = sum(self._is_known(column, index) for column in range(index - WINDOW, index))
        return whole * STEP + max(0.0, wall - self._since)

    def recent(self, name: str, row: Row) -> Row | None:
        """The calls of the last minute, when ``row`` has been counted up to now; None: not known."""
        track, index = self._tracks.get(name), self.index
        if index is None:
            return None
        if track is None:
            # It was made in this column.
            return row
        if len(track.last) != len(row) or (track.cut is not None and index - track.cut <= WINDOW):
            return None
        now = list(map(sub, row, track.last))
        return now if track.recent is None else list(map(add, now, track.recent))

    def columns(self, names: Iterable[str]) -> dict[str, Any]:
        """Everything about these names, for :mod:`somaresil.dashboard.merge`; ``rows`` are 32-bit numbers, the lowest byte first."""
        index = self.index
        found = {}
        for name in names:
            track = self._tracks.get(name)
            if track is not None and index is not None:
                found[name] = {"bounds": track.bounds, "rows": _ordered(track, index)}
        return {"index": 0 if index is None else index, "known": self.known(), "tracks": found}

    def bytes(self) -> int:
        """About how much memory it holds."""
        parts: list[array[int] | None] = []
        for track in self._tracks.values():
            parts += [track.last, track.recent, track.ring]
        return sum(sys.getsizeof(part) for part in parts if part is not None)


def _ordered(track: _Track, index: int) -> array[int]:
    width = len(track.last)
    if track.ring is None:
        return array("I")
    first = index % COLUMNS * width
    return array("I", track.ring[first:] + track.ring[:first])


class Curve:
    """Values over time, at most ``most`` moments: with more of them every second one is dropped, and half as many noted from then on."""

    __slots__ = ("_apart", "_at", "_most", "_values")

    def __init__(self, most: int = 240) -> None:
        """Nothing is noted."""
        self._most = most
        self._apart = 0.0
        self._at: list[float] = []
        self._values: list[Mapping[str, float | None]] = []

    def note(self, at: float, values: Mapping[str, float | None], apart: float = STEP) -> None:
        """The values at a moment; nothing, when the last one is nearer than ``apart`` seconds, or was when half were dropped."""
        if self._at and at < self._at[-1]:
            # The clock was set back.
            self._at, self._values, self._apart = [], [], 0.0
        if self._at and at - self._at[-1] < max(apart, self._apart) * 0.9:
            return
        self._at.append(at)
        self._values.append(values)
        if len(self._at) > self._most:
            self._at, self._values = self._at[::2], self._values[::2]
            self._apart = 2.0 * max(apart, self._apart)

    def read(self) -> tuple[list[float], dict[str, list[float | None]]]:
        """When, and the values by name; None where a name had none."""
        names: Sequence[str] = sorted({name for values in self._values for name in values})
        return list(self._at), {name: [values.get(name) for values in self._values] for name in names}
