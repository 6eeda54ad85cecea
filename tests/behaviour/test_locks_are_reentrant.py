"""A locked section can be interrupted by its own thread: by the garbage collector and by signal handlers."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest

from somaresil import ChaosConfig, ChaosExperiment, CircuitBreaker, ManualClock, Outcome, RateLimit, Resilience

if TYPE_CHECKING:
    from collections.abc import Callable


def in_time(work: Callable[[], None]) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_stream_that_the_collector_ends_inside_a_locked_section_is_booked() -> None:
    """A guarded stream in a dead reference cycle may be closed at any allocation, also while its own guard holds its locks."""
    resilience = Resilience("shop", clock=ManualClock())
    guard = resilience.guard("stream", breaker=CircuitBreaker(), bulkhead=1, rate_limit=RateLimit(5, per=3600.0), throttle=True)

    @guard
    def numbers():
        yield 1
        yield 2

    def forget_a_stream_and_collect() -> None:
        cycle: list[object] = []
        cycle.append(cycle)
        stream = numbers()
        next(stream)
        cycle.append(stream)
        del cycle, stream
        of_limits = guard.bulkhead.line._lock, guard.throttle._lock, guard.rate_limit.limiter._lock
        with guard.recorder.lock, guard.breaker._lock, of_limits[0], of_limits[1], of_limits[2]:
            gc.collect()

    gc.disable()
    try:
        assert in_time(forget_a_stream_and_collect)
    finally:
        gc.enable()
    assert guard.recorder.counts().total(Outcome.ABANDONED) == 1
    assert guard.bulkhead.active == 0
    assert guard.rate_limit.limiter._limits._last is None


@pytest.mark.parametrize("where", ["engine", "run"])
def test_the_kill_switch_may_be_pulled_inside_a_locked_section(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler runs between two instructions of the main thread, whatever lock that holds."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("shop", environment="test", clock=ManualClock())
    resilience.guard("call")(len)
    resilience.chaos.opt_in()
    run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "call", 1.0))

    def pull() -> None:
        with (resilience.chaos if where == "engine" else run)._lock:
            resilience.chaos.stop_all()

    assert in_time(pull)
    assert not run.live
