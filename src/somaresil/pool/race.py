"""Hedging over endpoints: when one takes its time, another is asked as well, and the first answer counts.

After Jeffrey Dean and Luiz André Barroso, "The Tail at Scale", Communications of the ACM, 2013. Attempts run in tasks of their own, with a
copy of the context of the caller; those that are not needed any more are cancelled, and have ended when the call returns.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from somaresil.outcome import Outcome
from somaresil.runtime import original

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from somaresil.pool.balance import Visit
    from somaresil.pool.tries import Tries
    from somaresil.typing import Clock

__all__ = ["Race"]


class Race:
    """One hedged call."""

    def __init__(self, tries: Tries, attempt: Callable[[Visit], Coroutine[Any, Any, Any]], delay: float, clock: Clock) -> None:
        """``attempt`` makes the call on an endpoint; ``delay`` is how long it may take before another is asked."""
        self._tries = tries
        self._attempt = attempt
        self._delay = delay
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        self._running: dict[asyncio.Task[Any], Visit] = {}

    async def run(self) -> Any:
        """The first answer, or what :meth:`Tries.end` has to say."""
        try:
            answer = await self._first()
        except BaseException:
            await self._call_off()
            raise
        try:
            await self._call_off()
        except BaseException:
            await _close(answer)
            raise
        return answer

    async def _first(self) -> Any:
        self._start(self._tries.next())
        while self._running:
            done = [task for task in self._running if task.done()]
            if not done:
                hedges = self._tries.may_hedge(len(self._running))
                if not await self._wait(self._delay if hedges else None):
                    self._start(self._tries.hedge(len(self._running)))
                continue
            for task in done:
                visit = self._running.pop(task)
                if self._goes_on(task, visit):
                    continue
                return task.result()
        return self._tries.end()

    def _goes_on(self, task: asyncio.Task[Any], visit: Visit) -> bool:
        """Whether the answer of this attempt is none to return, while there is hope for another."""
        running = len(self._running)
        error = None if task.cancelled() else task.exception()
        try:
            if task.cancelled() or (error is not None and not isinstance(error, Exception)):
                return False
            if error is not None:
                again = self._tries.failed(visit, original(error), running)
            elif visit.outcome is Outcome.BAD and not visit.late:
                again = self._tries.answered_badly(task.result(), running)
            else:
                return False
            if again:
                self._start(self._tries.next())
            return True
        finally:
            del error

    def _start(self, visit: Visit | None) -> None:
        if visit is not None:
            task = self._loop.create_task(self._attempt(visit))
            self._running[task] = visit
            task.add_done_callback(functools.partial(self._ended, visit))

    def _ended(self, visit: Visit, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            # It may have been called off before its first step: then nobody else says that it has left.
            visit.leave(Outcome.ABANDONED, self._clock.monotonic())
        if not self._woken.done():
            self._woken.set_result(None)

    async def _wait(self, seconds: float | None) -> bool:
        """Whether an attempt ended within ``seconds``."""
        self._woken = self._loop.create_future()
        return await self._clock.await_(self._woken, seconds)

    async def _call_off(self) -> None:
        losers, self._running = self._running, {}
        if not losers:
            return
        for task in losers:
            task.cancel()
            task.add_done_callback(_read)
        await asyncio.wait(losers)
        for task in losers:
            if not task.cancelled() and task.exception() is None:
                # It was as fast as the winner.
                await _close(task.result())


def _read(task: asyncio.Task[Any]) -> None:
    # So that nobody complains that the error of a loser was not looked at.
    if not task.cancelled():
        task.exception()


async def _close(answer: Any) -> None:
    """End a stream that nobody will read."""
    close = getattr(getattr(answer, "source", None), "aclose", None)
    if close is not None:
        await close()
