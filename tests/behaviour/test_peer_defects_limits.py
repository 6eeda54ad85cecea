"""Defects that other libraries have (read in their source or seen in a run) about limits of rate and load: ours have none.

What is known of each peer is said in its test. Several are rules for everything that admits, and stand as such in test_r01 (nothing is held
across a call), test_r04 (who leaves gives back) and test_r11 (rejections are fresh); here they are asked of these two policies.
"""

from __future__ import annotations

import asyncio
import gc

import pytest

from somaresil import LoadShed, Outcome, RateLimit, RateLimited, Resilience, Throttle
from tests.behaviour.kit import Boom, Gate, Stand, both, both_paths, together, turns


async def answers():
    return "fine"


def refused(call) -> bool:
    try:
        call()
    except RateLimited:
        return True
    return False


def test_nopanic_counts_each_loop_by_itself_and_ours_has_one_capacity():
    """There, synchronous callers and every event loop have a limit of their own, so that a service lets in a multiple of what it should."""
    guard = Resilience("tests").guard("dependency", rate_limit=RateLimit(6, per=3600.0))

    def caller(number):
        if number % 2:
            return sum(not refused(lambda: guard.call(int)) for _ in range(4))
        return sum(not refused(lambda: asyncio.run(guard.acall(answers))) for _ in range(4))

    assert sum(together(6, caller)) == 6


def test_hyx_loses_what_a_cancelled_waiter_was_granted_and_ours_does_not():
    """Ten times cancelled in line, at any moment: there is still as much as before."""
    stand = Stand(rate_limit=RateLimit(1, per=1e6, max_waiting=5, max_wait=3600.0))
    guard, limiter = stand.guard, stand.guard.rate_limit.limiter

    async def forever(future, timeout):
        await asyncio.wait((future,))
        return True

    stand.resilience.clock.await_ = forever

    async def main():
        await guard.acall(answers)
        for moment in range(10):
            limiter.reconfigure(RateLimit(1, per=3600.0, max_waiting=5, max_wait=86_400.0))
            before = limiter.available()
            waiting = asyncio.ensure_future(guard.acall(answers))
            await turns(moment)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
            assert (limiter.available(), limiter.waiting) == (before, 0)

    asyncio.run(main())


def test_pyresilience_does_not_count_further_attempts_and_ours_counts_each():
    """There the limit stands outside the retry: a call that is tried three times counts once, and triples the rate when it matters."""
    stand = Stand(rate_limit=RateLimit(10, per=3600.0), retry=3)
    stand.fail()
    assert round(stand.guard.rate_limit.available()["calls"]) == 7


def test_pyresilience_limits_sync_and_async_functions_of_one_name_apart_and_ours_together():
    """And a new limit takes effect for what is decorated already, which it does not there."""
    stand = Stand(rate_limit=RateLimit(2, per=3600.0))
    plain, suspending = stand.guard(lambda: "fine"), stand.guard(answers)
    assert (plain(), asyncio.run(suspending())) == ("fine", "fine")
    assert refused(plain)
    assert refused(lambda: asyncio.run(suspending()))
    stand.guard.configure(rate_limit=RateLimit(3, per=3600.0))
    assert plain() == "fine"
    assert refused(lambda: asyncio.run(suspending()))


def test_polly_and_resilience4j_forget_what_was_used_with_new_options_and_ours_does_not():
    """Polly builds the pipeline anew, resilience4j replaces the instance: every change of a limit is a burst. Ours keeps what was used."""
    stand = Stand(rate_limit=RateLimit(10, per=3600.0))
    for _ in range(10):
        stand.succeed()
    for amount in (10, 11, 10):
        stand.guard.configure(rate_limit=RateLimit(amount, per=7200.0))
        assert stand.guard.rate_limit.available() == {"calls": amount - 10.0}


@both_paths
def test_resilience4j_gives_a_permit_back_twice_and_ours_once(held):
    """There a late release adds a permit that never was; what has ended here gives nothing back any more, however often it is told to."""
    stand = Stand(held=held, rate_limit=RateLimit(10, per=3600.0))
    policy = stand.guard.rate_limit
    permit = policy.try_enter()
    before = policy.available()["calls"]
    for outcome in (Outcome.GOOD, Outcome.REJECTED, Outcome.REJECTED):
        policy.leave(permit, outcome, 0.0, stand.clock.monotonic())
    assert policy.available()["calls"] == before == 9.0


@both
def test_purgatory_raises_one_shared_error_and_ours_a_fresh_one(suspends):
    """There 20,000 rejections are 120,000 lines of traceback on one object. Here each is new, nothing of it is kept, and it says when."""
    stand = Stand(listening=False, rate_limit=RateLimit(1, per=10.0))
    stand.succeed(suspends)
    seen = []
    for _ in range(50):
        with pytest.raises(RateLimited) as raised:
            stand.succeed(suspends)
        seen.append(raised.value)
    assert len({id(error) for error in seen}) == 50
    assert {error.retry_after for error in seen} == {10.0}
    del seen, raised
    gc.collect()
    assert not any(
        isinstance(thing, RateLimited) and thing.guard == stand.guard.name and thing.retry_after == 10.0 for thing in gc.get_objects()
    )


def test_pybreaker_holds_its_lock_across_the_call_and_ours_does_not():
    """Eight calls are inside at once, and the limit is read and changed meanwhile."""
    stand = Stand(rate_limit=RateLimit(10, per=3600.0))
    gate = Gate()
    call = stand.guard(gate.enter)

    def work(number):
        if number < 8:
            return call()
        gate.await_inside(8)
        stand.guard.configure(rate_limit=RateLimit(20, per=3600.0))
        left = stand.guard.rate_limit.available()
        gate.open()
        return left

    assert together(9, work) == ["fine"] * 8 + [{"calls": 12.0}]


def test_aiobreaker_measures_with_the_wall_clock_and_ours_does_not():
    """There a time zone makes a minute five hours. A step of the clock neither fills a bucket nor stops its filling."""
    for step in (-86_400.0, 86_400.0):
        stand = Stand(rate_limit=RateLimit(1, per=10.0), throttle=True)
        stand.succeed()
        stand.clock.step_wall(step)
        with pytest.raises(RateLimited) as raised:
            stand.succeed()
        assert raised.value.retry_after == 10.0
        stand.clock.advance(10.0)
        assert stand.succeed() == "fine"
        assert stand.guard.throttle.requests() == (2, 2)


@both
def test_pybreaker_never_reacts_to_eighty_percent_of_failures_and_ours_does(suspends):
    """Its count of failures in a row begins anew with each success. The throttle goes by shares: at one good call of five it refuses."""
    stand = Stand(throttle=Throttle())
    refusals = 0
    for number in range(200):
        try:
            if number % 5:
                stand.callable(_fails, suspends)()
            else:
                stand.succeed(suspends)
        except LoadShed:
            refusals += 1
        except Boom:
            continue
    assert refusals > 40


def _fails():
    raise Boom
