"""Pools of client libraries, as experiments see them: ``chaos.register_pool("db", engine)``.

What knows a library is an integration of its own, imported with the first pool of that library; here is what they all have to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClientPool", "adapted", "known_pools"]

_ADAPTERS: Final = {
    "aiohttp": ("_aiohttp_pool", "aiohttp.ClientSession or BaseConnector"),
    "asyncpg": ("_postgres_pools", "asyncpg.Pool"),
    "httpcore": ("_httpx_pool", "httpcore.ConnectionPool or AsyncConnectionPool"),
    "httpx": ("_httpx_pool", "httpx.Client or AsyncClient, or a transport of them"),
    "psycopg_pool": ("_postgres_pools", "psycopg_pool.ConnectionPool or AsyncConnectionPool"),
    "redis": ("_redis_pool", "redis.Redis or ConnectionPool, blocking or asynchronous"),
    "sqlalchemy": ("_sqlalchemy_pool", "Engine, AsyncEngine or Pool of SQLAlchemy"),
}
"""By the package that a pool's class, or a class above it, is from."""


@dataclass(frozen=True, slots=True)
class ClientPool:
    """What an experiment has to know of a pool."""

    checkout: Callable[[], Any]
    """Take one connection; raises or waits, as the pool does, when there is none."""
    giveback: Callable[[Any], Any]
    """Return it, so that the next caller gets it."""
    size: Callable[[], int | None]
    """How many there can be at once; None: nobody knows."""
    used: Callable[[], int] | None = None
    """How many are in use by the pool's own count."""
    full: Callable[[Exception], bool] = lambda _: False
    """Whether what ``checkout`` raised says only that all are in use just now."""
    disown: Callable[[Any], object] | None = None
    """What a forked child does with one that its parent has taken; it must wait for no lock. None: let go of it."""
    suspends: bool = False
    """Whether ``checkout`` and ``giveback`` are coroutine functions."""


def known_pools() -> str:
    """What can be registered as it is, in words."""
    return "; ".join(what for _, what in _ADAPTERS.values())


def adapted(pool: object) -> ClientPool | str | None:
    """The pool, or why it cannot be exhausted, or None for an object of a library that nobody here knows."""
    for kind in type(pool).__mro__:
        adapter = _ADAPTERS.get(kind.__module__.partition(".")[0])
        if adapter is not None:
            found: ClientPool | str | None = import_module(f"somaresil.integrations.{adapter[0]}").adapt(pool)
            return found
    return None
