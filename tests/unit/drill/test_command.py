"""`python -m somaresil drill`: what it refuses, what it writes, how it ends."""

from __future__ import annotations

import json

import pytest

from somaresil import drill
from somaresil.cli import main


def test_a_virtual_drill_writes_its_report_and_ends_by_the_grade(tmp_path, capsys):
    """Two faults are no evidence, so it is not passed, however well they went."""
    folder = tmp_path / "new" / "report"
    assert main(["drill", "--virtual", "--faults", "2", "--out", str(folder), "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((folder / "drill.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {"drill.json", "drill.md", "drill.html", "drill.xml"}
    assert [line.partition(" ")[0] for line in told.err.splitlines()] == ["1/2", "2/2"]
    assert json.loads(told.out)["form"] == "virtual time"


def test_without_json_the_verdict_is_told_in_a_line(tmp_path, capsys):
    assert main(["drill", "--virtual", "--faults", "1", "--seed", "2", "--out", str(tmp_path)]) == 1
    first, why = capsys.readouterr().out.splitlines()
    assert first == f"drill not passed: 1 of 1 faults recovered from; the report is in {tmp_path}"
    assert why.startswith("1 of 1 faults were recovered from: with 95 % confidence that shows 20.7%")


@pytest.mark.parametrize("arguments", [["--faults", "0"], ["--faults", "2001"], ["--faults", "x"], ["--rate", "1"], ["--seed", "a"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["drill", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_report_that_has_no_place_is_found_out_before_the_faults(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("", encoding="utf-8")
    assert main(["drill", "--virtual", "--out", str(taken)]) == 2
    assert "somaresil drill:" in capsys.readouterr().err


def test_packages_that_are_missing_are_named(monkeypatch, capsys):
    monkeypatch.setattr(drill, "missing", lambda: ["redis", "uvicorn"])
    assert main(["drill"]) == 2
    told = capsys.readouterr().err
    assert "redis, uvicorn not installed" in told
    assert drill.INSTALL in told
