"""Budgets held against results of whichever tool.

Where a result has every request, they are counted (:meth:`somaresil.perf.budget.PerformanceBudget.check`). A summary has percentiles and
how many requests there were; that is a count too: when the 98th percentile of 1,000 requests is below a limit, at most 20 of them are above
it. Percentiles on both sides of a limit so bound how many are beyond, and the limits of Clopper and Pearson say what follows for all
requests of this kind. A percentile that its tool has rounded across a limit bounds nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from somaresil.config import did_you_mean
from somaresil.model.beta import at_least
from somaresil.perf.budget import BudgetReport, BudgetStatus, LimitCheck, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from somaresil.perf.budget import PerformanceBudget
    from somaresil.perf.samples import Series

__all__ = ["check_budgets", "names_of"]

_MS: Final = 1e3
_PERCENT: Final = 100.0
_LABELS: Final = ("endpoint", "handler", "http_route", "name", "path", "route", "url")
_LABEL: Final = re.compile(r"""[{,]\s*(\w+)\s*[=:]\s*"?([^",}]*)"?""")
_RAW: Final = {"latencies": ("duration", "latency"), "ttft": ("ttft",), "gaps": ("gap",)}
_LIMIT: Final = re.compile(r"(ttft_|gap_|)p(\d+)_ms")


def names_of(endpoint: str, names: Iterable[str]) -> tuple[str, ...]:
    """The series that are about an endpoint: by that name, with a method before it, or with it as a label (``{path="/a"}``)."""
    return tuple(name for name in dict.fromkeys(names) if _is_about(endpoint, name))


def _is_about(endpoint: str, name: str) -> bool:
    if name == endpoint or name.rpartition(" ")[2] == endpoint:
        return True
    return any(label in _LABELS and value == endpoint for label, value in _LABEL.findall(name))


def check_budgets(
    budgets: Iterable[PerformanceBudget],
    series: Mapping[tuple[str, str], Series],
    *,
    confidence: float = 0.99,
    undecided: str = "unknown",
) -> tuple[BudgetReport, ...]:
    """A report for each budget; one of whose endpoint nothing was measured is unknown, and says so.

    ``series`` are those of one run, or of several merged: figures that a run has once are then judged by the worst run. With
    ``undecided="estimate"`` a limit that lies inside of the interval is judged by the measured value alone.
    """
    names = [name for name, _ in series]
    return tuple(_checked(budget, names, series, confidence, undecided) for budget in budgets)


def _checked(
    budget: PerformanceBudget, names: list[str], series: Mapping[tuple[str, str], Series], confidence: float, undecided: str
) -> BudgetReport:
    found = names_of(budget.endpoint, names)
    if len(found) != 1:
        hint = did_you_mean(budget.endpoint, dict.fromkeys(names))
        reason = "nothing was measured of this endpoint" + (f" ({hint})" if hint else "")
        if found:
            reason = f"several series are about this endpoint: {', '.join(found[:5])}"
        checks = tuple(LimitCheck(name, limit, BudgetStatus.UNKNOWN, reason) for name, limit in budget.limits.items())
        return BudgetReport(budget.endpoint, BudgetStatus.UNKNOWN, checks)
    own = {metric: each for (name, metric), each in series.items() if name == found[0]}
    report = budget.check(_measured(budget.endpoint, own), confidence=confidence, undecided=undecided)
    checks = tuple(_by_summary(each, own, confidence, undecided) for each in report.checks)
    statuses = {each.status for each in checks}
    worst = next((each for each in (BudgetStatus.BROKEN, BudgetStatus.UNKNOWN) if each in statuses), BudgetStatus.KEPT)
    return replace(report, status=worst, checks=checks)


def _measured(endpoint: str, own: Mapping[str, Series]) -> Measured:
    raw = {field: next((own[name].values for name in names if name in own), None) for field, names in _RAW.items()}
    memory = own.get("memory")
    return Measured(
        endpoint,
        latencies=raw["latencies"],
        ttft=raw["ttft"],
        gaps=raw["gaps"],
        requests=_total(own.get("requests")),
        errors=_total(own.get("errors")),
        streams=_total(own.get("streams")),
        truncated=_total(own.get("truncated")),
        memory_bytes=None if memory is None else max(memory.values),
    )


def _total(series: Series | None) -> int | None:
    return None if series is None else round(math.fsum(series.values))


def _by_summary(check: LimitCheck, own: Mapping[str, Series], confidence: float, undecided: str) -> LimitCheck:
    """The same limit, judged by what a summary says where there are no single requests."""
    if check.limit == "throughput_rps" and "throughput" in own:
        return _rate(check, own)
    if check.limit == "error_rate_percent" and check.count is None and "error_rate" in own:
        return _figure(check, max(own["error_rate"].values) * _PERCENT, "%")
    found = _LIMIT.fullmatch(check.limit)
    if check.status is not BudgetStatus.UNKNOWN or check.count is not None or found is None:
        return check
    prefix, quantile = found[1], float(found[2]) / _PERCENT
    known = sorted(
        (float(metric[len(prefix) + 1 :]) / _PERCENT, each)
        for metric, each in own.items()
        if re.fullmatch(rf"{prefix}p\d+(\.\d+)?", metric) and float(metric[len(prefix) + 1 :]) <= _PERCENT
    )
    if not known:
        return check
    return _percentile(check, quantile, known, _fewest(own, prefix), (confidence, undecided))


def _fewest(own: Mapping[str, Series], prefix: str) -> int:
    """How many durations percentiles are of: good answers where these are told, streams for their first items, and nobody tells pauses."""
    kinds = {"": ("good", "requests"), "ttft_": ("streams", "requests")}.get(prefix, ())
    counts = next((own[kind] for kind in kinds if kind in own), None)
    return 0 if counts is None else round(min(counts.values))


def _percentile(check: LimitCheck, quantile: float, known: list[tuple[float, Series]], count: int, how: tuple[float, str]) -> LimitCheck:
    limit = check.allowed / _MS
    # Of several runs the worst one.
    below = max((share for share, each in known if max(each.values) + each.rounding <= limit), default=0.0)
    above = min((share for share, each in known if max(each.values) - each.rounding > limit), default=1.0)
    own = next((each for share, each in known if share == quantile), None)
    value = None if own is None else max(own.values)
    shown = "" if own is None else f"p{quantile * _PERCENT:g} is {max(own.values) * _MS:g} ms" + _give_or_take(own)
    check = replace(check, measured=None if value is None else value * _MS, count=count or None)
    allowed = 1.0 - quantile
    if count:
        # 1 - 0.95 is not quite 0.05.
        most, least = math.ceil(round((1.0 - below) * count, 6)), math.floor(round((1.0 - above) * count, 6))
        words = f"{least} to {most} of {count} take longer than {check.allowed:g} ms, and {100.0 * allowed:g} % may"
        reason = f"{shown}; {words}" if shown else words
        if at_least(least, count, how[0]) > allowed:
            return replace(check, status=BudgetStatus.BROKEN, reason=reason)
        if 1.0 - at_least(count - most, count, how[0]) <= allowed:
            return replace(check, status=BudgetStatus.KEPT, reason=reason)
    else:
        reason = shown or f"p{quantile * _PERCENT:g} was not measured"
    if how[1] == "estimate" and own is not None and abs(max(own.values) - limit) > own.rounding:
        status = BudgetStatus.KEPT if max(own.values) <= limit else BudgetStatus.BROKEN
        return replace(check, status=status, reason=f"{reason}; judged by the estimate")
    why = "the summary cannot decide" if count else "how many requests there were is not known"
    return replace(
        check, status=BudgetStatus.UNKNOWN, reason=f"{reason}; {why}: a result with every request can, or an estimate is asked for"
    )


def _give_or_take(series: Series) -> str:
    return f" give or take {series.rounding * _MS:g}" if series.rounding else ""


def _rate(check: LimitCheck, own: Mapping[str, Series]) -> LimitCheck:
    bad = max(own["error_rate"].values) if "error_rate" in own else 0.0
    rate = min(own["throughput"].values) * (1.0 - bad)
    status = BudgetStatus.KEPT if rate >= check.allowed else BudgetStatus.BROKEN
    reason = f"{rate:.6g} good answers a second, and {check.allowed:g} are promised"
    return replace(check, status=status, reason=reason, measured=rate)


def _figure(check: LimitCheck, value: float, word: str) -> LimitCheck:
    status = BudgetStatus.KEPT if value <= check.allowed else BudgetStatus.BROKEN
    return replace(check, status=status, reason=f"{value:.6g} {word}, and {check.allowed:g} may be", measured=value)
