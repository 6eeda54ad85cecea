"""The hooks of client libraries meet partitions: in the words of their library, and without a connection."""

from __future__ import annotations

import asyncio
import time
from concurrent import futures

import grpc
import httpx
import pytest
import sqlalchemy

from somaresil import ChaosConfig, ChaosExperiment, Outcome, Resilience
from somaresil.events import CallEnded
from somaresil.integrations._grpc import _place_of
from somaresil.integrations.grpc import aio_interceptors, guard_channel
from somaresil.integrations.httpx import guard_client
from somaresil.testing import allow_chaos

CODE = grpc.StatusCode


@pytest.fixture
def process():
    resilience = Resilience("tests", environment="test")
    with allow_chaos(resilience):
        yield resilience
        resilience.chaos.stop_all()


@pytest.fixture
def target():
    """A gRPC service that echoes, once or as a stream."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            if handler_call_details.method.endswith("Stream"):
                return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request, request]))
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(10)


def cut(process, target, mode, **options):
    config = ChaosConfig(ChaosExperiment.NETWORK_PARTITION, f"net:{target}", options.pop("rate", 1.0), 60, mode=mode, **options)
    return process.chaos.arm(config)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("db:50051", ("db", 50051)),
        ("dns:///db.internal:443", ("db.internal", 443)),
        ("dns://8.8.8.8/db:443", ("db", 443)),
        ("ipv4:10.0.0.1:443", ("10.0.0.1", 443)),
        ("ipv6:[::1]:443", ("::1", 443)),
        ("[::1]:443", ("::1", 443)),
        ("ipv4:10.0.0.1:443,10.0.0.2:443", None),
        ("unix:/run/x.sock", None),
        ("xds:///service", None),
        ("db", None),
        (None, None),
    ],
)
def test_a_channel_says_where_it_goes(target, place):
    assert _place_of(target) == place


@pytest.mark.parametrize(("mode", "code"), [("refuse", CODE.UNAVAILABLE), ("blackhole", CODE.DEADLINE_EXCEEDED)])
def test_blocking_rpcs_and_streams_end_as_grpc_ends_them(process, target, mode, code):
    with guard_channel(grpc.insecure_channel(target), process, name="echo") as channel:
        run = cut(process, target, mode)
        with pytest.raises(grpc.RpcError) as lost:
            channel.unary_unary("/x/Echo")(b"p", timeout=0.1)
        assert lost.value.code() is code
        with pytest.raises(grpc.RpcError) as lost:
            list(channel.unary_stream("/x/Stream")(b"p", timeout=0.1))
        assert lost.value.code() is code
        assert run.injected >= 2
        assert process.guard("echo").recorder.counts().total(Outcome.BAD) == 2
        run.end()
        assert list(channel.unary_stream("/x/Stream")(b"p", timeout=10, wait_for_ready=True)) == [b"p", b"p"]


@pytest.mark.parametrize(("mode", "code"), [("refuse", CODE.UNAVAILABLE), ("blackhole", CODE.DEADLINE_EXCEEDED)])
def test_asynchronous_rpcs_and_streams_end_as_grpc_ends_them(process, target, mode, code):
    async def scenario():
        async with grpc.aio.insecure_channel(target, interceptors=aio_interceptors(process, name="echo", target=target)) as channel:
            run = cut(process, target, mode)
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as lost:
                await channel.unary_unary("/x/Echo")(b"p", timeout=0.1)
            assert lost.value.code() is code
            with pytest.raises(grpc.RpcError) as lost:
                _ = [each async for each in channel.unary_stream("/x/Stream")(b"p", timeout=0.1)]
            assert lost.value.code() is code
            assert time.monotonic() - began < 5
            run.end()
            assert [each async for each in channel.unary_stream("/x/Stream")(b"p", timeout=10, wait_for_ready=True)] == [b"p", b"p"]

    asyncio.run(scenario())


def test_an_rpc_that_waits_for_the_service_waits_and_goes_on_when_it_heals(process, target):
    with guard_channel(grpc.insecure_channel(target), process, name="echo") as channel:
        run = cut(process, target, "refuse")
        with futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: channel.unary_unary("/x/Echo")(b"p", timeout=20, wait_for_ready=True))
            while not run.delaying:
                assert not waiting.done()
            run.end()
            assert waiting.result(20) == b"p"


def test_a_mocked_transport_of_httpx_is_struck_too_and_by_its_name(process):
    client = guard_client(httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))), process, name="http.x")
    run = cut(process, "*.internal:443", "refuse")
    with pytest.raises(httpx.ConnectError):
        client.get("https://db.internal/")
    assert client.get("http://db.internal/").status_code == 200
    run.end()
    run = cut(process, "*.internal:443", "blackhole")
    with pytest.raises(httpx.ConnectTimeout):
        client.get("https://db.internal/", timeout=0.05)
    run.end()
    run = cut(process, "*.internal:443", "refuse", rate=0.0)
    assert client.get("https://db.internal/").status_code == 200
    run.end()


def test_drivers_that_connect_in_c_are_met_at_their_engine(process):
    psycopg = pytest.importorskip("psycopg")
    from somaresil.integrations.sqlalchemy import guard_engine

    engine = sqlalchemy.create_engine("postgresql+psycopg://user@db.internal/app", connect_args={"connect_timeout": 0.05})
    guard_engine(engine, process, name="sql.x")
    for mode, said in (("refuse", "Connection refused"), ("blackhole", "timeout expired")):
        run = cut(process, "db.internal:5432", mode)
        with pytest.raises(sqlalchemy.exc.OperationalError, match=f"db.internal.*5432.*{said}") as lost:
            engine.connect()
        assert isinstance(lost.value.orig, psycopg.OperationalError)
        run.end()
    engine.dispose()


@pytest.mark.parametrize("mode", ["refuse", "blackhole"])
def test_a_call_that_its_seam_has_struck_is_marked_and_one_that_failed_by_itself_is_not(process, mode):
    """So that counts, spans and objectives can tell a partition from an outage."""
    told = []
    process.on(told.append, CallEnded)

    def down(request):
        raise httpx.ConnectError("down", request=request)

    client = guard_client(httpx.Client(transport=httpx.MockTransport(down), timeout=0.05), process, name="web")
    run = cut(process, "db.internal:443", mode)
    with pytest.raises(httpx.TransportError):
        client.get("https://db.internal/")
    run.end()
    with pytest.raises(httpx.ConnectError, match="down"):
        client.get("https://db.internal/")
    assert [event.injected for event in told] == [True, False]
    counts = process.guards["web"].recorder.counts()
    assert (counts.total("bad"), sum(counts.cells[Outcome.BAD, True])) == (2, 1)


def test_nothing_is_asked_while_nothing_is_armed(process, monkeypatch):
    from somaresil.integrations import _httpx

    monkeypatch.setattr(_httpx, "cut_off", lambda *_: pytest.fail("asked"))
    client = guard_client(httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))), process, name="http.x")
    assert client.get("http://db.internal/").status_code == 200
