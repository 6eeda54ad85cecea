"""Spans of guarded calls and of requests: what they are called, what they say, and that they change nothing. Against the real SDK."""

from __future__ import annotations

import asyncio
import inspect

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, InjectedFault, ManualClock, Resilience, Retry
from somaresil.asgi import ResilienceMiddleware
from somaresil.integrations.opentelemetry import ServerSpans, call_span, span_events

SECRET = "card 4111 1111"


class OwnError(Exception):
    pass


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def resilience():
    resilience = Resilience("service", clock=ManualClock(), environment="test", seed=1)
    resilience.on(span_events())
    return resilience


@pytest.fixture
def traced(provider):
    return lambda guard, **options: call_span(guard, tracer_provider=provider, **options)


def only(exporter):
    (span,) = exporter.get_finished_spans()
    return span


# -- calls ------------------------------------------------------------------------------------------------------------------------------


def test_a_call_has_a_span_over_all_its_attempts(exporter, traced, resilience):
    """It is called as the guard, is one of a client, and has what happened as events."""
    attempts = []

    @traced("db")
    @resilience.guard("db", retry=Retry(attempts=3, wait=0.5))
    def read(key):
        """Read it."""
        attempts.append(get_current_span())
        if len(attempts) < 3:
            raise ConnectionError(SECRET)
        return key

    assert read("k") == "k"
    assert read.__doc__ == "Read it."
    span = only(exporter)
    assert span.name == "db"
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes) == {"somaresil.guard": "db"}
    assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in span.events].count("somaresil.attempt_failed") == 2
    assert {attempt.get_span_context().span_id for attempt in attempts} == {span.context.span_id}


def test_an_error_that_reaches_the_caller_is_on_the_span(exporter, traced, resilience):
    """Its type and the outcome, never its message; the caller gets the error itself."""

    @traced("db")
    @resilience.guard("db")
    def read():
        raise OwnError(SECRET)

    with pytest.raises(OwnError, match=SECRET):
        read()
    span = only(exporter)
    assert span.attributes["error.type"] == f"{__name__}.OwnError"
    assert span.attributes["somaresil.outcome"] == "bad"
    assert span.status.status_code is StatusCode.ERROR
    assert SECRET not in span.to_json()


def test_a_rejected_call_says_so(exporter, traced, resilience):
    """It was not made; for its caller it is an error."""
    read = traced("db")(resilience.guard("db", breaker=CircuitBreaker())(lambda: 1))
    resilience.breaker("db").trip()
    with pytest.raises(CircuitOpen):
        read()
    span = only(exporter)
    assert span.attributes["somaresil.outcome"] == "rejected"
    assert span.attributes["error.type"] == "somaresil.errors.CircuitOpen"


def test_what_a_fallback_has_answered_is_no_error(exporter, traced, resilience):
    """The caller has an answer; that it is not the dependency's is an event."""

    def fail():
        raise ValueError

    read = traced("db")(resilience.guard("db", fallback=lambda: "cached")(fail))
    assert read() == "cached"
    span = only(exporter)
    assert [event.name for event in span.events] == ["somaresil.fallback_used"]
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {"somaresil.guard": "db"}


def test_an_injected_fault_is_on_the_span_that_it_struck(exporter, provider, traced, resilience, monkeypatch):
    """With the id of the experiment: on the call's span, or on the one that is there."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience.chaos.opt_in()
    guard = resilience.guard("db")
    read = traced("db")(guard(lambda: 1))

    async def main():
        run = await resilience.chaos.inject_errors("db", rate=1.0, duration_seconds=60.0)
        with pytest.raises(InjectedFault):
            read()
        with provider.get_tracer("tests").start_as_current_span("request"), pytest.raises(InjectedFault):
            guard.call(int)
        return run.id

    experiment = asyncio.run(main())
    resilience.chaos.stop_all()
    call, request = exporter.get_finished_spans()
    for span in (call, request):
        assert span.attributes["somaresil.injected"] is True
        assert span.attributes["somaresil.experiment"] == experiment
        assert "somaresil.fault_injected" in [event.name for event in span.events]
    assert call.attributes["somaresil.outcome"] == "bad"
    # The request may have been answered well all the same.
    assert "somaresil.outcome" not in request.attributes


def test_a_coroutine_is_traced_in_its_own_task(exporter, traced, resilience):
    """Two at once have two spans, siblings; nothing is left current."""

    @traced("db")
    @resilience.guard("db")
    async def read():
        mine = get_current_span()
        await asyncio.sleep(0)
        assert get_current_span() is mine
        return mine.get_span_context().span_id

    assert inspect.iscoroutinefunction(read)

    async def main():
        found = await asyncio.gather(read(), read())
        assert not get_current_span().get_span_context().is_valid
        return found

    ids = asyncio.run(main())
    assert {span.context.span_id for span in exporter.get_finished_spans()} == set(ids)
    assert len(set(ids)) == 2
    assert all(span.parent is None for span in exporter.get_finished_spans())


def test_a_cancelled_call_was_abandoned(exporter, traced, resilience):
    """Nobody has failed."""

    @traced("db")
    @resilience.guard("db")
    async def read():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    span = only(exporter)
    assert span.attributes["somaresil.outcome"] == "abandoned"
    assert span.status.status_code is StatusCode.UNSET


def test_a_stream_has_one_span_and_leaves_its_reader_alone(exporter, provider, traced, resilience):
    """From the first item to the last; between two items the reader has his own span."""

    @traced("llm")
    @resilience.guard("llm")
    async def tokens():
        for token in "abc":
            assert get_current_span().name == "llm"
            yield token

    async def main():
        with provider.get_tracer("tests").start_as_current_span("reader") as reader:
            async for _ in tokens():
                assert get_current_span() is reader

    asyncio.run(main())
    assert inspect.isasyncgenfunction(tokens)
    assert [span.name for span in exporter.get_finished_spans()] == ["llm", "reader"]


def test_a_stream_that_breaks_off_is_an_error_and_one_that_is_left_is_not(exporter, traced, resilience):
    """By how it ended; the source is closed in any case."""
    closed = []

    @traced("llm")
    @resilience.guard("llm")
    async def tokens():
        try:
            yield 1
            raise ConnectionError(SECRET)
        finally:
            closed.append(1)

    async def main():
        with pytest.raises(ConnectionError):
            async for _ in tokens():
                pass
        stream = tokens()
        await anext(stream)
        await stream.aclose()

    asyncio.run(main())
    broken, left = exporter.get_finished_spans()
    assert broken.attributes["error.type"] == "ConnectionError"
    assert left.attributes["somaresil.outcome"] == "abandoned"
    assert left.status.status_code is StatusCode.UNSET
    assert closed == [1, 1]


def test_a_generator_is_one_to_its_reader(exporter, traced):
    """``send``, ``throw`` and the value that it returns reach whom they are for."""

    @traced("rows")
    def rows():
        said = yield 1
        try:
            yield said
        except KeyError:
            yield "caught"
        return "end"

    stream = rows()
    assert next(stream) == 1
    assert stream.send("two") == "two"
    assert stream.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as ended:
        next(stream)
    assert ended.value.value == "end"
    assert only(exporter).status.status_code is StatusCode.UNSET


def test_an_async_generator_is_one_to_its_reader(traced):
    """``asend`` and ``athrow`` as well."""

    @traced("rows")
    async def rows():
        said = yield 1
        try:
            yield said
        except KeyError:
            yield "caught"

    async def main():
        stream = rows()
        assert await anext(stream) == 1
        assert await stream.asend("two") == "two"
        assert await stream.athrow(KeyError()) == "caught"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())


def test_a_block_has_a_span(exporter, traced, resilience):
    """``with`` and ``async with``; one object is for one block at a time."""
    with traced("db") as span:
        assert get_current_span() is span
        resilience.guard("db").call(int)

    async def main():
        async with traced("db", kind="internal"):
            pass

    asyncio.run(main())
    assert [span.kind for span in exporter.get_finished_spans()] == [SpanKind.CLIENT, SpanKind.INTERNAL]
    block = traced("db")
    with block, pytest.raises(RuntimeError, match="for each block"), block:
        pass


def test_methods_are_traced_too(exporter, traced):
    """Plain, static and of the class."""

    class Store:
        @traced("a")
        def own(self):
            return self

        @traced("b")
        @staticmethod
        def static():
            return 2

        @classmethod
        @traced("c")
        def of_class(cls):
            return cls

    store = Store()
    assert store.own() is store
    assert (Store.static(), Store.of_class()) == (2, Store)
    assert [span.name for span in exporter.get_finished_spans()] == ["a", "b", "c"]


def test_without_an_sdk_nothing_happens(resilience):
    """The global provider of the API makes spans that do nothing."""

    @call_span("db")
    @resilience.guard("db")
    def read():
        return get_current_span().is_recording()

    assert read() is False


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"guard": ""}, "guard"), ({"guard": "db", "kind": "server"}, "kind"), ({"guard": "db", "tracer_provider": 5}, "tracer_provider")],
)
def test_wrong_arguments_are_refused(arguments, problem):
    """By name; and so is what is no function."""
    with pytest.raises(ConfigurationError, match=problem):
        call_span(**arguments)
    with pytest.raises(ConfigurationError, match="already called"):
        call_span("db")(iter(()) if False else (n for n in ()))


# -- requests ---------------------------------------------------------------------------------------------------------------------------


class Spans:
    """Stands for an instrumentor: a span around each request, which ends with the last of the response."""

    def __init__(self, app, provider, attributes=None):
        self.app = app
        self.tracer = provider.get_tracer("server")
        self.attributes = attributes

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        with self.tracer.start_as_current_span(
            f"{scope.get('method', 'WS')} {scope['path']}", attributes=self.attributes, end_on_exit=False
        ) as span:

            async def ending(message):
                await send(message)
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    span.end()

            try:
                await self.app(scope, receive, ending)
            finally:
                if span.is_recording():
                    span.end()


def service():
    api = FastAPI()

    @api.get("/items/{item}")
    async def item(item: str):
        if item == "bad":
            raise OwnError(SECRET)
        return {"item": item}

    @api.get("/stream")
    async def stream():
        async def tokens():
            yield b"a"
            yield b"b"

        return StreamingResponse(tokens())

    return api


def ask(app, *paths):
    async def main():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(main())


def test_the_span_of_a_request_has_its_route(exporter, provider, resilience):
    """As a template, in the attribute and in the name; also when the span ends with the response, and through our middleware."""
    app = Spans(ServerSpans(ResilienceMiddleware(service(), resilience)), provider)
    ask(app, "/items/4711", "/stream", "/nowhere/4711")
    item, stream, nowhere = exporter.get_finished_spans()
    assert (item.name, item.attributes["http.route"]) == ("GET /items/{item}", "/items/{item}")
    assert (stream.name, stream.attributes["http.route"]) == ("GET /stream", "/stream")
    # There is no route: the conventions want none then.
    assert "http.route" not in nowhere.attributes
    assert nowhere.name == "GET /nowhere/4711"
    assert {span.status.status_code for span in (item, stream, nowhere)} == {StatusCode.UNSET}


def test_the_span_of_a_request_that_failed_has_the_error(exporter, provider):
    """What the app raised, or the status; never a message."""
    ask(Spans(ServerSpans(service()), provider), "/items/bad")

    async def unavailable(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    ask(Spans(ServerSpans(unavailable), provider), "/x")
    raised, status = exporter.get_finished_spans()
    assert raised.attributes["error.type"] == "500"
    assert raised.attributes["http.route"] == "/items/{item}"
    assert raised.status.status_code is StatusCode.ERROR
    assert status.attributes["error.type"] == "503"
    assert SECRET not in {str(value) for value in raised.attributes.values()}


def test_what_the_app_raises_without_an_answer_is_on_the_span(exporter, provider):
    """By its type."""

    async def broken(scope, receive, send):
        raise OwnError(SECRET)

    ask(Spans(ServerSpans(broken), provider), "/x")
    span = only(exporter)
    assert span.attributes["error.type"] == f"{__name__}.OwnError"
    assert span.status.status_code is StatusCode.ERROR


def test_what_others_have_said_stays(exporter, provider):
    """An instrumentor of the framework knows the route too."""
    ask(Spans(ServerSpans(service()), provider, {"http.route": "/theirs"}), "/items/1")
    span = only(exporter)
    assert span.attributes["http.route"] == "/theirs"
    assert span.name == "GET /items/1"


def test_requests_without_a_recording_span_are_passed_through():
    """With nothing around ``send``."""
    seen = []

    async def app(scope, receive, send):
        seen.append(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        async def receive():
            return {"type": "http.request"}

        async def send(message):
            pass

        await ServerSpans(app)({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
        assert seen == [send]

    asyncio.run(main())


def test_a_scope_that_cannot_be_read_costs_nobody_an_answer(exporter, provider, caplog):
    """It is reported once."""

    class Route:
        @property
        def path(self):
            raise RuntimeError

    async def app(scope, receive, send):
        scope["route"] = Route()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    answers = ask(Spans(ServerSpans(app), provider), "/", "/")
    assert [answer.text for answer in answers] == ["ok", "ok"]
    assert len([record for record in caplog.records if "ServerSpans" in record.message]) == 1


def test_a_request_plan_does_not_go_on_in_the_baggage_of_opentelemetry():
    """What an outer middleware has taken out of the header goes to nobody who is asked for something meanwhile; other baggage does."""
    sent = []

    async def app(scope, receive, send):
        carrier = {}
        W3CBaggagePropagator().inject(carrier)
        sent.append(carrier.get("baggage"))

    async def main():
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        came = W3CBaggagePropagator().extract({"baggage": "somaresil.chaos=kid.body.mac,tenant=acme"})
        token = context.attach(came)
        try:
            await app(scope, None, None)
            await ServerSpans(app)(scope, None, None)
            assert baggage.get_baggage("somaresil.chaos") == "kid.body.mac", "outside it is as it was"
        finally:
            context.detach(token)

    asyncio.run(main())
    assert sent == ["somaresil.chaos=kid.body.mac,tenant=acme", "tenant=acme"]


@pytest.mark.skipif("telemetry" not in inspect.signature(FastAPI).parameters, reason="this FastAPI makes no spans by itself")
def test_a_framework_that_makes_spans_itself_has_ours_inside(exporter, provider, resilience, monkeypatch):
    """What an experiment does to a request is on the span that FastAPI has made, when our middleware is one of its own."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience.chaos.opt_in()
    api = FastAPI(telemetry={"tracer_provider": provider, "operation_spans": False})

    @api.get("/items/{item}")
    async def item(item: str):
        return {"item": item}

    api.add_middleware(ResilienceMiddleware, resilience=resilience)
    # The framework mounts it with the first request.
    assert ask(api, "/items/1")[0].status_code == 200
    run = asyncio.run(resilience.chaos.inject_errors("http:/items/*", duration_seconds=60.0))
    assert ask(api, "/items/1")[0].status_code == 503
    resilience.chaos.stop_all()
    _, span = exporter.get_finished_spans()
    assert span.attributes["somaresil.experiment"] == run.id
    assert span.attributes["somaresil.injected"] is True


def test_what_is_not_its_own_is_the_apps():
    """Frameworks look for their state on what they were given."""
    assert ServerSpans(service()).title == "FastAPI"
