"""When the users of Locust should have begun: waits that keep their timetable, and say how late each run of a task is.

Locust's own ``constant_pacing`` forgets what a slow answer has held up: the next run begins when it can, and is measured from there. Here
a user has a timetable that no answer moves. Who is behind begins the next run at once, and how late it begins is a part of each latency in
it (:data:`LATE`), so a service that stands still is seen as those see it who came meanwhile.
"""

from __future__ import annotations

import math
import weakref
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.clock import SystemClock
from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["LATE", "PACES", "Pace", "constant_pacing", "constant_throughput", "missed", "poisson"]

LATE: Final[ContextVar[float]] = ContextVar("somaresil_locust_late", default=0.0)
"""Seconds that the run of a task which is going on has begun late; each user has its own."""
_MOST_MISSED: Final = 100_000
"""Runs of one user that are counted as not begun."""
_LONGEST: Final = 3_600.0
"""Seconds before its first wait at which a user was made at most; anything else was no reading of the same clock."""
_KEY: Final = "_somaresil_pace"
_CLOCK: Final = SystemClock()


class Pace:
    """The timetable of one user. ``gap()`` gives the seconds from one run to the next; the first was due at ``begun``.

    ``gone()`` says whether the user was sent away: whoever is gone misses nothing.
    """

    __slots__ = ("__weakref__", "_gap", "_gone", "due")

    def __init__(self, begun: float, gap: Callable[[], float], gone: Callable[[], bool] = bool) -> None:
        """The first run goes on."""
        self.due = begun
        """When the run that goes on, or is waited for, should have begun."""
        self._gap = gap
        self._gone = gone

    def step(self, now: float) -> float:
        """A run is over: the seconds to wait for the next; 0 when it should have begun already."""
        self.due += self._gap()
        return max(0.0, self.due - now)

    def missed(self, now: float) -> int:
        """How many runs were due after the one that goes on, and have not begun."""
        if self._gone():
            return 0
        due, runs = self.due, 0
        while runs < _MOST_MISSED:
            due += self._gap()
            if due >= now:
                break
            runs += 1
        return runs


PACES: Final[weakref.WeakSet[Pace]] = weakref.WeakSet()
"""Those of the users that are there, and of some that are gone: when memory is cleaned up is nobody's to say."""


def missed(paces: Iterable[Pace], now: float) -> int:
    """How many runs were due and have not begun."""
    return sum(pace.missed(now) for pace in [*paces])


def constant_pacing(seconds: float) -> Callable[[Any], float]:
    """A ``wait_time`` for Locust: a run every so many seconds, whatever became of the one before.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("constant_pacing")
    check.seconds("seconds", seconds)
    check.finish()
    return _waiting(lambda: lambda: seconds)


def constant_throughput(runs_per_second: float) -> Callable[[Any], float]:
    """A ``wait_time`` for Locust: so many runs a second by each user.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("constant_throughput")
    check.number("runs_per_second", runs_per_second, minimum=0.0, exclusive=True)
    check.finish()
    return _waiting(lambda: lambda: 1.0 / runs_per_second)


def poisson(runs_per_second: float, *, seed: int | None = None) -> Callable[[Any], float]:
    """A ``wait_time`` for Locust: runs by chance, so many a second in the mean by each user, as people come.

    ``seed``: the same draws in every test for the first, second, ... user of a process. Raises
    :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("poisson")
    check.number("runs_per_second", runs_per_second, minimum=0.0, exclusive=True)
    check.finish()
    chance, numbers = Chance(seed), count()

    def gaps() -> Callable[[], float]:
        draws = chance.sequence("locust.poisson", str(next(numbers)))
        # A draw is never 1, so there is always a logarithm.
        return lambda: -math.log(1.0 - draws.next()) / runs_per_second

    return _waiting(gaps)


def _waiting(gaps: Callable[[], Callable[[], float]]) -> Callable[[Any], float]:
    """What Locust calls after each run. It waits itself, to know when the wait was over, and leaves nothing to wait for."""

    def wait(user: Any) -> float:
        import gevent

        now = _CLOCK.monotonic()
        pace: Pace | None = user.__dict__.get(_KEY)
        if pace is None:
            # Locust notes when it made the user, for its own waits: that is when the first run was due.
            born, greenlet = getattr(user, "_cp_last_run", now), gevent.getcurrent()
            pace = user.__dict__[_KEY] = Pace(born if 0.0 <= now - born <= _LONGEST else now, gaps(), lambda: bool(greenlet.dead))
            PACES.add(pace)
        left = pace.step(now)
        if left > 0.0:
            gevent.sleep(left)
        LATE.set(max(0.0, _CLOCK.monotonic() - pace.due))
        return 0.0

    return wait
