"""The question on a terminal, JSON for programs, and what cannot be read, written or found."""

from __future__ import annotations

import json
import os

import pytest

from somaresil.adopt import command
from somaresil.cli import main
from tests.unit.adopt.test_edit import FASTAPI


@pytest.fixture
def service(tmp_path):
    file = tmp_path / "gateway" / "main.py"
    file.parent.mkdir()
    file.write_text(FASTAPI, encoding="utf-8")
    return file


def answered(monkeypatch, answer):
    def ask(_):
        if isinstance(answer, type):
            raise answer
        return answer

    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)


@pytest.mark.parametrize(
    ("answer", "code"), [("y", 0), (" YES ", 0), ("", 1), ("n", 1), ("sure", 1), (EOFError, 1), (KeyboardInterrupt, 1)]
)
def test_only_a_yes_changes_the_file(service, monkeypatch, capsys, answer, code):
    answered(monkeypatch, answer)
    assert main(["init", str(service)]) == code
    assert ("ResilienceMiddleware" in service.read_text(encoding="utf-8")) is (code == 0)
    assert ("nothing was changed" in capsys.readouterr().out) is (code == 1)


def test_a_program_is_never_asked_and_gets_the_change_as_json(service, monkeypatch, capsys):
    answered(monkeypatch, "y")
    assert main(["init", str(service), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["result"]) == (str(service), "shown")
    assert '+resilience = Resilience("gateway")' in told["diff"]
    assert service.read_text(encoding="utf-8") == FASTAPI
    assert main(["init", str(service), "--json", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "added"
    assert main(["init", str(service), "--json", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(service), "result": "already there", "diff": []}


def test_a_file_that_cannot_be_replaced_stays_as_it_was_and_nothing_lies_beside_it(service, monkeypatch, capsys):
    def refuse(*_):
        raise OSError("read-only file system")

    monkeypatch.setattr(os, "fchmod", refuse)
    assert main(["init", str(service), "--yes"]) == 2
    assert f"somaresil init: {service}: read-only file system; nothing was changed" in capsys.readouterr().err
    assert service.read_text(encoding="utf-8") == FASTAPI
    assert [each.name for each in service.parent.iterdir()] == ["main.py"]


def test_a_file_that_is_no_text_or_too_large_is_not_looked_into(service, monkeypatch, capsys):
    """In a folder it is passed over; named, it is refused with the limit."""
    (service.parent / "data.py").write_bytes(b"\xff FastAPI(")
    (service.parent / "notes.txt").write_text("FastAPI(", encoding="utf-8")
    assert main(["init", str(service.parent)]) == 1
    assert str(service) in capsys.readouterr().out
    monkeypatch.setattr(command, "_LARGEST", 10)
    assert main(["init", str(service)]) == 2
    assert f"{service}: more than 10 bytes" in capsys.readouterr().err
    assert main(["init", str(service.parent)]) == 2
    assert "no file in it makes a FastAPI, Starlette or Django ASGI app" in capsys.readouterr().err
