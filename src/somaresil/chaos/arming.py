"""Starting experiments: what is asked for is looked at whole, and then all of it is armed, or nothing."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.chaos.clienterrors import known_errors
from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.chaos.plan import ERRORS, ChaosPlan, PlanRun
from somaresil.chaos.run import ExperimentRun
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from somaresil.chaos.audit import AuditLog
    from somaresil.chaos.permission import Place
    from somaresil.chaos.placing import Placement
    from somaresil.chaos.plan import Corrupters, ErrorMakers
    from somaresil.chaos.safety import Safety
    from somaresil.chaos.split import Split
    from somaresil.chaos.vetting import Vetting
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["Arming"]

_KEPT: Final = 64
_MOST_PAIRS: Final = 200
_COUNTS: Final = ("struck", "withheld", "overflowed")


class Arming:
    """Starts experiments, and knows those that run and what all of them have done."""

    safety: Safety
    """Kill switches, lever, conditions and audit log, for the other parts of the process."""
    placement: Placement
    """Where experiments strike, for the other parts of the process."""
    vetting: Vetting
    """What may be started."""

    def __init__(
        self, place: Place, guards: Callable[[], Mapping[str, Guard]], *, clock: Clock, chance: Chance, listeners: Listeners
    ) -> None:
        """Nothing has been started."""
        self.place = place
        self._guards = guards
        self._clock = clock
        self._chance = chance
        self._listeners = listeners
        self._lock = threading.RLock()
        self._number = 0
        self._runs: tuple[ExperimentRun, ...] = ()
        self._ended = Counter[str]()
        self._forgotten: dict[str, dict[tuple[str, str], int]] = {counts: {} for counts in _COUNTS}
        self.split: Split | None = None
        """The control and experiment groups of the plan that runs; the middleware asks for it only while ``http`` has something."""

    @property
    def listeners(self) -> Listeners:
        """Who is told."""
        return self._listeners

    @property
    def audit(self) -> AuditLog:
        """Who did what, and when."""
        return self.safety.audit

    # -- starting ---------------------------------------------------------------------------------------------------------------------

    def arm(self, config: ChaosConfig, *, actor: str | None = None) -> ExperimentRun:
        """Start an experiment. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is armed.

        Outside the blast radius nothing is armed either, and the run says so (:attr:`ExperimentRun.selected`). ``actor``: who does it, for
        the audit log; None: who :func:`~somaresil.chaos.audit.acting` says, or the environment.
        """
        try:
            run = self._armed(config, actor)
        except ConfigurationError as refused:
            self._note_refusal(refused, config if isinstance(config, ChaosConfig) else None, actor)
            raise
        return run

    def _armed(self, config: ChaosConfig, actor: str | None) -> ExperimentRun:
        check = Checker("chaos")
        self.vetting.permission(check)
        if not isinstance(config, ChaosConfig):
            check.problem("config", config, "a ChaosConfig")
            check.finish()
        self.vetting.allowed.check_ceilings(
            check,
            failure_rate=config.highest_rate,
            duration_seconds=config.duration_seconds,
            delay_seconds=config.longest_delay,
        )
        self.vetting.target(check, config.target_component, config.experiment)
        self.vetting.process(check, config, "experiment", "target_component")
        self.safety.prepare(check)
        conditions = self.safety.conditions(check, config.stop_when)
        self.safety.check_budgets(check, config.target_component)
        now = self._clock.monotonic()
        _ = self.runs  # ends the leases that are over, with no lock held: listeners hear of it
        span = (now, now + float(config.duration_seconds))  # type: ignore[arg-type]
        with self._lock:
            self.vetting.number(check, [span], self._runs)
            self.vetting.overlap(check, config, span, self._runs)
            check.finish()
            self._number += 1
            run = self._run(f"{config.experiment.value}-{self._number}", config, self._chance)
            if run.selected:
                self._runs = (*self._forget_old(), run)
        self._note_start(run, actor)
        if run.selected:
            self.safety.keep(run, conditions)
            self.placement.place(run)
        return run

    def check_plan(
        self, plan: ChaosPlan, *, errors: ErrorMakers | None = None, corrupters: Corrupters | None = None, split: bool = False
    ) -> None:
        """Raise what :meth:`arm_plan` would raise now, but for experiments that run: their number, and their targets. Nothing is armed."""
        check = Checker("chaos")
        self.vetting.permission(check)
        _ = self.runs
        known, ways = known_errors({**ERRORS, **(errors or {})}), dict(corrupters or {})
        self.vetting.windows(check, plan, known, ways, self.safety.conditions, await_guards=False)
        self.safety.prepare(check)
        if split:
            self.vetting.split(check, plan, self.split)
        check.finish()

    def arm_plan(
        self,
        plan: ChaosPlan,
        *,
        errors: ErrorMakers | None = None,
        corrupters: Corrupters | None = None,
        await_guards: bool = False,
        split: Split | None = None,
        allow_overlap: bool = False,
        actor: str | None = None,
        label: str | None = None,
    ) -> PlanRun:
        """Start a plan now: each of its windows is a lease that begins and ends by the clock, with no task, thread or timer.

        ``errors`` adds to the errors that the plan may name (:data:`~somaresil.chaos.plan.ERRORS` and those of client libraries,
        :mod:`somaresil.chaos.clienterrors`), ``corrupters`` to the ways to damage an answer. ``await_guards`` takes targets that no guard
        matches yet. With a ``split`` its experiment group alone is struck. The plan draws by its own seed: which calls are struck depends
        on the plan and on the calls, and on nothing that was started before. ``allow_overlap``: its windows may strike what is struck
        already, whatever they say themselves. ``actor`` as in :meth:`arm`. With a ``label`` the ids of its experiments are that and a
        number from 1: the same in every process that starts it so, and no experiment that is remembered may have them.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is armed.
        """
        try:
            return self._armed_plan(plan, errors, corrupters, split, actor, label, await_guards=await_guards, allow_overlap=allow_overlap)
        except ConfigurationError as refused:
            self._note_refusal(refused, None, actor)
            raise

    def _armed_plan(
        self,
        plan: ChaosPlan,
        errors: ErrorMakers | None,
        corrupters: Corrupters | None,
        split: Split | None,
        actor: str | None,
        label: str | None,
        *,
        await_guards: bool,
        allow_overlap: bool,
    ) -> PlanRun:
        check = Checker("chaos")
        self.vetting.permission(check)
        if not isinstance(plan, ChaosPlan):
            check.problem("plan", plan, "a ChaosPlan", "ChaosPlan.from_json(text) reads one")
        if not self.vetting.names(check, errors, corrupters) or not isinstance(plan, ChaosPlan):
            check.finish()
        if label is not None:
            check.name("label", label)
        known, ways = known_errors({**ERRORS, **(errors or {})}), dict(corrupters or {})
        configs, conditions = self.vetting.windows(check, plan, known, ways, self.safety.conditions, await_guards=await_guards)
        self.safety.prepare(check)
        now = self._clock.monotonic()
        chance = Chance(plan.seed)
        _ = self.runs
        with self._lock:
            self.vetting.number(check, [(now + window.start, now + window.end) for window in plan.windows], self._runs)
            for index, (window, config) in enumerate(zip(plan.windows, configs, strict=True)):
                if config is not None and not allow_overlap:
                    place = check.child(f"plan.windows[{index}]")
                    self.vetting.overlap(place, config, (now + window.start, now + window.end), self._runs, name="target")
            if split is not None:
                self.vetting.split(check, plan, self.split)
            taken = {run.id for run in self._runs}.intersection(f"{label}-{index}" for index, _ in enumerate(configs, 1))
            if label is not None and taken:
                check.problem("label", label, "one that no experiment has", f"{min(taken)} is remembered still")
            check.finish()
            self.split = split or self.split
            runs = []
            for index, (window, config) in enumerate(zip(plan.windows, configs, strict=True)):
                self._number += 1
                identity = f"{window.kind}-{self._number}" if label is None else f"{label}-{index + 1}"
                runs.append(self._run(identity, config, chance, now=now, starts_in=window.start, draws=f"plan.{index}"))  # type: ignore[arg-type]
                runs[-1].split = split
            self._runs = (*self._forget_old(len(runs)), *runs)
        plan_run = PlanRun(plan, tuple(runs), now + plan.duration)
        try:
            if split is not None:
                self._attend(split, plan_run)
            for run, stops in zip(runs, conditions, strict=True):
                self._note_start(run, actor)
                self.safety.keep(run, stops)
                self.placement.place(run)
        except BaseException:
            plan_run.stop()
            self._forget_split(split)
            raise
        return plan_run

    def _attend(self, split: Split, plan_run: PlanRun) -> None:
        """Have the middleware put requests into groups for as long as the plan runs, also where no window is about requests."""
        config = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "http:*", 0.0, max(plan_run.plan.duration, 0.001))
        with self._lock:
            self._number += 1
            watcher = self._run(f"split-{self._number}", config, self._chance, seen=lambda _: None)
            self._runs = (*self._forget_old(), watcher)
        watcher.on_end(lambda: self._forget_split(split))
        self.placement.place(watcher)
        left = [*plan_run.runs]

        def one_less() -> None:
            left.pop()
            if not left:
                watcher.end()

        for run in plan_run.runs:
            run.on_end(one_less)

    def _forget_split(self, split: Split | None) -> None:
        with self._lock:
            if self.split is split:
                self.split = None

    async def run_plan(self, plan: ChaosPlan, *, errors: ErrorMakers | None = None, corrupters: Corrupters | None = None) -> PlanRun:
        """Start a plan as :meth:`arm_plan` does, and return when its last window is over. Cancelling it ends the windows."""
        plan_run = self.arm_plan(plan, errors=errors, corrupters=corrupters)
        try:
            for run in plan_run.runs:
                while not run.over:
                    # Woken when it is stopped; a call that it delays waits in the same way.
                    await run.hold(Asyncio(self._clock), run.span[1] - self._clock.monotonic(), counts=False)
        finally:
            plan_run.stop()
        return plan_run

    def track(self, seen: Callable[[str], object], duration_seconds: float = 60.0) -> ExperimentRun:
        """Tell ``seen`` the path of every call that reaches a fault point, of every guard, and strike nothing: for tools that explore.

        Guards that are made later tell too. It needs the same permission as an experiment, since it takes the quiet path away.
        """
        check = Checker("chaos")
        self.vetting.permission(check)
        config = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "*", 0.0, duration_seconds)
        self.vetting.allowed.check_ceilings(check, duration_seconds=config.duration_seconds)
        check.finish()
        with self._lock:
            run = self._run("track", config, self._chance, seen=seen)
            self._runs = (*self._forget_old(), run)
        for guard in self._guards().values():
            self.placement.arm_guard(run, guard)
        return run

    def _run(
        self,
        identity: str,
        config: ChaosConfig,
        chance: Chance,
        *,
        now: float | None = None,
        starts_in: float = 0.0,
        draws: str | None = None,
        seen: Callable[[str], object] | None = None,
    ) -> ExperimentRun:
        run = ExperimentRun(
            identity,
            config,
            selected=self.vetting.selected(config),
            clock=self._clock,
            chance=chance,
            listeners=self._listeners,
            now=now,
            starts_in=starts_in,
            draws=draws,
            seen=seen,
            look=self.safety.look,
            active=self.safety.active,
        )
        if seen is None:
            run.on_end(partial(self._count_end, run))
        return run

    def _count_end(self, run: ExperimentRun) -> None:
        ended = run.end_reason or ""
        # What a condition is called is for the event of its end: names of people's making are many.
        reason = "condition" if ended.startswith("condition ") else ended.replace(" ", "_")
        with self._lock:
            self._ended[reason] += 1

    # -- what was started -------------------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[ExperimentRun, ...]:
        """The experiments that run now."""
        return tuple(run for run in self._runs if run.live)

    @property
    def history(self) -> tuple[ExperimentRun, ...]:
        """The last 64 experiments, and all those that run."""
        return self._runs

    def faults(self) -> dict[tuple[str, str], int]:
        """How many calls were struck since the process began, by component and kind of fault; at most 200 pairs, then ``_other``."""
        return self._counted("struck")

    def withheld(self) -> dict[tuple[str, str], int]:
        """How many calls dry runs would have struck, as in :meth:`faults`."""
        return self._counted("withheld")

    def overflows(self) -> dict[tuple[str, str], int]:
        """How many calls passed unharmed because too many were held up already, as in :meth:`faults`."""
        return self._counted("overflowed")

    def ended(self) -> dict[str, int]:
        """How many experiments have ended since the process began, by why: ``expired``, ``stopped``, ``stop_all``, ``condition`` ..."""
        with self._lock:
            return dict(self._ended)

    def forget_runs(self, runs: Iterable[ExperimentRun]) -> None:
        """Keep of these what they have struck."""
        with self._lock:
            for run in runs:
                for counts in _COUNTS:
                    _add(self._forgotten[counts], run, counts)

    def others(self) -> Iterable[ExperimentRun]:
        """Experiments that count and that nobody has armed here: those of request plans."""
        return ()

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _configured(
        self, experiment: ChaosExperiment, component: str, rate: float, duration: float | timedelta, **options: Any
    ) -> ChaosConfig:
        """The configuration, or one error with its problems and those that :meth:`arm` would have found."""
        try:
            return ChaosConfig(experiment, component, rate, duration, **options)
        except ConfigurationError as wrong:
            check = Checker("chaos")
            self.vetting.permission(check)
            named = {problem.path.removeprefix("ChaosConfig.") for problem in wrong.problems}
            longest = getattr(delay := options.get("delay_seconds", 0.0), "longest", delay)
            given = {"failure_rate": rate, "duration_seconds": duration, "delay_seconds": longest}
            wrong_names = {name.partition(".")[0] for name in named}
            self.vetting.allowed.check_ceilings(check, **{name: 0.0 if name in wrong_names else given[name] for name in given})
            if "target_component" not in named:
                self.vetting.target(check, component, experiment)
            refused = ConfigurationError([*wrong.problems, *check.problems])
            self._note_refusal(refused, None, None)
            raise refused from None

    def _note_start(self, run: ExperimentRun, actor: str | None) -> None:
        self.audit.note("arm", "armed" if run.selected else "outside the blast radius", experiment=run.id, config=run.config, who=actor)

    def _note_refusal(self, refused: ConfigurationError, config: ChaosConfig | None, actor: str | None) -> None:
        # Paths and what is allowed there: a value that was refused may be anything, a secret too.
        problems = "; ".join(f"{problem.path}: expected {problem.allowed}" for problem in refused.problems)
        self.audit.note("refuse", problems, config=config, who=actor)

    def _counted(self, counts: str) -> dict[tuple[str, str], int]:
        with self._lock:
            found = dict(self._forgotten[counts])
            for run in (*self._runs, *self.others()):
                _add(found, run, counts)
        return found

    def _forget_old(self, new: int = 1) -> tuple[ExperimentRun, ...]:
        """The experiments to keep beside new ones. One that is not over is never forgotten: the kill switch must find it."""
        surplus = [run for run in self._runs if run.end_reason is not None and not run.delaying][: max(0, len(self._runs) + new - _KEPT)]
        for run in surplus:
            for counts in _COUNTS:
                _add(self._forgotten[counts], run, counts)
        return tuple(run for run in self._runs if run not in surplus)


def _add(counts: dict[tuple[str, str], int], run: ExperimentRun, what: str) -> None:
    for component, struck in getattr(run, what).items():
        key = (component, run.config.experiment.value)
        if key not in counts and len(counts) >= _MOST_PAIRS:
            key = ("_other", "_other")
        counts[key] = counts.get(key, 0) + struck
