"""Queries of others: what is understood of them, and that looking at them takes no long time whatever they are."""

from __future__ import annotations

import time

import pytest

from somaresil.interchange.promql import ranged, rates_of, selector, whole

HOSTILE = [
    "a" * 2_000,
    "sum(" * 400 + "a" + ")" * 400,
    "rate(" + " " * 1_990,
    "rate(a[5m" * 200,
    "a{" + "b='c'," * 300 + "}",
    '"' * 2_000,
    "\\" * 2_000,
    "a_over_time" * 180,
    "[[" * 1_000,
    "{{.window}}" * 180,
    "sum by (" + "a," * 900 + ")",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_no_query_takes_long(query):
    """A hundred of them stand in a file that is just small enough."""
    begun = time.process_time()
    whole(query)
    selector(query)
    ranged(query)
    rates_of(query, query)
    assert time.process_time() - begun < 0.2


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up", ("up", "")),
        ("job:up:sum", ("job:up:sum", "")),
        ("(( up ))", ("up", "")),
        ("up{a=~'[)]',b=`}`}", ("up{a=~'[)]',b=`}`}", "")),
        ("sum without (a) (up offset 5m)", ("up", " offset 5m")),
        ("sum(sum by (a) (up))", ("up", "")),
        ("sum(up) or sum(down)", None),
        ("(up) + (down)", None),
        ("up[5m]", None),
        ("avg(up)", None),
        ("up{a='}", None),
        ("5", None),
        ("", None),
        ("sum(" * 20 + "up" + ")" * 20, None),
    ],
)
def test_selectors_and_sums_of_them(query, found):
    """And nothing else: a part of an expression is not taken for all of it."""
    assert selector(query) == found


@pytest.mark.parametrize(
    ("queries", "kind"),
    [
        (("rate(a[{{.window}}])",), True),
        (("increase(a[{{.window}}])", "count_over_time(a[{{.window}}])"), False),
        (("rate(a[{{.window}}])", "increase(a[{{.window}}])"), None),
        (("a",), None),
        (("a:rate{{.window}}", "b:ratio_rate{{.window}}"), True),
        (("a:increase{{.window}}",), False),
        (("increase(rate:a[{{.window}}])",), False),
    ],
)
def test_kinds_of_queries(queries, kind):
    """By the functions; where one says the one and one the other, nobody knows."""
    assert rates_of(*queries) is kind


def test_whole_queries():
    """Bounded, without comments, closed."""
    assert whole("a # b") == "a"
    assert whole("# b") is None
    assert whole("a)") is None
    assert whole("a" * 2_001) is None
