"""An asyncio event loop on a :class:`~somaresil.testing.clock.VirtualClock`.

It is asyncio's own selector loop with another idea of waiting: where ``select`` would block until the next timer, sockets are polled and
the clock jumps there. Tasks, timers, timeouts, task groups, anyio on its asyncio backend, ASGI apps in process and sockets behave as
always.
"""

from __future__ import annotations

import asyncio
import functools
import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from somaresil.testing.stall import stalled

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Mapping

    from somaresil.testing.schedule import Schedule

__all__ = ["VirtualLoop"]

_monotonic = time.monotonic
_STEP: Final = 0.05
_ANYIO: Final = "anyio._backends._asyncio"
_WATCHED: Final = "somaresil_watched"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, made by :meth:`VirtualClock.new_loop`.

    Raises :class:`~somaresil.testing.clock.StalledError` out of ``run_until_complete`` when nothing will ever wake what waits: at once
    when there is no timer, thread or socket, after ``clock.stall`` real seconds when there is one in which nothing happens.
    """

    leaves_no_timer = True
    """Timers are times to jump to, so one that nobody waits for would move the clock (:mod:`somaresil.expiry` asks)."""

    def __init__(self, clock: Schedule) -> None:
        self.clock = clock
        self._default_executor: Any = None
        self.ident = 0
        """The thread in which it runs, or ran last."""
        self.closing = False
        """Whether it waits for the threads of its executor."""
        self.stalled = False
        """Whether it has given up once."""
        self._ready: Any
        super().__init__()
        # Private names of asyncio, as other loops use them: the selector is where it waits, the resolution what it calls "now".
        self._selector: Any = _Selector(self, self._selector)
        try:
            self.clock.attach(self)
        except RuntimeError:
            super().close()
            raise

    def __repr__(self) -> str:
        """Where its clock stands."""
        return f"<VirtualLoop at {self.clock.now:g} s running={self.is_running()} closed={self.is_closed()}>"

    @property
    def _clock_resolution(self) -> float:
        """Never less than a float can tell at this reading: a timer that is due must be before "now and a bit"."""
        return max(1e-9, math.ulp(self.clock.now))

    @_clock_resolution.setter
    def _clock_resolution(self, _: float) -> None:
        """What asyncio measured does not matter."""

    def time(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def has_calls(self) -> bool:
        """Whether something is ready to run."""
        return bool(self._ready)

    def runs_here(self) -> bool:
        """Whether this is the thread in which it runs now."""
        return self.is_running() and self.ident == threading.get_ident()

    def run_forever(self) -> None:
        """Run until it is stopped."""
        self.ident = threading.get_ident()
        _watch_anyio()
        super().run_forever()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Work in a thread, which is waited for in real time."""
        if executor is None:
            self._check_default_executor()  # type: ignore[attr-defined]  # private to asyncio, which asks it here as well
            executor = self._pool()
        # What goes to other processes must be pickled as it is; how many of them run is not ours to see.
        known = isinstance(executor, ThreadPoolExecutor)
        job, work = self.clock.submit(functools.partial(_is_full, executor) if known else None, func, *args)
        if not known:
            job.started = -1
        task: Any = work if known else functools.partial(func, *args)
        try:
            future = super().run_in_executor(executor, task)
        except BaseException:
            self.clock.forget(job)
            raise
        future.add_done_callback(lambda _: self.clock.withdraw(job) if known else self.clock.forget(job))
        return future

    def _pool(self) -> Any:
        if self._default_executor is None:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        return self._default_executor

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the default executor, in real time: its own time limit must not be jumped over."""
        if self.stalled and self._default_executor is not None:
            # Whoever hangs in there is told already, and would only be told again.
            self._default_executor.shutdown(wait=False, cancel_futures=True)
            self._default_executor = None
        self.closing = True
        try:
            with self.clock.paused():
                await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self.closing = False

    def close(self) -> None:
        """Close it and free the clock for another loop."""
        super().close()
        self.clock.detach(self)


class _Selector:
    """Waits for sockets as the real one does, and for time not at all."""

    def __init__(self, loop: VirtualLoop, real: selectors.BaseSelector) -> None:
        self._loop = loop
        self._clock = loop.clock
        self._real = real
        self._select = real.select
        self._idle_since: float | None = None
        self._map: Mapping[Any, Any] = real.get_map()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready. Time jumps when nothing is and ``timeout`` is a timer."""
        events: list[Any] = self._select(0)
        if events or timeout == 0:
            self._idle_since = None
            return events
        clock = self._clock
        if clock.held:
            if self._loop.closing and clock.jump_for_threads():
                self._idle_since = None
                return []
            return self._really_wait("a thread works for this loop, but nothing has happened for {} s")
        # A thread may have called in since the first look, whether it is still there or not.
        if self._loop.has_calls():
            self._idle_since = None
            return []
        # Besides the pipe by which threads wake the loop.
        sockets = len(self._map) > 1
        if timeout is not None:
            if sockets and clock.io_grace and (events := self._select(clock.io_grace)):
                self._idle_since = None
                return events
            self._idle_since = None
            clock.leap(timeout)
            if clock.jumps >= clock.last_jump:
                clock.last_jump += clock.most_jumps
                self._loop.stalled = True
                raise stalled(clock, self._loop, f"time has jumped {clock.jumps:,} times, and it has not ended")
            return []
        if clock.jump(None):
            self._idle_since = None
            return []
        if sockets:
            return self._really_wait("sockets are open, but nothing has come for {} s")
        if clock.may_be_called():
            return self._really_wait("threads are there that may call in, but nothing has come for {} s")
        self._loop.stalled = True
        raise stalled(clock, self._loop, "there is no timer, no thread at work and no open socket")

    def _really_wait(self, why: str) -> list[Any]:
        now = _monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > self._clock.stall:
            self._idle_since = None
            self._loop.stalled = True
            raise stalled(self._clock, self._loop, why.format(f"{self._clock.stall:g}"))
        # Nobody tells when a thread that was started by itself is done: look often at first.
        events: list[Any] = self._select(min(_STEP, max(0.001, now - self._idle_since)))
        if events:
            self._idle_since = None
        return events


def _watch_anyio() -> None:
    """Let jobs of anyio's worker threads be seen, once.

    anyio has threads of its own, beside ``run_in_executor``; Starlette runs plain endpoints in them. What is wrapped is private to anyio:
    where it has another shape, its threads are still seen at work by where they stand, only later.
    """
    backend = getattr(sys.modules.get(_ANYIO), "AsyncIOBackend", None)
    if backend is None and "anyio" in sys.modules:
        from importlib import import_module

        backend = getattr(import_module(_ANYIO), "AsyncIOBackend", None)
    original = getattr(backend, "run_sync_in_worker_thread", None)
    if backend is None or original is None or original.__name__ == _WATCHED:
        return

    async def watched(_: type, func: Callable[..., Any], args: tuple[Any, ...], *rest: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            return await original(func, args, *rest, **options)
        job, work = loop.clock.submit(functools.partial(_has_no_token, _limiter(rest, options), asyncio.current_task()), func, *args)
        try:
            return await original(work, (), *rest, **options)
        finally:
            loop.clock.withdraw(job)

    watched.__name__ = _WATCHED
    backend.run_sync_in_worker_thread = classmethod(watched)


def _is_full(pool: ThreadPoolExecutor, sleeps: Callable[[int], bool]) -> bool:
    """Whether every thread that a pool may have sleeps, so that what is in line begins only when one wakes up."""
    threads = tuple(pool._threads)  # noqa: SLF001 - nobody tells otherwise who has to wait in line
    return len(threads) >= pool._max_workers and all(sleeps(thread.ident or 0) for thread in threads)  # noqa: SLF001


def _has_no_token(limiter: Any, task: object, _: Callable[[int], bool]) -> bool:
    """Whether a task waits in line before a limiter of anyio."""
    return task not in limiter.statistics().borrowers


def _limiter(rest: tuple[Any, ...], options: dict[str, Any]) -> Any:
    limiter = options.get("limiter") or (rest[1] if len(rest) > 1 else None)
    if limiter is None:
        from anyio.to_thread import current_default_thread_limiter

        limiter = current_default_thread_limiter()
    return limiter
