"""OpenTelemetry: what a guard did, as events on the span that is there anyway.

    resilience.on(span_events())

There is no span a policy: a retried call in a trace of its own spans tells the same story at twenty times the price. An event is added to
the current span when something happened and the span is recording; a call that went well has no event to add. Attributes are
``somaresil.`` with the name of the field (``somaresil.guard``, ``somaresil.outcome``, ``somaresil.injected`` …), short, and never
arguments, headers, bodies or the messages of exceptions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from somaresil import events
from somaresil.config import Checker
from somaresil.eventtext import facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.events import Event

__all__ = ["SpanEvents", "span_events"]

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
        # Spans of the SDK show their events; others are trusted to bound themselves.
        if len(getattr(span, "events", ())) >= self._most:
            return
        span.add_event(name, {f"somaresil.{key}": value for key, value in facts(event).items()})


def span_events(most: int = 32) -> SpanEvents:
    """A listener that adds what happens within a call to the current span, at most ``most`` events a span.

    Raises ``ImportError`` when ``opentelemetry-api`` is not installed, :class:`~somaresil.errors.ConfigurationError` for a wrong number.
    """
    return SpanEvents(most)
