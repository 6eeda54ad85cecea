"""The chaos engine: arms experiments and ends them.

Off by default, and it says so: it needs ``SOMARESIL_CHAOS=1`` in the environment *and* :meth:`ChaosEngine.opt_in` in the code, an
environment that was named, and for production a second key in both places. A disarmed engine costs a guard nothing but the flag that it
looks at anyway.
"""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.arming import Arming
from somaresil.chaos.capabilities import capabilities
from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.flight import RequestRun
from somaresil.chaos.grading import Grader
from somaresil.chaos.permission import Permission, Place
from somaresil.chaos.placing import Placement
from somaresil.chaos.process import Warden
from somaresil.chaos.requests import RequestPlans
from somaresil.chaos.resources.registry import Registry
from somaresil.chaos.safety import LEVER, STOP_ALL, Safety
from somaresil.chaos.shorthand import Shorthand
from somaresil.chaos.vetting import Vetting
from somaresil.config import Checker

if TYPE_CHECKING:
    import os
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.chance import Chance
    from somaresil.chaos.capabilities import Capability
    from somaresil.chaos.conditions import StopCondition
    from somaresil.chaos.killswitch import SharedSwitch
    from somaresil.chaos.plan import ErrorMakers, FaultWindow
    from somaresil.chaos.process import ProcessFault
    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["ChaosEngine"]

_PROCESS_FAULTS: Final[Mapping[ChaosExperiment, str]] = {
    ChaosExperiment.RESOURCE_EXHAUSTION: "somaresil.chaos.resources:ResourceExhaustion",
    ChaosExperiment.NETWORK_PARTITION: "somaresil.chaos.network.partition:Partition",
}
"""Kinds of fault that strike the process, and where each is made: ``module:function``, imported when first wanted."""


class ChaosEngine(Arming, Shorthand):
    """Arms faults in the guards and routes of one process."""

    def __init__(
        self, place: Place, guards: Callable[[], Mapping[str, Guard]], *, clock: Clock, chance: Chance, listeners: Listeners
    ) -> None:
        """Disarmed, and not opted in."""
        super().__init__(place, guards, clock=clock, chance=chance, listeners=listeners)
        self._warden = Warden(listeners)
        self._process_faults: dict[ChaosExperiment, ProcessFault] = {}
        self.resources = Registry()
        """The loops, pools and directories that experiments may strike."""
        self.middlewares = 0
        """How many middlewares are there to strike requests."""
        self._graders: tuple[Grader, ...] = ()
        self.vetting = Vetting(place, guards, lambda: self.middlewares, self._known_fault)
        self.placement = Placement(guards, self._warden, self._process_fault, lambda: self.vetting.allowed.protected, listeners)
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
            lambda: self.vetting.allowed.limits.active_faults,
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
        self.vetting.allowed = Permission(ceilings or ChaosCeilings(), production)
        self.safety.path = switch if switch is not None else self.safety.path
        self.audit.note("opt_in", "production too" if production else "not in production")

    def permission(self) -> Permission:
        """What :meth:`opt_in` has allowed. :meth:`permit` takes it back."""
        return self.vetting.allowed

    def permit(self, permission: Permission) -> None:
        """Allow what was allowed when :meth:`permission` was asked, for whoever allows something for a time."""
        self.vetting.allowed = permission

    def capabilities(self) -> Mapping[str, Capability]:
        """What faults of the process can be done here, by name, and why not the others; tried, not guessed. Needs no permission."""
        return capabilities()

    # -- stopping ---------------------------------------------------------------------------------------------------------------------

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
        self.vetting.permission(check)
        return not check.problems and self.safety.allows()

    def checked(
        self, check: Checker, fault: ChaosConfig | FaultWindow, errors: ErrorMakers | None, *, await_guards: bool
    ) -> ChaosConfig | None:
        """See :meth:`Vetting.checked <somaresil.chaos.vetting.Vetting.checked>`."""
        return self.vetting.checked(check, fault, errors, await_guards=await_guards)

    def request_run(self, identity: str, config: ChaosConfig, chance: Chance, draws: str) -> RequestRun:
        """One rule of a request plan, as an experiment that nobody has armed."""
        return RequestRun(
            identity,
            config,
            selected=self.vetting.selected(config),
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

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def others(self) -> Iterable[ExperimentRun]:
        """Those of request plans."""
        return self.requests.runs

    def _end_all(self, reason: str, actor: str | None) -> None:
        self.requests.kill()
        for run in self._runs:
            run.end(reason, by=actor)

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
