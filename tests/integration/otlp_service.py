"""One service of the demo with OpenTelemetry around it: `python otlp_service.py ROLE PORT`, told the rest by the environment.

Everything is set up as in a service: spans, metrics and logs go out over OTLP, and the processor that keeps what is interesting stands in
front of the exporter. The worker passes the model's stream on as well, so that one stream goes through all three.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from somaresil.demo.services.client import client
from somaresil.demo.services.dependencies import tokens_of
from somaresil.demo.settings import Settings
from somaresil.integrations.logging import log_events
from somaresil.integrations.opentelemetry import ServerSpans, span_events
from somaresil.integrations.otelmetrics import otel_metrics, with_histograms
from somaresil.integrations.otelsampler import KeepInteresting
from somaresil.resilience import alive

_log = logging.getLogger("demo")


def main(role: str, port: int) -> None:
    """Serve until SIGTERM."""
    resource = Resource.create({"service.name": role, "service.instance.id": f"{role}-1"})
    keep = KeepInteresting(OTLPSpanExporter(), ratio=0.0)
    tracing = TracerProvider(sampler=keep.sampler, resource=resource)
    tracing.add_span_processor(keep)
    trace.set_tracer_provider(tracing)
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(logs)
    HTTPXClientInstrumentor().instrument()
    settings = Settings.from_environment()
    module: Any = importlib.import_module(f"somaresil.demo.services.{role}")
    if "telemetry" in inspect.signature(FastAPI).parameters and hasattr(module, "FastAPI"):
        # A FastAPI that makes spans by itself begins a trace of its own within ours.
        off = {"tracing": False, "metrics": False, "logs": False}
        module.FastAPI = functools.partial(FastAPI, telemetry=off)
    app: Any = module.build(settings)
    if role == "worker":
        pass_streams_on(app, settings)
    for resilience in alive():
        resilience.on(span_events())
        resilience.on(log_events())
        exporter = with_histograms(OTLPMetricExporter(), resilience)
        meters = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=resource)
        metrics.set_meter_provider(meters)
        otel_metrics(resilience, meters)
    # Only ours: what a server says of itself is said by all of them.
    handler = LoggingHandler(logger_provider=logs)
    for name in ("somaresil", "demo"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.DEBUG)
    config = uvicorn.Config(
        OpenTelemetryMiddleware(ServerSpans(Saying(app, role)), exclude_spans=["send", "receive"]),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run()
    tracing.shutdown()
    logs.shutdown()
    if alive():
        meters.shutdown()


class Saying:
    """Logs each request of users within its span, with the baggage that came with it."""

    def __init__(self, app: Any, role: str) -> None:
        self.app = app
        self.role = role

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and "stream" in scope["path"]:
            baggage = b",".join(value for name, value in scope["headers"] if name == b"baggage").decode()
            _log.info("%s was asked", self.role, extra={"role": self.role, "baggage": baggage})
        await self.app(scope, receive, send)


def pass_streams_on(app: Any, settings: Settings) -> None:
    """Give the worker a stream."""
    (resilience,) = alive()
    tokens = tokens_of(settings.model, resilience, client())

    async def stream(prompt: str) -> StreamingResponse:
        async def events() -> Any:
            async for token in tokens(prompt):
                yield f'data: {{"token": "{token}"}}\n\n'
            yield "event: done\ndata: {}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    app.add_api_route("/stream", stream)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
