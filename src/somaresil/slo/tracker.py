"""The objectives of a process, their budgets, and the gate that stands on them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from somaresil.config import Checker, did_you_mean
from somaresil.events import GateOverridden
from somaresil.model import slo as model
from somaresil.slo.gate import DeploymentPolicy, Override, Verdict
from somaresil.slo.incidents import IncidentLog
from somaresil.slo.judge import budget_of, conditions_of, judge
from somaresil.slo.objective import LONGEST, SHORTEST, SLO, ErrorBudget
from somaresil.slo.process import ProcessStore
from somaresil.slo.series import Series
from somaresil.slo.snapshot import SnapshotFolder

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from somaresil.events import Listeners
    from somaresil.recorder import Recorder
    from somaresil.slo.store import SliStore
    from somaresil.typing import Clock

__all__ = ["SLOTracker"]


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
        self._series: dict[str, Series] = {}
        self._listeners = listeners
        self.incidents = IncidentLog(clock, listeners)
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

    def keep(self, folder: str | os.PathLike[str], *, service: str, interval: float = 5.0) -> SnapshotFolder:
        """Share counts with other processes of ``service``, and with later ones, through files: see :mod:`somaresil.slo.snapshot`.

        What stands there is read at once; from then on a daemon thread writes and reads every ``interval`` seconds.
        """
        self.snapshot = SnapshotFolder(
            folder, lambda: self._series, service=service, clock=self._clock, listeners=self._listeners, interval=interval
        )
        self.snapshot.start()
        self.store.others = self.snapshot.others
        return self.snapshot

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def counts(self, name: str, window: float | timedelta) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds (5 minutes to 90 days), as exact as :meth:`Series.counts` says.

        Raises :class:`~somaresil.errors.ConfigurationError` for any other window: it is not remembered, or not finely enough.
        """
        slo = self[name]
        check = Checker("slos")
        seconds = check.seconds("window", window, minimum=SHORTEST.total_seconds(), maximum=LONGEST.total_seconds(), exclusive=False)
        check.finish()
        reading = self.store.read(slo, seconds)
        return reading.good, reading.bad

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

    def error_budget(self, name: str, *, store: SliStore | None = None) -> ErrorBudget:
        """The budget over the measurement window of the objective."""
        return budget_of(self[name], store or self.store)

    def conditions(self, name: str, *, store: SliStore | None = None) -> tuple[model.Condition, ...]:
        """The burn-rate conditions of its policy, as they stand now."""
        return conditions_of(self[name], store or self.store)

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
        verdict = judge(
            slos, store or self.store, policy or DeploymentPolicy(), pending=lambda slo: self.series(slo.name).pending, override=override
        )
        if override is not None and verdict.decided_to_block:
            self._listeners.emit(GateOverridden(now, override.who, override.reason, override.until, verdict.decision.value))
        return verdict

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
