"""Ten bad seconds in virtual time: of five endpoints one turns slow and one fails; nobody is hurt for long, nobody returns at once.

``benchmarks/pool.py`` measures the same on real servers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from somaresil import CircuitBreaker, Endpoint, OutlierEjection, Resilience
from somaresil.chance import Chance
from somaresil.testing import VirtualClock

RATE = 150.0
NAMES = "abcde"
TROUBLE, OVER, END = 8.0, 18.0, 36.0
SLOW_START = 10.0


@dataclass
class Call:
    """What a caller saw."""

    began: float
    seconds: float
    good: bool


class Service:
    """Five endpoints of about 20 ms; from second 8 to second 18 `a` takes a second and `b` fails at once."""

    def __init__(self, seed: int) -> None:
        self.clock = VirtualClock()
        self.chance = Chance(seed)
        self.began = self.clock.monotonic()
        self.reached: list[tuple[float, str]] = []
        self.calls: list[Call] = []
        self.pool = Resilience("simulation", clock=self.clock, seed=seed).pool(
            "p",
            [Endpoint(name, name) for name in NAMES],
            attempts=2,
            slow_start=SLOW_START,
            latency_decay=2.0,
            ejection=OutlierEjection(base_duration=5.0),
            breaker=CircuitBreaker(open_duration=5.0),
        )
        self.call = self.pool(self._answer)

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.began

    async def _answer(self, endpoint: Endpoint[str]) -> None:
        name = endpoint.name
        self.reached.append((self.now, name))
        trouble = TROUBLE <= self.now < OVER
        if trouble and name == "b":
            await asyncio.sleep(0.002)
            raise ConnectionError
        usual = 0.015 + 0.01 * self.chance.draw("latency", name, len(self.reached))
        await asyncio.sleep(1.0 if trouble and name == "a" else usual)

    async def _caller(self) -> None:
        began = self.now
        try:
            await self.call()
            good = True
        except ConnectionError:
            good = False
        self.calls.append(Call(began, self.now - began, good))

    async def live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(END * RATE)):
                await asyncio.sleep(max(0.0, number / RATE - self.now))
                tasks.create_task(self._caller())

    def seen(self, since: float, until: float) -> tuple[float, float]:
        """Error rate and p99 of the calls that began then."""
        calls = [call for call in self.calls if since <= call.began < until]
        seconds = sorted(call.seconds for call in calls)
        return sum(not call.good for call in calls) / len(calls), seconds[int(0.99 * len(seconds))]

    def shares(self, since: float, until: float) -> dict[str, float]:
        """Which part of the calls reached which endpoint then."""
        found = Counter(name for at, name in self.reached if since <= at < until)
        return {name: found[name] / sum(found.values()) for name in NAMES}


def test_trouble_is_over_in_seconds_and_returns_are_gentle():
    """Callers are back to healthy figures within five seconds, and a returning endpoint never has half more than its share."""
    service = Service(seed=7)
    service.clock.run(service.live())
    errors, p99 = service.seen(0.0, TROUBLE)
    later_errors, later_p99 = service.seen(TROUBLE + 5.0, OVER)
    assert errors == later_errors == 0.0
    assert later_p99 <= 1.1 * p99
    shares = service.shares(TROUBLE + 1.0, OVER)
    assert shares["a"] + shares["b"] < 0.02
    fair = 1 / len(NAMES)
    for second in range(int(OVER), int(END) - 2):
        shares = service.shares(second, second + 2.0)
        assert max(shares["a"], shares["b"]) <= 1.5 * fair, (second, shares)
    shares = service.shares(END - 4.0, END)
    assert min(shares.values()) > 0.5 * fair
    assert {view.state for view in service.pool.view().endpoints.values()} == {"healthy"}


def test_the_same_seed_is_the_same_history():
    """Every choice, to the call."""
    first, second = Service(seed=3), Service(seed=3)
    for service in (first, second):
        service.clock.run(_one_by_one(service, 400))
    assert first.reached == second.reached


async def _one_by_one(service: Service, calls: int) -> None:
    for number in range(calls):
        await asyncio.sleep(max(0.0, number / RATE - service.now))
        await service._caller()
