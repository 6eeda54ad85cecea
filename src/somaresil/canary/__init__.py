"""Canaries: a candidate beside its control, judged by the bad events of objectives."""

from __future__ import annotations

from somaresil.canary.config import CanaryConfig, CanaryPhase
from somaresil.canary.controller import CanaryController, CanaryDecision, CanaryStatus
from somaresil.canary.ledger import Finding
from somaresil.canary.split import Canary
from somaresil.model.rollout import Phase, Step, Verdict

__all__ = [
    "Canary",
    "CanaryConfig",
    "CanaryController",
    "CanaryDecision",
    "CanaryPhase",
    "CanaryStatus",
    "Finding",
    "Phase",
    "Step",
    "Verdict",
]
