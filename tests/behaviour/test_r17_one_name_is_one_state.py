"""R17: everybody who uses a name shares its state, and a change of options reaches what is already decorated.

pyresilience gives the sync and the async function of one name a breaker each, and a second registration is without effect.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import (
    Bulkhead,
    BulkheadFull,
    CallTimedOut,
    CircuitBreaker,
    CircuitOpen,
    ConfigurationError,
    Fallback,
    Outcome,
    Retry,
    Timeout,
)
from tests.behaviour.kit import Boom, Gate, Stand, both, both_paths, one_strike, together


def test_r17_sync_and_async_users_of_one_name_share_breaker_and_counts():
    """A failure in a coroutine opens the circuit for functions, streams, blocks and calls by name."""
    stand = Stand(breaker=one_strike())
    resilience = stand.resilience

    @resilience.guard("dependency")
    async def suspending():
        raise Boom

    @resilience.guard("dependency")
    def blocking():
        return "never"

    @resilience.guard("dependency")
    def stream():
        yield "never"

    with pytest.raises(Boom):
        asyncio.run(suspending())
    with pytest.raises(CircuitOpen):
        blocking()
    with pytest.raises(CircuitOpen):
        next(stream())
    with pytest.raises(CircuitOpen), resilience.guard("dependency"):
        pass
    with pytest.raises(CircuitOpen):
        resilience.call("dependency", blocking.__wrapped__)
    with pytest.raises(CircuitOpen):
        asyncio.run(resilience.acall("dependency", suspending.__wrapped__))
    assert (stand.count(Outcome.BAD), stand.count(Outcome.REJECTED)) == (1, 5)


def test_r17_threads_and_event_loops_share_one_bulkhead():
    """A thread inside takes the slot of a task of any loop."""
    stand = Stand(bulkhead=1)
    gate = Gate()
    thread = threading.Thread(target=stand.guard(gate.enter), daemon=True)
    thread.start()
    gate.await_inside(1)

    @stand.guard
    async def call():
        return "fine"

    with pytest.raises(BulkheadFull):
        asyncio.run(call())
    gate.open()
    thread.join()
    assert asyncio.run(call()) == "fine"


def test_r17_a_name_made_by_many_threads_at_once_is_one_guard():
    """Everybody gets the same object."""
    stand = Stand()
    guards = together(8, lambda _: stand.resilience.guard("other", breaker=True))
    assert len({id(guard) for guard in guards}) == 1


def test_r17_options_of_a_known_name_may_be_left_out_or_repeated_but_not_differ():
    """The error names the option, what it was made with, where, and how to change it."""
    stand = Stand()
    made = stand.resilience.guard("other", timeout=5.0, breaker=True)
    assert stand.resilience.guard("other") is made
    assert stand.resilience.guard("other", timeout=5.0) is made
    assert stand.resilience.guard("other", breaker=CircuitBreaker()) is made
    with pytest.raises(ConfigurationError) as raised:
        stand.resilience.guard("other", timeout=6.0, retry=2)
    assert [problem.path for problem in raised.value.problems] == ["guard('other').retry", "guard('other').timeout"]
    assert "test_r17" in raised.value.problems[0].hint
    assert ".configure(retry=...)" in raised.value.problems[0].hint
    assert made.options.timeout == Timeout(5.0)


def calls_until_open(stand: Stand, function, most: int = 20) -> int:
    for count in range(1, most + 1):
        with pytest.raises(Boom):
            function()
        if stand.state == "open":
            return count
    return 0


@both_paths
@both
def test_r17_a_new_breaker_threshold_reaches_decorated_functions(suspends, held):
    """State and era stay; the next failure is judged by the new options."""
    stand = Stand(held=held, breaker=one_strike(consecutive_failures=9))

    def fails():
        raise Boom

    function = stand.callable(fails, suspends)
    with pytest.raises(Boom):
        function()
    era = stand.breaker.era
    stand.guard.configure(breaker=one_strike(consecutive_failures=2))
    assert (stand.state, stand.breaker.era) == ("closed", era)
    assert calls_until_open(stand, function) == 2
    stand.guard.configure(breaker=one_strike(consecutive_failures=3))
    assert stand.state == "open"
    assert stand.breaker.retry_after() == 30.0
    with pytest.raises(CircuitOpen):
        function()


@both
def test_r17_policies_can_be_given_and_taken_away(suspends):
    """Breaker, retry, fallback, bulkhead, classify and timeout: each works from the next call on, and is gone after being taken away."""
    stand = Stand()
    calls = []

    def fails():
        calls.append(1)
        raise Boom

    function = stand.callable(fails, suspends)

    def attempt():
        calls.clear()
        try:
            return function()
        except Exception as error:
            return type(error)

    assert attempt() is Boom
    stand.guard.configure(retry=Retry(attempts=3, wait=0.0))
    assert (attempt(), len(calls)) == (Boom, 3)
    stand.guard.configure(fallback=Fallback(lambda: "instead"))
    assert (attempt(), len(calls)) == ("instead", 3)
    stand.guard.configure(retry=None)
    assert (attempt(), len(calls)) == ("instead", 1)
    stand.guard.configure(fallback=None, bulkhead=1)
    stand.fill()
    assert (attempt(), len(calls)) == (BulkheadFull, 0)
    stand.guard.configure(bulkhead=Bulkhead(2))
    assert attempt() is Boom
    stand.guard.configure(bulkhead=None, classify=lambda result, error: Outcome.IGNORED, breaker=one_strike())
    assert attempt() is Boom
    assert stand.state == "closed"
    stand.guard.configure(classify=None)
    assert attempt() is Boom
    assert attempt() is CircuitOpen
    stand.guard.configure(breaker=None)
    assert attempt() is Boom
    assert stand.guard.switch.quiet
    assert stand.guard.pipeline == ("record", "fault", "callee")


def test_r17_a_timeout_can_be_given_and_taken_away():
    """Also by number, as at the beginning."""
    stand = Stand()

    @stand.guard
    async def hangs():
        await asyncio.sleep(0.03)
        return "fine"

    assert asyncio.run(hangs()) == "fine"
    stand.guard.configure(timeout=0.005)
    with pytest.raises(CallTimedOut):
        asyncio.run(hangs())
    stand.guard.configure(timeout=None)
    assert asyncio.run(hangs()) == "fine"


def test_r17_a_wrong_configuration_changes_nothing():
    """All problems at once, and every option as it was."""
    stand = Stand(breaker=one_strike(), retry=2)
    before = stand.guard.options
    with pytest.raises(ConfigurationError) as raised:
        stand.guard.configure(slo="other", brekaer=True, timeout=5.0)
    assert [problem.path for problem in raised.value.problems] == ["guard('dependency').brekaer", "guard('dependency').slo"]
    assert "did you mean 'breaker'?" in raised.value.problems[0].hint
    with pytest.raises(ConfigurationError) as raised:
        stand.guard.configure(retry=0, timeout=-1.0, bulkhead=1)
    assert [problem.path for problem in raised.value.problems] == ["guard('dependency').retry", "guard('dependency').timeout"]
    with pytest.raises(ConfigurationError, match=r"breaker\.slow_call_duration = 0\.77: expected one of the bounds"):
        stand.guard.configure(breaker=CircuitBreaker(slow_call_rate=0.5, slow_call_duration=0.77), bulkhead=1)
    assert stand.guard.options is before
    assert stand.guard.bulkhead is None


def test_r17_threads_that_configure_at_once_lose_nothing():
    """Each of them changes another option; all changes are there in the end."""
    for _ in range(20):
        stand = Stand()
        changes = [{"retry": 2}, {"timeout": 5.0}, {"bulkhead": 3}, {"breaker": True}]
        assert together(4, lambda number, stand=stand, changes=changes: stand.guard.configure(**changes[number])) == [None] * 4
        assert stand.guard.pipeline == ("record", "retry", "breaker", "bulkhead", "timeout", "fault", "callee")


def test_r17_taking_an_open_breaker_away_ends_its_incident():
    """Nobody would ever close it."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    assert len(stand.resilience.slos.incidents.running) == 1
    stand.guard.configure(breaker=None)
    assert stand.resilience.slos.incidents.running == ()
    assert [incident.recovered for incident in stand.resilience.slos.incidents.ended] == [False]
    assert isinstance(stand.fail(), Boom)
