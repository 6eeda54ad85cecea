"""Slots, and the line of those who wait for one: what a bulkhead and an adaptive limit have in common.

One number of slots for all threads and event loops together. Whoever finds one takes it; whoever does not may stand in line, where the
highest class is served first, within a class the tenant that has had least lately, and among equals the one who came first
(:mod:`somaresil.model.priority`). When the line is full, a more important call takes the place of the newest of the least important ones.

The cheap way. Free slots are kept in a deque, whose ``pop`` and ``append`` are atomic with and without the GIL, so that a call takes and
gives back a slot without a lock. ``_attended`` says that somebody has to look: there is a line, or there are too many slots, or calls are
counted. Then everything happens under the lock. Nobody is overlooked on the way: who stands in line sets the flag *before* looking for a
free slot for the last time, and who gives one back looks at the flag *after* that; the deque orders the two, so one of them sees the other.
Who has taken a slot looks at the flag as well, and gives it to the line if there is one: nobody overtakes.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from somaresil.errors import BulkheadFull, LoadShed
from somaresil.model.priority import Load, Queue, Rank, Usage
from somaresil.priority import Caller, caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.priority import Prioritizer
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Clock

__all__ = ["Line", "Slot"]

_TENANTS: Final = 128
"""How many tenants are told apart; the rest are one."""
_HALF_LIFE: Final = 60.0
"""Seconds after which use counts half."""
_NOBODY: Final = Caller(Rank.NORMAL, None)


class Slot:
    """Leave to run. Given back once, by :meth:`Line.leave`."""

    __slots__ = ("account", "charged", "kept", "since")

    def __init__(self) -> None:
        """Not in anybody's name."""
        self.kept = False
        """Whether its use is charged to an account."""
        self.account: str | None = None
        self.charged = 0.0
        self.since = 0.0


class _Place:
    """A place in the line. It ends with a slot, or without one for somebody more important."""

    __slots__ = ("account", "number", "rank", "slot", "waiter")

    def __init__(self, rank: Rank, account: str | None, waiter: Waiter) -> None:
        self.rank: int = rank
        self.account = account
        self.number = 0
        self.waiter = waiter
        self.slot: Slot | None = None


class Line:
    """So many slots, and a line for them. Safe to use from any number of threads and event loops."""

    __slots__ = (
        "__weakref__",
        "_again",
        "_arrived",
        "_attended",
        "_busy",
        "_clock",
        "_free",
        "_issued",
        "_limit",
        "_lock",
        "_prioritizer",
        "_queue",
        "_ranks",
        "_refused",
        "_typical",
        "_usage",
        "max_wait",
        "max_waiting",
        "name",
    )

    def __init__(self, name: str, clock: Clock, limit: int, max_waiting: int, max_wait: float, prioritizer: Prioritizer | None) -> None:
        """All slots free. ``name`` is that of the guard, for rejections."""
        self.name = name
        self._clock = clock
        self._limit = limit
        self.max_waiting = max_waiting
        self.max_wait = max_wait
        # Slots are made when they are first needed: a limit may be far above what is ever used.
        self._free: deque[Slot] = deque()
        self._issued = 0
        # Reentrant: the collector may end a forgotten stream, and a signal handler may do anything, in the middle of a locked section.
        self._lock = threading.RLock()
        self._usage = Usage(_TENANTS, _HALF_LIFE)
        self._queue: Queue[_Place] = Queue(self._usage)
        self._typical = 0.0
        """Seconds that a slot is held, a short average: charged in advance, for those inside have not paid yet."""
        self._busy = self._again = False
        self._prioritizer: Prioritizer | None = None
        self._arrived = self._refused = 0
        self._ranks = [0] * len(Rank)
        self._attended = False
        self._heed(prioritizer)

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """How many slots there are."""
        return self._limit

    @property
    def active(self) -> int:
        """How many slots are held now."""
        return max(0, self._issued - len(self._free))

    @property
    def waiting(self) -> int:
        """How many wait for a slot now."""
        return len(self._queue)

    def load(self) -> Load:
        """What it went through since it was last asked, for a prioritizer."""
        with self._lock:
            load = Load(self._arrived, self._refused, len(self._queue), self.max_waiting, tuple(self._ranks))
            self._arrived = self._refused = 0
            self._ranks = [0] * len(Rank)
        return load

    # -- coming and going -------------------------------------------------------------------------------------------------------------

    def try_enter(self) -> Slot | None:
        """A slot if there is one at once; None: it may be worth standing in line. Never waits, never raises."""
        who = caller()
        if self._attended or (who is not None and who.tenant is not None):
            return self._enter(who)
        try:
            slot = self._free.pop()
        except IndexError:
            return self._enter(who)
        if self._attended:
            self._free.append(slot)
            self._settle()
            return None
        return slot

    async def admit(self, runtime: Runtime, time_left: float | None) -> Slot:
        """A slot, at once or after standing in line for as long as that is allowed and there is time.

        Raises :class:`~somaresil.errors.BulkheadFull`, or :class:`~somaresil.errors.LoadShed` for the sake of more important calls.
        """
        slot = self.try_enter()
        if slot is not None:
            return slot
        who = caller() or _NOBODY
        prioritizer = self._prioritizer
        if prioritizer is not None and prioritizer.refuses(who.rank):
            raise LoadShed(self.name, None, f"{prioritizer.rate:.0%} of the calls are too much, {who.rank.word} ones are shed")
        wait = self.max_wait if time_left is None else min(self.max_wait, time_left)
        waiter = runtime.waiter() if self.max_waiting and wait > 0.0 else None
        now = self._clock.monotonic()
        with self._lock:
            slot = self._take(who, now)
            self._arrived += 1
            self._ranks[who.rank] += 1
            if slot is not None:
                return slot
            place, gone, woken = (None, None, []) if waiter is None else self._stand(who, waiter, now)
            if place is None or gone is not None:
                self._refused += 1
        for other in woken:
            other.waiter.wake()
        if gone is not None:
            gone.waiter.wake()
        if place is None:
            raise BulkheadFull(self.name, None, f"{self.active} calls running, {self.waiting} waiting")
        return await self._stand_in_line(place, wait)

    def leave(self, slot: Slot, outcome: object = None, elapsed: float = 0.0, now: float = 0.0) -> None:  # noqa: ARG002
        """Give a slot back: to the line if there is one. In the form in which policies are left: how it ended does not matter here."""
        if slot.kept:
            self._charge(slot)
        self._free.append(slot)
        if self._attended:
            self._settle()

    # -- changing ---------------------------------------------------------------------------------------------------------------------

    def resize(self, limit: Callable[[], int]) -> None:
        """Have so many slots from now on. Those that are held stay held; above the limit they are not handed on.

        ``limit`` is asked under the lock: of two who change it at once, the later one has the newer number.
        """
        now = self._clock.monotonic()
        with self._lock:
            self._limit = limit()
            self._attended = True
            woken = self._serve(now)
        for place in woken:
            place.waiter.wake()

    def reconfigure(self, limit: int, max_waiting: int, max_wait: float, prioritizer: Prioritizer | None) -> None:
        """Go by other options from now on. Who stands in line stays there, as long as was agreed."""
        with self._lock:
            self.max_waiting, self.max_wait = max_waiting, max_wait
        self._heed(prioritizer)
        self.resize(lambda: limit)

    def retire(self) -> None:
        """Tell no prioritizer anything any more."""
        self._heed(None)

    def _heed(self, prioritizer: Prioritizer | None) -> None:
        with self._lock:
            before, self._prioritizer = self._prioritizer, prioritizer
            self._attended = self._attended or prioritizer is not None
        if before is not prioritizer:
            if before is not None:
                before.remove(self)
            if prioritizer is not None:
                prioritizer.add(self)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _enter(self, who: Caller | None) -> Slot | None:
        """As :meth:`try_enter`, with everything that has to be looked at."""
        prioritizer = self._prioritizer
        if prioritizer is not None and prioritizer.sheds():
            return None
        who = who or _NOBODY
        now = self._clock.monotonic()
        with self._lock:
            slot = self._take(who, now)
            if slot is not None:
                self._arrived += 1
                self._ranks[who.rank] += 1
            return slot

    def _take(self, who: Caller, now: float) -> Slot | None:
        """A slot, unless others wait for one. Under the lock."""
        if self._queue:
            return None
        slot = self._spare()
        if slot is not None and (who.tenant is not None or self._usage.tenants):
            self._lend(slot, self._usage.account(who.tenant, now), now)
            self._attended = True
        return slot

    def _spare(self) -> Slot | None:
        """A slot that nobody holds. Under the lock."""
        self._trim()
        if self._issued <= self._limit:
            try:
                return self._free.pop()
            except IndexError:
                if self._issued < self._limit:
                    self._issued += 1
                    return Slot()
        return None

    def _trim(self) -> None:
        while self._issued > self._limit:
            try:
                self._free.pop()
            except IndexError:
                return
            self._issued -= 1

    def _lend(self, slot: Slot, account: str | None, now: float) -> None:
        slot.kept, slot.account, slot.charged, slot.since = True, account, self._typical, now
        self._usage.charge(account, slot.charged, now)

    def _charge(self, slot: Slot) -> None:
        """Settle for the time for which a slot was really held."""
        now = self._clock.monotonic()
        with self._lock:
            held = max(0.0, now - slot.since)
            self._typical += 0.1 * (held - self._typical)
            self._usage.charge(slot.account, held - slot.charged, now)
            self._usage.tidy(now)
            slot.kept, slot.account = False, None

    def _stand(self, who: Caller, waiter: Waiter, now: float) -> tuple[_Place | None, _Place | None, list[_Place]]:
        """A place in the line or None, who had to go for it, and who got a slot meanwhile. Under the lock."""
        place = gone = None
        if self._busy:
            # A call made by the collector in the middle of the line's own business: it would wait for itself.
            return None, None, []
        self._busy = True
        try:
            if len(self._queue) >= self.max_waiting:
                gone = self._queue.displaced(who.rank)
            # In place of somebody else also where the line is longer than it may be by now.
            if gone is not None or len(self._queue) < self.max_waiting:
                place = _Place(who.rank, self._usage.account(who.tenant, now), waiter)
                self._queue.add(place)
        finally:
            self._busy = False
        self._attended = True
        return place, gone, self._serve(now)

    async def _stand_in_line(self, place: _Place, wait: float) -> Slot:
        try:
            await place.waiter.wait(wait)
        except BaseException:
            # Cancelled while waiting: a slot that was granted in the same moment goes to the next (hyx loses it).
            if not self._give_up(place) and place.slot is not None:
                self.leave(place.slot)
            raise
        if self._give_up(place):
            raise BulkheadFull(self.name, None, f"no slot within {wait:.3g} s")
        if place.slot is None:
            raise LoadShed(self.name, None, "a more important call took its place in the line")
        return place.slot

    def _give_up(self, place: _Place) -> bool:
        """Whether the place was given up before it ended by itself."""
        now = self._clock.monotonic()
        with self._lock:
            busy, self._busy = self._busy, True
            try:
                stood = self._queue.remove(place)
            finally:
                self._busy = busy
            self._refused += stood
            woken = self._serve(now)
        for other in woken:
            other.waiter.wake()
        return stood

    def _settle(self) -> None:
        """Give what is free to those who wait."""
        now = self._clock.monotonic()
        with self._lock:
            woken = self._serve(now)
        for place in woken:
            place.waiter.wake()

    def _serve(self, now: float) -> list[_Place]:
        """Give what is free to those who wait, and say whom to wake. Under the lock."""
        if self._busy:
            # The collector or a signal handler has ended a call in the middle of this, in this thread: it is looked at before this ends.
            self._again = True
            return []
        woken: list[_Place] = []
        self._busy = True
        try:
            while True:
                self._again = False
                self._trim()
                while self._queue and (slot := self._spare()) is not None:
                    self._hand_over(slot, woken, now)
                self._attended = bool(self._queue or self._issued > self._limit or self._prioritizer is not None or self._usage.tenants)
                if not self._again:
                    break
        finally:
            self._busy = False
        return woken

    def _hand_over(self, slot: Slot, woken: list[_Place], now: float) -> None:
        place = self._queue.first()
        if place is None:
            self._free.append(slot)
            return
        if self._usage.tenants:
            self._lend(slot, place.account, now)
        place.slot = slot
        woken.append(place)
