"""Exemplars for the exporter: the current span of OpenTelemetry, and what cells have kept, by metric and labels."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol

from somaresil.integrations._readings import request_labels
from somaresil.outcome import Outcome
from somaresil.routes import WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.exemplars import Exemplar
    from somaresil.integrations._families import Labels
    from somaresil.resilience import Resilience

__all__ = ["TAILS", "Found", "Tail", "by_bucket", "current_trace", "exemplars_of"]

Found = dict[str, "dict[Labels, list[Exemplar]]"]
"""By metric and labels."""


class Tail(Protocol):
    """Who decides about traces when they are over."""

    def claim(self, trace_id: int) -> bool:
        """Keep this trace, for somebody will point at it; False: it is not held here, or was dropped."""
        ...


TAILS: weakref.WeakSet[Tail] = weakref.WeakSet()
"""Those of the process."""


def current_trace() -> Callable[[], tuple[str, str] | None]:
    """A function that gives the ids of the current span when its trace is sampled, or will be kept.

    Raises ``ImportError`` without ``opentelemetry-api``.
    """
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

    def current() -> tuple[str, str] | None:
        context = get_current_span().get_span_context()
        if not context.is_valid or not (context.trace_flags.sampled or any(tail.claim(context.trace_id) for tail in tuple(TAILS))):
            # Nobody could look it up.
            return None
        return format_trace_id(context.trace_id), format_span_id(context.span_id)

    return current


def exemplars_of(resilience: Resilience) -> Found:
    """What the cells of a process have kept."""
    calls: dict[Labels, list[Exemplar]] = {}
    durations: dict[Labels, list[Exemplar]] = {}
    requests: dict[Labels, list[Exemplar]] = {}
    for name, guard in resilience.guards.items():
        for (outcome, injected, _), exemplar in guard.recorder.exemplars().items():
            calls.setdefault((name, outcome.value, "true" if injected else "false"), []).append(exemplar)
            if outcome is not Outcome.REJECTED and outcome is not Outcome.ABANDONED:
                durations.setdefault((name,), []).append(exemplar)
    for key, kept in resilience.routes.exemplars().items():
        if key.method != WEBSOCKET:
            requests.setdefault(request_labels(key), []).extend(kept)
    return {
        "somaresil_calls": calls,
        "somaresil_call_duration_seconds": durations,
        "http_server_request_duration_seconds": requests,
    }


def by_bucket(exemplars: Iterable[Exemplar], bounds: tuple[float, ...]) -> dict[int, Exemplar]:
    """The latest of each bucket."""
    found: dict[int, Exemplar] = {}
    for exemplar in exemplars:
        bucket = bisect_left(bounds, exemplar.value)
        if bucket not in found or exemplar.at >= found[bucket].at:
            found[bucket] = exemplar
    return found
