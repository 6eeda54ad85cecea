"""What can be found, by code, and one thing that was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CODES", "Code", "Finding"]


class Code(NamedTuple):
    """One kind of finding."""

    level: str
    """``error``, ``warning`` or ``info``."""
    title: str
    advice: str
    """What to do, for all findings of the kind."""


CODES: Final[dict[str, Code]] = {
    "SR101": Code(
        "warning",
        "a call to another service without a guard",
        'decorate the function: @resilience.guard("name", timeout=..., breaker=True); or guard the whole client in one line',
    ),
    "SR102": Code(
        "error",
        "the name of a guard is made while the service runs",
        "each name is a breaker, a metric and memory for ever: one name, and guard.keyed(key) for what differs",
    ),
    "SR103": Code(
        "error",
        "a breaker of pybreaker around a coroutine function",
        "it counts the coroutine object as a success and never opens: use @resilience.guard, or adopt() it",
    ),
    "SR104": Code(
        "error",
        "a breaker is made for each call",
        "a breaker that has seen one call knows nothing: make it once, at the start of the module",
    ),
    "SR201": Code("warning", "a call without a timeout", "give it one: without it a peer that says nothing holds the caller for ever"),
    "SR202": Code("warning", "a timeout is switched off", "a number of seconds, even a large one, ends some day"),
    "SR301": Code("warning", "an ASGI app without the middleware", "`somaresil init` adds it, after it has shown how"),
    "SR302": Code(
        "warning",
        "the middleware is not the outermost one",
        "what is added later stands before it, and what that refuses is not counted: add it last",
    ),
    "SR303": Code(
        "info",
        "a middleware of the kind BaseHTTPMiddleware",
        "it loses context variables and costs a hundred microseconds a request: write it as pure ASGI where that matters",
    ),
    "SR401": Code("warning", "guards without any objective", 'resilience.slos.add(SLO("name", 99.9, timedelta(days=30))), and slo="name"'),
    "SR402": Code("warning", "the middleware counts for no objective", 'slo="api_availability", of an objective that was added'),
    "SR501": Code(
        "warning",
        "several workers, and metrics of one",
        "set PROMETHEUS_MULTIPROC_DIR to an empty folder: each scrape would show whichever worker answers",
    ),
    "SR502": Code(
        "warning",
        "several workers, and objectives of each",
        "set SOMARESIL_SLO_SNAPSHOT to a folder: each worker would judge its own share of the traffic",
    ),
}
"""Every code, with its level, what it says and what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place where something was found."""

    path: Path
    line: int
    column: int
    code: str
    detail: str = ""
    """What exactly, in a few words."""

    @property
    def level(self) -> str:
        """How bad it is."""
        return CODES[self.code].level
