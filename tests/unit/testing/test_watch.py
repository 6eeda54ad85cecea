"""What a test sees of a process under faults: the history, its text, the assertions over it, and the faults themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from somaresil import (
    SLO,
    ChaosCeilings,
    ChaosPlan,
    CircuitBreaker,
    CircuitOpen,
    ConfigurationError,
    FaultWindow,
    InjectedFault,
    ManualClock,
    Resilience,
    Retry,
)
from somaresil.chaos.permission import SWITCH, Permission
from somaresil.events import BreakerChanged, CallEnded, ExperimentEnded, ExperimentStarted, FaultInjected, RetryScheduled
from somaresil.testing import (
    TEST_CEILINGS,
    History,
    Recovery,
    allow_chaos,
    assert_absorbed,
    assert_breaker,
    assert_budget,
    assert_recovers,
    capture_events,
    inject,
    inject_plan,
    watch,
)
from tests.behaviour.kit import PATIENCE, Boom, one_strike

pytestmark = pytest.mark.timeout(PATIENCE)


class Service:
    """A process with guards on a clock that is moved by hand."""

    def __init__(self, *names, environment=None, **options):
        self.clock = ManualClock(monotonic=1_000.0)
        self.resilience = Resilience("tests", clock=self.clock, seed=7, environment=environment)
        for name in names or ("dependency",):
            self.resilience.guard(name, **options)

    def call(self, name="dependency", *, fails=False, takes=0.0):
        """One call, whatever comes of it; its error."""

        def dependency():
            self.clock.advance(takes)
            if fails:
                raise Boom("down")

        try:
            self.resilience.guard(name).call(dependency)
        except Exception as error:
            return error
        return None

    def series(self, outcomes, name="dependency", step=1.0):
        """A call each ``step`` seconds: ``.`` goes well, ``x`` fails."""
        for outcome in outcomes:
            self.call(name, fails=outcome == "x")
            self.clock.advance(step)


@pytest.fixture
def service():
    """With one guard and nothing around it."""
    return Service()


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """No permission before, none after."""
    monkeypatch.delenv(SWITCH, raising=False)
    yield
    assert SWITCH not in os.environ


# -- watching -----------------------------------------------------------------------------------------------------------------------------


def test_good_calls_are_seen_too(service):
    """Every end of a call, once each, with its time since the beginning."""
    with capture_events(service.resilience) as history:
        service.clock.advance(2)
        service.call()
        service.clock.advance(3)
        service.call(fails=True)
    assert [(moment.at, moment.event.outcome) for moment in history.moments] == [(2.0, "good"), (5.0, "bad")]
    assert history.events == tuple(moment.event for moment in history.moments)
    assert history.guards == ("dependency",)
    assert history.began == 1_000.0


def test_events_and_ends_stand_in_one_line():
    """In the order in which they were told, each kind to be asked for by itself and by guard."""
    service = Service("llm.a", "llm.b", "db", breaker=one_strike())
    with capture_events(service.resilience) as history:
        service.call("llm.a", fails=True)
        service.call("db", fails=True)
        service.call("llm.b")
    assert [event.guard for event in history.of(BreakerChanged)] == ["llm.a", "db"]
    assert [event.guard for event in history.of(BreakerChanged, "llm.*")] == ["llm.a"]
    assert [event.guard for event in history.of(CallEnded, "llm.*")] == ["llm.a", "llm.b"]
    assert history.of(RetryScheduled) == []
    assert len(history.of(CallEnded)) == 3


def test_watching_ends_and_what_was_seen_stays(service):
    """Later calls are not in it, its time stands still, and guards are as quiet as before."""
    guard = service.resilience.guard("dependency")
    with capture_events(service.resilience) as history:
        assert guard.switch.reasons
        assert history.ended is None
        service.call()
        service.clock.advance(5)
        assert history.now == 5.0
    service.clock.advance(100)
    service.call(fails=True)
    assert guard.switch.reasons == frozenset()
    assert (history.now, history.ended, len(history.moments)) == (5.0, 5.0, 1)
    history.close()
    assert history.ended == 5.0
    history.tell("late")
    assert len(history.moments) == 1


def test_watching_ends_with_an_error(service):
    """Guards are quiet again, whatever has happened."""
    with pytest.raises(Boom), capture_events(service.resilience):
        raise Boom
    assert service.resilience.guard("dependency").switch.reasons == frozenset()
    assert not service.resilience.listeners.wants(CallEnded)


def test_guards_that_are_made_meanwhile_are_seen(service):
    """And are quiet afterwards as well."""
    with capture_events(service.resilience) as history:
        service.call("later")
    assert history.guards == ("later",)
    assert service.resilience.guard("later").switch.reasons == frozenset()


def test_two_may_watch_at_once(service):
    """Each from its own beginning to its own end."""
    with capture_events(service.resilience) as outer:
        service.call()
        with capture_events(service.resilience) as inner:
            service.call()
        service.call()
        assert service.resilience.guard("dependency").switch.reasons
    assert (len(outer.moments), len(inner.moments)) == (3, 1)
    assert service.resilience.guard("dependency").switch.reasons == frozenset()


def test_memory_is_bounded(service, monkeypatch):
    """The oldest go first, and are counted."""
    monkeypatch.setattr(watch, "KEPT", 10)
    with capture_events(service.resilience) as history:
        for _ in range(25):
            service.call()
            service.clock.advance(1)
    assert [moment.at for moment in history.moments] == [float(at) for at in range(15, 25)]
    assert history.dropped == 15
    assert "the first 15 moments are forgotten" in history.timeline()


def test_watching_from_many_threads(service):
    """Nothing is lost."""

    def work():
        for _ in range(200):
            service.call()

    with capture_events(service.resilience) as history:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(history.of(CallEnded)) == 800


def test_it_says_what_it_is(service):
    """Moments, seconds and faults."""
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency"):
        service.call()
        service.clock.advance(2.5)
    assert repr(history).startswith("<History: ")
    assert "in 2.5 s, 1 faults>" in repr(history)


# -- faults in the history ----------------------------------------------------------------------------------------------------------------


def test_windows_are_the_faults_from_begin_to_end(service):
    """By the watch's own clock, in order; the last end is when the faults are over."""
    plan = ChaosPlan(
        [FaultWindow("dependency", "error", start=20, duration=10), FaultWindow("dependency", "latency", start=5, duration=2, delay=1)]
    )
    with capture_events(service.resilience) as history:
        service.clock.advance(3)
        with inject_plan(service.resilience, plan):
            service.clock.advance(1)
            assert history.windows == ()
            service.clock.advance(50)
            assert history.windows == ((8.0, 10.0, "dependency", "latency"), (23.0, 33.0, "dependency", "error"))
            assert history.faults_ended == 33.0


def test_a_window_that_is_stopped_ends_then(service):
    """Not at the end of its lease."""
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", duration=600):
            assert history.windows == ((0.0, 600.0, "dependency", "error"),)
            service.clock.advance(7)
        service.clock.advance(100)
        assert history.windows == ((0.0, 7.0, "dependency", "error"),)


def test_a_window_that_was_there_before_begins_with_the_watch(service):
    """It is cut at the beginning; one that was over by then is not in it."""
    with inject(service.resilience, "dependency", duration=10):
        service.clock.advance(20)
        with inject(service.resilience, "dependency", duration=50):
            service.clock.advance(20)
            with capture_events(service.resilience) as history:
                service.clock.advance(60)
    assert history.windows == ((0.0, 30.0, "dependency", "error"),)


def test_a_window_that_never_began_is_no_fault(service):
    """A plan that was stopped early did not strike later on: recovery is measured from what there was."""
    plan = ChaosPlan([FaultWindow("dependency", "error", start=0, duration=5), FaultWindow("dependency", "error", start=100, duration=10)])
    with capture_events(service.resilience) as history:
        with inject_plan(service.resilience, plan):
            service.clock.advance(20)
        service.clock.advance(200)
        assert history.windows == ((0.0, 5.0, "dependency", "error"),)


def test_a_fault_of_no_length_at_the_beginning_is_a_fault(service):
    """With a clock that is moved by hand all of it may happen in one moment; calls were struck all the same."""
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency"):
            service.call()
        service.call()
    assert history.injected == 1
    assert history.windows == ((0.0, 0.0, "dependency", "error"),)
    assert assert_recovers(history, within=0) == 0.0


def test_without_faults_there_are_no_windows(service):
    """And they have ended at the beginning."""
    with capture_events(service.resilience) as history:
        service.call()
    assert (history.windows, history.faults_ended, history.injected, history.touched(), history.absorbed()) == ((), 0.0, 0, 0, None)


def test_struck_calls_are_counted(service):
    """By guard those that were touched; all together those that were struck."""
    service.call("other")
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency", calls=(1, 3)):
        for _ in range(5):
            service.call()
        service.call("other")
    assert (history.injected, history.touched(), history.touched("other"), history.touched("dep*")) == (2, 2, 0, 2)
    assert history.absorbed() == 0.0
    assert history.absorbed("other") is None


def test_absorbed_are_touched_calls_that_end_well():
    """A retry absorbs the first strike, not three in a row."""
    service = Service(retry=Retry(attempts=3, wait=0.0))
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency", calls=(1, 3, 4, 5)):
        assert service.call() is None
        assert isinstance(service.call(), InjectedFault)
        assert service.call() is None
    assert (history.touched(), history.absorbed()) == (2, 0.5)


@pytest.mark.parametrize("before", [1, 64], ids=["it was there before", "many were over before"])
def test_strikes_of_the_time_of_the_watch_are_counted(service, before):
    """Whenever the experiment began, and however many were over by then."""
    if before == 1:
        with inject(service.resilience, "dependency"):
            service.call()
            with capture_events(service.resilience) as history:
                service.call()
    else:
        for _ in range(before):
            with inject(service.resilience, "dependency"):
                pass
        with capture_events(service.resilience) as history, inject(service.resilience, "dependency"):
            service.call()
    assert (history.touched(), history.injected) == (1, 1)


def test_strikes_after_the_watch_are_not_counted(service):
    """What was seen does not change any more."""
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency"):
        service.call()
    with inject(service.resilience, "dependency"):
        service.call()
    assert history.injected == 1


def test_experiments_are_events_too(service):
    """Their begin, each strike and their end."""
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency"):
        service.call()
    assert [type(event) for event in history.events] == [ExperimentStarted, FaultInjected, CallEnded, ExperimentEnded]


# -- recovery -----------------------------------------------------------------------------------------------------------------------------


def recovery_of(outcomes, *, faults=5.0):
    """How a guard comes back whose fault lasts ``faults`` seconds, with a call each second after that."""
    service = Service()
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", duration=faults):
            service.call()
            service.clock.advance(faults)
        service.series(outcomes)
    return history.recovery("dependency")


def test_recovered_at_once():
    """No call failed after the fault: 0 seconds, also when the first comes much later."""
    assert recovery_of("...") == Recovery("dependency", 0.0, 0)


def test_recovered_after_some_failures():
    """The time to the first good call after which none failed."""
    assert recovery_of("xx..") == Recovery("dependency", 2.0, 2)
    assert recovery_of("x.x...") == Recovery("dependency", 3.0, 2)


def test_not_recovered():
    """When no good call came after the last failed one it is infinity: that a later one would go well is not known."""
    assert recovery_of("..x") == Recovery("dependency", math.inf, 1)
    assert recovery_of("xxx") == Recovery("dependency", math.inf, 3)


def test_nothing_known_about_a_recovery():
    """No call after the fault."""
    assert recovery_of("") == Recovery("dependency", None, 0)


def test_rejections_count_as_failures():
    """A circuit that is still open has not recovered."""
    service = Service(breaker=one_strike())
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", duration=5):
            service.call()
            service.clock.advance(5)
        assert isinstance(service.call(), CircuitOpen)
        service.clock.advance(25)
        assert service.call() is None
    assert history.recovery("dependency") == Recovery("dependency", 25.0, 1)


def test_a_call_at_the_end_of_the_fault_is_after_it():
    """The lease is over at its end, so what happens then is judged."""
    service = Service()
    with capture_events(service.resilience) as history, inject(service.resilience, "dependency", duration=5):
        service.clock.advance(5)
        service.call(fails=True)
        service.call()
    assert history.recovery("dependency") == Recovery("dependency", 0.0, 1)


def test_a_call_that_ends_with_the_fault_is_none_after_it():
    """It was struck, and what struck it was stopped at the moment at which it failed: nothing is known of what came after."""
    service = Service()
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", "error", delay=2):
            service.call()
        assert history.recovery("dependency") == Recovery("dependency", None, 0)
        service.clock.advance(60)
        service.call()
    assert history.recovery("dependency") == Recovery("dependency", 0.0, 0)


def test_recoveries_of_several_guards():
    """Of those that were called; the worst of what is known."""
    service = Service("a", "b", "c", "never")
    with capture_events(service.resilience) as history:
        assert history.worst_recovery is None
        with inject(service.resilience, "*", duration=5):
            service.call("c")
            service.clock.advance(5)
        service.series("..", "a")
        service.series("x.", "b")
    assert [(recovery.guard, recovery.seconds) for recovery in history.recoveries()] == [("a", 0.0), ("b", 3.0), ("c", None)]
    assert [recovery.guard for recovery in history.recoveries("[ab]")] == ["a", "b"]
    assert history.recoveries("never") == ()
    assert history.worst_recovery == 3.0


def test_recoveries_read_well():
    """Each of the three cases in words."""
    assert str(Recovery("g", None, 0)) == "g: no call was made after the last fault, so nothing is known"
    assert str(Recovery("g", 2.0, 1)) == "g: recovered after 2 s, 1 calls failed after the last fault"
    assert "not recovered, 3 calls failed" in str(Recovery("g", math.inf, 3))


def test_circuits_of_keys_are_openings_and_shadows_are_none():
    """The text says whose circuit it was, and that a shadow is one."""
    service = Service("dependency", breaker=one_strike())
    shadowed = service.resilience.guard("shadowed", breaker=one_strike(shadow=True))
    with capture_events(service.resilience) as history:
        for view in (service.resilience.guard("dependency").keyed("acme"), shadowed):
            with pytest.raises(Boom), view:
                raise Boom
    assert (history.openings(), history.openings("shadowed")) == (1, 0)
    assert "dependency (acme): circuit closed -> open" in history.timeline()
    assert "shadowed: shadow circuit closed -> open" in history.timeline()


def test_attempts_openings_fallbacks_and_incidents():
    """Attempts are calls that reached the dependency and their repetitions; a probe that fails opens no closed circuit."""
    breaker = CircuitBreaker(failure_rate=None, consecutive_failures=2, open_duration=10.0, open_jitter=0.0, half_open_calls=1)
    service = Service(breaker=breaker, retry=Retry(attempts=2, wait=0.0), fallback=lambda error: "instead")
    with capture_events(service.resilience) as history:
        service.call(fails=True)
        assert service.resilience.breaker("dependency").state == "open"
        service.call()
        service.clock.advance(10)
        service.call(fails=True)
        service.clock.advance(60)
        service.call()
    assert history.openings() == history.openings("dep*") == 1
    assert history.openings("other") == 0
    assert history.fallbacks() == 3
    assert history.longest_incident == 70.0
    assert history.attempts() >= 4


def test_attempts_without_a_fallback():
    """Two of a call that is tried twice, one of a good one, none of one that was rejected."""
    service = Service(breaker=one_strike(consecutive_failures=2), retry=Retry(attempts=2, wait=0.0))
    with capture_events(service.resilience) as history:
        service.call()
        service.call(fails=True)
        assert isinstance(service.call(), CircuitOpen)
    assert history.attempts() == 3


# -- time line ----------------------------------------------------------------------------------------------------------------------------


def test_the_time_line_draws_equal_ends_together(service):
    """One line for a series, a new one when something else comes between, for each guard by itself."""
    with capture_events(service.resilience) as history:
        service.series("...xx.")
        service.series("..", "other")
    lines = history.timeline().splitlines()
    assert lines == [
        "            seconds  what happened",
        "          0.0 - 2.0  dependency: good x 3",
        "          3.0 - 4.0  dependency: bad (Boom) x 2",
        "                5.0  dependency: good x 1",
        "          6.0 - 7.0  other: good x 2",
        "  0 calls struck, 0 touched",
    ]


def test_the_time_line_tells_faults_circuits_and_what_was_absorbed():
    """In the order of their times, with a summary."""
    service = Service(breaker=one_strike())
    with capture_events(service.resilience) as history:
        service.call()
        service.clock.advance(10)
        with inject(service.resilience, "dependency", duration=5):
            service.call()
            service.clock.advance(5)
        service.call()
        service.clock.advance(40)
        service.call()
    text = history.timeline()
    parts = (
        "  dependency: good x 1",
        "10.0 - 15.0  fault: error on dependency",
        "dependency: circuit closed -> open for 30 s: ",
        "dependency: bad (InjectedFault), struck x 1",
        "dependency: rejected (CircuitOpen)",
        "dependency: circuit open -> half_open",
        "dependency: circuit half_open -> closed",
        "dependency: incident over after ",
        "  1 calls struck, ",
    )
    for part in parts:
        assert part in text
    starts = [float(line.split()[0]) for line in text.splitlines()[1:-1]]
    assert starts == sorted(starts)


def test_the_time_line_is_capped(service):
    """Begin and end are shown, and how many lines are left out between them."""
    with capture_events(service.resilience) as history:
        service.series(".x" * 50)
    header, *lines, summary = history.timeline(10).splitlines()
    assert len(lines) == 11
    assert lines[5].endswith("90 lines left out")
    assert lines[0].startswith("                0.0")
    assert lines[-1].startswith("               99.0")
    assert len(history.timeline().splitlines()) <= 43
    assert len(history.timeline(1_000).splitlines()) == 102
    assert (header, summary) == ("            seconds  what happened", "  0 calls struck, 0 touched")


@pytest.mark.parametrize("most", [0, 1])
def test_a_cap_of_one_line_is_a_cap(service, most):
    """The smallest ones too."""
    with capture_events(service.resilience) as history:
        service.series(".x" * 50)
    assert len(history.timeline(most).splitlines()) <= 4


def test_the_time_line_of_nothing(service):
    """Header and summary."""
    with capture_events(service.resilience) as history:
        pass
    assert len(history.timeline().splitlines()) == 2


# -- assertions ---------------------------------------------------------------------------------------------------------------------------


def struck(outcomes, *, touched=1, **options):
    """A service whose guard was under faults for 5 seconds, and called each second after that; its history."""
    service = Service(**options)
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", duration=5):
            for _ in range(touched):
                service.call()
            service.clock.advance(5)
        service.series(outcomes)
    return history


def failure_of(check, *arguments, **options):
    """The text of the assertion that fails."""
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


def test_assert_recovers_passes():
    """It returns the seconds of the slowest; the limit itself is within it, and may be a ``timedelta``."""
    assert assert_recovers(struck("..."), within=0) == 0.0
    assert assert_recovers(struck("xx."), within=2.0) == 2.0
    assert assert_recovers(struck("xx."), within=timedelta(minutes=1), guard="dep*") == 2.0


def test_assert_recovers_fails_with_the_time_line():
    """What was expected, what was found, and what happened."""
    text = failure_of(assert_recovers, struck("xxx."), within=2)
    assert text.splitlines()[0] == "expected: * recovers within 2 s of the last fault"
    assert text.splitlines()[1] == "found:    dependency: recovered after 3 s, 3 calls failed after the last fault"
    assert "fault: error on dependency" in text
    assert "dependency: bad (Boom) x 3" in text


def test_assert_recovers_fails_when_it_never_came_back():
    """Infinity is no number of seconds."""
    assert "not recovered" in failure_of(assert_recovers, struck("..x"), within=1e6)


def test_assert_recovers_fails_when_nothing_is_known():
    """No call after the fault, or no fault at all."""
    assert "no call was made after the last fault" in failure_of(assert_recovers, struck(""), within=60)
    service = Service()
    with capture_events(service.resilience) as history:
        service.call()
    assert "no fault was injected" in failure_of(assert_recovers, history, within=60)


def test_assert_recovers_takes_no_guard_that_was_never_called():
    """A misspelt name would assert nothing."""
    with pytest.raises(ConfigurationError, match="did you mean 'dependency'"):
        assert_recovers(struck("..."), within=60, guard="dependancy")
    with pytest.raises(ConfigurationError, match="within"):
        assert_recovers(struck("..."), within=-1)


def test_assert_absorbed_passes_at_its_limit():
    """None absorbed is as many as none expected."""
    assert assert_absorbed(struck("..."), at_least=0.0) == 0.0


def test_assert_absorbed_of_a_retry():
    """Ten of eleven touched calls end well: it returns the share, and fails with the time line when more is expected."""
    service = Service(retry=Retry(attempts=2, wait=0.0))
    with capture_events(service.resilience) as history:
        with inject(service.resilience, "dependency", calls=tuple(range(1, 20, 2))):
            for _ in range(10):
                service.call()
        service.clock.advance(1)
        with inject(service.resilience, "dependency", calls=(1, 2)):
            service.call()
    assert history.touched() == 11
    assert assert_absorbed(history, at_least=0.9) == pytest.approx(10 / 11)
    text = failure_of(assert_absorbed, history, at_least=0.95, guard="dep*")
    assert text.splitlines()[:2] == [
        "expected: dep* absorbs at least 95.0% of what touches it",
        "found:    90.9% of 11 touched calls ended well",
    ]
    assert "fault: error on dependency" in text


def test_assert_absorbed_fails_when_nothing_was_touched(service):
    """Nothing was shown."""
    with capture_events(service.resilience) as history:
        service.call()
    assert "no call was touched by a fault, so nothing was shown" in failure_of(assert_absorbed, history)


def test_assert_absorbed_checks_its_arguments():
    """Shares are ratios, guards were called."""
    history = struck("...")
    with pytest.raises(ConfigurationError, match=r"95 % is 0\.95"):
        assert_absorbed(history, at_least=95)
    with pytest.raises(ConfigurationError, match="a guard that was called"):
        assert_absorbed(history, guard="nobody")


def test_assert_breaker_passes():
    """By state, by number of openings, by both."""
    history = struck("", breaker=one_strike())
    assert_breaker(history, "dependency", "open", opened=1)
    assert_breaker(history, "dependency", "open")
    assert_breaker(history, "dependency", opened=1)
    assert_breaker(history, "dependency")


def test_assert_breaker_fails_with_the_time_line():
    """State first."""
    history = struck("", breaker=one_strike())
    text = failure_of(assert_breaker, history, "dependency", "closed", opened=2)
    assert text.splitlines()[:2] == ["expected: the circuit of dependency is closed", "found:    it is open"]
    assert "circuit closed -> open" in text
    text = failure_of(assert_breaker, history, "dependency", opened=2)
    assert text.splitlines()[:2] == ["expected: the circuit of dependency opened twice", "found:    it opened once"]
    assert "opened never" in failure_of(assert_breaker, history, "dependency", opened=0)
    assert "opened 3 times" in failure_of(assert_breaker, history, "dependency", opened=3)


def test_assert_breaker_checks_its_arguments(service):
    """A guard without a breaker, one that is not there, a word that is no state."""
    with capture_events(service.resilience) as history:
        service.call()
    with pytest.raises(ConfigurationError, match="a guard with a breaker"):
        assert_breaker(history, "dependency", "open")
    with pytest.raises(ConfigurationError, match="a guard with a breaker"):
        assert_breaker(history, "nobody", "open")
    history = struck("", breaker=one_strike())
    with pytest.raises(ConfigurationError, match="did you mean 'open'") as caught:
        assert_breaker(history, "dependency", "opened", opened=-1)
    assert len(caught.value.problems) == 2


def budgeted(outcomes):
    """A service with an objective of 90 %, and its history."""
    service = Service("other")
    service.resilience.slos.add(SLO("answers", 90.0, timedelta(days=7)))
    service.resilience.guard("dependency", slo="answers")
    with capture_events(service.resilience) as history:
        service.series(outcomes, step=60.0)
    return history


def test_assert_budget_passes():
    """With a history or with the process itself; it returns the share that is left."""
    history = budgeted("." * 19 + "x")
    assert assert_budget(history, "answers") == pytest.approx(0.5)
    assert assert_budget(history.resilience, "answers", remaining=0.4) == pytest.approx(0.5)
    assert assert_budget(budgeted("xx"), "answers", remaining=-100.0) < 0


def test_assert_budget_fails_with_the_time_line():
    """With the numbers it is made of; without a history there is no time line to show."""
    history = budgeted("." * 19 + "x")
    text = failure_of(assert_budget, history, "answers", remaining=0.75)
    assert text.splitlines()[0] == "expected: answers has at least 75.0% of its error budget left"
    assert "50.0% is left: 1 of 20 events were bad" in text.splitlines()[1]
    assert "dependency: good x 19" in text
    assert len(failure_of(assert_budget, history.resilience, "answers", remaining=0.75).splitlines()) == 2


def test_assert_budget_fails_when_nothing_is_known():
    """No data is not a kept promise; an objective that is not there is a mistake."""
    history = budgeted("")
    assert "it has seen no event, so nothing is known" in failure_of(assert_budget, history, "answers")
    with pytest.raises(Exception, match="answer"):
        assert_budget(history, "answer")
    with pytest.raises(ConfigurationError, match="remaining"):
        assert_budget(history, "answers", remaining=50)


# -- faults for the time of a block -------------------------------------------------------------------------------------------------------


def permission_of(resilience):
    """Everything that a block may have changed."""
    return resilience.chaos.permission(), resilience.chaos.place.environment, os.environ.get(SWITCH), resilience.chaos.runs


def test_a_fault_lasts_as_long_as_its_block(service):
    """Then it has ended, and everything is as it was."""
    before = permission_of(service.resilience)
    with inject(service.resilience, "dependency", "error", error=Boom) as fault:
        assert isinstance(service.call(), Boom)
        assert fault.injected == 1
        assert fault.run.live
        assert os.environ[SWITCH] == "1"
        assert service.resilience.chaos.place.environment == "test"
    assert service.call() is None
    assert (fault.injected, fault.run.end_reason) == (1, "stopped")
    assert permission_of(service.resilience) == before == (Permission(None), None, None, ())
    assert service.resilience.guard("dependency").switch.reasons == frozenset()


def test_an_asynchronous_block(service):
    """The same with ``async with``, also when it is cancelled inside."""

    async def main():
        async with inject(service.resilience, "dependency") as fault:
            assert isinstance(service.call(), InjectedFault)
        assert fault.injected == 1

        async def inside():
            async with inject_plan(service.resilience, ChaosPlan([FaultWindow("dependency", "error", start=0, duration=60)])):
                await asyncio.Event().wait()

        task = asyncio.create_task(inside())
        await asyncio.sleep(0)
        assert isinstance(service.call(), InjectedFault)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = permission_of(service.resilience)
    asyncio.run(main())
    assert service.call() is None
    assert permission_of(service.resilience) == before


def test_a_fault_that_was_not_begun(service):
    """It has struck nobody, and stopping it is nothing."""
    fault = inject(service.resilience, "dependency")
    assert (fault.injected, fault.run) == (0, None)
    fault.stop()
    assert inject_plan(service.resilience, ChaosPlan([FaultWindow("dependency", "error", start=0, duration=1)])).injected == 0
    assert service.call() is None


def test_a_fault_that_is_stopped_inside_of_its_block(service):
    """Calls go well from then on; it may be begun again."""
    fault = inject(service.resilience, "dependency")
    for _ in range(2):
        with fault:
            assert isinstance(service.call(), InjectedFault)
            fault.stop()
            fault.stop()
            assert service.call() is None
            assert fault.injected == 1


def test_an_error_inside_of_a_block_comes_out(service):
    """And the fault is over."""
    before = permission_of(service.resilience)
    with pytest.raises(Boom), inject(service.resilience, "dependency"):
        raise Boom
    assert permission_of(service.resilience) == before
    assert service.call() is None


def test_blocks_may_be_nested():
    """The inner one ends alone; permission stays until the outer one ends."""
    service = Service("a", "b")
    before = permission_of(service.resilience)
    with inject(service.resilience, "a"):
        with inject(service.resilience, "b"):
            assert isinstance(service.call("a"), InjectedFault)
            assert isinstance(service.call("b"), InjectedFault)
        assert isinstance(service.call("a"), InjectedFault)
        assert service.call("b") is None
        with pytest.raises(Boom), allow_chaos(service.resilience):
            raise Boom
        assert isinstance(service.call("a"), InjectedFault)
        assert os.environ[SWITCH] == "1"
    assert permission_of(service.resilience) == before


def test_blocks_that_overlap_leave_no_permission_behind(service, monkeypatch):
    """Two tasks, each with its own fault: whoever ends last, nothing is allowed any more."""
    before = permission_of(service.resilience)
    first, second = inject(service.resilience, "dependency"), inject(service.resilience, "dependency")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    after = permission_of(service.resilience)
    os.environ.pop(SWITCH, None)
    assert after == before


def test_a_block_that_ends_leaves_the_faults_of_others_alone():
    """Two tasks, each with its own fault: the second is not over when the first is."""
    service = Service("a", "b")
    first, second = inject(service.resilience, "a"), inject(service.resilience, "b")
    with first:
        second.__enter__()
    try:
        assert isinstance(service.call("b"), InjectedFault)
    finally:
        second.__exit__(None, None, None)
        os.environ.pop(SWITCH, None)


def test_ceilings_that_are_none_allow_nothing():
    """The mistake is told, and everything is as before. In a process of its own: what stays allowed would spoil other tests."""
    program = """
import os
from somaresil import ConfigurationError, Resilience
from somaresil.testing import allow_chaos
resilience = Resilience("tests")
try:
    with allow_chaos(resilience, 600.0):
        raise SystemExit("allowed")
except ConfigurationError:
    pass
print(os.environ.get("SOMARESIL_CHAOS"), resilience.chaos.place.environment, resilience.chaos.permission())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOMARESIL")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("None None Permission(ceilings=None, production=False)\n", "")


def test_what_was_set_before_is_put_back(monkeypatch):
    """An operator's variable, an environment, ceilings of one's own."""
    service = Service(environment="staging")
    ceilings = ChaosCeilings(duration=5.0)
    service.resilience.chaos.opt_in(ceilings)
    monkeypatch.setenv(SWITCH, "0")
    with allow_chaos(service.resilience):
        assert service.resilience.chaos.permission() == Permission(TEST_CEILINGS)
        assert service.resilience.chaos.place.environment == "staging"
        assert os.environ[SWITCH] == "1"
    assert service.resilience.chaos.permission() == Permission(ceilings)
    assert service.resilience.chaos.place.environment == "staging"
    assert os.environ[SWITCH] == "0"
    monkeypatch.undo()


def test_experiments_of_the_time_of_a_permission_end_with_it(service):
    """However they were started; those from before go on. Ceilings of its own are held."""
    short, long = (inject(service.resilience, "dependency", duration=duration).config for duration in (10, 11))
    with allow_chaos(service.resilience):
        earlier = asyncio.run(service.resilience.chaos.inject_errors("dependency"))
        with allow_chaos(service.resilience, ChaosCeilings(duration=10.0)):
            with pytest.raises(ConfigurationError, match="the ceiling"):
                service.resilience.chaos.arm(long)
            later = service.resilience.chaos.arm(dataclasses.replace(short, allow_overlap=True))
        assert (later.end_reason, earlier.end_reason) == ("stopped", None)
    assert earlier.end_reason == "stopped"


@pytest.mark.parametrize("environment", ["production", "prod-eu-1", "live"])
def test_production_stays_production(environment):
    """Nothing is struck there, and the permission is put back."""
    service = Service(environment=environment)
    before = permission_of(service.resilience)
    plan = ChaosPlan([FaultWindow("dependency", "error", start=0, duration=1)])
    for block in (inject(service.resilience, "dependency"), inject_plan(service.resilience, plan)):
        with pytest.raises(ConfigurationError, match="production needs a second key"), block:
            raise AssertionError
    assert permission_of(service.resilience) == before
    assert service.call() is None


def test_a_target_that_is_not_there_is_told_with_its_neighbours(service):
    """Nothing begins, and nothing stays allowed."""
    before = permission_of(service.resilience)
    plan = ChaosPlan([FaultWindow("dependancy", "error", start=0, duration=1)])
    for block in (inject(service.resilience, "dependancy"), inject_plan(service.resilience, plan)):
        with pytest.raises(ConfigurationError, match="did you mean 'dependency'"), block:
            raise AssertionError
    assert permission_of(service.resilience) == before


def test_options_are_checked_where_they_are_written(service):
    """Before the block begins, all at once."""
    with pytest.raises(ConfigurationError, match="did you mean 'error'") as caught:
        inject(service.resilience, "dependency", "eror", rate=2.0, duration=-1)
    assert len(caught.value.problems) == 3


def test_options_reach_the_experiment(service):
    """Rate, calls, delays, limits and errors as an instance, a type or a function."""
    for error in (Boom, Boom("down"), lambda: Boom("made")):
        with inject(service.resilience, "dependency", error=error):
            assert isinstance(service.call(), Boom)
    with inject(service.resilience, "dependency", "latency", delay=timedelta(minutes=2)):
        begin = service.clock.monotonic()
        service.call()
        assert service.clock.monotonic() == begin + 120.0
    with inject(service.resilience, "dependency", max_injections=1) as fault:
        assert [service.call() is None for _ in range(3)] == [False, True, True]
        assert fault.run.end_reason == "used up"
    with inject(service.resilience, "dependency", rate=0.0) as fault:
        assert service.call() is None
        assert fault.injected == 0
    with inject(service.resilience, "dependency", duration=5):
        service.clock.advance(5)
        assert service.call() is None


def test_a_plan_for_the_time_of_a_block(service):
    """Its windows begin and end by the clock, with errors by name; what is left of it ends with the block."""
    plan = ChaosPlan(
        [FaultWindow("dependency", "error", start=10, duration=10, error="boom"), FaultWindow("dependency", "error", start=50, duration=10)]
    )
    with inject_plan(service.resilience, plan, errors={"boom": Boom}) as faults:
        assert service.call() is None
        service.clock.advance(10)
        assert isinstance(service.call(), Boom)
        service.clock.advance(10)
        assert service.call() is None
        assert faults.injected == 1
    service.clock.advance(30)
    assert service.call() is None
    assert faults.injected == 1


def test_a_history_may_be_made_by_hand(service):
    """It then sees what it is told."""
    history = History(service.resilience)
    history.tell(CallEnded("dependency", 0.0, "good", None, 0.0, False))
    history.hear(CallEnded("dependency", 0.0, "good", None, 0.0, False))
    assert len(history.moments) == 1
