"""How near to the truth of a fleet those come who see a part of it: a month of 1,000 replicas, with bursts, deploys, deaths, skewed load.

The truth is every event. Beside it, for windows from an hour to 30 days and at instants all over the month:

- **one process**: what a replica says of its own events since it started. What it says of a window is compared with the truth of that
  window, so what it forgot when it was deployed counts against it;
- **all processes**: the counts of those that live, added up: nobody remembers what the dead have seen;
- **all processes, with snapshots**: the same with what was kept in files, written every 10 seconds: a death loses the last of them;
- **Prometheus**: ``sum(increase(...[window]))`` over samples taken every 15 seconds. What happens between the last sample and a death, and
  before the first sample, nobody has seen; resets are recognised.

Replicas are deployed every third day, one after the other, and one dies about every two hours. The load of the replicas differs by a
factor of 20 (Zipf), follows the hour of the day and has bursts; an incident is bad for a tenth of the replicas only.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import Any, NamedTuple

from _measure import Benchmark, Ratio, Table

from somaresil.model.slo import burn_rate
from somaresil.model.window import SLO_TIERS, RingSet

PACKAGES = ("somaresil",)
STEP = 300
DAY = 86_400
OBJECTIVE = 99.9
CALLS = 600.0
"""Calls of an average replica in a step, at noon."""
FLUSH = 10.0
SCRAPE = 15.0
WINDOWS = {"1 h": 3_600, "6 h": 21_600, "1 d": DAY, "3 d": 3 * DAY, "30 d": 30 * DAY}


class Fleet(NamedTuple):
    """How large, and for how long."""

    replicas: int
    days: int

    @property
    def steps(self) -> int:
        return self.days * DAY // STEP


class Seen(NamedTuple):
    """Good and bad events of the whole fleet, step by step, as somebody has seen them."""

    good: list[int]
    bad: list[int]

    @classmethod
    def nothing(cls, steps: int) -> Seen:
        return cls([0] * steps, [0] * steps)

    def summed(self) -> Seen:
        """Totals at each boundary."""
        return Seen(list(accumulate(self.good, initial=0)), list(accumulate(self.bad, initial=0)))

    def within(self, step: int, window: int) -> tuple[int, int]:
        """Of totals: what lies in the window that ends with a step."""
        begin = max(0, step - window // STEP)
        return self.good[step] - self.good[begin], self.bad[step] - self.bad[begin]


def poisson(chance: random.Random, mean: float) -> int:
    """Counted down by Knuth's method where that is quick, by a normal distribution beyond."""
    if mean > 30.0:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    floor, product, count = math.exp(-mean), chance.random(), 0
    while product > floor:
        product *= chance.random()
        count += 1
    return count


def day_of_load(fleet: Fleet, chance: random.Random) -> list[float]:
    """The load of each step, as a share of the usual one: less at night, and a burst now and then."""
    load = []
    burst = 0
    for step in range(fleet.steps):
        burst = max(burst - 1, 6 if chance.random() < 1 / 300 else 0)
        hour = step * STEP % DAY / 3_600
        load.append((0.55 - 0.45 * math.cos(hour / 24 * math.tau)) * (4.0 if burst else 1.0))
    return load


def incidents(fleet: Fleet, chance: random.Random) -> list[float]:
    """The share of bad events in each step for those that an incident meets."""
    share = [0.0004] * fleet.steps
    for _ in range(max(1, fleet.days // 4)):
        begin = chance.randrange(fleet.steps)
        bad = chance.choice((0.01, 0.05, 0.3))
        for step in range(begin, min(fleet.steps, begin + chance.choice((3, 12, 40)))):
            share[step] = bad
    return share


def lives(fleet: Fleet, index: int, chance: random.Random) -> set[int]:
    """The steps at whose beginning a replica is another process than before."""
    turn = index * (DAY // STEP) // fleet.replicas
    deploys = set(range(3 * DAY // STEP + turn, fleet.steps, 3 * DAY // STEP))
    return deploys | {step for step in range(1, fleet.steps) if chance.random() < 1 / (24 * fleet.replicas)}


class Errors:
    """Relative errors of burn rates, by window."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {name: [] for name in WINDOWS}

    def add(self, window: str, truth: tuple[int, int], seen: tuple[int, int]) -> None:
        """Note how far off somebody was. Whoever has seen no event says nothing, and is as wrong as can be."""
        right, said = burn_rate(*truth, OBJECTIVE), burn_rate(*seen, OBJECTIVE)
        if right:
            self._found[window].append(1.0 if said is None else abs(said - right) / right)

    def quantile(self, window: str, share: float) -> float:
        """In percent."""
        found = sorted(self._found[window]) or [0.0]
        return 100.0 * found[min(len(found) - 1, int(share * len(found)))]

    def row(self, share: float) -> tuple[float, ...]:
        return tuple(self.quantile(window, share) for window in WINDOWS)


def live(fleet: Fleet, seed: int) -> tuple[dict[str, Seen], dict[int, list[dict[str, tuple[int, int]]]], list[int]]:
    """Let the month pass, one replica after the other: what was seen by whom, what replicas said of themselves, and when."""
    chance = random.Random(seed)
    load, bad_share = day_of_load(fleet, chance), incidents(fleet, chance)
    weights = [1.0 / (1 + 19 * index / fleet.replicas) for index in range(fleet.replicas)]
    scale = fleet.replicas / sum(weights)
    seen = {name: Seen.nothing(fleet.steps) for name in ("truth", "snapshots", "prometheus")}
    asked = [*sorted(chance.sample(range(fleet.steps // 3, fleet.steps), 12)), fleet.steps]
    said: dict[int, list[dict[str, tuple[int, int]]]] = {step: [] for step in asked}
    for index in range(fleet.replicas):
        replica(fleet, index, chance, Load(load, bad_share, CALLS * weights[index] * scale), seen, said)
    return seen, said, asked


class Load(NamedTuple):
    """What comes to a replica."""

    load: list[float]
    bad_share: list[float]
    calls: float


def replica(
    fleet: Fleet, index: int, chance: random.Random, comes: Load, seen: dict[str, Seen], said: dict[int, list[dict[str, tuple[int, int]]]]
) -> None:
    """The month of one replica, which is a process after the other."""
    truth, snapshots, prometheus = seen["truth"], seen["snapshots"], seen["prometheus"]
    born, met = lives(fleet, index, chance), chance.random() < 0.1
    # Nothing is asked that ends within five minutes, so the finest ring has nothing to do.
    rings, good, bad = RingSet(0.0, tiers=SLO_TIERS[1:]), 0, 0
    for step in range(fleet.steps):
        now = float(step * STEP)
        if step in born:
            rings, good, bad = RingSet(now, tiers=SLO_TIERS[1:]), 0, 0
        share = comes.bad_share[step] if met else 0.0004
        calls = poisson(chance, comes.calls * comes.load[step])
        failed = min(calls, poisson(chance, calls * share))
        rings.roll(now, (good, bad))
        good, bad = good + calls - failed, bad + failed
        for who in (truth, snapshots, prometheus):
            who.good[step] += calls - failed
            who.bad[step] += failed
        # What dies before the next write, or the next sample, takes with it what came since the last; the next begins unseen.
        dies = step + 1 in born
        if dies:
            lose(chance, snapshots, step, (calls - failed, failed), chance.random() * FLUSH / STEP)
        if dies or step in born:
            lose(chance, prometheus, step, (calls - failed, failed), (dies + (step in born)) * chance.random() * SCRAPE / STEP)
        if step + 1 in said:
            end = float((step + 1) * STEP)
            rings.roll(end, (good, bad))
            said[step + 1].append({name: tuple(rings.within(end, window, (good, bad))) for name, window in WINDOWS.items()})  # type: ignore[misc]


def lose(chance: random.Random, who: Seen, step: int, events: tuple[int, int], share: float) -> None:
    """Take back what nobody has seen of a step."""
    good, bad = events
    who.good[step] -= min(good, poisson(chance, good * share))
    who.bad[step] -= min(bad, poisson(chance, bad * share))


def main(bench: Benchmark) -> None:
    fleet = Fleet(20, 31) if bench.quick else Fleet(1_000, 31)
    seen, said, asked = live(fleet, seed=20261)
    totals = {name: who.summed() for name, who in seen.items()}
    one, living, kept, fleet_wide = Errors(), Errors(), Errors(), Errors()
    for step in asked:
        for name, window in WINDOWS.items():
            truth = totals["truth"].within(step, window)
            for mine in said[step]:
                one.add(name, truth, mine[name])
            living.add(name, truth, (sum(mine[name][0] for mine in said[step]), sum(mine[name][1] for mine in said[step])))
            kept.add(name, truth, totals["snapshots"].within(step, window))
            fleet_wide.add(name, truth, totals["prometheus"].within(step, window))
    columns = tuple(f"% over {name}" for name in WINDOWS)
    table = Table(
        f"error of the burn rate; {fleet.replicas:,} replicas, {sum(totals['truth'].within(fleet.steps, 31 * DAY)):,} events", columns
    )
    rows: dict[str, tuple[Errors, Any]] = {"one process": (one, 0.5), "all that live": (living, 0.5), "all, with snapshots": (kept, 0.5)}
    for name, (errors, share) in {**rows, "Prometheus": (fleet_wide, 0.5)}.items():
        table.rows[f"{name}, median"] = errors.row(share)
        table.rows[f"{name}, worst"] = errors.row(1.0)
    bench.tables.append(table)
    for name, errors in (("all processes with snapshots", kept), ("Prometheus", fleet_wide)):
        bench.ratios.append(Ratio(f"{name}, worst error of any window", max(errors.row(1.0)), 1.0, "%"))


if __name__ == "__main__":
    benchmark = Benchmark(__doc__ or "", PACKAGES)
    main(benchmark)
    benchmark.finish()
