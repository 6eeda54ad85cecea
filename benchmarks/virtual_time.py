"""What a test in virtual time costs in real time.

- 500 sleeps of one second, one after the other, and 500 tasks that sleep at once, beside looptime.
- A breaker's recovery over ten minutes: an outage of five, a call a second, everything recorded (`capture_events`) and judged.
- The same as a simulation with a fault plan, as Hypothesis runs it for each example.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from _measure import Benchmark, Ratio, Table, ratio

from somaresil import ChaosPlan, CircuitBreaker, FaultWindow, Resilience
from somaresil.testing import VirtualClock, assert_recovers, capture_events, inject_plan, recovers_within, scenario

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("somaresil", "looptime")
SLEEPS = 500
OUTAGE = ChaosPlan([FaultWindow("llm.invoke", "error", start=30, duration=300)])


async def sleeps() -> None:
    for _ in range(SLEEPS):
        await asyncio.sleep(1.0)


async def at_once() -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(SLEEPS):
            tasks.create_task(asyncio.sleep(1.0 + number % 7))


def lived(make_loop: Callable[[], Any], main: Callable[[], Any]) -> float:
    """Milliseconds of ``main``, without making and closing the loop."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        loop = runner.get_loop()
        began = loop.time()
        start = time.perf_counter()
        runner.run(main())
        spent = time.perf_counter() - start
        if main is sleeps and abs(loop.time() - began - SLEEPS) > 0.001:
            raise RuntimeError(f"{loop} did not sleep {SLEEPS} s but {loop.time() - began}")
    return spent * 1e3


def ours() -> Any:
    return VirtualClock().new_loop()


def looptimes() -> Any:
    import looptime

    return looptime.new_event_loop(start=0)


def guarded(resilience: Resilience) -> Callable[[], Any]:
    @resilience.guard("llm.invoke", breaker=CircuitBreaker(minimum_calls=5), timeout=2.0)
    async def invoke() -> str:
        await asyncio.sleep(0.05)
        return "answer"

    return invoke


def recovery() -> float:
    """Milliseconds of a test of ten minutes: made, lived through, judged."""
    start = time.perf_counter()
    clock = VirtualClock()
    resilience = Resilience("bench", environment="test", clock=clock, seed=7)
    invoke = guarded(resilience)

    async def ten_minutes() -> None:
        while clock.monotonic() < 600.0:
            with suppress(Exception):
                await invoke()
            await asyncio.sleep(1.0)

    with capture_events(resilience) as history, inject_plan(resilience, OUTAGE):
        clock.run(ten_minutes())
        assert_recovers(history, within=150.0)
    return (time.perf_counter() - start) * 1e3


@scenario(recovers_within(150.0), horizon=600.0)
async def agent(world: Any) -> None:
    invoke = guarded(world.resilience)
    async for _ in world.ticks(1.0):
        try:
            await invoke()
        except Exception:
            continue


def simulation() -> float:
    start = time.perf_counter()
    agent.check(OUTAGE)
    return (time.perf_counter() - start) * 1e3


def measure(bench: Benchmark, cases: dict[str, Any], rounds: int) -> dict[str, float]:
    """The smallest milliseconds of each case; they take turns."""
    timed = {name: case for name, case in cases.items() if not isinstance(case, str)}
    best = dict.fromkeys(timed, float("inf"))
    for _ in range(2 if bench.quick else rounds):
        for name, case in timed.items():
            gc.collect()
            best[name] = min(best[name], case())
    return best


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    peer = bench.peer("looptime", lambda: bool(looptimes().close()) or looptimes)
    cases = {
        "500 sleeps, VirtualClock": lambda: lived(ours, sleeps),
        "500 sleeps, looptime": peer if isinstance(peer, str) else lambda: lived(looptimes, sleeps),
        "500 sleeping tasks, VirtualClock": lambda: lived(ours, at_once),
        "500 sleeping tasks, looptime": peer if isinstance(peer, str) else lambda: lived(looptimes, at_once),
        "ten minutes of a breaker's recovery, as a test": recovery,
        "the same, as a simulation": simulation,
    }
    best = measure(bench, cases, 15)
    table = Table("virtual time", ("ms",))
    for name, case in cases.items():
        table.rows[name] = (case if isinstance(case, str) else best[name],)
    bench.tables.append(table)
    bench.ratios.append(ratio("500 sleeps / looptime", best["500 sleeps, VirtualClock"], best.get("500 sleeps, looptime"), 0.15))
    bench.ratios.append(Ratio("ten minutes of recovery", best["ten minutes of a breaker's recovery, as a test"], 50.0, "ms"))
    bench.finish()


if __name__ == "__main__":
    main()
