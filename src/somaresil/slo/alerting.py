"""Alerts about budgets that burn too fast, and what is done when they run out: looked at every so often, in one thread for all.

    alerting = resilience.alerting()
    resilience.on(page_somebody, AlertFired)

An alert is one objective (or one of its groups) with one severity. It fires when a condition of its policy does (see
:func:`somaresil.model.slo.alerts`) and is cleared when none does any more; that of the short window soon after the trouble has ended.
Without traffic nothing burns, and it is cleared. A store that does not know is no all-clear: then it stays as it is.

The rules of :mod:`somaresil.slo.rules` say the same to Prometheus. What a process sees is its own traffic, and with a snapshot folder that
of the workers beside it: page somebody from one place, by a fleet's Prometheus where there is one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker, did_you_mean
from somaresil.events import AlertCleared, AlertFired, BudgetActionBegan, BudgetActionEnded
from somaresil.patrol import Patrol
from somaresil.slo.actions import BudgetAction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from somaresil.events import Event
    from somaresil.listeners import Listeners
    from somaresil.model.slo import Condition, Severity
    from somaresil.slo.store import SliStore
    from somaresil.slo.tracker import SLOTracker
    from somaresil.typing import Clock

__all__ = ["Alert", "Alerting"]

_MOST_ACTIONS: Final = 100
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Alert:
    """One that fires."""

    slo: str
    severity: Severity
    group: str | None
    """The label value whose budget it is; None: that of all."""
    fired_at: float
    """Wall time in seconds since the epoch."""
    condition: Condition
    """The first condition that fired, as it was then."""


class Alerting:
    """Looks at all objectives every ``interval`` seconds. Made by :meth:`Resilience.alerting`, which starts it; :meth:`stop` ends it.

    Nothing of it is on the path of a call. :meth:`look` looks at once, so that tests need not wait. What fails is reported once, and the
    objective concerned stays as it was.
    """

    def __init__(
        self,
        slos: SLOTracker,
        clock: Clock,
        listeners: Listeners,
        *,
        actions: tuple[BudgetAction, ...] = (),
        interval: float | timedelta = 30.0,
        store: SliStore | None = None,
    ) -> None:
        """Nothing fires. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""
        check = Checker("alerting")
        every = check.seconds("interval", interval, minimum=1.0, exclusive=False, maximum=3_600.0)
        if len(actions) > _MOST_ACTIONS:
            check.problem("actions", f"{len(actions)} of them", f"at most {_MOST_ACTIONS}")
        for number, action in enumerate(actions):
            if not isinstance(action, BudgetAction):
                check.problem(f"actions[{number}]", action, "a BudgetAction")
            elif action.slo is not None and action.slo not in slos.names:
                known = ", ".join(slos.names) or "none is defined"
                hint = did_you_mean(action.slo, slos.names)
                check.problem(f"actions[{number}].slo", action.slo, f"an objective that was added ({known})", hint)
        if store is not None and not callable(getattr(store, "read", None)):
            check.problem("store", store, "a store of events, or None for that of the process")
        check.finish()
        self._slos, self._clock, self._listeners, self._store = slos, clock, listeners, store
        self._actions = actions
        self._lock = threading.RLock()
        self._turn = threading.RLock()
        self._looker: int | None = None
        """The thread that looks."""
        self._stopped = False
        self._firing: dict[tuple[str, str | None, Severity], tuple[Alert, float]] = {}
        self._taken: dict[tuple[int, str], tuple[float, float]] = {}
        self._patrol = Patrol("somaresil-alerting", self._round, every, listeners, in_fork=self._forget_lock)

    @property
    def firing(self) -> tuple[Alert, ...]:
        """What fires now, in the order in which it began to."""
        return tuple(alert for alert, _ in self._firing.values())

    @property
    def stopped(self) -> bool:
        """Whether it looks no more."""
        return self._stopped

    def start(self) -> None:
        """Look now and from here on, in a daemon thread that forked children get too."""
        self._patrol.wake()

    def stop(self) -> None:
        """Look no more. Actions end, as nobody would end them later; what fires is forgotten, and nobody is told that it was over."""
        with self._lock:
            self._stopped = True
            ended = [self._ended(key, None) for key in tuple(self._taken)]
            self._firing = {}
            self._slos.actions.replace({})
        self._patrol.wake()
        self._tell(ended)
        self._slos.burning.stop()

    def look(self) -> None:
        """Look at every objective once, now, and tell what has changed. Never raises an ``Exception``.

        While another thread looks this waits for it, a minute at most.
        """
        me, turn = threading.get_ident(), self._turn
        # A listener may look: it is told in the middle of one. It may also fork, and then the turn of the child is another.
        if self._looker == me or self._stopped or not turn.acquire(timeout=_PATIENCE):
            return
        self._looker = me
        try:
            for name in self._slos.names:
                try:
                    self._slos.burning.look(name, None)
                    self._tell([*self._alerts(name, None), *self._budget(name)])
                    for group in self._groups(name):
                        self._slos.burning.look(name, group)
                        self._tell([*self._alerts(name, group)])
                except Exception as defect:  # noqa: BLE001 - one objective must not hide the others
                    self._listeners.defect(f"alerting on {name}", defect, self._clock.time(), "its alerts stay as they are")
        finally:
            self._looker = None
            turn.release()

    def _round(self) -> bool:
        self.look()
        return not self._stopped

    def _forget_lock(self) -> None:
        """In a fork: it may be held by a thread that is not there."""
        self._lock, self._turn, self._looker = threading.RLock(), threading.RLock(), None
        self._slos.burning.forget_lock()

    # -- alerts -----------------------------------------------------------------------------------------------------------------------

    def _groups(self, name: str) -> tuple[str, ...]:
        """The groups to look at: those that are there, and those that fire and were forgotten, which are over."""
        if self._store is not None:
            return ()
        there = self._slos.groups(name)
        return (*there, *{group for slo, group, _ in self._firing if slo == name and group is not None and group not in there})

    def _alerts(self, name: str, group: str | None) -> Iterator[Event]:
        gone = group is not None and group not in self._slos.groups(name)
        # Asked with no lock held: a store may wait for a server.
        conditions = () if gone else self._slos.conditions(name, group=group, store=self._store)
        now, wall = self._clock.monotonic(), self._clock.time()
        wanted: set[Severity] = {condition.severity for condition in conditions}
        wanted |= {severity for slo, whose, severity in self._firing if (slo, whose) == (name, group)}
        for severity in sorted(wanted):
            own = [condition for condition in conditions if condition.severity == severity]
            found = next((condition for condition in own if condition.firing), None)
            key = (name, group, severity)
            with self._lock:
                firing = self._firing.get(key)
                if self._stopped or (found is None and (firing is None or not all(condition.known for condition in own))):
                    continue
                if found is None and firing is not None:
                    del self._firing[key]
                    yield AlertCleared(name, wall, severity, now - firing[1], group)
                elif found is not None and firing is None:
                    self._firing[key] = (Alert(name, severity, group, wall, found), now)
                    burn, threshold = found.long_burn or 0.0, float(found.threshold)
                    yield AlertFired(name, wall, severity, found.long, found.short, burn, threshold, group)

    # -- actions ----------------------------------------------------------------------------------------------------------------------

    def _budget(self, name: str) -> Iterator[Event]:
        own = [(number, action) for number, action in enumerate(self._actions) if action.slo in {None, name}]
        if not own:
            return
        budget = self._slos.error_budget(name, store=self._store)
        left, events = budget.remaining_share, budget.good + budget.bad
        if left is None or budget.problem is not None:
            return
        now = self._clock.monotonic()
        with self._lock:
            if self._stopped:
                return
            for number, action in own:
                key = (number, name)
                active = key in self._taken
                if events < action.minimum_events:
                    continue
                if action.holds(left, active=active):
                    self._taken[key] = (self._taken[key][0] if active else now, left)
                    if not active:
                        yield BudgetActionBegan(name, self._clock.time(), action.action, left, action.below)
                elif active:
                    yield self._ended(key, left)
            self._slos.actions.replace({(self._actions[number].action, slo): left for (number, slo), (_, left) in self._taken.items()})

    def _ended(self, key: tuple[int, str], left: float | None) -> Event:
        began, _ = self._taken.pop(key)
        number, name = key
        now = self._clock.monotonic()
        return BudgetActionEnded(name, self._clock.time(), self._actions[number].action, left, now - began)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            if self._listeners.wants(type(event)):
                self._listeners.emit(event)
