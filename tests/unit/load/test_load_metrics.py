"""A run of load as metrics: what is counted, from nothing on, never back, and few series whatever comes."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from somaresil.integrations.loadmetrics import BOUNDS, LOAD_FAMILIES, LoadMetrics
from somaresil.load import Ending, Point, Request, Run, Scenario, Stage
from somaresil.load.books import ABANDONED, Books
from somaresil.load.measure import Measure

SCENARIO = Scenario("evening", "http://127.0.0.1:8000", (Request("ask", "/ask"), Request("talk", "/talk")), (Stage(10.0, 5.0),))


def point(**given):
    plain = {
        **dict.fromkeys(("offered", "good", "failed", "injected", "dropped", "in_flight"), 0),
        **dict.fromkeys(("p50", "p95", "first")),
        "at": 1.0,
        "seconds": 1.0,
        "cpu": 0.25,
        "late": 0.0,
    }
    return Point(**{**plain, **given})


@pytest.fixture
def metrics():
    return LoadMetrics()


@pytest.fixture
def value(metrics):
    registry = CollectorRegistry()
    registry.register(metrics)

    def find(name, **labels):
        return registry.get_sample_value(name, {"scenario": "evening", **labels})

    find.registry = registry
    return find


def test_everything_that_is_counted_is_there_before_the_first_request(metrics, value):
    """Prometheus does not see the first step of a series that begins at 1."""
    assert value("somaresil_load_offered_total") is None
    metrics.watching(SCENARIO)
    assert value("somaresil_load_offered_total") == 0
    for request in ("ask", "talk"):
        for outcome in ("good", "failed", "dropped"):
            assert value("somaresil_load_requests_total", request=request, outcome=outcome, injected="false") == 0


def test_a_slice_that_has_ended_is_shown(metrics, value):
    """Counts of each request, failures by kind, streams, and how the generator fares."""
    watch = metrics.watching(SCENARIO)
    run = Run(Books(), offered=7)
    books = run.books
    books.note(Ending("ask", 0.0, 0.2))
    books.note(Ending("ask", 0.0, 0.2, failure="status 503"), chaos=True)
    books.note(Ending("ask", 0.0, 0.2, failure="timeout", injected=True))
    books.note(Ending("ask", 0.0, 0.2, failure=ABANDONED))
    gaps = Measure()
    gaps.add(0.02)
    books.note(Ending("talk", 0.0, 2.0, stream=True, first=0.3, gaps=gaps, items=2))
    books.note(Ending("talk", 0.0, 2.0, failure="cut off", stream=True, truncated=True, first=0.3, items=1))
    books.book("ask").dropped = 1
    run.lateness.add(0.004)
    watch(point(in_flight=3, offered=7), run)
    assert value("somaresil_load_offered_total") == 7
    outcomes = {"good": 1, "failed": 1, "dropped": 1, "abandoned": 1}
    for outcome, times in outcomes.items():
        assert value("somaresil_load_requests_total", request="ask", outcome=outcome, injected="false") == times
    assert value("somaresil_load_requests_total", request="ask", outcome="failed", injected="true") == 1
    assert value("somaresil_load_errors_total", kind="status 503") == 1
    assert value("somaresil_load_errors_total", kind="timeout") == 1
    assert value("somaresil_load_streams_total", request="talk", ending="complete") == 1
    assert value("somaresil_load_streams_total", request="talk", ending="truncated") == 1
    assert value("somaresil_load_latency_seconds_bucket", request="ask", le="0.1") == 0
    assert value("somaresil_load_latency_seconds_bucket", request="ask", le="0.25") == 1
    assert value("somaresil_load_latency_seconds_bucket", request="talk", le="+Inf") == 1
    assert value("somaresil_load_first_seconds_bucket", request="talk", le="0.5") == 2
    assert value("somaresil_load_gap_seconds_bucket", request="talk", le="0.025") == 1
    assert value("somaresil_load_late_seconds_bucket", le="0.005") == 1
    assert (value("somaresil_load_in_flight"), value("somaresil_load_generator_cpu_ratio"), value("somaresil_load_saturated")) == (
        3,
        0.25,
        0,
    )
    run.points.append(point(cpu=0.99))
    watch(point(cpu=0.99), run)
    assert value("somaresil_load_saturated") == 1


def test_there_is_nothing_that_the_table_does_not_have(metrics, value):
    """And every metric of the table comes, with the labels that stand there."""
    watch = metrics.watching(SCENARIO)
    run = Run(Books(), offered=1)
    gaps = Measure()
    gaps.add(0.02)
    run.books.note(Ending("talk", 0.0, 2.0, failure="x", stream=True, first=0.3, gaps=gaps, items=2))
    run.lateness.add(0.0)
    watch(point(), run)
    found = {family.name: family for family in parse(generate_latest(value.registry).decode())}
    assert set(found) == set(LOAD_FAMILIES)
    for name, family in found.items():
        kind, labels, _ = LOAD_FAMILIES[name]
        assert family.type == kind
        assert {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples} == {tuple(sorted(labels))}


def test_many_requests_are_fifty_and_the_others(metrics, value):
    """Names of requests may be made of what is asked for."""
    watch = metrics.watching(SCENARIO)
    run = Run(Books())
    for number in range(200):
        run.books.note(Ending(f"r{number}", 0.0, 0.1))
    watch(point(), run)
    family = next(family for family in value.registry.collect() if family.name == "somaresil_load_requests")
    good = {sample.labels["request"]: sample.value for sample in family.samples if sample.labels["outcome"] == "good"}
    assert len(good) == 51
    assert sum(good.values()) == 200
    assert good["_other"] == 152


def test_buckets_only_grow(metrics, value):
    """Whatever comes later; each holds those below it."""
    watch = metrics.watching(SCENARIO)
    run = Run(Books())
    before = [0] * (len(BOUNDS) + 1)
    for number in range(1, 30):
        run.books.note(Ending("ask", 0.0, 1.7**number / 1000.0))
        watch(point(), run)
        ends = [*(repr(bound) for bound in BOUNDS), "+Inf"]
        now = [value("somaresil_load_latency_seconds_bucket", request="ask", le=end) for end in ends]
        assert now == sorted(now)
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now
    assert before[-1] == 29


def test_it_is_served_while_the_run_lasts(metrics):
    """And nobody listens afterwards."""
    metrics.watching(SCENARIO)
    with metrics.serve("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            assert b'somaresil_load_offered_total{scenario="evening"} 0.0' in answer.read()
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(url, timeout=5.0)


def test_the_table_of_the_guide_has_every_metric_with_its_labels():
    """What is not there nobody finds."""
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "load.md").read_text(encoding="utf-8")
    rows = guide.partition("<!-- metrics of a run of load -->")[2].partition("\n\n")[0].splitlines()[3:]
    told = {}
    for row in rows:
        name, labels, _ = (cell.strip() for cell in row.strip("|").split("|", 2))
        told[name.strip("`").removesuffix("_total")] = tuple(re.findall(r"`(\w+)`", labels))
    assert told == {name: labels for name, (_, labels, _) in LOAD_FAMILIES.items()}
