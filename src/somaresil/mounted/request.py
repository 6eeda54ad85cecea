"""A request as an app of ours sees it, and who sent it."""

from __future__ import annotations

import inspect
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.errors import brief
from somaresil.mounted.auth import FailureLimit, is_principal
from somaresil.mounted.wire import Refused, body_of, parse, problem, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.config import Checker
    from somaresil.listeners import Listeners
    from somaresil.mounted.auth import Authenticator
    from somaresil.typing import Clock

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Doorkeeper", "Request", "Visitor", "check_authenticator", "is_json", "live"]

_SLOWEST_AUTHENTICATOR: Final = 10.0
ANYONE: Final = "anyone"
"""What everybody is called where everybody may see."""


class Visitor(NamedTuple):
    """Somebody who may see, and perhaps do."""

    name: str
    operator: bool


def check_authenticator(check: Checker, name: str, auth: object, hint: str) -> None:
    """Note what can authenticate nobody: it would be found out by whoever needs to get in, at the worst time.

    That is what cannot be called, a class in place of an object of it, a generator, and what takes anything but one argument, the scope.
    What is left is asked once about a request of a stranger, which has no credentials: whoever knows him would let everybody in, and what
    answers with something else than a name or None would let in nobody. One that raises has let nobody in, which is right. A coroutine
    function is asked as far as it gets without waiting; what it says later is looked at with each request.
    """
    if not callable(auth):
        check.problem(name, auth, "an authenticator", hint)
    elif isinstance(auth, type):
        check.problem(name, auth, "an authenticator", f"it is a class: give an object of it, {auth.__name__}(...)")
    elif inspect.isgeneratorfunction(auth) or inspect.isasyncgenfunction(auth):
        check.problem(name, auth, "a function that returns a name or None", "a generator returns neither")
    else:
        try:
            inspect.signature(auth).bind({})
        except TypeError as wrong:
            check.problem(name, auth, "a function of one argument, the ASGI scope", str(wrong))
            return
        except ValueError:
            # Of what is written in C nobody knows what it takes.
            return
        said = copy_context().run(_said_of_a_stranger, auth)
        if is_principal(said):
            hint = f"it has called a request without any credentials {brief(said)}: everybody would be let in"
            check.problem(name, auth, "an authenticator that gives None for who is not known", hint)
        elif said is not None:
            # Not what it was: that may be anything, a password too.
            check.problem(name, auth, "a function that gives a name or None", f"it gives a {type(said).__name__}, which lets nobody in")


def _said_of_a_stranger(auth: Callable[[Scope], Any]) -> Any:
    """What it says of somebody who shows nothing; None as well where it raises, or would have to wait."""
    stranger: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"stranger.invalid")],
        # Nobody has this address (RFC 5737): who trusts some addresses does not trust it.
        "client": ("192.0.2.1", 0),
        "server": ("192.0.2.2", 80),
        "state": {},
    }
    try:
        said = auth(stranger)
        if inspect.iscoroutine(said):
            try:
                said.send(None)
            except StopIteration as ended:
                return ended.value
            finally:
                said.close()
    except Exception:  # noqa: BLE001 - it has let nobody in
        return None
    return None if inspect.isawaitable(said) else said


class Doorkeeper:
    """Asks an authenticator who sent a request, and no more often than :class:`FailureLimit` allows. In doubt it was nobody."""

    def __init__(
        self, auth: Authenticator | None, app: str, clock: Clock, listeners: Listeners, *, operators: Authenticator | None = None
    ) -> None:
        """``app``: whose door it is, for reports. ``auth`` None: everybody may see. ``operators`` knows those who may do something."""
        self._auth = auth
        self._operators = operators
        self._app = app
        self._clock, self._listeners = clock, listeners
        self._limit = FailureLimit(clock)
        self.denied = 0
        """How many requests came from nobody who is known."""

    async def who(self, scope: Scope) -> str | None:
        """Who sent it; None: nobody who is known. Never raises an ``Exception``."""
        visitor = await self.visitor(scope)
        return None if visitor is None else visitor.name

    async def visitor(self, scope: Scope) -> Visitor | None:
        """The same with what he may: operators are asked for first. Never raises an ``Exception``."""
        blocked = self._blocks(scope)
        operator = None if blocked or self._operators is None else await self._ask(self._operators, scope)
        if operator is not None:
            self._limit.succeeded(scope)
            return Visitor(operator, operator=True)
        if self._auth is None:
            if not blocked and self._operators is not None and any(name == b"authorization" for name, _ in scope["headers"]):
                # Everybody may see, and nobody may try out as often as he likes who may do something.
                self._limit.failed(scope)
            return Visitor(ANYONE, operator=False)
        name = None if blocked or self._auth is self._operators else await self._ask(self._auth, scope)
        if name is None:
            if not blocked:
                self._limit.failed(scope)
                self._limit.revoke(scope)
            self.denied += 1
            return None
        self._limit.succeeded(scope)
        return Visitor(name, operator=False)

    def _blocks(self, scope: Scope) -> bool:
        try:
            return self._limit.blocks(scope)
        except Exception as broken:  # noqa: BLE001 - in doubt it was nobody
            self._report(broken)
            return True

    async def _ask(self, auth: Authenticator, scope: Scope) -> str | None:
        try:
            said: Any = auth(scope)
            if inspect.isawaitable(said):
                said = await within(said, _SLOWEST_AUTHENTICATOR, self._clock)
        except Exception as broken:  # noqa: BLE001 - an authenticator that fails lets nobody in
            self._report(broken)
            return None
        if said is not None and not is_principal(said):
            self._report(TypeError(f"an authenticator gives a name or None, not a {type(said).__name__}"))
            return None
        return None if said is None else str(said)

    def _report(self, broken: Exception) -> None:
        self._listeners.defect(f"authenticator of the {self._app}", broken, self._clock.time(), "nobody was let in")


class Request:
    """A request of somebody who is known."""

    __slots__ = ("actor", "method", "path", "receive", "root", "scope")

    def __init__(self, scope: Scope, receive: Receive, actor: str) -> None:
        self.scope = scope
        self.receive = receive
        self.actor = actor
        self.method: str = scope["method"]
        root, path = str(scope.get("root_path", "")).rstrip("/"), str(scope["path"])
        self.root = root
        # Servers put the root path before the path of the app; frameworks of some years ago took it away.
        self.path = path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path

    def header(self, name: str) -> str | None:
        """The value of a header; several of one name are one that nothing allows."""
        given = [value for known, value in self.scope["headers"] if known == name.encode()]
        return b", ".join(given).decode("latin-1") if given else None

    def check_type(self, header: str | None = None) -> None:
        """Raise :class:`Refused` unless it says JSON; where there is no body ``header`` may stand for that, with any value.

        Both make browsers ask first whether a page of another site may, and they are never answered.
        """
        kind = self.header("content-type")
        stands = header is not None and kind is None and self.header(header) is not None
        if not stands and not (kind is not None and is_json(kind)):
            raise Refused(problem(415, f"content-type: application/json{f', or a header {header}' if header else ''}"))
        if self.header("content-encoding") not in {None, "identity"}:
            raise Refused(problem(415, "a body as it is, without an encoding"))

    async def told(self, clock: Clock, header: str) -> Any:
        """The JSON of the body; None: there is none. Raises :class:`Refused` as :meth:`check_type` does, and for what is no JSON."""
        self.check_type(header)
        body = await body_of(self.scope["headers"], self.receive, clock)
        if not body.strip():
            return None
        if self.header("content-type") is None:
            raise Refused(problem(415, "content-type: application/json for a body"))
        return parse(body)

    async def json(self, clock: Clock) -> Any:
        """The JSON of the body. Raises :class:`Refused` for what is none, or is not said to be."""
        self.check_type()
        return parse(await body_of(self.scope["headers"], self.receive, clock))


def is_json(kind: str) -> bool:
    """Whether that content type is JSON in UTF-8."""
    name, *parameters = (part.strip().lower() for part in kind.split(";"))
    return name == "application/json" and all(part in {"", "charset=utf-8", 'charset="utf-8"'} for part in parameters)


async def live(receive: Receive, send: Send, end: Callable[[], object] | None = None) -> None:
    """Answer the server of an app that is served by itself, and has nothing to begin; ``end`` is called when it ends."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            if end is not None:
                end()
            await send({"type": "lifespan.shutdown.complete"})
            return
