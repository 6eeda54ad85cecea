"""Incidents: from the first bad call that led to an open circuit until the circuit is closed again. One id, one duration.

The mean of these durations is the MTTR that people ask for; each of them is an event of the recovery objective.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from somaresil.events import BreakerChanged, IncidentClosed, IncidentOpened

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.events import Listeners
    from somaresil.typing import Clock

__all__ = ["RECOVERY_BOUNDS", "Incident", "IncidentLog", "Recoveries"]

RECOVERY_BOUNDS: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Buckets of ``somaresil_recovery_seconds``; five minutes is a bound."""

_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Incident:
    """One outage of one guard.

    ``duration`` is None while it lasts; ``recovered`` is False when somebody took the breaker out of service.
    """

    id: str
    guard: str
    started_at: float
    duration: float | None = None
    recovered: bool = False
    injected: bool = False


class Recoveries:
    """Incidents as one objective sees them: good when the circuit was closed again within ``limit`` seconds, bad otherwise."""

    __slots__ = ("bad", "count_injected", "good", "limit", "roll")

    def __init__(self, limit: float, *, count_injected: bool, roll: Callable[[float], None]) -> None:
        """None seen. ``roll`` is called before one is counted, to note the totals at the boundaries passed."""
        self.limit = limit
        self.count_injected = count_injected
        self.roll = roll
        self.good = self.bad = 0

    def concerns(self, incident: Incident) -> bool:
        """Whether it counts for the objective."""
        return self.count_injected or not incident.injected

    def add(self, incident: Incident, duration: float) -> None:
        """Count one that has ended."""
        if self.concerns(incident):
            in_time = incident.recovered and duration <= self.limit
            self.good += in_time
            self.bad += not in_time


class IncidentLog:
    """Watches the breakers. Keeps the last 256 incidents that ended, and the counts of all."""

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        """Listen for breaker transitions from now on."""
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._number = 0
        self._running: dict[str, tuple[Incident, float]] = {}
        self._ended: deque[Incident] = deque(maxlen=_KEPT)
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._eras: dict[str, int] = {}
        self._objectives: tuple[Recoveries, ...] = ()
        listeners.add(self._changed, BreakerChanged, last=True)

    @property
    def running(self) -> tuple[Incident, ...]:
        """Incidents that last."""
        with self._lock:
            return tuple(incident for incident, _ in self._running.values())

    @property
    def ended(self) -> tuple[Incident, ...]:
        """The last 256 incidents that are over, oldest first."""
        with self._lock:
            return tuple(self._ended)

    def recoveries(self) -> dict[str, tuple[list[int], float]]:
        """By guard: incidents that ended in each bucket of :data:`RECOVERY_BOUNDS` (and above), and the sum of their seconds."""
        with self._lock:
            return {guard: (list(buckets), self._sums[guard]) for guard, buckets in self._buckets.items()}

    def judge(self, objective: Recoveries) -> None:
        """Count the incidents that end from now on for this objective."""
        with self._lock:
            self._objectives = (*self._objectives, objective)

    def read(self, objective: Recoveries) -> tuple[int, int, int, int]:
        """For one objective, at one moment: incidents that ended well and that did not; of those that last, overdue ones and others.

        One moment, because an incident that ends must not be seen as neither running nor ended: a counter would go back.
        """
        now = self._clock.monotonic()
        with self._lock:
            ages = [now - since for incident, since in self._running.values() if objective.concerns(incident)]
            overdue = sum(age > objective.limit for age in ages)
            return objective.good, objective.bad, overdue, len(ages) - overdue

    def _changed(self, event: BreakerChanged) -> None:
        if event.shadow or event.key is not None:
            # Nothing is refused in the shadow, and a guard that refuses the calls of one key serves the others.
            return
        with self._lock:
            if 0 < event.era < self._eras.get(event.guard, 0):
                # Told late, by a thread that was interrupted between the step and the telling: what it tells is over.
                return
            self._eras[event.guard] = event.era
        if event.after in {"open", "forced_open"}:
            self._open(event)
        elif event.after not in {"half_open", "ramping"}:
            self._close(event)

    def _open(self, event: BreakerChanged) -> None:
        with self._lock:
            running = self._running.get(event.guard)
            if running is not None:
                incident, since = running
                if incident.injected and not event.injected:
                    # What an experiment began has become an outage of its own: a budget without drills must not leave it out.
                    self._running[event.guard] = (replace(incident, injected=False), since)
                return
            self._number += 1
            incident = Incident(f"{event.guard}#{self._number}", event.guard, event.first_failure_at, injected=event.injected)
            self._running[event.guard] = (incident, self._clock.monotonic() - max(0.0, event.at - event.first_failure_at))
        if self._listeners.wants(IncidentOpened):
            self._listeners.emit(IncidentOpened(event.guard, event.at, incident.id, incident.started_at, incident.injected))

    def _close(self, event: BreakerChanged) -> None:
        now = self._clock.monotonic()
        if event.guard not in self._running:
            return
        for objective in self._objectives:
            objective.roll(now)
        with self._lock:
            incident, since = self._running.pop(event.guard, (None, now))
            if incident is None:
                return
            duration = now - since
            ended = replace(incident, duration=duration, recovered=event.after == "closed")
            for objective in self._objectives:
                objective.add(ended, duration)
            self._ended.append(ended)
            buckets = self._buckets.setdefault(event.guard, [0] * (len(RECOVERY_BOUNDS) + 1))
            buckets[bisect_left(RECOVERY_BOUNDS, duration)] += 1
            self._sums[event.guard] = self._sums.get(event.guard, 0.0) + duration
        if self._listeners.wants(IncidentClosed):
            self._listeners.emit(IncidentClosed(event.guard, event.at, ended.id, duration, ended.recovered, ended.injected))
