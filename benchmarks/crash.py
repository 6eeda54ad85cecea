"""A hundred times SIGKILL, SIGTERM and Ctrl-C in the middle of experiments, over every kind of fault: is anything left?

Each process is started, strikes itself, and gets its signal. Another one goes on: it is struck a hundred times, and each fault is ended by
Ctrl-C with a handler, by its lease or by a call. Figures that must be 0 count what is left: processes, files, threads, descriptors,
faults. Memory may be off by 5 MB. Ends are timed against leases of 60 s.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _measure import Benchmark, Ratio, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACKAGES = ("somaresil", "anyio")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    from tests.behaviour import crash

    rounds = len(crash.FAULTS) if bench.quick else 100
    faults = list(crash.FAULTS)
    table = Table("ended in the middle of an experiment", ("processes", "not clean", "slowest, s"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        for how in (*SIGNALS, "leave"):
            # An interpreter that comes to its end by itself is held up by threads of its executor alone.
            kinds = ["resource:executor"] * max(3, rounds // 10) if how == "leave" else [faults[n % len(faults)] for n in range(rounds)]
            ends = list(pool.map(lambda at, how=how: crash.end(at[1], how, Path(folder) / f"{how}{at[0]}"), enumerate(kinds)))
            dirty = [end for end in ends if not end.clean]
            slowest = max(end.seconds for end in ends)
            table.rows[how] = (len(ends), len(dirty), slowest)
            bench.notes.extend(f"{how} {end.fault}: {end.seconds:.2f} s, {end.left}, {end.said[-300:]!r}" for end in dirty[:5])
            bench.ratios.append(Ratio(f"{how}: processes that left something", len(dirty), 0.0, ""))
            bench.ratios.append(Ratio(f"{how}: slowest end", slowest, 5.0, "s"))
        found = crash.survivor(rounds, Path(folder) / "survivor")
    bench.tables.append(table)
    before, after = found["before"], found["after"]
    bench.notes.extend(found["stuck"])
    bench.ratios += [
        Ratio(f"stuck faults after {rounds}", len(found["stuck"]), 0.0, ""),
        Ratio("leaked threads", len(after["threads"]), 0.0, ""),
        Ratio("leaked descriptors", max(0, after["fds"] - before["fds"]), 0.0, ""),
        Ratio("limits that were not put back", float(after["limit"] != before["limit"]), 0.0, ""),
        Ratio("leaked connections and files", 3 - len(found["pool"]) + len(found["files"]), 0.0, ""),
        Ratio("leaked memory", (after["resident"] - before["resident"]) / 1e6, 5.0, "MB"),
        Ratio("answer of the loop and its threads afterwards", found["lag"], 1.0, "s"),
    ]
    bench.finish()


if __name__ == "__main__":
    main()
