"""What one process says of its objectives: counts of windows, and of the budget over time, from the rings that objectives have anyway."""

from __future__ import annotations

import math
import os
import socket
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from somaresil.model.slo import objective_ratio
from somaresil.slo.gate import Decision
from somaresil.slo.series import Composite

if TYPE_CHECKING:
    from somaresil.resilience import Resilience
    from somaresil.slo.objective import SLO

__all__ = ["BURNS", "Budgets"]

BURNS: Final = (300, 1_800, 3_600, 7_200, 21_600, 86_400, 259_200)
"""Seconds over which burn rates are shown: 5 minutes to 3 days."""
_POINTS: Final = 48
"""In a plot of a budget over its period."""
_GRID: Final = 300.0
"""Points lie on multiples of this, as the slots of the rings do, so that those of several processes add up."""
_FURTHEST: Final = 90 * 86_400.0
_FRESH: Final = 2.5
"""Seconds for which nothing is asked again."""
_POINTS_FRESH: Final = 60.0
_PLOTS_AT_ONCE: Final = 5


class Budgets:
    """The objectives of a process. Not safe for use from several threads at once."""

    def __init__(self, resilience: Resilience) -> None:
        """Nothing is asked yet."""
        self._resilience = resilience
        self._at = -math.inf
        self._known: dict[str, dict[str, Any]] = {}
        self._points: dict[str, tuple[float, list[list[int]]]] = {}

    def read(self, source: str) -> dict[str, dict[str, Any]]:
        """All objectives by name. ``source``: whose counts these are, when they are nobody else's."""
        clock, slos = self._resilience.clock, self._resilience.slos
        if clock.monotonic() - self._at < _FRESH and self._known.keys() == {*slos.names}:
            # Counts change slowly, and cost a look at every guard that feeds them. Alerts may be news.
            self._known = {name: {**each, "alerts": self._alerts(name)} for name, each in self._known.items()}
            return self._known
        self._plotted = 0
        found = {}
        for name in slos.names:
            try:
                found[name] = self._one(slos[name], source)
            except Exception as defect:  # noqa: BLE001 - one objective must not hide the others
                self._resilience.listeners.defect(f"dashboard on objective {name}", defect, clock.time(), "it was left out")
        self._known, self._at = found, clock.monotonic()
        return found

    def _one(self, slo: SLO, source: str) -> dict[str, Any]:
        slos, now = self._resilience.slos, self._resilience.clock.time()
        series = slos.series(slo.name)
        begin, end = slo.bounds(now)
        reading = slos.store.read(slo, now - begin)
        unit = series.unit
        if isinstance(series, Composite):
            good, bad = series.events(max(1.0, now - begin))
        else:
            good, bad = round(reading.good / unit), round(reading.bad / unit)
        windows = {}
        for window in BURNS:
            seen = slos.store.read(slo, float(window))
            windows[str(window)] = [seen.good, seen.bad]
        counted = {
            "at": now,
            "events": [good, bad],
            "counts": [reading.good, reading.bad],
            "coverage": min(1.0, max(0.0, reading.coverage)),
            "windows": windows,
            "points": self._plot(slo, begin, end, now),
        }
        return {
            "target": float(objective_ratio(slo.target_percentage)),
            "period": slo.period,
            "length": end - begin if slo.calendar is not None else slo.period,
            "kind": slo.indicator,
            "policy": slo.burn_policy.name if not isinstance(slo.error_budget_policy, str) else slo.error_budget_policy,
            "description": slo.description,
            "weights": {name: float(weight) for name, weight in slo.weights.items()},
            "blocks": slos.verdict(slo.name).decision is Decision.BLOCK,
            "alerts": self._alerts(slo.name),
            "counted": {self._whose(source, shared=series.shared): counted},
        }

    def _alerts(self, name: str) -> list[dict[str, Any]]:
        alerts = [alert for alert in self._resilience.firing if alert.slo == name]
        return [{"severity": alert.severity, "since": alert.fired_at, "group": alert.group} for alert in alerts]

    def _whose(self, source: str, *, shared: bool) -> str:
        """Who counts together: all that share a folder of snapshots tell of the same events, and those must not be added up again."""
        folder = self._resilience.slos.snapshot
        if folder is None or not shared:
            return source
        where = f"{socket.gethostname()}\0{os.path.realpath(folder.folder)}\0{self._resilience.service}"
        return f"shared-{blake2b(where.encode(errors='replace'), digest_size=8).hexdigest()}"

    def _plot(self, slo: SLO, begin: float, end: float, now: float) -> list[list[int]]:
        """Good and bad events of the budget's window as it was at moments of the past: ``[moment, good, bad]``, oldest first."""
        clock = self._resilience.clock
        at, known = self._points.get(slo.name, (-math.inf, []))
        if clock.monotonic() - at < _POINTS_FRESH or self._plotted >= _PLOTS_AT_ONCE:
            return known
        self._plotted += 1
        read = self._resilience.slos.store.read
        grid = max(_GRID, (end - begin if slo.calendar is not None else slo.period) / _POINTS // _GRID * _GRID)
        points = []
        last = int(now // grid)
        for place in range(last - _POINTS, last + 1):
            moment = place * grid
            since = begin if slo.calendar is not None else moment - slo.period
            if moment <= since or now - since > _FURTHEST:
                continue
            whole, later = read(slo, now - since), read(slo, now - moment)
            good, bad = max(0, whole.good - later.good), max(0, whole.bad - later.bad)
            if good or bad:
                points.append([int(moment), good, bad])
        self._points[slo.name] = (clock.monotonic(), points)
        return points
