"""What a log line costs, in nanoseconds, beside the formatters that services use today, and what finding its place costs others.

A line is a warning with one argument and two fields, written by a handler of the standard library to a stream that throws it away. Peers
are python-json-logger and structlog's JSONRenderer with a time and a level, each writing one object of JSON with the same content; none of
them bounds, hides or escapes anything beyond what JSON asks for. "with its place" is a line in a guarded call in a request, under twenty
more frames, told its trace, route, guard and attempt.

What the filter costs who does not log: a guarded call, and a request through the middleware around an app that answers at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from _measure import Benchmark, Ratio, Timing, acts, awaits, calls, ratio

from somaresil import Resilience, ResilienceMiddleware
from somaresil.integrations.jsonlogs import JsonFormatter, SafeFormatter
from somaresil.integrations.logging import RateLimitFilter, ResilienceFilter
from somaresil.integrations.structlog import structlog_processor, structlog_renderer

PACKAGES = ("somaresil", "python-json-logger", "structlog", "opentelemetry-api")
PLAIN = "logging.Formatter"
SAFE = "somaresil SafeFormatter"
OURS = "somaresil JsonFormatter"
PLACED = "somaresil JsonFormatter, with its place"
LEFT_OUT = "a line that the limit leaves out"
JSON_LOGGER = "python-json-logger"
STRUCTLOG = "structlog JSONRenderer"
OURS_STRUCTLOG = "structlog with somaresil's renderer"
PLACED_STRUCTLOG = "structlog with somaresil's renderer, with its place"
DEPTH = 20


class Nowhere:
    """A stream that throws away what is written."""

    def write(self, _text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def logger(name: str, formatter: logging.Formatter, *filters: logging.Filter) -> logging.Logger:
    made = logging.getLogger(f"bench.{name}")
    made.propagate = False
    made.setLevel(logging.INFO)
    handler = logging.StreamHandler(Nowhere())
    handler.setFormatter(formatter)
    for each in filters:
        handler.addFilter(each)
    made.addHandler(handler)
    return made


def line(made: logging.Logger) -> Any:
    def write() -> None:
        made.warning("no answer from %s", "llm", extra={"user_id": 17, "region": "eu-1"})

    return write


def json_logger() -> Any:
    from pythonjsonlogger.json import JsonFormatter as Theirs

    return line(logger("theirs", Theirs(["asctime", "levelname", "name", "message"])))


def structlog_line(*processors: Any) -> Any:
    import structlog

    chain = processors or (
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    )
    made = structlog.wrap_logger(
        structlog.WriteLogger(Nowhere()),  # type: ignore[arg-type]
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    ).bind(logger="bench")

    def write() -> None:
        made.warning("no answer from %s", "llm", user_id=17, region="eu-1")

    return write


def placed(resilience: Resilience, write: Any) -> Any:
    """``write`` in a guarded call, in a request, under more frames: a function that runs it so often, and one for the loop."""
    guard = resilience.guard("llm.invoke")

    def dive(depth: int, count: int) -> int:
        return dive(depth - 1, count) if depth else acts(write, count)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        app.spent = guard.call(dive, DEPTH, app.count)  # type: ignore[attr-defined]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = ResilienceMiddleware(app, resilience)

    async def run(count: int) -> int:
        app.count = count  # type: ignore[attr-defined]
        await middleware(dict(SCOPE), nobody, nowhere)
        return app.spent  # type: ignore[attr-defined, no-any-return]

    return run


class Route:
    path = "/v1/items/{id}"


SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/v1/items/7",
    "root_path": "",
    "headers": [(b"host", b"x"), (b"x-request-id", b"0af7651916cd43dd")],
    "route": Route(),
}


async def nobody() -> Any:
    return {"type": "http.disconnect"}


async def nowhere(_message: Any) -> None:
    pass


async def either(case: Any, count: int) -> int:
    """Cases that log at once, and those that do so in a request."""
    return await case(count) if asyncio.iscoroutinefunction(case) else acts(case, count)


def lines(bench: Benchmark) -> None:
    resilience = Resilience("bench", environment="staging")
    where = ResilienceFilter(resilience)
    limit = RateLimitFilter(resilience, per_second=1e-6, burst=1)
    cases = {
        PLAIN: line(logger("plain", logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))),
        SAFE: line(logger("safe", SafeFormatter())),
        OURS: line(logger("ours", JsonFormatter(resilience))),
        JSON_LOGGER: bench.peer(JSON_LOGGER, json_logger),
        STRUCTLOG: bench.peer("structlog", structlog_line),
        OURS_STRUCTLOG: bench.peer("structlog", lambda: structlog_line(structlog_renderer(resilience))),
        PLACED: placed(resilience, line(logger("placed", JsonFormatter(resilience), where))),
        PLACED_STRUCTLOG: bench.peer(
            "structlog",
            lambda: placed(resilience, structlog_line(structlog_processor(resilience), structlog_renderer(resilience))),
        ),
        LEFT_OUT: line(logger("limited", JsonFormatter(resilience), limit)),
    }
    timing = Timing(either, cases)
    best = timing.best

    def ratios() -> list[Ratio]:
        return [
            ratio("a line of JSON, to one of python-json-logger", best.get(OURS), best.get(JSON_LOGGER), 1.1),
            ratio("the same with its place", best.get(PLACED), best.get(JSON_LOGGER), 3.0),
            ratio("a line that is left out, to one that is written", best.get(LEFT_OUT), best.get(OURS), 0.7),
        ]

    bench.measure([timing], 6.0, ratios)
    bench.tables.append(timing.table("a line", None))


def bystanders(bench: Benchmark) -> None:
    bare, filtered, followed = (Resilience("bench", environment="staging") for _ in range(3))
    kept = [ResilienceFilter(filtered), ResilienceFilter(followed, calls=True)]

    def function(value: Any) -> Any:
        return value

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def request(resilience: Resilience) -> Any:
        middleware = ResilienceMiddleware(app, resilience)

        async def ask(_value: Any) -> None:
            await middleware(dict(SCOPE), nobody, nowhere)

        return ask

    names = "without a filter", "with the filter", "with calls=True"
    made = dict(zip(names, (bare, filtered, followed), strict=True))
    guarded = Timing(calls, {name: resilience.guard("g")(function) for name, resilience in made.items()})
    requests = Timing(awaits, {name: request(resilience) for name, resilience in made.items() if name != names[2]})

    def ratios() -> list[Ratio]:
        more = (requests.best[names[1]] - requests.best[names[0]]) / 1000
        return [
            ratio("a guarded call with the filter, to one without", guarded.best[names[1]], guarded.best[names[0]], 1.05),
            Ratio("a request with the filter, more than one without", more, 2.5, "us"),
        ]

    bench.measure([guarded, requests], 3.0, ratios)
    bench.tables += [guarded.table("a guarded call", None), requests.table("a request", None)]
    del kept


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    # What is measured here is logging itself.
    logging.disable(logging.NOTSET)
    lines(bench)
    bystanders(bench)
    bench.finish()


if __name__ == "__main__":
    main()
