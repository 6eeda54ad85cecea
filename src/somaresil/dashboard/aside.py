"""Work beside an event loop, in threads of its own: those of the loop may all be taken by what the dashboard is there to show."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Aside"]

_T = TypeVar("_T")

_AT_ONCE: Final = 8


class _Task:
    """Something that is being worked out, and who waits for it."""

    __slots__ = ("key", "waiting", "work")

    def __init__(self, key: Hashable, work: Callable[[], Any]) -> None:
        self.key = key
        self.work = work
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = []


class Aside:
    """At most eight threads, daemons that end when there is nothing to do. The same question asked twice at once is answered once."""

    def __init__(self, name: str) -> None:
        """No thread yet."""
        self._name = name
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: threads stayed behind, and so did whoever waited."""
        self._lock = threading.RLock()
        self._tasks: dict[Hashable, _Task] = {}
        self._ahead: deque[_Task] = deque()
        self._threads = 0

    async def run(self, key: Hashable, work: Callable[[], _T]) -> _T:
        """What ``work()`` gives or raises. While it is asked for the same ``key``, by anybody, it is called once."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                task = self._tasks[key] = _Task(key, work)
                self._ahead.append(task)
                try:
                    self._begin()
                except RuntimeError:
                    # No thread is left: nobody would ever come for it.
                    if not self._threads:
                        self._ahead.clear()
                        self._tasks.clear()
                        raise
            task.waiting.append((loop, future))
        return await future

    def _begin(self) -> None:
        if self._threads < _AT_ONCE:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._ahead:
                    self._threads -= 1
                    return
                task = self._ahead.popleft()
            result, error = None, None
            try:
                result = task.work()
            except BaseException as raised:  # noqa: BLE001 - it is raised where somebody waits
                error = raised
            with self._lock:
                self._tasks.pop(task.key, None)
                waiting = task.waiting
            for loop, future in waiting:
                # A loop that is closed has nobody who waits any more.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
