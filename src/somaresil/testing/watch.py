"""Watching a process while it is attacked: every call's end and every event, on one time line."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.events import BreakerChanged, CallEnded, ChaosAudited, ExperimentStarted, FallbackUsed, FaultInjected, IncidentClosed
from somaresil.model.selector import matches
from somaresil.outcome import Outcome
from somaresil.testing.timeline import render

if TYPE_CHECKING:
    from collections.abc import Generator

    from somaresil.chaos.run import ExperimentRun
    from somaresil.resilience import Resilience

__all__ = ["History", "Moment", "Recovery", "capture_events"]

_E = TypeVar("_E")

KEPT: Final = 100_000
"""Moments that are remembered; the oldest go first."""

_BAD: Final = frozenset({Outcome.BAD.value, Outcome.REJECTED.value})


@dataclass(frozen=True, slots=True)
class Moment:
    """An event and when it happened: seconds on the monotonic clock since the watching began."""

    at: float
    event: Any


@dataclass(frozen=True, slots=True)
class Recovery:
    """How one guard came back after the last fault had ended.

    Calls that ended when it was over count, and those that began then. ``seconds`` is the time from the end of the last fault to the first
    good call after which none failed: 0 when none failed at all, infinity when no good call came after the last failed one, None when no
    call was made: then nothing is known.
    """

    guard: str
    seconds: float | None
    failed_after: int
    """Calls that were bad or rejected after the last fault had ended."""

    def __str__(self) -> str:
        """For people."""
        if self.seconds is None:
            return f"{self.guard}: no call was made after the last fault, so nothing is known"
        if self.seconds == float("inf"):
            return f"{self.guard}: not recovered, {self.failed_after} calls failed after the last fault and none that followed went well"
        return f"{self.guard}: recovered after {self.seconds:.3g} s, {self.failed_after} calls failed after the last fault"


class History:
    """What happened to ``resilience`` since :func:`capture_events` began. Still readable when that is over.

    At most 100,000 moments are kept; ``dropped`` says how many of the oldest are gone.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Begin now, with nothing seen."""
        self.resilience = resilience
        self._clock = resilience.clock
        self.began = self._clock.monotonic()
        """Monotonic time of the beginning."""
        self.ended: float | None = None
        """Seconds after which the watching ended; None: it goes on."""
        self.dropped = 0
        self._moments: deque[Moment] = deque(maxlen=KEPT)
        self.injected = 0
        """Calls that were struck."""
        self._attempts: deque[tuple[float, str]] = deque(maxlen=KEPT)
        self._runs: dict[str, ExperimentRun] = {}
        """What has begun since: the engine remembers the last of them only."""
        self._before = self._unended_now()
        self._unended: dict[str, int] | None = None
        self._over = frozenset(run.id for run in resilience.chaos.history if run.end_reason is not None)
        self._windows: tuple[tuple[float, float, str, str], ...] | None = None

    def __repr__(self) -> str:
        """How much it has seen."""
        return f"<History: {len(self._moments)} moments in {self.now:.3g} s, {self.injected} faults>"

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Everything, in the order in which it was told."""
        return tuple(self._moments)

    @property
    def events(self) -> tuple[Any, ...]:
        """The events alone. :class:`~somaresil.events.CallEnded` is there for good calls too."""
        return tuple(moment.event for moment in self._moments)

    def of(self, kind: type[_E], guard: str = "*") -> list[_E]:
        """The events of one kind about the guards that match, in order."""
        return [moment.event for moment in self.moments_of(kind, guard)]

    @property
    def now(self) -> float:
        """Seconds since the beginning; when it is over, how long it lasted."""
        return self._clock.monotonic() - self.began if self.ended is None else self.ended

    @property
    def guards(self) -> tuple[str, ...]:
        """Guards that were called, by name; also those of calls that were struck and never ended."""
        struck = {m.event.component for m in self._moments if isinstance(m.event, FaultInjected)}
        ended = {moment.event.guard for moment in self.moments_of(CallEnded, "*")}
        return tuple(sorted(ended | {name for name in struck if not name.startswith("http:")}))

    # -- what was done to it ----------------------------------------------------------------------------------------------------------

    @property
    def windows(self) -> tuple[tuple[float, float, str, str], ...]:
        """The faults: begin and end in seconds since the beginning, target, kind. Those that have not begun are left out.

        The end is when it will be over by itself, if nobody ends it earlier.
        """
        if self._windows is not None:
            return self._windows
        found = []
        for run in {**{run.id: run for run in self.resilience.chaos.history}, **self._runs}.values():
            _ = run.live  # its time may have come, or have gone, with nobody looking
            begin, end = (moment - self.began for moment in run.span)
            if run.begun and run.id not in self._over and run.id != "track":
                found.append((max(0.0, begin), end, run.config.target_component, run.config.experiment.value))
        return tuple(sorted(found))

    @property
    def faults_ended(self) -> float:
        """Seconds since the beginning at which the last fault ended, or will have ended; 0 without any."""
        return max((end for _, end, _, _ in self.windows), default=0.0)

    def struck(self, guard: str = "*") -> int:
        """Calls, and circuits, that a fault has struck, of the guards that match."""
        return sum(isinstance(m.event, FaultInjected) and matches(guard, m.event.component) for m in self._moments)

    def touched(self, guard: str = "*") -> int:
        """Calls that a fault has touched, or what followed from one; those that have not ended as well."""
        return sum(event.injected for event in self.of(CallEnded, guard)) + self.unended(guard)

    def unended(self, guard: str = "*") -> int:
        """Calls that were struck and have not ended; when the watching is over, had not ended then."""
        now = self._unended_now() if self._unended is None else self._unended
        return sum(max(0, calls - self._before.get(name, 0)) for name, calls in now.items() if matches(guard, name))

    def absorbed(self, guard: str = "*") -> float | None:
        """Share of the touched calls that ended well; None: none was touched."""
        touched = self.touched(guard)
        good = sum(event.injected and event.outcome == Outcome.GOOD.value for event in self.of(CallEnded, guard))
        return good / touched if touched else None

    # -- how it came back -------------------------------------------------------------------------------------------------------------

    def recovery(self, guard: str) -> Recovery:
        """How one guard came back."""
        healed = self.faults_ended
        # In virtual time a fault is often ended at the very moment at which the call ends that it has struck.
        after = [m for m in self.moments_of(CallEnded, guard) if m.at > healed or m.at - m.event.elapsed >= healed]
        judged = [(moment.at, moment.event.outcome in _BAD) for moment in after if moment.event.outcome in _JUDGED]
        failed = [at for at, bad in judged if bad]
        if not failed:
            return Recovery(guard, 0.0 if judged else None, 0)
        last = max(index for index, (_, bad) in enumerate(judged) if bad)
        better = judged[last + 1 :]
        return Recovery(guard, better[0][0] - healed if better else float("inf"), len(failed))

    def recoveries(self, guard: str = "*") -> tuple[Recovery, ...]:
        """How each guard that matches and was called came back."""
        return tuple(self.recovery(name) for name in self.guards if matches(guard, name))

    @property
    def worst_recovery(self) -> float | None:
        """Seconds of the slowest recovery; infinity when a guard did not recover, None when nothing is known."""
        known = [recovery.seconds for recovery in self.recoveries() if recovery.seconds is not None]
        return max(known, default=None)

    @property
    def longest_incident(self) -> float | None:
        """Seconds of the longest incident that is over; None: there was none."""
        return max((event.duration for event in self.of(IncidentClosed)), default=None)

    def attempts(self, guard: str = "*") -> int:
        """How often the dependencies were really called: attempts that were let through, each repetition one of its own."""
        return len(self.attempts_at(guard))

    def attempts_at(self, guard: str = "*") -> list[float]:
        """Seconds since the beginning at which these attempts began."""
        return [at for at, name in self._attempts if matches(guard, name)]

    def openings(self, guard: str = "*") -> int:
        """How often circuits went from closed to open; those of keys as well, and no shadows."""
        return sum(event.before == "closed" and event.after == "open" and not event.shadow for event in self.of(BreakerChanged, guard))

    def fallbacks(self, guard: str = "*") -> int:
        """How often a fallback answered."""
        return len(self.of(FallbackUsed, guard))

    def timeline(self, most: int = 40) -> str:
        """Everything as text, at most ``most`` lines: equal ends of calls are drawn together."""
        return render(self, most)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def moments_of(self, kind: type, guard: str = "*") -> list[Moment]:
        """As :meth:`of`, with their times."""
        everything = guard == "*"
        return [
            moment
            for moment in self._moments
            if isinstance(moment.event, kind) and (everything or matches(guard, getattr(moment.event, "guard", "")))
        ]

    def tell(self, event: Any) -> None:
        """Take an event in."""
        if self.ended is None:
            self.dropped += len(self._moments) == KEPT
            self.injected += isinstance(event, FaultInjected)
            self._moments.append(Moment(self._clock.monotonic() - self.began, event))

    def begin(self, guard: str) -> None:
        """An attempt begins."""
        if self.ended is None:
            self._attempts.append((self._clock.monotonic() - self.began, guard))

    def hear(self, event: Any) -> None:
        """Take an event in that is not told otherwise: the ends of calls come from observing, who arms faults is the test."""
        if isinstance(event, ExperimentStarted) and len(self._runs) < KEPT:
            self._runs.update((run.id, run) for run in self.resilience.chaos.history if run.id == event.experiment)
        if not isinstance(event, CallEnded | ChaosAudited):
            self.tell(event)

    def close(self) -> None:
        """Look no more."""
        if self.ended is None:
            self._windows, self._unended = self.windows, self._unended_now()
            self.ended = self.now

    def _unended_now(self) -> dict[str, int]:
        return {name: guard.faults.unended for name, guard in self.resilience.guards.items() if guard.faults.unended}


_JUDGED: Final = _BAD | {Outcome.GOOD.value}


@contextmanager
def capture_events(resilience: Resilience) -> Generator[History]:
    """Watch a process: every event, and the end of every call, good ones too.

    Guards take the full path meanwhile, so this is for tests. What was watched can still be read afterwards.
    """
    history = History(resilience)
    ends = [resilience.observe(history.tell, attempts=history.begin), resilience.on(history.hear)]
    try:
        yield history
    finally:
        history.close()
        for end in ends:
            end()
