"""OpenTelemetry: what a guard did, as events on the span that is there anyway, and spans for guarded calls where they are wanted.

    resilience.on(span_events())

    @call_span("llm.invoke")
    @resilience.guard("llm.invoke", retry=3, breaker=True)
    async def invoke(prompt: str) -> str: ...

    app = OpenTelemetryMiddleware(ServerSpans(ResilienceMiddleware(app, resilience)))

There is no span a policy: a retried call in a trace of its own spans tells the same story at twenty times the price. An event is added to
the current span when something happened and the span is recording; a call that went well has no event to add. Attributes are
``somaresil.`` with the name of the field (``somaresil.guard``, ``somaresil.outcome``, ``somaresil.injected`` …), short, and never
arguments, headers, bodies or the messages of exceptions. A span in which an experiment struck says so itself, with its id.

A span a guarded call is made by :func:`call_span`, by those who ask for it; a guard knows nothing of it. :class:`ServerSpans` gives the
span of a request the route that the framework has found, as the semantic conventions want it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from somaresil import events
from somaresil.config import Checker
from somaresil.eventtext import facts
from somaresil.integrations._otelspans import CallSpan, ServerSpans, call_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.events import Event

__all__ = ["CallSpan", "ServerSpans", "SpanEvents", "call_span", "span_events"]

_KINDS: Final[tuple[type, ...]] = (
    events.CallEnded,
    events.AttemptFailed,
    events.RetryScheduled,
    events.HedgeStarted,
    events.HedgeWon,
    events.FallbackUsed,
    events.RateLowered,
    events.BreakerChanged,
    events.FaultInjected,
)
"""What happens within a call. The others happen between calls, and would land on whichever span is current by chance."""

_NAMES: Final[dict[type, str]] = {kind: "somaresil." + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower() for kind in _KINDS}


class SpanEvents:
    """The listener that :func:`span_events` makes. Raises ``ImportError`` when ``opentelemetry-api`` is not installed."""

    __slots__ = ("_current_span", "_most")

    def __init__(self, most: int = 32) -> None:
        """Import OpenTelemetry; add at most ``most`` events to a span (1 to 1000)."""
        check = Checker("span_events")
        self._most = check.count("most", most, maximum=1_000)
        check.finish()
        from opentelemetry.trace import get_current_span

        self._current_span: Callable[[], Any] = get_current_span

    def __call__(self, event: Event) -> None:
        """Add ``event`` to the current span, if that is recording."""
        name = _NAMES.get(type(event))
        if name is None:
            return
        span = self._current_span()
        if not span.is_recording():
            return
        if isinstance(event, events.FaultInjected):
            span.set_attributes({"somaresil.injected": True, "somaresil.experiment": event.experiment})
        elif isinstance(event, events.CallEnded):
            _describe(span, event)
        # Spans of the SDK show their events; others are trusted to bound themselves.
        if len(getattr(span, "events", ())) >= self._most:
            return
        span.add_event(name, {f"somaresil.{key}": value for key, value in facts(event).items()})


def _describe(span: Any, event: events.CallEnded) -> None:
    """Say on the span of the call itself how it ended. A request that surrounds it may have been answered well all the same."""
    attributes = getattr(span, "attributes", None)
    if attributes is not None and attributes.get("somaresil.guard") == event.guard:
        span.set_attribute("somaresil.outcome", event.outcome)
        if event.injected:
            span.set_attribute("somaresil.injected", value=True)


def span_events(most: int = 32) -> SpanEvents:
    """A listener that adds what happens within a call to the current span, at most ``most`` events a span.

    Raises ``ImportError`` when ``opentelemetry-api`` is not installed, :class:`~somaresil.errors.ConfigurationError` for a wrong number.
    """
    return SpanEvents(most)
