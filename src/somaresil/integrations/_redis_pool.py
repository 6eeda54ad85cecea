"""The pool of a client of redis-py, for experiments that take its connections."""

from __future__ import annotations

import inspect
from typing import Any, Final, cast

import redis
import redis.asyncio
from redis import exceptions

from somaresil.chaos.resources.clientpools import ClientPool

__all__ = ["adapt"]

_MOST: Final = 100_000
"""Older releases say 2**31 when nobody gave a limit, and none of them is ever reached."""
_SAYS: Final = frozenset({"Too many connections", "No connection available."})
"""What pools say that have none left; not every release has a class for it."""


def adapt(client: object) -> ClientPool | str | None:
    """A client with one pool, or a pool: ``ConnectionPool`` or ``BlockingConnectionPool``."""
    found = getattr(client, "connection_pool", client)
    suspends = isinstance(found, redis.asyncio.ConnectionPool)
    if not suspends and not isinstance(found, redis.ConnectionPool):
        return "a cluster has a pool for each node: register those" if hasattr(client, "get_nodes") else None
    # Blocking or asynchronous, its methods have the same names.
    pool: Any = cast("Any", found)
    if pool.max_connections > _MOST:
        return "the pool has no limit: give it max_connections"
    needed = [part for part in inspect.signature(pool.get_connection).parameters.values() if part.default is part.empty]
    # Older releases want to know what for.
    word = ("PING",) if any(part.kind is part.POSITIONAL_OR_KEYWORD for part in needed) else ()
    # redis-py has no public count that all of its pools and releases have.
    taken_by = "_in_use_connections"

    def used() -> int:
        waiting: Any = getattr(pool, "pool", None)
        if waiting is None:
            return len(getattr(pool, taken_by, ()))
        # A queue in which those that are free wait, and a None for each that was not opened yet.
        there: Any = getattr(waiting, "queue", getattr(waiting, "_queue", ()))
        free = sum(each is not None for each in list(there))
        return len([each for each in getattr(pool, "_connections", ()) if each is not None]) - free

    if not suspends:
        return ClientPool(lambda: pool.get_connection(*word), pool.release, lambda: pool.max_connections, used, _is_full)

    async def checkout() -> Any:
        return await pool.get_connection(*word)

    async def giveback(taken: Any) -> None:
        await pool.release(taken)

    return ClientPool(checkout, giveback, lambda: pool.max_connections, used, _is_full, suspends=True)


def _is_full(error: Exception) -> bool:
    return isinstance(error, exceptions.ConnectionError) and (type(error).__name__ == "MaxConnectionsError" or str(error) in _SAYS)
