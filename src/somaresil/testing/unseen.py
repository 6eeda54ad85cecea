"""Tasks that failed and that nobody has looked at: a worker that dies in the background, while everything else goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Failures"]

_PRUNED_AT: Final = 1_000
_MOST_SHOWN: Final = 5


class Failures:
    """Notes the failures of the tasks of one loop."""

    def __init__(self) -> None:
        """None so far."""
        self._failed: list[asyncio.Task[Any]] = []

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the failures of the tasks that are made from now on."""
        loop.set_task_factory(cast("Any", self._make))  # the protocol has grown arguments from release to release

    def _make(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        # Asked for in a way that does not count as looking: asyncio itself says whether anybody has.
        if not task.cancelled() and getattr(task, "_log_traceback", False):
            self._failed.append(task)
            if len(self._failed) >= _PRUNED_AT:
                self._failed = [failed for failed in self._failed if failed._log_traceback]  # noqa: SLF001 - as above

    def unseen(self) -> str | None:
        """Which tasks have failed without anybody having looked; None: none has. To be asked once, at the end."""
        lost = [task for task in self._failed if task._log_traceback]  # noqa: SLF001
        told = []
        for task in lost:
            error = task.exception()  # looked at now, so asyncio does not complain of it as well
            name = getattr(task.get_coro(), "__qualname__", task.get_name()).rpartition("<locals>.")[2]
            told.append(f"{name} ended with {type(error).__qualname__}: {error}")
        more = [f"and {len(told) - _MOST_SHOWN} more"] if len(told) > _MOST_SHOWN else []
        return "; ".join([*told[:_MOST_SHOWN], *more]) or None
