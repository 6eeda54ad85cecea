"""What type checkers make of guarded clients. Checked as ``api`` is, never run."""

from __future__ import annotations

from typing import assert_type

import httpx
import redis

from somaresil import Resilience, Retry
from somaresil.integrations.httpx import AsyncGuardedTransport, GuardedTransport, guard_client
from somaresil.integrations.redispy import guard_redis

resilience = Resilience("gateway")

assert_type(guard_client(httpx.Client(), resilience), httpx.Client)
assert_type(guard_client(httpx.AsyncClient(), resilience, timeout=5.0, retry=Retry(attempts=2)), httpx.AsyncClient)
guard_client("client", resilience)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def name(request: httpx.Request) -> str | None:
    """A function of the request."""
    return request.url.host or None


httpx.Client(transport=GuardedTransport(resilience, name=name, bad_statuses={500, 503}))
httpx.AsyncClient(transport=AsyncGuardedTransport(resilience, httpx.AsyncHTTPTransport(), most_guards=8))

assert_type(guard_redis(redis.Redis(), resilience), redis.Redis)
