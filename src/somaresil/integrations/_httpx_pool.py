"""The pool below a client of httpx, for experiments that take its connections.

httpcore lends no connection without a request. So what is taken are the places: a connection that is always busy stands in the pool for
each, with no socket behind it, and counts against ``max_connections`` as any other does. Callers wait, and get ``httpx.PoolTimeout``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.resources.clientpools import ClientPool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt"]

_MOST: Final = 100_000
_CONNECTIONS, _LIMIT, _LOCK, _ASSIGN, _CLOSE = _PARTS = (
    "_connections",
    "_max_connections",
    "_optional_thread_lock",
    "_assign_requests_to_connections",
    "_close_connections",
)
"""What is used of a pool. httpcore has no public way to any of it."""


class _NoPlaceError(Exception):
    """Every connection is at work."""


class _Busy:
    """A connection at work, as httpcore's ``ConnectionInterface``; it is closed when the experiment ends."""

    def __init__(self) -> None:
        self.over = False

    def can_handle_request(self, origin: object) -> bool:  # noqa: ARG002 - httpcore's signature
        return False

    def is_available(self) -> bool:
        return False

    def has_expired(self) -> bool:
        return False

    def is_idle(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self.over

    def info(self) -> str:
        return "HELD BY A CHAOS EXPERIMENT"

    def close(self) -> None:
        """Nothing: what a pool does when it is closed itself."""

    async def aclose(self) -> None:
        """As close."""


def adapt(client: object) -> ClientPool | str | None:
    """A client, a transport or a pool of httpcore. A client with mounts has others; this is the one of its own transport."""
    pool: Any = _below(client)
    if pool is None:
        return "its transport has no pool of httpcore"
    if lacking := [part for part in _PARTS if not hasattr(pool, part)]:
        return f"this release of httpcore keeps its pools in another way ({lacking[0]} is missing)"
    if getattr(pool, _LIMIT) > _MOST:
        return "the pool has no limit: give it Limits(max_connections=...)"
    return _suspending(pool) if hasattr(pool, "handle_async_request") else _blocking(pool)


def _below(client: Any) -> Any:
    for _ in range(8):
        if hasattr(client, _CONNECTIONS):
            return client
        # Of a client its transport, of a transport that guards the one inside, of a transport of httpx its pool.
        inside = (getattr(client, name, None) for name in ("_transport", "inner", "_pool"))
        client = next((found for found in inside if found is not None), None)
    return None


def _blocking(pool: Any) -> ClientPool:
    def checkout() -> _Busy:
        with getattr(pool, _LOCK):
            busy, closing = _seat(pool)
        getattr(pool, _CLOSE)(closing)
        return busy

    def giveback(busy: _Busy) -> None:
        with getattr(pool, _LOCK):
            closing = _unseat(pool, busy)
        getattr(pool, _CLOSE)(closing)

    # A forked child must not wait for the lock; the pool takes out what is closed when it looks next.
    return ClientPool(checkout, giveback, _size_of(pool), _used_of(pool), _is_full, disown=lambda busy: setattr(busy, "over", True))


def _suspending(pool: Any) -> ClientPool:
    # In the loop of the pool nobody comes between; the lock of httpcore does nothing there.
    async def checkout() -> _Busy:
        busy, closing = _seat(pool)
        await getattr(pool, _CLOSE)(closing)
        return busy

    async def giveback(busy: _Busy) -> None:
        await getattr(pool, _CLOSE)(_unseat(pool, busy))

    return ClientPool(checkout, giveback, _size_of(pool), _used_of(pool), _is_full, suspends=True)


def _seat(pool: Any) -> tuple[_Busy, list[Any]]:
    """Take a place: one that is free, or that of an idle connection, as a request to another host would; and what is to be closed."""
    there: list[Any] = getattr(pool, _CONNECTIONS)
    closing: list[Any] = []
    if len(there) >= getattr(pool, _LIMIT):
        idle = next((each for each in there if each.is_idle() or each.is_closed()), None)
        if idle is None:
            raise _NoPlaceError("every connection is in use")
        there.remove(idle)
        closing.append(idle)
    busy = _Busy()
    there.append(busy)
    return busy, closing


def _unseat(pool: Any, busy: _Busy) -> list[Any]:
    """Give it back, and let who waits have it; returns what is to be closed."""
    busy.over = True
    # Takes out what is closed.
    closing: list[Any] = getattr(pool, _ASSIGN)()
    return closing


def _size_of(pool: Any) -> Callable[[], int]:
    def size() -> int:
        most: int = getattr(pool, _LIMIT)
        return most

    return size


def _used_of(pool: Any) -> Callable[[], int]:
    return lambda: sum(not (each.is_idle() or each.is_closed()) for each in list(getattr(pool, _CONNECTIONS)))


def _is_full(error: Exception) -> bool:
    return isinstance(error, _NoPlaceError)
