"""The service that an experiment is about: a ``Resilience`` of this process (``module:name``), or one behind its control API (a URL)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlsplit

from somaresil.config import Checker
from somaresil.model.selector import matches
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.chaos.plan import ChaosPlan

__all__ = ["Service", "ServiceError", "service_of"]

_PATIENCE: Final = 5.0
"""Seconds for one answer."""
_LARGEST: Final = 4_000_000
"""Bytes of an answer that are read."""
_SERVING: Final = frozenset({"closed", "ramping", "disabled", "observing"})


class ServiceError(RuntimeError):
    """The service did not do what it was asked, or does not say what is asked for."""


class Service(Protocol):
    """What actions, probes and controls need of it."""

    def start(self, plan: ChaosPlan) -> list[str]:
        """Arm a plan, all or nothing; the ids of its experiments."""
        ...

    def experiments(self) -> dict[str, str]:
        """By id: ``running``, ``scheduled``, or why it ended."""
        ...

    def stop(self, experiment: str) -> None:
        """End one."""
        ...

    def stop_all(self) -> None:
        """The kill switch."""
        ...

    def objective(self, slo: str, window: float) -> dict[str, float | None]:
        """``burn_rate`` over ``window`` seconds and ``budget_left``, the share of the budget; None: no event was seen."""
        ...

    def breakers(self) -> dict[str, str]:
        """State of each breaker by guard."""
        ...


def service_of(service: str, configuration: Mapping[str, Any] | None, secrets: Mapping[str, Any] | None) -> Service:
    """The service by its argument, or by ``somaresil_service`` of the configuration; the token is ``token`` of the secrets."""
    named: Any = service or (configuration or {}).get("somaresil_service") or ""
    check = Checker("service")
    allowed = "module:name of a Resilience, or the URL of a control API"
    if not isinstance(named, str) or not named:
        check.problem("service", named, allowed, 'as an argument, or "somaresil_service" in the configuration of the experiment')
        check.finish()
    if "://" in named:
        return _Remote(_base(check, named), _token(secrets))
    module, _, name = named.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *(name or "resilience").split(".")]):
        check.problem("service", named, allowed)
        check.finish()
    found: Any = import_module(module)
    for part in (name or "resilience").split("."):
        found = getattr(found, part)
    check.type("service", found, Resilience, allowed)
    check.finish()
    return _Local(found)


def _base(check: Checker, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        check.problem("service", url.rpartition("@")[2], "http://host[:port]/path, or https://", "the token is not a part of it")
        check.finish()
    return url.rstrip("/")


def _token(secrets: Mapping[str, Any] | None) -> str:
    # Activities are given the secrets that they name, controls all of them.
    given = secrets or {}
    inner = given.get("somaresil")
    return str(given.get("token") or (inner.get("token") if isinstance(inner, dict) else None) or "")


class _Local:
    """In this process."""

    def __init__(self, resilience: Resilience) -> None:
        self._resilience = resilience

    def start(self, plan: ChaosPlan) -> list[str]:
        return [run.id for run in self._resilience.chaos.arm_plan(plan).runs]

    def experiments(self) -> dict[str, str]:
        history = self._resilience.chaos.history
        return {run.id: "running" if run.live else run.end_reason or "scheduled" for run in history}

    def stop(self, experiment: str) -> None:
        found = [run for run in self._resilience.chaos.history if run.id == experiment]
        if not found:
            raise ServiceError(f"no experiment is called {experiment!r}")
        for run in found:
            self._resilience.chaos.stop(run)

    def stop_all(self) -> None:
        self._resilience.chaos.stop_all()

    def objective(self, slo: str, window: float) -> dict[str, float | None]:
        budget = self._resilience.slos.error_budget(slo)
        left = None if budget.remaining is None or not budget.total_budget else budget.remaining / budget.total_budget
        return {"burn_rate": self._resilience.slos.burn_rate(slo, window), "budget_left": left}

    def breakers(self) -> dict[str, str]:
        guards = self._resilience.guards.items()
        return {name: guard.breaker.state.value for name, guard in guards if guard.breaker is not None}


class _Remote:
    """Behind its control API: JSON, a bearer token, no redirects, five seconds an answer."""

    def __init__(self, base: str, token: str) -> None:
        self._base = base
        self._token = token

    def start(self, plan: ChaosPlan) -> list[str]:
        windows = plan.windows
        # One window is the oldest form of the API; a plan goes there whole, with its seed.
        single = len(windows) == 1 and not plan.seed
        answer = self._ask("POST", "experiments", windows[0].as_dict() if single else plan.as_dict())
        return [str(answer["id"])] if "ids" not in answer else [str(each) for each in answer["ids"]]

    def experiments(self) -> dict[str, str]:
        listed = self._ask("GET", "experiments").get("experiments", [])
        return {str(each["id"]): str(each.get("end_reason") or each.get("state", "running")) for each in listed}

    def stop(self, experiment: str) -> None:
        self._ask("POST", f"experiments/{quote(experiment, safe='')}/stop", {})

    def stop_all(self) -> None:
        self._ask("POST", "stop", {})

    def objective(self, slo: str, window: float) -> dict[str, float | None]:
        found = self._told("objectives").get(slo)
        if not isinstance(found, dict):
            raise ServiceError(f"the service tells of no objective {slo!r}")
        if window != 3600.0:  # noqa: PLR2004 - the window that the API knows
            raise ServiceError("the control API tells the burn rate of the last hour; for another window ask Prometheus")
        return {"burn_rate": found.get("burn_rate"), "budget_left": found.get("budget_left")}

    def breakers(self) -> dict[str, str]:
        return {str(guard): str(state) for guard, state in self._told("breakers").items()}

    def _told(self, what: str) -> dict[str, Any]:
        told = self._ask("GET", "status").get(what)
        if not isinstance(told, dict):
            raise ServiceError(f"the control API of this service does not tell its {what}; run the probe in its process, or ask Prometheus")
        return told

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data, headers["content-type"] = json.dumps(body).encode(), "application/json"
        # Checked to be http or https when it was made.
        request = urllib.request.Request(f"{self._base}/{path}", data, headers, method=method)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=_PATIENCE) as response:
                answer = json.loads(response.read(_LARGEST))
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read(2_000).decode(errors="replace")
            raise ServiceError(f"{method} {path}: {refused.code} {said}") from None
        except (OSError, ValueError, RecursionError) as broken:
            raise ServiceError(f"{method} {path}: {type(broken).__name__}: {broken}") from None
        if not isinstance(answer, dict):
            raise ServiceError(f"{method} {path}: the answer is no object")
        return answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes where it was meant to go, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def recovered(service: Service, guards: str) -> bool:
    """Whether no experiment runs and every breaker that matches serves."""
    if any(state in {"running", "scheduled"} for state in service.experiments().values()):
        return False
    return all(state in _SERVING for guard, state in service.breakers().items() if matches(guards, guard))
