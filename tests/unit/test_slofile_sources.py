"""Where others count the events of an objective, and whose it is, in the file of objectives."""

from __future__ import annotations

import pytest

from somaresil.errors import ConfigurationError
from somaresil.slo.rules import Histogram, Queries
from somaresil.slofile import read_slos

FILE = """
[slos.orders]
target_percentage = 99.5
measurement_window = "30d"
service = "shop"
source = { bad_query = 'sum(rate(orders{ok="no"}[{{.window}}]))', total_query = "sum(rate(orders[{{.window}}]))" }

[slos.fast]
target_percentage = 95.0
measurement_window = "30d"
latency = 0.5
source = { histogram = "http_seconds", buckets = [0.1, 0.5], labels = { route = "/a" } }

[slos.fine]
target_percentage = 95.0
measurement_window = "30d"
source = { good_query = "sum(a_over_time[{{.window}}])", total_query = "b[{{ .window }}]", rates = false }

[slos.ours]
target_percentage = 95.0
measurement_window = "30d"
"""


def test_sources_and_services_are_read(tmp_path):
    """Queries of bad or good events, or a histogram; none for what is in our counter."""
    (tmp_path / "slo.toml").write_text(FILE)
    file = read_slos(tmp_path / "slo.toml")
    assert file.services == {"orders": "shop"}
    assert file.sources == {
        "orders": Queries('sum(rate(orders{ok="no"}[{{.window}}]))', "sum(rate(orders[{{.window}}]))"),
        "fast": Histogram("http_seconds", (0.1, 0.5), {"route": "/a"}),
        "fine": Queries("", "b[{{ .window }}]", rates=False, good_query="sum(a_over_time[{{.window}}])"),
    }


WRONG = {
    "no table": (3, ["source"]),
    "nothing": ({}, ["source.bad_query", "source.total_query"]),
    "a misspelt name": ({"bad_qury": "a[{{.window}}]"}, ["source.bad_qury"]),
    "wrong types": ({"bad_query": 1, "total_query": [], "rates": "no"}, ["source.bad_query", "source.total_query", "source.rates"]),
    "both kinds": (
        {"bad_query": "a[{{.window}}]", "good_query": "a[{{.window}}]", "total_query": "a[{{.window}}]"},
        ["source.bad_query"],
    ),
    "no window": ({"bad_query": "a", "total_query": "b"}, ["source.total_query", "source.bad_query"]),
    "a histogram for no latency": ({"histogram": "a", "buckets": [1]}, ["source"]),
    "a histogram of nothing": ({"histogram": "a b", "buckets": ["x"], "labels": {"a": 1}}, ["source.buckets.0", "source.labels"]),
    "labels that are none": ({"histogram": "a", "buckets": [1], "labels": {"a,b": "c"}}, ["source.labels", "source"]),
}


@pytest.mark.parametrize("how", WRONG)
def test_every_mistake_is_told_with_its_path(how):
    """At once, in words of the file."""
    given, paths = WRONG[how]
    table = {"target_percentage": 99.0, "measurement_window": "30d", "source": given, "service": "two words"}
    with pytest.raises(ConfigurationError) as caught:
        read_slos({"slos": {"a": table}})
    assert [problem.path for problem in caught.value.problems] == ["slos.a.service", *(f"slos.a.{path}" for path in paths)]


def test_slices_are_not_for_queries():
    """Only the process knows them."""
    table = {"target_percentage": 99.0, "measurement_window": "30d", "budgeting": "ratio_timeslices", "time_slice_window": 60}
    source = {"bad_query": "a[{{.window}}]", "total_query": "a[{{.window}}]"}
    with pytest.raises(ConfigurationError) as caught:
        read_slos({"slos": {"a": {**table, "source": source}}})
    assert [problem.path for problem in caught.value.problems] == ["slos.a.source"]
