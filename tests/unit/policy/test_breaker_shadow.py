"""The breaker in shadow mode, and one that only watches: what they would have done is counted and told, and not done."""

from __future__ import annotations

import pytest

from somaresil import CircuitBreaker, CircuitOpen, Classify, Outcome
from somaresil.events import BreakerChanged, IncidentClosed, IncidentOpened, ShadowDecision
from somaresil.model.breaker import State
from tests.behaviour.kit import Boom, Stand, both, both_paths, one_strike

OPEN, REJECT = ("breaker", "open"), ("breaker", "reject")


@both_paths
@both
def test_a_shadow_refuses_nothing_and_counts_what_it_would_have_refused(suspends, held):
    """Every call gets its own end; the openings and the rejections there would have been are counted with the reason."""
    stand = Stand(held=held, breaker=one_strike(shadow=True))
    for _ in range(4):
        assert isinstance(stand.fail(suspends), Boom)
    assert stand.succeed(suspends) == "fine"
    assert stand.state == "open"
    assert stand.guard.shadow.counts() == {OPEN: 1, REJECT: 4}
    why = "1 of 1 calls failed in 30 s, 1 in a row (>= 1)"
    assert [(event.decision, event.detail) for event in stand.told(ShadowDecision)] == [("open", why), *[("reject", why)] * 4]
    assert (stand.count(Outcome.BAD), stand.count(Outcome.GOOD), stand.count(Outcome.REJECTED)) == (4, 1, 0)


@both
def test_a_shadow_goes_through_the_whole_life_of_a_breaker(suspends):
    """It opens, is probed by as many calls as in earnest, ramps up and closes; what ends without leave changes nothing."""
    stand = Stand(breaker=one_strike(shadow=True, half_open_calls=2, ramp_up=10.0, ramp_up_from=0.5))
    stand.fail(suspends)
    stand.clock.advance(30.0)

    def nested():
        return stand.guard(stand.fail)()

    # Two probes under way, and a third call inside them that would have been refused, fails and has no say.
    assert isinstance(stand.guard(nested)(), Boom)
    assert stand.state == "ramping"
    assert stand.guard.shadow.counts() == {OPEN: 1, REJECT: 1}
    for _ in range(4):
        assert stand.succeed(suspends) == "fine"
    assert stand.guard.shadow.counts() == {OPEN: 1, REJECT: 3}
    assert stand.told(ShadowDecision)[-1].detail == "ramping up: 50 %"
    stand.clock.advance(10.0)
    stand.succeed(suspends)
    assert stand.state == "closed"
    assert stand.guard.switch.quiet


def test_a_shadow_opens_no_incident_and_its_steps_are_marked():
    """Nobody is woken by an outage that did not happen, and it is in no count of transitions."""
    stand = Stand(breaker=one_strike(shadow=True))
    stand.fail()
    stand.clock.advance(30.0)
    stand.succeed()
    assert [(event.after, event.shadow) for event in stand.told(BreakerChanged)] == [("open", True), ("half_open", True), ("closed", True)]
    assert stand.told(IncidentOpened) == stand.told(IncidentClosed) == []
    assert set(stand.breaker.transitions().values()) == {0}


def test_a_breaker_in_earnest_tells_steps_without_the_mark():
    """The mark is the shadow's."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    assert [event.shadow for event in stand.told(BreakerChanged)] == [False]
    assert stand.guard.shadow.counts() == {}


def test_a_shadow_that_is_forced_open_refuses_nothing():
    """Whoever wants that takes it out of the shadow first."""
    stand = Stand(breaker=one_strike(shadow=True))
    stand.resilience.breaker("dependency").force_open()
    assert stand.succeed() == "fine"
    assert stand.guard.shadow.counts() == {REJECT: 1}


def test_promoting_a_shadow_begins_with_a_closed_circuit():
    """An opening that nobody felt is not carried out; from then on it is in earnest."""
    stand = Stand(breaker=one_strike(shadow=True))
    stand.fail()
    assert stand.state == "open"
    stand.guard.configure(breaker=one_strike())
    assert stand.state == "closed"
    assert stand.succeed() == "fine"
    assert stand.told(IncidentOpened) == []
    stand.fail()
    assert isinstance(stand.fail(), CircuitOpen)
    assert len(stand.told(IncidentOpened)) == 1


def test_sending_an_open_breaker_into_the_shadow_ends_its_incident():
    """It refuses nothing any more, so the guard serves."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.guard.configure(breaker=one_strike(shadow=True))
    assert len(stand.told(IncidentClosed)) == 1
    assert stand.succeed() == "fine"
    stand.guard.configure(breaker=one_strike(shadow=True, window=5.0))
    assert stand.told(BreakerChanged)[-1].after == "closed"


@pytest.mark.parametrize("control", ["disable", "observe"])
def test_what_an_operator_has_set_stands_when_the_shadow_comes_or_goes(control):
    """Disabled and watching breakers refuse nothing either way."""
    stand = Stand(breaker=one_strike())
    getattr(stand.resilience.breaker("dependency"), control)()
    state = stand.state
    for shadow in (True, False):
        stand.guard.configure(breaker=one_strike(shadow=shadow))
        assert stand.state == state


@both
def test_a_watching_breaker_counts_the_openings_there_would_have_been(suspends):
    """Once for as long as each of them had lasted; it refuses nothing and never opens."""
    stand = Stand(breaker=one_strike(open_duration=10.0))
    stand.resilience.breaker("dependency").observe()
    for _ in range(5):
        stand.fail(suspends)
        stand.clock.advance(4.0)
    assert stand.state == "metrics_only"
    assert stand.guard.shadow.counts() == {OPEN: 2}
    assert [event.detail for event in stand.told(ShadowDecision)] == [
        "1 of 1 calls failed in 30 s, 1 in a row (>= 1)",
        "4 of 4 calls failed in 30 s, 4 in a row (>= 1)",
    ]


def test_a_watching_breaker_sees_what_is_fatal():
    """It would have opened, for as long as the classifier says."""
    stand = Stand(breaker=CircuitBreaker(), classify=Classify(fatal=Boom, fatal_duration=100.0))
    stand.resilience.breaker("dependency").observe()
    for _ in range(3):
        stand.fail()
        stand.clock.advance(60.0)
    assert stand.guard.shadow.counts() == {OPEN: 2}
    assert stand.told(ShadowDecision)[0].detail == "a call ended in a way that makes further calls pointless"


def test_a_shadow_is_metrics_only_to_those_who_watch_its_metrics():
    """What it does with calls, not what it would do."""
    from somaresil.integrations._readings import Reader

    def shown(stand: Stand) -> str:
        rows = Reader(stand.resilience).read().rows["somaresil_breaker_state"]
        return next(state for (_, state), value in rows.items() if value)

    stand = Stand(breaker=one_strike(shadow=True))
    stand.fail()
    assert shown(stand) == State.METRICS_ONLY
    stand.resilience.breaker("dependency").disable()
    assert shown(stand) == State.DISABLED
    stand.resilience.breaker("dependency").reset()
    stand.guard.configure(breaker=one_strike())
    stand.resilience.breaker("dependency").trip()
    assert shown(stand) == State.OPEN
