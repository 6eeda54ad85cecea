"""Sources of evidence and routers that a rollout may name, and what the command says of its own defects."""

from __future__ import annotations

import io
import json

import pytest

from somaresil import ConfigurationError, ManualClock, Resilience
from somaresil.canary.fleet import EvidenceInbox
from somaresil.canary_command import command, file
from somaresil.canary_command.file import read_rollout
from somaresil.canary_command.router import CommandRouter
from somaresil.cli import main
from tests.unit.canary_command.test_file import LEAST, problems


@pytest.mark.parametrize("kind", ["nginx", "haproxy", "flagger", "argo", "command"])
def test_every_router_that_can_be_named_says_what_it_needs(kind):
    """All of it at once, and an option that it has not is refused with those that it has."""
    found = problems({**LEAST, "router": {"kind": kind, "wieght": 1}})
    assert any(path.endswith("router.wieght") for path in found)
    absent = {path.rpartition(".")[2] for path, problem in found.items() if problem.allowed == "a value: it has no default"}
    assert absent == set(file._required(file._ROUTERS[kind]()))
    assert absent


def test_an_order_of_a_command_carries_the_version_that_it_is_for():
    rollout = read_rollout({**LEAST, "router": {"kind": "command", "set": ["traffic", "{percent}", "{version}"]}})
    assert isinstance(rollout.router("2.0.0"), CommandRouter)


@pytest.mark.parametrize(
    ("sources", "place", "allowed"),
    [
        ({"kind": "push"}, "judge.sources", "a list of at most 64 tables"),
        ([{"kind": "push"}] * 65, "judge.sources", "a list of at most 64 tables"),
        (["push"], "judge.sources.0", "a table"),
        ([{"kind": 5}], "judge.sources.0.kind", "scrape | redis | push"),
        ([], "judge.sources", "one source of evidence at least: scrape, redis, push"),
    ],
)
def test_sources_that_are_none_are_refused_with_what_is_wrong_with_them_and_nothing_else(sources, place, allowed):
    """Whoever named too many is not told that there is none."""
    with pytest.raises(ConfigurationError) as wrong:
        read_rollout({**LEAST, "judge": {"sources": sources}})
    assert [(problem.path, problem.allowed) for problem in wrong.value.problems] == [(place, allowed)]


@pytest.mark.parametrize("kind", ["scrape", "redis", "push"])
def test_an_option_that_a_source_of_evidence_has_not_is_refused_with_those_that_it_has(kind):
    found = problems({**LEAST, "judge": {"sources": [{"kind": kind, "odd": 1}]}})
    (problem,) = [problem for path, problem in found.items() if path.endswith("judge.sources.0.odd")]
    known = file._SOURCES[kind]()
    assert all(name in problem.allowed for name in known)
    # Those are for whoever makes it in a program.
    assert not {"clock", "resilience"} & set(known)


def test_sources_are_made_of_what_the_file_says_and_nobody_is_asked_for_that():
    resilience = Resilience("canary", clock=ManualClock())
    assert isinstance(file._source("push", {}, resilience), EvidenceInbox)
    source = file._source("scrape", {"urls": ["http://127.0.0.1:9/evidence"], "role": "candidate"}, resilience)
    assert type(source).__name__ == "ScrapeSource"


def test_a_defect_of_the_command_is_told_in_one_line_and_is_no_pass(monkeypatch, capsys):
    def broken(*_):
        raise KeyError("weight\x1b[2J")

    monkeypatch.setitem(command._ACTIONS, "status", broken)
    assert main(["canary", "status"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("somaresil canary: KeyError in the command itself: ")
    assert "\x1b" not in said


def test_metrics_to_judge_may_come_from_a_pipe(monkeypatch, capsys):
    monkeypatch.setattr(command.sys, "stdin", type("Pipe", (), {"buffer": io.BytesIO(b"{")})())
    assert main(["canary", "judge", "-"]) == 2
    assert "somaresil canary: " in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["canary", "judge", str(tmp_path / "no.json")]) == 2
    assert "no.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "yes"), (False, "no"), (None, "-"), ("", "-"), (float("nan"), "-"), (0.25, "0.25"), ("a\x1bb", "a?b"), (3, "3")],
)
def test_a_cell_of_a_table_is_plain(value, shown):
    assert command._cell(value) == shown


def test_one_canary_is_shown_line_by_line_with_what_is_inside():
    text = command._whole({"canary": "gateway", "counts": {"good": 3, "bad": 0}, "missing": ["a", None], "paused": False})
    assert [line.split(maxsplit=1) for line in text.splitlines()] == [
        ["canary", "gateway"],
        ["good", "3"],
        ["bad", "0"],
        ["missing", "a, -"],
        ["paused", "no"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "snapshot.json: "),
        (json.dumps({"phase": 1, "canary": "a"}), "it is no snapshot of a canary"),
        (json.dumps({"phase": "bake", "canary": "other"}), "it is about the canary 'other'"),
    ],
)
def test_a_snapshot_that_says_nothing_of_this_canary_is_refused(tmp_path, capsys, text, said):
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(text, encoding="utf-8")
    snapshot.chmod(0o600)
    assert main(["canary", "status", "gateway", "--snapshot", str(snapshot)]) == 2
    assert said in capsys.readouterr().err
    assert main(["canary", "status", "--snapshot", str(tmp_path / "no.json")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_a_rollout_that_cannot_be_compared_with_anything_is_refused(tmp_path, capsys):
    rollout = tmp_path / "gateway.toml"
    rollout.write_text(
        '[canary]\nname = "gateway"\nbad = "up"\nallowed = 0.01\n[render]\nverdict_url = "http://verdicts:8080/canary"\nodd = 1\n',
        encoding="utf-8",
    )
    assert main(["canary", "render", "argo", str(rollout), "--check"]) == 2
    assert "odd" in capsys.readouterr().err
    with pytest.raises(ConfigurationError):
        read_rollout({"canary": {}})
