"""What a service tells about itself: a snapshot as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from somaresil.model.slo import HOUR, MINUTE
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from somaresil.recorder import Counts
    from somaresil.resilience import Resilience

__all__ = ["describe"]


def describe(resilience: Resilience) -> dict[str, Any]:
    """Guards, budgets, burn rates, incidents, experiments and the verdict on a deployment, ready for JSON."""
    seen = resilience.snapshot()
    verdict = resilience.slos.verdict()
    return {
        "service": seen.service,
        "guards": {
            name: {"state": None if guard.state is None else guard.state.value, **_counts(guard.counts)}
            for name, guard in seen.guards.items()
        },
        "budgets": {
            name: {
                "target": resilience.slos[name].target_percentage,
                "good": budget.good,
                "bad": budget.bad,
                "remaining_share": budget.remaining_share,
                "burn_5m": resilience.slos.burn_rate(name, 5 * MINUTE),
                "burn_1h": resilience.slos.burn_rate(name, HOUR),
            }
            for name, budget in seen.budgets.items()
        },
        "incidents": [
            {
                "id": incident.id,
                "guard": incident.guard,
                "seconds": incident.duration,
                "recovered": incident.recovered,
                "injected": incident.injected,
            }
            for incident in seen.incidents
            if incident.guard is not None
        ],
        "experiments": [
            {
                "id": run.id,
                "fault": run.config.experiment.value,
                "component": run.config.target_component,
                "rate": run.config.failure_rate,
                "live": run.live,
                "ended": run.end_reason,
                "injected": run.injected,
            }
            for run in resilience.chaos.history
        ],
        "verdict": {"decision": verdict.decision.value, "blocks": bool(verdict), "reasons": list(verdict.reasons)},
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {
        "calls": counts.total(),
        **{outcome.value: counts.total(outcome) for outcome in Outcome},
        "touched": counts.total(injected=True),
        "touched_good": counts.total(Outcome.GOOD, injected=True),
    }
