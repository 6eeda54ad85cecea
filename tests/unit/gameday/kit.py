"""A service in virtual time with traffic, and the experiment that is played against it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from somaresil import SLO, CircuitBreaker, FaultWindow, Resilience, Retry
from somaresil.chaos import scope
from somaresil.gameday import Experiment, GameDay, Probe
from somaresil.testing import VirtualClock

GOOD = Probe("ratio", "llm.invoke", minimum=0.95, minimum_calls=5)
OUTAGE = FaultWindow("llm.invoke", "error", 0, 20)
SOME = FaultWindow("llm.invoke", "error", 0, 20, rate=0.3)


def experiment(*faults: FaultWindow, name: str = "errors", **options: Any) -> Experiment:
    """One with short phases."""
    given = {"hypothesis": [GOOD], "baseline": 10.0, "recover": 60.0, **options}
    return Experiment(name, faults or (SOME,), **given)


class World:
    """A process that has opted in, one guard, five calls a second, each for a request of its own."""

    def __init__(self, *, every: float = 0.2, opt_in: bool = True, **guard: Any) -> None:
        self.clock = VirtualClock()
        self.resilience = Resilience("gateway", environment="test", clock=self.clock, seed=3)
        self.resilience.slos.add(SLO("up", 99.0, timedelta(days=1)))
        if opt_in:
            self.resilience.chaos.opt_in()
        self.every = every
        self.failing = False
        self.calls = 0
        given = {"breaker": CircuitBreaker(open_duration=5.0, open_jitter=0.0), "retry": Retry(attempts=4), "slo": "up", **guard}
        self.guard = self.resilience.guard("llm.invoke", **given)

    async def answer(self) -> str:
        await asyncio.sleep(0.05)
        if self.failing:
            raise OSError("by itself")
        return "answer"

    async def drive(self) -> None:
        while True:
            self.calls += 1
            with suppress(Exception), scope(f"request-{self.calls}"):
                await self.guard.acall(self.answer)
            await self.clock.asleep(self.every)

    def play(self, *experiments: Experiment, seed: int = 7, go_on: bool = False, **options: Any) -> Any:
        """The report of a game day with traffic."""
        gameday = GameDay("a day", experiments or (experiment(),), seed=seed, go_on=go_on)
        return self.clock.run(gameday.run(self.resilience, **{"drive": self.drive, **options}))
