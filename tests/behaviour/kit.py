"""What the tests of rules share: a guard on a clock of its own, and callers of both kinds."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import CircuitBreaker, ManualClock, Outcome, Resilience

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil import Guard

PATIENCE = 20.0
"""Seconds after which a test that hangs fails. No test waits for it to pass."""

both = pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
both_paths = pytest.mark.parametrize("held", [False, True], ids=["quiet", "full"])


class Boom(Exception):
    """What dependencies of these tests fail with."""


def one_strike(**changes: Any) -> CircuitBreaker:
    """A breaker that opens at the first failure, for 30 seconds sharp, and takes one probe's word."""
    options: dict[str, Any] = {"failure_rate": None, "consecutive_failures": 1, "open_jitter": 0.0, "half_open_calls": 1}
    return CircuitBreaker(**(options | changes))


class Stand:
    """A process with one guard, a clock that waits for nobody, and everything that was told to listeners."""

    def __init__(self, name: str = "dependency", *, held: bool = False, listening: bool = True, **options: Any) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.guard: Guard = self.resilience.guard(name, **options)
        self.events: list[Any] = []
        self._slots: list[Any] = []
        if listening:
            self.resilience.on(self.events.append)
        if held:
            self.guard.switch.hold("test")

    def told(self, kind: type) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def count(self, *outcomes: Outcome) -> int:
        """How many calls ended so."""
        return self.guard.recorder.counts().total(*outcomes)

    @property
    def breaker(self) -> Any:
        """The breaker at work."""
        assert self.guard.breaker is not None
        return self.guard.breaker

    @property
    def state(self) -> str:
        """The state of the breaker as a word."""
        return str(self.breaker.state.value)

    def fill(self) -> None:
        """Take a slot of the bulkhead."""
        assert self.guard.bulkhead is not None
        slot = self.guard.bulkhead.try_enter()
        assert slot is not None
        self._slots.append(slot)

    def free(self) -> None:
        """Give back the slot that was taken last."""
        assert self.guard.bulkhead is not None
        self.guard.bulkhead.leave(self._slots.pop(), Outcome.GOOD, 0.0, self.clock.monotonic())

    def callable(self, function: Callable[..., Any], suspends: bool) -> Callable[..., Any]:
        """``function`` guarded, as a plain function or as a coroutine function; called in the same way either way."""
        if not suspends:
            return self.guard(function)

        async def suspended(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return function(*args, **kwargs)

        guarded = self.guard(suspended)
        return lambda *args, **kwargs: asyncio.run(guarded(*args, **kwargs))

    def fail(self, suspends: bool = False, error: BaseException | None = None) -> BaseException | None:
        """Have one call fail; what the caller got."""

        def failing() -> None:
            raise Boom("down") if error is None else error

        try:
            self.callable(failing, suspends)()
        except BaseException as caught:
            return caught
        return None

    def succeed(self, suspends: bool = False) -> object:
        """Have one call go well."""
        return self.callable(lambda: "fine", suspends)()


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """Do ``work(0)`` … ``work(count - 1)`` in threads at once; what came of each, errors as values."""
    results: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait(PATIENCE)
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    return results


class Gate:
    """A dependency that keeps its callers until it is opened, and says how many are inside."""

    def __init__(self) -> None:
        self.inside = 0
        self._free = threading.Event()
        self._changed = threading.Condition()

    def enter(self) -> str:
        """Wait inside, in a thread."""
        with self._changed:
            self.inside += 1
            self._changed.notify_all()
        assert self._free.wait(PATIENCE)
        return "fine"

    async def aenter(self) -> str:
        """Wait inside, in a task."""
        self.inside += 1
        while not self._free.is_set():
            await asyncio.sleep(0)
        return "fine"

    def await_inside(self, count: int) -> None:
        """Block until so many callers are inside."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.inside >= count, PATIENCE)

    def open(self) -> None:
        """Let everybody go."""
        self._free.set()


async def turns(count: int = 10) -> None:
    """Let the other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)
