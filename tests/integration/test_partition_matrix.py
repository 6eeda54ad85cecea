"""Every client, cut off in every way: its own error, in its own time, on connections that it kept too; and well again afterwards."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace

import pytest

from somaresil import ChaosConfig, ChaosExperiment, Resilience
from somaresil.chaos.capabilities import capabilities
from somaresil.testing import LeakDetector, allow_chaos
from tests.integration.partition_clients import ASYNCHRONOUS, BLOCKING, LIMIT, PATIENCE
from tests.integration.servers import Postgres, Redis, find_postgres, find_redis

MODES = ("refuse", "blackhole", "reset", "drop")
SLACK = 2.0
"""Seconds that a busy machine may add."""


async def _http(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.fixture(scope="module")
def http():
    """An HTTP server that keeps connections, in a thread."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_http, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield SimpleNamespace(port=server.sockets[0].getsockname()[1])

    async def end():
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(PATIENCE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


@pytest.fixture(scope="module")
def grpc():
    """A gRPC server that answers everything."""
    grpc = pytest.importorskip("grpc")

    class Anything(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"pong")

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield SimpleNamespace(port=port)
    server.stop(None).wait(PATIENCE)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    binary = find_redis()
    if binary is None:
        pytest.skip("redis-server is not installed: `apt-get install redis-server`, or run `nox -s tests` as root")
    with Redis(folder=tmp_path_factory.mktemp("redis"), binary=binary) as server:
        yield server


@pytest.fixture(scope="module")
def postgres():
    programs = find_postgres()
    if programs is None:
        pytest.skip("postgresql is not installed: `apt-get install postgresql`, or run `nox -s tests` as root")
    # Not pytest's folder: it is closed to the user as whom PostgreSQL runs.
    folder = Path(tempfile.mkdtemp(prefix="somaresil-postgres-"))
    try:
        with Postgres(folder=folder, programs=programs) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def process():
    resilience = Resilience("matrix", environment="test")
    with allow_chaos(resilience):
        yield resilience


class Cell:
    """One client, cut off in one way: what has to hold, whoever waits."""

    def __init__(self, kind, mode, server, process):
        can = capabilities()[f"network_partition.{mode}"]
        if not can:
            pytest.skip(can.reason)
        if mode == "drop" and not kind.drops:
            pytest.skip("it has no time-out for answers: a call on a connection that it keeps hangs until the partition heals")
        self.client = kind({kind.needs: server}, process)
        self.mode = mode
        self.process = process
        self.detector = LeakDetector(process)

    def cut(self):
        target = f"net:{self.client.host}:{self.client.port}"
        config = ChaosConfig(ChaosExperiment.NETWORK_PARTITION, target, 1.0, 60, mode=self.mode)
        self.run = self.process.chaos.arm(config)

    @property
    def expected(self):
        return self.client.swallowed if self.mode in {"blackhole", "drop"} else self.client.refused

    def first(self, error, seconds):
        """The call after the cut: whatever the client says of a connection that is gone, or already what comes after."""
        expected = (*_tuple(self.client.broken), *_tuple(self.expected))
        assert isinstance(error, expected), f"{error!r} is none of {expected}"
        assert seconds < LIMIT + SLACK

    def second(self, error, seconds):
        """The call after that: its native error, in its own time."""
        assert isinstance(error, self.expected), f"{error!r} is no {self.expected}"
        if self.mode in {"blackhole", "drop"}:
            assert LIMIT * 0.8 <= seconds < LIMIT + SLACK
        else:
            assert seconds < SLACK
        if self.client.needs == "grpc":
            assert error.code().name == ("DEADLINE_EXCEEDED" if self.mode in {"blackhole", "drop"} else "UNAVAILABLE")
        assert self.run.injected

    def over(self):
        assert self.detector.leaks == ()


def _tuple(kinds):
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _timed(use):
    began = time.monotonic()
    with pytest.raises(Exception) as caught:
        use()
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", BLOCKING, ids=lambda kind: kind.__name__)
def test_a_blocking_client_is_cut_off_and_well_again(kind, mode, request, process):
    cell = Cell(kind, mode, request.getfixturevalue(kind.needs), process)
    client = cell.client
    try:
        client.use(PATIENCE)
        with cell.detector:
            cell.cut()
            cell.first(*_timed(lambda: client.use(LIMIT)))
            cell.second(*_timed(lambda: client.use(LIMIT)))
            cell.run.end()
        _until_well(client)
        cell.over()
    finally:
        process.chaos.stop_all()
        client.close()


def _until_well(client):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return client.use(PATIENCE)
        except Exception:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.02)


CELLS = [pytest.param(kind, loop, id=f"{kind.__name__}-{loop}") for kind in ASYNCHRONOUS for loop in kind.loops]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "loop"), CELLS)
def test_an_asynchronous_client_is_cut_off_and_well_again(kind, loop, mode, request, process):
    library = pytest.importorskip(loop)
    server = request.getfixturevalue(kind.needs)
    sleep = library.sleep if loop == "trio" else asyncio.sleep

    async def scenario():
        cell = Cell(kind, mode, server, process)
        client = cell.client
        try:
            await client.use(PATIENCE)
            with cell.detector:
                cell.cut()
                cell.first(*await timed(client))
                cell.second(*await timed(client))
                cell.run.end()
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    await client.use(PATIENCE)
                    break
                except Exception:
                    if time.monotonic() > deadline:
                        raise
                    await sleep(0.02)
            cell.over()
        finally:
            process.chaos.stop_all()
            await client.close()

    async def timed(client):
        began = time.monotonic()
        with pytest.raises(Exception) as caught:
            await client.use(LIMIT)
        return caught.value, time.monotonic() - began

    if loop == "trio":
        library.run(scenario)
    else:
        with asyncio.Runner(loop_factory=library.new_event_loop) as runner:
            runner.run(scenario())


def test_every_client_and_every_loop_is_in_the_matrix():
    assert {loop for kind in ASYNCHRONOUS for loop in kind.loops} == {"asyncio", "uvloop", "trio"}
    assert len(BLOCKING) + len(CELLS) == 26
