"""``somaresil gameday``: exit codes, what is written, and that a signal ends everything and still leaves a report."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from xml.etree import ElementTree as ET

import pytest

from somaresil.cli import main
from somaresil.gameday import GameDayReport, Status, command

SERVICE = """
import asyncio
from contextlib import suppress
from somaresil import Resilience, Retry
resilience = Resilience("gateway", environment="test", seed=3)
resilience.chaos.opt_in()
guard = resilience.guard("llm.invoke", retry=Retry(attempts=5, wait=0.001))
probes = {"queue": lambda: 0}
failing = False
async def answer():
    if failing:
        raise OSError
async def drive():
    while True:
        with suppress(Exception):
            await guard.acall(answer)
        await asyncio.sleep(0.005)
async def trouble():
    global failing
    failing = True
    await drive()
async def broken():
    raise OSError("no route")
async def blocks():
    import time
    asyncio.get_running_loop().call_later(0.8, lambda: print("READY", flush=True) or time.sleep(1.5))
    await drive()
"""
PLAN = """
somaresil_gameday = 1
name = "day"
[[experiments]]
name = "errors"
baseline = 0.3
recover = 5
every = 0.1
faults = [{ target = "llm.invoke", kind = "error", start = 0, duration = DURATION, rate = RATE }]
hypothesis = [{ kind = "ratio", target = "llm.invoke", minimum = 0.9, minimum_calls = 3, window = 0.3 }]
"""


@pytest.fixture(autouse=True)
def service(tmp_path, monkeypatch):
    """A module of its own for each test."""
    name = f"played_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def plan(tmp_path):
    """Write a plan; its path."""

    def write(rate=0.2, duration=0.5, text=PLAN, more=""):
        path = tmp_path / "plan.toml"
        path.write_text(text.replace("RATE", str(rate)).replace("DURATION", str(duration)) + more)
        return str(path)

    return write


def run(service, plan, *arguments, drive="drive"):
    return main(["gameday", "run", plan, "--app", f"{service}:resilience", "--drive", f"{service}:{drive}", *arguments])


def test_a_day_that_holds_ends_with_0_and_is_written_in_every_form(service, plan, tmp_path, capsys):
    """JSON, Markdown, HTML, JUnit XML; one line for people."""
    folder, junit = tmp_path / "reports" / "today", tmp_path / "junit.xml"
    assert run(service, plan(), "--report-dir", str(folder), "--junit", str(junit)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("day: all 1 held; ")
    assert "errors: inject, 0.5 s" in err
    report = GameDayReport.from_json((folder / "gameday.json").read_text())
    assert report.held
    assert (folder / "gameday.md").read_text().startswith("# day: all 1 held")
    assert (folder / "gameday.html").read_text().startswith("<!doctype html>")
    assert ET.parse(junit).getroot().get("failures") == "0"


@pytest.mark.parametrize(
    ("rate", "drive", "code", "status"),
    [(1.0, "drive", 1, Status.DEVIATED), (0.2, "trouble", 3, Status.NOT_STARTED), (0.2, "broken", 2, Status.FAILED)],
)
def test_exit_codes_say_what_came_of_it(service, plan, capsys, rate, drive, code, status):
    """Deviated, steady state already failed, could not be run; stdout is JSON alone."""
    assert run(service, plan(rate), "--json", drive=drive) == code
    assert GameDayReport.from_json(capsys.readouterr().out).experiments[0].status is status


def test_a_dry_run_checks_everything_and_does_nothing(service, plan, capsys):
    """It says what would be done; what would be refused is refused."""
    assert run(service, plan(), "--dry-run") == 0
    assert capsys.readouterr().out.endswith("dry run: nothing was injected\n")
    assert run(service, plan(text=PLAN.replace("llm.invoke", "llm.invok")), "--dry-run") == 2
    assert "did you mean 'llm.invoke'?" in capsys.readouterr().err


def test_functions_are_named_on_the_command_line_never_in_the_plan(service, plan, capsys):
    """A probe by name finds what the code has handed in."""
    more = '\n[[experiments.abort]]\nkind = "callable"\ntarget = "queue"\nmaximum = 3\n'
    assert run(service, plan(more=more)) == 2
    assert "a function that was handed in" in capsys.readouterr().err
    assert run(service, plan(more=more), "--probes", f"{service}:probes") == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["--app", "absent_module:x"],
        ["--app", "json:dumps"],
        ["--drive", "json:dumps"],
        ["--probes", "json:dumps"],
        ["--report-dir", "/dev/null/x"],
    ],
)
def test_what_cannot_be_run_ends_with_2(service, plan, capsys, wrong):
    """And says why, before anything is done."""
    assert run(service, plan(), *wrong) == 2
    assert capsys.readouterr().err.startswith("somaresil gameday: ")


def test_check_says_what_is_wrong_with_a_plan(plan, capsys):
    """Or what is in it."""
    assert main(["gameday", "check", plan()]) == 0
    assert "fault: FaultWindow" in capsys.readouterr().out
    assert main(["gameday", "check", plan(rate=7)]) == 2
    assert "experiments[0].faults[0].rate" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_every_fault_and_the_report_is_written(service, plan, tmp_path, number):
    """From its handler, also while the loop is blocked; the exit code is 130."""
    path = tmp_path / "report"
    command = [sys.executable, "-m", "somaresil", "gameday", "run", plan(duration=60), "--app", f"{service}:resilience"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [*command, "--drive", f"{service}:blocks", "--report-dir", str(path)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "READY\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    report = json.loads((path / "gameday.json").read_text())
    assert report["interrupted"] == number.name
    (experiment,) = report["experiments"]
    assert experiment["status"] == "interrupted"
    assert experiment["faults"][0]["end_reason"] == "stopped"


def test_where_the_service_is_stands_in_one_place(service, plan, capsys):
    """In the plan or on the command line: none is refused, and so are both."""
    assert main(["gameday", "run", plan()]) == 2
    assert "--app is needed: the plan names no targets" in capsys.readouterr().err
    targets = '\n[[targets]]\nurl = "http://127.0.0.1:1/c"\ntoken_env = "T_TOKEN"\n'
    assert run(service, plan(more=targets)) == 2
    assert "the plan names its targets: without --app" in capsys.readouterr().err


def test_who_is_to_ask_prometheus_is_a_function(service, plan, capsys):
    """Anything else is refused by its name."""
    assert run(service, plan(), "--prometheus", f"{service}:failing") == 2
    assert f"{service}:failing is no function" in capsys.readouterr().err


def test_groups_are_part_of_the_outline(plan, capsys):
    """Their share, and by what requests are divided."""
    assert main(["gameday", "check", plan(more='groups = { share = 0.1, by = "tenant" }\n')]) == 0
    assert "groups: 10.0% each, by tenant" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_printed(service, plan, tmp_path, capsys, monkeypatch):
    """What was measured is not lost, and the exit code says that something went wrong."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "_write", full)
    assert run(service, plan()) == 2
    out, err = capsys.readouterr()
    assert GameDayReport.from_json(out).held
    assert "the report cannot be written: OSError: [Errno 28]" in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("said", "opens"), [("y\n", True), (" YES \n", True), ("no\n", False), ("\n", False), ("", False)])
def test_a_question_is_asked_at_the_terminal_and_only_a_yes_is_one(monkeypatch, capsys, said, opens):
    """The end of the input is a no."""
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    assert asyncio.run(command._asked("begin?")) is opens
    assert "begin? [y/N]" in capsys.readouterr().out


def test_without_a_terminal_the_answer_is_no_and_yes_is_said_beforehand(monkeypatch):
    """Nothing is read from a pipe."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert asyncio.run(command._asked("begin?")) is False
    assert sys.stdin.read() == "y\n"
    assert asyncio.run(command._yes("begin?")) is True


def test_in_another_thread_the_handlers_of_signals_are_left_alone():
    """Only the main one may set them."""
    before = signal.getsignal(signal.SIGINT)
    found = []

    def other():
        with command._signals(lambda why: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [before]
