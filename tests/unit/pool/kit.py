"""What the tests of pools share: a process with one pool, on a clock of its own, whose endpoints do as they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from somaresil import Endpoint, ManualClock, Resilience
from tests.behaviour.kit import Boom

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.outcome import Outcome


class Stand:
    """A pool of endpoints ``a``, ``b`` … that answer with their name, unless ``does`` says otherwise."""

    def __init__(self, endpoints: str | list[Endpoint[Any]] = "ab", *, clock: Any = None, listening: bool = True, **options: Any) -> None:
        self.clock: Any = ManualClock() if clock is None else clock
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        given = [Endpoint(name, name.upper()) for name in endpoints] if isinstance(endpoints, str) else endpoints
        self.pool = self.resilience.pool("p", given, **options)
        self.does: dict[str, Any] = {}
        """What an endpoint raises, returns, or is called to find out."""
        self.reached: list[str] = []
        self.events: list[Any] = []
        if listening:
            self.resilience.on(self.events.append)

    def work(self, endpoint: Endpoint[Any]) -> Any:
        """What the callee does."""
        self.reached.append(endpoint.name)
        step = self.does.get(endpoint.name, endpoint.name)
        step = step() if callable(step) and not isinstance(step, type) else step
        if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            raise step
        return step

    def caller(self, suspends: bool = False) -> Callable[[], Any]:
        """A call through the pool, made the same way whether it suspends or not."""
        if not suspends:
            return self.pool(self.work)
        suspended = self.coroutine()
        return lambda: asyncio.run(suspended())

    def coroutine(self) -> Callable[[], Any]:
        """The same as a coroutine function."""

        @self.pool
        async def suspended(endpoint: Endpoint[Any]) -> Any:
            await asyncio.sleep(0)
            return self.work(endpoint)

        return suspended

    def calls(self, count: int, suspends: bool = False) -> list[Any]:
        """So many calls one after the other; errors as values."""
        call, results = self.caller(suspends), []
        for _ in range(count):
            try:
                results.append(call())
            except Exception as error:
                results.append(error)
        return results

    def shares(self, count: int) -> dict[str, float]:
        """Which part of ``count`` calls reached which endpoint."""
        before = len(self.reached)
        self.calls(count)
        found = Counter(self.reached[before:])
        return {name: found[name] / sum(found.values()) for name in sorted(found)}

    def told(self, kind: type) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def count(self, guard: str, *outcomes: Outcome) -> int:
        """How many calls of a guard ended so."""
        return self.resilience.guard(guard).recorder.counts().total(*outcomes)

    def state(self, name: str) -> str:
        """The state of an endpoint as a word."""
        return str(self.pool.view().endpoints[name].state.value)

    def in_flight(self) -> dict[str, int]:
        """How many calls run where."""
        return {name: view.in_flight for name, view in self.pool.view().endpoints.items()}

    def knock_out(self, name: str) -> None:
        """Have an endpoint ejected, by as many failures as that takes."""
        usual, self.does[name] = self.does.get(name, name), Boom("down")
        self.calls(200)
        self.does[name] = usual
        assert self.state(name) == "ejected"
