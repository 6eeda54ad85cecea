"""Budgets, conditions and verdicts from whatever store knows the events: one way for a process, its files, and a fleet."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from somaresil.model import slo as model
from somaresil.slo.gate import Decision, Evidence, Verdict, decide, weigh
from somaresil.slo.objective import ErrorBudget
from somaresil.slo.store import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.slo.gate import DeploymentPolicy, Override
    from somaresil.slo.objective import SLO
    from somaresil.slo.store import SliStore

__all__ = ["budget_of", "conditions_of", "judge"]


def budget_of(slo: SLO, store: SliStore, *, now: float | None = None) -> ErrorBudget:
    """What is left over the measurement window of ``slo``, or over its calendar period as far as it has come at wall time ``now``.

    What a store cannot know, because it has events and no slices of time or parts, is unknown.
    """
    begin, end = slo.bounds(time.time() if now is None else now)
    since = slo.period if slo.calendar is None else (time.time() if now is None else now) - begin
    reading = _read(slo, store, since)
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
        window=end - begin,
        coverage=reading.coverage * since / (end - begin),
        source=reading.source,
        age=reading.age,
        problem=reading.problem,
        begins_at=begin,
        counts_injected=slo.counts_injected,
    )


def _read(slo: SLO, store: SliStore, window: float) -> Reading:
    if slo.parts or slo.time_slice_window is not None:
        what = "parts" if slo.parts else "slices of time"
        return Reading.unknown(store.name, f"it is about {what}, of which only the process itself knows")
    return store.read(slo, window)


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
    budget: Callable[[SLO], ErrorBudget] | None = None,
    blocked: Callable[[SLO], str | None] | None = None,
) -> Verdict:
    """Whether to release, judged on ``slos`` by what ``store`` knows. ``budget`` says what is left of one, in place of :func:`budget_of`.

    ``pending`` counts incidents of an objective that last and may yet end in time. ``override`` is one that holds now. ``blocked`` says
    why an objective blocks whatever its figures are: an action that is taken.
    """
    evidence: list[Evidence] = []
    for slo in slos:
        left = budget_of(slo, store) if budget is None else budget(slo)
        conditions = conditions_of(slo, store) if left.problem is None else ()
        waiting = 0 if pending is None else pending(slo)
        found = weigh(left, conditions, policy, pending=waiting, recovery=slo.recovery is not None)
        why = None if blocked is None or found.decision is Decision.BLOCK else blocked(slo)
        evidence.append(found if why is None else replace(found, decision=Decision.BLOCK, reason=f"{slo.name}: {why}"))
    return replace(decide(tuple(evidence), policy), override=override)
