"""A record says where it was written: trace, request, guarded call, experiment. What is not known is not said."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.handlers
import queue
import sys
import threading

import pytest

from somaresil import CircuitBreaker, ConfigurationError, InjectedFault, Resilience, Retry, events
from somaresil.asgi import ResilienceMiddleware
from somaresil.integrations._logfields import NOTHING
from somaresil.integrations.logging import ResilienceFilter, log_events


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def seen(self, *names):
        return [tuple(getattr(record, name) for name in names) for record in self.records]


@pytest.fixture
def resilience():
    return Resilience("service", environment="test", seed=1)


@pytest.fixture
def kept(resilience):
    handler = Kept()
    handler.addFilter(ResilienceFilter(resilience))
    return handler


@pytest.fixture
def log(kept):
    logger = logging.getLogger("test_log_fields")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(kept)
    logger.propagate = False
    yield logger
    logger.removeHandler(kept)


def request(path="/items/7", **more):
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "headers": [(b"x-request-id", b"r-17"), (b"cookie", b"secret")],
        **more,
    }


class Route:
    path = "/items/{id}"


def app_that(does):
    async def app(scope, receive, send):
        scope["route"] = Route()
        await does()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def ask(app, scope=None):
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    await app(scope or request(), receive, send)


def test_a_line_outside_of_everything_has_empty_fields(log, kept):
    """Formats that name them find them; texts and numbers, for exporters take nothing else."""
    log.info("hello")
    (record,) = kept.records
    assert {name: getattr(record, name) for name in NOTHING} == NOTHING


def test_a_line_in_a_guarded_call_names_guard_and_attempt(resilience, log, kept):
    """Also in the second attempt."""

    @resilience.guard("db", retry=Retry(attempts=2, wait=0.0))
    def query():
        log.info("asking")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        query()
    assert kept.seen("somaresil_guard", "somaresil_attempt") == [("db", 1), ("db", 2)]


def test_what_a_record_has_already_stays(log, kept):
    """Whoever gives a trace id of his own knows it better, and a second filter changes nothing."""
    log.info("hello", extra={"trace_id": "mine", "request_id": None})
    assert kept.seen("trace_id", "request_id", "span_id") == [("mine", None, "")]
    again = ResilienceFilter(Resilience("other"))
    before = dict(vars(kept.records[0]))
    assert again.filter(kept.records[0])
    assert vars(kept.records[0]) == before


def test_the_current_span_is_named_whether_it_is_sampled_or_not(log, kept):
    """Lines of a request belong together even when nobody keeps its spans."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    for provider in (TracerProvider(), TracerProvider(sampler=ALWAYS_OFF)):
        with provider.get_tracer("test").start_as_current_span("request") as span:
            log.info("hello")
        context = span.get_span_context()
        assert kept.seen("trace_id", "span_id")[-1] == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    log.info("outside")
    assert kept.seen("trace_id", "span_id")[-1] == ("", "")


def test_opentelemetry_is_not_imported_for_it(log, kept, monkeypatch):
    """Where nobody else has imported it, nobody has begun a span."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    log.info("hello")
    assert kept.seen("trace_id") == [("",)]
    assert "opentelemetry.trace" not in sys.modules


@pytest.mark.asyncio
async def test_a_line_in_a_request_names_its_route_and_id(resilience, log, kept):
    """In the tasks and threads that it starts, too; nothing is left afterwards."""

    async def does():
        log.info("here")
        await asyncio.create_task(asyncio.to_thread(log.info, "there"))

    await ask(ResilienceMiddleware(app_that(does), resilience))
    log.info("after")
    fields = kept.seen("http_request_method", "http_route", "request_id")
    assert fields == [("GET", "/items/{id}", "r-17")] * 2 + [("", "", "")]


@pytest.mark.asyncio
async def test_a_task_that_outlives_its_request_still_names_it_and_keeps_nothing_else(resilience, log, kept):
    """The names stay, the scope goes."""
    go = asyncio.Event()
    tasks = []

    class State:
        pass

    async def later():
        await go.wait()
        log.info("late")

    async def does():
        tasks.append(asyncio.create_task(later()))

    state = State()
    await ask(ResilienceMiddleware(app_that(does), resilience), request(state={"db": state}))
    gc.collect()
    assert sys.getrefcount(state) == 2
    go.set()
    await tasks[0]
    assert kept.seen("http_route", "request_id") == [("/items/{id}", "r-17")]


@pytest.mark.asyncio
async def test_a_request_id_is_bounded_and_harmless(resilience, log, kept):
    """Whoever sends a request chooses it."""

    async def does():
        log.info("here")

    app = ResilienceMiddleware(app_that(does), resilience)
    await ask(app, request(headers=[(b"x-request-id", b"a\r\n\x1b[2J" + b"x" * 500)]))
    ((found,),) = kept.seen("request_id")
    assert found.startswith("a\\r\\n\\x1b[2J")
    assert found.isprintable()
    assert len(found) <= 128


@pytest.mark.asyncio
async def test_conversations_and_unmatched_requests_are_told_as_far_as_they_are_known(resilience, log, kept):
    """A route that is not known is no route."""

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            log.info("here")

    wrapped = ResilienceMiddleware(app, resilience)
    await ask(wrapped, request(type="websocket"))
    await ask(wrapped, request())
    await ask(wrapped, {"type": "lifespan"})
    assert kept.seen("http_request_method", "http_route") == [("WEBSOCKET", ""), ("GET", "")]


@pytest.mark.asyncio
async def test_requests_are_followed_as_long_as_somebody_asks(resilience):
    """The app of the middleware is what was given as soon as the last filter is gone: then a request pays nothing."""

    async def app(scope, receive, send):
        pass

    early = ResilienceMiddleware(app, resilience)
    assert early.app is app
    one, other = ResilienceFilter(resilience), ResilienceFilter(resilience)
    late = ResilienceMiddleware(app, resilience)
    assert early.app is not app
    assert late.app is not app
    del one
    gc.collect()
    assert early.app is not app
    del other
    gc.collect()
    assert (early.app, late.app) == (app, app)


def test_leaving_twice_is_leaving_once(resilience):
    """Whoever still asks is not cut off by another one's second farewell."""
    middleware = ResilienceMiddleware(lambda *_: None, resilience)
    leave, stay = resilience.follow_logs(), resilience.follow_logs()
    leave()
    leave()
    assert hasattr(middleware.app, "app")
    stay()
    assert not hasattr(middleware.app, "app")


@pytest.mark.asyncio
async def test_the_experiment_that_struck_is_named(resilience, log, kept, monkeypatch):
    """By the call that it strikes, by the request, and by the error that it has raised."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience.chaos.opt_in()
    guard = resilience.guard("db")

    async def does():
        log.info("in the request")

    app = ResilienceMiddleware(app_that(does), resilience)
    latency = await resilience.chaos.inject_latency("http:*", delay_ms=1, rate=1.0)
    await ask(app)
    resilience.chaos.stop_all()
    await ask(app)
    error = await resilience.chaos.inject_errors("db", rate=1.0)
    try:
        guard.call(str)
    except InjectedFault:
        log.exception("lost")
        try:
            raise LookupError
        except LookupError:
            log.exception("lost because of it")
    assert kept.seen("somaresil_experiment") == [(latency.id,), ("",), (error.id,), (error.id,)]


@pytest.mark.asyncio
async def test_calls_are_followed_into_tasks_and_threads_on_demand(resilience, log, kept, monkeypatch):
    """For that every call leaves the quiet path, until the filter is gone; guards that are made later are followed too."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience.chaos.opt_in()
    early = resilience.guard("early", retry=Retry(attempts=2, wait=0.0))
    following = Kept()
    following.addFilter(ResilienceFilter(resilience, calls=True))
    log.removeHandler(kept)
    log.addHandler(following)
    late = resilience.guard("late")
    stays = asyncio.Event()
    tasks = []

    async def outlives():
        await stays.wait()
        log.info("after the call")

    async def work():
        await asyncio.gather(asyncio.to_thread(log.info, "in a thread"), late.acall(inner))
        tasks.append(asyncio.create_task(outlives()))
        raise ConnectionError

    async def inner():
        await asyncio.create_task(asyncio.to_thread(log.info, "in a thread of a task"))

    with pytest.raises(ConnectionError):
        await early.acall(work)
    stays.set()
    await asyncio.gather(*tasks)
    seen = following.seen("somaresil_guard", "somaresil_attempt")
    assert sorted(seen[:4]) == [("early", 1), ("early", 2), ("late", 1), ("late", 1)]
    assert seen[4:] == [("", 0)] * 2
    run = await resilience.chaos.inject_latency("late", delay_ms=1, rate=1.0)
    await late.acall(inner)
    assert following.seen("somaresil_guard", "somaresil_experiment")[-1] == ("late", run.id)
    resilience.chaos.stop_all()
    assert not early.switch.quiet
    log.removeHandler(following)
    del following
    gc.collect()
    assert early.switch.quiet
    assert late.switch.quiet


def test_a_record_of_another_thread_is_told_nothing(resilience, log, kept):
    """Behind a queue nobody knows where a line was written; in front of it the fields are set and stay."""
    waiting = queue.SimpleQueue()
    behind = Kept()
    behind.addFilter(ResilienceFilter(resilience))
    log.removeHandler(kept)
    bare = logging.handlers.QueueHandler(waiting)
    filled = logging.handlers.QueueHandler(waiting)
    filled.addFilter(ResilienceFilter(resilience))
    listener = logging.handlers.QueueListener(waiting, behind)
    listener.start()
    for handler in (bare, filled):
        log.addHandler(handler)
        resilience.guard("db").call(log.info, "hello")
        log.removeHandler(handler)
    listener.stop()
    assert behind.seen("somaresil_guard") == [("",), ("db",)]


def test_a_defect_changes_no_line(resilience, log, kept, monkeypatch, caplog):
    """It is reported once, and the line has empty fields."""
    defects = []
    resilience.on(defects.append, events.DefectFound)

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("somaresil.integrations.logging.fields", broken)
    for _ in range(3):
        log.info("hello")
    assert kept.seen("somaresil_guard", "request_id") == [("", "")] * 3
    assert [event.where for event in defects] == ["fields of log lines"]


def test_every_problem_is_told_at_once(resilience):
    """As everywhere."""
    with pytest.raises(ConfigurationError) as wrong:
        ResilienceFilter(resilience, request_id="x\r\ny", calls=1)
    assert [problem.path for problem in wrong.value.problems] == ["ResilienceFilter.request_id", "ResilienceFilter.calls"]


def test_events_carry_the_trace_that_they_happen_in(resilience, log, kept):
    """The event of a breaker that opens in a call is told within that call."""
    from opentelemetry.sdk.trace import TracerProvider

    resilience.on(log_events(log))
    guard = resilience.guard("db", breaker=CircuitBreaker(consecutive_failures=1))

    def lose():
        raise ConnectionError

    with TracerProvider().get_tracer("test").start_as_current_span("request") as span, pytest.raises(ConnectionError):
        guard.call(lose)
    trace = f"{span.get_span_context().trace_id:032x}"
    assert {record.somaresil_event for record in kept.records} >= {"BreakerChanged", "CallEnded"}
    assert {record.trace_id for record in kept.records} == {trace}


def test_lines_of_threads_do_not_mix(resilience, log, kept):
    """Each thread has frames of its own."""
    barrier = threading.Barrier(4)

    def work(name):
        barrier.wait()
        log.info(name)

    threads = [threading.Thread(target=resilience.guard(f"g{n}").call, args=(work, f"g{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(record.getMessage() == record.somaresil_guard for record in kept.records)
    assert len(kept.records) == 4


def test_threads_that_come_and_go_leave_every_guard_quiet(resilience):
    """Whoever was the last to ask has taken his hands off all of them."""
    guards = [resilience.guard(f"g{number}") for number in range(20)]
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        for _ in range(25):
            leave = resilience.follow_logs(calls=True)
            leave()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert all(guard.switch.quiet for guard in guards)
    with_calls = resilience.follow_logs(calls=True)
    assert not any(guard.switch.quiet for guard in guards)
    with_calls()
    assert all(guard.switch.quiet for guard in guards)
