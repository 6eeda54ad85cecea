"""The objectives of a process, their budgets, and the gate that stands on them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from somaresil.config import Checker, did_you_mean
from somaresil.model import slo as model
from somaresil.slo.gate import DeploymentPolicy, Verdict, decide, weigh
from somaresil.slo.incidents import IncidentLog
from somaresil.slo.objective import LONGEST, SHORTEST, SLO, ErrorBudget
from somaresil.slo.series import Series

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.events import Listeners
    from somaresil.recorder import Recorder
    from somaresil.typing import Clock

__all__ = ["SLOTracker"]


class SLOTracker:
    """Objectives by name. It sees the traffic of this process; a fleet is judged where its counts are added up."""

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        """Begin without objectives."""
        self._clock = clock
        self._lock = threading.RLock()
        self._series: dict[str, Series] = {}
        self.incidents = IncidentLog(clock, listeners)

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
            check.finish()
            added = {name: Series(slo, self._clock, self.incidents) for name, slo in known.items() if name not in self._series}
            self._series = {**self._series, **added}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all objectives, in the order in which they were added."""
        return tuple(self._series)

    def __getitem__(self, name: str) -> SLO:
        """The objective called ``name``."""
        return self.series(name).slo

    def series(self, name: str) -> Series:
        """Its events. Raises :class:`~somaresil.errors.ConfigurationError` for an unknown name."""
        found = self._series.get(name)
        if found is None:
            check = Checker("slos")
            known = ", ".join(self._series) or "none is defined"
            check.problem("name", name, f"an objective that was added ({known})", did_you_mean(name, self._series))
            check.finish()
            raise KeyError(name)
        return found

    def thresholds(self, names: tuple[str, ...]) -> tuple[float, ...]:
        """The latency thresholds of some objectives, in seconds: bucket bounds of whoever records for them."""
        return tuple(float(limit) for name in names if (limit := self[name].latency) is not None)  # type: ignore[arg-type]

    def attach(self, name: str, recorder: Recorder) -> None:
        """Let the objective look at what ``recorder`` counts. Its threshold must be a bound there."""
        self.series(name).feed(recorder)

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def counts(self, name: str, window: float | timedelta) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds (5 minutes to 90 days), as exact as :meth:`Series.counts` says.

        Raises :class:`~somaresil.errors.ConfigurationError` for any other window: it is not remembered, or not finely enough.
        """
        series = self.series(name)
        check = Checker("slos")
        seconds = check.seconds("window", window, minimum=SHORTEST.total_seconds(), maximum=LONGEST.total_seconds(), exclusive=False)
        check.finish()
        return series.counts(seconds)

    def burn_rate(self, name: str, window: float | timedelta = model.HOUR) -> float | None:
        """Multiple of the sustainable burn over ``window``; None: no event."""
        good, bad = self.counts(name, window)
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

    def error_budget(self, name: str) -> ErrorBudget:
        """The budget over the measurement window of the objective."""
        series = self.series(name)
        slo = series.slo
        good, bad = series.counts(slo.period)
        total = model.budget_ratio(slo.target_percentage)
        consumed = model.error_ratio(good, bad)
        return ErrorBudget(
            slo_name=name,
            total_budget=float(total),
            consumed=consumed,
            remaining=None if consumed is None else float(total) - consumed,
            burn_rate=self.burn_rate(name),
            good=good,
            bad=bad,
            window=slo.period,
            coverage=min(1.0, series.age / slo.period),
        )

    def conditions(self, name: str) -> tuple[model.Condition, ...]:
        """The burn-rate conditions of its policy, as they stand now."""
        series = self.series(name)
        slo = series.slo
        return model.alerts(slo.burn_policy, slo.period, slo.target_percentage, series.counts)

    def verdict(self, *names: str, policy: DeploymentPolicy | None = None) -> Verdict:
        """Whether to release, judged on the named objectives, or on all."""
        policy = policy or DeploymentPolicy()
        evidence = []
        for name in names or self.names:
            series = self.series(name)
            budget, conditions = self.error_budget(name), self.conditions(name)
            evidence.append(
                weigh(budget, conditions, policy, sources=series.sources, pending=series.pending, recovery=series.slo.recovery is not None)
            )
        return decide(tuple(evidence), policy)

    # -- the same for coroutines ------------------------------------------------------------------------------------------------------

    async def calculate_error_budget(self, slo_name: str) -> ErrorBudget:
        """See :meth:`error_budget`."""
        return self.error_budget(slo_name)

    async def check_burn_rate(self, slo_name: str) -> float | None:
        """Multiple of the sustainable burn over the last hour; None: no event was seen, which is not the same as no burn."""
        return self.burn_rate(slo_name)

    async def should_block_deployment(self, *slo_names: str, policy: DeploymentPolicy | None = None) -> Verdict:
        """Truthy when the release must not go on; see :meth:`verdict`."""
        return self.verdict(*slo_names, policy=policy)
