"""What stops experiments from outside: kill switches that processes share, the safety lever, and stop conditions.

Whoever asks whether an experiment still runs looks at the switches, at most every 50 ms; so does a thread, every 100 ms, because a call
that is being delayed asks nothing. Neither looks at anything while nothing is armed.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from somaresil.chaos.active import ActiveFaults
from somaresil.chaos.audit import AuditLog
from somaresil.chaos.conditions import Watched, World, as_condition
from somaresil.chaos.killswitch import SWITCH_VARIABLE, HostSwitch, host_switch
from somaresil.config import did_you_mean
from somaresil.errors import describe
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.chaos.conditions import Objectives, StopCondition
    from somaresil.chaos.killswitch import SharedSwitch
    from somaresil.chaos.permission import Place
    from somaresil.chaos.run import ExperimentRun
    from somaresil.config import Checker
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["LEVER", "STOP_ALL", "Safety"]

STOP_ALL: Final = "stop_all"
LEVER: Final = "safety lever"

_LOOK_EVERY: Final = 0.05
_PATROL_EVERY: Final = 0.1
_MOST_NAMES: Final = 1_000


class Safety:
    """The safety of one engine."""

    def __init__(
        self,
        place: Place,
        guards: Callable[[], Mapping[str, Guard]],
        runs: Callable[[], tuple[ExperimentRun, ...]],
        most_active: Callable[[], int],
        kill: Callable[[], None],
        *,
        clock: Clock,
        listeners: Listeners,
    ) -> None:
        """Nothing is armed, so nothing is looked at."""
        self._place = place
        self._guards = guards
        self._runs = runs
        self._kill = kill
        """Keeps requests from bringing more."""
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self.audit = AuditLog(place, clock, listeners)
        self.active = ActiveFaults(runs, most_active)
        self.objectives: Objectives | None = None
        """What conditions about objectives ask; None: there are none to ask about."""
        self.path: str | os.PathLike[str] | None = None
        """Where the switch of the host is, when the code has said so."""
        self._host: tuple[Any, HostSwitch | None] = (object(), None)
        self._shared: tuple[SharedSwitch, ...] = ()
        self._stamps: dict[int, int] = {}
        self._engaged: str | None = None
        """Who has engaged the lever of this process alone, for want of a switch."""
        self._named: dict[str, StopCondition] = {}
        self._always: tuple[StopCondition, ...] = ()
        self.standing: tuple[StopCondition, ...] = ()
        """What ends experiments beside those: policies of budgets."""
        self.standing_for: Callable[[str], tuple[StopCondition, ...]] = lambda _: ()
        """What ends experiments on a target: budgets that objectives give to experiments."""
        self._watched: tuple[Watched, ...] = ()
        self._due = float("-inf")
        self._allows = True
        self._watch = Patrol("somaresil-chaos", self._round, _PATROL_EVERY, listeners)
        self._ask = Patrol("somaresil-conditions", self._ask_round, _PATROL_EVERY, listeners)
        _all.add(self)

    # -- switches ---------------------------------------------------------------------------------------------------------------------

    def add_switch(self, switch: SharedSwitch) -> Callable[[], None]:
        """Look at one more switch; returns a function that ends it."""
        with self._lock:
            self._shared = (*self._shared, switch)

        def remove() -> None:
            with self._lock:
                self._shared = tuple(other for other in self._shared if other is not switch)
                self._stamps.pop(id(switch), None)

        return remove

    @property
    def host(self) -> HostSwitch | None:
        """The switch of the host, as code and environment say now; None: it is off."""
        key = (self.path, os.environ.get(SWITCH_VARIABLE), os.environ.get("XDG_RUNTIME_DIR"))
        known, switch = self._host
        if known != key:
            # Left open is the old one: another thread may be reading it.
            switch = host_switch(self._place.service, self.path)
            self._host = (key, switch)
        return switch

    @property
    def switches(self) -> tuple[SharedSwitch, ...]:
        """All that stop this process."""
        host = self.host
        return self._shared if host is None else (host, *self._shared)

    @property
    def engaged(self) -> str | None:
        """Who holds the safety lever and why; None: nobody does. Raises ``OSError`` when nobody knows."""
        for switch in self.switches:
            reading = switch.read()
            if reading.engaged:
                return reading.by or "somebody"
        return self._engaged

    def prepare(self, check: Checker) -> None:
        """Note why nothing may be armed now: a lever that is engaged, a switch of which nobody knows what it says."""
        if self._engaged is not None:
            self._note_engaged(check, self._engaged)
        changed = False
        for switch in self.switches:
            try:
                switch.prepare()
                reading = switch.read()
            except OSError as error:
                check.problem(
                    "switch", switch.where, "a kill switch that can be thrown", f"{describe(error)}; {SWITCH_VARIABLE}=off does without"
                )
                continue
            if reading.engaged:
                self._note_engaged(check, reading.by)
            changed |= self._changed(switch, reading.stamp)
        if changed:
            self._stop(STOP_ALL)

    def _note_engaged(self, check: Checker, by: str) -> None:
        check.problem("lever", f"engaged by {by or 'somebody'}", "a lever that is released", "chaos.disengage() releases it")

    def _changed(self, switch: SharedSwitch, stamp: int) -> bool:
        before = self._stamps.get(id(switch))
        self._stamps[id(switch)] = stamp
        return before is not None and before != stamp

    def throw(self, by: str) -> bool:
        """Stop the other processes too. True when all of them could be told, or there is no switch."""
        return self._tell(lambda switch: switch.throw(by), "the other processes go on until their leases end")

    def move_lever(self, engaged: bool, by: str) -> bool:  # noqa: FBT001 - a position
        """Engage or release the lever, for all processes. Without a switch that can be moved: for this one."""
        there = bool(self.switches)
        told = self._tell(lambda switch: switch.move_lever(engaged, by), "the lever was moved in this process only")
        self._engaged = by or "somebody" if engaged and not (there and told) else None
        return told

    def _tell(self, say: Callable[[SharedSwitch], object], consequence: str) -> bool:
        told = True
        for switch in self.switches:
            try:
                say(switch)
            except OSError as error:
                told = False
                self._listeners.defect(f"kill switch {switch.where}", error, self._clock.time(), consequence)
        return told

    # -- looking ----------------------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """What calls do while something is armed. Quick, and mostly one reading of the clock."""
        now = time.monotonic()
        if now >= self._due:
            # First of all, so that whoever is told of an end and looks again comes by here without a circle.
            self._due = now + _LOOK_EVERY
            self._read()
            self._keep_watch()
        for watched in self._watched:
            watched.look(in_call=True)

    def keep(self, run: ExperimentRun, conditions: Iterable[StopCondition]) -> None:
        """Watch over an experiment that is armed, until it ends."""
        world = self.world
        every = (*conditions, *self.standing_for(run.config.target_component))
        mine = tuple(Watched(condition, run, world) for condition in every)
        if mine:
            with self._lock:
                self._watched = (*self._watched, *mine)
            run.on_end(lambda: self._forget(mine))
        run.on_end(lambda: self._note_end(run))
        self._keep_watch()

    def _keep_watch(self) -> None:
        """See that the threads are there. They are not after a fork."""
        if self._watched and not self._ask.walking:
            self._ask.wake()
        if not self._watch.walking and self._needed():
            self._watch.wake()

    def _needed(self) -> bool:
        return bool(self._watched or self.switches) and any(run.end_reason is None for run in self._runs())

    def _forget(self, watched: tuple[Watched, ...]) -> None:
        with self._lock:
            self._watched = tuple(other for other in self._watched if other not in watched)

    def allows(self) -> bool:
        """Whether all switches could be read lately, and no lever is engaged: for what requests bring, which cannot wait for an answer."""
        self.look()
        return self._allows and self._engaged is None

    def note(self) -> None:
        """Take what the switches say now for what was said before: only what is said from now on is a stop."""
        self._allows = True
        for switch in self.switches:
            try:
                switch.prepare()
                reading = switch.read()
            except OSError:
                self._allows = False
                continue
            self._allows = self._allows and not reading.engaged
            self._stamps[id(switch)] = reading.stamp

    def _read(self) -> None:
        allows = True
        for switch in self.switches:
            try:
                reading = switch.read()
            except OSError:
                # What runs ends by its lease, and nothing new may start.
                allows = False
                continue
            if reading.engaged:
                allows = False
                self._stop(LEVER)
            if self._changed(switch, reading.stamp):
                self._stop(STOP_ALL)
        self._allows = allows

    def _stop(self, reason: str) -> None:
        self._kill()
        for run in self._runs():
            if run.end_reason is None:
                run.end(reason, "by the kill switch, which another process may have thrown")

    def _round(self) -> bool:
        self._read()
        for run in self._runs():
            # Leases end in time, and are told of, though no call comes by.
            _ = run.live
        for watched in self._watched:
            watched.check_age()
        if self._needed():
            return True
        host = self._host[1]
        if host is not None:
            host.close()
        return False

    def _ask_round(self) -> bool:
        for watched in self._watched:
            watched.look(in_call=False)
        return bool(self._watched)

    def _note_end(self, run: ExperimentRun) -> None:
        reason = run.end_reason or ""
        result = f"{reason}: {run.end_detail}" if run.end_detail else reason
        struck = f"; {run.would_have_injected} would have been struck" if run.config.dry_run else f"; {run.injected} struck"
        self.audit.note("end", result + struck, experiment=run.id, who=run.ended_by or "somaresil")

    # -- conditions -------------------------------------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        """What conditions look at."""
        return World(self._clock, self._guards, self.objectives, self._listeners)

    def name_condition(self, check: Checker, name: str, condition: Any) -> None:
        """Let plans and configurations name a condition."""
        check.name("name", name)
        if not (callable(condition) or callable(getattr(condition, "watch", None))):
            check.problem("condition", condition, "a condition, or a function without arguments")
        if len(self._named) >= _MOST_NAMES:
            check.problem("name", name, f"at most {_MOST_NAMES} conditions")
        check.finish()
        with self._lock:
            self._named = {**self._named, name: as_condition(condition)}

    def always(self, check: Checker, conditions: tuple[Any, ...]) -> None:
        """Stop every further experiment by these, and by no others that were set so before."""
        found = self._resolved(check, conditions)
        check.finish()
        self._always = tuple(found)

    def check_budgets(self, check: Checker, target: str) -> None:
        """Note an experiment on ``target`` for which no objective has anything left."""
        self._note_stops(check, self.standing_for(target))

    def conditions(self, check: Checker, wanted: tuple[Any, ...]) -> list[StopCondition]:
        """The conditions of an experiment. Notes those that are not known, that cannot work here, and that say stop already."""
        before = len(check.problems)
        found = [*self.standing, *self._always, *self._resolved(check, wanted)]
        world = self.world
        for condition in found:
            condition.check(check, world)
        if len(check.problems) > before or not found:
            return found
        self._note_stops(check, found)
        return found

    def _note_stops(self, check: Checker, found: Iterable[StopCondition]) -> None:
        world = self.world
        for condition in found:
            if not condition.slow and (why := _answer(condition, world)) is not None:
                check.problem("stop_when", condition.name, "a condition that does not say stop before it begins", why)

    def _resolved(self, check: Checker, wanted: tuple[Any, ...]) -> list[StopCondition]:
        found = []
        for condition in wanted:
            if not isinstance(condition, str):
                found.append(as_condition(condition))
            elif condition in self._named:
                found.append(self._named[condition])
            else:
                known = ", ".join(sorted(self._named)[:10]) or "there is none"
                hint = did_you_mean(condition, self._named) or "chaos.condition(name, ...) says what it means"
                check.problem("stop_when", condition, f"a condition that has a name here ({known})", hint)
        return found

    def after_fork(self) -> None:
        """In a child: threads stayed behind, and locks may be held by nobody."""
        self._lock = threading.RLock()
        # The first call looks, and finds that there is no thread.
        self._due = float("-inf")
        self.audit.forget_lock()
        self.active.forget_lock()
        for watched in self._watched:
            watched.forget_lock()


def _answer(condition: StopCondition, world: World) -> str | None:
    try:
        found = condition.watch(world)()
    except Exception as broken:  # noqa: BLE001 - as where it is watched
        return f"it raised {describe(broken)[:200]}"
    return None if not found else "it is so" if found is True else found[:200]


_all: WeakSet[Safety] = WeakSet()


def _after_fork() -> None:
    for safety in tuple(_all):
        safety.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
