"""The quiet path: what every guarded call runs through while nothing is wrong. One frame, two clock reads, one counter.

The plain function and the coroutine function are written out twice on purpose: this is the code whose every nanosecond is paid on every
call of a service, and a shared helper would cost a frame. Everything that is not quiet is written once, behind
:class:`~somaresil.guard.core.Guard`.
"""

from __future__ import annotations

import functools
import time
from asyncio import get_running_loop
from bisect import bisect_left
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from somaresil.deadline import current as deadline_of
from somaresil.expiry import Expiry, begin, task_in
from somaresil.guard.express import saved
from somaresil.guard.shape import Shape, check_decoratable, shape_of
from somaresil.guard.stream import async_stream_wrapper, stream_wrapper
from somaresil.outcome import Outcome
from somaresil.policy.timeout import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.core import Guard

__all__ = ["decorate", "plain_wrapper"]

_GOOD: Final = Outcome.GOOD
"""A member of an enumeration is looked up through its metaclass, at twice the price of a name of this module."""


def decorate(guard: Guard, target: Any, wrapper_of: Callable[[Any], Callable[..., Any]] | None = None) -> Any:
    """The guarded form of ``target``, of the same kind. ``wrapper_of`` makes it otherwise than usual."""
    if isinstance(target, classmethod | staticmethod):
        check_decoratable(guard.name, target.__func__)
        return type(target)(decorate(guard, target.__func__, wrapper_of))
    check_decoratable(guard.name, target)
    wrapper = plain_wrapper(guard, target) if wrapper_of is None else wrapper_of(target)
    if hasattr(target, "__get__") or isinstance(target, functools.partial) or not hasattr(type(target), "__call__"):  # noqa: B004
        return wrapper
    return _transparent(target, wrapper)


def plain_wrapper(guard: Guard, function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper of a plain or coroutine function, for a single call."""
    return _WRAPPERS[shape_of(function)](guard, function)


def _function_wrapper(guard: Guard, function: Callable[..., Any]) -> Callable[..., Any]:
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic

    @_wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # The era is read before the flag: if the breaker opens in between, the flag sends this call the long way round.
        era = switch.era
        if not switch.quiet:
            return (guard.express if switch.express else guard.run)(function, args, kwargs)
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return guard.run(function, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as caught:
            if not guard.rescues or not isinstance(caught, Exception):
                guard.failed(caught, started, era)
                raise
            error = caught
        else:
            now = monotonic()
            if now >= switch.due or switch.era != era:
                guard.settle(now, now - started, era)
            else:
                next(cells[bisect_left(bounds, now - started)])
            return result
        try:
            return guard.rescue(function, args, kwargs, error, started, era)
        finally:
            del error

    return guarded


def _coroutine_wrapper(guard: Guard, function: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901, PLR0915 - two paths, written out
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic
    # The loops of asyncio measure by the clock of the machine: what was read from it need not be read again.
    machine = monotonic is time.monotonic

    @_wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - as above
        era = switch.era
        if not switch.quiet:
            if not switch.express:
                return await guard.arun(function, args, kwargs)
            # The express path. See somaresil.guard.express.
            enter, tally, leave, limit, hedge, fire = guard.lane
            started = monotonic()
            if (deadline := deadline_of()) is not None and deadline.at <= started:
                return await guard.arun(function, args, kwargs)
            delay = None
            if hedge is not None:
                if started >= hedge.look_at:
                    hedge.look(started)
                if (delay := hedge.delay) is None:
                    return await guard.arun(function, args, kwargs)
            token = enter()
            if token is None:
                return await guard.arun(function, args, kwargs)
            if tally is not None and not tally(started):
                leave(token, Outcome.REJECTED, 0.0, started)
                return await guard.arun(function, args, kwargs)
            expiry: Any = None
            if delay is not None:
                try:
                    # Written out: what begin does where limits of this length have a line already.
                    loop: Any = get_running_loop()
                    lines = loop._somaresil_lines  # noqa: SLF001 - as there
                    line = lines.by_length[delay]
                    expiry = Expiry()
                    task: Any = task_in(loop)
                    expiry._task = task  # noqa: SLF001
                    expiry._asked = task.cancelling()  # noqa: SLF001
                    expiry._then = fire  # noqa: SLF001
                    expiry.place = place = line.entries
                    place[expiry] = due = (started if lines.plain and machine else loop.time()) + delay
                    if line.due is None:
                        line.attend(loop, due)
                except (AttributeError, KeyError, RuntimeError):
                    try:
                        expiry = begin(delay, True, fire, started if machine else None)  # noqa: FBT003 - a keyword costs time
                    except RuntimeError:
                        leave(token, Outcome.REJECTED, 0.0, started)
                        return await guard.arun(function, args, kwargs)
                expiry.about = None, guard, copy_context(), delay, function, args, kwargs, started, era
            try:
                if limit is None:
                    result = await function(*args, **kwargs)
                else:
                    result = await within(limit, "total", guard.name, function(*args, **kwargs), usual=True)
            except BaseException as caught:
                if not saved(guard, leave, token, caught, started, era, expiry):
                    raise
                error = caught
            else:
                now = monotonic()
                elapsed = now - started
                leave(token, _GOOD, elapsed, now)
                if hedge is not None:
                    if type(expiry.about) is not tuple:
                        return await guard.go_on(hedge, expiry, result, None, now)
                    # Written out: what Expiry.ours and HedgePolicy.answered do is less than it costs to call them.
                    place = expiry.place
                    if type(place) is dict:
                        place.pop(expiry, None)
                    else:
                        expiry.ours(None)
                    if hedge.durations is not None:
                        hedge.durations.note(elapsed)
                if now >= switch.due or switch.era != era:
                    guard.settle(now, elapsed, era)
                else:
                    next(cells[bisect_left(bounds, elapsed)])
                return result
            try:
                if hedge is None:
                    return await guard.arescue(function, args, kwargs, error, started, era)
                return await guard.go_on(hedge, expiry, None, error, monotonic())
            finally:
                del error
        started = monotonic()
        if (deadline := deadline_of()) is not None and deadline.at <= started:
            return await guard.arun(function, args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as caught:
            if not guard.rescues or not isinstance(caught, Exception):
                guard.failed(caught, started, era)
                raise
            error = caught
        else:
            now = monotonic()
            if now >= switch.due or switch.era != era:
                guard.settle(now, now - started, era)
            else:
                next(cells[bisect_left(bounds, now - started)])
            return result
        try:
            return await guard.arescue(function, args, kwargs, error, started, era)
        finally:
            del error

    return guarded


_WRAPPERS: dict[Shape, Callable[[Any, Any], Callable[..., Any]]] = {
    Shape.FUNCTION: _function_wrapper,
    Shape.COROUTINE: _coroutine_wrapper,
    Shape.GENERATOR: stream_wrapper,
    Shape.ASYNC_GENERATOR: async_stream_wrapper,
}


def _wraps(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # A partial or a callable object has no __name__; functools.wraps skips what is missing.
    return functools.wraps(function)


def _transparent(target: Any, wrapper: Callable[..., Any]) -> Any:
    """A stand-in for a callable object that still has its attributes.

    wrapt costs 0.4 us a call, so it is used, and imported, only here.
    """
    import wrapt

    def through(_wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return wrapper(*args, **kwargs)

    return wrapt.FunctionWrapper(target, through)
