"""Timeout: stop waiting for an answer that does not come.

What it can do depends on the call. An asynchronous callee is cancelled. A synchronous one cannot be interrupted in Python without doing
harm (an exception thrown into a pool thread may hit the next task of that thread), so there are two honest ways: let it finish and count
the call as bad when it was late, or run it in a thread of its own and leave that thread behind.
"""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from somaresil.config import Checker
from somaresil.errors import BulkheadFull, CallTimedOut
from somaresil.expiry import begin
from somaresil.runtime import run_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Timeout", "TimeoutPolicy", "leave_block", "within"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long to wait, in seconds as a number or a ``timedelta``.

    Asynchronous calls are cancelled and raise :class:`~somaresil.errors.CallTimedOut`. A cancellation by the caller stays a cancellation.

    Synchronous calls are not interrupted: a late answer is returned all the same and counted as bad, because work that is done helps nobody
    when it is thrown away. With ``abandon=True`` the callee runs in a thread of its own, with a copy of the context variables; when time is
    up the caller gets ``CallTimedOut`` and the thread is left to finish alone. While ``max_abandoned`` threads are left behind, further
    calls are rejected (those that run already may still be left behind). The time counts from the start of that thread: there is no queue.
    """

    total: float | timedelta | None = None
    """For each attempt (the timeout stands inside the retry); for a stream, until its last item."""
    first_item: float | timedelta | None = None
    """For the first item of a stream."""
    idle: float | timedelta | None = None
    """Between two items of a stream."""
    abandon: bool = False
    """Run a plain function in a thread that may be left behind."""
    max_abandoned: int = 64
    """Threads that may be left behind at a time."""
    shadow: bool = False
    """Count what would time out, and wait for it all the same."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Timeout")
        for name in ("total", "first_item", "idle"):
            object.__setattr__(self, name, check.seconds(name, getattr(self, name), optional=True, maximum=86_400.0))
        if self.total is None and self.first_item is None and self.idle is None:
            check.problem("total", None, "at least one of total, first_item, idle")
        check.type("abandon", self.abandon, bool, "True or False")
        if self.abandon is True and self.total is None:
            check.problem("abandon", self.abandon, "False without total", "there is nothing to wait for")
        check.count("max_abandoned", self.max_abandoned, maximum=10_000)
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def build(self, site: Site) -> TimeoutPolicy:
        """The timeout at work."""
        return TimeoutPolicy(self, site)


class TimeoutPolicy:
    """Timeouts at work."""

    quiet = False

    def __init__(self, options: Timeout, site: Site) -> None:
        """No thread left behind."""
        self.name = site.name
        self.options = options
        self._abandoned = 0
        self._shadow = site.shadow
        self._lock = threading.RLock()

    def reconfigure(self, options: Timeout) -> None:
        """Use other limits for calls that begin from now on."""
        self.options = options

    @property
    def plain(self) -> float | None:
        """Its limit, when that is all that there is to a coroutine's timeout."""
        return None if self.options.shadow or self.options.abandon else _seconds(self.options.total)

    @property
    def abandoned(self) -> int:
        """How many threads that were left behind are still running."""
        return self._abandoned

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through for as long as it may take."""
        limit, phase = self.first_limit(call)
        if limit is None:
            return await inner(call)
        if self.options.shadow:
            return await self._watch(inner, call, limit, phase)
        if not call.runtime.blocking:
            if call.block:
                return await self._around_block(inner, call, limit)
            call.timed_from = call.clock.monotonic()
            return await within(limit, phase, self.name, inner(call), usual=True)
        if self.options.abandon and not call.lasting:
            return self._in_thread(inner, call, limit)
        call.timed_from = call.clock.monotonic()
        result = await inner(call)
        call.late = not call.block and call.clock.monotonic() - call.timed_from > limit
        return result

    async def _watch(self, inner: Next, call: Call, limit: float, phase: str) -> Any:
        """Let the call through for as long as it takes, and note when that is too long."""
        call.timed_from = call.clock.monotonic()
        try:
            return await inner(call)
        finally:
            total = _seconds(self.options.total)
            if call.clock.monotonic() - call.timed_from > limit:
                self._note(phase, limit)
            elif call.lasting and total is not None:
                call.at_end(lambda _outcome, now: self._note("total", total) if now - call.timed_from > total else None)

    def _note(self, phase: str, limit: float) -> None:
        self._shadow.note("timeout", "time_out", f"{phase} longer than {limit:.3g} s")

    async def _around_block(self, inner: Next, call: Call, limit: float) -> Any:
        """Begin a limit that :func:`leave_block` ends."""
        expiry = begin(limit, usual=True)
        try:
            result = await inner(call)
        except BaseException as error:
            if expiry.ours(error):
                raise CallTimedOut(self.name, limit) from error
            raise
        call.scope = expiry, limit
        return result

    def first_limit(self, call: Call) -> tuple[float | None, str]:
        """Seconds, and the name of the limit, until the answer or the first item."""
        total = _seconds(self.options.total)
        if not call.lasting or call.block:
            return total, "total"
        return _shorter((_seconds(self.options.first_item), "first_item"), (total, "total"))

    def next_limit(self, call: Call) -> tuple[float | None, str]:
        """Seconds, and the name of the limit, until the next item of a stream."""
        if self.options.shadow:
            return None, ""
        total = _seconds(self.options.total)
        left = None if total is None else max(0.0, total - (call.clock.monotonic() - call.timed_from))
        return _shorter((_seconds(self.options.idle), "idle"), (left, "total"))

    def expired(self, call: Call, now: float) -> bool:
        """Whether a ``with`` block took longer than it may."""
        total = None if self.options.shadow else _seconds(self.options.total)
        return total is not None and now - call.timed_from > total

    def _in_thread(self, inner: Next, call: Call, limit: float) -> Any:
        with self._lock:
            if self._abandoned >= self.options.max_abandoned:
                raise BulkheadFull(self.name, None, f"{self._abandoned} timed-out threads are still running")
        left = call.time_left()
        phase, limit = ("deadline", left) if left is not None and left < limit else ("total", limit)
        errand = _Errand(inner, call)
        errand.thread.start()
        if call.clock.wait(errand.done, limit):
            return errand.collect()
        with self._lock:
            self._abandoned += 1
        errand.forget(self._came_back)
        raise CallTimedOut(self.name, limit, phase)

    def _came_back(self) -> None:
        with self._lock:
            self._abandoned -= 1


class _Errand:
    """A call in a thread of its own."""

    def __init__(self, inner: Next, call: Call) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run, inner, call), daemon=True)
        self.thread.name = f"somaresil-timeout-{call.guard}"
        self._lock = threading.RLock()
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = False
        self._then: Any = None

    def _run(self, inner: Next, call: Call) -> None:
        try:
            self._result = run_sync(inner(call))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            self._error = error
        with self._lock:
            self._ended = True
            then = self._then
        self.done.set()
        if then is not None:
            self._result = self._error = None
            then()

    def collect(self) -> Any:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error

    def forget(self, then: Any) -> None:
        """Have ``then()`` called when the thread ends, at once when it has ended."""
        with self._lock:
            self._then = then
            ended = self._ended
        if ended:
            then()


async def leave_block(call: Call, error: BaseException | None) -> None:
    """End the limit around an ``async with`` block, if there is one; raises :class:`~somaresil.errors.CallTimedOut` when it ran out."""
    if call.scope is not None:
        (expiry, limit), call.scope = call.scope, None
        if expiry.ours(error):
            raise CallTimedOut(call.guard, limit) from error


async def within(limit: float, phase: str, guard: str, awaitable: Awaitable[_T], *, usual: bool) -> _T:
    """Await with a limit; raises :class:`~somaresil.errors.CallTimedOut` when it was ours that ran out, and nobody else's.

    ``usual`` says that many calls have this limit.
    """
    expiry = begin(limit, usual=usual)
    try:
        result = await awaitable
    except BaseException as error:
        if expiry.ours(error):
            raise CallTimedOut(guard, limit, phase) from error
        raise
    expiry.ours(None)
    return result


def _shorter(*limits: tuple[float | None, str]) -> tuple[float | None, str]:
    known = [(limit, phase) for limit, phase in limits if limit is not None]
    return min(known) if known else (None, "total")


def _seconds(value: float | timedelta | None) -> float | None:
    # Durations were turned into seconds when the options were made.
    return value  # type: ignore[return-value]
