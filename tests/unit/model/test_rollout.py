"""The table of a rollout, row by row, and what holds on every way through it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.rollout import Phase, Rollout, Seen, Step, Verdict

PASS, FAIL, WAIT = Verdict.PASS, Verdict.FAIL, Verdict.WAIT
PHASES = (Phase("bake", 0.0, 60.0, 0), Phase("ramp_10", 0.1, 120.0, 50), Phase("ramp_100", 1.0, 30.0, 10))


def at(place, *, phases=PHASES, paused=False):
    return Rollout(phases, place, 1_000.0, paused)


@pytest.mark.parametrize(
    ("lasted", "verdict", "events", "step", "reason"),
    [
        (0.0, WAIT, 0, Step.HOLD, "ramp_10: 120 of 120 s to bake, 0 of 50 events"),
        (119.0, PASS, 500, Step.HOLD, "ramp_10: 1 of 120 s to bake"),
        (500.0, WAIT, 49, Step.HOLD, "ramp_10: 49 of 50 events"),
        (120.0, WAIT, 50, Step.PROMOTE, "nothing speaks against it"),
        (120.0, PASS, 50, Step.PROMOTE, "nothing speaks against it"),
        (0.0, FAIL, 1, Step.ROLLBACK, "the candidate is worse"),
        (9e9, FAIL, 9_999, Step.ROLLBACK, "the candidate is worse"),
        (-50.0, WAIT, 50, Step.HOLD, "ramp_10: 120 of 120 s to bake"),
    ],
)
def test_each_row(lasted, verdict, events, step, reason):
    """Time and events are both needed; a failure needs neither."""
    move = at(1).look(1_000.0 + lasted, Seen(verdict, events))
    assert (move.step, move.reason) == (step, reason)
    assert move.rollout.weight == {Step.HOLD: 0.1, Step.PROMOTE: 1.0, Step.ROLLBACK: 0.0}[step]


def test_the_last_phase_is_followed_by_complete():
    """All the traffic, for good."""
    move = at(2).look(1_030.0, Seen(WAIT, 10))
    assert (move.step, move.rollout.name, move.rollout.weight, move.rollout.over) == (Step.COMPLETE, "complete", 1.0, True)


@pytest.mark.parametrize("overdue", ["hold", "promote", "rollback"])
def test_what_is_held_is_promoted_by_nothing(overdue):
    """Not by proof, and not by a time that is over; a failure and an end that was wished for are not held."""
    phases = (Phase("ramp_10", 0.1, 0.0, 0, longest=60.0, overdue=overdue), Phase("ramp_50", 0.5, 0.0, 0))
    held = at(0, phases=phases)
    assert held.look(1_000.0, Seen(PASS, 500, held="nobody answers")).reason == "ramp_10: nobody answers"
    late = held.look(9e9, Seen(PASS, 500, held="nobody answers"))
    assert late.step is (Step.ROLLBACK if overdue == "rollback" else Step.HOLD)
    assert held.look(1_000.0, Seen(FAIL, 1, "bad", "nobody answers")).step is Step.ROLLBACK
    assert held.look(1_000.0, Seen(PASS, 500)).step is Step.PROMOTE


@pytest.mark.parametrize("place", [-1, 3])
@pytest.mark.parametrize("verdict", list(Verdict))
def test_nothing_leads_out_of_the_end(place, verdict):
    """Neither evidence nor people."""
    over = at(place)
    for move in (over.look(9e9, Seen(verdict, 9_999)), over.promoted(9e9, "by hand"), over.rolled_back(9e9, "by hand")):
        assert (move.step, move.rollout) == (Step.HOLD, over)


def test_a_failure_goes_through_a_pause():
    """Nothing else does."""
    paused = at(1, paused=True)
    assert paused.look(9e9, Seen(PASS, 9_999)).step is Step.HOLD
    assert paused.look(1_000.0, Seen(FAIL, 1)).step is Step.ROLLBACK
    assert not paused.promoted(1_000.0, "by hand").rollout.paused


@pytest.mark.parametrize(("overdue", "step"), [("hold", Step.HOLD), ("promote", Step.PROMOTE), ("rollback", Step.ROLLBACK)])
def test_what_gets_no_evidence_in_time_does_what_it_was_told(overdue, step):
    """And not a second earlier."""
    phases = (Phase("ramp_10", 0.1, 10.0, 50, True, 600.0, overdue), PHASES[2])
    assert at(0, phases=phases).look(1_599.0, Seen(WAIT, 99)).step is Step.HOLD
    assert at(0, phases=phases).look(1_600.0, Seen(WAIT, 99)).step is step
    assert at(0, phases=phases).look(1_600.0, Seen(PASS, 99)).step is Step.PROMOTE


looks = st.lists(st.tuples(st.floats(0.0, 400.0), st.sampled_from(Verdict), st.integers(0, 100)), max_size=40)


@given(looks)
def test_every_way_goes_upwards_or_ends_at_once(steps):
    """No phase is left out, no weight shrinks but to nothing, and no phase is left before its time."""
    rollout, now = Rollout.begin(PHASES, 0.0), 0.0
    for passed, verdict, events in steps:
        now += passed
        before = rollout
        move = rollout.look(now, Seen(verdict, events))
        rollout = move.rollout
        if move.step in {Step.PROMOTE, Step.COMPLETE}:
            assert rollout.place == before.place + 1
            assert now - before.entered >= PHASES[before.place].bake
            assert events >= PHASES[before.place].minimum_events
            assert verdict is not FAIL
        elif move.step is Step.ROLLBACK:
            assert verdict is FAIL
            assert rollout.weight == 0.0
        else:
            assert rollout == before
            assert before.over or verdict is not FAIL


def test_a_rollout_begins_in_its_first_phase():
    """With its name and its weight, and not paused."""
    begun = Rollout.begin(PHASES, 7.0)
    assert begun == Rollout(PHASES, 0, 7.0, paused=False)
    assert (begun.name, begun.weight, begun.over) == ("bake", 0.0, False)
    ramping = Rollout(PHASES[1:], 0, 7.0)
    assert (ramping.name, ramping.weight, ramping.over) == ("ramp_10", 0.1, False)


def test_what_is_rolled_back_is_not_paused_and_has_a_place_of_its_own():
    """The moment is kept, and who asks is told that it is over."""
    move = at(1, paused=True).rolled_back(1_050.0, "by hand")
    assert move == (Step.ROLLBACK, "by hand", Rollout(PHASES, -1, 1_050.0, paused=False))
    assert (move.rollout.name, move.rollout.weight, move.rollout.over) == ("rollback", 0.0, True)
    assert move.rollout.look(2_000.0, Seen(PASS, 9)).reason == "it is over: rollback"


@pytest.mark.parametrize("overdue", ["promote", "rollback"])
def test_what_was_overdue_says_what_was_missing(overdue):
    """And for how long it was waited."""
    phases = (Phase("ramp_10", 0.1, 10.0, 50, True, 600.0, overdue), PHASES[2])
    move = at(0, phases=phases).look(1_600.0, Seen(WAIT, 9))
    assert move.reason == "ramp_10: 9 of 50 events, no proof yet that it is not much worse, after 600 s"
