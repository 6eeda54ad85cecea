"""Span events: only on a span that records, only when something happened, short and without secrets. Against the real SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from somaresil import CircuitBreaker, ConfigurationError, ManualClock, Resilience, Retry
from somaresil.integrations.opentelemetry import SpanEvents, span_events

SECRET = "card 4111 1111"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests")
    provider.shutdown()


@pytest.fixture
def resilience():
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    resilience.on(span_events())
    return resilience


def fail(*_):
    raise ValueError(SECRET)


def events_of(exporter):
    (span,) = exporter.get_finished_spans()
    return [(event.name, dict(event.attributes)) for event in span.events]


def test_what_happens_to_a_call_is_on_its_span(exporter, tracer, resilience):
    """A failed attempt, the pause, the second failure, the opening circuit and the end, in this order, with their facts."""
    guard = resilience.guard("db", retry=Retry(attempts=2, wait=0.5), breaker=CircuitBreaker(consecutive_failures=2))
    with tracer.start_as_current_span("request"), pytest.raises(ValueError, match="card"):
        guard.call(fail, SECRET)
    found = events_of(exporter)
    assert [name for name, _ in found] == [
        "somaresil.attempt_failed",
        "somaresil.retry_scheduled",
        "somaresil.breaker_changed",
        "somaresil.attempt_failed",
        "somaresil.call_ended",
    ]
    assert found[1][1] == {"somaresil.guard": "db", "somaresil.attempt": 1, "somaresil.delay": 0.5, "somaresil.error": "ValueError"}
    assert found[2][1]["somaresil.after"] == "open"
    assert found[2][1]["somaresil.last_error"] == "ValueError"
    assert found[4][1]["somaresil.outcome"] == "bad"
    assert SECRET not in repr(found)


def test_a_call_that_goes_well_adds_nothing(exporter, tracer, resilience):
    """A quiet call leaves the span as it was."""
    guard = resilience.guard("db", retry=2, breaker=True)
    with tracer.start_as_current_span("request"):
        guard.call(int)
    assert events_of(exporter) == []


def test_coroutines_write_to_the_span_of_their_own_task(exporter, tracer, resilience):
    """Two concurrent requests get one event each, the right one."""

    async def main():
        guard = resilience.guard("db")

        async def request(name):
            with tracer.start_as_current_span(name):
                await asyncio.sleep(0)
                with pytest.raises(ValueError, match="card"):
                    await guard.acall(failing)

        async def failing():
            await asyncio.sleep(0)
            fail()

        await asyncio.gather(request("one"), request("two"))

    asyncio.run(main())
    assert {span.name: len(span.events) for span in exporter.get_finished_spans()} == {"one": 1, "two": 1}


def test_without_a_recording_span_nothing_is_made(exporter, resilience):
    """No span at all, or one that was not sampled: the call is as it was, and the listener stays."""
    guard = resilience.guard("db")
    with pytest.raises(ValueError, match="card"):
        guard.call(fail)
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("tests").start_as_current_span("request") as span, pytest.raises(ValueError, match="card"):
        guard.call(fail)
    provider.shutdown()
    assert not span.is_recording()
    assert exporter.get_finished_spans() == ()


def test_what_happens_between_calls_is_on_no_span(exporter, tracer, resilience):
    """Incidents and defects would land on whichever span is current by chance."""
    resilience.guard("db", breaker=True)
    with tracer.start_as_current_span("request"):
        resilience.breaker("db").trip()
        resilience.listeners.defect("somewhere", ValueError())
    assert [name for name, _ in events_of(exporter)] == ["somaresil.breaker_changed"]


def test_a_span_gets_so_many_events_and_no_more(exporter, tracer, resilience):
    """A long-lived span does not grow with every failure."""
    resilience.on(span_events(most=3))
    guard = resilience.guard("db")
    with tracer.start_as_current_span("request"):
        for _ in range(50):
            with pytest.raises(ValueError, match="card"):
                guard.call(fail)
    assert len(events_of(exporter)) == 32
    with pytest.raises(ConfigurationError, match="most"):
        SpanEvents(most=0)


def test_values_are_short_and_harmless(exporter, tracer, resilience):
    """An exception class may be called anything."""
    kind = type("Bad\n\x1b[31m" + "x" * 500, (ValueError,), {})
    with tracer.start_as_current_span("request"), pytest.raises(ValueError, match=SECRET):
        resilience.guard("db").call(lambda: (_ for _ in ()).throw(kind(SECRET)))
    error = events_of(exporter)[0][1]["somaresil.error"]
    assert error.startswith("Bad\\n\\x1b[31m")
    assert len(error) == 200


def test_opentelemetry_is_imported_when_it_is_used():
    """Importing the module brings nothing; making the listener does."""
    program = (
        "import sys, somaresil.integrations.opentelemetry as ours; before = 'opentelemetry' in sys.modules;"
        "ours.span_events(); print(before, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_current_span_is_asked_for_at_each_event():
    """A provider that is set up after the listener was made is used."""
    assert SpanEvents()._current_span is trace.get_current_span
