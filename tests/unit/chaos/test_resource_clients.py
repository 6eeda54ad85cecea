"""Pools and loops of other people's making, taken by experiments."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ChaosExperiment, SystemClock
from somaresil.events import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.chaos.kit import Stand

EXHAUST = ChaosExperiment.RESOURCE_EXHAUSTION


@pytest.fixture
def taken() -> threading.Event:
    return threading.Event()


@pytest.fixture
def stand(make: Callable[..., Stand], taken: threading.Event) -> Any:
    stand = make(clock=SystemClock())
    stand.resilience.on(lambda _: taken.set(), ResourceExhausted)
    yield stand
    stand.chaos.stop_all()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


def test_an_engine_of_sqlalchemy_times_out_as_it_does_when_it_is_busy(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path}/db", poolclass=sqlalchemy.pool.QueuePool, pool_size=2, max_overflow=0, pool_timeout=0.01
    )
    stand.chaos.register_pool("db", checkout=engine.connect, giveback=lambda connection: connection.close(), size=2)
    run = stand.arm(EXHAUST, "resource:pool:db")
    assert taken.wait(20)
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        engine.connect()
    run.end()
    engine.connect().close()
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_an_asynchronous_engine_of_sqlalchemy_is_emptied_in_its_loop(stand: Stand, taken: threading.Event, tmp_path: Any) -> None:
    pytest.importorskip("aiosqlite")
    asyncio_of = pytest.importorskip("sqlalchemy.ext.asyncio")
    pool = pytest.importorskip("sqlalchemy.pool")

    async def main() -> None:
        engine = asyncio_of.create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path}/db", poolclass=pool.AsyncAdaptedQueuePool, pool_size=2, max_overflow=0, pool_timeout=0.01
        )

        async def checkout() -> Any:
            return await engine.connect()

        async def giveback(connection: Any) -> None:
            await connection.close()

        stand.chaos.register_pool("db", checkout=checkout, giveback=giveback, size=2)
        run = stand.arm(EXHAUST, "resource:pool:db")
        await until(taken.is_set)
        assert engine.sync_engine.pool.checkedout() == 2
        run.end()
        await until(lambda: engine.sync_engine.pool.checkedout() == 0)
        await engine.dispose()

    asyncio.run(main())


def test_the_executor_of_uvloop_is_held_and_let_go_with_its_loop(stand: Stand, taken: threading.Event) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> Any:
        run = stand.arm(EXHAUST, "resource:executor")
        await until(taken.is_set)
        waiting = asyncio.ensure_future(asyncio.to_thread(threading.get_ident))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        return run

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run = runner.run(main())
    assert run.end_reason == "shutdown"
