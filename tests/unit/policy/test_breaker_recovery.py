"""The breaker at a guard: fatal ends, openings that an answer asks for, and the ramp after good probes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from somaresil import CircuitBreaker, CircuitOpen, Classify, Outcome
from somaresil.events import BreakerChanged, DefectFound, IncidentClosed, IncidentOpened
from tests.behaviour.kit import Boom, Stand, both, both_paths, one_strike


class Asking(Exception):
    """An answer that says when to come back."""

    def __init__(self, after: object) -> None:
        self.retry_after = after


def waits(stand: Stand) -> list[float | None]:
    return [event.open_duration for event in stand.told(BreakerChanged) if event.after == "open"]


# -- how long an answer asks for ----------------------------------------------------------------------------------------------------------


@both_paths
@both
@pytest.mark.parametrize(("asked", "lasts"), [(10.0, 30.0), (0.0, 30.0), (30.0, 30.0), (90.0, 90.0), (1e9, 300.0), (float("inf"), 300.0)])
def test_an_opening_lasts_at_least_as_long_as_the_failing_answer_asks(suspends, held, asked, lasts):
    """Never shorter than usual, never longer than the most that is honoured; event, rejection and control agree."""
    stand = Stand(held=held, breaker=one_strike())
    stand.fail(suspends, Asking(asked))
    assert waits(stand) == [lasts]
    rejection = stand.fail(suspends)
    assert isinstance(rejection, CircuitOpen)
    assert rejection.retry_after == stand.breaker.retry_after() == lasts
    assert ("asked to be left alone" in rejection.detail) is (lasts > 30.0)
    stand.clock.advance(lasts)
    stand.succeed(suspends)
    assert stand.state == "closed"


def test_the_reason_says_how_long_it_was_asked_for():
    """After the figures that opened it."""
    stand = Stand(breaker=one_strike())
    stand.fail(error=Asking(90.0))
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert rejection.detail == "1 of 1 calls failed in 30 s, 1 in a row (>= 1); asked to be left alone for 90 s"


def test_a_fleet_that_is_told_one_number_does_not_come_back_in_step():
    """The jitter makes it longer, never shorter than asked."""
    lasting = []
    for seed in range(20):
        stand = Stand(f"dependency-{seed}", breaker=one_strike(open_jitter=0.2))
        stand.fail(error=Asking(100.0))
        lasting += waits(stand)
    assert all(100.0 <= seconds < 120.0 for seconds in lasting)
    assert len(set(lasting)) == 20


def test_a_relapse_may_ask_too():
    """The probe's answer says when to come back; the next opening in the row is twice as long anyway."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.clock.advance(30.0)
    stand.fail(error=Asking(200.0))
    stand.clock.advance(200.0)
    stand.fail(error=Asking(10.0))
    assert waits(stand) == [30.0, 200.0, 120.0]


@both
def test_a_bad_result_may_ask_as_well(suspends):
    """A response with headers, of a client that raises nothing."""
    response = SimpleNamespace(status_code=503, headers={"Retry-After": "45"})
    stand = Stand(breaker=one_strike(), classify=Classify(bad_result=lambda answer: answer.status_code >= 500))
    assert stand.callable(lambda: response, suspends)() is response
    assert waits(stand) == [45.0]


@pytest.mark.parametrize("asked", ["soon", object(), float("nan")])
def test_what_cannot_be_read_is_ignored_and_reported_once(asked):
    """The opening is as long as any, and the log is not flooded."""
    stand = Stand(breaker=one_strike(open_factor=1.0))
    for _ in range(3):
        stand.fail(error=Asking(asked))
        stand.clock.advance(30.0)
    assert waits(stand) == [30.0] * 3
    assert [event.where for event in stand.told(DefectFound)] == ["the Retry-After of an answer to guard dependency"]


def test_what_an_answer_asks_is_read_with_no_lock_held_and_only_of_the_one_that_opens():
    """It may be a property of somebody's exception, which may look at the breaker and may raise."""
    stand = Stand(breaker=one_strike(consecutive_failures=2))
    seen = []

    class Nosy(Boom):
        @property
        def retry_after(self):
            seen.append(stand.state)
            raise RuntimeError

    stand.fail(error=Nosy())
    assert seen == []
    stand.fail(error=Nosy())
    assert seen == ["open"]
    assert waits(stand) == [30.0]


def test_nothing_is_asked_when_it_is_not_to_be_looked_at():
    """``max_retry_after=None``."""
    stand = Stand(breaker=one_strike(max_retry_after=None))
    stand.fail(error=Asking(90.0))
    assert waits(stand) == [30.0]


def test_an_opening_that_is_over_meanwhile_is_not_prolonged():
    """Somebody resets it while the answer is being read: closed it stays."""
    stand = Stand(breaker=one_strike())

    class Slow(Boom):
        @property
        def retry_after(self):
            stand.resilience.breaker("dependency").reset()
            return 90.0

    stand.fail(error=Slow())
    assert stand.state == "closed"
    assert stand.succeed() == "fine"


def test_what_an_answer_asks_does_not_become_the_reason_of_another_opening():
    """An operator forces it open while the answer is being read: that is why it is open."""
    stand = Stand(breaker=one_strike())

    class Slow(Boom):
        @property
        def retry_after(self):
            stand.resilience.breaker("dependency").force_open()
            return 90.0

    stand.fail(error=Slow())
    assert stand.fail().detail == "forced open by an operator"


# -- fatal ends ---------------------------------------------------------------------------------------------------------------------------


class Revoked(Boom):
    """Further calls are pointless."""


@both
def test_one_fatal_error_opens_whatever_the_thresholds(suspends):
    """It is bad, it is the last error, and the reason says so."""
    stand = Stand(breaker=CircuitBreaker(open_jitter=0.0), classify=Classify(fatal=Revoked))
    assert stand.guard.switch.quiet
    error = Revoked("key 7")
    assert stand.fail(suspends, error) is error
    assert (stand.state, stand.count(Outcome.BAD)) == ("open", 1)
    (event,) = stand.told(BreakerChanged)
    assert (event.cause, event.open_duration, event.last_error) == ("fatal", 30.0, "Revoked: key 7")
    rejection = stand.fail(suspends)
    assert isinstance(rejection, CircuitOpen)
    assert rejection.detail == "a call ended in a way that makes further calls pointless"


@both
def test_a_fatal_result_opens_for_as_long_as_told(suspends):
    """No jitter, and nothing that the answer asks for; the caller gets it."""
    stand = Stand(breaker=CircuitBreaker(), classify=Classify(fatal_result=lambda text: text == "fine", fatal_duration=600.0))
    assert stand.succeed(suspends) == "fine"
    assert (stand.state, stand.breaker.retry_after()) == ("open", 600.0)


def test_a_fatal_answer_without_a_duration_may_ask_for_one():
    """Quota exhausted, come back in four minutes."""
    stand = Stand(breaker=one_strike(), classify=Classify(fatal=Asking))
    stand.fail(error=Asking(240.0))
    assert stand.breaker.retry_after() == 240.0


def test_a_duration_that_was_told_is_not_made_longer_by_an_answer():
    """The classifier knows better."""
    stand = Stand(breaker=one_strike(), classify=Classify(fatal=Asking, fatal_duration=50.0))
    stand.fail(error=Asking(240.0))
    assert stand.breaker.retry_after() == 50.0


def test_a_fatal_probe_opens_without_waiting_for_the_others():
    """One of three is enough."""
    stand = Stand(breaker=CircuitBreaker(), classify=Classify(fatal=Revoked))
    stand.resilience.breaker("dependency").trip(1.0)
    stand.clock.advance(1.0)
    stand.succeed()
    stand.fail(error=Revoked())
    assert (stand.state, stand.told(BreakerChanged)[-1].cause) == ("open", "fatal")


def test_a_stream_may_end_fatally():
    """Judged when it ends."""
    stand = Stand(breaker=CircuitBreaker(), classify=Classify(fatal=Revoked))

    @stand.guard
    def stream():
        yield 1
        raise Revoked

    with pytest.raises(Revoked):
        list(stream())
    assert stand.state == "open"


def test_a_retry_after_a_fatal_attempt_finds_the_circuit_open():
    """The caller gets the error of the attempt, and no other attempt is made."""
    stand = Stand(breaker=CircuitBreaker(), retry=3, classify=Classify(fatal=Revoked))
    calls = []

    def revoked():
        calls.append(1)
        raise Revoked

    with pytest.raises(Revoked):
        stand.guard(revoked)()
    assert (len(calls), stand.state) == (1, "open")


def test_a_later_attempt_is_not_fatal_because_an_earlier_one_was():
    """Each end is judged by itself."""
    stand = Stand(breaker=CircuitBreaker(), retry=2, classify=Classify(fatal=Revoked))
    stand.resilience.breaker("dependency").disable()
    errors = [Revoked(), Boom()]

    def failing():
        if len(errors) == 1:
            stand.resilience.breaker("dependency").reset()
        raise errors.pop(0)

    with pytest.raises(Boom):
        stand.guard(failing)()
    assert stand.state == "closed"


# -- ramp ---------------------------------------------------------------------------------------------------------------------------------


def ramping(**changes: object) -> Stand:
    """A stand whose circuit was open and whose probe has just gone well."""
    stand = Stand(breaker=one_strike(**({"ramp_up": 10.0, "ramp_up_from": 0.2} | changes)))
    while stand.state == "closed":
        stand.fail()
    stand.clock.advance(30.0)
    stand.succeed()
    assert stand.state == "ramping"
    return stand


@both
def test_a_growing_share_of_the_calls_is_let_through(suspends):
    """One in five at first, three in five in the middle, everything after it; the others are refused with the share of that moment."""
    stand = ramping()
    passed = []
    for seconds in (0.0, 5.0):
        stand.clock.advance(seconds)
        rejections = []
        for _ in range(10):
            try:
                stand.succeed(suspends)
            except CircuitOpen as rejection:
                rejections.append(rejection)
        passed.append((10 - len(rejections), {(rejection.detail, rejection.last_error) for rejection in rejections}))
        left = 10.0 - seconds
        assert all(0.0 < rejection.retry_after <= left for rejection in rejections)
        assert len({rejection.retry_after for rejection in rejections}) > 1
    assert passed == [(2, {("ramping up: 20 %", "Boom: down")}), (6, {("ramping up: 60 %", "Boom: down")})]
    stand.clock.advance(5.0)
    assert stand.succeed(suspends) == "fine"
    assert stand.state == "closed"


def test_the_guard_is_quiet_again_when_the_ramp_is_over():
    """And not before: each call has to be counted."""
    stand = ramping()
    assert stand.guard.switch.reasons == {"breaker"}
    stand.clock.advance(10.0)
    stand.succeed()
    assert stand.guard.switch.quiet


def test_the_steps_of_a_recovery_are_told():
    """The incident lasts until all calls pass."""
    stand = ramping()
    assert stand.told(IncidentOpened)
    assert not stand.told(IncidentClosed)
    stand.clock.advance(10.0)
    stand.succeed()
    assert [(event.before, event.after, event.cause) for event in stand.told(BreakerChanged)] == [
        ("closed", "open", "exceeded"),
        ("open", "half_open", "elapsed"),
        ("half_open", "ramping", "recovering"),
        ("ramping", "closed", "recovered"),
    ]
    (closed,) = stand.told(IncidentClosed)
    assert (closed.duration, closed.recovered) == (40.0, True)


def test_a_failure_over_the_threshold_reopens_for_longer():
    """The openings of one outage go on growing."""
    stand = ramping()
    stand.fail()
    assert (stand.state, stand.breaker.retry_after()) == ("open", 60.0)
    assert len(stand.told(IncidentOpened)) == 1


def test_what_was_seen_on_the_ramp_is_in_the_window_after_it():
    """Two failures before its end and one after it are three."""
    stand = ramping(consecutive_failures=None, failure_rate=0.9, minimum_calls=3, ramp_up_from=0.5)
    assert [type(stand.fail()) for _ in range(3)] == [Boom, CircuitOpen, Boom]
    assert stand.state == "ramping"
    stand.clock.advance(10.0)
    stand.fail()
    assert (stand.state, stand.breaker.retry_after()) == ("open", 30.0)


@pytest.mark.parametrize("control", ["reset", "observe"])
def test_an_operator_who_ends_a_ramp_begins_an_empty_window(control):
    """As anywhere else."""
    stand = ramping(consecutive_failures=None, failure_rate=0.9, minimum_calls=3)
    stand.fail()
    assert stand.breaker.tally().failures == 1
    getattr(stand.resilience.breaker("dependency"), control)()
    assert stand.breaker.tally().failures == 0


def test_a_slow_call_counts_on_the_ramp():
    """It opens by the slow-call rate there, too."""
    stand = ramping(slow_call_rate=1.0, slow_call_duration=1.0, minimum_calls=1)
    stand.guard(stand.clock.advance)(2.0)
    assert stand.state == "open"


def test_a_call_of_the_ramp_that_ends_after_it_changes_nothing():
    """Another era has begun."""
    stand = ramping()

    def slowly():
        stand.clock.advance(10.0)
        assert stand.succeed() == "fine"
        raise Boom

    with pytest.raises(Boom):
        stand.guard(slowly)()
    assert stand.state == "closed"


@pytest.mark.parametrize("control", ["trip", "force_open", "disable", "observe", "reset"])
def test_every_control_works_on_the_ramp(control):
    """An operator does not have to wait for its end."""
    stand = ramping()
    getattr(stand.resilience.breaker("dependency"), control)()
    assert stand.state != "ramping"


def test_a_breaker_that_is_taken_away_on_the_ramp_says_so():
    """The incident ends as one that did not recover."""
    stand = ramping()
    stand.guard.configure(breaker=None)
    assert [event.recovered for event in stand.told(IncidentClosed)] == [False]
    assert stand.guard.switch.quiet


def test_probes_at_once_are_bounded_apart_from_how_many_decide():
    """Five decide, one at a time."""
    stand = Stand(breaker=one_strike(half_open_calls=5, half_open_concurrency=1, failure_rate=1.0))
    stand.fail()
    stand.clock.advance(30.0)

    def nested():
        return stand.fail()

    for _ in range(5):
        assert stand.state in {"open", "half_open"}
        rejection = stand.guard(nested)()
        assert isinstance(rejection, CircuitOpen)
        assert rejection.detail == "being probed; 1 of 1 calls failed in 30 s, 1 in a row (>= 1)"
    assert stand.state == "closed"
