"""Performance budgets: what an endpoint may take, and whether what was measured shows that it does.

A percentile is a promise about a share: ``p95_ms=2000`` says that no more than 5 % of the requests take longer than 2 s. So it is judged by
counting those that did, and so are error rates and truncated streams. With ``k`` of ``n`` beyond, the share of all requests of this kind
lies between the limits of Clopper and Pearson (:func:`somaresil.model.beta.at_least`), each wrong with a probability of ``1 -
confidence`` at most:

| the budget is | when |
|---|---|
| kept | the upper limit is at most the share that is allowed |
| broken | the lower limit is above it |
| unknown | it lies between them: so many requests cannot tell; or nothing was measured, or nonsense |

Throughput, memory and processor time are single figures without a spread: they are compared as they are. Unknown is not kept: whoever
gates on a budget stops for both (exit codes 1 and 2).

The limits hold for requests that are independent of one another. Where one slow moment hits many at once, a run has fewer independent ones
than it has requests: measure for longer, and again.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, fields
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.model.beta import at_least
from somaresil.model.bootstrap import quantile_of
from somaresil.model.orderstats import quantile_ranks
from somaresil.model.proportion import normal_quantile
from somaresil.model.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["PLAN_BUDGETS", "PLAN_TARGETS", "BudgetReport", "BudgetStatus", "LimitCheck", "Measured", "PerformanceBudget", "check_all"]

_MS: Final = 1000.0
_MIB: Final = 2.0**20
_PERCENT: Final = 100.0
_LARGEST: Final = 1e12
_UNITS: Final = ("_ms", "_rps", "_percent", "_mib")
_PERCENTILES: Final = {
    "p50_ms": ("latencies", 0.50),
    "p95_ms": ("latencies", 0.95),
    "p99_ms": ("latencies", 0.99),
    "ttft_p50_ms": ("ttft", 0.50),
    "ttft_p95_ms": ("ttft", 0.95),
    "ttft_p99_ms": ("ttft", 0.99),
    "gap_p95_ms": ("gaps", 0.95),
    "gap_p99_ms": ("gaps", 0.99),
}
_FAMILIES: Final = (("p50_ms", "p95_ms", "p99_ms"), ("ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms"), ("gap_p95_ms", "gap_p99_ms"))


class BudgetStatus(StrEnum):
    """Whether a budget, or one limit of it, is kept."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PerformanceBudget:
    """What an endpoint may take. The unit is the end of each name; None says nothing about it, and one limit at least is given.

    Raises ``ConfigurationError`` with everything that is wrong.
    """

    endpoint: str
    p50_ms: float | None = None
    """Half of the requests take at most so many milliseconds."""
    p95_ms: float | None = None
    p99_ms: float | None = None
    throughput_rps: float | None = None
    """At least so many requests a second are answered."""
    error_rate_percent: float | None = None
    """At most so many of 100 requests fail."""
    _: KW_ONLY
    ttft_p50_ms: float | None = None
    """Half of the streams have their first item (token) within so many milliseconds."""
    ttft_p95_ms: float | None = None
    ttft_p99_ms: float | None = None
    gap_p95_ms: float | None = None
    """Of 100 pauses between two items of streams 95 are at most so long."""
    gap_p99_ms: float | None = None
    truncated_percent: float | None = None
    """At most so many of 100 streams end before they are complete."""
    memory_mib: float | None = None
    """The most memory that the process has held, in MiB (2^20 bytes)."""
    cpu_percent: float | None = None
    """Processor time per time that passed; 100 is one core."""

    def __post_init__(self) -> None:
        """Check and normalise."""
        check = Checker("PerformanceBudget")
        limits = _checked(check, self.endpoint, self.limits)
        check.finish()
        for name, value in limits.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, table: Mapping[str, object], *, path: str = "budget") -> PerformanceBudget:
        """The budget that a table of a file says, with the same names. Raises ``ConfigurationError``, also for limits without a unit."""
        check = Checker(path)
        known = [field.name for field in fields(cls)]
        given: dict[str, Any] = {}
        for key, value in table.items():
            if key in known:
                given[key] = value
                continue
            with_unit = next((f"{key}{unit}" for unit in _UNITS if f"{key}{unit}" in known), None)
            hint = f"the unit is part of the name: {with_unit}" if with_unit else did_you_mean(key, known)
            check.problem(str(key), value, " | ".join(known), hint)
        endpoint = given.pop("endpoint", None)
        limits = _checked(check, endpoint, {name: value for name, value in given.items() if value is not None})
        check.finish()
        return cls(endpoint, **limits)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "endpoint"}
        return {name: value for name, value in found.items() if value is not None}

    def check(self, measured: Measured, *, confidence: float = 0.99, undecided: str = "unknown") -> BudgetReport:
        """Whether what was measured shows that the budget is kept, or that it is not.

        With ``undecided="estimate"`` a limit that lies inside of the interval is judged by the measured value alone: a coin toss where it
        is near. Raises ``ConfigurationError`` for options that are none and for measurements of another endpoint.
        """
        check = Checker("PerformanceBudget.check")
        check.type("measured", measured, Measured, "Measured")
        sure = check.number("confidence", confidence, minimum=0.5, maximum=0.999999)
        check.one_of("undecided", undecided, ("unknown", "estimate"))
        if isinstance(measured, Measured) and measured.endpoint != self.endpoint:
            check.problem("measured.endpoint", measured.endpoint, repr(self.endpoint), "it was measured for another one")
        check.finish()
        checks = tuple(_judged(name, limit, measured, sure, undecided) for name, limit in self.limits.items())
        return BudgetReport(self.endpoint, _worst(each.status for each in checks), checks)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of an endpoint. Durations are seconds, sizes bytes; None was not measured.

    Series are what was seen one by one, in any order, or a :class:`~somaresil.model.sketch.Sketch` of it. A request that was never
    answered has no latency: it counts among ``errors``, and among ``requests``.
    """

    endpoint: str
    _: KW_ONLY
    latencies: Sketch | Sequence[float] | None = None
    requests: int | None = None
    errors: int | None = None
    duration: float | None = None
    """Seconds from the first request to the end of the last."""
    offered_rps: float | None = None
    """Requests a second that the load asked for. Who asks for 20 a second cannot show 100."""
    ttft: Sketch | Sequence[float] | None = None
    """From each request for a stream to its first item."""
    gaps: Sketch | Sequence[float] | None = None
    """Between two items of a stream."""
    streams: int | None = None
    truncated: int | None = None
    """Streams that ended before they were complete."""
    memory_bytes: float | None = None
    """The most that was held."""
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """What became of one limit. Values have the unit of the limit."""

    limit: str
    """The name, such as ``p95_ms``."""
    allowed: float
    status: BudgetStatus
    reason: str
    measured: float | None = None
    low: float | None = None
    """The true value is at least this, and at most :attr:`high`. None: it has no spread, or too few were measured for both ends."""
    high: float | None = None
    count: int | None = None
    """How many requests, streams or pauses it is about."""
    needed: int | None = None
    """About how many would decide, if what is measured stays as it is."""


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """What became of a budget: broken when one of its limits is, else unknown when one is, else kept."""

    endpoint: str
    status: BudgetStatus
    checks: tuple[LimitCheck, ...]

    def __str__(self) -> str:
        """The status and each limit that is not kept, one a line."""
        said = [f"{each.limit}: {each.status.value}: {each.reason}" for each in self.checks if each.status is not BudgetStatus.KEPT]
        return "\n  ".join([f"{self.endpoint}: {self.status.value}", *said])


def check_all(
    budgets: Iterable[PerformanceBudget], measured: Iterable[Measured], *, confidence: float = 0.99, undecided: str = "unknown"
) -> tuple[BudgetReport, ...]:
    """A report for each budget. One of whose endpoint nothing was measured is unknown, and says so. Raises ``ConfigurationError``."""
    check, found = Checker("measured"), dict[str, Measured]()
    for place, each in enumerate(measured):
        check.type(f"[{place}]", each, Measured, "Measured")
        if isinstance(each, Measured) and each.endpoint in found:
            check.problem(f"[{place}].endpoint", each.endpoint, "an endpoint that no other one has", "merge what belongs together")
        elif isinstance(each, Measured):
            found[each.endpoint] = each
    check.finish()
    reports = []
    for budget in budgets:
        known = found.get(budget.endpoint)
        report = budget.check(known or Measured(budget.endpoint), confidence=confidence, undecided=undecided)
        if known is None:
            hint = did_you_mean(budget.endpoint, found)
            reason = "nothing was measured of this endpoint" + (f" ({hint})" if hint else "")
            checks = tuple(LimitCheck(each.limit, each.allowed, BudgetStatus.UNKNOWN, reason) for each in report.checks)
            report = BudgetReport(budget.endpoint, BudgetStatus.UNKNOWN, checks)
        reports.append(report)
    return tuple(reports)


def _checked(check: Checker, endpoint: object, given: Mapping[str, float]) -> dict[str, float]:
    """The limits as numbers; everything that is wrong is noted."""
    check.name("endpoint", endpoint)
    before, limits = len(check.problems), dict[str, float]()
    for name, value in given.items():
        most = _PERCENT if name in {"error_rate_percent", "truncated_percent"} else _LARGEST
        limits[name] = check.number(name, value, minimum=0.0, maximum=most)
        if limits[name] == 0.0 and most > _PERCENT:
            check.problem(name, value, "a number above 0", "nothing takes no time and no room")
    if not limits:
        check.problem("limits", None, "one limit at least", "a budget without a limit is always kept")
    if len(check.problems) > before:
        return limits
    for family in _FAMILIES:
        for (lower, least), (name, value) in pairwise((name, limits[name]) for name in family if name in limits):
            if value < least:
                check.problem(name, value, f"at least {lower}, which is {least:g}", "a higher percentile is never below a lower one")
    return limits


def _worst(statuses: Iterable[BudgetStatus]) -> BudgetStatus:
    seen = set(statuses)
    return next((each for each in (BudgetStatus.BROKEN, BudgetStatus.UNKNOWN) if each in seen), BudgetStatus.KEPT)


def _judged(name: str, limit: float, measured: Measured, confidence: float, undecided: str) -> LimitCheck:
    if name in _PERCENTILES:
        series, quantile = _PERCENTILES[name]
        return _percentile(name, limit, getattr(measured, series), quantile, (confidence, undecided))
    if name == "error_rate_percent":
        return _share(name, limit, measured.errors, measured.requests, "requests", (confidence, undecided))
    if name == "truncated_percent":
        return _share(name, limit, measured.truncated, measured.streams, "streams", (confidence, undecided))
    if name == "throughput_rps":
        return _throughput(name, limit, measured)
    if name == "memory_mib":
        return _figure(name, limit, measured.memory_bytes, _MIB, "MiB")
    used, duration = measured.cpu_seconds, measured.duration
    if used is not None and not _is_number(duration, above_zero=True):
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"how long it was measured is not known: duration is {duration!r}")
    return _figure(name, limit, used, (duration or 1.0) / _PERCENT, "%")


def _percentile(name: str, limit: float, series: Sketch | Sequence[float] | None, quantile: float, how: tuple[float, str]) -> LimitCheck:
    if series is None:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, "it was not measured")
    if isinstance(series, Sketch):
        return _percentile_of_sketch(name, limit, series, quantile, how)
    wrong = next((f"value {place} is {value!r}" for place, value in enumerate(series) if not _is_number(value)), None)
    if wrong is not None:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"{wrong}: durations are finite seconds from 0 on", count=len(series))
    ordered = sorted(series)
    count, above = len(ordered), sum(value > limit / _MS for value in ordered)
    ranks = quantile_ranks(count, quantile, how[0]) if count else None
    ends = (ordered[ranks[0] - 1], ordered[ranks[1] - 1]) if ranks else None
    value = quantile_of(ordered, quantile) if ordered else None
    return _counted(name, limit, (above, above), count, 1.0 - quantile, how, value, ends)


def _percentile_of_sketch(name: str, limit: float, sketch: Sketch, quantile: float, how: tuple[float, str]) -> LimitCheck:
    ranks = quantile_ranks(sketch.count, quantile, how[0]) if sketch.count else None
    ends = None
    if ranks:
        # A bucket says where a value lies within its error, and no more.
        ends = sketch.at_rank(ranks[0]) * (1.0 - sketch.error), sketch.at_rank(ranks[1]) * (1.0 + sketch.error)
    return _counted(name, limit, sketch.more_than(limit / _MS), sketch.count, 1.0 - quantile, how, sketch.quantile(quantile), ends)


def _counted(
    name: str,
    limit: float,
    above: tuple[int, int],
    count: int,
    allowed: float,
    how: tuple[float, str],
    value: float | None,
    ends: tuple[float, float] | None,
) -> LimitCheck:
    if not count:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, "nothing was measured", count=0, needed=_needed(0.0, allowed, how[0]))
    status, estimated = _decided(above, count, allowed, how)
    beyond = f"{above[0]}" if above[0] == above[1] else f"{above[0]} to {above[1]}"
    reason = f"{beyond} of {count} take longer than {limit:g} ms, and {100.0 * allowed:g} % may"
    needed = None
    if status is BudgetStatus.UNKNOWN:
        needed = _needed(above[1] / count, allowed, how[0])
        reason += "; so many cannot decide" + ("" if needed is None else f", about {needed} would")
    elif estimated:
        reason += "; too few to be sure, judged by the estimate"
    low, high = (None, None) if ends is None else (ends[0] * _MS, ends[1] * _MS)
    return LimitCheck(name, limit, status, reason, None if value is None else value * _MS, low, high, count, needed)


def _share(name: str, limit: float, hits: int | None, count: int | None, kind: str, how: tuple[float, str]) -> LimitCheck:
    allowed = limit / _PERCENT
    if hits is None or count is None:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, "it was not measured")
    if not _is_count(count) or not _is_count(hits) or hits > count:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"{hits!r} of {count!r} {kind} is no count")
    if not count:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"there were no {kind}", count=0, needed=_needed(0.0, allowed, how[0]))
    status, estimated = _decided((hits, hits), count, allowed, how)
    reason, needed = f"{hits} of {count} {kind}, and {limit:g} % may", None
    if not limit and not hits:
        # No number of good ones shows that there are no bad ones; what can be kept is that none was seen.
        status, estimated = BudgetStatus.KEPT, False
        reason = f"none of {count} {kind}"
    elif status is BudgetStatus.UNKNOWN:
        needed = _needed(hits / count, allowed, how[0])
        reason += "; so many cannot decide" + ("" if needed is None else f", about {needed} would")
    elif estimated:
        reason += "; too few to be sure, judged by the estimate"
    low, high = at_least(hits, count, how[0]), 1.0 - at_least(count - hits, count, how[0])
    return LimitCheck(name, limit, status, reason, _PERCENT * hits / count, _PERCENT * low, _PERCENT * high, count, needed)


def _decided(above: tuple[int, int], count: int, allowed: float, how: tuple[float, str]) -> tuple[BudgetStatus, bool]:
    """The status, and whether only the estimate says so."""
    confidence, undecided = how
    if at_least(above[0], count, confidence) > allowed:
        return BudgetStatus.BROKEN, False
    if 1.0 - at_least(count - above[1], count, confidence) <= allowed:
        return BudgetStatus.KEPT, False
    if undecided == "unknown":
        return BudgetStatus.UNKNOWN, False
    return BudgetStatus.KEPT if above[1] <= allowed * count else BudgetStatus.BROKEN, True


def _needed(share: float, allowed: float, confidence: float) -> int | None:
    """About how many decide, when this share of them is beyond. None: hardly any number would, for the share is what is allowed."""
    if not 0.0 < allowed < 1.0 or abs(share - allowed) < allowed / _PERCENT:
        return None
    # With none beyond, the limit of Clopper and Pearson is exact: (1 - allowed) to the power of the number is what may be wrong.
    none = math.ceil(math.log1p(-confidence) / math.log1p(-allowed))
    if not share:
        return none
    z = normal_quantile(2.0 * confidence - 1.0) if confidence > 0.5 else 0.0  # noqa: PLR2004 - one side of it
    spread = z * math.sqrt(max(share, allowed) * (1.0 - allowed)) / (share - allowed)
    return max(math.ceil(spread * spread), none)


def _throughput(name: str, limit: float, measured: Measured) -> LimitCheck:
    requests, errors, duration = measured.requests, measured.errors or 0, measured.duration
    if requests is None or duration is None:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, "it was not measured")
    if not _is_count(requests) or not _is_count(errors) or errors > requests or not _is_number(duration, above_zero=True):
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"{requests!r} requests, {errors!r} errors in {duration!r} s are no figures")
    rate = (requests - errors) / duration
    if rate >= limit:
        return LimitCheck(name, limit, BudgetStatus.KEPT, f"{rate:.6g} good answers a second", rate, count=requests)
    offered = measured.offered_rps
    if offered is not None and _is_number(offered) and offered < limit:
        reason = f"{rate:.6g} good answers a second of {offered:g} that were asked for: a load of {limit:g} was never offered"
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, reason, rate, count=requests)
    reason = f"{rate:.6g} good answers a second, and {limit:g} are promised"
    return LimitCheck(name, limit, BudgetStatus.BROKEN, reason, rate, count=requests)


def _figure(name: str, limit: float, value: float | None, unit: float, word: str) -> LimitCheck:
    if value is None:
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, "it was not measured")
    if not _is_number(value):
        return LimitCheck(name, limit, BudgetStatus.UNKNOWN, f"{value!r} is no figure")
    seen = value / unit
    status = BudgetStatus.KEPT if seen <= limit else BudgetStatus.BROKEN
    return LimitCheck(name, limit, status, f"{seen:.6g} {word}, and {limit:g} may be", seen)


def _is_number(value: object, *, above_zero: bool = False) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 <= value < math.inf:
        return False
    return value > 0.0 or not above_zero


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


PLAN_BUDGETS: Final = (
    PerformanceBudget("/v1/sessions/message", 500.0, 2000.0, 5000.0, 100.0, 0.1),
    PerformanceBudget("/v1/llm/invoke", 1000.0, 3000.0, 8000.0, 50.0, 0.5),
)
"""What the endpoints of a conversation service may take, as its plan has them: a start for budgets of your own."""
PLAN_TARGETS: Final = PerformanceBudget("all", 500.0, 2000.0, 5000.0, 1000.0, 0.1)
"""The targets of the same plan for the whole service."""
