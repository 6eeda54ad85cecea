"""What a canary consists of at one moment: the version at work, who gets how much, and how it looks from outside."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from somaresil.canary.ledger import Counts
from somaresil.model.mix import WHOLE

if TYPE_CHECKING:
    from somaresil.canary.ledger import CanaryLedger, Finding
    from somaresil.model.rollout import Step

__all__ = ["CanaryDecision", "CanaryStatus", "Route", "Side", "Trial"]


class Trial:
    """One version at work: its ledger, and the good events that are not in it yet."""

    __slots__ = ("_reads", "_taken", "base", "checksum", "good", "inherited", "ledger", "version")

    def __init__(self, version: str, checksum: str, ledger: CanaryLedger) -> None:
        self.version = version
        self.checksum = checksum
        self.ledger = ledger
        self.good = (itertools.count(), itertools.count())
        """Of the control and of the candidate: a step of one of these is a good event."""
        self._reads = 0
        self._taken = (0, 0)
        self.inherited = Counts()
        """What of the ledger another process has seen."""
        self.base = 0
        """Events of the candidate before this phase."""

    def collect(self, weight: float) -> None:
        """Put the good events into the ledger. A counter is read by a step, as often as it was read before."""
        control, candidate = next(self.good[0]) - self._reads, next(self.good[1]) - self._reads
        self._reads += 1
        before, self._taken = self._taken, (control, candidate)
        self.ledger.count(weight, control_good=control - before[0], candidate_good=candidate - before[1])


class Route:
    """Who gets how much, at one time; never changed, only replaced. What a call has read when it began stays true for it."""

    __slots__ = ("cut", "good", "settled", "trial", "weight")

    def __init__(self, weight: float, trial: Trial | None, *, settled: bool) -> None:
        """``settled``: all traffic goes to one side, and nothing is counted."""
        self.weight = weight
        self.cut = math.ceil(weight * WHOLE)
        self.trial = trial
        self.settled = settled
        self.good = (itertools.count(), itertools.count()) if trial is None else trial.good


@dataclass(frozen=True, slots=True)
class Side:
    """Where a request goes: see :meth:`CanaryController.choose`."""

    candidate: bool
    route: Route


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """A canary at one moment."""

    canary: str
    version: str | None
    """None: nothing was started."""
    checksum: str | None
    phase: str
    """Its name; ``complete``, ``rollback``, or empty when nothing was started."""
    weight: float
    """Share of the requests that the candidate gets, 0 to 1."""
    paused: bool
    leads: bool
    """Whether this process decides."""
    baked: float
    """Seconds in this phase."""
    events: int
    """Events of the candidate in this phase."""
    finding: Finding
    reason: str
    """Of the last move, or why it does not move."""
    missing: tuple[str, ...] = ()
    """Who should have told the judge what it has seen, and did not."""
    newest: float | None = None
    """Seconds since the epoch of the newest data of the judge; None: it has none, or there is no judge."""
    trouble: str = ""
    """Why the router has not taken the last order; empty: it has, or there is none."""

    @property
    def over(self) -> bool:
        """Whether it is complete or rolled back."""
        return self.phase in {"complete", "rollback"}


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """What a look has come to, and how things stand after it."""

    step: Step
    reason: str
    status: CanaryStatus
