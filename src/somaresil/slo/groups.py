"""Budgets by a label: each tenant, model or route has its own, and no label fills the memory.

There are at most ``max_groups``; what comes then is counted together as ``_other``. A group makes room for another one only when it has had
no event for an hour and its budget is not burning, so a client that makes up labels neither pushes anybody out nor has more than
``max_groups`` names an hour shown in a metric.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from somaresil.model import slo as model
from somaresil.slo.series import Series

if TYPE_CHECKING:
    from somaresil.slo.incidents import IncidentLog
    from somaresil.slo.objective import SLO
    from somaresil.typing import Clock

__all__ = ["OTHER", "Groups"]

OTHER: Final = "_other"
_IDLE: Final = 3_600.0
_PAUSE: Final = 10.0
"""Seconds between two looks for a group that may go: labels that are made up must not cost a search each."""
_LONGEST: Final = 120


class Groups:
    """The series of one objective, by the value of its label."""

    def __init__(self, slo: SLO, clock: Clock, incidents: IncidentLog) -> None:
        """None yet."""
        self._slo = slo
        self._clock = clock
        self._incidents = incidents
        self._lock = threading.RLock()
        self._series: dict[str, Series] = {}
        self._used: dict[str, float] = {}
        self._look_at = float("-inf")

    @property
    def names(self) -> tuple[str, ...]:
        """The values that have a budget now, ``_other`` among them if there was too much."""
        return tuple(self._series)

    def get(self, name: str) -> Series | None:
        """The events of one; None: it has none."""
        return self._series.get(name)

    def tell(self, label: object, *, good: bool, injected: bool, now: float) -> None:
        """Count an event of ``label``; None belongs to nobody, and is counted as ``_other``."""
        name = OTHER if label is None else (str(label)[:_LONGEST] or OTHER)
        series = self._series.get(name)
        if series is None:
            name, series = self._room(name, now)
        self._used[name] = now
        series.tell(good=good, injected=injected, now=now)

    def _room(self, name: str, now: float) -> tuple[str, Series]:
        # It stands in metrics and reports: half a character would cost the whole scrape.
        name = name.encode("utf-8", "replace").decode()
        with self._lock:
            if name in self._series:
                return name, self._series[name]
            # The one of all others is beyond the limit.
            if name != OTHER and len(self._series) - (OTHER in self._series) >= self._slo.max_groups and not self._forget(now):
                name = OTHER
            series = self._series.get(name)
            if series is None:
                series = Series(self._slo, self._clock, self._incidents)
                # Replaced, not changed: whoever goes through the names does so without the lock.
                self._series = {**self._series, name: series}
            return name, series

    def _forget(self, now: float) -> bool:
        """Make room; False: there is nobody who could go."""
        if now < self._look_at:
            return False
        self._look_at = now + _PAUSE
        idle = sorted((used, name) for name, used in self._used.items() if now - used >= _IDLE and name != OTHER and name in self._series)
        for _, name in idle:
            if not self._burns(self._series[name]):
                self._series = {other: series for other, series in self._series.items() if other != name}
                self._used.pop(name, None)
                return True
        return False

    def _burns(self, series: Series) -> bool:
        """Whether its objective is missed, so that forgetting it would hide that."""
        begin, _ = self._slo.bounds(series.now)
        burn = model.burn_rate(*series.counts(max(_PAUSE, series.now - begin)), self._slo.target_percentage)
        return burn is not None and burn > 1.0
