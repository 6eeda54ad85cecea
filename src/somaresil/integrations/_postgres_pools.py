"""Pools of psycopg_pool and asyncpg, for experiments that take their connections. They are used as they are, so nothing is imported."""

from __future__ import annotations

from typing import Any

from somaresil.chaos.resources.clientpools import ClientPool

__all__ = ["adapt"]


def adapt(pool: Any) -> ClientPool | str | None:
    """A ``ConnectionPool`` or ``AsyncConnectionPool`` of psycopg_pool, or a ``Pool`` of asyncpg."""
    kind = type(pool)
    if hasattr(kind, "getconn") and hasattr(kind, "putconn"):
        return _psycopg(pool)
    return _asyncpg(pool) if hasattr(kind, "acquire") and hasattr(kind, "get_max_size") else None


def _psycopg(pool: Any) -> ClientPool | str:
    def size() -> int:
        most: int = pool.max_size
        return most

    def used() -> int:
        figures: dict[str, int] = pool.get_stats()
        return figures.get("pool_size", 0) - figures.get("pool_available", 0)

    if type(pool).__name__.startswith("Null") and not size():
        return "the pool has no limit: give it max_size"
    if not hasattr(pool, "__aenter__"):
        return ClientPool(pool.getconn, pool.putconn, size, used, _is_full)

    async def checkout() -> Any:
        return await pool.getconn()

    async def giveback(taken: Any) -> None:
        await pool.putconn(taken)

    return ClientPool(checkout, giveback, size, used, _is_full, suspends=True)


def _is_full(error: Exception) -> bool:
    return type(error).__name__ in {"PoolTimeout", "TooManyRequests"}


def _asyncpg(pool: Any) -> ClientPool:
    async def checkout() -> Any:
        return await pool.acquire()

    async def giveback(taken: Any) -> None:
        await pool.release(taken)

    return ClientPool(checkout, giveback, pool.get_max_size, lambda: pool.get_size() - pool.get_idle_size(), suspends=True)
