"""Where the memory services keep things: Redis, or a dictionary in a simulation."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from somaresil.drill.policies import Policies
    from somaresil.drill.topology import Settings
    from somaresil.resilience import Resilience

__all__ = ["InProcess", "InRedis", "Store"]


class Store(Protocol):
    """Writes that may be repeated, behind a guard called ``store``."""

    async def open(self, resilience: Resilience) -> None:
        """Connect, in the loop in which it will be used."""
        ...

    async def write(self, key: str, session: str) -> None:
        """Remember an entry once, however often it is written."""
        ...

    async def turns(self, session: str) -> int:
        """How many entries a session has."""
        ...

    async def log(self, session: str) -> None:
        """Note in a file that something came."""
        ...

    async def ping(self) -> object:
        """Whether it can be reached."""
        ...


class InRedis:
    """A set for each session, in the Redis of the drill."""

    def __init__(self, settings: Settings, policies: Policies) -> None:
        """Nothing is connected."""
        self._settings = settings
        self._policies = policies
        self._redis: Any = None
        self._journal = Path(settings.folder)

    async def open(self, resilience: Resilience) -> None:
        """As :meth:`Store.open`; connections and folder may be taken away by experiments."""
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        from somaresil.integrations.redispy import guard_redis

        pool: Any = redis.asyncio.BlockingConnectionPool(
            host="127.0.0.1", port=self._settings.redis, max_connections=6, timeout=0.2, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
        client = redis.asyncio.Redis(connection_pool=pool)
        self._redis = guard_redis(
            client, resilience, name="store", retry=self._policies.attempts, idempotent=True, **self._policies.guard(0.3)
        )
        resilience.chaos.register_pool("redis", checkout=pool.get_connection, giveback=pool.release, size=6)
        resilience.chaos.register_directory("journal", self._journal)
        await self._redis.ping()

    async def write(self, key: str, session: str) -> None:
        """As :meth:`Store.write`."""
        await self._redis.sadd(session, key)

    async def turns(self, session: str) -> int:
        """As :meth:`Store.turns`."""
        return int(await self._redis.scard(session))

    async def log(self, session: str) -> None:
        """As :meth:`Store.log`, by a thread of the loop's executor."""
        await asyncio.to_thread(self._append, session)

    def _append(self, session: str) -> None:
        with (self._journal / "journal.txt").open("a", encoding="utf-8") as journal:
            journal.write(f"{session}\n")

    async def ping(self) -> object:
        """As :meth:`Store.ping`."""
        return await self._redis.ping()


class InProcess:
    """A dictionary that all instances of a simulation share, behind a guard of the same name."""

    def __init__(self, shared: dict[str, set[str]], policies: Policies) -> None:
        """What is in it stays."""
        self._shared = shared
        self._policies = policies
        self._guard: Any = None
        self.logged = Counter[str]()

    async def open(self, resilience: Resilience) -> None:
        """As :meth:`Store.open`."""
        self._guard = resilience.guard("store", retry=self._policies.attempts, idempotent=True, **self._policies.guard(0.3))

    async def _do(self, work: Any, *arguments: Any) -> Any:
        return await self._guard.acall(work, *arguments)

    async def write(self, key: str, session: str) -> None:
        """As :meth:`Store.write`."""

        async def add(key: str, session: str) -> int:
            self._shared.setdefault(session, set()).add(key)
            return 1

        await self._do(add, key, session)

    async def turns(self, session: str) -> int:
        """As :meth:`Store.turns`."""
        return int(await self._do(self._count, session))

    async def _count(self, session: str) -> int:
        return len(self._shared.get(session, ()))

    async def log(self, session: str) -> None:
        """As :meth:`Store.log`."""
        self.logged[session] += 1

    async def ping(self) -> object:
        """As :meth:`Store.ping`."""
        return await self._do(self._count, "ping")
