"""One scenario from beginning to end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from somaresil.clock import SystemClock
from somaresil.errors import describe
from somaresil.load.arrivals import arrivals
from somaresil.load.generator import Generator
from somaresil.load.http import HttpCaller, Target
from somaresil.load.orders import Orders
from somaresil.load.report import LoadReport
from somaresil.load.server import Reading, ServerView, read, view_of
from somaresil.load.thresholds import bounds_of, judge_all, limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from somaresil.load.generator import Caller, Point, Run
    from somaresil.load.scenario import Scenario
    from somaresil.typing import Clock

__all__ = ["Session", "run_scenario"]


class Session:
    """A scenario that is run once. Its :attr:`report` is there at any time, also after it was cancelled."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        allow_hosts: Iterable[str] = (),
        clock: Clock | None = None,
        watch: Callable[[Point, Run], None] | None = None,
        struck: Callable[[], bool] = bool,
        caller: Caller | None = None,
        begin: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Nothing is sent yet. ``begin`` is awaited right before the first request: what is to start together with the load.

        Raises :class:`~somaresil.errors.ConfigurationError` for a host that is neither loopback nor allowed.
        """
        scenario.check_hosts(allow_hosts)
        self.scenario = scenario
        self._clock = SystemClock() if clock is None else clock
        bounds = bounds_of(limits(scenario), scenario.slos)
        target = Target.of(scenario.target)
        self._caller = HttpCaller(target, clock=self._clock, gap_bounds=bounds.get("gap", ())) if caller is None else caller
        # Different in every run: a service that remembers what it has seen must not take this run for the one before.
        orders = Orders(scenario.requests, target, seed=scenario.seed, run=os.urandom(4).hex(), sessions=scenario.sessions)
        self._generator = Generator(
            self._caller, orders, max_in_flight=scenario.max_in_flight, bounds=bounds, clock=self._clock, watch=watch, struck=struck
        )
        self._begin = begin
        self._started_at = self._clock.time()
        self._before: Reading | str | None = None
        self._server: ServerView | None = None
        self.chaos: tuple[str, ...] = ()
        self.interrupted: str | None = None

    @property
    def in_flight(self) -> int:
        """Requests without an end yet."""
        return self._generator.in_flight

    async def run(self) -> LoadReport:
        """Make every request, and judge."""
        scenario = self.scenario
        self._started_at = self._clock.time()
        self._before = await self._read()
        try:
            if self._begin is not None:
                await self._begin()
            await self._generator.offer(arrivals(scenario.stages, scenario.arrival, seed=scenario.seed), scenario.seconds)
        finally:
            await self._caller.close()
        await self.look()
        return self.report

    async def look(self) -> None:
        """Read what the service has counted since the beginning."""
        before, after = self._before, await self._read()
        if isinstance(before, Reading) and isinstance(after, Reading):
            self._server = view_of(before, after)
        elif before is not None:
            self._server = ServerView(problem=next(each for each in (before, after) if isinstance(each, str)))

    @property
    def report(self) -> LoadReport:
        """What is known now."""
        run, scenario = self._generator.run, self.scenario
        checks = judge_all(scenario, run)
        if scenario.server is not None and scenario.server.slos:
            view = ServerView(problem="the service was not read") if self._server is None else self._server
            checks += view.checks(scenario.server.slos)
        return LoadReport(scenario, run, checks, self._started_at, self._server, self.chaos, self.interrupted)

    async def _read(self) -> Reading | str | None:
        if self.scenario.server is None:
            return None
        try:
            return await asyncio.to_thread(read, self.scenario.server.metrics)
        except (OSError, ValueError) as broken:
            return f"its metrics could not be read: {describe(broken)}"


async def run_scenario(
    scenario: Scenario, *, allow_hosts: Iterable[str] = (), clock: Clock | None = None, watch: Callable[[Point, Run], None] | None = None
) -> LoadReport:
    """Run a scenario, and judge it. The experiments of its file are the command's business: they are not started here.

    Raises :class:`~somaresil.errors.ConfigurationError` for a host that is neither loopback nor allowed.
    """
    return await Session(scenario, allow_hosts=allow_hosts, clock=clock, watch=watch).run()
