"""How the command `load` ends: signals, a control app that is lost, reports that cannot be written, the headroom of a service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from types import SimpleNamespace

import pytest

from somaresil.cli import main
from somaresil.load_command import command
from tests.unit.load.test_load_command import SCENARIO


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Give the path of a scenario; everything is installed."""
    monkeypatch.setattr(command, "missing", tuple)
    monkeypatch.setattr(command, "_allow_descriptors", lambda _: None)
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return str(path)


def found(knee=120.0, *, good=True):
    lines = [f"the service serves {knee:g} a second"]
    return SimpleNamespace(
        found=good,
        lines=lambda current: [*lines, *([] if current is None else [f"headroom {knee / current - 1.0:.0%}"])],
        rows=lambda: [("100", "kept", "100", "8", "0.2", "p95 <= 1 s"), ("140", "broken", "90", "80", "2", "")],
        headroom=lambda current: knee / current - 1.0,
        to_json=lambda current: json.dumps({"knee": knee, "current": current}),
    )


def searched(monkeypatch, result):
    async def search(scenario, *, watch, **_):
        watch(SimpleNamespace(rate=100.0, answer=SimpleNamespace(value="kept"), why="p95 <= 1 s"))
        if isinstance(result, signal.Signals):
            os.kill(os.getpid(), result)
            await asyncio.Event().wait()
        return result

    monkeypatch.setattr(command, "scenario_capacity", search)


@pytest.mark.parametrize(
    ("current", "good", "code"),
    [(None, True, 0), ("100", True, 0), ("150", True, 1), (None, False, 2), ("150", False, 2)],
)
def test_a_capacity_that_is_less_than_what_is_offered_now_is_1_and_one_that_was_not_found_is_2(
    monkeypatch, file, capsys, current, good, code
):
    searched(monkeypatch, found(good=good))
    assert main(["load", "capacity", file, *([] if current is None else ["--current", current])]) == code
    told = capsys.readouterr()
    assert "serves 120 a second" in told.out
    assert "100/s  kept  p95 <= 1 s" in told.err


@pytest.mark.parametrize(("words", "shown"), [(["--format", "markdown"], "### Capacity\n\n- the service"), (["--json"], '{"knee": 120.0')])
def test_the_capacity_is_told_as_markdown_or_json_and_quietly(monkeypatch, file, tmp_path, capsys, words, shown):
    searched(monkeypatch, found())
    out = tmp_path / "capacity.json"
    assert main(["load", "capacity", file, "--quiet", "--out", str(out), *words]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(shown)
    assert told.err == ""
    assert json.loads(out.read_text(encoding="utf-8"))["knee"] == 120.0


def test_a_search_that_is_ended_by_a_signal_leaves_nothing_behind(monkeypatch, file, capsys):
    searched(monkeypatch, signal.SIGTERM)
    assert main(["load", "capacity", file]) == 128 + signal.SIGTERM
    told = capsys.readouterr()
    assert "ended by SIGTERM; nothing is left behind" in told.err
    assert told.out == ""


def test_a_cancellation_that_nobody_asked_for_is_no_end():
    async def play():
        async def cancelled():
            raise asyncio.CancelledError

        return await command._interruptible(cancelled())

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())


def test_a_control_app_that_is_lost_ends_the_run_with_2(monkeypatch, file, capsys):
    async def lost(*_):
        raise OSError("no route to the control app")

    monkeypatch.setattr(command, "_played", lost)
    assert main(["load", "run", file]) == 2
    assert "no route to the control app" in capsys.readouterr().err


def test_a_report_is_written_in_every_form_and_one_that_cannot_be_is_told(monkeypatch, file, tmp_path, capsys):
    report = SimpleNamespace(to_text=lambda: "text", to_json=lambda: "{}", to_markdown=lambda: "# load\n", exit_code=1)

    async def played(*_):
        return report, None

    monkeypatch.setattr(command, "_played", played)
    out, page = tmp_path / "r.json", tmp_path / "r.md"
    assert main(["load", "run", file, "--out", str(out), "--markdown", str(page)]) == 1
    assert capsys.readouterr().out == "text\n"
    assert (out.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")) == ("{}\n", "# load\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert main(["load", "run", file, "--out", str(folder)]) == 2
    assert "the report cannot be written: IsADirectoryError" in capsys.readouterr().err


def test_a_run_that_a_signal_has_ended_is_told_by_its_exit_code(monkeypatch, file):
    async def played(*_):
        return SimpleNamespace(to_text=lambda: "text", exit_code=0), signal.SIGINT

    monkeypatch.setattr(command, "_played", played)
    assert main(["load", "run", file]) == 128 + signal.SIGINT
