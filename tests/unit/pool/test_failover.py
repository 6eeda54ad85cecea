"""When an endpoint refuses or fails: who is tried next, what it costs, and what the caller gets in the end."""

from __future__ import annotations

import asyncio
import traceback
from datetime import timedelta

import pytest

from somaresil import (
    SLO,
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    DeadlineExceeded,
    Endpoint,
    ManualClock,
    NoEndpoint,
    Outcome,
    Rejected,
    Resilience,
    RetryBudget,
)
from somaresil.events import RetryDenied
from tests.behaviour.kit import Boom, both, one_strike
from tests.unit.guard.test_exceptions import cycles_of, run_and_forget
from tests.unit.pool.kit import Stand

DOWN = {"ejection": False, "panic_threshold": 0.0}
"""Endpoints fail and stay in: what is looked at is a single call."""


class Other(Exception):
    """Another failure."""


# -- after a failure --------------------------------------------------------------------------------------------------------------------


@both
def test_a_failed_call_is_made_on_another_endpoint(suspends):
    """The caller sees one good call; each endpoint what it did."""
    stand = Stand("ab", attempts=2, budget=None, ejection=False)
    stand.does["a"] = Boom("down")
    assert stand.calls(30, suspends) == ["b"] * 30
    assert stand.count("p", Outcome.GOOD) == 30
    assert stand.count("p/b", Outcome.GOOD) == 30
    assert stand.count("p/a", Outcome.BAD) == stand.reached.count("a") > 5


@both
def test_without_further_attempts_the_failure_arrives(suspends):
    """The default: an endpoint may have acted before it failed."""
    stand = Stand("ab", ejection=False)
    boom = Boom("down")
    stand.does = {"a": boom, "b": boom}
    assert stand.calls(1, suspends) == [boom]
    assert len(stand.reached) == 1


@both
@pytest.mark.parametrize(("attempts", "made"), [(2, 2), (3, 3), (9, 3)])
def test_no_endpoint_is_tried_twice_and_the_last_error_counts(suspends, attempts, made):
    """Attempts count those that were called, and end when there is nobody left."""
    stand = Stand("abc", attempts=attempts, budget=None, **DOWN)
    errors = {name: Boom(name) for name in "abc"}
    stand.does = dict(errors)
    (error,) = stand.calls(1, suspends)
    assert len(stand.reached) == len(set(stand.reached)) == made
    assert error is errors[stand.reached[-1]]
    assert stand.count("p", Outcome.BAD) == 1


@both
@pytest.mark.parametrize("attempts", [1, 2])
def test_the_error_looks_as_if_one_endpoint_had_been_called(suspends, attempts):
    """No context, and between the caller and the callee at most one frame of ours for each of the two."""
    stand = Stand("ab", attempts=attempts, **DOWN)
    stand.does = {name: Boom(name) for name in "ab"}
    (error,) = stand.calls(1, suspends)
    assert error.__context__ is None
    assert error.__cause__ is None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames[-1].f_code is Stand.work.__code__
    assert sum(frame.f_globals.get("__name__", "").startswith("somaresil") for frame in frames) <= 1


@both
@pytest.mark.parametrize("options", [{"attempts": 2}, {"attempts": 2, "hedge_delay": 5.0, "idempotent": True}, {"breaker": one_strike()}])
def test_a_failure_leaves_no_reference_cycle(suspends, options):
    """Once the caller is done with the exception, it is gone: the collector finds nothing."""
    stand = Stand("ab", listening=False, budget=None, **options, **DOWN)

    def fail():
        raise Boom

    stand.does = {"a": fail, "b": fail}
    call = stand.coroutine() if suspends else stand.caller()
    run_and_forget(call)
    assert cycles_of(lambda: run_and_forget(call)) == []


def test_what_is_failed_over_can_be_chosen():
    """By type, or by a function of the error; one that raises is reported and means no."""
    for on, other_tried in ((Boom, False), ((Boom, Other), True), (lambda error: "a" in str(error), True), (lambda error: 1 / 0, False)):
        stand = Stand("ab", attempts=2, on=on, **DOWN)
        stand.does = {"a": Other("a"), "b": Other("a")}
        stand.calls(1)
        assert len(stand.reached) == (2 if other_tried else 1)


def test_an_answer_that_the_classifier_calls_bad_is_a_failure():
    """Another endpoint is tried; when all answer badly, the last answer is returned."""
    stand = Stand("ab", attempts=2, classify=lambda result, error: "bad" if result == 503 else None, **DOWN)
    stand.does["a"] = 503
    assert set(stand.calls(20)) == {"b"}
    stand.does["b"] = 503
    assert stand.calls(1) == [503]
    assert stand.count("p", Outcome.BAD) == 1
    stand.does["b"] = Boom("down")
    assert {type(result) for result in stand.calls(20)} == {int, Boom}


def test_a_late_answer_is_an_answer():
    """A synchronous endpoint that answered after its time is not asked again elsewhere; it counts as failed."""
    stand = Stand("ab", attempts=2, timeout=1.0, **DOWN)
    stand.does = dict.fromkeys("ab", lambda: stand.clock.advance(2.0))
    assert stand.calls(1) == [None]
    assert len(stand.reached) == 1
    assert stand.count(f"p/{stand.reached[0]}", Outcome.BAD) == 1


# -- streams ----------------------------------------------------------------------------------------------------------------------------


def test_a_stream_is_begun_elsewhere_when_it_fails_before_its_first_item():
    """And never after it: the reader would see its beginning twice."""
    stand = Stand("ab", attempts=2, budget=None, ejection=False)

    @stand.pool
    def stream(endpoint, after):
        stand.reached.append(endpoint.name)
        if after:
            yield endpoint.name
        if endpoint.name == "a":
            raise Boom("down")
        yield endpoint.name

    @stand.pool
    async def later(endpoint, after):
        for item in stream.__wrapped__(endpoint, after):
            yield item

    async def collect():
        return [item async for item in later(after=False)]

    for _ in range(10):
        assert list(stream(after=False)) == ["b"]
        assert asyncio.run(collect()) == ["b"]
    assert "a" in stand.reached
    with pytest.raises(Boom):
        for _ in range(10):
            list(stream(after=True))
    assert sum(stand.in_flight().values()) == 0


# -- when it may not --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("idempotent", "tried"), [(None, 2), (True, 2), (False, 1), ("key", 1), (lambda key=None: key, 1)])
def test_calls_that_may_not_be_repeated_are_not(idempotent, tried):
    """What the guard was told decides; the reason is told."""
    stand = Stand("ab", attempts=2, idempotent=idempotent, **DOWN)

    @stand.pool
    def call(endpoint, key=None):
        stand.reached.append(endpoint.name)
        raise Boom

    with pytest.raises(Boom):
        call()
    assert len(stand.reached) == tried
    assert [event.reason for event in stand.told(RetryDenied)] == ["idempotency"] * (2 - tried)
    if idempotent is not False:
        with pytest.raises(Boom):
            call("k-1")
        assert len(stand.reached) == tried + 2


def test_retries_of_an_endpoint_see_the_arguments_of_the_caller():
    """A function that looks for the key is not given the endpoint, neither by the pool nor by its guards."""
    seen = []
    stand = Stand("a", retry=2, idempotent=lambda *args, **kwargs: seen.append((args, kwargs)) or "key")
    stand.does["a"] = Boom("down")

    @stand.pool
    def call(text, *, endpoint, loud):
        return stand.work(endpoint)

    with pytest.raises(Boom):
        call("x", loud=True)
    assert seen == [(("x",), {"loud": True})]


def test_further_attempts_of_all_callers_have_a_budget():
    """One for the pool, unless several share one."""
    stand = Stand("ab", attempts=2, budget=RetryBudget(0.0, floor=0.3, window=10), **DOWN)
    stand.does = {"a": Boom("down"), "b": Boom("down")}
    stand.calls(10)
    assert len(stand.reached) == 13
    assert [event.reason for event in stand.told(RetryDenied)] == ["budget"] * 7


def test_the_budget_shrinks_while_the_error_budget_of_an_objective_burns():
    """As that of retries does: overspent, a tenth of it is left."""
    resilience = Resilience("tests", clock=ManualClock(), seed=7)
    resilience.slos.add(SLO("up", 90.0, timedelta(hours=1)))
    budget = RetryBudget(0.0, floor=10.0)
    pool = resilience.pool("p", [Endpoint("a", 1), Endpoint("b", 2)], slo="up", budget_aware="up", attempts=2, budget=budget, **DOWN)
    reached = []

    @pool
    def call(endpoint):
        reached.append(endpoint.name)
        raise Boom

    def calls(count):
        del reached[:]
        for _ in range(count):
            with pytest.raises(Boom):
                call()
        return len(reached) - count

    assert calls(50) == 50
    resilience.clock.advance(60.0)
    assert calls(50) < 15
    assert resilience.guard("p/a").options.budget_aware == "up"


def test_an_attempt_that_finds_no_endpoint_is_given_back_to_the_budget():
    """It was not made."""
    budget = RetryBudget(0.0, floor=0.1, window=10)
    stand = Stand("a", attempts=2, budget=budget, **DOWN)
    stand.does["a"] = Boom("down")
    stand.calls(5)
    assert budget.left(stand.clock.monotonic()) == 1.0
    assert stand.told(RetryDenied) == []


def test_nothing_is_tried_when_the_time_of_the_request_is_up():
    """Neither another attempt nor the first one."""
    stand = Stand("ab", attempts=2, **DOWN)
    stand.does = dict.fromkeys("ab", lambda: stand.clock.advance(2.0) or Boom("down"))
    with stand.resilience.deadline(1.0):
        assert isinstance(stand.calls(1)[0], Boom)
        assert [event.reason for event in stand.told(RetryDenied)] == ["deadline"]
        assert len(stand.reached) == 1
        (refused,) = stand.calls(1)
    assert isinstance(refused, DeadlineExceeded)
    assert refused.guard == "p"


def test_an_endpoint_that_finds_the_time_up_is_the_last():
    """The deadline passes between the pool and the endpoint: one rejection, the pool's own."""
    stand = Stand("ab", **DOWN)
    taken = stand.pool._balance.take

    def slowly(*args):
        stand.clock.advance(2.0)
        return taken(*args)

    stand.pool._balance.take = slowly
    with stand.resilience.deadline(1.0):
        (refused,) = stand.calls(1)
    assert (type(refused), refused.guard) == (DeadlineExceeded, "p")
    assert stand.count("p", Outcome.REJECTED) == 1
    assert stand.count("p/a", Outcome.REJECTED) + stand.count("p/b", Outcome.REJECTED) == 1


# -- refusals ---------------------------------------------------------------------------------------------------------------------------


@both
def test_a_refusal_is_no_attempt(suspends):
    """The next endpoint is asked at once, whatever `attempts` says."""
    stand = Stand("abc", bulkhead=1, listening=False)
    for name in "ab":
        stand.resilience.guard(f"p/{name}").bulkhead.try_enter()
    assert stand.calls(20, suspends) == ["c"] * 20
    assert stand.count("p", Outcome.GOOD) == 20
    assert stand.count("p/a", Outcome.REJECTED) > 0


def test_when_all_refuse_the_pool_does():
    """A fresh rejection that says who refused and why, and the soonest time to come back."""
    stand = Stand("ab", breaker=one_strike(open_duration=20.0))
    stand.resilience.breaker("p/a").trip(9.0)
    stand.resilience.breaker("p/b").trip(4.0)
    first, second = stand.calls(2)
    assert type(first) is NoEndpoint
    assert first is not second
    assert (first.guard, first.retry_after, first.injected) == ("p", 4.0, False)
    assert sorted(first.detail.split("; ")) == ["a: circuit open", "b: circuit open"]
    assert stand.count("p", Outcome.REJECTED) == 2
    assert stand.reached == []


def test_an_open_endpoint_is_not_asked_unless_there_is_panic():
    """So its guard counts no rejections while the others are well."""
    stand = Stand("abc", breaker=one_strike())
    stand.resilience.breaker("p/a").trip(30.0)
    assert set(stand.calls(50)) == {"b", "c"}
    assert stand.count("p/a", Outcome.REJECTED) == 0
    stand.resilience.breaker("p/b").trip(30.0)
    assert set(stand.calls(50)) == {"c"}
    assert stand.count("p/a", Outcome.REJECTED) > 0


def test_without_panic_nobody_is_asked_who_is_not_well():
    """The pool refuses by itself, and says when the first comes back."""
    stand = Stand("a", panic_threshold=0.0)
    stand.knock_out("a")
    stand.clock.advance(10.0)
    reached = len(stand.reached)
    (refused,) = stand.calls(1)
    assert type(refused) is NoEndpoint
    assert refused.detail == "none of them is healthy"
    assert refused.retry_after == pytest.approx(20.0)
    assert len(stand.reached) == reached


def test_a_pool_that_asks_nobody_knows_when_a_breaker_lets_calls_through():
    """Forced open says nothing of when; an endpoint that is open for a while does."""
    stand = Stand("ab", panic_threshold=0.0, breaker=one_strike())
    stand.resilience.breaker("p/a").force_open()
    stand.resilience.breaker("p/b").force_open()
    assert stand.calls(1)[0].retry_after is None
    stand.resilience.breaker("p/b").reset()
    stand.resilience.breaker("p/b").trip(7.0)
    assert stand.calls(1)[0].retry_after == 7.0
    assert stand.reached == []


def test_after_a_failure_refusals_do_not_hide_it():
    """The error of the endpoint that was called is what the caller gets."""
    stand = Stand("abc", attempts=3, bulkhead=1, **DOWN)
    stand.does = {name: Boom(name) for name in "abc"}
    for name in "ab":
        stand.resilience.guard(f"p/{name}").bulkhead.try_enter()
    (error,) = stand.calls(1)
    assert (type(error), str(error)) == (Boom, "c")


def test_a_rejection_from_within_the_callee_is_a_failure():
    """It is about what the endpoint calls in its turn."""
    stand = Stand("ab", attempts=2, **DOWN)
    stand.does = dict.fromkeys("ab", BulkheadFull("elsewhere"))
    (error,) = stand.calls(1)
    assert error is stand.does["a"]
    assert stand.count("p", Outcome.BAD) == 1


def test_the_kinds_of_refusal_are_one_for_the_caller():
    """NoEndpoint is a Rejected like the others, and no CircuitOpen."""
    assert issubclass(NoEndpoint, Rejected)
    assert not issubclass(NoEndpoint, CircuitOpen | CallTimedOut)


# -- experiments ------------------------------------------------------------------------------------------------------------------------


def test_what_an_experiment_does_to_an_endpoint_is_marked_at_the_pool():
    """So its objective can tell a drill from real trouble: saved calls, failed ones and refusals alike."""
    stand = Stand([Endpoint("a", 1)], breaker=one_strike())

    class Rule:
        live, over = True, False

        def decide(self, _call=None):
            return True

        def strike(self, _decided=None):
            return self

        delay, error, after = 0.0, Boom("drill"), None

    guard = stand.resilience.guard("p/a")
    rule = Rule()
    guard.faults.arm(rule)
    assert isinstance(stand.calls(1)[0], Boom)
    guard.faults.disarm(rule)
    (refused,) = stand.calls(1)
    assert (type(refused), refused.injected) == (NoEndpoint, True)
    counts = stand.resilience.guard("p").recorder.counts()
    assert (counts.total(injected=True), counts.total(injected=False)) == (2, 0)
    assert stand.resilience.guard("p").faults.unended == 0
