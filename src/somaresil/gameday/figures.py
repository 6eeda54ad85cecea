"""What is counted of a service, as plain data: read before and after, and subtracted.

This is all that a game day knows of the service it is played with, so the service may as well be another process that sends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping  # noqa: TC003 - read at run time, from annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from somaresil.model import histogram
from somaresil.model import slo as model
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Figures", "Log", "Objective", "Outage", "Tally"]

_MOST: Final = 1_000
"""Readings that are kept for windows."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one guard or route since it began; :meth:`less` makes them those of a time."""

    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets, in seconds."""
    good: tuple[int, ...] = ()
    """Good ends a bucket, and one more count for those above the last bound."""
    bad: tuple[int, ...] = ()
    rejected: int = 0
    abandoned: int = 0
    ignored: int = 0
    touched: int = 0
    """Calls that an experiment has touched, however they ended."""
    touched_good: int = 0
    """Those of them that gave their caller an answer all the same."""
    attempts: int = 0
    """Attempts that came as far as the dependency, retries and hedges among them; 0 for routes."""

    @property
    def succeeded(self) -> int:
        """Calls that ended well."""
        return sum(self.good)

    @property
    def answered(self) -> int:
        """Calls that ended well, badly or rejected: those that a ratio is about."""
        return sum(self.good) + sum(self.bad) + self.rejected

    @property
    def ratio(self) -> float | None:
        """Share of the calls that ended well; None without any."""
        return self.succeeded / self.answered if self.answered else None

    @property
    def made(self) -> int:
        """Calls that were not refused: those that have attempts."""
        return self.answered - self.rejected + self.abandoned + self.ignored

    @property
    def amplification(self) -> float | None:
        """Attempts for each call that was not refused; None without any."""
        return self.attempts / self.made if self.made and self.attempts else None

    def quantile(self, share: float) -> float | None:
        """The latency below which this share of the calls ended, good and bad ones, in seconds; None without any."""
        if not self.bounds:
            return None
        return histogram.quantile(self.bounds, _sum(self.good, self.bad), share)

    def less(self, before: Tally) -> Tally:
        """What was counted since ``before``."""
        return Tally(
            self.bounds,
            _less(self.good, before.good),
            _less(self.bad, before.bad),
            *(max(0, getattr(self, name) - getattr(before, name)) for name in _PLAIN),
        )

    def plus(self, other: Tally) -> Tally:
        """Both together. Where the bounds differ, buckets are added at the bounds that both have, so counts stay exact."""
        if not self.bounds or not other.bounds:
            return _counted(other if not self.bounds else self, self, other)
        bounds = self.bounds if self.bounds == other.bounds else tuple(sorted({*self.bounds} & {*other.bounds}))
        return Tally(
            bounds,
            _sum(_onto(bounds, self.bounds, self.good), _onto(bounds, other.bounds, other.good)),
            _sum(_onto(bounds, self.bounds, self.bad), _onto(bounds, other.bounds, other.bad)),
            *(getattr(self, name) + getattr(other, name) for name in _PLAIN),
        )


_PLAIN: Final = ("rejected", "abandoned", "ignored", "touched", "touched_good", "attempts")


def _counted(shape: Tally, one: Tally, other: Tally) -> Tally:
    return Tally(shape.bounds, shape.good, shape.bad, *(getattr(one, name) + getattr(other, name) for name in _PLAIN))


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _less(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, a - b) for a, b in zip(now, before, strict=True)) if before else now


def _onto(bounds: tuple[float, ...], own: tuple[float, ...], counts: tuple[int, ...]) -> tuple[int, ...]:
    if bounds == own or not counts:
        return counts
    total = [0] * (len(bounds) + 1)
    for bound, count in zip((*own, float("inf")), counts, strict=True):
        total[histogram.bucket_of(bounds, bound)] += count
    return tuple(total)


@dataclass(frozen=True, slots=True)
class Objective:
    """One service level objective at one moment."""

    target: float
    """Percentage."""
    good: int
    """Good events since it began; never goes back."""
    bad: int
    remaining: float | None
    """Share of the error budget of its period that is left: 1 untouched, negative overspent; None: nothing is known."""


@dataclass(frozen=True, slots=True)
class Outage:
    """An incident: from the first bad call that opened a circuit until it was closed again."""

    id: str
    guard: str
    seconds: float | None
    """None: it lasts."""
    recovered: bool
    injected: bool
    experiment: str | None = None
    """The id of the experiment that made it, as its process has named it."""
    detected_after: float = 0.0
    """Seconds from the first bad call until the circuit opened."""
    mitigated_after: float | None = None
    """Seconds until its callers were answered all the same; None: they were not before it was over."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was counted, at one moment."""

    at: float = 0.0
    """Monotonic seconds."""
    guards: Mapping[str, Tally] = field(default_factory=dict)
    routes: Mapping[str, Tally] = field(default_factory=dict)
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()
    experiment: Mapping[str, Tally] = field(default_factory=dict)
    """Calls and requests of the experiment group, by guard, and by route with ``http:`` before it; empty without groups."""
    control: Mapping[str, Tally] = field(default_factory=dict)
    """Those of the control group."""
    outside: int = 0
    """Calls and requests that belong to neither."""

    def tally(self, target: str) -> Tally:
        """All guards that match, or with ``http:`` before the pattern all routes, taken together."""
        if target.startswith("http:"):
            return summed(self.routes, target.removeprefix("http:"))
        return summed(self.guards, target)

    def less(self, before: Figures) -> Figures:
        """What was counted since ``before``: objectives keep what is left of them, outages are those that were not over then."""
        over = {outage.id for outage in before.outages if outage.seconds is not None}
        objectives = {}
        for name, now in self.objectives.items():
            then = before.objectives.get(name)
            good, bad = (0, 0) if then is None else (then.good, then.bad)
            objectives[name] = Objective(now.target, max(0, now.good - good), max(0, now.bad - bad), now.remaining)
        return Figures(
            self.at - before.at,
            _all_less(self.guards, before.guards),
            _all_less(self.routes, before.routes),
            objectives,
            tuple(outage for outage in self.outages if outage.id not in over),
            _all_less(self.experiment, before.experiment),
            _all_less(self.control, before.control),
            max(0, self.outside - before.outside),
        )

    def burn_rate(self, name: str) -> float | None:
        """Multiple of the sustainable rate at which the budget was used by the events counted here; None without any."""
        found = self.objectives.get(name)
        return None if found is None else model.burn_rate(found.good, found.bad, found.target)


def summed(tallies: Mapping[str, Tally], pattern: str) -> Tally:
    """Those whose names match, taken together."""
    total = Tally()
    for name, tally in tallies.items():
        if matches(pattern, name):
            total = total.plus(tally)
    return total


def _all_less(now: Mapping[str, Tally], before: Mapping[str, Tally]) -> dict[str, Tally]:
    return {name: tally.less(before[name]) if name in before else tally for name, tally in now.items()}


class Log:
    """The latest readings, for questions about the last so many seconds."""

    def __init__(self, keep: float) -> None:
        """Remember ``keep`` seconds, in at most 1,000 readings."""
        self._keep = keep
        self._readings: deque[Figures] = deque(maxlen=_MOST)

    def add(self, figures: Figures) -> None:
        """Take in a reading, the latest so far."""
        self._readings.append(figures)
        # The oldest one lies before the window: what is in the window is what was counted after it.
        while len(self._readings) > 1 and self._readings[1].at <= figures.at - self._keep:
            self._readings.popleft()

    @property
    def readings(self) -> int:
        """How many it has."""
        return len(self._readings)

    @property
    def latest(self) -> Figures:
        """The last reading."""
        return self._readings[-1]

    def since(self, at: float) -> Figures:
        """What was counted from the reading at ``at``, or the last one before it, to the latest."""
        return self.latest.less(_last_until(self._readings, at))


def _last_until(readings: Iterable[Figures], at: float) -> Figures:
    found: Figures | None = None
    for reading in readings:
        if found is not None and reading.at > at:
            break
        found = reading
    return found or Figures()
