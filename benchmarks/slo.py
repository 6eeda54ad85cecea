"""What objectives cost: an event, the window that somebody asks for, a snapshot on disk, a scrape, and the memory they hold.

An event is counted as the quiet path of a guard does it, with two objectives that look at it, beside ``Counter.inc`` of prometheus_client.
A window is asked of the store, as budgets, alerts and the gate do, of objectives with good, bad, slow and rejected calls behind them. A
snapshot is that of four objectives with a month of history: written as a whole, which a thread does, and the part of it during which a call
of an event loop may have to wait, which is the reading of one objective. The longest time in which a loop was kept from running while a
snapshot was written stands in the table without a limit, for it depends on how the interpreter switches. A scrape is that of a thousand
objectives over fifty guards, through prometheus_client's text format, with everything else that the guards export.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from datetime import timedelta
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from _measure import Benchmark, Ratio, Table, Timing, acts, ratio
from overhead import bytes_each, sli_record

from somaresil import SLO, CircuitBreaker, ManualClock, Outcome, Resilience

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("somaresil", "prometheus-client")
RECORD = "somaresil SLI record, two objectives look at it"
INC = "prometheus Counter.inc, bound"
HOUR, DAY = 3_600.0, 86_400.0
WINDOWS = {"5 m": 300.0, "1 h": HOUR, "30 d": 30 * DAY}
OBJECTIVES = 1_000
GUARDS = 50


def lived(number: int) -> tuple[Resilience, Any]:
    """A process with so many objectives on one guard, half of them about latency, and a month behind it."""
    span = 31 * DAY + 2 * HOUR
    clock = ManualClock(monotonic=time.monotonic() - span, time=time.time() - span)
    resilience = Resilience("bench", clock=clock, seed=1)
    names = [f"slo{index}" for index in range(number)]
    resilience.slos.add(*objectives(names))
    guard = resilience.guard("lived", slo=names, breaker=CircuitBreaker())
    recorder = guard.recorder
    for turn in range(31 * 24 * 12):
        clock.advance(300.0)
        recorder.settle(clock.monotonic())
        for _ in range(1 + turn % 3):
            recorder.count_quiet(0.012)
        if turn % 7 == 0:
            recorder.add(Outcome.GOOD, 3.0)
            recorder.add(Outcome.BAD, 0.1)
            recorder.add(Outcome.REJECTED, 0.0)
    # The last two hours in slots of ten seconds.
    for _ in range(720):
        clock.advance(10.0)
        recorder.settle(clock.monotonic())
        recorder.count_quiet(0.012)
    # From here on time goes on by itself, and reading it costs what it costs a program.
    clock.monotonic, clock.time = time.monotonic, time.time  # type: ignore[method-assign]
    return resilience, guard


def objectives(names: list[str]) -> list[SLO]:
    """One each, every second of them about latency."""
    return [SLO(name, 99.9, timedelta(days=30), latency=2.0 if index % 2 else None) for index, name in enumerate(names)]


def least(function: Callable[[], Any], times: int) -> float:
    """Seconds of the quickest of so many turns."""
    gc.collect()
    gc.disable()
    try:
        found = float("inf")
        for _ in range(times):
            start = time.perf_counter()
            function()
            found = min(found, time.perf_counter() - start)
        return found
    finally:
        gc.enable()


def asks(case: tuple[Any, ...], count: int) -> int:
    """A method with its arguments, called as programs call it: a partial would be timed too."""
    function, *arguments = case
    first, second = arguments if len(arguments) == 2 else (*arguments, None)
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    if second is None:
        for _ in turns:
            function(first)
    else:
        for _ in turns:
            function(first, second)
    return time.perf_counter_ns() - start


def measure_events(bench: Benchmark) -> None:
    def counter() -> Any:
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        return prometheus_client.Counter("events", "x", ["outcome"], registry=registry).labels("good").inc

    timing = Timing(acts, {RECORD: sli_record(), INC: bench.peer("prometheus-client", counter)})
    bench.measure([timing], 3.0, lambda: [ratio("SLI record, of a bound Counter.inc", timing.best.get(RECORD), timing.best.get(INC), 0.5)])
    bench.tables.append(timing.table("counting one event", base=None))


def measure_windows(bench: Benchmark) -> None:
    resilience, _ = lived(2)
    slos, cases = resilience.slos, dict[str, Any]()
    for name, what in (("slo0", "availability"), ("slo1", "latency")):
        for text, window in WINDOWS.items():
            cases[f"store.read, {what}, {text}"] = (slos.store.read, slos[name], window)
    cases["slos.counts, availability, 1 h"] = (slos.counts, "slo0", HOUR)
    cases["slos.counts, latency, 1 h"] = (slos.counts, "slo1", HOUR)
    cases["slos.conditions, four windows"] = (slos.conditions, "slo0")
    timing = Timing(asks, cases)

    def ratios() -> list[Ratio]:
        asked = [name for name in cases if "read" in name]
        return [Ratio(f"a window: {name}", timing.best.get(name, 0.0) / 1_000, 2.0, "us") for name in asked]

    bench.measure([timing], 3.0, ratios)
    bench.tables.append(timing.table("asking for a window", base=None, scale=1e-3, unit="us"))


def measure_snapshot(bench: Benchmark) -> None:
    turns = 10 if bench.quick else 150
    with tempfile.TemporaryDirectory() as folder:
        resilience, guard = lived(4)
        snapshot = resilience.slos.keep(folder, service="bench", interval=3_600.0)
        try:

            def written() -> None:
                guard.recorder.count_quiet(0.012)
                snapshot.save()

            series = resilience.slos.series("slo1")
            whole, read = least(written, turns) * 1_000, least(series.ledger, turns * 5) * 1_000  # type: ignore[attr-defined]
            stall = asyncio.run(_stalled(written, turns)) * 1_000
        finally:
            snapshot.stop()
    rows: dict[str, tuple[float | str, ...]] = {
        "written, as a whole": (whole,),
        "of that, what a call may wait for": (read,),
        "longest pause of an event loop meanwhile": (stall,),
    }
    bench.tables.append(Table("a snapshot of four objectives", ("ms",), rows))
    bench.ratios += [
        Ratio("a snapshot, written", whole, 2.0, "ms"),
        Ratio("a snapshot, what a call of an event loop may wait for", read, 1.0, "ms"),
    ]


async def _stalled(write: Callable[[], None], times: int) -> float:
    """The longest time in which a loop did not run while a thread wrote: the least of several writings."""
    found = float("inf")
    for _ in range(times):
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        worst, before = 0.0, time.perf_counter()
        while not writing.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, before = max(worst, now - before), now
        found = min(found, worst)
    return found


def measure_scrape(bench: Benchmark) -> None:
    number = bench.objects(OBJECTIVES)

    def scrape() -> Any:
        import prometheus_client

        from somaresil.integrations.prometheus import ResilienceCollector

        resilience = Resilience("bench", seed=1)
        registry = prometheus_client.CollectorRegistry()
        each = max(1, number // GUARDS)
        resilience.slos.add(*objectives([f"slo{index}" for index in range(number)]))
        for index in range(number // each):
            names = [f"slo{slo}" for slo in range(index * each, (index + 1) * each)]
            recorder = resilience.guard(f"guard{index}", slo=names, breaker=CircuitBreaker()).recorder
            recorder.count_quiet(0.012)
            recorder.add(Outcome.BAD, 0.1)
        registry.register(ResilienceCollector(resilience, limit=100_000))
        text = prometheus_client.generate_latest(registry).decode()
        if text.count("somaresil_sli_events_total{") != 2 * number:
            raise RuntimeError("the scrape lacks objectives")
        return partial(prometheus_client.generate_latest, registry)

    function = bench.peer("prometheus-client", scrape)
    if isinstance(function, str):
        bench.ratios.append(Ratio("a scrape of 1,000 objectives", None, 100.0, "ms"))
        return
    found = least(function, 3 if bench.quick else 30) * 1_000
    bench.tables.append(Table("a scrape", ("ms",), {f"{number:,} objectives over {GUARDS} guards": (found,)}))
    bench.ratios.append(Ratio("a scrape of 1,000 objectives", found, 100.0, "ms"))


def measure_memory(bench: Benchmark) -> None:
    number = bench.objects(500)
    resilience = Resilience("bench", seed=1)
    recorder = resilience.guard("memory").recorder
    slos = [SLO(f"slo{index}", 99.9, timedelta(days=30)) for index in range(number + 1)]

    def made(index: int) -> None:
        resilience.slos.add(slos[index])
        resilience.slos.attach(slos[index].name, recorder)

    # What is made once a process is no objective's.
    made(number)
    recorder.add(Outcome.BAD, 0.1)
    found = bytes_each(made, number) / 1_000
    bench.tables.append(Table("memory", ("kB each",), {f"{number:,} objectives with 90 days of windows": (found,)}))
    bench.ratios.append(Ratio("an objective", found, 66.0, "kB"))


if __name__ == "__main__":
    benchmark = Benchmark(__doc__ or "", PACKAGES)
    measure_events(benchmark)
    measure_windows(benchmark)
    measure_snapshot(benchmark)
    measure_scrape(benchmark)
    measure_memory(benchmark)
    benchmark.finish()
