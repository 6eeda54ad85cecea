"""A service in a simulation: built anew for each plan, driven in virtual time, and held to what must hold.

@scenario(recovers_within(300), at_most_once("memory.write"), horizon=1500)
async def agent(world):
    @world.resilience.guard("llm.invoke", breaker=True, retry=3)
    async def invoke(prompt): ...

    async for second in world.ticks(1.0):
        await invoke("hello")
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.engine import unknown_target
from somaresil.chaos.plan import ChaosPlan
from somaresil.config import Checker
from somaresil.model.selector import matches
from somaresil.resilience import Resilience
from somaresil.testing.clock import VirtualClock
from somaresil.testing.faults import allow_chaos
from somaresil.testing.invariants import goal_of
from somaresil.testing.watch import capture_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator, Sequence

    from somaresil.chaos.plan import ErrorMakers
    from somaresil.chaos.run import ExperimentRun
    from somaresil.testing.invariants import Invariant
    from somaresil.testing.watch import History

__all__ = ["PLANS_FOLDER", "BrokenInvariant", "InvariantBroken", "Scenario", "Simulation", "World", "scenario"]

PLANS_FOLDER: Final = "SOMARESIL_PLANS"
"""Environment variable with a folder to which the plan of each broken invariant is written."""


class World:
    """What a scenario lives in: a process of its own, its clock, and a ledger of what was really done."""

    def __init__(self, resilience: Resilience, clock: VirtualClock, plan: ChaosPlan, horizon: float) -> None:
        """Begin now."""
        self.resilience = resilience
        self.clock = clock
        self.plan = plan
        self.horizon = horizon
        """Seconds after which the scenario is ended."""
        self.facts: dict[str, Any] = {}
        """Whatever the scenario wants its invariants to see."""
        self._began = clock.monotonic()
        self._done: Counter[tuple[str, Hashable]] = Counter()
        self._promised: dict[tuple[str, Hashable], None] = {}

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.clock.monotonic() - self._began

    async def ticks(self, every: float = 1.0) -> AsyncIterator[float]:
        """The seconds 0, ``every``, 2 x ``every`` … until the horizon, each when its time has come; late ones are not made up for."""
        beat = 0
        while (due := beat * every) < self.horizon:
            if due > self.now:
                await self.clock.asleep(due - self.now)
            yield self.now
            beat = max(beat + 1, int(self.now / every))

    def acted(self, effect: str, key: Hashable) -> None:
        """Note that something was really done under a key: the row is written, the mail is sent."""
        self._done[effect, key] += 1

    def acknowledged(self, effect: str, key: Hashable) -> None:
        """Note that a caller was told that it is done."""
        self._promised[effect, key] = None

    def done(self, effect: str = "*") -> dict[tuple[str, Hashable], int]:
        """How often each effect that matches was done, by name and key."""
        return {what: count for what, count in self._done.items() if matches(effect, what[0])}

    def promised(self, effect: str = "*") -> tuple[tuple[str, Hashable], ...]:
        """What was acknowledged, by name and key."""
        return tuple(what for what in self._promised if matches(effect, what[0]))


@dataclass(frozen=True, slots=True)
class BrokenInvariant:
    """What did not hold, and how that shows."""

    name: str
    found: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """A scenario that was run with one plan."""

    scenario: Scenario
    plan: ChaosPlan
    world: World
    history: History
    seconds: float
    """Virtual seconds that it lasted."""
    real_seconds: float
    runs: tuple[ExperimentRun, ...] = ()
    """The experiment of each window, in the order of the plan."""
    error: Exception | None = None
    """What the scenario itself raised."""
    broken: tuple[BrokenInvariant, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.broken and self.error is None

    def report(self) -> str:
        """What was run, what is broken, the plan as a line and as JSON, and the time line."""
        lines = [f"{self.scenario.name}: {len(self.plan.windows)} fault windows, {self.seconds:g} virtual seconds"]
        if self.error is not None:
            lines.append(f"  raised    {type(self.error).__qualname__}: {self.error}")
        for broken in self.broken:
            lines += [f"  broken    {broken.name}", f"  found     {broken.found}"]
        if self.ok:
            lines += [f"  held      {invariant.name}" for invariant in self.scenario.invariants]
        plan = replace(self.plan, scenario=self.scenario.reference)
        lines += [
            f"  run again {self.scenario.name}.check({self.plan!r})",
            f"  plan.json {plan.to_json()}",
            "  replay    python -m somaresil replay plan.json",
            self.history.timeline(),
        ]
        return "\n".join(lines)


class InvariantBroken(AssertionError):
    """A plan has broken what must hold. ``simulation`` has everything; the text has what is needed to run it again."""

    def __init__(self, simulation: Simulation) -> None:
        """Tell all of it."""
        super().__init__(simulation)
        self.simulation = simulation

    def __str__(self) -> str:
        """The report."""
        return self.simulation.report()


class Scenario:
    """A service, what drives it, and what must hold. Made by :func:`scenario`."""

    def __init__(
        self,
        function: Callable[[World], Any],
        invariants: Sequence[Invariant] = (),
        *,
        horizon: float = 900.0,
        errors: ErrorMakers | None = None,
    ) -> None:
        """``function`` is given a :class:`World`; it may be a coroutine function or a plain one that moves ``world.clock`` itself."""
        check = Checker("scenario")
        if not callable(function):
            check.problem("function", function, "a function of one World", "write @scenario(...), with parentheses")
        self.horizon = check.seconds("horizon", horizon, maximum=31 * 86_400.0)
        for invariant in invariants:
            if not callable(getattr(invariant, "check", None)):
                check.problem("invariants", invariant, "invariants of somaresil.testing.invariants, or holds(name, function)")
        check.finish()
        self.function = function
        self.invariants = tuple(invariants)
        self.errors = dict(errors or {})
        self.name = getattr(function, "__qualname__", "scenario").rpartition("<locals>.")[2]
        self.reference = f"{function.__module__}:{function.__qualname__}" if "<locals>" not in function.__qualname__ else None
        """How it can be imported: ``module:name``; None when it cannot, being made inside a function."""
        self.__doc__ = function.__doc__
        self._guards: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        """Its name."""
        return f"<Scenario {self.name}>"

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards that it makes, found by running it once without faults."""
        if self._guards is None:
            self.run(ChaosPlan())
        return self._guards or ()

    def run(self, plan: ChaosPlan, *, seen: Callable[[str], object] | None = None) -> Simulation:
        """Run it with a plan, and look at the invariants; raises nothing that the scenario raises.

        ``seen`` is told the path of every call that reaches a fault point. Raises :class:`~somaresil.errors.ConfigurationError` for a plan
        that cannot be run, a target that no guard matches among them, and :class:`RuntimeError` inside a running event loop.
        """
        real = time.perf_counter()
        clock = VirtualClock()
        resilience = Resilience("simulation", environment="simulation", clock=clock, seed=plan.seed)
        world = World(resilience, clock, plan, self.horizon)
        error: Exception | None = None
        with allow_chaos(resilience), capture_events(resilience) as history:
            if seen is not None:
                resilience.chaos.track(seen, self.horizon + 1.0)
            runs = resilience.chaos.arm_plan(plan, errors=self.errors, await_guards=True).runs
            try:
                running = self.function(world)
                if inspect.iscoroutine(running):
                    clock.run(self._until_the_horizon(running))
            except Exception as raised:  # noqa: BLE001 - it is the result
                error = raised
        self._check_targets(plan, resilience)
        self._guards = tuple(resilience.guards)
        simulation = Simulation(self, plan, world, history, world.now, time.perf_counter() - real, runs, error)
        return replace(simulation, broken=tuple(self.broken_by(simulation)))

    def check(self, plan: ChaosPlan) -> Simulation:
        """Run it with a plan. Raises :class:`InvariantBroken` when something does not hold, or what the scenario itself raised.

        In a test of Hypothesis it also tells which plans were interesting (``hypothesis.target``).
        """
        simulation = self.run(plan)
        if simulation.broken:
            self._keep(simulation)
            raise InvariantBroken(simulation)
        if simulation.error is not None:
            simulation.error.add_note(simulation.report())
            raise simulation.error
        _target(simulation)
        return simulation

    async def _until_the_horizon(self, running: Coroutine[Any, Any, Any]) -> None:
        scope = asyncio.timeout(self.horizon)
        try:
            async with scope:
                await running
        except TimeoutError:
            if not scope.expired():
                raise

    def broken_by(self, simulation: Simulation) -> Iterator[BrokenInvariant]:
        """What does not hold."""
        for invariant in self.invariants:
            found = invariant.check(simulation)
            if found is not None:
                yield BrokenInvariant(invariant.name, found)

    def _check_targets(self, plan: ChaosPlan, resilience: Resilience) -> None:
        guards = resilience.guards
        check = Checker("plan")
        for index, window in enumerate(plan.windows):
            if not window.target.startswith("http:") and not any(matches(window.target, name) for name in guards):
                check.problem(f"windows[{index}].target", window.target, *unknown_target(window.target, guards))
        check.finish()

    def _keep(self, simulation: Simulation) -> None:
        folder = os.environ.get(PLANS_FOLDER)
        if folder:
            plan = replace(simulation.plan, scenario=self.reference)
            name = f"{self.name}-{blake2b(plan.to_json().encode(), digest_size=4).hexdigest()}.json"
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(json.dumps(plan.as_dict(), indent=2) + "\n", encoding="utf-8")


def scenario(
    *invariants: Invariant, horizon: float = 900.0, errors: ErrorMakers | None = None
) -> Callable[[Callable[[World], Any]], Scenario]:
    """Make a scenario of a function of one :class:`World`, with what must hold.

    ``horizon`` is how many virtual seconds it lives; give it time to recover in. ``errors`` are the errors that plans may name besides
    :data:`~somaresil.chaos.plan.ERRORS`: a name and a type or function that makes one.
    """

    def decorate(function: Callable[[World], Any]) -> Scenario:
        return Scenario(function, invariants, horizon=horizon, errors=errors)

    return decorate


def _target(simulation: Simulation) -> None:
    """Tell Hypothesis, if it is running us, which plans came near to breaking something."""
    if "hypothesis" not in sys.modules:
        return
    from hypothesis import currently_in_test_context, target

    if not currently_in_test_context():
        return
    for number, invariant in enumerate(simulation.scenario.invariants):
        value = goal_of(invariant, simulation)
        if value is not None:
            target(value, label=f"{number} {invariant.name}")
