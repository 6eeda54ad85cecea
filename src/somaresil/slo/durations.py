"""How long the stages of incidents took, as histograms: of each guard and of each objective."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Final

__all__ = ["BETWEEN_BOUNDS", "RECOVERY_BOUNDS", "STAGES", "Durations", "Whose"]

RECOVERY_BOUNDS: Final = (
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0),
    *(7_200.0, 21_600.0, 86_400.0, 259_200.0),
)
"""Buckets of detection, mitigation and recovery, in seconds.

From five minutes on they are the windows of the alerts of the SRE Workbook (table 5-8: 5 m, 30 m, 1 h, 2 h, 6 h, 1 d, 3 d), after which
those alerts fire and clear; an hour and a day are also where the DORA reports draw their lines for the time to restore. Below are steps
that show how a breaker differs from another; five minutes is the usual objective for its recovery.
"""

BETWEEN_BOUNDS: Final = (60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0, 7_776_000.0)
"""Buckets of the time between incidents, in seconds: the same windows, then the periods of objectives (7, 30 and 90 days)."""

STAGES: Final = {"detection": RECOVERY_BOUNDS, "mitigation": RECOVERY_BOUNDS, "recovery": RECOVERY_BOUNDS, "between": BETWEEN_BOUNDS}
"""What is measured, and in which buckets."""

Whose = tuple[str, str]
"""A guard and no objective, or the other way round; what it is not is empty."""


class Durations:
    """Counts a stage, a guard or objective, and a bucket: names of the code, and so no more of them than there are."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self._lock = threading.RLock()
        self._cells: dict[str, dict[Whose, tuple[list[int], list[float]]]] = {stage: {} for stage in STAGES}

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()

    def add(self, stage: str, whose: Whose, seconds: float) -> None:
        """Count one."""
        bounds = STAGES[stage]
        with self._lock:
            counts, total = self._cells[stage].setdefault(whose, ([0] * (len(bounds) + 1), [0.0]))
            counts[bisect_left(bounds, seconds)] += 1
            total[0] += seconds

    def read(self, stage: str) -> dict[Whose, tuple[list[int], float]]:
        """By guard or objective: how many were in each bucket (and above), and the sum of their seconds."""
        with self._lock:
            return {whose: (list(counts), total[0]) for whose, (counts, total) in self._cells[stage].items()}
