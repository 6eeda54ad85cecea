"""Where the evidence of pods comes from, as far as a judge needs to know."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from somaresil.canary.telling import read_telling
from somaresil.config import Checker

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.canary.telling import Telling
    from somaresil.resilience import Resilience

__all__ = ["MOST_PODS", "Absent", "EvidenceInbox", "EvidenceSource", "Reading", "Told"]

MOST_PODS: Final = 256
"""Processes that are listened to."""


class Told(NamedTuple):
    """What one process has told, as it came: see :mod:`somaresil.canary.telling`."""

    data: object
    name: str
    """Where it came from: an address, a key."""


class Absent(NamedTuple):
    """Who should have told something, and did not."""

    name: str
    why: str
    role: str = ""
    """``candidate``, ``control``, or empty: it could be either."""


class Reading(NamedTuple):
    """What a source has to say now."""

    told: tuple[Told, ...] = ()
    absent: tuple[Absent, ...] = ()


class EvidenceSource(Protocol):
    """Where tellings come from."""

    instant: bool
    """Whether they are of the moment at which they are read, so that the clock of a pod can be compared with that of the judge."""

    def read(self) -> Reading:
        """What there is now. Waits as long as it must, within bounds of its own; in a thread that may. Raises what it likes."""
        ...


class EvidenceInbox:
    """A source that others push to. Keeps the last telling of each process, of at most 256, for ``stale`` seconds."""

    instant = False

    def __init__(self, resilience: Resilience, *, stale: float | timedelta = 60.0) -> None:
        """Nothing has come yet. Raises :class:`~somaresil.errors.ConfigurationError`."""
        check = Checker("EvidenceInbox")
        self._stale = check.seconds("stale", stale, maximum=3_600.0)
        check.finish()
        self._clock = resilience.clock
        self._lock = threading.RLock()
        self._told: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def take(self, data: object) -> Telling:
        """Keep what a process has told. Raises :class:`~somaresil.errors.ConfigurationError` for what is wrong, or for one too many."""
        telling = read_telling(data)
        with self._lock:
            self._forget()
            if telling.instance not in self._told and len(self._told) >= MOST_PODS:
                check = Checker("evidence")
                check.problem("instance", telling.instance, f"at most {MOST_PODS} processes at a time")
                check.finish()
            self._told[telling.instance] = self._clock.monotonic(), data
            self._told.move_to_end(telling.instance)
        return telling

    def read(self) -> Reading:
        """The last telling of each."""
        with self._lock:
            self._forget()
            return Reading(tuple(Told(data, instance) for instance, (_, data) in self._told.items()))

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._told and now - next(iter(self._told.values()))[0] > self._stale:
            self._told.popitem(last=False)
