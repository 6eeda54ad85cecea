"""The command `somaresil chaos` against a service that is served, and against what is none."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from somaresil.cli import main
from tests.integration.test_control import TOKEN, Service, served


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_TOKEN", TOKEN)
    with served(Service()) as running:
        monkeypatch.setenv("SOMARESIL_CHAOS_URL", running.url)
        yield running


def test_an_experiment_is_started_listed_and_stopped(service, capsys):
    assert (
        main(["chaos", "start", "--target", "llm.*", "--kind", "latency", "--delay", "0.5", "--duration", "30", "--option", "calls=[1, 2]"])
        == 0
    )
    assert main(["chaos", "list"]) == 0
    listed = capsys.readouterr().out
    assert "latency-1  running  llm.*" in listed
    assert listed.count("ops") == 2
    assert main(["chaos", "stop", "latency-1", "--reason", "enough"]) == 0
    assert service.resilience.chaos.runs == ()
    assert "ended" in capsys.readouterr().out


def test_a_plan_is_started_from_a_file_and_everything_is_stopped(service, capsys, tmp_path):
    plan = tmp_path / "plan.json"
    windows = [{"target": "llm.*", "kind": "error", "start": start, "duration": 5} for start in (0, 9)]
    plan.write_text(json.dumps({"somaresil_plan": 1, "seed": 3, "windows": windows}), encoding="utf-8")
    assert main(["chaos", "start", str(plan), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3
    assert main(["chaos", "stop", "--all"]) == 0
    assert capsys.readouterr().out == "stopped: error-1, error-2\n"


def test_the_status_is_shown(service, capsys):
    assert main(["chaos", "status"]) == 0
    assert "gateway" in capsys.readouterr().out


def test_what_the_service_refuses_is_told_problem_by_problem(service, capsys):
    assert main(["chaos", "start", "--target", "llm.invke", "--kind", "error", "--duration", "9999"]) == 1
    told = capsys.readouterr().err
    assert "refused (422): nothing was armed" in told
    assert "duration = " in told
    assert "did you mean 'llm.invoke'?" in told
    assert main(["chaos", "stop", "nobody"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["stop"],
        ["stop", "error-1", "--all"],
        ["start"],
        ["start", "--target", "x"],
        ["start", "nowhere.json"],
        ["start", "--target", "x", "--kind", "error", "--duration", "1", "--option", "calls"],
        ["list", "--token-env", "NO_SUCH_VARIABLE"],
        ["list", "--url", "file:///etc/passwd"],
        ["list", "--url", "http://127.0.0.1:1/"],
        ["list", "--timeout", "0"],
    ],
)
def test_what_cannot_be_done_is_told_so(service, capsys, arguments):
    assert main(["chaos", *arguments]) == 2
    assert capsys.readouterr().err.startswith("somaresil chaos: ")


def test_a_wrong_token_and_a_wrong_place_look_alike(service, capsys, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS_TOKEN", "x" * 40)
    assert main(["chaos", "list"]) == 2
    assert "a token that is not known there" in capsys.readouterr().err


class _Elsewhere(BaseHTTPRequestHandler):
    answers = b"HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"
    asked: list[str] = []  # noqa: RUF012 - one server

    def do_GET(self):
        self.asked.append(self.path)
        self.wfile.write(self.answers)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize(
    "answers",
    [
        b"HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{x",
        b"HTTP/1.1 500 No\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\n\r\n{}",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_control_app_is_not_followed_nor_believed(answers, monkeypatch, capsys):
    monkeypatch.setenv("SOMARESIL_CHAOS_TOKEN", TOKEN)
    monkeypatch.setattr(_Elsewhere, "answers", answers)
    monkeypatch.setattr(_Elsewhere, "asked", [])
    server = HTTPServer(("127.0.0.1", 0), _Elsewhere)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        assert main(["chaos", "list", "--url", f"http://127.0.0.1:{server.server_port}/"]) == 2
    finally:
        server.shutdown()
        thread.join(20.0)
        server.server_close()
    assert _Elsewhere.asked == ["/experiments"]


# -- by the file of the host, without the service ---------------------------------------------------------------------------------------

VICTIM = """
import sys, time
from somaresil import ChaosConfig, ChaosExperiment, Resilience
resilience = Resilience("victim", environment="test", seed=1)
resilience.guard("call")
resilience.chaos.opt_in(switch=sys.argv[1])
run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "call", 1.0, 60.0))
run.on_end(lambda: print(run.end_reason, time.monotonic(), flush=True))
print("armed", flush=True)
sys.stdin.read()
"""


def test_stop_ends_the_experiments_of_every_process_of_the_host(tmp_path, monkeypatch, capsys):
    """Within a second, with no control app mounted and nobody calling; and what is engaged stays so for processes that come."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    switch = str(tmp_path / "victim.switch")
    command = [sys.executable, "-c", VICTIM, switch]
    with ExitStack() as running:
        victims = []
        for _ in range(2):
            victim = running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            running.callback(victim.kill)
            assert victim.stdout.readline() == "armed\n"
            victims.append(victim)
        thrown = time.monotonic()
        assert main(["chaos", "stop", "--host", "victim", "--switch", switch]) == 0
        for victim in victims:
            reason, at = victim.stdout.readline().split()
            assert reason == "stop_all"
            assert float(at) - thrown < 10.0
        assert main(["chaos", "engage", "--host", "victim", "--switch", switch, "--reason", "incident"]) == 0
        assert "incident" in capsys.readouterr().out
        late = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert late.returncode == 1
        assert "a lever that is released" in late.stderr
        assert main(["chaos", "disengage", "--host", "victim", "--switch", switch]) == 0
        assert main(["chaos", "status", "--host", "victim", "--switch", switch, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.partition("\n")[2])["engaged"] is None
        for victim in victims:
            victim.stdin.close()
            victim.wait(timeout=10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stop", "--host", "victim", "an-id"], "takes no ids"),
        (["stop", "--host", "no such name!"], "service"),
        (["engage", "--host", "victim", "--switch", "off"], "off"),
        (["stop", "--host", "victim", "--switch", "/proc/none/such"], "the kill switch"),
    ],
)
def test_what_cannot_be_done_by_the_file_is_said(arguments, says, capsys):
    """And nothing is done."""
    assert main(["chaos", *arguments]) == 2
    assert says in capsys.readouterr().err
