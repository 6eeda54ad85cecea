"""Limits of asynchronous waiting, far cheaper than :func:`asyncio.timeout`, with its semantics.

Most calls end long before their limit, so what costs is to begin and to end. Limits of one length run out in the order in which they
began: they stand in a line that has one timer, set for the first of them, and a call that ends only leaves the line. A timer is made once
in the time of a limit instead of once a call. (A wheel of coarse ticks is as cheap, but late by up to a tick, and keeps what has ended.)

What happens when time runs out is the task's cancellation, or whatever else was asked for; that may cancel the task later.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, BaseEventLoop, CancelledError, Handle, Task, get_running_loop, tasks
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Expiry", "begin", "task_in"]

task_in: Final[Callable[[AbstractEventLoop], Task[Any] | None]] = (
    tasks.current_task if sys.version_info >= (3, 12) else vars(tasks)["_current_tasks"].get
)
"""The task that a loop is running. In Python 3.11 ``current_task`` is a function of Python around this, at four times the price."""

_LINES: Final = "_somaresil_lines"
_MOST_LINES: Final = 64
"""Lengths that have a line, in each loop. What comes after that has timers of its own: lengths may be computed."""


class Expiry:
    """One limit around something that a task awaits; begun by :func:`begin`, to be ended by :meth:`ours`, once, whatever comes of it."""

    # Made without an __init__: calling one costs as much as all the rest of it.
    __slots__ = ("_asked", "_task", "_then", "about", "place")

    _task: Task[Any] | None
    _asked: int
    """How often somebody else had asked for a cancellation before us, as asyncio.timeout asks."""
    place: dict[Expiry, float] | Handle | None
    """The line that it stands or stood in, or a timer of its own; None: it has cancelled the task."""
    _then: Callable[[Expiry], object] | None
    about: Any
    """Whatever ``then`` needs to know; set by whoever began it."""

    @property
    def expired(self) -> bool:
        """Whether it has cancelled the task."""
        return self.place is None

    def run_out(self) -> None:
        """Time has run out: cancel the task, or do what was asked for instead."""
        if self._then is None:
            self.interrupt()
        else:
            self._then(self)

    def interrupt(self) -> None:
        """Cancel the task. At most once, and not from within it."""
        self.place = None
        if self._task is not None:
            self._task.cancel()

    def ours(self, error: BaseException | None) -> bool:
        """End it. True: ``error`` is the cancellation that it has made, and nobody else has asked for one."""
        place = self.place
        if place is not None:
            if type(place) is dict:
                place.pop(self, None)
            else:
                place.cancel()  # type: ignore[union-attr]  # mypy does not narrow by an exact type
            if error is None:
                return False
        # A failure remembers where it was, and with that us: the task that it ends must not hang on us in turn.
        task, self._task = self._task, None
        return place is None and task is not None and task.uncancel() <= self._asked and isinstance(error, CancelledError)

    def others(self) -> bool:
        """Whether somebody else has asked for a cancellation of the current task since it began. Asked after it has ended."""
        task = task_in(get_running_loop())
        return task is not None and task.cancelling() > self._asked


class _Line:
    """The limits of one length that run in one loop, with their deadlines, the first to run out first."""

    __slots__ = ("due", "entries")

    def __init__(self) -> None:
        # A dictionary keeps the order, and an entry leaves from anywhere at once: nothing that has ended stays.
        self.entries: dict[Expiry, float] = {}
        self.due: float | None = None
        """What its timer is set for; None: there is no timer. (The timer itself would be a circle.)"""

    def attend(self, loop: AbstractEventLoop, deadline: float) -> None:
        """Be there then."""
        self.due = deadline
        loop.call_at(deadline, self._run_out)

    def _run_out(self) -> None:
        """End those whose time has come, and be back for the first of the others."""
        loop, due, self.due = get_running_loop(), self.due, None
        # A loop may call a little early, by the resolution of its clock.
        now = max(loop.time(), due or 0.0)
        over = []
        for expiry, deadline in self.entries.items():
            if deadline > now:
                self.attend(loop, deadline)
                break
            over.append(expiry)
        try:
            for expiry in over:
                # What the one before has done may have ended this one.
                if self.entries.pop(expiry, None) is not None:
                    expiry.run_out()
        except BaseException:
            # The loop is being left: whoever runs it again finds the others here.
            loop.call_soon(self._run_out)
            raise


class _Lines:
    """The lines of one loop, by length."""

    __slots__ = ("by_length", "most", "plain")

    def __init__(self, loop: Any) -> None:
        self.by_length: dict[float, _Line] = {}
        # In virtual time a timer that is left behind is a time to jump to.
        self.most = 0 if getattr(loop, "leaves_no_timer", False) else _MOST_LINES
        # Whether its clock is asyncio's own, which can be read without a call in between.
        self.plain = getattr(type(loop), "time", None) is BaseEventLoop.time


_elsewhere: WeakKeyDictionary[Any, _Lines] = WeakKeyDictionary()
"""The lines of loops that take no attribute."""


def begin(
    limit: float,
    usual: bool = False,  # noqa: FBT001, FBT002 - hot
    then: Callable[[Expiry], object] | None = None,
    now: float | None = None,
) -> Expiry:
    """A limit for the current task, in seconds from now. ``usual`` says that many have this length, which then is above 0.

    ``now`` is the reading of the machine's monotonic clock, for whoever has read it just now.

    ``then`` is called with the limit when time runs out, in place of the cancellation: by the loop, in anybody's context. It must not
    raise.

    Raises ``RuntimeError`` outside of a task.
    """
    loop: Any = get_running_loop()
    task = task_in(loop)
    if task is None:
        raise RuntimeError("a limit of asynchronous waiting needs a task")
    expiry = Expiry()
    expiry._task = task  # noqa: SLF001 - the rest of making it
    expiry._asked = task.cancelling()  # noqa: SLF001
    expiry._then = then  # noqa: SLF001
    if usual:
        try:
            lines = loop._somaresil_lines  # noqa: SLF001 - ours
        except AttributeError:
            lines = _lines_of(loop)
        try:
            line = lines.by_length[limit]
        except KeyError:
            line = _line_of(lines, limit)
        if line is not None:
            expiry.place = entries = line.entries
            entries[expiry] = deadline = ((monotonic() if now is None else now) if lines.plain else loop.time()) + limit
            if line.due is None:
                line.attend(loop, deadline)
            return expiry
    # As asyncio.timeout does: with no time left, before anything else has a turn.
    expiry.place = loop.call_later(limit, expiry.run_out) if limit > 0.0 else loop.call_soon(expiry.run_out)
    return expiry


def _line_of(lines: _Lines, limit: float) -> _Line | None:
    """A line for limits of another length; None: there are enough."""
    if len(lines.by_length) >= lines.most:
        return None
    return lines.by_length.setdefault(limit, _Line())


def _lines_of(loop: Any) -> _Lines:
    """The lines of a loop that has none yet, or takes no attribute."""
    known = _elsewhere.get(loop)
    if known is not None:
        return known
    lines = _Lines(loop)
    try:
        setattr(loop, _LINES, lines)
    except AttributeError:
        _elsewhere[loop] = lines
    return lines
