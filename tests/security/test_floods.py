"""Thousands of requests of somebody's own making: methods, paths, tenants, headers, baggage. Neither metrics nor memory grow with them."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import string
import tracemalloc
from collections import defaultdict
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from somaresil import SLO, CircuitBreaker, Rejected, Resilience, ResilienceMiddleware
from somaresil.integrations.prometheus import install
from somaresil.policy.bulkhead import Bulkhead

REQUESTS = int(os.environ.get("SOMARESIL_FLOOD", "10000"))
"""How many; `SOMARESIL_FLOOD=100000` takes a minute or two."""
WARM = 3_000
MOST_SERIES = 200
MOST_BYTES = 5_000_000
LETTERS = string.ascii_letters + string.digits + "\"{}\\'<>\u2028\x1b%/"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One process."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


class Flood:
    """A service that does what services should not: it takes every text of a request for a key, a tenant, a group or a guard."""

    def __init__(self, *, scale=1.0):
        self.chance = random.Random(4711)
        self.resilience = Resilience("gateway", seed=1, environment="test")
        self.registry = CollectorRegistry()
        install(self.resilience, self.registry, exemplars=True)
        # One that keeps what it is told, as a defect would.
        self.kept: list[str] = []
        self.scale = scale
        for name, more in (("availability", {}), ("latency", {"latency": 1.0}), ("tenants", {"group_by": "tenant", "max_groups": 50})):
            self.resilience.slos.add(SLO(name, 99.0, timedelta(days=1), **more))
        breaker = CircuitBreaker(failure_rate=None, consecutive_failures=3, open_duration=60.0)
        self.guard = self.resilience.guard("llm.invoke", breaker=breaker, slo=["latency", "tenants"])
        self.keyed = self.guard.keyed(by="tenant")(self.work)
        self.app = ResilienceMiddleware(
            self.answer,
            self.resilience,
            slo="availability",
            deadline=5.0,
            limit=Bulkhead(50),
            priority=lambda scope: (None, self.header(scope)),
        )

    def text(self, longest=24):
        """Something that nobody has seen before."""
        return "".join(self.chance.choices(LETTERS, k=self.chance.randint(1, longest)))

    def header(self, scope):
        """The tenant that the request says it is."""
        return dict(scope["headers"])[b"x-tenant"].decode("latin-1")

    async def work(self, tenant, *, fails):
        """What is guarded."""
        if fails:
            raise OSError(tenant)
        return tenant

    async def answer(self, scope, receive, send):
        """The application behind the middleware."""
        fails = self.chance.random() < 0.1
        try:
            await self.keyed(tenant=self.header(scope), fails=fails)
        except (OSError, Rejected):
            fails = True
        await send({"type": "http.response.start", "status": self.chance.choice([500, 503, 418]) if fails else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def request(self):
        """One request, with whatever its sender likes."""
        known = {
            b"x-tenant": self.text().encode("latin-1", "replace"),
            b"user-agent": self.text(60).encode("latin-1", "replace"),
            b"x-request-timeout-ms": self.chance.choice([b"1000", b"-5", b"9" * 30, b"nan", self.text().encode("latin-1", "replace")]),
            b"baggage": f"somaresil-chaos={self.text(40)},a={self.text()}".encode("latin-1", "replace"),
            b"traceparent": self.chance.choice(
                [b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01", self.text(60).encode("latin-1", "replace")]
            ),
            self.text(12).encode("latin-1", "replace"): b"1",
        }
        path = "/" + self.text()
        if self.scale != 1.0:
            self.kept.append(path * 100)
        scope = {
            "type": "http",
            "method": self.chance.choice(["GET", "POST", self.text(8).upper()]),
            "path": path,
            "raw_path": path.encode(),
            "query_string": self.text().encode(),
            "headers": list(known.items()),
            "client": ("192.0.2.1", 1),
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "http_version": "1.1",
        }

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_message):
            return None

        await self.app(scope, receive, send)

    def run(self, requests):
        """So many of them, one after the other."""

        async def go():
            for _ in range(requests):
                await self.request()

        asyncio.run(go())

    def grown(self, requests):
        """Bytes that are held afterwards and were not before."""
        self.run(WARM)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            self.run(requests)
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    def series(self):
        """How many label sets each metric has, bounds of buckets aside."""
        found = defaultdict(set)
        for family in parse(generate_latest(self.registry).decode()):
            for sample in family.samples:
                found[family.name].add(tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le")))
        return {name: len(sets) for name, sets in found.items()}


def test_made_up_requests_leave_metrics_and_memory_flat(record_testsuite_property):
    """Every request counts, none is a series of its own, and what is held afterwards is less than five megabytes."""
    flood = Flood()
    grown = flood.grown(REQUESTS)
    counts = flood.resilience.snapshot()
    assert sum(route.total() for route in counts.routes.values()) == REQUESTS + WARM
    series = flood.series()
    assert {name: count for name, count in series.items() if count > MOST_SERIES} == {}
    assert len(series) > 20
    record_testsuite_property("flood", f"{REQUESTS} requests: at most {max(series.values())} series of a metric, {grown / 1e6:.2f} MB more")
    assert grown < MOST_BYTES
    flood.resilience.slos.error_budget("tenants")


def test_a_service_that_keeps_what_it_is_told_is_noticed():
    """The measure of the test above finds a path that is kept a hundred times over."""
    assert Flood(scale=2.0).grown(5_000) > MOST_BYTES
