"""Bulkhead: at most so many calls at once, so that one slow dependency cannot take every thread and task of the service.

One capacity over all threads and event loops together; those who wait are served in the order in which they came.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.errors import BulkheadFull

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.outcome import Outcome
    from somaresil.runtime import Waiter
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Bulkhead", "BulkheadPolicy"]


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """How many calls may run at once, and how many may wait for how long (seconds, as a number or a ``timedelta``)."""

    max_concurrent: int
    max_waiting: int = 0
    max_wait: float | timedelta = 0.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Bulkhead")
        check.count("max_concurrent", self.max_concurrent, maximum=1_000_000)
        check.count("max_waiting", self.max_waiting, minimum=0, maximum=1_000_000)
        max_wait = check.seconds("max_wait", self.max_wait, exclusive=False, maximum=86_400.0)
        object.__setattr__(self, "max_wait", max_wait)
        # What goes together is looked at only when everything is right by itself: one mistake is one problem.
        check.finish()
        if self.max_waiting and not max_wait:
            check.problem("max_wait", self.max_wait, "seconds > 0 when max_waiting is set", "nobody could wait")
        if max_wait and not self.max_waiting:
            check.problem("max_waiting", self.max_waiting, "a whole number >= 1 when max_wait is set", "nobody could wait")
        check.finish()

    def build(self, site: Site) -> BulkheadPolicy:
        """The bulkhead at work."""
        return BulkheadPolicy(self, site)


class _Place:
    """A place in the waiting line."""

    __slots__ = ("granted", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.granted = False


class BulkheadPolicy:
    """A bulkhead at work. A slot is handed from the one who leaves to the one who waited longest, and never lost on the way."""

    quiet = False

    def __init__(self, options: Bulkhead, site: Site) -> None:
        """All slots free."""
        self.name = site.name
        self.options = options
        self._lock = threading.RLock()
        self._active = 0
        self._line: deque[_Place] = deque()

    @property
    def active(self) -> int:
        """How many calls hold a slot now."""
        return self._active

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot now."""
        return len(self._line)

    def reconfigure(self, options: Bulkhead) -> None:
        """Use other limits from now on; calls that hold a slot keep it."""
        with self._lock:
            self.options = options
            free = max(0, options.max_concurrent - self._active)
            woken = [self._line.popleft() for _ in range(min(free, len(self._line)))]
            for place in woken:
                place.granted = True
            self._active += len(woken)
        for place in woken:
            place.waiter.wake()

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through when there is a slot, or raise :class:`~somaresil.errors.BulkheadFull`."""
        if call.replayed is not None:
            # That attempt is over: it was made before there was a bulkhead.
            return await inner(call)
        await self._acquire(call)
        if call.lasting:
            try:
                result = await inner(call)
            except BaseException:
                self._release()
                raise
            call.at_end(self._left)
            return result
        try:
            return await inner(call)
        finally:
            self._release()

    async def _acquire(self, call: Call) -> None:
        with self._lock:
            if self._active < self.options.max_concurrent and not self._line:
                self._active += 1
                return
            place = None
            if len(self._line) < self.options.max_waiting:
                place = _Place(call.runtime.waiter())
                self._line.append(place)
        if place is None:
            raise BulkheadFull(self.name, None, f"{self._active} calls running, {len(self._line)} waiting")
        try:
            await place.waiter.wait(self.options.max_wait)  # type: ignore[arg-type]
        except BaseException:
            # Cancelled while waiting: a slot that was granted in the same moment goes to the next (hyx loses it).
            if not self._leave(place):
                self._release()
            raise
        if self._leave(place):
            raise BulkheadFull(self.name, None, f"no slot within {self.options.max_wait:.3g} s")

    def _leave(self, place: _Place) -> bool:
        """Whether the place was given up before a slot was granted."""
        with self._lock:
            if place.granted:
                return False
            self._line.remove(place)
            return True

    def _left(self, outcome: Outcome, now: float) -> None:  # noqa: ARG002 - how it ended does not matter here
        self._release()

    def _release(self) -> None:
        with self._lock:
            # After the bulkhead was made smaller, slots above the limit are not handed on.
            place = self._line.popleft() if self._line and self._active <= self.options.max_concurrent else None
            if place is None:
                self._active -= 1
            else:
                place.granted = True
        if place is not None:
            place.waiter.wake()
