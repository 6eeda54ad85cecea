"""Retry budget at guards: whose calls count, whose attempts, and what is said when it is used up."""

from __future__ import annotations

import pytest

from somaresil import Outcome, Retry, RetryBudget
from somaresil.events import RetryDenied
from tests.behaviour.kit import Boom, Stand, both, together
from tests.unit.policy.kit import Script, wrong


def failing(stand, times):
    """Let so many calls fail; give how often the dependency was called."""
    script = Script(Boom("down"))
    guarded = stand.guard(script)
    for _ in range(times):
        with pytest.raises(Boom):
            guarded()
    return script.calls


@both
def test_when_everything_fails_the_load_grows_by_the_share_and_no_more(suspends):
    """A thousand calls at three attempts make 1,200 with a budget of a fifth, not 3,000."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0, budget=RetryBudget(0.2, floor=0.0)))
    script = Script(Boom("down"))
    guarded = stand.callable(script, suspends)
    for _ in range(1_000 if not suspends else 100):
        with pytest.raises(Boom):
            guarded()
    made = script.calls / stand.count(Outcome.BAD)
    assert 1.15 < made <= 1.2
    assert stand.told(RetryDenied)[0].reason == "budget"
    assert stand.guard.retry.decisions()["budget"] == len(stand.told(RetryDenied))


def test_by_default_ten_a_second_are_allowed_whatever_the_traffic():
    """A hundred over its window of ten seconds: a service with few calls retries as it was told."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    assert failing(stand, 50) == 150
    assert failing(stand, 50) < 75


def test_one_object_is_one_budget_for_all_who_have_it():
    """Calls of one guard pay for attempts of the other."""
    budget = RetryBudget(0.1, floor=0.0)
    stand = Stand(retry=Retry(attempts=2, wait=0.0, budget=budget))
    other = stand.resilience.guard("other", retry=Retry(attempts=2, wait=0.0, budget=budget))
    for _ in range(25):
        other.call(int)
    assert failing(stand, 10) == 13
    assert budget.left(stand.clock.monotonic()) < 1.0


def test_each_guard_has_its_own_otherwise():
    """A number is a budget of the guard's own."""
    stand = Stand(retry=Retry(attempts=2, wait=0.0, budget=1.0))
    other = stand.resilience.guard("other", retry=Retry(attempts=2, wait=0.0, budget=1.0))
    assert stand.guard.retry.budget is not other.retry.budget
    assert repr(other.retry.budget) == "RetryBudget(1.0, floor=10.0, window=10.0)"


def test_without_one_there_is_no_bound():
    """None is no budget."""
    assert failing(Stand(retry=Retry(attempts=3, wait=0.0, budget=None)), 200) == 600


def test_a_budget_stays_when_other_options_change():
    """What was spent is not forgotten by a change of something else; another share is another budget."""
    stand = Stand(retry=Retry(wait=0.0, budget=0.5))
    budget = stand.guard.retry.budget
    stand.guard.configure(retry=Retry(attempts=2, wait=0.0, budget=0.5))
    assert stand.guard.retry.budget is budget
    stand.guard.configure(retry=Retry(attempts=2, wait=0.0, budget=0.4))
    assert stand.guard.retry.budget.ratio == 0.4


def test_it_is_one_bound_for_all_threads():
    """Eight threads get as many attempts as one would."""
    stand = Stand(listening=False, retry=Retry(attempts=2, wait=0.0, budget=RetryBudget(0.0, floor=1.0)))
    script = Script(Boom("down"))
    guarded = stand.guard(script)

    def calls(_):
        for _ in range(50):
            with pytest.raises(Boom):
                guarded()

    together(8, calls)
    assert stand.guard.retry.decisions()["made"] == 10


def test_everything_that_is_wrong_with_it_is_told():
    """All at once."""
    assert wrong(RetryBudget, 1.5, floor=-1.0, window=0) == ["ratio", "floor", "window"]
    assert wrong(Retry, budget=20) == ["budget"]


# -- idempotency ----------------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("idempotent", "kwargs", "calls"),
    [
        (None, {}, 3),
        (True, {}, 3),
        (False, {}, 1),
        ("key", {}, 1),
        ("key", {"key": None}, 1),
        ("key", {"key": ""}, 1),
        ("key", {"key": "order-17"}, 3),
        (lambda **kwargs: kwargs.get("key"), {"key": 7}, 3),
        (lambda **kwargs: kwargs.get("key"), {}, 1),
    ],
)
def test_what_is_no_safe_to_repeat_is_not_repeated(idempotent, kwargs, calls, suspends):
    """A guard that was not told retries as it was asked; one that was asks for a key."""
    stand = Stand(idempotent=idempotent, retry=Retry(wait=0.0))
    made = []

    def write(key=None):
        made.append(key)
        raise Boom

    if suspends:

        async def awrite(key=None):
            write(key)

        import asyncio

        guarded = stand.guard(awrite)
        with pytest.raises(Boom):
            asyncio.run(guarded(**kwargs))
    else:
        with pytest.raises(Boom):
            stand.guard(write)(**kwargs)
    assert len(made) == calls
    assert [event.reason for event in stand.told(RetryDenied)] == ([] if calls == 3 else ["idempotency"])


def test_a_key_may_be_given_in_its_place_or_by_default():
    """What counts is the argument, however it was passed."""
    stand = Stand(idempotent="key", retry=Retry(attempts=2, wait=0.0))
    made = []

    @stand.guard
    def write(text, key="always"):
        made.append((text, key))
        raise Boom

    for args in (("a", "k"), ("b",), ("c", None)):
        with pytest.raises(Boom):
            write(*args)
    assert made == [("a", "k"), ("a", "k"), ("b", "always"), ("b", "always"), ("c", None)]


def test_a_function_of_ours_that_raises_means_no():
    """It is reported, and the caller gets the error of the dependency."""
    stand = Stand(idempotent=lambda: 1 / 0, retry=Retry(wait=0.0))
    assert failing(stand, 1) == 1


@pytest.mark.parametrize("value", ["two words", 3, "", 1.5])
def test_what_says_nothing_about_it_is_refused(value):
    """True, False, the name of an argument, or a function."""
    assert wrong(Stand, idempotent=value) == ["idempotent"]


def test_a_shadow_retry_counts_and_does_not_try():
    """What would have been tried again is counted for each failure."""
    stand = Stand(retry=Retry(wait=0.0, shadow=True))
    assert failing(stand, 4) == 4
    assert stand.guard.shadow.counts() == {("retry", "retry"): 4}
    assert stand.resilience.snapshot().guards["dependency"].shadow == {("retry", "retry"): 4}
