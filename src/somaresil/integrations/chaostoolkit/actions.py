"""Actions for the Chaos Toolkit: start and end faults of a service.

Every one that starts something needs a ``duration``, and the service ends it by its own clock: Chaos Toolkit ignores the ``timeout`` of a
Python action, and plays no rollbacks after Ctrl-C unless it is told to. Each returns at once; ``pauses`` say how long to look at it.

``service`` is ``module:name`` of a ``Resilience`` that this process can import, or the URL of a control API; without it,
``somaresil_service`` of the configuration. The token for a URL is ``token`` in the secrets that the activity names.
"""

from __future__ import annotations

from typing import Any

from somaresil.chaos.plan import VERSION, ChaosPlan
from somaresil.integrations.chaostoolkit._service import service_of

__all__ = [
    "exhaust",
    "inject_errors",
    "inject_fault",
    "inject_latency",
    "partition",
    "start_plan",
    "stop_all",
    "stop_experiment",
    "trip_circuit_breaker",
]

_Data = dict[str, Any]


def plan_of(func: str, arguments: _Data) -> ChaosPlan:
    """The plan that an action with these arguments stands for. Raises :class:`~somaresil.errors.ConfigurationError`."""
    given = {name: value for name, value in arguments.items() if name not in {"service", "configuration", "secrets"}}
    if func == "start_plan":
        return ChaosPlan.from_dict(given.get("plan"))  # type: ignore[arg-type]
    extra = given.pop("options" if func in {"partition", "exhaust"} else "fault", None) or {}
    kind = {
        "inject_latency": {"kind": "latency"},
        "inject_errors": {"kind": "error"},
        "trip_circuit_breaker": {"kind": "circuit_trip"},
        "partition": {"kind": "network_partition"},
        "exhaust": {"kind": "resource_exhaust"},
        "inject_fault": {},
    }[func]
    window = {"start": 0, **(extra if isinstance(extra, dict) else {"kind": extra}), **kind, **given}
    return ChaosPlan.from_dict({"somaresil_plan": VERSION, "windows": [{n: v for n, v in window.items() if v is not None}]})


def _start(func: str, arguments: _Data, service: str, configuration: _Data | None, secrets: _Data | None) -> list[str]:
    plan = plan_of(func, arguments)
    return service_of(service, configuration, secrets).start(plan)


def start_plan(plan: _Data, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> list[str]:
    """Start every window of a fault plan, all or nothing; it begins now. The ids of its experiments."""
    return _start("start_plan", {"plan": plan}, service, configuration, secrets)


def inject_fault(fault: _Data, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> str:
    """Start one fault, as a window of a plan: target, kind, duration and options of the kind. Its id."""
    return _start("inject_fault", {"fault": fault}, service, configuration, secrets)[0]


def inject_latency(
    target: str,
    delay: float,
    duration: float,
    rate: float = 1.0,
    service: str = "",
    configuration: _Data | None = None,
    secrets: _Data | None = None,
) -> str:
    """Delay a share of the calls of ``target`` by ``delay`` seconds, for ``duration`` seconds. The id of the experiment."""
    given = {"target": target, "delay": delay, "duration": duration, "rate": rate}
    return _start("inject_latency", given, service, configuration, secrets)[0]


def inject_errors(
    target: str,
    duration: float,
    rate: float = 1.0,
    error: str | None = None,
    status: int | None = None,
    service: str = "",
    configuration: _Data | None = None,
    secrets: _Data | None = None,
) -> str:
    """Fail a share of the calls with ``error``, or requests (``http:/path``) with ``status``, for ``duration`` seconds. Its id."""
    given = {"target": target, "duration": duration, "rate": rate, "error": error, "status": status}
    return _start("inject_errors", given, service, configuration, secrets)[0]


def trip_circuit_breaker(
    target: str, duration: float, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None
) -> str:
    """Open the breakers that match for ``duration`` seconds. The id of the experiment."""
    return _start("trip_circuit_breaker", {"target": target, "duration": duration}, service, configuration, secrets)[0]


def partition(
    target: str,
    duration: float,
    options: _Data | None = None,
    service: str = "",
    configuration: _Data | None = None,
    secrets: _Data | None = None,
) -> str:
    """Cut the service off from a part of the network (``net:host:port``) for ``duration`` seconds. The id of the experiment."""
    return _start("partition", {"target": target, "duration": duration, "options": options}, service, configuration, secrets)[0]


def exhaust(
    target: str,
    duration: float,
    options: _Data | None = None,
    service: str = "",
    configuration: _Data | None = None,
    secrets: _Data | None = None,
) -> str:
    """Use up a resource of the process (``resource:name``) for ``duration`` seconds. The id of the experiment."""
    return _start("exhaust", {"target": target, "duration": duration, "options": options}, service, configuration, secrets)[0]


def stop_experiment(experiment: str, service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> bool:
    """End one experiment by its id."""
    service_of(service, configuration, secrets).stop(experiment)
    return True


def stop_all(service: str = "", configuration: _Data | None = None, secrets: _Data | None = None) -> bool:
    """The kill switch: end every fault of the service."""
    service_of(service, configuration, secrets).stop_all()
    return True
