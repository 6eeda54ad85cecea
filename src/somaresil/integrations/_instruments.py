"""How our metrics are called in OpenTelemetry, and where they are read. Knows no telemetry library.

Names have dots where those of Prometheus have underscores, and units instead of endings.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.forks import unwatch, watch
from somaresil.integrations._families import FAMILIES, HTTP_LABELS, Labels
from somaresil.integrations._readings import Reader, Reading

if TYPE_CHECKING:
    from somaresil.resilience import Resilience

__all__ = ["INSTRUMENTS", "SCOPE", "Instrument", "Source", "attributes_of"]

SCOPE: Final = "somaresil"
"""Name of the instrumentation scope."""


class Instrument(NamedTuple):
    """How a family is called in OpenTelemetry."""

    name: str
    unit: str
    """As the Unified Code for Units of Measure has it; in braces what is counted."""


INSTRUMENTS: Final = {
    "somaresil_calls": Instrument("somaresil.calls", "{call}"),
    "somaresil_call_duration_seconds": Instrument("somaresil.call.duration", "s"),
    "somaresil_rejections": Instrument("somaresil.rejections", "{call}"),
    "somaresil_breaker_state": Instrument("somaresil.breaker.state", "{breaker}"),
    "somaresil_breaker_keys": Instrument("somaresil.breaker.keys", "{key}"),
    "somaresil_breaker_transitions": Instrument("somaresil.breaker.transitions", "{transition}"),
    "somaresil_concurrency_limit": Instrument("somaresil.concurrency.limit", "{call}"),
    "somaresil_concurrency": Instrument("somaresil.concurrency", "{call}"),
    "somaresil_rate_limit_available": Instrument("somaresil.rate_limit.available", "{unit}"),
    "somaresil_recovery_seconds": Instrument("somaresil.recovery", "s"),
    "somaresil_detection_seconds": Instrument("somaresil.detection", "s"),
    "somaresil_mitigation_seconds": Instrument("somaresil.mitigation", "s"),
    "somaresil_between_incidents_seconds": Instrument("somaresil.between_incidents", "s"),
    "somaresil_pool_endpoint_state": Instrument("somaresil.pool.endpoint.state", "{endpoint}"),
    "somaresil_pool_endpoint_ejections": Instrument("somaresil.pool.endpoint.ejections", "{ejection}"),
    "somaresil_faults_injected": Instrument("somaresil.faults.injected", "{call}"),
    "somaresil_faults_withheld": Instrument("somaresil.faults.withheld", "{call}"),
    "somaresil_faults_overflow": Instrument("somaresil.faults.overflow", "{call}"),
    "somaresil_experiments_ended": Instrument("somaresil.experiments.ended", "{experiment}"),
    "somaresil_chaos_allowed": Instrument("somaresil.chaos.allowed", "{process}"),
    "somaresil_process_faults": Instrument("somaresil.process.faults", "{fault}"),
    "somaresil_process_faults_released": Instrument("somaresil.process.faults.released", "{fault}"),
    "somaresil_experiments": Instrument("somaresil.experiments", "{experiment}"),
    "somaresil_kill_switch": Instrument("somaresil.kill_switch", "{process}"),
    "somaresil_resource_held": Instrument("somaresil.resource.held", ""),
    "somaresil_resource_effect": Instrument("somaresil.resource.effect", ""),
    "somaresil_sli_events": Instrument("somaresil.sli.events", "{event}"),
    "somaresil_slo_objective": Instrument("somaresil.slo.objective", "1"),
    "somaresil_sli_group_events": Instrument("somaresil.sli.group.events", "{event}"),
    "somaresil_sli_slices": Instrument("somaresil.sli.slices", "{slice}"),
    "somaresil_sli_injected_events": Instrument("somaresil.sli.injected.events", "{event}"),
    "somaresil_slo_part_weight": Instrument("somaresil.slo.part.weight", ""),
    "somaresil_slo_chaos_budget": Instrument("somaresil.slo.chaos_budget", "1"),
    "somaresil_slo_previous_error_budget_consumed": Instrument("somaresil.slo.previous_error_budget.consumed", "1"),
    "somaresil_canary_weight": Instrument("somaresil.canary.weight", "1"),
    "somaresil_canary_evidence": Instrument("somaresil.canary.evidence", ""),
    "somaresil_canary_evidence_threshold": Instrument("somaresil.canary.evidence.threshold", ""),
    "somaresil_canary_events": Instrument("somaresil.canary.events", "{event}"),
    "somaresil_canary_moves": Instrument("somaresil.canary.moves", "{move}"),
    "somaresil_deployments": Instrument("somaresil.deployments", "{deployment}"),
    "somaresil_retries": Instrument("somaresil.retries", "{attempt}"),
    "somaresil_hedges": Instrument("somaresil.hedges", "{attempt}"),
    "somaresil_reused_answers": Instrument("somaresil.reused_answers", "{answer}"),
    "somaresil_shadow_decisions": Instrument("somaresil.shadow.decisions", "{decision}"),
    "somaresil_workers": Instrument("somaresil.workers", "{process}"),
    "somaresil_defects": Instrument("somaresil.defects", "{defect}"),
    "somaresil_shared_state_lost": Instrument("somaresil.shared_state.lost", "{backend}"),
    "somaresil_ignored_headers": Instrument("somaresil.ignored_headers", "{header}"),
    "somaresil_runtime_violations": Instrument("somaresil.runtime.violations", "{violation}"),
    "somaresil_request_plans": Instrument("somaresil.request_plans", "{plan}"),
    "http_server_request_duration_seconds": Instrument("http.server.request.duration", "s"),
    "http_server_time_to_first_byte_seconds": Instrument("http.server.time_to_first_byte", "s"),
}
"""By the name of the family."""

_HTTP_ATTRIBUTES: Final = ("http.request.method", "http.route", "http.response.status_code", "error.type")
_STATUS: Final = "http.response.status_code"


def attributes_of(family: str, labels: Labels) -> dict[str, str | int]:
    """The attributes of a row. One without a value is one that is not there."""
    names = FAMILIES[family].labels
    keys = _HTTP_ATTRIBUTES if names == HTTP_LABELS else names
    # The conventions have the status as a number.
    return {key: int(text) if key == _STATUS else text for key, text in zip(keys, labels, strict=True) if text}


class Source:
    """What one process has counted for one ``resilience``, read at need. Told of forks: see :mod:`somaresil.forks`."""

    def __init__(self, resilience: Resilience) -> None:
        """Read nothing yet."""
        self.resilience = resilience
        self._reader = Reader(resilience)
        self._lock = threading.Lock()
        self._at_fork: Reading | None = None
        self._baseline: Reading | None = None
        watch(self)

    def read(self) -> Reading:
        """Everything as it is now."""
        with self._lock:
            reading = self._reader.read()
        return reading if self._baseline is None else reading.minus(self._baseline)

    def before_fork(self) -> None:
        """In the parent: remember what is counted now."""
        with self._lock:
            self._at_fork = self._reader.read()

    def after_fork_in_parent(self) -> None:
        """In the parent: it goes on as it was."""
        self._at_fork = None

    def after_fork_in_child(self) -> None:
        """In the child: what was counted before is told by the parent."""
        self._lock = threading.Lock()
        self._baseline, self._at_fork = self._at_fork, None

    def stop(self) -> None:
        """Hear of forks no more."""
        unwatch(self)
