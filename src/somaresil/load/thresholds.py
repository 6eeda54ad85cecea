"""What a run is judged by: limits for quantiles, rates and counts, and objectives; each answer is yes, no, or not known.

Nothing is rounded and nothing is left out: a quantile is kept when *enough of the requests* were within the limit, which is counted, and
a request that failed or could not be begun was not within it. That is what an objective says as well ("95 % are answered in 2 s"), so a
quick error makes nothing look fast. With fewer samples than can decide the answer is *unknown*, and says how many are needed; when the
generator has measured itself, a limit of time that was not kept is unknown too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.load.books import Book
    from somaresil.load.generator import Run
    from somaresil.load.scenario import Scenario
    from somaresil.slo.objective import SLO

__all__ = [
    "DEFAULTS",
    "LIMITS",
    "Answer",
    "Check",
    "Threshold",
    "bounds_of",
    "check_objective",
    "judge",
    "judge_all",
    "judged",
    "limits",
    "needed",
    "threshold_of",
    "verdict",
]

_QUANTILE: Final = re.compile(r"(?:(?P<metric>ttft|gap)_)?p(?P<percent>[0-9]{1,2}(?:\.[0-9]{1,3})?)")
_METRICS: Final = {None: "latency", "ttft": "first", "gap": "gap"}
_RATES: Final = ("error_rate", "truncated", "dropped")
LIMITS: Final = ("p50", "p95", "p99", "ttft_p95", "gap_p99", *_RATES, "throughput")
"""Names of limits; quantiles may have any percentage, as ``p99.9``."""

DEFAULTS: Final = {"error_rate": 0.001, "dropped": 0.0}
"""What every scenario is judged by, unless it says something else about it: a run in which everything failed is never a good one."""


class Answer(StrEnum):
    """What is known of a limit."""

    KEPT = "kept"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit for one request, or for all of them.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    limit: str
    """``p95`` (seconds until the answer is complete, any percentage), ``ttft_p95`` (until the first item of a stream), ``gap_p99`` (between
    two items); ``error_rate`` (share of what ended), ``truncated`` (share of the streams), ``dropped`` (share of the arrivals): at most;
    ``throughput`` (good answers a second): at least."""
    value: float
    request: str | None = None
    """The name of the request; None: all."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        if self.limit in _RATES:
            check.ratio("value", self.value)
        elif self.limit == "throughput":
            check.number("value", self.value, minimum=0.0)
        elif isinstance(self.limit, str) and (found := _QUANTILE.fullmatch(self.limit)) and float(found["percent"]) > 0.0:
            check.seconds("value", self.value)
        else:
            check.problem("limit", self.limit, ", ".join(LIMITS), did_you_mean(self.limit, LIMITS))
        check.finish()

    @property
    def quantile(self) -> tuple[str, float] | None:
        """The metric and the share of a limit for a quantile; None for any other."""
        found = _QUANTILE.fullmatch(self.limit)
        return None if found is None else (_METRICS[found["metric"]], float(found["percent"]) / 100.0)

    @property
    def about_streams(self) -> bool:
        """Whether only streams have what it limits."""
        return self.limit == "truncated" or (self.quantile is not None and self.quantile[0] != "latency")

    def __str__(self) -> str:
        """As a person would write it."""
        where = "" if self.request is None else f"{self.request}: "
        sign = ">=" if self.limit == "throughput" else "<="
        unit = " s" if self.quantile else "/s" if self.limit == "throughput" else ""
        return f"{where}{self.limit} {sign} {self.value:g}{unit}"


def threshold_of(name: str, value: Any, request: str | None, check: Checker) -> Threshold | None:
    """The limit that a file says; None, and problems, when it says none."""
    from somaresil.errors import ConfigurationError

    try:
        return Threshold(name, value, request)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(name, problem.value, problem.allowed, problem.hint)
    return None


@dataclass(frozen=True, slots=True)
class Check:
    """A limit or an objective, and what became of it."""

    what: str
    answer: Answer
    why: str
    """What was counted."""
    side: str = "client"
    """Who has counted it: ``client`` or ``server``."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"what": self.what, "answer": self.answer.value, "why": self.why, "side": self.side}


def bounds_of(thresholds: Iterable[Threshold], objectives: Iterable[SLO] = ()) -> dict[str, tuple[float, ...]]:
    """What is to be counted exactly so that these can be decided, by metric."""
    found: dict[str, set[float]] = {}
    for threshold in thresholds:
        if threshold.quantile is not None:
            found.setdefault(threshold.quantile[0], set()).add(float(threshold.value))
    for slo in objectives:
        for metric, bound in (("latency", slo.latency), ("first", slo.first_item)):
            if bound is not None:
                found.setdefault(metric, set()).add(_seconds(bound))
    return {metric: tuple(sorted(bounds)) for metric, bounds in found.items()}


def judged(what: str, hits: int, total: int, target: float, words: str, *, side: str = "client") -> Check:
    """Whether at least ``target`` of ``total`` events were good (``hits``). Unknown with fewer than one event for each that may be bad.

    With 20 requests nobody can say whether 99.9 % are good. But when more are bad than might be among as many as are needed, no further
    request can help, and it is broken already.
    """
    allowed = 1.0 - target
    needed = 1 if allowed <= 0.0 else math.ceil(1.0 / allowed - 1e-9)
    bad = total - hits
    said = f"{hits} of {total} {words}"
    if total < needed:
        if bad > max(allowed * needed, 0.0) + 1e-9:
            return Check(what, Answer.BROKEN, said, side)
        return Check(what, Answer.UNKNOWN, f"{said}; at least {needed} are needed to decide", side)
    share = f"{said} ({hits / total:.4%}, needs {target:.4%})" if total else said
    return Check(what, Answer.KEPT if bad <= allowed * total + 1e-9 else Answer.BROKEN, share, side)


def judge(threshold: Threshold, book: Book, run: Run) -> Check:
    """What became of one limit, by the counts in ``book``: those of streams alone for a limit that only streams have."""
    what = str(threshold)
    if threshold.limit == "throughput":
        rate = run.per_second(book.good)
        enough = rate >= threshold.value
        said = f"{rate:.4g} good answers a second"
        # What was not offered cannot have been answered.
        most = book.started / run.seconds if run.seconds > 0.0 else 0.0
        if not enough and most < threshold.value:
            return Check(what, Answer.UNKNOWN, f"{said}; only {most:.4g} a second were asked for")
        return Check(what, Answer.KEPT if enough else Answer.BROKEN, said)
    if threshold.limit == "error_rate":
        return judged(what, book.good, book.ended, 1.0 - threshold.value, "requests ended well")
    if threshold.limit == "dropped":
        total = book.started + book.dropped
        return judged(what, book.started, total, 1.0 - threshold.value, "arrivals were begun")
    if threshold.limit == "truncated":
        return judged(what, book.streams - book.truncated, book.streams, 1.0 - threshold.value, "streams came to their end")
    metric, share = threshold.quantile or ("latency", 0.0)
    within = book.measures[metric].at_most(threshold.value)
    if metric == "gap":
        total, words = book.gap.count, f"gaps were at most {threshold.value:g} s"
    else:
        # Who was not answered well, or could not even be asked for, was not answered in time.
        total, words = book.ended + book.dropped, f"requests were answered well within {threshold.value:g} s"
    if metric == "first":
        words = f"streams had their first item within {threshold.value:g} s"
    return _in_doubt(judged(what, within, total, share, words), run)


def check_objective(slo: SLO, book: Book, run: Run) -> Check | None:
    """Whether an objective was kept, by what clients saw; None for one that clients cannot judge."""
    words, hits, total = "requests ended well", book.good, book.ended + book.dropped
    timed = True
    if slo.latency is not None:
        bound = _seconds(slo.latency)
        hits, words = book.latency.at_most(bound), f"requests were answered well within {bound:g} s"
    elif slo.first_item is not None:
        bound = _seconds(slo.first_item)
        hits = book.first.at_most(bound)
        words = f"streams had their first item within {bound:g} s"
    elif slo.completion:
        hits, total, words, timed = book.streams - book.truncated, book.streams, "streams came to their end", False
    elif any(part is not None and part != () for part in (slo.recovery, slo.idle, slo.freshness, slo.good_when, slo.parts)):
        return None
    else:
        timed = False
    found = judged(f"{slo.name}: {slo.target_percentage:g} %", hits, total, slo.target_percentage / 100.0, words)
    return _in_doubt(found, run) if timed else found


def _in_doubt(check: Check, run: Run) -> Check:
    """A limit of time that was not kept says nothing about the service when the generator has measured itself."""
    if check.answer is Answer.BROKEN and run.saturated:
        return Check(check.what, Answer.UNKNOWN, f"{check.why}; but the generator was saturated: {run.saturated[0]}", check.side)
    return check


def _seconds(value: Any) -> float:
    from somaresil.config import to_seconds

    return to_seconds(value)


def limits(scenario: Scenario) -> tuple[Threshold, ...]:
    """The limits of a scenario: its own, and the :data:`DEFAULTS` of which it says nothing."""
    said = {threshold.limit for threshold in scenario.thresholds}
    return (*scenario.thresholds, *(Threshold(name, value) for name, value in DEFAULTS.items() if name not in said))


def judge_all(scenario: Scenario, run: Run) -> tuple[Check, ...]:
    """Every limit and every objective of a scenario, by what clients saw. What experiments have struck is judged by none of them."""
    streams = [request.name for request in scenario.requests if request.kind != "http"]
    every, streamed = run.books.total(), run.books.total(streams)
    found: list[Check] = []
    for threshold in limits(scenario):
        book = streamed if threshold.about_streams else every
        found.append(judge(threshold, book if threshold.request is None else run.books.total([threshold.request]), run))
    for slo in scenario.slos:
        about_streams = slo.first_item is not None or slo.completion
        check = check_objective(slo, streamed if about_streams else every, run)
        found.append(Check(slo.name, Answer.UNKNOWN, "clients cannot see what it counts") if check is None else check)
    return tuple(found)


def needed(scenario: Scenario) -> int:
    """Requests of a scenario without which its limits cannot be decided: one of those that a limit is about for each that may be bad."""
    weights = {request.name: request.weight for request in scenario.requests}
    streams = sum(request.weight for request in scenario.requests if request.kind != "http")
    every = sum(weights.values())
    found = [1.0]
    for threshold in limits(scenario):
        allowed = 1.0 - threshold.quantile[1] if threshold.quantile else threshold.value
        about = weights[threshold.request] if threshold.request is not None else streams if threshold.about_streams else every
        if 0.0 < allowed < 1.0 and about > 0.0:
            found.append(every / about / allowed)
    found += [1.0 / (1.0 - slo.target_percentage / 100.0) for slo in scenario.slos]
    return math.ceil(max(found) - 1e-6)


def verdict(checks: Iterable[Check]) -> Answer:
    """Broken when one is, else unknown when one is, or when there is none at all."""
    answers = {check.answer for check in checks}
    if Answer.BROKEN in answers:
        return Answer.BROKEN
    return Answer.UNKNOWN if Answer.UNKNOWN in answers or not answers else Answer.KEPT
