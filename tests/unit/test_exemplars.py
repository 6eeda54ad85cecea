"""The trace of the latest bad or slow event of each bucket, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from somaresil import SLO, CircuitBreaker, ConfigurationError, ManualClock, Outcome, Resilience, ResilienceMiddleware
from somaresil.events import DefectFound
from somaresil.exemplars import LONGEST
from somaresil.integrations.prometheus import install

LATENCY = SLO("fast", 95.0, timedelta(days=7), latency=2.0)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One process."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


@pytest.fixture
def stand():
    """A process whose exemplars are exported, its clock, and the registry."""
    clock = ManualClock()
    resilience = Resilience("service", clock=clock, seed=1, environment="test")
    resilience.slos.add(LATENCY)
    registry = CollectorRegistry()
    end = install(resilience, registry, exemplars=True)
    yield resilience, clock, registry
    end()


@pytest.fixture
def tracer():
    return TracerProvider().get_tracer("test")


def shown(registry):
    """The samples with exemplars: name and labels, ids and value."""
    found = {}
    for family in parse(generate_openmetrics(registry).decode()):
        for sample in family.samples:
            if sample.exemplar is not None:
                key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
                found[key] = (sample.exemplar.labels["trace_id"], sample.exemplar.labels["span_id"], sample.exemplar.value)
    return found


def in_span(tracer, call):
    """Call within a span of its own; its ids."""
    with tracer.start_as_current_span("request") as span:
        with suppress(LookupError):
            call()
        context = span.get_span_context()
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def _fail():
    raise LookupError


def test_a_bad_call_names_its_trace(stand, tracer):
    """On the counter and on the bucket, the latest; within the length that OpenMetrics allows."""
    resilience, _, registry = stand
    guard = resilience.guard("db")
    in_span(tracer, lambda: guard.call(_fail))
    trace, span = in_span(tracer, lambda: guard.call(_fail))
    assert shown(registry) == {
        ("somaresil_calls_total", "guard=db", "injected=false", "outcome=bad"): (trace, span, 1.0),
        ("somaresil_call_duration_seconds_bucket", "guard=db", "le=0.005"): (trace, span, 0.0),
    }
    assert len("trace_id" + trace + "span_id" + span) == 63 <= LONGEST


def test_a_slow_call_that_went_well_names_its_trace(stand, tracer):
    """It is quiet, so that of its duration only the bucket is known. What took as long as the objective allows is not slow."""
    resilience, clock, registry = stand
    guard = resilience.guard("db", slo="fast")
    for seconds in (0.0, 1.0, 2.0):
        in_span(tracer, lambda seconds=seconds: guard.call(clock.advance, seconds))
    assert shown(registry) == {}
    trace, span = in_span(tracer, lambda: guard.call(clock.advance, 3.0))
    assert shown(registry)["somaresil_call_duration_seconds_bucket", "guard=db", "le=5.0"] == (trace, span, 5.0)
    trace, span = in_span(tracer, lambda: guard.call(clock.advance, 300.0))
    (found,) = [value for key, value in shown(registry).items() if key[-1] == "le=+Inf"]
    assert found == (trace, span, pytest.approx(max(guard.recorder.bounds)))
    assert guard.recorder.counts().total(Outcome.GOOD) == 5


def test_without_an_objective_a_second_is_slow(stand, tracer):
    """Somebody has to say it."""
    resilience, clock, registry = stand
    guard = resilience.guard("db")
    in_span(tracer, lambda: guard.call(clock.advance, 1.0))
    assert shown(registry) == {}
    in_span(tracer, lambda: guard.call(clock.advance, 1.5))
    assert len(shown(registry)) == 2


def test_a_breaker_that_watches_slow_calls_and_exemplars_do_not_hinder_each_other(stand, tracer):
    """Both want to hear of slow calls; the circuit opens, every call is counted once."""
    resilience, clock, registry = stand
    breaker = CircuitBreaker(failure_rate=None, slow_call_rate=0.5, slow_call_duration=1.0, minimum_calls=3)
    guard = resilience.guard("db", breaker=breaker)
    for _ in range(3):
        in_span(tracer, lambda: guard.call(clock.advance, 3.0))
    assert resilience.breaker("db").state == "open"
    assert guard.recorder.counts().total(Outcome.GOOD) == 3
    assert ("somaresil_call_duration_seconds_bucket", "guard=db", "le=5.0") in shown(registry)


@pytest.mark.parametrize("span", ["none", "unsampled"])
def test_without_a_sampled_span_there_is_nothing_to_name(stand, span):
    """Nobody could look it up."""
    resilience, _, registry = stand
    guard = resilience.guard("db")
    if span == "none":
        with pytest.raises(LookupError):
            guard.call(_fail)
    else:
        in_span(TracerProvider(sampler=ALWAYS_OFF).get_tracer("test"), lambda: guard.call(_fail))
    assert shown(registry) == {}


def test_plain_text_has_none(stand, tracer):
    """Only OpenMetrics has a place for them."""
    resilience, _, registry = stand
    guard = resilience.guard("db")
    trace, _ = in_span(tracer, lambda: guard.call(_fail))
    assert trace in generate_openmetrics(registry).decode()
    assert trace not in generate_latest(registry).decode()


def test_nothing_is_kept_unless_it_is_asked_for(tracer):
    """And when it is no more the cells are as they were, for guards that came before and after."""
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    before = resilience.guard("before")
    plain = before.recorder.cells[:]
    in_span(tracer, lambda: before.call(_fail))
    end, again = (install(resilience, CollectorRegistry(), exemplars=True) for _ in range(2))
    after = resilience.guard("after")
    assert before.recorder.cells != plain
    in_span(tracer, lambda: before.call(_fail))
    in_span(tracer, lambda: after.call(_fail))
    assert [len(guard.recorder.exemplars()) for guard in (before, after)] == [1, 1]
    end()
    end()
    assert len(before.recorder.exemplars()) == 1
    again()
    assert before.recorder.cells == plain
    in_span(tracer, lambda: before.call(_fail))
    assert before.recorder.exemplars() == after.recorder.exemplars() == {}


def test_a_fast_good_call_goes_by_the_same_counters(stand):
    """The quiet path is the same to the last object."""
    resilience, _, _ = stand
    recorder = resilience.guard("db", slo="fast").recorder
    fast = recorder.bounds.index(2.0) + 1
    assert recorder.cells[:fast] == list(recorder._counters[:fast])


def test_who_cannot_tell_the_trace_disturbs_nobody():
    """Its defect is reported once; the call fails with its own error."""
    resilience = Resilience("service", clock=ManualClock(), seed=1)
    defects = []
    resilience.on(defects.append, DefectFound)

    def broken():
        raise ZeroDivisionError

    end = resilience.follow_traces(broken)
    guard = resilience.guard("db")
    for _ in range(3):
        with pytest.raises(LookupError):
            guard.call(_fail)
    assert [defect.error for defect in defects] == ["ZeroDivisionError"]
    end()
    resilience.follow_traces(lambda: ("x" * 100, "y" * 14))
    with pytest.raises(LookupError):
        guard.call(_fail)
    assert guard.recorder.exemplars() == {}


def test_requests_name_their_traces(stand, tracer):
    """Bad ones, and slow ones that went well, by route and status; quick ones do not."""
    resilience, clock, registry = stand

    async def app(scope, _receive, send):
        clock.advance(float(scope["path"].rpartition("/")[2]))
        status = 503 if "bad" in scope["path"] else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    middleware = ResilienceMiddleware(app, resilience, slo="fast")

    async def send(_):
        return

    def request(path):
        class Route:
            def __init__(self):
                self.path = path

        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "route": Route()}
        return in_span(tracer, lambda: asyncio.run(middleware(scope, None, send)))

    request("/good/0.5")
    bad, slow = request("/bad/0.1"), request("/good/3")
    found = {value[:2]: key[-1] for key, value in shown(registry).items() if key[0].startswith("http_server_request")}
    assert found == {bad: "le=0.1", slow: "le=5.0"}
    views = {key.route: view for key, view in resilience.routes.views().items()}
    assert sum(views["/good/3"].durations) == 1
    assert views["/good/3"].seconds == pytest.approx(3.0)


def test_a_route_that_is_remembered_keeps_exemplars_too_and_is_quick_again_afterwards(tracer):
    """Whether they were wanted before its first request or later; and it counts every request once."""
    clock = ManualClock()
    resilience = Resilience("service", clock=clock, seed=1)
    resilience.slos.add(LATENCY)

    class Route:
        path = "/x"

    route, took = Route(), [0.0]

    async def app(_scope, _receive, send):
        clock.advance(took[0])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    middleware = ResilienceMiddleware(app, resilience, slo="fast")

    async def send(_):
        return

    def request(seconds):
        took[0] = seconds
        scope = {"type": "http", "method": "GET", "path": "/x", "root_path": "", "headers": [], "route": route}
        return in_span(tracer, lambda: asyncio.run(middleware(scope, None, send)))

    def kept():
        (found,) = resilience.routes.exemplars().values()
        return [(each.trace_id, each.span_id, each.value) for each in found]

    for _ in range(3):
        request(3.0)
    end = install(resilience, CollectorRegistry(), exemplars=True)
    for _ in range(3):
        request(0.1)
    assert kept() == []
    last = [request(3.0) for _ in range(3)][-1]
    assert kept() == [(*last, pytest.approx(3.0))]
    end()
    assert kept() == []
    for _ in range(3):
        request(3.0)
    assert kept() == []
    ((_, _, gate, cell),) = middleware.plain.values()
    assert gate is cell.recorder.switch
    (view,) = resilience.routes.views().values()
    assert (sum(view.durations), view.seconds) == (12, pytest.approx(27.3))


def test_exemplars_are_no_more_than_cells(stand, tracer):
    """However many calls: outcomes by buckets, and those of a guard that has moved into _other stay behind."""
    resilience, clock, _ = stand
    for number in range(30):
        guard = resilience.guard(f"g{number}", slo="fast")
        for seconds in (0.0, 0.01, 0.3, 3.0, 30.0):
            for _ in range(3):
                in_span(tracer, lambda seconds=seconds, guard=guard: guard.call(clock.advance, seconds))
                in_span(tracer, lambda guard=guard: guard.call(_fail))
        assert len(guard.recorder.exemplars()) <= 2 * (len(guard.recorder.bounds) + 1)
    capped = CollectorRegistry()
    end = install(resilience, capped, limit=20)
    named = {key[1] for key in shown(capped)}
    end()
    assert "guard=g0" in named
    assert "guard=_other" not in named
    assert "guard=g29" not in named


def test_a_wrong_option_is_refused():
    """Before anything is installed."""
    with pytest.raises(ConfigurationError, match="exemplars"):
        install(Resilience("service"), CollectorRegistry(), exemplars="yes")
