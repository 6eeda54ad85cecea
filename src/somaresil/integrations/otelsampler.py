"""Which traces are worth keeping, decided when they are over: bad, slow, rejected and injected ones always, of the others a share.

    keep = KeepInteresting(OTLPSpanExporter(), ratio=0.05)
    provider = TracerProvider(sampler=keep.sampler)
    provider.add_span_processor(keep)

A sampler of OpenTelemetry decides at the beginning, when nobody knows how it will end. So ``keep.sampler`` has every span recorded, and the
processor holds the spans of a trace until the last of its local roots has ended (a span without parent, or whose parent is in another
process), and then exports all of them or none. What is held is bounded in traces, spans and seconds; a trace that must be decided before
its end is decided by what is known of it.

The share is drawn by the trace id, as ``TraceIdRatioBased`` of the SDK does it, so services with the same ratio keep the same traces, and
a parent that was sampled is kept. The sampled flag goes out with every request of such a trace. It goes out as well from the moment on in
which a trace is known to be interesting, so what is asked after a fault was injected keeps its part too. **What was asked before that is
not known to others**: a trace that turns out bad at its end is whole only in the processes in which something of it was bad, slow,
rejected or injected. A collector that samples at the tail sees all processes; this costs no collector.

Needs ``opentelemetry-sdk``.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags, get_current_span

from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.exemplars import SLOW
from somaresil.forks import unwatch, watch
from somaresil.integrations._exemplars import TAILS
from somaresil.listeners import Listeners
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.span import TraceState
    from opentelemetry.util.types import Attributes

    from somaresil.typing import Clock

__all__ = ["KEPT", "RATIO", "KeepInteresting", "SamplingCounts"]

KEPT: Final = "somaresil.kept"
"""Attribute of the local roots of traces that were kept: why."""
RATIO: Final = "somaresil.sampling_ratio"
"""Attribute of the local roots of traces that were kept for the share alone: how large it is. One of them stands for 1 / ratio."""

_REASONS: Final = ("injected", "rejected", "bad", "slow", "exemplar", "also", "sampled")
"""Of several the first is told."""
_RANK: Final = {reason: rank for rank, reason in enumerate(_REASONS)}
_SERVER_ERROR: Final = 500
_NANO: Final = 1e9
_BITS: Final = (1 << 64) - 1
"""Of the trace id: those by which the SDK draws."""
_STATUS_NAMES: Final = ("http.response.status_code", "http.status_code")


@dataclass(frozen=True, slots=True)
class SamplingCounts:
    """What became of traces and spans so far. A trace counts once for each time that its local roots were there."""

    kept: Mapping[str, int]
    """Traces by why: ``injected``, ``rejected``, ``bad``, ``slow``, ``exemplar``, ``also``, ``sampled``."""
    dropped: int
    """Traces of which nothing was exported."""
    early: int
    """Traces that had to be decided before their end, kept or dropped."""
    late: int
    """Spans that ended after their trace was dropped, and were dropped like it."""
    overflow: int
    """Spans that were dropped because their trace had too many."""
    held: int
    """Spans that are held now."""


@dataclass(slots=True)
class _Trace:
    """What is held of one trace."""

    began: float
    roots: set[int] = field(default_factory=set[int])
    """Span ids of local roots that have not ended."""
    spans: list[ReadableSpan] = field(default_factory=list[ReadableSpan])
    why: str | None = None

    def note(self, reason: str | None) -> None:
        """A reason to keep it."""
        if reason is not None and (self.why is None or _RANK[reason] < _RANK[self.why]):
            self.why = reason


class KeepInteresting(SpanProcessor):
    """A span processor in front of another one. ``to`` is that, or an exporter, which gets a ``BatchSpanProcessor`` of its own.

    ``ratio``: the share of uninteresting traces that is kept, 0 to 1. ``slow``: seconds from which on a local root is slow; a mapping says
    it by patterns over the names of the spans (``{"GET /v1/*/stream": 30.0, "*": 1.0}``, the first that fits), None: nothing is slow.
    ``also``: a function of a span that has ended which says whether its trace is kept anyway; what it raises is reported once and means no.

    At most ``traces`` are held (10 to 100,000), ``spans`` of them together (100 to 1,000,000) and ``spans_each`` of one, for ``longest``
    seconds each (1 s to 1 h). A span takes about 3 kB.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        to: SpanProcessor | SpanExporter,
        *,
        ratio: float = 0.05,
        slow: float | Mapping[str, float] | None = SLOW,
        also: Callable[[ReadableSpan], object] | None = None,
        traces: int = 2_000,
        spans: int = 10_000,
        spans_each: int = 1_000,
        longest: float | timedelta = 60.0,
        clock: Clock | None = None,
    ) -> None:
        """Hold nothing yet. No thread is started by this, one by the ``BatchSpanProcessor`` that an exporter gets."""
        check = Checker("KeepInteresting")
        check.type("to", to, (SpanProcessor, SpanExporter), "a SpanProcessor or a SpanExporter of opentelemetry.sdk.trace")
        self.ratio = check.ratio("ratio", ratio)
        self._slow = _checked(check, slow)
        if also is not None and not callable(also):
            check.problem("also", also, "a function of a span, or None")
        self._also = also
        self._most_traces = check.count("traces", traces, minimum=10, maximum=100_000)
        self._most_spans = check.count("spans", spans, minimum=100, maximum=1_000_000)
        self._most_each = check.count("spans_each", spans_each, minimum=1, maximum=100_000)
        self._longest = check.seconds("longest", longest, minimum=1.0, exclusive=False, maximum=3_600.0)
        check.finish()
        self._to = to if isinstance(to, SpanProcessor) else BatchSpanProcessor(to)
        self._monotonic = (SystemClock() if clock is None else clock).monotonic
        # There is no Resilience here; its kind of report is wanted all the same: once for each place, in the log.
        self._listeners = Listeners()
        self.sampler: Sampler = _Sampler(self)
        """For the provider: has every span recorded, and flags those of which others shall keep their part."""
        self._begin()
        watch(self)
        TAILS.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        self._decided: OrderedDict[int, str | None] = OrderedDict()
        """Why traces were kept that are over, None: not. The latest of them."""
        self._held = 0
        self._kept: Counter[str] = Counter()
        self._dropped = self._early = self._late = self._overflow = 0
        self._down = False

    # -- the SDK's side -----------------------------------------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A local root begins a trace, or joins one. Never raises."""
        try:
            self._to.on_start(span, parent_context)
            if _is_local_root(span):
                context = span.get_span_context()
                self._forward(self._began(context.trace_id, context.span_id))
        except Exception as broken:  # noqa: BLE001 - our defect is not the caller's
            self._listeners.defect("KeepInteresting, beginning a span", broken)

    def on_end(self, span: ReadableSpan) -> None:
        """Hold it, or decide. Never raises."""
        try:
            if span.context is not None and not self._down:
                self._forward(self._ended(span, span.context))
        except Exception as broken:  # noqa: BLE001 - our defect is not the caller's
            self._listeners.defect("KeepInteresting, ending a span", broken)

    def shutdown(self) -> None:
        """Decide about everything that is held by what is known of it, and shut the other processor down."""
        unwatch(self)
        TAILS.discard(self)
        ready: list[ReadableSpan] = []
        with self._lock:
            while self._traces:
                ready += self._decide_oldest()
            self._down = True
        self._forward(ready)
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what was decided. Traces that are not over are held on: nobody knows yet whether they are wanted."""
        return self._to.force_flush(timeout_millis)

    # -- looking ------------------------------------------------------------------------------------------------------------------------

    def counts(self) -> SamplingCounts:
        """What became of traces and spans so far."""
        with self._lock:
            return SamplingCounts(dict(self._kept), self._dropped, self._early, self._late, self._overflow, self._held)

    def sampled_by_ratio(self, trace_id: int) -> bool:
        """Whether a trace is in the share: as ``TraceIdRatioBased`` of the SDK decides, so that others with this ratio agree."""
        return trace_id & _BITS < round(self.ratio * (_BITS + 1))

    def is_interesting(self, trace_id: int) -> bool:
        """Whether a trace that is not over is known to be interesting already."""
        trace = self._traces.get(trace_id)
        return trace is not None and trace.why is not None and trace.why != "sampled"

    def claim(self, trace_id: int) -> bool:
        """Keep this trace, for an exemplar of a bad or slow call points at it; False: it is not held here, or was dropped."""
        with self._lock:
            trace = self._traces.get(trace_id)
            if trace is not None:
                trace.note("exemplar")
                return True
            return self._decided.get(trace_id) is not None

    # -- forks --------------------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_parent(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_child(self) -> None:
        """In the child: what is held is the parent's to export."""
        self._begin()

    def stop(self) -> None:
        """The process ends: nothing to do, for the provider shuts us down."""

    # -- deciding -----------------------------------------------------------------------------------------------------------------------

    def _began(self, trace_id: int, span_id: int) -> list[ReadableSpan]:
        ready: list[ReadableSpan] = []
        with self._lock:
            now = self._monotonic()
            while self._traces and next(iter(self._traces.values())).began < now - self._longest:
                ready += self._decide_oldest()
            trace = self._traces.get(trace_id)
            if trace is None:
                while len(self._traces) >= self._most_traces:
                    ready += self._decide_oldest()
                trace = self._traces[trace_id] = _Trace(now)
                # It was here before, as when a caller tries again: what was kept then is kept on.
                trace.note(self._decided.pop(trace_id, None))
            trace.roots.add(span_id)
        return ready

    def _ended(self, span: ReadableSpan, context: SpanContext) -> list[ReadableSpan]:
        reason = self._reason(span)
        with self._lock:
            trace = self._traces.get(context.trace_id)
            if trace is None:
                return self._ended_late(span, context, reason)
            trace.note(reason)
            if len(trace.spans) < self._most_each or _is_local_root(span):
                trace.spans.append(span)
                self._held += 1
            else:
                self._overflow += 1
            trace.roots.discard(context.span_id)
            if not trace.roots:
                del self._traces[context.trace_id]
                return self._decide(context.trace_id, trace)
            ready: list[ReadableSpan] = []
            while self._held > self._most_spans:
                ready += self._decide_oldest()
            return ready

    def _ended_late(self, span: ReadableSpan, context: SpanContext, reason: str | None) -> list[ReadableSpan]:
        """Its trace was decided, or its root is no span of ours."""
        why = self._decided.get(context.trace_id) or reason
        if why is None:
            self._late += 1
            return []
        if context.trace_id in self._decided:
            # What ends after it follows it.
            self._decided[context.trace_id] = why
        return [_sampled(span, why, self.ratio)]

    def _decide_oldest(self) -> list[ReadableSpan]:
        trace_id, trace = self._traces.popitem(last=False)
        self._early += 1
        return self._decide(trace_id, trace)

    def _decide(self, trace_id: int, trace: _Trace) -> list[ReadableSpan]:
        """With the lock held. What is exported is exported without it."""
        self._held -= len(trace.spans)
        why = trace.why
        self._decided[trace_id] = why
        while len(self._decided) > self._most_traces:
            self._decided.popitem(last=False)
        if why is None:
            self._dropped += 1
            return []
        self._kept[why] += 1
        return [_sampled(span, why, self.ratio) for span in trace.spans]

    def _forward(self, spans: Sequence[ReadableSpan]) -> None:
        for span in spans:
            self._to.on_end(span)

    def _reason(self, span: ReadableSpan) -> str | None:
        """Why this span makes its trace one to keep; None: it does not."""
        attributes: Mapping[str, Any] = span.attributes or {}
        said = {attributes.get("somaresil.outcome")}
        injected = attributes.get("somaresil.injected") is True
        for event in span.events:
            if event.name == "somaresil.call_ended":
                said.add((event.attributes or {}).get("somaresil.outcome"))
            elif event.name == "somaresil.fault_injected":
                injected = True
            elif event.name == "somaresil.fallback_used":
                # Somebody got less than he asked for.
                said.add("bad")
        if injected:
            return "injected"
        if "rejected" in said:
            return "rejected"
        if "bad" in said or span.status.status_code is StatusCode.ERROR or _server_error(attributes):
            return "bad"
        if _is_local_root(span) and self._is_slow(span):
            return "slow"
        if self._also is not None and self._wanted(self._also, span):
            return "also"
        return "sampled" if span.context is not None and span.context.trace_flags.sampled else None

    def _is_slow(self, span: ReadableSpan) -> bool:
        if not self._slow or span.start_time is None or span.end_time is None:
            return False
        limit = next((seconds for pattern, seconds in self._slow.items() if matches(pattern, span.name)), None)
        return limit is not None and (span.end_time - span.start_time) / _NANO >= limit

    def _wanted(self, also: Callable[[ReadableSpan], object], span: ReadableSpan) -> bool:
        try:
            return bool(also(span))
        except Exception as broken:  # noqa: BLE001 - what a user's function raises is no reason to lose a span
            self._listeners.defect("also of KeepInteresting", broken, consequence="it was taken as a no")
            return False


def _checked(check: Checker, slow: float | Mapping[str, float] | None) -> dict[str, float]:
    if slow is None:
        return {}
    said: Any = slow if not isinstance(slow, int | float) else {"*": slow}
    if not isinstance(said, dict):
        check.problem("slow", slow, "seconds, a dictionary of seconds by patterns over names, or None")
        return {}
    patterns: dict[str, float] = said
    return {pattern: check.number(f"slow[{pattern!r}]", seconds, minimum=0.0) for pattern, seconds in patterns.items()}


def _is_local_root(span: ReadableSpan) -> bool:
    return span.parent is None or span.parent.is_remote


def _server_error(attributes: Mapping[str, Any]) -> bool:
    return any(isinstance(status := attributes.get(name), int) and status >= _SERVER_ERROR for name in _STATUS_NAMES)


def _sampled(span: ReadableSpan, why: str, ratio: float) -> ReadableSpan:
    """``span`` as one that was sampled, for processors and exporters pass over others; a local root says why."""
    context, root = span.context, _is_local_root(span)
    if context is None or (context.trace_flags.sampled and not root):
        return span
    attributes: dict[str, Any] = {**(span.attributes or {})}
    if root:
        attributes[KEPT] = why
        if why == "sampled" and span.parent is None:
            attributes[RATIO] = ratio
    flags = TraceFlags(context.trace_flags | TraceFlags.SAMPLED)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(context.trace_id, context.span_id, context.is_remote, flags, context.trace_state),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class _Sampler(Sampler):
    """Has everything recorded. The flag says what others shall keep."""

    def __init__(self, keep: KeepInteresting) -> None:
        self._keep = keep

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,  # noqa: ARG002 - the SDK's signature
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        """Recorded in any case; sampled when the parent is, when the trace is in the share, or when it is interesting already."""
        parent = get_current_span(parent_context)
        context = parent.get_span_context()
        if not context.is_valid:
            return SamplingResult(_decision(sampled=self._keep.sampled_by_ratio(trace_id)), attributes)
        sampled = context.trace_flags.sampled or (
            not context.is_remote and (_is_struck(parent) or self._keep.is_interesting(context.trace_id))
        )
        return SamplingResult(_decision(sampled=sampled), attributes, context.trace_state)

    def get_description(self) -> str:
        """As the SDK shows it."""
        return f"KeepInteresting{{{self._keep.ratio}}}"


def _decision(*, sampled: bool) -> Decision:
    return Decision.RECORD_AND_SAMPLE if sampled else Decision.RECORD_ONLY


def _is_struck(span: Any) -> bool:
    """Whether an experiment has touched a span that is not over."""
    attributes: Mapping[str, Any] | None = getattr(span, "attributes", None)
    return attributes is not None and attributes.get("somaresil.injected") is True
