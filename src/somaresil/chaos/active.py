"""How many calls faults hold up at this moment, and the most that there may be (Envoy's ``max_active_faults``, but exact)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.chaos.run import ExperimentRun

__all__ = ["ActiveFaults"]


class ActiveFaults:
    """The places of one engine. A call has one from the moment it is struck with a delay until that delay is over, and no longer."""

    def __init__(self, runs: Callable[[], Iterable[ExperimentRun]], most: Callable[[], int]) -> None:
        """Count what ``runs()`` hold up."""
        self._runs = runs
        self._most = most
        self._lock = threading.RLock()

    @property
    def total(self) -> int:
        """How many there are in all experiments."""
        return sum(run.active for run in self._runs())

    def enter(self, run: ExperimentRun) -> bool:
        """Take a place for a call that ``run`` is about to hold up; False: there is none, and the call passes unharmed."""
        own = run.config.max_active_faults
        with self._lock:
            if (own is not None and run.active >= own) or self.total >= self._most():
                return False
            run.reserve()
            return True

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()
