"""What came of a drill, as frozen data, and whether the stack has passed. Rendering is done in :mod:`somaresil.drill.render`.

Passed means: the lower end of the 95 % Wilson interval of the recovery rate is at least :data:`RECOVERY_AT_LEAST`, the slowest recovery
took less than :data:`RECOVERY_WITHIN` seconds, no message that was acknowledged is lost, and Prometheus, where there is one, has counted
the same strikes. What the platform cannot do is named and counted on neither side.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.drill.judge import Impact, Judgement
from somaresil.model.proportion import Distribution, distribution, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RECOVERY_AT_LEAST", "RECOVERY_WITHIN", "Agreement", "Budget", "DrillReport", "FaultResult", "Footprint"]

RECOVERY_AT_LEAST: Final = 0.95
RECOVERY_WITHIN: Final = 300.0


@dataclass(frozen=True, slots=True)
class FaultResult:
    """One fault, and what became of it."""

    number: int
    kind: str
    realm: str
    role: str
    target: str
    radius: str
    rate: float
    verdict: Judgement
    struck: tuple[str, ...] = ()
    """Instances that have counted a strike."""
    selected: tuple[str, ...] = ()
    """Instances inside the blast radius."""
    sign: str = ""
    """What noticed it first, and where."""
    touched: int = 0
    """Calls of guards that it touched, in all instances."""
    touched_good: int = 0
    """Those of them that ended well all the same."""
    amplification: float | None = None
    """Calls on endpoints for each call of a pool while it lasted and was recovered from; 1 without repeats. None: there was no call."""
    reasons: tuple[str, ...] = ()
    """What users saw go wrong."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.number:03d} {self.kind} on {self.role} {self.target} ({self.radius})"

    @property
    def line(self) -> str:
        """How it went, on one line."""
        verdict = self.verdict
        if not verdict.counts:
            return f"{self.name}: unavailable, {verdict.why}"
        how = "recovered" if verdict.recovered else f"NOT RECOVERED, {verdict.why}"
        times = f"users {_seconds(verdict.recovered_after)}, clean {_seconds(verdict.clean_after)}"
        return f"{self.name}: {verdict.injected} strikes on {len(self.struck)}, {verdict.impact.value}, {how}; {times}"


@dataclass(frozen=True, slots=True)
class Budget:
    """The error budget of one objective of one instance, over the drill. Shares; None: no event was seen."""

    instance: str
    slo: str
    good: int
    bad: int
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The same strikes from two books."""

    control: int
    """As the control apps told."""
    prometheus: int
    """As Prometheus scraped them (``somaresil_faults_injected_total``)."""
    differences: tuple[str, ...]
    """Instances and kinds about which they do not agree: ours and theirs."""

    @property
    def agree(self) -> bool:
        """Whether they say the same of every instance and kind."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process has of the machine: what faults have taken must be given back."""

    descriptors: int
    threads: int
    memory: int
    """Resident bytes."""


@dataclass(frozen=True, slots=True)
class DrillReport:
    """Everything, and the judgement."""

    version: str
    seed: int
    form: str
    platform: str
    started_at: float
    """Wall-clock seconds since the epoch."""
    seconds: float
    rate: float
    limit: float
    """Seconds that the stack had for each fault."""
    requests: int
    bad_requests: int
    faults: tuple[FaultResult, ...]
    budgets: tuple[Budget, ...] = ()
    agreement: Agreement | None = None
    """None: there was no Prometheus."""
    acknowledged: int = 0
    """Messages of which users were told that they are remembered, or will be."""
    lost: tuple[str, ...] = ()
    """Those of them that were not in the memory at the end."""
    footprints: tuple[tuple[str, Footprint, Footprint], ...] = ()
    """What each process had before the first fault and after the last."""

    @property
    def counted(self) -> tuple[FaultResult, ...]:
        """Faults that say something about the stack: those that the platform can do."""
        return tuple(fault for fault in self.faults if fault.verdict.counts)

    @property
    def recovered(self) -> int:
        """How many were recovered from."""
        return sum(fault.verdict.recovered for fault in self.counted)

    @property
    def lower_bound(self) -> float | None:
        """The lower end of the 95 % Wilson interval of the recovery rate; None when nothing was counted."""
        interval = wilson(self.recovered, len(self.counted))
        return None if interval is None else interval[0]

    @property
    def times(self) -> dict[str, Distribution | None]:
        """Distributions of seconds.

        Over the faults that were recovered from: ``recovery`` of all, ``noticed`` of those whose users noticed, ``clean`` until nothing was
        left. ``detection``: over those that were detected.
        """
        good = [fault.verdict for fault in self.counted if fault.verdict.recovered]
        noticed = [verdict for verdict in good if verdict.bad]
        return {
            "recovery": _distribution(verdict.recovered_after for verdict in good),
            "noticed": _distribution(verdict.recovered_after for verdict in noticed),
            "clean": _distribution(verdict.clean_after for verdict in good),
            "detection": _distribution(fault.verdict.detected_after for fault in self.counted),
        }

    @property
    def slowest(self) -> float | None:
        """The longest that any fault took, until its users had a steady service and nothing was left."""
        found = [seconds for fault in self.counted if fault.verdict.recovered and (seconds := fault.verdict.over_after) is not None]
        return max(found, default=None)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the stack has not passed; empty: it has."""
        return tuple(self._judge())

    @property
    def passed(self) -> bool:
        """Whether it has."""
        return not self.problems

    def impacts(self, faults: Iterable[FaultResult] | None = None) -> dict[str, int]:
        """How many faults had which impact."""
        chosen = self.faults if faults is None else tuple(faults)
        return {impact.value: count for impact in Impact if (count := sum(fault.verdict.impact is impact for fault in chosen))}

    def by(self, what: str) -> dict[str, tuple[FaultResult, ...]]:
        """Faults by ``kind``, ``realm``, ``radius`` or ``role``."""
        names = sorted({str(getattr(fault, what)) for fault in self.faults})
        return {name: tuple(fault for fault in self.faults if getattr(fault, what) == name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """For JSON. ``summary`` repeats what follows from the rest."""
        return {
            "somaresil_drill_report": 1,
            "summary": {
                "passed": self.passed,
                "problems": list(self.problems),
                "faults": len(self.faults),
                "counted": len(self.counted),
                "recovered": self.recovered,
                "recovery_lower_bound": self.lower_bound,
                "recovery_at_least": RECOVERY_AT_LEAST,
                "slowest_seconds": self.slowest,
                "recovery_within_seconds": RECOVERY_WITHIN,
                "strikes": sum(fault.verdict.injected for fault in self.faults),
                "touched": sum(fault.touched for fault in self.faults),
                "touched_good": sum(fault.touched_good for fault in self.faults),
                "impacts": self.impacts(),
                "seconds": {name: None if each is None else asdict(each) for name, each in self.times.items()},
            },
            **asdict(self),
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)

    def _judge(self) -> Iterable[str]:
        bound, slowest = self.lower_bound, self.slowest
        if bound is None:
            yield "no fault was injected, so nothing was shown"
            return
        if bound < RECOVERY_AT_LEAST:
            rate = f"{self.recovered} of {len(self.counted)} faults were recovered from"
            yield f"{rate}: with 95 % confidence that shows {bound:.1%}, less than {RECOVERY_AT_LEAST:.0%}"
        if slowest is not None and slowest >= RECOVERY_WITHIN:
            yield f"the slowest recovery took {slowest:.0f} s, not less than {RECOVERY_WITHIN:.0f} s"
        if self.lost:
            yield f"{len(self.lost)} of {self.acknowledged} acknowledged messages are lost: {', '.join(self.lost[:5])}"
        if self.agreement is not None and not self.agreement.agree:
            yield f"Prometheus has counted other strikes: {'; '.join(self.agreement.differences[:5])}"


def _distribution(values: Iterable[float | None]) -> Distribution | None:
    return distribution([value for value in values if value is not None])


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
