"""A state machine for Hypothesis: your operations, and faults that come, last and go, in any order it can think of."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from somaresil.chaos.plan import ChaosPlan, FaultWindow
from somaresil.resilience import Resilience
from somaresil.testing.clock import VirtualClock
from somaresil.testing.faults import allow_chaos
from somaresil.testing.figures import count
from somaresil.testing.simulation import InvariantBroken, Scenario, Simulation, World
from somaresil.testing.strategies import USUAL, faults
from somaresil.testing.watch import capture_events

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from somaresil.chaos.run import ExperimentRun
    from somaresil.testing.invariants import Invariant
    from somaresil.testing.watch import History

__all__ = ["ChaosStateMachine"]


class ChaosStateMachine(RuleBasedStateMachine):
    """Derive from it, build a service in :meth:`build`, and write its operations as rules of Hypothesis.

    For example::

        class Machine(ChaosStateMachine):
            kinds = ("error", "lost_reply")
            invariants_at_end = (recovers_within(300), at_most_once("memory.write"))

            def build(self, world):
                self.service = Service(world)

            @rule(text=st.text())
            def remember(self, text):
                self.attempt(self.service.remember(text))

            def probe(self):
                return self.service.remember("probe")

        TestMachine = Machine.TestCase

    Its own rules begin a fault, end all faults, and let time pass. When Hypothesis has made its steps, the faults are ended, ``settle``
    seconds pass, and the invariants must hold. Whenever time passes :meth:`probe` is called every ``probe_every`` seconds, which is how
    exactly a recovery is known: a pause in which nobody calls would count as an outage. What breaks shrinks to few steps; the failure
    shows them, and the faults as a plan with a time line. (The class is derived from because Hypothesis' is.)
    """

    kinds: ClassVar[tuple[str, ...]] = USUAL
    invariants_at_end: ClassVar[tuple[Invariant, ...]] = ()
    settle: ClassVar[float] = 300.0
    """Seconds of quiet at the end."""
    probe_every: ClassVar[float] = 10.0
    longest_fault: ClassVar[float] = 400.0
    longest_pause: ClassVar[float] = 120.0
    errors: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        """Make a process of its own, in a time of its own."""
        super().__init__()
        self._stack = ExitStack()
        self.clock = VirtualClock()
        self.resilience = Resilience("machine", environment="simulation", clock=self.clock, seed=0)
        self._stack.enter_context(allow_chaos(self.resilience))
        self.history: History = self._stack.enter_context(capture_events(self.resilience))
        self._runner = self._stack.enter_context(asyncio.Runner(loop_factory=self.clock.new_loop))
        self.world = World(self.resilience, self.clock, ChaosPlan(), float("inf"))
        self._windows: list[tuple[FaultWindow, ExperimentRun]] = []

    # -- yours ------------------------------------------------------------------------------------------------------------------------

    def build(self, world: World) -> Any:
        """Make the service and its guards; may be a coroutine function."""
        raise NotImplementedError("a ChaosStateMachine needs build(self, world), which makes the service")

    def probe(self) -> Any:
        """One ordinary operation, called while time passes; may be a coroutine function. What it raises is looked at by guards."""

    # -- for your rules ---------------------------------------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, in virtual time."""
        return self._runner.run(coroutine)

    def attempt(self, operation: Any) -> Any:
        """Run a coroutine, or call a function, which may return one; a fault may make it fail: an ``Exception`` is returned, not raised."""
        try:
            while callable(operation):
                operation = operation()
            return self.run(operation) if inspect.iscoroutine(operation) else operation
        except Exception as failed:  # noqa: BLE001 - faults make operations fail; the invariants say whether that is right
            return failed

    # -- the rules that every machine has ---------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Build the service."""
        built = self.build(self.world)
        if inspect.iscoroutine(built):
            self.run(built)

    @rule(data=st.data(), duration=st.integers(1, 400))
    @precondition(lambda self: bool(self.resilience.guards))
    def fault_begins(self, data: st.DataObject, duration: int) -> None:
        """A fault strikes one guard from now on."""
        target = data.draw(st.sampled_from(sorted(self.resilience.guards)), "target")
        fault = data.draw(faults(self.kinds, errors=(None, *self.errors)), "fault")
        window = FaultWindow(target=target, start=self.world.now, duration=min(duration, self.longest_fault), **fault)
        plan = ChaosPlan((FaultWindow(target=target, start=0, duration=window.duration, **fault),))
        run = self.resilience.chaos.arm_plan(plan, errors=self.errors, allow_overlap=True).runs[0]
        self._windows.append((window, run))

    @rule()
    @precondition(lambda self: any(not run.over for _, run in self._windows))
    def faults_end(self) -> None:
        """Everything is well again, for now."""
        self.resilience.chaos.stop_all()

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        """Nothing happens for a while but ordinary operations."""
        self._pass(min(seconds, self.longest_pause))

    def teardown(self) -> None:
        """Heal, let it settle, and look at the invariants."""
        try:
            self.resilience.chaos.stop_all()
            self._pass(self.settle)
            self._judge()
        finally:
            count(self.resilience, simulated=True)
            self._stack.close()

    def _pass(self, seconds: float) -> None:
        """Let time pass, with a probe now and then."""
        end = self.world.now + seconds
        while self.resilience.guards and (left := end - self.world.now) > 0.0:
            self.attempt(self.probe())
            self.run(self.clock.asleep(min(self.probe_every, left)))

    @property
    def plan(self) -> ChaosPlan:
        """The faults so far, as a plan: those that were ended early last as long as they did."""
        windows = []
        for window, run in self._windows:
            lasted = run.span[1] - run.span[0]
            if lasted > 0.0:
                windows.append(replace(window, duration=min(lasted, window.duration)))
        return ChaosPlan(tuple(windows))

    def _judge(self) -> None:
        stage = Scenario(self.build, self.invariants_at_end)
        stage.name = type(self).__name__
        stage.reference = None
        stage.check_guards(self.resilience.guards)
        simulation = Simulation(stage, self.plan, self.world, self.history, self.world.now, 0.0)
        broken = tuple(stage.broken_by(simulation))
        if broken:
            raise InvariantBroken(replace(simulation, broken=broken))
