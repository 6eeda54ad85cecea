"""Pools of clients of real servers, exhausted by experiments: callers get the pool's own error, and the pool is as it was afterwards."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ChaosConfig, ChaosExperiment, Resilience
from somaresil.events import ResourceExhausted
from somaresil.testing import allow_chaos
from tests.integration.servers import Postgres, find_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.servers import Redis


class Process:
    """A process whose pools may be taken."""

    def __init__(self) -> None:
        self.resilience = Resilience("tests", environment="test")
        self.chaos = self.resilience.chaos
        self.taken = threading.Event()
        self.resilience.on(lambda _: self.taken.set(), ResourceExhausted)

    def arm(self, name: str = "pool", **options: Any) -> Any:
        self.taken.clear()
        return self.chaos.arm(ChaosConfig(ChaosExperiment.RESOURCE_EXHAUSTION, f"resource:pool:{name}", 1.0, 60.0, **options))

    def exhaust(self, **options: Any) -> Any:
        run = self.arm(**options)
        assert self.taken.wait(20)
        return run

    async def aexhaust(self, **options: Any) -> Any:
        run = self.arm(**options)
        await until(self.taken.is_set)
        return run


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    with allow_chaos(process.resilience):
        yield process


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = find_postgres()
    if programs is None:
        pytest.skip("postgresql is not installed: `apt-get install postgresql`, or run `nox -s tests` as root")
    # Not below the folder of pytest: the server runs as another user, who may not go in there.
    folder = Path(tempfile.mkdtemp(prefix="somaresil-postgres-"))
    try:
        with Postgres(folder=folder, programs=programs) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


# -- Redis ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("blocking", [False, True])
def test_a_client_of_redis_has_no_connection_left(process: Process, redis_server: Redis, blocking: bool) -> None:
    redis = pytest.importorskip("redis")
    place = {"host": "127.0.0.1", "port": redis_server.port, "max_connections": 3}
    pool = redis.BlockingConnectionPool(**place, timeout=0.01) if blocking else redis.ConnectionPool(**place)
    client = redis.Redis(connection_pool=pool)
    client.ping()
    process.chaos.register_pool("pool", client)
    run = process.exhaust()
    assert (run.effect.reached, run.effect.limited, run.effect.measured) == (3, "", {"in_use": 3})
    with pytest.raises(redis.ConnectionError, match=r"No connection available|Too many connections"):
        client.ping()
    run.end()
    assert run.effect.measured == {"in_use": 0}
    assert client.ping()
    client.close()
    pool.disconnect()


@pytest.mark.server
@pytest.mark.parametrize("blocking", [False, True])
def test_an_asynchronous_client_of_redis_has_no_connection_left(process: Process, redis_server: Redis, blocking: bool) -> None:
    redis = pytest.importorskip("redis.asyncio")

    async def main() -> None:
        place = {"host": "127.0.0.1", "port": redis_server.port, "max_connections": 3}
        pool = redis.BlockingConnectionPool(**place, timeout=0.01) if blocking else redis.ConnectionPool(**place)
        client = redis.Redis(connection_pool=pool)
        await client.ping()
        process.chaos.register_pool("pool", client)
        run = await process.aexhaust()
        assert (run.effect.reached, run.effect.measured) == (3, {"in_use": 3})
        with pytest.raises(redis.ConnectionError, match=r"No connection available|Too many connections"):
            await client.ping()
        run.end()
        await until(lambda: run.effect.measured == {"in_use": 0})
        assert await client.ping()
        await pool.disconnect()

    asyncio.run(main())


# -- PostgreSQL -----------------------------------------------------------------------------------------------------------------------


def test_a_pool_of_psycopg_times_out(process: Process, postgres: Postgres) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool")
    place = f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres"
    with psycopg_pool.ConnectionPool(place, min_size=1, max_size=3, timeout=5.0, open=True) as pool:
        pool.wait()
        process.chaos.register_pool("pool", pool)
        run = process.exhaust()
        assert (run.effect.reached, run.effect.measured) == (3, {"in_use": 3})
        with pytest.raises(psycopg_pool.PoolTimeout), pool.connection(timeout=0.01):
            pass
        run.end()
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert run.effect.measured == {"in_use": 0}


def test_an_asynchronous_pool_of_psycopg_times_out(process: Process, postgres: Postgres) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool")
    place = f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres"

    async def main() -> None:
        async with psycopg_pool.AsyncConnectionPool(place, min_size=1, max_size=2, timeout=5.0, open=False) as pool:
            process.chaos.register_pool("pool", pool)
            run = await process.aexhaust()
            with pytest.raises(psycopg_pool.PoolTimeout):
                await pool.getconn(timeout=0.01)
            run.end()
            await until(lambda: run.effect.measured == {"in_use": 0})
            async with pool.connection() as connection:
                assert await (await connection.execute("SELECT 1")).fetchone() == (1,)

    asyncio.run(main())


def test_a_pool_of_asyncpg_times_out(process: Process, postgres: Postgres) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    async def main() -> None:
        url = f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres"
        async with asyncpg.create_pool(url, min_size=0, max_size=2) as pool:
            process.chaos.register_pool("pool", pool)
            run = await process.aexhaust()
            assert (run.effect.reached, run.effect.measured) == (2, {"in_use": 2})
            with pytest.raises(asyncio.TimeoutError):
                await pool.acquire(timeout=0.01)
            run.end()
            await until(lambda: run.effect.measured == {"in_use": 0})
            assert await pool.fetchval("SELECT 1") == 1

    asyncio.run(main())


def test_an_engine_on_postgres_is_emptied_with_its_overflow(process: Process, postgres: Postgres) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    url = f"postgresql+psycopg://postgres@127.0.0.1:{postgres.port}/postgres"
    engine = sqlalchemy.create_engine(url, pool_size=2, max_overflow=1, pool_timeout=0.01)
    process.chaos.register_pool("pool", engine)
    before = engine.pool.status()
    with engine.connect() as connection:
        run = process.exhaust()
        assert run.effect.reached == 2
        connection.execute(sqlalchemy.text("SELECT 1"))
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            engine.connect()
        run.end()
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
    assert engine.pool.checkedout() == 0, before
    engine.dispose()
