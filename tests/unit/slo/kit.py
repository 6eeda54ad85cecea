"""What the tests of objectives share: a process on a clock that is moved by hand, and calls that end as told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from somaresil import SLO, CircuitBreaker, ManualClock, Resilience

DAY = 86_400.0
HOUR = 3_600.0


def process(*slos: SLO, clock: ManualClock | None = None, **options: Any) -> tuple[Resilience, ManualClock]:
    """Make a process that knows these objectives, and its clock."""
    clock = clock or ManualClock()
    resilience = Resilience("test", environment="test", clock=clock, seed=1, **options)
    resilience.slos.add(*slos)
    return resilience, clock


def availability(name: str = "up", target: float = 99.0, days: float = 30, **options: Any) -> SLO:
    """An objective about answers."""
    return SLO(name, target, timedelta(days=days), **options)


def recovery(limit: float = 300.0, target: float = 50.0, days: float = 30, **options: Any) -> SLO:
    """An objective about incidents."""
    return SLO("recovery", target, timedelta(days=days), recovery=limit, **options)


def breaker(**options: Any) -> CircuitBreaker:
    """One that opens at two failures in a row, for exactly ten seconds, and is closed by one good probe."""
    given = {"failure_rate": None, "consecutive_failures": 2, "open_duration": 10.0, "open_jitter": 0.0, "half_open_calls": 1, **options}
    return CircuitBreaker(**given)


def good(guard: Any, times: int = 1) -> None:
    """Call and be answered."""
    for _ in range(times):
        guard.call(lambda: None)


def bad(guard: Any, times: int = 1) -> None:
    """Call and fail."""
    for _ in range(times):
        try:
            guard.call(_fail)
        except LookupError:
            continue
        raise AssertionError("the call did not fail")


def slow(guard: Any, clock: ManualClock, seconds: float) -> None:
    """Call and be answered after so many seconds."""
    guard.call(lambda: clock.advance(seconds))


def _fail() -> None:
    raise LookupError
