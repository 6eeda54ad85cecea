"""How cost grows: with the number of guards, with threads, and at start-up.

- A call through one guard while 10, 1,000 and 10,000 of them exist, and through all of them in turn (which leaves the processor's caches
  at some point); reading everything out at once, as a snapshot and as a scrape by Prometheus.
- 1,000,000 events from 8 threads through one guard, a tenth of them failures, while a ninth thread keeps reading: the counts must be
  exact.
- ``import somaresil`` in fresh interpreters. Its names are loaded when they are first used; what that costs is shown as well.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from itertools import cycle, pairwise, repeat
from typing import Any

from _measure import Benchmark, Ratio, Table, Timing, calls, ratio

from somaresil import SLO, CircuitBreaker, Outcome, Resilience

PACKAGES = ("somaresil", "prometheus-client")
SIZES = (10, 1_000, 10_000)
THREADS = 8
ANYWAY = "import asyncio, dataclasses, decimal, inspect, logging, typing"
"""What any service has imported already."""
EVERYTHING = "from somaresil import SLO, ChaosConfig, CircuitBreaker, Resilience, ResilienceMiddleware, Retry"


def plain(value: Any) -> Any:
    return value


def guards(number: int) -> tuple[Resilience, list[Any]]:
    resilience = Resilience("bench", seed=1)
    return resilience, [resilience.guard(f"component.{index}", breaker=True)(plain) for index in range(number)]


def turns(functions: Any, count: int) -> int:
    """A call of each function in turn."""
    source = cycle(functions)
    steps = repeat(None, count)
    for _ in range(100):
        next(source)(1)
    start = time.perf_counter_ns()
    for _ in steps:
        next(source)(1)
    return time.perf_counter_ns() - start


def scrape(resilience: Resilience, limit: int) -> Any:
    """A function that answers a scrape of Prometheus with at most ``limit`` label sets a metric."""
    import prometheus_client

    from somaresil.integrations.prometheus import ResilienceCollector

    registry = prometheus_client.CollectorRegistry()
    registry.register(ResilienceCollector(resilience, limit=limit))
    return lambda: prometheus_client.generate_latest(registry)


def fastest(function: Any, times: int) -> float:
    """Milliseconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def measure_guards(bench: Benchmark) -> None:
    sizes = SIZES[:-1] if bench.quick else SIZES
    made = {size: guards(size) for size in sizes}
    gc.freeze()
    one = Timing(calls, {f"{size:,}": functions[size // 2] for size, (_, functions) in made.items()})
    all_of_them = Timing(turns, {f"{size:,}": functions for size, (_, functions) in made.items()})
    few, many = f"{sizes[0]:,}", f"{sizes[-1]:,}"

    def ratios() -> list[Ratio]:
        return [ratio(f"a call with {many} guards, of one with {few}", one.best[many], one.best[few], 1.1)]

    bench.measure([one, all_of_them], 4.0, ratios)
    times = 1 if bench.quick else 3
    table = Table("guards", ("ns, one", "ns, all in turn", "ms, snapshot()", "ms, scrape", "ms, scrape all", "us a guard"))
    for size, (resilience, _) in made.items():
        name = f"{size:,}"
        snapshot = fastest(resilience.snapshot, times)
        # By default a metric has at most 200 label sets, and what is beyond is added up.
        scrapes = [bench.peer("prometheus-client", lambda r=resilience, n=n: fastest(scrape(r, n), times)) for n in (200, max(200, size))]
        each = "" if isinstance(scrapes[1], str) else scrapes[1] * 1e3 / size
        table.rows[name] = (one.best[name], all_of_them.best[name], snapshot, *scrapes, each)
    bench.tables.append(table)
    gc.unfreeze()


def measure_threads(bench: Benchmark) -> None:
    each = (10_000 if bench.quick else 1_000_000) // THREADS
    resilience = Resilience("bench", seed=1)
    resilience.slos.add(SLO("availability", 99.9, timedelta(days=30)))
    # A tenth fails; the breaker looks at every one of them and stays closed.
    guard = resilience.guard("hammered", slo="availability", breaker=CircuitBreaker(failure_rate=0.9))

    @guard
    def call(number: int) -> None:
        if number % 10 == 0:
            raise ValueError

    together = threading.Barrier(THREADS + 1)
    done = threading.Event()
    readings: list[int] = []

    def hammer() -> None:
        together.wait()
        for number in range(each):
            try:  # noqa: SIM105
                call(number)
            except ValueError:
                pass

    def read() -> None:
        while not done.is_set():
            readings.append(guard.recorder.counts().total())
            time.sleep(0.001)

    threads = [threading.Thread(target=hammer) for _ in range(THREADS)]
    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many switches in the middle of a call as can be had
    try:
        for thread in (*threads, reader):
            thread.start()
        together.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        spent = time.perf_counter() - start
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)
    counts = guard.recorder.counts()
    good, bad = counts.total(Outcome.GOOD), counts.total(Outcome.BAD)
    failing = THREADS * -(-each // 10)
    seen_good, seen_bad = resilience.slos.counts("availability", timedelta(days=1))
    expected = (THREADS * each - failing, failing)
    wrong = sum(abs(a - b) for a, b in zip((good, bad, seen_good, seen_bad), (*expected, *expected), strict=True))
    wrong += sum(later < earlier for earlier, later in pairwise(readings))
    table = Table(f"{THREADS * each:,} events from {THREADS} threads", ("expected", "counted", "seen by the SLO"))
    table.rows["good"] = (expected[0], good, seen_good)
    table.rows["bad"] = (expected[1], bad, seen_bad)
    bench.tables.append(table)
    bench.notes.append(f"threads: {spent / (THREADS * each) * 1e9:,.0f} ns an event of wall time, {len(readings):,} readings meanwhile")
    bench.ratios.append(Ratio("events lost or counted twice", float(wrong), 0.0, "events"))


def measure_import(bench: Benchmark) -> None:
    statements = {
        "pass": "pass",
        "import somaresil": "import somaresil",
        f"A: {ANYWAY}": ANYWAY,
        f"B: {EVERYTHING}": EVERYTHING,
        "A, then B": f"{ANYWAY}; {EVERYTHING}",
    }
    best = dict.fromkeys(statements, float("inf"))
    for _ in range(3 if bench.quick else 15):
        for name, statement in statements.items():
            best[name] = min(best[name], _fresh(statement))
    table = Table("a fresh interpreter", ("ms", "ms over"))
    for name, spent in best.items():
        table.rows[name] = (spent, spent - best["pass"])
    bench.tables.append(table)
    bench.ratios.append(Ratio("import somaresil", best["import somaresil"] - best["pass"], 50.0, "ms"))
    profile = subprocess.run([sys.executable, "-X", "importtime", "-c", EVERYTHING], capture_output=True, text=True, check=True).stderr
    lines = profile.splitlines()
    bench.notes.append("-X importtime, its end (self us | cumulative us):\n" + "\n".join(lines[-12:]))
    foreign = sorted({name for line in lines[1:] if (name := line.rpartition("|")[2].strip().partition(".")[0]) in _THIRD_PARTY})
    bench.notes.append(f"third-party packages imported: {', '.join(foreign) or 'none'}")


_THIRD_PARTY = {"opentelemetry", "prometheus_client", "pybreaker", "starlette", "tenacity", "wrapt"}


def _fresh(statement: str) -> float:
    """Milliseconds of an interpreter that does this and nothing else."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=os.environ)
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    benchmark = Benchmark(__doc__ or "", PACKAGES)
    measure_guards(benchmark)
    measure_threads(benchmark)
    measure_import(benchmark)
    benchmark.finish()
