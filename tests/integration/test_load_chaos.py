"""Experiments while a service is under load, and the shapes of load against the gateway of the demo."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest

from somaresil.cli import main
from somaresil.demo.processes import Fleet
from somaresil.load import PRESETS, Run, Stage
from somaresil.load.books import Books
from somaresil.load.generator import Point
from somaresil.load.orders import Request
from somaresil.load.scenario import Scenario
from somaresil.load_command.progress import LiveProgress, PlainProgress, progress_for
from tests.integration.test_gameday_remote import PATIENCE, ROOT, TOKEN, served

SCENARIO = """
name = "chaos"
target = "{url}"
arrival = "constant"
stages = [{{ seconds = 3, rate = 50 }}]
[[requests]]
name = "items"
path = "/items"
[thresholds]
error_rate = 0.02
p95 = 1.0
[chaos]
url = "{url}{root}"
token_env = "L_TOKEN"
windows = [{{ target = "{target}", kind = "error", start = 1, duration = 1, rate = 0.5 }}]
"""


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


def play(tmp_path, url, target, capsys):
    file = tmp_path / "chaos.toml"
    file.write_text(SCENARIO.format(url=url, root=ROOT, target=target))
    code = main(["load", "run", str(file), "--json", "--quiet"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out or code == 2, captured.err
    return code, json.loads(captured.out) if captured.out else None, captured.err


def test_faults_of_requests_are_injected_while_they_run_and_kept_apart(tmp_path, monkeypatch, capsys):
    """Errors that carry the mark of the experiment break no limit; the plan's window and its count are in the report."""
    monkeypatch.setenv("L_TOKEN", TOKEN)
    with served() as (_, url):
        code, data, err = play(tmp_path, url, "http:/items", capsys)
    assert data is not None, err
    struck = sum(book["ended"] for book in data["books"]["injected"].values())
    assert 10 <= struck <= 40
    assert data["books"]["calm"]["items"]["errors"] == {}
    assert data["books"]["chaos"]["items"]["good"] > 5
    assert data["chaos"] == [f"error on http:/items: {struck} injected"]
    assert code == 0


def test_faults_deeper_inside_are_seen_as_what_happened_while_one_ran(tmp_path, monkeypatch, capsys):
    """An error that no mark betrays counts, and is told apart by its time."""
    monkeypatch.setenv("L_TOKEN", TOKEN)
    with served() as (_, url):
        code, data, _ = play(tmp_path, url, "llm.invoke", capsys)
    assert data["books"]["calm"]["items"]["errors"].get("status 500", 0) <= 3
    assert data["books"]["chaos"]["items"]["errors"]["status 500"] >= 10
    assert code == 1


def test_without_a_token_nothing_is_sent(tmp_path, monkeypatch, capsys):
    """It is found out before the first request."""
    monkeypatch.delenv("L_TOKEN", raising=False)
    with served() as (_, url):
        code, data, err = play(tmp_path, url, "llm.invoke", capsys)
    assert code == 2
    assert "expected a bearer token in it" in data["error"]["message"]
    assert "token" in err


def test_a_plan_that_the_service_refuses_is_not_run(tmp_path, monkeypatch, capsys):
    """No load without the experiment that was to be watched."""
    monkeypatch.setenv("L_TOKEN", TOKEN)
    with served() as (resilience, url):
        resilience.chaos.engage("not today")
        code, data, err = play(tmp_path, url, "llm.invoke", capsys)
    assert code == 2
    assert "expected a lever that is released" in data["error"]["message"]
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def gateway():
    """The gateway of the demo with everything behind it."""
    with Fleet() as fleet:
        settings = fleet.start_services(7)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"{settings.gateway}/health", timeout=1):
                    break
            except OSError:
                assert time.monotonic() < deadline, fleet.last_words()
                time.sleep(0.05)
        yield settings.gateway


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*PRESETS])
def test_every_shape_runs_against_the_demo(gateway, preset, tmp_path):
    """The conversation user in every preset, compressed to seconds: every kind of request is answered, and nothing is lost."""
    command = [sys.executable, "-m", "somaresil", "load"]
    file = tmp_path / "conversation.toml"
    file.write_text(subprocess.run([*command, "template"], capture_output=True, text=True, check=True, timeout=30).stdout)
    seconds, users = PRESETS[preset].seconds, PRESETS[preset].users
    options = ["--target", gateway, "--preset", preset, "--compress", str(seconds / 4.0), "--scale", str(40.0 / users)]
    done = subprocess.run(
        [*command, "run", str(file), *options, "--json"], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    data = json.loads(done.stdout)
    assert done.returncode in {0, 1, 2}, done.stderr
    assert set(data["requests"]) == {"message", "upload", "events"}
    assert all(figures["good"] > 0 for figures in data["requests"].values())
    total = Books.from_dict(data["books"]).total(parts=("calm", "chaos", "injected"))
    assert total.started + total.dropped == data["offered"]
    assert total.started == total.ended
    assert total.dropped == 0
    assert total.failed <= 0.1 * total.ended
    assert "offered/s" in done.stderr


# -- what is shown meanwhile -------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def a_run():
    point = Point(1.0, 1.0, 10, 9, 1, 0, 0, 0.1, 0.2, None, 3, 0.1, 0.001)
    return Scenario("shown", "http://127.0.0.1", (Request("a", "/"),), (Stage(10.0, 10.0),)), Run(Books(), points=[point]), point


def test_a_terminal_gets_a_table_and_a_log_lines(monkeypatch):
    """rich where somebody looks, plain lines elsewhere, nothing when nothing is wanted."""
    monkeypatch.setenv("TERM", "xterm")
    scenario, run, point = a_run()
    screen = Terminal()
    live = progress_for(screen, scenario, quiet=False)
    assert isinstance(live, LiveProgress)
    live.point(point, run)
    live.note("a line")
    live.close()
    assert "shown" in screen.getvalue()
    assert "a line" in screen.getvalue()
    log = io.StringIO()
    plain = progress_for(log, scenario, quiet=False)
    assert isinstance(plain, PlainProgress)
    plain.point(point, run)
    plain.note("a\x1bline")
    plain.close()
    assert "10 offered/s, 9 good/s, 1 failed" in log.getvalue()
    assert "\x1b" not in log.getvalue()
    quiet = progress_for(screen, scenario, quiet=True)
    quiet.point(point, run)
    quiet.note("x")
    quiet.close()
