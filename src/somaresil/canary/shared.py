"""One rollout and those who look at it: what is known of it, where it is, who leads, and what of that is in a file.

:class:`~somaresil.canary.controller.CanaryController` decides; this is what it decides about.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.ledger import CanaryLedger, Counts, Finding, Levels
from somaresil.canary.state import Route, Trial
from somaresil.canary.steering import Steering
from somaresil.canary.store import CanaryFile, is_about, place_of, written
from somaresil.config import Checker
from somaresil.errors import ConfigurationError, describe
from somaresil.events import CanaryEnded, CanaryMoved, CanaryStarted
from somaresil.model.rollout import Rollout, Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.opinion import CanaryJudge, Opinion
    from somaresil.canary.router import TrafficRouter
    from somaresil.events import Event
    from somaresil.resilience import Resilience

__all__ = ["SharedRollout"]

_ROUTES: Final = 256
"""Weights that are remembered, for calls that began under them."""


class SharedRollout:
    """What several processes and threads have in common about one canary."""

    def __init__(
        self,
        resilience: Resilience,
        config: CanaryConfig,
        snapshot: str | os.PathLike[str] | None,
        leader: Callable[[], bool] | None,
        judge: CanaryJudge | None,
        router: TrafficRouter | None,
    ) -> None:
        """Nothing is started. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""
        self.config = config
        self.judge = judge
        """Who knows what was seen; None: the calls of this process, and what other processes write beside the snapshot."""
        self.router = router
        """Who moves the traffic; None: this process, by :attr:`route`."""
        self._resilience = resilience
        self._clock, self._listeners = resilience.clock, resilience.listeners
        check = Checker(f"CanaryController({config.name!r})")
        self._file = None if snapshot is None else CanaryFile(snapshot)
        if self._file is not None and not self._file.path.parent.is_dir():
            check.problem("snapshot", snapshot, "the path of a file in a folder that is there")
        if leader is not None and not callable(leader):
            check.problem("leader", leader, "a function that returns whether this process leads")
        if judge is not None and not callable(getattr(judge, "opinion", None)):
            check.problem("judge", judge, "somebody with an opinion(checksum)", "somaresil.canary.fleet.FleetJudge")
        if router is not None and not callable(getattr(router, "set_weight", None)):
            check.problem("router", router, "a TrafficRouter", "NginxWeights, HAProxyWeights")
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
        self._steering = Steering(router)
        self.moves: dict[str, int] = {}
        """How often it was promoted, completed and rolled back here."""

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

    # -- what is known ----------------------------------------------------------------------------------------------------------------

    def _known(self, trial: Trial | None) -> tuple[Finding, Opinion | None]:
        """What the evidence says, and where there is a judge what else it says. Takes no turn, and waits for nobody."""
        if trial is None:
            return _nothing("nothing was started"), None
        if self.judge is None:
            trial.collect(self.route.weight)
            return trial.ledger.finding(self._peers if trial is self._trial else ()), None
        try:
            opinion = self.judge.opinion(trial.checksum)
            # It knows also who is missing.
            return replace(opinion.finding, verdict=opinion.verdict, reason=opinion.reason), opinion
        except Exception as defect:  # noqa: BLE001 - who knows nothing promotes nothing
            self._defect("asking the judge", defect, "it waits")
            return _nothing(f"the judge does not answer: {describe(defect)}"), None

    def _finding(self, trial: Trial | None) -> Finding:
        return self._known(trial)[0]

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

    def _started(self, *, resumed: bool) -> CanaryStarted:
        version = "" if self._trial is None else self._trial.version
        return CanaryStarted(self.config.name, self._clock.time(), version, self.phase, self.weight, resumed)

    def _set_route(self) -> None:
        """Give calls what holds from now on. Hold the lock."""
        rollout = self._rollout
        route = Route(0.0, self._trial, settled=True) if rollout is None else Route(rollout.weight, self._trial, settled=rollout.over)
        # First for who looks back, then for who begins.
        self._routes.append((self._clock.monotonic(), route))
        self.route = route

    # -- who leads, and what is in a file ---------------------------------------------------------------------------------------------

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
        self._steering.resumed(rollout, taken=said.get("taken") is True)
        began = self._rollout is None
        self._adopt(rollout)
        if began:
            self._reason = "it goes on where it was"
            told.append(self._started(resumed=True))
        return True

    def _hear(self) -> None:
        """Read what the processes that follow have seen of this version. What they have seen of others is of no use any more."""
        file, trial = self._file, self._trial
        if file is None or trial is None or self.judge is not None:
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
            if said is None or rollout is None:
                return
            self._steering.resumed(rollout, taken=said.get("taken") is True)
            if before.over:
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
            said["taken"] = self._steering.took(rollout)
        try:
            if self._leading:
                # In this order: what is lost by a crash in between is less harm than what would count twice.
                self._file.drop_own()
                self._file.write(said)
            else:
                self._file.write_own(said)
        except (OSError, ValueError) as refused:
            self._defect("writing the snapshot", refused, "a restart would not know of it")

    def _begin_ledger(self) -> None:
        """What was seen so far is in the snapshot, and somebody else's to tell: what is seen from here on is told beside it."""
        trial = self._trial
        if trial is not None:
            self._trial = Trial(trial.version, trial.checksum, CanaryLedger(trial.checksum, self._levels, sticky=self.config.sticky))
            self._peers = ()
            self._set_route()

    # -- telling ----------------------------------------------------------------------------------------------------------------------

    def _audit(self, what: str, result: str, who: str | None = None) -> None:
        self._resilience.chaos.audit.note(what, f"{self.config.name}: {result}", who=who)

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            if self._listeners.wants(type(event)):
                self._listeners.emit(event)

    def _defect(self, what: str, defect: Exception, consequence: str = "the call went on without it") -> None:
        self._listeners.defect(f"canary {self.config.name}, {what}", defect, self._clock.time(), consequence)


def _nothing(reason: str) -> Finding:
    return Finding(Verdict.WAIT, reason, 1.0, 1.0, 1.0, Counts())
