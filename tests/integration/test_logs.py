"""Logs of a real service, read by those who read logs: a JSON parser on its output, and rsyslog behind a socket."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from somaresil import Resilience
from somaresil.integrations.jsonlogs import JsonFormatter
from somaresil.integrations.logging import ResilienceFilter
from tests.integration.servers import HOST, Server, answers, free_port

PATIENCE = 30.0
APP = Path(__file__).with_name("logs_app.py")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Everything that the service has written while it was asked."""
    port = free_port()
    output = tmp_path_factory.mktemp("logs") / "stdout"
    with output.open("wb") as stdout:
        service = subprocess.Popen([sys.executable, str(APP), str(port)], stdout=stdout, stderr=subprocess.STDOUT, env={**os.environ})
        try:
            deadline = time.monotonic() + PATIENCE
            while not answers(f"http://{HOST}:{port}/openapi.json"):
                assert time.monotonic() < deadline, output.read_text()
                assert service.poll() is None, output.read_text()
                time.sleep(0.05)
            # Uvicorn closes the connection on which an app has raised.
            own = {"connection": "close"}
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE, headers=own) as client:
                client.get("/ask/weather%0aforged", params={"token": "hunter2"}, headers={"x-request-id": "r-1"}).raise_for_status()
                client.get("/blocking/7", headers={"x-request-id": "r-2"}).raise_for_status()
                assert client.get("/fails", headers={"x-request-id": "r-3"}).status_code == 500
                client.get("/storm", headers={"x-request-id": "r-4"}).raise_for_status()
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(PATIENCE)
    return output.read_text()


@pytest.fixture(scope="module")
def lines(written):
    return [json.loads(line) for line in written.splitlines()]


def about(lines, request_id):
    return [line for line in lines if line.get("request_id") == request_id]


def test_everything_is_json_and_says_which_service_it_is(lines):
    """Lines of uvicorn as well, from the first to the last."""
    assert {(line["service.name"], line["service.instance.id"], line["deployment.environment.name"]) for line in lines} == {
        ("gateway", "gateway-1", "test")
    }
    assert {line["logger"] for line in lines} >= {"uvicorn.error", "uvicorn.access", "gateway.app", "somaresil.events"}


def test_no_secret_is_written(written):
    """Not those in queries, not those under their names, not those in messages of errors."""
    assert "hunter2" not in written


def test_lines_of_a_request_belong_together(lines):
    """By id and route, those of the guarded call by guard and attempt, all within the span by its trace; the access line too."""
    found = about(lines, "r-1")
    own = [line for line in found if line["logger"] == "gateway.app"]
    assert [(line["somaresil.guard"], line["somaresil.attempt"], line["message"]) for line in own] == [
        ("llm.invoke", 1, "asking the model for weather\nforged"),
        ("llm.invoke", 2, "asking the model for weather\nforged"),
    ]
    assert own[0]["api_key"] == "[hidden]"
    assert own[0]["prompt_tokens"] == 3
    assert {line["http.route"] for line in found} == {"/ask/{topic}"}
    traces = {line["trace_id"] for line in found if "trace_id" in line}
    assert len(traces) == 1
    events = [line["event.name"] for line in found if "event.name" in line]
    assert events == ["AttemptFailed", "RetryScheduled"]
    (access,) = [line for line in found if line["logger"] == "uvicorn.access"]
    assert access["http.response.status_code"] == 200
    assert access["url.path"].startswith("/ask/weather")


def test_a_line_of_a_worker_thread_knows_its_request(lines):
    """FastAPI runs plain functions in threads."""
    (line,) = [line for line in about(lines, "r-2") if line["logger"] == "gateway.app"]
    assert (line["message"], line["http.route"]) == ("in a thread", "/blocking/{item}")


def test_an_error_of_the_app_has_type_and_frames(lines):
    """Uvicorn logs it after the app has ended: it has no request any more, and says so by silence."""
    (line,) = [line for line in lines if line.get("exception.type") == "ValueError"]
    assert line["level"] == "ERROR"
    assert "logs_app.py" in line["exception.stacktrace"]


def test_a_storm_is_limited_and_counted_to_the_last_line(lines):
    """Even when the process ends before the limit has let another one pass."""
    storm = [line for line in lines if line["message"].startswith("no answer from")]
    told = [line for line in lines if "somaresil.left_out" in line and "no answer from" in line["message"]]
    assert len(storm) == 20
    assert sum(line["somaresil.left_out"] for line in told) == 480
    assert {line["level"] for line in told} == {"ERROR"}


class Rsyslog(Server):
    """Debian's rsyslog: takes syslog over TCP, parses what is JSON in it, and writes what it has understood to a file."""

    def __init__(self, *, folder, binary):
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.output = folder / "understood"
        config = folder / "rsyslog.conf"
        config.write_text(
            f"""global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imtcp" addtlframedelimiter="0")
module(load="mmjsonparse")
template(name="understood" type="string" string="%parsesuccess% %$!all-json%\\n")
ruleset(name="lines") {{
  action(type="mmjsonparse")
  action(type="omfile" file="{self.output}" template="understood")
}}
input(type="imtcp" address="{HOST}" port="{port}" ruleset="lines")
"""
        )
        super().__init__([binary, "-n", "-f", config, "-i", folder / "pid"], port=port, folder=folder)


def test_rsyslog_understands_every_line(tmp_path):
    """Hostile ones too: each is one message, and its text arrives as it was."""
    binary = shutil.which("rsyslogd") or shutil.which("/usr/sbin/rsyslogd")
    if binary is None:
        pytest.skip("rsyslog is not installed: `apt-get install rsyslog`, or run `nox -s tests` as root")
    hostile = [
        "plain",
        "two\nlines\r\n<13>forged: @cee: {}",
        "\x1b[2Jcleared",
        "\u202eturned\u2028",
        'quotes " and \\ and {"a":1}',
        "ü€😀",
        "",
    ]
    resilience = Resilience("gateway")
    logger = logging.getLogger("test_logs.rsyslog")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    with Rsyslog(folder=tmp_path / "rsyslog", binary=binary) as server:
        handler = logging.handlers.SysLogHandler((HOST, server.port), socktype=socket.SOCK_STREAM)
        handler.ident = "gateway: @cee: "
        handler.setFormatter(JsonFormatter(resilience))
        handler.addFilter(ResilienceFilter(resilience))
        logger.addHandler(handler)
        try:
            for text in hostile:
                resilience.guard("db").call(logger.warning, "%s", text, extra={"user": text})
            deadline = time.monotonic() + PATIENCE
            while not server.output.exists() or server.output.read_bytes().count(b"\n") < len(hostile):
                assert time.monotonic() < deadline, "rsyslog has not written all lines"
                time.sleep(0.02)
        finally:
            logger.removeHandler(handler)
            handler.close()
        understood = [line.partition(" ") for line in server.output.read_text().strip().split("\n")]
    assert [success for success, _, _ in understood] == ["OK"] * len(hostile)
    parsed = [json.loads(text) for _, _, text in understood]
    assert [line["message"] for line in parsed] == hostile
    assert [line["user"] for line in parsed] == hostile
    assert {line["somaresil.guard"] for line in parsed} == {"db"}
