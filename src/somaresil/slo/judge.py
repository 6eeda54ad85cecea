"""Budgets, conditions and verdicts from whatever store knows the events: one way for a process, its files, and a fleet."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from somaresil.model import slo as model
from somaresil.model.timeslice import weighted
from somaresil.slo.gate import Decision, Evidence, Verdict, decide, weigh
from somaresil.slo.objective import ErrorBudget
from somaresil.slo.process import ProcessStore
from somaresil.slo.store import GroupStore, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.slo.gate import DeploymentPolicy, Override
    from somaresil.slo.objective import SLO
    from somaresil.slo.store import SliStore

    Grouped = Iterable[tuple[ErrorBudget, tuple[model.Condition, ...]]] | str

__all__ = ["Composed", "budget_of", "conditions_of", "groups_of", "judge"]

_MOST_GROUPS: Final = 20


def budget_of(slo: SLO, store: SliStore, *, now: float | None = None) -> ErrorBudget:
    """What is left over the measurement window of ``slo``, or over its calendar period as far as it has come at wall time ``now``.

    What a store cannot know, because it has events and no slices of time, is unknown; so are parts of a composite of which it is not told
    (:class:`Composed`).
    """
    begin, end = slo.bounds(time.time() if now is None else now)
    since = slo.period if slo.calendar is None else (time.time() if now is None else now) - begin
    store = store if isinstance(store, Composed) else Composed(store, {slo.name: slo})
    reading = store.read(slo, since)
    # The last hour is not asked for where the period gave no answer: it would be asked in vain once more.
    hour = reading if reading.counts is None else store.read(slo, model.HOUR)
    budget = _budget(slo, reading, hour, since, (begin, end))
    if not slo.parts or reading.counts is None:
        return budget
    good, bad = store.events(slo, since)
    return replace(budget, good=good, bad=bad)


def _budget(slo: SLO, reading: Reading, hour: Reading, since: float, span: tuple[float, float]) -> ErrorBudget:
    begin, end = span
    total = float(model.budget_ratio(slo.target_percentage))
    consumed = None if reading.counts is None else model.error_ratio(reading.good, reading.bad)
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


class Composed:
    """A store that knows composites by their parts, all of it about one moment: what was read once is not asked for again."""

    def __init__(self, store: SliStore, known: Mapping[str, SLO]) -> None:
        """``known`` are all objectives by name, those that are parts among them."""
        self._store = store
        self._known = known
        self._read: dict[tuple[str, float], Reading] = {}
        self._groups: dict[tuple[str, float], Mapping[str, Reading] | str] = {}

    @property
    def name(self) -> str:
        """That of the store."""
        return self._store.name

    def read(self, slo: SLO, window: float) -> Reading:
        """The events of the last ``window`` seconds; of a composite the mean ratio, as parts good and bad."""
        key = (slo.name, window)
        if key not in self._read:
            self._read[key] = self._composite(slo, window) if slo.parts else self._plain(slo, window)
        return self._read[key]

    def _plain(self, slo: SLO, window: float) -> Reading:
        if slo.time_slice_window is not None:
            return Reading.unknown(self.name, "it is about slices of time, of which only the process itself knows")
        return self._store.read(slo, window)

    def _composite(self, slo: SLO, window: float) -> Reading:
        readings: list[tuple[float, Reading]] = []
        for name, weight in slo.weights.items():
            part = self._known.get(name)
            if part is None:
                return Reading.unknown(self.name, f"its part {name} is not defined here")
            reading = self.read(part, window)
            if reading.problem is not None:
                return Reading.unknown(self.name, f"its part {name}: {reading.problem}", coverage=reading.coverage, age=reading.age)
            readings.append((weight, reading))
        good, bad = weighted([(weight, each.good, each.bad) for weight, each in readings])
        ages = [each.age for _, each in readings if each.age is not None]
        return Reading(good, bad, min(each.coverage for _, each in readings), self.name, max(ages, default=None))

    def events(self, slo: SLO, window: float) -> tuple[int, int]:
        """Good and bad events: of a composite those of its parts together, without weights."""
        if not slo.parts:
            reading = self.read(slo, window)
            return reading.good, reading.bad
        pairs = [self.events(self._known[name], window) for name in slo.weights if name in self._known]
        return sum(good for good, _ in pairs), sum(bad for _, bad in pairs)

    def read_groups(self, slo: SLO, window: float) -> Mapping[str, Reading] | str:
        """The events of each group."""
        key = (slo.name, window)
        if key not in self._groups:
            self._groups[key] = self._grouped(slo, window)
        return self._groups[key]

    def _grouped(self, slo: SLO, window: float) -> Mapping[str, Reading] | str:
        if slo.time_slice_window is not None:
            return "it is about slices of time, of which only the process itself knows"
        if not isinstance(self._store, GroupStore):
            return f"{self.name} knows nothing of its groups; groups=False judges the whole alone"
        return self._store.read_groups(slo, window)


def groups_of(slo: SLO, store: Composed, *, now: float | None = None) -> Grouped:
    """The budget and the conditions of each group of ``slo``; a text: why nobody knows."""
    wall = time.time() if now is None else now
    begin, end = slo.bounds(wall)
    since = slo.period if slo.calendar is None else wall - begin
    asked = {since, model.HOUR, *(length for window in slo.burn_policy.windows for length in (window.long, window.short))}
    readings: dict[float, Mapping[str, Reading]] = {}
    for window in sorted(asked, reverse=True):
        found = store.read_groups(slo, window)
        if isinstance(found, str):
            return found
        readings[window] = found
    none = Reading(0, 0, 0.0, store.name)

    def conditions(group: str) -> tuple[model.Condition, ...]:
        def counts(window: float) -> model.Counts | None:
            return readings[window].get(group, none).counts

        return model.alerts(slo.burn_policy, slo.period, slo.target_percentage, counts)

    return [
        (replace(_budget(slo, whole, readings[model.HOUR].get(group, none), since, (begin, end)), group=group), conditions(group))
        for group, whole in readings[since].items()
    ]


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


def _of_groups(whole: ErrorBudget, groups: Grouped, policy: DeploymentPolicy) -> list[Evidence]:
    """What there is to say of the groups of an objective: those that do not allow a release, the worst first, up to so many."""
    if isinstance(groups, str):
        unknown = replace(whole, problem=groups)
        return [weigh(unknown, (), policy)]
    enough = [(budget, conditions) for budget, conditions in groups if budget.good + budget.bad >= policy.minimum_events]
    # How long somebody has been watching is a question to the whole: a tenant who came yesterday has no longer past.
    easy = replace(policy, minimum_coverage=0.0)
    found = [weigh(budget, conditions, easy) for budget, conditions in enough]
    wrong = sorted((each for each in found if each.decision is not Decision.ALLOW), key=lambda each: each.budget.remaining_share or 0.0)
    return wrong[:_MOST_GROUPS]


def judge(
    slos: Iterable[SLO],
    store: SliStore,
    policy: DeploymentPolicy,
    *,
    pending: Callable[[SLO], int] | None = None,
    override: Override | None = None,
    budget: Callable[[SLO], ErrorBudget] | None = None,
    blocked: Callable[[SLO], str | None] | None = None,
    groups: Callable[[SLO], Grouped] | None = None,
) -> Verdict:
    """Whether to release, judged on ``slos`` by what ``store`` knows. ``budget`` says what is left of one, in place of :func:`budget_of`.

    ``pending`` counts incidents of an objective that last and may yet end in time. ``override`` is one that holds now. ``blocked`` says
    why an objective blocks whatever its figures are: an action that is taken. ``groups`` gives budgets and conditions of the groups of
    one, in place of :func:`groups_of`.
    """
    slos, evidence = tuple(slos), []
    if not isinstance(store, Composed | ProcessStore):
        store = Composed(store, {slo.name: slo for slo in slos})
    for slo in slos:
        left = budget_of(slo, store) if budget is None else budget(slo)
        conditions = conditions_of(slo, store) if left.problem is None else ()
        waiting = 0 if pending is None else pending(slo)
        found = weigh(left, conditions, policy, pending=waiting, recovery=slo.recovery is not None)
        why = None if blocked is None or found.decision is Decision.BLOCK else blocked(slo)
        evidence.append(found if why is None else replace(found, decision=Decision.BLOCK, reason=f"{slo.name}: {why}"))
        if slo.group_by is not None and policy.groups and left.problem is None:
            asked = (
                groups(slo) if groups is not None else groups_of(slo, store) if isinstance(store, Composed) else "nobody knows its groups"
            )
            evidence += _of_groups(left, asked, policy)
    return replace(decide(tuple(evidence), policy), override=override)
