"""Load against a real uvicorn: HTTP, server-sent events, WebSockets, every way to fail, the command, and a known knee."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from somaresil.load import Request, Scenario, Stage, Threshold, Upload, run_scenario, scenario_capacity
from somaresil.load.http import Target
from somaresil.load.orders import Orders
from somaresil.load.scenario import ServerPart
from tests.integration.servers import HOST, Server, free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Give the address of a running service."""
    port = free_port()
    app = "tests.integration.load_app:app"
    command = [sys.executable, "-m", "uvicorn", app, "--host", HOST, "--port", port, "--log-level", "critical", "--ws", "wsproto"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with Server(command, port=port, folder=tmp_path_factory.mktemp("load"), ready="/ok", environment=environment) as server:
        yield server.url


def load(service, *requests, rate=50.0, seconds=1.0, **options):
    """Run requests at a constant rate."""
    scenario = Scenario("test", service, requests, (Stage(seconds, rate),), arrival="constant", **options)
    return asyncio.run(run_scenario(scenario))


def test_every_request_is_answered_and_connections_are_kept(service):
    """A hundred requests are a hundred good ones on the side of the client and on that of the service."""
    before = counts(service).get("/ok", 0)
    report = load(service, Request("ok", "/ok"), rate=100.0)
    book = report.run.books.total()
    assert (book.started, book.good, book.failed, book.dropped) == (100, 100, 0, 0)
    assert counts(service)["/ok"] - before == 100
    assert report.run.complete


def counts(service):
    with urllib.request.urlopen(f"{service}/counts", timeout=5) as reply:
        return json.load(reply)


def test_the_first_token_is_when_it_came(service):
    """A service that needs 20 ms to the first token and to each next one is seen as just that."""
    report = load(service, Request("sse", "/sse", kind="sse", end="[DONE]"), rate=20.0, seconds=2.0)
    book = report.run.books.total()
    assert (book.good, book.streams, book.truncated, book.items) == (40, 40, 0, 400)
    assert 0.019 <= book.first.quantile(0.5) <= 0.045
    assert 0.018 <= book.gap.quantile(0.5) <= 0.04
    assert 0.19 <= book.latency.quantile(0.5) <= 0.4


@pytest.mark.parametrize(("path", "failure"), [("/cut", "truncated"), ("/torn", "cut off")])
def test_a_stream_without_its_end_is_truncated(service, path, failure):
    """Whether it ends politely or not: without the last event it is not an answer."""
    report = load(service, Request("sse", path, kind="sse", end="[DONE]"), rate=10.0)
    book = report.run.books.total()
    assert book.errors == {failure: 10}
    assert (book.streams, book.truncated, book.good) == (10, 10, 0)


def test_a_stream_that_goes_on_after_its_last_event_is_over(service):
    """Its time is that of the last event; the connection is not waited for."""
    report = load(service, Request("sse", "/endless", kind="sse", end="[DONE]", timeout=5.0), rate=10.0)
    assert report.run.books.total().good == 10
    assert report.run.books.total().latency.largest < 1.0


def test_a_websocket_is_a_stream(service):
    """Messages, gaps between them, and the last one."""
    report = load(service, Request("ws", "/ws", kind="websocket", messages=("hello {n}",), end="end"), rate=20.0)
    book = report.run.books.total()
    assert (book.good, book.streams, book.items, book.truncated) == (20, 20, 100, 0)
    assert 0.009 <= book.first.quantile(0.5) <= 0.05


@pytest.mark.parametrize(("path", "failure"), [("/ws-cut", "truncated"), ("/refuses", "status 403")])
def test_a_websocket_that_fails_says_how(service, path, failure):
    """One that is closed before its last message is truncated, one that is refused has a status."""
    report = load(service, Request("ws", path, kind="websocket", messages=("x",), end="end"), rate=10.0)
    assert report.run.books.total().errors == {failure: 10}


def test_errors_are_counted_by_kind(service):
    """A status is named, and a quick error is in no latency."""
    report = load(service, Request("bad", "/bad"), Request("ok", "/ok"), rate=100.0)
    book = report.run.books.total(["bad"])
    assert book.errors == {"status 503": book.ended}
    assert book.latency.count == 0
    assert report.exit_code == 1


def test_an_expected_status_is_good(service):
    """503 may be what is wanted."""
    assert load(service, Request("bad", "/bad", expect=(503,)), rate=10.0).run.books.total().good == 10


def test_injected_errors_are_apart(service):
    """What carries the mark of an experiment is in no figure of the others, and breaks no limit."""
    report = load(service, Request("struck", "/struck"), Request("ok", "/ok"), thresholds=(Threshold("error_rate", 0.1),), rate=100.0)
    assert report.run.books.total().errors == {}
    assert report.run.books.total(parts=("injected",)).errors["status 503"] > 10
    assert report.exit_code == 0
    assert any("struck" in row[3] for row in report.errors())


def test_a_hung_service_fills_no_queue(service):
    """Requests that are never answered end with their time; beyond the most in flight arrivals are dropped."""
    report = load(service, Request("hang", "/hang", timeout=0.5), rate=100.0, max_in_flight=20)
    book = report.run.books.total()
    assert book.started + book.dropped == 100
    assert book.dropped >= 50
    assert book.errors == {"timeout": book.started}


def test_nobody_there_is_an_error_of_each_request():
    """A port on which nobody listens refuses, and that is counted."""
    report = load(f"http://{HOST}:{free_port()}", Request("ok", "/ok"), rate=20.0)
    assert report.run.books.total().errors == {"refused": 20}


def test_what_is_sent_is_what_was_written(service):
    """Method, body, headers and places arrive as the scenario says; every id is another."""
    target = Target.of(service)
    body = {"text": "question {n}", "braces": "{{n}}", "deep": ["{session}"]}
    request = Request("echo", "/echo", method="POST", headers={"x-request-id": "{id}"}, json=body)
    orders = Orders([request], target, run="r7", sessions=3)
    seen = [orders(number).payload.data for number in range(4)]
    assert b"x-request-id: r7-3\r\n" in seen[3]
    assert seen[3].endswith(b'{"text":"question 3","braces":"{n}","deep":["s0"]}')
    assert b"Content-Type: application/json\r\n" in seen[0]
    report = load(service, request, Request("up", "/echo", method="POST", upload=Upload(100_000, field="file")), rate=20.0)
    assert report.run.books.total().good == 20


def test_the_service_is_read_beside_its_clients(service):
    """What the service has counted during the run is judged by the target that it tells itself."""
    report = load(service, Request("ok", "/ok"), rate=50.0, server=ServerPart(f"{service}/metrics", ("up", "unknown")))
    assert report.server.objectives["up"] == (50.0, 50.0, 0.9)
    answers = {check.what: check.answer for check in report.checks if check.side == "server"}
    assert answers == {"up: 0.9": "kept", "unknown": "unknown"}


@pytest.mark.slow
def test_a_known_knee_is_found_within_a_tenth(service):
    """Four workers of 20 ms do what they do when they never rest, and that is where the knee is."""
    request = Request("workers", "/workers", timeout=20.0)
    limits = (Threshold("p95", 0.15), Threshold("error_rate", 0.01))

    def at_most():
        run = load(service, request, rate=300.0, seconds=2.0).run
        return run.per_second(run.books.total().good)

    scenario = Scenario("knee", service, (request,), (Stage(1.0, 400.0),), arrival="constant", thresholds=limits)
    before, found, after = at_most(), asyncio.run(scenario_capacity(scenario, start=150.0, seconds=1.5, runs=1)), at_most()
    assert found.found, found.lines()
    # By arithmetic 200, less what timers and the machine take.
    assert 0.9 * min(before, after) <= found.knee <= 1.1 * max(before, after)
    assert found.headroom(100.0) == pytest.approx(found.knee / 100.0 - 1.0)


# -- the command --------------------------------------------------------------------------------------------------------------------------

SCENARIO = """
name = "small"
target = "http://127.0.0.1:1"
arrival = "constant"
stages = [{ name = "steady", seconds = SECONDS, rate = 50 }]

[[requests]]
name = "ok"
path = "PATH"

[thresholds]
p95 = 0.5
error_rate = 0.05
"""


def command(tmp_path, *arguments, path="/ok", seconds="1", text=SCENARIO):
    """The command line for a scenario file."""
    file = tmp_path / "scenario.toml"
    file.write_text(text.replace("PATH", path).replace("SECONDS", seconds))
    return [sys.executable, "-m", "somaresil", "load", arguments[0], str(file), *arguments[1:]]


def run_command(tmp_path, *arguments, **options):
    return subprocess.run(command(tmp_path, *arguments, **options), capture_output=True, text=True, timeout=60, check=False)


def test_the_command_runs_a_file_and_writes_every_form(service, tmp_path):
    """0 for a good run; text on stdout, progress on stderr, the other forms in files."""
    files = [tmp_path / name for name in ("r.json", "r.md", "r.html")]
    done = run_command(tmp_path, "run", "--target", service, "--out", str(files[0]), "--markdown", str(files[1]), "--html", str(files[2]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small: kept\n")
    assert "offered/s" in done.stderr
    data = json.loads(files[0].read_text())
    assert data["requests"]["ok"]["good"] == 50
    assert data["answer"] == "kept"
    assert files[1].read_text().startswith("<!-- somaresil load -->\n### Load: small\\: kept\n")
    page = files[2].read_text()
    assert "<svg" in page
    assert "<script" not in page


def test_the_command_ends_with_1_when_a_limit_is_broken(service, tmp_path):
    """And says which."""
    done = run_command(tmp_path, "run", "--target", service, "--quiet", path="/bad")
    assert done.returncode == 1
    assert "NOT KEPT" in done.stdout
    assert "status 503" in done.stdout
    assert done.stderr == ""


def test_the_command_ends_with_2_when_nothing_can_be_decided(service, tmp_path):
    """Ten requests say nothing about one in a thousand, and it is told how many would."""
    done = run_command(tmp_path, "run", "--target", service, "--quiet", text=SCENARIO.replace("0.05", "0.001"))
    assert done.returncode == 2
    assert "at least 1000 are needed to decide" in done.stdout


def test_ctrl_c_leaves_nothing_and_tells_what_was_seen(service, tmp_path):
    """The figures until then are printed, and the exit code is that of the signal."""
    process = subprocess.Popen(
        command(tmp_path, "run", "--target", service, seconds="60"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if "offered/s" in process.stderr.readline():
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "ended by SIGINT" in out
    assert "Traceback" not in out


def test_a_host_elsewhere_needs_permission(tmp_path):
    """Load is not sent anywhere by a slip."""
    done = run_command(tmp_path, "run", "--target", "http://service.example:80", "--quiet")
    assert done.returncode == 2
    assert "--allow-host service.example" in done.stderr


def test_a_wrong_file_is_told_with_its_lines(tmp_path):
    """Every problem at once, none of them a traceback."""
    text = SCENARIO.replace('name = "ok"', 'nam = "ok"').replace("p95 = 0.5", "p95 = -1\np105 = 3")
    done = run_command(tmp_path, "check", text=text)
    assert done.returncode == 2
    for said in ("nam", "p105", "p95 = -1", "scenario.toml:"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_capacity_as_a_command(service, tmp_path):
    """The knee, the probes, the law; 1 when what is offered now does not fit."""
    arguments = ("capacity", "--target", service, "--seconds", "1", "--precision", "0.4", "--runs", "1", "--start", "150", "--quiet")
    text = SCENARIO.replace("p95 = 0.5", "p95 = 0.1")
    done = run_command(tmp_path, *arguments, "--current", "5000", "--out", str(tmp_path / "c.json"), path="/workers", text=text)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "headroom over 5000 a second" in done.stdout
    assert json.loads((tmp_path / "c.json").read_text())["knee"] > 100
