"""Takes a candidate through its phases: holds, promotes or rolls back, each with its reason.

    controller = CanaryController(resilience, CanaryConfig(name="answer", bad="availability"))
    controller.start("v2")
    side = controller.choose("user 17")                     # for each request
    controller.note(side, bad=False, key="user 17")         # when it has ended

:mod:`somaresil.canary.split` does the last two for functions. A failure is acted upon at the bad event that proves it, in the call that had
it; everything else at the next look. Times are measured on the monotonic clock: a step of the wall clock bakes nothing.

With a ``snapshot`` the rollout outlives the process: where it is, how long it has baked and its evidence are written at every look and
every move, and whoever starts the same version goes on from there. Of several processes with one snapshot one leads; the others follow its
phases, tell it what they have seen, and one of them leads when it is gone. Each of them rolls its own traffic back when it has seen enough
for that.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.ledger import CanaryLedger, Counts, Finding, Levels
from somaresil.canary.state import CanaryDecision, CanaryStatus, Route, Side, Trial
from somaresil.canary.store import CanaryFile, is_about, place_of, written
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.events import CanaryEnded, CanaryMoved, CanaryStarted
from somaresil.model.mix import Draws, Mixer
from somaresil.model.rollout import Move, Rollout, Seen, Step, Verdict
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from somaresil.canary.config import CanaryConfig
    from somaresil.events import Event
    from somaresil.resilience import Resilience

__all__ = ["CanaryController", "CanaryDecision", "CanaryStatus", "Route", "Side"]

_ROUTES: Final = 256
"""Weights that are remembered, for calls that began under them."""
_LONGEST_REASON: Final = 200
_SELF: Final = "somaresil"
"""Who did it, when nobody did."""


class CanaryController:
    """One canary. Safe to use from several threads."""

    def __init__(
        self,
        resilience: Resilience,
        config: CanaryConfig,
        *,
        snapshot: str | os.PathLike[str] | None = None,
        leader: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing is started: all traffic goes to the control, no thread runs and no file is read.

        ``snapshot`` is the path of a file in a folder that is there. ``leader`` says whether this process may lead, beside the lock of the
        snapshot: for a fleet ``lambda: redis_leader.leads``. Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        self.config = config
        self._resilience = resilience
        self._clock, self._listeners = resilience.clock, resilience.listeners
        check = Checker(f"CanaryController({config.name!r})")
        self._file = None if snapshot is None else CanaryFile(snapshot)
        if self._file is not None and not self._file.path.parent.is_dir():
            check.problem("snapshot", snapshot, "the path of a file in a folder that is there")
        if leader is not None and not callable(leader):
            check.problem("leader", leader, "a function that returns whether this process leads")
        check.finish()
        self._leader = leader
        self._leading = snapshot is None and leader is None
        self._stopped = False
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self.route = Route(0.0, None, settled=True)
        """What holds for calls that begin now. Read it once a call, without a lock."""
        self._routes: deque[tuple[float, Route]] = deque(maxlen=_ROUTES)
        self._trial: Trial | None = None
        self._rollout: Rollout | None = None
        self._levels = Levels()
        self._peers: tuple[CanaryLedger, ...] = ()
        """What the processes that follow have seen, as of the last look."""
        self._reason = "nothing was started"
        self._failed = ""
        """The checksum that was rolled back here, whatever the leader says."""
        self.moves: dict[str, int] = {}
        """How often it was promoted, completed and rolled back here."""
        self._mixer = Mixer(config.name)
        self.draw = self._draws()
        """A place by chance."""
        self._patrol = Patrol(
            f"somaresil-canary-{config.name}",
            self._round,
            5.0 if config.interval is None else float(config.interval),  # type: ignore[arg-type]
            resilience.listeners,
            in_fork=self._after_fork,
        )
        resilience.canary_added(self)

    def __repr__(self) -> str:
        """Name, phase and weight."""
        return f"<CanaryController {self.config.name!r}: {self.phase or 'not started'}, {self.weight:.3g}>"

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    @property
    def weight(self) -> float:
        """Share of the requests that go to the candidate now, 0 to 1. Takes no lock."""
        return self.route.weight

    @property
    def phase(self) -> str:
        """Its name, ``complete`` or ``rollback``; empty when nothing was started."""
        rollout = self._rollout
        return "" if rollout is None else rollout.name

    @property
    def leads(self) -> bool:
        """Whether this process decides, as of the last look."""
        return self._leading

    def status(self) -> CanaryStatus:
        """How it stands now."""
        with self._lock:
            trial, rollout = self._trial, self._rollout
            finding = self._finding(trial)
            return CanaryStatus(
                canary=self.config.name,
                version=None if trial is None else trial.version,
                checksum=None if trial is None else trial.checksum,
                phase=self.phase,
                weight=self.route.weight,
                paused=rollout is not None and rollout.paused,
                leads=self.leads,
                baked=0.0 if rollout is None else max(0.0, self._clock.monotonic() - rollout.entered),
                events=0 if trial is None else max(0, finding.counts.candidate - trial.base),
                finding=finding,
                reason=self._reason,
            )

    def seen(self) -> Counts:
        """Events of the version at work that this process has seen itself."""
        with self._lock:
            trial = self._trial
            if trial is None:
                return Counts()
            trial.collect(self.route.weight)
            return trial.ledger.counts.minus(trial.inherited)

    # -- traffic ----------------------------------------------------------------------------------------------------------------------

    def choose(self, key: str | None = None) -> Side:
        """Where a request goes: with a key always to the same side as long as the weight allows it, else by chance.

        Whoever is with the candidate stays there as the weight grows.
        """
        route = self.route
        return Side(self.place(key) < route.cut, route)

    def place(self, key: str | None) -> int:
        """The place of a key, or one drawn by chance: below :attr:`Route.cut` it is with the candidate."""
        return self.draw() if key is None else self._mixer(key)

    def note(self, side: Side, *, bad: bool, key: str | None = None) -> None:
        """A request that :meth:`choose` has placed has ended. Never raises an ``Exception``."""
        self.ended(side.route, candidate=side.candidate, bad=bad, key=key)

    def ended(self, route: Route, *, candidate: bool, bad: bool, key: str | None) -> None:
        """The same for a call that began under ``route``."""
        try:
            trial = route.trial
            if trial is None or route.settled:
                return
            if not bad:
                next(route.good[candidate])
                return
            trial.ledger.note(route.weight, candidate=candidate, bad=True, key=key)
            if candidate and trial is self._trial:
                self._fail_at_once()
        except Exception as defect:  # noqa: BLE001 - what is counted never changes what is called
            self._defect("counting a call", defect)

    def both_ended(self, route: Route, *, candidate_bad: bool, control_bad: bool) -> None:
        """Both sides were asked the same. What was bad on both is no evidence: it hangs together."""
        try:
            trial = route.trial
            if trial is None or route.settled:
                return
            weight = 0.5 if candidate_bad is not control_bad else 0.0
            for candidate, bad in ((False, control_bad), (True, candidate_bad)):
                if bad:
                    trial.ledger.note(weight, candidate=candidate, bad=True)
                else:
                    next(route.good[candidate])
            if candidate_bad and trial is self._trial:
                self._fail_at_once()
        except Exception as defect:  # noqa: BLE001 - as above
            self._defect("counting a pair of calls", defect)

    def route_at(self, moment: float) -> Route | None:
        """The route under which calls began at ``moment`` of the monotonic clock; None: too long ago."""
        for since, route in reversed(tuple(self._routes)):
            if since <= moment:
                return route
        return None

    # -- what people do ---------------------------------------------------------------------------------------------------------------

    def start(self, version: str, *, checksum: str | None = None) -> CanaryStatus:
        """Begin with a version, or go on with it where the snapshot is.

        Evidence belongs to a ``checksum`` (default: the version): the same version with another one begins anew, also in the middle of a
        ramp, and so does another version, which ends this one as ``superseded``. What was rolled back or completed stays so.

        Raises :class:`~somaresil.errors.ConfigurationError` for objectives that are not there, and for what was started here already.
        """
        check = Checker(f"canary({self.config.name!r})")
        check.name("version", version)
        checksum = version if checksum is None else check.type("checksum", checksum, str, "text")[:_LONGEST_REASON]
        levels = self.config.levels(self._resilience.slos)
        told: list[Event] = []
        with self._turn:
            trial = self._trial
            if trial is not None and (trial.version, trial.checksum) == (version, checksum):
                hint = "a changed build has another checksum; promote() and rollback() move the one that is here"
                check.problem("version", version, f"another version or checksum than is in phase {self.phase} already", hint)
            check.finish()
            with self._lock:
                self._levels = levels
                self._supersede(told)
                self._trial = Trial(version, checksum, CanaryLedger(checksum, levels, sticky=self.config.sticky))
                # Otherwise the same users would be the first with every version.
                self._mixer = Mixer(f"{self.config.name}/{checksum}")
                self._rollout, self._failed, self._peers = None, "", ()
                if self._file is not None:
                    self._file.forget_own()
                self._reason = "it waits for the process that leads"
                self._set_route()
            self._join(told)
            self._keep()
        self._audit("canary_start", f"{version} ({checksum}) is in {self.phase or 'no phase'}")
        self._tell(told)
        if self.config.interval is not None:
            self._patrol.wake()
        return self.status()

    def evaluate(self) -> CanaryDecision:
        """Look at the evidence and act upon it: hold, promote, complete or roll back. Never raises an ``Exception`` for a file."""
        told: list[Event] = []
        with self._turn:
            step, reason = self._look(told)
            self._keep()
        self._tell(told)
        return CanaryDecision(step, reason, self.status())

    def roll_back(self, reason: str) -> CanaryDecision:
        """All traffic to the control, from the next call on."""
        return self._by_hand("canary_rollback", lambda rollout, now: rollout.rolled_back(now, _short(reason) or "somebody asked for it"))

    def promote(self, reason: str = "") -> CanaryDecision:
        """On to the next phase, whatever the evidence says."""
        return self._by_hand("canary_promote", lambda rollout, now: rollout.promoted(now, _short(reason) or "somebody asked for it"))

    def pause(self, reason: str = "") -> CanaryDecision:
        """Stay in this phase, but for a failure."""
        return self._by_hand("canary_pause", lambda rollout, _: _paused(rollout, _short(reason), paused=True))

    def resume(self, reason: str = "") -> CanaryDecision:
        """Go on after :meth:`pause`."""
        return self._by_hand("canary_resume", lambda rollout, _: _paused(rollout, _short(reason), paused=False))

    def stop(self) -> None:
        """Look no more, and let another process lead. Traffic stays as it is."""
        with self._turn:
            self._keep()
            self._stopped = True
            if self._file is not None:
                self._file.let_go()
                self._leading = False
        self._patrol.wake()

    # -- the same for coroutines ------------------------------------------------------------------------------------------------------

    async def start_canary(self, version: str, *, checksum: str | None = None) -> CanaryStatus:
        """See :meth:`start`."""
        return await asyncio.to_thread(self.start, version, checksum=checksum)

    async def evaluate_phase(self) -> CanaryDecision:
        """See :meth:`evaluate`."""
        return await asyncio.to_thread(self.evaluate)

    async def rollback(self, reason: str) -> CanaryDecision:
        """See :meth:`roll_back`. The traffic is with the control before this waits for anything."""
        decided = self.roll_back(reason)
        await asyncio.sleep(0)
        return decided

    # -- deciding ---------------------------------------------------------------------------------------------------------------------

    def _look(self, told: list[Event]) -> tuple[Step, str]:
        if self._trial is None:
            return Step.HOLD, "nothing was started"
        if not self._may_lead(told):
            self._follow(told)
            return Step.HOLD, "another process leads"
        if self._rollout is None:
            self._join(told)
        self._hear()
        with self._lock:
            trial, rollout = self._trial, self._rollout
            if rollout is None:
                return Step.HOLD, self._reason
            finding = self._finding(trial)
            seen = Seen(finding.verdict, max(0, finding.counts.candidate - trial.base), finding.reason)
            move = rollout.look(self._clock.monotonic(), seen)
            self._apply(move, told, who=_SELF)
            return move.step, move.reason

    def _fail_at_once(self) -> None:
        """The candidate had a bad event: if that is proof enough, nobody waits for the next look."""
        told: list[Event] = []
        with self._lock:
            rollout = self._rollout
            if rollout is None or rollout.over:
                return
            finding = self._finding(self._trial)
            if finding.verdict is not Verdict.FAIL:
                return
            self._apply(rollout.rolled_back(self._clock.monotonic(), finding.reason), told, who=_SELF)
        self._tell(told)
        if self.config.interval is not None:
            # A call does not wait for a disk.
            self._patrol.wake()
        else:
            with self._turn:
                self._keep()

    def _by_hand(self, what: str, act: Callable[[Rollout, float], Move]) -> CanaryDecision:
        """What somebody asked for; a process that does not lead can roll back its own traffic, and nothing else."""
        told: list[Event] = []
        with self._lock:
            rollout = self._rollout
            if rollout is None:
                move = None
            else:
                move = act(rollout, self._clock.monotonic())
                if self.leads or move.step is Step.ROLLBACK:
                    self._apply(move, told, who=None)
                else:
                    move = Move(Step.HOLD, "another process leads", rollout)
        with self._turn:
            self._keep()
        reason = "nothing was started" if move is None else move.reason
        self._audit(what, reason)
        self._tell(told)
        return CanaryDecision(Step.HOLD if move is None else move.step, reason, self.status())

    def _apply(self, move: Move, told: list[Event], who: str | None) -> None:
        """Be where the move leads to. Hold the lock."""
        before, trial = self._rollout, self._trial
        if before is None or trial is None or move.rollout == before:
            self._reason = move.reason
            return
        after = self._rollout = move.rollout
        self._reason = move.reason
        if after.place != before.place:
            trial.base = self._finding(trial).counts.candidate
            self.moves[move.step.value] = self.moves.get(move.step.value, 0) + 1
        self._set_route()
        name, at = self.config.name, self._clock.time()
        if after.over:
            if move.step is Step.ROLLBACK:
                self._failed = trial.checksum
            told.append(self._ended(move.step.value, before.name, move.reason))
            if who is not None:
                self._audit(f"canary_{move.step.value}", f"{trial.version}: {move.reason}", who)
            return
        step = "promote" if after.place != before.place else "pause" if after.paused else "resume"
        told.append(CanaryMoved(name, at, trial.version, step, before.name, after.name, after.weight, move.reason))
        if who is not None:
            self._audit("canary_promote", f"{trial.version} to {after.name}: {move.reason}", who)

    def _ended(self, outcome: str, phase: str, reason: str) -> CanaryEnded:
        found = self._finding(self._trial)
        counts = found.counts
        version = "" if self._trial is None else self._trial.version
        return CanaryEnded(
            self.config.name,
            self._clock.time(),
            version,
            outcome,
            phase,
            reason,
            counts.candidate,
            counts.candidate_bad,
            counts.control,
            counts.control_bad,
            found.worse,
        )

    def _supersede(self, told: list[Event]) -> None:
        """End what is under way for another version. Hold the lock."""
        rollout = self._rollout
        if rollout is not None and not rollout.over:
            told.append(self._ended("superseded", rollout.name, "another version or checksum was started"))

    def _finding(self, trial: Trial | None) -> Finding:
        if trial is None:
            return Finding(Verdict.WAIT, "nothing was started", 1.0, 1.0, 1.0, Counts())
        trial.collect(self.route.weight)
        return trial.ledger.finding(self._peers if trial is self._trial else ())

    def _set_route(self) -> None:
        """Give calls what holds from now on. Hold the lock."""
        rollout = self._rollout
        route = Route(0.0, self._trial, settled=True) if rollout is None else Route(rollout.weight, self._trial, settled=rollout.over)
        # First for who looks back, then for who begins.
        self._routes.append((self._clock.monotonic(), route))
        self.route = route

    # -- files, and other processes ---------------------------------------------------------------------------------------------------

    def _may_lead(self, told: list[Event]) -> bool:
        """Whether this process leads, or does from here on."""
        before = self._leading
        try:
            self._leading = (self._leader is None or bool(self._leader())) and (self._file is None or self._file.lead())
        except Exception as defect:  # noqa: BLE001 - who cannot know does not lead: nothing is promoted
            self._leading = False
            self._defect("leading", defect, "this process does not lead")
        if not self._leading and self._file is not None:
            self._file.let_go()
            if before:
                with self._lock:
                    self._begin_ledger()
        elif self._leading and not before:
            # Whoever led before may have gone further than we have seen.
            with self._lock:
                self._take_over(told)
        return self._leading

    def _join(self, told: list[Event]) -> None:
        """Be part of what is under way, or begin. Hold the turn."""
        leads = self._may_lead(told)
        with self._lock:
            trial = self._trial
            if trial is None or self._rollout is not None or self._take_over(told):
                return
            if leads:
                now = self._clock.monotonic()
                self._rollout = Rollout.begin(self.config.phases, now)
                self._reason = "it has begun"
                self._set_route()
                told.append(self._started(resumed=False))

    def _started(self, *, resumed: bool) -> CanaryStarted:
        version = "" if self._trial is None else self._trial.version
        return CanaryStarted(self.config.name, self._clock.time(), version, self.phase, self.weight, resumed)

    def _said(self) -> dict[str, Any] | None:
        """What the snapshot says of this version; None: nothing."""
        trial = self._trial
        if self._file is None or trial is None:
            return None
        try:
            said = self._file.read()
        except (OSError, ValueError) as refused:
            self._defect("reading the snapshot", refused, "it was left out")
            return None
        return said if said is not None and is_about(said, self.config.name, trial) else None

    def _place_of(self, said: dict[str, Any]) -> Rollout | None:
        return place_of(said, self.config.phases, self._clock.monotonic())

    def _take_over(self, told: list[Event]) -> bool:
        """Be where the snapshot is, with its evidence added to ours; whether it is about this version. Hold the lock."""
        said, trial = self._said(), self._trial
        if said is None or trial is None:
            return False
        rollout = self._place_of(said)
        if rollout is None:
            strange = ValueError("its phases are not those of the configuration")
            self._defect("resuming from the snapshot", strange, "the canary begins anew")
            return False
        try:
            ledger = CanaryLedger.restore(said.get("ledger"), self._levels)
            if self._leading:
                # A follower has evidence of its own, which is not in there.
                trial.ledger.add(ledger)
                trial.inherited = ledger.counts
                base = said.get("base")
                trial.base = base if isinstance(base, int) and not isinstance(base, bool) and base >= 0 else ledger.counts.candidate
        except ConfigurationError as refused:
            self._defect("resuming from the snapshot", refused, "the canary begins anew")
            return False
        began = self._rollout is None
        self._adopt(rollout)
        if began:
            self._reason = "it goes on where it was"
            told.append(self._started(resumed=True))
        return True

    def _hear(self) -> None:
        """Read what the processes that follow have seen of this version. What they have seen of others is of no use any more."""
        file, trial = self._file, self._trial
        if file is None or trial is None:
            return
        heard: list[CanaryLedger] = []
        try:
            for path, said in file.peers():
                if not is_about(said, self.config.name, trial):
                    path.unlink(missing_ok=True)
                    continue
                heard.append(CanaryLedger.restore(said.get("ledger"), self._levels))
        except (ConfigurationError, OSError) as refused:
            self._defect("hearing other processes", refused, "their evidence was left out")
        with self._lock:
            if trial is self._trial:
                self._peers = tuple(heard)

    def _adopt(self, rollout: Rollout) -> None:
        trial, before = self._trial, self._rollout
        if trial is not None and trial.checksum == self._failed and not rollout.over:
            # Proven here: whoever leads may not know yet.
            return
        if before is not None and (before.place, before.paused) == (rollout.place, rollout.paused):
            return
        self._rollout = rollout
        self._set_route()

    def _follow(self, told: list[Event]) -> None:
        """Be where the process that leads is."""
        with self._lock:
            if self._rollout is None:
                self._take_over(told)
                return
            said, before = self._said(), self._rollout
            rollout = None if said is None else self._place_of(said)
            if rollout is None or before.over:
                return
            self._adopt(rollout)
            after = self._rollout
            if after.place == before.place or self._trial is None:
                return
            self._reason = "the process that leads is there"
            if after.over:
                told.append(self._ended(after.name, before.name, self._reason))
            else:
                version, at = self._trial.version, self._clock.time()
                told.append(CanaryMoved(self.config.name, at, version, "promote", before.name, after.name, after.weight, self._reason))

    def _keep(self) -> None:
        """Write down how it stands, or for who leads what this process has seen. Hold the turn. Never raises an ``Exception``."""
        if self._file is None or self._stopped:
            return
        with self._lock:
            trial, rollout = self._trial, self._rollout
            if trial is None or rollout is None:
                return
            trial.collect(self.route.weight)
            said = written(self.config.name, trial, rollout, self._clock.monotonic(), self._clock.time(), self._reason)
        try:
            if self._leading:
                # In this order: what is lost by a crash in between is less harm than what would count twice.
                self._file.drop_own()
                self._file.write(said)
            else:
                self._file.write_own(said)
        except (OSError, ValueError) as refused:
            self._defect("writing the snapshot", refused, "a restart would not know of it")

    # -- the rest ---------------------------------------------------------------------------------------------------------------------

    def _round(self) -> bool:
        if self._stopped:
            return False
        self.evaluate()
        rollout = self._rollout
        return not self._stopped and (rollout is None or not rollout.over)

    def _after_fork(self) -> None:
        """In the child: locks may be held by nobody, and the parent leads."""
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._leading = self._leading and self._file is None
        trial = self._trial
        if trial is not None:
            trial.ledger.forget_lock()
        if self._file is not None:
            self._file.let_go()
            self._file.forget_own()
            self._begin_ledger()
        self.draw = self._draws()

    def _draws(self) -> Draws:
        # Of a fork they are others: its chance is renewed.
        return Draws(f"{self.config.name}/{self._resilience.chance.draw('canary', self.config.name, 0)!r}")

    def _begin_ledger(self) -> None:
        """What was seen so far is in the snapshot, and somebody else's to tell: what is seen from here on is told beside it."""
        trial = self._trial
        if trial is not None:
            self._trial = Trial(trial.version, trial.checksum, CanaryLedger(trial.checksum, self._levels, sticky=self.config.sticky))
            self._peers = ()
            self._set_route()

    def _audit(self, what: str, result: str, who: str | None = None) -> None:
        self._resilience.chaos.audit.note(what, f"{self.config.name}: {result}", who=who)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            if self._listeners.wants(type(event)):
                self._listeners.emit(event)

    def _defect(self, what: str, defect: Exception, consequence: str = "the call went on without it") -> None:
        self._listeners.defect(f"canary {self.config.name}, {what}", defect, self._clock.time(), consequence)


def _paused(rollout: Rollout, reason: str, *, paused: bool) -> Move:
    after = rollout if rollout.over else Rollout(rollout.phases, rollout.place, rollout.entered, paused)
    return Move(Step.HOLD, reason or ("somebody paused it" if paused else "somebody resumed it"), after)


def _short(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in str(text))[:_LONGEST_REASON]
