"""What `somaresil perf ab` says of commands whose truth is known, on this machine as noisy as it is.

Two commands are the same, or the second takes 5 % longer. Each is measured in pairs as the command does it, at a minimum effect of 2 %.
With --check: of 100 times, at most 5 alarms for the same command, and at least 90 slow ones found. By the time that passes, as the command
does it unless told otherwise; where others keep the machine busy that is mostly theirs, and --measure cpu sees little of it.

    python benchmarks/ab_truth.py --check
    python benchmarks/ab_truth.py --quick
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from somaresil.chance import Chance
from somaresil.clock import SystemClock
from somaresil.perf.ab import PairedTest
from somaresil.perf.detector import Change
from somaresil.perf_command.measure import Arm, Meter, measure_pairs

SLOWDOWN = 0.05
MOST_ALARMS, LEAST_FOUND = 0.05, 0.90
LOOPS = 90_000


def arm(label, loops):
    """Give a command that counts so far."""
    code = f"x = 0\nfor i in range({loops}): x += i * i"
    return Arm(label, (sys.executable, "-I", "-S", "-c", code), Path())


def calibrated(meter, rounds):
    """Give how many loops make the whole command, its start included, 5 % slower; and how long it takes."""
    whole, start = [], []
    for _ in range(rounds):
        for times, loops in ((whole, LOOPS), (start, 0)):
            times.append(meter.once(arm("calibration", loops)).series[0].values[0])
    takes, begins = statistics.median(whole), statistics.median(start)
    return round(LOOPS * (1.0 + SLOWDOWN * takes / (takes - begins))), takes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few of each: it works, whatever this machine's speed")
    parser.add_argument("--check", action="store_true", help="fail unless the promised shares are met")
    parser.add_argument("--times", type=int, default=100, help="how often each (default: %(default)s)")
    parser.add_argument("--measure", choices=("wall", "cpu"), default="wall", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times = 2 if options.quick else options.times
    test = PairedTest(minimum_effect=0.02, fewest=10, most=20) if options.quick else PairedTest(minimum_effect=0.02)
    meter = Meter(SystemClock(), figure=options.measure)
    slower, takes = calibrated(meter, 5 if options.quick else 40)
    begun = time.monotonic()
    found = {"same": Counter(), "slower": Counter()}
    pairs = {"same": [], "slower": []}
    ratios = {"same": [], "slower": []}
    for number in range(times):
        for what, loops in (("same", LOOPS), ("slower", slower)):
            arms = (arm("baseline", LOOPS), arm("current", loops))
            measured = measure_pairs(arms, test, meter, Chance(f"{what} {number}"), told=lambda *_: None)
            (comparison,) = measured.comparisons
            found[what][comparison.change.value] += 1
            pairs[what].append(measured.count)
            ratios[what].append(comparison.ratio)
        if (number + 1) % 10 == 0:
            print(
                f"{number + 1}: same {dict(found['same'])}, slower {dict(found['slower'])}, load {os.getloadavg()[0]:.1f}", file=sys.stderr
            )
    result = {
        "command_ms": round(takes * 1e3, 2),
        "measure": options.measure,
        "times": times,
        "alarms": found["same"][Change.REGRESSED.value] + found["same"][Change.IMPROVED.value],
        "found": found["slower"][Change.REGRESSED.value],
        "answers": {what: dict(sorted(counts.items())) for what, counts in found.items()},
        "pairs_median": {what: statistics.median(counts) for what, counts in pairs.items()},
        "ratio_median": {what: round(statistics.median(each), 4) for what, each in ratios.items()},
        "ratio_spread": {what: round(statistics.pstdev(each), 4) for what, each in ratios.items()},
        "seconds": round(time.monotonic() - begun, 1),
        "load": [round(each, 2) for each in os.getloadavg()],
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"a command of {result['command_ms']} ms ({options.measure}), {times} times each, minimum effect 2 %")
        for what, counts in result["answers"].items():
            shown = ", ".join(f"{count} {change}" for change, count in counts.items())
            spread = f"ratio {result['ratio_median'][what]} +- {result['ratio_spread'][what]}"
            print(f"  {what:<7} {shown}; {result['pairs_median'][what]:g} pairs in the middle; {spread}")
        print(f"  {result['seconds']} s, load {result['load']}")
    if options.check and not options.quick and (result["alarms"] > MOST_ALARMS * times or result["found"] < LEAST_FOUND * times):
        print(f"FAILED: expected at most {MOST_ALARMS:.0%} alarms and at least {LEAST_FOUND:.0%} found", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
