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

from somaresil.chaos.plan import ChaosPlan
from somaresil.chaos.vetting import unknown_target
from somaresil.config import Checker, did_you_mean
from somaresil.model.selector import matches
from somaresil.resilience import Resilience
from somaresil.testing.clock import VirtualClock, refuse_running_loop
from somaresil.testing.faults import WHY_NOT, allow_chaos, can_have
from somaresil.testing.figures import count
from somaresil.testing.invariants import goal_of
from somaresil.testing.unseen import Failures
from somaresil.testing.watch import capture_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Hashable, Iterator, Mapping, Sequence

    from somaresil.chaos.plan import Corrupters, ErrorMakers, FaultWindow
    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.testing.invariants import About, Invariant
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

    @property
    def effects(self) -> set[str]:
        """What it was told of, by name."""
        return {effect for effect, _ in (*self._done, *self._promised)}

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
    cut: bool = False
    """Whether it was still running at the horizon, and was ended there."""
    broken: tuple[BrokenInvariant, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.broken and self.error is None

    @property
    def idle(self) -> tuple[FaultWindow, ...]:
        """The windows of the plan that have struck no call: nothing is shown about them."""
        return tuple(window for window, run in zip(self.plan.windows, self.runs, strict=False) if not run.injected)

    def report(self) -> str:
        """What was run, what is broken, the plan as a line and as JSON, and the time line."""
        cut = ", then it was cut off" if self.cut else ""
        lines = [f"{self.scenario.name}: {len(self.plan.windows)} fault windows, {self.seconds:g} virtual seconds{cut}"]
        if self.error is not None:
            lines.append(f"  raised    {type(self.error).__qualname__}: {self.error}")
        for broken in self.broken:
            lines += [f"  broken    {broken.name}", f"  found     {broken.found}"]
        if self.ok:
            lines += [f"  held      {invariant.name}" for invariant in self.scenario.invariants]
        lines += [f"  no strike {window!r} has struck no call" for window in self.idle]
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
        corrupters: Corrupters | None = None,
    ) -> None:
        """``function`` is given a :class:`World`; it may be a coroutine function or a plain one that moves ``world.clock`` itself."""
        check = Checker("scenario")
        if not callable(function):
            check.problem("function", function, "a function of one World")
        elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            check.problem("function", function, "a function that runs when it is called or awaited", "there is a yield in it")
        self.horizon = check.seconds("horizon", horizon, maximum=31 * 86_400.0)
        _check_invariants(check, invariants)
        check.finish()
        self.function = function
        self.invariants = tuple(invariants)
        self.errors = dict(errors or {})
        self.corrupters = dict(corrupters or {})
        self.name = getattr(function, "__qualname__", "scenario").rpartition("<locals>.")[2]
        self.reference = f"{function.__module__}:{function.__qualname__}" if "<locals>" not in function.__qualname__ else None
        """How it can be imported: ``module:name``; None when it cannot, being made inside a function."""
        self.__doc__ = function.__doc__
        self._known: dict[str, Guard] | None = None
        self._effects: set[str] = set()
        """Those that any run has told of."""

    def __repr__(self) -> str:
        """Its name."""
        return f"<Scenario {self.name}>"

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards that it makes, found by running it once without faults. Raises what it raises."""
        return tuple(self._without_faults())

    def can_have(self, kind: str) -> bool:
        """Whether a fault of this kind can strike any of its guards."""
        return any(can_have(guard, kind) for guard in self._without_faults().values())

    def run(self, plan: ChaosPlan, *, seen: Callable[[str], object] | None = None) -> Simulation:
        """Run it with a plan, and look at the invariants; raises nothing that the scenario raises.

        ``seen`` is told the path of every call that reaches a fault point. Raises :class:`~somaresil.errors.ConfigurationError` for a plan
        that cannot be run, a target that no guard matches among them, and :class:`RuntimeError` inside a running event loop.
        """
        simulation = self._once(plan, seen)
        self._check_targets(plan, simulation)
        self._check_names(simulation)
        return simulation

    def _once(self, plan: ChaosPlan, seen: Callable[[str], object] | None = None) -> Simulation:
        refuse_running_loop("a scenario")
        real = time.perf_counter()
        clock, failures = VirtualClock(), Failures()
        resilience = Resilience("simulation", environment="simulation", clock=clock, seed=plan.seed)
        world = World(resilience, clock, plan, self.horizon)
        error: Exception | None = None
        cut = False
        with allow_chaos(resilience), capture_events(resilience) as history:
            if seen is not None:
                resilience.chaos.track(seen, self.horizon + 1.0)
            runs = resilience.chaos.arm_plan(plan, errors=self.errors, corrupters=self.corrupters, await_guards=True).runs
            try:
                running = self.function(world)
                if inspect.iscoroutine(running):
                    cut = clock.run(self._until_the_horizon(running, failures))
            except Exception as raised:  # noqa: BLE001 - it is the result
                error = raised
        self._effects |= world.effects
        count(resilience, simulated=True)
        simulation = Simulation(self, plan, world, history, world.now, time.perf_counter() - real, runs, error, cut)
        broken = list(self.broken_by(simulation))
        if (lost := failures.unseen()) is not None:
            broken.append(BrokenInvariant("no task fails without anybody looking", lost))
        return replace(simulation, broken=tuple(broken))

    def _without_faults(self) -> dict[str, Guard]:
        """Its guards, by name, as they were in a run without faults."""
        if self._known is None:
            simulation = self._once(ChaosPlan())
            if simulation.error is not None:
                raise simulation.error
            self._known = dict(simulation.world.resilience.guards)
        return self._known

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

    async def _until_the_horizon(self, running: Coroutine[Any, Any, Any], failures: Failures) -> bool:
        """Whether it had to be cut off there."""
        failures.watch(asyncio.get_running_loop())
        scope = asyncio.timeout(self.horizon)
        try:
            async with scope:
                await running
        except TimeoutError:
            if not scope.expired():
                raise
        return scope.expired()

    def broken_by(self, simulation: Simulation) -> Iterator[BrokenInvariant]:
        """What does not hold."""
        for invariant in self.invariants:
            try:
                found = invariant.check(simulation)
            except Exception as broken:  # noqa: BLE001 - what cannot be judged does not hold
                found = f"it cannot be judged: {type(broken).__qualname__}: {broken}"
            if found is not None:
                yield BrokenInvariant(invariant.name, found)

    def _check_targets(self, plan: ChaosPlan, simulation: Simulation) -> None:
        """Refuse a plan that could not have struck what it names. Where the scenario has failed, its guards may be missing for that."""
        if simulation.error is not None:
            return
        guards = simulation.world.resilience.guards
        check = Checker("plan")
        for index, window in enumerate(plan.windows):
            if not window.target.startswith("http:"):
                aimed = [guard for name, guard in guards.items() if matches(window.target, name)]
                if not aimed:
                    check.problem(f"windows[{index}].target", window.target, *unknown_target(window.target, guards))
                elif not any(can_have(guard, window.kind) for guard in aimed):
                    check.problem(f"windows[{index}].kind", window.kind, f"a fault that {window.target} can have", WHY_NOT[window.kind])
        check.finish()

    def _check_names(self, simulation: Simulation) -> None:
        """Refuse invariants about guards and effects that do not exist: they would hold for ever."""
        if simulation.error is None:
            guards = simulation.world.resilience.guards
            self._check_abouts({about: self._names_for(about, guards) for about in self._abouts()})

    def check_guards(self, guards: Collection[str]) -> None:
        """Refuse invariants about other guards than these."""
        self._check_abouts({about: guards for about in self._abouts() if not about.effect})

    def _abouts(self) -> Iterator[About]:
        for invariant in self.invariants:
            yield from getattr(invariant, "about", ())

    def _check_abouts(self, known: Mapping[About, Collection[str]]) -> None:
        check = Checker(self.name)
        for about, names in known.items():
            if not any(matches(about.pattern, name) for name in names):
                what = (
                    "an effect that world.acted or world.acknowledged tells of" if about.effect else "a guard or a pattern that matches one"
                )
                listed = ", ".join(sorted(names)) or "there is none"
                check.problem(about.option, about.pattern, f"{what} ({listed})", did_you_mean(about.pattern, names))
        check.finish()

    def _names_for(self, about: About, guards: Collection[str]) -> Collection[str]:
        """What there is of its kind. A fault may have kept it from being made, or done, in this run, so one without faults is asked too."""
        seen = self._effects if about.effect else guards
        if any(matches(about.pattern, name) for name in seen):
            return seen
        made = self._without_faults()
        return self._effects if about.effect else [*made]

    def _keep(self, simulation: Simulation) -> None:
        folder = os.environ.get(PLANS_FOLDER)
        if folder:
            plan = replace(simulation.plan, scenario=self.reference)
            name = f"{self.name}-{blake2b(plan.to_json().encode(), digest_size=4).hexdigest()}.json"
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(json.dumps(plan.as_dict(), indent=2) + "\n", encoding="utf-8")


def scenario(
    *invariants: Invariant, horizon: float = 900.0, errors: ErrorMakers | None = None, corrupters: Corrupters | None = None
) -> Callable[[Callable[[World], Any]], Scenario]:
    """Make a scenario of a function of one :class:`World`, with what must hold.

    ``horizon`` is how many virtual seconds it lives; give it time to recover in. ``errors`` are the errors that plans may name besides
    :data:`~somaresil.chaos.plan.ERRORS`: a name and a type or function that makes one.
    """
    check = Checker("scenario")
    _check_invariants(check, invariants)
    check.finish()

    def decorate(function: Callable[[World], Any]) -> Scenario:
        return Scenario(function, invariants, horizon=horizon, errors=errors, corrupters=corrupters)

    return decorate


def _check_invariants(check: Checker, invariants: Sequence[Any]) -> None:
    for invariant in invariants:
        if inspect.isfunction(invariant):
            check.problem("invariants", invariant, "invariants", "write @scenario(...), with parentheses, or holds(name, function)")
        elif not callable(getattr(invariant, "check", None)):
            check.problem("invariants", invariant, "invariants of somaresil.testing.invariants, or holds(name, function)")


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
