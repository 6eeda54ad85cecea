"""Who is thrown out of a pool for a while, and when he comes back: Envoy's outlier detection, without clock, lock or chance.

Three signs, each of which may be switched off: failures in a row, looked at with each answer; a success rate far below that of the others,
and an average latency far above that of the others, looked at once an interval. An endpoint is out for ``base`` seconds times the number
of ejections in a row, at most ``maximum``; each interval in which it is in takes one from that number.

Ejections are for endpoints that do worse than the others. So there is a largest share of them, and at least one may always go: what it is
good for that the last one goes as well, the panic threshold of :mod:`somaresil.model.pool` decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median, pstdev
from typing import Final, NamedTuple

__all__ = ["LEAST_DIFFERENCE", "LEAST_OTHERS", "Cause", "Change", "Health", "Outliers", "Rules"]

LEAST_DIFFERENCE: Final = 0.05
"""How far a success rate must be below the average whatever the spread: among endpoints that hardly ever fail, one unlucky call is an
outlier by any factor."""

LEAST_OTHERS: Final = 2
"""With how many others a latency is compared at least: of two endpoints nobody can say which is the odd one."""


class Cause(StrEnum):
    """Why an endpoint was ejected."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    SUCCESS_RATE = "success_rate"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Rules:
    """When an endpoint is ejected, and for how long. Times are seconds; None switches a sign off."""

    consecutive_failures: int | None
    success_rate_factor: float | None
    minimum_endpoints: int
    minimum_calls: int
    latency_factor: float | None
    latency_calls: int
    interval: float
    base: float
    maximum: float
    max_ejected: float
    shadow: bool = False
    """Say who would be ejected, and eject nobody."""


class Change(NamedTuple):
    """An endpoint was ejected, for some seconds, or came back (no cause)."""

    name: str
    cause: Cause | None = None
    duration: float = 0.0


class Health:
    """What is known of one endpoint."""

    __slots__ = ("bad", "consecutive", "ejected_until", "era", "good", "seconds", "since", "times")

    def __init__(self, now: float) -> None:
        """It is in, and nothing is known."""
        self.era = 0
        """How often it has come or gone: an answer from an earlier era says nothing."""
        self.since = now
        """When it came in."""
        self.ejected_until: float | None = None
        self.times = 0
        """Ejections in a row."""
        self.consecutive = 0
        self._begin()

    def _begin(self) -> None:
        self.good = self.bad = 0
        self.seconds = 0.0

    def turn(self, intervals: int, boundary: float, interval: float) -> None:
        """So many intervals are over, the last of them at ``boundary``. Those in which it was in all the time do it good."""
        self._begin()
        if self.ejected_until is None:
            well = max(0, int((boundary - self.since) // interval))
            self.times = max(0, self.times - min(intervals, well))

    def out(self, now: float, duration: float) -> None:
        """It goes."""
        self.era += 1
        self.times += 1
        self.consecutive = 0
        self.ejected_until = now + duration

    def back(self, at: float) -> None:
        """It is in again."""
        self.era += 1
        self.since = at
        self.ejected_until = None
        self._begin()


class Outliers:
    """The endpoints of one pool. Not safe to share: whoever owns it holds a lock around each method."""

    __slots__ = ("_next", "members", "rules")

    def __init__(self, rules: Rules, now: float) -> None:
        """Nobody is in yet; the first interval begins now."""
        self.rules = rules
        self.members: dict[str, Health] = {}
        self._next = now + rules.interval

    @property
    def due(self) -> float:
        """When :meth:`turn` has something to do."""
        returns = [health.ejected_until for health in self.members.values() if health.ejected_until is not None]
        return min([self._next, *returns])

    @property
    def allowed(self) -> int:
        """How many may be out at once."""
        return max(1, math.floor(self.rules.max_ejected * len(self.members) + _TINY))

    @property
    def ejected(self) -> int:
        """How many are out."""
        return sum(health.ejected_until is not None for health in self.members.values())

    def add(self, name: str, now: float) -> Health:
        """One more endpoint."""
        health = self.members[name] = Health(now)
        return health

    def remove(self, name: str, now: float) -> list[Change]:
        """One less. When too many are out now, those that would come back first come back at once."""
        del self.members[name]
        return self._relieve(now)

    def reconfigure(self, rules: Rules, now: float) -> list[Change]:
        """Other rules from now on; who is out stays out for as long as it was said, unless that is too many now."""
        self.rules = rules
        self._next = min(self._next, now + rules.interval)
        return self._relieve(now)

    def note(self, name: str, era: int, *, failed: bool, seconds: float, now: float) -> Change | None:
        """An endpoint has answered, ``seconds`` after it was called in ``era``."""
        health = self.members.get(name)
        if health is None or health.era != era or health.ejected_until is not None:
            # What came of a call that began before the ejection is no news. While it is out nothing brings it back but time.
            return None
        if not failed:
            health.consecutive = 0
            health.good += 1
            health.seconds += seconds
            return None
        health.consecutive += 1
        health.bad += 1
        limit = self.rules.consecutive_failures
        return self._eject(name, Cause.CONSECUTIVE_FAILURES, now) if limit is not None and health.consecutive >= limit else None

    def turn(self, now: float) -> list[Change]:
        """Let those whose time is over come back, and look at the interval when it is over."""
        changes: list[Change] = []
        for name, health in self.members.items():
            if health.ejected_until is not None and health.ejected_until <= now:
                health.back(health.ejected_until)
                changes.append(Change(name))
        if now < self._next:
            return changes
        intervals = 1 + int((now - self._next) // self.rules.interval)
        self._next += intervals * self.rules.interval
        for name, cause in self._outliers().items():
            change = self._eject(name, cause, now)
            if change is not None:
                changes.append(change)
        for health in self.members.values():
            health.turn(intervals, self._next - self.rules.interval, self.rules.interval)
        return changes

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _outliers(self) -> dict[str, Cause]:
        """Whom the interval shows to do worse than the others, the worst first."""
        failing = dict.fromkeys(self._failing(), Cause.SUCCESS_RATE)
        return failing | {name: Cause.LATENCY for name in self._slow() if name not in failing}

    def _failing(self) -> list[str]:
        factor, least = self.rules.success_rate_factor, self.rules.minimum_calls
        rates = {name: one.good / (one.good + one.bad) for name, one in self._in() if one.good + one.bad >= least}
        if factor is None or len(rates) < self.rules.minimum_endpoints:
            return []
        mean = fmean(rates.values())
        floor = mean - max(factor * pstdev(rates.values()), LEAST_DIFFERENCE)
        return sorted((name for name, rate in rates.items() if rate < floor), key=rates.__getitem__)

    def _slow(self) -> list[str]:
        factor = self.rules.latency_factor
        means = {name: one.seconds / one.good for name, one in self._in() if one.good >= self.rules.latency_calls}
        if factor is None or len(means) <= LEAST_OTHERS:
            return []
        slow = [name for name, mean in means.items() if 0.0 < factor * median(m for other, m in means.items() if other != name) < mean]
        return sorted(slow, key=means.__getitem__, reverse=True)

    def _in(self) -> list[tuple[str, Health]]:
        return [(name, health) for name, health in self.members.items() if health.ejected_until is None]

    def _eject(self, name: str, cause: Cause, now: float) -> Change | None:
        if self.ejected >= self.allowed:
            return None
        health, rules = self.members[name], self.rules
        duration = min(rules.base * (health.times + 1), max(rules.base, rules.maximum))
        if rules.shadow:
            health.consecutive = 0
        else:
            health.out(now, duration)
        return Change(name, cause, duration)

    def _relieve(self, now: float) -> list[Change]:
        out = [(health.ejected_until, name) for name, health in self.members.items() if health.ejected_until is not None]
        changes: list[Change] = []
        for _, name in sorted(out)[: max(0, len(out) - self.allowed)]:
            self.members[name].back(now)
            changes.append(Change(name))
        return changes


_TINY: Final = 1e-9
