"""Several attempts of one asynchronous call, of which the first good answer counts.

The first attempt runs in the caller's own task, the others in tasks of their own. An answer that comes from one of those interrupts the
first attempt by cancelling the caller's task, with the bookkeeping of :func:`asyncio.timeout`: a cancellation of the caller's is never
taken for ours, nor ours for the caller's. Whatever comes of it, every attempt has ended when the race has, so every permit is settled.
"""

from __future__ import annotations

import contextlib
from asyncio import CancelledError, Future, Task, current_task, get_running_loop
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from somaresil.errors import Rejected
from somaresil.outcome import Outcome
from somaresil.runtime import raise_again

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from contextvars import Context

    from somaresil.expiry import Expiry
    from somaresil.typing import Call, Next

__all__ = ["Race", "Rules"]


_ANSWERS = frozenset({Outcome.GOOD, Outcome.IGNORED})


class Rules(Protocol):
    """What a race asks, and whom it tells."""

    def again(self, call: Call, number: int, delay: float) -> bool:
        """Whether a further attempt, the ``number``-th, may be made after ``delay`` seconds: then it is, and this tells of it."""
        ...

    def most(self) -> int:
        """How many further attempts there may be."""
        ...

    def note(self, call: Call, number: int, end: str) -> None:
        """The ``number``-th further attempt has ``won``, ``lost`` or ``failed``."""
        ...

    def broken(self, what: str, call: Call, error: Exception) -> None:
        """Something raised where nothing may."""
        ...


class _Answer(NamedTuple):
    call: Call
    value: Any
    error: BaseException | None
    number: int
    """Whose it is: 0 is the first attempt."""


class Race:
    """The attempts of one call. All of it happens in one loop, so nothing here needs a lock."""

    __slots__ = (
        "_answer",
        "_context",
        "_delay",
        "_errors",
        "_expiry",
        "_first",
        "_inner",
        "_loop",
        "_made",
        "_over",
        "_rules",
        "_running",
        "_timer",
        "_waiter",
        "call",
    )

    def __init__(self, rules: Rules, expiry: Expiry, inner: Next, call: Call, context: Context, delay: float) -> None:
        """The first attempt has been running for ``delay``: ``inner(call)``, within ``expiry``. Others run in copies of ``context``."""
        self._rules = rules
        self._delay = delay
        self._expiry = expiry
        self._inner = inner
        self.call = call
        self._context = context
        self._loop = get_running_loop()
        self._first = True
        """Whether the first attempt is still running."""
        self._running: set[Task[None]] = set()
        """The others."""
        self._answer: _Answer | None = None
        self._over = False
        """Whether nothing is waited for any more but that every attempt ends."""
        self._errors: list[Exception] = []
        self._made = 0
        self._timer: TimerHandle | None = None
        self._waiter: Future[None] | None = None

    def go_on(self) -> None:
        """Make another attempt, if that may be. Called by the loop."""
        self._timer = None
        try:
            # Not in the context of whoever has set the timer. What is made in here takes a copy of it.
            self._context.run(self._go_on)
        except Exception as defect:  # noqa: BLE001 - the call goes on without it
            self._rules.broken("hedge", self.call, defect)

    def _go_on(self) -> None:
        number = self._made + 1
        if not self._rules.again(self.call, number, self._delay):
            return
        self._made = number
        self._expiry.about = self
        if number < self._rules.most():
            self._timer = self._loop.call_later(self._delay, self.go_on)
        task = self._loop.create_task(self._attempt(self.call.sibling(), number))
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def _attempt(self, call: Call, number: int) -> None:
        try:
            value = await self._inner(call)
        except Exception as error:  # noqa: BLE001 - it is the caller's when it counts
            if not self._over and self._is_good(call, None, error):
                self._decide(_Answer(call, None, error, number))
                return
            self._errors.append(error)
        except BaseException:
            self._lost(call, number)
            raise
        else:
            if not self._over and self._is_good(call, value, None):
                self._decide(_Answer(call, value, None, number))
                return
            await self._put_away(_Answer(call, value, None, number))
        self._lost(call, number)

    def _lost(self, call: Call, number: int) -> None:
        self._rules.note(call, number, "lost" if self._over else "failed")
        self.call.absorb(call)

    @staticmethod
    def _is_good(call: Call, value: object, error: BaseException | None) -> bool:
        """Whether it is an answer, whatever it says. A stream has one when it has begun."""
        return (call.lasting and error is None) or call.judge(value, error) in _ANSWERS

    def _ended(self, task: Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Nobody else asks: asyncio would report that.
            task.exception()
        self._wake()

    def _decide(self, answer: _Answer) -> None:
        self._answer = answer
        self._close()
        if self._first:
            self._expiry.interrupt()
        else:
            self._wake()

    def _close(self) -> None:
        """Have every other attempt end."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        us = current_task(self._loop)
        for task in tuple(self._running):
            if task is not us:
                # The loop may be closed: then the coroutine of the call is being closed too, and so are those of the others.
                with contextlib.suppress(RuntimeError):
                    task.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _turn(self) -> CancelledError | None:
        """Wait until an attempt has ended. The cancellation that came instead, if one did."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except CancelledError as asked:
            return asked
        finally:
            self._waiter = None
        return None

    async def _put_away(self, answer: _Answer) -> CancelledError | None:
        """Do away with an answer that nobody wants. The cancellation that came meanwhile, if one did."""
        try:
            if answer.error is None:
                await answer.call.discard(answer.value)
        except CancelledError as asked:
            return asked
        except Exception as broken:  # noqa: BLE001 - the caller has a better answer
            self._rules.broken("a late answer", self.call, broken)
        finally:
            self.call.absorb(answer.call)
        return None

    async def end(self, value: Any, failed: BaseException | None) -> Any:
        """The first attempt has ended, with ``value`` or with ``failed``: what the caller gets, once every attempt has ended."""
        try:
            return await self._end(value, failed)
        except GeneratorExit:
            # The coroutine is being closed and may wait for nothing; the others end by themselves.
            self._close()
            if self._answer is not None:
                self._rules.note(self.call, self._answer.number, "lost")
                self.call.absorb(self._answer.call)
            raise
        finally:
            # The frames of errors know this race: without this they would keep each other alive.
            self._answer = None
            self._errors.clear()

    async def _end(self, value: Any, failed: BaseException | None) -> Any:
        self._first = False
        stop: BaseException | None = None
        ours = self._expiry.ours(failed)
        if isinstance(failed, GeneratorExit):
            raise_again(failed)
        if failed is not None and not ours and (not isinstance(failed, Exception) or self._expiry.others()):
            # Whoever wanted the answer is leaving.
            stop = failed
        elif self._answer is None and self._is_good(self.call, value, failed):
            self._decide(_Answer(self.call, value, failed, 0))
        while stop is None and self._answer is None and self._running:
            stop = await self._turn()
        stop = await self._all_end(stop)
        answer = self._answer
        if failed is None and (stop is not None or (answer is not None and answer.number)):
            stop = await self._put_away(_Answer(self.call, value, None, 0)) or stop
        if stop is not None:
            if answer is not None and answer.number:
                self._rules.note(self.call, answer.number, "lost")
                stop = await self._put_away(answer) or stop
            raise_again(stop)
        if answer is not None:
            return self._taken(answer)
        if failed is not None:
            raise_again(self._error(failed))
        return value

    async def _all_end(self, stop: BaseException | None) -> BaseException | None:
        """Have every attempt end, and wait for it. ``stop``, or the cancellation that came meanwhile."""
        if not self._over:
            # Once: who is told twice is disturbed in his cleaning up.
            self._close()
        while self._running:
            asked = await self._turn()
            if asked is not None:
                # The caller has had enough of that, too.
                self._close()
                stop = asked if stop is None or isinstance(stop, Exception) else stop
        return stop

    def _taken(self, answer: _Answer) -> Any:
        if answer.number:
            self._rules.note(self.call, answer.number, "won")
            self.call.absorb(answer.call, won=True)
        if answer.error is not None:
            raise_again(answer.error)
        return answer.value

    def _error(self, failed: BaseException) -> BaseException:
        """All have failed: the error of the first attempt, unless that was rejected and another one was not."""
        if isinstance(failed, Rejected) and failed.guard == self.call.guard:
            return next((error for error in self._errors if not isinstance(error, Rejected)), failed)
        return failed
