"""The good and bad events of one objective, over any window: a view on recorders, or on the incident log."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from somaresil.model.ledger import Ledger
from somaresil.model.window import RingSet
from somaresil.outcome import Outcome
from somaresil.slo.incidents import Recoveries

if TYPE_CHECKING:
    from somaresil.recorder import Recorder
    from somaresil.slo.incidents import IncidentLog
    from somaresil.slo.objective import SLO
    from somaresil.typing import Clock

__all__ = ["Series"]


class Series:
    """Windows over the events of one objective. Locks are taken in the order series, recorder."""

    def __init__(self, slo: SLO, clock: Clock, incidents: IncidentLog) -> None:
        """Begin with no source."""
        self.slo = slo
        self._clock = clock
        self._incidents = incidents
        self._recoveries: Recoveries | None = None
        # Slots lie on the epoch, so that slot i means the same in every process; the wall clock is read once, steps of it do not matter.
        self._epoch = clock.time() - clock.monotonic()
        self._rings = RingSet(self._epoch + clock.monotonic())
        self._lock = threading.RLock()
        self._sources: tuple[Recorder, ...] = ()
        self._good = self._bad = 0
        # What was counted before this process was forked off: it is in the totals, and it is its parent's to tell.
        self._inherited = (0, 0)
        if slo.recovery is not None:
            self._recoveries = Recoveries(float(slo.recovery), count_injected=slo.count_injected, roll=self.roll)  # type: ignore[arg-type]
            incidents.judge(self._recoveries)

    @property
    def sources(self) -> int:
        """How many recorders feed it."""
        return len(self._sources)

    @property
    def age(self) -> float:
        """Seconds since it began to watch."""
        return self._epoch + self._clock.monotonic() - self._rings.started

    def feed(self, recorder: Recorder) -> None:
        """Count what ``recorder`` counts from now on; what it counted before is not looked at."""
        with self._lock:
            if recorder in self._sources:
                return
            self._sources = (*self._sources, recorder)
            good, bad = self._of(recorder)
            self._good -= good
            self._bad -= bad
        recorder.attach(self)

    # -- view on the recorders --------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """Monotonic time of the next boundary."""
        return self._rings.due - self._epoch

    def roll(self, now: float) -> None:
        """Note the totals at the boundaries passed."""
        with self._lock:
            if now >= self.due:
                self._rings.roll(self._epoch + now, self._own(*self._totals()[:2]))

    def totals(self) -> tuple[int, int]:
        """Good and bad events since it began. Never goes back."""
        with self._lock:
            good, bad, overdue = self._totals()
        return good, bad + overdue

    def totals_by(self, *, injected: bool) -> tuple[int, int]:
        """As :meth:`totals`, with the calls that experiments have touched or without them, whatever the objective says of those.

        From where it begins to count is not said: take differences. Incidents are counted as the objective counts them.
        """
        if self._recoveries is not None:
            return self.totals()
        with self._lock:
            pairs = [self._of(recorder, injected=injected) for recorder in self._sources]
        return sum(good for good, _ in pairs), sum(bad for _, bad in pairs)

    def counts(self, window: float) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds, less than one slot at its far edge.

        A slot is 10 seconds for windows up to 2 hours, 5 minutes up to 3 days, 1 hour beyond: at most 1/24 of any window from 5 minutes on.
        An incident that is overdue counts in every window.
        """
        now = self._epoch + self._clock.monotonic()
        with self._lock:
            good, bad, overdue = self._totals()
            own = self._own(good, bad)
            self._rings.roll(now, own)
            good, bad = self._rings.within(now, window, own)
        return good, bad + overdue

    @property
    def watched(self) -> tuple[float, float]:
        """Since when it has been watching, and now, in seconds since the epoch as its slots count them."""
        return self._rings.started, self._epoch + self._clock.monotonic()

    def ledger(self) -> tuple[Ledger, tuple[int, int]]:
        """What this process has counted, slot by slot, and :meth:`counted` at that moment.

        Incidents that last are not in it: nobody knows how they end.
        """
        now = self._epoch + self._clock.monotonic()
        with self._lock:
            good, bad, _ = self._totals()
            own = self._own(good, bad)
            self._rings.roll(now, own)
            return Ledger.of(self._rings.history(own), ((self._rings.started, now),)), (good, bad)

    def begin_anew(self, inherited: tuple[int, int]) -> None:
        """Leave what was counted up to these totals to somebody else, and begin with what has come since. :meth:`totals` goes on."""
        with self._lock:
            self._inherited = inherited
            self._rings = RingSet(self._epoch + self._clock.monotonic())

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()

    def counted(self) -> tuple[int, int]:
        """Good and bad events that have ended: what a child is to leave to its parent."""
        with self._lock:
            return self._totals()[:2]

    @property
    def pending(self) -> int:
        """Incidents that last and are not overdue: nobody knows yet how they count."""
        return 0 if self._recoveries is None else self._incidents.read(self._recoveries)[3]

    def _own(self, good: int, bad: int) -> tuple[int, int]:
        return good - self._inherited[0], bad - self._inherited[1]

    def _totals(self) -> tuple[int, int, int]:
        """Good, bad, and what is bad for as long as it lasts."""
        if self._recoveries is not None:
            return self._incidents.read(self._recoveries)[:3]
        good, bad = self._good, self._bad
        for recorder in self._sources:
            more_good, more_bad = self._of(recorder)
            good += more_good
            bad += more_bad
        return good, bad, 0

    def _of(self, recorder: Recorder, *, injected: bool | None = None) -> tuple[int, int]:
        """``injected``: whether those count that experiments have touched; None: as the objective says."""
        with_injected = self.slo.count_injected if injected is None else injected
        counts = recorder.counts()
        limit = self.slo.latency
        # A threshold is a bound of the recorder, and the bound belongs to its bucket.
        until = None if limit is None else counts.bounds.index(float(limit)) + 1  # type: ignore[arg-type]
        good = bad = 0
        for (outcome, mark), cell in counts.cells.items():
            if mark and not with_injected:
                continue
            if outcome is Outcome.GOOD:
                in_time = sum(cell[:until])
                good += in_time
                bad += sum(cell) - in_time
            elif outcome is Outcome.BAD or outcome is Outcome.REJECTED:
                bad += sum(cell)
        return good, bad
