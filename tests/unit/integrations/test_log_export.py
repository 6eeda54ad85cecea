"""Logs over OpenTelemetry: what we add to records becomes attributes that its SDK takes, in the trace of the line."""

from __future__ import annotations

import logging
import warnings

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from somaresil import CircuitBreaker, Resilience
from somaresil.integrations.logging import DEFAULT_LEVELS, ResilienceFilter, log_events

try:
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter as Exporter
except ImportError:
    from opentelemetry.sdk._logs.export import InMemoryLogExporter as Exporter


@pytest.fixture
def exported():
    """Give a logger whose records go to OpenTelemetry, and a function that gives those that have arrived."""
    exporter = Exporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    with warnings.catch_warnings():
        # The same handler is moving to another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        from opentelemetry.sdk._logs import LoggingHandler

        handler = LoggingHandler(logger_provider=provider)
    logger = logging.getLogger("test_log_export")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, handler, lambda: [getattr(data, "log_record", data) for data in exporter.get_finished_logs()]
    logger.removeHandler(handler)
    provider.shutdown()


def test_fields_and_events_become_attributes_in_their_trace(exported, caplog):
    """Texts, numbers and flags only: the SDK says nothing against them, and drops none."""
    logger, handler, found = exported
    resilience = Resilience("gateway")
    handler.addFilter(ResilienceFilter(resilience))
    resilience.on(log_events(logger, dict.fromkeys(DEFAULT_LEVELS, "INFO")))
    guard = resilience.guard("db", breaker=CircuitBreaker(consecutive_failures=1))

    def lose():
        logger.info("asking")
        raise ConnectionError

    with TracerProvider().get_tracer("test").start_as_current_span("request") as span, pytest.raises(ConnectionError):
        guard.call(lose)
    logger.info("outside")
    records = found()
    context = span.get_span_context()
    assert [(record.trace_id, record.span_id) for record in records[:-1]] == [(context.trace_id, context.span_id)] * (len(records) - 1)
    assert {record.attributes["somaresil_guard"] for record in records[:-1]} == {"db"}
    assert records[0].attributes["trace_id"] == f"{context.trace_id:032x}"
    assert records[-1].attributes["somaresil_guard"] == ""
    events = {record.attributes["somaresil_event"] for record in records if "somaresil_event" in record.attributes}
    assert events >= {"BreakerChanged", "CallEnded"}
    for record in records:
        assert all(isinstance(value, str | bool | int | float) for value in record.attributes.values())
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
