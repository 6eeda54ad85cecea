"""The express path: what a call runs through while limits have to be asked and nothing else is wrong.

Limits that admit a call at once, without a wait, need no part of the full path but two steps: enter before and leave after. They are asked
here one after the other in one frame; whatever else comes up (a limit that does not admit at once, a request whose time is up) sends the
call the long way round, where everything is written once. Like the quiet path it is written out twice, and
``tests/property/test_two_paths.py`` holds it to the full path.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from somaresil.deadline import current as deadline_of
from somaresil.guard.call import judge
from somaresil.outcome import Outcome
from somaresil.policy.timeout import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.core import Guard

__all__ = ["ADMITTING", "Lane", "async_express", "express", "give_back", "lane_of"]

ADMITTING: Final = ("throttle", "bulkhead", "rate_limit")
"""Layers that admit, in the order in which they are asked here. A rate is not taken before there is a slot: it is last."""

Lane = tuple[tuple["Callable[[], Any]", "Callable[[Any, Outcome, float, float], object]"], ...]
"""How each limit is entered (a token, or None) and left."""


def lane_of(guard: Guard) -> tuple[Lane, float | None, frozenset[str]] | None:
    """The limits of a guard that can be passed here, its timeout, and the names of both and a hedge; None: there is nothing to pass."""
    names, lane = [], []
    for layer in ADMITTING:
        policy = getattr(guard, layer, None)
        if policy is not None and hasattr(policy, "try_enter") and not policy.options.shadow:
            names.append(layer)
            lane.append((policy.try_enter, policy.leave))
    limit = None if guard.timeout is None else guard.timeout.plain
    if limit is not None:
        names.append("timeout")
    if guard.hedge is not None:
        names.append("hedge")
    return (tuple(lane), limit, frozenset(names)) if names else None


def give_back(lane: Lane, tokens: list[Any], now: float) -> None:
    """Leave what was entered: the call was not made."""
    for (_, leave), token in zip(lane, tokens, strict=False):
        leave(token, Outcome.REJECTED, 0.0, now)


def _saved(guard: Guard, lane: Lane, tokens: list[Any], error: BaseException, started: float, era: int) -> bool:
    """Leave what was entered by a call that failed. Whether the call may yet be saved; if not, it is booked."""
    now = guard.monotonic()
    outcome, _ = judge(guard, None, error, started)
    for (_, leave), token in zip(lane, tokens, strict=True):
        leave(token, outcome, now - started, now)
    if guard.rescues and isinstance(error, Exception):
        return True
    guard.failed(error, started, era)
    return False


def express(guard: Guard, lane: Lane) -> Callable[..., Any]:
    """How a plain function is called. A limit of time would not interrupt it; there is none here."""
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic

    def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        era = switch.era
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return guard.run(function, args, kwargs)
        tokens: list[Any] = []
        for enter, _ in lane:
            token = enter()
            if token is None:
                give_back(lane, tokens, started)
                return guard.run(function, args, kwargs)
            tokens.append(token)
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:
            if not _saved(guard, lane, tokens, caught, started, era):
                raise
            error = caught
        else:
            now = monotonic()
            elapsed = now - started
            for (_, leave), token in zip(lane, tokens, strict=True):
                leave(token, Outcome.GOOD, elapsed, now)
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
    name = guard.name

    async def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        era = switch.era
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return await guard.arun(function, args, kwargs)
        tokens: list[Any] = []
        for enter, _ in lane:
            token = enter()
            if token is None:
                give_back(lane, tokens, started)
                return await guard.arun(function, args, kwargs)
            tokens.append(token)
        try:
            if limit is None:
                result = await function(*args, **kwargs)
            else:
                result = await within(limit, "total", name, function(*args, **kwargs), usual=True)
        except BaseException as caught:
            if not _saved(guard, lane, tokens, caught, started, era):
                raise
            error = caught
        else:
            now = monotonic()
            elapsed = now - started
            for (_, leave), token in zip(lane, tokens, strict=True):
                leave(token, Outcome.GOOD, elapsed, now)
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
