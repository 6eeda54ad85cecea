"""Races of attempts: whatever ends when, and whoever is cancelled, there is one end, and nothing is left of it.

Random calls run side by side on one loop in virtual time, with attempts that answer, fail, take their time to leave or make errors of a
cancellation, and with callers that cancel them, all at moments that often meet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from somaresil import Hedge, Outcome, Retry
from tests.unit.policy.hedging import Timed, Turnstile

DELAY = 1.0
LEAVING = 0.75
"""Seconds that a stubborn attempt takes to end when it is told to leave."""


class Oops(Exception):
    """What attempts fail with."""


@dataclass(frozen=True)
class Plan:
    """One attempt: it takes so long, then answers or fails; told to leave it does, or answers all the same later, or fails at once."""

    lasts: float
    answers: bool = True
    leaves: str = "at once"


@dataclass(frozen=True)
class Program:
    """One call: when it begins, its attempts (the last is repeated), and when its caller cancels it."""

    begins: float
    plans: tuple[Plan, ...]
    cancels: tuple[float, ...] = ()


moments = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.25, 1.5, 2.0, 2.25, 2.5, 3.0, 4.0, 9.0])
plans = st.builds(Plan, lasts=moments, answers=st.booleans(), leaves=st.sampled_from(["at once", "at once", "late", "torn"]))
programs = st.builds(
    Program,
    begins=moments,
    plans=st.lists(plans, min_size=1, max_size=4).map(tuple),
    cancels=st.lists(moments, max_size=2).map(tuple),
)


@dataclass
class Lived:
    """What became of a call."""

    program: Program
    begun: int = 0
    ended: dict[int, Any] = field(default_factory=dict)
    """What each attempt raised or answered."""
    leaving: list[bool] = field(default_factory=list)
    """For each cancellation that came in time, whether nobody may have kept it from the caller."""
    end: Any = None
    at: float = -1.0
    cancelling: int = -1

    async def attempt(self) -> int:
        number, self.begun = self.begun, self.begun + 1
        plan = self.program.plans[min(number, len(self.program.plans) - 1)]
        try:
            try:
                await asyncio.sleep(plan.lasts)
            except asyncio.CancelledError:
                if plan.leaves == "at once":
                    raise
                if plan.leaves == "torn":
                    raise Oops(number) from None
                await asyncio.sleep(LEAVING)
            if not plan.answers:
                raise Oops(number)
        except BaseException as error:
            self.ended[number] = error
            raise
        self.ended[number] = number
        return number

    def cancel(self, task: asyncio.Task[Any]) -> None:
        if self.at < 0.0:
            self.leaving.append(0 in self.ended or self.program.plans[0].leaves == "at once")
            task.cancel()


async def live(lived: Lived, guarded: Any) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    await asyncio.sleep(lived.program.begins)
    for moment in lived.program.cancels:
        loop.call_later(moment, lived.cancel, task)
    begun = loop.time()
    try:
        lived.end = await guarded(lived)
    except BaseException as error:
        lived.end = error
    lived.at = loop.time() - begun
    lived.cancelling = task.cancelling()
    for number in range(lived.begun):
        assert number in lived.ended, "an attempt is left running"


def run(hedge: Hedge, *given_programs: Program, held: bool = False, **options: Any) -> tuple[list[Lived], Timed]:
    stand = Timed(hedge=hedge, bulkhead=Turnstile(1_000), breaker=True, **options)
    if held:
        stand.guard.switch.hold("test")
    calls = [Lived(program) for program in given_programs]

    @stand.guard
    async def guarded(lived):
        return await lived.attempt()

    async def main():
        await asyncio.gather(*(live(lived, guarded) for lived in calls))

    stand.run(main())
    assert stand.guard.bulkhead.passed == (0 if held else len(calls))
    return calls, stand


@settings(max_examples=80)
@given(st.lists(programs, min_size=1, max_size=4), st.integers(1, 3))
@example([Program(0.0, (Plan(1.5), Plan(0.5)), (1.5,))], 1)
@example([Program(0.0, (Plan(9.0, leaves="late"), Plan(0.5)), (1.5, 2.0))], 1)
@example([Program(0.0, (Plan(9.0, leaves="torn"), Plan(0.5)), (1.5,))], 1)
@example([Program(0.0, (Plan(1.25, answers=False), Plan(9.0, leaves="late")), (1.5, 2.0))], 1)
@example([Program(0.0, (Plan(0.25, answers=False, leaves="late"), Plan(9.0, leaves="late")), (0.25, 1.25))], 1)
def test_a_race_has_one_end_and_leaves_nothing(given_programs, most):
    """One outcome a call, which one of its attempts or its caller has brought about; no task, no slot and no cancellation too many."""
    seen = []
    for held in (False, True):
        calls, stand = run(Hedge(DELAY, max_hedges=most, budget=None), *given_programs, held=held)
        for lived in calls:
            ends = list(lived.ended.values())
            assert len(ends) == lived.begun <= most + 1
            if isinstance(lived.end, asyncio.CancelledError):
                assert lived.leaving, "cancelled by nobody"
            else:
                assert any(end is lived.end or end == lived.end for end in ends)
                # A cancellation that reached whoever does not keep it to himself has reached the caller.
                assert not any(lived.leaving)
            assert lived.cancelling == len(lived.leaving)
        assert stand.guard.recorder.counts().total() == len(calls)
        assert stand.guard.bulkhead.active == 0
        assert stand.left == set()
        results = stand.guard.hedge.results()
        assert results["won"] + results["lost"] + results["failed"] == sum(lived.begun - 1 for lived in calls)
        seen.append(seen_of(calls, stand))
    assert seen[0] == seen[1], "the express path means something else"


def seen_of(calls: list[Lived], stand: Timed) -> list[Any]:
    """Whatever anybody can see afterwards."""
    counts = stand.guard.recorder.counts()
    return [
        [(repr(lived.end), lived.at, lived.begun, lived.cancelling) for lived in calls],
        [stand.guard.hedge.results(), stand.guard.breaker.tally(), stand.guard.breaker.state],
        {outcome: counts.histogram(outcome) for outcome in Outcome},
        stand.events,
    ]


@settings(max_examples=80)
@given(
    st.lists(programs, min_size=1, max_size=3),
    st.sampled_from([{}, {"timeout": 1.25}]),
    st.sampled_from([{}, {"retry": Retry(attempts=2, wait=0.5)}]),
    st.sampled_from([{}, {"fallback": lambda lived: "instead"}]),
)
def test_the_express_path_means_the_same(given_programs, timeout, retry, fallback):
    """Whatever stands inside and outside of the hedge."""
    seen = []
    for held in (False, True):
        calls, stand = run(Hedge(DELAY, budget=None), *given_programs, held=held, **timeout, **retry, **fallback)
        assert stand.guard.bulkhead.active == 0
        assert stand.left == set()
        assert stand.guard.recorder.counts().total() == len(calls)
        seen.append(seen_of(calls, stand))
    assert seen[0] == seen[1]


def expected(program: Program, most: int) -> tuple[Any, float] | None:
    """What comes of a call that nobody cancels: whose answer (None: all failed), and when. None when two things meet in one moment."""
    running: dict[int, tuple[float, Plan]] = {}
    met: set[float] = set()
    number, now = 0, 0.0
    starts = [attempt * DELAY for attempt in range(most + 1)]
    while True:
        if number <= most and (not running or starts[number] <= min(end for end, _ in running.values())):
            now = starts[number]
            plan = program.plans[min(number, len(program.plans) - 1)]
            running[number] = (now + plan.lasts, plan)
            number += 1
        else:
            who = min(running, key=lambda attempt: running[attempt][0])
            now, plan = running.pop(who)
            if plan.answers:
                late = [LEAVING for _, other in running.values() if other.leaves == "late"]
                return who, now + max(late, default=0.0)
            if not running:
                return None, now
        pending = [now, *(end for end, _ in running.values()), *(starts[number : number + 1])]
        met.add(now)
        if len(set(pending[1:])) != len(pending[1:]) or now in pending[1:]:
            return None


@settings(max_examples=80)
@given(st.lists(plans, min_size=1, max_size=4).map(tuple), st.integers(1, 3))
@example((Plan(1.25, answers=False), Plan(1.25, leaves="late")), 2)
def test_a_race_ends_as_a_simple_count_says(given_plans, most):
    """The first answer wins, at its moment and once the others have left; when all fail, the first attempt has the word."""
    program = Program(0.0, given_plans)
    found = expected(program, most)
    (lived,), _ = run(Hedge(DELAY, max_hedges=most), program)
    if found is None:
        return
    who, at = found
    assert lived.at == at
    assert lived.end == who if who is not None else lived.end is lived.ended[0]
