"""The good and bad events of one objective, over any window: a view on recorders, on the incident log, or on what it is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from somaresil.config import Checker
from somaresil.model.ledger import Ledger
from somaresil.model.timeslice import PARTS, Slicer, weighted
from somaresil.model.window import SLO_TIERS, YEARS_TIER, RingSet
from somaresil.slo.incidents import Recoveries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somaresil.recorder import Recorder
    from somaresil.slo.incidents import IncidentLog
    from somaresil.slo.objective import SLO
    from somaresil.typing import Clock

__all__ = ["Composite", "Events", "Freshness", "Series"]

_SLOT: Final = SLO_TIERS[0].resolution
_FILED: Final = frozenset(tier.resolution for tier in SLO_TIERS)


class Events(Protocol):
    """Whatever knows the events of an objective."""

    slo: SLO

    @property
    def sources(self) -> int:
        """How many guards, routes and groups feed it."""
        ...

    @property
    def age(self) -> float:
        """Seconds since it began to watch."""
        ...

    @property
    def watched(self) -> tuple[float, float]:
        """Since when it has been watching, and now, in seconds since the epoch."""
        ...

    @property
    def shared(self) -> bool:
        """Whether what other processes count can be added to it."""
        ...

    @property
    def pending(self) -> int:
        """Incidents of which nobody knows yet how they count."""
        ...

    @property
    def unit(self) -> int:
        """How many of its counts are one event: more than 1 where ratios are averaged."""
        ...

    def totals(self) -> tuple[int, int]:
        """Good and bad events since it began."""
        ...

    def totals_by(self, *, injected: bool) -> tuple[int, int]:
        """The same with the calls that experiments touched, or without them; for differences."""
        ...

    def counts(self, window: float) -> tuple[int, int]:
        """Good and bad, in units, of the last ``window`` seconds."""
        ...

    def read(self, window: float) -> tuple[tuple[int, int], float, float]:
        """:meth:`counts`, and :attr:`watched` at the same moment."""
        ...

    def injected(self, window: float) -> tuple[int, int] | None:
        """Good and bad events of the last ``window`` seconds that experiments touched; None: they are not told apart."""
        ...


_Four: TypeAlias = tuple[int, int, int, int]
"""Totals of events, good and bad: of those that no experiment touched, and of those that one did."""

_NOTHING: Final[_Four] = (0, 0, 0, 0)


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
        self._tiers = (*SLO_TIERS, YEARS_TIER) if slo.calendar in {"quarter", "year"} else SLO_TIERS
        now = self._epoch + clock.monotonic()
        self._rings = RingSet(now, tiers=self._tiers)
        self._struck: RingSet | None = None
        """The events that experiments touched. Most processes never see one, and it is as large as all the rest."""
        self._lock = threading.RLock()
        # Each with how many of its buckets are in time; None: all of them.
        self._sources: tuple[tuple[Recorder, int | None], ...] = ()
        self._base = self._told = _NOTHING
        self._counts_injected = slo.counts_injected
        self._limit_of_latency = None if slo.latency is None else float(slo.latency)  # type: ignore[arg-type]
        self._tellers: set[int] = set()
        self.sources = 0
        """How many recorders feed it, and how many others tell it of calls."""
        window = slo.time_slice_window
        self._slicer = None if window is None else Slicer(float(window), slo.time_slice_target, now)  # type: ignore[arg-type]
        # What was counted before this process was forked off: it is in the totals, and it is its parent's to tell.
        self._inherited = self._inherited_struck = (0, 0)
        self._plain = self._slicer is None and slo.read_from_cells
        """Whether its events are in recorders alone, as they are counted there: so far for groups, which are told of calls."""
        if slo.recovery is not None:
            self._recoveries = Recoveries(float(slo.recovery), count_injected=slo.counts_injected, roll=self.roll)  # type: ignore[arg-type]
            incidents.judge(self._recoveries)

    @property
    def age(self) -> float:
        """Seconds since it began to watch."""
        return self.now - self._rings.started

    @property
    def now(self) -> float:
        """Seconds since the epoch, as its slots count them."""
        return self._epoch + self._clock.monotonic()

    @property
    def unit(self) -> int:
        """How many of its counts are one event."""
        return 1 if self._slicer is None else self._slicer.unit

    def feed(self, recorder: Recorder) -> None:
        """Count what ``recorder`` counts from now on; what it counted before is not looked at.

        Raises :class:`~somaresil.errors.ConfigurationError` when the threshold is no bound there: it could only be guessed at.
        """
        if not self.slo.read_from_cells:
            self._tellers.add(id(recorder))
            self.sources = len(self._tellers)
            return
        limit = self.slo.latency
        if limit is not None and limit not in recorder.bounds:
            check = Checker(f"SLO({self.slo.name!r})")
            check.problem("latency", limit, f"one of the bounds {recorder.bounds}", "add the objective before what records for it")
            check.finish()
        with self._lock:
            if any(recorder is known for known, _ in self._sources):
                return
            # A threshold is a bound of the recorder, and the bound belongs to its bucket.
            until = None if self._limit_of_latency is None else recorder.bounds.index(self._limit_of_latency) + 1
            self._sources = (*self._sources, (recorder, until))
            self.sources = len(self._sources)
            own_good, own_bad, hit_good, hit_bad = recorder.tally(until)
            base = self._base
            self._base = base[0] - own_good, base[1] - own_bad, base[2] - hit_good, base[3] - hit_bad
        recorder.attach(self)

    def tell(self, *, good: bool, injected: bool, now: float) -> None:
        """Count one event at the monotonic time ``now``, for an objective that a recorder cannot know."""
        with self._lock:
            self._plain = False
            if now >= self.due:
                self.roll(now)
            own_good, own_bad, hit_good, hit_bad = self._told
            if injected:
                self._told = own_good, own_bad, hit_good + good, hit_bad + (not good)
            else:
                self._told = own_good + good, own_bad + (not good), hit_good, hit_bad

    # -- view on the recorders --------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """Monotonic time of the next boundary."""
        return self._rings.due - self._epoch

    def roll(self, now: float) -> None:
        """Note the totals at the boundaries passed."""
        with self._lock:
            if now >= self.due:
                self._roll(self._epoch + now, self._events())

    def totals(self) -> tuple[int, int]:
        """Good and bad events since it began. Never goes back."""
        with self._lock:
            good, bad, overdue = self._totals(self._events())
        return good, bad + overdue

    def totals_by(self, *, injected: bool) -> tuple[int, int]:
        """As :meth:`totals`, with the calls that experiments have touched or without them, whatever the objective says of those.

        From where it begins to count is not said: take differences. Incidents are counted as the objective counts them.
        """
        if self._recoveries is not None:
            return self.totals()
        with self._lock:
            events = self._events()
        return _judged(events, with_injected=injected)

    def slices(self) -> tuple[int, int]:
        """Good and bad slices that are over; 0 when occurrences are counted. Of mean ratios the sum, rounded."""
        with self._lock:
            slicer = self._slicer
            if slicer is None:
                return 0, 0
            self._roll(self.now, self._events())
            return round(slicer.good / slicer.unit), round(slicer.bad / slicer.unit)

    def counts(self, window: float) -> tuple[int, int]:
        """Good and bad events (or slices, in units) of the last ``window`` seconds, less than one slot at its far edge.

        A slot is 10 seconds for windows up to 2 hours, 5 minutes up to 3 days, 1 hour beyond: at most 1/24 of any window from 5 minutes on.
        An incident that is overdue counts in every window.
        """
        return self.read(window)[0]

    def read(self, window: float) -> tuple[tuple[int, int], float, float]:
        """:meth:`counts`, and :attr:`watched` at the same moment."""
        now = self._epoch + self._clock.monotonic()
        with self._lock:
            rings = self._rings
            if self._plain and now < rings.due:
                # What _events and _roll give for most objectives most of the time, without their frames.
                good, bad, struck, struck_bad = self._base
                struck += struck_bad
                for recorder, until in self._sources:
                    more = recorder.tally(until)
                    good += more[0]
                    bad += more[1]
                    struck += more[2] + more[3]
                if not struck:
                    inherited = self._inherited
                    good, bad = rings.within(now, window, (good - inherited[0], bad - inherited[1]))
                    return (good, bad), rings.started, now
            events = self._events()
            good, bad = rings.within(now, window, self._roll(now, events))
            if self._recoveries is not None:
                bad += self._totals(events)[2]
            return (good, bad), rings.started, now

    def injected(self, window: float) -> tuple[int, int] | None:
        """Good and bad events of the last ``window`` seconds that experiments touched; None: they are not told apart."""
        if self._recoveries is not None or self._slicer is not None:
            return None
        now = self.now
        with self._lock:
            events = self._events()
            self._roll(now, events)
            if self._struck is None:
                return 0, 0
            good, bad = self._struck.within(now, window, self._own_struck(events))
            return good, bad

    @property
    def watched(self) -> tuple[float, float]:
        """Since when it has been watching, and now, in seconds since the epoch as its slots count them."""
        return self._rings.started, self.now

    @property
    def shared(self) -> bool:
        """Whether what other processes count can be added to it: events can, slices of time and checks cannot."""
        return self._slicer is None

    def ledger(self) -> tuple[Ledger, tuple[int, int]]:
        """What this process has counted, slot by slot, and :meth:`counted` at that moment.

        Incidents that last are not in it: nobody knows how they end.
        """
        now = self.now
        with self._lock:
            events = self._events()
            own = self._roll(now, events)
            # What two years take is this process's alone: files have the rings that every objective has.
            known = {resolution: kept for resolution, kept in self._rings.history(own).items() if resolution in _FILED}
            return Ledger.of(known, ((self._rings.started, now),)), self._totals(events)[:2]

    def begin_anew(self, inherited: tuple[int, int]) -> None:
        """Leave what was counted up to these totals to somebody else, and begin with what has come since. :meth:`totals` goes on."""
        with self._lock:
            self._inherited = inherited
            self._inherited_struck = self._events()[2:]
            self._struck = None
            self._rings = RingSet(self.now, tiers=self._tiers)

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()

    def counted(self) -> tuple[int, int]:
        """Good and bad events that have ended: what a child is to leave to its parent."""
        with self._lock:
            return self._totals(self._events())[:2]

    @property
    def pending(self) -> int:
        """Incidents that last and are not overdue: nobody knows yet how they count."""
        return 0 if self._recoveries is None else self._incidents.read(self._recoveries)[3]

    def _own_struck(self, events: _Four) -> tuple[int, int]:
        return events[2] - self._inherited_struck[0], events[3] - self._inherited_struck[1]

    def _roll(self, now: float, events: _Four) -> tuple[int, int]:
        """Note what there was at the boundaries passed. Returns what the rings count now: events, or slices that are over."""
        if self._recoveries is None:
            good, bad, injected_good, injected_bad = events
            if self._counts_injected:
                good, bad = good + injected_good, bad + injected_bad
        else:
            good, bad, _ = self._totals(events)
        if events[2] or events[3]:
            if self._struck is None:
                # It happened since the last boundary, so that is where to begin.
                self._struck = RingSet(self._rings.due - _SLOT)
            self._struck.roll(now, self._own_struck(events))
        slicer = self._slicer
        if slicer is None:
            inherited, rings = self._inherited, self._rings
            own = good - inherited[0], bad - inherited[1]
            if now >= rings.due:
                rings.roll(now, own)
            return own
        if now >= slicer.end:
            # All that has happened since the slice was begun lies in it, and it ends at a boundary: what is before keeps the old figures.
            self._rings.roll(slicer.end - _SLOT / 2, (slicer.good, slicer.bad))
            slicer.close(good, bad, now)
        self._rings.roll(now, (slicer.good, slicer.bad))
        return slicer.good, slicer.bad

    def _totals(self, events: _Four) -> tuple[int, int, int]:
        """Good, bad, and what is bad for as long as it lasts."""
        if self._recoveries is not None:
            return self._incidents.read(self._recoveries)[:3]
        return *_judged(events, with_injected=self._counts_injected), 0

    def _events(self) -> _Four:
        # Written out: this is read for each window of each objective.
        good, bad, injected_good, injected_bad = self._base
        told = self._told
        if told is not _NOTHING:
            good, bad, injected_good, injected_bad = good + told[0], bad + told[1], injected_good + told[2], injected_bad + told[3]
        for recorder, until in self._sources:
            more = recorder.tally(until)
            good, bad, injected_good, injected_bad = good + more[0], bad + more[1], injected_good + more[2], injected_bad + more[3]
        return good, bad, injected_good, injected_bad


def _judged(events: _Four, *, with_injected: bool) -> tuple[int, int]:
    good, bad, injected_good, injected_bad = events
    return (good + injected_good, bad + injected_bad) if with_injected else (good, bad)


class Freshness(Series):
    """Checks whether something was refreshed lately: one at every boundary of 10 seconds, worked out when somebody asks."""

    def __init__(self, slo: SLO, clock: Clock, incidents: IncidentLog) -> None:
        """Never refreshed; checks begin when it is late for the first time, or was refreshed."""
        super().__init__(slo, clock, incidents)
        self._limit = float(slo.freshness)  # type: ignore[arg-type]
        started = self._rings.started
        self._refreshed: float | None = None
        # Checked up to here, inclusive; until the limit has passed there is nothing to say.
        self._checked = (started + self._limit) // _SLOT
        self._good = self._bad = 0

    def refreshed(self, now: float) -> None:
        """It was refreshed at the monotonic time ``now``."""
        at = self._epoch + now
        with self._lock:
            self._roll(at, self._events())
            self._good, self._bad = self._at(at)
            self._checked = at // _SLOT if self._refreshed is None else max(self._checked, at // _SLOT)
            self._refreshed = at if self._refreshed is None else max(self._refreshed, at)

    @property
    def shared(self) -> bool:
        """No: of two processes each checks for itself."""
        return False

    @property
    def refreshed_ago(self) -> float | None:
        """Seconds since it was refreshed; None: never."""
        with self._lock:
            return None if self._refreshed is None else max(0.0, self.now - self._refreshed)

    def tell(self, *, good: bool, injected: bool, now: float) -> None:  # noqa: ARG002 - who refreshes does not matter
        """A good call refreshes it."""
        if good:
            self.refreshed(now)

    def _at(self, moment: float) -> tuple[int, int]:
        """The totals at ``moment``, if it was not refreshed since then."""
        checks = int(moment // _SLOT - self._checked)
        if checks <= 0:
            return self._good, self._bad
        if self._refreshed is None:
            return self._good, self._bad + checks
        fresh = int((self._refreshed + self._limit) // _SLOT - self._checked)
        good = min(checks, max(0, fresh))
        return self._good + good, self._bad + checks - good

    def _roll(self, now: float, events: _Four) -> tuple[int, int]:  # noqa: ARG002 - its events are not told
        self._rings.roll_along(now, self._at)
        return self._at(now)

    def _totals(self, events: _Four) -> tuple[int, int, int]:  # noqa: ARG002 - as above
        return *self._at(self.now), 0

    def totals_by(self, *, injected: bool) -> tuple[int, int]:  # noqa: ARG002 - as above
        """As :meth:`totals`."""
        return self.totals()

    def injected(self, window: float) -> tuple[int, int] | None:  # noqa: ARG002 - as above
        """Not told apart."""
        return None


class Composite:
    """An objective over others: the mean of their ratios by weight."""

    def __init__(self, slo: SLO, parts: Sequence[tuple[Events, float]]) -> None:
        """``parts`` with their weights."""
        self.slo = slo
        self._parts = tuple(parts)
        self.unit = PARTS * 1_000

    @property
    def sources(self) -> int:
        """Those of the part that has the fewest: a part that nothing feeds is not known, and then the whole is not."""
        return min(1 if part.slo.recovery is not None else part.sources for part, _ in self._parts)

    @property
    def age(self) -> float:
        """Of its youngest part."""
        return min(part.age for part, _ in self._parts)

    @property
    def watched(self) -> tuple[float, float]:
        """Since when its youngest part has been watching, and now."""
        spans = [part.watched for part, _ in self._parts]
        return max(begin for begin, _ in spans), max(now for _, now in spans)

    @property
    def shared(self) -> bool:
        """No: it is a mean."""
        return False

    @property
    def pending(self) -> int:
        """Of all parts."""
        return sum(part.pending for part, _ in self._parts)

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """Names and weights."""
        return tuple((part.slo.name, weight) for part, weight in self._parts)

    def totals(self) -> tuple[int, int]:
        """The events of its parts together, without weights. Never goes back."""
        return _sums([part.totals() for part, _ in self._parts])

    def totals_by(self, *, injected: bool) -> tuple[int, int]:
        """The same, with the calls that experiments touched or without."""
        return _sums([part.totals_by(injected=injected) for part, _ in self._parts])

    def counts(self, window: float) -> tuple[int, int]:
        """Its ratio, as parts good and parts bad; 0 and 0: no part has an event in the window."""
        return weighted([(weight, *part.counts(window)) for part, weight in self._parts])

    def read(self, window: float) -> tuple[tuple[int, int], float, float]:
        """:meth:`counts` and :attr:`watched`."""
        return self.counts(window), *self.watched

    def events(self, window: float) -> tuple[int, int]:
        """The events of its parts together in the last ``window`` seconds, without weights."""
        found = []
        for part, _ in self._parts:
            good, bad = part.events(window) if isinstance(part, Composite) else part.counts(window)
            unit = 1 if isinstance(part, Composite) else part.unit
            found.append((round(good / unit), round(bad / unit)))
        return _sums(found)

    def injected(self, window: float) -> tuple[int, int] | None:  # noqa: ARG002 - it is a mean
        """Not told apart."""
        return None


def _sums(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(good for good, _ in pairs), sum(bad for _, bad in pairs)
