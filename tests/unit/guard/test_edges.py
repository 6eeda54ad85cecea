"""Guards and their process at the edges: defects of ours, keys that cannot be compared, what is full and what a fork finds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from somaresil import CircuitBreaker, ConfigurationError, RateLimit, Resilience, resilience
from somaresil.events import DefectFound
from somaresil.guard import block, change
from somaresil.policy.fallback import FallbackPolicy
from somaresil.policy.ratelimit import NO_PERMIT


def process(**options):
    made, told = Resilience("tests", seed=7, **options), []
    made.on(told.append, DefectFound)
    return made, told


def test_a_name_of_a_guard_of_a_breaker_and_of_a_limit_that_is_not_there_is_refused_with_the_nearest():
    made, _ = process()
    made.guard("orders", breaker=CircuitBreaker())
    made.rate_limit("openai", RateLimit(5, per=1.0))
    for ask, near in ((made.breaker, "order"), (made.rate_limit, "openia")):
        with pytest.raises(ConfigurationError) as wrong:
            ask(near)
        assert wrong.value.problems[0].value == near
        assert "did you mean" in wrong.value.problems[0].hint
    with pytest.raises(ConfigurationError, match="give it one"):
        made.guard("plain")
        made.breaker("plain")


def test_more_rate_limits_than_the_most_are_refused(monkeypatch):
    monkeypatch.setattr(resilience, "_MOST_GUARDS", 1)
    made, _ = process()
    limit = made.rate_limit("one", RateLimit(5, per=1.0))
    with pytest.raises(ConfigurationError, match="at most 1 rate limits"):
        made.rate_limit("two", RateLimit(5, per=1.0))
    assert made.rate_limit("one") is limit
    with pytest.raises(ConfigurationError, match="change them with reconfigure"):
        made.rate_limit("one", RateLimit(6, per=1.0))


def test_a_fork_has_a_name_of_its_own_unless_it_was_named(monkeypatch):
    unnamed, _ = process()
    named, _ = process(instance="mine")
    unnamed.guard("orders", breaker=CircuitBreaker())
    unnamed.guard("plain")
    unnamed.instance = unnamed.chaos.place.instance = "the parent"
    monkeypatch.setattr(resilience, "_alive", [unnamed, named])
    resilience._begin_in_child()
    assert unnamed.instance == unnamed.chaos.place.instance == resilience._own_name()
    assert named.instance == "mine"


def test_who_follows_traces_may_leave_twice():
    made, _ = process()
    left = []
    made.traces = SimpleNamespace(follow=lambda _: None, leave=lambda: left.append(True))
    leave = made.follow_traces(lambda: None)
    leave()
    leave()
    assert left == [True]


def test_a_defect_of_a_rate_limit_on_the_short_way_lets_the_long_way_decide():
    made, told = process()
    guard = made.guard("orders", rate_limit=RateLimit(5, per=1.0))
    limit = guard.rate_limit
    limit.limiter.take = lambda *_: 1 / 0
    assert limit.try_enter() is None
    assert [(event.where, event.error) for event in told] == [("rate limit of guard orders", "ZeroDivisionError")]
    # Nothing was taken, so nothing is given back.
    assert limit.leave(NO_PERMIT, None, 0.0, 0.0) is None


def test_a_key_that_cannot_be_compared_is_another_one():
    class Odd:
        def __eq__(self, other):
            raise TypeError("not comparable")

        __hash__ = object.__hash__

    class Kind:
        key = Odd()

    call = Kind()
    assert block._is_of(call, Kind, call.key)
    assert not block._is_of(call, Kind, "other")
    assert not block._is_of("no call", Kind, None)


def test_an_answer_is_not_taken_away_by_a_predicate_that_fails():
    told = []
    call = SimpleNamespace(
        guard="orders",
        clock=SimpleNamespace(time=lambda: 0.0),
        listeners=SimpleNamespace(defect=lambda *facts: told.append(facts)),
    )
    policy = object.__new__(FallbackPolicy)
    assert not policy._refuses(SimpleNamespace(when=None), call, "answer")
    assert policy._refuses(SimpleNamespace(when=lambda result: result == "answer"), call, "answer")
    assert not policy._refuses(SimpleNamespace(when=lambda _: 1 / 0, handler=len), call, "answer")
    assert isinstance(told[0][1], ZeroDivisionError)


def test_a_part_that_is_there_shows_itself_as_its_usual_options():
    assert repr(change.PRESENT) == "{}"


@pytest.mark.parametrize("slo", [7, ["api", 7], object()])
def test_what_is_no_name_of_an_objective_is_refused(slo):
    made, _ = process()
    with pytest.raises(ConfigurationError, match="the name of an objective, or several"):
        made.guard("orders", slo=slo)
