"""Budgets, conditions and verdicts from whatever store knows the events: one way for a process, its files, and a fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from somaresil.model import slo as model
from somaresil.slo.gate import Evidence, Verdict, decide, weigh
from somaresil.slo.objective import ErrorBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.slo.gate import DeploymentPolicy, Override
    from somaresil.slo.objective import SLO
    from somaresil.slo.store import Reading, SliStore

__all__ = ["budget_of", "conditions_of", "judge"]


def budget_of(slo: SLO, store: SliStore) -> ErrorBudget:
    """What is left over the measurement window of ``slo``."""
    reading = store.read(slo, slo.period)
    total = float(model.budget_ratio(slo.target_percentage))
    consumed = None if reading.counts is None else model.error_ratio(reading.good, reading.bad)
    # The last hour is not asked for where the period gave no answer: it would be asked in vain once more.
    hour = reading if reading.counts is None else store.read(slo, model.HOUR)
    return ErrorBudget(
        slo_name=slo.name,
        total_budget=total,
        consumed=consumed,
        remaining=None if consumed is None else total - consumed,
        burn_rate=None if hour.counts is None else model.burn_rate(*hour.counts, slo.target_percentage),
        good=reading.good,
        bad=reading.bad,
        window=slo.period,
        coverage=reading.coverage,
        source=reading.source,
        age=reading.age,
        problem=reading.problem,
    )


def conditions_of(slo: SLO, store: SliStore) -> tuple[model.Condition, ...]:
    """The burn-rate conditions of the policy of ``slo``, as they stand now."""
    readings: dict[float, Reading] = {}

    def counts(window: float) -> model.Counts | None:
        if window not in readings:
            readings[window] = store.read(slo, window)
        return readings[window].counts

    found = model.alerts(slo.burn_policy, slo.period, slo.target_percentage, counts)
    return tuple(
        replace(each, coverage=long.coverage, source=long.source, age=long.age) for each in found for long in [readings[each.long]]
    )


def judge(
    slos: Iterable[SLO],
    store: SliStore,
    policy: DeploymentPolicy,
    *,
    pending: Callable[[SLO], int] | None = None,
    override: Override | None = None,
) -> Verdict:
    """Whether to release, judged on ``slos`` by what ``store`` knows.

    ``pending`` counts incidents of an objective that last and may yet end in time. ``override`` is one that holds now.
    """
    evidence: list[Evidence] = []
    for slo in slos:
        budget = budget_of(slo, store)
        conditions = conditions_of(slo, store) if budget.problem is None else ()
        waiting = 0 if pending is None else pending(slo)
        evidence.append(weigh(budget, conditions, policy, pending=waiting, recovery=slo.recovery is not None))
    return replace(decide(tuple(evidence), policy), override=override)
