"""Budgets against results: counted where every request is there, bounded by percentiles where only a summary is."""

from __future__ import annotations

import pytest

from somaresil.perf import PerformanceBudget, Series, merge
from somaresil.perf.budgetcheck import check_budgets, names_of
from somaresil.perf.read import read_text
from tests.unit.perf import kit


def judged(series, *, undecided="unknown", **limits):
    """Give the status and the reason of one limit."""
    budget = PerformanceBudget("/v1/items", **limits)
    (report,) = check_budgets([budget], series, undecided=undecided)
    (check,) = report.checks
    return check.status.value, check.reason


def summary(requests=10_000, rounding=0.0, **percentiles):
    """Give a summary of an endpoint in milliseconds."""
    listed = [Series("/v1/items", "seconds", (value / 1e3,), metric=name, rounding=rounding) for name, value in percentiles.items()]
    if requests:
        listed.append(Series("/v1/items", "count", (float(requests),), metric="requests"))
    return {each.key: each for each in listed}


@pytest.mark.parametrize(
    ("name", "is_it"),
    [
        ("/v1/items", True),
        ("GET /v1/items", True),
        ('request_seconds{handler="/v1/items",method="GET"}', True),
        ("http_req{name:/v1/items}", True),
        ("/v1/items/7", False),
        ('request_seconds{other="/v1/items"}', False),
        ("items", False),
    ],
)
def test_series_about_an_endpoint(name, is_it):
    """By name, with a method before it, or as a label."""
    assert names_of("/v1/items", [name]) == ((name,) if is_it else ())


def test_every_request_is_counted():
    """1 of 1000 is beyond, and 5 % may be."""
    series = {("/v1/items", "duration"): Series("/v1/items", "seconds", (0.1,) * 999 + (9.0,))}
    assert judged(series, p95_ms=2000.0)[0] == "kept"
    assert judged(series, p50_ms=99.0)[0] == "broken"


def test_percentiles_bound_how_many_are_beyond():
    """With the 98th below the limit, at most 2 % are above it: enough for a promise about 95 %."""
    assert judged(summary(p50=10.0, p95=1500.0, p98=1900.0, p99=4000.0), p95_ms=2000.0)[0] == "kept"
    assert judged(summary(p50=10.0, p90=2500.0, p95=3000.0), p95_ms=2000.0)[0] == "broken"
    status, reason = judged(summary(p50=10.0, p95=1500.0, p99=4000.0), p95_ms=2000.0)
    assert status == "unknown"
    assert "100 to 500 of 10000" in reason
    assert judged(summary(p50=10.0, p95=1500.0, p99=4000.0), undecided="estimate", p95_ms=2000.0)[0] == "kept"


def test_few_requests_cannot_show_it():
    """20 requests below a limit do not show that 95 % of all are."""
    assert judged(summary(20, p50=1.0, p95=2.0, p100=3.0), p95_ms=2000.0)[0] == "unknown"
    assert judged(summary(2000, p50=1.0, p95=2.0, p100=3.0), p95_ms=2000.0)[0] == "kept"
    status, reason = judged(summary(0, p95=2.0, p100=3.0), p95_ms=2000.0)
    assert (status, "how many requests there were is not known" in reason) == ("unknown", True)


def test_a_percentile_that_was_rounded_across_the_limit_decides_nothing():
    """2000 ms of Locust is anything from 1950 to 2050: not even an estimate."""
    rounded = summary(rounding=0.05, p50=10.0, p95=2000.0)
    assert judged(rounded, p95_ms=2000.0)[0] == "unknown"
    assert judged(rounded, undecided="estimate", p95_ms=2000.0)[0] == "unknown"
    assert judged(rounded, undecided="estimate", p95_ms=2100.0)[0] == "kept"


def test_of_several_runs_the_worst_counts():
    """One good run does not make up for a bad one."""
    runs = merge(read_text(kit.TEXTS["wrk"].replace("1844.42", rate), "wrk")[0] for rate in ("1844.42", "500.00"))
    assert judged(runs, throughput_rps=1000.0) == ("broken", "475 good answers a second, and 1000 are promised")


def test_counts_of_errors():
    """5 % of 2000 requests are more than 1 %, and less than 10 %."""
    series = merge(read_text(kit.TEXTS["wrk"], "wrk"))
    assert judged(series, error_rate_percent=1.0)[0] == "broken"
    assert judged(series, error_rate_percent=10.0)[0] == "kept"
    assert judged(series, error_rate_percent=5.0)[0] == "unknown"
    alone = {("/v1/items", "error_rate"): Series("/v1/items", "ratio", (0.02,), metric="error_rate")}
    assert judged(alone, error_rate_percent=1.0) == ("broken", "2 %, and 1 may be")


def test_a_missing_endpoint_and_an_ambiguous_one_are_unknown():
    """Named, never passed."""
    status, reason = judged({("/v1/item", "p95"): Series("/v1/item", "seconds", (1.0,), metric="p95")}, p95_ms=1.0)
    assert (status, reason) == ("unknown", "nothing was measured of this endpoint (did you mean '/v1/item'?)")
    two = [Series(name, "seconds", (1.0,)) for name in ("GET /v1/items", "POST /v1/items")]
    assert "several series" in judged({each.key: each for each in two}, p95_ms=1.0)[1]
    assert judged(summary(p50=1.0), memory_mib=5.0)[0] == "unknown"


def test_percentiles_are_of_good_answers_where_these_are_counted():
    """And nobody tells how many pauses there were."""
    series = merge(read_text(kit.TEXTS["load"].replace('"message"', '"/v1/items"'), "load"))
    assert "of 990 take longer" in judged(series, p95_ms=450.0)[1]
    assert judged(series, p95_ms=450.0)[0] == "kept"
    assert "how many requests there were is not known" in judged(series, gap_p99_ms=100.0)[1]
    assert judged(series, undecided="estimate", gap_p99_ms=100.0)[0] == "kept"


def test_first_items_and_memory():
    """Percentiles of first items bound likewise; memory is a figure."""
    series = [
        Series("/v1/items", "seconds", (0.2,), metric="ttft_p95"),
        Series("/v1/items", "seconds", (0.3,), metric="ttft_p100"),
        Series("/v1/items", "count", (5000.0,), metric="requests"),
        Series("/v1/items", "bytes", (2.0**20,), metric="memory"),
    ]
    found = {each.key: each for each in series}
    assert judged(found, ttft_p95_ms=400.0)[0] == "kept"
    assert judged(found, ttft_p95_ms=100.0)[0] == "unknown"
    assert judged(found, memory_mib=1.0)[0] == "kept"
