"""What type checkers make of what a caller catches, and of names that no other file here needs. Checked by them, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from somaresil import (
    BulkheadFull,
    CanaryPhase,
    CircuitBreaker,
    CircuitOpen,
    DeadlineExceeded,
    InjectedAnswer,
    InjectedFault,
    LoadShed,
    NoEndpoint,
    PipelineWarning,
    RateLimited,
    Rejected,
    Resilience,
    ResilienceMiddleware,
    Retry,
    RetryBudget,
    SLOTracker,
    SomaresilError,
    StreamProgress,
    ViolationBlocked,
    __version__,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Scope = MutableMapping[str, Any]

resilience = Resilience("gateway")
version: str = __version__
assert_type(resilience.slos, SLOTracker)
phase: CanaryPhase = CanaryPhase.BAKE


def how_long(error: Rejected) -> float | None:
    """Every rejection says whose it is, and when to come again if that is known."""
    assert_type(error.guard, str)
    return error.retry_after


def caught(call: Callable[[], str]) -> str:
    """All rejections are one kind of error, and injected faults are another."""
    try:
        return call()
    except (BulkheadFull, CircuitOpen, DeadlineExceeded, LoadShed, NoEndpoint, RateLimited) as refused:
        how_long(refused)
        raise
    except (InjectedFault, InjectedAnswer, ViolationBlocked) as error:
        return str(error)
    except SomaresilError as other:
        return str(other)


async def app(scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]) -> None:
    """Any application of ASGI."""


wrapped = ResilienceMiddleware(app, resilience=resilience)
budget = RetryBudget(ratio=0.2)
guard = resilience.guard("llm.invoke", retry=Retry(budget=budget), breaker=CircuitBreaker())
refused: type[Rejected] = CircuitOpen
warned: type[Warning] = PipelineWarning
progress: type[StreamProgress] = StreamProgress
how_long(ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RetryBudget(ratio="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ResilienceMiddleware(app, resilience="gateway")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
