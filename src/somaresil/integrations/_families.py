"""The metrics that somaresil has, as a table, and the form of their values. Knows no metrics library.

Which of them a process fills, and how those of several are put together, is in :mod:`somaresil.integrations._readings`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from somaresil.model.breaker import State
from somaresil.model.ejection import Cause
from somaresil.pool import EndpointState

__all__ = ["FAMILIES", "HTTP_LABELS", "OTHER", "REQUESTS", "STAGE_FAMILIES", "SUBJECT_LABELS", "Family", "Histogram", "Labels", "Value"]

OTHER: Final = "_other"
REQUESTS: Final = "_http"
"""Where a guard is named: the limit of the ASGI middleware."""

Labels = tuple[str, ...]


class Histogram(NamedTuple):
    """Counts a bucket (not cumulative, one more than bounds), and the sum of the values where it is known."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float | None

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Bounds that only one of them has are given up: what lies between them cannot be known."""
        bounds = self.bounds if self.bounds == other.bounds else tuple(bound for bound in self.bounds if bound in other.bounds)
        counts = tuple(a + b for a, b in zip(self.over(bounds), other.over(bounds), strict=True))
        return Histogram(bounds, counts, None if self.total is None or other.total is None else self.total + other.total)

    def minus(self, other: Histogram) -> Histogram:
        """What has come since ``other`` was read from the same source."""
        counts = tuple(max(0, a - b) for a, b in zip(self.counts, other.over(self.bounds), strict=True))
        return Histogram(self.bounds, counts, None if self.total is None or other.total is None else max(0.0, self.total - other.total))

    def over(self, bounds: tuple[float, ...]) -> tuple[int, ...]:
        """The counts for some of the bounds."""
        if bounds == self.bounds:
            return self.counts
        counts = [0] * (len(bounds) + 1)
        for bucket, count in enumerate(self.counts):
            ceiling = self.bounds[bucket] if bucket < len(self.bounds) else math.inf
            counts[next((i for i, bound in enumerate(bounds) if bound >= ceiling), len(bounds))] += count
        return tuple(counts)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    kind: str
    labels: Labels
    help: str
    group: int = 1
    """How many of the labels, from the first on, name the thing that may move into ``_other`` as a whole."""
    reserve: int = 1
    """How many label sets one such thing comes to have in an ordinary life."""
    unit: str = ""
    agree: bool = False
    """All workers say the same, so do not add."""
    worst: bool = False
    """Of several, the largest counts, so do not add."""


SUBJECT_LABELS: Final = ("guard", "slo")
"""Of which one is empty."""
STAGE_FAMILIES: Final = {
    "recovery": "somaresil_recovery_seconds",
    "detection": "somaresil_detection_seconds",
    "mitigation": "somaresil_mitigation_seconds",
    "between": "somaresil_between_incidents_seconds",
}
HTTP_LABELS: Final = ("http_request_method", "http_route", "http_response_status_code", "error_type")

FAMILIES: Final = {
    family.name: family
    for family in (
        Family(
            "somaresil_calls",
            "counter",
            ("guard", "outcome", "injected"),
            "Calls through a guard by how they ended; injected: touched by a chaos experiment.",
            reserve=4,
        ),
        Family(
            "somaresil_call_duration_seconds",
            "histogram",
            ("guard",),
            "Duration of the calls that ended by themselves (good, bad, ignored). The sum is not kept: a quiet call bumps one bucket "
            "and nothing else. The +Inf bucket is the count.",
            unit="seconds",
        ),
        Family(
            "somaresil_breaker_state",
            "gauge",
            ("guard", "state"),
            "1 for the state the breaker is in, else 0; with several workers: how many of those that live are in it.",
            reserve=len(State),
        ),
        Family(
            "somaresil_breaker_keys",
            "gauge",
            ("guard", "state"),
            "Keys with a circuit of their own by the state it is in, of guards that are called with keys.",
            reserve=len(State),
        ),
        Family(
            "somaresil_breaker_transitions",
            "counter",
            ("guard", "to"),
            "How often a breaker moved into a state.",
            reserve=3,
        ),
        Family(
            "somaresil_concurrency_limit",
            "gauge",
            ("guard",),
            "Calls that a bulkhead or adaptive limit lets in at once (requests: _http); with several workers: of those that live together.",
        ),
        Family(
            "somaresil_concurrency",
            "gauge",
            ("guard", "state"),
            "Calls that hold a slot of a bulkhead or adaptive limit (active), and that wait for one (waiting), of requests under _http.",
            reserve=2,
        ),
        Family(
            "somaresil_rate_limit_available",
            "gauge",
            ("guard", "unit"),
            "What could be taken of a window of the rate limit at once, 0 in debt; with several workers: of those that live, together.",
            reserve=2,
        ),
        Family(
            "somaresil_recovery_seconds",
            "histogram",
            SUBJECT_LABELS,
            "Incidents that are over: from the first bad event until the circuit was closed again, or no alert stood any more.",
            group=2,
            unit="seconds",
        ),
        Family(
            "somaresil_detection_seconds",
            "histogram",
            SUBJECT_LABELS,
            "Incidents: from the first bad event until the circuit opened, or an alert fired.",
            group=2,
            unit="seconds",
        ),
        Family(
            "somaresil_mitigation_seconds",
            "histogram",
            SUBJECT_LABELS,
            "Incidents that are over: from the first bad event until nobody noticed it any more, at the latest until recovery.",
            group=2,
            unit="seconds",
        ),
        Family(
            "somaresil_between_incidents_seconds",
            "histogram",
            SUBJECT_LABELS,
            "From the end of an incident to the first bad event of the next one of the same guard or objective.",
            group=2,
            unit="seconds",
        ),
        Family(
            "somaresil_pool_endpoint_state",
            "gauge",
            ("pool", "endpoint", "state"),
            "1 for the state the endpoint is in, else 0; with several workers: with how many of those that live it is in it.",
            group=2,
            reserve=len(EndpointState),
        ),
        Family(
            "somaresil_pool_endpoint_ejections",
            "counter",
            ("pool", "endpoint", "cause"),
            "How often a pool took an endpoint out, by what it did worse than the others.",
            group=2,
            reserve=len(Cause),
        ),
        Family(
            "somaresil_faults_injected",
            "counter",
            ("component", "fault"),
            "Calls struck by chaos experiments, by guard and kind.",
        ),
        Family(
            "somaresil_faults_withheld",
            "counter",
            ("component", "fault"),
            "Calls that dry runs of chaos experiments would have struck, by guard and kind.",
        ),
        Family(
            "somaresil_faults_overflow",
            "counter",
            ("component", "fault"),
            "Calls that chaos experiments let pass because too many were held up already, by guard and kind.",
        ),
        Family(
            "somaresil_process_faults",
            "gauge",
            ("component", "fault"),
            "Faults of the process that are there now, by target and kind: resources that are taken, partitions.",
        ),
        Family(
            "somaresil_process_faults_released",
            "counter",
            ("component", "fault", "reason"),
            "Faults of the process that were given back, by target, kind and why they ended.",
            group=2,
            reserve=2,
        ),
        Family(
            "somaresil_resource_held",
            "gauge",
            ("resource", "unit"),
            "How much of a resource experiments hold now, in its own unit.",
        ),
        Family(
            "somaresil_resource_effect",
            "gauge",
            ("resource", "measure"),
            "What experiments on a resource have measured, while they last; with several workers or experiments the largest.",
            reserve=2,
            worst=True,
        ),
        Family(
            "somaresil_sli_events",
            "counter",
            ("slo", "outcome"),
            "Events of an objective, good or bad. Burn rate: bad / (good + bad) / (1 - somaresil_slo_objective_ratio).",
            reserve=2,
        ),
        Family(
            "somaresil_slo_objective",
            "gauge",
            ("slo",),
            "Share of events that an objective wants to be good.",
            unit="ratio",
            agree=True,
        ),
        Family(
            "somaresil_sli_group_events",
            "counter",
            ("slo", "group", "outcome"),
            "Events of the groups of an objective (group_by), good or bad; what has no budget of its own is in group _other.",
            group=2,
            reserve=2,
        ),
        Family(
            "somaresil_sli_slices",
            "counter",
            ("slo", "outcome"),
            "Slices of time of an objective that counts these, good or bad; of mean ratios their sums. Those without traffic are neither.",
            reserve=2,
        ),
        Family(
            "somaresil_sli_injected_events",
            "counter",
            ("slo", "outcome"),
            "Events of an objective that chaos experiments touched, whether they count for its budget or not.",
            reserve=2,
        ),
        Family(
            "somaresil_slo_part_weight",
            "gauge",
            ("slo", "part"),
            "How much a part weighs in a composite objective: its ratio is the mean of theirs by weight.",
            reserve=2,
            agree=True,
        ),
        Family(
            "somaresil_slo_chaos_budget",
            "gauge",
            ("slo",),
            "Share of all events that experiments may spoil, of objectives that give them a budget of their own.",
            unit="ratio",
            agree=True,
        ),
        Family(
            "somaresil_slo_previous_error_budget_consumed",
            "gauge",
            ("slo",),
            "Share of its error budget that an objective had used up at the end of the calendar period before this one, as far as it was "
            "seen; with several workers the largest.",
            unit="ratio",
            worst=True,
        ),
        Family(
            "somaresil_canary_weight",
            "gauge",
            ("canary",),
            "Share of the traffic that the candidate of a canary gets; of several workers the largest counts.",
            unit="ratio",
            worst=True,
        ),
        Family(
            "somaresil_canary_evidence",
            "gauge",
            ("canary", "against"),
            "Evidence of a canary as e-values: worse and objective against the candidate, not_much_worse for it; of workers the largest.",
            reserve=3,
            worst=True,
        ),
        Family(
            "somaresil_canary_events",
            "counter",
            ("canary", "side", "outcome"),
            "Events of both sides of a canary, good or bad, for the version that is in it now.",
            reserve=4,
        ),
        Family(
            "somaresil_canary_moves",
            "counter",
            ("canary", "step"),
            "What became of the phases of a canary: promote, complete, rollback.",
            reserve=3,
        ),
        Family(
            "somaresil_retries",
            "counter",
            ("guard", "decision"),
            "Further attempts of a call: made, or denied for the budget, the deadline or idempotency.",
            reserve=4,
        ),
        Family(
            "somaresil_hedges",
            "counter",
            ("guard", "result"),
            "Further attempts beside a running one that won, lost or failed, and those that the budget or idempotency denied.",
            reserve=5,
        ),
        Family(
            "somaresil_reused_answers",
            "counter",
            ("guard", "how"),
            "Callers who got an answer that was not made for them: from the cache, fresh or stale, or shared with another caller.",
            reserve=3,
        ),
        Family(
            "somaresil_shadow_decisions",
            "counter",
            ("guard", "policy", "decision"),
            "What policies in shadow mode would have done.",
        ),
        Family(
            "somaresil_ignored_headers",
            "counter",
            ("header",),
            "Headers that could not be read.",
        ),
        Family(
            "somaresil_runtime_violations",
            "counter",
            ("rule", "result"),
            "What the rules of a runtime guard do not allow: reported, or blocked.",
        ),
        Family(
            "somaresil_request_plans",
            "counter",
            ("result",),
            "Request plans that were accepted, or ignored by reason; rules of them that nobody has approved as unknown_rule.",
        ),
        Family(
            "http_server_request_duration_seconds",
            "histogram",
            HTTP_LABELS,
            "Duration of HTTP requests to their last byte, named as OpenTelemetry does. Labels that are not known are left out.",
            group=len(HTTP_LABELS),
            unit="seconds",
        ),
        Family(
            "http_server_time_to_first_byte_seconds",
            "histogram",
            HTTP_LABELS,
            "Time to the first byte of the body of HTTP responses that had one.",
            group=len(HTTP_LABELS),
            unit="seconds",
        ),
    )
}

Value = float | Histogram
