"""Single calls through a guard: ``call``, ``acall``, and by name."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import ConfigurationError, Outcome
from tests.behaviour.kit import Boom, Stand, both_paths


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


@both_paths
def test_a_function_is_called_once_through_the_guard(held):
    """Arguments, result and records; by the guard and by its name."""
    stand = Stand(held=held)
    assert stand.guard.call(divmod, 7, 2) == (3, 1)
    assert stand.resilience.call("dependency", sorted, [2, 1], reverse=True) == [2, 1]
    assert stand.count(Outcome.GOOD) == stand.count() == 2


@both_paths
def test_a_class_can_be_called(held):
    """Its construction is a call; decorating it is not possible, and the error says so."""
    stand = Stand(held=held)
    assert stand.guard.call(dict, a=1) == {"a": 1}
    with pytest.raises(ConfigurationError, match=r"guard\.call\(SomeClass"):
        stand.guard(dict)


@both_paths
def test_whatever_can_be_awaited_is_called_through_acall(held):
    """Coroutine functions, and functions that return a future or a coroutine."""
    stand = Stand(held=held)

    async def main():
        def later(number):
            return asyncio.ensure_future(double(number))

        return (
            await stand.guard.acall(double, 1),
            await stand.guard.acall(lambda: double(2)),
            await stand.guard.acall(later, 3),
            await stand.resilience.acall("dependency", double, number=4),
        )

    assert asyncio.run(main()) == (2, 4, 6, 8)
    assert stand.count(Outcome.GOOD) == stand.count() == 4


@both_paths
def test_errors_of_single_calls_are_the_callees(held):
    """The same object, one bad call each."""
    stand = Stand(held=held)
    error = Boom()

    def fails():
        raise error

    async def fails_later():
        raise error

    for call in (lambda: stand.guard.call(fails), lambda: asyncio.run(stand.guard.acall(fails_later))):
        with pytest.raises(Boom) as raised:
            call()
        assert raised.value is error
    assert stand.count(Outcome.BAD) == 2


def items():
    yield 1


async def suspended_items():
    yield 1


@pytest.mark.parametrize(
    ("function", "fix"), [(double, "await guard.acall"), (items, "a guarded stream"), (suspended_items, "a guarded stream")]
)
def test_call_refuses_what_is_no_plain_function(function, fix):
    """And says what to write."""
    with pytest.raises(ConfigurationError) as raised:
        Stand().guard.call(function)
    (problem,) = raised.value.problems
    assert problem.path == "guard('dependency').call"
    assert fix in problem.hint


@pytest.mark.parametrize("value", [5, None, "name"])
def test_what_cannot_be_called_is_refused(value):
    """By both, with the guard's name and what would do."""
    guard = Stand().guard
    with pytest.raises(ConfigurationError, match="it cannot be called"):
        guard.call(value)
    with pytest.raises(ConfigurationError, match="it cannot be called"):
        asyncio.run(guard.acall(value))


def test_a_coroutine_that_was_called_already_is_refused():
    """The function is wanted, not what it returned."""
    with pytest.raises(ConfigurationError, match=r"already called: decorate the function, or use await guard\.acall\(function"):
        asyncio.run(Stand().guard.acall(double(1)))


def test_the_guard_shows_its_pipeline():
    """What a call passes, outermost first, whatever order the options were given in."""
    guard = Stand(timeout=1.0, bulkhead=2, breaker=True, retry=2, fallback=lambda: None).guard
    assert guard.pipeline == ("record", "fallback", "retry", "breaker", "bulkhead", "timeout", "fault", "callee")
    assert repr(guard) == "<Guard 'dependency': record > fallback > retry > breaker > bulkhead > timeout > fault > callee>"
    assert Stand().guard.pipeline == ("record", "fault", "callee")
