"""``python -m somaresil replay``: the plan of a failure, run again."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from somaresil import ChaosPlan, FaultWindow
from somaresil.cli import main

BREAKS = ChaosPlan([FaultWindow("memory.write", "lost_reply", 0, 1)], scenario="tests.planted.services:unkeyed")


@pytest.fixture
def plan_file(tmp_path):
    """Write a plan to a file."""

    def write(plan: ChaosPlan | str) -> str:
        file = tmp_path / "plan.json"
        file.write_text(plan if isinstance(plan, str) else plan.to_json(), encoding="utf-8")
        return str(file)

    return write


def test_a_plan_that_breaks_something_breaks_it_again(plan_file, capsys):
    """Exit code 1, and the report of the failure."""
    assert main(["replay", plan_file(BREAKS)]) == 1
    out = capsys.readouterr().out
    assert "broken    memory.write is done at most once a key" in out
    assert "fault: lost_reply on memory.write" in out


def test_another_scenario_can_be_named(plan_file, capsys):
    """The mended one holds: exit code 0, and what held."""
    assert main(["replay", plan_file(BREAKS), "--scenario", "tests.planted.services:keyed"]) == 0
    assert "held      memory.write is done at most once a key" in capsys.readouterr().out


def test_the_result_can_be_json(plan_file, capsys):
    """One object, with the plan in it."""
    assert main(["replay", plan_file(BREAKS), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["broken"] == [{"name": "memory.write is done at most once a key", "found": "memory.write 0 was done 3 times"}]
    assert ChaosPlan.from_dict(told["plan"]).windows == BREAKS.windows
    assert told["injected"] == 3


def test_a_plan_may_come_from_standard_input(monkeypatch, capsys):
    """Written as -."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(BREAKS.to_json()))
    assert main(["replay", "-"]) == 1
    assert "was done 3 times" in capsys.readouterr().out


def test_it_is_the_command_that_the_report_names(tmp_path):
    """A fresh interpreter, in the folder of the project."""
    (tmp_path / "plan.json").write_text(BREAKS.to_json(), encoding="utf-8")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "somaresil", "replay", str(tmp_path / "plan.json")]
    again = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1, again.stderr
    assert "was done 3 times" in again.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "plan.text"),
        ('{"somaresil_plan": 2, "seed": 0, "windows": []}', "plan.somaresil_plan = 2: expected at most 1"),
        (
            '{"somaresil_plan": 1, "windows": [{"target": "x", "knd": "error", "start": 0, "duration": 1}]}',
            "plan.windows[0].knd = 'error': expected one of target, kind",
        ),
        ('{"somaresil_plan": 1, "windows": []}', "say --scenario module:name"),
        ('{"somaresil_plan": 1, "windows": [], "scenario": "no.such.module:agent"}', "no.such.module"),
        ('{"somaresil_plan": 1, "windows": [], "scenario": "tests.planted.services:nothing"}', "nothing"),
        ('{"somaresil_plan": 1, "windows": [], "scenario": "os:system"}', "a function decorated with @scenario(...)"),
        (
            ChaosPlan([FaultWindow("memory.wriet", "error", 0, 1)], scenario="tests.planted.services:keyed").to_json(),
            "did you mean 'memory.write'?",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(plan_file, capsys, text, said):
    """Exit code 2, the path of each problem on standard error, nothing on standard output."""
    assert main(["replay", plan_file(text)]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_a_file_that_is_not_there_is_named(capsys):
    """As files are."""
    assert main(["replay", "no-such-plan.json"]) == 2
    assert "no-such-plan.json" in capsys.readouterr().err
