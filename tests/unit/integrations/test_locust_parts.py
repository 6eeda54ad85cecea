"""What the integration of Locust reckons by itself: timetables, kinds of errors, sums. Locust is not imported here."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.integrations._locust_pace import Pace, constant_pacing, constant_throughput, missed, poisson
from somaresil.integrations._locust_report import ClientRun, checks_of, limits_of
from somaresil.integrations._locust_tally import NOT_BEGUN, Sum, Tally, ending_of, failure_of
from somaresil.load import Threshold
from somaresil.load.books import Books, Ending
from somaresil.load.measure import Measure
from somaresil.load.thresholds import Answer
from somaresil.slo import SLO

WEEK = timedelta(days=7)


def test_nothing_of_this_imports_locust():
    """It would make the whole process one of gevent."""
    assert "locust" not in sys.modules
    assert "gevent" not in sys.modules


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=50), st.floats(0.01, 2.0))
def test_no_answer_moves_a_timetable(durations, gap):
    """The nth run is due n gaps after the first, however long each one took, and a user who is not behind waits until then."""
    pace, now = Pace(100.0, lambda: gap), 100.0
    for number, duration in enumerate(durations, 1):
        now += duration
        wait = pace.step(now)
        assert pace.due == pytest.approx(100.0 + number * gap)
        assert wait == pytest.approx(max(0.0, pace.due - now))
        now += wait


@pytest.mark.parametrize(("now", "runs"), [(99.0, 0), (100.0, 0), (101.0, 0), (101.5, 1), (103.5, 3)])
def test_what_was_due_and_has_not_begun_is_counted(now, runs):
    """One that is due at this very moment is not late."""
    assert Pace(100.0, lambda: 1.0).missed(now) == runs


def test_who_was_sent_away_misses_nothing():
    """Users go when a shape wants fewer of them; what is left of them in memory has no timetable any more."""
    assert Pace(100.0, lambda: 1.0, lambda: True).missed(200.0) == 0


def test_missed_runs_have_a_bound():
    """A user who stands still for an age is counted in no time."""
    assert missed([Pace(0.0, lambda: 1e-9)], 1e9) == 100_000


@pytest.mark.parametrize("make", [constant_pacing, constant_throughput, poisson])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "1", None])
def test_a_wait_that_is_none_is_refused(make, value):
    """At once, not when the first user waits."""
    with pytest.raises(ConfigurationError):
        make(value)


class ReadTimeout(Exception):
    """As clients call it."""


class NewConnectionError(Exception):
    """As clients call it."""


def wrapped(error):
    outer = NewConnectionError("pool")
    outer.reason = error
    return RuntimeError("wrapper", outer)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (None, 503, None),
        (Exception("x"), 503, "status 503"),
        (ReadTimeout("x"), None, "timeout"),
        (wrapped(ConnectionRefusedError(111, "x")), 0, "refused"),
        (ConnectionResetError(), None, "reset"),
        (Exception("too short an answer"), 200, "too short an answer"),
        (Exception(), 200, "Exception"),
        ("a text", None, "a text"),
        (Exception("x" * 500), 200, "x" * 80),
    ],
)
def test_errors_have_kinds(error, status, kind):
    """Those of the generator; what a task says of an answer, in its own words."""
    assert failure_of(error, status) == kind


def test_errors_in_a_circle_end():
    """A chain that leads to itself is gone along once."""
    error = ValueError("x")
    error.__context__ = other = KeyError(error)
    other.__context__ = error
    assert failure_of(error) == "x"


def test_a_request_counts_from_its_intended_start():
    """What Locust measured, and what the run of the task began late."""
    response = SimpleNamespace(status_code=200, headers={"x-somaresil-chaos": "exp-1"})
    ending = ending_of("GET", "/ok", 250.0, None, response, size=3, now=100.0, late=1.0)
    assert (ending.request, ending.due, ending.ended, ending.injected) == ("GET /ok", 98.75, 100.0, True)


requests = st.lists(st.tuples(st.sampled_from(["GET /a", "SSE b"]), st.floats(0.0, 10.0), st.booleans()), max_size=60)


@given(st.lists(requests, min_size=1, max_size=4))
def test_what_workers_tell_adds_up_to_what_one_would_have_counted(workers):
    """Books, sketches and exact counts: equal, not nearly equal."""
    bounds = {"latency": (0.5, 2.0)}
    alone, total = Tally(bounds), Sum(bounds)
    for number, seen in enumerate(workers):
        worker = Tally(bounds)
        for place, (request, took, good) in enumerate(seen):
            for tally in (worker, alone):
                tally.note(Ending(request, 0.0, took, None if good else "status 500"))
            if place % 7 == 0:
                total.add(f"w{number}", worker.take())
        total.add(f"w{number}", worker.take(), last=True)
    assert total.books.as_dict() == Books.from_dict(alone.take()["books"]).as_dict()
    assert total.missing == []
    assert total.books.total().started == sum(map(len, workers))


@pytest.mark.parametrize("told", [None, 3, {}, {"books": {}, "lag": {}, "busiest": 0}, {"books": None, "lag": None, "busiest": "x"}])
def test_a_report_that_cannot_be_read_is_a_problem(told):
    """What it said is not known, so nothing is for certain."""
    total = Sum()
    total.add("w1", told)
    assert len(total.problems) == 1
    assert total.books.total().ended == 0


def test_a_worker_without_last_counts_is_missing():
    """Until it has told them."""
    total = Sum()
    total.add("w1", Tally().take())
    assert total.missing == ["w1"]
    total.add("w1", Tally().take(), last=True)
    assert total.missing == []


def judged(*thresholds, seen=(), slos=(), clients=None, missed_runs=0):
    limits = limits_of(thresholds)
    tally, total = Tally(), Sum()
    for request, took, failure in seen:
        tally.note(Ending(request, 0.0, took, failure, stream=request.startswith("SSE "), first=took / 2, gaps=Measure()))
    tally.miss(missed_runs)
    total.add("w", tally.take())
    return {check.what: check for check in checks_of(limits, slos, ClientRun(total.books, 1.0, 1.0, clients=clients or {}))}


def test_an_error_rate_is_always_judged():
    """A test in which everything failed is never a good one."""
    assert judged(seen=[("GET /a", 0.1, "status 500")] * 2000)["error_rate <= 0.001"].answer is Answer.BROKEN
    assert judged()["error_rate <= 0.001"].answer is Answer.UNKNOWN


def test_a_limit_finds_its_request_by_name_or_by_type_and_name():
    """Others are not in it; one that nobody made is not known."""
    seen = [("GET /a", 0.1, None)] * 100 + [("POST /a", 9.0, None)] * 100 + [("SSE b", 9.0, None)] * 100
    limits = [Threshold("p95", 1.0, request) for request in ("GET /a", "/a", "c")]
    found = judged(*limits, Threshold("ttft_p95", 1.0), seen=seen)
    answers = {what.partition(":")[0]: check.answer for what, check in found.items()}
    assert answers["GET /a"] is Answer.KEPT
    assert answers["/a"] is Answer.BROKEN
    assert answers["c"] is Answer.UNKNOWN
    assert "of 100 streams" in found["ttft_p95 <= 1 s"].why


def test_runs_that_were_not_begun_are_not_answered_in_time():
    """Twenty of a hundred are more than one in twenty."""
    found = judged(Threshold("p95", 1.0), Threshold("dropped", 0.1), seen=[("GET /a", 0.1, None)] * 100, missed_runs=20)
    assert found["p95 <= 1 s"].answer is Answer.BROKEN
    assert found["dropped <= 0.1"].answer is Answer.BROKEN
    assert NOT_BEGUN == "(not begun)"


@pytest.mark.parametrize("clients", [{"w": (0.99, Measure())}, {"w": (0.1, None)}])
def test_a_saturated_client_breaks_no_limit_of_time(clients):
    """By its processor or by its waits; errors are errors all the same."""
    late = Measure()
    for _ in range(40):
        late.add(0.2)
    clients = {name: (busy, late if lag is None else lag) for name, (busy, lag) in clients.items()}
    found = judged(Threshold("p95", 1.0), seen=[("GET /a", 5.0, None)] * 100 + [("GET /a", 5.0, "x")] * 10, clients=clients)
    assert found["p95 <= 1 s"].answer is Answer.UNKNOWN
    assert found["error_rate <= 0.001"].answer is Answer.BROKEN


def test_objectives_are_judged_as_they_are():
    """95 % within two seconds; what clients cannot see is not known."""
    slos = [SLO("fast", 95.0, WEEK, latency=2.0), SLO("first", 95.0, WEEK, first_item=1.0)]
    found = judged(seen=[("GET /a", 1.0, None)] * 60 + [("SSE b", 3.0, None)] * 40, slos=slos)
    assert found["fast: 95 %"].answer is Answer.BROKEN
    assert found["first: 95 %"].answer is Answer.BROKEN
