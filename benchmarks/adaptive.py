"""What limits make of a server that loses half of its capacity and gets it back, in virtual time.

A server does a hundred calls at once, each in a quarter of a second, give or take; what comes beyond that waits in there, in order.
Calls come at random, half as many again as it can do at its best. Between second 100 and second 200 it has half of its capacity. In front
of it: nothing, a bulkhead that was right for the whole capacity, and an adaptive limit by either algorithm. They are the policies
themselves, on a clock that the simulation moves; nothing is waited for, and every run gives the same figures.

- *goodput*: answers within twice the time of one without waiting, as a share of what the server could do at best;
- *p99*: of all answers, as a multiple of that time.

Both are taken when the limit has had time to settle after each change. The last table is half an hour of overload: the baseline must
still be what it was, or the limit would creep up to what is seen under overload.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from _measure import Benchmark, Ratio, Table

from somaresil import AdaptiveLimit, Bulkhead, ManualClock, Outcome, Resilience

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("somaresil",)
BASE = 0.25
CAPACITY = 100
EXCESS = 1.5
LIMITS: dict[str, Any] = {
    "no limit": None,
    "bulkhead of 110": Bulkhead(110),
    "adaptive, gradient": AdaptiveLimit(),
    "adaptive, vegas": AdaptiveLimit(algorithm="vegas"),
}
SPELLS = (("whole", 60.0, 100.0, 1.0), ("half", 150.0, 200.0, 0.5), ("again", 260.0, 300.0, 1.0))
"""From when to when it is looked at, and the share of the capacity that there is."""
ENOUGH = 0.95
LONGEST = 2.0


@dataclass
class Answers:
    """What a server has answered: when each call ended and how long it took; and the limit at work, if any."""

    ended: list[tuple[float, float]]
    refused: int
    limit: Any

    def goodput(self, begin: float, end: float, capacity: float) -> float:
        good = sum(begin <= at < end and took <= LONGEST * BASE for at, took in self.ended)
        return good / (end - begin) / (capacity / BASE)

    def p99(self, begin: float, end: float) -> float:
        took = sorted(took for at, took in self.ended if begin <= at < end)
        return took[int(0.99 * len(took))] / BASE if took else float("inf")


def simulate(options: Any, capacity: Callable[[float], float], seconds: float, rate: float, seed: int = 1) -> Answers:
    """Let calls come for so many seconds, ``rate`` a second; at each moment the server works on at most ``capacity`` of them."""
    chance, clock = Random(seed), ManualClock(monotonic=0.0)
    guard = Resilience("bench", clock=clock, seed=1).guard("server", bulkhead=options)
    limit = guard.bulkhead
    answers, line, busy, number = Answers([], 0, limit), deque[tuple[float, Any]](), 0, 0
    events: list[tuple[float, int, tuple[float, Any] | None]] = [(0.0, 0, None)]

    def work(call: tuple[float, Any], now: float) -> None:
        nonlocal busy, number
        busy += 1
        number += 1
        heapq.heappush(events, (now + max(0.05 * BASE, chance.gauss(BASE, 0.1 * BASE)), number, call))

    while events[0][0] < seconds:
        now, _, call = heapq.heappop(events)
        clock._monotonic = now
        if call is None:
            number += 1
            heapq.heappush(events, (now + chance.expovariate(rate), number, None))
            token = None if limit is None else limit.try_enter()
            if limit is not None and token is None:
                answers.refused += 1
                continue
            line.append((now, token))
        else:
            began, token = call
            busy -= 1
            answers.ended.append((now, now - began))
            if limit is not None:
                limit.leave(token, Outcome.GOOD, now - began, now)
        while line and busy < capacity(now):
            work(line.popleft(), now)
    return answers


def halving(capacity: float) -> Callable[[float], float]:
    """The capacity of the server at a time."""
    return lambda now: capacity / 2 if 100.0 <= now < 200.0 else capacity


def settled(bench: Benchmark, whole: float) -> None:
    table = Table("settled", tuple(f"{what} {spell}" for spell, *_ in SPELLS for what in ("goodput", "p99")))
    for name, options in LIMITS.items():
        answers = simulate(options, halving(whole), 300.0, EXCESS * whole / BASE)
        figures = [(answers.goodput(begin, end, share * whole), answers.p99(begin, end)) for _, begin, end, share in SPELLS]
        table.rows[name] = tuple(figure for pair in figures for figure in pair)
        if isinstance(options, AdaptiveLimit):
            for (spell, *_), (goodput, p99) in zip(SPELLS, figures, strict=True):
                bench.ratios.append(Ratio(f"{name}, {spell}: goodput lost", max(0.0, 1.0 - goodput), 1.0 - ENOUGH, "of the optimum"))
                bench.ratios.append(Ratio(f"{name}, {spell}: p99", p99, LONGEST, "x base"))
    bench.tables.append(table)


def half_an_hour(bench: Benchmark, capacity: float) -> None:
    end = 600.0 if bench.quick else 1_800.0
    table = Table("half an hour of overload, the last minutes", ("goodput", "p99", "limit", "baseline ms"))
    for name, options in LIMITS.items():
        if isinstance(options, AdaptiveLimit):
            answers = simulate(options, lambda _: capacity, end, EXCESS * capacity / BASE)
            goodput, p99 = answers.goodput(end - 300.0, end, capacity), answers.p99(end - 300.0, end)
            table.rows[name] = (goodput, p99, answers.limit.limit, 1_000.0 * answers.limit.baseline)
            bench.ratios.append(Ratio(f"{name}, half an hour: baseline", answers.limit.baseline / BASE, 1.05, "x base"))
            bench.ratios.append(Ratio(f"{name}, half an hour: goodput lost", max(0.0, 1.0 - goodput), 1.0 - ENOUGH, "of the optimum"))
    bench.tables.append(table)


if __name__ == "__main__":
    benchmark = Benchmark(__doc__, PACKAGES)
    # With fewer slots there is less to simulate, and the queue that the gradient allows is long in comparison: rough, as quick says.
    size = CAPACITY / 4 if benchmark.quick else CAPACITY
    settled(benchmark, size)
    half_an_hour(benchmark, size / 2)
    benchmark.finish()
