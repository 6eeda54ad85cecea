"""What the middleware costs a request, beside the metric middlewares that services use today.

One Starlette application with 26 routes for each of them, all in this process, called without a server: scope, receive and send are
handed in directly, so nothing but application and middleware is timed. The request is ``GET /items/42``, the answer a short text. Ours
counts for a latency and an availability SLO, and its chaos engine is opted in and disarmed.

Where objects lie in memory and how strings hash changes a request by two percent from process to process. So this is measured in several
processes, ours beside bare Starlette in each, and the best counts. Peers have processes of their own: a service runs one of these, and a
middleware that takes 100 us empties the caches for the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

from _measure import Benchmark, Timing, ratio

from somaresil import SLO, Resilience, ResilienceMiddleware

PACKAGES = (
    "somaresil",
    "starlette",
    "prometheus-client",
    "prometheus-fastapi-instrumentator",
    "starlette-exporter",
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-sdk",
)
BARE = "bare Starlette"
OURS = "somaresil ResilienceMiddleware"
PASSES = "a wrapper around send that does nothing"
ROUTES = 26
PROCESSES = 5


def application() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(_request: Any) -> Any:
        return PlainTextResponse("answer")

    plain = [Route(f"/page/{index}", answer) for index in range(ROUTES - 5)]
    return Starlette(
        routes=[Route("/", answer), *plain, Route("/items/{id}", answer), *(Route(f"/late/{index}", answer) for index in range(3))]
    )


def ours() -> Any:
    resilience = Resilience("bench", environment="staging", seed=1)
    resilience.slos.add(
        SLO("latency", 95.0, timedelta(days=7), "gradual_burn", latency=2.0),
        SLO("availability", 99.9, timedelta(days=30)),
    )
    resilience.chaos.opt_in()
    return ResilienceMiddleware(application(), resilience, slo=("latency", "availability"))


def passes() -> Any:
    app = application()

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def through(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await app(scope, receive, through)

    return wrapped


def instrumentator() -> Any:
    import prometheus_client
    from prometheus_fastapi_instrumentator import Instrumentator

    app = application()
    Instrumentator(registry=prometheus_client.CollectorRegistry()).instrument(app)
    return app


def exporter() -> Any:
    from starlette_exporter import PrometheusMiddleware

    app = application()
    app.add_middleware(PrometheusMiddleware)
    return app


def opentelemetry(traces: bool) -> Any:  # noqa: FBT001
    # Read when the instrumentation is first used: today's conventions, not those of 2022.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = None
    if traces:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, _spans: Any) -> Any:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Nowhere()))
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return OpenTelemetryMiddleware(application(), meter_provider=meters, tracer_provider=provider)


SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/items/42",
    "raw_path": b"/items/42",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"user-agent", b"bench")],
    "server": ("127.0.0.1", 80),
    "client": ("127.0.0.1", 50_000),
    "scheme": "http",
}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: Any) -> None:
    pass


async def requests(app: Any, count: int) -> int:
    """``count`` requests, one after the other."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        await app({**SCOPE, "state": {}}, receive, send)
    return time.perf_counter_ns() - start


def cases(bench: Benchmark) -> dict[str, Any]:
    return {
        BARE: bench.peer("starlette", application),
        PASSES: bench.peer("starlette", passes),
        OURS: bench.peer("starlette", ours),
        "prometheus-fastapi-instrumentator": bench.peer("prometheus-fastapi-instrumentator", instrumentator),
        "starlette-exporter": bench.peer("starlette-exporter", exporter),
        "opentelemetry, metrics": bench.peer("opentelemetry-instrumentation-asgi", lambda: opentelemetry(traces=False)),
        "opentelemetry, metrics and spans": bench.peer("opentelemetry-instrumentation-asgi", lambda: opentelemetry(traces=True)),
    }


class Processes(Timing):
    """The same cases, some at a time, in processes of their own."""

    def run(self, seconds: float) -> None:
        peers = [name for name in self._cases if name not in {BARE, PASSES, OURS}]
        each = seconds / (PROCESSES + len(peers) / 2)
        for _ in range(PROCESSES if seconds > 1.0 else 1):
            self._spend(each, BARE, PASSES, OURS)
        for name in peers:
            self._spend(each / 2, BARE, name)

    def _spend(self, seconds: float, *names: str) -> None:
        program = f"import asgi; asgi.measure_here({seconds}, {names})"
        # They find what we find, wherever that is.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}
        here = Path(__file__).parent
        done = subprocess.run([sys.executable, "-c", program], cwd=here, env=environment, stdout=subprocess.PIPE, check=True)
        for name, nanoseconds in json.loads(done.stdout).items():
            # The bare figure is the one beside ours, not the one that had more tries than any other.
            if name != BARE or OURS in names:
                self.best[name] = min(self.best.get(name, nanoseconds), nanoseconds)


def measure_here(seconds: float, names: tuple[str, ...]) -> None:
    sys.argv[1:] = []
    made = cases(Benchmark(__doc__ or "", PACKAGES))
    timing = Timing(requests, {name: made[name] for name in names})
    timing.run(seconds)
    print(json.dumps(timing.best))


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    timing = Processes(requests, cases(bench))
    bench.measure([timing], 9.0, lambda: [ratio("middleware, of bare Starlette", timing.best.get(OURS), timing.best.get(BARE), 1.12)])
    table = timing.table(f"a request to one of {ROUTES} routes", BARE, 1e-3, "us")
    bare = timing.best.get(BARE)
    table.columns = (*table.columns, "of bare")
    for name, row in table.rows.items():
        table.rows[name] = (*row, "" if bare is None or name not in timing.best else timing.best[name] / bare)
    bench.tables.append(table)
    bench.finish()


if __name__ == "__main__":
    main()
