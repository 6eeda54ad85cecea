"""Decisions: one million with one seed strike the same calls under asyncio, in threads and in 4 processes.

A call is told apart by its scope (the request), its guard and its number there. `--check` fails when any way differs from the others.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _measure import Benchmark, Ratio, Table

PACKAGES = ("somaresil",)
DECISIONS = 1_000_000


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    os.environ |= {"SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": "off"}
    os.environ.pop("SOMARESIL_SEED", None)
    # Interpreters that are started anew must find what this one has found.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)])
    from tests.property.decisions import WAYS, digest, scopes

    decisions = DECISIONS // 50 if bench.quick else DECISIONS
    places = scopes(decisions)
    table = Table(f"{decisions:,} decisions, seed 7, rate 0.2", ("struck", "not as in one thread", "set", "us a decision"))
    expected = None
    for name, way in WAYS.items():
        start = time.perf_counter()
        found = way(places)
        spent = time.perf_counter() - start
        expected = found if expected is None else expected
        other = len(found ^ expected)
        table.rows[name] = (len(found), other, digest(found), spent / decisions * 1e6)
        bench.ratios.append(Ratio(f"{name}: calls that are decided otherwise", float(other), 0.0, "calls"))
    bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
