"""What all pods of both sides have seen together: the judge of a canary whose traffic somebody else moves.

    judge = FleetJudge(
        resilience, name="gateway", bad="availability",
        sources=[ScrapeSource(["http://gateway-canary:8080/evidence"], role="candidate", ...), ScrapeSource([...], role="control", ...)],
    )
    judge.start()
    judge.opinion(checksum)

Each pod tells counters at marks that all pods have in common (:mod:`somaresil.canary.telling`). From mark to mark the candidate's pods had
so many events and so many bad ones, and so had those of the control; the share of the candidate in these events is the weight of each bad
one (:meth:`somaresil.model.evidence.Bet.bad`). So whatever moves the traffic need not say how much it gives to whom, may change that at any
time, and pods may come and go.

What is not there is no evidence. A step from mark to mark is counted when all pods have told of it, or ``patience`` seconds after its end;
then it is compared without the missing ones. What a pod tells later of a time that is past is not compared any more, for the control's part
of that time was; it still counts for the objective. A pod that came up within the step has counted from 0. One that has restarted, or whose
clock was set back, is another one. One whose counters go down, or that is told on both sides, is not listened to until it has restarted.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from somaresil.canary.ledger import CanaryLedger, Counts, Finding, Levels
from somaresil.canary.members import Member, Trial
from somaresil.canary.opinion import Opinion
from somaresil.canary.roster import LONGEST_REASON, SAME, Roster, Side
from somaresil.canary.sources import MOST_PODS, Absent, EvidenceInbox, EvidenceSource, Reading, Told
from somaresil.canary.telling import EVERY, MOST_MARKS, Mark, check_every, check_labels
from somaresil.config import Checker
from somaresil.errors import ConfigurationError, describe
from somaresil.model.rollout import Verdict
from somaresil.patrol import Patrol
from somaresil.safefile import read_plain, replace_with

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import timedelta

    from somaresil.resilience import Resilience

__all__ = ["MOST_CHECKSUMS", "MOST_PODS", "Absent", "EvidenceInbox", "EvidenceSource", "FleetJudge", "Reading", "Told"]

MOST_CHECKSUMS: Final = 8
_FORM: Final = 1
_LARGEST_SNAPSHOT: Final = 4 * 1024 * 1024
_LONGEST_CHECKSUM: Final = 120
_MOST_MISSING: Final = 20
_SOONEST: Final = 0.25
"""Seconds after a mark at which pods are asked: their threads wake at the same moment."""


class FleetJudge:
    """A :class:`~somaresil.canary.opinion.CanaryJudge` of many pods. Safe to use from several threads; only :meth:`look` waits for anybody.

    Evidence belongs to a checksum, of which the last eight are known. One that :meth:`begin` and :meth:`opinion` have not heard of begins
    anew from the counters as they are then; one that comes back goes on. Pods of the candidate that tell a checksum of their own are
    evidence of that one; those that tell none, of the one that was begun last. What has failed stays so.

    ``opinion`` is ``fail`` once the evidence says so (:class:`~somaresil.canary.ledger.Levels`), however few pods are there: what was seen
    was seen. It is ``pass`` when nothing speaks against it, ``minimum_events`` of the candidate were seen beside the control, ``quorum`` of
    the pods of each side have told of the last step, and that was no more than ``stale`` seconds ago; with ``prove`` also only when it is
    shown not to be ``worst`` times as bad. Everything else is ``wait``. With ``no_data="pass"`` a candidate whose pods all tell that they
    have too few events passes without; missing pods never do.

    ``snapshot``: a file in which all this outlives the process. Raises :class:`~somaresil.errors.ConfigurationError` with every problem.
    """

    def __init__(
        self,
        resilience: Resilience,
        *,
        name: str,
        bad: str | Sequence[str],
        sources: Sequence[EvidenceSource],
        levels: Levels | None = None,
        minimum_events: int = 50,
        prove: bool = False,
        no_data: Literal["hold", "pass"] = "hold",
        quorum: float = 0.5,
        every: float = EVERY,
        patience: float | timedelta = 10.0,
        stale: float | timedelta = 60.0,
        snapshot: str | os.PathLike[str] | None = None,
    ) -> None:
        """Nothing is started and nothing is read."""
        check = Checker(f"FleetJudge({name!r})")
        self.name = check.name("name", name)
        self.bad = (bad,) if isinstance(bad, str) else tuple(bad)
        check_labels(check, self.bad)
        self.sources = tuple(sources)
        if not self.sources or not all(callable(getattr(each, "read", None)) for each in self.sources):
            check.problem("sources", sources, "at least one source of evidence", "ScrapeSource, RedisEvidence, EvidenceInbox")
        self.levels = Levels() if levels is None else check.type("levels", levels, Levels, "Levels(...)")
        self._minimum = check.count("minimum_events", minimum_events, minimum=1, maximum=10**9)
        self._prove = check.type("prove", prove, bool, "True or False")
        self._no_data = check.one_of("no_data", no_data, ("hold", "pass"))
        self._quorum = check.ratio("quorum", quorum, allow_zero=False)
        self.every = check_every(check, every)
        self._patience = check.seconds("patience", patience, exclusive=False, maximum=600.0)
        self._stale = check.seconds("stale", stale, maximum=3_600.0)
        if self._stale < 2 * self.every + self._patience:
            check.problem("stale", stale, f"at least {2 * self.every + self._patience:g} s", "two steps and the patience with missing pods")
        self._path = None if snapshot is None else Path(snapshot)
        if self._path is not None and not self._path.parent.is_dir():
            check.problem("snapshot", snapshot, "the path of a file in a folder that is there")
        check.finish()
        self._clock, self._listeners, self._audit = resilience.clock, resilience.listeners, resilience.chaos.audit
        self._lock, self._turn, self._disk = threading.RLock(), threading.RLock(), threading.RLock()
        self._stopped, self._opened = True, False
        self._at: float | None = None
        """The mark up to which everything is counted."""
        self._looked = -math.inf
        self._roster = Roster(self.bad, every=self.every, stale=self._stale, clock=resilience.clock)
        self._trials: OrderedDict[str, Trial] = OrderedDict()
        self._current = ""
        self._paused = ""
        self._dirty = False
        """Whether there is something to write that no step has brought."""
        self._patrol = Patrol(f"somaresil-fleet-{name}", self._walk, self._until_next, resilience.listeners, in_fork=self._after_fork)

    def __repr__(self) -> str:
        """Name and what is judged now."""
        return f"<FleetJudge {self.name!r}: {self._current or 'nothing'}>"

    # -- answers ------------------------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> str:
        """The checksum that was begun last; empty: none was."""
        return self._current

    @property
    def paused(self) -> str:
        """Why nothing passes now, by hand; empty: it is not paused."""
        return self._paused

    def knows(self, checksum: str) -> bool:
        """Whether it has heard of this checksum."""
        with self._lock:
            return checksum in self._trials

    def begin(self, checksum: str) -> bool:
        """Evidence is of this checksum from now on; whether it was of another one, or of none. The same twice changes nothing.

        Waits for no disk: the snapshot has it after the next look.
        """
        checksum = str(checksum)[:_LONGEST_CHECKSUM]
        with self._lock:
            self._open()
            if checksum == self._current and checksum in self._trials:
                return False
            # Of one that comes back this step was partly another's.
            self._trial(checksum).since = self._next_mark()
            self._current, self._dirty = checksum, True
        return True

    def opinion(self, checksum: str) -> Opinion:
        """What is known of the version with this checksum, which is the one that is judged from now on: see :meth:`begin`."""
        with self._lock:
            self.begin(checksum)
            return self.peek(checksum)

    def peek(self, checksum: str) -> Opinion:
        """The same for whoever is only curious: nothing begins by this."""
        checksum = str(checksum)[:_LONGEST_CHECKSUM]
        with self._lock:
            self._open()
            trial = self._trials.get(checksum)
            if trial is None:
                reason = f"nothing is known of the checksum {checksum[:40]!r}"
                return Opinion(Verdict.WAIT, reason, Finding(Verdict.WAIT, reason, 1.0, 1.0, 1.0, Counts()))
            finding = self._finding(trial)
            absent = self._roster.missing(trial.checksum, self._current, self._at)
            verdict, reason = self._weigh(trial, finding, absent)
            missing = tuple(f"{each.name}: {each.why}"[:LONGEST_REASON] for each in absent[:_MOST_MISSING])
            return Opinion(verdict, reason[:LONGEST_REASON], finding, trial.at, missing)

    def _weigh(self, trial: Trial, finding: Finding, absent: Sequence[Absent]) -> tuple[Verdict, str]:
        if trial.failed:
            return Verdict.FAIL, trial.failed
        if finding.verdict is Verdict.FAIL:
            trial.failed, self._dirty = finding.reason, True
            return Verdict.FAIL, finding.reason
        if self._paused:
            return Verdict.WAIT, f"it is paused: {self._paused}"
        if trial.passed:
            return Verdict.PASS, trial.passed
        reason = self._why_wait(trial, absent)
        few = trial.compared < self._minimum
        if reason is None and few and self._no_data == "hold":
            reason = f"{trial.compared} of {self._minimum} events of the candidate beside the control"
        if reason is None and self._prove and not few and finding.verdict is not Verdict.PASS:
            reason = f"no proof yet that it is not much worse: {finding.reason}"
        if reason is not None:
            return Verdict.WAIT, reason
        if few:
            return Verdict.PASS, f"too few events, which is no obstacle here ({trial.compared} of {self._minimum})"
        return Verdict.PASS, finding.reason if finding.verdict is Verdict.PASS else f"nothing speaks against it: {finding.reason}"

    def _why_wait(self, trial: Trial, absent: Sequence[Absent]) -> str | None:
        """Why nobody can know; None: the pods are there."""
        now = self._clock.monotonic()
        if self._looked == -math.inf:
            return "nobody has looked at the pods yet"
        if now - self._looked > self._stale:
            return f"nobody has looked at the pods for {now - self._looked:.0f} s"
        mistaken = [each.name for each in absent if each.why == SAME]
        if mistaken:
            return f"{mistaken[0]} {SAME}"
        sides: tuple[Side, ...] = ("candidate", "control")
        for side in sides:
            there = self._roster.count(side, trial.checksum, self._current, self._at)
            away = sum(1 for each in absent if each.role in {side, ""})
            if there < max(1, math.ceil(self._quorum * (there + away))):
                return f"{there} of {there + away} pods of the {side} tell what they see"
        if trial.at is None:
            return "no step has been counted yet"
        if now - trial.fresh > self._stale:
            return f"the newest data are {now - trial.fresh:.0f} s old"
        return None

    def status(self) -> dict[str, Any]:
        """How it stands with the checksum that was begun last, for people: what :func:`somaresil.verdict.views` shows."""
        with self._lock:
            self._open()
            trial = self._trials.get(self._current)
            if trial is None:
                return {"canary": self.name, "checksum": None, "version": None, "phase": "", "paused": bool(self._paused), "baked": 0.0}
            return {
                "canary": self.name,
                "checksum": trial.checksum,
                "version": ", ".join(trial.versions) or None,
                "phase": "rollback" if trial.failed else "analysis",
                "paused": bool(self._paused),
                "baked": max(0.0, self._clock.monotonic() - trial.began),
            }

    # -- what people do -----------------------------------------------------------------------------------------------------------------

    def roll_back(self, reason: str) -> str:
        """The checksum that was begun last has failed, because somebody says so; what came of it, in words."""
        return self._by_hand("canary_rollback", reason or "somebody asked for it", "failed")

    def promote(self, reason: str = "") -> str:
        """The checksum that was begun last passes, whatever is missing, unless it has failed."""
        return self._by_hand("canary_promote", reason or "somebody asked for it", "passed")

    def pause(self, reason: str = "") -> str:
        """Nothing passes until :meth:`resume`; what fails fails."""
        return self._by_hand("canary_pause", reason or "somebody paused it", "paused")

    def resume(self, reason: str = "") -> str:
        """Go on after :meth:`pause`."""
        return self._by_hand("canary_resume", reason, "resumed")

    def _by_hand(self, what: str, reason: str, outcome: str) -> str:
        reason = "".join(each if each.isprintable() else " " for each in reason)[:LONGEST_REASON]
        with self._lock:
            self._open()
            trial = self._trials.get(self._current)
            if outcome in {"paused", "resumed"}:
                self._paused, said = (reason, f"paused: {reason}") if outcome == "paused" else ("", "resumed")
            elif trial is None:
                said = "nothing was started"
            elif trial.failed:
                said = f"it has failed: {trial.failed}"
            elif outcome == "failed":
                trial.failed, said = reason, reason
            else:
                trial.passed, said = reason, reason
        self._audit.note(what, f"{self.name}: {said}")
        self._keep()
        return said

    # -- looking ------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at the pods a moment after each mark, in a daemon thread."""
        with self._lock:
            self._open()
        self._stopped = False
        self._patrol.wake()

    def stop(self) -> None:
        """Look no more. Opinions become ``wait`` as what was seen gets old."""
        self._stopped = True
        self._patrol.wake()

    def look(self) -> None:
        """Ask all sources and count what is complete; the thread does this. Never raises an ``Exception`` for a source or a file."""
        with self._turn:
            readings: list[tuple[EvidenceSource, Reading]] = []
            for source in self.sources:
                try:
                    readings.append((source, source.read()))
                except Exception as broken:  # noqa: BLE001 - whatever it is, its pods have not told anything
                    readings.append((source, Reading(absent=(Absent(_named(source), describe(broken)[:LONGEST_REASON], _role(source)),))))
            with self._lock:
                self._open()
                self._looked = self._clock.monotonic()
                self._roster.hear(readings)
                for checksum in self._roster.checksums():
                    self._trial(checksum)
                    self._current = self._current or checksum
                moved = self._count()
                dirty, self._dirty = self._dirty, False
            if moved or dirty:
                self._keep()

    def _walk(self) -> bool:
        if self._stopped:
            return False
        self.look()
        return not self._stopped

    def _until_next(self) -> float:
        """A moment after the next mark, and sooner as long as somebody is late."""
        now = self._clock.time()
        late = self._at is not None and self._at + self.every <= now
        return min(self.every - now % self.every + _SOONEST, 1.0 if late else math.inf)

    def _after_fork(self) -> None:
        """Locks may be held by nobody."""
        self._lock, self._turn, self._disk = threading.RLock(), threading.RLock(), threading.RLock()
        for trial in self._trials.values():
            for ledger in trial.ledgers.values():
                ledger.forget_lock()

    # -- counting -----------------------------------------------------------------------------------------------------------------------

    def _count(self) -> bool:
        """Count the steps that are complete; whether there was one."""
        now = self._clock.time()
        due = math.floor(now / self.every) * self.every
        if self._at is None or self._at > due + self.every:
            # At the beginning, or after the wall clock went back: what pods told of a time that has yet to come is forgotten.
            self._at = due - self.every
            for member in self._roster:
                member.marks = {at: mark for at, mark in member.marks.items() if at <= due}
            for trial in self._trials.values():
                trial.since = min(trial.since, due)
        if due - self._at > MOST_MARKS * self.every:
            self._at = due - self.every
        moved = False
        while self._at + self.every <= due:
            end = self._at + self.every
            late = any(not each.refused and end not in each.marks for each in self._roster)
            if (late or self._roster.has_absent) and now < end + self._patience:
                break
            for trial in self._trials.values():
                self._step(trial, self._at, end)
            for member in self._roster:
                if end in member.marks:
                    member.reached = end
            self._at, moved = end, True
        return moved

    def _step(self, trial: Trial, begin: float, end: float) -> None:
        """Count what was seen from ``begin`` to ``end``."""
        compared: dict[str, list[int]] = {label: [0, 0, 0, 0] for label in self.bad}
        alone: dict[str, list[int]] = {label: [0, 0, 0, 0] for label in self.bad}
        versions: list[str] = []
        sides: set[str] = set()
        for member in self._roster:
            side, mark = self._roster.side(member, trial.checksum, self._current), member.marks.get(end)
            if side is None or member.refused or mark is None:
                continue
            sides.add(side)
            if side == "candidate" and member.telling.version not in versions:
                versions.append(member.telling.version)
            since, beside = self._since(member, begin, trial)
            if since is None:
                continue
            for label in self.bad:
                good, bad = mark.counts[label]
                before = since.counts[label]
                sums, place = (compared if beside else alone)[label], 0 if side == "candidate" else 2
                sums[place] += good - before[0]
                sums[place + 1] += bad - before[1]
        if "candidate" not in sides:
            # Nobody serves this version: what the others see is not beside anything.
            return
        for label, ledger in trial.ledgers.items():
            good, bad, control_good, control_bad = compared[label]
            everybody = good + bad + control_good + control_bad
            ledger.count(
                (good + bad) / everybody if everybody else 0.0,
                candidate_good=good,
                candidate_bad=bad,
                control_good=control_good,
                control_bad=control_bad,
            )
            good, bad, control_good, control_bad = alone[label]
            ledger.count(0.0, candidate_good=good, candidate_bad=bad, control_good=control_good, control_bad=control_bad)
        # An event that only one objective is about is one event.
        trial.compared += min(sums[0] + sums[1] if sums[2] + sums[3] else 0 for sums in compared.values())
        if begin >= trial.since:
            trial.at, trial.fresh, trial.versions = end, self._clock.monotonic(), tuple(each for each in versions[:8] if each)
        finding = self._finding(trial)
        if finding.verdict is Verdict.FAIL and not trial.failed:
            trial.failed = finding.reason

    def _since(self, member: Member, begin: float, trial: Trial) -> tuple[Mark | None, bool]:
        """From where the events of a process count, and whether they are of this step alone; None: nobody knows what they are of."""
        if begin >= trial.since:
            if begin in member.marks:
                return member.marks[begin], True
            if member.reached is None and member.counted_since(begin):
                return Mark(begin, dict.fromkeys(self.bad, (0, 0))), True
        reached = member.reached
        if reached is not None and reached >= trial.since and reached in member.marks and reached <= begin:
            return member.marks[reached], False
        return None, False

    def _finding(self, trial: Trial) -> Finding:
        """Of several objectives the mean of what speaks against it (a mean of e-values is one), and the least that speaks for it."""
        found = [(label, ledger.finding()) for label, ledger in trial.ledgers.items()]
        if len(found) == 1:
            return found[0][1]
        with_objective = self.levels.allowed is not None
        against = [(each.worse + each.too_bad) / 2.0 if with_objective else each.worse for _, each in found]
        label, first = found[against.index(max(against))]
        verdict, reason = Verdict.WAIT, f"no proof either way ({label}: {first.counts.candidate_bad} of {first.counts.candidate} bad)"
        if math.fsum(against) / len(against) >= 1.0 / self.levels.alpha:
            verdict, reason = Verdict.FAIL, f"{label}: {first.reason}"
        elif all(each.verdict is Verdict.PASS for _, each in found):
            verdict, reason = Verdict.PASS, f"{label}: {first.reason}"
        many = len(found)
        return Finding(
            verdict,
            reason,
            math.fsum(each.worse / many for _, each in found),
            min(each.not_much_worse for _, each in found),
            math.fsum(each.too_bad / many for _, each in found),
            first.counts,
        )

    def _trial(self, checksum: str) -> Trial:
        """The trial of a checksum; a new one begins with the next mark. Hold the lock."""
        trial = self._trials.get(checksum)
        if trial is None:
            ledgers = {label: CanaryLedger(checksum, self.levels) for label in self.bad}
            trial = Trial(checksum, ledgers, self._next_mark(), self._clock.monotonic())
            self._trials[checksum] = trial
            while len(self._trials) > MOST_CHECKSUMS:
                # What was never seen goes first, then the oldest; never the one that is asked about.
                others = [each for each in self._trials.values() if each.checksum not in {checksum, self._current}]
                unseen = [each for each in others if each.at is None and not each.failed]
                del self._trials[(unseen or others)[0].checksum]
        return trial

    def _next_mark(self) -> float:
        return math.ceil(self._clock.time() / self.every) * self.every

    # -- the snapshot -------------------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read the snapshot, once. Hold the lock."""
        if self._opened or self._path is None:
            self._opened = True
            return
        self._opened = True
        try:
            said = json.loads(read_plain(self._path, _LARGEST_SNAPSHOT))
            self._restore(said)
        except FileNotFoundError:
            return
        except (ConfigurationError, LookupError, OSError, RecursionError, TypeError, ValueError) as refused:
            self._trials.clear()
            self._current, self._at = "", None
            self._defect("reading the snapshot", refused, "evidence begins anew, and what has failed before is not known")

    def _restore(self, said: object) -> None:
        if not isinstance(said, dict) or said.get("form") != _FORM or said.get("canary") != self.name or said.get("bad") != list(self.bad):
            raise ValueError("it is not of this canary and these objectives")
        now, monotonic = self._clock.time(), self._clock.monotonic()
        for each in said["trials"][:MOST_CHECKSUMS]:
            trial = Trial.read(each, self.bad, self.levels, now, monotonic)
            self._trials[trial.checksum] = trial
        at = said.get("at")
        self._current = str(said.get("current", "")) if said.get("current") in self._trials else ""
        self._paused = str(said.get("paused", ""))[:LONGEST_REASON]
        self._at = float(at) if isinstance(at, float) and math.isfinite(at) else None

    def _keep(self) -> None:
        """Write the snapshot. Never raises an ``Exception``."""
        if self._path is None:
            return
        with self._disk:
            with self._lock:
                said = {
                    "form": _FORM,
                    "canary": self.name,
                    "bad": list(self.bad),
                    "at": self._at,
                    "current": self._current,
                    "paused": self._paused,
                    "trials": [each.written() for each in self._trials.values()],
                }
            try:
                replace_with(self._path, json.dumps(said, allow_nan=False).encode())
            except (OSError, ValueError) as refused:
                self._defect("writing the snapshot", refused, "a restart would not know of it")

    def _defect(self, what: str, defect: Exception, consequence: str) -> None:
        self._listeners.defect(f"fleet judge {self.name}, {what}", defect, self._clock.time(), consequence)


def _named(source: object) -> str:
    return type(source).__qualname__


def _role(source: object) -> str:
    role = getattr(source, "role", "")
    return role if role in {"candidate", "control"} else ""
