"""What OpenTelemetry's own exporter for Prometheus makes of our metrics is what ours says: names, labels and values, so boards fit both."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from prometheus_client import CollectorRegistry

from somaresil import SLO, ManualClock, RateLimit, Resilience
from somaresil.canary.config import CanaryConfig
from somaresil.canary.controller import CanaryController
from somaresil.integrations._families import FAMILIES
from somaresil.integrations.otelmetrics import INSTRUMENTS, otel_metrics, with_histograms
from somaresil.integrations.prometheus import install
from somaresil.outcome import Outcome
from somaresil.pool import Endpoint

exporter = pytest.importorskip("opentelemetry.exporter.prometheus")


class Passing(MetricExporter):
    """Stands where an exporter pushes: gives what it gets to a reader that is asked."""

    def __init__(self, receive):
        super().__init__()
        self.receive = receive

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.receive(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


RATIOS = {FAMILIES[name].name for name, instrument in INSTRUMENTS.items() if instrument.unit == "1"}
"""The specification has an ending for gauges of this unit, which the exporter in Python leaves out."""


def samples_of(registry):
    """By name and labels; a label without a value is none, and bounds are numbers however they are written."""
    found = {}
    for metric in registry.collect():
        for sample in metric.samples:
            name = f"{sample.name}_ratio" if sample.name in RATIOS else sample.name
            labels = {key: float(text) if key == "le" else text for key, text in sample.labels.items() if text}
            found[name, *sorted(labels.items())] = float(sample.value)
    return found


def test_it_is_what_our_exporter_says():
    """Counters, gauges and histograms of a process that has something of everything."""
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    resilience.slos.add(SLO("fast", 99.0, timedelta(days=1), latency=0.2))
    guard = resilience.guard("db", breaker=True, slo="fast", retry=2, bulkhead=3, rate_limit=RateLimit(10, per=3600.0))
    guard.call(int)
    with suppress(ZeroDivisionError):
        guard.call(lambda: 1 / 0)
    resilience.breaker("db").trip()
    resilience.guard("cache", idempotent=True, hedge=1.0, single_flight=True)
    resilience.ignored.note("grpc-timeout")
    canary = CanaryController(resilience, CanaryConfig(name="llm", bad="fast", interval=None))
    canary.start("v2")
    resilience.pool("models", [Endpoint("eu", 1)])
    resilience.routes.cell("GET", "/x", 503, ()).add(Outcome.BAD, 0.2, 0.1, 0.0, injected=False)

    ours, theirs = CollectorRegistry(), CollectorRegistry()
    install(resilience, ours)
    reader = exporter.PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=theirs)
    joined = with_histograms(Passing(reader._receive_metrics), resilience)
    reader._receive_metrics = joined.export
    meters = MeterProvider([reader], shutdown_on_exit=False)
    otel_metrics(resilience, meters)

    wanted, found = samples_of(ours), samples_of(theirs)
    assert wanted.keys() - found.keys() == set()
    assert found.keys() - wanted.keys() == set()
    assert found == pytest.approx(wanted)
    assert len(found) > 100
    meters.shutdown()
