"""The clients of the partition matrix: each makes a small call, with its own time-out and errors, on a connection that it keeps."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

LIMIT = 0.25
"""Seconds that a client waits when it is cut off."""
PATIENCE = 10.0
"""Seconds that it waits otherwise."""


class Client:
    """One kind of client.

    Each call takes seconds to wait. ``refused`` and ``swallowed`` are the errors of a call whose connection is refused or times out,
    ``broken`` those of a call on a connection that was kept and is gone.
    """

    needs = "http"
    """The server that it calls."""
    loops = ()
    """What it runs on; none: it blocks."""
    guarded = False
    """Whether partitions are met at its guard, since it connects in C."""
    drops = True
    """Whether it has a time-out for answers, without which a call on a kept connection would never end."""

    def __init__(self, servers, resilience):
        self.server = servers[self.needs]
        self.host, self.port = "127.0.0.1", self.server.port
        self.url = f"http://127.0.0.1:{self.port}/"
        self.resilience = resilience


class Sockets(Client):
    refused, swallowed, broken = ConnectionRefusedError, TimeoutError, ConnectionError
    sock = None

    def use(self, limit):
        if self.sock is None:
            self.sock = socket.create_connection((self.host, self.port), timeout=limit)
        try:
            self.sock.settimeout(limit)
            self.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if not self.sock.recv(1000).startswith(b"HTTP/1.1 200"):
                raise ConnectionResetError
        except ConnectionError:
            self.close()
            raise

    def close(self):
        if self.sock is not None:
            self.sock.close()
        self.sock = None


class Httpx(Client):
    def __init__(self, *given):
        super().__init__(*given)
        httpx = pytest.importorskip("httpx")
        self.client = httpx.Client()
        self.refused, self.swallowed, self.broken = httpx.ConnectError, (httpx.ConnectTimeout, httpx.ReadTimeout), httpx.TransportError

    def use(self, limit):
        assert self.client.get(self.url, timeout=limit).text == "ok"

    def close(self):
        self.client.close()


class GuardedHttpx(Httpx):
    """Its guard sees the partition first: no connection is touched."""

    def __init__(self, *given):
        super().__init__(*given)
        from somaresil.integrations.httpx import guard_client

        guard_client(self.client, self.resilience, name="http.matrix")


class Requests(Client):
    def __init__(self, *given):
        super().__init__(*given)
        requests = pytest.importorskip("requests")
        self.session = requests.Session()
        self.session.trust_env = False
        errors = requests.exceptions
        self.refused, self.swallowed, self.broken = (
            errors.ConnectionError,
            (errors.ConnectTimeout, errors.ReadTimeout),
            errors.RequestException,
        )

    def use(self, limit):
        assert self.session.get(self.url, timeout=limit).text == "ok"

    def close(self):
        self.session.close()


class Urllib3(Client):
    def __init__(self, *given):
        super().__init__(*given)
        self.urllib3 = urllib3 = pytest.importorskip("urllib3")
        self.pool = urllib3.PoolManager(retries=False)
        errors = urllib3.exceptions
        self.refused, self.swallowed, self.broken = (
            errors.NewConnectionError,
            (errors.ConnectTimeoutError, errors.ReadTimeoutError),
            errors.HTTPError,
        )

    def use(self, limit):
        assert self.pool.request("GET", self.url, timeout=self.urllib3.Timeout(limit)).data == b"ok"

    def close(self):
        self.pool.clear()


class Redis(Client):
    needs = "redis"

    def __init__(self, *given):
        super().__init__(*given)
        redis = pytest.importorskip("redis")
        self.client = self.make(redis)
        self.refused, self.swallowed, self.broken = redis.ConnectionError, redis.TimeoutError, (redis.ConnectionError, redis.TimeoutError)

    def make(self, redis, kind=None):
        limits = {"socket_timeout": LIMIT, "socket_connect_timeout": LIMIT, "retry": None}
        return (kind or redis.Redis)(host=self.host, port=self.port, **limits)

    def use(self, limit):
        assert self.client.ping()

    def close(self):
        self.client.close()


class GuardedRedis(Redis):
    def __init__(self, *given):
        super().__init__(*given)
        from somaresil.integrations.redispy import guard_redis

        guard_redis(self.client, self.resilience, name="redis.matrix")


class Psycopg(Client):
    """libpq, which connects in C, through the guard of an engine of SQLAlchemy."""

    needs = "postgres"
    guarded = True
    drops = False

    def __init__(self, *given):
        super().__init__(*given)
        psycopg, alchemy = pytest.importorskip("psycopg"), pytest.importorskip("sqlalchemy")
        from somaresil.integrations.sqlalchemy import guard_engine

        self.text = alchemy.text
        # libpq rounds its time-out for connecting up to 2 s; the guard of the engine takes it as it is.
        url = f"postgresql+psycopg://postgres@{self.host}:{self.port}/postgres"
        self.engine = guard_engine(
            alchemy.create_engine(url, connect_args={"connect_timeout": LIMIT}, pool_size=1), self.resilience, name="sql.matrix"
        )
        self.refused = self.swallowed = self.broken = alchemy.exc.OperationalError
        self.driver = psycopg.OperationalError

    def use(self, limit):
        with self.engine.connect() as connection:
            assert connection.execute(self.text("select 1")).scalar() == 1

    def close(self):
        self.engine.dispose()


class Grpc(Client):
    needs = "grpc"
    guarded = True

    def __init__(self, *given):
        super().__init__(*given)
        grpc = self.grpc = pytest.importorskip("grpc")
        self.refused = self.swallowed = self.broken = grpc.RpcError
        self.channel = self.make()

    def make(self):
        from somaresil.integrations.grpc import guard_channel

        return guard_channel(self.grpc.insecure_channel(f"{self.host}:{self.port}"), self.resilience, name="grpc.matrix")

    def use(self, limit):
        assert self.channel.unary_unary("/x/y")(b"p", timeout=limit, wait_for_ready=limit == PATIENCE) == b"pong"

    def close(self):
        self.channel.close()


class Async(Client):
    loops = ("asyncio", "uvloop")

    async def close(self):
        pass


class Streams(Async):
    refused, swallowed, broken = ConnectionRefusedError, TimeoutError, ConnectionError
    writer = None

    async def use(self, limit):
        async with asyncio.timeout(limit):
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
            try:
                self.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await self.writer.drain()
                if not (await self.reader.read(1000)).startswith(b"HTTP/1.1 200"):
                    raise ConnectionResetError
            except ConnectionError:
                await self.close()
                raise

    async def close(self):
        if self.writer is not None:
            self.writer.close()
            with suppress(ConnectionError):
                await self.writer.wait_closed()
        self.writer = None


class AsyncHttpx(Async):
    loops = ("asyncio", "uvloop", "trio")

    def __init__(self, *given):
        super().__init__(*given)
        httpx = pytest.importorskip("httpx")
        self.client = httpx.AsyncClient()
        self.refused, self.swallowed, self.broken = httpx.ConnectError, (httpx.ConnectTimeout, httpx.ReadTimeout), httpx.TransportError

    async def use(self, limit):
        assert (await self.client.get(self.url, timeout=limit)).text == "ok"

    async def close(self):
        await self.client.aclose()


class AsyncGuardedHttpx(AsyncHttpx):
    loops = ("asyncio", "uvloop")

    def __init__(self, *given):
        super().__init__(*given)
        from somaresil.integrations.httpx import guard_client

        guard_client(self.client, self.resilience, name="http.matrix")


class Aiohttp(Async):
    session = None

    def __init__(self, *given):
        super().__init__(*given)
        self.aiohttp = aiohttp = pytest.importorskip("aiohttp")
        self.refused, self.swallowed, self.broken = aiohttp.ClientConnectorError, TimeoutError, aiohttp.ClientError

    def middlewares(self):
        return ()

    async def use(self, limit):
        if self.session is None:
            self.session = self.aiohttp.ClientSession(middlewares=self.middlewares())
        async with self.session.get(self.url, timeout=self.aiohttp.ClientTimeout(total=limit)) as answer:
            assert await answer.text() == "ok"

    async def close(self):
        if self.session is not None:
            await self.session.close()


class GuardedAiohttp(Aiohttp):
    def middlewares(self):
        from somaresil.integrations.aiohttp import guard_middleware

        return (guard_middleware(self.resilience, name="http.matrix"),)


class AsyncRedis(Async, Redis):
    def make(self, redis, kind=None):
        return super().make(redis, pytest.importorskip("redis.asyncio").Redis)

    async def use(self, limit):
        assert await self.client.ping()

    async def close(self):
        await self.client.aclose()


class Asyncpg(Async):
    needs = "postgres"
    connection = None

    def __init__(self, *given):
        super().__init__(*given)
        self.asyncpg = asyncpg = pytest.importorskip("asyncpg")
        self.refused, self.swallowed = ConnectionRefusedError, TimeoutError
        self.broken = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError, TimeoutError)

    async def use(self, limit):
        if self.connection is None or self.connection.is_closed():
            url = f"postgresql://postgres@{self.host}:{self.port}/postgres"
            self.connection = await self.asyncpg.connect(url, timeout=limit, ssl=False)
        assert await self.connection.fetchval("select 1", timeout=limit) == 1

    async def close(self):
        if self.connection is not None:
            self.connection.terminate()


class AioGrpc(Async, Grpc):
    loops = ("asyncio",)

    def make(self):
        return None

    async def use(self, limit):
        from somaresil.integrations.grpc import aio_interceptors

        if self.channel is None:
            target = f"{self.host}:{self.port}"
            guards = aio_interceptors(self.resilience, name="grpc.matrix", target=target)
            self.channel = self.grpc.aio.insecure_channel(target, interceptors=guards)
        assert await self.channel.unary_unary("/x/y")(b"p", timeout=limit, wait_for_ready=limit == PATIENCE) == b"pong"

    async def close(self):
        if self.channel is not None:
            await self.channel.close()


class TrioSockets(Async):
    loops = ("trio",)
    refused = OSError

    def __init__(self, *given):
        super().__init__(*given)
        self.trio = pytest.importorskip("trio")
        self.stream = None
        self.swallowed = self.trio.TooSlowError
        self.broken = (OSError, self.trio.BrokenResourceError, self.trio.TooSlowError)

    async def use(self, limit):
        with self.trio.fail_after(limit):
            if self.stream is None:
                self.stream = await self.trio.open_tcp_stream(self.host, self.port)
            try:
                await self.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if not (await self.stream.receive_some(1000)).startswith(b"HTTP/1.1 200"):
                    raise ConnectionResetError
            except (OSError, self.trio.BrokenResourceError):
                await self.close()
                raise

    async def close(self):
        if self.stream is not None:
            await self.stream.aclose()
        self.stream = None


BLOCKING = (Sockets, Httpx, GuardedHttpx, Requests, Urllib3, Redis, GuardedRedis, Psycopg, Grpc)
ASYNCHRONOUS = (Streams, AsyncHttpx, AsyncGuardedHttpx, Aiohttp, GuardedAiohttp, AsyncRedis, Asyncpg, AioGrpc, TrioSockets)
