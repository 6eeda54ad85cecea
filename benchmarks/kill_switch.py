"""Kill switch: how long after `stop` the last fault is injected, with 4 workers at 500 requests a second that are all struck.

Real gunicorn with uvicorn workers, and `uvicorn --workers`. The load is our own and bounded; the stop is one write to the file of the
switch, by a process that is none of them. `/slow` requests are being delayed by a minute when it comes: they too must go on. A fault is
timed in the worker that injects it, on the monotonic clock of the machine, which all processes share.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _measure import Benchmark, Ratio, Table

PACKAGES = ("somaresil", "gunicorn", "uvicorn")
RATE = 500.0
WORKERS = 4


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    from tests.integration.kill_switch import SERVERS, trial

    trials, length = (1, 1.0) if bench.quick else (5, 4.0)
    for server in SERVERS:
        if server in bench.missing:
            continue
        table = Table(
            f"{server}, {WORKERS} workers, {RATE:g} requests a second asked for",
            ("struck", "struck a second", "last fault, s", "last release, s", "good after", "failed"),
        )
        for number in range(1, trials + 1):
            with tempfile.TemporaryDirectory() as folder:
                found = trial(server, Path(folder), workers=WORKERS, rate=RATE, before=length, after=1.5)
            # None after the stop at all is as good as at once.
            last = max(0.0, found.last_fault)
            table.rows[f"stop {number}"] = (found.struck, found.rate, last, found.last_release, found.good_after, found.failed)
            bench.ratios += [
                Ratio(f"{server}, stop {number}: last fault", last, 1.0, "s"),
                Ratio(f"{server}, stop {number}: last delayed call", found.last_release, 1.0, "s"),
                Ratio(f"{server}, stop {number}: failed", float(found.failed), 0.0, "requests"),
                Ratio(f"{server}, stop {number}: share of the load that was missing", 1.0 - found.rate / RATE, 0.9 if bench.quick else 0.1),
            ]
        bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
