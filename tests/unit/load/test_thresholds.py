"""Judging: kept, broken, or not known; counted, never rounded."""

from datetime import timedelta

import pytest

from somaresil import SLO
from somaresil.load import Answer, Book, Books, Request, Run, Scenario, Stage, Threshold, judge_all
from somaresil.load.books import Ending
from somaresil.load.measure import Measure
from somaresil.load.report import LoadReport
from somaresil.load.server import ServerView, parse, view_of
from somaresil.load.thresholds import bounds_of, judge, limits, needed, verdict


def run_of(latencies, *, failures=0, dropped=0, threshold=None, seconds=10.0, saturated=False):
    books = Books(bounds_of([threshold]) if threshold else {})
    book = books.book("a")
    book.started = len(latencies) + failures
    book.dropped = dropped
    for latency in latencies:
        books.note(Ending("a", 0.0, latency))
    for _ in range(failures):
        books.note(Ending("a", 0.0, 0.001, "status 503"))
    late = Measure()
    for _ in range(30):
        late.add(1.0 if saturated else 0.0)
    return Run(books, seconds, seconds, book.started + dropped, lateness=late, complete=True)


def answer(limit, value, latencies, **options):
    threshold = Threshold(limit, value)
    run = run_of(latencies, threshold=threshold, **options)
    return judge(threshold, run.books.total(), run)


@pytest.mark.parametrize(
    ("slow", "expected"), [(5, Answer.KEPT), (6, Answer.BROKEN)], ids=["exactly as many as may be", "one more than may be"]
)
def test_a_quantile_is_counted_exactly(slow, expected):
    """1.999 s is within 2 s and 2.001 s is not, also when every tool that rounds would say otherwise."""
    assert answer("p95", 2.0, [1.999] * (100 - slow) + [2.001] * slow).answer is expected


def test_a_quick_error_is_not_within_the_limit():
    """Ten in a hundred that fail in a millisecond break "95 % within a second"."""
    found = answer("p95", 1.0, [0.5] * 90, failures=10)
    assert found.answer is Answer.BROKEN
    assert "90 of 100" in found.why


def test_what_was_dropped_was_not_answered():
    """Neither for the quantile nor for its own limit."""
    assert answer("p95", 1.0, [0.5] * 90, dropped=10).answer is Answer.BROKEN
    assert answer("dropped", 0.05, [0.5] * 90, dropped=10).answer is Answer.BROKEN
    assert answer("dropped", 0.2, [0.5] * 90, dropped=10).answer is Answer.KEPT


def test_too_few_requests_decide_nothing_and_it_is_said_how_many_would():
    """Nineteen cannot show that 95 % are fast."""
    found = answer("p95", 1.0, [0.5] * 19)
    assert found.answer is Answer.UNKNOWN
    assert "at least 20" in found.why
    assert answer("p95", 1.0, [0.5] * 20).answer is Answer.KEPT
    assert answer("p95", 1.0, []).answer is Answer.UNKNOWN


def test_what_is_broken_already_is_broken_with_few():
    """With ten bad of ten no further request can help."""
    assert answer("error_rate", 0.001, [], failures=10).answer is Answer.BROKEN


def test_a_saturated_generator_breaks_no_limit_of_time():
    """What it measured may be itself; but errors are errors."""
    assert answer("p95", 1.0, [2.0] * 100, saturated=True).answer is Answer.UNKNOWN
    assert answer("p95", 1.0, [0.5] * 100, saturated=True).answer is Answer.KEPT
    assert answer("error_rate", 0.1, [0.5] * 50, failures=50, saturated=True).answer is Answer.BROKEN


def test_throughput_is_what_was_answered_well():
    """What was never asked for cannot have been answered, so it is not known then."""
    assert answer("throughput", 9.0, [0.5] * 100).answer is Answer.KEPT
    assert answer("throughput", 9.0, [0.5] * 50, failures=50).answer is Answer.BROKEN
    assert answer("throughput", 90.0, [0.5] * 100).answer is Answer.UNKNOWN


def test_an_empty_verdict_is_no_good_one():
    """No check, no answer."""
    assert verdict([]) is Answer.UNKNOWN


def scenario(**options):
    requests = (Request("a", "/a"), Request("s", "/s", kind="sse"))
    return Scenario("t", "http://127.0.0.1", requests, (Stage(10.0, 10.0),), **options)


def test_a_scenario_without_limits_is_judged_all_the_same():
    """A run in which everything failed is never a good one."""
    checks = judge_all(scenario(), run_of([], failures=2000))
    assert verdict(checks) is Answer.BROKEN
    assert [threshold.limit for threshold in limits(scenario())] == ["error_rate", "dropped"]


def test_limits_of_streams_are_about_streams_alone():
    """Unary requests have no first item, and must not be missing there."""
    kept = scenario(thresholds=(Threshold("ttft_p95", 0.5), Threshold("truncated", 0.1)))
    run = run_of([0.1] * 100)
    for number in range(40):
        run.books.note(
            Ending("s", 0.0, 2.0, stream=True, first=0.4, items=3, truncated=number == 0, failure="truncated" if number == 0 else None)
        )
    answers = {check.what: check.answer for check in judge_all(kept, run)}
    assert answers["ttft_p95 <= 0.5 s"] is Answer.KEPT
    assert answers["truncated <= 0.1"] is Answer.KEPT


def test_a_stream_that_failed_before_its_first_item_was_not_in_time():
    """Ten of fifty that never began break 95 %."""
    run = run_of([])
    for number in range(50):
        failed = number < 10
        run.books.note(Ending("s", 0.0, 1.0, stream=not failed, first=None if failed else 0.1, failure="status 503" if failed else None))
    found = {check.what: check.answer for check in judge_all(scenario(thresholds=(Threshold("ttft_p95", 0.5),)), run)}
    assert found["ttft_p95 <= 0.5 s"] is Answer.BROKEN


def test_an_objective_is_judged_as_it_is_defined():
    """The same definition as in production: good is well and in time."""
    fast = SLO("fast", 95.0, timedelta(days=7), latency=2.0)
    up = SLO("up", 99.0, timedelta(days=30))
    other = SLO("recovery", 95.0, timedelta(days=30), recovery=300.0)
    run = run_of([0.5] * 190 + [2.5] * 8, failures=2)
    answers = {check.what: check.answer for check in judge_all(scenario(slos=(fast, up, other)), run)}
    assert answers["fast: 95 %"] is Answer.KEPT
    assert answers["up: 99 %"] is Answer.KEPT
    assert answers["recovery"] is Answer.UNKNOWN
    slow = run_of([0.5] * 180 + [2.5] * 20)
    assert {check.what: check.answer for check in judge_all(scenario(slos=(fast,)), slow)}["fast: 95 %"] is Answer.BROKEN


def test_how_many_requests_are_needed_is_known_before():
    """One for each that may be bad."""
    assert needed(scenario(thresholds=(Threshold("p99", 1.0), Threshold("error_rate", 0.05)))) == 100
    assert needed(scenario()) == 1000
    # Half of the requests are streams, so a limit of theirs needs twice as many.
    assert needed(scenario(thresholds=(Threshold("ttft_p99", 1.0), Threshold("error_rate", 0.05)))) == 200


def test_what_was_struck_is_judged_by_nothing():
    """Experiments are no defects of the service."""
    run = run_of([0.1] * 2000)
    for _ in range(500):
        run.books.note(Ending("a", 0.0, 9.0, "status 503", injected=True))
    assert verdict(judge_all(scenario(), run)) is Answer.KEPT


# -- reports ------------------------------------------------------------------------------------------------------------------------------


def report_of(run, **options):
    return LoadReport(scenario(**options), run, judge_all(scenario(**options), run))


def test_a_run_that_was_cut_short_keeps_nothing():
    """Half a soak is no soak; but what is broken in it is."""
    run = run_of([0.1] * 2000)
    assert report_of(run).exit_code == 0
    run.complete = False
    assert report_of(run).exit_code == 2
    broken = run_of([], failures=2000)
    broken.complete = False
    assert report_of(broken).exit_code == 1


def test_a_report_is_harmless_wherever_it_is_shown():
    """What a service calls its errors is neither obeyed by a terminal nor by a page."""
    run = run_of([0.1] * 2000)
    run.books.note(Ending("a", 0.0, 1.0, "\x1b[31m<script>|`@x"))
    report = report_of(run)
    assert "\x1b" not in report.to_text()
    assert "<script>" not in report.to_markdown()
    from somaresil.load_command.html import to_html

    assert "<script>" not in to_html(report)


def test_json_has_no_nan_and_is_read_back():
    """The books of a report are those of the run."""
    import json

    data = json.loads(report_of(run_of([0.1] * 50, failures=3)).to_json())
    assert Books.from_dict(data["books"]).total().ended == 53
    assert json.loads(report_of(run_of([])).to_json())["exit_code"] == 2
    assert isinstance(Books.from_dict(data["books"]).total(), Book)


# -- the service's side -------------------------------------------------------------------------------------------------------------------

TEXT = """
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{{http_response_status_code="200",le="0.1"}} {fast}
http_server_request_duration_seconds_bucket{{http_response_status_code="200",le="+Inf"}} {total}
http_server_request_duration_seconds_count{{http_response_status_code="200"}} {total}
http_server_request_duration_seconds_count{{http_response_status_code="503"}} 4
somaresil_sli_events_total{{slo="up",outcome="good"}} {fast}
somaresil_sli_events_total{{slo="up",outcome="bad"}} 5
somaresil_slo_objective_ratio{{slo="up"}} 0.99
"""


def test_what_the_service_counted_is_the_difference_of_two_readings():
    """Requests, failures, quantiles and events of the run alone."""
    view = view_of(parse(TEXT.format(fast=10, total=20)), parse(TEXT.format(fast=110, total=120)))
    assert (view.requests, view.failed) == (100.0, 0.0)
    assert view.quantiles[0.5] == pytest.approx(0.05)
    assert view.objectives["up"] == (100.0, 100.0, 0.99)
    assert [check.answer for check in view.checks(["up"])] == [Answer.KEPT]


def test_a_service_that_was_started_again_tells_nothing():
    """Counters that went back are no difference."""
    view = view_of(parse(TEXT.format(fast=110, total=120)), parse(TEXT.format(fast=1, total=2)))
    assert "started again" in view.problem
    assert [check.answer for check in view.checks(["up"])] == [Answer.UNKNOWN]


def test_an_objective_that_the_service_does_not_have_is_not_known():
    """It says which it has."""
    found = view_of(parse(""), parse(TEXT.format(fast=1, total=2))).checks(["down"])
    assert found[0].answer is Answer.UNKNOWN
    assert "up" in found[0].why
    assert ServerView(problem="gone").checks(["x"])[0].why == "gone"


@pytest.mark.parametrize("text", ["a{", "<html>", 'http_server_request_duration_seconds_bucket{le="x"} 1', "a b c d"])
def test_what_are_no_metrics_is_named(text):
    """Never taken for a service that counted nothing."""
    with pytest.raises(ValueError, match="Prometheus"):
        parse(text)
