"""The dashboard under real servers: mounted, watched by many, stalled by some, and ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import httpx
import pytest
from hypothesis.errors import Unsatisfiable

from somaresil import ManualClock, Resilience
from somaresil.dashboard import BearerToken
from somaresil.events import DefectFound
from tests.integration.dashboard_service import (
    FAST,
    KNOWN,
    PATIENCE,
    PLANS,
    ROOT,
    TOKEN,
    Readers,
    Service,
    by_path,
    events_of,
    in_fastapi,
    in_starlette,
    open_stream,
    resident,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.mark.parametrize("mount", [by_path, in_fastapi, in_starlette])
def test_it_can_be_mounted_anywhere(mount):
    service = Service(mount=mount)
    with service.served(), httpx.Client(base_url=service.url, headers=KNOWN, follow_redirects=True, timeout=PATIENCE) as http:
        assert http.get("").url.path == f"{ROOT}/"
        assert http.get("/plain").status_code == 200
        names = [guard["name"] for guard in http.get("/api/picture").json()["guards"]]
        assert "llm.invoke" in names
        assert http.get("/api/guards/llm.invoke").json()["name"] == "llm.invoke"


def test_a_breaker_that_opens_is_on_the_screen_within_a_second():
    service = Service()
    with (
        service.served(),
        httpx.Client(base_url=service.url, headers=KNOWN, timeout=PATIENCE) as http,
        http.stream("GET", "/api/stream") as stream,
    ):
        told = events_of(stream)
        assert next(told)[0] == "picture"
        began = time.monotonic()
        service.resilience.breaker("llm.invoke").trip()
        for kind, data in told:
            if kind == "picture" and any(guard["name"] == "llm.invoke" and guard["state"] == "open" for guard in data["guards"]):
                break
        assert time.monotonic() - began < 1.0


def test_an_experiment_is_started_seen_and_stopped_by_http():
    service = Service()
    with service.served(), httpx.Client(base_url=service.url, headers=KNOWN, timeout=PATIENCE) as http:
        csrf = http.get("/api/session").json()["csrf"]
        done = http.post("/api/experiments", json={"plan": "slow model"}, headers={"x-somaresil-csrf": csrf})
        assert done.json()["done"], done.text
        (running,) = [each for each in http.get("/api/picture").json()["experiments"] if each["state"] == "running"]
        assert http.post(f"/api/experiments/{running['id']}/stop", json={}, headers={"x-somaresil-csrf": csrf}).status_code == 200
        assert service.resilience.chaos.runs == ()


def test_the_unknown_get_the_same_bytes_from_a_real_server():
    service, seen = Service(), set()
    with service.served():
        for request in (
            f"GET {ROOT}/ HTTP/1.1\r\n",
            f"GET {ROOT}/api/stream HTTP/1.1\r\naccept: text/event-stream\r\n",
            f"POST {ROOT}/api/stop HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n",
            f"GET {ROOT}/static/../../../etc/passwd HTTP/1.1\r\nauthorization: Bearer {'x' * 40}\r\n",
            f"GET {ROOT}/nothing HTTP/1.1\r\naccept: text/html\r\ncookie: session=forged\r\n",
        ):
            with closing(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)) as connection:
                connection.sendall(f"{request}host: service\r\nconnection: close\r\n\r\n{'{}' if 'POST /' in request else ''}".encode())
                answer = b""
                while chunk := connection.recv(65_536):
                    answer += chunk
            head, _, body = answer.partition(b"\r\n\r\n")
            seen.add((tuple(line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")), body))
    assert len(seen) == 1
    assert service.dashboard.denied == 5


@pytest.mark.slow
def test_two_hundred_look_and_those_who_never_read_cost_them_nothing():
    """They are sent away, memory stays where it was, and everybody else sees picture after picture."""
    service = Service(guards=100, pace=FAST)
    with service.served(), httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=PATIENCE) as http:
        readers = Readers(service.port, 180)
        stalled = [open_stream(service.port, buffer=4_096) for _ in range(20)]
        try:
            wait_until(lambda: min(readers.seen) >= 3)
            before = resident()
            wait_until(lambda: service.dashboard.stalled == 20, 60.0)
            assert service.dashboard.viewers == 180
            seen = min(readers.seen)
            wait_until(lambda: min(readers.seen) >= seen + 5, 60.0)
            assert resident() - before < 30_000_000
            assert http.get("/items").status_code == 200
        finally:
            readers.close()
            for connection in stalled:
                connection.close()
        wait_until(lambda: service.dashboard.viewers == 0)


def test_more_than_may_look_are_asked_to_come_back():
    service = Service(most_viewers=3)
    with service.served():
        connections = [open_stream(service.port) for _ in range(3)]
        wait_until(lambda: service.dashboard.viewers == 3)
        with httpx.Client(base_url=service.url, headers=KNOWN) as http:
            assert http.get("/api/stream").status_code == 503
            connections.pop().close()
            wait_until(lambda: service.dashboard.viewers == 2)
            with http.stream("GET", "/api/stream") as stream:
                assert stream.status_code == 200
        for connection in connections:
            connection.close()


PROGRAM = f"""
import os, sys
import uvicorn
from somaresil import Resilience
from somaresil.dashboard import BearerToken
resilience = Resilience("gateway")
app = resilience.dashboard(auth=BearerToken("{TOKEN}"))
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical")
"""


def test_a_server_that_is_told_to_end_ends_although_somebody_looks():
    """Without any patience of its own: uvicorn would wait for the stream for ever."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)])
    try:

        def answers():
            try:
                return httpx.get(f"http://127.0.0.1:{port}/api/session", headers=KNOWN).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
        with closing(open_stream_at_root(port)) as connection:
            assert b"event: picture" in read_until(connection, b"event: picture")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
            assert time.monotonic() - began < 5.0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


def open_stream_at_root(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(f"GET /api/stream HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode())
    return connection


def read_until(connection, what):
    data = b""
    while what not in data:
        chunk = connection.recv(65_536)
        assert chunk
        data += chunk
    return data


def test_django_can_have_it_too():
    """Beside its ASGI application, by a look at the path."""
    django = pytest.importorskip("django")
    assert django
    from django.conf import settings

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50)
        django.setup()
    from django.core.asgi import get_asgi_application

    inner = get_asgi_application()

    def mount(dashboard):
        async def app(scope, receive, send):
            await (dashboard if scope["path"].startswith(f"{ROOT}/") else inner)(scope, receive, send)

        return app

    service = Service(mount=mount)
    with service.served(), httpx.Client(base_url=service.url, headers=KNOWN, timeout=PATIENCE) as http:
        assert http.get("/api/picture").status_code == 200


urlpatterns = ()


@pytest.mark.slow
def test_requests_made_from_the_description_find_no_defect():
    """Right and wrong ones: each answer is one that the description has, in the form that it has there, and none is a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    resilience = Resilience("gateway", environment="test", seed=1, clock=ManualClock())
    resilience.chaos.opt_in()
    resilience.guard("llm.invoke", breaker=True)
    events = []
    resilience.on(events.append, DefectFound)
    app = resilience.dashboard(auth=BearerToken({"ops": TOKEN}), plans=PLANS)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=KNOWN)

    async def session():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", headers=KNOWN) as http:
            return (await http.get("/api/session")).json()["csrf"]

    csrf = asyncio.run(session())
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    answered = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == "/api/stream":
            # It does not end.
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(7)
            @settings(
                max_examples=15,
                deadline=None,
                database=None,
                derandomize=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                if case.path_parameters and "name" in case.path_parameters and len(case.path_parameters["name"]) % 2:
                    case.path_parameters["name"] = "llm.invoke"
                if isinstance(case.body, dict) and "plan" in case.body:
                    case.body["plan"] = "slow model"
                response = case.call(headers={**KNOWN, "x-somaresil-csrf": csrf})
                answered[response.status_code] += 1
                case.validate_response(response, checks=checks, headers=KNOWN)

            try:
                ask()
            except Unsatisfiable:
                # Nothing about it can be wrong.
                continue
    app.stop()
    assert events == []
    assert answered[200] > 50
    assert answered[404]
