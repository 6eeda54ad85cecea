"""Incidents: from the first bad event until it is over, of guards and of objectives. One id, one duration, and the stages between.

====================  =============================================  =====================================================================
stage                 of a guard                                     of an objective
====================  =============================================  =====================================================================
first bad             the first of the bad calls that led there      since when more was bad than the alert allows
detected              its circuit opened                             an alert fired
mitigated             its callers were answered all the same, by a   less was bad than the alert allows, while it still stood
                      fallback or because nothing else came
closed                its circuit was closed again                   no alert of it stands any more
====================  =============================================  =====================================================================

The mean from the first bad event to the detection is the MTTD that people ask for, to the end the MTTR, from the end of one to the
begin of the next the MTBF. Each incident of a guard is an event of the recovery objective.

Of a guard the mitigation is seen by its calls: for as long as the incident lasts its recorder is looked at once a second, by the first
call of that second. Where nobody calls nothing is known, and nothing is said to be mitigated.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.events import BreakerChanged, IncidentClosed, IncidentMitigated, IncidentOpened
from somaresil.slo.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.listeners import Listeners
    from somaresil.recorder import Recorder
    from somaresil.typing import Clock

__all__ = ["CALM", "Calm", "Incident", "IncidentLog", "Recoveries", "Subject"]

CALM: Final = 10.0
"""Seconds without too many bad events after which an incident is said to be mitigated; until then it may have been chance."""

_KEPT: Final = 256
_REMEMBERED: Final = 1_000
"""Of how many guards, objectives and groups the end of the last incident is known."""
_EVERY: Final = 1.0


class Subject(NamedTuple):
    """What an incident is about: a guard, or an objective or one of its groups."""

    guard: str | None = None
    slo: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """One outage of one guard, or one time in which an objective was not kept.

    ``duration`` is None while it lasts; ``recovered`` is False when somebody took the breaker out of service, or stopped the alerts.
    ``detected_after`` and ``mitigated_after`` count from the first bad event, in seconds, as ``duration`` does; the latter is None when
    nothing was better before it was over.
    """

    id: str
    guard: str | None
    """None: it is one of an objective."""
    started_at: float
    duration: float | None = None
    recovered: bool = False
    injected: bool = False
    """An experiment made it."""
    slo: str | None = None
    group: str | None = None
    experiment: str | None = None
    """The id of the experiment that made it, as far as it is known."""
    detected_after: float = 0.0
    mitigated_after: float | None = None

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return Subject(self.guard, self.slo, self.group)


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
        return incident.guard is not None and (self.count_injected or not incident.injected)

    def add(self, incident: Incident, duration: float) -> None:
        """Count one that has ended."""
        if self.concerns(incident):
            in_time = incident.recovered and duration <= self.limit
            self.good += in_time
            self.bad += not in_time


class Calm:
    """Since when no more than a share ``limit`` of the events is bad, by the totals at each look."""

    __slots__ = ("_bad", "_good", "_limit", "_looked", "since")

    def __init__(self, now: float, good: int, bad: int, limit: float = 0.0) -> None:
        """It is not calm."""
        self._looked, self._good, self._bad, self._limit = now, good, bad, limit
        self.since: float | None = None
        """Monotonic time of the look after which it was; None: it is not."""

    def leave_out(self, good: int, bad: int) -> None:
        """So many events were counted up to the last look: none of them came after it."""
        self._good, self._bad = good, bad

    def look(self, now: float, good: int, bad: int) -> None:
        """Compare with the last look. Without events it stays as it was."""
        more_good, more_bad = good - self._good, bad - self._bad
        if more_bad > self._limit * (more_good + more_bad):
            self.since = None
        elif more_good > 0 and self.since is None:
            self.since = self._looked
        self._looked, self._good, self._bad = now, good, bad


@dataclass(slots=True)
class _Running:
    incident: Incident
    since: float
    """Monotonic time of the first bad event."""
    calm: Calm | None
    watch: _Watch | None = None


class _Watch:
    """A view on the recorder of a guard: how its callers fare while its incident lasts."""

    __slots__ = ("_calm", "_look", "due", "recorder")

    def __init__(self, recorder: Recorder, look: Callable[[float], None], calm: Calm, now: float) -> None:
        """Look from the next second on."""
        self.recorder = recorder
        self._look = look
        self._calm: Calm | None = calm
        self.due = math.nextafter(now, math.inf)

    def roll(self, now: float) -> None:
        """Look, if it is time to."""
        calm, self._calm = self._calm, None
        if calm is not None:
            # The call that opened the circuit may be counted before that is told, or after: by the next one it has been.
            calm.leave_out(*_served(self.recorder))
            self.due += _EVERY
        if now >= self.due:
            self.due = now + _EVERY
            self._look(now)


class IncidentLog:
    """Watches the breakers, and is told of alerts. Keeps the last 256 incidents that ended, and the counts of all."""

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        """Listen for breaker transitions from now on."""
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._number = 0
        self._running: dict[Subject, _Running] = {}
        self._ended: deque[Incident] = deque(maxlen=_KEPT)
        self._last_end: OrderedDict[Subject, float] = OrderedDict()
        self._eras: dict[str, int] = {}
        self._objectives: tuple[Recoveries, ...] = ()
        self.durations = Durations()
        """Of all incidents, as histograms."""
        self.recorder_of: Callable[[str], Recorder | None] = _no_recorder
        """Where the calls of a guard are counted."""
        self.experiment_of: Callable[[Subject], str | None] = _no_experiment
        """Which experiment has struck a guard, or those of an objective, lately."""
        listeners.add(self._changed, BreakerChanged, last=True)

    @property
    def running(self) -> tuple[Incident, ...]:
        """Incidents that last."""
        with self._lock:
            return tuple(running.incident for running in self._running.values())

    @property
    def ended(self) -> tuple[Incident, ...]:
        """The last 256 incidents that are over, oldest first."""
        with self._lock:
            return tuple(self._ended)

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
            ages = [now - running.since for running in self._running.values() if objective.concerns(running.incident)]
            overdue = sum(age > objective.limit for age in ages)
            return objective.good, objective.bad, overdue, len(ages) - overdue

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()
        self.durations.forget_lock()

    # -- the stages -------------------------------------------------------------------------------------------------------------------

    def detect(self, subject: Subject, *, at: float, age: float, injected: bool, calm: Calm | None = None) -> bool:
        """It was noticed at the wall time ``at`` that something is wrong since ``age`` seconds. False: one lasts already."""
        now, age = self._clock.monotonic(), max(0.0, age)
        experiment = self.experiment_of(subject) if injected else None
        with self._lock:
            running = self._running.get(subject)
            if running is not None:
                if running.incident.injected and not injected:
                    # What an experiment began has become an outage of its own: a budget without drills must not leave it out.
                    running.incident = replace(running.incident, injected=False, experiment=None)
                return False
            self._number += 1
            name = subject.guard if subject.slo is None else subject.slo
            incident = Incident(
                f"{name}#{self._number}",
                subject.guard,
                at - age,
                injected=injected,
                slo=subject.slo,
                group=subject.group,
                experiment=experiment,
                detected_after=age,
            )
            self._running[subject] = _Running(incident, now - age, calm)
            ended = self._last_end.get(subject)
        if subject.group is None:
            # Those of a group are among those of the whole.
            self.durations.add("detection", _whose(subject), age)
            if ended is not None:
                self.durations.add("between", _whose(subject), max(0.0, now - age - ended))
        if self._listeners.wants(IncidentOpened):
            about = (subject.slo, subject.group, experiment)
            self._listeners.emit(IncidentOpened(subject.guard, at, incident.id, incident.started_at, injected, *about))
        return True

    def look(self, subject: Subject, good: int, bad: int) -> None:
        """So many good and bad events were counted up to now; nothing, when no incident of it lasts."""
        now = self._clock.monotonic()
        with self._lock:
            running = self._running.get(subject)
            if running is None or running.calm is None:
                return
            running.calm.look(now, good, bad)
            incident, since = running.incident, running.calm.since
            if since is None:
                # It has come back: what was better was no mitigation.
                running.incident = replace(incident, mitigated_after=None)
                return
            if incident.mitigated_after is not None or now - since < CALM:
                return
            running.incident = incident = replace(incident, mitigated_after=max(0.0, since - running.since))
        if self._listeners.wants(IncidentMitigated):
            at, after = self._clock.time(), incident.mitigated_after or 0.0
            about = (incident.slo, incident.group, incident.experiment)
            self._listeners.emit(IncidentMitigated(incident.guard, at, incident.id, after, incident.injected, *about))

    def close(self, subject: Subject, *, at: float, recovered: bool) -> None:
        """It is over since the wall time ``at``, by recovery or because nobody watches any more. Nothing, when none lasts."""
        now = self._clock.monotonic()
        if subject not in self._running:
            return
        for objective in self._objectives:
            objective.roll(now)
        with self._lock:
            running = self._running.pop(subject, None)
            if running is None:
                return
            incident, duration = running.incident, now - running.since
            if recovered and incident.mitigated_after is None and running.calm is not None and running.calm.since is not None:
                # It was calm for too short a time to say so; now that it is over it is known.
                incident = replace(incident, mitigated_after=max(0.0, running.calm.since - running.since))
            ended = replace(incident, duration=duration, recovered=recovered)
            for objective in self._objectives:
                objective.add(ended, duration)
            self._ended.append(ended)
            self._last_end[subject] = now
            self._last_end.move_to_end(subject)
            if len(self._last_end) > _REMEMBERED:
                self._last_end.popitem(last=False)
        if running.watch is not None:
            running.watch.recorder.detach(running.watch)
        if subject.group is None:
            self.durations.add("recovery", _whose(subject), duration)
            if recovered or ended.mitigated_after is not None:
                self.durations.add("mitigation", _whose(subject), duration if ended.mitigated_after is None else ended.mitigated_after)
        if self._listeners.wants(IncidentClosed):
            stages = (ended.slo, ended.group, ended.experiment, ended.detected_after, ended.mitigated_after)
            self._listeners.emit(IncidentClosed(subject.guard, at, ended.id, duration, ended.recovered, ended.injected, *stages))

    # -- guards -----------------------------------------------------------------------------------------------------------------------

    def _changed(self, event: BreakerChanged) -> None:
        if event.shadow or event.key is not None:
            # Nothing is refused in the shadow, and a guard that refuses the calls of one key serves the others.
            return
        with self._lock:
            if 0 < event.era < self._eras.get(event.guard, 0):
                # Told late, by a thread that was interrupted between the step and the telling: what it tells is over.
                return
            self._eras[event.guard] = event.era
        subject = Subject(event.guard)
        if event.after in {"open", "forced_open"}:
            self._opened(subject, event)
        elif event.after not in {"half_open", "ramping"}:
            self.close(subject, at=event.at, recovered=event.after == "closed")

    def _opened(self, subject: Subject, event: BreakerChanged) -> None:
        now, recorder = self._clock.monotonic(), self.recorder_of(event.guard)
        calm = None if recorder is None else Calm(now, *_served(recorder))
        if not self.detect(subject, at=event.at, age=event.at - event.first_failure_at, injected=event.injected, calm=calm):
            return
        if recorder is None or calm is None:
            return

        def look(_: float) -> None:
            self.look(subject, *_served(recorder))

        watch = _Watch(recorder, look, calm, now)
        with self._lock:
            running = self._running.get(subject)
            if running is None or running.calm is not calm:
                # Over already.
                return
            running.watch = watch
        recorder.attach(watch)
        if self._running.get(subject) is not running:
            recorder.detach(watch)


def _served(recorder: Recorder) -> tuple[int, int]:
    """How many callers of a guard were answered, and how many were not."""
    good, bad, struck_good, struck_bad = recorder.tally()
    return good + struck_good, bad + struck_bad


def _whose(subject: Subject) -> tuple[str, str]:
    return subject.guard or "", subject.slo or ""


def _no_recorder(_: str) -> None:
    return None


def _no_experiment(_: Subject) -> None:
    return None
