"""What the ASGI middleware counts: a recorder a route, and the histogram of OpenTelemetry's conventions by method, route and status.

Labels are bounded: at most 200 combinations, everything beyond that is counted under ``_other``. An unbounded label is a way to fill the
memory of a service from outside (CVE-2023-43810 and its relatives).
"""

from __future__ import annotations

import itertools
import threading
import weakref
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from somaresil.exemplars import SLOW
from somaresil.model.histogram import merge_bounds
from somaresil.outcome import Outcome
from somaresil.recorder import Counts, Recorder
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.exemplars import Exemplar, Traces

__all__ = ["MOST_WAITING", "OTHER", "WEBSOCKET", "RouteCell", "RouteKey", "RouteView", "Routes"]

OTHER: Final = "_other"
WEBSOCKET: Final = "WEBSOCKET"
"""Method label of a conversation."""
_MOST: Final = 200
MOST_WAITING: Final = 64
"""How many requests of a cell may wait to be counted."""
_GOOD: Final = Outcome.GOOD
_ALWAYS: Final = Switch()
"""Due at any time: who finds it so goes by :attr:`RouteCell.good`. Nobody settles it."""
_ALWAYS.due = float("-inf")


class RouteKey(NamedTuple):
    """Labels of a request: ``status`` is 0 when no response was begun, and for websockets."""

    method: str
    route: str
    status: int


class RouteView(NamedTuple):
    """One reading of a :class:`RouteCell`: bounds of the buckets in seconds, counts a bucket, and sums in seconds."""

    bounds: tuple[float, ...]
    durations: list[int]
    seconds: float
    first_bytes: list[int]
    first_byte_seconds: float


class RouteCell:
    """Counts of the requests with the same labels."""

    # Written to without a lock, which would be a tenth of what the middleware costs: seconds wait in lists, whose append is atomic, until
    # there are many of them or somebody reads. Everything else (buckets, sums) is found for all of them together, at a third of the price.
    __slots__ = (
        "_counted",
        "_draining",
        "_durations",
        "_elapsed",
        "_exemplars",
        "_first",
        "_first_bytes",
        "_first_seconds",
        "_lock",
        "_reads",
        "_seconds",
        "_slow",
        "_traces",
        "gate",
        "good",
        "recorder",
        "whole",
    )

    def __init__(self, recorder: Recorder, traces: Traces | None = None, slow: float = SLOW) -> None:
        """Nothing counted; ``recorder`` is shared by all cells of the route. ``traces`` are kept of requests above ``slow`` seconds."""
        self.recorder = recorder
        size = len(recorder.bounds) + 1
        self._durations = [itertools.count() for _ in range(size)]
        self._first_bytes = [itertools.count() for _ in range(size)]
        self.whole: list[float] = []
        """Seconds of ordinary answers, which came in one piece: good, and the first byte with the last. Whoever finds fewer than
        :data:`MOST_WAITING` in it before :attr:`gate` is due may append, and that is all."""
        self.gate = recorder.switch
        """The switch of the recorder, or one that is always due while somebody wants to hear of slow requests."""
        self._counted = [0] * size
        """Those that have been counted, by bucket."""
        self._draining = False
        self._reads = 0
        self._elapsed: list[float] = []
        self._first: list[float] = []
        self._seconds = self._first_seconds = 0.0
        self._lock = recorder.lock
        recorder.include(self._drained)
        self.good = self._booking()
        """Count a request that ended well: seconds that it took, seconds to the first byte or None, and the time now."""
        self._traces = traces
        self._slow = slow
        self._exemplars: dict[int, Exemplar] | None = None
        if traces is not None and traces.current is not None:
            self.follow_traces()

    def _booking(self) -> Callable[[float, float | None, float], None]:
        # A closure: all that it touches is at hand, which a method would look up at each request.
        recorder, durations, first_bytes = self.recorder, self._durations, self._first_bytes
        took, began, whole = self._elapsed.append, self._first.append, self.whole
        switch, bounds, cells = recorder.switch, recorder.bounds, recorder.cells
        lowest = bounds[0]

        def good(elapsed: float, first_byte: float | None, now: float) -> None:
            if now >= switch.due:
                recorder.settle(now)
            if first_byte is elapsed:
                whole.append(elapsed)
                if len(whole) >= MOST_WAITING:
                    self._drained()
                return
            bucket = bisect_left(bounds, elapsed) if elapsed > lowest else 0
            next(cells[bucket])
            if first_byte is not None:
                # Not later than the end, so there is nothing to look for when that is in the first bucket.
                next(first_bytes[bisect_left(bounds, first_byte, 0, bucket) if bucket else 0])
                began(first_byte)
            took(elapsed)
            if next(durations[bucket]) % MOST_WAITING == 0:
                self._sum_up()

        return good

    def add(self, outcome: Outcome, elapsed: float, first_byte: float | None, now: float, injected: bool = False) -> None:  # noqa: FBT001, FBT002 - hot
        """Count a request that ended at ``now`` after ``elapsed`` seconds; ``first_byte``: seconds to the first byte of its body."""
        if outcome is _GOOD and not injected:
            self.good(elapsed, first_byte, now)
            return
        recorder = self.recorder
        if now >= recorder.switch.due:
            recorder.settle(now)
        recorder.add(outcome, elapsed, injected)
        bucket = bisect_left(recorder.bounds, elapsed)
        if first_byte is not None:
            next(self._first_bytes[bisect_left(recorder.bounds, first_byte)])
            self._first.append(first_byte)
        self._elapsed.append(elapsed)
        if self._exemplars is not None and (elapsed > self._slow or outcome is Outcome.BAD or outcome is Outcome.REJECTED):
            self._keep(elapsed)
        if next(self._durations[bucket]) % MOST_WAITING == 0:
            self._sum_up()

    def follow_traces(self) -> None:
        """As :meth:`Recorder.follow_traces`."""
        wanted = self._traces is not None and self._traces.current is not None
        with self._lock:
            if wanted is (self._exemplars is not None):
                return
            self._exemplars = {} if wanted else None
            self.gate = _ALWAYS if wanted else self.recorder.switch
            self.good = self._watching() if wanted else self._booking()

    def exemplars(self) -> list[Exemplar]:
        """The latest bad or slow request of a trace in each bucket."""
        with self._lock:
            return list((self._exemplars or {}).values())

    def _watching(self) -> Callable[[float, float | None, float], None]:
        book, slow = self._booking(), self._slow

        def good(elapsed: float, first_byte: float | None, now: float) -> None:
            if elapsed > slow:
                self._keep(elapsed)
            book(elapsed, first_byte, now)

        return good

    def _keep(self, elapsed: float) -> None:
        kept, traces = self._exemplars, self._traces
        exemplar = None if kept is None or traces is None else traces.take(elapsed)
        if kept is not None and exemplar is not None:
            kept[bisect_left(self.recorder.bounds, elapsed)] = exemplar

    def view(self) -> RouteView:
        """A reading of what was counted before it; what is being counted meanwhile may be in one figure and not yet in another."""
        with self._lock:
            whole = self._drained()
            # A counter can only be read by bumping it; see Recorder.
            durations = [next(counter) - self._reads + both for counter, both in zip(self._durations, whole, strict=True)]
            first_bytes = [next(counter) - self._reads + both for counter, both in zip(self._first_bytes, whole, strict=True)]
            self._reads += 1
            self._sum_up()
            return RouteView(self.recorder.bounds, durations, self._seconds, first_bytes, self._first_seconds)

    def _sum_up(self) -> None:
        with self._lock:
            self._seconds += sum(_taken(self._elapsed))
            self._first_seconds += sum(_taken(self._first))

    def _drained(self) -> list[int]:
        """Count the ordinary answers that wait; how many there were in all, by bucket."""
        with self._lock:
            # A signal handler that reads in the middle of this would count some twice; so it does without the last few.
            if self._draining or not self.whole:
                return self._counted
            self._draining = True
            try:
                seconds = sorted(_taken(self.whole))
                both = sum(seconds)
                self._seconds += both
                self._first_seconds += both
                # A bound belongs to its bucket: the first place behind all that are not above it.
                place, last = 0, len(seconds)
                for bucket, bound in enumerate(self.recorder.bounds):
                    upto = bisect_right(seconds, bound, place)
                    self._counted[bucket] += upto - place
                    place = upto
                    if place == last:
                        break
                self._counted[-1] += last - place
            finally:
                self._draining = False
            return self._counted


def _taken(waiting: list[float]) -> list[float]:
    """What is in there now, which is taken out; what comes meanwhile comes after it, and stays."""
    seconds = waiting[:]
    del waiting[: len(seconds)]
    return seconds


class Rememberer(Protocol):
    """Somebody who keeps gates of cells at hand."""

    plain: dict[tuple[int, Any, int], tuple[Any, list[float], Switch, RouteCell]]
    """Is emptied when they are others."""


class Routes:
    """Cells by labels, recorders by route."""

    def __init__(
        self,
        thresholds: Callable[[tuple[str, ...]], tuple[float, ...]],
        attach: Callable[[str, Recorder], None],
        traces: Traces | None = None,
    ) -> None:
        """Ask for the latency thresholds of objectives, and attach recorders to objectives, through these."""
        self._traces = traces
        self._rememberers: weakref.WeakSet[Rememberer] = weakref.WeakSet()
        self._thresholds = thresholds
        self._attach = attach
        self._lock = threading.RLock()
        # Plain tuples: to make a RouteKey takes longer than all the rest of finding a cell. The objectives are part of the key, for a
        # request of another middleware may have the same labels and must not count for the objectives of whoever came first.
        self._cells: dict[tuple[str, str, int, tuple[str, ...]], RouteCell] = {}
        self._recorders: dict[tuple[str, tuple[str, ...]], Recorder] = {}

    def cell(self, method: str, route: str, status: int, slos: tuple[str, ...]) -> RouteCell:
        """The cell of these labels that counts for these objectives; the one of ``_other`` when there are too many."""
        return self._cells.get((method, route, status, slos)) or self._make(method, route, status, slos)

    def views(self) -> dict[RouteKey, RouteView]:
        """A reading of every cell, by labels."""
        with self._lock:
            cells = [(RouteKey(method, route, status), cell) for (method, route, status, _), cell in self._cells.items()]
        views: dict[RouteKey, RouteView] = {}
        for key, cell in cells:
            view = cell.view()
            views[key] = _joined(views[key], view) if key in views else view
        return views

    def counts(self) -> dict[str, Counts]:
        """The counts of every route."""
        with self._lock:
            recorders = [(route, recorder) for (route, _), recorder in self._recorders.items()]
        counts: dict[str, Counts] = {}
        for route, recorder in recorders:
            count = recorder.counts()
            counts[route] = _summed(counts[route], count) if route in counts else count
        return counts

    def remembered_by(self, rememberer: Rememberer) -> None:
        """Tell ``rememberer`` when gates of cells are exchanged. It is forgotten when nobody else has it."""
        with self._lock:
            self._rememberers.add(rememberer)

    def follow_traces(self) -> None:
        """As :meth:`Recorder.follow_traces`, for every cell."""
        with self._lock:
            for cell in self._cells.values():
                cell.follow_traces()
            for rememberer in tuple(self._rememberers):
                rememberer.plain.clear()

    def exemplars(self) -> dict[RouteKey, list[Exemplar]]:
        """What every cell has kept, by labels."""
        with self._lock:
            cells = [(RouteKey(method, route, status), cell) for (method, route, status, _), cell in self._cells.items()]
        found: dict[RouteKey, list[Exemplar]] = {}
        for key, cell in cells:
            found.setdefault(key, []).extend(cell.exemplars())
        return found

    def _make(self, method: str, route: str, status: int, slos: tuple[str, ...]) -> RouteCell:
        with self._lock:
            key = (method, route, status, slos)
            if key not in self._cells:
                if len(self._cells) >= _MOST:
                    route = OTHER
                    key = (method if method == WEBSOCKET else OTHER, OTHER, 0, slos)
                recorder = self._recorders.get((route, slos))
                if recorder is None:
                    recorder = Recorder(Switch(), merge_bounds(*self._thresholds(slos)))
                    self._recorders[route, slos] = recorder
                    for slo in slos:
                        self._attach(slo, recorder)
                self._cells.setdefault(key, RouteCell(recorder, self._traces, min(self._thresholds(slos), default=SLOW)))
            return self._cells[key]


def _joined(one: RouteView, other: RouteView) -> RouteView:
    bounds = _common(one.bounds, other.bounds)
    return RouteView(
        bounds,
        _sum(bounds, (one.bounds, one.durations), (other.bounds, other.durations)),
        one.seconds + other.seconds,
        _sum(bounds, (one.bounds, one.first_bytes), (other.bounds, other.first_bytes)),
        one.first_byte_seconds + other.first_byte_seconds,
    )


def _summed(one: Counts, other: Counts) -> Counts:
    bounds = _common(one.bounds, other.bounds)
    keys = {**one.cells, **other.cells}
    return Counts(bounds, {key: _sum(bounds, *((c.bounds, c.cells[key]) for c in (one, other) if key in c.cells)) for key in keys})


def _common(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """The bounds that both have: only on these can their buckets be added exactly."""
    return tuple(sorted({*one} & {*other}))


def _sum(bounds: tuple[float, ...], *histograms: tuple[tuple[float, ...], list[int]]) -> list[int]:
    total = [0] * (len(bounds) + 1)
    for own, counts in histograms:
        for bound, count in zip((*own, float("inf")), counts, strict=True):
            total[bisect_left(bounds, bound)] += count
    return total
