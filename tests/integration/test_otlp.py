"""OpenTelemetry end to end: a real receiver gets spans, metrics and logs of one request with one trace id; and none of it slows a call."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from somaresil import Resilience
from somaresil.demo.settings import Settings
from somaresil.integrations.opentelemetry import call_span, span_events
from somaresil.integrations.otelmetrics import otel_metrics, with_histograms
from somaresil.integrations.otelsampler import KeepInteresting
from tests.integration.servers import HOST, Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

SERVICE = Path(__file__).with_name("otlp_service.py")
TOKEN = "token-of-this-run"
STREAM = "/v1/llm/invoke/stream"
PATIENCE = 20.0
QUICK = 0.8
"""Seconds: such a request is surely not slow."""
SERVER = 2
"""Kind of a span, as OTLP has it."""


class Inbox:
    """What the receiver has got."""

    def __init__(self):
        self.spans, self.logs, self.metrics = [], [], []

    async def until(self, holds, what):
        end = time.monotonic() + PATIENCE
        while not holds(self):
            assert time.monotonic() < end, f"{what}; spans {[span.name for span in self.spans]}, logs {[texts(log) for log in self.logs]}"
            await asyncio.sleep(0.05)

    async def collect(self, receiver):
        async def into(items, stream):
            async for item in stream:
                items.append(item)

        streams = (receiver.stream_traces(), receiver.stream_logs(), receiver.stream_metrics())
        await asyncio.gather(*(into(*pair) for pair in zip((self.spans, self.logs, self.metrics), streams, strict=True)))


def attributes(item):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


def texts(log):
    return log.body.string_value


@pytest.fixture
def fleet(tmp_path):
    """Give a factory: the three services, which tell a receiver on that port."""
    with ExitStack() as running:

        def start(receiver):
            ports = {role: free_port() for role in ("model", "worker", "gateway")}
            urls = {role: f"http://{HOST}:{port}" for role, port in ports.items()}
            servers = {}
            for role, port in ports.items():
                # The gateway streams from the worker, and that from the model.
                model = urls["worker"] if role == "gateway" else urls["model"]
                told = Settings(7, TOKEN, str(tmp_path / "db"), model, f"http://{HOST}:1", urls["worker"], urls["gateway"])
                environment = {
                    **os.environ,
                    **told.to_environment(),
                    "SOMARESIL_CHAOS": "1",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{receiver}",
                    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
                    "OTEL_BSP_SCHEDULE_DELAY": "100",
                    "OTEL_BLRP_SCHEDULE_DELAY": "100",
                    "OTEL_METRIC_EXPORT_INTERVAL": "300",
                    "OTEL_PROPAGATORS": "tracecontext,baggage",
                }
                command = [sys.executable, SERVICE, role, str(port)]
                folder = tmp_path / role
                folder.mkdir()
                server = Server(command, port=port, folder=folder, ready="/health", environment=environment)
                servers[role] = server
                running.callback(server.stop)
                server.start()
            return servers

        yield start


async def asked(oteltap, fleet):
    """Two streams, of which the second is struck: its experiment, all that the receiver has got, and whether the first was quick."""
    receiver_port = free_port()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(
            oteltap.OtelTapHttpProtobufReceiver(oteltap.OtelTapHttpProtobufReceiverSettings(http_port=receiver_port))
        )
        inbox = Inbox()
        collecting = asyncio.create_task(inbox.collect(receiver))
        stack.callback(collecting.cancel)
        servers = await asyncio.to_thread(fleet, receiver_port)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=servers["gateway"].url, timeout=PATIENCE, trust_env=False))

        async def ask(name, **headers):
            answer = await http.get(STREAM, params={"prompt": "hello"}, headers={"x-request-id": name, **headers})
            assert answer.status_code == 200
            assert answer.text.count("data: ") > 10
            return answer.elapsed.total_seconds()

        quick = await ask("quiet") < QUICK
        started = await http.post(
            "/_soma/experiments",
            headers={"authorization": f"Bearer {TOKEN}"},
            json={"action": "inject_latency", "component": f"http:{STREAM}", "delay_ms": 1_100, "duration_seconds": 30.0},
        )
        assert started.status_code == 200, started.text
        await ask("struck", baggage="somaresil.chaos=not-a-plan,tenant=acme")
        await inbox.until(lambda it: len([span for span in it.spans if span.kind == SERVER]) >= 3, "spans of all three")
        await inbox.until(lambda it: {role_of(log) for log in it.logs if in_trace(log, it)} >= {"gateway", "worker", "model"}, "their logs")
        await inbox.until(lambda it: any(in_trace(exemplar, it) for exemplar in exemplars(it)), "an exemplar of the request")
        for server in servers.values():
            await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.5)
        return started.json()["id"], inbox, quick


def test_one_request_is_one_trace_in_spans_metrics_and_logs(fleet):
    """A stream through gateway, worker and model, struck by an experiment; the stream before it, in which nothing happened, is in none."""
    experiment, inbox, quick = asyncio.run(asked(pytest.importorskip("oteltap"), fleet))
    struck = struck_span(inbox)
    check_spans(inbox, struck, experiment, quick=quick)
    # What happened and what was said, in the same trace.
    logged = [log for log in inbox.logs if log.trace_id == struck.trace_id]
    assert any(f"experiment {experiment} struck" in texts(log) for log in logged)
    # What is not ours in the baggage goes on; what claims to be a plan does not.
    came_along = {attributes(log)["role"]: attributes(log)["baggage"] for log in logged if "role" in attributes(log)}
    assert came_along == {"gateway": "somaresil.chaos=not-a-plan,tenant=acme", "worker": "tenant=acme", "model": "tenant=acme"}
    check_metrics(inbox)


def check_spans(inbox, struck, experiment, *, quick):
    """The fault is on the span of the request; all others of its trace are there, from one end to the other, and no others at all.

    On a machine that is busy a guard tries again, and the request before may have been worth keeping for being slow.
    """
    said = attributes(struck)
    assert said["http.route"] == STREAM
    assert said["somaresil.injected"] is True
    assert said["somaresil.experiment"] == experiment
    assert said["somaresil.kept"] == "injected"
    assert [event.name for event in struck.events] == ["somaresil.fault_injected"]
    assert attributes(struck.events[0])["somaresil.fault"] == "latency"
    mine = {span.span_id: span for span in inbox.spans if span.trace_id == struck.trace_id}
    served = [span for span in mine.values() if span.kind == SERVER]
    # Server, client, server, client, server.
    assert {len(way_up(span, mine)) for span in served} == {1, 3, 5}
    assert len(inbox.spans) == len(mine) or not quick


def check_metrics(inbox):
    """Under the names of the conventions, and whole."""
    names = {metric.name for metric in inbox.metrics}
    assert {"http.server.request.duration", "somaresil.calls", "somaresil.call.duration", "somaresil.faults.injected"} <= names
    durations = [metric for metric in inbox.metrics if metric.name == "http.server.request.duration" and metric.histogram.data_points]
    of_stream = [point for metric in durations for point in metric.histogram.data_points if attributes(point).get("http.route") == STREAM]
    assert (of_stream[-1].count, sum(of_stream[-1].bucket_counts)) == (2, 2)
    assert of_stream[-1].HasField("sum")
    calls = [metric for metric in inbox.metrics if metric.name == "somaresil.call.duration" and metric.histogram.data_points]
    assert not calls[-1].histogram.data_points[0].HasField("sum")


def struck_span(inbox):
    """The span of the request that was struck; None: it has not come yet."""
    return next((span for span in inbox.spans if attributes(span).get("somaresil.injected")), None)


def in_trace(item, inbox):
    struck = struck_span(inbox)
    return struck is not None and item.trace_id == struck.trace_id


def role_of(log):
    return attributes(log).get("role")


def exemplars(inbox):
    for metric in inbox.metrics:
        if metric.name == "http.server.request.duration":
            for point in metric.histogram.data_points:
                yield from point.exemplars


def way_up(span, by_id):
    """The spans from this one up to the first."""
    found = [span]
    while found[-1].parent_span_id:
        found.append(by_id[found[-1].parent_span_id])
    return found


# -- nobody is there to be told -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def black_hole():
    """A port that takes connections and never answers."""
    with socket.create_server((HOST, 0)) as listener:
        taken, done = [], threading.Event()
        listener.settimeout(0.1)

        def take():
            while not done.is_set():
                with suppress(TimeoutError):
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join()
        for connection in taken:
            connection.close()


CALLS = 1_000


def timed(port):
    """Microseconds of calls that all have something to tell, and the processor that was to tell it; None: no exporter at all."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    resilience = Resilience("service", seed=1)
    resilience.on(span_events())
    keep = batch = meters = None
    provider = TracerProvider(shutdown_on_exit=False)
    if port is not None:
        exporter = OTLPSpanExporter(f"http://{HOST}:{port}/v1/traces", timeout=1)
        batch = BatchSpanProcessor(exporter, max_queue_size=128, max_export_batch_size=16, schedule_delay_millis=20)
        keep = KeepInteresting(batch)
        provider = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False)
        provider.add_span_processor(keep)
        told = with_histograms(OTLPMetricExporter(f"http://{HOST}:{port}/v1/metrics", timeout=1), resilience)
        meters = MeterProvider([PeriodicExportingMetricReader(told, export_interval_millis=50)], shutdown_on_exit=False)
        otel_metrics(resilience, meters)
    failing = call_span("db", tracer_provider=provider)(resilience.guard("db")(fail))
    spent = []
    for _ in range(CALLS):
        began = time.perf_counter()
        with suppress(ValueError):
            failing()
        spent.append((time.perf_counter() - began) * 1e6)
    return spent, keep, batch, meters, provider


def fail():
    raise ValueError


def processed(reader):
    """What the SDK says became of the spans: by why they were dropped, None: handed to the exporter."""
    found = Counter()
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "otel.sdk.processor.span.processed":
                    found.update({point.attributes.get("error.type"): point.value for point in metric.data.data_points})
    return found


@pytest.mark.parametrize("where", ["closed port", "black hole"])
def test_an_exporter_that_cannot_be_reached_slows_no_call(where, black_hole, monkeypatch, caplog):
    """A thousand calls with a span each: none waits, the queue is bounded, and what did not fit is counted by the SDK."""
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    internal = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.sdk.trace.export.get_meter_provider", lambda: internal)
    caplog.set_level("CRITICAL", logger="opentelemetry")
    spent, keep, batch, meters, provider = timed(free_port() if where == "closed port" else black_hole)
    try:
        assert keep.counts().kept == {"bad": CALLS}
        assert keep.counts().held == 0
        assert len(batch._batch_processor._queue) <= 128
        # Who waits for the network waits for a second each time; a machine that is busy holds up a call now and then.
        assert statistics.median(spent) < 20_000
        assert sorted(spent)[int(CALLS * 0.99)] < 500_000
        # Every span was handed over, was dropped and counted, or waits. The worker is between two of these for a moment, and the SDK
        # counts one as dropped now and then for which there was room again a moment later.
        end = time.monotonic() + PATIENCE
        while (told := processed(reader))["queue_full"] + told[None] + len(batch._batch_processor._queue) < CALLS:
            assert time.monotonic() < end, told
            time.sleep(0.05)
        assert told["queue_full"] + told[None] <= CALLS * 1.05
        assert told["queue_full"] > 0
    finally:
        with suppress(Exception):
            meters.shutdown(timeout_millis=100)
        batch._batch_processor.shutdown(timeout_millis=100)
        internal.shutdown()
        provider.shutdown()
