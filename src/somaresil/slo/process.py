"""The default store: the rings of this process, and what the processes beside it and before it have written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.model.ledger import covered
from somaresil.slo.store import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.model.ledger import Ledger
    from somaresil.slo.objective import SLO
    from somaresil.slo.series import Events

__all__ = ["ProcessStore"]


class ProcessStore:
    """Rings, at once and without waiting for anybody."""

    def __init__(self, series: Callable[[str], Events]) -> None:
        """``series`` finds an objective's; it raises for an unknown name."""
        self._series = series
        self.others: Callable[[SLO], tuple[Ledger, ...]] | None = None
        """What other processes counted for an objective, when there is a snapshot folder."""

    @property
    def name(self) -> str:
        """``process``, or ``snapshot`` with a folder of snapshots."""
        return "process" if self.others is None else "snapshot"

    def read(self, slo: SLO, window: float) -> Reading:
        """The events of the last ``window`` seconds. Raises ``ConfigurationError`` for an objective that was not added."""
        series = self._series(slo.name)
        if window <= 0.0:
            # The first moment of a calendar period.
            return Reading(0, 0, 0.0, self.name, 0.0)
        (good, bad), begin, now = series.read(window)
        others = self.others
        if others is None or not series.shared or not (ledgers := others(slo)):
            seen = now - begin
            coverage = seen / window if seen < window else 1.0
            if not series.sources and slo.recovery is None and slo.freshness is None:
                silent = "nothing records into it; name it in guard(..., slo=...) or in the middleware"
                # Of a composite the other parts may have counted something: it is no ground to judge on, but it was counted.
                return Reading(good, bad, coverage, self.name, problem=silent)
        else:
            for ledger in ledgers:
                more_good, more_bad = ledger.within(now, window)
                good, bad = good + more_good, bad + more_bad
            coverage = covered([(begin, now), *(span for ledger in ledgers for span in ledger.seen)], now - window, now)
        # As Reading(...) does, in half the time: this is asked for each window of each objective.
        return tuple.__new__(Reading, (good, bad, coverage, "process" if others is None else "snapshot", 0.0, None))
