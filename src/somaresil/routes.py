"""What the ASGI middleware counts: a recorder a route, and the histogram of OpenTelemetry's conventions by method, route and status.

Labels are bounded: at most 200 combinations, everything beyond that is counted under ``_other``. An unbounded label is a way to fill the
memory of a service from outside (CVE-2023-43810 and its relatives).
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.model.histogram import merge_bounds
from somaresil.outcome import Outcome
from somaresil.recorder import Recorder
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OTHER", "RouteCell", "RouteKey", "RouteView", "Routes"]

OTHER: Final = "_other"
_MOST: Final = 200


class RouteKey(NamedTuple):
    """Labels of a request: ``status`` is 0 when no response was begun, and for websockets."""

    method: str
    route: str
    status: int


class RouteView(NamedTuple):
    """One reading of a :class:`RouteCell`: counts a bucket, and sums in seconds."""

    durations: list[int]
    seconds: float
    first_bytes: list[int]
    first_byte_seconds: float


class RouteCell:
    """Counts of the requests with the same labels."""

    __slots__ = ("_durations", "_first_bytes", "_first_seconds", "_lock", "_seconds", "recorder")

    def __init__(self, recorder: Recorder) -> None:
        """Nothing counted; ``recorder`` is shared by all cells of the route."""
        self.recorder = recorder
        size = len(recorder.bounds) + 1
        self._durations = array("q", bytes(8 * size))
        self._first_bytes = array("q", bytes(8 * size))
        self._seconds = self._first_seconds = 0.0
        self._lock = threading.RLock()

    def add(self, outcome: Outcome, elapsed: float, first_byte: float | None, now: float, *, injected: bool) -> None:
        """Count a request that ended at ``now`` after ``elapsed`` seconds; ``first_byte``: seconds to the first byte of its body."""
        recorder = self.recorder
        if now >= recorder.switch.due:
            recorder.settle(now)
        bucket = bisect_left(recorder.bounds, elapsed)
        if outcome is Outcome.GOOD and not injected:
            recorder.cells[bucket]()
        else:
            recorder.add(outcome, elapsed, injected)
        with self._lock:
            self._durations[bucket] += 1
            self._seconds += elapsed
            if first_byte is not None:
                self._first_bytes[bisect_left(recorder.bounds, first_byte)] += 1
                self._first_seconds += first_byte

    def view(self) -> RouteView:
        """A consistent reading."""
        with self._lock:
            return RouteView(list(self._durations), self._seconds, list(self._first_bytes), self._first_seconds)


class Routes:
    """Cells by labels, recorders by route."""

    def __init__(self, thresholds: Callable[[tuple[str, ...]], tuple[float, ...]], attach: Callable[[str, Recorder], None]) -> None:
        """Ask for the latency thresholds of objectives, and attach recorders to objectives, through these."""
        self._thresholds = thresholds
        self._attach = attach
        self._lock = threading.RLock()
        self._cells: dict[RouteKey, RouteCell] = {}
        self._recorders: dict[tuple[str, tuple[str, ...]], Recorder] = {}

    def cell(self, method: str, route: str, status: int, slos: tuple[str, ...]) -> RouteCell:
        """The cell of these labels; the one of ``_other`` when there are too many."""
        key = RouteKey(method, route, status)
        return self._cells.get(key) or self._make(key, slos)

    @property
    def cells(self) -> Mapping[RouteKey, RouteCell]:
        """All cells, as they are now."""
        with self._lock:
            return dict(self._cells)

    @property
    def recorders(self) -> Mapping[str, Recorder]:
        """The recorders by route."""
        with self._lock:
            return {route: recorder for (route, _), recorder in self._recorders.items()}

    def _make(self, key: RouteKey, slos: tuple[str, ...]) -> RouteCell:
        with self._lock:
            if key not in self._cells:
                if len(self._cells) >= _MOST:
                    key = RouteKey(OTHER, OTHER, 0)
                recorder = self._recorders.get((key.route, slos))
                if recorder is None:
                    recorder = Recorder(Switch(), merge_bounds(*self._thresholds(slos)))
                    self._recorders[key.route, slos] = recorder
                    for slo in slos:
                        self._attach(slo, recorder)
                self._cells.setdefault(key, RouteCell(recorder))
            return self._cells[key]
