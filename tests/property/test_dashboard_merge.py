"""Portraits of several processes add up to one picture, in any order and grouping, and nothing that a peer may say breaks it."""

from __future__ import annotations

import json
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil.dashboard import checked, merge
from somaresil.dashboard import columns as columns_of
from somaresil.dashboard.history import COLUMNS, HEAD, OUTCOMES

NAMES = st.sampled_from(["llm", "<img src=x>\u202e"])
COUNTS = st.integers(0, 1_000)
SECONDS = st.integers(0, 4_000).map(lambda number: number / 4)
BOUNDS = st.sampled_from([(0.1,), (0.1, 0.5, 2.0), (0.5, 2.0), (0.25, 0.5)])


@st.composite
def counted(draw):
    bounds = draw(BOUNDS)
    row = st.lists(COUNTS, min_size=HEAD + len(bounds) + 1, max_size=HEAD + len(bounds) + 1)
    return {
        "bounds": bounds,
        "totals": draw(st.lists(COUNTS, min_size=HEAD, max_size=HEAD)),
        "recent": draw(st.none() | row),
    }


@st.composite
def guards(draw):
    return {
        **draw(counted()),
        "pipeline": draw(st.lists(st.sampled_from(["retry", "breaker", "timeout"]), max_size=3)),
        "worst_case": draw(st.none() | SECONDS),
        "states": draw(st.dictionaries(st.sampled_from(["closed", "open", "half_open"]), st.integers(1, 4), max_size=3)),
        "held_by": sorted(draw(st.sets(st.sampled_from(["breaker", "faults", "timeout"])))),
        "keys": draw(st.none() | st.dictionaries(st.sampled_from(["closed", "open"]), COUNTS)),
        "throttled": draw(st.none() | SECONDS),
        "budget_scale": draw(st.none() | SECONDS),
    }


PAIRS = st.tuples(COUNTS, COUNTS).map(list)


@st.composite
def objectives(draw):
    window = st.fixed_dictionaries({"300": PAIRS, "3600": PAIRS})
    known = st.fixed_dictionaries(
        {
            "at": SECONDS,
            "events": PAIRS,
            "counts": PAIRS,
            "coverage": st.sampled_from([0.0, 0.5, 1.0]),
            "windows": window,
            "points": st.lists(st.tuples(st.integers(0, 3), COUNTS, COUNTS).map(list), max_size=3),
        }
    )
    return {
        "target": draw(st.sampled_from([0.9, 0.99, 1.0])),
        "period": 3600.0,
        "length": draw(st.sampled_from([3600.0, 7200.0])),
        "kind": "availability",
        "policy": "fast_burn_alert",
        "description": draw(st.sampled_from(["", "of all"])),
        "weights": draw(st.dictionaries(NAMES, st.integers(1, 3).map(float), max_size=2)),
        "blocks": draw(st.booleans()),
        "alerts": _alerts(draw(st.dictionaries(st.sampled_from(["page", "ticket"]), SECONDS))),
        "counted": draw(st.dictionaries(st.sampled_from(["one", "other", "shared"]), known, min_size=1)),
    }


def _alerts(since):
    return [{"severity": severity, "since": since[severity], "group": None} for severity in sorted(since)]


INCIDENTS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["llm#1", "llm#2"]),
        "source": st.sampled_from(["one", "other"]),
        "subject": NAMES,
        "group": st.none(),
        "kind": st.sampled_from(["guard", "objective"]),
        "began": SECONDS,
        "ended": st.none() | SECONDS,
        "recovered": st.none() | st.booleans(),
        "injected": st.booleans(),
        "experiment": st.none(),
        "detected_after": SECONDS,
        "mitigated_after": st.none() | SECONDS,
    }
)
EXPERIMENTS = st.fixed_dictionaries(
    {
        "id": st.just("latency-1"),
        "kind": st.just("latency"),
        "target": NAMES,
        "rate": st.sampled_from([0.5, 1.0]),
        "duration": SECONDS,
        "state": st.sampled_from(["scheduled", "running", "ended"]),
        "starts_at": SECONDS,
        "remaining": SECONDS,
        "end_reason": st.none() | st.sampled_from(["expired", "stopped"]),
        "injected": COUNTS,
        "absorbed": st.none() | COUNTS,
        "struck": st.dictionaries(NAMES, COUNTS),
        "by": st.none() | st.just("alice"),
        "sources": st.sampled_from([["one"], ["other"]]),
    }
)
CANARIES = st.fixed_dictionaries(
    {
        "version": st.none() | st.just("2"),
        "phase": st.sampled_from(["ramp_10", "complete"]),
        "weight": SECONDS,
        "outcome": st.none(),
        "reason": st.just(""),
        "paused": st.booleans(),
        "began": st.none() | SECONDS,
        "leads": st.booleans(),
        "verdict": st.just("wait"),
        "control_bad": COUNTS,
        "control_events": COUNTS,
        "missing": st.just([]),
        "trouble": st.just(""),
        "evidence": st.just([]),
        "evidence_series": st.just({"at": [1.0], "log10": {"worse": [-0.5]}}),
        "at": SECONDS,
        "source": st.sampled_from(["one", "other"]),
    }
)
ENDPOINTS = st.fixed_dictionaries(
    {
        "states": st.dictionaries(st.sampled_from(["in", "out"]), st.integers(1, 3)),
        "details": st.dictionaries(st.sampled_from(["healthy", "ejected"]), st.integers(1, 3)),
        "weight": SECONDS,
    }
)


@st.composite
def tracks(draw):
    bounds = draw(BOUNDS)
    width = HEAD + len(bounds) + 1
    rows = array("I", bytes(4 * width * COLUMNS))
    for place, value in draw(st.dictionaries(st.integers(0, len(rows) - 1), COUNTS, max_size=5)).items():
        rows[place] = value
    return {"bounds": bounds, "rows": rows if draw(st.booleans()) else array("I")}


@st.composite
def columns(draw):
    gaps = draw(st.sets(st.integers(0, COLUMNS - 1), max_size=3))
    return {
        "index": draw(st.sampled_from([1_000, 1_001, 1_119, 2_000])),
        "known": [int(place not in gaps) for place in range(COLUMNS)],
        "tracks": draw(st.dictionaries(st.sampled_from(["g:llm", "r:llm"]), tracks(), max_size=2)),
    }


def sources(identity):
    return {
        identity: {"name": identity, "kind": "self", "state": "live", "at": 1.0, "why": "", "process": 1, "address": ""},
    }


PARTS = {
    "guards": st.dictionaries(NAMES, guards(), max_size=2),
    "routes": st.dictionaries(NAMES, counted(), max_size=2),
    "objectives": st.dictionaries(NAMES, objectives(), max_size=2),
    "incidents": st.lists(INCIDENTS, max_size=2).map(lambda found: merge._incidents(found, [])),
    "experiments": st.dictionaries(st.just("latency-1@0"), EXPERIMENTS),
    "chaos": st.none()
    | st.fixed_dictionaries({"allowed": st.booleans(), "problems": st.just([]), "engaged": st.none() | st.sampled_from(["alice", "bob"])}),
    "canaries": st.dictionaries(NAMES, CANARIES, max_size=1),
    "pools": st.dictionaries(NAMES, st.dictionaries(NAMES, ENDPOINTS, max_size=1), max_size=1),
    "limit": st.none() | st.fixed_dictionaries({"limit": COUNTS, "active": COUNTS, "waiting": COUNTS}),
    "columns": st.none() | columns(),
}
NOTHING = {"incidents": [], "chaos": None, "limit": None, "columns": None}


@st.composite
def portraits(draw, *parts):
    """With these parts; with two that are drawn when none is named, for all of them take long to draw."""
    since = draw(SECONDS)
    wanted = parts or draw(st.sets(st.sampled_from(sorted(PARTS)), min_size=1, max_size=2))
    return {
        "version": 1,
        "form": "portrait",
        "service": "gateway",
        "environment": draw(st.none() | st.just("test")),
        "at": since + draw(SECONDS),
        "since": since,
        "index": draw(st.integers(0, 10)),
        "sources": sources(draw(st.sampled_from(["a", "b", "c"]))),
        **{part: draw(strategy) if part in wanted else NOTHING.get(part, {}) for part, strategy in PARTS.items()},
    }


def sent(portrait):
    """As it comes over the wire."""
    packed = None if portrait["columns"] is None else columns_of.packed(portrait["columns"])
    return json.loads(json.dumps({**portrait, "columns": packed}))


@pytest.mark.parametrize("part", sorted(PARTS))
@settings(max_examples=30)
@given(data=st.data())
def test_order_and_grouping_do_not_matter(part, data):
    """Whoever is asked first, and whoever has merged others before, the whole is the same, in each of its parts."""
    one, other, third = (data.draw(portraits(part)) for _ in range(3))
    assert merge.together(one, other) == merge.together(other, one)
    assert merge.together(merge.together(one, other), third) == merge.together(one, merge.together(other, third))


@given(portraits())
def test_one_source_is_itself(portrait):
    """Merging one portrait changes nothing, and neither does sending it."""
    assert merge.merge([portrait]) == portrait
    assert checked.portrait(sent(portrait)) == portrait


@given(st.lists(portraits("guards", "routes"), min_size=1, max_size=3))
def test_totals_are_sums(all_of_them):
    """Of every outcome of every guard and route; calls of the last minute too, and in the buckets nothing is lost."""
    whole = merge.merge(all_of_them)
    for kind in ("guards", "routes"):
        for name, each in whole[kind].items():
            parts = [portrait[kind][name] for portrait in all_of_them if name in portrait[kind]]
            assert each["totals"] == [sum(values) for values in zip(*(part["totals"] for part in parts), strict=True)]
            recent = [part["recent"] for part in parts if part["recent"] is not None]
            if recent:
                assert sum(each["recent"]) == sum(map(sum, recent))
                assert each["recent"][:HEAD] == [sum(row[place] for row in recent) for place in range(HEAD)]


@settings(max_examples=30)
@given(st.lists(columns(), min_size=1, max_size=3))
def test_columns_add_up_where_they_lie(all_of_them):
    """Each column of the whole is the sum of those of its time, whatever the bounds; what nobody knows is None."""
    whole = columns_of.merged(all_of_them)
    shown = columns_of.series(whole)
    for name, plotted in shown.items():
        for place in range(COLUMNS):
            column = whole["index"] - COLUMNS + place
            calls = [value for each in all_of_them if (value := _calls(each, name, column)) is not None]
            known = any(_known(each, column) for each in all_of_them)
            assert plotted["calls"][place] == (sum(calls) if known else None)


def _known(each, column):
    place = column - each["index"] + COLUMNS
    return 0 <= place < COLUMNS and each["known"][place]


def _calls(each, name, column):
    place = column - each["index"] + COLUMNS
    if name not in each["tracks"] or not 0 <= place < COLUMNS:
        return None
    track = each["tracks"][name]
    width = HEAD + len(track["bounds"]) + 1
    return sum(track["rows"][place * width : place * width + len(OUTCOMES)]) if track["rows"] else 0


@given(st.lists(portraits(), min_size=1, max_size=3))
def test_a_picture_is_json(all_of_them):
    """Whatever adds up can be shown: finite numbers, None where nothing is known, shares between 0 and 1."""
    whole = merge.merge(all_of_them)
    shown = json.loads(json.dumps(merge.picture(whole, columns_of.series(whole["columns"])), allow_nan=False))
    for guard in shown["guards"]:
        assert guard["error_share"] is None or 0.0 <= guard["error_share"] <= 1.0
        assert (guard["p50"] is None) or guard["p50"] <= guard["p95"] <= guard["p99"]
        assert (guard["state"] is None) is (not guard["states"])
    for objective in shown["objectives"]:
        assert objective["compliance"] is None or 0.0 <= objective["compliance"] <= 1.0


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, float("nan"), "\ud800", "x" * 1_000, "\u202e", 1e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def hostile(draw):
    """A portrait in which something is anything, or is not there."""
    said = sent(draw(portraits()))
    place, key = said, None
    while isinstance(place, dict | list) and place:
        inside, key = place, draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        place = inside[key]
        if draw(st.booleans()):
            break
    if draw(st.integers(0, 9)):
        inside[key] = draw(ANYTHING)
    else:
        del inside[key]
    return said


def accepted(said):
    """A portrait, or None: it was refused."""
    try:
        return checked.portrait(said)
    except checked.Strange:
        return None


@given(hostile(), portraits("guards"))
def test_no_peer_breaks_the_page(said, own):
    """What another process says is refused with a word why, or it can be merged and shown, and costs others nothing."""
    portrait = accepted(said)
    if portrait is None:
        return
    whole = merge.merge([own, portrait])
    json.dumps(merge.picture(whole, columns_of.series(whole["columns"])), allow_nan=False).encode()
    for name, each in own["guards"].items():
        assert all(one <= all_of_them for one, all_of_them in zip(each["totals"], whole["guards"][name]["totals"], strict=True))


@given(ANYTHING)
def test_anything_else_is_refused(said):
    """Nothing but a portrait is taken for one, nor for columns, events, details or an answer to a command."""
    for check in (checked.portrait, checked.columns, checked.events, checked.details, checked.extras):
        with pytest.raises(checked.Strange):
            check(said)


@pytest.mark.parametrize("version", [2, 0, "1", None, 1.0, True])
def test_another_version_is_said_to_be_one(version):
    """A newer service beside an older one is missing by that name, not a riddle."""
    with pytest.raises(checked.Strange, match="another version"):
        checked.portrait({"form": "portrait", "version": version})


@given(portraits("limit"), st.lists(st.integers(0, 1_000), min_size=1, max_size=4))
def test_what_is_shared_is_not_added_twice(portrait, seen):
    """Processes that share a folder of snapshots all tell of the same events: the one that has seen most has the say."""
    objective = {
        "target": 0.9,
        "period": 3600.0,
        "length": 3600.0,
        "kind": "availability",
        "policy": "fast_burn_alert",
        "description": "",
        "weights": {},
        "blocks": False,
        "alerts": [],
    }
    told = [
        {
            **portrait,
            "objectives": {
                "up": {
                    **objective,
                    "counted": {
                        "shared-1": {
                            "at": 1.0,
                            "events": [n, 0],
                            "counts": [n, 0],
                            "coverage": 1.0,
                            "windows": {"300": [n, 0]},
                            "points": [],
                        }
                    },
                }
            },
        }
        for n in seen
    ]
    shown = merge.picture(merge.merge({**each, "columns": None} for each in told))["objectives"][0]
    assert (shown["good"], shown["bad"]) == (max(seen), 0)


def test_bounds_have_to_ascend():
    """Bounds that do not ascend are refused: a quantile of them would be none."""
    row = [0] * (HEAD + 3)
    for bounds in ([0.2, 0.1], [0.0, 0.1], [0.1, 0.1]):
        with pytest.raises(checked.Strange, match="ascend"):
            checked._route({"bounds": bounds, "totals": [0] * HEAD, "recent": row})
