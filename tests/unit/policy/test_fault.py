"""The fault point: where an armed rule strikes a call, and what it does when a rule misbehaves."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from somaresil import CircuitOpen, InjectedFault, Outcome, Retry
from somaresil.events import AttemptFailed, CallEnded, DefectFound
from tests.behaviour.kit import Boom, Stand, both, one_strike


class Strike(NamedTuple):
    """What a rule does to a call."""

    delay: float = 0.0
    error: BaseException | None = None
    after: None = None


class Rule:
    """A rule that does as told, as often as there are strikes."""

    def __init__(self, *strikes: Strike | None, live: bool = True) -> None:
        self.strikes = list(strikes)
        self.live = live
        self.over = not live
        self.asked = 0

    def decide(self, _call=None) -> bool:
        """Whoever strikes says so there."""
        return True

    def strike(self, _decided=None) -> Strike | None:
        """Take the next of the strikes."""
        self.asked += 1
        return self.strikes.pop(0) if self.strikes else None

    async def hold(self, runtime, seconds: float) -> bool:
        """Delay the call."""
        await runtime.sleep(seconds)
        return True


def fault() -> InjectedFault:
    """Make what a rule raises."""
    return InjectedFault("dependency", "x1")


def armed(*rules: Rule, **options) -> Stand:
    """Stand with these rules armed."""
    stand = Stand(**options)
    for rule in rules:
        stand.guard.faults.arm(rule)
    return stand


def test_the_switch_is_held_while_a_rule_is_armed():
    """Quiet again when the last one is gone, whatever the order."""
    first, second = Rule(), Rule()
    stand = armed(first, second)
    assert stand.guard.switch.reasons == {"fault"}
    stand.guard.faults.disarm(first)
    assert stand.guard.faults.rules == (second,)
    assert not stand.guard.switch.quiet
    stand.guard.faults.disarm(first)
    stand.guard.faults.disarm(second)
    assert stand.guard.switch.quiet


@both
def test_a_rule_that_does_not_strike_lets_the_call_pass(suspends):
    """The call is looked at and not marked."""
    rule = Rule()
    stand = armed(rule)
    assert stand.succeed(suspends) == "fine"
    assert rule.asked == 1
    assert stand.guard.recorder.counts().total(injected=True) == 0
    assert stand.told(CallEnded) == []


@both
def test_an_injected_error_takes_the_place_of_the_call(suspends):
    """The callee is not reached; the record and the event carry the mark."""
    error = fault()
    stand = armed(Rule(Strike(error=error)))
    reached = []
    with pytest.raises(InjectedFault) as raised:
        stand.callable(lambda: reached.append(1), suspends)()
    assert raised.value is error
    assert reached == []
    assert stand.guard.recorder.counts().total(Outcome.BAD, injected=True) == stand.count() == 1
    assert [(event.outcome, event.injected) for event in stand.told(CallEnded)] == [("bad", True)]


@both
def test_a_delay_passes_before_the_call(suspends):
    """The call is made, late; it is good, and marked."""
    stand = armed(Rule(Strike(delay=2.0)))
    before = stand.clock.monotonic()
    assert stand.callable(stand.clock.monotonic, suspends)() == before + 2.0
    assert stand.guard.recorder.counts().total(Outcome.GOOD, injected=True) == stand.count() == 1
    assert [(event.outcome, event.elapsed) for event in stand.told(CallEnded)] == [("good", 2.0)]


@both
def test_a_delay_comes_before_the_error(suspends):
    """As a real dependency that is slow and then fails."""
    stand = armed(Rule(Strike(delay=2.0, error=fault())))
    before = stand.clock.monotonic()
    with pytest.raises(InjectedFault):
        stand.succeed(suspends)
    assert stand.clock.monotonic() == before + 2.0


def test_rules_strike_in_the_order_in_which_they_were_armed():
    """Delays add up, and the first error ends it."""
    stand = armed(Rule(Strike(delay=1.0)), Rule(Strike(delay=2.0, error=fault())), last := Rule(Strike(delay=4.0)))
    before = stand.clock.monotonic()
    with pytest.raises(InjectedFault):
        stand.succeed()
    assert stand.clock.monotonic() == before + 3.0
    assert last.asked == 0


@both
def test_every_policy_sees_a_fault_as_a_real_one(suspends):
    """The retry tries again, the breaker opens, the fallback answers."""
    stand = armed(Rule(Strike(error=fault())), retry=Retry(attempts=2, wait=0.0))
    assert stand.succeed(suspends) == "fine"
    assert [event.injected for event in stand.told(AttemptFailed)] == [True]
    stand = armed(Rule(Strike(error=fault())), breaker=one_strike())
    with pytest.raises(InjectedFault):
        stand.succeed(suspends)
    assert isinstance(stand.fail(suspends), CircuitOpen)
    stand = armed(Rule(Strike(error=fault())), fallback=lambda: "spare")
    assert stand.succeed(suspends) == "spare"


def test_streams_and_blocks_are_struck_at_their_beginning():
    """Nothing of them is run."""
    stand = armed(Rule(*[Strike(error=fault()) for _ in range(4)]))

    @stand.guard
    def stream():
        yield 1

    @stand.guard
    async def astream():
        yield 1

    async def main():
        with pytest.raises(InjectedFault):
            await anext(astream())
        with pytest.raises(InjectedFault):
            async with stand.guard:
                raise AssertionError

    with pytest.raises(InjectedFault):
        list(stream())
    with pytest.raises(InjectedFault), stand.guard:
        raise AssertionError
    asyncio.run(main())
    assert stand.guard.recorder.counts().total(Outcome.BAD, injected=True) == stand.count() == 4


def test_a_rule_whose_lease_is_over_is_disarmed_by_the_call_that_finds_it():
    """Nobody else need come by."""
    stand = armed(rule := Rule(Strike(error=fault()), live=False))
    assert stand.succeed() == "fine"
    assert rule.asked == 0
    assert stand.guard.faults.rules == ()
    assert stand.guard.switch.quiet


def test_a_first_attempt_that_was_made_on_the_quiet_path_is_not_struck():
    """It was over before the rule was armed; the second attempt is struck."""
    rule = Rule(Strike(error=fault()), Strike(error=fault()))
    stand = Stand(retry=Retry(attempts=2, wait=0.0))
    calls = []

    def arms_and_fails():
        calls.append(1)
        stand.guard.faults.arm(rule)
        raise Boom

    with pytest.raises(InjectedFault):
        stand.guard(arms_and_fails)()
    assert (len(calls), rule.asked) == (1, 1)


def broken(*args):
    """Stand for a defect of the engine."""
    raise RuntimeError


@both
def test_a_rule_that_cannot_decide_lets_the_call_pass(suspends):
    """A defect in the engine must not become a fault; it is reported once, and the rules behind it still strike."""
    stand = armed(rule := Rule())
    rule.strike = broken
    for _ in range(2):
        assert stand.succeed(suspends) == "fine"
    assert [event.where for event in stand.told(DefectFound)] == ["fault point"]
    assert stand.guard.recorder.counts().total(injected=True) == 0
    stand.guard.faults.arm(Rule(Strike(error=fault())))
    with pytest.raises(InjectedFault):
        stand.succeed(suspends)


@both
def test_a_delay_that_cannot_be_held_does_not_fail_the_call(suspends):
    """It is reported, and the error of the strike is raised all the same."""
    stand = armed(rule := Rule(Strike(delay=1.0), Strike(delay=1.0, error=fault())))
    rule.hold = broken
    assert stand.succeed(suspends) == "fine"
    with pytest.raises(InjectedFault):
        stand.succeed(suspends)
    assert [event.where for event in stand.told(DefectFound)] == ["delay of the fault point"]
