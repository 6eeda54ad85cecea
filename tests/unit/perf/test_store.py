"""The store: what is written once, read back, found by commit, put in order, and merged by git without a conflict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from somaresil.errors import ConfigurationError
from somaresil.perf import Machine, RunResult, Series
from somaresil.perf.store import ResultStore, history_of

COMMITS = [f"{number:040x}" for number in range(1, 5)]


def result(at=1_795_807_000.0, commit=COMMITS[0], values=(1.0, 3.0, 2.0), **more):
    """Give a result of one benchmark."""
    return RunResult((Series("b", "seconds", values),), "out.json", commit=commit, at=at, **more)


def test_what_is_recorded_is_read_back(tmp_path):
    """In a file whose name says when, of what, and what is in it."""
    store = ResultStore(tmp_path / "results")
    one = result(machine=Machine("P", 2, "CPython 3.11.7", "Linux"), notes=("a note",))
    path = store.add(one)
    assert path.parent.name == "2026-11"
    assert path.name.startswith(f"20261127T191640Z-{COMMITS[0][:12]}-")
    assert store.all() == (one,)
    assert store.add(one) == path
    assert len(list(path.parent.iterdir())) == 1


def test_a_commit_is_found_by_its_full_hash(tmp_path):
    """Another one that begins alike is not it."""
    store = ResultStore(tmp_path)
    alike = COMMITS[0][:12] + "f" * 28
    for commit in (COMMITS[0], alike, None):
        store.add(result(commit=commit))
    assert store.find(COMMITS[0]) == (result(),)
    assert store.find(alike) == (result(commit=alike),)
    assert store.find(COMMITS[3]) == ()


def test_no_time_no_record(tmp_path):
    """A history has an order."""
    with pytest.raises(ConfigurationError, match="a history has an order"):
        ResultStore(tmp_path).add(result(at=None))


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    """A file where the folder should be."""
    (tmp_path / "results").write_text("")
    with pytest.raises(ConfigurationError, match="a place that can be written to"):
        ResultStore(tmp_path / "results").add(result())


def test_a_broken_recording_is_named_and_nothing_is_left_out_in_silence(tmp_path):
    """With its file and line."""
    store = ResultStore(tmp_path)
    path = store.add(result())
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(ConfigurationError) as refused:
        store.all()
    assert refused.value.problems[0].path == f"{path}:2"


def test_a_history_has_the_median_of_each_recording_in_the_order_of_commits():
    """A commit that was measured again later is no news; commits of other branches are left out."""
    results = tuple(
        result(at=float(at), commit=COMMITS[place], values=(value,))
        for at, place, value in ((3, 0, 1.0), (1, 2, 3.0), (2, 1, 2.0), (9, 0, 1.5))
    )
    points = history_of(results, {COMMITS[0]: 0, COMMITS[1]: 1, COMMITS[2]: 2})[("b", "duration")]
    assert [point.value for point in points] == [1.0, 1.5, 2.0, 3.0]
    by_time = history_of((*results, replace(result(at=5.0, commit=None), machine=Machine("P"))))[("b", "duration")]
    assert [(point.value, point.at) for point in by_time] == [(3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (2.0, 5.0), (1.5, 9.0)]
    assert history_of(results, {COMMITS[3]: 0}) == {}
