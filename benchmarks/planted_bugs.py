"""How long it takes to find bugs that were planted, and what is left of the schedules that show them.

Each of the services in `tests/planted` is searched by Hypothesis, with the same examples in every run, until its bug is found and the
schedule is as small as it gets.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _measure import Benchmark, Ratio, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACKAGES = ("somaresil", "hypothesis")
EXAMPLES = 400


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    from somaresil.testing import InvariantBroken
    from tests.planted import services
    from tests.planted.test_planted_bugs import BUGS, search

    table = Table("planted bugs", ("runs", "seconds"))
    for name in BUGS:
        subject = getattr(services, name)
        runs, check = 0, subject.check

        def counted(plan: object, check: object = check) -> object:
            nonlocal runs
            runs += 1
            return check(plan)

        subject.check = counted
        start = time.perf_counter()
        plan = None
        try:
            search(name, subject, EXAMPLES)
        except InvariantBroken as found:
            plan = found.simulation.plan
        finally:
            del subject.check
        spent = time.perf_counter() - start
        table.rows[name] = (runs, spent)
        bench.notes.append(f"{name}: {plan!r}" if plan is not None else f"{name}: NOT FOUND")
        bench.ratios.append(Ratio(f"{name}, found and shrunk", spent if plan is not None else None, 60.0, "s"))
    bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
