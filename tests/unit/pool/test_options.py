"""What a pool is told: checked at once, every problem by name."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from somaresil import ConfigurationError, Endpoint, OutlierEjection, Resilience, RetryBudget
from somaresil.pool import PoolOptions
from tests.unit.policy.kit import wrong
from tests.unit.pool.kit import Stand


def test_an_endpoint_is_a_name_and_something_to_call():
    """It is frozen; weight 1 and the first tier are the default."""
    endpoint = Endpoint("eu", object())
    assert (endpoint.weight, endpoint.tier) == (1.0, 0)
    assert type(Endpoint("eu", None, weight=2).weight) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        endpoint.weight = 2.0
    assert Endpoint[int]("eu", 5) == Endpoint("eu", 5)


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "a b"}, ["name"]),
        ({"weight": 0}, ["weight"]),
        ({"weight": -1}, ["weight"]),
        ({"weight": 1e7}, ["weight"]),
        ({"weight": True}, ["weight"]),
        ({"tier": -1}, ["tier"]),
        ({"tier": 0.5}, ["tier"]),
        ({"name": "", "weight": "2", "tier": 101}, ["name", "weight", "tier"]),
    ],
)
def test_a_wrong_endpoint_names_its_problems(changes, problems):
    """All of them at once."""
    assert wrong(Endpoint, **{"name": "eu", "target": None, **changes}) == problems


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("consecutive_failures", [0, 2.5, "5"]),
        ("success_rate_factor", [-0.1, "2", float("nan")]),
        ("latency_factor", [0.5, "2"]),
        ("minimum_endpoints", [2, None]),
        ("minimum_calls", [0, None]),
        ("latency_calls", [0, None]),
        ("interval", [0, -1, "5", None, 86_401]),
        ("base_duration", [0, None]),
        ("max_duration", [0, None]),
        ("max_ejected", [-0.1, 1.1, 50]),
        ("shadow", [1, None]),
    ],
)
def test_a_wrong_rule_of_ejection_is_named(option, values):
    """And nothing else is."""
    for value in values:
        assert wrong(OutlierEjection, **{option: value}) == [option], value


def test_the_longest_ejection_is_no_shorter_than_the_first():
    """What does not go together is told when each is right by itself."""
    assert wrong(OutlierEjection, base_duration=30, max_duration=timedelta(seconds=20)) == ["max_duration"]
    assert OutlierEjection(base_duration=timedelta(minutes=1)).rules.base == 60.0


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("attempts", [0, 101, 1.5, True]),
        ("budget", [-1, 2, "1"]),
        ("on", [5, BaseException, (), (ValueError, int), "ValueError", [KeyboardInterrupt]]),
        ("hedge_delay", [-1, "1"]),
        ("key", [5, "no name", ""]),
        ("key_spill", [0.9, "2", None]),
        ("slow_start", [-1, None]),
        ("overprovisioning", [0.5, None]),
        ("panic_threshold", [-0.1, 50, None]),
        ("latency_decay", [0, None]),
        ("ejection", ["yes", None, 1]),
    ],
)
def test_a_wrong_option_of_a_pool_is_named(option, values):
    """Under the name that it has in the call."""
    for value in values:
        assert wrong(PoolOptions, **{option: value}) == [option], value
        assert wrong(Resilience("tests").pool, "p", [Endpoint("a", 1)], **{option: value}) == [option], value


def test_options_that_are_right_are_kept_as_floats():
    """Seconds may be a timedelta, types a list, and a budget an object of its own."""
    options = PoolOptions(slow_start=timedelta(seconds=5), on=[ValueError, KeyError], budget=RetryBudget(0.1))
    assert options.slow_start == 5.0
    assert options.fails_over(KeyError())
    assert not options.fails_over(TypeError())
    assert PoolOptions(on=lambda error: bool(error.args)).fails_over(TypeError(1))
    assert PoolOptions(budget=None).budget is None
    rules = [
        PoolOptions(ejection=ejection).rules.consecutive_failures for ejection in (True, False, OutlierEjection(consecutive_failures=2))
    ]
    assert rules == [5, None, 2]


def test_a_hedge_is_an_attempt_of_calls_that_may_be_made_twice():
    """It wants attempts to be more than one, and the calls to be declared idempotent."""
    assert wrong(PoolOptions, hedge_delay=1.0) == ["attempts"]
    assert wrong(Stand, hedge_delay=1.0, attempts=2) == ["hedge_delay"]
    assert wrong(Stand, hedge_delay=1.0, attempts=2, idempotent=False) == ["hedge_delay"]
    assert Stand(hedge_delay=1.0, attempts=2, idempotent="key").pool.options.hedge_delay == 1.0


@pytest.mark.parametrize("endpoints", [None, [], "eu", 5, ["eu"], [Endpoint("a", 1), Endpoint("a", 2)], [Endpoint("a" * 119, 1)]])
def test_wrong_endpoints_are_named(endpoints):
    """None, no Endpoint at all, two of one name, a name that is too long behind the pool's."""
    assert set(wrong(Resilience("tests").pool, "p", endpoints)) == {"endpoints"}


def test_problems_of_all_kinds_come_at_once():
    """Name, endpoints, options of the pool and of its guards."""
    assert wrong(Resilience("tests").pool, "a b", [5], attempts=0, retry="x") == ["name", "retry", "endpoints", "attempts"]


def test_an_option_that_does_not_exist_is_named_with_one_that_does():
    """As with a guard."""
    with pytest.raises(ConfigurationError, match="breaker"):
        Stand(braker=True)


def test_a_pool_is_made_once():
    """Later mentions give the same one; what differs is named, and what is left out does not differ."""
    stand = Stand(attempts=2, timeout=5.0)
    again = stand.resilience.pool
    assert again("p") is again("p", attempts=2) is again("p", timeout=5.0) is again("p", list(stand.pool.endpoints.values())) is stand.pool
    assert wrong(again, "p", attempts=3, timeout=6.0) == ["attempts", "timeout"]
    assert wrong(again, "p", [Endpoint("c", 1)]) == ["endpoints"]
    assert wrong(again, "q") == ["endpoints"]


def test_the_names_of_a_pool_and_its_endpoints_are_free():
    """A guard that was there before would be somebody else's."""
    resilience = Resilience("tests")
    resilience.guard("p/a")
    assert wrong(resilience.pool, "p", [Endpoint("a", 1)]) == ["name"]
    resilience.guard("q")
    assert wrong(resilience.pool, "q", [Endpoint("a", 1)]) == ["name"]
    assert resilience.pools == {}
