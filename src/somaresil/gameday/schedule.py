"""When something is due: a cron expression in a time zone, the windows in which it may run, the days on which it may not, and jitter.

Arithmetic alone: nothing here reads a clock or waits. Times are seconds since the epoch. The expression is read by ``cronsim``, which does
what Debian's cron does: a fixed time that the clocks skip runs right after the gap, one that comes twice runs once, and expressions with a
star in minutes or hours go by real time. ``pip install "somaresil[schedule]"`` installs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from somaresil.chance import Chance
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CONCURRENCY", "MISSED", "Blackout", "Occurrence", "Schedule", "Window"]

CONCURRENCY: Final = ("forbid", "replace", "allow")
"""What becomes of an occurrence whose predecessor still runs."""
MISSED: Final = ("skip", "run_once")
"""What becomes of occurrences that nobody could start when they were due."""
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_DAY: Final = 86_400.0
_LONGEST_CRON: Final = 200
_MOST_PARTS: Final = 1_000
_MOST_STEPS: Final = 2_000
"""How often an occurrence may be found in a closed window before the expression counts as one that never comes true."""
_MOST_CLOSED: Final = 5 * 366
"""Days to look for the next opening."""
_TIME: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?")
_QUARTERS: Final = tuple(time(hour, minute) for hour in range(24) for minute in (0, 15, 30, 45))

_T = TypeVar("_T")


class Occurrence(NamedTuple):
    """One time at which a schedule is due."""

    schedule: str
    """Name of the schedule."""
    due: float
    """When the expression says, in seconds since the epoch."""
    start: float
    """When it is to start: ``due`` and the jitter that was drawn for it."""
    zone: str = "UTC"

    @property
    def id(self) -> str:
        """Its name, the same in every process: ``nightly@2026-11-27T02:30:00Z``."""
        return f"{self.schedule}@{datetime.fromtimestamp(self.due, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def local(self) -> datetime:
        """When it is to start, in the time zone of the schedule."""
        return datetime.fromtimestamp(self.start, _zone(self.zone))


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which a schedule may run: from ``start`` until just before ``end``, on these ``weekdays``, in the zone of the schedule.

    Times are ``"HH:MM"`` or ``datetime.time``; an end at or before the start lies on the next day, and the window belongs to the day on
    which it begins. ``weekdays``: ``"mon-fri"``, ``"sat,sun"`` or a list of names; a range may go over the end of a week.
    Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    start: str = "00:00"
    end: str = "24:00"
    weekdays: tuple[str, ...] = WEEKDAYS

    if TYPE_CHECKING:

        def __init__(self, start: str | time = "00:00", end: str | time = "24:00", weekdays: str | Iterable[str] = WEEKDAYS) -> None: ...

    def __post_init__(self) -> None:
        """Check everything; keep times as text and weekdays as names."""
        check = Checker("Window")
        object.__setattr__(self, "start", _time_text(check, "start", self.start))
        object.__setattr__(self, "end", _time_text(check, "end", self.end))
        object.__setattr__(self, "weekdays", _weekdays(check, self.weekdays))
        check.finish()

    def covers(self, local: datetime) -> bool:
        """Whether this moment, in the zone of the schedule, lies in it."""
        now, begin, end = local.time(), _time(self.start), _time(self.end)
        today = WEEKDAYS[local.weekday()] in self.weekdays
        if begin < end:
            return today and begin <= now < end
        yesterday = WEEKDAYS[local.weekday() - 1] in self.weekdays
        return (today and now >= begin) or (yesterday and now < end)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"start": self.start, "end": self.end, "weekdays": list(self.weekdays)}


@dataclass(frozen=True, slots=True)
class Blackout:
    """Days on which nothing runs: from ``first`` to ``last``, both included, in the zone of the schedule.

    Dates are ``datetime.date`` or ``"YYYY-MM-DD"``; ``last=None`` means one day. ``yearly`` repeats it each year, and it may go over the
    end of a year then. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    first: date
    last: date | None = None
    _: KW_ONLY
    yearly: bool = False
    reason: str = ""
    """For people."""

    if TYPE_CHECKING:

        def __init__(self, first: date | str, last: date | str | None = None, *, yearly: bool = False, reason: str = "") -> None: ...

    def __post_init__(self) -> None:
        """Check everything, keep dates as dates."""
        check = Checker("Blackout")
        first = _date(check, "first", self.first)
        last = first if self.last is None else _date(check, "last", self.last)
        check.type("yearly", self.yearly, bool, "True or False")
        check.type("reason", self.reason, str, "text")
        if first is not None and last is not None:
            if self.yearly is False and last < first:
                check.problem("last", str(last), f"{first} or later")
            object.__setattr__(self, "first", first)
            object.__setattr__(self, "last", None if last == first else last)
        check.finish()

    def covers(self, day: date) -> bool:
        """Whether this day lies in it."""
        last = self.last or self.first
        if not self.yearly:
            return self.first <= day <= last
        now, begin, end = (day.month, day.day), (self.first.month, self.first.day), (last.month, last.day)
        return begin <= now <= end if begin <= end else now >= begin or now <= end

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        shown: dict[str, Any] = {"first": self.first.isoformat()}
        if self.last is not None:
            shown["last"] = self.last.isoformat()
        return {**shown, **({"yearly": True} if self.yearly else {}), **({"reason": self.reason} if self.reason else {})}


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something runs, and what becomes of it when it cannot.

    ``cron`` has five fields, or six with seconds first. An occurrence outside of every window (``windows=()``: none is needed) or on a day
    of a blackout does not exist. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, also when the
    expression never comes true.
    """

    name: str
    cron: str
    _: KW_ONLY
    zone: str = "UTC"
    """Name of an IANA time zone (``Europe/Berlin``)."""
    windows: tuple[Window, ...] = ()
    """It runs only in these; a run that is not over when the window closes is cancelled."""
    blackouts: tuple[Blackout, ...] = ()
    """It never runs on these days."""
    jitter: float = 0.0
    """Seconds by which a start is put off at most: drawn once an occurrence by its name and ``seed``, alike in every process; never
    past the end of a window."""
    concurrency: str = "forbid"
    """When the run before is not over: ``forbid`` leaves the new one out, ``replace`` cancels the old one, ``allow`` runs both."""
    missed: str = "skip"
    """Occurrences that nobody could start in time: ``skip`` them, or ``run_once``, the latest of them, within the starting deadline."""
    starting_deadline: float = 300.0
    """Seconds after which a missed occurrence is not worth a run any more."""
    longest: float = 3_600.0
    """Seconds after which a run is cancelled."""
    history: int = 20
    """How many runs are remembered, those that were left out too."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Schedule")
        keep = object.__setattr__
        check.name("name", self.name)
        zone = _check_zone(check, self.zone)
        keep(self, "windows", _parts(check, "windows", self.windows, Window))
        keep(self, "blackouts", _parts(check, "blackouts", self.blackouts, Blackout))
        keep(self, "jitter", check.seconds("jitter", self.jitter, exclusive=False, maximum=_DAY))
        check.one_of("concurrency", self.concurrency, CONCURRENCY)
        check.one_of("missed", self.missed, MISSED)
        keep(self, "starting_deadline", check.seconds("starting_deadline", self.starting_deadline, maximum=7 * _DAY))
        keep(self, "longest", check.seconds("longest", self.longest, maximum=7 * _DAY))
        check.count("history", self.history, minimum=0, maximum=10_000)
        check.count("seed", self.seed, minimum=0, maximum=2**63 - 1)
        wrong = {problem.path.removeprefix("Schedule.").partition("[")[0] for problem in check.problems}
        if _check_cron(check, self.cron, zone) and not wrong & {"zone", "windows", "blackouts"}:
            self._check_comes_true(check, without_jitter="jitter" in wrong)
        check.finish()

    def _check_comes_true(self, check: Checker, *, without_jitter: bool) -> None:
        # Where it stands in time decides nothing but how far it has to look; a fixed day keeps the check the same in every run.
        due = [found.due for found in islice(self._iterate(_FIXED), 10)]
        if not due:
            check.problem("cron", self.cron, "an expression that comes true in a window and outside of blackouts", "it never does")
        gaps = [later - earlier for earlier, later in pairwise(due)]
        if gaps and not without_jitter and self.jitter >= min(gaps):
            check.problem("jitter", self.jitter, f"less than {min(gaps):g} seconds, which lie between two occurrences")

    # -- what is due ------------------------------------------------------------------------------------------------------------------

    def after(self, moment: float) -> Occurrence | None:
        """The first occurrence that is due later than ``moment``; None: there is none."""
        cursor = moment
        for _ in range(_MOST_STEPS):
            due = self._tick(cursor)
            if due is None:
                return None
            if self.allows(due):
                return self._occurrence(due)
            opens = self._change(due, opens=True, days=_MOST_CLOSED)
            if opens is None:
                return None
            # The opening itself may be a tick, and the next one is later than where the search begins.
            cursor = max(due, opens - 1.0)
        return None

    def next_runs(self, n: int = 10, *, after: float) -> tuple[Occurrence, ...]:
        """The next ``n`` occurrences (at most 10,000) that are due later than ``after``."""
        check = Checker("next_runs")
        check.count("n", n, maximum=10_000)
        after = check.number("after", after, minimum=0.0)
        check.finish()
        return tuple(islice(self._iterate(after), n))

    def allows(self, moment: float) -> bool:
        """Whether something may run at this moment: in a window, and on no day of a blackout."""
        local = datetime.fromtimestamp(moment, _zone(self.zone))
        if any(blackout.covers(local.date()) for blackout in self.blackouts):
            return False
        return not self.windows or any(window.covers(local) for window in self.windows)

    def closes(self, moment: float, within: float) -> float | None:
        """When nothing may run any more, at most ``within`` seconds after ``moment``; None: that is later, or never."""
        if not self.windows and not self.blackouts:
            return None
        found = self._change(moment, opens=False, days=int(within // _DAY) + 2)
        return found if found is not None and found <= moment + within else None

    def _iterate(self, moment: float) -> Iterator[Occurrence]:
        while (found := self.after(moment)) is not None:
            yield found
            moment = found.due

    def _occurrence(self, due: float) -> Occurrence:
        start = due
        if self.jitter:
            room = self.jitter
            if (closes := self.closes(due, room)) is not None:
                room = closes - due
            start += Chance(self.seed).draw("schedule.jitter", self.name, int(due)) * room
        return Occurrence(self.name, due, start, self.zone)

    def _tick(self, moment: float) -> float | None:
        """When the expression comes true next, whatever windows and blackouts say."""
        try:
            ticks = _cronsim()[0](self.cron, datetime.fromtimestamp(moment, _zone(self.zone)))
            for found in ticks:
                # In the hour that comes twice, what it finds may lie in the first one of the two.
                if (due := found.timestamp()) > moment:
                    return float(due)
        except (OverflowError, ValueError, OSError):
            # The end of the calendar.
            return None
        return None

    def _change(self, moment: float, *, opens: bool, days: int) -> float | None:
        """The first boundary later than ``moment`` at which it is allowed (``opens``), or is not."""
        zone = _zone(self.zone)
        first = datetime.fromtimestamp(moment, zone).date()
        times = {time(), *(_time(text) for window in self.windows for text in (window.start, window.end))}
        for day in (first + timedelta(days=n) for n in range(days)):
            if opens and any(blackout.covers(day) for blackout in self.blackouts):
                continue
            for boundary in _boundaries(day, times, zone):
                if boundary > moment and self.allows(boundary) is opens:
                    return boundary
        return None

    # -- as data ----------------------------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """For JSON and TOML: what differs from the defaults."""
        shown: dict[str, Any] = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.default is MISSING or value != option.default:
                shown[option.name] = [part.as_dict() for part in value] if isinstance(value, tuple) else value
        return shown

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """Read what :meth:`as_dict` gives; unknown fields are refused, with the path of each problem."""
        check = Checker("schedule")
        if isinstance(data, Mapping):
            given = dict(data)
            for name, kind, stand_in in (("windows", Window, {}), ("blackouts", Blackout, {"first": "2026-01-01"})):
                listed = given.get(name)
                if isinstance(listed, list | tuple):
                    paths = (check.child(f"{name}[{index}]") for index in range(_MOST_PARTS + 1))
                    given[name] = tuple(_read(path, part, kind, stand_in) for path, part in zip(paths, listed, strict=False))
            data = given
        made = _read(check, data, cls, {"name": "x", "cron": "0 0 * * *"})
        check.finish()
        return made


_FIXED: Final = 1_767_225_600.0


def _boundaries(day: date, times: set[time], zone: tzinfo) -> list[float]:
    """Moments of a day at which a window may open or close, in order. A time that comes twice is two, one that is skipped a jump."""
    begins = datetime.combine(day, time(), zone)
    if begins.utcoffset() != datetime.combine(day + timedelta(days=1), time(), zone).utcoffset():
        # The clocks change. They do it at a quarter of an hour everywhere, and what was open may be closed on the other side of the gap.
        times = {*times, *_QUARTERS}
    return sorted({datetime.combine(day, at, zone).replace(fold=fold).timestamp() for at in times for fold in (0, 1)})


# -- configuration --------------------------------------------------------------------------------------------------------------------


def _cronsim() -> tuple[type[Any], type[Exception]]:
    from cronsim import CronSim, CronSimError

    return CronSim, CronSimError


def _zone(name: str) -> tzinfo:
    # UTC without a data base of zones, and as the object that cronsim knows.
    return UTC if name == "UTC" else ZoneInfo(name)


def _check_zone(check: Checker, name: object) -> tzinfo:
    if isinstance(name, str) and name:
        try:
            return _zone(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            check.problem("zone", name, "an IANA time zone such as Europe/Berlin", did_you_mean(name, available_timezones()))
    else:
        check.problem("zone", name, "an IANA time zone such as Europe/Berlin")
    return UTC


def _check_cron(check: Checker, cron: object, zone: tzinfo) -> bool:
    allowed = "minute hour day month weekday, or these with seconds first"
    if not isinstance(cron, str) or not 0 < len(cron) <= _LONGEST_CRON:
        check.problem("cron", cron, f"{allowed}; at most {_LONGEST_CRON} characters")
        return False
    try:
        reader, _ = _cronsim()
    except ImportError:
        check.problem("cron", cron, "cronsim to read it", 'pip install "somaresil[schedule]"')
        return False
    try:
        reader(cron, datetime.fromtimestamp(_FIXED, zone))
    except Exception as broken:  # noqa: BLE001 - it also fails by assertion on some of what is none
        check.problem("cron", cron, allowed, str(broken)[:100])
        return False
    return True


def _parts(check: Checker, name: str, given: object, kind: type[_T]) -> tuple[_T, ...]:
    if isinstance(given, kind | str | bytes | Mapping) or not isinstance(given, Iterable):
        check.problem(name, given, f"a list or tuple of {kind.__name__}", "also for a single one")
        return ()
    parts = tuple(islice(given, _MOST_PARTS + 1))
    if len(parts) > _MOST_PARTS:
        check.problem(name, f"more than {_MOST_PARTS}", f"at most {_MOST_PARTS}")
    for index, part in enumerate(parts):
        if not isinstance(part, kind):
            check.problem(f"{name}[{index}]", part, f"a {kind.__name__}")
    return parts


def _read(check: Checker, data: object, kind: Callable[..., _T], stand_in: dict[str, Any]) -> _T:
    """Make it of data. What is missing or wrong is noted, and a stand-in lets the rest be checked too."""
    options = fields(kind)  # type: ignore[arg-type]
    known = tuple(option.name for option in options)
    if not isinstance(data, Mapping):
        check.problem("", data, f"an object with some of {', '.join(known)}")
        return kind(**stand_in)
    for name in data:
        if name not in known:
            check.problem(str(name), data[name], f"one of {', '.join(known)}", did_you_mean(name, known))
    for name in stand_in:
        if name not in data:
            check.problem(name, None, "a value", "it is missing")
    try:
        return kind(**{**stand_in, **{name: data[name] for name in known if name in data}})
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path.partition(".")[2], problem.value, problem.allowed, problem.hint)
        return kind(**stand_in)


def _time_text(check: Checker, name: str, value: object) -> str:
    if isinstance(value, time):
        value = value.isoformat("seconds").removesuffix(":00") if value.second else value.isoformat("minutes")
    if isinstance(value, str) and (found := _TIME.fullmatch(value)) and (found[1] != "24" or value.strip("0:") == "24"):
        return value
    check.problem(name, value, 'a time of day such as "09:30", up to "24:00"')
    return "00:00"


def _time(text: str) -> time:
    return time() if text.startswith("24") else time.fromisoformat(text)


def _weekdays(check: Checker, given: object) -> tuple[str, ...]:
    allowed = 'weekdays such as "mon-fri" or "sat,sun"'
    listed = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    found: set[str] = set()
    for part in listed:
        first, dash, last = (word.strip() for word in part.lower().partition("-")) if isinstance(part, str) else ("", "", "")
        if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
            wrong = next((word for word in (first, last) if word and word not in WEEKDAYS), part)
            check.problem("weekdays", given, allowed, did_you_mean(wrong, WEEKDAYS))
            return WEEKDAYS
        begin = WEEKDAYS.index(first)
        length = (WEEKDAYS.index(last) - begin) % 7 + 1 if dash else 1
        found.update(WEEKDAYS[(begin + n) % 7] for n in range(length))
    if not found:
        check.problem("weekdays", given, allowed, "on no day it would never run")
    return tuple(day for day in WEEKDAYS if day in found)


def _date(check: Checker, name: str, value: object) -> date | None:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    check.problem(name, value, "a date such as 2026-12-24")
    return None
