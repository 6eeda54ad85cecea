"""Request plans at the door: what the ASGI middleware does with the ``baggage`` of a request while plans are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos import baggage
from somaresil.chaos.placing import paths_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from somaresil.chaos.flight import PlanInFlight
    from somaresil.chaos.requests import RequestPlans

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["MARK", "arriving"]

MARK: Final = b"x-somaresil-chaos"
"""The header of an answer that names the experiments which have struck its request."""

_NAME: Final = b"baggage"
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def arriving(plans: RequestPlans, scope: MutableMapping[str, Any], send: Send) -> tuple[PlanInFlight, Send] | None:
    """The plan that a request brings, and a ``send`` that marks its answer; None: it brings none that is taken.

    Ours is taken out of the headers, whatever it is worth: a propagator behind us would send it on to everybody who is asked for anything.
    """
    if scope["type"] not in {"http", "websocket"}:
        return None
    headers = scope["headers"]
    found = [value for name, value in headers if name == _NAME]
    if not found:
        return None
    flight = plans.arriving(found, paths_of(scope["path"], scope.get("root_path", "")))
    # In place: who looks at the scope afterwards, for the route, must find what the framework has left in it.
    scope["headers"] = [header for header in map(_without_plan, headers) if header is not None]
    return None if flight is None else (flight, _marking(send, flight))


def _without_plan(header: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """A header without a request plan; None: it said nothing else."""
    name, value = header
    if name != _NAME:
        return header
    text = value.decode("latin-1")
    rest = baggage.replace(text, None)
    return header if rest is text else None if rest is None else (name, rest.encode("latin-1"))


def _marking(send: Send, flight: PlanInFlight) -> Send:
    """Say in the answer which experiments of the plan have struck until it begins."""

    async def marked(message: Message) -> None:
        if flight.struck and message.get("type") in _STARTS:
            headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
            if not any(name.lower() == MARK for name, _ in headers):
                message = {**message, "headers": [*headers, (MARK, ", ".join(flight.struck).encode("ascii"))]}
        await send(message)

    return marked
