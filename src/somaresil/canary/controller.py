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

Between pods somebody else moves the traffic, a ``router``, and somebody else knows what was seen, a ``judge``. While the router has not
taken an order, or the judge waits, nothing is promoted, also not what is overdue; a roll back is ordered until it was taken.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from somaresil.canary.ledger import CanaryLedger, Counts, Levels
from somaresil.canary.router import RouterError
from somaresil.canary.shared import SharedRollout
from somaresil.canary.state import CanaryDecision, CanaryStatus, Route, Side, Trial
from somaresil.canary.steering import Steered
from somaresil.config import Checker
from somaresil.events import CanaryMoved
from somaresil.model.mix import Draws, Mixer
from somaresil.model.rollout import Move, Rollout, Seen, Step, Verdict
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.opinion import CanaryJudge
    from somaresil.canary.router import TrafficRouter
    from somaresil.events import Event
    from somaresil.resilience import Resilience

__all__ = ["CanaryController", "CanaryDecision", "CanaryStatus", "Route", "Side"]

_LONGEST_REASON: Final = 200
_SELF: Final = "somaresil"
"""Who did it, when nobody did."""


class CanaryController(SharedRollout):
    """One canary. Safe to use from several threads."""

    def __init__(
        self,
        resilience: Resilience,
        config: CanaryConfig,
        *,
        snapshot: str | os.PathLike[str] | None = None,
        leader: Callable[[], bool] | None = None,
        judge: CanaryJudge | None = None,
        router: TrafficRouter | None = None,
    ) -> None:
        """Nothing is started: all traffic goes to the control, no thread runs and no file is read.

        ``snapshot`` is the path of a file in a folder that is there. ``leader`` says whether this process may lead, beside the lock of the
        snapshot: for a fleet ``lambda: redis_leader.leads``. With a ``judge`` what it says is the evidence, and no call of this process is.
        With a ``router`` the process that leads has it move the traffic. Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        super().__init__(resilience, config, snapshot, leader, judge, router)
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

    def status(self) -> CanaryStatus:
        """How it stands now."""
        with self._lock:
            trial, rollout = self._trial, self._rollout
            finding, opinion = self._known(trial)
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
                missing=() if opinion is None else opinion.missing,
                newest=None if opinion is None else opinion.at,
                trouble=self._steering.trouble,
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
        """A request that :meth:`choose` has placed has ended. With a judge it is no evidence. Never raises an ``Exception``."""
        self.ended(side.route, candidate=side.candidate, bad=bad, key=key)

    def ended(self, route: Route, *, candidate: bool, bad: bool, key: str | None) -> None:
        """The same for a call that began under ``route``."""
        try:
            trial = route.trial
            if trial is None or route.settled or self.judge is not None:
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
            if trial is None or route.settled or self.judge is not None:
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
        # A judge has levels of its own, and knows about events of other processes.
        levels = self.config.levels(self._resilience.slos) if self.judge is None else Levels()
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
                self._steering.begin()
                if self._file is not None:
                    self._file.forget_own()
                self._reason = "it waits for the process that leads"
                self._set_route()
            self._join(told)
            self._steer(told)
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
        """All traffic to the control, from the next call on. With a router: when that has taken it, which this waits for once."""
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
        if self.router is not None:
            return await asyncio.to_thread(self.roll_back, reason)
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
        self._steer(told)
        with self._lock:
            trial, rollout = self._trial, self._rollout
            if rollout is None:
                return Step.HOLD, self._reason
            finding = self._finding(trial)
            seen = finding.counts.candidate
            # A judge that has begun anew has seen less than before.
            trial.base = min(trial.base, seen)
            waits = finding.reason if self.judge is not None and finding.verdict is Verdict.WAIT else ""
            held = self._steering.trouble or waits
            move = rollout.look(self._clock.monotonic(), Seen(finding.verdict, seen - trial.base, finding.reason, held))
            self._apply(move, told, who=_SELF)
        if move.rollout is not rollout:
            self._steer(told)
        return move.step, move.reason

    def _steer(self, told: list[Event]) -> None:
        """Have the router do what was decided, if this process leads. Hold the turn, and not the lock: it takes its time."""
        if self.router is None or not self._leading:
            return
        with self._lock:
            trial, rollout, reason = self._trial, self._rollout, self._reason
        if trial is None or rollout is None:
            return
        before = self._steering.trouble
        steered = self._steering.follow(trial.version, rollout, reason)
        if steered is Steered.NOT_TAKEN and self._steering.trouble != before:
            self._defect("moving traffic", RouterError(self._steering.trouble), "it is tried again, and nothing is promoted until then")
        elif steered is Steered.GIVEN_BACK:
            more = RouterError(f"somebody gave the candidate more than {rollout.weight:.3g} of the traffic")
            self._defect("looking at the router", more, "it has its share again")
        with self._lock:
            if self._rollout is not rollout or trial is not self._trial:
                return
            if steered is Steered.TAKEN and not rollout.over:
                # It has baked nothing yet: the traffic is there only now.
                trial.base = self._finding(trial).counts.candidate
                self._rollout = rollout if rollout.paused else replace(rollout, entered=self._clock.monotonic())
            elif steered is Steered.TAKEN_AWAY:
                reason = "somebody has taken traffic from the candidate at the router; resume() gives it back"
                self._apply(_paused(rollout, reason, paused=True), told, who=_SELF)

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
                self._steer(told)
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
                if self.leads or (move.step is Step.ROLLBACK and self.router is None):
                    self._apply(move, told, who=None)
                else:
                    move = Move(Step.HOLD, "another process leads", rollout)
        with self._turn:
            self._steer(told)
            self._keep()
        reason = "nothing was started" if move is None else move.reason
        if self._steering.trouble:
            reason = f"{reason}; {self._steering.trouble}"
            self._patrol_on()
        self._audit(what, reason)
        self._tell(told)
        return CanaryDecision(Step.HOLD if move is None else move.step, reason, self.status())

    def _apply(self, move: Move, told: list[Event], who: str | None) -> None:
        """Be where the move leads to. Hold the lock."""
        before, trial = self._rollout, self._trial
        if before is None or trial is None or move.rollout == before:
            if before is None or not before.over:
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

    def _supersede(self, told: list[Event]) -> None:
        """End what is under way for another version. Hold the lock."""
        rollout = self._rollout
        if rollout is not None and not rollout.over:
            told.append(self._ended("superseded", rollout.name, "another version or checksum was started"))

    # -- the rest ---------------------------------------------------------------------------------------------------------------------

    def _round(self) -> bool:
        if self._stopped:
            return False
        self.evaluate()
        rollout = self._rollout
        return not self._stopped and (rollout is None or not rollout.over or not self._steering.took(rollout))

    def _patrol_on(self) -> None:
        """It has to be looked at again, though it may be over."""
        if self.config.interval is not None and not self._stopped:
            self._patrol.wake()

    def _after_fork(self) -> None:
        """In the child: locks may be held by nobody, and the parent leads."""
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._leading = self._leading and self._file is None and self.router is None
        if self.router is not None and self._file is None and self._leader is None:
            # With a file its lock decides; here nobody else would say that the parent gives the orders.
            self._leader = _nobody
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


def _paused(rollout: Rollout, reason: str, *, paused: bool) -> Move:
    after = rollout if rollout.over else Rollout(rollout.phases, rollout.place, rollout.entered, paused)
    return Move(Step.HOLD, reason or ("somebody paused it" if paused else "somebody resumed it"), after)


def _nobody() -> bool:
    return False


def _short(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in str(text))[:_LONGEST_REASON]
