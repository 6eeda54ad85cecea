"""The command: what it prints, how it ends, and what it does not look at."""

from __future__ import annotations

import json

import pytest

from somaresil.cli import main
from somaresil.doctor.findings import CODES


@pytest.fixture
def run(tmp_path, capsys):
    def doctor(*arguments):
        code = main(["doctor", *arguments, str(tmp_path)])
        return code, capsys.readouterr()

    return doctor


def test_a_finding_is_told_with_its_place_and_what_to_do(run, tmp_path):
    (tmp_path / "service.py").write_text("import requests\nrequests.get('https://a', timeout=1)\n", encoding="utf-8")
    code, told = run()
    assert code == 1
    assert f"{tmp_path}/service.py:2:1: SR101 warning: a call to another service without a guard: requests.get\n" in told.out
    assert f"SR101: {CODES['SR101'].advice}\n" in told.out
    assert told.out.endswith("1 files: 1 found, 0 notes\n")
    code, told = run("--json")
    said = json.loads(told.out)
    assert code == 1
    assert (said["files"], said["findings"][0]["code"], said["findings"][0]["line"]) == (1, "SR101", 2)


def test_codes_are_chosen_by_how_they_begin(run, tmp_path):
    (tmp_path / "service.py").write_text("import requests\nrequests.get('https://a')\n", encoding="utf-8")
    assert "SR201" not in run("--select", "SR1")[1].out
    assert run("--ignore", "SR1", "--ignore", "SR201")[0] == 0
    code, told = run("--select", "SR9")
    assert code == 2
    assert "no code begins so" in told.err


def test_tests_hidden_folders_and_environments_are_left_out(run, tmp_path):
    for name in ("tests/a.py", ".venv/b.py", "node_modules/c.py", "test_d.py", "conftest.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("import requests\nrequests.get('https://a')\n", encoding="utf-8")
    code, told = run()
    assert code == 0
    assert told.out == "0 files: 0 found, 0 notes\n"
    assert run("--tests")[0] == 1


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_said_to_be_well(run, tmp_path):
    (tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    code, told = run()
    assert code == 2
    assert "broken.py: cannot be read: SyntaxError" in told.out
    assert "binary.py: cannot be read" in told.out


def test_a_path_that_is_not_there_is_refused(capsys):
    assert main(["doctor", "/nowhere/at/all"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_every_code_is_explained(capsys):
    assert main(["doctor", "--codes"]) == 0
    told = capsys.readouterr().out
    assert all(code in told for code in CODES)


def test_a_note_alone_is_no_failure(run, tmp_path):
    (tmp_path / "service.py").write_text(
        "from starlette.middleware.base import BaseHTTPMiddleware\nclass A(BaseHTTPMiddleware): ...\n", encoding="utf-8"
    )
    code, told = run()
    assert code == 0
    assert "SR303 info" in told.out
