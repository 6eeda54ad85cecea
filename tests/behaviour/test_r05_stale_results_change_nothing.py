"""R5: a result of a call that was admitted in an earlier era changes no state; it still counts as an answer.

circuitbreaker is closed by a late success, pybreaker, aiobreaker and pyresilience are re-opened by a late failure; nopanic takes an era-1
probe's result for that of an era-2 probe.
"""

from __future__ import annotations

import threading

import pytest

from somaresil import Outcome
from tests.behaviour.kit import PATIENCE, Boom, Stand, both_paths, one_strike


class Late:
    """A call that was admitted now and ends when told to."""

    def __init__(self, stand: Stand, error: BaseException | None = None) -> None:
        inside, self._go = threading.Event(), threading.Event()
        self.result: object = None

        def function():
            inside.set()
            assert self._go.wait(PATIENCE)
            if error is not None:
                raise error
            return "late"

        guarded = stand.guard(function)

        def call():
            try:
                self.result = guarded()
            except BaseException as caught:
                self.result = caught

        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()
        assert inside.wait(PATIENCE)

    def end(self) -> object:
        self._go.set()
        self._thread.join(PATIENCE)
        return self.result


@both_paths
def test_r05_a_late_success_does_not_close(held):
    """Admitted closed, ends well while the circuit is open: it stays open, and the caller has its answer."""
    stand = Stand(held=held, breaker=one_strike())
    late = Late(stand)
    stand.fail()
    assert late.end() == "late"
    assert stand.state == "open"
    assert stand.count(Outcome.GOOD) == 1


@both_paths
def test_r05_a_late_failure_does_not_open_again(held):
    """Admitted closed, fails after the circuit has recovered: it stays closed, and the failure counts as one."""
    stand = Stand(held=held, breaker=one_strike())
    error = Boom("late")
    late = Late(stand, error)
    stand.fail()
    stand.clock.advance(30.0)
    stand.succeed()
    assert stand.state == "closed"
    assert late.end() is error
    assert stand.state == "closed"
    assert stand.count(Outcome.BAD) == 2
    assert stand.breaker.tally().calls == 0


@both_paths
@pytest.mark.parametrize("error", [None, Boom("late")], ids=["good", "bad"])
def test_r05_a_late_result_is_not_a_probes_result(held, error):
    """Admitted closed, ends while a probe is under way: only the probe decides."""
    stand = Stand(held=held, breaker=one_strike())
    late = Late(stand, error)
    stand.fail()
    stand.clock.advance(30.0)
    probe = Late(stand)
    assert stand.state == "half_open"
    late.end()
    assert stand.state == "half_open"
    probe.end()
    assert stand.state == "closed"


@pytest.mark.parametrize("error", [None, Boom("late")], ids=["good", "bad"])
def test_r05_a_probe_of_one_era_is_no_probe_of_the_next(error):
    """A probe that ends after the circuit was opened and half-opened once more neither closes it, nor opens it, nor frees a place."""
    stand = Stand(breaker=one_strike(probe_timeout=3600.0))
    stand.fail()
    stand.clock.advance(30.0)
    old = Late(stand, error)
    stand.resilience.breaker("dependency").trip(10.0)
    stand.clock.advance(10.0)
    new = Late(stand)
    old.end()
    assert stand.state == "half_open"
    with pytest.raises(Exception, match="circuit open"):
        stand.succeed()
    new.end()
    assert stand.state == "closed"


@both_paths
def test_r05_a_late_slow_call_does_not_open(held):
    """A call that was slow, but began before the window was thrown away, is not in the new window."""
    stand = Stand(held=held, breaker=one_strike(consecutive_failures=None, slow_call_rate=0.1, slow_call_duration=1.0, minimum_calls=1))
    late = Late(stand)
    stand.resilience.breaker("dependency").reset()
    stand.clock.advance(5.0)
    late.end()
    assert stand.state == "closed"
    assert stand.breaker.tally().slow == 0


@both_paths
def test_r05_a_call_from_before_the_breaker_was_replaced_says_nothing_about_the_new_one(held):
    """Taken away and given back while the call ran: the new breaker has seen nothing, and its own calls count."""
    stand = Stand(held=held, breaker=one_strike())
    late = Late(stand, Boom("late"))
    stand.guard.configure(breaker=None)
    stand.guard.configure(breaker=one_strike())
    late.end()
    assert stand.state == "closed"
    stand.fail()
    assert stand.state == "open"


def test_r05_a_breaker_that_was_taken_away_no_longer_holds_the_switch():
    """A call that ends badly after its breaker was retired does not take the quiet path away from the guard."""
    stand = Stand(breaker=one_strike())
    stand.guard.switch.hold("test")
    late = Late(stand, Boom("late"))
    stand.guard.switch.hold("test", held=False)
    stand.guard.configure(breaker=None)
    late.end()
    assert stand.guard.switch.reasons == frozenset()


def test_r05_a_breaker_that_is_given_back_hears_of_quiet_calls():
    """After several eras, a guard whose breaker is replaced still opens."""
    stand = Stand(breaker=one_strike())
    for _ in range(3):
        stand.resilience.breaker("dependency").reset()
    stand.guard.configure(breaker=None)
    stand.guard.configure(breaker=one_strike())
    stand.fail()
    assert stand.state == "open"
