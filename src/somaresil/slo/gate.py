"""May we release? Three answers, each with its evidence: ALLOW, BLOCK, UNKNOWN.

A gate that takes an empty answer for a healthy one approves releases in the dark: slo-kit reads "no data" as a full budget, and a service
was seen that called eight objectives healthy while Prometheus was down. Here unknown is an answer of its own, and it blocks unless the
policy says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from somaresil.config import Checker

if TYPE_CHECKING:
    from somaresil.model.slo import Condition
    from somaresil.slo.objective import ErrorBudget

__all__ = ["Decision", "DeploymentPolicy", "Evidence", "Verdict", "decide", "weigh"]


class Decision(StrEnum):
    """What the gate says."""

    ALLOW = "allow"
    BLOCK = "block"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPolicy:
    """When a release is blocked."""

    minimum_remaining: float = 0.1
    """Block when less than this share of a budget is left."""
    minimum_events: int = 10
    """With fewer events than this nothing is known. Does not apply to recovery objectives: no incident is good news."""
    minimum_coverage: float = 0.0
    """With a smaller share of the period observed than this nothing is known. A process that has just started has observed very little."""
    on_unknown: str = "block"
    """``block`` or ``allow``: what ``bool(verdict)`` makes of UNKNOWN."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("DeploymentPolicy")
        check.ratio("minimum_remaining", self.minimum_remaining)
        check.count("minimum_events", self.minimum_events)
        check.ratio("minimum_coverage", self.minimum_coverage)
        check.one_of("on_unknown", self.on_unknown, ("block", "allow"))
        check.finish()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the decision about one objective rests on."""

    slo: str
    decision: Decision
    reason: str
    budget: ErrorBudget
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the gate. It is truthy when the release must not go on, so ``if await slos.should_block_deployment(): ...`` is safe."""

    decision: Decision
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    on_unknown: str = "block"

    def __bool__(self) -> bool:
        """Whether to block."""
        return self.decision is Decision.BLOCK or (self.decision is Decision.UNKNOWN and self.on_unknown != "allow")

    def __str__(self) -> str:
        """The decision and its reasons, one a line."""
        return "\n  ".join([self.decision.value.upper(), *self.reasons])


def weigh(
    budget: ErrorBudget, conditions: tuple[Condition, ...], policy: DeploymentPolicy, *, sources: int, pending: int, recovery: bool
) -> Evidence:
    """Decide about one objective. ``pending``: incidents that last and may yet end in time; ``recovery``: whether it is about incidents."""

    def say(decision: Decision, reason: str) -> Evidence:
        return Evidence(budget.slo_name, decision, f"{budget.slo_name}: {reason}", budget, conditions)

    events = budget.good + budget.bad
    left = budget.remaining_share
    if not recovery and sources == 0:
        return say(Decision.UNKNOWN, "nothing records into it; name it in guard(..., slo=...) or in the middleware")
    if not recovery and events < policy.minimum_events:
        return say(Decision.UNKNOWN, f"{events} events, fewer than {policy.minimum_events}")
    if budget.coverage < policy.minimum_coverage:
        return say(Decision.UNKNOWN, f"{budget.coverage:.2%} of the period observed, less than {policy.minimum_coverage:.2%}")
    # The budget is decided on before burn rates: what is gone is gone, however calm the last hours were.
    if left is not None and left < policy.minimum_remaining:
        return say(
            Decision.BLOCK, f"{left:.1%} of the error budget left, less than {policy.minimum_remaining:.0%} ({budget.bad} bad of {events})"
        )
    for condition in conditions:
        # A burn that can be kept up does not stop a release: with short periods the derived factors lie below 1.
        if condition.firing and condition.long_burn is not None and condition.long_burn > 1.0:
            window = f"{condition.long:g} s and {condition.short:g} s"
            return say(Decision.BLOCK, f"burning {condition.long_burn:.1f} times too fast over {window} (limit {condition.factor:.3g})")
    if pending:
        return say(Decision.UNKNOWN, f"{pending} incident{'s' if pending > 1 else ''} under way, and nobody knows how it will end")
    if left is None:
        return say(Decision.ALLOW, "no incident")
    return say(Decision.ALLOW, f"{left:.1%} of the error budget left ({budget.bad} bad of {events})")


def decide(evidence: tuple[Evidence, ...], policy: DeploymentPolicy) -> Verdict:
    """One answer for all objectives: one that blocks, blocks; else one that is unknown makes it unknown."""
    if not evidence:
        return Verdict(Decision.UNKNOWN, ("no objective is defined; add one with resilience.slos.add(SLO(...))",), (), policy.on_unknown)
    for decision in (Decision.BLOCK, Decision.UNKNOWN):
        reasons = tuple(e.reason for e in evidence if e.decision is decision)
        if reasons:
            return Verdict(decision, reasons, evidence, policy.on_unknown)
    return Verdict(Decision.ALLOW, tuple(e.reason for e in evidence), evidence, policy.on_unknown)
