"""A flag that threads wait for, set from anywhere: signal handlers, other threads, forked children.

``threading.Event`` takes a lock that is not re-entrant, both to set and to begin waiting, so a signal handler that interrupts a thread in
there and sets it waits for itself. The kill switch may be pulled in a signal handler, so what it frees waits for this.
"""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["Latch"]

_LOOK_EVERY: Final = 0.25
"""Seconds between two looks at the flag: an exception raised between two instructions of one waiter may keep others from being woken."""


class Latch:
    """A flag that is set once and stays so."""

    __slots__ = ("_key", "_lock", "is_set")

    def __init__(self) -> None:
        """Not set."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._key = [None]
        """Whoever takes it out opens the lock: taking is atomic, so that happens once."""
        self.is_set = False

    def set(self) -> None:
        """Wake everybody. From any thread, from a signal handler, and as often as anybody likes."""
        self.is_set = True
        try:
            self._key.pop()
        except IndexError:
            return
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Block this thread until it is set; False when ``seconds`` passed first."""
        until = time.monotonic() + seconds
        while not self.is_set:
            left = until - time.monotonic()
            if left <= 0.0:
                return False
            if self._lock.acquire(timeout=min(left, _LOOK_EVERY)):
                # Passed on to the next one that waits.
                self._lock.release()
        return True
