"""One object a process: names lead to guards, objectives and experiments, on one clock and one source of chance.

resilience = Resilience(service="gateway")

@resilience.guard("llm.invoke", timeout=10.0, retry=3, breaker=True)
async def invoke(prompt: str) -> str: ...
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import weakref
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, get_args

from somaresil.chance import Chance
from somaresil.chaos.conditions import ChaosBudgetSpent, Condition
from somaresil.chaos.engine import ChaosEngine
from somaresil.chaos.permission import Place
from somaresil.clock import PARTS_OF_A_CLOCK, STEERED, GuardedClock, SystemClock, is_ours
from somaresil.config import Checker, did_you_mean
from somaresil.deadline import DeadlineScope
from somaresil.errors import ConfigurationError
from somaresil.events import DeploymentMarked, Event
from somaresil.exemplars import SLOW, Traces
from somaresil.forks import free_locks
from somaresil.guard import Guard, GuardOptions
from somaresil.guard.assembly import configuring
from somaresil.limiter import RateLimiter
from somaresil.listeners import Listeners
from somaresil.logcontext import LogContext
from somaresil.model.histogram import merge_bounds
from somaresil.model.selector import matches
from somaresil.noted import Noted
from somaresil.policy.ratelimit import RateLimit
from somaresil.pool import Pools
from somaresil.priority import Prioritizer
from somaresil.recorder import Recorder
from somaresil.routes import Routes
from somaresil.settings.live import Settings, read_entries, warn
from somaresil.slo.alerting import Alerting
from somaresil.slo.journal import Journal, deployment
from somaresil.slo.tracker import SLOTracker
from somaresil.switch import Switch
from somaresil.thrift import BudgetScale
from somaresil.views import BreakerControl, GuardView, LimitView, Snapshot, view_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
    from datetime import timedelta

    from somaresil.canary.controller import CanaryController
    from somaresil.canary.split import Canary
    from somaresil.chaos.conditions import StopCondition
    from somaresil.chaos.run import ExperimentRun
    from somaresil.dashboard.app import DashboardApp
    from somaresil.dashboard.people import DashboardOptions, Open
    from somaresil.events import CallEnded
    from somaresil.guard.change import Change
    from somaresil.listeners import Listener
    from somaresil.mounted.auth import Authenticator
    from somaresil.outcome import Classifier
    from somaresil.policy.adaptive import AdaptiveLimit
    from somaresil.policy.breaker import CircuitBreaker
    from somaresil.policy.bulkhead import Bulkhead
    from somaresil.policy.fallback import Fallback
    from somaresil.policy.hedge import Hedge
    from somaresil.policy.ratelimit import SharedRateLimit
    from somaresil.policy.retry import Retry
    from somaresil.policy.singleflight import SingleFlight
    from somaresil.policy.stale import StaleCache
    from somaresil.policy.throttle import Throttle
    from somaresil.policy.timeout import Timeout
    from somaresil.pool import Endpoint, Pool
    from somaresil.slo.actions import BudgetAction
    from somaresil.slo.alerting import Alert
    from somaresil.slo.incidents import Subject
    from somaresil.slo.store import SliStore
    from somaresil.typing import Clock
    from somaresil.views import RequestLimit

__all__ = ["BreakerControl", "GuardView", "Resilience", "Snapshot", "alive"]

_E = TypeVar("_E")
_T = TypeVar("_T")
_P = ParamSpec("_P")

_MOST_GUARDS = 100_000
"""Guards are made by name in the code; more than this is a name made of user input, and memory without end."""


class Resilience:
    """Guards, objectives, experiments and listeners of one service process.

    ``instance``, ``zone``, ``region`` and ``environment`` say where this is, for blast radii and permissions; each falls back to
    ``SOMARESIL_INSTANCE`` and so on, the instance then to ``HOSTNAME`` or the host name with the process id. ``seed`` makes every draw
    repeatable (``SOMARESIL_SEED``). A variable that is empty is not set. ``strict`` refuses a guard whose policies are surely wrong
    together, where otherwise a :class:`~somaresil.errors.PipelineWarning` tells of it.

    ``slo_snapshot`` (``SOMARESIL_SLO_SNAPSHOT``) names a folder in which the events of objectives outlive the process and are shared by
    all workers of the service on this machine: it is read at once, and a daemon thread writes there every 5 seconds; see
    :mod:`somaresil.slo.snapshot`.

    What the file named by ``SOMARESIL_CONFIG`` and variables such as ``SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT`` say goes before what the
    code says: see :meth:`configure_from`.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    _canaries: Mapping[str, CanaryController] = MappingProxyType({})
    _alerting: Alerting | None = None
    # All there from the start: Prometheus does not see the first step of a series that begins at 1.
    _deployments: Mapping[str, int] = MappingProxyType({"true": 0, "false": 0, "unknown": 0})

    def __init__(
        self,
        service: str,
        *,
        instance: str | None = None,
        zone: str | None = None,
        region: str | None = None,
        environment: str | None = None,
        clock: Clock | None = None,
        seed: int | str | bytes | None = None,
        strict: bool = False,
        slo_snapshot: str | os.PathLike[str] | None = None,
    ) -> None:
        """Nothing is started: no thread, no socket; no file is read unless ``SOMARESIL_CONFIG`` or a snapshot names one."""
        check = Checker("Resilience")
        check.name("service", service)
        named = {"instance": instance, "zone": zone, "region": region, "environment": environment}
        for what, value in named.items():
            named[what] = _variable(what) if value is None else value
            if named[what] is not None:
                check.name(what if value is not None else f"{what} (SOMARESIL_{what.upper()})", named[what])
        absent = [part for part in PARTS_OF_A_CLOCK if clock is not None and not callable(getattr(clock, part, None))]
        if absent:
            check.problem("clock", clock, f"a clock with {', '.join(PARTS_OF_A_CLOCK)}", f"it lacks {', '.join(absent)}")
        try:
            self.chance = Chance(_variable("seed") if seed is None else seed)
        except ConfigurationError as wrong:
            for found in wrong.problems:
                check.problem(found.path, found.value, found.allowed, found.hint)
        check.type("strict", strict, bool, "True or False")
        folder = _variable("slo_snapshot") if slo_snapshot is None else slo_snapshot
        if folder is not None and not (isinstance(folder, str | os.PathLike) and os.fspath(folder)):
            check.problem("slo_snapshot", folder, "the path of a folder, or None")
        unprefixed = Checker()
        outside = read_entries(None, named["environment"], unprefixed)
        if problems := [*check.problems, *unprefixed.problems]:
            raise ConfigurationError(problems)
        self.service = service
        self.environment = named["environment"]
        """``production``, ``staging`` …: chooses overlays of settings, and whether experiments are refused. None: nobody has said."""
        self._named = named["instance"] is not None
        self.instance = named["instance"] or _own_name()
        self.listeners = Listeners()
        self.ignored, self.violations = Noted(), Noted()
        """Headers that could not be read, and what rules of a runtime guard do not allow (``hosts reported`` …), counted."""
        self.clock: Clock = _usual_clock() if clock is None else clock if is_ours(clock) else GuardedClock(clock, self.listeners)
        self._lock = threading.RLock()
        self._guards: dict[str, Guard] = {}
        self.settings = Settings(
            lambda: self.guards,
            self._lock,
            outside,
            environment=self.environment,
            strict=strict,
            listeners=self.listeners,
            clock=self.clock,
        )
        self._limits: dict[str, RateLimiter] = {}
        self._request_limits: weakref.WeakSet[RequestLimit] = weakref.WeakSet()
        self._request_slos: set[str] = set()
        self._observers: tuple[tuple[Callable[[CallEnded], object], Callable[[str], object] | None], ...] = ()
        self.slos = SLOTracker(self.clock, self.listeners)
        self.traces = Traces(self.clock, self.listeners)
        self.routes = Routes(self.slos.thresholds, self.slos.attach, self.traces)
        self.log_context = LogContext(lambda: self.guards)
        self.chaos = ChaosEngine(
            Place(service, self.instance, named["zone"], named["region"], named["environment"]),
            lambda: self.guards,
            clock=self.clock,
            chance=self.chance,
            listeners=self.listeners,
        )
        self.chaos.safety.objectives, self.chaos.safety.standing_for = self.slos, self._chaos_budgets
        self.slos.incidents.recorder_of = self._recorder_of
        self.slos.incidents.experiment_of = self._experiment_of
        self._pools = Pools(self.guard, lambda: self.guards, clock=self.clock, chance=self.chance, listeners=self.listeners)
        if folder is not None:
            self.slos.keep(folder, service=service)
        _alive.add(self)

    # -- guards -----------------------------------------------------------------------------------------------------------------------

    def guard(
        self,
        name: str,
        *,
        slo: str | Sequence[str] | None = None,
        classify: Classifier | None = None,
        idempotent: bool | str | Callable[..., object] | None = None,
        budget_aware: str | None = None,
        fallback: Callable[..., Any] | Fallback | StaleCache | Sequence[Callable[..., Any] | Fallback | StaleCache] | None = None,
        single_flight: bool | Callable[..., Hashable] | SingleFlight | None = None,
        hedge: float | timedelta | Hedge | None = None,
        retry: int | Retry | None = None,
        throttle: Throttle | Literal[True] | None = None,
        breaker: CircuitBreaker | Literal[True] | None = None,
        rate_limit: RateLimit | RateLimiter | SharedRateLimit | None = None,
        bulkhead: int | Bulkhead | AdaptiveLimit | None = None,
        timeout: float | timedelta | Timeout | None = None,
    ) -> Guard:
        """The guard called ``name``: decorator, context manager (``with``, ``async with``) and caller (``call``, ``acall``).

        The first mention makes it. Later ones give the same guard, so everybody who uses a name shares one breaker and one set of counts;
        options may be left out then, and may not differ: change them with :meth:`Guard.configure`.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        given = {
            "slo": slo,
            "classify": classify,
            "idempotent": idempotent,
            "budget_aware": budget_aware,
            "fallback": fallback,
            "single_flight": single_flight,
            "hedge": hedge,
            "retry": retry,
            "throttle": throttle,
            "breaker": breaker,
            "rate_limit": rate_limit,
            "bulkhead": bulkhead,
            "timeout": timeout,
        }
        given = {key: value for key, value in given.items() if value is not None and (value is not False or key == "idempotent")}
        known = self._guards.get(name) if isinstance(name, str) else None
        if known is not None and not given:
            return known
        where = _caller()
        check = Checker(f"guard({name!r})")
        check.name("name", name)
        options = GuardOptions.of(name, given, check)
        self._note_slos(check, options.slo)
        if options.budget_aware is not None:
            self._note_slos(check, (options.budget_aware,), "budget_aware")
        check.finish()
        thresholds = self.slos.thresholds(options.slo)
        outside = self.settings.entries
        settled = options
        if known is None:
            settled, found = self.settings.settled(name, options)
            warn(name, where, found)
        # In this order, as everywhere.
        with configuring, self._lock:
            guard = known = self._guards.get(name)
            if guard is None:
                if len(self._guards) >= _MOST_GUARDS:
                    check.problem("name", name, f"at most {_MOST_GUARDS} guards", "is the name made of user input?")
                    check.finish()
                if outside is not self.settings.entries:
                    settled, _ = self.settings.settled(name, options)
                guard = self._make(name, settled, thresholds)
                guard.coded = options
                guard.where = where
                self._guards[name] = guard
        if known is None:
            self.chaos.guard_added(guard)
            self.log_context.guard_added(guard)
            return guard
        for option in known.coded.differences(options):
            if option in given and getattr(options, option) != getattr(known.options, option):
                hint = f"it was made at {known.where}; change it with resilience.guard({name!r}).configure({option}=...)"
                check.problem(option, given[option], f"the options it was made with ({getattr(known.coded, option)})", hint)
        check.finish()
        return known

    def pool(self, name: str, endpoints: Sequence[Endpoint[_E]] | None = None, **options: Any) -> Pool[_E]:
        """The pool called ``name``: several endpoints, models or regions behind one name. See :mod:`somaresil.pool`.

        Options are those of :class:`~somaresil.pool.PoolOptions` and those of a guard. ``slo`` and ``fallback`` are about what callers see:
        they go to the guard ``name``; ``classify``, ``idempotent`` and ``budget_aware`` also to the guards of the endpoints, all others to
        those alone. The first mention makes it, and says which endpoints there are; later ones give the same, as with :meth:`guard`.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        return self._pools.get(name, endpoints, options)

    @property
    def pools(self) -> Mapping[str, Pool[Any]]:
        """All pools by name, as they are now."""
        return self._pools.all

    def canary(
        self,
        name: str,
        *,
        candidate: Callable[..., Any],
        bad: str | Sequence[str],
        version: str | None = None,
        checksum: str | None = None,
        key: str | Callable[..., object] | None = None,
        mode: Literal["split", "fallback", "shadow"] = "split",
        snapshot: str | os.PathLike[str] | None = None,
        guard: Mapping[str, Any] | None = None,
        leader: Callable[[], bool] | None = None,
        shadow_limit: int = 8,
        shadow_timeout: float | timedelta = 10.0,
        **options: Any,
    ) -> Canary:
        """Decorate a function with a candidate beside it that gets a growing share of its calls: see :mod:`somaresil.canary.split`.

        ``bad`` names the objectives that say which calls are bad, ``options`` are those of
        :class:`~somaresil.canary.config.CanaryConfig` (``steps``, ``bake``, ``alpha`` ...), ``guard`` those of the guards of both sides,
        which are called ``name`` and ``name.candidate``. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        from somaresil.canary.split import Canary  # not for every service that starts

        return Canary(
            self,
            name,
            candidate=candidate,
            bad=bad,
            version=version,
            checksum=checksum,
            key=key,
            mode=mode,
            snapshot=snapshot,
            guard=guard or {},
            leader=leader,
            shadow_limit=shadow_limit,
            shadow_timeout=shadow_timeout,
            options=options,
        )

    @property
    def canaries(self) -> Mapping[str, CanaryController]:
        """All canaries by name, as they are now."""
        return self._canaries

    def canary_added(self, controller: CanaryController) -> None:
        """Show this canary. Raises :class:`~somaresil.errors.ConfigurationError` when there is one of its name."""
        name = controller.config.name
        with self._lock:
            if name in self._canaries:
                check = Checker("canary")
                check.problem("name", name, "a name that no canary has yet", "two would decide about the same traffic")
                check.finish()
            self._canaries = {**self._canaries, name: controller}

    def call(self, name: str, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a plain function once through the guard called ``name``, which must be there: a misspelt name would guard nothing."""
        return self._known(name).call(function, *args, **kwargs)

    async def acall(self, name: str, function: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a coroutine function once through the guard called ``name``, which must be there: a misspelt name would guard nothing."""
        return await self._known(name).acall(function, *args, **kwargs)

    def _known(self, name: str) -> Guard:
        guard = self._guards.get(name)
        if guard is None:
            check = Checker("call")
            known = ", ".join(sorted(self._guards)[:10]) or "there is none"
            hint = did_you_mean(name, self._guards) or f"make it first: resilience.guard({name!r}, ...)"
            check.problem("name", name, f"a guard that was made ({known})", hint)
            check.finish()
            raise KeyError(name)
        return guard

    @property
    def guards(self) -> Mapping[str, Guard]:
        """All guards by name, as they are now."""
        return dict(self._guards)

    def find(self, name: str) -> Guard | None:
        """The guard called ``name``, if it was made."""
        return self._guards.get(name)

    def deadline(self, seconds: float | timedelta | None, *, name: str = "request") -> DeadlineScope:
        """``with`` or ``async with``: what is done in it is wanted for so many seconds; None: without end. See :mod:`somaresil.deadline`.

        Raises :class:`~somaresil.errors.ConfigurationError` for what is no duration of at most a day; ``async with`` raises
        :class:`~somaresil.errors.CallTimedOut`, in which ``name`` stands, when its time is up.
        """
        return DeadlineScope(seconds, self.clock.monotonic, name=name)

    def prioritizer(
        self, *, interval: float | timedelta = 1.0, start: float = 0.5, stop: float = 0.25, budget_aware: str | None = None
    ) -> Prioritizer:
        """What limits share (``bulkhead=Bulkhead(..., prioritizer=...)``) that shall shed the least important calls together.

        See :class:`~somaresil.priority.Prioritizer`. ``budget_aware`` names an objective: while its budget burns shedding begins earlier.
        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        if budget_aware is not None:
            check = Checker("prioritizer")
            self._note_slos(check, (budget_aware,), "budget_aware")
            check.finish()
        scale = self._scale(budget_aware)
        return Prioritizer(self.clock, self.chance, self.listeners, interval=interval, start=start, stop=stop, scale=scale)

    def breaker(self, name: str, key: Hashable | None = None) -> BreakerControl:
        """The controls of the breaker of a guard, or of one of its keys (see :meth:`Guard.keyed`).

        Raises :class:`~somaresil.errors.ConfigurationError` when there is none.
        """
        guard = self._guards.get(name)
        if guard is None or guard.breaker is None:
            check = Checker("breaker")
            with_breaker = [other for other, candidate in self.guards.items() if candidate.breaker is not None]
            allowed = f"a guard with a breaker ({', '.join(with_breaker[:10]) or 'there is none'})"
            hint = "give it one: guard(..., breaker=True)" if guard is not None else did_you_mean(name, with_breaker)
            check.problem("name", name, allowed, hint)
            check.finish()
            raise KeyError(name)
        if key is not None and guard.keys() is None:
            check = Checker(f"breaker({name!r})")
            check.problem("key", key, "None for a breaker that is taken over", "one object cannot be the circuit of many keys")
            check.finish()
        return BreakerControl(guard.breaker, key)

    def rate_limit(self, name: str, options: RateLimit | None = None) -> RateLimiter:
        """The rate limit called ``name``, to be given to several guards: ``guard(..., rate_limit=resilience.rate_limit("openai"))``.

        The first mention makes it and needs ``options``; in later ones they may be left out and may not differ: change them with
        :meth:`RateLimiter.reconfigure`. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        check = Checker(f"rate_limit({name!r})")
        check.name("name", name)
        if options is not None:
            check.type("options", options, RateLimit, "a RateLimit")
        check.finish()
        with self._lock:
            known = self._limits.get(name)
            if known is None and options is not None:
                if len(self._limits) >= _MOST_GUARDS:
                    check.problem("name", name, f"at most {_MOST_GUARDS} rate limits", "is the name made of user input?")
                    check.finish()
                known = self._limits[name] = RateLimiter(name, options, self.clock, self.listeners)
        if known is None:
            hint = did_you_mean(name, self._limits) or f"make it first: resilience.rate_limit({name!r}, RateLimit(...))"
            check.problem("name", name, "a rate limit that was made", hint)
            check.finish()
            raise KeyError(name)
        if options is not None and options != known.options:
            check.problem("options", options, f"the options it was made with ({known.options})", "change them with reconfigure(...)")
            check.finish()
        return known

    # -- options from outside ---------------------------------------------------------------------------------------------------------

    def reconfigure(self, changes: Mapping[str, Mapping[str, Any]], *, by: str = "", dry_run: bool = False) -> tuple[Change, ...]:
        """Change options of guards while calls run, all of it or nothing: ``{"llm.*": {"retry": {"attempts": 2}, "bulkhead": None}}``.

        Keys are names of guards or patterns over the names of those that are there; what is said of a name goes before what a pattern says.
        A mapping changes the fields that it names and leaves the others of the options object as they are, None takes the policy away,
        anything else stands in its place, as in :meth:`guard`. State is kept: breakers, counts, permits. ``slo`` and ``classify`` stay.

        Returns what was changed, or with ``dry_run`` what would be; :func:`somaresil.guard.change.undo` takes it back. Listeners are told
        by one :class:`~somaresil.events.Reconfigured` with ``by``: who does it and why, in at most 200 characters.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is changed.
        """
        return self.settings.reconfigure(changes, by=by, dry_run=dry_run)

    def configure_from(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        environment: str | None = None,
        by: str = "",
        dry_run: bool = False,
    ) -> tuple[Change, ...]:
        """Take options from a TOML or YAML file, or a mapping like one, for the guards that are there and those that will be made.

        It goes before what the code says, and is itself overridden by the file named by ``SOMARESIL_CONFIG`` and by variables; with None
        those two are read again. ``environment`` chooses the overlay (default: that of the process). Reading anew begins with the code:
        what an earlier file said and what was changed live is over. See the guide on configuration for the form of a file.

        Returns, tells and raises as :meth:`reconfigure`.
        """
        return self.settings.configure_from(source, environment=environment, by=by, dry_run=dry_run)

    # -- watching ---------------------------------------------------------------------------------------------------------------------

    def on(self, listener: Listener, *kinds: type) -> Callable[[], None]:
        """Call ``listener`` with every event, or with those of ``kinds``; returns a function that ends it. See :mod:`somaresil.events`.

        Raises :class:`~somaresil.errors.ConfigurationError` for a listener that cannot be called and for kinds that no event has.
        """
        check = Checker("on")
        if not callable(listener):
            check.problem("listener", listener, "a function of one event")
        known: tuple[type, ...] = get_args(Event)
        for kind in kinds:
            if kind not in known:
                names = {event.__name__: event for event in known}
                check.problem("kinds", kind, f"classes of somaresil.events: {', '.join(names)}", did_you_mean(kind, names))
        check.finish()
        return self.listeners.add(listener, *kinds)

    def observe(self, observer: Callable[[CallEnded], object], *, attempts: Callable[[str], object] | None = None) -> Callable[[], None]:
        """Tell ``observer`` of the end of every call of every guard, good ones as well; returns a function that ends it.

        ``attempts`` is told the name of the guard at each attempt that is let through, when it begins. For tests and tools; events are
        for services. Its price is the quiet path, also of guards that are made later. One that raises is reported once and stays.
        """
        with self._lock:
            self._observers = (*self._observers, (observer, attempts))
            guards = tuple(self._guards.values())
        for guard in guards:
            guard.observe(observer, attempts)

        def end() -> None:
            with self._lock:
                self._observers = tuple(other for other in self._observers if other != (observer, attempts))
                guards = tuple(self._guards.values())
            for guard in guards:
                guard.unobserve(observer, attempts)

        return end

    def deployed(self, version: str, *, at: float | None = None, commit: str | None = None, ok: bool | None = None) -> None:
        """Note that a version was put in service, for listeners and for the journal.

        ``at`` is in seconds since the epoch (default: now). ``ok`` False says that it is known to have failed. Raises
        :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        noted = deployment(self.service, version, now=self.clock.time(), at=at, commit=commit, ok=ok)
        with self._lock:
            how = "unknown" if ok is None else str(ok).lower()
            self._deployments = {**self._deployments, how: self._deployments[how] + 1}
        self.listeners.emit(DeploymentMarked(noted.at, noted.version, noted.began, noted.commit, noted.ok))

    def deployments(self) -> dict[str, int]:
        """How many versions :meth:`deployed` was told of, by whether that went well: ``true``, ``false``, or ``unknown``."""
        return dict(self._deployments)

    def alerting(self, *actions: BudgetAction, interval: float | timedelta = 30.0, store: SliStore | None = None) -> Alerting:
        """Look at the objectives every ``interval`` seconds (1 s to 1 h), tell of alerts, and take ``actions`` as budgets run out.

        See :mod:`somaresil.slo.alerting` and :mod:`somaresil.slo.actions`. ``store`` None asks that of the process. It looks at the
        objectives that are there each time. Keep what is returned, and ``stop()`` it when the process ends; there is one at a time.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        with self._lock:
            if self._alerting is not None and not self._alerting.stopped:
                check = Checker("alerting")
                check.problem("alerting", self._alerting, "none that looks already", "stop() that first: two would say everything twice")
                check.finish()
            made = Alerting(self.slos, self.clock, self.listeners, actions=actions, interval=interval, store=store)
            self._alerting = made
        if any(action.action == "stop_chaos" for action in actions):
            self.chaos.safety.standing = (Condition("budget_policy", lambda: self.slos.actions.why("stop_chaos") or False),)
        made.start()
        return made

    @property
    def firing(self) -> tuple[Alert, ...]:
        """Alerts that fire now; none while nobody looks, see :meth:`alerting`."""
        return () if self._alerting is None else self._alerting.firing

    def journal(self, path: str | os.PathLike[str], *, most: int = 10_000_000) -> Journal:
        """Begin to write hours of objectives, incidents and deployments to a file: see :mod:`somaresil.slo.journal`.

        Keep what is returned, and ``stop()`` it when the process ends. Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        journal = Journal(
            path,
            service=self.service,
            instance=self.instance,
            slos=self.slos,
            clock=self.clock,
            listeners=self.listeners,
            most=most,
        )
        journal.start()
        return journal

    def dashboard(self, *, auth: Authenticator | Open, **options: Unpack[DashboardOptions]) -> DashboardApp:
        """An ASGI application that shows all this live: ``app.mount("/_soma", resilience.dashboard(auth=BearerToken(token)))``.

        There is none without ``auth``; options are those of :class:`~somaresil.dashboard.app.DashboardApp`. It watches from now on until
        its ``stop()``. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        made: DashboardApp = import_module("somaresil.dashboard").DashboardApp(self, auth=auth, **options)  # an edge, for who wants it
        return made

    def snapshot(self) -> Snapshot:
        """Everything at one moment, frozen."""
        return Snapshot(
            service=self.service,
            instance=self.instance,
            at=self.clock.time(),
            guards={name: view_of(guard) for name, guard in self.guards.items()},
            routes=self.routes.counts(),
            budgets={name: self.slos.error_budget(name) for name in self.slos.names},
            incidents=(*self.slos.incidents.ended, *self.slos.incidents.running),
            experiments=self.chaos.runs,
            pools={name: pool.view() for name, pool in self.pools.items()},
            request_limit=self.request_limit(),
            ignored_headers=self.ignored.counts(),
        )

    # -- for the other parts of somaresil ---------------------------------------------------------------------------------------------

    def check_slos(self, where: str, slos: tuple[str, ...]) -> tuple[float, ...]:
        """The latency thresholds of some objectives. Raises :class:`~somaresil.errors.ConfigurationError` for those that cannot be used."""
        check = Checker(where)
        self._note_slos(check, slos)
        check.finish()
        return self.slos.thresholds(slos)

    def follow_traces(self, current: Callable[[], tuple[str, str] | None]) -> Callable[[], None]:
        """Keep of bad and slow calls and requests the trace and span that ``current`` gives; returns a function that ends it.

        See :mod:`somaresil.exemplars`. What fails in ``current`` is reported once, and changes nothing.
        """

        def arrange() -> None:
            for guard in tuple(self._guards.values()):
                guard.recorder.follow_traces()
            self.routes.follow_traces()

        with self._lock:
            self.traces.follow(current)
            arrange()
        left = False

        def leave() -> None:
            nonlocal left
            with self._lock:
                if not left:
                    left = True
                    self.traces.leave()
                    arrange()

        return leave

    def follow_logs(self, *, calls: bool = False) -> Callable[[], None]:
        """Have log lines know the request that they are written in, also those of the tasks and threads that it starts.

        Guarded calls are known without this, in the task or thread that makes them; with ``calls`` also in those that a guarded function
        starts. The price of that is the quiet path, also of guards that are made later. Returns a function that ends it.
        See :mod:`somaresil.logcontext`.
        """
        return self.log_context.follow(calls=calls)

    def requests_count_for(self, slos: tuple[str, ...]) -> None:
        """Note that a middleware counts its requests for these objectives."""
        self._request_slos |= {*slos}

    def counts_requests(self, slo: str) -> bool:
        """Whether a middleware counts its requests for this objective."""
        return slo in self._request_slos

    def watch_requests(self, limit: RequestLimit) -> None:
        """Show how full this limit of requests is. It is forgotten with its middleware."""
        self._request_limits.add(limit)

    def request_limit(self) -> LimitView | None:
        """How full the limits of requests are, together; None: there is none."""
        limits = tuple(self._request_limits)
        if not limits:
            return None
        return LimitView(sum(it.limit for it in limits), sum(it.active for it in limits), sum(it.waiting for it in limits))

    def _recorder_of(self, guard: str) -> Recorder | None:
        found = self._guards.get(guard)
        return None if found is None else found.recorder

    def _experiment_of(self, subject: Subject) -> str | None:
        """The id of the newest experiment that has struck the guard, or what the objective is about; one that runs goes before others."""
        names = {name for name, guard in self.guards.items() if name == subject.guard or subject.slo in guard.options.slo}
        requests = subject.guard is None

        def concerns(run: ExperimentRun) -> bool:
            return any(where in names or (requests and where.startswith("http:")) for where in run.struck)

        found = [run for run in self.chaos.history if concerns(run)]
        return next((run.id for run in reversed(found) if run.live), found[-1].id if found else None)

    def _note_slos(self, check: Checker, slos: tuple[str, ...], option: str = "slo") -> None:
        for slo in slos:
            if slo not in self.slos.names:
                known = ", ".join(self.slos.names) or "none is defined"
                hint = did_you_mean(slo, self.slos.names) or "add it before the guard: resilience.slos.add(SLO(...))"
                check.problem(option, slo, f"an objective that was added ({known})", hint)
            elif not self.slos[slo].about_calls and option == "slo":
                hint = "those about recovery watch every breaker by themselves"
                check.problem("slo", slo, "an objective about calls", hint)

    def _chaos_budgets(self, target: str) -> tuple[StopCondition, ...]:
        """What ends experiments on ``target`` when they have used up what objectives give them: of those that count what it strikes."""
        apart = [name for name in self.slos.names if self.slos[name].injected == "separate"]
        if not apart:
            return ()
        if target.startswith("http:"):
            touched = self._request_slos
        else:
            guards = [guard for name, guard in self.guards.items() if matches(target, name)]
            # What strikes no guard that is known strikes the process, or a guard that is to come.
            touched = {slo for guard in guards for slo in self.slos.leaves(guard.options.slo)} if guards else set(apart)
        return tuple(ChaosBudgetSpent(name) for name in apart if name in touched)

    def _scale(self, slo: str | None) -> BudgetScale | None:
        if slo is None:
            return None

        def remaining() -> float | None:
            return 0.0 if self.slos.actions.active("shrink_retries", slo) else self.slos.error_budget(slo).remaining_share

        return BudgetScale(slo, remaining, self.clock, self.listeners)

    def _make(self, name: str, options: GuardOptions, thresholds: tuple[float, ...]) -> Guard:
        if options.breaker is not None and options.breaker.slow_call_duration is not None:
            thresholds = (*thresholds, options.breaker.slow_call_duration)  # type: ignore[arg-type]
        recorder = Recorder(Switch(), merge_bounds(*thresholds), self.traces, min(thresholds, default=SLOW))
        guard = Guard(
            name,
            options,
            recorder=recorder,
            clock=self.clock,
            chance=self.chance,
            listeners=self.listeners,
            ignored=self.ignored,
            scale=self._scale(options.budget_aware),
        )
        for slo in options.slo:
            self.slos.attach(slo, recorder)
        if probes := self.slos.probes(options.slo):
            guard.measure(probes)
        for observer, attempts in self._observers:
            guard.observe(observer, attempts)
        return guard


_alive: weakref.WeakSet[Resilience] = weakref.WeakSet()


def alive() -> tuple[Resilience, ...]:
    """Every :class:`Resilience` of this process, for tools that look after all of them."""
    return tuple(_alive)


def _usual_clock() -> Clock:
    """The machine's; in a process under test one that the test can steer."""
    return STEERED if _variable("clock") == "steered" else SystemClock()


def _own_name() -> str:
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{os.getpid()}"


def _begin_in_child() -> None:
    """Make forked workers differ: with the name and the draws of their parent they would probe in step and be one instance to a drill."""
    found = tuple(_alive)
    free_locks(found)
    for resilience in found:
        resilience.chance.renew()
        if not resilience._named:  # noqa: SLF001 - this module's own
            resilience.instance = resilience.chaos.place.instance = _own_name()
        for guard in resilience.guards.values():
            if guard.breaker is not None:
                guard.breaker.redraw()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def _variable(what: str) -> str | None:
    """What the environment says; a variable that is empty is not set."""
    return os.environ.get(f"SOMARESIL_{what.upper()}") or None


def _caller() -> str:
    """File and line of the first frame that is not ours."""
    frame = sys._getframe(1)  # noqa: SLF001 - what logging and warnings do; inspect.stack reads source files
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "somaresil":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
