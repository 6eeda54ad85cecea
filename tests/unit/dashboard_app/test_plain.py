"""The status as tables."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.dashboard.plain import missing_page, plain_page

HOSTILE = "<img src=x onerror=alert(1)>\"'&</title><script>alert(1)</script>"
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "body",
        "main",
        "h1",
        "h2",
        "p",
        "a",
        "div",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
    ),
    *("td", "wbr"),
}


class Reader(HTMLParser):
    """What a reader without JavaScript makes of it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text.append(data)


PICTURE = {
    "service": "gateway",
    "environment": "demo",
    "at": 1_764_281_900.4,
    "sources": [
        {"name": "gateway-1", "kind": "self", "state": "live"},
        {"name": "gateway-2", "kind": "worker", "state": "missing", "why": "no answer"},
    ],
    "guards": [
        {
            "name": "llm.invoke",
            "state": "open",
            "states": {"closed": 3, "open": 1},
            "rate": 12.5,
            "error_share": 0.034,
            "injected_share": 0.013,
            "p50": 0.12,
            "p95": 1.25,
            "p99": None,
            "counts": {"rejected": 5},
        }
    ],
    "objectives": [
        {
            "name": "api",
            "target": 0.999,
            "budget_left": 0.42,
            "burn": {"300": 1.25, "3600": None},
            "exhausted_in": 90_000,
            "alerts": [{"severity": "page"}],
        }
    ],
    "experiments": [{"id": "e1", "state": "running", "remaining": 41.25, "injected": 10, "by": None}],
    "chaos": {"engaged": "alice: a pager"},
}


def test_everything_is_in_tables_that_can_be_read_aloud():
    read = Reader(plain_page(PICTURE))
    text = " ".join("".join(read.text).split())
    for said in (
        "llm.invoke",
        "closed in 3, open in 1",
        "12.5",
        "3.4 %",
        "120 ms",
        "1.25 s",
        "42 %",
        "1.25 (5 min), not known (1 h)",
        "1.04 d",
        "page",
    ):
        assert said in text
    assert "Not everything is in these tables: gateway-2 (missing)." in text
    assert "The safety lever is engaged: alice: a pager." in text
    assert "1 experiment runs." in text
    assert "script" not in read.tags
    assert ("th", "scope", "col") in read.attributes
    assert ("th", "scope", "row") in read.attributes
    assert "caption" in read.tags
    assert not [each for each in read.attributes if each[1] == "http-equiv"]


def test_it_asks_again_if_told_to():
    assert ("meta", "content", "15") in Reader(plain_page(PICTURE, refresh=15)).attributes


@pytest.mark.parametrize("field", ["service", "environment"])
def test_names_are_text_wherever_they_stand(field):
    assert Reader(plain_page({**PICTURE, field: HOSTILE})).tags <= TAGS


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HOSTILE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*PICTURE, *PICTURE["guards"][0], "id", "why", "alerts"]), inner, max_size=6)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from([*PICTURE, "routes", "canaries", "incidents"]), anything))
def test_whatever_is_in_a_picture_is_shown_as_text(picture):
    """Peers may be of another version, or lie."""
    assert Reader(plain_page(picture)).tags <= TAGS


@given(st.text())
def test_what_is_not_there_is_shown_as_text(name):
    assert Reader(missing_page(name, 1)).tags <= TAGS


def test_a_page_of_a_thousand_guards_is_finite():
    page = plain_page({"guards": [{"name": f"g{number}"} for number in range(1_500)]})
    assert "And 500 more." in page
