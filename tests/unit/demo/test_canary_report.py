"""The report of the demo of a canary: what users had of each version, when it was decided, and whether it went as it ought to."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest

pytest.importorskip("rich")

from somaresil.demo.canary.acts import ACTS
from somaresil.demo.canary.page import to_html
from somaresil.demo.canary.report import CanaryReport, Point, result_of, side_of, sparkline
from somaresil.demo.canary.terminal import print_report
from somaresil.demo.load import Sample

LIMIT = 0.3
BAD, GOOD = ACTS[0], ACTS[-1]


def sample(due, *, side="candidate", latency=0.1, failure=None):
    return Sample(f"r{due}", "message", due=due, ended=due + latency, failure=failure, degraded=False, served_by=side, began=due)


def state(phase, *moves, good=0, bad=0):
    counts = {"candidate_good": good, "candidate_bad": bad, "control_good": 0, "control_bad": 0}
    told = [{"at": at, "step": step, "phase": phase, "reason": f"because of {step}"} for at, step in moves]
    return {"phase": phase, "reason": "it is over", "counts": counts, "moves": told}


def rolled_back(*more):
    samples = [
        sample(100.5),
        sample(101.0, failure="status 503"),
        sample(101.2, latency=0.4),
        sample(101.9, latency=0.9),
        sample(102.5, side="control"),
        sample(102.6, side="control", latency=0.5),
        sample(103.0, side="", failure="no response: ConnectError"),
        *more,
    ]
    points = [
        {"at": 100.0, "candidate": 0, "bad": 0, "worse": 1.0, "too_bad": 1.0, "weight": 0.1},
        {"at": 102.0, "candidate": 3, "bad": 2, "worse": 300.0, "too_bad": 20.0, "weight": 0.0},
    ]
    told = state("rollback", (100.0, "start"), (102.0, "rollback"), good=1, bad=3)
    return result_of(BAD, samples, told, points, started=100.0, limit=LIMIT)


def promoted(**more):
    told = state("complete", (100.0, "start"), (108.0, "complete"), good=50)
    result = result_of(GOOD, [sample(101.0 + n) for n in range(5)], told, [], started=100.0, limit=LIMIT)
    return replace(result, **more)


def report(*acts):
    return CanaryReport("1.0", 7, 60.0, 12.0, "somebody", 100.0, LIMIT, acts)


def test_what_users_had_of_a_version_that_was_rolled_back():
    """Failed or late is bad; what came after the decision was bad for its user, but told nobody."""
    act = rolled_back()
    assert (act.candidate.requests, act.candidate.failed, act.candidate.late, act.candidate.bad) == (4, 1, 2, 3)
    assert (act.control.requests, act.control.bad) == (2, 1)
    assert (act.seconds, act.bad_before, act.after, act.unanswered) == (2.0, 2, 0, 1)
    # The first bad answer was there at 101.1.
    assert act.detection_seconds == pytest.approx(0.9)
    assert act.reason == "because of rollback"
    assert act.failures == {"message: status 503": 1, "message: answered after more than 0.3 s": 2}
    assert act.evidence == 160.0
    assert list(act.problems()) == []


def test_a_generator_that_was_late_is_no_fault_of_a_version():
    """What counts is the time from when a request was sent, and the report says that the machine was too slow."""
    late = Sample("r1", "message", due=0.0, ended=5.1, failure=None, degraded=False, served_by="candidate", began=5.0)
    assert side_of([late], LIMIT).bad == 0
    assert report(promoted()).hint is None
    assert "up to 5.0 s late" in replace(report(promoted()), behind=5.0).hint


def test_figures_of_a_side():
    """Quantiles are latencies that were measured."""
    side = side_of([sample(0.0, latency=n / 100.0) for n in range(1, 101)], LIMIT)
    assert (side.p50, side.p95, side.p99) == (0.51, 0.96, 1.0)
    assert side.late == 70
    assert side_of([], LIMIT).p50 is None


def test_a_report_passes_when_each_version_ended_as_it_ought_to():
    """Otherwise it says which did not, and why."""
    assert report(rolled_back(), promoted()).passed
    assert not report(promoted(wanted="rollback")).passed
    wrong = report(replace(rolled_back(), outcome="ramp_10", seconds=None))
    assert wrong.problems == ("errors: nothing was decided, it is in ramp_10, not in rollback: because of rollback",)


def test_requests_after_a_rollback_are_a_problem():
    """None may go to a version that was rolled back: begun at 102.0 or before is not after it."""
    assert rolled_back(sample(102.0)).after == 0
    act = rolled_back(sample(102.1))
    assert act.after == 1
    assert any("went to it after" in problem for problem in act.problems())


def test_a_router_that_reloads_may_take_its_time_and_counts_nothing():
    """Its candidate may get requests for a moment after a rollback, and what versions have told is a little old."""
    samples = [sample(103.4, failure="status 503"), sample(103.6)]
    told = state("rollback", (100.0, "start"), (102.0, "rollback"), bad=90)
    act = result_of(BAD, samples, told, [], started=100.0, limit=LIMIT, reload=1.5)
    assert act.after == 1
    assert list(replace(act, after=0).problems()) == []


def test_the_books_of_the_gateway_are_held_against_those_of_the_users():
    """A few may differ: a user that was slow himself saw a late answer."""
    act = rolled_back()
    assert not list(replace(act, counted=act.counted | {"candidate_bad": 6}).problems())
    (problem, _) = replace(act, counted=act.counted | {"candidate_bad": 10}).problems()
    assert problem == "errors: the gateway has counted 11 requests, its users 4"


def test_the_evidence_is_drawn_in_powers():
    """From 1 to the threshold; over the requests, not over the time."""
    curve = [Point(float(n), n, 0, 2.0 * 10.0**n - 1.0, 1.0, 0.1) for n in range(3)]
    assert sparkline(curve, 100.0, 3) == "▁▄█"
    assert sparkline(curve, 100.0, 2) == "▄█"
    assert sparkline([], 100.0) == ""
    assert sparkline([Point(0.0, 0, 0, 1e12, 1.0, 0.1)], 100.0, 2) == "██"


def test_the_report_is_printed_written_and_told():
    """As text, as JSON without NaN, and as a page that loads nothing."""
    told = report(rolled_back(), promoted())
    out = io.StringIO()
    print_report(told, out)
    text = out.getvalue()
    assert "rolled back after 2.0 s and 4 requests; users had 2 bad answers by then, 0.9 s after the first of them" in text
    assert "PASSED" in text
    data = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert data["passed"] is True
    assert data["acts"][0]["curve"][-1] == {
        "at": 2.0,
        "requests": 3,
        "bad": 2,
        "worse": 300.0,
        "too_bad": 20.0,
        "weight": 0.0,
        "evidence": 160.0,
    }
    assert math.isclose(data["acts"][0]["detection_seconds"], 0.9)
    page = to_html(told)
    assert page.count("<svg") == 2
    assert "<script" not in page
    failed = io.StringIO()
    print_report(report(promoted(wanted="rollback")), failed)
    assert "NOT PASSED" in failed.getvalue()
