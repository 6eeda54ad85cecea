"""The express path of a guard with a hedge: nothing is wrong as long as the answer comes within the delay.

It costs a place in a line of timers. The call takes the full path when the delay is over and a further attempt is running, and when its own
attempt fails and may be saved: the hedge goes on there with what has happened so far, and the rest of the policies see it played back.
"""

from __future__ import annotations

from bisect import bisect_left
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from somaresil.deadline import current as deadline_of
from somaresil.expiry import begin
from somaresil.guard.call import judge
from somaresil.outcome import Outcome
from somaresil.policy.timeout import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.core import Guard
    from somaresil.guard.express import Lane
    from somaresil.policy.hedge import HedgePolicy

__all__ = ["hedged_express"]

_GOOD: Final = Outcome.GOOD


def hedged_express(guard: Guard, lane: Lane, limit: float | None, hedge: HedgePolicy) -> Callable[..., Any]:  # noqa: C901, PLR0915 - below
    """How a coroutine function is called, each attempt for at most ``limit`` seconds."""
    switch, bounds, cells, monotonic = guard.switch, guard.recorder.bounds, guard.recorder.cells, guard.monotonic
    name, fire = guard.name, hedge.fire
    enter, leave = lane

    # Written out: a helper would cost a frame.
    async def run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: C901, PLR0912
        era = switch.era
        started = monotonic()
        if started >= hedge.look_at:
            hedge.look(started)
        if (delay := hedge.delay) is None or ((deadline := deadline_of()) is not None and deadline.at <= started):
            return await guard.arun(function, args, kwargs)
        token = enter()
        if token is None:
            return await guard.arun(function, args, kwargs)
        try:
            expiry = begin(delay, True, fire)  # noqa: FBT003 - a keyword costs time
        except RuntimeError:
            leave(token, Outcome.REJECTED, 0.0, started)
            return await guard.arun(function, args, kwargs)
        expiry.about = None, (guard, function, args, kwargs, started, era), copy_context(), delay
        failed: BaseException | None = None
        result: Any = None
        try:
            if limit is None:
                result = await function(*args, **kwargs)
            else:
                result = await within(limit, "total", name, function(*args, **kwargs), usual=True)
        except BaseException as caught:
            now = monotonic()
            outcome, _ = judge(guard, None, caught, started)
            leave(token, outcome, now - started, now)
            if type(expiry.about) is tuple and not (guard.rescues and isinstance(caught, Exception)):
                expiry.ours(caught)
                guard.failed(caught, started, era)
                raise
            failed = caught
        else:
            now = monotonic()
            elapsed = now - started
            leave(token, _GOOD, elapsed, now)
            if type(expiry.about) is tuple:
                # Written out: what Expiry.ours and HedgePolicy.answered do is less than it costs to call them.
                if type(expiry.place) is dict:
                    expiry.place.pop(expiry, None)
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
            return await guard.go_on(hedge, expiry, result, failed, now)
        finally:
            del failed

    return run
