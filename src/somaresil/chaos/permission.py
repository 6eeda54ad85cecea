"""Who may do chaos, where and up to what: asked at each start, so that an operator can forbid what the code allows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.config import ChaosCeilings
from somaresil.config import to_seconds

if TYPE_CHECKING:
    from somaresil.config import Checker

__all__ = ["NOTHING", "PRODUCTION_KEY", "PROTECTED_PATHS", "SWITCH", "Permission", "Place"]

SWITCH: Final = "SOMARESIL_CHAOS"
PRODUCTION_KEY: Final = "SOMARESIL_CHAOS_PRODUCTION"

PROTECTED_PATHS: Final = (
    *("/health*", "/livez*", "/live", "/readyz*", "/ready*", "/startup*", "/ping", "/metrics*", "/-/*", "/_soma*"),
    *("*/health", "*/healthz", "*/livez", "*/readyz", "*/metrics"),
)
"""Never touched: an experiment that fails the health check has the orchestrator restart what it was meant to watch."""

_PRODUCTION: Final = frozenset({"production", "prod", "prd", "live"})
_NOT_YET: Final = frozenset({"pre", "non", "not"})


class Place:
    """Where this process runs: what a blast radius chooses among."""

    __slots__ = ("environment", "instance", "region", "service", "zone")

    def __init__(self, service: str, instance: str, zone: str | None, region: str | None, environment: str | None) -> None:
        """Keep the names; None: nobody has said."""
        self.service = service
        self.instance = instance
        self.zone = zone
        self.region = region
        self.environment = environment

    def member(self, blast_radius: str) -> str | None:
        """Our name at this level."""
        return {"single_instance": self.instance, "zone": self.zone, "region": self.region}[blast_radius]


@dataclass(frozen=True, slots=True)
class Permission:
    """What the code of a process has allowed, with :meth:`~somaresil.chaos.engine.ChaosEngine.opt_in`."""

    ceilings: ChaosCeilings | None
    """None: nothing is allowed."""
    production: bool = False
    """One half of the second key."""

    @property
    def limits(self) -> ChaosCeilings:
        """What is compared with, also where nothing is allowed: a refusal names all of its problems."""
        return self.ceilings or ChaosCeilings()

    @property
    def protected(self) -> tuple[str, ...]:
        """Patterns of the paths that no experiment touches."""
        return (*PROTECTED_PATHS, *self.limits.protected_paths)

    def check(self, check: Checker, place: Place) -> None:
        """Note everything that stands in the way of an experiment here."""
        if self.ceilings is None:
            check.problem("opt_in", None, "resilience.chaos.opt_in() in the code", "chaos is off by default")
        if os.environ.get(SWITCH) != "1":
            check.problem(SWITCH, os.environ.get(SWITCH), "1", "chaos is off by default; set it in the environment of the process")
        if place.environment is None:
            check.problem(
                "environment", None, "a name", "pass environment= to Resilience or set SOMARESIL_ENVIRONMENT; unknown may be production"
            )
        elif _is_production(place.environment) and not (self.production and os.environ.get(PRODUCTION_KEY) == place.service):
            needed = f"opt_in(production=True) and {PRODUCTION_KEY}={place.service}"
            check.problem("environment", place.environment, f"another one, or {needed}", "production needs a second key")

    def check_ceilings(self, check: Checker, **values: Any) -> None:
        """Note what is above its ceiling, by the names that values have in a configuration, or in a window of a plan."""
        for name, value in values.items():
            highest = getattr(self.limits, {"failure_rate": "rate"}.get(name, name.removesuffix("_seconds")))
            if to_seconds(value) > to_seconds(highest):
                check.problem(name, value, f"at most {highest:g}, the ceiling", "ceilings are set in code: opt_in(ChaosCeilings(...))")


NOTHING: Final = Permission(None)
"""What is allowed before anything was."""


def _is_production(environment: str) -> bool:
    """Whether a part of the name says so: ``prod-eu-1`` does, ``pre-prod`` and ``nonprod`` do not. In doubt it does."""
    words = re.split(r"[^a-z]+", environment.casefold())
    return any(word in _PRODUCTION and before not in _NOT_YET for before, word in zip(["", *words], words, strict=False))
