"""Whether the detector of regressions is right as often as it says: change points, comparisons, intervals, p-values, and what they cost.

Every series is drawn from a seed. A change point is *found* when it lies within three values of the true one; *spurious* is a series with a
change point where there is none. Beside it, in the same run and on the same series, apache-otava with its defaults and the step detector of
asv. Both have to be installed; numpy and scipy come with them, and with neither of them has somaresil anything to do.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from somaresil.model import changepoints
from somaresil.model.bootstrap import bootstrap_ratio, ratio_bounds
from somaresil.model.changepoints import change_points
from somaresil.model.ranks import rank_test
from somaresil.perf.detector import Change, RegressionDetector

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR = 3
NOISE = 0.05
PEERS = ("apache-otava", "asv", "scipy")


def drawn(chance: random.Random, count: int, phi: float = 0.0, steps: tuple[tuple[int, float], ...] = ()) -> list[float]:
    """Log-normal noise of 5 % around 100 that goes on by phi into the next value; from each step on all values are multiplied."""
    drift = chance.gauss(0.0, NOISE / math.sqrt(1.0 - phi * phi))
    values = []
    for place in range(count):
        values.append(100.0 * math.exp(drift) * math.prod(factor for at, factor in steps if place >= at))
        drift = phi * drift + chance.gauss(0.0, NOISE)
    return values


def heavy(chance: random.Random, count: int, steps: tuple[tuple[int, float], ...] = ()) -> list[float]:
    """As :func:`drawn`, with one value in ten that is up to five times as large."""
    return [value * (1.0 + 4.0 * chance.random() if chance.random() < 0.1 else 1.0) for value in drawn(chance, count, 0.0, steps)]


def ours(alpha: float, effect: float = 0.0) -> Callable[[list[float]], list[int]]:
    return lambda values: [each.index for each in change_points(values, alpha=alpha, minimum_effect=effect)]


def otava() -> Callable[[list[float]], list[int]]:
    from otava.analysis import compute_change_points

    return lambda values: [each.index for each in compute_change_points(values)[0]]


def asv() -> Callable[[list[float]], list[int]]:
    from asv.step_detect import detect_steps

    return lambda values: [each[0] for each in detect_steps(values)[1:]]


class Run:
    """The promises, and which were not kept."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.failed: list[str] = []

    def promise(self, name: str, value: float, limit: float, *, least: bool = False, figure: str = "{:.4g}") -> None:
        met = value >= limit if least else value <= limit
        shown = figure.format(value)
        print(f"  {name}: {shown}, {'at least' if least else 'at most'} {figure.format(limit)}{'' if met else '   NOT MET'}")
        if not met:
            self.failed.append(name)


def changes(run: Run, seed: int, series: int) -> None:
    """False alarms and what is found, beside others."""
    cases: list[tuple[str, int, Callable[[random.Random], list[float]]]] = [
        ("iid, flat", 0, lambda chance: drawn(chance, 100)),
        ("AR(1) 0.5, flat", 0, lambda chance: drawn(chance, 100, 0.5)),
        ("AR(1) 0.8, flat", 0, lambda chance: drawn(chance, 100, 0.8)),
        ("outliers, flat", 0, lambda chance: heavy(chance, 100)),
        ("iid, 365, flat", 0, lambda chance: drawn(chance, 365)),
        ("AR(1) 0.5, 365, flat", 0, lambda chance: drawn(chance, 365, 0.5)),
        ("iid, +10 % at 60", 60, lambda chance: drawn(chance, 100, 0.0, ((60, 1.1),))),
        ("iid, +5 % at 60", 60, lambda chance: drawn(chance, 100, 0.0, ((60, 1.05),))),
        ("iid, twice at 15 of 30", 15, lambda chance: drawn(chance, 30, 0.0, ((15, 2.0),))),
        ("iid, +20 % at 94", 94, lambda chance: drawn(chance, 100, 0.0, ((94, 1.2),))),
        ("AR(1) 0.5, +20 % at 60", 60, lambda chance: drawn(chance, 100, 0.5, ((60, 1.2),))),
        ("outliers, +10 % at 60", 60, lambda chance: heavy(chance, 100, ((60, 1.1),))),
    ]
    detectors: dict[str, Any] = {"alpha 0.01": ours(0.01), "alpha 0.05": ours(0.05), "and 5 %": ours(0.01, 0.05)}
    for name, build in (("otava", otava), ("asv", asv)):
        try:
            detectors[name] = build()
        except ImportError as error:
            print(f"  {name} is missing: {error}")
            run.failed.append(f"missing peer: {name}")
    print(f"Change points in {series} series each, seed {seed}: spurious, or found and spurious ones beside it")
    print(f"  {'':26}" + "".join(f"{name:>16}" for name in detectors))
    kept: dict[tuple[str, str], tuple[float, float]] = {}
    for title, at, draw in cases:
        chance = random.Random(f"{seed} {title}")
        values = [draw(chance) for _ in range(series)]
        row = []
        for name, detect in detectors.items():
            found = [detect(each) for each in values]
            spurious = sum(any(not at or abs(place - at) > NEAR for place in places) for places in found) / series
            hits = sum(any(abs(place - at) <= NEAR for place in places) for places in found) / series if at else 0.0
            kept[title, name] = (spurious, hits)
            row.append(f"{spurious:.1%}" if not at else f"{hits:.1%} / {spurious:.1%}")
        print(f"  {title:26}" + "".join(f"{cell:>16}" for cell in row))
    for name in ("alpha 0.01", "alpha 0.05"):
        for title in ("iid, flat", "AR(1) 0.5, flat", "AR(1) 0.5, 365, flat"):
            # What may be seen by chance of a probability of 5 %, for fewer series than the promise is about.
            bound = 0.05 if not run.quick else 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / series)
            run.promise(f"false alarms, {title}, {name}", kept[title, name][0], bound, figure="{:.1%}")
    run.promise("steps of 10 % found, alpha 0.01", kept["iid, +10 % at 60", "alpha 0.01"][1], 0.9, least=True, figure="{:.1%}")


def calibration(run: Run, seed: int, series: int) -> None:
    """How often the p-value is below a level, where no step is: no more often than the level says, if it means what it says."""
    print(f"\nSeries of 40 to 365 values without a step that have one at a level: {series} each")
    for phi in (0.0, 0.5, 0.7):
        chance = random.Random(f"{seed} calibration {phi}")
        values = [drawn(chance, chance.choice((40, 100, 200, 365)), phi) for _ in range(series)]
        for alpha in (0.2, 0.05, 0.01):
            rate = sum(bool(change_points(each, alpha=alpha)) for each in values) / series
            run.promise(f"AR(1) {phi:g}, level {alpha:g}", rate, alpha + 3.0 * math.sqrt(alpha * (1.0 - alpha) / series), figure="{:.2%}")


def comparisons(run: Run, seed: int, pairs: int) -> None:
    """Two samples of one kind, and two that differ."""
    print(f"\nTwo samples of 40 values, {pairs} pairs each: how often a difference is seen")
    detectors = {
        "somaresil": RegressionDetector(minimum_effect=0.0),
        "and 2 %": RegressionDetector(minimum_effect=0.02),
        "as if independent": RegressionDetector(minimum_effect=0.0, ordered=False),
    }
    print(f"  {'':26}" + "".join(f"{name:>20}" for name in detectors))
    seen: dict[tuple[str, str], float] = {}
    for title, phi, factor in (
        ("iid, equal", 0.0, 1.0),
        ("AR(1) 0.5, equal", 0.5, 1.0),
        ("AR(1) 0.7, equal", 0.7, 1.0),
        ("iid, 5 % slower", 0.0, 1.05),
        ("iid, 10 % slower", 0.0, 1.1),
        ("AR(1) 0.5, 20 % slower", 0.5, 1.2),
    ):
        chance = random.Random(f"{seed} {title}")
        samples = [(drawn(chance, 40, phi), [value * factor for value in drawn(chance, 40, phi)]) for _ in range(pairs)]
        row = []
        for name, detector in detectors.items():
            expected = {Change.REGRESSED} if factor > 1.0 else {Change.REGRESSED, Change.IMPROVED}
            seen[title, name] = sum(detector.compare(*each).change in expected for each in samples) / pairs
            row.append(f"{seen[title, name]:.1%}")
        print(f"  {title:26}" + "".join(f"{cell:>20}" for cell in row))
    spare = 3.0 * math.sqrt(0.01 * 0.99 / pairs)
    run.promise("false alarms, iid, level 0.01", seen["iid, equal", "somaresil"], 0.01 + spare, figure="{:.2%}")
    run.promise("false alarms, AR(1) 0.5, level 0.01", seen["AR(1) 0.5, equal", "somaresil"], 0.02 + spare, figure="{:.2%}")


def coverage(run: Run, seed: int, pairs: int) -> None:
    """How often intervals of ratios hold the true one."""
    print(f"\nIntervals at 95 % of the ratio of two quantiles, {pairs} pairs each: held, and width (logarithm)")
    shapes: dict[str, Callable[[random.Random], float]] = {
        "normal 5 %": lambda chance: max(0.0, chance.gauss(1.0, 0.05)),
        "log-normal 1": lambda chance: chance.lognormvariate(0.0, 1.0),
        "exponential": lambda chance: chance.expovariate(1.0),
    }
    least = 1.0
    print(f"  {'':34}{'bootstrap':>18}{'order statistics':>18}")
    for (n, m, quantile), (name, shape) in itertools.product(
        ((5, 5, 0.5), (10, 10, 0.5), (10, 40, 0.5), (50, 50, 0.5), (50, 50, 0.95), (100, 400, 0.95), (300, 300, 0.99)), shapes.items()
    ):
        chance = random.Random(f"{seed} {n} {m} {quantile} {name}")
        held, width, bounded, wide, some = 0, 0.0, 0, 0.0, 0
        for _ in range(pairs):
            x, y = [shape(chance) for _ in range(n)], [shape(chance) for _ in range(m)]
            low, high = bootstrap_ratio(x, y, quantile)
            held += low <= 1.0 <= high
            width += math.log(high / low) / pairs
            bounds = ratio_bounds(x, y, quantile)
            if bounds is not None:
                some += 1
                bounded += bounds[0] <= 1.0 <= bounds[1]
                wide += math.log(bounds[1] / bounds[0])
        least = min(least, held / pairs)
        sure = f"{bounded / some:.1%} {wide / some:6.3f}" if some else "too few"
        print(f"  {f'{n} and {m}, quantile {quantile:g}, {name}':34}{f'{held / pairs:.1%} {width:6.3f}':>18}{sure:>18}")
    run.promise("least share that the bootstrap held", least, 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / pairs), least=True, figure="{:.1%}")


def p_values(run: Run, seed: int, samples: int) -> None:
    """Equal to scipy where it is right, and to the enumeration of all deals where it is not."""
    print(f"\nP-values of the rank test, {samples} samples each: largest difference")
    try:
        from scipy.stats import mannwhitneyu
    except ImportError as error:
        print(f"  scipy is missing: {error}")
        run.failed.append("missing peer: scipy")
        return
    chance = random.Random(seed)
    worst = dict.fromkeys(("exact", "asymptotic", "ties", "scipy exact", "scipy auto"), 0.0)
    for _ in range(samples):
        n, m = chance.randint(2, 25), chance.randint(2, 25)
        x, y = ([chance.random() for _ in range(count)] for count in (n, m))
        worst["exact"] = max(worst["exact"], abs(rank_test(x, y).p_value - mannwhitneyu(x, y, method="exact").pvalue))
        x, y = ([float(chance.randrange(12)) for _ in range(count)] for count in (n, m))
        if len({*x, *y}) > 1:
            asymptotic = mannwhitneyu(x, y, method="asymptotic").pvalue
            worst["asymptotic"] = max(worst["asymptotic"], abs(rank_test(x, y, exact=False).p_value - asymptotic))
        x, y = ([float(chance.randrange(4)) for _ in range(chance.randint(2, 6))] for _ in range(2))
        true = enumerated(x, y)
        worst["ties"] = max(worst["ties"], abs(rank_test(x, y).p_value - true))
        if len({*x, *y}) > 1:
            for method in ("exact", "auto"):
                worst[f"scipy {method}"] = max(worst[f"scipy {method}"], abs(mannwhitneyu(x, y, method=method).pvalue - true))
    run.promise("no ties, from scipy's exact", worst["exact"], 1e-9)
    run.promise("ties, large samples, from scipy's asymptotic", worst["asymptotic"], 1e-9)
    run.promise("ties, from the enumeration of all deals", worst["ties"], 1e-9)
    print(f"  scipy there: exact {worst['scipy exact']:.3f}, auto {worst['scipy auto']:.3f}")


def enumerated(x: list[float], y: list[float]) -> float:
    """The two-sided p-value by going through every way to deal the values."""
    pooled = x + y
    seen, deals = doubled(x, y), []
    for chosen in itertools.combinations(range(len(pooled)), len(x)):
        first = [pooled[place] for place in chosen]
        deals.append(doubled(first, [value for place, value in enumerate(pooled) if place not in chosen]))
    return min(1.0, 2.0 * min(sum(each <= seen for each in deals), sum(each >= seen for each in deals)) / len(deals))


def doubled(x: list[float], y: list[float]) -> int:
    return sum((a > b) * 2 + (a == b) for a in x for b in y)


def costs(run: Run, seed: int, rounds: int) -> None:
    """Milliseconds of processor time, so that what else the machine does is not counted: the best of some rounds each."""
    print("\nMilliseconds of processor time")
    chance = random.Random(seed)
    histories = {
        "365 values, flat": drawn(chance, 365),
        "365 values, AR(1) 0.5": drawn(chance, 365, 0.5),
        "365 values, four steps": drawn(chance, 365, 0.0, ((70, 1.1), (150, 1 / 1.1), (220, 1.1), (300, 1.1))),
    }
    for name, values in histories.items():
        run.promise(name, best(lambda values=values: change_points(values), rounds), 20.0, figure="{:.1f}")
    detector = RegressionDetector()
    for count in (10, 50, 1000):
        x, y = drawn(chance, count), drawn(chance, count)
        print(f"  comparison of {count} and {count} values: {best(lambda x=x, y=y: detector.compare(x, y), rounds):.1f}")
    with tempfile.TemporaryDirectory() as kept:
        code = "import time; t = time.process_time(); import {}; print((time.process_time() - t) * 1e3)"
        # Compiled once, as an installed package is.
        surroundings = {**os.environ, "PYTHONPYCACHEPREFIX": kept}
        surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
        for module in ("somaresil.perf", "somaresil.perf.budget, somaresil.perf.detector"):
            command = [sys.executable, "-c", code.format(module)]
            started = [subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
            times = [float(each.stdout) for each in started]
            run.promise(f"import {module}", min(times), 50.0, figure="{:.1f}")


def tables(seed: int, series: int) -> None:
    """What L reaches by chance, counted anew: the tables of somaresil.model.changepoints, from so many series of each kind."""
    normal, heavy_tails, skewed = (
        lambda chance: chance.gauss(0.0, 1.0),
        lambda chance: chance.gauss(0.0, 1.0) / math.sqrt(sum(chance.gauss(0.0, 1.0) ** 2 for _ in range(3)) / 3.0),
        lambda chance: chance.lognormvariate(0.0, 1.0),
    )
    for title, table, scored, noises, phis in (
        ("ranks", changepoints._REACHED, changepoints.normal_scores, (normal,), (0.0, 0.3, 0.5, 0.7)),
        ("distances", changepoints._REACHED_BY_DISTANCE, changepoints._distances, (normal, heavy_tails, skewed), (0.0, 0.5, 0.7)),
    ):
        print(f"{title}: reached by chance in {', '.join(map(str, changepoints._CHANCES))} of {series} series of each kind")
        for length in table:
            worst = [0.0] * len(changepoints._CHANCES)
            for noise, phi in itertools.product(noises, phis):
                chance, seen = random.Random(f"{seed} {title} {length} {phi}"), []
                for _ in range(series):
                    drift, values = 0.0, []
                    for place in range(length + 50):
                        drift = phi * drift + noise(chance)
                        if place >= 50:
                            values.append(drift)
                    seen.append(changepoints._likeliest(scored(values))[0])
                seen.sort(reverse=True)
                worst = [max(old, seen[int(share * series)]) for old, share in zip(worst, changepoints._CHANCES, strict=True)]
            print(f"  {length}: {', '.join(f'{reached:.2f}' for reached in worst)}")


def best(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        times.append((time.process_time() - began) * 1e3)
    return min(times)


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few of everything: shows that it runs")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is not kept or a peer is missing")
    parser.add_argument("--table", type=int, metavar="SERIES", help="count the tables of change points anew, from so many series, and end")
    arguments = parser.parse_args()
    if arguments.table:
        tables(arguments.seed, arguments.table)
        return 0
    run, began = Run(quick=arguments.quick), time.monotonic()
    many = 0.1 if arguments.quick else 1.0
    print(", ".join(f"{name} {version_of(name)}" for name in PEERS))
    changes(run, arguments.seed, round(200 * many))
    calibration(run, arguments.seed, round(1000 * many))
    comparisons(run, arguments.seed, round(200 * many))
    coverage(run, arguments.seed, round(300 * many))
    p_values(run, arguments.seed, round(200 * many))
    costs(run, arguments.seed, 3 if arguments.quick else 7)
    print(f"\n{time.monotonic() - began:.0f} s")
    if run.failed and arguments.check:
        print("NOT MET: " + "; ".join(run.failed), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
