"""The fault ``resource_exhaust``: which resource a target means, how much of it may be taken, and what came of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from somaresil.chaos.capabilities import Capability
from somaresil.chaos.resources.ballast import DiskSpace, Memory
from somaresil.chaos.resources.burns import Cores, InterpreterLock
from somaresil.chaos.resources.descriptors import Descriptors
from somaresil.chaos.resources.hold import Hold
from somaresil.chaos.resources.kinds import Ask
from somaresil.chaos.resources.machine import Machine
from somaresil.chaos.resources.pools import Connections
from somaresil.chaos.resources.registry import Registry
from somaresil.chaos.resources.stalls import AnyioTokens, ExecutorThreads, LoopBlock
from somaresil.config import Checker, did_you_mean
from somaresil.events import ResourceExhausted, ResourceReleased

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.config import ChaosCeilings, ChaosConfig
    from somaresil.chaos.effect import Effect
    from somaresil.chaos.engine import ChaosEngine
    from somaresil.chaos.resources.kinds import Resource
    from somaresil.chaos.run import ExperimentRun

__all__ = ["ResourceExhaustion", "resource_capabilities"]

_PREFIX: Final = "resource:"


class ResourceExhaustion:
    """Takes resources of the process away (:class:`~somaresil.chaos.process.ProcessFault`). One for each engine."""

    def __init__(self, engine: ChaosEngine) -> None:
        """Nothing is taken."""
        self._engine = engine
        self._registry = engine.resources
        self._resources = _resources(Machine(), engine.resources)
        self._lock = threading.RLock()
        self._holds: tuple[tuple[str, Hold], ...] = ()

    def check(self, check: Checker, config: ChaosConfig, ceilings: ChaosCeilings, target: str) -> None:
        """Note what stands in its way. Nothing is changed, but that the loop in which this runs is known from now on."""
        self._registry.loops.see()
        self._amount(check, config, ceilings, target)

    def begin(self, run: ExperimentRun) -> Callable[[], None]:
        """Take it, and return what gives it back.

        What may be taken is looked at again, for the lease may begin long after it was armed; raises
        :class:`~somaresil.errors.ConfigurationError` when it is too much by now.
        """
        config, ceilings = run.config, self._engine.permission().limits
        check = Checker("chaos")
        with self._lock:
            asked = self._amount(check, config, ceilings, "target_component")
            check.finish()
            name, resource, ask = self._asked(config, ceilings, "target_component")
            hold = Hold(config.target_component, resource.unit, asked, run.remaining, settled=lambda effect: _tell_taken(run, effect))
            self._holds = (*self._holds, (name, hold))
        run.measure_by(hold.effect)
        try:
            # With no lock held: listeners hear of what is taken.
            undo = resource.take(hold, ask, lambda: run.end("shutdown"), lambda defect: run.defect(config.target_component, defect))
        except BaseException:
            hold.end()
            self._forget(hold)
            raise
        run.claim()

        def release() -> None:
            hold.end()
            try:
                undo()
            finally:
                if self._forget(hold):
                    hold.released()
                    effect = hold.effect()
                    run.tell(ResourceReleased, effect.unit, effect.reached, effect.seconds)

        return release

    def _amount(self, check: Checker, config: ChaosConfig, ceilings: ChaosCeilings, field: str) -> float:
        target = config.target_component
        name, _, rest = target.removeprefix(_PREFIX).partition(":")
        resource = self._resources.get(name)
        if resource is None or (rest and not resource.takes_rest):
            known = [f"{_PREFIX}{known}" for known in self._resources]
            check.problem(field, target, " | ".join(known), did_you_mean(target, known))
            return 0.0
        missing = resource.missing()
        if missing:
            check.problem(field, target, "a resource that can be taken on this platform", missing)
            return 0.0
        return resource.check(check, self._asked(config, ceilings, field)[2])

    def _asked(self, config: ChaosConfig, ceilings: ChaosCeilings, field: str) -> tuple[str, Resource, Ask]:
        target = config.target_component
        name, _, rest = target.removeprefix(_PREFIX).partition(":")
        held = sum(hold.asked for taken, hold in self._holds if taken == name and not hold.over)
        return name, self._resources[name], Ask(config.amount, config.failure_rate, rest, ceilings, held, target, field)

    def _forget(self, hold: Hold) -> bool:
        """Whether it was there."""
        if hold.forked:
            self._lock = threading.RLock()
        with self._lock:
            kept = tuple(pair for pair in self._holds if pair[1] is not hold)
            found = len(kept) < len(self._holds)
            self._holds = kept
        return found


def _tell_taken(run: ExperimentRun, effect: Effect) -> None:
    run.tell(ResourceExhausted, effect.unit, effect.asked, effect.reached, effect.limited)


def _resources(machine: Machine, registry: Registry) -> dict[str, Resource]:
    loops = registry.loops
    return {
        "loop_block": LoopBlock(loops),
        "gil": InterpreterLock(loops),
        "cpu": Cores(loops, machine),
        "memory": Memory(machine),
        "executor": ExecutorThreads(loops),
        "anyio": AnyioTokens(loops),
        "fds": Descriptors(),
        "disk": DiskSpace(machine, registry),
        "pool": Connections(registry),
    }


def resource_capabilities() -> dict[str, Capability]:
    """Which resources can be taken here (``resource_exhaust.memory``), and what the platform lacks for the others."""
    found = {name: resource.missing() for name, resource in _resources(Machine(), Registry()).items()}
    return {f"resource_exhaust.{name}": Capability(not missing, missing) for name, missing in found.items()}
