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
from weakref import WeakSet

from somaresil.config import Checker
from somaresil.testing.stall import has_own_code, stalled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from somaresil.testing.loop import VirtualLoop

__all__ = ["EPOCH", "Job", "Schedule"]

_T = TypeVar("_T")

EPOCH: Final = 1_767_225_600.0
"""2026-01-01T00:00:00Z: where the wall clock begins, so that a failure reads the same in every run."""

MOST_JUMPS: Final = 1_000_000
"""About ten seconds of real time: eleven days of a timer that comes every second."""

# The real one, whatever is patched later.
_monotonic = time.monotonic
_STEP: Final = 0.05
"""Seconds of real waiting between two looks around."""
_SHORT_STEP: Final = 0.001
_BRIDGE: Final = "_chain_future.<locals>._call_check_cancel"
"""What asyncio hangs on the future of ``run_coroutine_threadsafe``."""
_OF_PROCESSES: Final = "pending_work_items"
"""Where the thread that looks after a pool of processes keeps what they are doing."""


class Schedule:
    """The virtual time, and the threads that live in it. Safe to use from several threads."""

    def __init__(
        self, monotonic: float = 0.0, time: float = EPOCH, *, stall: float = 5.0, io_grace: float = 0.002, most_jumps: int = MOST_JUMPS
    ) -> None:
        check = Checker("VirtualClock")
        self.now = check.number("monotonic", monotonic, minimum=0.0)
        self._wall = check.number("time", time, minimum=0.0) - self.now
        self.stall = check.seconds("stall", stall, maximum=3_600.0)
        self.io_grace = check.seconds("io_grace", io_grace, exclusive=False, maximum=10.0)
        self.most_jumps = check.count("most_jumps", most_jumps, maximum=10**12)
        check.finish()
        self.jumps = 0
        """How often time has jumped."""
        self.last_jump = self.most_jumps
        """After how many jumps the loop gives up: whoever waits for nothing beside a timer that comes again and again never stalls."""
        self._lock = threading.RLock()
        self._loop: VirtualLoop | None = None
        self._paused = 0
        self._parked: dict[int, _Sleeper] = {}
        self._changes = 0
        """How often somebody has begun or ceased to wait. Whoever looks around and then moves time must not do it on an old view."""
        self._looked = 0
        """At which of them the loop has looked around."""
        self._jobs: set[Job] = set()
        self._woken: set[int] = set()
        # Not by ident: the system gives that of a thread that has ended to the next one.
        self._bystanders = WeakSet(t for t in threading.enumerate() if t is not threading.current_thread())
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
        with self._lock:
            if self._loop is not loop:
                return
            self._loop = None
            jobs = tuple(self._jobs)
        for job in jobs:
            self.withdraw(job)

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
        return any(thread.ident == ident and thread.is_alive() for thread in tuple(self._bystanders))

    def jump(self, timeout: float | None) -> bool:
        """Move the loop to where something is due: ``timeout`` seconds from now, or earlier in a thread. False when nothing is.

        To be called after :attr:`held`. When somebody has begun or ceased to wait since then, nothing moves: look again.
        """
        return self._jump(timeout, self._looked)

    def _jump(self, timeout: float | None, looked: int) -> bool:
        with self._lock:
            if self._changes != looked:
                return True
            due = [sleeper.deadline for sleeper in self._parked.values() if sleeper.deadline is not None]
            if timeout is not None:
                due.append(self.now + timeout)
            if not due:
                return False
            self.jumps += 1
            self._set(min(due))
        self._tell()
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
        self._looked = self._changes
        # Nobody but those who were there at the beginning, and nothing was given to a pool: the usual case, and the hot one.
        if not self._jobs and not self.crowded:
            return False
        return self._working() is not None

    @property
    def driven(self) -> bool:
        """Whether a loop runs on it now."""
        return self._loop is not None and self._loop.is_running()

    @property
    def crowded(self) -> bool:
        """Whether there are threads besides this one and those that were there before the clock."""
        if threading.active_count() == 1:
            return False
        me = threading.current_thread()
        return any(thread is not me and thread not in self._bystanders for thread in threading.enumerate())

    def may_be_called(self) -> bool:
        """Whether a thread that runs somebody's code is there, and may call into the loop once it goes on."""
        me, frames = threading.current_thread(), sys._current_frames()  # noqa: SLF001 - as below
        return any(
            thread is not me
            and thread not in self._bystanders
            and thread.ident not in self._parked
            and has_own_code(frames.get(thread.ident or 0))
            for thread in threading.enumerate()
        )

    def jump_for_threads(self) -> bool:
        """While the loop may not jump to its timers: move to where a thread is due, when nobody works."""
        self._looked = self._changes
        return self._paused == 1 and self._working() is None and self.jump(None)

    def submit(self, in_line: Callable[[Any], bool] | None, function: Callable[..., _T], *args: Any) -> tuple[Job, Callable[[], _T]]:
        """A job for a pool, and what its thread has to call.

        ``in_line(sleeps)`` says whether it has to wait until others are done; ``sleeps(ident)`` tells of a thread whether it sleeps.
        """
        job = Job(in_line, function)
        with self._lock:
            self._jobs.add(job)
        return job, functools.partial(self._work, job, function, *args)

    def withdraw(self, job: Job) -> None:
        """It is over for its loop. One that has not begun never will; one that runs is waited for until its thread is done."""
        with self._lock:
            job.withdrawn = True
            if not job.started or job.finished:
                self._jobs.discard(job)

    def job_of(self, ident: int) -> Job | None:
        """What a thread is doing for a loop."""
        return next((job for job in tuple(self._jobs) if job.started == ident), None)

    def waits_here(self) -> bool:
        """Whether this thread sleeps on the clock."""
        return threading.get_ident() in self._parked

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
            with self._lock:
                # Until the loop has heard of it, its result is on its way.
                job.finished = True
                if job.withdrawn:
                    self._jobs.discard(job)

    def _in_loop(self) -> bool:
        loop = self._loop
        return loop is not None and loop.runs_here()

    def _others(self) -> bool:
        """Whether there may be somebody else: a loop, or threads that came after the clock."""
        return self.driven or bool(self._parked) or self.crowded

    def _is_driven(self) -> bool:
        """Whether a loop moves time on: not while it stands still, because it waits in this thread or its own is blocked."""
        loop = self._loop
        if loop is None or not loop.is_running() or self._in_loop():
            return False
        frame = sys._current_frames().get(loop.ident)  # noqa: SLF001 - as below
        return frame is None or frame.f_globals.get("__name__") == "selectors" or not _idle(frame)

    def _working(self) -> threading.Thread | Job | None:
        """Somebody who is doing real work, if anybody is."""
        with self._lock:
            jobs, parked, woken = tuple(self._jobs), dict(self._parked), set(self._woken)
        # One whose event is set is at work already, however long it takes to notice.
        told = {ident for ident, one in parked.items() if one.event is not None and one.event.is_set()}
        parked = {ident: one for ident, one in parked.items() if ident not in told}
        frames: dict[int, Any] = sys._current_frames() if jobs or self.crowded else {}  # noqa: SLF001 - there is no other way to see where a thread stands

        asked: set[int] = set()

        def sleeps(ident: int) -> bool:
            if ident in parked or ident in asked:
                # Two threads that join one another wait for ever, and time is not what they wait for.
                return ident in parked
            asked.add(ident)
            try:
                return _waits_for_others(frames.get(ident), sleeps, self._loop)
            finally:
                asked.discard(ident)

        for job in jobs:
            if job.finished or (job.started and not sleeps(job.started)):
                return job
        for job in jobs:
            if not job.started and (job.in_line is None or not job.in_line(sleeps)):
                return job
        at_jobs = {job.started for job in jobs}
        # A thread that waits for an event waits for whoever is to set it, daemons too.
        for_an_event = any(sleeper.deadline is None or sleeper.event is not None for sleeper in parked.values())
        for_an_event = for_an_event or any(job.started and job.started not in parked for job in jobs)
        me = threading.current_thread()
        for thread in threading.enumerate():
            ident = thread.ident or 0
            if getattr(thread, _OF_PROCESSES, None):
                # Its pool may have been there before the clock.
                return thread
            if thread is me or ident in parked or ident in at_jobs or thread in self._bystanders:
                continue
            if ident in woken or ident in told or not ident or _is_at_work(thread, frames.get(ident), daemons=for_an_event):
                return thread
        return None

    def _park(self, event: threading.Event | None, deadline: float | None) -> bool:
        """Block this thread until the event is set or virtual time has come; whether it was the event."""
        sleeper = _Sleeper(deadline, event)
        ident = threading.get_ident()
        with self._lock:
            self._parked[ident] = sleeper
            self._changes += 1
        self._wake_loop()
        seen, idle_since = self.now, _monotonic()
        try:
            while True:
                # Read before anything is looked at, this thread's own time as well: it may have come since.
                looked = self._changes
                # Measured before it is looked whether time has moved: this thread may be kept waiting in between, on a busy machine.
                idle = _monotonic() - idle_since
                if seen != self.now:
                    seen, idle, idle_since = self.now, 0.0, _monotonic()
                if event is not None and event.is_set():
                    return True
                if deadline is not None and self.now >= deadline:
                    return False
                # The loop drives; while it does not, whoever waits does.
                # Where nobody works and nothing is due, an event may still be set by a bystander.
                driven = self._is_driven()
                if not driven and not self._paused and self._working() is None and self._jump(None, looked):
                    continue
                if idle > self.stall and (deadline is None or not driven):
                    raise stalled(self, self._loop, f"a thread waits for an event, and nothing has happened for {self.stall:g} s")
                if event is not None:
                    event.wait(_SHORT_STEP)
                else:
                    sleeper.wake.wait(_STEP if driven else _SHORT_STEP)
        finally:
            with self._lock:
                self._parked.pop(ident, None)
                self._woken.discard(ident)
                self._changes += 1

    def _set(self, to: float) -> None:
        with self._lock:
            self.now = max(self.now, to)
            for ident, sleeper in tuple(self._parked.items()):
                if sleeper.deadline is not None and sleeper.deadline <= self.now:
                    # Taken out here, not by the thread itself: from now on it is at work, however long it takes to wake up.
                    del self._parked[ident]
                    self._changes += 1
                    self._woken.add(ident)
                    sleeper.wake.set()

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

    __slots__ = ("finished", "function", "in_line", "started", "withdrawn")

    def __init__(self, in_line: Callable[[Any], bool] | None, function: Callable[..., Any]) -> None:
        """Not begun."""
        self.in_line = in_line
        self.function = function
        self.started = 0
        """The thread that does it; 0: not begun."""
        self.finished = False
        """Whether its function has returned; its result may still be on its way."""
        self.withdrawn = False
        """Whether its loop waits for it no more."""


def _waits_for_others(frame: FrameType | None, sleeps: Callable[[int], bool], loop: VirtualLoop | None) -> bool:
    """Whether a thread at a job waits for work that is seen by itself: a thread that it joins, or a future.

    A future that runs is that of a pool, whose threads are looked at one by one; one that does not may be that of a coroutine of our loop
    (``run_coroutine_threadsafe``; the portals of anyio, which are seen by who calls them). Who waits for anything else, say an event or
    another loop, counts as at work.
    """
    if frame is None or not _idle(frame):
        return False
    if frame.f_code.co_name in {"join", "_wait_for_tstate_lock"}:
        return sleeps(frame.f_locals["self"].ident or 0)
    outer: FrameType | None = frame
    while outer is not None and outer.f_globals.get("__name__") == "threading":
        outer = outer.f_back
    if outer is None or outer.f_globals.get("__name__") != "concurrent.futures._base":
        return False
    values = outer.f_locals
    futures = values.get("fs") or (values.get("self"),)
    if any(getattr(future, "_state", "") == "RUNNING" or _is_given_to(loop, future) for future in tuple(futures)):
        return True
    return _is_portal_of(loop, outer.f_back)


def _is_given_to(loop: VirtualLoop | None, future: Any) -> bool:
    return any(
        getattr(done, "__qualname__", "") == _BRIDGE and any(cell.cell_contents is loop for cell in done.__closure__ or ())
        for done in getattr(future, "_done_callbacks", ())
    )


def _is_portal_of(loop: VirtualLoop | None, frame: FrameType | None) -> bool:
    """Whether a thread waits in ``BlockingPortal.call`` of anyio for something that our loop does."""
    if loop is None or frame is None or frame.f_globals.get("__name__") != "anyio.from_thread":
        return False
    portal = frame.f_locals.get("self")
    return getattr(portal, "_event_loop_thread_id", None) == loop.ident


def _is_at_work(thread: threading.Thread, frame: FrameType | None, *, daemons: bool) -> bool:
    """Whether a thread does something that has to be waited for. ``daemons`` says whether those of daemons have."""
    if frame is None:
        # It has begun since the frames were looked at, or is about to end. Those of C code, which have none, are nobody's.
        return not isinstance(thread, threading._DummyThread)  # noqa: SLF001 - there is no other sign
    return (daemons or not thread.daemon) and not _idle(frame)


def _idle(frame: FrameType) -> bool:
    """Whether a thread stands where one waits to be told something, and has not been told yet: nobody has to wait for it."""
    module, name, values = frame.f_globals.get("__name__"), frame.f_code.co_name, frame.f_locals
    if module == "threading":
        if name == "wait":
            # Of a Condition, and so of events, queues, futures, semaphores and barriers: the lock is free as soon as it was told.
            # Who was told has the lock again in the next moment, before it knows; but it is no longer in line.
            waiter = values.get("waiter")
            return waiter is not None and not values.get("gotit") and bool(waiter.locked()) and waiter in values["self"]._waiters  # noqa: SLF001
        if name in {"join", "_wait_for_tstate_lock"}:
            other = values.get("self")
            return other is not None and bool(other.is_alive())
        return name == "_shutdown"
    if module == "concurrent.futures.thread":
        work = values.get("work_queue")
        return name == "_worker" and values.get("work_item") is None and (work is None or bool(work.empty()))
    return module == "selectors" and name == "select"


class _Sleeper:
    """A thread that waits on the clock, until a time, an event or both."""

    __slots__ = ("deadline", "event", "wake")

    def __init__(self, deadline: float | None, event: threading.Event | None) -> None:
        self.deadline = deadline
        self.event = event
        self.wake = threading.Event()


def _nothing() -> None:
    """Wakes a loop."""
