"""What type checkers make of OpenTelemetry around guards. Checked as ``api`` is, never run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_type

from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from somaresil import Resilience
from somaresil.integrations.opentelemetry import CallSpan, call_span, span_events
from somaresil.integrations.otelmetrics import otel_metrics, with_histograms
from somaresil.integrations.otelsampler import KeepInteresting, SamplingCounts

resilience = Resilience("gateway")
resilience.on(span_events(most=8))


@call_span("llm.invoke")
@resilience.guard("llm.invoke", retry=3)
async def invoke(prompt: str) -> str:
    """As it was."""
    return prompt


_: Callable[[str], Awaitable[str]] = invoke
assert_type(call_span("db.read", kind="internal", tracer_provider=TracerProvider()), CallSpan)
call_span("db.read", kind="server")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(with_histograms(ConsoleMetricExporter(), resilience, requests=False), MetricExporter)
assert_type(otel_metrics(resilience), Callable[[], None])

keep = KeepInteresting(BatchSpanProcessor(ConsoleSpanExporter()), slow={"GET *": 1.0}, also=lambda span: span.name == "checkout")
assert_type(keep.counts(), SamplingCounts)
KeepInteresting(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
TracerProvider(sampler=keep.sampler).add_span_processor(keep)
