"""The objectives of a process, their budgets, and the gate that stands on them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.events import GateOverridden
from somaresil.model import slo as model
from somaresil.slo.actions import Actions
from somaresil.slo.burning import Burning
from somaresil.slo.gate import DeploymentPolicy, Override, Verdict
from somaresil.slo.groups import Groups
from somaresil.slo.incidents import IncidentLog
from somaresil.slo.judge import Composed, budget_of, conditions_of, judge
from somaresil.slo.objective import LONGEST, SHORTEST, SLO, ErrorBudget
from somaresil.slo.probe import Probe
from somaresil.slo.process import ProcessStore
from somaresil.slo.series import Composite, Freshness, Series
from somaresil.slo.snapshot import SnapshotFolder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from somaresil.listeners import Listeners
    from somaresil.recorder import Recorder
    from somaresil.slo.series import Events
    from somaresil.slo.store import SliStore
    from somaresil.typing import Clock

__all__ = ["SLOTracker", "below"]

_SHORTEST: Final = SHORTEST.total_seconds()
_LONGEST: Final = LONGEST.total_seconds()


class SLOTracker:
    """Objectives by name. It sees the traffic of this process, and with a snapshot folder that of the workers beside it and before it.

    Questions are answered from there; ``store`` asks another one, such as
    :class:`~somaresil.integrations.prometheus_store.PrometheusStore` for a fleet. That one may wait for a server: ask it from a coroutine
    with the ``async`` forms, which do so in a thread.
    """

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        """Begin without objectives."""
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners = listeners
        self._series: dict[str, Events] = {}
        self._groups: dict[str, Groups] = {}
        self.incidents = IncidentLog(clock, listeners)
        self.burning = Burning(self.incidents, self.series, clock, listeners)
        """What makes incidents of alerts."""
        self.actions = Actions()
        """What is done now because budgets run out; nothing without :meth:`Resilience.alerting`."""
        self.store = ProcessStore(self.series)
        """Where answers come from when no other store is named."""
        self.snapshot: SnapshotFolder | None = None
        """The folder that is shared with other processes, if there is one."""

    # -- objectives -------------------------------------------------------------------------------------------------------------------

    def add(self, *slos: SLO) -> None:
        """Take objectives in. Adding the same one again changes nothing; another one of the same name is refused."""
        check = Checker("slos.add")
        with self._lock:
            known = {name: series.slo for name, series in self._series.items()}
            for slo in slos:
                if not isinstance(slo, SLO):
                    check.problem("slo", slo, "an SLO")
                elif known.setdefault(slo.name, slo) != slo:
                    check.problem(slo.name, slo, "a name that is not taken", f"it is {known[slo.name]}")
            _check_parts(check, known)
            check.finish()
            for slo in _parts_first(known):
                if slo.name not in self._series:
                    self._make(slo)

    def _make(self, slo: SLO) -> None:
        if slo.group_by is not None:
            self._groups = {**self._groups, slo.name: Groups(slo, self._clock, self.incidents)}
        made: Events
        if slo.parts:
            made = Composite(slo, [(self._series[name], weight) for name, weight in slo.weights.items()])
        else:
            made = (Series if slo.freshness is None else Freshness)(slo, self._clock, self.incidents)
        self._series = {**self._series, slo.name: made}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all objectives, in the order in which they were added."""
        return tuple(self._series)

    def __getitem__(self, name: str) -> SLO:
        """The objective called ``name``."""
        return self.series(name).slo

    def series(self, name: str, group: str | None = None) -> Events:
        """Its events, or those of one of its groups.

        Raises :class:`~somaresil.errors.ConfigurationError` for an unknown name.
        """
        found = self._series.get(name)
        if found is not None and group is None:
            return found
        check = Checker("slos")
        if found is None or group is None:
            known = ", ".join(self._series) or "none is defined"
            check.problem("name", name, f"an objective that was added ({known})", did_you_mean(name, self._series))
            check.finish()
            raise KeyError(name)
        one = None if name not in self._groups else self._groups[name].get(group)
        if one is None:
            known = ", ".join(self.groups(name)) or "it has none"
            check.problem(f"{name}.group", group, f"a group that was seen ({known})", did_you_mean(group, self.groups(name)))
            check.finish()
            raise KeyError(group)
        return one

    def groups(self, name: str) -> tuple[str, ...]:
        """The values of its label that have a budget of their own now; none for an objective without ``group_by``."""
        return self._groups[name].names if self[name].name in self._groups else ()

    def refreshed(self, name: str) -> None:
        """What the freshness objective ``name`` is about is up to date now.

        Raises :class:`~somaresil.errors.ConfigurationError` for any other objective.
        """
        series = self.series(name)
        if not isinstance(series, Freshness):
            check = Checker("slos.refreshed")
            check.problem("name", name, "an objective with freshness")
            check.finish()
            return
        series.refreshed(self._clock.monotonic())

    def thresholds(self, names: tuple[str, ...]) -> tuple[float, ...]:
        """The latency thresholds of some objectives, in seconds: bucket bounds of whoever records for them."""
        return tuple(float(limit) for name in self.leaves(names) if (limit := self[name].latency) is not None)  # type: ignore[arg-type]

    def leaves(self, names: Iterable[str]) -> tuple[str, ...]:
        """The objectives that hear of calls when these are named: a composite stands for its parts, without those about incidents."""
        found: dict[str, None] = {}
        for name in names:
            slo = self[name]
            if slo.parts:
                found |= dict.fromkeys(self.leaves(slo.weights))
            elif slo.about_calls:
                found[name] = None
        return tuple(found)

    def attach(self, name: str, recorder: Recorder) -> None:
        """Let the objective look at what ``recorder`` counts. Its threshold must be a bound there."""
        for leaf in self.leaves((name,)):
            series = self.series(leaf)
            if isinstance(series, Series):
                series.feed(recorder)

    def probes(self, names: Iterable[str]) -> tuple[Probe, ...]:
        """What has to be told of each call, for those of the objectives that cannot see all they need in a recorder."""
        found = [(self.series(name), self._groups.get(name)) for name in self.leaves(names)]
        return tuple(
            Probe(series, groups, self._clock, self._listeners)
            for series, groups in found
            if isinstance(series, Series) and (groups is not None or not series.slo.read_from_cells)
        )

    def keep(self, folder: str | os.PathLike[str], *, service: str, interval: float = 5.0) -> SnapshotFolder:
        """Share counts with other processes of ``service``, and with later ones, through files: see :mod:`somaresil.slo.snapshot`.

        What stands there is read at once; from then on a daemon thread writes and reads every ``interval`` seconds.
        """
        self.snapshot = SnapshotFolder(
            folder,
            lambda: {name: each for name, each in self._series.items() if isinstance(each, Series) and each.shared},
            service=service,
            clock=self._clock,
            listeners=self._listeners,
            interval=interval,
        )
        self.snapshot.start()
        self.store.others = self.snapshot.others
        return self.snapshot

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def counts(self, name: str, window: float | timedelta, *, group: str | None = None) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds (5 minutes to 90 days), as exact as :meth:`Series.counts` says.

        Of slices they are slices; where ratios are averaged, and for a composite, they stand for nothing but their ratio.

        Raises :class:`~somaresil.errors.ConfigurationError` for any other window: it is not remembered, or not finely enough.
        """
        series = self.series(name, group)
        if type(window) is not float or not _SHORTEST <= window <= _LONGEST:
            check = Checker("slos")
            window = check.seconds("window", window, minimum=_SHORTEST, maximum=_LONGEST, exclusive=False)
            check.finish()
        if group is not None:
            return series.counts(window)
        reading = self.store.read(series.slo, window)
        return reading.good, reading.bad

    def _counts(self, series: Events, group: str | None) -> Callable[[float], tuple[int, int]]:
        """What tells the counts of a window: the store, which knows other processes too, or a group itself, which nobody else knows."""
        if group is not None:
            return series.counts

        def counts(window: float) -> tuple[int, int]:
            reading = self.store.read(series.slo, window)
            return reading.good, reading.bad

        return counts

    def burn_rate(self, name: str, window: float | timedelta = model.HOUR, *, group: str | None = None) -> float | None:
        """Multiple of the sustainable burn over ``window``; None: no event."""
        good, bad = self.counts(name, window, group=group)
        return model.burn_rate(good, bad, self[name].target_percentage)

    def totals(self, name: str, *, injected: bool) -> tuple[int, int]:
        """Good and bad events so far, for differences: see :meth:`Series.totals_by`."""
        return self.series(name).totals_by(injected=injected)

    def target_percentage(self, name: str) -> float:
        """What an objective promises."""
        return self[name].target_percentage

    def remaining_share(self, name: str) -> float | None:
        """Share of the error budget that is left; None: no event."""
        return self.error_budget(name).remaining_share

    def chaos_budget(self, name: str) -> tuple[float | None, int]:
        """Share of the budget for experiments that is left (None: not known), and the events that this is worked out of."""
        budget = self.error_budget(name)
        struck = (budget.injected_good or 0) + (budget.injected_bad or 0)
        return budget.chaos_remaining_share, budget.good + budget.bad + (0 if budget.counts_injected else struck)

    def error_budget(self, name: str, *, group: str | None = None, store: SliStore | None = None) -> ErrorBudget:
        """The budget over the measurement window of the objective, or over the calendar period as far as it has come."""
        now = self._clock.time()
        if store is not None:
            return budget_of(self[name], self._composed(store), now=now)
        series = self.series(name, group)
        begin, end = series.slo.bounds(now)
        budget = self._budget(series, group, now - begin, 0.0, end - begin)
        return replace(budget, burn_rate=self.burn_rate(name, group=group), begins_at=begin)

    def _budget(self, series: Events, group: str | None, since: float, until: float, length: float) -> ErrorBudget:
        """The budget from ``since`` to ``until`` seconds ago, of a window that is ``length`` seconds long as a whole."""
        slo = series.slo
        reading = None if group is not None else self.store.read(slo, since)
        good, bad = _between(self._counts(series, group), since, until)
        total = model.budget_ratio(slo.target_percentage)
        consumed = model.error_ratio(good, bad)
        seen = max(0.0, (min(series.age, since) if reading is None else reading.coverage * since) - until)
        idle = 0
        if slo.time_slice_window is not None:
            idle = max(0, int(seen / float(slo.time_slice_window) - (good + bad) / series.unit))  # type: ignore[arg-type]
        if isinstance(series, Composite):
            good, bad = _between(series.events, since, until)
        else:
            good, bad = round(good / series.unit), round(bad / series.unit)
        struck = None if series.injected(since) is None else _between(lambda window: series.injected(window) or (0, 0), since, until)
        share = slo.chaos_budget_percentage
        return ErrorBudget(
            slo_name=slo.name,
            total_budget=float(total),
            consumed=consumed,
            remaining=None if consumed is None else float(total) - consumed,
            burn_rate=None,
            good=good,
            bad=bad,
            window=length,
            coverage=max(0.0, min(1.0, seen / length)),
            source=self.store.name,
            age=0.0 if reading is None else reading.age,
            problem=None if reading is None else reading.problem,
            idle_slices=idle,
            group=group,
            injected_good=None if struck is None else struck[0],
            injected_bad=None if struck is None else struck[1],
            counts_injected=slo.counts_injected,
            chaos_budget=None if share is None else share / 100.0,
        )

    def previous_error_budget(self, name: str, *, group: str | None = None) -> ErrorBudget:
        """The budget of the calendar period before this one, as far as this process has seen it.

        Raises :class:`~somaresil.errors.ConfigurationError` for a window that rolls, which has none, and for a period that lies further
        back than is remembered: 90 days, or two years with ``calendar`` ``quarter`` or ``year``.
        """
        series, now = self.series(name, group), self._clock.time()
        slo = series.slo
        check = Checker("slos")
        begin, _ = slo.bounds(now)
        before, _ = slo.bounds(begin - 1.0)
        longest = 2 * 366 * model.DAY if slo.calendar in {"quarter", "year"} else LONGEST.total_seconds()
        if slo.calendar is None:
            check.problem(f"{name}.measurement_window", slo.measurement_window, "a calendar period", "one that rolls has none before it")
        elif now - before > longest:
            check.problem(f"{name}.calendar", slo.calendar, f"a period that began at most {longest / model.DAY:g} days ago")
        check.finish()
        return replace(self._budget(series, group, now - before, now - begin, begin - before), begins_at=before)

    def conditions(self, name: str, *, group: str | None = None, store: SliStore | None = None) -> tuple[model.Condition, ...]:
        """The burn-rate conditions of its policy, as they stand now."""
        if group is None:
            return conditions_of(self[name], self.store if store is None else self._composed(store))
        series = self.series(name, group)
        slo = series.slo
        return model.alerts(slo.burn_policy, slo.period, slo.target_percentage, series.counts)

    def verdict(
        self, *names: str, policy: DeploymentPolicy | None = None, store: SliStore | None = None, override: Override | None = None
    ) -> Verdict:
        """Whether to release, judged on the named objectives, or on all.

        An ``override`` that still holds lets the release go on; it stands in the verdict, which keeps its decision, and is told as
        :class:`~somaresil.events.GateOverridden` when it made a difference.
        """
        now = self._clock.time()
        override = override if override is not None and override.holds(now) else None
        slos = [self[name] for name in names or self.names]
        composed = None if store is None else self._composed(store)
        verdict = judge(
            slos,
            composed or self.store,
            policy or DeploymentPolicy(),
            pending=lambda slo: self.series(slo.name).pending,
            override=override,
            budget=lambda slo: self.error_budget(slo.name, store=composed),
            groups=None if composed is not None else self._judged_groups,
            blocked=lambda slo: self.actions.why("block_deployment", slo.name),
        )
        if override is not None and verdict.decided_to_block:
            self._listeners.emit(GateOverridden(now, override.who, override.reason, override.until, verdict.decision.value))
        return verdict

    def _composed(self, store: SliStore) -> Composed:
        return store if isinstance(store, Composed) else Composed(store, {name: series.slo for name, series in self._series.items()})

    def _judged_groups(self, slo: SLO) -> list[tuple[ErrorBudget, tuple[model.Condition, ...]]]:
        found = []
        for group in self.groups(slo.name):
            # It may make room for another one while they are looked at.
            with suppress(ConfigurationError):
                found.append((self.error_budget(slo.name, group=group), self.conditions(slo.name, group=group)))
        return found

    # -- the same for coroutines ------------------------------------------------------------------------------------------------------

    async def calculate_error_budget(self, slo_name: str, *, store: SliStore | None = None) -> ErrorBudget:
        """See :meth:`error_budget`."""
        return self.error_budget(slo_name) if store is None else await asyncio.to_thread(self.error_budget, slo_name, store=store)

    async def check_burn_rate(self, slo_name: str) -> float | None:
        """Multiple of the sustainable burn over the last hour; None: no event was seen, which is not the same as no burn."""
        return self.burn_rate(slo_name)

    async def should_block_deployment(
        self, *slo_names: str, policy: DeploymentPolicy | None = None, store: SliStore | None = None, override: Override | None = None
    ) -> Verdict:
        """Truthy when the release must not go on; see :meth:`verdict`."""
        if store is None:
            return self.verdict(*slo_names, policy=policy, override=override)
        return await asyncio.to_thread(self.verdict, *slo_names, policy=policy, store=store, override=override)


def _between(counts: Callable[[float], tuple[int, int]], since: float, until: float) -> tuple[int, int]:
    good, bad = counts(since)
    if until <= 0.0:
        return good, bad
    later_good, later_bad = counts(until)
    return max(0, good - later_good), max(0, bad - later_bad)


def _check_parts(check: Checker, known: Mapping[str, SLO]) -> None:
    """Note parts that are not there, and composites that are part of themselves."""
    for slo in known.values():
        for part in slo.weights:
            if part not in known:
                check.problem(f"{slo.name}.parts", part, f"an objective that was added ({', '.join(known)})", did_you_mean(part, known))
        if slo.name in below(slo, known):
            check.problem(f"{slo.name}.parts", slo.parts, "objectives of which it is no part itself")


def below(slo: SLO, known: Mapping[str, SLO]) -> set[str]:
    """Names of the parts of ``slo``, of their parts and so on; itself among them when it is in a circle."""
    found: set[str] = set()
    ahead = list(slo.weights)
    while ahead:
        name = ahead.pop()
        if name in known and name not in found:
            found.add(name)
            ahead += known[name].weights
    return found


def _parts_first(known: Mapping[str, SLO]) -> list[SLO]:
    """All objectives, each behind its parts."""
    return sorted(known.values(), key=lambda slo: len(below(slo, known)) if slo.parts else 0)
