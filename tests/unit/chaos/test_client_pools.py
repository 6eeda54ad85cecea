"""Pools of client libraries: registered as they are, taken by experiments, and as they were afterwards."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
import sqlalchemy
from sqlalchemy import pool as pools
from sqlalchemy.ext.asyncio import create_async_engine

from somaresil import ChaosCeilings, ChaosExperiment, ConfigurationError, SystemClock
from somaresil.events import DefectFound, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.chaos.kit import Stand

EXHAUST = ChaosExperiment.RESOURCE_EXHAUSTION


@pytest.fixture
def taken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def stand(make: Callable[..., Stand], taken: threading.Event) -> Iterator[Stand]:
    stand = make(clock=SystemClock())
    stand.resilience.on(lambda _: taken.set(), ResourceExhausted)
    yield stand
    stand.chaos.stop_all()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


def wait_for(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def engine_of(folder: Any, **options: Any) -> sqlalchemy.Engine:
    options = {"poolclass": pools.QueuePool, "pool_size": 2, "max_overflow": 1, "pool_timeout": 0.01, **options}
    return sqlalchemy.create_engine(f"sqlite:///{folder}/db", **options)


# -- SQLAlchemy -----------------------------------------------------------------------------------------------------------------------


def test_an_engine_has_no_connection_left_until_the_experiment_ends(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    engine = engine_of(tmp_path)
    stand.chaos.register_pool("db", engine)
    run = stand.arm(EXHAUST, "resource:pool:db")
    assert taken.wait(20)
    assert (run.effect.reached, run.effect.limited, run.effect.measured) == (3, "", {"in_use": 3})
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        engine.connect()
    run.end()
    assert (run.effect.held, engine.pool.checkedout()) == (0, 0)
    engine.connect().close()
    engine.dispose()


def test_a_connection_in_use_is_taken_when_it_comes_back(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    engine = engine_of(tmp_path)
    stand.chaos.register_pool("db", engine.pool)
    ours = engine.connect()
    run = stand.arm(EXHAUST, "resource:pool:db")
    assert taken.wait(20)
    assert run.effect.reached == 2
    assert "TimeoutError" in run.effect.limited
    ours.close()
    wait_for(lambda: run.effect.held == 3)
    wait_for(lambda: not run.effect.limited)
    run.end()
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_the_reserve_of_a_pool_stays_for_others(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    engine = engine_of(tmp_path)
    stand.chaos.register_pool("db", engine, reserve=1)
    run = stand.arm(EXHAUST, "resource:pool:db")
    assert taken.wait(20)
    assert run.effect.reached == 2
    engine.connect().close()
    run.end()
    with pytest.raises(ConfigurationError, match=r"at most 2 connections, those that the pool has less 1 in reserve"):
        stand.arm(EXHAUST, "resource:pool:db", amount=3)
    engine.dispose()


def test_a_pool_is_not_taken_beyond_the_ceiling(make: Callable[..., Stand], tmp_path: Any) -> None:
    stand = make(clock=SystemClock(), ceilings=ChaosCeilings(connections=2))
    engine = engine_of(tmp_path)
    stand.chaos.register_pool("db", engine)
    with pytest.raises(ConfigurationError, match="at most 2 connections, the ceiling"):
        stand.arm(EXHAUST, "resource:pool:db", amount=3)
    engine.dispose()


def test_an_asynchronous_engine_is_emptied_in_its_loop(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    pytest.importorskip("aiosqlite")

    async def main() -> None:
        options = {"poolclass": pools.AsyncAdaptedQueuePool, "pool_size": 2, "max_overflow": 0, "pool_timeout": 0.01}
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/db", **options)
        stand.chaos.register_pool("db", engine)
        run = stand.arm(EXHAUST, "resource:pool:db")
        await until(taken.is_set)
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            await engine.connect()
        run.end()
        await until(lambda: engine.sync_engine.pool.checkedout() == 0)
        await (await engine.connect()).close()
        await engine.dispose()

    asyncio.run(main())


# -- httpx ----------------------------------------------------------------------------------------------------------------------------


def test_a_client_of_httpx_times_out_for_want_of_a_connection(stand: Stand, taken: threading.Event, server: str) -> None:
    with httpx.Client(limits=httpx.Limits(max_connections=3), timeout=httpx.Timeout(5.0, pool=0.01), trust_env=False) as client:
        assert client.get(server).text == "ok"
        before = repr(client._transport._pool)
        stand.chaos.register_pool("api", client)
        run = stand.arm(EXHAUST, "resource:pool:api")
        assert taken.wait(20)
        assert (run.effect.reached, run.effect.measured) == (3, {"in_use": 3})
        with pytest.raises(httpx.PoolTimeout):
            client.get(server)
        run.end()
        assert client.get(server).text == "ok"
        assert repr(client._transport._pool) == before


def test_a_request_that_waits_goes_on_when_the_connections_are_given_back(stand: Stand, taken: threading.Event, server: str) -> None:
    with httpx.Client(limits=httpx.Limits(max_connections=1), timeout=20.0, trust_env=False) as client:
        stand.chaos.register_pool("api", client)
        run = stand.arm(EXHAUST, "resource:pool:api")
        assert taken.wait(20)
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(client.get(server).text))
        thread.start()
        wait_for(lambda: "1 queued" in repr(client._transport._pool))
        run.end()
        thread.join(20)
        assert answers == ["ok"]


def test_an_asynchronous_client_of_httpx_is_emptied_behind_its_guard(stand: Stand, taken: threading.Event, server: str) -> None:
    from somaresil.integrations.httpx import guard_client

    async def main() -> None:
        limits, timeout = httpx.Limits(max_connections=2), httpx.Timeout(5.0, pool=0.01)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
            guard_client(client, stand.resilience)
            stand.chaos.register_pool("api", client)
            run = stand.arm(EXHAUST, "resource:pool:api")
            await until(taken.is_set)
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server)
            run.end()
            await until(lambda: run.effect.measured == {"in_use": 0})
            assert (await client.get(server)).text == "ok"

    asyncio.run(main())


def test_a_client_that_is_closed_meanwhile_is_no_defect(stand: Stand, taken: threading.Event) -> None:
    client = httpx.Client(limits=httpx.Limits(max_connections=2), trust_env=False)
    stand.chaos.register_pool("api", client)
    run = stand.arm(EXHAUST, "resource:pool:api")
    assert taken.wait(20)
    client.close()
    run.end()
    assert stand.told(DefectFound) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_its_places_in_the_pool_back(stand: Stand, taken: threading.Event) -> None:
    client = httpx.Client(limits=httpx.Limits(max_connections=2), trust_env=False)
    pool: Any = client._transport._pool
    stand.chaos.register_pool("api", client)
    stand.arm(EXHAUST, "resource:pool:api")
    assert taken.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(0 if all(each.is_closed() for each in pool.connections) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(pool.connections) == 2
    client.close()


# -- aiohttp --------------------------------------------------------------------------------------------------------------------------


def test_a_session_of_aiohttp_times_out_for_want_of_a_connection(stand: Stand, taken: threading.Event, server: str) -> None:
    async def main() -> None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2), timeout=aiohttp.ClientTimeout(total=20, connect=0.01))
        async with session:
            stand.chaos.register_pool("api", session)
            run = stand.arm(EXHAUST, "resource:pool:api")
            await until(taken.is_set)
            assert (run.effect.reached, run.effect.measured) == (2, {"in_use": 2})
            with pytest.raises(asyncio.TimeoutError):
                await session.get(server)
            waiting = asyncio.ensure_future(session.get(server, timeout=aiohttp.ClientTimeout(total=20)))
            await asyncio.sleep(0)
            run.end()
            async with await waiting as answer:
                assert await answer.text() == "ok"
            await until(lambda: run.effect.measured == {"in_use": 0})

    asyncio.run(main())


def test_a_session_may_be_closed_while_its_connections_are_held(stand: Stand, taken: threading.Event) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2)) as session:
            stand.chaos.register_pool("api", session)
            run = stand.arm(EXHAUST, "resource:pool:api")
            await until(taken.is_set)
        run.end()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert stand.told(DefectFound) == []


# -- what is refused ------------------------------------------------------------------------------------------------------------------


def test_pools_without_a_limit_and_things_that_are_no_pools_are_refused(stand: Stand, tmp_path: Any) -> None:
    redis = pytest.importorskip("redis")
    static = sqlalchemy.create_engine("sqlite://", poolclass=pools.StaticPool)
    for wrong, why in (
        (object(), "checkout="),
        (static, "StaticPool has no limit"),
        (engine_of(tmp_path, max_overflow=-1), "no limit"),
        (httpx.Client(limits=httpx.Limits(max_connections=None)), "no limit"),
        (httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))), "no pool"),
        (redis.ConnectionPool(max_connections=1 << 31), "no limit"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            stand.chaos.register_pool("x", wrong)
    with pytest.raises(ConfigurationError, match="a pool says that itself"):
        stand.chaos.register_pool("x", engine_of(tmp_path), size=3)
    with pytest.raises(ConfigurationError, match="reserve"):
        stand.chaos.register_pool("x", engine_of(tmp_path), reserve=-1)
