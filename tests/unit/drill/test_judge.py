"""What becomes of a fault is judged by what was seen, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.drill.judge import STEADY, Impact, Observation, Request, judge, recovery, unavailable


def good(*dues, lasts=0.05):
    return tuple(Request(due, due + lasts, "good") for due in dues)


def run_of_good(begin, count=STEADY):
    return good(*(begin + 0.1 * number for number in range(count)))


ABSORBED = Observation(
    armed_at=100.0,
    lease_end=101.0,
    limit=20.0,
    requests=good(100.2, 100.6) + run_of_good(101.0),
    selected=("worker-1",),
    injected={"worker-1": 3, "worker-2": 0},
    first_sign=100.3,
    clean_at=101.5,
)
FAILED = Request(100.4, 100.9, "failed", "status 502")
DEGRADED = Request(100.4, 100.7, "degraded", "no history")


def test_a_fault_that_no_user_has_noticed_is_absorbed_and_over_at_once():
    verdict = judge(ABSORBED)
    assert (verdict.impact, verdict.recovered, verdict.why) == (Impact.ABSORBED, True, "")
    assert verdict.recovered_after == 0.0
    assert verdict.clean_after == verdict.over_after == pytest.approx(1.5)
    assert verdict.detected_after == pytest.approx(0.3)


@pytest.mark.parametrize(("request_", "impact"), [(FAILED, Impact.FAILED), (DEGRADED, Impact.DEGRADED)])
def test_recovery_is_the_end_of_the_last_bad_request(request_, impact):
    verdict = judge(replace(ABSORBED, requests=(*ABSORBED.requests, request_)))
    assert (verdict.impact, verdict.recovered, verdict.bad) == (impact, True, 1)
    assert verdict.recovered_after == pytest.approx(request_.ended - 100.0)


def test_one_failed_request_among_degraded_ones_is_a_failure():
    assert judge(replace(ABSORBED, requests=(*ABSORBED.requests, DEGRADED, FAILED))).impact is Impact.FAILED


def test_what_struck_nothing_has_shown_nothing():
    """However well the users fared."""
    verdict = judge(replace(ABSORBED, injected={"worker-1": 0}))
    assert (verdict.impact, verdict.recovered, verdict.why) == (Impact.NOT_INJECTED, False, "it struck nothing")
    assert verdict.detected_after is None


def test_a_strike_outside_the_blast_radius_is_no_recovery():
    verdict = judge(replace(ABSORBED, injected={"worker-1": 3, "worker-2": 1}))
    assert not verdict.recovered
    assert "worker-2" in verdict.why


def test_a_refused_fault_is_not_recovered_from():
    verdict = judge(replace(ABSORBED, injected={}, refused="worker-1: 422"))
    assert (verdict.recovered, verdict.why) == (False, "it was refused: worker-1: 422")


def test_requests_during_the_lease_are_no_steady_state():
    """Good answers while the fault is on may be luck: the run of good ones has to begin after it."""
    verdict = judge(replace(ABSORBED, requests=run_of_good(100.1)))
    assert (verdict.recovered, verdict.recovered_after) == (False, None)
    assert "no steady service" in verdict.why


def test_a_bad_request_in_the_run_begins_it_anew():
    late = Request(101.75, 101.78, "failed")
    assert not judge(replace(ABSORBED, requests=(*ABSORBED.requests, late))).recovered
    verdict = judge(replace(ABSORBED, requests=(*ABSORBED.requests, late, *run_of_good(101.8))))
    assert (verdict.recovered, verdict.recovered_after) == (True, pytest.approx(1.78))


def test_what_is_left_is_no_recovery():
    verdict = judge(replace(ABSORBED, clean_at=None, left=("worker-1: circuit llm/main is open",)))
    assert not verdict.recovered
    assert "llm/main is open" in verdict.why


@pytest.mark.parametrize("late", [{"clean_at": 121.0}, {"requests": (Request(100.1, 121.0, "failed"), *run_of_good(121.5))}])
def test_too_late_is_no_recovery(late):
    verdict = judge(replace(ABSORBED, **late))
    assert not verdict.recovered
    assert "more than 20 s" in verdict.why


def test_users_detect_what_no_instance_has_noticed():
    seen = replace(ABSORBED, first_sign=None)
    assert judge(seen).detected_after is None
    assert judge(replace(seen, requests=(*seen.requests, FAILED))).detected_after == pytest.approx(0.9)


def test_what_the_platform_cannot_do_does_not_count():
    verdict = unavailable("no filters here")
    assert (verdict.impact, verdict.counts, verdict.recovered, verdict.why) == (Impact.UNAVAILABLE, False, False, "no filters here")


requests = st.lists(
    st.builds(
        lambda due, lasts, outcome: Request(due, due + lasts, outcome),
        st.floats(100.0, 110.0),
        st.floats(0.0, 3.0),
        st.sampled_from(["good", "good", "good", "degraded", "failed"]),
    ),
    max_size=40,
)


@given(requests, st.floats(0.0, 5.0))
def test_after_recovery_nothing_bad_ends(listed, lease):
    """Whatever came: it is the end of a bad request or the arming, nothing bad ends later, and enough good ones begin after it."""
    lease_end = 100.0 + lease
    found = recovery(listed, 100.0, lease_end)
    bad = [request for request in listed if request.bad]
    begun = [request for request in listed if not request.bad and request.due >= max([lease_end, *(request.ended for request in bad)])]
    assert (found is not None) == (len(begun) >= STEADY)
    if found is not None:
        assert not any(request.due > found for request in bad)
        assert found == max([100.0, *(request.ended for request in bad)])


@given(requests, requests)
def test_more_bad_requests_never_make_it_better(listed, more):
    bad = [replace(request, outcome="failed") for request in more]
    before, after = (judge(replace(ABSORBED, requests=tuple(seen))) for seen in (listed, [*listed, *bad]))
    assert before.recovered or not after.recovered
    if before.recovered and after.recovered:
        assert after.recovered_after >= before.recovered_after


@given(requests)
def test_the_order_of_what_was_seen_does_not_matter(listed):
    assert judge(replace(ABSORBED, requests=tuple(listed))) == judge(replace(ABSORBED, requests=tuple(reversed(listed))))
