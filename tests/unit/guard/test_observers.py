"""Observers: whoever looks on hears of the end of every call, good ones too, and changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import BulkheadFull, CallTimedOut, CircuitOpen, Fallback, Outcome, Retry
from somaresil.events import CallEnded, DefectFound
from tests.behaviour.kit import Boom, Stand, both, one_strike


def watched(**options):
    """A process whose calls somebody observes, and what he hears."""
    stand, heard = Stand(**options), []
    stand.resilience.observe(heard.append)
    return stand, heard


def ends(heard):
    return [(event.guard, event.outcome, event.error, event.injected) for event in heard]


@both
def test_good_and_bad_calls_are_heard_of(suspends):
    """With all that is known: guard, time, outcome, error, duration and mark; listeners hear of the bad ones alone, as ever."""
    stand, heard = watched()
    stand.callable(lambda: stand.clock.advance(2.0), suspends)()
    stand.fail(suspends)
    assert heard == [
        CallEnded("dependency", 1_700_000_002.0, "good", None, 2.0, injected=False),
        CallEnded("dependency", 1_700_000_002.0, "bad", "Boom", 0.0, injected=False),
    ]
    assert stand.told(CallEnded) == heard[1:]


@both
def test_a_call_is_heard_of_once_however_often_it_is_tried(suspends):
    """By how it ends, with retry and with fallback."""
    stand, heard = watched(retry=Retry(attempts=3, wait=0.0), fallback=Fallback(lambda: "lesser", on=Boom))
    attempts = []

    def flaky():
        attempts.append(True)
        if len(attempts) < 3:
            raise Boom
        return "fine"

    def down():
        raise Boom

    assert [stand.callable(function, suspends)() for function in (flaky, down)] == ["fine", "lesser"]
    assert ends(heard) == [("dependency", "good", None, False)] * 2


@both
def test_rejected_calls_are_heard_of(suspends):
    """By an open circuit, which refuses at once, and by a full bulkhead; with nobody listening for events."""
    stand, heard = watched(breaker=one_strike(), listening=False)
    stand.fail(suspends)
    for _ in range(3):
        assert type(stand.fail(suspends)) is CircuitOpen
    assert ends(heard)[1:] == [("dependency", "rejected", "CircuitOpen", False)] * 3
    assert stand.count(Outcome.REJECTED) == 3
    full, heard = watched(bulkhead=1, listening=False)
    with full.guard:
        assert type(full.fail(suspends)) is BulkheadFull
    assert ends(heard) == [("dependency", "rejected", "BulkheadFull", False), ("dependency", "good", None, False)]


def test_cancelled_ignored_and_timed_out_calls_are_heard_of():
    """Whatever the end."""
    stand, heard = watched(classify=lambda result, error: Outcome.IGNORED if isinstance(error, Boom) else None)
    stand.fail()

    async def main():
        task = asyncio.ensure_future(stand.guard.acall(asyncio.Event().wait))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    stand.fail(error=CallTimedOut("dependency", 1.0))
    assert [(outcome, error) for _, outcome, error, _ in ends(heard)] == [
        ("ignored", "Boom"),
        ("abandoned", "CancelledError"),
        ("bad", "CallTimedOut"),
    ]


def test_streams_and_blocks_are_heard_of_when_they_end():
    """Once each, at their end and not before."""
    stand, heard = watched()

    @stand.guard
    def numbers():
        yield 1
        yield 2

    @stand.guard
    async def anumbers():
        yield 1

    async def main():
        async with stand.guard:
            assert len(heard) == 2
        return [item async for item in anumbers()]

    stream = numbers()
    next(stream)
    assert heard == []
    assert list(stream) == [2]
    with pytest.raises(Boom), stand.guard:
        assert len(heard) == 1
        raise Boom
    assert asyncio.run(main()) == [1]
    assert [outcome for _, outcome, _, _ in ends(heard)] == ["good", "bad", "good", "good"]


def test_struck_calls_are_heard_of_with_their_mark(monkeypatch):
    """As listeners hear of them."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_ENVIRONMENT", "test")
    stand, heard = watched()
    stand.resilience.chaos.opt_in()
    asyncio.run(stand.resilience.chaos.inject_latency("dependency", 500, max_injections=1))
    stand.succeed()
    stand.succeed()
    assert [(event.outcome, event.elapsed, event.injected) for event in heard] == [("good", 0.5, True), ("good", 0.0, False)]
    assert stand.told(CallEnded) == heard[:1]


def test_an_observed_guard_takes_the_full_path_until_it_is_not():
    """That is the price, and it is given back."""
    stand = Stand()
    end = stand.resilience.observe(print)
    assert stand.guard.switch.reasons == {"observed"}
    assert stand.resilience.snapshot().guards["dependency"].held_by == {"observed"}
    end()
    assert stand.guard.switch.quiet
    assert stand.guard.observers == ()


def test_the_end_of_one_observer_is_not_that_of_another():
    """The guard is held until the last has gone; an end that comes twice is one."""
    stand, first, second = Stand(), [], []
    end_first, end_second = stand.resilience.observe(first.append), stand.resilience.observe(second.append)
    stand.succeed()
    end_first()
    end_first()
    stand.succeed()
    assert not stand.guard.switch.quiet
    end_second()
    stand.succeed()
    assert (len(first), len(second)) == (1, 2)
    assert stand.guard.switch.quiet


def test_guards_made_later_are_observed_too():
    """For as long as somebody looks on, and no longer."""
    stand, heard = Stand(), []
    end = stand.resilience.observe(heard.append)
    late = stand.resilience.guard("late")
    late.call(len, "abc")
    assert ends(heard) == [("late", "good", None, False)]
    end()
    assert late.switch.quiet
    later = stand.resilience.guard("later")
    assert later.switch.quiet
    for guard in (late, later):
        guard.call(len, "abc")
    assert len(heard) == 1


def test_one_guard_can_be_observed_alone():
    """The others stay quiet."""
    stand, heard = Stand(), []
    other = stand.resilience.guard("other")
    observer = heard.append
    other.observe(observer)
    assert stand.guard.switch.quiet
    stand.succeed()
    other.call(len, "abc")
    other.unobserve(observer)
    other.call(len, "abc")
    assert ends(heard) == [("other", "good", None, False)]
    assert other.switch.quiet


def test_a_method_that_observes_can_be_named_again():
    """``unobserve(self.hear)`` ends what ``observe(self.hear)`` began."""
    stand, heard = Stand(), []
    stand.guard.observe(heard.append)
    stand.guard.unobserve(heard.append)
    stand.succeed()
    assert heard == []
    assert stand.guard.switch.quiet


@both
def test_an_observer_that_raises_is_reported_once_and_stays(suspends):
    """Callers and the other observers notice nothing."""
    stand, before, behind = Stand(), [], []
    stand.resilience.observe(before.append)

    def breaks(event):
        before.append("broken")
        raise LookupError

    stand.resilience.observe(breaks)
    stand.resilience.observe(behind.append)
    for _ in range(3):
        assert stand.succeed(suspends) == "fine"
    assert isinstance(stand.fail(suspends), Boom)
    assert (before.count("broken"), len(before), len(behind)) == (4, 8, 4)
    assert [(event.error, event.where) for event in stand.told(DefectFound)] == [("LookupError", "observer of guard dependency")]
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (3, 1)


def test_an_observer_that_raises_does_not_keep_a_rejection():
    """The refused caller gets the rejection, and it is counted."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.resilience.observe(lambda event: 1 / 0)
    assert [type(stand.fail()) for _ in range(2)] == [CircuitOpen] * 2
    assert stand.count(Outcome.REJECTED) == 2
    assert [event.error for event in stand.told(DefectFound)] == ["ZeroDivisionError"]


@both
@pytest.mark.parametrize("options", [{}, {"breaker": True}, {"retry": Retry(attempts=2, wait=0.0)}, {"fallback": lambda: "lesser"}])
def test_nothing_changes_for_the_caller(suspends, options):
    """The same answers, the same errors, the same counts and the same events as with nobody looking on."""

    def history(observed):
        stand = Stand(**options)
        if observed:
            stand.resilience.observe(lambda event: None)
        found = []
        for fails in (False, True, False, True, True):
            result = stand.fail(suspends) if fails else stand.succeed(suspends)
            found.append((type(result), str(result)))
            stand.clock.advance(1.0)
        counts = stand.guard.recorder.counts()
        return found, {outcome: counts.total(outcome) for outcome in Outcome}, stand.events

    assert history(observed=True) == history(observed=False)


def test_an_observer_may_look_and_end_itself():
    """It is called with nothing held."""
    stand, heard = Stand(breaker=one_strike()), []

    def once(event):
        heard.append((event.outcome, stand.resilience.snapshot().guards["dependency"].counts.total()))
        end()

    end = stand.resilience.observe(once)
    stand.succeed()
    stand.succeed()
    assert heard == [("good", 1)]
    assert stand.guard.switch.quiet
