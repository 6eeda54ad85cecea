import dataclasses
import math
import random

import pytest

from somaresil.errors import ConfigurationError
from somaresil.model.sketch import Sketch
from somaresil.perf import PLAN_BUDGETS, PLAN_TARGETS, BudgetStatus, Measured, PerformanceBudget, check_all

KEPT, BROKEN, UNKNOWN = BudgetStatus.KEPT, BudgetStatus.BROKEN, BudgetStatus.UNKNOWN
SECOND = PerformanceBudget("/a", p95_ms=1000)


def one(budget, **measured):
    """Give the check of the only limit."""
    (check,) = budget.check(Measured(budget.endpoint, **measured)).checks
    return check


def test_the_budgets_of_the_plan():
    """As it has them, for two endpoints and for the whole."""
    message, invoke = PLAN_BUDGETS
    assert dataclasses.astuple(message)[:6] == ("/v1/sessions/message", 500, 2000, 5000, 100, 0.1)
    assert dataclasses.astuple(invoke)[:6] == ("/v1/llm/invoke", 1000, 3000, 8000, 50, 0.5)
    assert PLAN_TARGETS.limits == {"p50_ms": 500, "p95_ms": 2000, "p99_ms": 5000, "throughput_rps": 1000, "error_rate_percent": 0.1}


@pytest.mark.parametrize(
    ("slow", "count", "status"),
    [(0, 1000, KEPT), (20, 1000, KEPT), (50, 1000, UNKNOWN), (100, 1000, BROKEN), (0, 50, UNKNOWN), (50, 50, BROKEN)],
)
def test_a_percentile_is_judged_by_how_many_took_longer(slow, count, status):
    """Of 1,000, 5 % may: 20 keep it, 100 break it, and 50 tell nothing; of 50 none keeps it."""
    check = one(SECOND, latencies=[0.1] * (count - slow) + [1.5] * slow)
    assert (check.status, check.count, check.limit, check.allowed) == (status, count, "p95_ms", 1000.0)
    assert f"{slow} of {count}" in check.reason
    assert (check.needed is None) is (status is not UNKNOWN or slow == 50)


@pytest.mark.parametrize(("confidence", "least"), [(0.95, 59), (0.99, 90)])
def test_what_is_needed_is_what_decides(confidence, least):
    """With none too slow, 0.95 to the power of 59 is below 5 %, and to the power of 90 below 1 %."""
    for count, status in ((least, KEPT), (least - 1, UNKNOWN)):
        (check,) = SECOND.check(Measured("/a", latencies=[0.5] * count), confidence=confidence).checks
        assert check.status is status
    assert check.needed == least


def test_what_is_needed_is_about_enough():
    """When the share stays as it is, twice as many as were said decide, in either direction."""
    chance = random.Random(3)
    for share in (0.02, 0.035, 0.07, 0.1):
        slow = max(1, round(40 * share))
        check = one(SECOND, latencies=[0.1] * (40 - slow) + [2.0] * slow)
        if check.status is not UNKNOWN or check.needed is None:
            continue
        count = 2 * check.needed
        again = [2.0 if place < slow / 40 * count else 0.1 for place in range(count)]
        chance.shuffle(again)
        assert one(SECOND, latencies=again).status is (KEPT if slow / 40 < 0.05 else BROKEN)


def test_a_value_at_the_limit_keeps_it():
    """At most so long: 1 s is not longer than 1,000 ms."""
    assert one(SECOND, latencies=[1.0] * 200).status is KEPT
    assert one(SECOND, latencies=[1.0 + 1e-9] * 200).status is BROKEN


def test_a_sketch_is_judged_like_its_values():
    """Where the limit lies between buckets; values in the bucket of the limit are held for neither."""
    chance = random.Random(1)
    values = [chance.lognormvariate(-1.0, 0.5) for _ in range(3000)]
    for limit in (300.0, 820.0, 1500.0):
        budget = PerformanceBudget("/a", p95_ms=limit)
        exact, rough = one(budget, latencies=values), one(budget, latencies=Sketch(values))
        assert rough.status in {exact.status, UNKNOWN}
        assert rough.measured == pytest.approx(exact.measured, rel=0.011)
        assert rough.low <= exact.low <= exact.measured <= exact.high <= rough.high * (1 + 1e-12)
    assert one(SECOND, latencies=Sketch([0.9999] * 1000)).status is KEPT
    assert one(PerformanceBudget("/a", p95_ms=900), latencies=Sketch([*[0.901] * 500, 1.5])).status is UNKNOWN
    assert one(SECOND, latencies=Sketch([1.1] * 1000)).status is BROKEN


def test_an_estimate_decides_where_it_is_asked_to():
    """And says that it is one; what is decided anyway stays."""
    for slow, status in ((1, KEPT), (4, BROKEN)):
        measured = Measured("/a", latencies=[0.1] * (50 - slow) + [2.0] * slow)
        (check,) = SECOND.check(measured, undecided="estimate").checks
        assert check.status is status
        assert "estimate" in check.reason
        assert one(SECOND, latencies=measured.latencies).status is UNKNOWN


@pytest.mark.parametrize(
    ("errors", "requests", "status"),
    [(0, 10_000, KEPT), (0, 1000, UNKNOWN), (1, 10_000, KEPT), (10, 10_000, UNKNOWN), (30, 10_000, BROKEN), (0, 0, UNKNOWN)],
)
def test_an_error_rate_is_a_share(errors, requests, status):
    """0.1 %: none of a thousand does not show it, 4,603 would."""
    check = one(PerformanceBudget("/a", error_rate_percent=0.1), errors=errors, requests=requests)
    assert check.status is status
    if requests == 1000:
        assert check.needed == 4603


def test_no_errors_at_all_is_kept_when_none_was_seen():
    """No number of requests could show more; a single one breaks it."""
    budget = PerformanceBudget("/a", error_rate_percent=0)
    assert one(budget, errors=0, requests=10).status is KEPT
    assert one(budget, errors=1, requests=10).status is BROKEN


@pytest.mark.parametrize(
    ("limits", "measured", "status"),
    [
        ({"throughput_rps": 100}, {"requests": 6000, "duration": 60.0}, KEPT),
        ({"throughput_rps": 100}, {"requests": 6000, "errors": 1, "duration": 60.0}, BROKEN),
        ({"throughput_rps": 100}, {"requests": 3000, "duration": 60.0, "offered_rps": 50.0}, UNKNOWN),
        ({"throughput_rps": 100}, {"requests": 3000, "duration": 60.0, "offered_rps": 200.0}, BROKEN),
        ({"throughput_rps": 100}, {"requests": 3000}, UNKNOWN),
        ({"throughput_rps": 100}, {"requests": 3000, "duration": 0.0}, UNKNOWN),
        ({"throughput_rps": 100}, {"requests": 3, "errors": 4, "duration": 1.0}, UNKNOWN),
        ({"memory_mib": 512}, {"memory_bytes": 512 * 2**20}, KEPT),
        ({"memory_mib": 512}, {"memory_bytes": 512 * 2**20 + 1}, BROKEN),
        ({"memory_mib": 512}, {"memory_bytes": math.nan}, UNKNOWN),
        ({"cpu_percent": 150}, {"cpu_seconds": 15.0, "duration": 10.0}, KEPT),
        ({"cpu_percent": 150}, {"cpu_seconds": 15.1, "duration": 10.0}, BROKEN),
        ({"cpu_percent": 150}, {"cpu_seconds": 15.1}, UNKNOWN),
        ({"truncated_percent": 1}, {"truncated": 0, "streams": 1000}, KEPT),
        ({"truncated_percent": 1}, {"truncated": 40, "streams": 1000}, BROKEN),
        ({"truncated_percent": 1}, {"truncated": 5, "streams": 4}, UNKNOWN),
        ({"truncated_percent": 1}, {"truncated": -1, "streams": 4}, UNKNOWN),
        ({"ttft_p95_ms": 200}, {"ttft": [0.1] * 200}, KEPT),
        ({"ttft_p50_ms": 200}, {"ttft": [0.3] * 200}, BROKEN),
        ({"ttft_p99_ms": 200}, {"latencies": [0.1] * 1000}, UNKNOWN),
        ({"gap_p95_ms": 50}, {"gaps": [0.02] * 200}, KEPT),
        ({"gap_p99_ms": 50}, {"gaps": [0.06] * 200}, BROKEN),
        ({"p50_ms": 50}, {"latencies": []}, UNKNOWN),
        ({"p50_ms": 50}, {"latencies": Sketch()}, UNKNOWN),
        ({"p50_ms": 50}, {"latencies": [0.01] * 99 + [math.nan]}, UNKNOWN),
        ({"p50_ms": 50}, {"latencies": [0.01] * 99 + [-1.0]}, UNKNOWN),
        ({"p50_ms": 50}, {"latencies": [0.01] * 99 + ["1"]}, UNKNOWN),
    ],
)
def test_every_limit_has_its_measurement(limits, measured, status):
    """What was not measured, or is no measurement, is unknown and says why."""
    check = one(PerformanceBudget("/a", **limits), **measured)
    assert check.status is status
    assert check.reason


def test_a_budget_is_as_good_as_its_worst_limit():
    """Broken before unknown before kept; only what is not kept is told."""
    budget = PerformanceBudget("/a", p50_ms=100, p95_ms=200, memory_mib=10)
    good = [0.05] * 1000
    assert budget.check(Measured("/a", latencies=good, memory_bytes=1.0)).status is KEPT
    report = budget.check(Measured("/a", latencies=good))
    assert report.status is UNKNOWN
    assert str(report) == "/a: unknown\n  memory_mib: unknown: it was not measured"
    assert budget.check(Measured("/a", latencies=[0.15] * 1000)).status is BROKEN


def test_an_endpoint_of_which_nothing_was_measured_is_unknown():
    """With a hint when another one reads like it."""
    reports = check_all(PLAN_BUDGETS, [Measured("/v1/llm/invokes", latencies=[0.1] * 1000)])
    assert [report.status for report in reports] == [UNKNOWN, UNKNOWN]
    assert all("nothing was measured" in check.reason for report in reports for check in report.checks)
    assert "did you mean '/v1/llm/invokes'?" in str(reports[1])
    assert check_all([], []) == ()


def test_measurements_that_cannot_belong_are_refused():
    """Of another endpoint, twice of one, or no measurements."""
    with pytest.raises(ConfigurationError, match="another one"):
        SECOND.check(Measured("/b"))
    with pytest.raises(ConfigurationError, match="merge"):
        check_all([SECOND], [Measured("/a"), Measured("/a")])
    for call in (
        lambda: SECOND.check({"latencies": []}),
        lambda: check_all([SECOND], ["/a"]),
        lambda: SECOND.check(Measured("/a"), confidence=1.0),
    ):
        with pytest.raises(ConfigurationError):
            call()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "limits"),
        ({"p50_ms": -1}, "p50_ms"),
        ({"p50_ms": 0}, "p50_ms"),
        ({"p50_ms": "500"}, "p50_ms"),
        ({"p50_ms": math.nan}, "p50_ms"),
        ({"p50_ms": True}, "p50_ms"),
        ({"p50_ms": 500, "p95_ms": 400}, "p95_ms"),
        ({"ttft_p50_ms": 500, "ttft_p99_ms": 400}, "ttft_p99_ms"),
        ({"error_rate_percent": 101}, "error_rate_percent"),
        ({"truncated_percent": -0.1}, "truncated_percent"),
        ({"throughput_rps": 0}, "throughput_rps"),
        ({"memory_mib": math.inf}, "memory_mib"),
    ],
)
def test_limits_that_are_none_are_refused(options, path):
    with pytest.raises(ConfigurationError) as caught:
        PerformanceBudget("/a", **options)
    assert [problem.path for problem in caught.value.problems] == [f"PerformanceBudget.{path}"]


def test_a_table_says_the_same_as_the_constructor():
    table = {"endpoint": "/v1/llm/invoke", "p50_ms": 1000, "p95_ms": 3000, "p99_ms": 8000, "throughput_rps": 50, "error_rate_percent": 0.5}
    assert PerformanceBudget.of(table) == PLAN_BUDGETS[1]


@pytest.mark.parametrize(
    ("table", "path", "hint"),
    [
        ({"endpoint": "/a", "p95": 2000}, "budgets[0].p95", "the unit is part of the name: p95_ms"),
        ({"endpoint": "/a", "throughput": 2000}, "budgets[0].throughput", "throughput_rps"),
        ({"endpoint": "/a", "memory": 2000}, "budgets[0].memory", "memory_mib"),
        ({"endpoint": "/a", "p59_ms": 2000}, "budgets[0].p59_ms", "did you mean"),
        ({"p95_ms": 2000}, "budgets[0].endpoint", ""),
        ({"endpoint": "two words", "p95_ms": 2000}, "budgets[0].endpoint", ""),
    ],
)
def test_a_table_without_units_or_names_is_refused(table, path, hint):
    with pytest.raises(ConfigurationError) as caught:
        PerformanceBudget.of(table, path="budgets[0]")
    assert path in [problem.path for problem in caught.value.problems]
    assert any(hint in problem.hint for problem in caught.value.problems)
