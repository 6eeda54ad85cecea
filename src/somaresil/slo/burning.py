"""Incidents of objectives: an alert fires, less is bad again, no alert stands any more.

When it began is not what the alert says, which is late by its nature. It is worked out from the windows of the process: the moment since
which most was bad beyond what the alert allows, to the slot (10 seconds, 5 minutes further back than 2 hours). That is where the sum of
(bad - limit x events) over the time since then is largest, as in the CUSUM chart of Page (1954); a trickle of errors that was always
there does not move it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from somaresil.errors import ConfigurationError
from somaresil.events import AlertCleared, AlertFired
from somaresil.model import slo as model
from somaresil.slo.incidents import Calm, Subject
from somaresil.slo.series import Composite

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.listeners import Listeners
    from somaresil.slo.incidents import IncidentLog
    from somaresil.slo.series import Events
    from somaresil.typing import Clock

__all__ = ["Burning", "onset"]

_FINE, _FINE_UNTIL, _COARSE = 10.0, 7_200.0, 300.0
_FURTHEST: Final = 3 * model.DAY


def onset(counts: Callable[[float], tuple[int, int]], longest: float, limit: float) -> float | None:
    """How many seconds ago it began that more than a share ``limit`` is bad, at most ``longest`` (3 days); None: it is not so.

    ``counts`` gives the good and bad events of a window.
    """
    most, ago = 0.0, None
    window = _FINE
    while window <= min(longest, _FURTHEST):
        good, bad = counts(window)
        excess = bad - limit * (good + bad)
        if excess > most:
            most, ago = excess, window
        window += _FINE if window < _FINE_UNTIL else _COARSE
    return ago


class Burning:
    """Makes incidents of alerts. Nothing of it is on the path of a call."""

    def __init__(self, incidents: IncidentLog, find: Callable[[str, str | None], Events], clock: Clock, listeners: Listeners) -> None:
        """Listen for alerts from now on. ``find`` gives the events of an objective or a group; it raises for one that is not there."""
        self._incidents = incidents
        self._find = find
        self._clock = clock
        self._lock = threading.RLock()
        self._standing: dict[Subject, set[str]] = {}
        listeners.add(self._fired, AlertFired, last=True)
        listeners.add(self._cleared, AlertCleared, last=True)

    def look(self, slo: str, group: str | None) -> None:
        """See how many events were bad since the last look. Called by whoever looks at its alerts."""
        subject = Subject(None, slo, group)
        if subject in self._standing:
            # A group may be gone: then nothing more is known of it.
            with suppress(ConfigurationError):
                self._incidents.look(subject, *self._find(slo, group).totals())

    def stop(self) -> None:
        """Nobody looks any more: incidents end without recovery, for nobody would end them later."""
        with self._lock:
            standing, self._standing = self._standing, {}
        for subject in standing:
            self._incidents.close(subject, at=self._clock.time(), recovered=False)

    def forget_lock(self) -> None:
        """This process is a fork: the thread that looks at alerts stayed behind, and may have held any of them."""
        self._lock = threading.RLock()
        self._incidents.forget_lock()

    def _fired(self, event: AlertFired) -> None:
        subject = Subject(None, event.slo, event.group)
        with self._lock:
            first = subject not in self._standing
            self._standing.setdefault(subject, set()).add(event.severity)
        if not first:
            return
        try:
            events = self._find(event.slo, event.group)
        except ConfigurationError:
            # Told by somebody else: nothing is known of it here.
            self._incidents.detect(subject, at=event.at, age=event.short, injected=False)
            return
        limit = min(1.0, event.threshold * float(model.budget_ratio(events.slo.target_percentage)))
        # Of a mean of ratios one cannot say since when; of the events of its parts one can.
        counts = events.events if isinstance(events, Composite) else events.counts
        began = onset(counts, event.long, limit)
        calm = Calm(self._clock.monotonic(), *events.totals(), limit)
        # What a store knows and this process does not began within the short window, or it would not fire.
        age = event.short if began is None else began
        self._incidents.detect(subject, at=event.at, age=age, injected=_injected(events, age, limit), calm=calm)

    def _cleared(self, event: AlertCleared) -> None:
        subject = Subject(None, event.slo, event.group)
        with self._lock:
            standing = self._standing.get(subject)
            if standing is None:
                return
            standing.discard(event.severity)
            if standing:
                return
            del self._standing[subject]
        self._incidents.close(subject, at=event.at, recovered=True)


def _injected(events: Events, window: float, limit: float) -> bool:
    """Whether it would be no incident without the calls that experiments touched."""
    struck = events.injected(window) if events.slo.counts_injected else None
    if struck is None or not struck[1]:
        return False
    good, bad = events.counts(window)
    own_good, own_bad = good - struck[0], bad - struck[1]
    return own_bad <= limit * (own_good + own_bad)
