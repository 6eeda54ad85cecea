"""R4 where several attempts or callers belong together: whoever leaves takes nobody with him, and whoever loses says nothing.

Polly closes a circuit on a cancelled probe, pybreaker and purgatory open one; a hedge cancels something with nearly every answer, so either
would be moved by good luck. A call that is shared must not end for all because the one who happened to lead it went away.
"""

from __future__ import annotations

import asyncio

import pytest

from somaresil import Bulkhead, Hedge, Outcome
from somaresil.model.breaker import State
from tests.behaviour.kit import Boom, one_strike
from tests.unit.policy.hedging import Attempt, Dependency, Timed

SLOW, QUICK = Attempt(60.0), Attempt(0.5, "quick")


def test_r04_a_loser_is_no_verdict():
    """Neither for a closed circuit that opens at the first failure nor for a half-open one that closes at the first success."""
    stand = Timed(hedge=Hedge(1.0, budget=None), breaker=one_strike(half_open_calls=2, open_duration=5.0))
    dependency = Dependency(SLOW, QUICK, Attempt(0.0, Boom()), Attempt(1.25, Boom()), SLOW, SLOW, QUICK, QUICK)
    guarded = stand.guard(dependency)

    async def main():
        assert await guarded() == "quick"
        states = [stand.guard.breaker.state]
        with pytest.raises(Boom):
            await guarded()
        await asyncio.sleep(6)
        # A probe fails while another one is running: the circuit opens again, whatever the other one still says.
        second = asyncio.ensure_future(guarded())
        await asyncio.sleep(1.5)
        states.append(stand.guard.breaker.state)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await asyncio.sleep(20)
        assert await guarded() == "quick"
        states.append(stand.guard.breaker.state)
        assert await guarded() == "quick"
        return [*states, stand.guard.breaker.state]

    assert stand.run(main())[0] == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_r04_a_loser_gives_back_its_place_in_line():
    """One attempt waits for a slot when the other answers."""
    stand = Timed(hedge=1.0, bulkhead=Bulkhead(1, max_waiting=1, max_wait=60.0))
    assert stand.run(stand.guard(Dependency(Attempt(2.0, "first")))()) == ("first", 2.0)
    assert (stand.guard.bulkhead.active, stand.guard.bulkhead.waiting) == (0, 0)


@pytest.mark.parametrize("moment", [1.5, 2.5], ids=["the first is running", "only the second is running"])
def test_r04_a_caller_who_leaves_is_cancelled_with_his_own_words(moment):
    """All attempts end, nobody is blamed, and the task is cancelled once."""
    stand = Timed(hedge=1.0, bulkhead=2, breaker=one_strike(consecutive_failures=2))
    dependency = Dependency(Attempt(2.0, Boom()), SLOW)
    seen = []

    async def calling():
        try:
            await stand.guard(dependency)()
        finally:
            seen.append(asyncio.current_task().cancelling())

    async def main():
        task = asyncio.ensure_future(calling())
        asyncio.get_running_loop().call_later(moment, task.cancel, "enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    assert stand.run(main())[1] == moment
    assert seen == [1]
    assert set(dependency.ended.values()) <= {"CancelledError", "Boom"}
    assert len(dependency.ended) == 2
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1
    assert stand.guard.bulkhead.active == 0
    assert stand.guard.breaker.state is State.CLOSED


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_r04_an_exit_is_the_same_object(kind):
    """The other attempt has ended before it goes on."""
    stand = Timed(hedge=1.0, bulkhead=2, retry=3, fallback=lambda: "instead")
    leaver = kind("bye")
    dependency = Dependency(Attempt(2.0, leaver), SLOW)
    with pytest.raises(kind) as raised:
        stand.run(stand.guard(dependency)())
    assert raised.value is leaver
    assert dependency.ended == {0: kind.__name__, 1: "CancelledError"}
    assert stand.guard.bulkhead.active == 0
    assert stand.count(Outcome.ABANDONED) == stand.count() == 1


def test_r04_a_leader_who_leaves_is_followed_by_another():
    """Nobody else is cancelled, and the breaker hears of the calls that were made, not of those who waited."""
    stand = Timed(single_flight=True, breaker=one_strike(consecutive_failures=2), bulkhead=1)
    dependency = Dependency(Attempt(2.0, Boom()))
    guarded = stand.guard(dependency)

    async def main():
        tasks = [asyncio.ensure_future(guarded()) for _ in range(5)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends, _ = stand.run(main())
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[Boom] * 4]
    assert len(dependency.begun) == 2
    assert stand.guard.breaker.tally().failures == 1
    assert stand.guard.breaker.state is State.CLOSED
