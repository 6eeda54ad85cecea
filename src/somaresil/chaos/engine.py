"""The chaos engine: arms experiments and ends them.

Off by default, and it says so: it needs ``SOMARESIL_CHAOS=1`` in the environment *and* :meth:`ChaosEngine.opt_in` in the code, an
environment that was named, and for production a second key in both places. A disarmed engine costs a guard nothing but the flag that it
looks at anyway.
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.chaos.capabilities import capabilities
from somaresil.chaos.clienterrors import known_errors
from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.flight import RequestRun
from somaresil.chaos.grading import Grader
from somaresil.chaos.permission import Permission, Place
from somaresil.chaos.placing import Placement
from somaresil.chaos.plan import ERRORS, ChaosPlan, FaultWindow, PlanRun
from somaresil.chaos.process import Warden
from somaresil.chaos.requests import RequestPlans
from somaresil.chaos.resources.registry import Registry
from somaresil.chaos.run import ExperimentRun
from somaresil.chaos.safety import LEVER, STOP_ALL, Safety
from somaresil.chaos.shorthand import Shorthand
from somaresil.chaos.vetting import Vetting
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    import os
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from somaresil.chaos.audit import AuditLog
    from somaresil.chaos.capabilities import Capability
    from somaresil.chaos.conditions import StopCondition
    from somaresil.chaos.killswitch import SharedSwitch
    from somaresil.chaos.plan import Corrupters, ErrorMakers
    from somaresil.chaos.process import ProcessFault
    from somaresil.chaos.split import Split
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["ChaosEngine"]

_KEPT: Final = 64
_MOST_PAIRS: Final = 200
_COUNTS: Final = ("struck", "withheld", "overflowed")

_PROCESS_FAULTS: Final[Mapping[ChaosExperiment, str]] = {
    ChaosExperiment.RESOURCE_EXHAUSTION: "somaresil.chaos.resources:ResourceExhaustion",
    ChaosExperiment.NETWORK_PARTITION: "somaresil.chaos.network.partition:Partition",
}
"""Kinds of fault that strike the process, and where each is made: ``module:function``, imported when first wanted."""


class ChaosEngine(Shorthand):
    """Arms faults in the guards and routes of one process."""

    def __init__(
        self, place: Place, guards: Callable[[], Mapping[str, Guard]], *, clock: Clock, chance: Chance, listeners: Listeners
    ) -> None:
        """Disarmed, and not opted in."""
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
        self._warden = Warden(listeners)
        self._process_faults: dict[ChaosExperiment, ProcessFault] = {}
        self.resources = Registry()
        """The loops, pools and directories that experiments may strike."""
        self.middlewares = 0
        """How many middlewares are there to strike requests."""
        self.split: Split | None = None
        """The control and experiment groups of the plan that runs; the middleware asks for it only while ``http`` has something."""
        self._graders: tuple[Grader, ...] = ()
        self._vetting = Vetting(place, guards, lambda: self.middlewares, self._known_fault)
        self.placement = Placement(guards, self._warden, self._process_fault, lambda: self._vetting.allowed.protected, listeners)
        """Where experiments strike, for the other parts of the process."""
        self.protect = self.placement.protect
        self.strike_request = self.placement.strike_request
        self.spares = self.placement.spares
        self.is_protected = self.placement.is_protected
        self.requests = RequestPlans(self, clock=clock, listeners=listeners)
        """Request plans: what was approved, what is in flight, what was counted."""
        self.safety = Safety(
            place,
            guards,
            lambda: (*self._runs, *self.requests.runs),
            lambda: self._vetting.allowed.limits.active_faults,
            self.requests.kill,
            clock=clock,
            listeners=listeners,
        )
        """Kill switches, lever, conditions and audit log, for the other parts of the process."""
        self.approve = self.requests.approve
        self.revoke = self.requests.revoke
        self.accept_plans = self.requests.accept_plans
        self.refuse_plans = self.requests.refuse_plans
        self.pass_plans_to = self.requests.pass_plans_to
        self.sign_plan = self.requests.sign_plan
        self.carry = self.requests.carry
        self.carrying = self.requests.carrying
        self.carry_stream = self.requests.carry_stream

    # -- permission -------------------------------------------------------------------------------------------------------------------

    def opt_in(
        self,
        ceilings: ChaosCeilings | None = None,
        *,
        production: bool = False,
        switch: str | os.PathLike[str] | None = None,
    ) -> None:
        """Allow experiments in this process, up to ``ceilings``.

        ``production=True`` is one half of the second key; the other is the environment variable ``SOMARESIL_CHAOS_PRODUCTION`` with the
        name of the service. The environment variable ``SOMARESIL_CHAOS=1`` is needed as well, and asked for at each start, so an
        operator can forbid what the code allows.

        ``switch``: the file of the kill switch of the host (:mod:`somaresil.chaos.killswitch`), or ``off``; None: what the environment
        variable ``SOMARESIL_CHAOS_SWITCH`` says, or the usual place.
        """
        check = Checker("chaos.opt_in")
        if switch is not None and not (isinstance(switch, str | PathLike) and str(switch)):
            check.problem("switch", switch, "a path, off, or None")
        check.type("ceilings", ceilings, (ChaosCeilings, type(None)), "ChaosCeilings(...) or None")
        check.type("production", production, bool, "True or False")
        check.finish()
        self._vetting.allowed = Permission(ceilings or ChaosCeilings(), production)
        self.safety.path = switch if switch is not None else self.safety.path
        self.audit.note("opt_in", "production too" if production else "not in production")

    def permission(self) -> Permission:
        """What :meth:`opt_in` has allowed. :meth:`permit` takes it back."""
        return self._vetting.allowed

    def permit(self, permission: Permission) -> None:
        """Allow what was allowed when :meth:`permission` was asked, for whoever allows something for a time."""
        self._vetting.allowed = permission

    def capabilities(self) -> Mapping[str, Capability]:
        """What faults of the process can be done here, by name, and why not the others; tried, not guessed. Needs no permission."""
        return capabilities()

    @property
    def listeners(self) -> Listeners:
        """Who is told."""
        return self._listeners

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
        self._vetting.permission(check)
        if not isinstance(config, ChaosConfig):
            check.problem("config", config, "a ChaosConfig")
            check.finish()
        self._vetting.allowed.check_ceilings(
            check,
            failure_rate=config.highest_rate,
            duration_seconds=config.duration_seconds,
            delay_seconds=config.longest_delay,
        )
        self._vetting.target(check, config.target_component, config.experiment)
        self._vetting.process(check, config, "experiment", "target_component")
        self.safety.prepare(check)
        conditions = self.safety.conditions(check, config.stop_when)
        self.safety.check_budgets(check, config.target_component)
        now = self._clock.monotonic()
        _ = self.runs  # ends the leases that are over, with no lock held: listeners hear of it
        span = (now, now + float(config.duration_seconds))  # type: ignore[arg-type]
        with self._lock:
            self._vetting.number(check, [span], self._runs)
            self._vetting.overlap(check, config, span, self._runs)
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
        self._vetting.permission(check)
        _ = self.runs
        known, ways = known_errors({**ERRORS, **(errors or {})}), dict(corrupters or {})
        self._vetting.windows(check, plan, known, ways, self.safety.conditions, await_guards=False)
        self.safety.prepare(check)
        if split:
            self._vetting.split(check, plan, self.split)
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
        self._vetting.permission(check)
        if not isinstance(plan, ChaosPlan):
            check.problem("plan", plan, "a ChaosPlan", "ChaosPlan.from_json(text) reads one")
        if not self._vetting.names(check, errors, corrupters) or not isinstance(plan, ChaosPlan):
            check.finish()
        if label is not None:
            check.name("label", label)
        known, ways = known_errors({**ERRORS, **(errors or {})}), dict(corrupters or {})
        configs, conditions = self._vetting.windows(check, plan, known, ways, self.safety.conditions, await_guards=await_guards)
        self.safety.prepare(check)
        now = self._clock.monotonic()
        chance = Chance(plan.seed)
        _ = self.runs
        with self._lock:
            self._vetting.number(check, [(now + window.start, now + window.end) for window in plan.windows], self._runs)
            for index, (window, config) in enumerate(zip(plan.windows, configs, strict=True)):
                if config is not None and not allow_overlap:
                    place = check.child(f"plan.windows[{index}]")
                    self._vetting.overlap(place, config, (now + window.start, now + window.end), self._runs, name="target")
            if split is not None:
                self._vetting.split(check, plan, self.split)
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
        self._vetting.permission(check)
        config = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "*", 0.0, duration_seconds)
        self._vetting.allowed.check_ceilings(check, duration_seconds=config.duration_seconds)
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
            selected=self._vetting.selected(config),
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

    # -- stopping ---------------------------------------------------------------------------------------------------------------------

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

    @property
    def http(self) -> tuple[ExperimentRun, ...]:
        """The experiments on requests."""
        return self.placement.http

    @property
    def protected(self) -> tuple[str, ...]:
        """Patterns of paths that ``protect`` was told of."""
        return self.placement.protected

    @property
    def process_faults(self) -> tuple[ExperimentRun, ...]:
        """The experiments whose fault of the process (a resource that is taken, a partition) is there at this moment."""
        return tuple(self._warden.active)

    def releases(self) -> dict[tuple[str, str, str], int]:
        """How many faults of the process were released since it began, by target, kind and reason; at most 200, then ``_other``."""
        return self._warden.ended()

    @property
    def active_faults(self) -> int:
        """How many calls are being held up by faults at this moment."""
        return self.safety.active.total

    def stop(self, run: ExperimentRun, *, actor: str | None = None) -> None:
        """End one experiment, from any thread, at once; calls that it delays go on."""
        run.end("stopped", by=actor)

    def stop_all(self, *, here_only: bool = False, actor: str | None = None) -> bool:
        """The kill switch: end everything, from any thread and any signal handler, at once. Calls that are being delayed go on.

        In this process that needs nothing but this call. The other processes of the service on this host, and those behind a switch that
        was added (:meth:`add_switch`), see it within a second, unless ``here_only``. Request plans are ignored from then on, until
        :meth:`accept_plans` is called again.

        False: the switch cannot be thrown; here all has ended anyway.
        """
        self._end_all(STOP_ALL, actor)
        told = here_only or self.safety.throw(actor or "")
        self.audit.note("stop_all", "here" if here_only else "everywhere" if told else "here; the switch cannot be thrown", who=actor)
        return told

    def engage(self, reason: str = "", *, actor: str | None = None) -> bool:
        """Engage the safety lever: end everything as :meth:`stop_all` does, and let nothing start, here or in another process.

        That holds until :meth:`disengage`, also for processes that start later. False: the switch of the host is off or cannot be
        written, and the lever is engaged in this process only.
        """
        self._end_all(LEVER, actor)
        entry = self.audit.note("engage", reason or "no reason given", who=actor)
        return self.safety.move_lever(True, f"{entry.who}: {reason}" if reason else entry.who) and self.safety.host is not None  # noqa: FBT003

    def disengage(self, reason: str = "", *, actor: str | None = None) -> bool:
        """Let experiments start again. What was stopped stays stopped. False: the switch cannot be written, and its lever is as it was."""
        entry = self.audit.note("disengage", reason or "no reason given", who=actor)
        return self.safety.move_lever(False, entry.who)  # noqa: FBT003 - a position

    @property
    def engaged(self) -> str | None:
        """Who has engaged the safety lever, and why; None: it is released. Raises ``OSError`` when the switch cannot be read."""
        return self.safety.engaged

    def add_switch(self, switch: SharedSwitch) -> Callable[[], None]:
        """Obey one more kill switch, such as that of a fleet in Redis; returns a function that ends it.

        Whatever is started looks at it first: while nobody knows what it says nothing may begin.
        """
        return self.safety.add_switch(switch)

    def condition(self, name: str, condition: StopCondition | Callable[[], object]) -> None:
        """Give a stop condition the name by which plans, files and requests may ask for it. The last one counts.

        Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        self.safety.name_condition(Checker("chaos.condition"), name, condition)

    def stop_when(self, *conditions: StopCondition | str | Callable[[], object]) -> None:
        """Stop every experiment that starts from now on by these conditions too, whatever it says itself. Replaces those set before."""
        self.safety.always(Checker("chaos.stop_when"), conditions)

    @property
    def audit(self) -> AuditLog:
        """Who did what, and when."""
        return self.safety.audit

    # -- resources of the process -----------------------------------------------------------------------------------------------------

    def register_loop(self, loop: AbstractEventLoop | None = None) -> None:
        """Name an event loop that experiments may strike; None: the one that runs here.

        When none was named they strike the loops in which experiments were armed.
        """
        self.resources.register_loop(loop)

    def register_pool(
        self,
        name: str,
        pool: object = None,
        *,
        checkout: Callable[[], Any] | None = None,
        giveback: Callable[[Any], Any] | None = None,
        size: int | None = None,
        reserve: int = 0,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        """Let experiments on ``resource:pool:NAME`` take connections of ``pool``, so that others get its own error or time-out.

        ``pool`` is one of aiohttp, asyncpg, httpx, psycopg_pool, redis-py or SQLAlchemy, or what has one inside, such as a client or an
        engine. For any other there are functions: ``checkout()`` takes a connection, ``giveback(connection)`` returns it; it may raise
        or wait when there is none. Both are plain functions, run in a thread of their own, or coroutine functions. ``size`` is how many
        there are at most; None: experiments have to say.

        ``reserve`` connections are never taken. What suspends is run in ``loop`` (None: the running one). A name that is taken is given
        to the new pool. Raises :class:`~somaresil.errors.ConfigurationError` for a pool that has no limit, or that nobody here knows.
        """
        self.resources.register_pool(name, pool, checkout, giveback, size, reserve, loop)

    def register_directory(self, name: str, path: str | os.PathLike[str]) -> None:
        """Let experiments on ``resource:disk:NAME`` take space of the file system that the directory ``path`` is on."""
        self.resources.register_directory(name, path)

    # -- for the other parts of the process -------------------------------------------------------------------------------------------

    def grade(self) -> Grader:
        """``with``: watch what the code around the guards makes of the faults, and say what it does wrong. Strikes nothing itself.

        Threads and tasks alike; see :mod:`somaresil.chaos.grading`.
        """
        return Grader(self, self._guards, clock=self._clock, listeners=self._listeners)

    def add_grader(self, grader: Grader) -> None:
        """Let it look at guards that are made from now on."""
        with self._lock:
            self._graders = (*self._graders, grader)

    def remove_grader(self, grader: Grader) -> None:
        """No longer."""
        with self._lock:
            self._graders = tuple(other for other in self._graders if other is not grader)

    def guard_added(self, guard: Guard) -> None:
        """A guard was made: experiments that match its name strike it too."""
        for grader in self._graders:
            grader.look_at(guard)
        for run in self._runs:
            if run.over:
                continue
            if not run.config.on_http and not run.config.on_process:
                self.placement.arm_guard(run, guard)
            self.placement.watch_guard(run, guard)
        self.requests.guard_added(guard, self.placement.arm_guard)

    def middleware_added(self) -> None:
        """A middleware is there to strike requests."""
        self.middlewares += 1

    # -- for request plans ------------------------------------------------------------------------------------------------------------

    def permits(self) -> bool:
        """Whether an experiment may be started here and now, as far as the kill switch said lately."""
        check = Checker()
        self._vetting.permission(check)
        return not check.problems and self.safety.allows()

    def checked(
        self, check: Checker, fault: ChaosConfig | FaultWindow, errors: ErrorMakers | None, *, await_guards: bool
    ) -> ChaosConfig | None:
        """See :meth:`Vetting.checked <somaresil.chaos.vetting.Vetting.checked>`."""
        return self._vetting.checked(check, fault, errors, await_guards=await_guards)

    def request_run(self, identity: str, config: ChaosConfig, chance: Chance, draws: str) -> RequestRun:
        """One rule of a request plan, as an experiment that nobody has armed."""
        return RequestRun(
            identity,
            config,
            selected=self._vetting.selected(config),
            clock=self._clock,
            chance=chance,
            listeners=self._listeners,
            draws=draws,
            look=self.safety.look,
            active=self.safety.active,
        )

    def place_run(self, run: RequestRun) -> None:
        """Arm it."""
        if run.selected:
            self.placement.place(run)

    def forget_runs(self, runs: Iterable[ExperimentRun]) -> None:
        """Keep of these what they have struck."""
        with self._lock:
            for run in runs:
                for counts in _COUNTS:
                    _add(self._forgotten[counts], run, counts)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _configured(
        self, experiment: ChaosExperiment, component: str, rate: float, duration: float | timedelta, **options: Any
    ) -> ChaosConfig:
        """The configuration, or one error with its problems and those that :meth:`arm` would have found."""
        try:
            return ChaosConfig(experiment, component, rate, duration, **options)
        except ConfigurationError as wrong:
            check = Checker("chaos")
            self._vetting.permission(check)
            named = {problem.path.removeprefix("ChaosConfig.") for problem in wrong.problems}
            longest = getattr(delay := options.get("delay_seconds", 0.0), "longest", delay)
            given = {"failure_rate": rate, "duration_seconds": duration, "delay_seconds": longest}
            wrong_names = {name.partition(".")[0] for name in named}
            self._vetting.allowed.check_ceilings(check, **{name: 0.0 if name in wrong_names else given[name] for name in given})
            if "target_component" not in named:
                self._vetting.target(check, component, experiment)
            refused = ConfigurationError([*wrong.problems, *check.problems])
            self._note_refusal(refused, None, None)
            raise refused from None

    def _end_all(self, reason: str, actor: str | None) -> None:
        self.requests.kill()
        for run in self._runs:
            run.end(reason, by=actor)

    def _note_start(self, run: ExperimentRun, actor: str | None) -> None:
        self.audit.note("arm", "armed" if run.selected else "outside the blast radius", experiment=run.id, config=run.config, who=actor)

    def _note_refusal(self, refused: ConfigurationError, config: ChaosConfig | None, actor: str | None) -> None:
        # Paths and what is allowed there: a value that was refused may be anything, a secret too.
        problems = "; ".join(f"{problem.path}: expected {problem.allowed}" for problem in refused.problems)
        self.audit.note("refuse", problems, config=config, who=actor)

    def _counted(self, counts: str) -> dict[tuple[str, str], int]:
        with self._lock:
            found = dict(self._forgotten[counts])
            for run in (*self._runs, *self.requests.runs):
                _add(found, run, counts)
        return found

    def _process_fault(self, kind: ChaosExperiment) -> ProcessFault:
        """Who does this kind of fault, one for each engine."""
        with self._lock:
            fault = self._process_faults.get(kind)
            if fault is None:
                module, _, name = _PROCESS_FAULTS[kind].partition(":")
                fault = self._process_faults[kind] = getattr(import_module(module), name)(self)
            return fault

    def _known_fault(self, kind: ChaosExperiment) -> ProcessFault | None:
        return self._process_fault(kind) if kind in _PROCESS_FAULTS else None

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
