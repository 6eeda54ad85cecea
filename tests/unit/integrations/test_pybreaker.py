"""A breaker of pybreaker is taken over: what was built around it goes on working, what was wrong with its calls does not."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABCMeta

import pybreaker
import pytest

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, ManualClock, Outcome, Resilience
from somaresil.events import DefectFound
from somaresil.integrations.pybreaker import AdoptedCircuitOpen, adopt, options_of
from somaresil.model.breaker import State


class Recording(pybreaker.CircuitBreakerListener):
    """Notes what it is told, and which state it sees meanwhile."""

    def __init__(self):
        self.said = []

    def before_call(self, cb, func, *args, **kwargs):
        self.said.append(("before", args, kwargs))

    def failure(self, cb, exc):
        self.said.append(("failure", type(exc).__name__))

    def success(self, cb):
        self.said.append("success")

    def state_change(self, cb, old_state, new_state):
        self.said.append((old_state.name, new_state.name, cb.current_state))


class Raising(pybreaker.CircuitBreakerListener):
    """Raises whatever it is told."""

    def before_call(self, cb, func, *args, **kwargs):
        raise RuntimeError

    failure = success = state_change = before_call


class WithMetaclass(Exception, metaclass=ABCMeta):
    """What makes pybreaker exclude everything."""


class Business(WithMetaclass):
    """Excluded through its base."""


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def resilience(clock):
    return Resilience("service", clock=clock, seed=1)


def fail(error):
    raise error


def fail_through(guard, error, times=1):
    for _ in range(times):
        with pytest.raises(type(error)):
            guard.call(fail, error)


def test_thresholds_are_translated():
    """Failures in a row, reset timeout and success threshold keep their meaning; the open time neither grows nor varies."""
    options = options_of(pybreaker.CircuitBreaker(fail_max=7, reset_timeout=12, success_threshold=2))
    assert (options.consecutive_failures, options.failure_rate, options.open_duration, options.half_open_calls) == (7, None, 12.0, 2)
    assert (options.open_factor, options.open_jitter) == (1.0, 0.0)


def test_the_circuit_opens_probes_and_closes_and_the_old_object_shows_it(resilience, clock):
    """Both objects go through closed, open, half-open and closed together, by the old object's thresholds."""
    old = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=60, success_threshold=2)
    guard = adopt(old, resilience, "db")
    fail_through(guard, ValueError(), 2)
    assert (old.current_state, resilience.breaker("db").state) == ("open", State.OPEN)
    clock.advance(59.0)
    with pytest.raises(CircuitOpen):
        guard.call(int)
    clock.advance(1.5)
    guard.call(int)
    assert (old.current_state, resilience.breaker("db").state) == ("half-open", State.HALF_OPEN)
    guard.call(int)
    assert (old.current_state, resilience.breaker("db").state) == ("closed", State.CLOSED)


def test_a_rejection_is_caught_by_the_names_of_both_libraries(resilience):
    """Code that catches pybreaker's error goes on working, and gets guard, reason and time to come back as well."""
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60), resilience, "db")
    fail_through(guard, ValueError("gone"))
    with pytest.raises(pybreaker.CircuitBreakerError) as caught:
        guard.call(int)
    rejection = caught.value
    assert isinstance(rejection, AdoptedCircuitOpen)
    assert isinstance(rejection, CircuitOpen)
    assert (rejection.guard, rejection.retry_after, rejection.last_error) == ("db", 60.0, "ValueError: gone")
    assert resilience.guards["db"].recorder.counts().total(Outcome.REJECTED) == 1


def test_other_guards_reject_as_before(resilience):
    """The rejection of a breaker that was not adopted is no pybreaker error."""
    guard = resilience.guard("plain", breaker=CircuitBreaker(consecutive_failures=1))
    fail_through(guard, ValueError())
    with pytest.raises(CircuitOpen) as caught:
        guard.call(int)
    assert not isinstance(caught.value, pybreaker.CircuitBreakerError)


def test_the_tripping_call_raises_its_own_error(resilience):
    """The error that opens the circuit is not replaced, and neither is a cancellation."""
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1), resilience, "db")
    fail_through(guard, ValueError())
    with pytest.raises(KeyboardInterrupt):
        adopt(pybreaker.CircuitBreaker(fail_max=1), resilience, "other").call(fail, KeyboardInterrupt())
    assert resilience.breaker("other").state is State.CLOSED


def test_moving_the_old_object_moves_the_circuit(resilience, clock):
    """open, half_open and close of the old object are obeyed as if somebody had tripped or reset ours."""
    old = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60)
    guard = adopt(old, resilience, "db")
    old.open()
    with pytest.raises(pybreaker.CircuitBreakerError):
        guard.call(int)
    old.half_open()
    guard.call(int)
    assert (old.current_state, resilience.breaker("db").state) == ("closed", State.CLOSED)
    old.open()
    old.close()
    assert guard.call(int, "3") == 3
    assert (old.current_state, resilience.breaker("db").state) == ("closed", State.CLOSED)


def test_controls_of_ours_move_the_old_object(resilience):
    """Tripping, forcing and resetting are seen on the old object."""
    old = pybreaker.CircuitBreaker()
    adopt(old, resilience, "db")
    control = resilience.breaker("db")
    seen = []
    for step in (control.trip, control.reset, control.force_open, control.disable):
        step()
        seen.append(old.current_state)
    assert seen == ["open", "closed", "open", "closed"]


def test_an_operator_outranks_the_old_object(resilience):
    """A circuit that somebody forced open is not opened for a while by the old object."""
    old = pybreaker.CircuitBreaker()
    adopt(old, resilience, "db")
    resilience.breaker("db").disable()
    old.open()
    assert resilience.breaker("db").state is State.DISABLED


@pytest.mark.parametrize(("before", "expected"), [("open", State.OPEN), ("half_open", State.OPEN)])
def test_a_breaker_is_adopted_as_it_stands(resilience, before, expected):
    """One that is open rejects, one that is half-open lets the next call probe."""
    old = pybreaker.CircuitBreaker(reset_timeout=60)
    getattr(old, before)()
    guard = adopt(old, resilience, "db")
    assert resilience.breaker("db").state is expected
    if before == "open":
        with pytest.raises(CircuitOpen):
            guard.call(int)
    else:
        guard.call(int)
        assert old.current_state == "closed"


def test_excluded_errors_are_no_verdict(resilience):
    """Types and predicates exclude; an excluded error neither opens the circuit nor counts against an objective."""
    old = pybreaker.CircuitBreaker(fail_max=1, exclude=[KeyError, lambda error: isinstance(error, OSError) and error.errno == 5])
    guard = adopt(old, resilience, "db")
    fail_through(guard, KeyError())
    fail_through(guard, OSError(5, "gone"))
    assert resilience.breaker("db").state is State.CLOSED
    assert guard.recorder.counts().total(Outcome.IGNORED) == 2
    fail_through(guard, OSError(6, "gone"))
    assert resilience.breaker("db").state is State.OPEN


def test_an_excluded_class_with_a_metaclass_excludes_itself_only(resilience):
    """pybreaker takes such a class for a predicate and excludes everything; its subclasses are excluded here, others are not."""
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, exclude=[WithMetaclass]), resilience, "db")
    fail_through(guard, Business())
    assert resilience.breaker("db").state is State.CLOSED
    fail_through(guard, ValueError())
    assert resilience.breaker("db").state is State.OPEN


def test_an_exclusion_that_is_added_later_counts(resilience):
    """The list is read at each failure, not once."""
    old = pybreaker.CircuitBreaker(fail_max=1)
    guard = adopt(old, resilience, "db")
    old.add_excluded_exception(KeyError)
    fail_through(guard, KeyError())
    assert resilience.breaker("db").state is State.CLOSED


def test_the_users_own_classifier_comes_first(resilience):
    """What it says stands; where it says nothing, the exclusions are asked."""
    old = pybreaker.CircuitBreaker(fail_max=1, exclude=[KeyError])
    guard = adopt(old, resilience, "db", classify=lambda result, error: Outcome.BAD if result == "busy" else None)
    fail_through(guard, KeyError())
    assert guard.call(lambda: "busy") == "busy"
    assert resilience.breaker("db").state is State.OPEN


def test_a_predicate_that_raises_excludes_nothing(resilience):
    """The caller gets its own error, the failure counts, and the defect is reported."""
    defects = []
    resilience.on(defects.append, DefectFound)
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, exclude=[lambda error: error.missing]), resilience, "db")
    fail_through(guard, ValueError())
    assert resilience.breaker("db").state is State.OPEN
    assert defects


def test_listeners_hear_what_they_used_to_hear_and_see_the_new_state(resilience, clock):
    """Begin, success, failure and each transition, with the state that has come, not the one that was."""
    listener = Recording()
    old = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60, listeners=[listener], exclude=[KeyError])
    guard = adopt(old, resilience, "db")
    guard.call(max, 1, 2)
    fail_through(guard, KeyError())
    fail_through(guard, ValueError())
    clock.advance(60.0)
    guard.call(int)
    heard = [entry for entry in listener.said if entry[0] != "before"]
    assert heard[0] == "success"
    assert ("before", (1, 2), {}) in listener.said
    assert heard == [
        "success",
        "success",
        ("closed", "open", "open"),
        ("failure", "ValueError"),
        ("open", "half-open", "half-open"),
        ("half-open", "closed", "closed"),
        "success",
    ]


def test_a_listener_that_raises_changes_nothing(resilience):
    """The circuit opens on both sides, the caller gets its own error, the listener behind it is told, and the defect is reported once."""
    defects, behind = [], Recording()
    resilience.on(defects.append, DefectFound)
    old = pybreaker.CircuitBreaker(fail_max=2, listeners=[Raising(), behind])
    guard = adopt(old, resilience, "db")
    fail_through(guard, ValueError(), 2)
    assert (old.current_state, resilience.breaker("db").state) == ("open", State.OPEN)
    assert ("failure", "ValueError") in behind.said
    assert ("closed", "open", "open") in behind.said
    assert [defect.where for defect in defects] == ["pybreaker listener Raising of db"]


def test_a_raising_listener_does_not_stop_the_old_object_either(resilience):
    """`breaker.open()` of the old object used to end in the listener's error with the state unchanged."""
    old = pybreaker.CircuitBreaker(listeners=[Raising()])
    adopt(old, resilience, "db")
    old.open()
    assert (old.current_state, resilience.breaker("db").state) == ("open", State.OPEN)


def test_listeners_can_still_be_removed_by_themselves(resilience):
    """The old object knows its listeners by the objects that were given to it."""
    listener = Recording()
    old = pybreaker.CircuitBreaker(listeners=[listener])
    adopt(old, resilience, "db")
    assert listener in old.listeners
    assert listener.said in [getattr(known, "said", None) for known in old.listeners]
    old.remove_listener(listener)
    old.open()
    assert listener.said == []


def test_a_listener_that_is_added_later_is_heard_from_the_next_failure_on(resilience):
    """It is noticed when something happens, and from then on it is told of everything."""
    old = pybreaker.CircuitBreaker(fail_max=5)
    guard = adopt(old, resilience, "db")
    listener = Recording()
    old.add_listener(listener)
    fail_through(guard, ValueError())
    guard.call(int)
    assert listener.said == [("failure", "ValueError"), ("before", (), {}), "success"]


def test_without_listeners_and_exclusions_calls_are_quiet(resilience):
    """Nothing looks at a call that has nobody to tell."""
    guard = adopt(pybreaker.CircuitBreaker(), resilience, "db")
    assert guard.switch.quiet
    assert not adopt(pybreaker.CircuitBreaker(listeners=[Recording()]), resilience, "told").switch.quiet


def test_nothing_is_held_across_the_call(resilience):
    """Eight threads are inside the guarded function at the same time, and an operator opens the circuit meanwhile."""
    old = pybreaker.CircuitBreaker(listeners=[Recording()], exclude=[KeyError])
    guard = adopt(old, resilience, "db")
    inside = threading.Barrier(9, timeout=10.0)
    guarded = guard(lambda: (inside.wait(), inside.wait()))
    threads = [threading.Thread(target=guarded) for _ in range(8)]
    for thread in threads:
        thread.start()
    inside.wait()
    old.open()
    assert resilience.breaker("db").state is State.OPEN
    inside.wait()
    for thread in threads:
        thread.join(10.0)
    assert old.current_state == "open"


def test_coroutine_functions_are_guarded():
    """Failures of `async def` open the circuit, concurrent calls overlap, and a cancelled call is nobody's fault."""

    async def main():
        resilience = Resilience("service")
        old = pybreaker.CircuitBreaker(fail_max=1)
        guard = adopt(old, resilience, "db")
        started, end = asyncio.Event(), asyncio.Event()

        @guard
        async def query(error=None):
            started.set()
            await end.wait()
            if error is not None:
                raise error

        cancelled = asyncio.create_task(query())
        await started.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert old.current_state == "closed"
        failing = [asyncio.create_task(query(ValueError())) for _ in range(3)]
        await asyncio.sleep(0)
        end.set()
        ended = await asyncio.gather(*failing, return_exceptions=True)
        assert [type(error) for error in ended] == [ValueError] * 3
        assert old.current_state == "open"
        with pytest.raises(pybreaker.CircuitBreakerError):
            await query()

    asyncio.run(main())


def test_two_who_move_the_circuit_at_once_end_in_one_state(resilience):
    """However calls, operators and the old object interleave, nobody waits for ever and both say the same in the end."""
    old = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0.001, listeners=[Recording()])
    guard = adopt(old, resilience, "db")
    control = resilience.breaker("db")

    def call():
        for _ in range(300):
            try:
                guard.call(fail, ValueError())
            except (ValueError, pybreaker.CircuitBreakerError):
                resilience.clock.advance(0.01)

    def operate():
        for _ in range(100):
            old.open()
            control.reset()
            old.close()
            control.trip()
            old.half_open()

    threads = [threading.Thread(target=step, daemon=True) for step in (call, call, operate, operate)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60.0
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads)
    control.reset()
    assert (old.current_state, control.state) == ("closed", State.CLOSED)


def test_two_guards_may_share_one_old_breaker(resilience):
    """What opens the one opens the other, through the object that they share."""
    old = pybreaker.CircuitBreaker(fail_max=1, listeners=[Recording()])
    first, second = adopt(old, resilience, "first"), adopt(old, resilience, "second")
    fail_through(first, ValueError())
    with pytest.raises(pybreaker.CircuitBreakerError):
        second.call(int)
    assert not second.switch.quiet


def test_adopting_again_gives_the_same_guard(resilience):
    """The name may be left out when the breaker has one, and nothing is hung in twice."""
    old = pybreaker.CircuitBreaker(name="db", listeners=[Recording()])
    guard = adopt(old, resilience, timeout=3.0)
    old.add_excluded_exception(KeyError)
    count = len(old.listeners)
    assert adopt(old, resilience) is guard
    assert adopt(old, resilience, "db", timeout=3.0) is guard
    assert len(old.listeners) == count


def test_taking_the_breaker_out_of_the_guard_gives_it_back(resilience):
    """The old object has its own listeners again and moves nothing of ours."""
    listener = Recording()
    old = pybreaker.CircuitBreaker(fail_max=1, listeners=[listener])
    guard = adopt(old, resilience, "db")
    guard.configure(breaker=None)
    assert old.listeners == (listener,)
    old.open()
    assert guard.call(int) == 0
    assert guard.switch.quiet


def test_other_thresholds_may_be_given(resilience):
    """A failure rate instead of failures in a row: what pybreaker cannot do."""
    old = pybreaker.CircuitBreaker(fail_max=1)
    guard = adopt(old, resilience, "db", thresholds=CircuitBreaker(failure_rate=0.5, minimum_calls=4))
    fail_through(guard, ValueError(), 3)
    assert old.current_state == "closed"
    fail_through(guard, ValueError())
    assert old.current_state == "open"


def test_wrong_arguments_are_named(resilience):
    """Something else than a breaker, a missing name and wrong thresholds are configuration errors."""
    with pytest.raises(ConfigurationError, match=r"a pybreaker\.CircuitBreaker"):
        adopt(object(), resilience, "db")
    with pytest.raises(ConfigurationError, match="the breaker has none either"):
        adopt(pybreaker.CircuitBreaker(), resilience)
    with pytest.raises(ConfigurationError, match="those of the old breaker"):
        adopt(pybreaker.CircuitBreaker(), resilience, "db", thresholds=True)
    with pytest.raises(ConfigurationError, match="consecutive_failures"):
        adopt(pybreaker.CircuitBreaker(fail_max=0), resilience, "db")


def test_a_storage_that_is_down_does_not_touch_the_call(resilience):
    """Ours goes on alone, and it is reported."""

    class Down(pybreaker.CircuitMemoryStorage):
        broken = False

        @property
        def opened_at(self):
            return None

        @opened_at.setter
        def opened_at(self, _):
            raise ConnectionError

    defects = []
    resilience.on(defects.append, DefectFound)
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, state_storage=Down("closed")), resilience, "db")
    fail_through(guard, ValueError())
    with pytest.raises(pybreaker.CircuitBreakerError):
        guard.call(int)
    assert [defect.where for defect in defects] == ["mirroring db to pybreaker"]


def test_an_adopted_breaker_that_is_reset_at_once_probes_with_the_next_call(resilience, clock):
    """A reset timeout of zero is taken as "at once"."""
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, reset_timeout=0), resilience, "db")
    fail_through(guard, ValueError())
    clock.advance(0.01)
    assert guard.call(int) == 0


def test_an_old_breaker_shows_closed_while_ours_ramps_up(resilience, clock):
    """It knows no state in which a share of the calls passes."""
    old = pybreaker.CircuitBreaker(fail_max=1)
    thresholds = CircuitBreaker(failure_rate=None, consecutive_failures=1, half_open_calls=1, open_jitter=0.0, ramp_up=10.0)
    guard = adopt(old, resilience, "db", thresholds=thresholds)
    fail_through(guard, ValueError())
    clock.advance(30.0)
    guard.call(int)
    assert (guard.breaker.state, old.current_state) == (State.RAMPING, "closed")
    with pytest.raises(pybreaker.CircuitBreakerError, match="ramping up: 10 %"):
        for _ in range(2):
            guard.call(int)


def test_an_old_breaker_is_not_moved_by_a_shadow(resilience):
    """It would refuse calls of those who still use it."""
    old = pybreaker.CircuitBreaker(fail_max=1)
    guard = adopt(old, resilience, "db", thresholds=CircuitBreaker(failure_rate=None, consecutive_failures=1, shadow=True))
    fail_through(guard, ValueError(), times=3)
    assert (guard.breaker.state, old.current_state) == (State.OPEN, "closed")
    assert guard.shadow.counts() == {("breaker", "open"): 1, ("breaker", "reject"): 2}


def test_an_answer_that_asks_for_it_does_not_make_the_open_time_longer(resilience):
    """``reset_timeout`` is what it is, as it was there."""
    guard = adopt(pybreaker.CircuitBreaker(fail_max=1, reset_timeout=5), resilience, "db")
    error = ValueError()
    error.retry_after = 100.0
    fail_through(guard, error)
    assert guard.breaker.retry_after() == 5.0


def test_one_old_breaker_is_no_circuit_for_many_keys(resilience):
    """Which of them should it show?"""
    guard = adopt(pybreaker.CircuitBreaker(), resilience, "db")
    for ask in (lambda: guard.keyed("acme"), lambda: resilience.breaker("db", key="acme")):
        with pytest.raises(ConfigurationError, match="cannot be the circuit of many keys"):
            ask()
