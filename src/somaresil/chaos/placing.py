"""Where experiments strike: the fault points of guards, the requests of the middleware, the process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from somaresil.chaos.config import ChaosExperiment
from somaresil.chaos.process import begins_nothing
from somaresil.chaos.run import Tracker, TripRule, trip
from somaresil.chaos.triggers import aims_at
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.chaos.process import ProcessFault, Warden
    from somaresil.chaos.run import ExperimentRun, Hit
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import FaultRule

__all__ = ["Placement", "paths_of"]


class Placement:
    """The places of one engine."""

    def __init__(
        self,
        guards: Callable[[], Mapping[str, Guard]],
        warden: Warden,
        fault_of: Callable[[ChaosExperiment], ProcessFault],
        protected: Callable[[], Iterable[str]],
        listeners: Listeners,
    ) -> None:
        """Nothing strikes anywhere. ``protected`` gives the patterns of paths that were allowed to be left alone."""
        self._guards = guards
        self._warden = warden
        self._fault_of = fault_of
        self._protected = protected
        self._listeners = listeners
        self._lock = threading.RLock()
        self.http: tuple[ExperimentRun, ...] = ()
        """Experiments on requests; the middleware looks at this and nothing else."""
        self.protected: tuple[str, ...] = ()
        """Patterns of paths that :meth:`protect` was told of."""

    # -- placing ----------------------------------------------------------------------------------------------------------------------

    def place(self, run: ExperimentRun) -> None:
        """Arm it where it is to strike."""
        _ = run.live  # tells that it has begun, if it has
        try:
            if run.config.on_http:
                with self._lock:
                    self.http = (*self.http, run)
                run.on_end(lambda: self._forget_http(run))
            elif run.config.on_process:
                if run.selected:
                    fault = self._fault_of(run.config.experiment)
                    self._warden.take(run, begins_nothing(fault) if run.config.dry_run else fault)
            else:
                # Asked for after the experiment can be seen: a guard that is made meanwhile is found here or arms itself.
                for guard in self._guards().values():
                    self.arm_guard(run, guard)
            if run.prerequisite is not None and run.selected:
                # Behind its own rules, so that a call does not come after itself.
                self._watch_for(run)
        except BaseException:
            run.end("failed")
            raise

    def arm_guard(self, run: ExperimentRun, guard: Guard) -> None:
        """Have an experiment strike the calls of a guard, if it aims at them."""
        aimed = matches(run.config.target_component, guard.name)
        if run.config.path is not None and not aimed and run.first_arming(guard.name):
            # A path is the whole path: guards that it does not name must be seen on it too.
            self._arm_rule(run, guard, Tracker(run, guard.name))
        if not aimed or not run.first_arming(guard.name):
            return
        if run.config.experiment is not ChaosExperiment.CIRCUIT_TRIP:
            self._arm_rule(run, guard, run.rule(guard.name))
        elif run.live:
            trip(run, guard)
        else:
            self._arm_rule(run, guard, TripRule(run, guard))

    def _watch_for(self, run: ExperimentRun) -> None:
        """See to it that what it waits for is seen: an event, or a call of a guard."""
        if run.prerequisite is not None:
            forget = run.prerequisite.listen(self._listeners)
            if forget is not None:
                run.on_end(forget)
            for guard in self._guards().values():
                self.watch_guard(run, guard)

    def watch_guard(self, run: ExperimentRun, guard: Guard) -> None:
        """Have an experiment see the calls of a guard, if it waits for one."""
        prerequisite = run.prerequisite
        if prerequisite is not None and prerequisite.of_guard(guard.name) and run.first_arming(f"after {guard.name}"):
            self._arm_rule(run, guard, Tracker(run, guard.name, prerequisite.note))

    def _arm_rule(self, run: ExperimentRun, guard: Guard, rule: FaultRule) -> None:
        guard.faults.arm(rule)
        run.on_end(lambda: guard.faults.disarm(rule))

    def _forget_http(self, run: ExperimentRun) -> None:
        with self._lock:
            self.http = tuple(armed for armed in self.http if armed is not run)

    # -- requests ---------------------------------------------------------------------------------------------------------------------

    def protect(self, pattern: str) -> None:
        """Never touch requests to these paths, whatever is allowed later: the control surface must be reachable while it is needed."""
        with self._lock:
            self.protected = (*self.protected, pattern)

    def strike_request(self, path: str, root: str = "", scope: Any = None) -> tuple[ExperimentRun, Hit] | None:
        """What to do to a request; None: leave it alone. ``root`` is the root path, which servers put before the path of the app.

        ``scope`` is that of ASGI: some experiments choose by method, host or headers.
        """
        if self.spares(path, root):
            return None
        paths = paths_of(path, root)
        for run in self.http:
            if run.live and any(aims_at(run.config.target_component, f"http:{name}") for name in paths):
                hit = run.strike_request(scope)
                if hit is not None:
                    return run, hit
        return None

    def spares(self, path: str, root: str = "") -> bool:
        """Whether experiments never touch requests to this path."""
        return any(map(self.is_protected, paths_of(path, root)))

    def is_protected(self, path: str) -> bool:
        """Whether no experiment may touch requests for this path."""
        plain = path.rstrip("/")
        return any(matches(pattern, path) or matches(pattern, plain) for pattern in (*self._protected(), *self.protected))


def paths_of(path: str, root: str) -> list[str]:
    """The paths that patterns are compared with: as the server says it, and without the root path."""
    prefix = root.rstrip("/")
    return [path, path.removeprefix(prefix) or "/"] if prefix and (path == prefix or path.startswith(f"{prefix}/")) else [path]
