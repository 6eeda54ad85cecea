"""Calendar periods: from when until when the current day, week, month, quarter or year lasts, by the clocks of a time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOMINAL", "bounds", "zone"]

_DAY: Final = 86_400.0
NOMINAL: Final[Mapping[str, float]] = MappingProxyType(
    {"day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY, "quarter": 90 * _DAY, "year": 365 * _DAY}
)
"""Seconds from which burn factors are derived; the periods themselves are as long as they are."""

_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """The IANA zone called ``name``. Raises ``ValueError`` or ``KeyError`` for one that is not known here."""
    return UTC if name == "UTC" else ZoneInfo(name)


@lru_cache(maxsize=1_024)
def _between(unit: str, where: str, day: date) -> tuple[float, float]:
    if unit in _MONTHS:
        months = _MONTHS[unit]
        first = day.replace(month=(day.month - 1) // months * months + 1, day=1)
        ahead = first.month - 1 + months
        after = first.replace(year=first.year + ahead // 12, month=ahead % 12 + 1)
    else:
        days = 7 if unit == "week" else 1
        first = day - timedelta(days=day.weekday() if unit == "week" else 0)
        after = first + timedelta(days=days)
    return _midnight(first, where), _midnight(after, where)


def _midnight(day: date, where: str) -> float:
    """The moment at which ``day`` begins.

    Where clocks skip midnight, the moment of the leap: that is what the offset before it makes of a time that does not exist.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone(where)).timestamp()


def bounds(unit: str, where: str, now: float) -> tuple[float, float]:
    """When the ``unit`` in which ``now`` lies begins, and when the next one does, in seconds since the epoch.

    Weeks begin on Monday (ISO 8601), quarters in January, April, July and October. A day on which clocks change has 23 or 25 hours.
    """
    here = datetime.fromtimestamp(now, zone(where))
    begin, end = _between(unit, where, here.date())
    # Where midnight comes twice (clocks are put back to the evening before), the day is that which has begun last.
    if now >= end:
        return _between(unit, where, here.date() + timedelta(days=1))
    return (begin, end) if now >= begin else _between(unit, where, here.date() - timedelta(days=1))
