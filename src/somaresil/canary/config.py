"""How a candidate gets its traffic, and what has to be seen before it gets more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from somaresil.canary.ledger import Levels
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.rollout import COMPLETE, OVERDUE, ROLLBACK, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from somaresil.slo.tracker import SLOTracker

__all__ = ["CanaryConfig", "CanaryPhase", "config_of"]

_MOST_STEPS: Final = 100
_LONGEST: Final = 30 * 86_400.0
_BAKE_BELOW: Final = 10.0
"""A first step below so many percent is there to see whether the candidate runs at all."""


class CanaryPhase(StrEnum):
    """The phases of the usual rollout, and how it ends. Other steps have phases of their own: ``ramp_25``."""

    BAKE = "bake"
    RAMP_10 = "ramp_10"
    RAMP_50 = "ramp_50"
    RAMP_100 = "ramp_100"
    COMPLETE = COMPLETE
    ROLLBACK = ROLLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryConfig:
    """One rollout. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""

    name: str
    bad: str | Sequence[str]
    """The objectives that say what is a bad event. With several an event is bad when one of them says so."""
    steps: Sequence[float | Phase] = (1.0, 10.0, 50.0, 100.0)
    """Percent of the traffic, growing, 100 at most; or a :class:`~somaresil.model.rollout.Phase`, which says the rest of itself too."""
    bake: float | timedelta = 300.0
    """Seconds that a step lasts at least."""
    minimum_events: int = 50
    """Events of the candidate that a step has at least."""
    prove: bool = False
    """Whether each step but that of 100 % must show that the candidate is not ``worst`` times as bad; else it suffices that it is not
    shown to be worse. Proof comes from bad events alone: with few of them it takes long."""
    longest: float | timedelta | None = None
    """Seconds after which ``overdue`` decides about a step; None: it waits for ever."""
    overdue: Literal["hold", "promote", "rollback"] = "hold"
    alpha: float = 0.01
    """Probability that a candidate which is no worse is ever rolled back, at most, however often one looks."""
    beta: float = 0.05
    """Probability that one which is ``worst`` times as bad is ever shown not to be, at most."""
    worst: float = 2.0
    """Risk ratio that is too much."""
    allowed: float | Literal["objective"] | None = "objective"
    """Share of the candidate's own events that may be bad, whatever the control does; None: any. Several objectives add up.

    Of sticky users those events count that came when all of them were with the candidate."""
    sticky: bool = False
    """Whether a user keeps to one side: then only his first bad event is evidence, and events need a key."""
    interval: float | timedelta | None = 5.0
    """Seconds between two looks, in a daemon thread; None: somebody calls ``evaluate``. A failure does not wait for a look."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats and steps as phases."""
        check = Checker(f"CanaryConfig({self.name!r})")
        check.name("name", self.name)
        object.__setattr__(self, "bad", self._checked_bad(check))
        bake = check.seconds("bake", self.bake, exclusive=False, maximum=_LONGEST)
        object.__setattr__(self, "bake", bake)
        check.count("minimum_events", self.minimum_events, minimum=0, maximum=10**9)
        check.type("prove", self.prove, bool, "True or False")
        check.type("sticky", self.sticky, bool, "True or False")
        longest = check.seconds("longest", self.longest, optional=True, maximum=_LONGEST)
        object.__setattr__(self, "longest", longest)
        check.one_of("overdue", self.overdue, OVERDUE)
        object.__setattr__(self, "interval", check.seconds("interval", self.interval, optional=True, minimum=0.05, exclusive=False))
        if self.allowed not in {None, "objective"} and not isinstance(self.allowed, int | float):
            check.problem(
                "allowed", self.allowed, "a ratio between 0 and 1, 'objective' or None", did_you_mean(self.allowed, ["objective"])
            )
        try:
            Levels(alpha=self.alpha, beta=self.beta, worst=self.worst, allowed=None if isinstance(self.allowed, str) else self.allowed)
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(problem.path.partition(".")[2], problem.value, problem.allowed, problem.hint)
        phases = self._checked_steps(check, bake, float("inf") if longest is None else longest)
        check.finish()
        object.__setattr__(self, "steps", phases)

    def _checked_bad(self, check: Checker) -> tuple[str, ...]:
        given: Any = self.bad
        names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
        if not names or not all(isinstance(name, str) and name for name in names):
            hint = "without one nobody knows what a bad event is: add an SLO and name it here"
            check.problem("bad", given, "the name of an objective, or several", hint)
        return names

    def _checked_steps(self, check: Checker, bake: float, longest: float) -> tuple[Phase, ...]:
        given: Any = self.steps
        if not isinstance(given, list | tuple) or not 0 < len(given) <= _MOST_STEPS:
            check.problem("steps", given, f"1 to {_MOST_STEPS} percentages or phases")
            return ()
        phases: list[Phase] = []
        for number, step in enumerate(given):
            path = f"steps[{number}]"
            if not isinstance(step, Phase):
                percent = check.number(path, step, minimum=0.0, maximum=100.0)
                name = CanaryPhase.BAKE if not number and len(given) > 1 and percent < _BAKE_BELOW else f"ramp_{percent:g}"
                # With everything on one side there is nothing to compare with.
                step = Phase(str(name), percent / 100.0, bake, self.minimum_events, self.prove and percent < 100.0, longest, self.overdue)  # noqa: PLR2004, PLW2901
            else:
                _check_phase(check.child(path), step)
            if phases and isinstance(step.weight, int | float) and step.weight <= phases[-1].weight:
                check.problem(path, f"{step.weight:.3%}", f"more than the step before ({phases[-1].weight:.3%})", "weights only grow")
            if step.name in {phase.name for phase in phases}:
                check.problem(f"{path}.name", step.name, "a name that no other step has")
            if step.weight > 0.0 and not step.minimum_events and not step.prove:
                hint = "give it minimum_events, or prove=True"
                check.problem(f"{path}.minimum_events", step.minimum_events, "a rule about evidence: time alone says nothing", hint)
            phases.append(step)
        return tuple(phases)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps as phases."""
        return tuple(step for step in self.steps if isinstance(step, Phase))

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives."""
        return (self.bad,) if isinstance(self.bad, str) else tuple(self.bad)

    def levels(self, slos: SLOTracker) -> Levels:
        """How sure one has to be, with what these objectives allow.

        Raises :class:`~somaresil.errors.ConfigurationError` for those that are not there, or whose events are no calls.
        """
        check = Checker(f"CanaryConfig({self.name!r})")
        allowed = 0.0
        for name in self.objectives:
            if name not in slos.names:
                known = ", ".join(slos.names) or "none is defined"
                check.problem("bad", name, f"an objective that was added ({known})", did_you_mean(name, slos.names))
            elif not slos[name].about_calls or slos[name].freshness is not None:
                check.problem("bad", name, "an objective whose events are calls", f"it is about {slos[name].indicator}")
            else:
                allowed += 1.0 - slos[name].target_percentage / 100.0
        check.finish()
        limit = self.allowed if not isinstance(self.allowed, str) else min(allowed, 0.999)
        return Levels(alpha=self.alpha, beta=self.beta, worst=self.worst, allowed=limit)


def config_of(check: Checker, name: str, *, bad: str | Sequence[str], sticky: bool, options: Mapping[str, Any]) -> CanaryConfig | None:
    """The configuration with these options of it; None when something is wrong with them, which ``check`` knows then."""
    for option in options:
        if option not in _OPTIONS:
            check.problem(option, options[option], f"one of {', '.join(_OPTIONS)}", did_you_mean(option, _OPTIONS))
    known = {option: value for option, value in options.items() if option in _OPTIONS}
    try:
        return CanaryConfig(name=name, bad=bad, sticky=sticky, **known)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path.partition(".")[2], problem.value, problem.allowed, problem.hint)
    return None


_OPTIONS: Final = tuple(field for field in CanaryConfig.__dataclass_fields__ if field not in {"name", "bad", "sticky"})
"""What is an option of a canary that wraps something: the rest follows from what it wraps."""


def _check_phase(check: Checker, phase: Phase) -> None:
    if phase.name in {COMPLETE, ROLLBACK}:
        check.problem("name", phase.name, "a name of its own", "so the end is called")
    else:
        check.name("name", phase.name)
    check.ratio("weight", phase.weight)
    check.seconds("bake", phase.bake, exclusive=False, maximum=_LONGEST)
    check.count("minimum_events", phase.minimum_events, minimum=0, maximum=10**9)
    check.type("prove", phase.prove, bool, "True or False")
    check.one_of("overdue", phase.overdue, OVERDUE)
    if phase.longest != float("inf"):
        check.seconds("longest", phase.longest, maximum=_LONGEST)
    if phase.weight in {0.0, 1.0} and phase.prove:
        check.problem("prove", phase.prove, "False with 0 or 100 % of the traffic", "with one side alone nothing can be compared")
    if phase.weight == 0.0 and phase.minimum_events:
        check.problem("minimum_events", phase.minimum_events, "0 without traffic")
