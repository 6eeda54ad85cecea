"""One schedule of a :class:`~somaresil.gameday.scheduler.Scheduler`: how far it has come, what it runs, and what became of that."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from somaresil.chaos.plan import ChaosPlan
    from somaresil.gameday.schedule import Occurrence, Schedule

__all__ = ["Entry", "ScheduledRun"]

_MOST_LATE: Final = 100
"""Missed occurrences that are looked at one by one."""
_MOST_COUNTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """What became of one occurrence, as far as it is known."""

    schedule: str
    occurrence: str
    due: float
    """When it was due, in seconds since the epoch."""
    outcome: str
    """``running``, ``done``, ``failed``, ``refused`` (no permission, a wrong target …), ``cancelled``, ``skipped`` or ``dry run``."""
    started: float | None = None
    """When it was started, in seconds since the epoch; None: it was not."""
    duration: float | None = None
    """Seconds that it took; None: it is not over, or was not started."""
    detail: str = ""
    """Why it was skipped or cancelled, or the error that ended it."""


class Entry:
    """One schedule, what it runs, and how far it has come."""

    def __init__(self, schedule: Schedule, job: Callable[[], Awaitable[Any]], plan: ChaosPlan | None, cursor: float) -> None:
        self.schedule = schedule
        self.job = job
        self.plan = plan
        self.cursor = cursor
        """What is due until here is settled."""
        self.paused = False
        self.running: dict[asyncio.Task[None], str] = {}
        """Why it is being cancelled; empty: it is not."""
        self.past: deque[ScheduledRun] = deque(maxlen=schedule.history)
        self._next: tuple[float, Occurrence | None] | None = None

    def next(self) -> Occurrence | None:
        """The first occurrence that is not settled."""
        if self._next is None or self._next[0] != self.cursor:
            self._next = (self.cursor, self.schedule.after(self.cursor))
        return self._next[1]

    def due(self, now: float) -> tuple[list[Occurrence], int]:
        """What is due and not settled, at most the last hundred of it, and how many more there were, as far as they are counted."""
        found: deque[Occurrence] = deque(maxlen=_MOST_LATE)
        count, upcoming = 0, self.next()
        while upcoming is not None and upcoming.start <= now:
            found.append(upcoming)
            count += 1
            # A machine that slept for a month, a clock that was wrong by years: from here on only the last minute matters.
            cursor = upcoming.due if count != _MOST_COUNTED else max(upcoming.due, now - 60.0 - self.schedule.jitter)
            upcoming = self.schedule.after(cursor)
        return list(found), count - len(found)

    def settle(self, occurrence: Occurrence) -> None:
        """It is over and done with, whatever became of it."""
        self.cursor = max(self.cursor, occurrence.due)

    def note(self, run: ScheduledRun) -> None:
        """Remember it, in place of what was known of it before."""
        for index, before in enumerate(self.past):
            if before.occurrence == run.occurrence and before.outcome == "running":
                self.past[index] = run
                return
        self.past.append(run)

    @property
    def lasts(self) -> float:
        """Seconds that a run takes at most."""
        # The leases of a plan end by themselves; one that is about to end is not to be cut off by a hair.
        return self.schedule.longest if self.plan is None else self.plan.duration + 1.0
