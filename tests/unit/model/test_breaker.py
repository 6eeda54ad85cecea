"""The breaker model: its table, eras, leases, thresholds and openings."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from somaresil.model.breaker import (
    NOTHING_SEEN,
    TRANSITIONS,
    Breaker,
    IllegalTransition,
    Permit,
    State,
    Tally,
    Thresholds,
    Transition,
    Trigger,
    diagram,
)

PLAIN = Thresholds(
    failure_rate=0.5,
    slow_call_rate=None,
    consecutive_failures=None,
    minimum_calls=4,
    open_duration=30.0,
    open_factor=2.0,
    open_maximum=100.0,
    open_jitter=0.0,
    half_open_calls=3,
    half_open_concurrency=1_000,
    probe_timeout=5.0,
    ramp_up=0.0,
    ramp_up_from=0.25,
    window=30.0,
    window_calls=None,
    slow_call_duration=None,
)
MIDDLE = 0.5
"""The draw that lengthens and shortens nothing."""

EXPECTED = {
    (State.CLOSED, Trigger.EXCEEDED): State.OPEN,
    (State.CLOSED, Trigger.FATAL): State.OPEN,
    (State.OPEN, Trigger.ELAPSED): State.HALF_OPEN,
    (State.HALF_OPEN, Trigger.RECOVERED): State.CLOSED,
    (State.HALF_OPEN, Trigger.RECOVERING): State.RAMPING,
    (State.HALF_OPEN, Trigger.RELAPSED): State.OPEN,
    (State.HALF_OPEN, Trigger.FATAL): State.OPEN,
    (State.RAMPING, Trigger.RECOVERED): State.CLOSED,
    (State.RAMPING, Trigger.EXCEEDED): State.OPEN,
    (State.RAMPING, Trigger.FATAL): State.OPEN,
    (State.CLOSED, Trigger.TRIP): State.OPEN,
    (State.OPEN, Trigger.TRIP): State.OPEN,
    (State.HALF_OPEN, Trigger.TRIP): State.OPEN,
    (State.RAMPING, Trigger.TRIP): State.OPEN,
    (State.CLOSED, Trigger.FLEET_OPENED): State.OPEN,
    (State.OPEN, Trigger.FLEET_OPENED): State.OPEN,
    (State.HALF_OPEN, Trigger.FLEET_OPENED): State.OPEN,
    (State.RAMPING, Trigger.FLEET_OPENED): State.OPEN,
    (State.CLOSED, Trigger.FLEET_PROBES): State.HALF_OPEN,
    (State.OPEN, Trigger.FLEET_PROBES): State.HALF_OPEN,
    (State.HALF_OPEN, Trigger.FLEET_PROBES): State.HALF_OPEN,
    (State.RAMPING, Trigger.FLEET_PROBES): State.HALF_OPEN,
    (State.OPEN, Trigger.FLEET_RECOVERING): State.RAMPING,
    (State.HALF_OPEN, Trigger.FLEET_RECOVERING): State.RAMPING,
    (State.OPEN, Trigger.FLEET_CLOSED): State.CLOSED,
    (State.HALF_OPEN, Trigger.FLEET_CLOSED): State.CLOSED,
} | {
    (state, trigger): after
    for state in State
    for trigger, after in (
        (Trigger.FORCE_OPEN, State.FORCED_OPEN),
        (Trigger.DISABLE, State.DISABLED),
        (Trigger.OBSERVE, State.METRICS_ONLY),
        (Trigger.RESET, State.CLOSED),
    )
}
CONTROLS = {Trigger.FORCE_OPEN, Trigger.DISABLE, Trigger.OBSERVE, Trigger.RESET}


def made(**changes: object) -> Breaker:
    return Breaker(replace(PLAIN, **changes))


def tally(calls: int = 0, failures: int = 0, slow: int = 0, consecutive: int = 0) -> Tally:
    return Tally(calls, failures, slow, consecutive)


def let_in(breaker: Breaker, now: float = 0.0) -> Permit:
    permit, _ = breaker.admit(now)
    assert permit is not None
    return permit


OVER = Tally(10, 10, 0, 10)


def fail(breaker: Breaker, now: float = 0.0, seen: Tally = OVER, u: float = MIDDLE) -> Transition | None:
    return breaker.settle(let_in(breaker, now), failed=True, slow=False, now=now, tally=seen, u=u)


def end(breaker: Breaker, permit: Permit, now: float = 0.0, *, failed: bool = False, slow: bool = False) -> Transition | None:
    return breaker.settle(permit, failed=failed, slow=slow, now=now, tally=NOTHING_SEEN, u=MIDDLE)


def ramping(**changes: object) -> Breaker:
    """A breaker that was opened, and whose one probe went well at 30 s."""
    breaker = made(**({"ramp_up": 8.0} | changes | {"half_open_calls": 1}))
    breaker.trip(0.0, 30.0)
    end(breaker, let_in(breaker, 30.0), 30.0)
    breaker.reconfigure(replace(breaker.thresholds, half_open_calls=changes.get("half_open_calls", PLAIN.half_open_calls)))
    assert breaker.state is State.RAMPING
    return breaker


def in_state(state: State, **changes: object) -> Breaker:
    """A breaker that was led to ``state`` in the ordinary way."""
    breaker = made(**changes)
    if state is State.OPEN:
        breaker.trip(0.0, 30.0)
    elif state is State.HALF_OPEN:
        breaker.trip(0.0, 30.0)
        breaker.admit(30.0)
    elif state is State.RAMPING:
        breaker = ramping(**changes)
    elif state is not State.CLOSED:
        lead = {State.FORCED_OPEN: Trigger.FORCE_OPEN, State.DISABLED: Trigger.DISABLE, State.METRICS_ONLY: Trigger.OBSERVE}
        breaker.control(lead[state])
    assert breaker.state is state
    return breaker


# -- the table --------------------------------------------------------------------------------------------------------------------------


def test_the_table_is_what_the_design_says():
    """No row more, no row less."""
    assert TRANSITIONS == EXPECTED


def test_states_and_triggers_have_pinned_names():
    """Events, metrics and dashboards are made of these words."""
    assert [state.value for state in State] == ["closed", "open", "half_open", "ramping", "forced_open", "disabled", "metrics_only"]
    by_themselves = ["exceeded", "fatal", "elapsed", "recovering", "recovered", "relapsed"]
    by_others = ["fleet_opened", "fleet_probes", "fleet_recovering", "fleet_closed"]
    names = [*by_themselves, "trip", "force_open", "disable", "observe", "reset", *by_others]
    assert [trigger.value for trigger in Trigger] == names


@pytest.mark.parametrize(("state", "trigger"), list(product(State, sorted(CONTROLS))))
def test_every_control_works_in_every_state(state, trigger):
    """Force open, disable, observe and reset lead where the table says, and start a new era."""
    breaker = in_state(state)
    era = breaker.era
    transition = breaker.control(trigger)
    assert transition == Transition(state, EXPECTED[state, trigger], trigger, era + 1, NOTHING_SEEN, None)
    assert breaker.state is EXPECTED[state, trigger]
    assert breaker.era == era + 1


@pytest.mark.parametrize("state", [State.CLOSED, State.OPEN, State.HALF_OPEN, State.RAMPING])
def test_a_trip_opens_for_exactly_the_time_given(state):
    """No factor, no jitter, from the four states of an ordinary life."""
    breaker = in_state(state, open_jitter=0.5)
    era = breaker.era
    assert breaker.trip(100.0, 7.0) == Transition(state, State.OPEN, Trigger.TRIP, era + 1, NOTHING_SEEN, 107.0)
    assert breaker.state is State.OPEN
    assert breaker.open_until == 107.0


@pytest.mark.parametrize(("state", "trigger"), [pair for pair in product(State, Trigger) if pair not in EXPECTED])
def test_a_missing_row_is_an_illegal_transition(state, trigger):
    """A step that is not in the table raises, names state, trigger and the legal triggers, and changes nothing."""
    breaker = in_state(state)
    before = breaker.era, breaker.openings, breaker.open_until
    with pytest.raises(IllegalTransition) as raised:
        breaker.trip(0.0, 1.0) if trigger is Trigger.TRIP else breaker.control(trigger)
    assert raised.value.state is state
    assert raised.value.trigger is trigger
    legal = ", ".join(candidate.value for origin, candidate in EXPECTED if origin is state)
    assert str(raised.value) == f"a breaker that is {state.value} cannot take {trigger.value!r}; from here: {legal}"
    assert breaker.state is state
    assert (breaker.era, breaker.openings, breaker.open_until) == before


def test_an_illegal_transition_can_be_pickled_by_its_arguments():
    """State and trigger are its arguments."""
    assert IllegalTransition(State.DISABLED, Trigger.TRIP).args == (State.DISABLED, Trigger.TRIP)


def test_the_diagram_draws_each_row_once():
    """Mermaid, one line a row; what leads from everywhere to the same state is drawn from `any`."""
    assert diagram().splitlines() == [
        "stateDiagram-v2",
        "    [*] --> closed",
        "    closed --> open: exceeded",
        "    closed --> open: fatal",
        "    open --> half_open: elapsed",
        "    half_open --> closed: recovered",
        "    half_open --> ramping: recovering",
        "    half_open --> open: relapsed",
        "    half_open --> open: fatal",
        "    ramping --> closed: recovered",
        "    ramping --> open: exceeded",
        "    ramping --> open: fatal",
        "    closed --> open: trip",
        "    open --> open: trip",
        "    half_open --> open: trip",
        "    ramping --> open: trip",
        "    closed --> open: fleet_opened",
        "    open --> open: fleet_opened",
        "    half_open --> open: fleet_opened",
        "    ramping --> open: fleet_opened",
        "    closed --> half_open: fleet_probes",
        "    open --> half_open: fleet_probes",
        "    half_open --> half_open: fleet_probes",
        "    ramping --> half_open: fleet_probes",
        "    open --> ramping: fleet_recovering",
        "    half_open --> ramping: fleet_recovering",
        "    open --> closed: fleet_closed",
        "    half_open --> closed: fleet_closed",
        "    any --> forced_open: force_open",
        "    any --> disabled: disable",
        "    any --> metrics_only: observe",
        "    any --> closed: reset",
    ]


# -- a new breaker, and what each state lets through ------------------------------------------------------------------------------------


def test_a_new_breaker_is_closed_in_era_one():
    """Nothing has happened yet."""
    breaker = made()
    assert (breaker.state, breaker.era, breaker.openings, breaker.open_until) == (State.CLOSED, 1, 0, 0.0)


@pytest.mark.parametrize("state", [State.CLOSED, State.DISABLED, State.METRICS_ONLY])
def test_closed_disabled_and_metrics_only_let_everything_through(state):
    """A permit of the era, which is no probe, and no step."""
    breaker = in_state(state)
    for _ in range(10):
        assert breaker.admit(0.0) == (Permit(breaker.era, None), None)
    assert breaker.retry_after(0.0) == 0.0


def test_forced_open_lets_nothing_through_however_late():
    """Only a person ends it, so nobody can say when to come back."""
    breaker = in_state(State.FORCED_OPEN)
    assert breaker.admit(1e12) == (None, None)
    assert breaker.retry_after(1e12) is None


def test_open_rejects_until_its_time_is_over():
    """One moment before it is over: a rejection that says how long. At that moment: a probe."""
    breaker = made()
    breaker.trip(100.0, 30.0)
    assert breaker.admit(129.75) == (None, None)
    assert breaker.retry_after(129.75) == 0.25
    assert breaker.retry_after(131.0) == 0.0
    era = breaker.era
    permit, transition = breaker.admit(130.0)
    assert transition == Transition(State.OPEN, State.HALF_OPEN, Trigger.ELAPSED, era + 1, NOTHING_SEEN, None)
    assert permit == Permit(era + 1, 1)


def test_a_disabled_or_watching_breaker_is_moved_by_no_result():
    """Results are not judged there."""
    for state in (State.DISABLED, State.METRICS_ONLY):
        breaker = in_state(state)
        assert fail(breaker) is None
        assert breaker.state is state


# -- thresholds -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (tally(4, 2), True),
        (tally(4, 1), False),
        (tally(3, 3), False),
        (tally(5, 3), True),
        (tally(5, 2), False),
        (tally(4, 0, 4), False),
        (tally(4, 0, 0, 9), False),
    ],
)
def test_a_failure_rate_that_is_reached_is_exceeded(seen, expected):
    """At least the rate, of at least the minimum of calls; slow calls and rows are not looked at when they are not asked for."""
    assert made().exceeded(seen) is expected


@pytest.mark.parametrize(("rate", "calls", "failures"), [(0.07, 100, 7), (0.28, 25, 7), (0.56, 25, 14), (0.55, 100, 55), (0.1, 10, 1)])
def test_a_decimal_rate_is_reached_exactly(rate, calls, failures):
    """7 of 100 reaches 0.07, although 0.07 times 100 is a little more than 7 in binary."""
    for kind in ("failures", "slow"):
        limits = {"failure_rate": rate if kind == "failures" else None, "slow_call_rate": rate if kind == "slow" else None}
        breaker = made(minimum_calls=1, **limits)
        assert breaker.exceeded(tally(calls, **{kind: failures}))
        assert not breaker.exceeded(tally(calls, **{kind: failures - 1}))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(tally(4, 0, 3), True), (tally(4, 0, 2), False), (tally(3, 0, 3), False), (tally(4, 1, 3), True), (tally(4, 4, 0), False)],
)
def test_a_slow_call_rate_that_is_reached_is_exceeded(seen, expected):
    """Slow calls have a rate of their own."""
    assert made(failure_rate=None, slow_call_rate=0.75).exceeded(seen) is expected


def test_either_rate_is_enough():
    """Failures below their rate do not hide slow calls above theirs."""
    breaker = made(slow_call_rate=0.75)
    assert breaker.exceeded(tally(4, 1, 3))
    assert breaker.exceeded(tally(4, 2, 0))
    assert not breaker.exceeded(tally(4, 1, 2))


@pytest.mark.parametrize(("consecutive", "expected"), [(2, False), (3, True), (4, True)])
def test_failures_in_a_row_need_no_minimum_of_calls(consecutive, expected):
    """Three in a row are three in a row, however few calls there were."""
    breaker = made(failure_rate=None, consecutive_failures=3, minimum_calls=100)
    assert breaker.exceeded(tally(consecutive, consecutive, 0, consecutive)) is expected


def test_no_failures_and_no_calls_are_never_too_many():
    """An empty window exceeds nothing, even when no minimum is asked for."""
    breaker = made(minimum_calls=0, slow_call_rate=0.5, consecutive_failures=1)
    assert not breaker.exceeded(NOTHING_SEEN)


def test_only_a_failed_or_slow_call_opens():
    """A good call that is judged while the window is over a threshold changes nothing; a slow one or a failed one does."""
    over = tally(4, 4)
    for failed, slow, opens in ((False, False, False), (True, False, True), (False, True, True)):
        breaker = made()
        transition = breaker.settle(let_in(breaker), failed=failed, slow=slow, now=0.0, tally=over, u=MIDDLE)
        assert (transition is not None) is opens
        assert breaker.state is (State.OPEN if opens else State.CLOSED)


def test_the_step_that_opens_carries_what_the_window_showed():
    """State before and after, trigger, era, window, and until when."""
    breaker = made()
    seen = tally(5, 4, 1, 2)
    assert fail(breaker, 10.0, seen) == Transition(State.CLOSED, State.OPEN, Trigger.EXCEEDED, 2, seen, 40.0)
    assert breaker.openings == 1


# -- openings ---------------------------------------------------------------------------------------------------------------------------


def relapse(breaker: Breaker, u: float = MIDDLE) -> Transition:
    """Wait the opening out and fail the probes."""
    now = breaker.open_until
    transition = None
    while transition is None:
        transition = breaker.settle(let_in(breaker, now), failed=True, slow=False, now=now, tally=NOTHING_SEEN, u=u)
    return transition


def test_each_opening_in_a_row_is_longer_up_to_the_maximum():
    """30, 60, 100, 100 seconds with a factor of two and a maximum of 100."""
    breaker = made()
    fail(breaker, 0.0)
    lengths = [breaker.open_until]
    for _ in range(3):
        before = breaker.open_until
        relapse(breaker)
        lengths.append(breaker.open_until - before)
    assert lengths == [30.0, 60.0, 100.0, 100.0]
    assert breaker.openings == 4


def test_openings_count_anew_after_closing():
    """Once closed, the next opening is a first one."""
    breaker = made(half_open_calls=1)
    fail(breaker, 0.0)
    relapse(breaker)
    end(breaker, let_in(breaker, breaker.open_until), breaker.open_until)
    assert (breaker.state, breaker.openings) == (State.CLOSED, 0)
    fail(breaker, 1000.0)
    assert breaker.open_until == 1030.0


@pytest.mark.parametrize("trigger", sorted(CONTROLS))
def test_a_control_makes_the_next_opening_a_first_one(trigger):
    """Somebody has taken the matter in hand."""
    breaker = made()
    fail(breaker, 0.0)
    relapse(breaker)
    breaker.control(trigger)
    assert breaker.openings == 0


def test_half_open_does_not_forget_the_openings():
    """Otherwise no opening would ever be longer than the first."""
    breaker = made()
    fail(breaker, 0.0)
    breaker.admit(30.0)
    assert (breaker.state, breaker.openings) == (State.HALF_OPEN, 1)


@pytest.mark.parametrize(("u", "length"), [(0.0, 27.0), (0.5, 30.0), (0.75, 31.5)])
def test_the_draw_is_used_once_for_each_opening(u, length):
    """The end of the open time is fixed when it opens; looking does not draw again."""
    breaker = made(open_jitter=0.1)
    fail(breaker, 0.0, u=u)
    assert breaker.open_until == pytest.approx(length)
    waits = [breaker.retry_after(now) for now in (0.0, 1.0, 2.0, 3.0)]
    assert waits == [breaker.open_until - now for now in (0.0, 1.0, 2.0, 3.0)]


@pytest.mark.parametrize("u", [0.0, 0.75])
def test_a_relapse_draws_for_itself(u):
    """The jitter of an opening comes from the draw handed in with the result that opens."""
    breaker = made(open_jitter=0.5, half_open_calls=1)
    fail(breaker, 0.0)
    assert breaker.open_until == 30.0
    relapse(breaker, u=u)
    assert breaker.open_until == 30.0 + 60.0 * (0.5 + u)


def test_an_opening_can_be_cut_short_but_not_made_longer():
    """The next caller after that is a probe."""
    breaker = made()
    breaker.trip(0.0, 30.0)
    breaker.cut_short(50.0)
    assert breaker.open_until == 30.0
    breaker.cut_short(10.0)
    assert breaker.open_until == 10.0
    assert let_in(breaker, 10.0).probe is not None


# -- half-open: probes and leases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 2, 3, 7])
def test_half_open_admits_exactly_the_probes_it_was_given(probes):
    """Of any number of callers, the first so many pass, numbered one by one."""
    breaker = in_state(State.OPEN, half_open_calls=probes)
    permits = [breaker.admit(30.0)[0] for _ in range(probes + 20)]
    assert permits == [Permit(breaker.era, number + 1) for number in range(probes)] + [None] * 20


def test_results_do_not_make_room_for_more_probes():
    """A probe that has answered still counts: no more than the given number decide."""
    breaker = in_state(State.OPEN, failure_rate=1.0)
    first = let_in(breaker, 30.0)
    assert end(breaker, first, 30.0) is None
    second = let_in(breaker, 30.0)
    assert end(breaker, second, 30.0, failed=True) is None
    assert let_in(breaker, 30.0).probe == 3
    assert breaker.admit(30.0) == (None, None)


def test_good_probes_close():
    """Only when all of them have answered."""
    breaker = in_state(State.OPEN)
    permits = [let_in(breaker, 30.0) for _ in range(3)]
    assert end(breaker, permits[0], 30.0) is None
    assert end(breaker, permits[1], 30.0) is None
    era = breaker.era
    expected = Transition(State.HALF_OPEN, State.CLOSED, Trigger.RECOVERED, era + 1, tally(3), None)
    assert end(breaker, permits[2], 30.0) == expected


def test_enough_failed_probes_open_again_at_once():
    """Two of three reach a rate of one half; the third is not waited for."""
    breaker = in_state(State.OPEN)
    permits = [let_in(breaker, 30.0) for _ in range(3)]
    assert end(breaker, permits[0], 30.0, failed=True) is None
    era = breaker.era
    transition = end(breaker, permits[1], 31.0, failed=True)
    # It was tripped by hand once, so this is the second opening in a row.
    assert transition == Transition(State.HALF_OPEN, State.OPEN, Trigger.RELAPSED, era + 1, tally(2, 2), 91.0)


def test_a_rate_of_probes_is_reached_exactly():
    """7 of 25 probes reach 0.28; 6 do not."""
    for failures, state in ((6, State.CLOSED), (7, State.OPEN)):
        breaker = in_state(State.OPEN, failure_rate=0.28, half_open_calls=25)
        permits = [let_in(breaker, 30.0) for _ in range(25)]
        for number, permit in enumerate(permits):
            end(breaker, permit, 30.0, failed=number < failures)
        assert breaker.state is state


def test_one_failed_probe_of_three_is_not_a_relapse():
    """One third is below one half, so it closes."""
    breaker = in_state(State.OPEN)
    permits = [let_in(breaker, 30.0) for _ in range(3)]
    end(breaker, permits[0], 30.0, failed=True)
    end(breaker, permits[1], 30.0)
    transition = end(breaker, permits[2], 30.0)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (Trigger.RECOVERED, tally(3, 1))


def test_without_a_failure_rate_the_first_failed_probe_decides():
    """A breaker that counts failures in a row takes one probe's word."""
    breaker = in_state(State.OPEN, failure_rate=None, consecutive_failures=5)
    transition = end(breaker, let_in(breaker, 30.0), 30.0, failed=True)
    assert transition is not None
    assert transition.trigger is Trigger.RELAPSED


def test_slow_probes_open_again():
    """Probes that crawl are not a recovery, when slow calls matter."""
    breaker = in_state(State.OPEN, slow_call_rate=0.5)
    permits = [let_in(breaker, 30.0) for _ in range(3)]
    assert end(breaker, permits[0], 30.0, slow=True) is None
    transition = end(breaker, permits[1], 30.0, slow=True)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (Trigger.RELAPSED, tally(2, 0, 2))


def test_a_slow_rate_of_probes_is_reached_exactly():
    """7 slow of 25 reach 0.28; 6 do not."""
    for slow, state in ((6, State.CLOSED), (7, State.OPEN)):
        breaker = in_state(State.OPEN, failure_rate=None, slow_call_rate=0.28, half_open_calls=25)
        permits = [let_in(breaker, 30.0) for _ in range(25)]
        for number, permit in enumerate(permits):
            end(breaker, permit, 30.0, slow=number < slow)
        assert breaker.state is state


def test_slow_probes_do_not_matter_when_slow_calls_do_not():
    """Three slow but good probes close."""
    breaker = in_state(State.OPEN)
    permits = [let_in(breaker, 30.0) for _ in range(3)]
    for permit in permits:
        transition = end(breaker, permit, 30.0, slow=True)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (Trigger.RECOVERED, tally(3, 0, 3))


def test_a_cancelled_probe_gives_its_place_back_without_a_verdict():
    """The caller went away: nothing is known, and another may try."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    permit = let_in(breaker, 30.0)
    assert breaker.admit(30.0) == (None, None)
    breaker.cancel(permit)
    assert breaker.state is State.HALF_OPEN
    again = let_in(breaker, 30.0)
    assert again.probe == 2
    transition = end(breaker, again, 30.0)
    assert transition is not None
    assert transition.tally == tally(1)


def test_cancelling_an_ordinary_call_or_a_stale_probe_frees_nothing():
    """A permit of an earlier era does not free the place of a probe of this one, whatever its number."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    ordinary, stale = Permit(breaker.era, None), Permit(breaker.era, 1)
    permit = let_in(breaker, 30.0)
    assert permit.probe == stale.probe
    breaker.cancel(ordinary)
    breaker.cancel(stale)
    breaker.cancel(Permit(breaker.era, None))
    assert breaker.admit(30.0) == (None, None)
    breaker.cancel(permit)
    breaker.cancel(permit)
    assert let_in(breaker, 30.0).probe == 2


def test_a_hung_probe_is_replaced_when_its_lease_is_over():
    """At the deadline its place is still its own, after it another gets it."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    hung = let_in(breaker, 30.0)
    assert breaker.retry_after(31.0) == 4.0
    assert breaker.admit(35.0) == (None, None)
    assert breaker.retry_after(36.0) == 0.0
    second = let_in(breaker, 35.25)
    assert (hung.probe, second.probe) == (1, 2)


def test_what_a_hung_probe_says_in_the_end_is_not_counted():
    """Neither after its place was lent again, nor before, once the lease is over."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    hung = let_in(breaker, 30.0)
    second = let_in(breaker, 40.0)
    assert end(breaker, hung, 40.0, failed=True) is None
    assert breaker.state is State.HALF_OPEN
    assert end(breaker, second, 46.0) is None
    assert breaker.state is State.HALF_OPEN
    third = let_in(breaker, 46.0)
    transition = end(breaker, third, 51.0)
    assert transition is not None
    assert (transition.after, transition.tally) == (State.CLOSED, tally(1))


def test_only_probes_whose_lease_is_over_are_replaced():
    """Of two probes the older one hangs: one place is free, not two."""
    breaker = in_state(State.OPEN, half_open_calls=2)
    let_in(breaker, 30.0)
    let_in(breaker, 34.0)
    assert breaker.retry_after(34.0) == 1.0
    let_in(breaker, 36.0)
    assert breaker.admit(36.0) == (None, None)


def test_a_half_open_breaker_with_free_places_says_come_at_once():
    """Nobody has to wait while a probe is wanted."""
    breaker = in_state(State.OPEN)
    breaker.cancel(let_in(breaker, 30.0))
    assert breaker.retry_after(30.0) == 0.0


def test_an_ordinary_permit_has_no_say_in_half_open():
    """A permit without a probe's number decides nothing, even one of this era."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    let_in(breaker, 30.0)
    assert end(breaker, Permit(breaker.era, None), 30.0) is None
    assert breaker.state is State.HALF_OPEN


def test_leases_work_on_any_time_line():
    """A monotonic clock may well begin below zero."""
    breaker = made(half_open_calls=1)
    breaker.trip(-200.0, 30.0)
    permit = let_in(breaker, -170.0)
    breaker.cancel(permit)
    assert end(breaker, permit, -170.0) is None
    assert breaker.state is State.HALF_OPEN


def test_probes_of_the_next_half_open_era_start_from_nothing():
    """Results and leases of an earlier half-open era are gone."""
    breaker = in_state(State.OPEN, failure_rate=1.0, slow_call_rate=1.0)
    for failed, slow in ((True, False), (False, True)):
        end(breaker, let_in(breaker, 30.0), 30.0, failed=failed, slow=slow)
    breaker.trip(30.0, 10.0)
    permits = [let_in(breaker, 40.0) for _ in range(3)]
    for permit in permits[:2]:
        assert end(breaker, permit, 40.0, failed=True, slow=True) is None
    transition = end(breaker, permits[2], 40.0, failed=True)
    assert transition is not None
    assert transition.tally == tally(3, 3, 2)


def test_no_more_probes_are_under_way_at_once_than_told():
    """Of five probes two at a time: an answer or a cancellation makes room for the next, a lease that runs does not."""
    breaker = in_state(State.OPEN, half_open_calls=5, half_open_concurrency=2, failure_rate=1.0)
    first, second = let_in(breaker, 30.0), let_in(breaker, 30.0)
    assert breaker.admit(34.0) == (None, None)
    assert breaker.retry_after(34.0) == 1.0
    end(breaker, first, 34.0)
    third = let_in(breaker, 34.0)
    assert breaker.admit(34.0) == (None, None)
    breaker.cancel(second)
    fourth = let_in(breaker, 34.0)
    assert breaker.admit(34.0) == (None, None)
    for permit in (third, fourth):
        end(breaker, permit, 34.0)
    last = [let_in(breaker, 34.0), let_in(breaker, 34.0)]
    assert breaker.admit(34.0) == (None, None)
    assert end(breaker, last[0], 34.0) is None
    transition = end(breaker, last[1], 34.0)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (Trigger.RECOVERED, tally(5))


# -- ramp -------------------------------------------------------------------------------------------------------------------------------


def test_good_probes_ramp_up_when_there_is_a_ramp():
    """Then the circuit is not closed yet; the openings in a row are not forgotten."""
    breaker = made(half_open_calls=1, ramp_up=8.0)
    fail(breaker)
    transition = end(breaker, let_in(breaker, 30.0), 30.0)
    assert transition == Transition(State.HALF_OPEN, State.RAMPING, Trigger.RECOVERING, 4, tally(1), None)
    assert breaker.openings == 1


@pytest.mark.parametrize(
    ("now", "share"), [(29.0, 0.25), (30.0, 0.25), (32.0, 0.4375), (34.0, 0.625), (37.0, 0.90625), (38.0, 1.0), (99, 1)]
)
def test_the_share_grows_evenly(now, share):
    """From a quarter at 30 s to everything at 38 s; a clock that went back makes it no smaller."""
    assert ramping().share(now) == share


def passed(breaker: Breaker, times: list[float]) -> list[bool]:
    return [breaker.admit(now)[0] is not None for now in times]


def test_the_first_call_of_a_ramp_passes_and_then_one_in_so_many():
    """With a share that does not grow yet, one call in four, evenly spread."""
    assert passed(ramping(), [30.0] * 12) == [True, False, False, False] * 3


def test_a_ramp_of_the_whole_lets_everything_through():
    """A ramp from 1 is none."""
    assert all(passed(ramping(ramp_up_from=1.0), [30.0, 30.0, 33.0]))


def test_a_permit_of_the_ramp_is_no_probe():
    """It is judged by the window."""
    breaker = ramping()
    assert breaker.admit(30.0) == (Permit(breaker.era, None), None)


def test_the_first_call_after_the_ramp_closes():
    """It passes, and a new era begins."""
    breaker = ramping()
    assert breaker.admit(37.75)[1] is None
    era = breaker.era
    assert breaker.admit(38.0) == (
        Permit(era + 1, None),
        Transition(State.RAMPING, State.CLOSED, Trigger.RECOVERED, era + 1, NOTHING_SEEN, None),
    )
    assert breaker.openings == 0


def test_failures_over_the_threshold_while_it_ramps_up_open_again_for_longer():
    """At once, and the openings go on being longer; failures below the threshold change nothing."""
    breaker = ramping()
    assert fail(breaker, 30.0, tally(4, 1)) is None
    era = breaker.era
    permit = Permit(era, None)
    seen = tally(4, 2)
    transition = breaker.settle(permit, failed=True, slow=False, now=31.0, tally=seen, u=MIDDLE)
    assert transition == Transition(State.RAMPING, State.OPEN, Trigger.EXCEEDED, era + 1, seen, 91.0)


def test_a_good_call_never_ends_a_ramp():
    """Whatever the window shows."""
    breaker = ramping()
    assert end(breaker, let_in(breaker, 30.0), 30.0) is None
    assert breaker.settle(Permit(breaker.era, None), failed=False, slow=False, now=31.0, tally=tally(4, 4), u=MIDDLE) is None
    assert breaker.state is State.RAMPING


def test_those_who_are_turned_away_are_spread_over_the_rest_of_the_ramp():
    """Four callers at once: one passes, the others are sent to different moments before its end."""
    breaker = ramping()
    waits = []
    for _ in range(4):
        permit, _ = breaker.admit(30.0)
        if permit is None:
            waits.append(breaker.retry_after(30.0))
    assert waits == [6.0, 4.0, 2.0]
    assert breaker.retry_after(39.0) == 0.0


def test_a_ramp_that_is_given_up_ends_at_the_next_call():
    """Reconfigured without one, it is over."""
    breaker = ramping()
    breaker.reconfigure(PLAIN)
    assert breaker.admit(30.0)[1] is not None
    assert breaker.state is State.CLOSED


@given(
    first=st.floats(0.001, 1.0),
    seconds=st.floats(0.1, 1e4),
    pauses=st.lists(st.floats(0.0, 1.0), max_size=200),
)
@example(first=0.1, seconds=10.0, pauses=[0.01] * 200)
def test_what_a_ramp_lets_through_is_what_its_shares_come_to(first, seconds, pauses):
    """At any moment the number of calls that passed is less than one call away from the sum of the shares, whatever the times."""
    breaker = ramping(ramp_up=seconds, ramp_up_from=first)
    now, due, through = 30.0, 0.0, 0
    for pause in pauses:
        now += pause * seconds / 50
        due += breaker.share(now)
        through += breaker.admit(now)[0] is not None
        if breaker.state is not State.RAMPING:
            return
        assert -first - 1e-9 <= through - due <= 1.0 - first + 1e-9
        assert through >= 1


# -- fatal ends -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.CLOSED, State.HALF_OPEN, State.RAMPING])
def test_a_fatal_end_opens_at_once(state):
    """No threshold is asked, no other probe waited for; it lasts as long as any opening that comes next in the row."""
    breaker = in_state(state, half_open_calls=2)
    now = 30.0
    permit = let_in(breaker, now)
    era, row = breaker.era, breaker.openings
    transition = breaker.settle(permit, failed=True, slow=False, now=now, tally=tally(1, 1), u=MIDDLE, fatal=True)
    seen = tally(1, 1)
    assert transition == Transition(state, State.OPEN, Trigger.FATAL, era + 1, seen, now + (30.0, 60.0)[row])


def test_a_fatal_end_may_say_for_how_long():
    """For exactly so long: no factor, no jitter, no maximum."""
    breaker = made(open_jitter=0.5)
    breaker.settle(let_in(breaker), failed=True, slow=False, now=5.0, tally=OVER, u=0.0, fatal=True, open_for=3600.0)
    assert breaker.open_until == 3605.0


@pytest.mark.parametrize("state", [State.OPEN, State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY])
def test_a_fatal_end_opens_nothing_that_does_not_judge(state):
    """An open breaker is open, and what an operator has set stands."""
    breaker = in_state(state)
    era = breaker.era
    assert breaker.settle(Permit(era, None), failed=True, slow=False, now=0.0, tally=OVER, u=MIDDLE, fatal=True) is None
    assert (breaker.state, breaker.era) == (state, era)


def test_a_fatal_end_of_another_era_or_of_a_lost_lease_has_no_say():
    """As with any other end."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    hung = let_in(breaker, 30.0)
    for permit, now in ((hung, 35.25), (Permit(breaker.era - 1, None), 30.0), (Permit(breaker.era, None), 30.0)):
        assert breaker.settle(permit, failed=True, slow=False, now=now, tally=OVER, u=MIDDLE, fatal=True) is None
    assert breaker.state is State.HALF_OPEN


# -- only watching ------------------------------------------------------------------------------------------------------------------------


def test_a_watching_breaker_says_when_it_would_have_opened():
    """Once for as long as that opening had lasted, then again; jitter included."""
    breaker = in_state(State.METRICS_ONLY, open_jitter=0.5)
    told = [now for now in range(0, 120, 5) if breaker.would_open(now=float(now), tally=OVER, u=0.0)]
    assert told == [0, 15, 30, 45, 60, 75, 90, 105]
    assert not breaker.would_open(now=200.0, tally=tally(4, 1), u=0.0)
    assert breaker.would_open(now=200.0, tally=tally(1, 1), u=0.0, fatal=True, open_for=100.0)
    assert not breaker.would_open(now=299.0, tally=OVER, u=0.0)
    assert breaker.would_open(now=300.0, tally=OVER, u=0.0)


@pytest.mark.parametrize("state", [state for state in State if state is not State.METRICS_ONLY])
def test_a_breaker_in_earnest_would_have_done_nothing(state):
    """It does it."""
    assert not in_state(state).would_open(now=30.0, tally=OVER, u=MIDDLE)


def test_a_watch_that_begins_anew_has_missed_nothing():
    """What would have been open before the operator spoke again is forgotten."""
    breaker = in_state(State.METRICS_ONLY)
    assert breaker.would_open(now=0.0, tally=OVER, u=MIDDLE)
    breaker.control(Trigger.OBSERVE)
    assert breaker.would_open(now=1.0, tally=OVER, u=MIDDLE)


# -- longer than it says ----------------------------------------------------------------------------------------------------------------


def test_an_opening_can_be_prolonged_but_not_made_shorter():
    """And only the one that is meant."""
    breaker = made()
    fail(breaker)
    breaker.prolong(2, 20.0)
    assert breaker.open_until == 30.0
    breaker.prolong(1, 50.0)
    assert breaker.open_until == 30.0
    breaker.prolong(2, 50.0)
    assert breaker.open_until == 50.0
    assert let_in(breaker, 50.0).probe == 1
    breaker.prolong(3, 100.0)
    assert breaker.open_until == 50.0


# -- eras -------------------------------------------------------------------------------------------------------------------------------


def test_a_success_from_before_the_opening_does_not_close():
    """It was admitted in another era."""
    breaker = made()
    early = let_in(breaker)
    fail(breaker)
    assert end(breaker, early) is None
    assert breaker.state is State.OPEN


def test_a_failure_from_before_the_opening_does_not_reopen_half_open():
    """The circuit is being probed; what is older says nothing."""
    breaker = made(half_open_calls=1)
    early = let_in(breaker)
    fail(breaker)
    let_in(breaker, 30.0)
    assert breaker.settle(early, failed=True, slow=True, now=30.0, tally=tally(9, 9, 9, 9), u=MIDDLE) is None
    assert breaker.state is State.HALF_OPEN


def test_a_failure_from_before_does_not_open_what_has_recovered():
    """Closed, opened, closed again: a call from the first life is not heard in the second."""
    breaker = made()
    early = let_in(breaker)
    fail(breaker)
    breaker.control(Trigger.RESET)
    assert breaker.settle(early, failed=True, slow=True, now=0.0, tally=tally(9, 9, 9, 9), u=MIDDLE) is None
    assert breaker.state is State.CLOSED


def test_a_probe_of_one_era_has_no_say_in_the_next():
    """Not even when its number is that of a probe of the next."""
    breaker = in_state(State.OPEN, half_open_calls=1)
    old = let_in(breaker, 30.0)
    breaker.trip(30.0, 10.0)
    new = let_in(breaker, 40.0)
    assert end(breaker, Permit(old.era, new.probe), 40.0) is None
    assert breaker.state is State.HALF_OPEN
    assert end(breaker, new, 40.0) is not None


# -- what other processes did -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.CLOSED, State.OPEN, State.HALF_OPEN, State.RAMPING])
def test_another_process_opens_it_until_a_time_and_says_which_opening_it_is(state):
    """The next opening in a row is longer by what the processes have counted together, whatever this one has seen."""
    breaker = in_state(state, half_open_calls=1, open_factor=2.0, open_maximum=1_000.0)
    era = breaker.era
    transition = breaker.follow(Trigger.FLEET_OPENED, 20.0, open_until=50.0, openings=3)
    assert transition == Transition(state, State.OPEN, Trigger.FLEET_OPENED, era + 1, NOTHING_SEEN, 50.0)
    assert (breaker.open_until, breaker.openings) == (50.0, 3)
    relapsed = fail(breaker, 50.0)
    assert relapsed is not None
    assert relapsed.open_until == 50.0 + 8 * 30.0


def test_probing_after_others_goes_on_counting_openings():
    """Who was closed all the while knows as well how often it was open."""
    breaker = made(half_open_calls=1, open_factor=2.0, open_maximum=1_000.0)
    assert breaker.follow(Trigger.FLEET_PROBES, 0.0, openings=2).after is State.HALF_OPEN
    relapsed = fail(breaker, 5.0)
    assert relapsed is not None
    assert relapsed.open_until == 5.0 + 4 * 30.0


def test_closing_after_others_begins_anew():
    """The number of openings in a row is nothing."""
    breaker = in_state(State.OPEN)
    assert breaker.follow(Trigger.FLEET_CLOSED, 30.0, openings=7).after is State.CLOSED
    assert breaker.openings == 0


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_calls_come_back_little_by_little_after_others_have_probed(state):
    """The ramp is each process's own, and begins when it hears of it; a relapse on the way is the next opening in the row."""
    breaker = in_state(state, ramp_up=8.0, ramp_up_from=0.5, open_factor=2.0, open_maximum=1_000.0)
    assert breaker.follow(Trigger.FLEET_RECOVERING, 40.0, openings=2).after is State.RAMPING
    assert (breaker.share(40.0), breaker.share(44.0)) == (0.5, 0.75)
    relapsed = fail(breaker, 40.0)
    assert relapsed is not None
    assert relapsed.open_until == 40.0 + 4 * 30.0


def test_probes_of_others_count_as_if_they_were_ours():
    """Two good ones elsewhere and one here close; no place is left for a fourth."""
    breaker = in_state(State.OPEN)
    permit = let_in(breaker, 30.0)
    assert breaker.learn(2, 0, 0, 30.0, MIDDLE) is None
    assert breaker.admit(30.0) == (None, None)
    transition = end(breaker, permit, 30.0)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (Trigger.RECOVERED, tally(3))


@pytest.mark.parametrize(
    ("said", "trigger", "seen"),
    [((3, 0, 0), Trigger.RECOVERED, tally(3)), ((0, 2, 0), Trigger.RELAPSED, tally(2, 2)), ((2, 0, 2), Trigger.RELAPSED, tally(2, 0, 2))],
)
def test_what_others_found_out_can_decide(said, trigger, seen):
    """By the same rule as our own probes, and the opening is as long as one that these led to."""
    breaker = in_state(State.OPEN, slow_call_rate=0.5, open_jitter=0.5)
    let_in(breaker, 30.0)
    transition = breaker.learn(*said, 31.0, 0.0)
    assert transition is not None
    assert (transition.trigger, transition.tally) == (trigger, seen)
    assert transition.open_until == (None if trigger is Trigger.RECOVERED else 31.0 + 0.5 * 2 * 30.0)


def test_late_news_of_probes_takes_nothing_back():
    """Each number counts as the largest that was heard."""
    breaker = in_state(State.OPEN, half_open_calls=9, failure_rate=0.5, slow_call_rate=1.0)
    breaker.admit(30.0)
    breaker.learn(3, 2, 1, 30.0, MIDDLE)
    breaker.learn(1, 4, 0, 30.0, MIDDLE)
    transition = breaker.learn(0, 5, 0, 30.0, MIDDLE)
    assert transition is not None
    assert transition.tally == tally(8, 5, 1)


@pytest.mark.parametrize("state", [state for state in State if state is not State.HALF_OPEN])
def test_news_of_probes_means_nothing_when_nobody_probes(state):
    """It is of an era that is over, or of one that has not begun."""
    breaker = in_state(state)
    assert breaker.learn(9, 9, 9, 0.0, MIDDLE) is None
    assert breaker.state is state
