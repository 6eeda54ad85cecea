"""Defects and gaps of other libraries about hedging, fallbacks and shared answers: ours have none.

Where a rule says the same, its file is named and the test is there:

- a cancelled probe closes a circuit (Polly) or opens one (pybreaker, purgatory), and a hedge cancels with nearly every answer: test_r04
- one exception object for many callers, whose traceback grows without end (purgatory): test_r11
- a write is repeated because nobody asked whether it may be (no Python library knows): tests/unit/policy/test_hedge.py
"""

from __future__ import annotations

import asyncio

from somaresil import Hedge, Outcome, Retry
from somaresil.events import HedgeStarted
from tests.behaviour.kit import Boom
from tests.unit.policy.hedging import Attempt, Dependency, Timed


def test_nopanic_hedges_everything_and_ours_has_a_budget():
    """A dependency that slows down as a whole is not given twice the load: its hedges have no bound, ours are a share of the calls."""
    stand = Timed(hedge=1.0)
    dependency = Dependency(Attempt(5.0))
    guarded = stand.guard(dependency)

    async def main():
        for _ in range(20):
            await asyncio.gather(*(guarded() for _ in range(20)))

    stand.run(main())
    assert stand.count() == 400
    assert len(dependency.begun) < 1.10 * 400
    assert stand.guard.hedge.results()["budget"] > 350


def test_resilience4j_hedges_by_the_mean_and_ours_by_a_quantile():
    """Its delay is a mean and something: a single call of twenty seconds moves that by a second, and the quantile not at all."""
    stand = Timed(hedge=Hedge(quantile=0.9, budget=None))
    guarded = stand.guard(Dependency(*[Attempt(0.125)] * 19, Attempt(20.0), Attempt(0.125)))

    async def main():
        for _ in range(20):
            await guarded()
        await asyncio.sleep(1)
        await guarded()

    stand.run(main())
    assert stand.guard.hedge.delay == 0.125


def test_hyx_takes_a_cancelled_call_for_a_success_and_ours_says_nothing_of_losers():
    """Ten attempts that lost are no ten good calls: the breaker knows the ten that ended by themselves."""
    stand = Timed(hedge=Hedge(1.0, budget=None), breaker=True)
    dependency = Dependency(*[Attempt(60.0), Attempt(0.5)] * 10)
    guarded = stand.guard(dependency)

    async def main():
        for _ in range(10):
            await guarded()

    stand.run(main())
    assert len(dependency.begun) == 20
    assert stand.guard.breaker.tally().calls == 10


def test_polly_multiplies_hedges_by_retries_and_ours_are_bounded():
    """Neither has a budget there, so a bad minute is answered with all attempts of all hedges; here few calls get a hedge at all."""
    stand = Timed(hedge=1.0, retry=Retry(attempts=3, wait=0.0))
    dependency = Dependency(Attempt(1.5, Boom()))

    async def main():
        await asyncio.gather(*(stand.guard(dependency)() for _ in range(40)), return_exceptions=True)

    stand.run(main())
    hedges = len(stand.told(HedgeStarted))
    assert hedges == 3
    assert len(dependency.begun) <= 3 * (40 + hedges)
    assert stand.count(Outcome.BAD) == stand.count() == 40
