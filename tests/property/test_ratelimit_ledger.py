"""A rate limit held against a ledger: every grant and every correction written down, and the buckets filled anew from the first page.

The ledger knows no trick. A cost that is corrected is corrected where it stands, and everything that came after it happens again.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from somaresil.model.ratelimit import RISE_INTERVAL, SLACK, Claim, Limits, Quota

NEAR = 1e-6

# Binary fractions, so that sums are exact, and few of them, so that they meet.
quotas = st.builds(Quota, rate=st.sampled_from([0.5, 1.0, 2.0]), burst=st.sampled_from([0.5, 1.0, 4.0, 8.0]))
costs = st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 3.0, 9.0])
numbers = st.integers(0, 7)
pauses = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 4.0, 20.0])


@dataclass
class Entry:
    """One line of the ledger."""

    at: float
    what: str
    costs: list[float] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)
    pause: float = 0.0
    lowers: bool = False


class Ledger:
    """The reference."""

    def __init__(self, quotas: list[Quota], start: float) -> None:
        self.start = start
        self.entries = [Entry(start, "quotas", quotas=quotas)]

    def write(self, at: float, what: str, **facts: Any) -> Entry:
        self.entries.append(Entry(at, what, **facts))
        return self.entries[-1]

    def read(self, now: float) -> tuple[list[float], float, float, list[Quota]]:
        """Levels, when grants go on after a pause, share, and quotas at that time."""
        at, resumes, share, rises_at = self.start, self.start, 1.0, float("inf")
        quotas: list[Quota] = []
        levels: list[float] = []

        def pass_time(until: float) -> None:
            nonlocal at, share, rises_at
            while at < until:
                step = min(until, rises_at)
                passed = max(0.0, step - max(at, resumes))
                for place, quota in enumerate(quotas):
                    levels[place] = min(quota.burst, levels[place] + passed * quota.rate * share)
                at = step
                if at == rises_at:
                    share = min(1.0, share + 0.05)
                    rises_at = rises_at + RISE_INTERVAL if share < 1.0 else float("inf")

        for entry in self.entries:
            pass_time(entry.at)
            if entry.what == "quotas":
                lacks = [quota.burst - level for quota, level in zip(quotas, levels, strict=True)]
                quotas = entry.quotas
                levels = [
                    quota.burst - (0.0 if place is None else lacks[place])
                    for quota, place in zip(quotas, entry.places or [None] * len(quotas), strict=True)
                ]
            elif entry.what == "pushback":
                if entry.lowers:
                    share = max(0.05, share / 2)
                    levels = [min(level, quota.burst * share) for level, quota in zip(levels, quotas, strict=True)]
                resumes = max(resumes, entry.at + entry.pause)
                if share < 1.0:
                    rises_at = max(entry.at, resumes) + RISE_INTERVAL
            else:
                levels = [level - cost for level, cost in zip(levels, entry.costs, strict=True)]
        pass_time(now)
        return levels, max(now, resumes), share, quotas


@dataclass
class Held:
    """A claim; once it is granted, its line in the ledger, and for each of its windows the column there."""

    claim: Claim
    entry: Entry | None = None
    columns: list[int | None] = field(default_factory=list)
    indebted: list[bool] = field(default_factory=list)
    era: int = 0


class LimitMachine(RuleBasedStateMachine):
    """Whatever happens, the buckets hold what the ledger says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.line: list[Held] = []
        self.running: list[Held] = []
        self.era = 0

    @initialize(windows=st.lists(quotas, min_size=1, max_size=3))
    def begin(self, windows: list[Quota]) -> None:
        self.limits: Limits[Claim] = Limits(windows, self.now)
        self.ledger = Ledger(windows, self.now)

    # -- what the ledger says -----------------------------------------------------------------------------------------------------------

    def admits(self, costs: list[float]) -> bool:
        levels, resumes, _, quotas = self.ledger.read(self.now)
        return resumes <= self.now + SLACK and all(
            cost == 0.0 or level >= min(cost, quota.burst) - 2 * SLACK * quota.rate
            for level, cost, quota in zip(levels, costs, quotas, strict=True)
        )

    def write_down(self, held: Held) -> None:
        held.entry = self.ledger.write(self.now, "grant", costs=list(held.claim.costs))
        held.columns = list(range(len(held.claim.costs)))
        held.indebted = [False] * len(held.claim.costs)
        held.era = self.era
        self.running.append(held)

    def pick(self, number: int) -> Held | None:
        return self.running[number % len(self.running)] if self.running else None

    def lived_through(self) -> float:
        """When the last in line is served, if nothing else happens: by living through it with a copy."""
        limits, now = copy.deepcopy(self.limits), self.now
        while limits.head is not None:
            now += limits.ask(limits.head, now)
            assert limits.serve(now)
        return now

    # -- what happens -------------------------------------------------------------------------------------------------------------------

    @rule(seconds=pauses)
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.serve()

    @rule()
    def pass_the_time_of_the_next(self) -> None:
        """Wait exactly as long as the one who is next is told to."""
        if self.limits.head is not None:
            self.now += max(0.0, self.limits.ask(self.limits.head, self.now))
            head = self.line[0]
            self.serve()
            assert head.claim.open

    def serve(self) -> None:
        served = self.limits.serve(self.now)
        for claim in served:
            held = self.line.pop(0)
            assert held.claim is claim, "first come, first served"
            assert self.admits(claim.costs)
            self.write_down(held)
        if self.line:
            assert not self.admits(self.line[0].claim.costs)

    @rule(crowd=st.lists(st.tuples(costs, costs, costs), min_size=1, max_size=6), patient=st.booleans())
    def come(self, crowd: list[tuple[float, ...]], patient: bool) -> None:
        """Calls come; who is not let in at once waits, or goes away."""
        for three in crowd:
            before = self.limits.levels(self.now)
            held = Held(Claim(list(three[: len(before)])))
            wanted = list(held.claim.costs)
            expected = self.admits(wanted) and not (self.line and any(wanted))
            wait = self.limits.wait(wanted, self.now)
            assert self.limits.take(held.claim, self.now) == expected
            if expected:
                self.write_down(held)
                continue
            assert self.limits.levels(self.now) == before, "none is charged when one refuses"
            assert wait > SLACK or self.line
            if patient:
                self.limits.join(held.claim, self.now)
                assert abs(held.claim.due - self.now - wait) < NEAR
                self.line.append(held)
                assert abs(self.lived_through() - self.now - wait) < NEAR

    @rule(number=numbers)
    def give_up(self, number: int) -> None:
        """Who waits goes away."""
        if self.line:
            self.limits.leave(self.line.pop(number % len(self.line)).claim)
            self.serve()

    @rule(number=numbers, cost=costs, place=st.integers(0, 2))
    def settle(self, number: int, cost: float, place: int) -> None:
        """What a call has really cost is known. (Once up and then down is another test: what is given back is then less than exact.)"""
        held = self.pick(number)
        if held is None or place >= len(held.claim.costs):
            return
        more = cost - held.claim.costs[place]
        if more < 0.0 and held.indebted[place]:
            return
        self.limits.settle(held.claim, place, cost, self.now)
        assert held.claim.costs[place] == cost
        if more < 0.0:
            held.entry.costs[held.columns[place]] = cost
        else:
            held.indebted[place] = held.indebted[place] or more > 0.0
            self.ledger.write(self.now, "debt", costs=[more if other == place else 0.0 for other in range(len(held.claim.costs))])
        self.serve()

    @rule(number=numbers, called=st.booleans())
    def end(self, number: int, called: bool) -> None:
        """A call ends; one whose callee was never called has cost nothing."""
        held = self.pick(number)
        if held is None:
            return
        self.running.remove(held)
        if called or any(held.indebted):
            self.limits.close(held.claim)
        else:
            self.limits.refund(held.claim, self.now)
            for column in held.columns:
                if column is not None:
                    held.entry.costs[column] = 0.0
        assert not held.claim.open
        self.serve()

    @rule(windows=st.lists(st.tuples(quotas, st.sampled_from([0, 0, 1, 2, None])), min_size=1, max_size=3))
    def reconfigure(self, windows: list[tuple[Quota, int | None]]) -> None:
        """Other windows, some of them in the place of former ones."""
        known = len(self.limits.levels(self.now))
        places: list[int | None] = []
        for _, place in windows:
            places.append(place if place is not None and place < known and place not in places else None)
        quotas = [quota for quota, _ in windows]
        self.limits.reconfigure(quotas, places, self.now)
        self.ledger.write(self.now, "quotas", quotas=quotas, places=places)
        for held in self.running:
            held.columns = [None if place is None else held.columns[place] for place in places]
            held.indebted = [place is not None and held.indebted[place] for place in places]
        self.serve()

    @rule(number=numbers, pause=st.sampled_from([0.0, 0.0, 1.0, 7.0]))
    def push_back(self, number: int, pause: float) -> None:
        """An answer asks for less. Only calls that were let in since the last time say something new."""
        held = self.pick(number)
        if held is not None:
            lowers = held.era == self.era
            assert self.limits.lower(held.claim, pause, self.now) == lowers
            self.era += lowers
            self.ledger.write(self.now, "pushback", pause=pause, lowers=lowers)

    # -- what holds -----------------------------------------------------------------------------------------------------------------------

    @invariant()
    def levels_are_those_of_the_ledger(self) -> None:
        levels, _, share, _ = self.ledger.read(self.now)
        ours = self.limits.levels(self.now)
        assert all(abs(one - other) < NEAR for one, other in zip(ours, levels, strict=True)), (ours, levels)
        assert abs(self.limits.factor(self.now) - share) < NEAR
        assert self.limits.waiting == len(self.line)


TestLedger = LimitMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40)
