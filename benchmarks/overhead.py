"""What a guard costs a call, in nanoseconds and bytes, beside the breakers, retries and metrics that services use today.

"full guard" is everything at once: a breaker with failure-rate and slow-call-rate windows, a latency SLO, an availability SLO, retry and
fallback configured, and a chaos engine that is opted in and disarmed. Each peer guards with its breaker, or its retry, alone and in its
defaults. "off the quiet path" is the full guard with a bulkhead as well, which needs a say in every call: what a call costs when somebody
has to look at it.

Times are over the bare function, which returns its argument. A rejected call is one that its caller catches, over the bare function
called by the same caller. The chaos point is the one look at the switch that a disarmed engine costs; the quiet path takes that look
anyway, for the breaker.

``--otel`` measures what OpenTelemetry adds, and nothing else: without an SDK, in a span that is not sampled, in one that is, with metrics
that nobody collects at the moment, and with a span for each call.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
from bisect import bisect_left
from datetime import timedelta
from itertools import count
from typing import Any

from _measure import (
    BARE,
    NOT_INSTALLED,
    Benchmark,
    Ratio,
    Table,
    Timing,
    acts,
    awaits,
    calls,
    caught_awaits,
    caught_calls,
    ratio,
    version_of,
)

from somaresil import SLO, CircuitBreaker, Resilience
from somaresil.expiry import begin

PACKAGES = (
    "somaresil",
    "pybreaker",
    "circuitbreaker",
    "purgatory",
    "pyresilience",
    "interlock-cb",
    "nopanic",
    "tenacity",
    "stamina",
    "prometheus-client",
)
CLOSURE = "functools.wraps closure"
FULL = "somaresil full guard"
ALONE = "somaresil breaker alone"
EMPTY = "somaresil guard without options"
POINT = "closure with a disarmed chaos point"
FULL_PATH = "somaresil off the quiet path"
LIMIT = 10.0
"""Seconds of a timeout here: nothing runs into it."""
LASTS = 3_000.0
"""Seconds a circuit stays open here: longer than any run."""


def plain(value: Any) -> Any:
    return value


async def aplain(value: Any) -> Any:
    return value


def fails(value: Any) -> Any:
    raise ValueError


async def afails(value: Any) -> Any:
    raise ValueError


def other(*_args: Any, **_kwargs: Any) -> Any:
    return 0


# -- ours -----------------------------------------------------------------------------------------------------------------------------


def resilience() -> Resilience:
    made = Resilience("bench", environment="staging", seed=1)
    made.slos.add(
        SLO("latency", 95.0, timedelta(days=7), "gradual_burn", latency=2.0),
        SLO("availability", 99.9, timedelta(days=30)),
    )
    made.chaos.opt_in()
    return made


def full_options(**more: Any) -> dict[str, Any]:
    breaker = CircuitBreaker(failure_rate=0.5, slow_call_rate=0.9, slow_call_duration=5.0)
    return {"slo": ("latency", "availability"), "breaker": breaker, "retry": 3, "fallback": other, **more}


def closure(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def aclosure(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def chaos_point(function: Any) -> Any:
    """What a disarmed engine adds: a guard looks at the flag of its switch. The guard itself looks at it anyway, for its breaker."""
    guard = resilience().guard("point")
    switch = guard.switch

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not switch.quiet:
            return guard.run(function, args, kwargs)
        return function(*args, **kwargs)

    return wrapper


def sli_record() -> Any:
    """One event counted as the quiet path does it: clock, due check, bucket, cell. Two SLOs look at it."""
    guard = resilience().guard("record", slo=("latency", "availability"))
    recorder, monotonic = guard.recorder, guard.monotonic
    switch, bounds, cells = guard.switch, recorder.bounds, recorder.cells

    def record(elapsed: float = 0.012) -> None:
        now = monotonic()
        if now >= switch.due:
            recorder.settle(now)
        next(cells[bisect_left(bounds, elapsed)])

    return record


# -- peers ----------------------------------------------------------------------------------------------------------------------------


def breakers(bench: Benchmark) -> dict[str, tuple[Any, Any]]:
    """Decorators for a plain and a coroutine function, as each peer makes them by default; a text where there is none."""

    def pybreaker() -> tuple[Any, Any]:
        import pybreaker

        return pybreaker.CircuitBreaker(), "no async"

    def circuitbreaker() -> tuple[Any, Any]:
        import circuitbreaker

        return circuitbreaker.CircuitBreaker(name="sync"), circuitbreaker.CircuitBreaker(name="async")

    def purgatory() -> tuple[Any, Any]:
        import purgatory

        return purgatory.SyncCircuitBreakerFactory()("sync"), purgatory.AsyncCircuitBreakerFactory()("async")

    def pyresilience() -> tuple[Any, Any]:
        import pyresilience

        return tuple(pyresilience.resilient(circuit_breaker=pyresilience.CircuitBreakerConfig()) for _ in range(2))

    def interlock() -> tuple[Any, Any]:
        import interlock

        return interlock.CircuitBreaker(name="sync"), interlock.CircuitBreaker(name="async")

    def nopanic() -> tuple[Any, Any]:
        import nopanic

        return nopanic.circuit_breaker(), nopanic.circuit_breaker()

    builders = {
        "pybreaker": pybreaker,
        "circuitbreaker": circuitbreaker,
        "purgatory": purgatory,
        "pyresilience": pyresilience,
        "interlock-cb": interlock,
        "nopanic": nopanic,
    }
    return {name: _pair(bench.peer(name, build)) for name, build in builders.items()}


def retries(bench: Benchmark) -> dict[str, Any]:
    def tenacity() -> Any:
        import tenacity

        return tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.1))

    def stamina() -> Any:
        import stamina

        return stamina.retry(on=ValueError, attempts=3)

    return {"tenacity retry": bench.peer("tenacity", tenacity), "stamina retry": bench.peer("stamina", stamina)}


def open_breakers(bench: Benchmark) -> dict[str, tuple[Any, Any]]:
    """As :func:`breakers`, with an open time that outlasts the run."""

    def pybreaker() -> tuple[Any, Any]:
        import pybreaker

        return pybreaker.CircuitBreaker(reset_timeout=LASTS), "no async"

    def circuitbreaker() -> tuple[Any, Any]:
        import circuitbreaker

        return tuple(circuitbreaker.CircuitBreaker(name=name, recovery_timeout=int(LASTS)) for name in ("sync", "async"))

    def purgatory() -> tuple[Any, Any]:
        import purgatory

        return (
            purgatory.SyncCircuitBreakerFactory(default_ttl=LASTS)("sync"),
            purgatory.AsyncCircuitBreakerFactory(default_ttl=LASTS)("async"),
        )

    def pyresilience() -> tuple[Any, Any]:
        import pyresilience

        return tuple(pyresilience.resilient(circuit_breaker=pyresilience.CircuitBreakerConfig(recovery_timeout=LASTS)) for _ in range(2))

    def interlock() -> tuple[Any, Any]:
        import interlock

        return tuple(interlock.CircuitBreaker(name=n, config=interlock.Config(wait_duration_in_open=LASTS)) for n in ("sync", "async"))

    def nopanic() -> tuple[Any, Any]:
        import nopanic

        return tuple(nopanic.circuit_breaker(reset_timeout=LASTS) for _ in range(2))

    builders = {
        "pybreaker": pybreaker,
        "circuitbreaker": circuitbreaker,
        "purgatory": purgatory,
        "pyresilience": pyresilience,
        "interlock-cb": interlock,
        "nopanic": nopanic,
    }
    return {name: _pair(bench.peer(name, build)) for name, build in builders.items()}


def _pair(found: Any) -> tuple[Any, Any]:
    return (found, found) if isinstance(found, str) else found


def _on(decorator: Any, function: Any) -> Any:
    return decorator if isinstance(decorator, str) else decorator(function)


def _opened(decorator: Any) -> Any:
    """A plain function behind a circuit that has been opened by failures."""
    if isinstance(decorator, str):
        return decorator
    guarded = decorator(fails)
    caught_calls(guarded, 300)
    return guarded


async def _aopened(decorator: Any) -> Any:
    if isinstance(decorator, str):
        return decorator
    guarded = decorator(afails)
    await caught_awaits(guarded, 300)
    return guarded


# -- tables ---------------------------------------------------------------------------------------------------------------------------


def measure_sync(bench: Benchmark) -> None:
    ours = resilience()
    cases = {
        BARE: plain,
        CLOSURE: closure(plain),
        POINT: chaos_point(plain),
        FULL: ours.guard("full", **full_options())(plain),
        ALONE: ours.guard("alone", breaker=True)(plain),
        EMPTY: ours.guard("empty")(plain),
        FULL_PATH: ours.guard("bulkhead", **full_options(bulkhead=8))(plain),
        **{name: _on(sync, plain) for name, (sync, _) in breakers(bench).items()},
        **{name: _on(decorator, plain) for name, decorator in retries(bench).items()},
    }
    timing = Timing(calls, cases)

    def ratios() -> list[Ratio]:
        full = timing.over(FULL)
        return [
            ratio("full guard, sync, of pybreaker", full, timing.over("pybreaker"), 0.30),
            ratio("full guard, sync, of circuitbreaker", full, timing.over("circuitbreaker"), 0.70),
            Ratio("chaos point disarmed, beyond a closure", timing.over(POINT, CLOSURE), 60.0, "ns"),
        ]

    bench.measure([timing], 7.0, ratios)
    bench.tables.append(timing.table("a call that goes well, sync"))


def measure_async(bench: Benchmark) -> None:
    ours = resilience()
    cases = {
        BARE: aplain,
        CLOSURE: aclosure(aplain),
        FULL: ours.guard("full", **full_options())(aplain),
        ALONE: ours.guard("alone", breaker=True)(aplain),
        EMPTY: ours.guard("empty")(aplain),
        FULL_PATH: ours.guard("bulkhead", **full_options(bulkhead=8))(aplain),
        **{name: _on(decorator, aplain) for name, (_, decorator) in breakers(bench).items()},
        **{name: _on(decorator, aplain) for name, decorator in retries(bench).items()},
    }
    timing = Timing(awaits, cases)

    def ratios() -> list[Ratio]:
        full = timing.over(FULL)
        return [
            ratio("full guard, async, of circuitbreaker", full, timing.over("circuitbreaker"), 0.70),
            ratio("full guard, async, of nopanic", full, timing.over("nopanic"), 0.40),
        ]

    bench.measure([timing], 7.0, ratios)
    bench.tables.append(timing.table("a call that goes well, async"))


def timed(*, usual: bool) -> Any:
    """Await with a limit, as a policy does."""

    async def limited(argument: Any) -> Any:
        expiry = begin(LIMIT, usual=usual)
        try:
            result = await aplain(argument)
        except BaseException as error:
            if expiry.ours(error):
                raise TimeoutError from error
            raise
        expiry.ours(None)
        return result

    return limited


def measure_limits(bench: Benchmark) -> None:
    ours = resilience()

    async def by_asyncio(value: Any) -> Any:
        async with asyncio.timeout(LIMIT):
            return await aplain(value)

    async def called(value: Any) -> Any:
        return await aplain(value)

    own, shared, alone = "asyncio.timeout", "somaresil limit of a usual length", "somaresil limit of any length"

    def nopanic() -> Any:
        import nopanic

        return nopanic.timeout(LIMIT)

    cases = {
        BARE: called,
        own: by_asyncio,
        shared: timed(usual=True),
        alone: timed(usual=False),
        "somaresil guard with a timeout": ours.guard("timeout", timeout=LIMIT)(aplain),
        "somaresil full guard with a timeout": ours.guard("all", **full_options(timeout=LIMIT))(aplain),
        "somaresil guard with a hedge that is not used": ours.guard("hedge", idempotent=True, hedge=LIMIT)(aplain),
        "nopanic timeout": _on(bench.peer("nopanic", nopanic), aplain),
    }
    timing = Timing(awaits, cases)

    def ratios() -> list[Ratio]:
        return [ratio("a limit of a usual length, of asyncio.timeout", timing.over(shared), timing.over(own), 0.25)]

    bench.measure([timing], 4.0, ratios)
    bench.tables.append(timing.table("an await with a limit"))


def measure_rejected(bench: Benchmark) -> None:
    ours = resilience()
    breaker = CircuitBreaker(failure_rate=0.5, slow_call_rate=0.9, slow_call_duration=5.0, open_duration=LASTS)
    guard = ours.guard("open", slo=("latency", "availability"), breaker=breaker)
    answered = ours.guard("answered", **full_options(breaker=breaker))
    for name in ("open", "answered"):
        ours.breaker(name).trip()
    peers, apeers = open_breakers(bench), open_breakers(bench)

    async def opened() -> dict[str, Any]:
        return {name: await _aopened(decorator) for name, (_, decorator) in apeers.items()}

    name, with_fallback = "somaresil (breaker, two SLOs)", "somaresil full guard, fallback answers"
    sync = {BARE: plain, name: guard(plain), with_fallback: answered(plain)}
    sync |= {peer: _opened(decorator) for peer, (decorator, _) in peers.items()}
    coroutine = {BARE: aplain, name: guard(aplain), with_fallback: answered(aplain), **asyncio.run(opened())}
    # purgatory raises one and the same exception each time, which collects the traceback of every caller; it would fill the memory.
    cut = {"purgatory": _cutter(sync["purgatory"])}
    timing, atiming = Timing(caught_calls, sync, cut), Timing(caught_awaits, coroutine, {"purgatory": _acutter(coroutine["purgatory"])})

    def ratios() -> list[Ratio]:
        return [
            ratio("rejected call, sync, of circuitbreaker", timing.over(name), timing.over("circuitbreaker"), 1.0),
            ratio("rejected call, async, of circuitbreaker", atiming.over(name), atiming.over("circuitbreaker"), 1.0),
        ]

    bench.measure([timing, atiming], 3.0, ratios)
    bench.tables.append(timing.table("a call that is rejected, sync"))
    bench.tables.append(atiming.table("a call that is rejected, async"))


def _cutter(function: Any) -> Any:
    def cut() -> None:
        try:
            function(1)
        except Exception as error:
            error.__traceback__ = error.__context__ = None

    return (lambda: None) if isinstance(function, str) else cut


def _acutter(function: Any) -> Any:
    def cut() -> None:
        try:
            function(1).send(None)
        except Exception as error:
            error.__traceback__ = error.__context__ = None

    return (lambda: None) if isinstance(function, str) else cut


def measure_counting(bench: Benchmark) -> None:
    def counter() -> Any:
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        return prometheus_client.Counter("events", "x", ["outcome"], registry=registry).labels("good").inc

    def histogram() -> Any:
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        return functools.partial(prometheus_client.Histogram("seconds", "x", ["route"], registry=registry).labels("/").observe, 0.012)

    record = "somaresil SLI record (clock, due, bucket, cell)"
    recorder = resilience().guard("count", slo=("latency", "availability")).recorder
    cases = {
        "itertools.count (the cell itself)": functools.partial(next, count()),
        record: sli_record(),
        "somaresil Recorder.count_quiet": functools.partial(recorder.count_quiet, 0.012),
        "prometheus Counter.inc, bound": bench.peer("prometheus-client", counter),
        "prometheus Histogram.observe, bound": bench.peer("prometheus-client", histogram),
    }
    timing = Timing(acts, cases)

    def ratios() -> list[Ratio]:
        ours, theirs = timing.best.get(record), timing.best.get("prometheus Counter.inc, bound")
        return [ratio("SLI record, of a bound Counter.inc", ours, theirs, 0.5)]

    bench.measure([timing], 3.0, ratios)
    bench.tables.append(timing.table("counting one event", base=None))


def bytes_each(make: Any, number: int) -> float:
    """Memory that is still held when ``number`` objects have been made, divided by that."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [make(index) for index in range(number)]
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # The list that holds them is not theirs.
    return (used - kept.__sizeof__()) / number


def measure_memory(bench: Benchmark) -> None:
    number = bench.objects(2_000)
    names = [f"component.{index}" for index in range(number + 10)]
    ours, functions, objectives = (Resilience("bench") for _ in range(3))
    slos = [SLO(name, 99.0, timedelta(days=30)) for name in names]
    for made in (ours, functions):
        # What is made once a process is not a guard's.
        made.guard("warm", breaker=True)(plain)

    def histogram() -> Any:
        import prometheus_client

        made = prometheus_client.Histogram("seconds", "x", ["route"], registry=prometheus_client.CollectorRegistry())
        return lambda index: made.labels(names[index])

    def pybreaker() -> Any:
        import pybreaker

        return lambda index: pybreaker.CircuitBreaker(name=names[index])

    def circuitbreaker() -> Any:
        import circuitbreaker

        return lambda index: circuitbreaker.CircuitBreaker(name=names[index])

    def interlock() -> Any:
        import interlock

        return lambda index: interlock.CircuitBreaker(name=names[index])

    def nopanic() -> Any:
        import nopanic

        return lambda index: nopanic.circuit_breaker(name=names[index])

    makers = {
        "somaresil guard with breaker": lambda index: ours.guard(names[index], breaker=True),
        "somaresil guard with breaker, and a function": lambda index: functions.guard(names[index], breaker=True)(plain),
        "somaresil SLO (90 days of windows)": lambda index: objectives.slos.add(slos[index]),
        "prometheus Histogram child": bench.peer("prometheus-client", histogram),
        "pybreaker": bench.peer("pybreaker", pybreaker),
        "circuitbreaker": bench.peer("circuitbreaker", circuitbreaker),
        "interlock-cb": bench.peer("interlock-cb", interlock),
        "nopanic": bench.peer("nopanic", nopanic),
    }
    table = Table(f"memory, {number:,} of each", ("bytes each",))
    for name, make in makers.items():
        table.rows[name] = (NOT_INSTALLED,) if isinstance(make, str) else (bytes_each(make, number),)
    bench.tables.append(table)
    guard, _, slo = (float(row[0]) / 1_000 for row in list(table.rows.values())[:3])
    bench.ratios += [Ratio("a guard with breaker, without SLO", guard, 5.0, "kB"), Ratio("an SLO", slo, 66.0, "kB")]


# -- OpenTelemetry --------------------------------------------------------------------------------------------------------------------

NO_SPAN, NOT_SAMPLED, SAMPLED = "no SDK", "in a span that is not sampled", "in a span that is sampled"
WITHOUT = "guard, without OpenTelemetry"


def in_span(case: Any, count: int) -> int:
    """``function(1)`` while a span is the current one, by somebody who catches what it raises; ``case`` is both. None: no span."""
    from opentelemetry.context import attach, detach
    from opentelemetry.trace import set_span_in_context

    span, function = case
    token = None if span is None else attach(set_span_in_context(span))
    try:
        return caught_calls(function, count)
    finally:
        if token is not None:
            detach(token)


def quiet_options() -> dict[str, Any]:
    """Of a guard whose calls go well: nothing that leaves the quiet path."""
    return {**full_options(), "retry": None, "fallback": None}


def traced(most: int = 32, **options: Any) -> Any:
    """A guard whose events go to spans."""
    from somaresil.integrations.opentelemetry import span_events

    made = resilience()
    made.on(span_events(most))
    return made.guard("full", **options)


def untraced() -> Any:
    return resilience().guard("full", **quiet_options())


def counted() -> Any:
    """A guard that is read by OpenTelemetry, which nobody collects at the moment."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    from somaresil.integrations.otelmetrics import otel_metrics, with_histograms

    made = resilience()
    reader = PeriodicExportingMetricReader(with_histograms(ConsoleMetricExporter(), made), float("inf"))
    otel_metrics(made, MeterProvider([reader], shutdown_on_exit=False))
    return made.guard("full", **quiet_options())


def providers() -> dict[str, Any]:
    """None: that of the API alone. Nothing is exported: that is not what a call waits for."""
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    from somaresil.integrations.otelsampler import KeepInteresting

    off, on = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    on.add_span_processor(SpanProcessor())
    keep = KeepInteresting(SpanProcessor(), ratio=0.0, slow=None)
    tail = TracerProvider(sampler=keep.sampler, shutdown_on_exit=False)
    tail.add_span_processor(keep)
    return {NO_SPAN: None, "not sampled": off, "sampled": on, "decided when it is over": tail}


def _span(provider: Any) -> Any:
    return provider.get_tracer("bench").start_span("request")


def measure_otel(bench: Benchmark) -> None:
    from somaresil.integrations.opentelemetry import call_span

    kinds = providers()
    spans = {NO_SPAN: None, NOT_SAMPLED: _span(kinds["not sampled"]), SAMPLED: _span(kinds["sampled"])}
    good = {BARE: (None, plain), WITHOUT: (None, untraced()(plain))}
    good |= {f"span events, {kind}": (span, traced(**quiet_options())(plain)) for kind, span in spans.items()}
    good["metrics and histograms"] = (None, counted()(plain))
    # A breaker would open. Every call adds an event to the span, which has room for 128 of them: the last is dropped for each.
    bad = {BARE: (None, fails), WITHOUT: (None, resilience().guard("bad")(fails))}
    bad |= {f"span events, {kind}": (span, traced(1_000)(fails)) for kind, span in spans.items()}
    own = {BARE: (None, plain), WITHOUT: (None, untraced()(plain))}
    for kind, provider in kinds.items():
        own[f"a span for each call, {kind}"] = (None, call_span("full", tracer_provider=provider)(untraced()(plain)))
    timing, failing, spanning = Timing(in_span, good), Timing(in_span, bad), Timing(in_span, own)

    def ratios() -> list[Ratio]:
        base = timing.over(WITHOUT)
        found = [ratio(f"good call, {name}, of one without", timing.over(name), base, 1.2) for name in good if name not in {BARE, WITHOUT}]
        found += [
            Ratio("bad call, span events, no SDK, beyond one without", failing.over(f"span events, {NO_SPAN}", WITHOUT), 6_000.0, "ns"),
            Ratio("a span for each call, no SDK", spanning.over(f"a span for each call, {NO_SPAN}", WITHOUT), 8_000.0, "ns"),
        ]
        return found

    bench.measure([timing, failing, spanning], 4.0, ratios)
    bench.tables.append(timing.table("a call that goes well"))
    bench.tables.append(failing.table("a call that fails"))
    bench.tables.append(spanning.table("a call that goes well, with a span of its own"))


if __name__ == "__main__":
    benchmark = Benchmark(__doc__ or "", PACKAGES, {"otel": "measure what OpenTelemetry adds, and nothing else"})
    if benchmark.part("otel"):
        benchmark.versions = {name: version_of(name) for name in ("somaresil", "opentelemetry-api", "opentelemetry-sdk")}
        benchmark.missing.clear()
        measure_otel(benchmark)
    else:
        measure_sync(benchmark)
        measure_async(benchmark)
        measure_limits(benchmark)
        measure_rejected(benchmark)
        measure_counting(benchmark)
        measure_memory(benchmark)
    benchmark.finish()
