"""Time that passes only when everybody waits: an hour of back-off takes as long as the code around it.

One :class:`VirtualClock` drives a :class:`~somaresil.testing.loop.VirtualLoop` and everything that was made with ``clock=``. When nothing
is ready to run, time jumps to the next moment at which something is due, in a task or in a thread (trio's ``MockClock``: autojump).
Work that is really being done, in worker threads or behind sockets, is waited for in real time.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from somaresil.testing.loop import VirtualLoop
from somaresil.testing.schedule import EPOCH, Schedule
from somaresil.testing.stall import StalledError
from somaresil.testing.thirdparty import patched

if TYPE_CHECKING:
    import threading
    from collections.abc import Coroutine, Generator

__all__ = ["EPOCH", "StalledError", "VirtualClock", "run"]

_T = TypeVar("_T")


class VirtualClock(Schedule):
    """A clock that jumps over waiting. Safe to use from several threads.

    ``monotonic`` and ``time`` are the first readings in seconds. ``stall`` is how many seconds of *real* time a loop waits for threads and
    sockets in which nothing happens before it raises :class:`StalledError`; ``io_grace`` how many it gives open sockets before each jump.
    After ``most_jumps`` from timer to timer it gives up too: beside a task that wakes up again and again, nothing ever stands still.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    # -- readings ---------------------------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """The measuring reading, in seconds."""
        return self.now

    def time(self) -> float:
        """The wall reading, in seconds since the epoch."""
        return self._wall + self.now

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds`` (>= 0) at once. Tasks and threads whose time has come run when the caller lets them."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a monotonic clock does not go back: advance({seconds!r}), expected seconds >= 0")
        with self._lock:
            self._set(self.now + seconds)
        self._tell()

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; nothing that measures may notice."""
        with self._lock:
            self._wall += seconds
        self._tell()

    # -- waiting: the protocol of somaresil.typing.Clock ------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Wait in this thread. Where a loop or nobody else runs it moves time on, as blocking code would; other threads wait their turn."""
        if seconds <= 0:
            return
        if not seconds < math.inf or self._in_loop() or not self._others():
            self.advance(seconds)
        else:
            self._park(None, self.now + seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspend this task. In a loop that is not virtual, move on and let other tasks run once."""
        if self._loop is not None and self._loop is _running():
            await asyncio.sleep(seconds)
        else:
            self.advance(max(0.0, seconds))
            await asyncio.sleep(0)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set; False when ``timeout`` virtual seconds passed first. Whoever may set it is waited for."""
        if event.is_set():
            return True
        return self._park(event, None if timeout is None else self.now + max(0.0, timeout))

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109 - the clock is what makes timeouts
        """Suspend until the future is done; False when ``timeout`` virtual seconds passed first. The future is not cancelled."""
        if timeout is None or (self._loop is not None and self._loop is _running()):
            done, _ = await asyncio.wait((future,), timeout=timeout)
            return bool(done)
        await asyncio.sleep(0)
        if not future.done():
            self.advance(max(0.0, timeout))
        return future.done()

    # -- loops ------------------------------------------------------------------------------------------------------------------------

    def new_loop(self) -> VirtualLoop:
        """An event loop on this clock: a loop factory for ``asyncio.Runner``, pytest-asyncio and anyio. One at a time."""
        return VirtualLoop(self)

    def run(self, main: Coroutine[Any, Any, _T]) -> _T:
        """``asyncio.run`` in virtual time. Raises :class:`StalledError` when nothing can ever wake what waits."""
        refuse_running_loop("VirtualClock.run()")
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main)

    @contextmanager
    def patched(self) -> Generator[None]:
        """Let third parties live in this time too. See :func:`somaresil.testing.thirdparty.patched`."""
        with patched(self):
            yield


def run(main: Coroutine[Any, Any, _T], *, clock: VirtualClock | None = None) -> _T:
    """``asyncio.run`` in virtual time, on ``clock`` or a new one."""
    return (clock or VirtualClock()).run(main)


def refuse_running_loop(what: str) -> None:
    """Raise ``RuntimeError`` inside of a running event loop, before another is made: it could not be closed there."""
    if _running() is not None:
        raise RuntimeError(f"{what} cannot be run inside of a running event loop: call it from a plain function, or await the coroutine")


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
