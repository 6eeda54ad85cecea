"""Assertions about resilience. Each fails with what was expected, what was found, and the time line.

What nobody has seen is not good: no fault struck, no call made, no event counted fails too, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.config import Checker, did_you_mean
from somaresil.testing.watch import History

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.resilience import Resilience

__all__ = ["assert_absorbed", "assert_breaker", "assert_budget", "assert_recovers"]


def assert_recovers(history: History, *, within: float | timedelta, guard: str = "*") -> float:
    """Every guard that matches serves again, and goes on serving, ``within`` seconds after the last fault has ended.

    Returns the seconds of the slowest. A guard that was not called after the last fault has not recovered: nobody knows.

    Raises :class:`AssertionError`, and :class:`~somaresil.errors.ConfigurationError` for a guard that was never called.
    """
    check = Checker("assert_recovers")
    limit = check.seconds("within", within, exclusive=False)
    recoveries = history.recoveries(guard)
    _check_guard(check, history, guard, found=bool(recoveries))
    check.finish()
    if not history.windows:
        raise AssertionError(_message(history, f"{guard} recovers", "no fault was injected, so there was nothing to recover from"))
    if not history.injected:
        raise AssertionError(_message(history, f"{guard} recovers", "no fault has struck a call, so there was nothing to recover from"))
    slow = [recovery for recovery in recoveries if recovery.seconds is None or recovery.seconds > limit]
    if slow:
        raise AssertionError(_message(history, f"{guard} recovers within {limit:g} s of the last fault", "; ".join(map(str, slow))))
    return max(recovery.seconds or 0.0 for recovery in recoveries)


def assert_absorbed(history: History, *, at_least: float = 0.95, guard: str = "*") -> float:
    """At least this share of the calls that faults have touched ended well. Returns the share.

    Touched are the calls that were struck and those that were refused in consequence. Raises :class:`AssertionError`, also when no call was
    touched.
    """
    check = Checker("assert_absorbed")
    check.ratio("at_least", at_least)
    _check_guard(check, history, guard, found=any(history.recoveries(guard)))
    check.finish()
    share = history.absorbed(guard)
    expected = f"{guard} absorbs at least {at_least:.1%} of what touches it"
    if share is None:
        raise AssertionError(_message(history, expected, "no call was touched by a fault, so nothing was shown"))
    if share < at_least:
        raise AssertionError(_message(history, expected, f"{share:.1%} of {history.touched(guard)} touched calls ended well"))
    return share


def assert_breaker(history: History, guard: str, state: str | None = None, *, opened: int | None = None) -> None:
    """The circuit of ``guard`` is in ``state`` now, and went from closed to open ``opened`` times while it was watched; None: any.

    Raises :class:`AssertionError`, and :class:`~somaresil.errors.ConfigurationError` for a guard without a breaker or a state that is none.
    """
    breaker = history.resilience.breaker(guard)
    check = Checker("assert_breaker")
    states = tuple(type(breaker.state))
    if state is not None:
        check.one_of("state", state, states)
    check.count("opened", opened, minimum=0, optional=True)
    check.finish()
    if state is not None and breaker.state != state:
        raise AssertionError(_message(history, f"the circuit of {guard} is {state}", f"it is {breaker.state.value}"))
    times = history.openings(guard)
    if opened is not None and times != opened:
        raise AssertionError(_message(history, f"the circuit of {guard} opened {_times(opened)}", f"it opened {_times(times)}"))


def assert_budget(history: History | Resilience, slo: str, *, remaining: float = 0.0) -> float:
    """At least this share of the error budget of ``slo`` is left; 0: it is not overspent. Returns the share.

    Raises :class:`AssertionError`, also when the objective has seen no event: no data is not a kept promise.
    """
    check = Checker("assert_budget")
    check.number("remaining", remaining, minimum=-1e9, maximum=1.0)
    check.finish()
    resilience = history.resilience if isinstance(history, History) else history
    budget = resilience.slos.error_budget(slo)
    expected = f"{slo} has at least {remaining:.1%} of its error budget left"
    share = budget.remaining_share
    if share is None:
        raise AssertionError(_message(history, expected, "it has seen no event, so nothing is known"))
    if share < remaining:
        found = f"{share:.1%} is left: {budget.bad} of {budget.good + budget.bad} events were bad, {budget.total_budget:.3%} may be"
        raise AssertionError(_message(history, expected, found))
    return share


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _check_guard(check: Checker, history: History, guard: str, *, found: bool) -> None:
    if not found:
        called = history.guards
        check.problem("guard", guard, f"a guard that was called ({', '.join(called) or 'none was'})", did_you_mean(guard, called))


def _message(history: History | Resilience, expected: str, found: str) -> str:
    lines = [f"expected: {expected}", f"found:    {found}"]
    if isinstance(history, History):
        lines.append(history.timeline())
    return "\n".join(lines)
