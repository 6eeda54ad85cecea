"""Timeout at a guard: its options, and how late calls are judged. Corners of threads and limits stand in test_timeout_threads."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from datetime import timedelta

import pytest

from somaresil import BulkheadFull, CallTimedOut, Outcome, Resilience, Timeout
from somaresil.policy.timeout import TimeoutPolicy, _Errand
from tests.behaviour.kit import PATIENCE, Boom, Gate, Stand, both, both_paths
from tests.unit.policy.kit import wrong

SOON = 0.01
"""A limit on a loop that really runs; what it ends would go on for ever."""


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """Nothing is limited unless it is named, and no thread is left behind."""
    options = Timeout(5.0)
    assert (options.total, options.first_item, options.idle, options.abandon, options.max_abandoned) == (5.0, None, None, False, 64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.total = 1.0


@pytest.mark.parametrize("option", ["total", "first_item", "idle"])
@pytest.mark.parametrize("value", [0, -1, 86_400.5, "5", True, float("nan"), float("inf"), timedelta(0), timedelta(days=2)])
def test_each_wrong_duration_is_named(option, value):
    """A limit is more than nothing and at most a day."""
    assert wrong(Timeout, **{option: value}) == [option]


def test_all_problems_come_at_once():
    """One error that lists them all."""
    found = wrong(Timeout, 0, first_item=-1, idle="1", abandon="yes", max_abandoned=0)
    assert found == ["total", "first_item", "idle", "abandon", "max_abandoned"]


@pytest.mark.parametrize("shorthand", [10, 10.0, timedelta(seconds=10), Timeout(total=10)])
def test_a_number_or_timedelta_is_the_total(shorthand):
    """The shorthands of the guard."""
    options = Stand(timeout=shorthand).guard.options.timeout
    assert options == Timeout(10.0)
    assert type(options.total) is float


@pytest.mark.parametrize("shorthand", [0, -1, True, "10", [], 100_000])
def test_a_wrong_shorthand_is_named(shorthand):
    """The problem stands under the name of the guard's option."""
    assert wrong(Stand, timeout=shorthand) == ["timeout"]


def test_a_guard_with_a_timeout_is_never_quiet():
    """Somebody has to look at the clock."""
    assert Stand(timeout=1.0).guard.switch.reasons == {"timeout"}


# -- late answers -----------------------------------------------------------------------------------------------------------------------


def test_a_synchronous_error_stays_the_error_however_late():
    """The caller gets what the callee raised; it is bad anyway."""
    stand = Stand(timeout=1.0)

    def slowly():
        stand.clock.advance(5.0)
        raise Boom("mine")

    with pytest.raises(Boom, match="mine"):
        stand.guard(slowly)()
    assert stand.count(Outcome.BAD) == stand.count() == 1


def test_a_classifier_that_ignores_a_late_call_is_heard():
    """Only what would be good is made bad by being late."""
    stand = Stand(timeout=1.0, classify=lambda result, error: Outcome.IGNORED)
    stand.guard(stand.clock.advance)(5.0)
    assert stand.count(Outcome.IGNORED) == stand.count() == 1


@both_paths
def test_a_late_answer_is_a_failure_of_the_dependency(held):
    """The breaker hears of it, from a function and from a coroutine alike."""
    stand = Stand(held=held, timeout=SOON, breaker=True)
    stand.guard(stand.clock.advance)(1.0)
    assert stand.breaker.tally().failures == 1

    @stand.guard
    async def hangs():
        await asyncio.Event().wait()

    with pytest.raises(CallTimedOut):
        asyncio.run(hangs())
    assert stand.breaker.tally().failures == 2


def test_an_async_call_within_its_time_keeps_its_result_and_its_error():
    """A limit that is not reached changes nothing."""
    stand = Stand(timeout=PATIENCE)
    error = Boom()

    @stand.guard
    async def answers(fail):
        if fail:
            raise error
        return "fine"

    assert asyncio.run(answers(fail=False)) == "fine"
    with pytest.raises(Boom) as raised:
        asyncio.run(answers(fail=True))
    assert raised.value is error
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


@pytest.mark.parametrize(
    ("options", "between", "phase"),
    [
        ({"first_item": SOON}, False, "first_item"),
        ({"first_item": 50.0, "total": SOON}, False, "total"),
        ({"idle": SOON}, True, "idle"),
        ({"idle": 50.0, "total": SOON}, True, "total"),
    ],
)
def test_the_shorter_of_two_limits_is_the_one_that_is_named(options, between, phase):
    """A reader keeps what it has."""
    stand = Stand(timeout=Timeout(**options))
    seen = []

    @stand.guard
    async def stream():
        if between:
            yield "first"
        await asyncio.Event().wait()
        yield "never"

    async def read():
        async for item in stream():
            seen.append(item)

    with pytest.raises(CallTimedOut) as raised:
        asyncio.run(read())
    assert raised.value.phase == phase
    assert seen == ["first"] * between
    assert stand.count(Outcome.BAD) == stand.count() == 1


# -- threads of their own ---------------------------------------------------------------------------------------------------------------


def test_an_exit_in_the_thread_reaches_the_caller():
    """The caller decides what to do with it, not the thread's last line of defence."""
    guard = Resilience("tests").guard("dependency", timeout=Timeout(PATIENCE, abandon=True))

    def leaves():
        raise SystemExit(3)

    with pytest.raises(SystemExit) as raised:
        guard.call(leaves)
    assert raised.value.code == 3
    assert guard.recorder.counts().total(Outcome.ABANDONED) == 1


def test_a_place_among_the_threads_left_behind_comes_back():
    """On a clock that moves by hand the time is up at once; what the thread says in the end is nobody's result."""
    # A name of its own: other threads may run this test at the same time.
    stand = Stand(f"dependency-{threading.get_ident()}", timeout=Timeout(5.0, abandon=True, max_abandoned=1))
    gate = Gate()
    with pytest.raises(CallTimedOut):
        stand.guard(gate.enter)()
    with pytest.raises(BulkheadFull, match="1 timed-out threads are still running"):
        stand.guard(gate.enter)()
    gate.open()
    for thread in threading.enumerate():
        if thread.name == f"somaresil-timeout-{stand.guard.name}":
            thread.join(PATIENCE)
    assert stand.guard.timeout.abandoned == 0
    assert (stand.count(Outcome.BAD), stand.count(Outcome.REJECTED)) == (1, 1)


def test_an_errand_tells_once_that_it_has_ended():
    """What it found is not kept for nobody."""
    told = []
    gate = Gate()

    class Call:
        guard = "dependency"

    async def inner(call):
        return gate.enter()

    errand = _Errand(inner, Call())
    errand.forget(lambda: told.append("ended"))
    errand.thread.start()
    assert told == []
    gate.open()
    errand.thread.join(PATIENCE)
    assert told == ["ended"]
    assert errand.collect() is None


def test_without_a_limit_for_it_the_next_item_may_take_any_time():
    """Neither idle nor total is set."""
    stand = Stand()
    policy = TimeoutPolicy(Timeout(first_item=1.0), Stand().guard._site)
    call = type("Call", (), {"clock": stand.clock, "timed_from": 0.0})()
    assert policy.next_limit(call)[0] is None
    assert not policy.expired(call, 1e9)


# -- shadow ---------------------------------------------------------------------------------------------------------------------------


@both
def test_a_shadow_timeout_waits_and_counts(suspends):
    """The caller gets the answer, late as it is, and it counts as good."""
    stand = Stand(timeout=Timeout(2.0, shadow=True))
    assert stand.callable(lambda: stand.clock.advance(1.0) or "soon", suspends)() == "soon"
    assert stand.callable(lambda: stand.clock.advance(3.0) or "late", suspends)() == "late"
    assert stand.guard.shadow.counts() == {("timeout", "time_out"): 1}
    assert stand.count(Outcome.GOOD) == 2


def test_a_shadow_timeout_watches_streams_and_blocks():
    """The first item, and the whole of a stream or a block."""
    stand = Stand(timeout=Timeout(10.0, first_item=2.0, idle=1.0, shadow=True))

    @stand.guard
    def stream(first, rest):
        stand.clock.advance(first)
        yield "a"
        stand.clock.advance(rest)
        yield "b"

    for first, rest in ((1.0, 1.0), (3.0, 0.0), (1.0, 20.0)):
        assert list(stream(first, rest)) == ["a", "b"]
    with stand.guard:
        stand.clock.advance(11.0)
    assert stand.guard.shadow.counts() == {("timeout", "time_out"): 3}
    assert stand.count(Outcome.GOOD) == 4
