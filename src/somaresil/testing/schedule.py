"""Who is due and who is at work: the mechanics below :class:`~somaresil.testing.clock.VirtualClock`.

Time may jump only when nobody does real work. Tasks are the loop's business; here it is about threads: those that sleep on the clock, those
that do a job of a pool, and those that a test has started by itself. A thread of the last kind is at work unless it stands in a function of
the standard library in which one waits to be told something (a queue, an event, a selector): where it stands is looked up in its frame.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.config import Checker
from somaresil.testing.stall import stalled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from somaresil.testing.loop import VirtualLoop

__all__ = ["EPOCH", "Job", "Schedule"]

_T = TypeVar("_T")

EPOCH: Final = 1_767_225_600.0
"""2026-01-01T00:00:00Z: where the wall clock begins, so that a failure reads the same in every run."""

# The real one, whatever is patched later.
_monotonic = time.monotonic
_STEP: Final = 0.05
"""Seconds of real waiting between two looks around."""
_SHORT_STEP: Final = 0.001
_IDLE_IN: Final = frozenset({"threading", "queue", "selectors", "concurrent.futures.thread", "socketserver"})
"""Modules in which a thread that waits stands: it waits to be told something, so nobody has to wait for it."""


class Schedule:
    """The virtual time, and the threads that live in it. Safe to use from several threads."""

    def __init__(self, monotonic: float = 0.0, time: float = EPOCH, *, stall: float = 5.0, io_grace: float = 0.002) -> None:
        check = Checker("VirtualClock")
        self.now = check.number("monotonic", monotonic, minimum=0.0)
        self._wall = check.number("time", time, minimum=0.0) - self.now
        self.stall = check.seconds("stall", stall, maximum=3_600.0)
        self.io_grace = check.seconds("io_grace", io_grace, exclusive=False, maximum=10.0)
        check.finish()
        self.jumps = 0
        """How often time has jumped."""
        self._lock = threading.RLock()
        self._loop: VirtualLoop | None = None
        self._paused = 0
        self._parked: dict[int, _Sleeper] = {}
        self._jobs: set[Job] = set()
        self._bystanders = frozenset(t.ident for t in threading.enumerate() if t is not threading.current_thread())
        self._threads = threading.active_count()
        self._moved: tuple[Callable[[], None], ...] = ()

    def __repr__(self) -> str:
        """How far it has come."""
        return f"<VirtualClock {self.now:g} s, {self.jumps} jumps>"

    def attach(self, loop: VirtualLoop) -> None:
        """This loop runs on the clock until it is closed."""
        if self._loop is not None:
            raise RuntimeError("another loop runs on this VirtualClock: time has one driver; make a clock for each loop")
        self._loop = loop

    def detach(self, loop: VirtualLoop) -> None:
        """This loop is closed."""
        if self._loop is loop:
            self._loop = None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Let no time pass in here: what happens is waited for in real time, as with a server that is another process.

        The limit of ``stall`` still holds.
        """
        with self._lock:
            self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1

    def on_move(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Have ``moved()`` called whenever time has moved; returns a function that ends it."""
        self._moved = (*self._moved, moved)

        def end() -> None:
            self._moved = tuple(other for other in self._moved if other is not moved)

        return end

    def is_bystander(self, ident: int) -> bool:
        """Whether a thread was there before the clock: it belongs to a test runner or an earlier test, and lives in real time."""
        return ident in self._bystanders

    def jump(self, timeout: float | None) -> bool:
        """Move to where something is due: ``timeout`` seconds from now, or earlier in a thread. False when nothing is."""
        with self._lock:
            due = [sleeper.deadline for sleeper in self._parked.values() if sleeper.deadline is not None]
        if timeout is not None:
            due.append(self.now + timeout)
        if not due:
            return False
        self.jumps += 1
        self._move(min(due))
        return True

    def leap(self, timeout: float) -> None:
        """:meth:`jump` when no thread waits: the hot way."""
        if self._parked or self._moved:
            self.jump(timeout)
            return
        self.jumps += 1
        self.now += timeout

    @property
    def held(self) -> bool:
        """Whether real work is being done that time must not run away from."""
        if self._paused:
            return True
        # Nobody but those who were there at the beginning, and nothing was given to a pool: the usual case, and the hot one.
        if not self._jobs and threading.active_count() <= self._threads:
            return False
        return self._working() is not None

    def submit(self, pool: object, size: int | None, function: Callable[..., _T], *args: Any) -> tuple[Job, Callable[[], _T]]:
        """A job for a pool of ``size`` threads (None: not known), and what its thread has to call."""
        job = Job(pool, size, function)
        with self._lock:
            self._jobs.add(job)
        return job, functools.partial(self._work, job, function, *args)

    def withdraw(self, job: Job) -> None:
        """It is over for its loop. One that has not begun never will; one that runs is waited for until its thread is done."""
        with self._lock:
            if not job.started:
                self._jobs.discard(job)

    def job_of(self, ident: int) -> Job | None:
        """What a thread is doing for a loop."""
        return next((job for job in tuple(self._jobs) if job.started == ident), None)

    def forget(self, job: Job) -> None:
        """It is done."""
        with self._lock:
            self._jobs.discard(job)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _work(self, job: Job, function: Callable[..., _T], *args: Any) -> _T:
        job.started = threading.get_ident()
        try:
            return function(*args)
        finally:
            self.forget(job)

    def _in_loop(self) -> bool:
        loop = self._loop
        return loop is not None and loop.runs_here()

    def _others(self) -> bool:
        """Whether there may be somebody else: a loop, or threads that came after the clock."""
        return self._loop is not None or bool(self._parked) or threading.active_count() > self._threads

    def _working(self) -> threading.Thread | Job | None:
        """Somebody who is doing real work, if anybody is."""
        with self._lock:
            jobs, parked = tuple(self._jobs), dict(self._parked)
        for job in jobs:
            if job.started and job.started not in parked:
                return job
        for job in jobs:
            if not job.started:
                running = sum(other.pool is job.pool and bool(other.started) for other in jobs)
                # One that waits in line behind threads that sleep begins only when they wake up.
                if job.size is None or running < job.size:
                    return job
        # A thread that waits for an event waits for whoever is to set it, daemons too.
        for_an_event = any(sleeper.deadline is None or sleeper.event is not None for sleeper in parked.values())
        frames: dict[int, Any] = {}
        for thread in threading.enumerate():
            ident = thread.ident or 0
            if thread is threading.current_thread() or ident in parked or ident in self._bystanders or (thread.daemon and not for_an_event):
                continue
            frames = frames or sys._current_frames()  # noqa: SLF001 - there is no other way to see where a thread stands
            frame = frames.get(ident)
            if frame is not None and frame.f_globals.get("__name__") not in _IDLE_IN:
                return thread
        return None

    def _park(self, event: threading.Event | None, deadline: float | None) -> bool:
        """Block this thread until the event is set or virtual time has come; whether it was the event."""
        sleeper = _Sleeper(deadline, event)
        ident = threading.get_ident()
        with self._lock:
            self._parked[ident] = sleeper
        self._wake_loop()
        idle_since = _monotonic()
        try:
            while True:
                if event is not None and event.is_set():
                    return True
                if deadline is not None and self.now >= deadline:
                    return False
                # The loop drives; while it stands still, because it waits in this thread or there is none, whoever waits does.
                # Where nobody works and nothing is due, an event may still be set by a bystander.
                if (self._loop is None or self._in_loop()) and self._working() is None and self.jump(None):
                    continue
                if _monotonic() - idle_since > self.stall and (deadline is None or self._loop is None):
                    raise stalled(self, self._loop, f"a thread waits for an event, and nothing has happened for {self.stall:g} s")
                if event is not None:
                    event.wait(_SHORT_STEP)
                else:
                    sleeper.wake.wait(_STEP if self._loop is not None else _SHORT_STEP)
        finally:
            with self._lock:
                self._parked.pop(ident, None)

    def _move(self, to: float) -> None:
        with self._lock:
            self.now = max(self.now, to)
            for ident, sleeper in tuple(self._parked.items()):
                if sleeper.deadline is not None and sleeper.deadline <= self.now:
                    # Taken out here, not by the thread itself: from now on it is at work, however long it takes to wake up.
                    del self._parked[ident]
                    sleeper.wake.set()
        self._tell()

    def _tell(self) -> None:
        for moved in self._moved:
            moved()

    def _wake_loop(self) -> None:
        loop = self._loop
        if loop is not None and not self._in_loop():
            try:
                loop.call_soon_threadsafe(_nothing)
            except RuntimeError:
                # Closed meanwhile.
                return


class Job:
    """Something that a pool of threads is to do."""

    __slots__ = ("function", "pool", "size", "started")

    def __init__(self, pool: object, size: int | None, function: Callable[..., Any]) -> None:
        """Not begun."""
        self.pool = pool
        self.size = size
        self.function = function
        self.started = 0
        """The thread that does it; 0: not begun."""


class _Sleeper:
    """A thread that waits on the clock, until a time, an event or both."""

    __slots__ = ("deadline", "event", "wake")

    def __init__(self, deadline: float | None, event: threading.Event | None) -> None:
        self.deadline = deadline
        self.event = event
        self.wake = threading.Event()


def _nothing() -> None:
    """Wakes a loop."""
