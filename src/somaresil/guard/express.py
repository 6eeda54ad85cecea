"""The express path: what a call runs through while limits have to be asked and nothing else is wrong.

Limits that admit a call at once, without a wait, need no part of the full path but two steps: enter before and leave after. They are asked
here one after the other in one frame; whatever else comes up (a limit that does not admit at once, a request whose time is up) sends the
call the long way round, where everything is written once. Like the quiet path it is written out twice, and
``tests/property/test_two_paths.py`` holds it to the full path.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.deadline import current as deadline_of
from somaresil.guard.call import judge
from somaresil.outcome import Outcome
from somaresil.policy.timeout import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.core import Guard

__all__ = ["ADMITTING", "Lane", "async_express", "express", "lane_of"]

_GOOD: Final = Outcome.GOOD
"""A member of an enumeration is looked up through its metaclass, at twice the price of a name of this module."""

ADMITTING: Final = ("throttle", "bulkhead", "rate_limit")
"""Layers that admit, in the order in which they are asked here. A rate is not taken before there is a slot: it is last."""


class Lane(NamedTuple):
    """How the limits of a guard are passed, as if they were one."""

    enter: Callable[[], Any]
    """Gives a token, or None: not at once."""
    leave: Callable[[Any, Outcome, float, float], object]
    """Takes the token, how the call ended, how long it took and what time it is."""


def lane_of(guard: Guard) -> tuple[Lane, float | None, frozenset[str]] | None:
    """The limits of a guard that can be passed here, its timeout, and the names of both and a hedge; None: there is nothing to pass."""
    names: list[str] = []
    lane = _FREE
    for layer in ADMITTING:
        policy = getattr(guard, layer, None)
        if policy is not None and hasattr(policy, "try_enter") and not policy.options.shadow:
            one = Lane(policy.try_enter, policy.leave if policy.leaves else _leave_nothing)
            lane = one if lane is _FREE else _both(lane, one)
            names.append(layer)
    limit = None if guard.timeout is None else guard.timeout.plain
    if limit is not None:
        names.append("timeout")
    if guard.hedge is not None:
        names.append("hedge")
    return (lane, limit, frozenset(names)) if names else None


def _enter_nothing() -> bool:
    return True


def _leave_nothing(token: Any, outcome: Outcome, elapsed: float, now: float) -> None:
    """Nothing was entered."""


_FREE: Final = Lane(_enter_nothing, _leave_nothing)
"""No limit."""


def _both(first: Lane, second: Lane) -> Lane:
    """One limit and then another. Not a loop over both: this is paid at every call."""
    (enter, leave), (enter_second, leave_second) = first, second
    if leave_second is _leave_nothing:

        def enter_either() -> Any:
            token = enter()
            if token is not None and enter_second() is None:
                leave(token, Outcome.REJECTED, 0.0, 0.0)
                return None
            return token

        return Lane(enter_either, leave)

    def enter_both() -> tuple[Any, Any] | None:
        token = enter()
        if token is None:
            return None
        other = enter_second()
        if other is None:
            leave(token, Outcome.REJECTED, 0.0, 0.0)
            return None
        return token, other

    def leave_both(token: tuple[Any, Any], outcome: Outcome, elapsed: float, now: float) -> None:
        leave(token[0], outcome, elapsed, now)
        leave_second(token[1], outcome, elapsed, now)

    return Lane(enter_both, leave_both)


def _saved(guard: Guard, lane: Lane, token: Any, error: BaseException, started: float, era: int) -> bool:
    """Leave what was entered by a call that failed. Whether the call may yet be saved; if not, it is booked."""
    now = guard.monotonic()
    outcome, _ = judge(guard, None, error, started)
    lane.leave(token, outcome, now - started, now)
    if guard.rescues and isinstance(error, Exception):
        return True
    guard.failed(error, started, era)
    return False


def express(guard: Guard, lane: Lane) -> Callable[..., Any]:
    """How a plain function is called. A limit of time would not interrupt it; there is none here."""
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic
    enter, leave = lane

    def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        era = switch.era
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return guard.run(function, args, kwargs)
        token = enter()
        if token is None:
            return guard.run(function, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:
            if not _saved(guard, lane, token, caught, started, era):
                raise
            error = caught
        else:
            now = monotonic()
            elapsed = now - started
            leave(token, _GOOD, elapsed, now)
            if now >= switch.due or switch.era != era:
                guard.settle(now, elapsed, era)
            else:
                next(cells[bisect_left(bounds, elapsed)])
            return result
        try:
            return guard.rescue(function, args, kwargs, error, started, era)
        finally:
            del error

    return run


def async_express(guard: Guard, lane: Lane, limit: float | None) -> Callable[..., Any]:
    """How a coroutine function is called, for at most ``limit`` seconds."""
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic
    enter, leave = lane
    name = guard.name

    async def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        era = switch.era
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return await guard.arun(function, args, kwargs)
        token = enter()
        if token is None:
            return await guard.arun(function, args, kwargs)
        try:
            if limit is None:
                result = await function(*args, **kwargs)
            else:
                result = await within(limit, "total", name, function(*args, **kwargs), usual=True)
        except BaseException as caught:
            if not _saved(guard, lane, token, caught, started, era):
                raise
            error = caught
        else:
            now = monotonic()
            elapsed = now - started
            leave(token, _GOOD, elapsed, now)
            if now >= switch.due or switch.era != era:
                guard.settle(now, elapsed, era)
            else:
                next(cells[bisect_left(bounds, elapsed)])
            return result
        try:
            return await guard.arescue(function, args, kwargs, error, started, era)
        finally:
            del error

    return run
