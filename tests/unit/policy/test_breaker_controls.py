"""The breaker at a guard: its controls, changing and taking it away, and what is left when something breaks."""

from __future__ import annotations

import pytest

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, ManualClock, Outcome
from somaresil.chance import Chance
from somaresil.events import BreakerChanged, CallEnded, DefectFound
from somaresil.listeners import Listeners
from somaresil.model.breaker import Breaker, IllegalTransition, State, Tally
from somaresil.noted import Noted
from somaresil.recorder import Recorder
from somaresil.shadow import Shadow
from somaresil.site import Site
from somaresil.switch import Switch
from tests.behaviour.kit import Boom, Stand, both_paths, one_strike

# -- controls -------------------------------------------------------------------------------------------------------------------------


def test_a_trip_opens_for_as_long_as_told_and_is_then_probed():
    """No jitter: an operator gets what was asked for."""
    stand = Stand(breaker=CircuitBreaker(half_open_calls=1))
    control = stand.resilience.breaker("dependency")
    control.trip(5.0)
    assert (control.state, control.retry_after, control.era) == (State.OPEN, 5.0, 2)
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert (rejection.detail, rejection.last_error, rejection.injected) == ("tripped for a while", None, False)
    stand.clock.advance(5.0)
    assert stand.succeed() == "fine"
    assert control.state is State.CLOSED


def test_a_trip_without_a_duration_lasts_as_long_as_an_opening():
    """The plain ``open_duration``."""
    stand = Stand(breaker=CircuitBreaker(open_duration=12.0))
    stand.resilience.breaker("dependency").trip()
    assert stand.breaker.retry_after() == 12.0


@pytest.mark.parametrize("control", ["force_open", "disable", "observe"])
def test_a_trip_is_refused_where_an_operator_has_decided_otherwise(control):
    """Forced open, disabled or watching: the error says what would be legal, nothing changes."""
    stand = Stand(breaker=True)
    handle = stand.resilience.breaker("dependency")
    getattr(handle, control)()
    state, era = handle.state, handle.era
    with pytest.raises(IllegalTransition, match="cannot take 'trip'"):
        handle.trip()
    assert (handle.state, handle.era) == (state, era)


def test_a_tripped_breaker_released_by_its_era_is_probed_at_once():
    """Only the opening that the trip began is ended; a later one is not."""
    stand = Stand(breaker=one_strike())
    era = stand.breaker.trip(60.0, injected=True)
    rejection = stand.fail()
    assert rejection.injected
    stand.breaker.release(era)
    assert stand.breaker.retry_after() == 0.0
    assert isinstance(stand.fail(), Boom)
    assert stand.state == "open"
    stand.breaker.release(era)
    assert isinstance(stand.fail(), CircuitOpen)


def test_releasing_what_has_closed_changes_nothing():
    """The lease of an experiment may end after an operator has reset the breaker."""
    stand = Stand(breaker=one_strike())
    era = stand.breaker.trip(60.0)
    stand.resilience.breaker("dependency").reset()
    stand.breaker.release(era)
    stand.breaker.release(stand.breaker.era)
    assert stand.state == "closed"
    assert stand.succeed() == "fine"


def test_a_trip_by_an_experiment_is_marked_until_the_breaker_judges_for_itself():
    """Rejections and events carry the mark; the relapse of the probe is the dependency's own."""
    stand = Stand(breaker=one_strike())
    stand.breaker.trip(10.0, injected=True)
    rejection = stand.fail()
    assert rejection.injected
    assert str(rejection).endswith("caused by a chaos experiment")
    stand.clock.advance(10.0)
    stand.fail()
    assert [(event.after, event.injected) for event in stand.told(BreakerChanged)] == [
        ("open", True),
        ("half_open", True),
        ("open", False),
    ]
    assert not stand.fail().injected
    counts = stand.guard.recorder.counts()
    assert counts.total(Outcome.REJECTED, injected=True) == 1
    assert counts.total(Outcome.REJECTED, injected=False) == 1


def test_forced_open_stays_until_it_is_reset():
    """No time opens it; the rejection says who did and names no time."""
    stand = Stand(breaker=True)
    control = stand.resilience.breaker("dependency")
    control.force_open()
    stand.clock.advance(1e9)
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert (rejection.retry_after, rejection.detail) == (None, "forced open by an operator")
    assert (control.state, control.retry_after) == (State.FORCED_OPEN, None)
    control.reset()
    assert stand.succeed() == "fine"


@pytest.mark.parametrize("retry", [None, 2])
def test_forced_open_rejects_on_both_ways_to_a_rejection(retry):
    """With and without a retry outside the breaker."""
    stand = Stand(breaker=True, retry=retry)
    stand.resilience.breaker("dependency").force_open()
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert rejection.retry_after is None
    assert stand.count(Outcome.REJECTED) == stand.count() == 1


def test_disabled_lets_everything_through_and_judges_nothing():
    """No failure opens it, and none is in its window."""
    stand = Stand(breaker=one_strike())
    stand.resilience.breaker("dependency").disable()
    for _ in range(10):
        assert isinstance(stand.fail(), Boom)
    assert stand.state == "disabled"
    assert stand.breaker.tally().failures == 0
    assert stand.count(Outcome.BAD) == 10


def test_metrics_only_counts_and_never_opens():
    """The window shows what would have opened it."""
    stand = Stand(breaker=one_strike())
    control = stand.resilience.breaker("dependency")
    control.observe()
    for _ in range(3):
        assert isinstance(stand.fail(), Boom)
    stand.succeed()
    assert control.state is State.METRICS_ONLY
    assert stand.breaker.tally() == Tally(4, 3, 0, 0)
    assert control.retry_after == 0.0


def test_a_reset_closes_and_forgets():
    """One failure was missing; after the reset it is not enough."""
    stand = Stand(breaker=one_strike(consecutive_failures=3))
    stand.fail()
    stand.fail()
    stand.resilience.breaker("dependency").reset()
    assert stand.breaker.tally() == Tally(0, 0, 0, 0)
    stand.fail()
    assert stand.state == "closed"


def test_a_control_is_told_with_its_cause():
    """Listeners hear of every step by hand, with no duration unless it opens for a time."""
    stand = Stand(breaker=one_strike())
    control = stand.resilience.breaker("dependency")
    for step in (control.trip, control.force_open, control.disable, control.observe, control.reset):
        step()
    told = [(event.after, event.cause, event.open_duration) for event in stand.told(BreakerChanged)]
    assert told == [
        ("open", "trip", 30.0),
        ("forced_open", "force_open", None),
        ("disabled", "disable", None),
        ("metrics_only", "observe", None),
        ("closed", "reset", None),
    ]
    assert all(event.first_failure_at == event.at for event in stand.told(BreakerChanged))


def test_a_breaker_that_does_not_watch_calls_holds_the_switch():
    """Any state but closed is a reason for the full path; closed is none."""
    stand = Stand(breaker=one_strike())
    control = stand.resilience.breaker("dependency")
    assert stand.guard.switch.quiet
    for step in (control.trip, control.force_open, control.disable, control.observe):
        step()
        assert stand.guard.switch.reasons == {"breaker"}
    control.reset()
    assert stand.guard.switch.quiet
    assert stand.guard.switch.era == control.era


# -- changing options -----------------------------------------------------------------------------------------------------------------


def test_reconfiguring_keeps_state_and_era():
    """An open breaker stays open for the time it was given; the next opening has the new length."""
    stand = Stand(breaker=one_strike(open_duration=30.0))
    stand.fail()
    era, left = stand.breaker.era, stand.breaker.retry_after()
    stand.guard.configure(breaker=one_strike(open_duration=5.0, open_factor=1.0))
    assert (stand.state, stand.breaker.era, stand.breaker.retry_after()) == ("open", era, left)
    stand.clock.advance(30.0)
    stand.fail()
    assert stand.breaker.retry_after() == 5.0


@both_paths
def test_reconfiguring_starts_the_window_anew(held):
    """Also from a time window to one over calls and back: what was counted before is not judged by new rules."""
    stand = Stand(held=held, breaker=one_strike(consecutive_failures=3))
    stand.succeed()
    stand.fail()
    stand.guard.configure(breaker=one_strike(consecutive_failures=3, window_calls=50, minimum_calls=50))
    assert stand.breaker.tally() == Tally(0, 0, 0, 0)
    stand.succeed()
    stand.fail()
    assert stand.breaker.tally() == Tally(2, 1, 0, 1)
    stand.guard.configure(breaker=one_strike(consecutive_failures=2))
    assert stand.breaker.tally() == Tally(0, 0, 0, 0)
    stand.fail()
    assert stand.state == "closed"
    stand.fail()
    assert stand.state == "open"


@both_paths
def test_slow_calls_can_be_given_up_while_running(held):
    """After that a slow call is a call like any other."""
    slow = {"slow_call_rate": 1.0, "slow_call_duration": 1.0}
    stand = Stand(held=held, breaker=one_strike(minimum_calls=1, **slow))
    stand.guard.configure(breaker=one_strike(minimum_calls=1))
    stand.guard(stand.clock.advance)(2.0)
    assert stand.state == "closed"
    stand.guard.configure(breaker=one_strike(minimum_calls=1, **slow))
    stand.guard(stand.clock.advance)(2.0)
    assert stand.state == "open"


def test_a_slow_call_duration_that_is_no_bound_cannot_be_added():
    """The error names the bounds there are, and nothing has changed."""
    stand = Stand(breaker=one_strike())
    before = stand.guard.options
    with pytest.raises(ConfigurationError, match=r"slow_call_duration = 1\.2345: expected one of the bounds"):
        stand.guard.configure(breaker=one_strike(slow_call_rate=0.5, slow_call_duration=1.2345))
    assert stand.guard.options is before
    stand.guard.configure(breaker=one_strike(slow_call_rate=0.5, slow_call_duration=stand.guard.recorder.bounds[2]))


def test_a_breaker_that_is_taken_away_leaves_nothing_behind():
    """Cells, views and switch are as if it had never been; its controls are gone."""
    stand = Stand(breaker=one_strike(slow_call_rate=1.0, slow_call_duration=1.0))
    stand.guard.configure(breaker=None)
    assert stand.guard.breaker is None
    assert stand.guard.switch.quiet
    assert list(stand.guard.recorder.cells) == list(stand.guard.recorder.quiet_counters)
    for _ in range(5):
        assert isinstance(stand.fail(), Boom)
    with pytest.raises(ConfigurationError, match="breaker=True"):
        stand.resilience.breaker("dependency")


def test_a_closed_breaker_is_taken_away_in_silence():
    """Nobody is told of a step that no caller could feel, and a call that it let in cannot open it any more."""
    stand = Stand(breaker=one_strike())
    retired = stand.breaker

    def retire_and_fail():
        stand.guard.configure(breaker=None)
        raise Boom

    with pytest.raises(Boom):
        stand.guard(retire_and_fail)()
    assert retired.state is State.DISABLED
    assert stand.told(BreakerChanged) == []
    assert stand.guard.switch.quiet


# -- nobody listens, or something breaks --------------------------------------------------------------------------------------------------


def test_without_listeners_nothing_is_told_and_everything_is_counted():
    """An opening and its rejections are in the counts."""
    stand = Stand(breaker=one_strike(), listening=False)
    stand.fail()
    for _ in range(100):
        assert isinstance(stand.fail(), CircuitOpen)
    assert (stand.count(Outcome.BAD), stand.count(Outcome.REJECTED)) == (1, 100)


def test_rejections_are_told_to_those_who_want_ends_of_calls():
    """Each of them, with no time passed."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.fail()
    ended = stand.told(CallEnded)
    assert [(event.outcome, event.error) for event in ended] == [("bad", "Boom"), ("rejected", "CircuitOpen")]
    assert ended[1].elapsed == 0.0


def test_a_slow_call_that_cannot_be_counted_is_reported_and_still_judged(monkeypatch):
    """The quiet path has no net of its own: the caller gets the result."""
    stand = Stand(breaker=CircuitBreaker(failure_rate=None, slow_call_rate=1.0, slow_call_duration=1.0, minimum_calls=1))
    stand.succeed()

    def broken(*args):
        raise RuntimeError

    monkeypatch.setattr(type(stand.guard.recorder), "add", broken)
    assert stand.guard(lambda: stand.clock.advance(2.0) or "slow")() == "slow"
    assert [event.where for event in stand.told(DefectFound)] == ["counting a slow call of guard dependency"]


def test_a_breaker_works_without_anybody_who_listens():
    """By itself, on a recorder of its own: as adapters of other libraries build theirs."""
    recorder, clock, listeners = Recorder(Switch(), (1.0,)), ManualClock(), Listeners()
    breaker = one_strike().build(Site("alone", recorder, clock, Chance(1), listeners, Shadow("alone", clock, listeners), Noted()))
    breaker.settle(breaker.admit(), Outcome.BAD, 0.1, clock.monotonic(), Boom("down"))
    assert (breaker.state, breaker.last_error) == (State.OPEN, "Boom: down")
    with pytest.raises(CircuitOpen):
        breaker.admit()
    assert recorder.switch.reasons == {"breaker"}


def test_what_was_admitted_in_another_era_has_no_say():
    """It is neither in the window nor a reason to open."""
    stand = Stand(breaker=one_strike())
    permit = stand.breaker.admit()
    stand.resilience.breaker("dependency").reset()
    stand.breaker.settle(permit, Outcome.BAD, 0.1, stand.clock.monotonic(), Boom())
    assert stand.state == "closed"
    assert stand.breaker.tally().calls == 0


def test_a_window_over_calls_has_no_boundaries_in_time():
    """Nothing is ever due, and rolling it is nothing."""
    stand = Stand(breaker=CircuitBreaker(window_calls=50))
    stand.succeed()
    assert stand.breaker.due == float("inf")
    stand.breaker.roll(stand.clock.monotonic() + 1e6)
    assert stand.breaker.tally().calls == 1


def test_an_open_breaker_that_is_taken_away_says_so():
    """Whoever follows the incident hears that nobody will close it; the next call passes."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.guard.configure(breaker=None)
    assert [(event.before, event.after, event.cause) for event in stand.told(BreakerChanged)[1:]] == [("open", "disabled", "disable")]
    assert stand.succeed() == "fine"
    assert stand.guard.switch.quiet


@pytest.mark.parametrize("step", ["admit", "settle"])
def test_a_defect_in_the_model_lets_the_call_pass_and_is_reported_once(step, monkeypatch):
    """It fails open: the caller gets the result or its own error."""
    stand = Stand(breaker=one_strike(), held=True)

    def broken(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(Breaker, step, broken)
    for _ in range(2):
        assert isinstance(stand.fail(), Boom)
        assert stand.succeed() == "fine"
    assert [event.where for event in stand.told(DefectFound)] == ["breaker of guard dependency"]


def test_fewer_probes_while_it_is_probed_do_not_wedge_it():
    """As many probes as the new number asks for are let through and close it."""
    stand = Stand(breaker=one_strike(half_open_calls=5))
    with pytest.raises(Boom), stand.guard:
        raise Boom
    stand.clock.advance(31.0)
    for _ in range(3):
        stand.guard.call(str)
    assert stand.state == "half_open"
    stand.guard.configure(breaker=one_strike(half_open_calls=2))
    stand.guard.call(str)
    assert stand.state == "half_open"
    stand.guard.call(str)
    assert stand.state == "closed"


def test_the_controls_of_a_breaker_that_was_taken_away_do_not_reach_the_next():
    """Reset by old hands, the new one keeps refusing; forced open by them, calls stay on the quiet path."""
    stand = Stand(breaker=True)
    old = stand.resilience.breaker("dependency")
    stand.guard.configure(breaker=None)
    old.force_open()
    assert stand.guard.switch.quiet
    stand.guard.configure(breaker=True)
    stand.resilience.breaker("dependency").force_open()
    old.reset()
    with pytest.raises(CircuitOpen):
        stand.guard(lambda: None)()
