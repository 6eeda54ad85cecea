"""Loops of other people's making, struck by experiments."""

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
