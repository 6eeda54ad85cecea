"""Whatever is in a file of measurements: a result, or an error that names it."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.perf.read import FORMS, read_text
from somaresil.perf.read.tables import lines_of
from tests.unit.perf import kit

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
JSON = sorted(name for name, text in kit.TEXTS.items() if text[0] in "{[" and name != "k6-lines")


def check(text, form=None):
    """Read it: nothing but an error of ours may come out, and no result holds what no measurement is."""
    try:
        results = read_text(text, "out", form)
    except ConfigurationError as refused:
        wrong = refused
    else:
        wrong = None
    if wrong is not None:
        assert wrong.problems
        assert all(problem.path for problem in wrong.problems)
        assert str(wrong)
        return
    for result in results:
        assert result.series
        assert all(each.values and all(math.isfinite(value) and value >= 0.0 for value in each.values) for each in result.series)
    assert list(read_text("\n".join(line for result in results for line in lines_of(result)), "out")) == list(dict.fromkeys(results))


def places(value, path=()):
    """Give the path of every value within a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@given(st.sampled_from(JSON), st.data())
@settings(max_examples=300, deadline=None)
def test_a_document_with_anything_in_a_place(name, data):
    """Another value anywhere, or none."""
    document = json.loads(kit.TEXTS[name])
    path = data.draw(st.sampled_from([each for each in places(document) if each]))
    place = document
    for key in path[:-1]:
        place = place[key]
    if data.draw(st.booleans()):
        place[path[-1]] = data.draw(VALUES)
    else:
        del place[path[-1]]
    check(json.dumps(document))


@given(st.sampled_from(sorted(kit.TEXTS)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_text_that_is_cut_or_changed(name, data):
    """Cut anywhere, with anything put in."""
    text = kit.TEXTS[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    check(text[:start] + data.draw(st.text(max_size=6) | st.sampled_from(["NaN", "1e999", "9" * 5000, '"', "\x00", "\n"])) + text[end:])


@given(st.text(max_size=60), st.sampled_from([None, *FORMS]))
@settings(max_examples=200, deadline=None)
def test_any_text_as_any_form(text, form):
    """Also when somebody says that it is one."""
    check(text, form)
