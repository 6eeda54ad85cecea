"""May we release? Three answers, each with its evidence: ALLOW, BLOCK, UNKNOWN.

A gate that takes an empty answer for a healthy one approves releases in the dark: slo-kit reads "no data" as a full budget, and a service
was seen that called eight objectives healthy while Prometheus was down. Here unknown is an answer of its own, and it blocks unless the
policy says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.model.slo import time_to_exhaustion

if TYPE_CHECKING:
    from somaresil.model.slo import Condition
    from somaresil.slo.objective import ErrorBudget

__all__ = ["Decision", "DeploymentPolicy", "Evidence", "Override", "Verdict", "decide", "weigh"]

_LONGEST_OVERRIDE: Final = 7 * 86_400.0
_LONGEST_REASON: Final = 500


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
    groups: bool = True
    """Whether each group of an objective with ``group_by`` is judged too, by its own budget. Groups with fewer events than
    ``minimum_events`` are part of the whole alone: most of them never have more."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("DeploymentPolicy")
        check.ratio("minimum_remaining", self.minimum_remaining)
        check.count("minimum_events", self.minimum_events)
        check.ratio("minimum_coverage", self.minimum_coverage)
        check.one_of("on_unknown", self.on_unknown, ("block", "allow"))
        check.type("groups", self.groups, bool, "True or False")
        check.finish()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the decision about one objective rests on."""

    slo: str
    decision: Decision
    reason: str
    budget: ErrorBudget
    conditions: tuple[Condition, ...]

    @property
    def exhausted_in(self) -> float | None:
        """Seconds until the budget is used up if the burn of the last hour goes on; 0: it is; None: never, or not known."""
        left, burn = self.budget.remaining_share, self.budget.burn_rate
        return None if left is None or burn is None else time_to_exhaustion(left, burn, self.budget.window)


@dataclass(frozen=True, slots=True)
class Override:
    """Somebody lets a release go on that the gate would stop, until a moment that is near, for a reason that is written down.

    ``until`` is wall time in seconds since the epoch. Made by :meth:`granted`, which refuses what is over, or too far away to be an
    exception; it is void from ``until`` on, wherever it is looked at.
    """

    reason: str
    until: float
    who: str = ""

    @classmethod
    def granted(cls, reason: str, until: float, *, now: float, who: str = "") -> Override:
        """Check it, and raise :class:`~somaresil.errors.ConfigurationError` with every problem.

        That it has expired is none: it is no mistake of whoever wrote it, and :meth:`holds` tells it.
        """
        check = Checker("Override")
        text = "".join(character if character.isprintable() else " " for character in reason).strip() if isinstance(reason, str) else ""
        if not text or len(text) > _LONGEST_REASON:
            check.problem("reason", reason, f"a text of 1 to {_LONGEST_REASON} characters", "who reads it later wants to know why")
        if not math.isfinite(until) or until > now + _LONGEST_OVERRIDE:
            check.problem("until", until, "a time at most 7 days from now", "an exception that does not end is a policy")
        check.finish()
        return cls(text, until, who)

    def holds(self, now: float) -> bool:
        """Whether it still counts."""
        return now < self.until


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the gate. It is truthy when the release must not go on, so ``if await slos.should_block_deployment(): ...`` is safe."""

    decision: Decision
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    on_unknown: str = "block"
    override: Override | None = None
    """The exception that was made, and held when this was judged; the decision stays what it is."""

    def __bool__(self) -> bool:
        """Whether to block."""
        return self.override is None and self.decided_to_block

    @property
    def decided_to_block(self) -> bool:
        """Whether it would block without an override."""
        return self.decision is Decision.BLOCK or (self.decision is Decision.UNKNOWN and self.on_unknown != "allow")

    def __str__(self) -> str:
        """The decision and its reasons, one a line."""
        return "\n  ".join([self.decision.value.upper(), *self.reasons])


def weigh(
    budget: ErrorBudget, conditions: tuple[Condition, ...], policy: DeploymentPolicy, *, pending: int = 0, recovery: bool = False
) -> Evidence:
    """Decide about one objective. ``pending``: incidents that last and may yet end in time; ``recovery``: whether it is about incidents."""
    # A label comes from outside: it may be anything but a line of its own.
    whose = budget.slo_name if budget.group is None else f"{budget.slo_name} of {budget.group!r}"

    def say(decision: Decision, reason: str) -> Evidence:
        return Evidence(budget.slo_name, decision, f"{whose}: {reason}", budget, conditions)

    events = budget.good + budget.bad
    left = budget.remaining_share
    if budget.problem is not None:
        return say(Decision.UNKNOWN, budget.problem)
    if not recovery and events < policy.minimum_events:
        return say(Decision.UNKNOWN, f"{events} events, fewer than {policy.minimum_events}")
    if budget.coverage < policy.minimum_coverage:
        return say(Decision.UNKNOWN, f"{budget.coverage:.2%} of the period observed, less than {policy.minimum_coverage:.2%}")
    # The budget is decided on before burn rates: what is gone is gone, however calm the last hours were.
    if left is not None and (left < policy.minimum_remaining or left <= 0.0):
        floor = f"less than {policy.minimum_remaining:.0%}" if left < policy.minimum_remaining else "nothing"
        return say(Decision.BLOCK, f"{left:.1%} of the error budget left, {floor} ({budget.bad} bad of {events})")
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
