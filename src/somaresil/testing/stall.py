"""Who waits, and where: the text of the error that stands in place of a test that hangs."""

from __future__ import annotations

import asyncio
import gc
import inspect
import linecache
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from somaresil.testing.schedule import Schedule

__all__ = ["StalledError", "Waiting", "has_own_code", "stalled"]

_PLUMBING: Final = frozenset({"asyncio", "anyio", "sniffio", "concurrent", "contextlib", "threading", "queue", "selectors", "somaresil"})
"""Packages in which nobody looks for the line that waits."""
_VEILS: Final = frozenset({"async_generator_asend", "async_generator_athrow", "anext_awaitable"})
_MOST: Final = 20


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task or thread that does not go on."""

    what: str
    """``task 'Task-3'`` or ``thread 'worker_0'``."""
    file: str
    line: int
    function: str
    code: str
    """The text of the line, as far as it can be read."""
    inside: str = ""
    """What the line has called and waits for."""

    def __str__(self) -> str:
        """One line."""
        inside = f" (in {self.inside})" if self.inside else ""
        if not self.line:
            return f"{self.what} in {self.file}: {self.code}"
        return f"{self.what} at {self.file}:{self.line} in {self.function}: {self.code or '?'}{inside}"


class StalledError(RuntimeError):
    """Virtual time cannot go on: nothing will ever wake what waits. ``waiting`` says who and where."""

    def __init__(self, why: str, at: float, waiting: tuple[Waiting, ...]) -> None:
        """Keep what is known."""
        super().__init__(why, at, waiting)
        self.why = why
        self.at = at
        """Virtual seconds at which it happened."""
        self.waiting = waiting

    def __str__(self) -> str:
        """Why, then a line for each who waits, and what to do."""
        lines = [f"virtual time stalled at {self.at:g} s: {self.why}", *(f"  {one}" for one in self.waiting[:_MOST])]
        if len(self.waiting) > _MOST:
            lines.append(f"  and {len(self.waiting) - _MOST} more")
        if any(one.what.startswith("thread") for one in self.waiting):
            lines.append("A thread that sleeps for real cannot be jumped over: let it sleep on the clock, or use VirtualClock.patched().")
        return "\n".join(lines)


def stalled(clock: Schedule, loop: asyncio.AbstractEventLoop | None, why: str) -> StalledError:
    """The error for this moment."""
    tasks = () if loop is None else tuple(_task(task) for task in asyncio.all_tasks(loop) if not task.done())
    return StalledError(why, clock.now, (*sorted(tasks, key=lambda one: one.what), *_threads(clock)))


def _task(task: asyncio.Task[Any]) -> Waiting:
    frames = list(_frames(task.get_coro()))
    inner = getattr(task.get_coro(), "__qualname__", "?")
    return _waiting(f"task {task.get_name()!r}", frames, inner)


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Frames of a coroutine and of what it awaits, the outermost first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            yield frame
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
            or (_hidden(awaited) if frame is None else None)
        )


def _hidden(awaited: Any) -> Any:
    """The generator behind the awaitables of async generators, which do not show it."""
    if type(awaited).__name__ not in _VEILS:
        return None
    return next((one for one in gc.get_referents(awaited) if inspect.isasyncgen(one) or type(one).__name__ in _VEILS), None)


def has_own_code(frame: FrameType | None) -> bool:
    """Whether a thread runs somebody's code, and does not just stand in a pool."""
    while frame is not None:
        if _package(frame) not in _PLUMBING:
            return True
        frame = frame.f_back
    return False


def _threads(clock: Schedule) -> Iterator[Waiting]:
    for thread in threading.enumerate():
        ident = thread.ident or 0
        # Whoever asks is the loop, and told of by its tasks, unless it waits by itself.
        if clock.is_bystander(ident) or (thread is threading.current_thread() and not clock.waits_here()):
            continue
        frames: list[FrameType] = []
        frame = sys._current_frames().get(ident)  # noqa: SLF001 - there is no other way to see where a thread stands
        while frame is not None:
            frames.insert(0, frame)
            frame = frame.f_back
        # One that stands in its pool has nothing to do; it is no part of the story.
        if any(_package(frame) not in _PLUMBING for frame in frames):
            yield _waiting(f"thread {thread.name!r}", frames, "")
        elif (job := clock.job_of(ident)) is not None:
            # A function of C has no frame of its own.
            job_name = getattr(job.function, "__qualname__", repr(job.function))
            yield Waiting(f"thread {thread.name!r}", "a pool", 0, "its job", job_name)


def _waiting(what: str, frames: list[FrameType], otherwise: str) -> Waiting:
    if not frames:
        return Waiting(what, "?", 0, otherwise, "")
    own = next((frame for frame in reversed(frames) if _package(frame) not in _PLUMBING), frames[0])
    inner = frames[-1]
    file, line = own.f_code.co_filename, own.f_lineno
    inside = inner.f_code.co_qualname if inner is not own else ""
    return Waiting(what, file, line, own.f_code.co_qualname, linecache.getline(file, line).strip(), inside)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
