"""A request as an app of ours sees it, and who sent it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from somaresil.mounted.auth import FailureLimit, is_principal
from somaresil.mounted.wire import Refused, body_of, parse, problem, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.events import Listeners
    from somaresil.mounted.auth import Authenticator
    from somaresil.typing import Clock

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Doorkeeper", "Request", "is_json", "live"]

_SLOWEST_AUTHENTICATOR: Final = 10.0


class Doorkeeper:
    """Asks an authenticator who sent a request, and no more often than :class:`FailureLimit` allows. In doubt it was nobody."""

    def __init__(self, auth: Authenticator, app: str, clock: Clock, listeners: Listeners) -> None:
        """``app``: whose door it is, for reports."""
        self._auth = auth
        self._app = app
        self._clock, self._listeners = clock, listeners
        self._limit = FailureLimit(clock)
        self.denied = 0
        """How many requests came from nobody who is known."""

    async def who(self, scope: Scope) -> str | None:
        """Who sent it; None: nobody who is known. Never raises an ``Exception``."""
        try:
            if self._limit.blocks(scope):
                self.denied += 1
                return None
            said: Any = self._auth(scope)
            if inspect.isawaitable(said):
                said = await within(said, _SLOWEST_AUTHENTICATOR, self._clock)
        except Exception as broken:  # noqa: BLE001 - an authenticator that fails lets nobody in
            self._report(broken)
            said = None
        if said is not None and not is_principal(said):
            self._report(TypeError(f"an authenticator gives a name or None, not a {type(said).__name__}"))
            said = None
        if said is None:
            self._limit.failed(scope)
            self._limit.revoke(scope)
            self.denied += 1
            return None
        self._limit.succeeded(scope)
        return str(said)

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
        self.path = path.removeprefix(root) if path.startswith(f"{root}/") else path

    def header(self, name: str) -> str | None:
        """The value of a header; several of one name are one that nothing allows."""
        given = [value for known, value in self.scope["headers"] if known == name.encode()]
        return b", ".join(given).decode("latin-1") if given else None

    async def json(self, clock: Clock) -> Any:
        """The JSON of the body. Raises :class:`Refused` for what is none, or is not said to be."""
        kind = self.header("content-type")
        if kind is None or not is_json(kind) or self.header("content-encoding") not in {None, "identity"}:
            raise Refused(problem(415, "content-type: application/json, and a body as it is, without an encoding"))
        return parse(await body_of(self.scope["headers"], self.receive, clock))


def is_json(kind: str) -> bool:
    """Whether that content type is JSON in UTF-8."""
    name, *parameters = (part.strip().lower() for part in kind.split(";"))
    return name == "application/json" and all(part in {"", "charset=utf-8", 'charset="utf-8"'} for part in parameters)


async def live(receive: Receive, send: Send) -> None:
    """Answer the server of an app that is served by itself, and has nothing to begin and nothing to end."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
