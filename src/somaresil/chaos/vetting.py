"""What stands in the way of an experiment: permission, ceilings, targets that are not there, too many at once, overlaps.

It is asked before anything is armed, notes every problem it finds, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.clienterrors import known_errors, unknown_error
from somaresil.chaos.config import PROCESS_TARGETS, ChaosConfig, ChaosExperiment
from somaresil.chaos.overlap import overlap
from somaresil.chaos.permission import NOTHING
from somaresil.chaos.plan import ERRORS, ChaosPlan, FaultWindow
from somaresil.chaos.transforms import CORRUPTIONS
from somaresil.chaos.vocabulary import short_path
from somaresil.config import did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.selector import is_chosen, is_in_share, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.chaos.conditions import StopCondition
    from somaresil.chaos.permission import Place
    from somaresil.chaos.plan import Corrupters, ErrorMakers
    from somaresil.chaos.process import ProcessFault
    from somaresil.chaos.run import ExperimentRun
    from somaresil.chaos.split import Split
    from somaresil.config import Checker
    from somaresil.guard import Guard

__all__ = ["MEET", "Vetting", "unknown_target"]

MEET: Final = "stop that first, or say allow_overlap=True"
"""The hint of an overlap, by which it is told from what is wrong in itself."""


class Vetting:
    """The questions of one engine."""

    def __init__(
        self,
        place: Place,
        guards: Callable[[], Mapping[str, Guard]],
        middlewares: Callable[[], int],
        fault_of: Callable[[ChaosExperiment], ProcessFault | None],
    ) -> None:
        """Nothing is allowed."""
        self.place = place
        self._guards = guards
        self._middlewares = middlewares
        self._fault_of = fault_of
        self.allowed = NOTHING
        """What was opted in to."""

    def permission(self, check: Checker) -> None:
        """Note why there may be no experiment at all."""
        self.allowed.check(check, self.place)

    def checked(
        self, check: Checker, fault: ChaosConfig | FaultWindow, errors: ErrorMakers | None, *, await_guards: bool
    ) -> ChaosConfig | None:
        """The experiment that ``fault`` stands for; notes what would keep it from being started where chaos is permitted."""
        if isinstance(fault, FaultWindow):
            if fault.start:
                check.problem("start", fault.start, "0", "a request plan begins with its request")
            return self.planned(check, fault, known_errors({**ERRORS, **(errors or {})}), {}, await_guards)
        if not isinstance(fault, ChaosConfig):
            check.problem("fault", fault, "a ChaosConfig or a FaultWindow")
            return None
        self.allowed.check_ceilings(
            check, failure_rate=fault.failure_rate, duration_seconds=fault.duration_seconds, delay_seconds=fault.delay_seconds
        )
        self.target(check, fault.target_component, fault.experiment, await_guards=await_guards)
        return fault

    @staticmethod
    def names(check: Checker, errors: object, corrupters: object) -> bool:
        """Note what cannot say what names in a plan mean. Whether both can."""
        before = len(check.problems)
        if errors is not None and not isinstance(errors, Mapping):
            check.problem("errors", errors, "names of errors and what they mean, or None", "a dictionary of types or functions")
        if corrupters is not None and not (isinstance(corrupters, Mapping) and all(callable(way) for way in corrupters.values())):
            check.problem("corrupters", corrupters, "names and functions of an answer and a draw, or None")
        return len(check.problems) == before

    def windows(
        self,
        check: Checker,
        plan: ChaosPlan,
        errors: ErrorMakers,
        corrupters: Corrupters,
        conditions_of: Callable[[Checker, tuple[Any, ...]], list[StopCondition]],
        *,
        await_guards: bool,
    ) -> tuple[list[ChaosConfig | None], list[list[StopCondition]]]:
        """The experiments of the windows of a plan (None: there can be none), and what stops each of them."""
        configs, conditions = [], []
        for i, window in enumerate(plan.windows):
            place = check.child(f"plan.windows[{i}]")
            config = self.planned(place, window, errors, corrupters, await_guards)
            configs.append(config)
            conditions.append([] if config is None else conditions_of(place, config.stop_when))
        return configs, conditions

    def planned(
        self,
        check: Checker,
        window: FaultWindow,
        errors: ErrorMakers,
        corrupters: Corrupters,
        await_guards: bool,  # noqa: FBT001 - one caller, in its own order
    ) -> ChaosConfig | None:
        """The experiment of one window, or notes why there can be none."""
        if window.error is not None and window.error not in errors:
            check.problem("error", window.error, *unknown_error(window.error, errors))
            errors = {window.error: OSError}  # so that the rest of it is looked at too
        if window.corrupt not in CORRUPTIONS and window.corrupt not in corrupters:
            allowed = f"one of {', '.join([*CORRUPTIONS, *sorted(corrupters)])}"
            hint = did_you_mean(window.corrupt, [*CORRUPTIONS, *corrupters]) or "allow it: corrupters={name: function}"
            check.problem("corrupt", window.corrupt, allowed, hint)
            corrupters = {window.corrupt: CORRUPTIONS["any"]}
        try:
            config = window.config(errors, corrupters)
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(short_path(problem.path.removeprefix("ChaosConfig.")), problem.value, problem.allowed, problem.hint)
            return None
        limits = {"rate": config.highest_rate, "duration": config.duration_seconds, "delay": config.longest_delay}
        self.allowed.check_ceilings(check, **limits)
        self.target(check, config.target_component, config.experiment, name="target", await_guards=await_guards)
        self.process(check, config, "kind", "target")
        return config

    def target(
        self, check: Checker, pattern: str, experiment: ChaosExperiment, *, name: str = "target_component", await_guards: bool = False
    ) -> None:
        """Note a target at which there is nothing to strike."""
        if pattern.startswith("http:"):
            if not self._middlewares() and not await_guards:
                hint = "no ResilienceMiddleware is mounted, so there are no requests to strike; frameworks mount it when the app starts"
                check.problem(name, pattern, "a guard, or a mounted middleware", hint)
            return
        if pattern.startswith(PROCESS_TARGETS):
            # Whether there is such a resource or such a network is for the fault itself to say.
            return
        guards = self._guards()
        found = [guard for known, guard in guards.items() if matches(pattern, known)]
        if not found and not await_guards:
            check.problem(name, pattern, *unknown_target(pattern, guards))
        if experiment is ChaosExperiment.CIRCUIT_TRIP and found and all(guard.breaker is None for guard in found):
            check.problem(name, pattern, "a guard with a breaker", "there is no circuit to open")

    def process(self, check: Checker, config: ChaosConfig, kind: str, target: str) -> None:
        """Ask the fault of the process, if it is one, what stands in its way."""
        if not config.on_process:
            return
        fault = self._fault_of(config.experiment)
        if fault is not None:
            fault.check(check, config, self.allowed.limits, target)
        else:
            check.problem(kind, config.experiment.value, "a fault of calls", "this version cannot do it yet")

    def number(self, check: Checker, spans: list[tuple[float, float]], runs: Iterable[ExperimentRun]) -> None:
        """Note when more would run at once than may."""
        most = _most_at_once([*(run.span for run in runs if run.end_reason is None and not run.tracks), *spans])
        if most > self.allowed.limits.experiments:
            check.problem("experiments", most, f"at most {self.allowed.limits.experiments} at once", "stop one first")

    def overlap(
        self,
        check: Checker,
        config: ChaosConfig,
        span: tuple[float, float],
        runs: Iterable[ExperimentRun],
        *,
        name: str = "target_component",
    ) -> None:
        """Note an experiment that strikes the same at the same time. One outside its blast radius strikes nothing."""
        if config.allow_overlap or not self.selected(config):
            return
        if any(problem.path.endswith(name) and problem.value == config.target_component for problem in check.problems):
            # What is not there meets nobody.
            return
        for run in runs:
            if (
                run.end_reason is None
                and not run.tracks
                and run.span[0] < span[1]
                and span[0] < run.span[1]
                and overlap(config, run.config)
            ):
                allowed = f"a target that {run.id} on {run.config.target_component!r} does not strike"
                check.problem(name, config.target_component, allowed, MEET)
                return

    @staticmethod
    def split(check: Checker, plan: ChaosPlan, running: Split | None) -> None:
        """Note what keeps a plan from striking one of two groups only; ``running``: the groups of a plan that runs."""
        if running is not None:
            check.problem("split", running.name, "one pair of groups at a time", "another plan with groups is running")
        for i, window in enumerate(plan.windows):
            if window.kind == ChaosExperiment.CIRCUIT_TRIP or window.target.startswith(PROCESS_TARGETS):
                hint = "it strikes everybody in the process, the control group as well"
                check.problem(f"plan.windows[{i}].kind", window.kind, "a fault of single calls or requests", hint)

    def selected(self, config: ChaosConfig) -> bool:
        """Whether this process is in the blast radius."""
        me = self.place.member(config.blast_radius)
        if not config.candidates and config.blast_share is None:
            return True
        # The key does not name the run, which each process numbers for itself: the same experiment chooses the same member everywhere.
        key = f"{config.experiment.value}|{config.target_component}"
        if me is None:
            return False
        if config.blast_share is not None:
            return is_in_share(key, me, config.blast_share, config.candidates)
        return is_chosen(key, me, config.candidates)


def unknown_target(pattern: str, guards: Iterable[str]) -> tuple[str, str]:
    """What is allowed in place of a target that no guard matches, and a hint."""
    known = list(guards)
    return f"a guard or a pattern that matches one ({', '.join(_some(known)) or 'there are none'})", did_you_mean(pattern, known)


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    """How many of these spans overlap at most. One that ends where another begins does not overlap it."""
    most = now = 0
    for _, step in sorted([*((begin, 1) for begin, _ in spans), *((end, -1) for _, end in spans)]):
        now += step
        most = max(most, now)
    return most


def _some(names: Iterable[str], most: int = 10) -> list[str]:
    listed = sorted(names)
    return listed if len(listed) <= most else [*listed[:most], f"and {len(listed) - most} more"]
