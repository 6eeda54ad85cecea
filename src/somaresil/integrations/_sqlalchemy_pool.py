"""The pool of an engine of SQLAlchemy, for experiments that take its connections."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import Pool, QueuePool

from somaresil.chaos.resources.clientpools import ClientPool

__all__ = ["adapt"]


def adapt(engine: object) -> ClientPool | str | None:
    """An ``Engine``, ``AsyncEngine`` or ``Pool`` that is a ``QueuePool``: the others have no limit to reach."""
    if isinstance(engine, AsyncEngine):
        return _suspending(engine)

    def pool() -> Any:
        # After dispose() an engine has another pool, so it is asked each time.
        return engine.pool if isinstance(engine, Engine) else engine

    if not isinstance(pool(), Pool):
        return None
    if (reason := _unlimited(pool())) is not None:
        return reason

    def checkout() -> Any:
        return pool().connect()

    return ClientPool(checkout, lambda taken: taken.close(), lambda: _size(pool()), lambda: _used(pool()), _is_full)


def _suspending(engine: AsyncEngine) -> ClientPool | str:
    if (reason := _unlimited(engine.sync_engine.pool)) is not None:
        return reason

    async def checkout() -> Any:
        return await engine.connect()

    async def giveback(taken: Any) -> None:
        await taken.close()

    return ClientPool(
        checkout, giveback, lambda: _size(engine.sync_engine.pool), lambda: _used(engine.sync_engine.pool), _is_full, suspends=True
    )


def _unlimited(pool: Any) -> str | None:
    if not isinstance(pool, QueuePool):
        return f"{type(pool).__name__} has no limit of connections"
    return "pool_size=0 or max_overflow=-1 is no limit of connections" if _size(pool) is None else None


def _size(pool: Any) -> int | None:
    # SQLAlchemy has no public word for how far a pool may overflow.
    overflow: int = getattr(pool, "_max_overflow", -1)
    size: int = pool.size()
    return size + overflow if size > 0 and overflow >= 0 else None


def _used(pool: Any) -> int:
    used: int = pool.checkedout()
    return used


def _is_full(error: Exception) -> bool:
    return isinstance(error, exc.TimeoutError)
