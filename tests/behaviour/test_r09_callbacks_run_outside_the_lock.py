"""R9: listeners run with no lock held, and what they ask shows the state after the event they are told about."""

from __future__ import annotations

import threading

from somaresil import CircuitBreaker, Outcome, Retry
from somaresil.events import BreakerChanged, CallEnded, DefectFound
from tests.behaviour.kit import PATIENCE, Stand, both, both_paths, one_strike


def elsewhere(work):
    """Do it in another thread, which would wait for a lock that this one holds."""
    done = []
    thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert done, "somebody holds a lock"
    return done[0]


@both_paths
@both
def test_r09_a_listener_may_ask_from_any_thread_and_sees_the_new_state(suspends, held):
    """Through open, half-open and closed again: state, era, window, records and controls answer while the listener runs."""
    stand = Stand(held=held, breaker=one_strike())
    seen = []

    def listener(event):
        def ask():
            stand.resilience.snapshot()
            stand.breaker.tally()
            stand.breaker.retry_after()
            stand.breaker.transitions()
            stand.guard.recorder.counts()
            return stand.state, stand.breaker.era

        seen.append((event.after, event.era, elsewhere(ask)))

    stand.resilience.on(listener, BreakerChanged)
    stand.fail(suspends)
    stand.clock.advance(30.0)
    stand.succeed(suspends)
    stand.resilience.breaker("dependency").force_open()
    assert not stand.told(DefectFound)
    assert [after for after, _, _ in seen] == ["open", "half_open", "closed", "forced_open"]
    assert all(asked == (after, era) for after, era, asked in seen)


@both
def test_r09_a_listener_may_control_the_breaker_that_it_is_told_about(suspends):
    """An operator's rule: whatever opens is forced open at once."""
    stand = Stand(breaker=one_strike())

    def escalate(event):
        if event.after == "open":
            stand.resilience.breaker("dependency").force_open()

    stand.resilience.on(escalate, BreakerChanged)
    stand.fail(suspends)
    assert stand.state == "forced_open"
    assert not stand.told(DefectFound)


@both_paths
def test_r09_a_listener_may_call_the_guard_that_it_is_told_about(held):
    """A call from inside a listener is a call like any other."""
    stand = Stand(held=held, breaker=CircuitBreaker())
    results = []

    def again(event):
        if event.outcome == "bad":
            results.append(elsewhere(stand.succeed))

    stand.resilience.on(again, CallEnded)
    stand.fail()
    assert results == ["fine"]
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_r09_hooks_of_a_call_run_with_no_lock_held():
    """Classifier, retry predicate and fallback may look at their own guard."""
    stand = Stand()

    def look(*args, **kwargs):
        elsewhere(stand.resilience.snapshot)

    stand.guard.configure(
        classify=look, retry=Retry(on=lambda error: look() or False, wait=0.0), fallback=lambda: look() or "instead", breaker=one_strike()
    )
    guarded = stand.guard(lambda: 1 / 0)
    assert guarded() == "instead"
    assert not stand.told(DefectFound)
