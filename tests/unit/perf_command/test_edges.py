"""The command ``perf`` where it is rare: what cannot be started or is too much, other machines, and histories asked of Prometheus."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from somaresil import ConfigurationError
from somaresil.perf import machine, samples
from somaresil.perf import store as store_module
from somaresil.perf.read import tables
from somaresil.perf.read.load import k6_lines
from somaresil.perf.read.tables import lines_of
from somaresil.perf.store import Point, ResultStore
from somaresil.perf_command import measure, run
from tests.unit.perf_command.test_perf_command import PYTHON, _inside, perf, repository, result, write

__all__ = ["_inside", "repository"]


def test_a_setup_that_cannot_be_started_is_told(capsys, repository):
    """Nothing was measured, and nothing is left of the checkouts."""
    words = ["compare", "--baseline", "main", "--current", repository[0], "--run", "true"]
    code, _, err = perf(capsys, *words, "--setup", "no-such-program")
    assert (code, "--setup in main = 'no-such-program': expected a program that ends (FileNotFoundError)" in err) == (2, True)


def test_a_folder_that_a_commit_does_not_have_is_told(capsys, repository, tmp_path, monkeypatch):
    """The working directory is measured at the same place in each commit."""
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "later")
    code, _, err = perf(capsys, "compare", "--baseline", "main", "--current", repository[0], "--run", "true")
    assert (code, "a commit that has this folder" in err) == (2, True)


def test_without_git_in_the_path_that_is_said(capsys, monkeypatch):
    """And not that the commit is unknown."""
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = perf(capsys, "compare", "--baseline", "main", "--current", "other", "--run", "true")
    assert (code, "expected git in the path" in err) == (2, True)


def test_a_command_that_says_too_much_or_nothing_that_can_be_compared_is_refused(capsys, monkeypatch):
    """With the figures that were asked for."""
    loud = [*PYTHON, "print('x' * 1000)"]
    with monkeypatch.context() as patched:
        patched.setattr(measure, "_LARGEST", 100)
        code, _, err = perf(capsys, "ab", "--measure", "output", "--", *loud, "--", *loud)
    assert (code, "its output" in err, "at most 100 bytes" in err) == (2, True, True)
    figures = [*PYTHON, "print('name,value,unit\\nwork,1,ms')"]
    code, _, err = perf(capsys, "ab", "--measure", "output", "--metric", "p77", "--", *figures, "--", *figures)
    assert (code, "a command that says p77" in err) == (2, True)


def test_what_was_recorded_is_told_as_json_too(capsys, repository):
    """Where it is kept, in a list."""
    name = write("r.json", result(commit=repository[0]))
    code, out, _ = perf(capsys, "record", name, "--json")
    assert code == 0
    (kept,) = json.loads(out)["kept"]
    assert Path(kept).is_file()


def test_a_history_without_a_machine_is_taken_whole():
    """Nobody knows which of them are alike."""
    points = tuple(Point(float(number), float(number), None, None, 1) for number in range(3))
    assert run._of_one_machine(points) == (points, 0)


def test_a_history_may_be_asked_of_prometheus(capsys, monkeypatch):
    """For so many days until now, with a step; what it does not answer is told."""
    asked = []

    def answers(url, query, times, timeout, credentials):
        asked.append((url, query, times[1] - times[0], times[2]))
        values = [[1_795_000_000 + 3_600 * number, str(0.1 if number < 30 else 0.3)] for number in range(60)]
        return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"a": "b"}, "values": values}]}})

    monkeypatch.setattr("somaresil.integrations._prometheus_api.ask_range", answers)
    words = ["history", "--prometheus", "http://127.0.0.1:9/", "--query", "latency_seconds", "--unit", "seconds", "--days", "2"]
    code, out, err = perf(capsys, *words, "--fail-on-regression")
    assert asked == [("http://127.0.0.1:9/", "latency_seconds", 172_800.0, 3_600.0)]
    assert (code, "regressed" in out, err) == (1, True, "")

    def refuses(*_):
        raise OSError("no route")

    monkeypatch.setattr("somaresil.integrations._prometheus_api.ask_range", refuses)
    code, _, err = perf(capsys, *words)
    assert (code, "--prometheus = 'latency_seconds': expected an answer (no route)" in err) == (2, True)
    code, _, err = perf(capsys, "history", "--prometheus", "http://127.0.0.1:9/")
    assert (code, "an expression of PromQL" in err) == (2, True)


def refused(read, *given):
    with pytest.raises(ConfigurationError) as caught:
        read(*given)
    (problem,) = caught.value.problems
    return problem.allowed


def test_lines_of_ours_that_say_nothing_or_too_much_are_refused(monkeypatch):
    """Empty ones between are not; a commit is a whole hash."""
    line = "\n".join(lines_of(result()))
    (read,) = tables.own_lines("\n \n" + line, "x")
    assert read.series[0].name == "b"
    assert refused(tables.own_lines, "\n \n", "x") == "at least one series"
    assert "the full hash of a commit" in refused(tables.own_lines, json.dumps({**json.loads(line), "commit": "abc"}), "x")
    monkeypatch.setattr(tables, "MOST_VALUES", 3)
    assert refused(tables.own_lines, line, "x") == "at most 3 values"


def test_requests_of_k6_may_have_empty_lines_and_iterations_that_were_dropped():
    """Those are counted."""
    point = {"type": "Point", "metric": "http_req_duration", "data": {"time": "2026-11-27T00:00:00Z", "value": 5, "tags": {"name": "a"}}}
    lost = {"type": "Point", "metric": "dropped_iterations", "data": {"time": "2026-11-27T00:00:00Z", "value": 2, "tags": {}}}
    found = k6_lines("\n".join(["", json.dumps(point), " ", json.dumps(lost)]), "x")
    assert {each.metric: each.values for each in found.series}["dropped"] == (2.0,)
    assert not [each for each in found.series if each.metric in {"throughput", "failed"}]


def test_a_store_with_more_recordings_than_any_is_refused(tmp_path, monkeypatch):
    """Reading them would take for ever."""
    monkeypatch.setattr(store_module, "MOST_FILES", 1)
    store = ResultStore(tmp_path / "s")
    for number in range(2):
        store.add(result(commit=f"{number:040x}", at=1_795_807_000.0 + number))
    assert refused(store.all) == "at most 1 recordings"


def test_a_machine_says_what_it_is_on_other_systems_too(monkeypatch, tmp_path):
    """By what the platform says, where there is no list of processors, or it names none."""
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    for text, said in ((None, "arm"), ("flags : fpu\n", "arm"), ("x : y\nHardware\t: Board 3\n", "Board 3")):
        place = tmp_path / "cpuinfo"
        if text is not None:
            place.write_text(text)
        monkeypatch.setattr(machine, "_CPUINFO", place)
        assert machine._processor() == said
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine._cores() == 7


def test_a_name_of_a_series_is_text():
    """Anything else says what it is."""
    assert samples.problem_of(7) == "it is a int, not text"
