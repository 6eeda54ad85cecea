"""The lifespan of two apps as one: both start and both end, the candidate within a time, and only the control can refuse to start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["Life"]

_COMPLETE: Final = frozenset({"lifespan.startup.complete", "lifespan.shutdown.complete"})
_FAILED: Final = frozenset({"lifespan.startup.failed", "lifespan.shutdown.failed"})


class Life:
    """The lifespan of one of the apps, in a task of its own."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        """Nothing is begun. What the app puts into the state is its own: two versions call other things by the same name."""
        self.scope: dict[str, Any] = dict(scope)
        if "state" in scope:
            self.scope["state"] = dict(scope["state"])
        self._app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        """What it has raised."""
        self.failed: str | None = None
        """Why it did not start, or did not end well; None: it did."""
        self.said = ""
        """The same in its own words, in full."""
        self.lives = False
        """Whether it has started and waits for its end; an app that knows no lifespan does not."""

    async def start(self) -> None:
        """Have it start. Returns when it has, or has not."""
        self._task = asyncio.create_task(self._run())
        self.lives = await self._tell("lifespan.startup")

    async def end(self) -> None:
        """Have it end, if it lives."""
        if self.lives:
            self.lives = False
            await self._tell("lifespan.shutdown")
        await self.leave()

    async def leave(self) -> None:
        """See to it that nothing of it runs any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self, what: str) -> bool:
        """Whether it has answered that it is done."""
        self._told.put_nowait({"type": what})
        said = asyncio.create_task(self._said.get())
        task = self._task
        try:
            await asyncio.wait([said] if task is None else [said, task], return_when=asyncio.FIRST_COMPLETED)
            # It may have answered and ended at once.
            answer = said.result() if said.done() else None if self._said.empty() else self._said.get_nowait()
        finally:
            said.cancel()
        if answer is None:
            # It ended without a word: before the start an app that knows no lifespan, afterwards one that was broken in between.
            if what == "lifespan.shutdown":
                self.failed = self.said = "it was no longer there" if self.error is None else f"{type(self.error).__name__}: {self.error}"
            return False
        if answer["type"] in _FAILED:
            self.said = str(answer.get("message") or "")
            # Frameworks send a whole traceback, which says what went wrong in its last line.
            self.failed = next((line.strip() for line in reversed(self.said.splitlines()) if line.strip()), "it does not say why")
        return answer["type"] in _COMPLETE

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self._told.get, self._send)
        except Exception as error:  # noqa: BLE001 - who waits for it decides what becomes of it
            self.error = error

    async def _send(self, message: Message) -> None:
        if message["type"] in _COMPLETE or message["type"] in _FAILED:
            self._said.put_nowait(message)
