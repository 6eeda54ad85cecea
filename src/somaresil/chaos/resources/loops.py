"""Event loops that a fault strikes, and the task that stands in each of them for as long as it does.

``asyncio.run`` joins the threads of its executor when it ends, Ctrl-C included, and no deadline of ours would be asked before that
(measured: 3.0 s for a hold of 3 s). But it cancels every task first. So in each loop there is a task of ours: when it is cancelled by
anybody but us, the loop is shutting down, and what was taken in it is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakSet

from somaresil.chaos.resources.latch import Latch

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["Companion", "Companions", "Loops", "forever", "running_loop"]


def running_loop() -> AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Loops:
    """The event loops of the process that faults may strike: those that were registered, else those in which experiments were armed."""

    def __init__(self) -> None:
        """None are known."""
        self._lock = threading.RLock()
        self._registered: WeakSet[AbstractEventLoop] = WeakSet()
        self._seen: WeakSet[AbstractEventLoop] = WeakSet()

    def register(self, loop: AbstractEventLoop) -> None:
        """From now on, this one and others that are registered, and no other."""
        with self._lock:
            self._registered.add(loop)

    def see(self) -> None:
        """An experiment is armed here: if that is inside a loop, it is one to know."""
        loop = running_loop()
        if loop is not None:
            with self._lock:
                self._seen.add(loop)

    def known(self) -> list[AbstractEventLoop]:
        """Those to strike; none that is closed or that nobody runs."""
        with self._lock:
            loops = [loop for loop in self._registered if loop.is_running()]
            return loops or [loop for loop in self._seen if loop.is_running()]


class Companion:
    """A task of ours in one loop."""

    def __init__(self, loop: AbstractEventLoop, body: Callable[[Companion], Awaitable[None]], left: Callable[[], None]) -> None:
        """``body`` does it, and undoes it when it is cancelled; ``left`` is called when somebody else cancelled it."""
        self.loop = loop
        self.latch = Latch()
        """Set when it ends, here or because the loop does."""
        self._body = body
        self._left = left
        self._process = os.getpid()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From any thread; when that is the one of the loop, the task runs with the next turn of the loop."""
        if running_loop() is self.loop:
            self._create()
        else:
            # A loop that was closed meanwhile has nothing that could be taken.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._create, context=Context())

    def end(self) -> None:
        """From any thread: what waits for the latch goes on at once, the rest is undone with the next turn of the loop."""
        self.latch.set()
        if os.getpid() == self._process:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._cancel, context=Context())

    def _create(self) -> None:
        if not self.latch.is_set:
            self._task = self.loop.create_task(self._run(), name="somaresil-chaos", context=Context())
            # A loop that is closed with the fault still in it is no mistake of its owner that asyncio should report.
            with contextlib.suppress(AttributeError):
                self._task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue]

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._body(self)
        finally:
            if not self.latch.is_set:
                self.latch.set()
                self._left()


class Companions:
    """One companion in each of several loops."""

    def __init__(
        self,
        loops: Iterable[AbstractEventLoop],
        body: Callable[[Companion], Awaitable[None]],
        *,
        failed: Callable[[Exception], object],
        all_left: Callable[[], object],
    ) -> None:
        """``failed`` is told what a body raises; ``all_left`` when the last of the loops is shutting down."""
        self._failed = failed
        self._all_left = all_left
        self._guarded = body
        self._each = [Companion(loop, self._body, self._one_left) for loop in loops]

    def start(self) -> None:
        """From any thread."""
        for each in self._each:
            each.start()

    def end(self) -> None:
        """From any thread."""
        for each in self._each:
            each.end()

    async def _body(self, companion: Companion) -> None:
        try:
            await self._guarded(companion)
        except Exception as defect:  # noqa: BLE001 - it is a task that nobody awaits
            self._failed(defect)

    def _one_left(self) -> None:
        if all(each.latch.is_set for each in self._each):
            self._all_left()


async def forever() -> None:
    """Wait until cancelled, with no timer."""
    await asyncio.get_running_loop().create_future()
