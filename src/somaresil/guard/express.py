"""The express path: what a call runs through while limits have to be asked and nothing else is wrong.

Limits that admit a call at once, without a wait, need no part of the full path but two steps: enter before and leave after. They are asked
one after the other in one frame; whatever else comes up (a limit that does not admit at once, a request whose time is up) sends the call
the long way round, where everything is written once. For plain functions it is written here; for coroutine functions, where a frame
costs most, in the wrapper itself (:mod:`somaresil.guard.wrap`). ``tests/property/test_two_paths.py`` holds both to the full path.

A hedge costs a place in a line of timers. Nothing is wrong as long as the answer comes within its delay; the call takes the full path
when a further attempt is running then, and when its own attempt fails and may be saved: the hedge goes on there with what has happened so
far, and the rest of the policies see it played back.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.deadline import current as deadline_of
from somaresil.guard.call import judge
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.expiry import Expiry
    from somaresil.guard.core import Guard
    from somaresil.policy.hedge import HedgePolicy

    Leave = Callable[[Any, Outcome, float, float], object]
    _Pair = tuple[Callable[[], Any], Leave]

__all__ = ["ADMITTING", "Lane", "express", "lane_of", "saved"]

_GOOD: Final = Outcome.GOOD
"""A member of an enumeration is looked up through its metaclass, at twice the price of a name of this module."""

ADMITTING: Final = ("throttle", "bulkhead", "rate_limit")
"""Layers that admit, in the order in which they are asked here. A rate is not taken before there is a slot: it is last."""


class Lane(NamedTuple):
    """How the limits of a guard are passed, as if they were one."""

    enter: Callable[[], Any]
    """Gives a token, or None: not at once."""
    tally: Callable[[float], bool] | None
    """The last of them, when it only counts calls by the time at which they come: False: not at once. There is nothing to leave."""
    leave: Leave
    """Takes the token, how the call ended, how long it took and what time it is."""
    limit: float | None = None
    """Seconds that an attempt may take."""
    hedge: HedgePolicy | None = None


def lane_of(guard: Guard) -> tuple[Lane, frozenset[str]] | None:
    """The limits of a guard that can be passed here, and the names of what it takes care of; None: there is nothing to pass."""
    names: list[str] = []
    enter, leave = _FREE
    tally = None
    for layer in ADMITTING:
        policy = getattr(guard, layer, None)
        if policy is None or not hasattr(policy, "try_enter") or policy.options.shadow:
            continue
        names.append(layer)
        if not policy.leaves:
            tally = policy.try_count
        elif enter is _FREE[0]:
            enter, leave = policy.try_enter, policy.leave
        else:
            enter, leave = _both((enter, leave), (policy.try_enter, policy.leave))
    limit = None if guard.timeout is None else guard.timeout.plain
    if limit is not None:
        names.append("timeout")
    if guard.hedge is not None:
        names.append("hedge")
    return (Lane(enter, tally, leave, limit, guard.hedge), frozenset(names)) if names else None


def _enter_nothing() -> bool:
    return True


def _leave_nothing(token: Any, outcome: Outcome, elapsed: float, now: float) -> None:
    """Nothing was entered."""


_FREE: Final[_Pair] = (_enter_nothing, _leave_nothing)
"""No limit."""


def _both(first: _Pair, second: _Pair) -> _Pair:
    """One limit and then another. Not a loop over both: this is paid at every call."""
    (enter, leave), (enter_second, leave_second) = first, second

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

    return enter_both, leave_both


def saved(guard: Guard, leave: Leave, token: Any, error: BaseException, started: float, era: int, expiry: Expiry | None = None) -> bool:
    """Leave what was entered by a call that failed. Whether the call may yet be saved; if not, it is booked.

    ``expiry`` is that of its hedge: while a further attempt is running the call is not over.
    """
    now = guard.monotonic()
    outcome, _ = judge(guard, None, error, started)
    leave(token, outcome, now - started, now)
    if (guard.rescues and isinstance(error, Exception)) or (expiry is not None and type(expiry.about) is not tuple):
        return True
    if expiry is not None:
        expiry.ours(error)
    guard.failed(error, started, era)
    return False


def express(guard: Guard, lane: Lane) -> Callable[..., Any]:
    """How a plain function is called. A limit of time would not interrupt it; there is none here."""
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic
    enter, tally, leave = lane.enter, lane.tally, lane.leave

    def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        era = switch.era
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return guard.run(function, args, kwargs)
        token = enter()
        if token is None:
            return guard.run(function, args, kwargs)
        if tally is not None and not tally(started):
            leave(token, Outcome.REJECTED, 0.0, started)
            return guard.run(function, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:
            if not saved(guard, leave, token, caught, started, era):
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
