"""The control app under a real server, mounted in a framework, and against requests that were made from its own description."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis.errors import Unsatisfiable

from somaresil import ChaosCeilings, ManualClock, Resilience, ResilienceMiddleware
from somaresil.control import BearerToken, chaos_control
from somaresil.events import DefectFound

TOKEN = "integration-0123456789-abcdefghijk"
KNOWN = {"authorization": f"Bearer {TOKEN}"}
ROOT = "/_soma/chaos"
WINDOW = {"target": "llm.*", "kind": "error", "duration": 30}
PATIENCE = 20.0
EXAMPLES = 40


class Service:
    """A service whose app has the control app in it."""

    def __init__(self):
        self.resilience = Resilience("gateway", environment="test", seed=1)
        self.resilience.chaos.opt_in(ChaosCeilings(experiments=1_000))
        self.guard = self.resilience.guard("llm.invoke", breaker=True)
        inner = FastAPI()
        inner.add_api_route("/items", lambda: {"items": []})
        inner.mount(ROOT, chaos_control(self.resilience, auth=BearerToken({"ops": TOKEN})))
        self.app = ResilienceMiddleware(inner, self.resilience)
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{ROOT}"


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    return Service()


@contextmanager
def served(service):
    listener = socket.create_server(("127.0.0.1", 0))
    service.port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(service.app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def test_experiments_are_started_seen_and_ended_over_http(service):
    with served(service), httpx.Client(base_url=service.url, headers=KNOWN) as http:
        told = http.post("/experiments", json=WINDOW)
        assert told.status_code == 201
        assert http.get(told.headers["location"].removeprefix(ROOT)).json()["state"] == "running"
        assert http.get("/status").json()["running"] == 1
        assert http.post("/stop", json={}).json()["stopped"] == told.json()["ids"]
        assert http.get("/status").json()["running"] == 0


def test_the_kill_switch_is_reached_while_every_request_fails(service):
    with served(service), httpx.Client(base_url=service.url, headers=KNOWN) as http:
        outside = f"http://127.0.0.1:{service.port}/items"
        assert http.post("/experiments", json={"target": "http:*", "kind": "error", "duration": 60}).status_code == 201
        assert httpx.get(outside).status_code == 503
        assert http.post("/stop", headers={"x-somaresil-control": "1"}).status_code == 200
        assert httpx.get(outside).status_code == 200


def test_the_unknown_get_the_same_bytes_from_a_real_server(service):
    seen = set()
    with served(service):
        for request in (
            f"GET {ROOT}/status HTTP/1.1\r\n",
            f"POST {ROOT}/stop HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n",
            f"DELETE {ROOT}/nothing HTTP/1.1\r\nauthorization: Bearer {'x' * 40}\r\n",
            f"OPTIONS {ROOT}/experiments HTTP/1.1\r\norigin: http://evil.example\r\naccess-control-request-method: POST\r\n",
        ):
            with closing(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)) as connection:
                connection.sendall(f"{request}host: service\r\nconnection: close\r\n\r\n{'{}' if 'POST /' in request else ''}".encode())
                answer = b""
                while chunk := connection.recv(65_536):
                    answer += chunk
            head, _, body = answer.partition(b"\r\n\r\n")
            lines = tuple(line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:"))
            seen.add((lines, body))
    assert len(seen) == 1
    assert next(iter(seen))[1] == b"Not Found"


def test_a_client_that_sends_its_body_drop_by_drop_holds_nobody_up(service):
    """The switch has been thrown before the body is there, and others are answered meanwhile."""
    with served(service), httpx.Client(base_url=service.url, headers=KNOWN) as http:
        http.post("/experiments", json=WINDOW)
        with closing(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)) as connection:
            lines = [f"POST {ROOT}/stop HTTP/1.1", "host: s", f"authorization: Bearer {TOKEN}", "content-type: application/json"]
            head = "".join(f"{line}\r\n" for line in [*lines, "content-length: 20"])
            connection.sendall(f"{head}\r\n{{".encode())
            deadline = time.monotonic() + PATIENCE
            while http.get("/status").json()["running"]:
                assert time.monotonic() < deadline
    assert service.resilience.chaos.runs == ()


def _aim(case, resilience):
    """Name what is there: chance alone never would."""
    if isinstance(case.body, dict):
        for window in [case.body, *case.body.get("windows", [])]:
            if "target" in window:
                # What does not go with an error is left out, so that some of them are armed.
                window.update(target="llm.invoke", kind="error", duration=min(window["duration"], 600), delay=1, error=None)
                for name in {*window} - {"target", "kind", "start", "duration", "delay", "error", "rate"}:
                    del window[name]
    if "id" in (case.path_parameters or {}) and resilience.chaos.history:
        case.path_parameters["id"] = resilience.chaos.history[-1].id


@pytest.mark.slow
def test_requests_made_from_the_description_find_no_defect(monkeypatch):
    """Right and wrong ones: each answer is one that the description has, in the form that it has there, and none is a 5xx."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("gateway", environment="test", seed=1, clock=ManualClock())
    resilience.chaos.opt_in(ChaosCeilings(experiments=1_000))
    resilience.guard("llm.invoke", breaker=True)
    defects: list[DefectFound] = []
    resilience.on(defects.append, DefectFound)
    app = chaos_control(resilience, auth=BearerToken({"ops": TOKEN}))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=KNOWN)
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    statuses: Counter[int] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]

    def ask(operation, mode):
        @seed(7)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case):
            if mode is GenerationMode.POSITIVE:
                _aim(case, resilience)
            answer = case.call(headers=KNOWN)
            case.validate_response(answer, checks=checks, headers=KNOWN)
            statuses[answer.status_code] += 1
            resilience.clock.advance(60.0)

        hold()

    # What starts something first, so that the others find it.
    for operation in sorted(operations, key=lambda each: each.label != "POST /experiments"):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # there is nothing that a request without parameters could say wrongly
                ask(operation, mode)
    assert len(operations) == 12  # that of the description itself is not among them
    assert {200, 201, 404, 415, 422} <= set(statuses)
    assert sum(statuses.values()) > 7 * EXAMPLES
    assert max(statuses) < 500
    assert defects == []
