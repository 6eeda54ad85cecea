"""Admission of requests: which of them the ASGI middleware lets in, for whom they are, and when their permit comes back.

A request that is let in holds its permit until the last chunk of its response, a stream for as long as it streams, a conversation until
it ends; background tasks hold none. What an adaptive limit learns from it is the time until the response begins: how long a stream goes on
is up to its reader.
"""

from __future__ import annotations

import math
import re
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.permission import PROTECTED_PATHS
from somaresil.errors import Rejected
from somaresil.events import CallEnded
from somaresil.model.histogram import merge_bounds
from somaresil.model.priority import Rank
from somaresil.outcome import Outcome
from somaresil.policy.adaptive import AdaptiveLimit, AdaptivePolicy
from somaresil.policy.bulkhead import Bulkhead
from somaresil.priority import CLASSES, Caller, enter, leave
from somaresil.recorder import Recorder
from somaresil.runtime import Asyncio
from somaresil.shadow import Shadow
from somaresil.site import Site
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from contextvars import Token

    from somaresil.config import Checker
    from somaresil.line import Slot
    from somaresil.policy.bulkhead import BulkheadPolicy
    from somaresil.resilience import Resilience

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["NAME", "Admission", "Entry"]

NAME: Final = "http"
"""Under which name the limit speaks in events and shadow decisions."""

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PROTECTED: Final = re.compile("|".join(map(translate, PROTECTED_PATHS)))
_BEGINS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"})
_OVERLOADED: Final = frozenset({429, 503, 504})
"""Answers that say that there is too much to do."""
_SERVER_ERROR: Final = 500


class Admission:
    """Lets requests in. ``limit`` None: all of them. ``priority``: name of a header, or a function of the scope; see the middleware."""

    def __init__(self, resilience: Resilience, limit: Any, priority: Any, check: Checker) -> None:
        """Note what is wrong in ``check``."""
        if limit is not None:
            check.type("limit", limit, (Bulkhead, AdaptiveLimit), "a Bulkhead, an AdaptiveLimit or None")
        if isinstance(priority, str) and not _HEADER.fullmatch(priority):
            check.problem("priority", priority, "the name of a header, such as 'x-priority'")
        elif not (priority is None or isinstance(priority, str) or callable(priority)):
            check.problem("priority", priority, "the name of a header, a function of the scope, or None")
        self._resilience = resilience
        self._runtime = Asyncio(resilience.clock)
        self._monotonic = resilience.clock.monotonic
        self._header = priority.lower() if isinstance(priority, str) else ""
        self._asks: Callable[[Scope], Any] | None = None if isinstance(priority, str) else priority
        self.policy: BulkheadPolicy | AdaptivePolicy | None = None
        """The limit at work."""
        if isinstance(limit, Bulkhead | AdaptiveLimit):
            clock, listeners = resilience.clock, resilience.listeners
            recorder = Recorder(Switch(), merge_bounds())
            shadow = Shadow(NAME, clock, listeners)
            self.policy = limit.build(Site(NAME, recorder, clock, resilience.chance, listeners, shadow, resilience.ignored))
            resilience.watch_requests(self.policy)

    async def admit(self, scope: Scope, send: Send, left: float | None) -> Entry:
        """What a request goes in with, after waiting for it ``left`` seconds at most. Raises no ``Exception`` but :class:`Rejected`."""
        entry = Entry(self, send)
        try:
            who = self._who(scope)
            if who is not None:
                entry.token = enter(who)
            if self.policy is not None and not self.spares(scope):
                entry.slot = await self.policy.admit(self._runtime, left)
                entry.began = self._monotonic()
        except BaseException as error:
            entry.leave(0)
            if not isinstance(error, Exception) or isinstance(error, Rejected):
                raise
            self.report("letting a request in", error)
        return entry

    def spares(self, scope: Scope) -> bool:
        """Whether it is a path that is always let in and not counted: health, metrics and their like."""
        path, root = scope["path"], scope.get("root_path", "").rstrip("/")
        if _spared(path):
            return True
        return bool(root) and path.startswith(f"{root}/") and _spared(path.removeprefix(root))

    def refused(self, rejection: Rejected, elapsed: float) -> tuple[bytes, bytes]:
        """Tell of a refusal; the header that says when to come back: whole seconds, one at least."""
        listeners = self._resilience.listeners
        if listeners.wants(CallEnded):
            at = self._resilience.clock.time()
            listeners.emit(CallEnded(NAME, at, Outcome.REJECTED.value, type(rejection).__qualname__, elapsed, rejection.injected))
        return b"retry-after", str(max(1, math.ceil(rejection.retry_after or 0.0))).encode()

    def learn(self, began: float, status: int) -> None:
        """Have the limit learn how long a request took that was let in at ``began`` until its response began, and with what."""
        if isinstance(self.policy, AdaptivePolicy):
            now = self._monotonic()
            outcome = Outcome.BAD if status in _OVERLOADED else Outcome.IGNORED if status >= _SERVER_ERROR else Outcome.GOOD
            self.policy.learn(outcome, now - began, now, _TOO_MUCH if outcome is Outcome.BAD else None, self.policy.active)

    def give_back(self, slot: Slot) -> None:
        """Give a permit back."""
        if self.policy is not None:
            self.policy.line.leave(slot)

    def _who(self, scope: Scope) -> Caller | None:
        try:
            return self._caller(scope)
        except Exception as defect:  # noqa: BLE001 - it is let in as an ordinary one, and no less limited
            self.report("asking for the priority of a request", defect)
            return None

    def _caller(self, scope: Scope) -> Caller | None:
        """Who calls, when somebody says so. What is not understood is counted, and the request is an ordinary one."""
        if self._asks is not None:
            said = self._asks(scope)
            level, tenant = said if isinstance(said, tuple) else (said, None)
        elif self._header:
            wanted = self._header.encode()
            level, tenant = (
                next((value.decode("latin-1").strip().lower() for name, value in scope["headers"] if name == wanted), None),
                None,
            )
        else:
            return None
        if level is None and tenant is None:
            return None
        rank = Rank.NORMAL if level is None else CLASSES.get(level)
        if rank is None:
            self._resilience.ignored.note(self._header or "priority")
            rank = Rank.NORMAL
        return Caller(rank, None if tenant is None else str(tenant)[:_LONGEST])

    def report(self, step: str, defect: Exception) -> None:
        """Say once that a step failed; the request goes on. Never raises: a logging filter may."""
        try:
            self._resilience.listeners.defect(f"ASGI middleware, {step}", defect, 0.0, "the request went on without it")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return


_LONGEST: Final = 120
_TOO_MUCH: Final = TimeoutError()
"""Stands for an answer that says that there is too much to do. Never raised."""


class Entry:
    """A request that was let in, from its beginning to its end. What fails in here is reported once and not noticed."""

    __slots__ = ("_admission", "_send", "began", "slot", "token")

    def __init__(self, admission: Admission, send: Send) -> None:
        """``send`` is what the app's messages go through."""
        self._admission = admission
        self._send = send
        self.slot: Slot | None = None
        self.token: Token[Caller | None] | None = None
        self.began: float | None = None
        """When it was let in, until it is known how long the response took to begin."""

    async def send(self, message: Message) -> None:
        """Pass on what the app says."""
        if self.began is not None:
            self._said(message)
        await self._send(message)
        if self.slot is not None:
            self._has_said(message)

    def leave(self, status: int) -> None:
        """The request has ended, with a response of ``status``; 0: there was none. Once or more often."""
        # If it never began to answer by itself, the middleware may have answered, when its deadline passed.
        self._learn(status or _SERVER_ERROR)
        self._give_back()
        token, self.token = self.token, None
        if token is not None:
            leave(token)

    def _said(self, message: Message) -> None:
        try:
            if message["type"] in _BEGINS:
                self._learn(message.get("status", 0))
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._admission.report("reading a sent message", defect)

    def _has_said(self, message: Message) -> None:
        try:
            if _ends(message):
                self._give_back()
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._admission.report("reading a sent message", defect)

    def _learn(self, status: int) -> None:
        began, self.began = self.began, None
        if self.slot is not None and began is not None:
            try:
                self._admission.learn(began, status)
            except Exception as defect:  # noqa: BLE001 - never into a request
                self._admission.report("learning from a request", defect)

    def _give_back(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            try:
                self._admission.give_back(slot)
            except Exception as defect:  # noqa: BLE001 - never into a request
                self._admission.report("giving a permit back", defect)


def _spared(path: str) -> bool:
    return _PROTECTED.match(path) is not None or _PROTECTED.match(path.rstrip("/")) is not None


def _ends(message: Message) -> bool:
    """Whether a message of the app is its last one."""
    kind = message["type"]
    if kind in {"http.response.body", "http.response.pathsend", "http.response.zerocopysend", "websocket.http.response.body"}:
        return not message.get("more_body", False)
    return bool(kind == "websocket.close")
