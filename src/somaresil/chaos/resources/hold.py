"""A resource while it is taken: until when, how much of it, and what came of that."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from somaresil.chaos.effect import Effect
from somaresil.chaos.resources.latch import Latch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Hold"]


class Hold:
    """One taking of a resource. Everything that waits because of it waits on its latch, and no longer than until its end.

    It measures by the clock of the machine: so does the warden, and so do the threads that it makes wait.
    """

    def __init__(
        self, resource: str, unit: str, asked: float, seconds: float, *, settled: Callable[[Effect], object] = lambda _: None
    ) -> None:
        """Nothing is taken yet. ``settled`` is told once, when as much is taken as will be."""
        self.resource = resource
        self.unit = unit
        self.asked = asked
        self.latch = Latch()
        """Set when it ends."""
        self.measure: Callable[[], Mapping[str, float]] = dict
        """What else was measured so far."""
        self._settled: Callable[[Effect], object] | None = settled
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._ended: float | None = None
        self._held = self._reached = 0.0
        self._limited = ""
        self._released = False
        self._process = os.getpid()

    @property
    def over(self) -> bool:
        """Whether it has ended, or its time is over."""
        return self.latch.is_set or time.monotonic() >= self._until

    @property
    def remaining(self) -> float:
        """Seconds until its time is over."""
        return max(0.0, self._until - time.monotonic())

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that took it: threads stayed behind, and locks may be held by nobody."""
        return os.getpid() != self._process

    def wait(self, seconds: float) -> bool:
        """Block this thread for ``seconds``, at most until it is over; whether it is."""
        self.latch.wait(min(seconds, self.remaining))
        return self.over

    def note(self, held: float) -> None:
        """So much is taken now."""
        with self._lock:
            self._held = 0.0 if self._released else held
            self._reached = max(self._reached, held)

    def add(self, more: float) -> float:
        """So much more is taken, or less; how much that makes."""
        with self._lock:
            self.note(self._held + more)
            return self._held

    def settle(self, limited: str = "") -> None:
        """No more is going to be taken; ``limited`` says why that is less than was asked for."""
        with self._lock:
            self._limited = limited or self._limited
            tell, self._settled = self._settled, None
        if tell is not None:
            tell(self.effect())

    def complete(self) -> None:
        """No more is wanted: what stood in the way until now does so no longer."""
        with self._lock:
            if self._reached >= self.asked:
                self._limited = ""
        self.settle()

    def end(self) -> None:
        """Free everybody who waits. What is taken has to be given back after that."""
        if self._ended is None:
            self._ended = time.monotonic()
        self.latch.set()

    def released(self) -> None:
        """Everything was given back."""
        # No lock: in a forked child somebody may have held it.
        self._released = True
        self._held = 0.0
        self._settled = None

    def effect(self) -> Effect:
        """How it stands."""
        until = self._ended if self._ended is not None else time.monotonic()
        return Effect(
            self.resource, self.unit, self.asked, self._reached, self._held, until - self._began, self._limited, dict(self.measure())
        )
