"""What the runtime guard costs: operations that Python audits, without a hook, with one that does nothing, and while it watches.

A hook cannot be taken away, so what is measured without one is measured first; minima are compared, as everywhere. "id()" is an audited
operation that is none of ours, and stands for all of those.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from _measure import Benchmark, Ratio, Table, Timing, acts

from somaresil import Resilience
from somaresil.runtime_guard import RuntimeGuard, RuntimeRules

OF_NONE_OF_OURS = 600.0
"""Nanoseconds that an audited operation may cost more which no rule looks at."""
OF_OURS = 60_000.0
"""The same of one that is judged: links are followed, and that asks the system."""


def operations(folder: Path) -> dict[str, Any]:
    written = str(folder / "written")
    thing = object()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def write() -> None:
        os.close(os.open(written, os.O_WRONLY | os.O_CREAT))

    def read() -> None:
        os.close(os.open(written, os.O_RDONLY))

    def connect() -> None:
        datagrams.connect(("127.0.0.1", 9))

    write()
    return {"id()": lambda: id(thing), "open for reading": read, "open for writing": write, "connect to loopback": connect}


def main() -> None:
    benchmark = Benchmark(__doc__ or "", ("somaresil",))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ways = ("without a hook", "not watching", "watching")
        timings = {way: Timing(acts, operations(folder)) for way in ways}
        names = tuple(operations(folder))
        benchmark.measure((timings["without a hook"],), 1.5)
        resilience = Resilience("benchmark")
        guard = RuntimeGuard(
            resilience, RuntimeRules(processes=(), hosts=(), writes=(made,), native=("python",), block=("writes",))
        ).start()
        guard.stop()
        benchmark.measure((timings["not watching"],), 1.5)
        guard.start()

        def more(name: str, way: str) -> float | None:
            before, after = timings["without a hook"].best.get(name), timings[way].best.get(name)
            return None if before is None or after is None else after - before

        def ratios() -> list[Ratio]:
            found = [Ratio(f"{name}, not watching", more(name, "not watching"), OF_NONE_OF_OURS, "ns") for name in names]
            found += [Ratio(f"{name}, watching", more(name, "watching"), OF_NONE_OF_OURS, "ns") for name in ("id()", "open for reading")]
            return [*found, *(Ratio(f"{name}, watching", more(name, "watching"), OF_OURS, "ns") for name in names[2:])]

        benchmark.measure((timings["watching"],), 1.5, ratios)
        guard.stop()
    benchmark.tables = [Table("an operation, ns", ways, {name: tuple(timings[way].best[name] for way in ways) for name in names})]
    benchmark.finish()


if __name__ == "__main__":
    main()
