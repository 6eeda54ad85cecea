"""OpenTelemetry metrics: what the SDK collects is what the process has counted, under the names that Prometheus will make of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.sdk.trace import TracerProvider

from somaresil import SLO, ConfigurationError, ManualClock, Resilience
from somaresil.integrations._families import FAMILIES
from somaresil.integrations._instruments import attributes_of
from somaresil.integrations._readings import Reader
from somaresil.integrations.otelmetrics import INSTRUMENTS, otel_metrics, with_histograms
from somaresil.integrations.prometheus import ResilienceCollector


class Kept(MetricExporter):
    """An exporter that keeps what it is given."""

    def __init__(self, **preferred):
        super().__init__(**preferred)
        self.batches = []
        self.down = False

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.batches.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.down = True


def metrics_in(data):
    """By name: the only metric of that name."""
    found = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert metric.name not in found, "a name is exported once"
                found[metric.name] = metric
    return found


def points_of(metric):
    return {tuple(sorted(point.attributes.items())): point for point in metric.data.data_points}


def values_of(metric):
    return {key: point.value for key, point in points_of(metric).items()}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def resilience(clock):
    made = Resilience("service", clock=clock, seed=1)
    made.slos.add(SLO("availability", 99.9, timedelta(days=30)))
    return made


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def pushing():
    """Give a factory: a provider whose reader pushes when it is flushed, else once an hour, and its exporter."""
    made = []

    def push(resilience, **preferred):
        kept = Kept(**preferred)
        exporter = with_histograms(kept, resilience)
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
        made.append(provider)
        otel_metrics(resilience, provider)
        return provider, kept

    yield push
    for provider in made:
        provider.shutdown()


def fail():
    raise ValueError


def calls(guard, good=0, bad=0):
    for _ in range(good):
        guard.call(int)
    for _ in range(bad):
        with pytest.raises(ValueError):
            guard.call(fail)


# -- names ------------------------------------------------------------------------------------------------------------------------------


def test_every_family_has_an_instrument_and_no_two_share_a_name():
    """What Prometheus is told, OpenTelemetry is told too."""
    assert set(INSTRUMENTS) == set(FAMILIES)
    assert len({instrument.name for instrument in INSTRUMENTS.values()}) == len(INSTRUMENTS)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_collector_makes_the_names_of_our_own_exporter_of_ours(name):
    """Dots become underscores, units endings: the rules of the OpenTelemetry specification for Prometheus and OpenMetrics."""
    family, instrument = FAMILIES[name], INSTRUMENTS[name]
    assert instrument.name == instrument.name.lower()
    made = instrument.name.replace(".", "_")
    made += {"s": "_seconds", "1": "_ratio"}.get(instrument.unit, "")
    described = {metric.documentation: metric.name for metric in ResilienceCollector(Resilience("names")).describe()}
    assert made == described[family.help]


def test_attributes_are_the_labels_and_those_of_http_are_the_conventions():
    """What is empty is not there, and the status is a number."""
    assert attributes_of("somaresil_calls", ("db", "bad", "false")) == {"guard": "db", "outcome": "bad", "injected": "false"}
    assert attributes_of("http_server_request_duration_seconds", ("GET", "/x", "503", "503")) == {
        "http.request.method": "GET",
        "http.route": "/x",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert attributes_of("http_server_request_duration_seconds", ("GET", "_other", "", "")) == {
        "http.request.method": "GET",
        "http.route": "_other",
    }


# -- counters and gauges ----------------------------------------------------------------------------------------------------------------


def test_what_is_collected_is_what_was_counted(resilience, reader, provider):
    """Calls by outcome, the state of the breaker, events of the objective."""
    otel_metrics(resilience, provider)
    guard = resilience.guard("db", breaker=True, slo="availability")
    calls(guard, good=5, bad=2)
    found = metrics_in(reader.get_metrics_data())
    assert isinstance(found["somaresil.calls"].data, Sum)
    assert found["somaresil.calls"].data.is_monotonic
    assert found["somaresil.calls"].unit == "{call}"
    assert values_of(found["somaresil.calls"]) == {
        (("guard", "db"), ("injected", "false"), ("outcome", "good")): 5,
        (("guard", "db"), ("injected", "false"), ("outcome", "bad")): 2,
    }
    assert values_of(found["somaresil.breaker.state"])[("guard", "db"), ("state", "closed")] == 1
    # Of several workers they are added up: that is an up-down counter.
    assert isinstance(found["somaresil.breaker.state"].data, Sum)
    assert not found["somaresil.breaker.state"].data.is_monotonic
    assert isinstance(found["somaresil.slo.objective"].data, Gauge)
    assert values_of(found["somaresil.slo.objective"]) == {(("slo", "availability"),): pytest.approx(0.999)}
    calls(guard, good=1)
    again = metrics_in(reader.get_metrics_data())
    assert values_of(again["somaresil.calls"])[("guard", "db"), ("injected", "false"), ("outcome", "good")] == 6


def test_one_collection_reads_the_process_once(resilience, reader, provider, monkeypatch):
    """There are thirty instruments; the next collection reads anew, at the same moment too."""
    reads = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self: reads.append(1) or read(self))
    otel_metrics(resilience, provider)
    assert reads == []
    reader.get_metrics_data()
    assert len(reads) == 1
    reader.get_metrics_data()
    assert len(reads) == 2


def test_calls_pay_nothing(resilience, provider):
    """The quiet path is as it was: nothing listens, nothing is exchanged."""
    guard = resilience.guard("db", breaker=True)
    quiet = guard.switch.quiet
    otel_metrics(resilience, provider)
    assert guard.switch.quiet is quiet
    assert resilience.traces.current is None


def test_it_ends_when_everybody_has_ended_it(resilience, reader, provider):
    """Twice installed is counted once; ended by one it is there for the other, and then no more. Ending twice is ending once."""
    first, second = otel_metrics(resilience, provider), otel_metrics(resilience, provider)
    calls(resilience.guard("db"), good=3)
    key = (("guard", "db"), ("injected", "false"), ("outcome", "good"))
    assert values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])[key] == 3
    first()
    first()
    calls(resilience.guard("db"), good=1)
    assert values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])[key] == 4
    second()
    calls(resilience.guard("db"), good=1)
    after = reader.get_metrics_data()
    assert after is None or values_of(metrics_in(after)["somaresil.calls"])[key] == 4
    otel_metrics(resilience, provider)
    assert values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])[key] == 5


def test_two_of_a_process_are_one(resilience, reader, provider, clock):
    """An app that was imported under two names has one idle twin."""
    other = Resilience("service", clock=clock)
    otel_metrics(resilience, provider)
    otel_metrics(other, provider)
    calls(resilience.guard("db"), good=2)
    calls(other.guard("db"), good=3)
    key = (("guard", "db"), ("injected", "false"), ("outcome", "good"))
    assert values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])[key] == 5


def test_there_are_only_so_many_attribute_sets(resilience, reader, provider):
    """What does not fit is added up."""
    otel_metrics(resilience, provider, limit=20)
    for number in range(50):
        calls(resilience.guard(f"g{number}"), good=1)
    values = values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])
    assert len(values) <= 20
    assert sum(values.values()) == 50


def test_a_defect_costs_one_metric_and_is_reported(resilience, reader, provider, monkeypatch):
    """The collection of everybody else goes on."""
    defects = []
    monkeypatch.setattr(resilience.listeners, "defect", lambda *said: defects.append(said[0]))
    otel_metrics(resilience, provider)
    calls(resilience.guard("db", breaker=True), good=1)
    monkeypatch.setattr("somaresil.integrations.otelmetrics.attributes_of", _broken_for("somaresil_calls"))
    found = metrics_in(reader.get_metrics_data())
    assert "somaresil.calls" not in found
    assert "somaresil.breaker.state" in found
    assert defects == ["OpenTelemetry metric somaresil_calls"]


def _broken_for(name):
    def broken(family, labels):
        if family == name:
            raise RuntimeError
        return attributes_of(family, labels)

    return broken


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"limit": 9}, "limit"), ({"limit": 100_001}, "limit"), ({"limit": "many"}, "limit"), ({"meter_provider": 5}, "meter_provider")],
)
def test_wrong_arguments_are_refused(resilience, arguments, problem):
    """By name, at once."""
    with pytest.raises(ConfigurationError, match=problem):
        otel_metrics(resilience, **arguments)


def test_without_a_provider_nothing_is_read():
    """The API alone does nothing; a provider that is set later is used. Nothing of the SDK is imported by us."""
    program = textwrap.dedent(
        """
        import sys
        from opentelemetry import metrics
        from somaresil import Resilience
        from somaresil.integrations.otelmetrics import otel_metrics
        resilience = Resilience("service")
        otel_metrics(resilience)
        resilience.guard("db").call(int)
        print("opentelemetry.sdk" in sys.modules)
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        otel_metrics(resilience)
        names = [m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics]
        print(names.count("somaresil.calls"))
        """
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "1"]
    assert done.stderr == ""


def test_a_forked_child_tells_what_it_has_counted_itself():
    """What the parent had counted at the fork is the parent's to tell: counters and buckets."""
    program = textwrap.dedent(
        """
        import os, sys
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
        from somaresil import Resilience
        from somaresil.integrations.otelmetrics import otel_metrics, with_histograms

        class Printing(MetricExporter):
            def export(self, metrics_data, timeout_millis=0, **kwargs):
                for scope in metrics_data.resource_metrics[0].scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == "somaresil.calls":
                            calls = sum(point.value for point in metric.data.data_points)
                        elif metric.name == "somaresil.call.duration":
                            durations = sum(point.count for point in metric.data.data_points)
                print(who, calls, durations, flush=True)
                return MetricExportResult.SUCCESS
            def force_flush(self, timeout_millis=0): return True
            def shutdown(self, timeout_millis=0, **kwargs): pass

        who = "parent"
        resilience = Resilience("service")
        reader = PeriodicExportingMetricReader(with_histograms(Printing(), resilience), float("inf"))
        otel_metrics(resilience, MeterProvider([reader], shutdown_on_exit=False))
        for _ in range(7): resilience.guard("db").call(int)
        child = os.fork()
        if not child:
            who = "child"
            for _ in range(3): resilience.guard("db").call(int)
            reader.collect()
            os._exit(0)
        os.waitpid(child, 0)
        reader.collect()
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["child 3 3", "parent 7 7"]


# -- histograms -------------------------------------------------------------------------------------------------------------------------


def test_histograms_go_along_with_what_was_collected(resilience, pushing, clock):
    """Own buckets and counts; no sum where none is known; in the same scope as the rest."""
    provider, kept = pushing(resilience)
    guard = resilience.guard("db", slo="availability")
    calls(guard, good=4)
    for seconds in (0.02, 0.3, 99.0):
        guard.call(clock.advance, seconds)
    provider.force_flush()
    found = metrics_in(kept.batches[0])
    metric = found["somaresil.call.duration"]
    assert metric.unit == "s"
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    (point,) = metric.data.data_points
    assert dict(point.attributes) == {"guard": "db"}
    assert point.count == 7 == sum(point.bucket_counts)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.bucket_counts[-1] == 1
    assert point.bucket_counts[point.explicit_bounds.index(0.025)] == 1
    assert (point.sum, point.min, point.max) == (None, None, None)
    assert point.start_time_unix_nano < point.time_unix_nano
    scopes = [scope.scope.name for scope in kept.batches[0].resource_metrics[0].scope_metrics]
    assert scopes.count("somaresil") == 1


def test_each_batch_has_what_came_since_when_that_is_preferred(resilience, pushing, clock):
    """Delta temporality: the buckets of the time between two exports, and its bounds meet without a gap."""
    delta = {
        Counter: AggregationTemporality.DELTA,
        ObservableCounter: AggregationTemporality.DELTA,
        Histogram: AggregationTemporality.DELTA,
    }
    provider, kept = pushing(resilience, preferred_temporality=delta)
    guard = resilience.guard("db")
    points = []
    for count in (3, 2, 0, 1):
        calls(guard, good=count)
        clock.advance(10.0)
        provider.force_flush()
        metric = metrics_in(kept.batches[-1])["somaresil.call.duration"]
        assert metric.data.aggregation_temporality is AggregationTemporality.DELTA
        points.append(list(metric.data.data_points))
    assert [sum(point.count for point in found) for found in points] == [3, 2, 0, 1]
    assert points[0][0].time_unix_nano == points[1][0].start_time_unix_nano
    # Nothing came: no point is said of it.
    assert points[2] == []


def test_the_otlp_exporter_says_which_temporality_it_wants(resilience, monkeypatch):
    """By its own variable, as for every other histogram."""
    otlp = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    for preferred, delta in (("cumulative", False), ("delta", True)):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preferred)
        exporter = with_histograms(otlp.OTLPMetricExporter(), resilience)
        assert exporter._delta is delta
        exporter.shutdown()


def test_buckets_name_the_trace_of_a_bad_call(resilience, pushing):
    """When it is sampled: that is the link from a histogram to a trace."""
    provider, kept = pushing(resilience)
    tracing = TracerProvider(shutdown_on_exit=False)
    guard = resilience.guard("db")
    with tracing.get_tracer("tests").start_as_current_span("request") as span:
        calls(guard, good=1, bad=1)
    provider.force_flush()
    tracing.shutdown()
    (point,) = metrics_in(kept.batches[0])["somaresil.call.duration"].data.data_points
    (exemplar,) = point.exemplars
    assert exemplar.trace_id == span.get_span_context().trace_id
    assert exemplar.span_id == span.get_span_context().span_id
    assert exemplar.value == 0.0
    assert exemplar.filtered_attributes == {}


@pytest.mark.parametrize("requests", [True, False])
def test_requests_may_be_counted_by_somebody_else(resilience, requests):
    """Then two would be there under one name."""
    exporter = with_histograms(kept := Kept(), resilience, requests=requests)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
    otel_metrics(resilience, provider)
    resilience.routes.cell("GET", "/x", 200, ()).good(0.1, 0.05, 1.0)
    calls(resilience.guard("db"), good=1)
    provider.shutdown()
    found = metrics_in(kept.batches[-1])
    assert ("http.server.request.duration" in found) is requests
    assert ("http.server.time_to_first_byte" in found) is requests
    assert "somaresil.call.duration" in found
    if requests:
        (point,) = found["http.server.request.duration"].data.data_points
        assert point.sum == pytest.approx(0.1)
        assert dict(point.attributes) == {"http.request.method": "GET", "http.route": "/x", "http.response.status_code": 200}


def test_the_end_of_the_provider_is_ours(resilience, pushing):
    """It exports a last time, the exporter is shut down, and traces are followed no more."""
    provider, kept = pushing(resilience)
    calls(resilience.guard("db"), good=1)
    assert resilience.traces.current is not None
    provider.shutdown()
    assert kept.down
    assert metrics_in(kept.batches[-1])["somaresil.call.duration"].data.data_points
    assert resilience.traces.current is None


def test_without_histograms_the_rest_is_exported(resilience, pushing, monkeypatch):
    """A defect of ours costs others nothing, and is reported."""
    provider, kept = pushing(resilience)
    monkeypatch.setattr("somaresil.integrations._otelhistograms.by_bucket", fail)
    defects = []
    monkeypatch.setattr(resilience.listeners, "defect", lambda *said: defects.append(said[0]))
    calls(resilience.guard("db"), good=1)
    provider.force_flush()
    found = metrics_in(kept.batches[0])
    assert "somaresil.calls" in found
    assert "somaresil.call.duration" not in found
    assert defects == ["OpenTelemetry histograms"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"exporter": 5}, "exporter"), ({"limit": 1}, "limit"), ({"exemplars": "yes"}, "exemplars"), ({"requests": 1}, "requests")],
)
def test_wrong_arguments_of_histograms_are_refused(resilience, arguments, problem):
    """By name, at once, and nothing is begun."""
    with pytest.raises(ConfigurationError, match=problem):
        with_histograms(**{"exporter": Kept(), **arguments}, resilience=resilience)
    assert resilience.traces.current is None


def test_collecting_while_calls_run_loses_none(resilience, reader, provider):
    """Two threads call, two collect; the last collection has every call."""
    otel_metrics(resilience, provider)
    guard = resilience.guard("db")
    done = threading.Event()
    failed = []

    def collect():
        try:
            while not done.is_set():
                reader.get_metrics_data()
        except Exception as error:
            failed.append(error)

    callers = [threading.Thread(target=calls, args=(guard, 2_000)) for _ in range(2)]
    collectors = [threading.Thread(target=collect) for _ in range(2)]
    for thread in (*callers, *collectors):
        thread.start()
    for thread in callers:
        thread.join()
    done.set()
    for thread in collectors:
        thread.join()
    assert failed == []
    key = (("guard", "db"), ("injected", "false"), ("outcome", "good"))
    assert values_of(metrics_in(reader.get_metrics_data())["somaresil.calls"])[key] == 4_000
