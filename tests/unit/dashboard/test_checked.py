"""What another process says: every form that could not be added up is refused, with the path to it and what was expected."""

from __future__ import annotations

import base64

import pytest

from somaresil.dashboard import checked
from somaresil.dashboard.checked import Strange
from somaresil.dashboard.history import COLUMNS, HEAD

BOUNDS = [0.1, 1.0]
WIDTH = HEAD + len(BOUNDS) + 1
COUNTS = {"bounds": BOUNDS, "totals": [0] * HEAD, "recent": None}
ROUTE = COUNTS
OBJECTIVE = {
    "target": 0.99,
    "period": 86_400,
    "length": 60,
    "kind": "availability",
    "policy": "google",
    "description": "",
    "weights": {},
    "blocks": False,
    "alerts": [],
    "counted": {"a": {"at": 1, "events": [1, 2], "counts": [1, 2], "coverage": 1, "windows": {}, "points": [[1, 2, 3]]}},
}
CANARY = {
    "version": "2",
    "phase": "50 %",
    "weight": 0.5,
    "outcome": None,
    "reason": "",
    "paused": False,
    "began": None,
    "leads": True,
    "verdict": "",
    "control_bad": 0,
    "control_events": 0,
    "missing": [],
    "trouble": "",
    "evidence": [],
    "evidence_series": {"at": [1, 2], "log10": {"up": [0.5, -1.0]}},
    "at": 1,
    "source": "a",
}
SOURCE = {"name": "a", "kind": "peer", "state": "live", "at": 1, "why": "", "process": 7, "address": ""}
WHOLE = {
    "version": 1,
    "form": "portrait",
    "service": "gateway",
    "environment": None,
    "at": 2,
    "since": 1,
    "index": 1,
    "sources": {"a": SOURCE},
    "guards": {},
    "routes": {"/chat": ROUTE},
    "objectives": {"up": OBJECTIVE},
    "incidents": [],
    "experiments": {},
    "chaos": None,
    "canaries": {"gateway": CANARY},
    "pools": {},
    "limit": None,
    "columns": None,
}


def changed(data, path, value):
    """The same with another value at a path."""
    name, *rest = path
    there = dict(data) if isinstance(data, dict) else list(data)
    there[name] = changed(there[name], rest, value) if rest else value
    return there


def test_what_another_process_of_ours_says_is_taken_whole():
    """And what is not known here is dropped, so that a newer version may say more."""
    said = checked.portrait({**WHOLE, "newer": 1, "version": checked.VERSION})
    assert "newer" not in said
    assert said["objectives"]["up"]["counted"]["a"]["points"] == [[1, 2, 3]]
    assert said["canaries"]["gateway"]["evidence_series"]["log10"] == {"up": [0.5, -1.0]}


COUNTED = ("objectives", "up", "counted", "a")
SERIES = ("canaries", "gateway", "evidence_series")
WRONG = [
    (("service",), 7, "service: expected a text"),
    (("index",), -1, "index: expected a count"),
    (("index",), True, "index: expected a count"),
    (("sources",), {}, "sources: expected one at least"),
    (("sources", "a", "kind"), "friend", "sources: a: kind: expected self, worker, peer"),
    (("objectives", "up", "blocks"), 1, "objectives: up: blocks: expected true or false"),
    (("objectives", "up", "target"), 1.5, "objectives: up: target: expected a share"),
    ((*COUNTED, "events"), [1, 2, 3], "events: expected two counts"),
    ((*COUNTED, "points"), [[1, 2]], "points: 0: expected three numbers"),
    ((*COUNTED, "events"), [], "events: expected a list of counts"),
    ((*COUNTED, "events"), [1.0, 2], "events: expected a list of counts"),
    ((*COUNTED, "events"), [-1, 2], "events: expected counts"),
    ((*COUNTED, "events"), [2**60, 2], "events: expected counts"),
    ((*SERIES, "log10"), {"up": [0.5]}, "evidence_series: expected a value for each moment"),
    ((*SERIES, "log10"), {"up": [0.5, "x"]}, "log10: up: 1: expected a number"),
    ((*SERIES, "log10"), {"up": [0.5, float("nan")]}, "log10: up: 1: expected a number"),
    (("routes", "/chat", "bounds"), "ab", "/chat: bounds: expected a list"),
    (("routes", "/chat", "bounds"), [[1]], "/chat: bounds: expected numbers"),
    (("routes", "/chat", "bounds"), [2, 1], "/chat: bounds: expected them to ascend"),
    (("routes", "/chat", "bounds"), list(range(1, 200)), "/chat: bounds: expected a list"),
    (("routes", "/chat", "totals"), [0], "/chat: expected a count for each outcome and bucket"),
    (("routes", "/chat", "recent"), [0] * HEAD, "/chat: expected a count for each outcome and bucket"),
]


@pytest.mark.parametrize(("path", "value", "why"), WRONG, ids=lambda each: None)
def test_what_could_not_be_added_up_is_refused_with_its_path(path, value, why):
    """In the words of what was expected; nothing of it is kept."""
    with pytest.raises(Strange) as caught:
        checked.portrait(changed({**WHOLE, "version": checked.VERSION}, path, value))
    assert str(caught.value).endswith(why)


def columns(**other):
    rows = base64.b64encode(bytes(4 * COLUMNS * WIDTH)).decode()
    return {"index": 1, "known": [1] * COLUMNS, "tracks": {"g": {"bounds": BOUNDS, "rows": rows}}, **other}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (columns(known=[1] * (COLUMNS - 1)), f"known: expected {COLUMNS} zeros and ones"),
        (columns(known=[2] * COLUMNS), f"known: expected {COLUMNS} zeros and ones"),
        (columns(tracks={"g": {"bounds": BOUNDS, "rows": 7}}), "tracks: g: rows: expected a text"),
        (columns(tracks={"g": {"bounds": BOUNDS, "rows": "AAAA"}}), "tracks: g: rows: expected a number for each column and bucket"),
        (columns(tracks={"g": {"bounds": BOUNDS, "rows": "?"}}), "tracks: g: rows: expected a number for each column and bucket"),
    ],
)
def test_columns_of_another_shape_are_refused(said, why):
    """They would be added to the wrong moments, or buckets."""
    assert len(checked.columns(columns())["tracks"]["g"]["rows"]) == COLUMNS * WIDTH
    with pytest.raises(Strange) as caught:
        checked.columns(said)
    assert str(caught.value) == why


def test_what_is_said_of_one_objective_is_bounded():
    """Names of guards and groups are cut, and more than there may be are refused."""
    assert checked.extras({"guards": ["g" * 400], "requests": True, "groups": []})["guards"] == ["g" * 300]
    with pytest.raises(Strange, match="groups: expected a list of at most"):
        checked.extras({"guards": [], "requests": True, "groups": ["x"] * 2_001})


def test_what_became_of_a_command_is_an_object_of_texts():
    """Anything else is refused, and more than fifty facts are not read."""
    assert checked.answered({"done": True, "count": 3, "why": None}) == {"done": True, "count": "3", "why": None}
    assert len(checked.answered({str(number): "" for number in range(100)})) == 50
    with pytest.raises(Strange, match="expected an object"):
        checked.answered(["done"])
