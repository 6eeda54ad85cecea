"""Rate limits: buckets that refill evenly, several of them charged together or not at all, and the line of those who wait.

One arithmetic serves both kinds of limit. A bucket holds at most ``burst`` units and refills by ``rate`` units a second: a token bucket
(Turner, "New directions in communications", IEEE Communications Magazine, 1986). With a burst of one call it lets calls through evenly
spaced, which is the GCRA of ITU-T I.371: its theoretical arrival time is the moment at which the bucket is full again. In any ``t`` seconds
at most ``burst + rate * t`` units are granted. A call that costs more than the burst is let through when the bucket is full; the bucket is
then in debt, and later calls wait until that is paid.

What a call really cost may be known only afterwards. A cost that turns out lower leaves the bucket *as if the call had cost that much from
the beginning*: what the bucket has refilled meanwhile it would partly have let run over, and that part is not given back (a bucket that
simply gets the difference back grants more than it should). A higher cost is taken from the bucket when it is known.

Pure: what time it is (seconds on a clock that does not step) is an argument.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RISE_INTERVAL", "SLACK", "Claim", "Limits", "Quota"]

SLACK: Final = 1e-6
"""A microsecond: who comes that much too early is let in, and owes the difference. Waiting for a sum of floats never ends exactly."""

_LOWERED: Final = 0.5
_RISE: Final = 0.05
RISE_INTERVAL: Final = 5.0
"""Seconds without a pushback after which the rate rises by a twentieth of what is configured, up to that."""
_LOWEST: Final = 0.05
_FOREVER: Final = float("inf")


class Quota(NamedTuple):
    """What one bucket grants: ``rate`` units a second, at most ``burst`` at once. Both are above 0."""

    rate: float
    burst: float


class Claim:
    """What one call takes from each bucket: first it may wait, then it is granted, then closed."""

    __slots__ = ("costs", "due", "era", "newer", "older", "open", "rooms", "waiting")

    # What is known only later is set then: claims are made at every call.
    costs: list[float]
    waiting: bool
    """Whether it stands in line."""
    open: bool
    """Whether it is granted and not closed: then it may be settled."""
    due: float
    """In line: when it will be granted, as far as was known when that was last asked."""
    era: int
    """Granted: how often the rate had been lowered before."""
    rooms: list[float]
    """Granted: the least that each bucket has lacked to its brim since then, until the next open claim was granted."""
    older: Claim | None
    newer: Claim | None

    def __init__(self, costs: list[float]) -> None:
        """A claim for so much of each bucket (>= 0)."""
        self.costs = costs
        self.waiting = self.open = False


_C = TypeVar("_C", bound=Claim)


class _Buckets:
    """The levels of several buckets at one time. ``factor`` is the share of their rates by which they refill at the moment."""

    __slots__ = ("at", "bursts", "factor", "levels", "quotas", "rates", "rises_at")

    def __init__(self, quotas: Sequence[Quota], at: float) -> None:
        self.quotas = quotas
        self.at = at
        self.factor = 1.0
        self.rises_at = _FOREVER
        self.rates = [quota.rate for quota in quotas]
        self.bursts = [quota.burst for quota in quotas]
        self.levels = list(self.bursts)

    def copy(self) -> _Buckets:
        twin = _Buckets(self.quotas, self.at)
        twin.factor, twin.rises_at = self.factor, self.rises_at
        twin.rates, twin.levels = self.rates, list(self.levels)
        return twin

    def advance(self, now: float, rooms: list[float] | None = None) -> None:
        """Refill up to ``now``, and lower ``rooms`` to the least that was missing to the brim on the way."""
        while self.rises_at <= now:
            self._refill(self.rises_at, rooms)
            self.scale(min(1.0, self.factor + _RISE))
            self.rises_at = self.rises_at + RISE_INTERVAL if self.factor < 1.0 else _FOREVER
        self._refill(now, rooms)

    def _refill(self, now: float, rooms: list[float] | None) -> None:
        elapsed = now - self.at
        if elapsed <= 0.0:
            return
        self.at = now
        levels, bursts = self.levels, self.bursts
        for place, rate in enumerate(self.rates):
            room = bursts[place] - levels[place] - elapsed * rate
            # Twice written out: this runs at every call, and min and max are calls themselves.
            if room < 0.0:  # noqa: PLR1730
                room = 0.0
            levels[place] = bursts[place] - room
            if rooms is not None and room < rooms[place]:
                rooms[place] = room

    def scale(self, factor: float) -> None:
        """Refill by this share of the rates from now on."""
        self.factor = factor
        self.rates = [quota.rate * factor for quota in self.quotas]

    def spill(self, rooms: list[float] | None) -> None:
        """Let go of what was saved up above this share of a full bucket."""
        for place, burst in enumerate(self.bursts):
            rest = burst * self.factor
            self.levels[place] = min(self.levels[place], rest)
            if rooms is not None:
                rooms[place] = min(rooms[place], rest - self.levels[place])

    def wait(self, costs: Sequence[float]) -> float:
        """Seconds from :attr:`at` until all of them grant that much."""
        longest, bursts, levels = 0.0, self.bursts, self.levels
        for place, cost in enumerate(costs):
            # What costs nothing does not wait, not even for a debt to be paid.
            if cost > 0.0 and cost > levels[place]:
                lack = min(cost, bursts[place]) - levels[place]
                longest = max(longest, lack / self.rates[place])
        if longest <= self.rises_at - self.at:
            return longest
        later = self.copy()
        later.advance(self.rises_at)
        return later.at - self.at + later.wait(costs)

    def charge(self, costs: Sequence[float]) -> None:
        for place, cost in enumerate(costs):
            self.levels[place] -= cost


class Limits(Generic[_C]):
    """Several buckets that admit together, and the line of those who wait for them, served in the order in which they came."""

    __slots__ = ("_base", "_last", "_line", "_plan", "counts", "era")

    def __init__(self, quotas: Sequence[Quota], now: float) -> None:
        """All buckets full at time ``now``."""
        self._base = _Buckets(tuple(quotas), now)
        self._line: deque[_C] = deque()
        self._plan: _Buckets | None = None
        """How the buckets will stand when everybody in line has been served; None: to be found out."""
        self._last: Claim | None = None
        """The youngest open claim. The others hang on it, from the younger to the older."""
        self.counts = False
        """Whether there is one bucket, of which calls take 1 and nothing else."""
        self.era = 1
        """Counts how often the rate was lowered."""

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @property
    def head(self) -> _C | None:
        """Who is served next."""
        return self._line[0] if self._line else None

    def levels(self, now: float) -> list[float]:
        """What each bucket holds; below 0 it is in debt."""
        self._advance(now)
        return list(self._base.levels)

    def factor(self, now: float) -> float:
        """The share of the rates by which the buckets refill now."""
        self._advance(now)
        return self._base.factor

    def wait(self, costs: Sequence[float], now: float) -> float:
        """Seconds until a call that comes now would be let in: after everybody in line, when all buckets grant it."""
        self._advance(now)
        if not self._line:
            return max(0.0, self._base.at - now) + self._base.wait(costs)
        plan = self._planned()
        plan.advance(now)
        return plan.at - now + plan.wait(costs)

    # -- coming in --------------------------------------------------------------------------------------------------------------------

    def take(self, claim: Claim, now: float) -> bool:
        """Grant it at once, if nobody waits and all buckets can; else nothing is charged."""
        base, last = self._base, self._last
        base.advance(now, None if last is None else last.rooms)
        if (self._line and any(claim.costs)) or base.at - now + base.wait(claim.costs) > SLACK:
            return False
        self._grant(claim)
        return True

    def tally(self, acquire: Callable[[], object], release: Callable[[], object]) -> Callable[[float], bool]:
        """A function that takes 1 of the only bucket at a time, at once and for good: there is no claim that could be settled.

        It holds a lock meanwhile, by these functions. False: nothing was taken; whoever knows more is to be asked. So it is when
        :attr:`counts` is not set.
        """

        # One frame, with everything written out: it runs at every call of a guard.
        def take_one(now: float) -> bool:
            try:
                # Not `with`, which costs twice as much; inside of the try, so that a signal that comes right behind it leaves no lock held.
                acquire()
                base, last = self._base, self._last
                if self._line or not self.counts:
                    return False
                if last is not None or base.rises_at <= now:
                    base.advance(now, None if last is None else last.rooms)
                levels = base.levels
                level, elapsed = levels[0], now - base.at
                # Not above 0: somebody has read the clock after this caller and was here before. What he has left still is.
                if elapsed > 0.0:
                    base.at = now
                    level += elapsed * base.rates[0]
                    # As in _refill.
                    if level > base.bursts[0]:  # noqa: PLR1730
                        level = base.bursts[0]
                    levels[0] = level
                # In rare cases only by rounding, or because the bucket never holds as much.
                if level < 1.0:
                    return False
                levels[0] = level - 1.0
                return True
            finally:
                try:  # noqa: SIM105 - it is a call more
                    release()
                except RuntimeError:
                    # A signal handler has raised while the lock was waited for.
                    pass

        return take_one

    def force(self, claim: Claim, now: float) -> None:
        """Grant it whatever the buckets hold: they go into debt."""
        self._advance(now)
        self._grant(claim)
        self._plan = None

    def join(self, claim: _C, now: float) -> None:
        """Put it at the end of the line; :attr:`Claim.due` says when it will be granted, if nothing changes."""
        self._advance(now)
        plan = self._planned()
        self._line.append(claim)
        claim.waiting = True
        self._queue(plan, claim, now)

    def leave(self, claim: _C) -> None:
        """Take it out of the line: it was charged for nothing, and those behind it move up."""
        self._line.remove(claim)
        claim.waiting = False
        self._plan = None

    def serve(self, now: float) -> list[_C]:
        """Grant those in line whose time has come, in order."""
        granted: list[_C] = []
        while self._line:
            self._advance(now)
            claim = self._line[0]
            if self._base.at - now + self._base.wait(claim.costs) > SLACK:
                break
            if not self._line or self._line[0] is not claim:
                # The collector may end a forgotten call at any allocation, also while it is looked at here.
                continue
            self._line.popleft()
            self._grant(claim)
            granted.append(claim)
            if abs(claim.due - now) > SLACK:
                # It was let in later than was planned, or earlier, and with it all that come after.
                self._plan = None
        if not self._line:
            self._plan = None
        return granted

    def ask(self, claim: _C, now: float) -> float:
        """Seconds until a claim in line will be granted, if nothing changes."""
        self._advance(now)
        if self._line and self._line[0] is claim:
            claim.due = max(now, self._base.at) + self._base.wait(claim.costs)
        else:
            self._planned()
            if claim.due - now <= SLACK:
                # Planned with another rounding than what is true now.
                self._plan = None
                self._planned()
        return claim.due - now

    # -- afterwards -------------------------------------------------------------------------------------------------------------------

    def settle(self, claim: Claim, place: int, real: float, now: float) -> None:
        """An open claim has really cost that much (>= 0) of one bucket."""
        self._advance(now)
        more = real - claim.costs[place]
        claim.costs[place] = real
        if more < 0.0:
            more = -self._room_since(claim, place, -more)
        self._base.levels[place] -= more
        self._plan = None

    def refund(self, claim: Claim, now: float) -> None:
        """Close an open claim as if it had never been granted."""
        for place in range(len(claim.costs)):
            self.settle(claim, place, 0.0, now)
        self.close(claim)

    def close(self, claim: Claim) -> None:
        """What an open claim has cost is known, as far as it ever will be."""
        # No time has to pass for that: the least room is noted when it does, then by the claim before this one.
        older, newer = claim.older, claim.newer
        if older is not None:
            older.newer = newer
            rooms = older.rooms
            for place, room in enumerate(claim.rooms):
                rooms[place] = min(rooms[place], room)
        if newer is None:
            self._last = older
        else:
            newer.older = older
        claim.older = claim.newer = None
        claim.open = False

    # -- other limits -----------------------------------------------------------------------------------------------------------------

    def reconfigure(self, quotas: Sequence[Quota], places: Sequence[int | None], now: float, *, steady: bool = False) -> None:
        """Use other quotas from now on. ``places`` says for each which of the former ones it replaces, if any.

        What was used up stays used up: a bucket lacks as much to its new brim as it lacked to the old one. A bucket that replaces none is
        full, and charges nobody who runs or waits already. ``steady``: a rate that was lowered is as configured again.
        """
        self._advance(now)
        old, new = self._base, _Buckets(tuple(quotas), self._base.at)
        if not steady:
            new.scale(old.factor)
            new.rises_at = old.rises_at
        for place, before in enumerate(places):
            if before is not None:
                new.levels[place] = new.bursts[place] - (old.bursts[before] - old.levels[before])
        self._base, self._plan = new, None
        claim = self._last
        while claim is not None:
            claim.rooms = _moved(claim.rooms, places)
            claim.costs = _moved(claim.costs, places)
            claim = claim.older
        for claim in tuple(self._line):
            claim.costs = _moved(claim.costs, places)

    def lower(self, claim: Claim, pause: float, now: float) -> bool:
        """An answer to an open claim says that it is too much: halve the rates, and grant nothing for ``pause`` seconds.

        Of a full bucket no more than the same share is left, or the lower rate would be felt only when that is spent. Rates go down only if
        the claim was granted after they were lowered the last time: the answers to what was sent before that say nothing new (TCP lowers
        once a round trip for the same reason). They rise again by and by: additive increase, multiplicative decrease (Chiu and Jain,
        "Analysis of the increase and decrease algorithms for congestion avoidance", 1989). True if they went down.
        """
        self._advance(now)
        base, rooms = self._base, self._rooms()
        lowered = claim.era == self.era
        if lowered:
            self.era += 1
            base.scale(max(_LOWEST, base.factor * _LOWERED))
            base.spill(rooms)
        base.at = max(base.at, now + pause)
        if base.factor < 1.0:
            base.rises_at = base.at + RISE_INTERVAL
        self._plan = None
        return lowered

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _rooms(self) -> list[float] | None:
        return None if self._last is None else self._last.rooms

    def _advance(self, now: float) -> None:
        self._base.advance(now, self._rooms())

    def _grant(self, claim: Claim) -> None:
        self._base.charge(claim.costs)
        claim.waiting, claim.open, claim.era = False, True, self.era
        claim.rooms = [_FOREVER] * len(claim.costs)
        last = claim.older = self._last
        claim.newer = None
        if last is not None:
            last.newer = claim
        self._last = claim

    def _room_since(self, claim: Claim, place: int, less: float) -> float:
        """How much fuller the bucket would be had the claim cost ``less`` less, and note it: at most what it lacked at its fullest since.

        A bucket with that much more in it would have run over there. Each open claim knows the least room between its grant and the next
        one's, so what is noted now is right for those that are settled later.
        """
        step: Claim | None = claim
        while step is not None:
            rooms = step.rooms
            less = min(less, rooms[place])
            rooms[place] -= less
            step = step.newer
        return less

    def _planned(self) -> _Buckets:
        plan = self._plan
        if plan is None:
            plan = self._plan = self._base.copy()
            # A copy, as above: the line may be left meanwhile.
            for claim in tuple(self._line):
                self._queue(plan, claim, plan.at)
        return plan

    @staticmethod
    def _queue(plan: _Buckets, claim: Claim, now: float) -> None:
        plan.advance(now)
        claim.due = plan.at + plan.wait(claim.costs)
        plan.advance(claim.due)
        plan.charge(claim.costs)


def _moved(values: list[float], places: Sequence[int | None]) -> list[float]:
    return [0.0 if before is None else values[before] for before in places]
