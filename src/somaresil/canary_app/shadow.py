"""Requests of a candidate that nobody waits for: so many at once, for so long, outside of the context of the request, unheard."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.canary.controller import CanaryController
    from somaresil.canary.state import Route

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Ask = Callable[[Route, Scope, Receive, Send], Awaitable[bool | None]]

__all__ = ["Shadows"]

_METHODS: Final = frozenset({"GET", "HEAD"})


class Shadows:
    """Those of one canary."""

    def __init__(
        self, controller: CanaryController, ask: Ask, report: Callable[[str, Exception], None], limit: int, timeout: float
    ) -> None:
        """None is under way. ``ask`` asks the candidate, and says whether that ended badly (None: that says nothing)."""
        self._controller = controller
        self._ask = ask
        self._report = report
        self._limit = limit
        self._timeout = timeout
        self._under_way: set[asyncio.Task[None]] = set()

    def wants(self, route: Route, scope: Scope) -> bool:
        """Whether the candidate is to be asked this too: what has no body and ought to have no effect, and not too many at once."""
        return (
            scope["type"] == "http"
            and scope["method"] in _METHODS
            and len(self._under_way) < self._limit
            and self._controller.draw() < route.cut
            and not any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
        )

    def begin(self, route: Route, scope: Scope, *, control_bad: bool | None) -> None:
        """Ask it, unless the answer of the control says nothing. Never raises an ``Exception``."""
        try:
            if control_bad is None or len(self._under_way) >= self._limit:
                return
            # In a context of its own: the deadline of the request is not its affair.
            task = asyncio.get_running_loop().create_task(self._run(route, scope, control_bad=control_bad), context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        except Exception as defect:  # noqa: BLE001 - the client has his answer
            self._report("asking the candidate too", defect)

    async def leave(self) -> None:
        """End those that are under way: they say nothing."""
        left = [*self._under_way]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _run(self, route: Route, scope: Scope, *, control_bad: bool) -> None:
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                # The client stays, for there is none.
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            """Nobody hears it."""

        try:
            asking = asyncio.ensure_future(self._ask(route, scope, receive, send))
            try:
                await asyncio.wait([asking], timeout=self._timeout)
            finally:
                asking.cancel()
            bad = await asking
            if bad is not None:
                self._controller.both_ended(route, candidate_bad=bad, control_bad=control_bad)
        except Exception as defect:  # noqa: BLE001 - as above
            self._report("asking the candidate too", defect)
