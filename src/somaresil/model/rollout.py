"""What a rollout does next: a table of phase, evidence and time, and nothing else.

A rollout goes through its phases one by one, each with a share of the traffic. In a phase it

==============================  =========================================================================================
the evidence says               and then
==============================  =========================================================================================
``fail``, at any moment         it is rolled back, however short the phase was
no more than ``wait``           it stays until the phase has baked and has enough events; then it goes on, unless the phase
                                asks for proof. One that gets neither in ``longest`` seconds does what ``overdue`` says
``pass``                        as ``wait``, and a phase that asks for proof has it
something holds it              it stays, whatever else is said but ``fail``; no time that is over promotes it then
==============================  =========================================================================================

Complete and rolled back are the end: nothing leads out of them. While it is paused a rollout does not move, but for a failure: who has
paused it does not want its errors.

Pure: times, counts and evidence are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["COMPLETE", "OVERDUE", "ROLLBACK", "Move", "Phase", "Rollout", "Seen", "Step", "Verdict"]

COMPLETE: Final = "complete"
ROLLBACK: Final = "rollback"
OVERDUE: Final = ("hold", "promote", "rollback")
"""What a phase may do when its time is over and the evidence still says nothing."""


class Verdict(StrEnum):
    """What the evidence says."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    WAIT = "wait"


class Step(StrEnum):
    """What to do."""

    HOLD = "hold"
    PROMOTE = "promote"
    COMPLETE = "complete"
    ROLLBACK = "rollback"


class Phase(NamedTuple):
    """A share of the traffic and what has to be seen with it before more."""

    name: str
    weight: float
    """Share of the requests that go to the candidate, 0 to 1."""
    bake: float
    """Seconds that it lasts at least."""
    minimum_events: int
    """Events of the candidate that it has at least. With a weight of 0 there are none."""
    prove: bool = False
    """Whether it must be shown that the candidate is not much worse; else it suffices that it is not shown to be worse."""
    longest: float = float("inf")
    """Seconds after which ``overdue`` decides."""
    overdue: str = "hold"


class Seen(NamedTuple):
    """What is known of the present phase."""

    verdict: Verdict
    events: int
    """Events of the candidate in this phase."""
    reason: str = ""
    """The evidence in words."""
    held: str = ""
    """Why it must not go on, whatever the evidence is: nobody knows where the traffic is, or what was seen. Empty: nothing holds it."""


class Move(NamedTuple):
    """What to do, why, and the rollout after it."""

    step: Step
    reason: str
    rollout: Rollout


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a rollout is. Times are seconds on one clock that does not go back."""

    phases: tuple[Phase, ...]
    place: int
    """Number of the phase, from 0; as many as there are phases: complete; -1: rolled back."""
    entered: float
    """When the phase began."""
    paused: bool = False

    @classmethod
    def begin(cls, phases: tuple[Phase, ...], now: float) -> Rollout:
        """In the first phase."""
        return cls(phases, 0, now)

    @property
    def over(self) -> bool:
        """Whether it is complete or rolled back."""
        return not 0 <= self.place < len(self.phases)

    @property
    def name(self) -> str:
        """Of the phase, ``complete`` or ``rollback``."""
        return ROLLBACK if self.place < 0 else self.phases[self.place].name if self.place < len(self.phases) else COMPLETE

    @property
    def weight(self) -> float:
        """Share of the requests that go to the candidate now: all of them when it is complete, none when it is rolled back."""
        return 0.0 if self.place < 0 else self.phases[self.place].weight if self.place < len(self.phases) else 1.0

    def look(self, now: float, seen: Seen) -> Move:
        """What is to be done at ``now``."""
        if self.over:
            return Move(Step.HOLD, f"it is over: {self.name}", self)
        if seen.verdict is Verdict.FAIL:
            return self.rolled_back(now, seen.reason or "the candidate is worse")
        if self.paused:
            return Move(Step.HOLD, "it is paused", self)
        phase, lasted = self.phases[self.place], max(0.0, now - self.entered)
        missing = []
        if lasted < phase.bake:
            missing.append(f"{phase.bake - lasted:.0f} of {phase.bake:.0f} s to bake")
        if seen.events < phase.minimum_events:
            missing.append(f"{seen.events} of {phase.minimum_events} events")
        if phase.prove and seen.verdict is not Verdict.PASS:
            missing.append("no proof yet that it is not much worse")
        if seen.held:
            missing.append(seen.held)
        if not missing:
            return self.promoted(now, seen.reason or "nothing speaks against it")
        reason = f"{phase.name}: {', '.join(missing)}"
        if lasted < phase.longest or phase.overdue == "hold" or (phase.overdue == "promote" and seen.held):
            return Move(Step.HOLD, reason, self)
        reason = f"{reason}, after {phase.longest:.0f} s"
        return self.promoted(now, reason) if phase.overdue == "promote" else self.rolled_back(now, reason)

    def promoted(self, now: float, reason: str) -> Move:
        """On to the next phase, or complete; from there it goes nowhere."""
        if self.over:
            return Move(Step.HOLD, f"it is over: {self.name}", self)
        after = replace(self, place=self.place + 1, entered=now, paused=False)
        return Move(Step.COMPLETE if after.over else Step.PROMOTE, reason, after)

    def rolled_back(self, now: float, reason: str) -> Move:
        """Back to the control alone, from any phase."""
        if self.over:
            return Move(Step.HOLD, f"it is over: {self.name}", self)
        return Move(Step.ROLLBACK, reason, replace(self, place=-1, entered=now, paused=False))
