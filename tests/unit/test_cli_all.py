"""Every command: what programs can read, and what is said to whoever calls it wrongly."""

from __future__ import annotations

import argparse
import json

import pytest

from somaresil.cli import _parser, main

OTHERWISE = {
    "canary render": "what it prints is the file",
    "completion": "what it prints is for a shell",
    "gate": "--format json",
    "load template": "what it prints is the file",
    "slo export": "what it prints is the file",
    "slo import": "what it prints is the file",
    "toolkit export": "what it prints is a file of JSON",
    "toolkit import": "what it prints is a plan, which is JSON",
}
"""Commands without --json, and why."""


def leaves(parser, path=()):
    """Every command that does something, with its parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield " ".join(path), parser
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(_parser()))


def options(name):
    """The options of a command."""
    return {option for action in COMMANDS[name]._actions for option in action.option_strings}


def test_there_are_commands():
    assert len(COMMANDS) > 40
    assert set(OTHERWISE) <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_programs_can_read_what_it_says(name):
    """By --json, or there is a reason why not."""
    assert ("--json" in options(name)) != (name in OTHERWISE)
    if OTHERWISE.get(name) == "--format json":
        assert "--format" in options(name)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_its_help_says_how_it_ends(name, capsys):
    """Every command has codes of its own, and says which."""
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "\x1b" not in said
    assert "exit codes:" in said
    assert "%(" not in said


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_option_that_is_not_there_is_one_line_and_no_traceback(name, capsys):
    """The usage, and what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--no-such-option"])
    said = capsys.readouterr()
    assert ended.value.code in {2, 3}
    assert said.out == ""
    assert said.err.startswith("usage: ")
    assert "\x1b" not in said.err
    assert "error: " in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "line",
    ["explain x no_such_module", "describe no_such_module", "init no/such/file", "doctor no/such/file", "scan --policy no/such/file"],
)
def test_what_could_not_be_done_is_a_document_too(line, capsys):
    """With the exit code and the words that people get."""
    assert main([*line.split(), "--json"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert (error["command"], error["code"]) == (line.split()[0], 2)
    assert error["message"]
    assert error["message"] in said.err


def test_a_file_that_was_adopted_is_told_as_json(tmp_path, capsys):
    """First shown, then added, then there already; a script is never asked."""
    app = tmp_path / "main.py"
    app.write_text("from fastapi import FastAPI\n\napp = FastAPI()\n", encoding="utf-8")
    for more, result, code in (([], "shown", 1), (["--yes"], "added", 0), (["--yes"], "already there", 0)):
        assert main(["init", str(app), "--json", *more]) == code
        said = json.loads(capsys.readouterr().out)
        assert (said["result"], said["file"]) == (result, str(app))
        assert bool(said["diff"]) == (result != "already there")


def test_a_deployment_is_noted_and_told(tmp_path, capsys):
    journal = tmp_path / "journal"
    assert main(["deployed", "1.2", "--journal", str(journal), "--service", "gateway", "--failed", "--json"]) == 0
    assert {"version": "1.2", "service": "gateway", "ok": False}.items() <= json.loads(capsys.readouterr().out).items()


def test_a_month_is_told_as_json(tmp_path, capsys):
    journal = tmp_path / "journal"
    main(["deployed", "1.2", "--journal", str(journal), "--service", "gateway"])
    assert main(["report", "--month", "2026-01", "--journal", str(journal), "--out", str(tmp_path / "out"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["month"], said["objectives"]) == ("2026-01", {})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == said["files"]


@pytest.mark.parametrize(("text", "code"), [("name = 5", 2), ("", 2)])
def test_a_plan_that_is_wrong_is_told_as_json(tmp_path, capsys, text, code):
    """Every problem, and the same exit code."""
    plan = tmp_path / "plan.toml"
    plan.write_text(text, encoding="utf-8")
    assert main(["gameday", "check", str(plan), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["problems"]
