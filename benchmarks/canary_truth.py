"""Whether the verdict on a canary is what it says: simulated many times, looked at after every request, with every draw seeded.

Each run is a stream of requests with a probability of a bad event for the control and one for the candidate, on a ramp of 10, 50 and 90 %
of the traffic. Somebody looks after every bad event, and acts on what he sees at once. Beside it stand a two-proportion z test that is
looked at every hundred requests, as one does by hand, and a threshold on the error rate of the candidate, as rollout engines have it:
in each window of 100 of its requests it may be at most one point above the objective, five windows above it roll back.

At the end the whole of it: a controller that places requests and is told of them, with an objective of 98 % and the steps of the ramp.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from datetime import timedelta
from statistics import NormalDist, median
from typing import TYPE_CHECKING, Any

from somaresil import SLO, CanaryConfig, CanaryController, ManualClock, Resilience
from somaresil.canary.ledger import CanaryLedger, Levels
from somaresil.model.rollout import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 0.01
REQUESTS = 10_000
_PEEK = 100


def ramp(number: int) -> float:
    """Share of the candidate at a request."""
    return 0.1 if number < 3_000 else 0.5 if number < 6_000 else 0.9


class Ours:
    """The ledger."""

    def __init__(self, *, sticky: bool = False) -> None:
        self.ledger = CanaryLedger("v2", Levels(alpha=ALPHA), sticky=sticky)

    def see(self, weight: float, key: str | None, *, candidate: bool, bad: bool) -> bool:
        self.ledger.note(weight, candidate=candidate, bad=bad, key=key)
        return bad and self.ledger.finding().verdict is Verdict.FAIL


class ZTest:
    """Two proportions, looked at every hundred requests."""

    def __init__(self) -> None:
        self.counts = [0, 0, 0, 0]
        self.seen = 0
        self.limit = NormalDist().inv_cdf(1.0 - ALPHA)

    def see(self, weight: float, key: str | None, *, candidate: bool, bad: bool) -> bool:
        self.counts[2 * candidate] += 1
        self.counts[2 * candidate + 1] += bad
        self.seen += 1
        control, control_bad, other, other_bad = self.counts
        if self.seen % _PEEK or not control or other <= 20:
            return False
        rate = (control_bad + other_bad) / (control + other)
        spread = rate * (1.0 - rate) * (1.0 / control + 1.0 / other)
        return spread > 0.0 and (other_bad / other - control_bad / control) / math.sqrt(spread) > self.limit


class Threshold:
    """The error rate of the candidate in windows of a hundred of its requests; five that are too high roll back."""

    def __init__(self, objective: float = 0.01) -> None:
        self.objective = objective
        self.requests = self.bad = self.failed = 0

    def see(self, weight: float, key: str | None, *, candidate: bool, bad: bool) -> bool:
        if not candidate:
            return False
        self.requests += 1
        self.bad += bad
        if self.requests % _PEEK == 0:
            self.failed += self.bad / _PEEK > self.objective + 0.01
            self.bad = 0
        return self.failed >= 5


def run(chance: random.Random, judge: Any, control: float, candidate: float, weight: Callable[[int], float] = ramp) -> int | None:
    """Requests of the candidate until it was rolled back; None: it was not."""
    seen = 0
    for number in range(REQUESTS):
        share = weight(number)
        chosen = chance.random() < share
        seen += chosen
        if judge.see(share, None, candidate=chosen, bad=chance.random() < (candidate if chosen else control)):
            return seen
    return None


def sticky(chance: random.Random, users: int, *, deduplicated: bool) -> bool:
    """Whether a candidate that is no worse is rolled back, when users keep to their side and some of them fail half of the time."""
    place = [chance.random() for _ in range(users)]
    rate = [0.5 if chance.random() < 0.02 else 0.002 for _ in range(users)]
    judge = Ours(sticky=deduplicated)
    for number in range(REQUESTS):
        user = chance.randrange(users)
        share = 0.1 if number < 5_000 else 0.5
        if judge.see(share, f"user-{user}", candidate=place[user] < share, bad=chance.random() < rate[user]):
            return True
    return False


def replicas(chance: random.Random) -> float:
    """The largest difference between the logarithms of one ledger and those of ten that were added up."""
    levels = Levels(alpha=ALPHA)
    whole, parts = CanaryLedger("v2", levels), [CanaryLedger("v2", levels) for _ in range(10)]
    for number in range(5_000):
        share = ramp(2 * number)
        event = {"candidate": chance.random() < share, "bad": chance.random() < 0.2}
        whole.note(share, **event)
        chance.choice(parts).note(share, **event)
    merged = CanaryLedger("v2", levels)
    for part in parts:
        merged.add(part)
    return max(
        abs(one - other) for name in ("worse", "not_much_worse") for one, other in zip(whole.dump()[name], merged.dump()[name], strict=True)
    )


def whole(chance: random.Random, control: float, candidate: float, requests: int, *, users: int | None = None) -> int | None:
    """Requests of the candidate until a controller has rolled it back; None: it has not. With users some of them fail half of the time."""
    resilience = Resilience("truth", clock=ManualClock(), seed=chance.getrandbits(63))
    resilience.slos.add(SLO("up", 98.0, timedelta(days=7)))
    config = CanaryConfig(name="truth", bad="up", steps=[10, 50, 90], interval=None, sticky=users is not None)
    controller = CanaryController(resilience, config)
    controller.start("v2", checksum=str(chance.getrandbits(63)))
    unlucky = [0.5 if chance.random() < 0.02 else 0.002 for _ in range(users or 0)]
    seen = 0
    for number in range(requests):
        if number in {requests // 3, 2 * requests // 3}:
            controller.promote()
        user = None if users is None else chance.randrange(users)
        key = None if user is None else f"user-{user}"
        side = controller.choose(key)
        seen += side.candidate
        rate = (candidate if side.candidate else control) if user is None else unlucky[user]
        controller.note(side, bad=chance.random() < rate, key=key)
        if controller.phase == "rollback":
            return seen
    return None


def main() -> int:  # noqa: PLR0915 - a report, row by row
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2_000, help="runs of each row (default: 2000)")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="40 runs of each row: shows that it runs")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is not kept")
    arguments = parser.parse_args()
    runs, began = 40 if arguments.quick else arguments.runs, time.monotonic()
    failed = []

    def promise(name: str, value: float, limit: float, *, least: bool = False) -> None:
        met = value >= limit if least else value <= limit
        print(f"  {name}: {value:.4g}, {'at least' if least else 'at most'} {limit:g}{'' if met else '   NOT MET'}")
        if not met:
            failed.append(name)

    print(f"Candidates that are no worse, 1 % bad events, looked at all the time; {runs} runs each, seed {arguments.seed}")
    # What may be seen by chance of a probability of alpha, three standard deviations above it.
    bound = ALPHA + 3.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / runs)
    for name, judge in (("somaresil", Ours), ("z test, every 100 requests", ZTest), ("threshold, 5 windows of 100", Threshold)):
        chance = random.Random(arguments.seed)
        rate = sum(run(chance, judge(), 0.01, 0.01) is not None for _ in range(runs)) / runs
        print(f"  {name:30} rolled back {rate:.2%}")
        if judge is Ours:
            promise("false rollbacks on the ramp", rate, bound)
    for users in (50, 300):
        for deduplicated in (False, True):
            chance = random.Random(arguments.seed + users)
            rate = sum(sticky(chance, users, deduplicated=deduplicated) for _ in range(runs)) / runs
            how = "first bad event of each" if deduplicated else "every bad event"
            print(f"  {users} users who keep to a side, {how:24} rolled back {rate:.2%}")
            if deduplicated:
                promise(f"false rollbacks with {users} sticky users", rate, bound)

    print("\nA candidate that fails always, at 10 %")
    chance = random.Random(arguments.seed)
    needed = [run(chance, Ours(), 0.01, 1.0, lambda _: 0.1) for _ in range(runs)]
    within = sum(count is not None and count <= 5 for count in needed) / runs
    print(f"  median {median(count or REQUESTS for count in needed):g} requests of it")
    promise("rolled back within 5 of its requests", within, 0.99, least=True)

    print("\nFound, of candidates that are worse than 1 %, and requests of theirs until then (median)")
    print(f"  {'bad events':>12}" + "".join(f"{name:>30}" for name in ("somaresil", "z test", "threshold")))
    for candidate in (0.02, 0.03, 0.05, 0.2, 1.0):
        row = []
        for judge in (Ours, ZTest, Threshold):
            chance = random.Random(arguments.seed)
            found = [count for count in (run(chance, judge(), 0.01, candidate) for _ in range(max(20, runs // 10))) if count is not None]
            row.append(f"{len(found) / max(20, runs // 10):.1%}, {median(found) if found else float('nan'):g}")
        print(f"  {candidate:>12.0%}" + "".join(f"{cell:>30}" for cell in row))

    print("\nTen replicas, added up")
    promise("largest difference of a logarithm", replicas(random.Random(arguments.seed)), 1e-9)
    print("\nThe controller, with an objective of 98 %")
    chance = random.Random(arguments.seed)
    needed = [whole(chance, 0.01, 1.0, 2_000) for _ in range(runs)]
    promise("rolled back within 5 requests", sum(count is not None and count <= 5 for count in needed) / runs, 0.99, least=True)
    some = max(20, runs // 5)
    bound = ALPHA + 3.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / some)
    for users in (None, 50, 300):
        rate = sum(whole(chance, 0.01, 0.01, REQUESTS, users=users) is not None for _ in range(some)) / some
        promise(f"false rollbacks {'by chance' if users is None else f'with {users} sticky users'} ({some} runs)", rate, bound)

    print(f"\n{time.monotonic() - began:.0f} s")
    if failed and arguments.check:
        print("NOT MET: " + "; ".join(failed), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
