"""What came of a drill, and whether it was good enough. Plain data and arithmetic; printing is done by :mod:`somaresil.demo.terminal`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from somaresil.demo.load import Figures

__all__ = ["ABSORBED_AT_LEAST", "RECOVERED_WITHIN", "Absorbed", "Budget", "Chaos", "Failure", "Incident", "Memory", "PhaseResult", "Report"]

ABSORBED_AT_LEAST: Final = 0.95
RECOVERED_WITHIN: Final = 300.0
_STEADY_FAILED: Final = 0.05
_STEADY_P95: Final = 1.0
"""Undisturbed, 95 % of the answers take less than half of this many seconds."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """One phase, as the clients saw it."""

    name: str
    seconds: float
    seen: Figures
    injected: int
    """Faults that experiments injected in this phase."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which requests failed for their clients."""

    kind: str
    """``message`` or ``stream``."""
    what: str
    requests: int
    touched: int
    """How many of them an experiment had touched. The others are the service's own."""


@dataclass(frozen=True, slots=True)
class Absorbed:
    """The same question, answered from two books that know nothing of each other.

    What is counted are guarded calls that an experiment has touched: delayed, failed or turned away, in one attempt or in several.
    """

    touched: int
    """As the counts of the guards have it."""
    touched_good: int
    """Those that gave their caller an answer all the same."""
    by_ending: dict[str, dict[str, int]]
    """The same by guard and by who answered: ``dependency``, ``fallback``, or nobody (``failed``)."""
    for_clients: int
    """Touched calls that were made for a request of the load generator."""
    for_clients_good: int
    """Those whose request ended well in the eyes of the client."""

    @property
    def guards_share(self) -> float | None:
        """Absorbed, as the guards counted it; None: nothing was touched."""
        return self.touched_good / self.touched if self.touched else None

    @property
    def clients_share(self) -> float | None:
        """Absorbed, as the clients saw it; None: nothing was touched."""
        return self.for_clients_good / self.for_clients if self.for_clients else None

    @property
    def share(self) -> float | None:
        """The lower of the two; None when either is unknown."""
        if self.guards_share is None or self.clients_share is None:
            return None
        return min(self.guards_share, self.clients_share)


@dataclass(frozen=True, slots=True)
class Chaos:
    """What was done to the service."""

    experiments: tuple[dict[str, Any], ...]
    stop_milliseconds: float
    """How long the kill switch took, the way over HTTP included."""
    after_stop: int
    """Faults that were injected after it had answered."""

    @property
    def injected(self) -> int:
        """Faults in all: one for each attempt struck, one for each breaker tripped."""
        return sum(int(experiment["injected"]) for experiment in self.experiments)


@dataclass(frozen=True, slots=True)
class Incident:
    """From the first bad call to the closed circuit."""

    id: str
    guard: str
    seconds: float | None
    """None: it was not over when the drill ended."""
    recovered: bool
    injected: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """One error budget at the end of the steady state, and at the end of the drill."""

    service: str
    slo: str
    target: float
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Memory:
    """Whether the store keeps what the answers have promised."""

    acknowledged: int
    """Exchanges that a client was told would be remembered."""
    missing: int
    """Those that are not in the store."""
    queued: int
    """Writes that went by way of the outbox."""
    waiting: int
    """Entries that were still in the outbox at the end."""
    repeated: int
    """Writes that arrived again, and were recognised by their key."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, and the judgement."""

    version: str
    seed: int
    rate: float
    seconds: float
    phases: tuple[PhaseResult, ...]
    failures: tuple[Failure, ...]
    """What clients saw go wrong, in all phases."""
    chaos: Chaos
    absorbed: Absorbed
    incidents: tuple[Incident, ...]
    budgets: tuple[Budget, ...]
    memory: Memory
    verdict: dict[str, Any]
    """The gate's answer to: may the gateway be released now?"""
    prometheus: tuple[dict[str, Any], ...] | None = None
    problems: tuple[str, ...] = field(init=False)
    """Why the drill did not pass; empty: it did."""

    def __post_init__(self) -> None:
        """Judge."""
        object.__setattr__(self, "problems", tuple(self._judge()))

    @property
    def passed(self) -> bool:
        """Whether the service has withstood the drill."""
        return not self.problems

    @property
    def hint(self) -> str | None:
        """What may spoil the figures besides the experiments; None: nothing that is known of."""
        steady = self.phases[0].seen
        if steady.failed <= _STEADY_FAILED * steady.requests and (steady.p95 is None or steady.p95 <= _STEADY_P95):
            return None
        return f"already in the steady phase this machine could not keep up with {self.rate:g} requests a second; try a lower --rate"

    @property
    def mttr(self) -> float | None:
        """Mean seconds to recovery; None without an incident that is over."""
        over = [incident.seconds for incident in self.incidents if incident.seconds is not None]
        return sum(over) / len(over) if over else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: seconds, counts and shares."""
        return {
            "somaresil": self.version,
            "passed": self.passed,
            "problems": list(self.problems),
            "hint": self.hint,
            "seed": self.seed,
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "phases": [
                {"name": phase.name, "seconds": round(phase.seconds, 3), "injected": phase.injected, **_figures(phase.seen)}
                for phase in self.phases
            ],
            "failures": [asdict(failure) for failure in self.failures],
            "chaos": {
                "injected": self.chaos.injected,
                "experiments": list(self.chaos.experiments),
                "stop_milliseconds": round(self.chaos.stop_milliseconds, 3),
                "injected_after_stop": self.chaos.after_stop,
            },
            "absorbed": {
                "share": self.absorbed.share,
                "at_least": ABSORBED_AT_LEAST,
                "guards_share": self.absorbed.guards_share,
                "clients_share": self.absorbed.clients_share,
                **asdict(self.absorbed),
            },
            "incidents": [asdict(incident) for incident in self.incidents],
            "mttr_seconds": self.mttr,
            "budgets": [asdict(budget) for budget in self.budgets],
            "memory": asdict(self.memory),
            "verdict": self.verdict,
            "prometheus": None if self.prometheus is None else list(self.prometheus),
        }

    def _judge(self) -> list[str]:
        problems = []
        share = self.absorbed.share
        if not self.chaos.injected or share is None:
            problems.append("no fault was injected, so nothing was shown")
        elif share < ABSORBED_AT_LEAST:
            problems.append(f"{share:.1%} of the touched calls were absorbed, less than {ABSORBED_AT_LEAST:.0%}")
        if self.chaos.after_stop:
            problems.append(f"{self.chaos.after_stop} faults were injected after the kill switch")
        if not self.incidents:
            problems.append("no circuit opened, so no recovery was shown")
        for incident in self.incidents:
            if incident.seconds is None or not incident.recovered:
                problems.append(f"incident {incident.id} has not ended in a closed circuit")
            elif incident.seconds >= RECOVERED_WITHIN:
                problems.append(f"incident {incident.id} took {incident.seconds:.0f} s, not less than {RECOVERED_WITHIN:.0f} s")
        if self.memory.missing:
            problems.append(f"{self.memory.missing} exchanges that were acknowledged are not in the memory store")
        return problems


def _figures(seen: Figures) -> dict[str, Any]:
    return {
        "requests": seen.requests,
        "per_second": round(seen.per_second, 2),
        "failed": seen.failed,
        "degraded": seen.degraded,
        **{
            f"{name}_seconds": None if value is None else round(value, 4)
            for name, value in (("p50", seen.p50), ("p95", seen.p95), ("p99", seen.p99))
        },
    }
