"""What type checkers make of the public API. Checked by mypy and pyright, never run: nothing in here is a test function.

An expected error is marked for both checkers; each of them complains about a mark that is not needed.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from datetime import timedelta
from typing import Any, assert_type

from somaresil import (
    SLO,
    AdaptiveLimit,
    Bulkhead,
    CanaryConfig,
    CanaryController,
    CircuitBreaker,
    Classify,
    ErrorBudget,
    Fallback,
    Fatal,
    Guard,
    Hedge,
    ManualClock,
    Outcome,
    RateLimit,
    RateLimiter,
    RateWindow,
    Resilience,
    Retry,
    SharedRateLimit,
    SingleFlight,
    StaleCache,
    SystemClock,
    Throttle,
    Timeout,
    Verdict,
    current_permit,
)
from somaresil.guard import Keyed
from somaresil.model.breaker import State
from somaresil.priority import Prioritizer, priority
from somaresil.resilience import BreakerControl, Snapshot

resilience = Resilience("shop", instance="a", zone="b", region="c", environment="test", clock=ManualClock(), seed=7)
Resilience("shop", clock=SystemClock(), seed="seven")
guard = resilience.guard("llm.invoke")
assert_type(guard, Guard)


# -- decorators keep the type of what they guard ----------------------------------------------------------------------------------------


@guard
def function(number: int, *, text: str = "") -> str:
    """Say it with text."""
    return text * number


@guard
async def coroutine_function(number: int, *, text: str = "") -> str:
    """Say it later."""
    return text * number


@guard
def generator(number: int) -> Generator[int, str, bytes]:
    """Say it one by one."""
    sent = yield number
    return sent.encode()


@guard
def iterator(number: int) -> Iterator[int]:
    """Say it one by one."""
    yield number


@guard
async def async_generator(number: int) -> AsyncGenerator[int, str]:
    """Say it one by one, later."""
    yield number


@guard
async def async_iterator(number: int) -> AsyncIterator[int]:
    """Say it one by one, later."""
    yield number


class Service:
    """Methods of every kind."""

    @guard
    def method(self, number: int) -> str:
        """Say it with the object."""
        return str(number)

    @guard
    async def async_method(self, number: int) -> str:
        """Say it later."""
        return str(number)

    @classmethod
    @guard
    def class_method(cls, number: int) -> str:
        """Say it with the class."""
        return str(number)

    @staticmethod
    @guard
    def static_method(number: int) -> str:
        """Say it alone."""
        return str(number)

    @guard
    @staticmethod
    def static_method_below(number: int) -> str:
        """Say it alone."""
        return str(number)

    @guard
    @classmethod
    def class_method_below(cls, number: int) -> str:
        """Say it with the class."""
        return str(number)


class Model:
    """A callable object."""

    name = "small"

    def __call__(self, prompt: str) -> bytes:
        """Answer."""
        return prompt.encode()


async def calls() -> None:
    """Every shape, called rightly and wrongly."""
    assert_type(function(1, text="x"), str)
    function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    function(1, txt="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    assert_type(await coroutine_function(1, text="x"), str)
    await coroutine_function()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    coroutine_function(1).upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    assert_type(generator(1), Generator[int, str, bytes])
    assert_type(generator(1).send("x"), int)
    generator(1).send(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(next(iterator(1)), int)

    assert_type(async_generator(1), AsyncGenerator[int, str])
    assert_type(await async_generator(1).asend("x"), int)
    assert_type(await anext(async_iterator(1)), int)
    async_iterator("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    service = Service()
    assert_type(service.method(1), str)
    assert_type(await service.async_method(1), str)
    assert_type(Service.class_method(1), str)
    assert_type(Service.static_method(1), str)
    assert_type(Service.static_method_below(1), str)
    assert_type(Service.class_method_below(1), str)
    service.method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service.class_method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Service.static_method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    model = guard(Model())
    assert_type(model, Model)
    assert_type(model("hello"), bytes)
    assert_type(model.name, str)
    partial = guard(functools.partial(function, 1))
    assert_type(partial(text="x"), str)

    guard(5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    guard(None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


# -- single calls and blocks ------------------------------------------------------------------------------------------------------------


async def single_calls() -> None:
    """By the guard and by its name."""
    assert_type(guard.call(function, 1, text="x"), str)
    assert_type(resilience.call("llm.invoke", function, 1), str)
    assert_type(await guard.acall(coroutine_function, 1), str)
    assert_type(await resilience.acall("llm.invoke", coroutine_function, 1), str)

    def later() -> Awaitable[bytes]:
        raise NotImplementedError

    assert_type(await guard.acall(later), bytes)
    await guard.acall(len, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def blocks() -> int:
    """A block swallows nothing, so what comes after it is reached only through it."""
    with guard as inside:
        assert_type(inside, Guard)
    async with guard as inside_too:
        assert_type(inside_too, Guard)
    with resilience.guard("llm.invoke"):
        return 1


# -- keys -------------------------------------------------------------------------------------------------------------------------------


@guard.keyed(by="number")
def keyed_function(number: int, *, text: str = "") -> str:
    """Say it with text."""
    return text * number


def key_of(number: int) -> tuple[str, int]:
    """Everything hashable is a key."""
    return "host", number


@guard.keyed(by=key_of)
async def keyed_stream(number: int) -> AsyncIterator[int]:
    """Say it one by one, later."""
    yield number


async def keys() -> int:
    """What is guarded keeps its type, and a block swallows nothing."""
    assert_type(keyed_function(1, text="x"), str)
    keyed_function("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await anext(keyed_stream(1)), int)
    view = guard.keyed(("host", 443))
    assert_type(view, Keyed)
    assert_type(view.call(function, 1, text="x"), str)
    assert_type(await view.acall(coroutine_function, 1), str)
    guard.keyed(["acme"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    guard.keyed(by=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    resilience.breaker("llm.invoke", key="acme").reset()
    async with view as inside_too:
        assert_type(inside_too, Keyed)
    with view as inside:
        assert_type(inside, Keyed)
        return 1


# -- options ----------------------------------------------------------------------------------------------------------------------------


def judge(result: object, error: BaseException | None) -> Outcome | None:
    """Judge as usual."""
    return Outcome.IGNORED if isinstance(error, KeyError) or result is None else None


resilience.guard(
    "everything",
    slo=["fast", "there"],
    classify=judge,
    fallback=Fallback(function, on=(KeyError, ValueError)),
    retry=Retry(attempts=3, on=KeyError, wait=0.5, max_elapsed=timedelta(seconds=5)),
    breaker=CircuitBreaker(failure_rate=0.5, window=timedelta(minutes=1), slow_call_rate=0.5, slow_call_duration=2.0),
    throttle=Throttle(k=1.5, window=timedelta(minutes=1), pushback=(KeyError, OSError)),
    rate_limit=RateLimit(
        60, per=60.0, windows=(RateWindow("tokens", 9e4, per=timedelta(minutes=1), cost=len, settle=lambda result: None),)
    ),
    bulkhead=Bulkhead(8, max_waiting=4, max_wait=1.0),
    timeout=Timeout(10.0, first_item=2.0, idle=timedelta(seconds=5)),
)


def judge_all(result: object, error: BaseException | None) -> Outcome | Fatal | None:
    """Some ends are fatal."""
    return Fatal(timedelta(minutes=1)) if isinstance(error, PermissionError) else judge(result, error)


resilience.guard("fatal", classify=judge_all)
resilience.guard(
    "classified",
    classify=Classify(bad=OSError, good=[KeyError], fatal=(PermissionError, lambda error: bool(error.args)), bad_result=callable),
)
resilience.guard("short", slo="fast", fallback=function, retry=3, breaker=True, bulkhead=8, timeout=timedelta(seconds=10))
guard.configure(timeout=5.0, retry=None)

resilience.guard("late", idempotent="key", hedge=0.2)
resilience.guard("later", idempotent=True, hedge=Hedge(quantile=0.95, minimum_delay=timedelta(milliseconds=20), max_hedges=2))
resilience.guard("old", fallback=StaleCache(300, key=str), single_flight=True)
resilience.guard("older", fallback=[StaleCache(timedelta(minutes=5)), Fallback(function, needs_error=True), function])
resilience.guard("shared", single_flight=SingleFlight(str))
resilience.guard("wrong", hedge="0.2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", single_flight="key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", fallback=[5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
Hedge(0.2, 0.95)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
StaleCache()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
account = resilience.rate_limit("account", RateLimit(5, per=1.0, max_waiting=8, max_wait=timedelta(seconds=2)))
assert_type(account, RateLimiter)
assert_type(account.available(), dict[str, float])
resilience.guard("one", rate_limit=account, throttle=True)
resilience.guard("two", rate_limit=SharedRateLimit(account, cost={"calls": 2, "tokens": len}))
current_permit().settle(tokens=812, calls=1.5)

resilience.guard("wrong", rate_limit=100)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RateLimit(100)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
current_permit().settle(812)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
resilience.guard("wrong", timeout="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", retry="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", breaker="on")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
shared = resilience.prioritizer(interval=timedelta(seconds=1), start=0.5, budget_aware="api")
assert_type(shared, Prioritizer)
resilience.guard("adaptive", bulkhead=AdaptiveLimit(algorithm="vegas", drop_on=OSError, prioritizer=shared))
with priority("high", tenant="acme"):
    pass
AdaptiveLimit(algorithm="aimd")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Bulkhead(1, prioritizer="shared")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", bulkhead=Retry())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", tiemout=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
resilience.guard(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CircuitBreaker(0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CircuitBreaker(failure_rate="half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CircuitBreaker().failure_rate = 0.1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Retry(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Timeout("10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Classify(ignored=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Fallback(function, on=KeyboardInterrupt)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- reading ----------------------------------------------------------------------------------------------------------------------------


async def reading() -> None:
    """Controls, views and objectives."""
    control = resilience.breaker("llm.invoke")
    assert_type(control, BreakerControl)
    assert_type(control.state, State)
    assert_type(control.retry_after, float | None)
    control.trip(timedelta(seconds=5))
    assert_type(resilience.snapshot(), Snapshot)
    assert_type(resilience.guards["llm.invoke"], Guard)
    end = resilience.on(print)
    assert_type(end, Callable[[], None])

    resilience.slos.add(SLO("fast", 95.0, timedelta(days=7), latency=2.0, error_budget_policy="gradual_burn"))
    assert_type(await resilience.slos.calculate_error_budget("fast"), ErrorBudget)
    assert_type(await resilience.slos.should_block_deployment(), Verdict)
    SLO(95.0)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


canary = resilience.canary("search", candidate=function, bad="fast", steps=[10, 100])
under_canary: Callable[[int], str] = canary(function)
assert_type(canary.controller, CanaryController)
assert_type(canary.controller.weight, float)
CanaryConfig(name="search")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
resilience.canary("search", candidate=function, bad="fast", mode="mirror")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def by_hand() -> None:
    """The names of the plan."""
    await canary.controller.start_canary("v2", checksum="a")
    assert_type((await canary.controller.evaluate_phase()).reason, str)
    await canary.controller.rollback("enough")


def takes_a_decorator(decorate: Callable[[Callable[[int], str]], Callable[[int], str]]) -> None:
    """Some framework."""


takes_a_decorator(guard)


def any_listener(event: Any) -> None:
    """Look at everything."""


resilience.on(any_listener)
