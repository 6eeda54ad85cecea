"""The throttle at a guard: which calls count as accepted, how many are refused, and that nothing else is."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from somaresil import Bulkhead, BulkheadFull, CircuitBreaker, LoadShed, Outcome, RateLimited, Throttle
from somaresil.events import CallEnded, ShadowDecision
from somaresil.model.throttle import Requests
from tests.behaviour.kit import Boom, Stand, both, both_paths, together
from tests.unit.policy.kit import wrong


def outcomes(stand: Stand, calls: int, *, suspends: bool = False, error: BaseException | None = None) -> list[type]:
    """What came of so many failing calls."""
    return [type(stand.fail(suspends, error)) for _ in range(calls)]


def where(stand: Stand) -> list[str]:
    return [event.where for event in stand.events if hasattr(event, "where")]


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_book():
    """Twice as many requests as accepts, over two minutes; a tenth of the calls goes on."""
    options = Throttle()
    assert (options.k, options.window, options.minimum_calls, options.max_rejection) == (2.0, 120.0, 10, 0.9)
    assert (options.pushback, options.shadow) == (None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.k = 3.0


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("k", [0.9, 101, "2", None, True]),
        ("window", [0.5, 86_401, "2m", None]),
        ("minimum_calls", [0, 1_000_001, 2.5, None]),
        ("max_rejection", [0.0, 1.0, 2, "half"]),
        ("pushback", [5, (), (5,), KeyboardInterrupt, (Boom, SystemExit), "429"]),
        ("shadow", [1, None]),
    ],
)
def test_each_wrong_value_is_named(option, values):
    """An option outside its range is the one problem that is reported."""
    for value in values:
        assert wrong(Throttle, **{option: value}) == [option], value


def test_a_predicate_that_nobody_awaits_is_no_predicate():
    """A coroutine is always true."""

    async def busy(error):
        return False

    assert wrong(Throttle, pushback=busy) == ["pushback"]


def test_all_problems_come_at_once():
    """One error that lists them all; a timedelta is as good as seconds."""
    assert wrong(Throttle, k=0, window=0, max_rejection=2) == ["k", "window", "max_rejection"]
    assert Throttle(window=timedelta(minutes=2)) == Throttle()


@pytest.mark.parametrize("shorthand", [2, 2.0, "on", 0.5])
def test_a_wrong_shorthand_is_named(shorthand):
    """The problem stands under the name of the guard's option; True is the default one."""
    assert wrong(Stand, throttle=shorthand) == ["throttle"]
    assert Stand(throttle=True).guard.options.throttle == Throttle()


# -- who is refused -------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_a_backend_that_accepts_half_is_left_alone(suspends, held):
    """Nothing is refused while it accepts one of two requests, and nothing is drawn."""
    stand = Stand(held=held, throttle=True)
    for _ in range(40):
        stand.succeed(suspends)
        stand.fail(suspends)
    assert stand.count(Outcome.REJECTED) == 0
    assert stand.guard.throttle.requests() == Requests(80, 40)
    assert next(stand.guard.throttle._draws._numbers) == 0
    assert stand.guard.throttle.probability == 0.0


@both_paths
@both
def test_a_backend_that_accepts_nothing_is_asked_less_and_less(suspends, held):
    """Up to nine of ten are refused; which ones is up to the seed, and the same every time."""
    stand, again = (Stand(held=held, throttle=True) for _ in range(2))
    seen = outcomes(stand, 300, suspends=suspends)
    assert seen == outcomes(again, 300, suspends=suspends)
    assert seen[:10] == [Boom] * 10
    assert 10 + 15 <= seen.count(Boom) <= 10 + 50
    assert seen.count(Boom) + seen.count(LoadShed) == 300
    assert stand.guard.throttle.requests() == Requests(300, 0)
    assert stand.guard.throttle.probability == 0.9
    rejection = next(error for _ in range(100) if isinstance(error := stand.fail(), LoadShed))
    assert rejection.retry_after is None
    assert str(rejection).startswith("guard 'dependency' rejected the call: load shed; throttled: 0 of 30")
    assert str(rejection).endswith("accepted within 120 s, 90% are refused")
    assert stand.told(CallEnded)[-1].error == "LoadShed"


def test_when_the_backend_recovers_all_calls_are_let_through_again():
    """Those that go on find it out; two minutes later nothing is held against it."""
    stand = Stand(throttle=True)
    outcomes(stand, 100)
    for _ in range(2000):
        try:
            stand.succeed()
        except LoadShed:
            continue
    assert stand.guard.throttle.probability == 0.0
    outcomes(stand, 2000)
    assert stand.guard.throttle.probability > 0.0
    stand.clock.advance(125.0)
    assert (stand.guard.throttle.probability, stand.guard.throttle.requests()) == (0.0, Requests(0, 0))
    assert stand.succeed() == "fine"


@both_paths
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_who_goes_away_says_nothing(held, error):
    """Abandoned calls are neither requests nor accepts."""
    stand = Stand(held=held, throttle=True)
    outcomes(stand, 50, error=error)
    assert stand.guard.throttle.requests() == Requests(0, 0)


def test_ignored_calls_say_nothing():
    """Nor do they on any path."""
    stand = Stand(throttle=True, classify=lambda result, error: Outcome.IGNORED)
    outcomes(stand, 50)
    assert stand.guard.throttle.requests() == Requests(0, 0)


@both_paths
def test_what_other_policies_of_the_guard_reject_says_nothing(held):
    """The backend was not asked."""
    stand = Stand(held=held, throttle=True, bulkhead=Bulkhead(1))
    with stand.guard:
        for _ in range(50):
            with pytest.raises(BulkheadFull):
                stand.succeed()
    assert stand.guard.throttle.requests() == Requests(1, 1)
    stand = Stand(held=held, throttle=True, breaker=CircuitBreaker(failure_rate=None, consecutive_failures=1))
    outcomes(stand, 50)
    assert stand.guard.throttle.requests() == Requests(1, 0)


@both
def test_bad_results_are_not_accepted(suspends):
    """What the guard's ``classify`` calls bad, also without an error."""
    stand = Stand(throttle=True, classify=lambda result, error: Outcome.BAD)
    for _ in range(20):
        try:
            stand.succeed(suspends)
        except LoadShed:
            break
    assert stand.guard.throttle.requests().accepts == 0


@both_paths
@pytest.mark.parametrize(
    "pushback",
    [ConnectionError, (ConnectionError, OSError), lambda error: error.args == () and isinstance(error, OSError)],
    ids=["type", "types", "predicate"],
)
def test_only_what_turns_calls_away_is_not_accepted_when_that_is_said(held, pushback):
    """An error of another kind is an answer."""
    stand = Stand(held=held, throttle=Throttle(pushback=pushback))
    outcomes(stand, 20, error=Boom())
    assert stand.guard.throttle.requests() == Requests(20, 20)
    outcomes(stand, 20, error=ConnectionRefusedError())
    assert stand.guard.throttle.requests() == Requests(40, 20)
    stand.guard.configure(classify=lambda result, error: Outcome.BAD)
    stand.succeed()
    assert stand.guard.throttle.requests() == Requests(41, 21)


def test_a_predicate_that_fails_loses_no_error():
    """The caller has the error of the callee, and it is reported."""
    stand = Stand(throttle=Throttle(pushback=lambda error: 1 / 0))
    assert set(outcomes(stand, 20)) == {Boom}
    assert where(stand) == ["throttle of guard dependency"]


@both_paths
def test_a_defect_of_the_throttle_lets_calls_pass(held, monkeypatch):
    """Fail open, and once reported."""
    stand = Stand(held=held, throttle=True)
    monkeypatch.setattr(stand.guard.throttle, "_model", None)
    assert stand.succeed() == "fine"
    assert outcomes(stand, 1) == [Boom]
    assert where(stand) == ["throttle of guard dependency"]


def test_each_attempt_of_a_retried_call_is_a_request():
    """It stands inside the retry: what a retry asks for is asked of the backend. A refusal is not tried again."""
    stand = Stand(throttle=True, retry=3)
    assert outcomes(stand, 3) == [Boom] * 3
    assert stand.guard.throttle.requests() == Requests(9, 0)
    seen = outcomes(stand, 60)
    assert LoadShed in seen
    assert stand.guard.pipeline == ("record", "retry", "throttle", "fault", "callee")


def test_streams_and_blocks_count_when_they_end():
    """Also those that end early, which say nothing."""
    stand = Stand(throttle=True)

    @stand.guard
    def stream(fails):
        yield 1
        if fails:
            raise Boom

    assert list(stream(fails=False)) == [1]
    with pytest.raises(Boom):
        list(stream(fails=True))
    items = stream(fails=False)
    next(items)
    items.close()
    with stand.guard:
        assert stand.guard.throttle.requests() == Requests(2, 1)
    assert stand.guard.throttle.requests() == Requests(3, 2)


def test_a_rejection_of_another_guard_is_an_error_like_others():
    """The dependency has not answered."""
    stand = Stand(throttle=True)
    outcomes(stand, 5, error=RateLimited("other", 5.0))
    assert stand.guard.throttle.requests() == Requests(5, 0)


# -- reading, changing, shadow mode -----------------------------------------------------------------------------------------------------


def test_it_is_read_and_changed():
    """Other options keep the counts, another window begins anew; the snapshot says how likely a refusal is."""
    stand = Stand(throttle=Throttle(minimum_calls=1))
    outcomes(stand, 1)
    assert stand.resilience.snapshot().guards["dependency"].throttled == 0.5
    stand.guard.configure(throttle=Throttle(minimum_calls=1, max_rejection=0.25))
    assert stand.resilience.snapshot().guards["dependency"].throttled == 0.25
    stand.guard.configure(throttle=Throttle(minimum_calls=1, window=60.0))
    assert stand.guard.throttle.requests() == Requests(0, 0)
    assert (stand.guard.switch.reasons, stand.guard.switch.express) == ({"throttle"}, True)
    stand.guard.configure(throttle=None)
    assert stand.guard.switch.quiet
    assert stand.resilience.snapshot().guards["dependency"].throttled is None


@both_paths
def test_in_shadow_mode_nobody_is_refused_and_it_is_counted(held):
    """Each call that would have been refused goes on, and counts by how it ends."""
    stand = Stand(held=held, throttle=Throttle(shadow=True))
    assert set(outcomes(stand, 100)) == {Boom}
    assert stand.guard.throttle.requests() == Requests(100, 0)
    refused = stand.guard.shadow.counts()["throttle", "reject"]
    assert 60 <= refused < 100
    told = stand.told(ShadowDecision)
    assert len(told) == refused
    assert (told[-1].policy, told[-1].decision) == ("throttle", "reject")
    assert told[-1].detail.startswith("throttled: 0 of ")


def test_no_request_is_lost_under_threads():
    """Each call counts once, refused or not."""
    stand = Stand(listening=False, throttle=True)

    def many(_):
        return sum(isinstance(stand.fail(), LoadShed) for _ in range(100))

    refused = together(6, many)
    assert stand.guard.throttle.requests() == Requests(600, 0)
    assert sum(refused) == stand.count(Outcome.REJECTED)
    assert stand.count(Outcome.BAD) == 600 - sum(refused)
