"""Eight threads at one moment: outcomes of 200,000 rounds that no order of their steps may have.

What jcstress does for the JVM. Each round is a fresh breaker, bulkhead or rate limit, to which eight threads do something at once while the
interpreter switches between them as often as it can (`sys.setswitchinterval(1e-6)`). The scenarios stand in
`tests/behaviour/interleaving.py`, and a short form is in the tests.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _measure import Benchmark, Ratio, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACKAGES = ("somaresil",)
ROUNDS = 200_000


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    from tests.behaviour.interleaving import SCENARIOS, explore

    each = (4_000 if bench.quick else ROUNDS) // len(SCENARIOS) + 1
    table = Table(f"{each:,} rounds each", ("outcomes", "not allowed", "us a round"))
    for name, scenario in SCENARIOS.items():
        start = time.perf_counter()
        found = explore(scenario, each)
        spent = time.perf_counter() - start
        wrong = {outcome: number for outcome, number in found.items() if outcome not in scenario.allowed}
        table.rows[name] = (len(found), sum(wrong.values()), spent / each * 1e6)
        bench.ratios.append(Ratio(f"{name}, outcomes that are not allowed", float(sum(wrong.values())), 0.0, "rounds"))
        bench.notes += [f"{name}: {outcome!r} {number} times" for outcome, number in wrong.items()]
    bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
