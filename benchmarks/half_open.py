"""A half-open circuit and a hundred callers at once, a thousand times: exactly as many as there are probes reach the dependency.

With tasks of one event loop and with threads that begin together. Six of ten Python breakers let all of them through.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _measure import Benchmark, Ratio, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACKAGES = ("somaresil",)
TRIALS = 1_000
PROBES = 3


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    from tests.behaviour.half_open import CALLERS, tasks_that_reach_it, threads_that_reach_it

    trials = 20 if bench.quick else TRIALS

    async def tasks() -> Any:
        return Counter([await tasks_that_reach_it(PROBES) for _ in range(trials)])

    def threads() -> Any:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with ThreadPoolExecutor(CALLERS) as crowd:
                return Counter(threads_that_reach_it(PROBES, crowd) for _ in range(trials))
        finally:
            sys.setswitchinterval(interval)

    table = Table(f"{trials:,} trials, {CALLERS} callers", ("exactly N", "others", "ms a trial"))
    for name, run in (("asyncio", lambda: asyncio.run(tasks())), ("threads", threads)):
        start = time.perf_counter()
        found = run()
        spent = time.perf_counter() - start
        right = found[PROBES, CALLERS - PROBES]
        table.rows[name] = (right, trials - right, spent / trials * 1e3)
        bench.ratios.append(Ratio(f"{name}, trials with another number of probes than {PROBES}", float(trials - right), 0.0, "trials"))
        bench.notes += [f"{name}: {inside} let in, {refused} refused" for inside, refused in found if inside != PROBES]
    bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
