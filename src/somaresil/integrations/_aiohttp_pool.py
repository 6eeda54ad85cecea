"""The connections of an aiohttp connector, for experiments that take them.

A connector lends no connection without a request. So what is taken are the places, in the way in which the connector itself keeps one while
it connects: with something that stands for the connection and has no socket.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp

from somaresil.chaos.resources.clientpools import ClientPool

__all__ = ["adapt"]

_ACQUIRED, _RELEASE = _PARTS = ("_acquired", "_release_waiter")
"""What is used of a connector. aiohttp has no public way to it."""
_FULL: Final = "every connection is in use"


class _NoPlaceError(Exception):
    """Every connection is in use."""


class _Placeholder:
    """Stands for a connection in use; all that a connector does with one is to close it."""

    closed: None = None
    transport: None = None

    def close(self) -> None:
        """Nothing."""

    def abort(self) -> None:
        """Nothing."""


def adapt(client: object) -> ClientPool | str | None:
    """A session, or a connector with a limit."""
    connector: Any = client.connector if isinstance(client, aiohttp.ClientSession) else client
    if not isinstance(connector, aiohttp.BaseConnector):
        return None
    if not connector.limit:
        return "the connector has no limit: give it limit=..."
    if lacking := [part for part in _PARTS if not hasattr(connector, part)]:
        return f"this release of aiohttp keeps its connections in another way ({lacking[0]} is missing)"

    async def checkout() -> _Placeholder:
        acquired: set[Any] = getattr(connector, _ACQUIRED)
        if len(acquired) >= connector.limit:
            raise _NoPlaceError(_FULL)
        taken = _Placeholder()
        acquired.add(taken)
        return taken

    async def giveback(taken: _Placeholder) -> None:
        getattr(connector, _ACQUIRED).discard(taken)
        if not connector.closed:
            getattr(connector, _RELEASE)()

    return ClientPool(
        checkout,
        giveback,
        lambda: connector.limit,
        lambda: len(getattr(connector, _ACQUIRED)),
        lambda error: isinstance(error, _NoPlaceError),
        suspends=True,
    )
