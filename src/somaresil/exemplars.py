"""Which trace a bad or slow event belongs to: one for each cell in which it is counted, the latest.

Nothing is kept unless somebody who exports them says what the current trace is (:meth:`Resilience.follow_traces`). A good call that was
fast is not asked then either: the counters of slow buckets are exchanged for :class:`Tap`, and everything else that is bad has left the
quiet path anyway.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["LONGEST", "SLOW", "Exemplar", "Tap", "Traces", "slow_from", "value_of"]

SLOW: Final = 1.0
"""Seconds above which a call is slow where no objective or breaker says so."""
LONGEST: Final = 128
"""Characters that the names and values of an exemplar may have together (OpenMetrics 1.0, section Exemplars)."""
_NAMES: Final = len("trace_id") + len("span_id")


class Exemplar(NamedTuple):
    """One event of those in a cell."""

    trace_id: str
    span_id: str
    value: float
    """Seconds that it took."""
    at: float
    """Seconds since the epoch."""


class Traces:
    """What is asked for the trace of an event. One of a process, shared by everything that counts."""

    __slots__ = ("_clock", "_followers", "_listeners", "current")

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        """Nobody wants to know."""
        self._clock = clock
        self._listeners = listeners
        self._followers = 0
        self.current: Callable[[], tuple[str, str] | None] | None = None
        """Gives trace and span of whoever runs, if they are kept; None: nobody wants to know."""

    def follow(self, current: Callable[[], tuple[str, str] | None]) -> None:
        """Somebody wants to know. The first says how it is found out."""
        self._followers += 1
        self.current = self.current or current

    def leave(self) -> None:
        """One who wanted to know does so no more."""
        self._followers -= 1
        if not self._followers:
            self.current = None

    def take(self, value: float) -> Exemplar | None:
        """An event that took ``value`` seconds and ends now; None: it belongs to no trace that is kept. Never raises."""
        current = self.current
        if current is None:
            return None
        try:
            found = current()
            if found is None or _NAMES + len(found[0]) + len(found[1]) > LONGEST:
                return None
            return Exemplar(*found, value, self._clock.time())
        except Exception as broken:  # noqa: BLE001 - what is remembered of a call never changes it
            self._listeners.defect("the trace of an event", broken, self._clock.time(), "it has no exemplar")
            return None


class Tap:
    """A counter that tells when it counts. In the place of those of slow buckets."""

    __slots__ = ("_counter", "_seen")

    def __init__(self, counter: Iterator[int], seen: Callable[[], None]) -> None:
        """Count with ``counter``."""
        self._counter = counter
        self._seen = seen

    def __iter__(self) -> Self:
        """It is one."""
        return self

    def __next__(self) -> int:
        """Tell, and count."""
        self._seen()
        return next(self._counter)


def slow_from(bounds: tuple[float, ...], slow: float) -> int:
    """The first bucket in which everything took longer than ``slow`` seconds."""
    return bisect_left(bounds, slow) + 1


def value_of(bounds: tuple[float, ...], bucket: int) -> float:
    """What is said of a quiet call of which only the bucket is known: its upper bound; of the last one, just more than the lower."""
    return bounds[bucket] if bucket < len(bounds) else math.nextafter(bounds[-1], math.inf)
