"""A stop condition that asks Prometheus: what is above, what is below, and what nobody knows."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ChaosConfig, ConfigurationError, ManualClock, Resilience
from somaresil.chaos.conditions import World
from somaresil.integrations import _prometheus_api
from somaresil.integrations.prometheus_query import PrometheusQuery, ask
from somaresil.listeners import Listeners

NOW = 1_700_000_000.0


class Server:
    """Answers every question alike."""

    def __init__(self):
        self.status, self.body, self.headers, self.paths = 200, b"", {}, []
        self.go_on = threading.Event()
        self.go_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.paths.append(self.path)
                outer.go_on.wait(20.0)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def says(self, *values, at=NOW):
        result = [{"metric": {}, "value": [at, str(value)]} for value in values]
        self.body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()

    def close(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20.0)


@pytest.fixture
def server():
    """One that runs for the time of a test."""
    server = Server()
    yield server
    server.close()


def answer(server, **options):
    condition = PrometheusQuery(server.url, "up", **(options or {"above": 5.0}))
    return condition.watch(World(ManualClock(time=NOW), dict, None, Listeners()))()


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ((1, 6), {"above": 5.0}, "6, above 5"),
        ((1, 5), {"above": 5.0}, False),
        ((1, 6), {"below": 2.0}, "1, below 2"),
        ((2, 6), {"below": 2.0}, False),
        ((), {"above": 5.0}, None),
        (("NaN", 1), {"above": 5.0}, None),
        (("+Inf",), {"above": 5.0}, "inf, above 5"),
    ],
)
def test_any_series_beyond_the_limit_is_a_reason_to_stop(server, values, options, expected):
    server.says(*values)
    assert answer(server, **options) == expected
    assert server.paths == ["/api/v1/query?query=up"]


def test_a_scalar_is_one_value(server):
    server.body = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [NOW, "7"]}}).encode()
    assert answer(server) == "7, above 5"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"status": "error"}', b'{"status": "success", "data": []}', b"\xff", b"[" * 100_000])
def test_what_is_no_answer_is_unknown(server, body):
    server.body = body
    assert answer(server) is None


def test_old_values_are_unknown(server):
    server.says(1, at=NOW - 31.0)
    assert answer(server) is None


def test_an_error_is_unknown(server):
    server.status = 503
    server.says(9)
    assert answer(server) is None


def test_redirects_are_not_followed(server):
    server.status, server.headers = 302, {"location": f"{server.url}/elsewhere"}
    assert answer(server) is None
    assert len(server.paths) == 1


def test_an_answer_that_is_too_large_is_not_read(server, monkeypatch):
    monkeypatch.setattr(_prometheus_api, "_LARGEST", 100)
    server.says(*range(100))
    assert answer(server) is None
    with pytest.raises(ValueError, match="more than 100 bytes"):
        ask(server.url, "up")


def test_a_server_that_hangs_is_unknown(server):
    server.go_on.clear()
    assert answer(server, above=1.0, timeout=0.1) is None


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.says(9)
    assert answer(server) == "9, above 5"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x", "x", 5, "http://", "http://u:hunter2@x", "http://x:99999", "http://x?y=1", "http://[x"]
)
def test_only_http_is_asked(url):
    with pytest.raises(ConfigurationError, match="url") as refused:
        PrometheusQuery(url, "up", above=1.0)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "above"),
        ({"above": 1.0, "below": 1.0}, "above"),
        ({"above": "x"}, "above"),
        ({"above": 1.0, "timeout": 100.0}, "timeout"),
        ({"above": 1.0, "interval": 0.0}, "interval"),
        ({"above": 1.0, "max_age": 1.0}, "max_age"),
        ({"above": 1.0, "query": ""}, "query"),
        ({"above": 1.0, "name": "a b"}, "name"),
    ],
)
def test_what_is_wrong_is_named(options, field):
    with pytest.raises(ConfigurationError, match=field):
        PrometheusQuery("http://x", **{"query": "up", **options})


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_no_answer_of_any_kind_raises_anything_but_what_is_promised(body):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_prometheus_api, "_fetch", lambda *_: (200, body))
        with contextlib.suppress(ValueError):
            ask("http://x", "up")


def test_an_experiment_is_stopped_by_it(server, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    server.says(9, at=4_000_000_000.0)
    resilience = Resilience("x", environment="test")
    resilience.guard("dep")
    resilience.chaos.opt_in()
    condition = PrometheusQuery(server.url, "up", above=5.0, name="errors")
    run = resilience.chaos.arm(ChaosConfig("error", "dep", stop_when=(condition,)))
    for _ in range(2_000):
        if run.end_reason:
            break
        threading.Event().wait(0.01)
    assert (run.end_reason, run.end_detail) == ("condition errors", "9, above 5")
