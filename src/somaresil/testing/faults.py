"""Faults in a test: allowed for its time, ended with it."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast
from weakref import WeakKeyDictionary

from somaresil.chaos.config import ChaosCeilings, ChaosConfig
from somaresil.chaos.permission import SWITCH
from somaresil.chaos.vocabulary import FAULTS, LONG_NAMES, SHORT_NAMES, WHY_NOT, Realm
from somaresil.config import Checker, did_you_mean
from somaresil.testing.figures import count

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import timedelta
    from types import TracebackType

    from somaresil.chaos.config import ChaosExperiment
    from somaresil.chaos.plan import ChaosPlan, Corrupters, ErrorMakers, PlanRun
    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.resilience import Resilience

__all__ = ["TEST_CEILINGS", "WHY_NOT", "Injection", "PlanInjection", "allow_chaos", "can_have", "inject", "inject_plan"]

TEST_CEILINGS: Final = ChaosCeilings(duration=86_400.0, delay=86_400.0, experiments=1_000)
"""What tests may do: a day of faults, a thousand at once. Virtual time makes days of them."""


@contextmanager
def allow_chaos(resilience: Resilience, ceilings: ChaosCeilings = TEST_CEILINGS) -> Generator[None]:
    """Permit experiments in here: sets ``SOMARESIL_CHAOS=1``, opts in, and names the environment ``test`` when nobody has named it.

    When the last block that permits them for this process ends, everything is put back as it was, and every experiment that was begun
    meanwhile is ended. Production stays production: an environment that is named so is not renamed, and its experiments are refused as
    always.
    """
    check = Checker("allow_chaos")
    check.type("ceilings", ceilings, ChaosCeilings, "ChaosCeilings(...)")
    check.finish()
    mine = object()
    with _permitting:
        permit = _permits.get(resilience)
        if permit is None:
            permit = _permits[resilience] = _Permit(resilience)
        permit.enter(mine, ceilings)
    try:
        yield
    finally:
        with _permitting:
            if permit.leave(mine):
                del _permits[resilience]


class _Permit:
    """The blocks that permit chaos for one process, however they overlap, and what was before the first of them."""

    switched: ClassVar[int] = 0
    """How many processes the variable of the environment is set for."""
    switch: ClassVar[str | None] = None
    """What it was before."""

    def __init__(self, resilience: Resilience) -> None:
        self._chaos = resilience.chaos
        self._before = self._chaos.permission()
        self._environment = self._chaos.place.environment
        self._known = frozenset(run.id for run in self._chaos.history)
        self._blocks: dict[object, tuple[ChaosCeilings, frozenset[str]]] = {}
        if self._environment is None:
            self._chaos.place.environment = "test"
        if not _Permit.switched:
            _Permit.switch = os.environ.get(SWITCH)
        _Permit.switched += 1

    def enter(self, block: object, ceilings: ChaosCeilings) -> None:
        self._blocks[block] = ceilings, frozenset(run.id for run in self._chaos.history)
        os.environ[SWITCH] = "1"
        self._chaos.opt_in(ceilings)

    def leave(self, block: object) -> bool:
        """Whether it was the last."""
        inmost = next(reversed(self._blocks)) is block
        _, known = self._blocks.pop(block)
        # What was begun in a block ends with it; where blocks overlap, nobody can say whose it was, and it ends with the last of them.
        if inmost or not self._blocks:
            for run in self._chaos.history:
                if run.id not in (known if self._blocks else self._known):
                    run.end("stopped")
        if self._blocks:
            self._chaos.opt_in(next(reversed(self._blocks.values()))[0])
            return False
        self._chaos.permit(self._before)
        self._chaos.place.environment = self._environment
        _Permit.switched -= 1
        if not _Permit.switched:
            if _Permit.switch is None:
                os.environ.pop(SWITCH, None)
            else:
                os.environ[SWITCH] = _Permit.switch
        return True


_permits: WeakKeyDictionary[Resilience, _Permit] = WeakKeyDictionary()
_permitting = threading.RLock()


class _Block:
    """Something for ``with`` and ``async with``: it begins and ends at once either way."""

    def __init__(self, resilience: Resilience) -> None:
        self._resilience = resilience
        self._stack = ExitStack()

    def _begin(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End what it has begun, before the block ends."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Begin."""
        with ExitStack() as stack:
            stack.enter_context(allow_chaos(self._resilience))
            self._begin()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End, whatever happened."""
        self.stop()
        count(self._resilience, simulated=False)
        self._stack.close()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End, whatever happened."""
        self.__exit__(kind, error, trace)


class Injection(_Block):
    """A fault for the time of a block. See :func:`inject`."""

    def __init__(self, resilience: Resilience, config: ChaosConfig) -> None:
        """Begin when the block does."""
        super().__init__(resilience)
        self.config = config
        self.run: ExperimentRun | None = None
        """The experiment; None before it began."""

    def _begin(self) -> None:
        self.run = self._resilience.chaos.arm(replace(self.config, allow_overlap=True))

    @property
    def injected(self) -> int:
        """How many calls were struck."""
        return 0 if self.run is None else self.run.injected

    def stop(self) -> None:
        """End it before the block ends."""
        if self.run is not None:
            self.run.end("stopped")


class PlanInjection(_Block):
    """A plan for the time of a block. See :func:`inject_plan`."""

    def __init__(self, resilience: Resilience, plan: ChaosPlan, errors: ErrorMakers | None, corrupters: Corrupters | None = None) -> None:
        """Begin when the block does."""
        super().__init__(resilience)
        self.plan = plan
        self._errors = errors
        self._corrupters = corrupters
        self.run: PlanRun | None = None
        """The plan at work; None before it began."""

    def _begin(self) -> None:
        self.run = self._resilience.chaos.arm_plan(self.plan, errors=self._errors, corrupters=self._corrupters)

    def stop(self) -> None:
        """End all windows, before the block does."""
        if self.run is not None:
            self.run.stop()

    @property
    def injected(self) -> int:
        """How many calls were struck."""
        return 0 if self.run is None else self.run.injected


def can_have(guard: Guard, kind: str) -> bool:
    """Whether a fault of this kind can strike a guard."""
    realms = FAULTS[kind].realms
    return (
        Realm.GUARD in realms or (Realm.STREAM in realms and guard.has_streams) or (Realm.BREAKER in realms and guard.breaker is not None)
    )


def inject(
    resilience: Resilience,
    target: str,
    kind: str = "error",
    *,
    rate: float = 1.0,
    duration: float | timedelta = 3_600.0,
    **options: Any,
) -> Injection:
    """Make a fault for the time of a ``with`` or ``async with`` block.

    For example ``with inject(resilience, "llm.*", "error", error=LLMError):``.

    ``kind`` is one of :data:`~somaresil.chaos.vocabulary.FAULTS`; the options are those of :class:`~somaresil.chaos.config.ChaosConfig` by
    the names of :class:`~somaresil.chaos.plan.FaultWindow`, and ``error`` may be a type, an exception or a function that makes one. Chaos
    is allowed for the block (:func:`allow_chaos`).

    Raises :class:`~somaresil.errors.ConfigurationError`, also for a target that no guard matches, with the names that come near.
    """
    check = Checker("inject")
    known = {SHORT_NAMES.get(option.name, option.name) for option in fields(ChaosConfig)}
    for name in options.keys() - known:
        check.problem(name, options[name], f"one of {', '.join(sorted(known))}", did_you_mean(name, known))
    check.finish()
    given = {LONG_NAMES.get(name, name): value for name, value in options.items()}
    config = ChaosConfig(cast("ChaosExperiment", kind), target, rate, duration, **given)  # a word becomes its member there
    return Injection(resilience, config)


def inject_plan(
    resilience: Resilience, plan: ChaosPlan, *, errors: ErrorMakers | None = None, corrupters: Corrupters | None = None
) -> PlanInjection:
    """The windows of a plan, from the beginning of a ``with`` or ``async with`` block until its end at the latest."""
    return PlanInjection(resilience, plan, errors, corrupters)
