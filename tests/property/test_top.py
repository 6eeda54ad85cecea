"""The terminal view of any picture: whatever a service says, it is drawn, it fits, and it cannot steer the terminal."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil.top_command import VIEWS
from somaresil.top_command.data import listed, text
from somaresil.top_command.page import Look, Seen
from somaresil.top_command.steering import Steering, keys_of
from somaresil.top_command.text import ASCII, UNICODE, cells, cut, shown
from somaresil.top_command.views import draw

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=30)
numbers = st.none() | st.floats(0.0, 1e12) | st.integers(0, 10**12)
states = st.sampled_from(["closed", "open", "half_open", "forced_open", "disabled", "ramping", ""]) | names
counts = st.dictionaries(st.sampled_from(["good", "bad", "rejected", "injected"]), numbers, max_size=4)
SERIES = ("calls", "bad", "rejected", "injected", "p95")


def objects(required=(), **fields):
    """Objects of these fields, each of which may be missing, or be anything."""
    return st.fixed_dictionaries({}, optional={name: field | anything for name, field in fields.items()})


guards = objects(
    name=names,
    pipeline=st.lists(names, max_size=3),
    worst_case=numbers,
    state=states,
    states=st.dictionaries(states, numbers, max_size=3),
    held_by=st.lists(names, max_size=2),
    window=numbers,
    rate=numbers,
    counts=counts,
    totals=counts,
    error_share=numbers,
    injected_share=numbers,
    p50=numbers,
    p95=numbers,
    p99=numbers,
    keys=st.dictionaries(states, numbers, max_size=2),
    series=st.fixed_dictionaries({}, optional={name: st.lists(numbers, max_size=8) for name in SERIES}),
)
pictures = objects(
    version=st.just(1),
    service=names,
    environment=names,
    at=numbers,
    sources=st.lists(
        objects(name=names, kind=names, state=st.sampled_from(["live", "stale", "missing"]), at=numbers, why=names), max_size=3
    ),
    guards=st.lists(guards, max_size=3),
    routes=st.lists(guards, max_size=2),
    objectives=st.lists(
        objects(
            name=names,
            target=numbers,
            good=numbers,
            bad=numbers,
            budget_left=numbers,
            burn=st.dictionaries(st.sampled_from(["300", "3600", "259200"]), numbers),
            exhausted_in=numbers,
            alerts=st.lists(objects(severity=names, since=numbers), max_size=2),
            blocks=st.booleans(),
            budget_series=objects(left=st.lists(numbers, max_size=4)),
        ),
        max_size=2,
    ),
    incidents=st.lists(objects(subject=names, began=numbers, ended=numbers, injected=st.booleans()), max_size=2),
    experiments=st.lists(
        objects(id=names, kind=names, target=names, rate=numbers, state=names, remaining=numbers, injected=numbers, by=names), max_size=2
    ),
    chaos=objects(allowed=st.booleans(), problems=st.lists(names, max_size=2), engaged=names),
    plans=st.lists(objects(name=names, about=names), max_size=2),
    canaries=st.lists(
        objects(
            name=names,
            version=names,
            phase=names,
            weight=numbers,
            evidence_series=objects(log10=st.dictionaries(names, st.lists(numbers, max_size=4), max_size=2)),
            evidence=st.lists(objects(slo=names, e_value=numbers, threshold=numbers, bad=numbers, events=numbers), max_size=2),
        ),
        max_size=2,
    ),
    pools=st.lists(objects(name=names, endpoints=st.lists(objects(name=names, state=names, weight=numbers), max_size=2)), max_size=1),
    limit=objects(limit=numbers, active=numbers, waiting=numbers),
)
details = objects(
    stages=st.lists(objects(name=names, says=names, worst_case=numbers), max_size=2),
    timeline=st.lists(objects(at=numbers, source=names, before=states, after=states, cause=names), max_size=2),
    heat=objects(bounds=st.lists(numbers, max_size=3), cells=st.lists(st.lists(numbers, max_size=4), max_size=4)),
    rejections=st.dictionaries(names, numbers, max_size=2),
    recent=st.lists(objects(at=numbers, text=names, level=names), max_size=2),
)
events = st.lists(objects(id=numbers, source=names, at=numbers, kind=names, level=names, about=names, text=names), max_size=3)


def check(lines, width):
    """They fit and are harmless."""
    for line in lines:
        assert sum(cells(span.text) for span in line) <= width
        assert all(span.text.isprintable() for span in line)


@settings(deadline=None, max_examples=60)
@given(pictures, details, events, st.sampled_from(VIEWS), st.integers(1, 220), names, names, st.booleans())
def test_any_picture_is_drawn_at_any_width(picture, detail, heard, view, width, wanted, chosen, unicode):
    """Nothing is raised, no line is too wide, no character is obeyed."""
    named = [text(each.get("name")) for each in listed(picture.get("guards"))]
    guard = named[0] if named else "g"
    look = Look(view, width, wanted, chosen, guard, glyphs=UNICODE if unicode else ASCII, local=time.gmtime, detailed=unicode)
    page = draw(Seen(picture, {**detail, "name": guard}, heard), look)
    check([*page.head, *page.body], width)


@settings(deadline=None, max_examples=60)
@given(pictures, st.binary(max_size=30), st.integers(1, 120), st.integers(1, 40))
def test_any_keys_can_be_pressed(picture, typed, width, height):
    """After any keys the screen still fits the terminal."""
    steering = Steering("overview")
    seen = Seen(picture)
    for key in keys_of(typed):
        steering.press(key, {"stop"})
        lines = steering.screen(seen, width, height, may={"stop"})
        assert len(lines) <= height
        check(lines, width)


@given(st.text(), st.integers(0, 60))
def test_text_is_harmless_and_fits(written, width):
    """For every text and every width."""
    said = shown(written)
    assert said.isprintable()
    assert cells(cut(said, width)) <= width
