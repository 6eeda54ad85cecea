"""What stalls event loops: blocking them, and taking the threads and tokens that they hand blocking work to."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import Bound, ceiling
from somaresil.chaos.resources.loops import Companions, forever
from somaresil.config import to_seconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Awaitable, Callable

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.chaos.resources.loops import Companion, Loops
    from somaresil.config import Checker

__all__ = ["AnyioTokens", "ExecutorThreads", "LoopBlock"]

_BLOCK: Final = 0.2
_ALL: Final = math.inf


class _OfLoops:
    """A resource that each event loop has."""

    takes_rest: ClassVar[bool] = False

    def __init__(self, loops: Loops) -> None:
        """Of these loops."""
        self._loops = loops

    def missing(self) -> str:
        """Nothing."""
        return ""

    def _need_loop(self, check: Checker, ask: Ask) -> None:
        if not self._loops.known():
            hint = "arm it inside the loop, or tell which one: chaos.register_loop(loop)"
            check.problem(ask.field, ask.target, "a process in which an event loop is known", hint)

    def _accompany(
        self,
        body: Callable[[Companion], Awaitable[None]],
        ended: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> Callable[[], None]:
        companions = Companions(self._loops.known(), body, failed=failed, all_left=ended)
        companions.start()
        return companions.end


class LoopBlock(_OfLoops):
    """Blocks loops, as a call that should have been awaited does: each block ``amount`` seconds, over a share of the time."""

    unit: ClassVar[str] = "seconds"

    def check(self, check: Checker, ask: Ask) -> float:
        """Not longer than a block may be, and in a loop that is known."""
        self._need_loop(check, ask)
        return amount_of(check, ask, _BLOCK, [ceiling(to_seconds(ask.ceilings.block), 0)], self.unit, whole=False)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Block at once, and again and again."""
        seconds = hold.asked
        figures = {"blocks": 0.0, "blocked_seconds": 0.0}
        hold.measure = lambda: figures

        async def body(here: Companion) -> None:
            blocks = _Blocks(here, hold, seconds, ask.share, figures)
            try:
                await forever()
            finally:
                blocks.cancel()

        return self._accompany(body, ended, failed)


class _Blocks:
    """The blocks of one loop, one after another."""

    def __init__(self, here: Companion, hold: Hold, seconds: float, share: float, figures: dict[str, float]) -> None:
        """Block with the next turn of the loop."""
        self._here = here
        self._hold = hold
        self._seconds = seconds
        self._pause = seconds * (1.0 - share) / share if share else _ALL
        self._figures = figures
        self._next: TimerHandle | None = here.loop.call_later(0.0, self._block) if share else None

    def cancel(self) -> None:
        """No further ones."""
        if self._next is not None:
            self._next.cancel()

    def _block(self) -> None:
        hold = self._hold
        if self._here.latch.is_set or hold.over:
            return
        began = time.monotonic()
        # Not time.sleep: the kill switch, pulled in another thread, frees the loop within milliseconds.
        self._here.latch.wait(min(self._seconds, hold.remaining))
        blocked = time.monotonic() - began
        hold.note(blocked)
        self._figures["blocks"] += 1
        self._figures["blocked_seconds"] += blocked
        hold.settle()
        if not hold.over and self._pause < hold.remaining:
            self._next = self._here.loop.call_later(self._pause, self._block)


class ExecutorThreads(_OfLoops):
    """Holds the threads of the default executors of loops: blocking work and look-ups of names wait."""

    unit: ClassVar[str] = "threads"

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more threads than may be held, nor than the smallest executor has."""
        self._need_loop(check, ask)
        loops = self._loops.known()
        has = min((_threads_of(loop) for loop in loops), default=_usual_threads())
        bounds = [ceiling(ask.ceilings.threads, ask.held), Bound(has, "those that the executor has")]
        return amount_of(check, ask, _ALL, bounds, self.unit) * max(1, len(loops))

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Have each thread wait for the end. One that is busy is taken when it is free."""
        del ask
        wanted = hold.asked
        each = int(wanted) // max(1, len(self._loops.known()))

        async def body(here: Companion) -> None:
            def occupy() -> None:
                if here.latch.is_set or hold.over:
                    return
                if hold.add(1) >= wanted:
                    hold.settle()
                try:
                    here.latch.wait(hold.remaining)
                finally:
                    hold.add(-1)

            submit = await _submitter(here.loop)
            for _ in range(each):
                submit(occupy)
            await forever()

        return self._accompany(body, ended, failed)


async def _submitter(loop: AbstractEventLoop) -> Callable[[Callable[[], None]], Any]:
    """How work is given to the default executor of a loop."""
    if getattr(loop, "_default_executor", None) is None:
        # It is made with the first work.
        await loop.run_in_executor(None, _nothing)
    executor = getattr(loop, "_default_executor", None)
    if executor is None:
        # uvloop shows its executor to nobody.
        return lambda work: loop.run_in_executor(None, work)
    # Straight to the executor: a future of the loop could not be told of its end when the loop is closed by then.
    submit: Callable[[Callable[[], None]], Any] = executor.submit
    return submit


def _nothing() -> None:
    """Do nothing, in a thread."""


def _threads_of(loop: AbstractEventLoop) -> int:
    threads = getattr(getattr(loop, "_default_executor", None), "_max_workers", None)
    return threads if isinstance(threads, int) else _usual_threads()


def _usual_threads() -> int:
    """As many as ``ThreadPoolExecutor`` starts when nobody says."""
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return min(32, count + 4)


class AnyioTokens(_OfLoops):
    """Borrows the tokens of anyio's default limiter, by which Starlette and FastAPI run plain functions; no thread is held."""

    unit: ClassVar[str] = "tokens"

    def check(self, check: Checker, ask: Ask) -> float:
        """A loop that is known, in a process that uses anyio."""
        self._need_loop(check, ask)
        if "anyio.to_thread" not in sys.modules:
            # Nothing is imported for an experiment: who has not loaded it hands no work to it.
            check.problem(ask.field, ask.target, "a process that uses anyio", "anyio.to_thread is not imported here")
        usual = _ALL if ask.amount is None else ask.amount
        return amount_of(check, ask, usual, [], self.unit) * max(1, len(self._loops.known()))

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Borrow what is free at once, and the rest when it is given back."""
        count = max(1, len(self._loops.known()))
        hold.asked = hold.asked if math.isfinite(hold.asked) else 0.0

        async def body(here: Companion) -> None:
            del here
            limiter: Any = sys.modules["anyio.to_thread"].current_default_thread_limiter()
            total = limiter.total_tokens
            if ask.amount is None and math.isinf(total):
                hold.settle("the limiter has no limit")
                return
            wanted = int(min(total, ask.amount or total))
            if ask.amount is None:
                hold.asked += wanted
            borrowers: list[object] = []
            try:
                while len(borrowers) < wanted and not hold.over:
                    borrower = object()
                    await limiter.acquire_on_behalf_of(borrower)
                    borrowers.append(borrower)
                    hold.add(1)
                hold.settle("" if wanted * count >= hold.asked else f"the limiter has {total:g} tokens")
                await forever()
            finally:
                for borrower in borrowers:
                    limiter.release_on_behalf_of(borrower)

        return self._accompany(body, ended, failed)
