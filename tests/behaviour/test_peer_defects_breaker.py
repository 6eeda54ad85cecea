"""Defects that other breakers have (read in their source or seen in a run): ours have none.

Where a rule says the same, its file is named and the test is there:

- a lock is held while the function runs, and an operator waits for it; a slow probe blocks everybody (pybreaker): test_r01, test_r03
- ``async def``, generators and async generators go unseen (pybreaker; aiobreaker, pyresilience, interlock, fluxgate, grit and purgatory
  some of them): test_r02
- half-open lets all of twenty callers through (pybreaker, circuitbreaker, aiobreaker, purgatory, hyx, pyresilience): test_r03,
  test_half_open_crowds
- a cancellation trips the circuit (pybreaker, purgatory), closes it (circuitbreaker, Polly) or wedges it half-open (grit, litellm);
  KeyboardInterrupt and SystemExit become CircuitBreakerError (pybreaker): test_r04
- a late success closes it (circuitbreaker), a late failure opens it again while it is probed (pybreaker, circuitbreaker, aiobreaker,
  purgatory, hyx, pyresilience, grit), a probe of one era frees a place in the next (nopanic): test_r05
- a hung probe is waited for without end (all of them; resilience4j unless told otherwise): test_r06
- an excluded error counts as a success, which ends a row of failures and closes a half-open circuit (pybreaker); ignored errors keep
  their permit (resilience4j #544): test_r07
- a listener that raises in ``failure`` keeps the circuit from ever opening (pybreaker): test_r08; callbacks see the old state: test_r09
- steps of the wall clock and time zones bend the open time (pybreaker, aiobreaker) and the window (Polly, resilience4j): test_r10
- one exception object is raised again and again, and grows (purgatory); the error says neither guard nor when to come back nor what was
  wrong (pybreaker): test_r11
- failures older than the window count (fluxgate): test_r12; jitter is drawn at every look (fluxgate): test_r13
- 80 % of failures never trip while one call in five succeeds (pybreaker and all that count failures in a row only): test_r14
- sync and async functions of one name do not share a breaker (pyresilience): test_r17
- state is lost with new options (Polly, resilience4j); a late call adds a half-open permit (resilience4j): test_peer_defects
- failures from several threads are lost where there is no lock (circuitbreaker, aiobreaker, purgatory, hyx): test_interleavings
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from abc import ABCMeta

import pytest

from somaresil import Classify, Outcome
from somaresil.events import BreakerChanged, DefectFound
from tests.behaviour.kit import Boom, Gate, Stand, both, one_strike, turns


@both
def test_pybreaker_stays_closed_when_a_listener_raises_at_the_change_and_ours_opens(suspends):
    """Its state is set after its listeners were called, so each later failure raises the listener's error; ours is open by then."""
    stand = Stand(breaker=one_strike())

    def raises(event):
        raise RuntimeError

    stand.resilience.on(raises, BreakerChanged)
    heard = []
    stand.resilience.on(heard.append, BreakerChanged)
    error = Boom("mine")
    assert stand.fail(suspends, error) is error
    assert stand.state == "open"
    assert [event.after for event in heard] == ["open"]
    assert len(stand.told(DefectFound)) == 1


def test_pybreaker_excludes_everything_with_a_metaclass_and_ours_that_class():
    """It calls an excluded class whose type is not ``type``, and what comes of that is true; ours asks for instances of it."""

    class Abstract(Exception, metaclass=ABCMeta):
        pass

    stand = Stand(breaker=one_strike(), classify=Classify(ignored=Abstract))
    stand.fail(error=Abstract())
    assert (stand.state, stand.count(Outcome.IGNORED)) == ("closed", 1)
    stand.fail()
    assert (stand.state, stand.count(Outcome.BAD)) == ("open", 1)


@both
def test_pybreaker_and_aiobreaker_replace_the_error_of_the_call_that_trips_and_ours_raises_it(suspends):
    """Whoever catches the client's errors catches this one, too."""
    stand = Stand(breaker=one_strike())
    error = Boom("mine")
    assert stand.fail(suspends, error) is error
    assert stand.state == "open"
    assert error.__cause__ is error.__context__ is None


def test_pybreaker_is_tripped_by_a_reader_who_leaves_and_ours_is_not():
    """There ``close()`` of a generator counts as a failure, and raises; here the reader has left, and that is all."""
    stand = Stand(breaker=one_strike())

    @stand.guard
    def stream():
        yield 1
        yield 2

    reading = stream()
    assert next(reading) == 1
    reading.close()
    assert (stand.state, stand.count(Outcome.ABANDONED)) == ("closed", 1)


def test_pybreaker_is_tripped_by_the_garbage_collector_and_ours_is_not():
    """A generator that nobody reads on and that is thrown away is nobody's failure."""
    stand = Stand(breaker=one_strike())

    @stand.guard
    def stream():
        yield 1
        yield 2

    next(stream())
    gc.collect()
    assert (stand.state, stand.count(Outcome.ABANDONED)) == ("closed", 1)


def test_fluxgate_breaks_when_an_async_stream_is_closed_early_and_ours_closes_it():
    """There it raises AttributeError; here the source has cleaned up when ``aclose()`` returns."""
    stand = Stand(breaker=one_strike())
    cleaned = []

    @stand.guard
    async def stream():
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(True)

    async def main():
        reading = stream()
        assert await anext(reading) == 1
        await reading.aclose()

    asyncio.run(main())
    assert cleaned == [True]
    assert (stand.state, stand.count(Outcome.ABANDONED)) == ("closed", 1)


@pytest.mark.parametrize("leaves", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_circuitbreaker_forgets_its_failures_when_somebody_leaves_and_ours_does_not(leaves):
    """Any end that it does not count resets it, so a cancellation between two failures keeps it closed for ever."""
    stand = Stand(breaker=one_strike(consecutive_failures=2))
    stand.fail()
    with pytest.raises(leaves):
        stand.guard.call(_raise, leaves)
    stand.fail()
    assert stand.state == "open"


def _raise(kind):
    raise kind


def test_circuitbreaker_closes_at_an_error_that_it_does_not_expect_and_ours_stays_half_open():
    """There it is a success; here it says nothing, and the next caller is the probe."""
    stand = Stand(breaker=one_strike(), classify=Classify(bad=Boom))
    stand.fail()
    stand.clock.advance(30.0)
    stand.fail(error=ValueError())
    assert stand.state == "half_open"
    stand.fail()
    assert stand.state == "open"


def test_hyx_closes_when_a_probe_in_a_block_is_cancelled_and_ours_stays_half_open():
    """In ``async with breaker`` a cancellation is a success there."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.clock.advance(30.0)
    gate = Gate()

    async def probe():
        async with stand.guard:
            await gate.aenter()

    async def main():
        task = asyncio.ensure_future(probe())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (gate.inside, stand.state) == (1, "half_open")
    stand.succeed()
    assert stand.state == "closed"


def test_nopanic_forgets_an_open_circuit_when_other_keys_come_and_ours_does_not():
    """Its ``keyed`` forgets by age alone: enough other tenants, and the one that is to be kept away is let in again."""
    stand = Stand(breaker=one_strike(max_keys=4))
    calls = []

    @stand.guard.keyed(by="tenant")
    def dependency(tenant):
        calls.append(tenant)
        if tenant == "broken":
            raise Boom

    with pytest.raises(Boom):
        dependency("broken")
    for number in range(100):
        dependency(f"tenant-{number}")
    with pytest.raises(Exception, match="circuit open"):
        dependency("broken")
    assert calls.count("broken") == 1


def test_pybreaker_makes_a_plain_function_of_a_coroutine_function_and_ours_leaves_it_one():
    """Frameworks ask what a function is before they call it."""
    stand = Stand(breaker=one_strike())

    async def later():
        return "fine"

    for guarded in (stand.guard(later), stand.guard.keyed("acme")(later)):
        assert inspect.iscoroutinefunction(guarded)


def test_breakers_that_only_watch_do_not_count_what_they_would_have_refused_and_ours_does():
    """resilience4j, interlock and fluxgate have a mode that only watches, and tell at most that a threshold was passed."""
    stand = Stand(breaker=one_strike(shadow=True))
    for _ in range(5):
        stand.fail()
    assert stand.guard.shadow.counts() == {("breaker", "open"): 1, ("breaker", "reject"): 4}
