"""Request plans on the way out: no host is told of one that may not have it, whoever puts baggage into requests; others' baggage stays."""

from __future__ import annotations

import asyncio
from concurrent import futures

import aiohttp
import grpc
import httpx
import pytest
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from somaresil import ChaosConfig, ChaosExperiment, Resilience
from somaresil.chaos import ChaosKeys
from somaresil.chaos.baggage import KEY
from somaresil.clock import ManualClock
from somaresil.integrations.aiohttp import guard_middleware
from somaresil.integrations.grpc import aio_interceptors, guard_channel
from somaresil.integrations.httpx import AsyncGuardedTransport, GuardedTransport
from tests.unit.integrations.peers import Peer

PROPAGATOR = W3CBaggagePropagator()
HOST = "127.0.0.1"


class Instrumented(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport as OpenTelemetry's instrumentation makes one: it puts its baggage in where our hook has long been passed."""

    def __init__(self, *, injects):
        self.injects = injects
        self.sent = []

    def handle_request(self, request):
        if self.injects:
            PROPAGATOR.inject(request.headers)
        self.sent.append(request.headers.get("baggage"))
        return httpx.Response(200)

    async def handle_async_request(self, request):
        await asyncio.sleep(0)
        return self.handle_request(request)


class Desk:
    """A process that accepts plans, and clients of every kind."""

    def __init__(self):
        self.resilience = Resilience("tests", clock=ManualClock(), seed=7, environment="test")
        self.chaos = self.resilience.chaos
        self.chaos.opt_in()
        self.chaos.approve("rule", ChaosConfig(ChaosExperiment.ERROR_INJECTION, "nobody", 1.0), await_guards=True)
        self.chaos.accept_plans(ChaosKeys({"k1": bytes(range(32))}))
        self.token = self.chaos.sign_plan(["rule"])

    def ask(self, client, headers, *, injects, named):
        """One request, in OpenTelemetry's context; the baggage that arrives."""
        options = {} if named else {"name": lambda _: None}
        return getattr(self, client)(headers, injects, options)

    def httpx_sync(self, headers, injects, options):
        inner = Instrumented(injects=injects)
        with httpx.Client(transport=GuardedTransport(self.resilience, inner, **options)) as client:
            request = client.build_request("GET", f"http://{HOST}/", headers=headers)
            client.send(request)
        assert injects or request.headers.get("baggage") == headers.get("baggage"), "what the caller holds is as it was"
        return inner.sent[0]

    def httpx_async(self, headers, injects, options):
        inner = Instrumented(injects=injects)

        async def use():
            async with httpx.AsyncClient(transport=AsyncGuardedTransport(self.resilience, inner, **options)) as client:
                await client.get(f"http://{HOST}/", headers=headers)

        asyncio.run(use())
        return inner.sent[0]

    def aiohttp(self, headers, injects, options):
        async def instrumentation(request, handler):
            if injects:
                PROPAGATOR.inject(request.headers)
            return await handler(request)

        async def use(url):
            ours = guard_middleware(self.resilience, **options)
            async with (
                aiohttp.ClientSession(middlewares=(ours, instrumentation)) as session,
                session.get(url, headers=headers) as response,
            ):
                await response.read()

        with Peer() as peer:
            asyncio.run(use(peer.url))
            return next((value for name, value in peer.asked[0].headers.items() if name.lower() == "baggage"), None)

    def grpc_sync(self, headers, injects, options):
        class Instrumentation(grpc.UnaryUnaryClientInterceptor):
            def intercept_unary_unary(self, continuation, details, request):
                carrier = dict(details.metadata or ())
                if injects:
                    PROPAGATOR.inject(carrier)
                return continuation(details._replace(metadata=list(carrier.items())), request)

        with Echo() as echo, grpc.insecure_channel(echo.target) as plain:
            channel = guard_channel(grpc.intercept_channel(plain, Instrumentation()), self.resilience, host=HOST, **options)
            channel.unary_unary("/test.Echo/Unary")(b"x", metadata=list(headers.items()) or None)
        return echo.baggage[0]

    def grpc_aio(self, headers, injects, options):
        class Instrumentation(grpc.aio.UnaryUnaryClientInterceptor):
            async def intercept_unary_unary(self, continuation, details, request):
                carrier = dict(details.metadata or ())
                if injects:
                    PROPAGATOR.inject(carrier)
                return await continuation(details._replace(metadata=grpc.aio.Metadata(*carrier.items())), request)

        async def use(target):
            interceptors = [*aio_interceptors(self.resilience, host=HOST, **options), Instrumentation()]
            async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
                await channel.unary_unary("/test.Echo/Unary")(b"x", metadata=tuple(headers.items()) or None)

        with Echo() as echo:
            asyncio.run(use(echo.target))
        return echo.baggage[0]


class Echo:
    """A gRPC service that remembers the baggage of what it was asked."""

    def __enter__(self):
        self.baggage = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        handlers = {"Unary": grpc.unary_unary_rpc_method_handler(self._unary)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        self.target = f"{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait(20.0)

    def _unary(self, request, context):
        self.baggage.append(dict(context.invocation_metadata()).get("baggage"))
        return request


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.fixture
def desk():
    """A process that accepts plans."""
    return Desk()


@pytest.fixture
def otel(desk):
    """OpenTelemetry has taken the plan, and a member of somebody else, out of the request that came in."""
    token = context.attach(baggage.set_baggage(KEY, desk.token, baggage.set_baggage("theirs", "1")))
    yield
    context.detach(token)


CLIENTS = pytest.mark.parametrize("client", ["httpx_sync", "httpx_async", "aiohttp", "grpc_sync", "grpc_aio"])
NAMED = pytest.mark.parametrize("named", [True, False], ids=["guarded", "unguarded"])


@CLIENTS
@NAMED
def test_a_plan_in_a_header_is_taken_out(desk, client, named):
    """Nobody is told, and what else stands there goes as it is."""
    header = {"baggage": f"a=1;p,{KEY}={desk.token}, b=2"}
    assert desk.ask(client, header, injects=False, named=named) == "a=1;p, b=2"
    assert desk.ask(client, {"baggage": f"{KEY}={desk.token}"}, injects=False, named=named) is None
    assert desk.ask(client, {"baggage": "a=1 ,b=2"}, injects=False, named=named) == "a=1 ,b=2"
    assert desk.ask(client, {}, injects=False, named=named) is None


@CLIENTS
@NAMED
@pytest.mark.usefixtures("otel")
def test_opentelemetry_tells_nobody(desk, client, named):
    """Neither what it puts in before our hook, nor what it puts in behind it; its other baggage goes."""
    carrier = {}
    PROPAGATOR.inject(carrier)
    assert KEY in carrier["baggage"]
    assert desk.ask(client, carrier, injects=False, named=named) == "theirs=1"
    assert desk.ask(client, {}, injects=True, named=named) == "theirs=1"
    assert baggage.get_baggage(KEY) == desk.token, "the context is as it was"


@CLIENTS
@NAMED
def test_a_plan_in_flight_goes_to_who_may_have_it(desk, client, named):
    """Behind the baggage of others, without any propagator; and nowhere once nobody may have it."""
    desk.chaos.pass_plans_to("127.0.0.*")
    with desk.chaos.carrying(desk.token):
        assert desk.ask(client, {"baggage": "a=1"}, injects=False, named=named) == f"a=1,{KEY}={desk.token}"
        assert desk.ask(client, {}, injects=False, named=named) == f"{KEY}={desk.token}"
        desk.chaos.pass_plans_to()
        assert desk.ask(client, {"baggage": "a=1"}, injects=False, named=named) == "a=1"
    desk.chaos.pass_plans_to("127.0.0.*")
    assert desk.ask(client, {}, injects=False, named=named) is None


@CLIENTS
@pytest.mark.usefixtures("otel")
def test_opentelemetry_passes_on_what_we_do(desk, client):
    """What it puts in behind our hook is the plan that this host is to have: a single use gets a use of its own."""
    desk.chaos.pass_plans_to(HOST)
    single = desk.chaos.sign_plan(["rule"], uses=1)
    with desk.chaos.carrying(single):
        sent = desk.ask(client, {}, injects=True, named=True)
    members = dict(member.split("=") for member in sent.split(","))
    assert members.keys() == {"theirs", KEY}
    assert members[KEY] not in {single, desk.token}
    with Desk().chaos.carrying(members[KEY]) as holds:
        assert holds


@pytest.mark.parametrize("make", [lambda desk, target: guard_channel(grpc.insecure_channel(target), desk.resilience)])
def test_a_channel_that_leads_nobody_knows_where_gets_no_plan(desk, make):
    """gRPC does not tell an interceptor the target of its channel."""
    desk.chaos.pass_plans_to("127.*")
    with desk.chaos.carrying(desk.token), Echo() as echo, make(desk, echo.target) as channel:
        channel.unary_unary("/test.Echo/Unary")(b"x")
    assert echo.baggage == [None]
