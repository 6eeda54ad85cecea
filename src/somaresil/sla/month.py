"""The figures of a month. The same journals give the same figures, in whatever order they are read.

An hour belongs to the month in which it begins, in the zone of the report. An hour of which no journal tells is a gap: it is neither good
nor bad, and it lowers the coverage.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from somaresil.config import Checker
from somaresil.model.slo import burn_rate
from somaresil.slo.records import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.slo.records import Deployment, Hour, Journaled, JournaledIncident

__all__ = ["FAILS_WITHIN", "Delivery", "Month", "Objective", "Outages", "Period", "WorstHour", "month_of", "period"]

FAILS_WITHIN: Final = 3600.0
"""Seconds after a deployment in which an incident counts as its failure, unless told otherwise."""

_MONTH: Final = re.compile(r"(19[7-9]|2\d\d)\d-(0[1-9]|1[0-2])", re.ASCII)
_WORST: Final = 10
_DECEMBER: Final = 12
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Period:
    """A month in a zone, in seconds since the epoch; ``end`` does not belong to it."""

    name: str
    zone: str
    start: float
    end: float

    def local(self, at: float) -> str:
        """A moment as people of that zone write it, with its offset."""
        return datetime.fromtimestamp(at, _zone(self.zone)).isoformat(timespec="seconds")

    @property
    def hours(self) -> range:
        """The hours that begin in it: 743 or 745 when clocks change in a month of 31 days."""
        return range(-int(-self.start // HOUR) * HOUR, -int(-self.end // HOUR) * HOUR, HOUR)


@dataclass(frozen=True, slots=True)
class WorstHour:
    """An hour with bad events."""

    slo: str
    start: int
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective over the month, all instances together."""

    name: str
    target: float
    good: int
    bad: int
    injected: int
    hours: int
    """Hours of which something is known."""
    coverage: float
    remaining: tuple[float | None, ...]
    """At the end of each hour, the share of the budget of the whole month that was left; None: nothing is known of that hour."""

    @property
    def attained(self) -> float | None:
        """Per cent of good events; None: there was none."""
        total = self.good + self.bad
        return 100.0 * self.good / total if total else None

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None: there was no event."""
        left = self.remaining_share
        return None if left is None else left >= 0

    @property
    def remaining_share(self) -> float | None:
        """Of the budget, at the end; negative when it was overdrawn; None: there was no event."""
        burned = burn_rate(self.good, self.bad, self.target)
        return None if burned is None else 1.0 - burned


@dataclass(frozen=True, slots=True)
class Outages:
    """Means over the incidents that began in the month, in seconds; None: there was nothing to take it of."""

    incidents: int
    mttr: float | None
    """From the first bad event until it closed, of those that ended by recovery."""
    mttm: float | None
    """From the first bad event until nobody noticed it any more, of the same; at the latest until it closed."""
    mttd: float | None
    """From the first bad event until the breaker opened, or an alert fired."""
    mtbf: float | None
    """From the end of an incident to the begin of the next of the same guard or objective in the same process."""
    unfinished: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """The figures of deployments that are known from the DORA reports."""

    deployments: int
    failed: int
    frequency: float
    """Deployments a day."""
    failure_rate: float | None
    recovery: float | None
    """Median seconds until all was well again, of the incidents that are counted as failures of deployments and are over."""


@dataclass(frozen=True, slots=True)
class Month:
    """Everything that a report says."""

    period: Period
    services: tuple[str, ...]
    within: float
    objectives: tuple[Objective, ...]
    worst: tuple[WorstHour, ...]
    incidents: tuple[JournaledIncident, ...]
    outages: Outages
    """Of guards."""
    outages_by: tuple[tuple[str, str, Outages], ...]
    """Of each guard and of each objective: which of the two, its name behind that of its service, and its figures."""
    deployments: tuple[tuple[Deployment, bool], ...]
    """With whether it failed."""
    delivery: Delivery
    unreadable: int


def period(month: str, zone: str = "UTC") -> Period:
    """A month such as ``2026-10``. Raises :class:`~somaresil.errors.ConfigurationError`."""
    check = Checker("report")
    found = _MONTH.fullmatch(month)
    if found is None:
        check.problem("month", month, "a year and a month, such as 2026-10")
    place = _zone(zone)
    if place is None:
        check.problem("zone", zone, "an IANA zone, such as Europe/Berlin", "where the system has no zones, install tzdata")
    check.finish()
    year, number = (int(part) for part in month.split("-"))
    following = (year + 1, 1) if number == _DECEMBER else (year, number + 1)
    start, end = (datetime(*first, 1, tzinfo=place).timestamp() for first in ((year, number), following))
    return Period(month, zone, start, end)


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        # It needs no files.
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def month_of(journaled: Journaled, when: Period, *, now: float, within: float = FAILS_WITHIN) -> Month:
    """The figures of a month; ``now`` bounds what can be known of one that lasts."""
    hours = [hour for hour in journaled.hours if when.start <= hour.start < when.end]
    incidents = sorted((each for each in journaled.incidents if when.start <= each.started < when.end), key=_order)
    deployments = sorted((each for each in journaled.deployments if when.start <= each.began < when.end), key=lambda each: each.key[::-1])
    failures = _failures(journaled, deployments, within)
    failed = [each.ok is False or bool(failures[each.key]) for each in deployments]
    restored = [_restored(each) for each in {i.key: i for found in failures.values() for i in found}.values() if each.duration is not None]
    days = max(min(when.end, now) - when.start, HOUR) / _DAY
    services = {*(each.service for each in hours), *(each.service for each in incidents), *(each.service for each in deployments)}
    return Month(
        period=when,
        services=tuple(sorted(services)),
        within=within,
        objectives=tuple(_objectives(hours, when, now)),
        worst=_worst(hours),
        incidents=tuple(incidents),
        outages=_outages([each for each in incidents if each.slo is None]),
        outages_by=tuple(_outages_by(incidents)),
        deployments=tuple(zip(deployments, failed, strict=True)),
        delivery=Delivery(
            len(deployments),
            sum(failed),
            len(deployments) / days,
            sum(failed) / len(deployments) if deployments else None,
            median(sorted(restored)) if restored else None,
        ),
        unreadable=journaled.unreadable,
    )


def _order(incident: JournaledIncident) -> tuple[object, ...]:
    return (incident.started, *incident.key)


def _name(hour: Hour) -> str:
    return f"{hour.service}/{hour.slo}"


def _objectives(hours: Iterable[Hour], when: Period, now: float) -> Iterable[Objective]:
    by_name: dict[str, list[Hour]] = defaultdict(list)
    for hour in hours:
        by_name[_name(hour)].append(hour)
    past = [start for start in when.hours if start < now]
    for name, own in sorted(by_name.items()):
        target = max(own, key=lambda hour: (hour.at, hour.target)).target
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for hour in own:
            sums[hour.start][0] += hour.good
            sums[hour.start][1] += hour.bad
        good, bad = (sum(each[which] for each in sums.values()) for which in (0, 1))
        used = 0
        remaining: list[float | None] = []
        for start in when.hours:
            used += sums[start][1] if start in sums else 0
            # Against the events of the whole month, as the budget at its end is.
            burned = burn_rate(good + bad - used, used, target)
            remaining.append(None if burned is None or start not in sums else 1.0 - burned)
        injected = sum(hour.injected for hour in own)
        known = len([start for start in sums if start in when.hours])
        yield Objective(name, target, good, bad, injected, known, known / len(past) if past else 0.0, tuple(remaining))


def _worst(hours: Iterable[Hour]) -> tuple[WorstHour, ...]:
    sums: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for hour in hours:
        sums[_name(hour), hour.start][0] += hour.good
        sums[_name(hour), hour.start][1] += hour.bad
    found = [WorstHour(name, start, good, bad) for (name, start), (good, bad) in sums.items() if bad]
    return tuple(sorted(found, key=lambda each: (-each.bad, each.slo, each.start))[:_WORST])


def _restored(incident: JournaledIncident) -> float:
    """Seconds until all was well again. The alerts of an objective stand for longer, as long as their windows remember it."""
    over = incident.duration or 0.0
    return over if incident.slo is None or incident.mitigated is None else min(over, max(0.0, incident.mitigated - incident.started))


def _outages(incidents: Sequence[JournaledIncident]) -> Outages:
    recovered = [each for each in incidents if each.duration is not None and each.recovered]
    mitigated = [(each.duration or 0.0) if each.mitigated is None else max(0.0, each.mitigated - each.started) for each in recovered]
    by_subject: dict[tuple[str | None, ...], list[JournaledIncident]] = defaultdict(list)
    for each in incidents:
        by_subject[each.service, each.instance, each.run, each.guard, each.slo, each.group].append(each)
    between = [
        max(0.0, later.started - earlier.started - earlier.duration)
        for own in by_subject.values()
        for earlier, later in pairwise(own)
        if earlier.duration is not None
    ]
    return Outages(
        len(incidents),
        fmean(each.duration or 0.0 for each in recovered) if recovered else None,
        fmean(mitigated) if mitigated else None,
        fmean(max(0.0, each.detected - each.started) for each in incidents) if incidents else None,
        fmean(between) if between else None,
        sum(each.duration is None for each in incidents),
    )


def _outages_by(incidents: Iterable[JournaledIncident]) -> Iterable[tuple[str, str, Outages]]:
    found: dict[tuple[str, str], list[JournaledIncident]] = defaultdict(list)
    for each in incidents:
        found["guard" if each.slo is None else "objective", f"{each.service}/{each.subject}"].append(each)
    for (kind, name), own in sorted(found.items()):
        yield kind, name, _outages(own)


def _failures(journaled: Journaled, deployments: Sequence[Deployment], within: float) -> dict[tuple[object, ...], list[JournaledIncident]]:
    """By deployment the incidents that no experiment made and that began after it, before the next, and within so many seconds."""
    found: dict[tuple[object, ...], list[JournaledIncident]] = {each.key: [] for each in deployments}
    for incident in journaled.incidents:
        before = [each for each in journaled.deployments if each.service == incident.service and each.began <= incident.started]
        latest = max(before, key=lambda each: (each.began, each.version), default=None)
        if latest is not None and latest.key in found and not incident.injected and incident.started - latest.began <= within:
            found[latest.key].append(incident)
    return found
