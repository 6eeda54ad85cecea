"""The command `chaos`: what it asks the control app for, the kill switch of a host, and what it refuses before anybody is asked."""

from __future__ import annotations

import io
import json
import sys

import pytest

from somaresil.cli import main
from somaresil.remote import Remote


@pytest.fixture
def app(monkeypatch):
    """A control app that answers as it is told to, and what it was asked."""
    asked, answers = [], []
    monkeypatch.setenv("SOMARESIL_CHAOS_URL", "http://127.0.0.1:1/chaos")
    monkeypatch.setenv("SOMARESIL_CHAOS_TOKEN", "t" * 40)

    def ask(self, method, path, data=None):
        asked.append((method, path, data))
        return answers.pop(0)

    monkeypatch.setattr(Remote, "ask", ask)
    return asked, answers


def run(**known):
    row = {"id": "e-1", "state": "running", "target": "llm.*", "rate": 0.5, "remaining": 3.0, "injected": 7, "by": "me"}
    return {**row, **known}


@pytest.mark.parametrize(
    ("words", "asked", "answer", "shown"),
    [
        (["list"], ("GET", "/experiments", None), {"experiments": [run(), run(id="e-2", by=None)]}, "e-2  running  llm.*   0.5   3"),
        (["engage"], ("POST", "/engage", {}), {"engaged": "me", "everywhere": True}, "engaged by me; every process of the service"),
        (["engage", "--reason", "x"], ("POST", "/engage", {"reason": "x"}), {"engaged": "me", "everywhere": False}, "only this process"),
        (["disengage"], ("POST", "/disengage", {}), {"engaged": None, "everywhere": True}, "released; every process"),
        (["disengage"], ("POST", "/disengage", {}), {"engaged": "another", "everywhere": True}, "still engaged by another"),
        (["stop", "--all"], ("POST", "/stop", {}), {"stopped": []}, "stopped: there was nothing to stop"),
        (["stop", "--all"], ("POST", "/stop", {}), {"stopped": ["a", "b"]}, "stopped: a, b"),
        (["stop", "a/b", "--reason", "x"], ("POST", "/experiments/a%2Fb/stop", {"reason": "x"}), run(state="stopped"), "e-1  stopped"),
    ],
)
def test_each_action_asks_for_one_thing_and_shows_what_came_of_it(app, capsys, words, asked, answer, shown):
    questions, answers = app
    answers.append((200, answer))
    assert main(["chaos", *words]) == 0
    assert questions == [asked]
    assert shown in capsys.readouterr().out


def test_the_state_of_a_service_is_shown_with_what_is_wrong_with_it(app, capsys):
    said = {"running": 2, "stopped": None, "hosts": ["a", "b"], "breakers": {"llm": "open"}}
    app[1].append((200, {**said, "problems": [{"path": "switch\x1b", "allowed": "a file"}]}))
    assert main(["chaos", "status"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["stopped", "-"] in lines
    assert ["hosts", "a, b"] in lines
    assert ["breakers", '{"llm": "open"}'] in lines
    # Nothing that a terminal would obey.
    assert ["problem", "switch?: expected a file"] in lines


def test_of_several_that_are_to_be_stopped_one_that_is_refused_is_the_exit_code(app, capsys):
    app[1].extend([(200, run()), (404, {"detail": "no such experiment"}), (200, run(id="e-3"))])
    assert main(["chaos", "stop", "e-1", "e-2", "e-3"]) == 1
    told = capsys.readouterr()
    assert "refused (404): no such experiment" in told.err
    assert "e-3" in told.out


def test_an_experiment_is_made_of_its_options(app):
    app[1].append((201, {"experiments": [run()]}))
    words = ["--target", "llm.*", "--kind", "latency", "--duration", "5", "--option", "jitter=0.5", "--option", 'note="x"']
    assert main(["chaos", "start", *words]) == 0
    ((method, path, window),) = app[0]
    assert (method, path) == ("POST", "/experiments")
    assert {name: window[name] for name in ("target", "kind", "jitter", "note")} == {
        "target": "llm.*",
        "kind": "latency",
        "jitter": 0.5,
        "note": "x",
    }


def test_a_plan_goes_as_it_stands_there_also_from_a_pipe(app, tmp_path, monkeypatch):
    """What stands twice is for the service to refuse."""
    text = '{"windows": [], "windows": []}'
    plan = tmp_path / "plan.json"
    plan.write_text(text, encoding="utf-8")
    app[1].extend([(201, {"experiments": []})] * 2)
    assert main(["chaos", "start", str(plan)]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["chaos", "start", "-"]) == 0
    assert [data for _, _, data in app[0]] == [text, text]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop"], "stop needs the ids of experiments, or --all"),
        (["stop", "a", "--all"], "stop needs the ids of experiments, or --all"),
        (["stop", "a", "--host", "svc"], "stop --host ends everything: it takes no ids"),
        (["start"], "start needs a plan, or --target, --kind, --duration"),
        (["start", "--kind", "error", "--duration", "1"], "start needs a plan, or --target"),
        (["start", "PLAN", "--kind", "error"], "start takes a plan or options, not both"),
        (["start", "--option", "x=nothing"], "--option x=nothing: expected NAME=JSON, text in quotes"),
        (["start", "--option", "=1"], "--option =1: expected NAME=JSON"),
        (["start", "/nowhere/plan.json"], "/nowhere/plan.json: "),
        (["start", "BROKEN"], "broken.json: "),
        (["start", "LARGE"], "large.json: more than 65536 characters"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nobody_is_asked(app, tmp_path, capsys, words, said):
    for name, text in (("PLAN", "{}"), ("BROKEN", "{"), ("LARGE", " " * 65_537)):
        file = tmp_path / f"{name.lower()}.json"
        file.write_text(text, encoding="utf-8")
        words = [str(file) if word == name else word for word in words]
    assert main(["chaos", *words]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
    assert app[0] == []


def test_the_kill_switch_of_a_host_is_thrown_and_read_without_the_service(tmp_path, capsys):
    where = ["--host", "gateway", "--switch", str(tmp_path / "switch")]
    assert main(["chaos", "status", *where]) == 0
    assert "released: experiments of gateway may start on this host" in capsys.readouterr().out
    assert main(["chaos", "engage", "--reason", "a release", *where]) == 0
    assert "a release: nothing of gateway may start on this host" in capsys.readouterr().out
    assert main(["chaos", "stop", "--all", *where]) == 0
    assert "stopped: every experiment of gateway on this host" in capsys.readouterr().out
    assert main(["chaos", "status", "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["engaged"].endswith("a release")
    assert told["last_stop"] > 0.0
    assert main(["chaos", "disengage", *where]) == 0
    assert "released" in capsys.readouterr().out


def test_a_kill_switch_that_cannot_be_written_is_told_and_is_2(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["chaos", "engage", "--host", "gateway", "--switch", str(tmp_path / "file" / "switch")]) == 2
    assert "somaresil chaos: " in capsys.readouterr().err
    assert main(["chaos", "engage", "--host", "", "--switch", str(tmp_path / "switch")]) == 2
    assert "somaresil chaos: " in capsys.readouterr().err
