"""Probes for the Chaos Toolkit: what the service says of itself. Where it cannot say, the probe fails: no data is not good news.

``service`` and secrets as in :mod:`somaresil.integrations.chaostoolkit.actions`.
"""

from __future__ import annotations

from typing import Any

from somaresil.integrations.chaostoolkit import _service
from somaresil.integrations.chaostoolkit._service import ServiceError, service_of

__all__ = ["breaker_state", "budget_left", "burn_rate", "experiment_status", "recovered"]

_Data = dict[str, Any]


def burn_rate(
    slo: str, window: float = 3600.0, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None
) -> float:
    """Multiple of the sustainable burn over the last ``window`` seconds. Fails when no event was seen."""
    return _known(slo, service_of(service, configuration, secrets).objective(slo, window)["burn_rate"])


def budget_left(slo: str, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> float:
    """The share of the error budget that is left: 1 is all of it, below 0 it is overdrawn. Fails when no event was seen."""
    return _known(slo, service_of(service, configuration, secrets).objective(slo, 3600.0)["budget_left"])


def breaker_state(guard: str, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> str:
    """The state of a breaker: ``closed``, ``open``, ``half_open``, and so on."""
    found = service_of(service, configuration, secrets).breakers().get(guard)
    if found is None:
        raise ServiceError(f"there is no breaker of a guard {guard!r}")
    return found


def experiment_status(experiment: str, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> str:
    """``running``, ``scheduled``, or why it ended: ``expired``, ``stopped``, ``stop_all``, ``used up`` or ``failed``."""
    found = service_of(service, configuration, secrets).experiments().get(experiment)
    if found is None:
        raise ServiceError(f"no experiment is called {experiment!r}")
    return found


def recovered(guards: str = "*", service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> bool:
    """Whether no experiment runs, and every circuit of the guards that match serves."""
    return _service.recovered(service_of(service, configuration, secrets), guards)


def _known(slo: str, value: float | None) -> float:
    if value is None:
        raise ServiceError(f"objective {slo!r} has seen no event: nothing can be said of it")
    return float(value)
