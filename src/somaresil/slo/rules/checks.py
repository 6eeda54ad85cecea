"""What would not work, found before it is written.

- a condition that no traffic can meet: its factor times the budget is 1 or more, so that even a full outage passes in silence;
- a short window of fewer than four scrapes: one that fails would leave too few samples for an increase;
- a window or period of which Prometheus does not keep the whole;
- a threshold that is no bucket of the histogram that is to count it;
- where traffic is said to be low, a condition that a single bad event fires.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from somaresil.model import slo as model
from somaresil.slo.rules.text import duration, exact_duration, number

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.slo.objective import SLO
    from somaresil.slo.rules.options import RuleOptions
    from somaresil.slo.rules.source import Source

__all__ = ["SCRAPES", "check_objective"]

SCRAPES: Final = 4
"""Scrapes in the shortest window."""


def check_objective(check: Checker, slo: SLO, source: Source, options: RuleOptions) -> None:
    """Note everything that is wrong with the rules of one objective; paths are those of the objective."""
    source.check(check, slo)
    if options.buckets is not None and slo.latency is not None and slo.latency not in options.buckets:
        near = ", ".join(f"{bound:g}" for bound in options.buckets)
        check.problem("latency", slo.latency, f"a bucket of the histograms ({near})", "no quantile could show it; add it to the buckets")
    if not _whole(check, "measurement_window", slo.period):
        return
    retention, scrape = float(options.retention), float(options.scrape_interval)  # type: ignore[arg-type]
    if slo.calendar is None and slo.period > retention:
        check.problem(
            "measurement_window",
            duration(slo.period),
            f"at most what Prometheus keeps ({duration(retention)})",
            "say how long it keeps data (retention), or shorten the window",
        )
    policy = slo.burn_policy
    expected = options.events_per_hour.get(slo.name, options.events_per_hour.get("*"))
    budget = model.budget_ratio(slo.target_percentage)
    for place, window in enumerate(policy.windows):
        path = f"error_budget_policy.windows[{place}]"
        if not all([_whole(check, f"{path}.long", window.long), _whole(check, f"{path}.short", window.short)]):
            continue
        if window.short < SCRAPES * scrape:
            check.problem(f"{path}.short", duration(window.short), f"at least {SCRAPES} scrapes ({duration(SCRAPES * scrape)})")
        if window.long > retention:
            check.problem(f"{path}.long", duration(window.long), f"at most what Prometheus keeps ({duration(retention)})")
        factor = model.burn_threshold(window.budget_share, slo.period, window.long)
        if not options.cap_unreachable and not model.reachable(factor, slo.target_percentage):
            most = Decimal(str(window.long)) / Decimal(str(slo.period)) / budget
            check.problem(
                f"{path}.budget_share",
                window.budget_share,
                f"less than {most:.4f}: {factor:.4g} times a budget of {number(budget * 100)} % is {factor * budget:.0%} of errors",
                "it could never fire; give a smaller share, a higher target, or cap_unreachable",
            )
        limit = model.error_limit(window, slo.period, slo.target_percentage)
        if expected is not None and policy.minimum_bad <= 1:
            events = Decimal(str(expected)) * Decimal(str(window.long)) / 3_600
            if 0 < events * limit < 1:
                check.problem(
                    f"{path}.long",
                    duration(window.long),
                    f"more than {number(round(1 / limit))} events in it, where {events:.4g} are expected, or minimum_bad",
                    "a single bad event fires it",
                )


def _whole(check: Checker, path: str, seconds: float) -> bool:
    if exact_duration(seconds):
        return True
    check.problem(path, seconds, "whole milliseconds: Prometheus has no others")
    return False
