"""Rate limits by hand: what a bucket grants, what is given back, who waits how long. See also property/test_ratelimit_ledger."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.ratelimit import RISE_INTERVAL, SLACK, Claim, Limits, Quota

if TYPE_CHECKING:
    from collections.abc import Callable

START = 1000.0


def limits(*quotas: tuple[float, float]) -> Limits[Claim]:
    """Buckets of (rate, burst), full at 1000."""
    return Limits([Quota(*quota) for quota in quotas], START)


def taken(limits: Limits[Claim], *costs: float, now: float = START) -> Claim:
    """A claim that was granted at once."""
    claim = Claim(list(costs))
    assert limits.take(claim, now)
    return claim


def joined(limits: Limits[Claim], *costs: float, now: float = START) -> Claim:
    """A claim in line."""
    claim = Claim(list(costs))
    assert not limits.take(claim, now)
    limits.join(claim, now)
    return claim


# -- what a bucket grants -------------------------------------------------------------------------------------------------------------


def test_a_bucket_grants_its_burst_at_once_and_then_its_rate():
    """Ten at once, then one every half second, each exactly when it is said."""
    bucket = limits((2.0, 10.0))
    for _ in range(10):
        taken(bucket, 1.0)
    for number in range(1, 4):
        now = START + (number - 1) / 2
        assert bucket.wait([1.0], now) == 0.5
        assert not bucket.take(Claim([1.0]), now + 0.5 - 1e-3)
        taken(bucket, 1.0, now=now + 0.5)


@given(arrivals=st.lists(st.integers(0, 12), max_size=60), burst=st.integers(1, 4))
def test_whole_bursts_are_the_virtual_scheduling_of_gcra(arrivals, burst):
    """Every call is let in or not as by the theoretical arrival time of ITU-T I.371, with the tolerance (burst - 1) increments."""
    increment, now, theoretical = 4.0, START, START
    bucket = limits((1 / increment, float(burst)))
    for pause in arrivals:
        now += pause
        conforms = now >= theoretical - (burst - 1) * increment
        assert bucket.take(Claim([1.0]), now) == conforms
        if conforms:
            theoretical = max(now, theoretical) + increment


def test_a_call_that_costs_more_than_the_burst_waits_for_a_full_bucket():
    """It is let in then, and the others wait until it is paid: the rate holds in the long run, and no call is impossible."""
    bucket = limits((1.0, 4.0))
    first = taken(bucket, 1.0)
    assert bucket.wait([10.0], START) == 1.0
    taken(bucket, 10.0, now=START + 1.0)
    assert bucket.levels(START + 1.0) == [-6.0]
    assert bucket.wait([1.0], START + 1.0) == 7.0
    assert first.open


def test_a_call_waits_for_the_slowest_window_and_charges_none_before():
    """A window that could grant it keeps what it has."""
    both = limits((1.0, 2.0), (10.0, 100.0))
    taken(both, 1.0, 100.0)
    assert not both.take(Claim([1.0, 50.0]), START)
    assert both.levels(START) == [1.0, 0.0]
    assert both.wait([1.0, 50.0], START) == 5.0
    assert both.wait([2.0, 5.0], START) == 1.0


def test_what_costs_nothing_is_let_in():
    """Past a debt and past those who wait; a pause that an answer asked for holds for it as well."""
    bucket = limits((1.0, 1.0))
    first = taken(bucket, 1.0)
    bucket.settle(first, 0, 100.0, START)
    waiting = joined(bucket, 1.0)
    taken(bucket, 0.0)
    bucket.lower(first, 5.0, START)
    assert not bucket.take(Claim([0.0]), START + 4.0)
    assert bucket.take(Claim([0.0]), START + 5.0)
    assert waiting.waiting


def test_a_microsecond_too_early_is_in_time():
    """Clocks and sums of floats are no better; what is missing is owed."""
    bucket = limits((1000.0, 1.0))
    taken(bucket, 1.0)
    taken(bucket, 1.0, now=START + 0.001 - SLACK / 2)
    assert bucket.levels(START + 0.001)[0] == pytest.approx(0.0, abs=1e-6)
    assert bucket.wait([1.0], START + 0.001) == pytest.approx(0.001, abs=1e-9)


def test_a_clock_that_stands_still_or_goes_back_grants_nothing_new():
    """Nor does it take anything away."""
    bucket = limits((1.0, 2.0))
    taken(bucket, 2.0)
    assert not bucket.take(Claim([1.0]), START)
    assert bucket.levels(START - 5.0) == [0.0]
    assert bucket.levels(START + 1.0) == [1.0]


def test_a_grant_can_be_forced():
    """Shadow mode charges what would have been granted later: the bucket goes into debt."""
    bucket = limits((1.0, 1.0))
    taken(bucket, 1.0)
    assert bucket.wait([1.0], START) == 1.0
    bucket.force(Claim([1.0]), START)
    assert bucket.wait([1.0], START) == 2.0


# -- afterwards -----------------------------------------------------------------------------------------------------------------------


def test_less_than_estimated_is_given_back():
    """As if it had been known from the beginning."""
    bucket = limits((1.0, 100.0))
    claim = taken(bucket, 80.0)
    bucket.settle(claim, 0, 30.0, START + 5.0)
    assert bucket.levels(START + 5.0) == [75.0]
    bucket.settle(claim, 0, 10.0, START + 5.0)
    assert bucket.levels(START + 5.0) == [95.0]


def test_more_than_estimated_is_a_debt():
    """Those who come later wait for it."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 1.0)
    bucket.settle(claim, 0, 25.0, START)
    assert bucket.levels(START) == [-15.0]
    assert bucket.wait([1.0], START) == 16.0


def test_what_would_have_run_over_is_not_given_back():
    """The bucket was full again when the call ended: had it never been made, the bucket would have been full as well, and no more."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 1.0)
    # Full again at 1001; then five are taken. A refund of the difference would let six more in: eleven at once.
    taken(bucket, 5.0, now=START + 1.0)
    bucket.refund(claim, START + 1.0)
    assert bucket.levels(START + 1.0) == [5.0]
    assert not claim.open


def test_only_the_part_that_would_have_run_over_is_lost():
    """The bucket lacked half a unit at its fullest since."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 4.0)
    other = taken(bucket, 5.0, now=START + 3.5)
    assert bucket.levels(START + 3.5) == [4.5]
    bucket.settle(claim, 0, 1.0, START + 3.5)
    assert bucket.levels(START + 3.5) == [5.0]
    # What was given back is noted for those that come after it: the other one would have found the bucket full.
    bucket.settle(other, 0, 0.0, START + 3.5)
    assert bucket.levels(START + 3.5) == [10.0]


def test_once_up_and_then_down_gives_back_at_most_what_is_right():
    """The debt was made later than the claim: what is given back of it counts from the claim on, which errs to the safe side."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 4.0)
    bucket.levels(START + 3.0)
    bucket.settle(claim, 0, 9.0, START + 3.0)
    assert bucket.levels(START + 3.0) == [4.0]
    bucket.settle(claim, 0, 1.0, START + 3.0)
    assert 4.0 < bucket.levels(START + 3.0)[0] <= 10.0


def test_one_window_is_settled_and_not_the_other():
    """Each by itself."""
    both = limits((1.0, 10.0), (1.0, 100.0))
    claim = taken(both, 1.0, 50.0)
    both.settle(claim, 1, 20.0, START)
    assert both.levels(START) == [9.0, 80.0]
    both.refund(claim, START)
    assert both.levels(START) == [10.0, 100.0]


def test_claims_that_are_closed_are_not_kept():
    """In whatever order they end; open ones are, for what comes back from them depends on those between."""
    bucket = limits((1.0, 10.0))

    class Seen(Claim):
        __slots__ = ("__weakref__",)

    claims = [Seen([1.0]) for _ in range(4)]
    for claim in claims:
        bucket.take(claim, START)
    refs = [weakref.ref(claim) for claim in claims]
    for number in (1, 3, 0, 2):
        bucket.close(claims[number])
    del claim, claims
    assert [ref() for ref in refs] == [None] * 4


# -- the line -------------------------------------------------------------------------------------------------------------------------


def test_nobody_overtakes():
    """A call that could be let in waits behind one that can not yet."""
    both = limits((1.0, 1.0), (1.0, 100.0))
    taken(both, 1.0, 1.0)
    first, second = joined(both, 1.0, 0.0), joined(both, 0.0, 1.0)
    assert (both.waiting, both.head) == (2, first)
    assert both.serve(START + 0.5) == []
    assert both.ask(second, START + 0.5) == 0.5
    assert both.serve(START + 1.0) == [first, second]
    assert (both.waiting, both.head) == (0, None)


def test_those_behind_one_who_leaves_move_up():
    """They wait as long as if he had never come."""
    bucket = limits((1.0, 1.0))
    taken(bucket, 1.0)
    first, second, third = joined(bucket, 1.0), joined(bucket, 5.0), joined(bucket, 1.0)
    # A full bucket is enough for the second; the third pays for him.
    assert [claim.due - START for claim in (first, second, third)] == [1.0, 2.0, 7.0]
    bucket.leave(second)
    assert not second.waiting
    assert bucket.wait([1.0], START) == 3.0
    assert bucket.ask(third, START) == 2.0
    assert bucket.ask(first, START) == 1.0


def test_what_is_given_back_lets_the_line_in_earlier():
    """And what is owed, later."""
    bucket = limits((1.0, 4.0))
    running = taken(bucket, 4.0)
    first, second = joined(bucket, 2.0), joined(bucket, 2.0)
    bucket.settle(running, 0, 3.0, START)
    assert bucket.ask(second, START) == 3.0
    assert bucket.wait([1.0], START) == 4.0
    bucket.settle(running, 0, 5.0, START)
    assert (bucket.ask(first, START), bucket.ask(second, START)) == (3.0, 5.0)
    assert bucket.wait([1.0], START) == 6.0


def test_who_is_served_late_delays_those_behind_him():
    """The strict reading: calls come at least one interval apart as they come, not as they were planned."""
    bucket = limits((1.0, 1.0))
    taken(bucket, 1.0)
    first, second = joined(bucket, 1.0), joined(bucket, 1.0)
    assert bucket.serve(START + 1.5) == [first]
    assert bucket.ask(second, START + 1.5) == 1.0
    assert bucket.wait([1.0], START + 1.5) == 2.0


def test_a_plan_that_rounding_has_spoilt_is_made_anew():
    """Nobody is told to wait for a time that has passed."""
    bucket = limits((1.0, 1.0))
    taken(bucket, 1.0)
    first, second = joined(bucket, 1.0), joined(bucket, 1.0)
    second.due = START
    assert bucket.ask(second, START) == 2.0
    assert first.waiting


class Collected(list):
    """Costs that are looked at just when the collector ends somebody's call."""

    def __init__(self, costs, then):
        super().__init__(costs)
        self.then = [then]

    def __iter__(self):
        while self.then:
            self.then.pop()()
        return super().__iter__()


def test_the_line_may_be_left_while_it_is_looked_at():
    """The collector ends forgotten calls at any allocation, in the middle of any step."""
    bucket = limits((1.0, 1.0))
    running = taken(bucket, 1.0)
    first, second, third = (joined(bucket, 1.0) for _ in range(3))
    second.costs = Collected([1.0], lambda: bucket.leave(first))
    bucket.settle(running, 0, 0.5, START)
    assert bucket.wait([1.0], START) > 0.0
    assert (bucket.head, bucket.waiting) == (second, 2)
    second.costs = Collected([1.0], lambda: bucket.leave(second))
    assert bucket.serve(START + 1.0) == [third]
    last = joined(bucket, 1.0, now=START + 1.0)
    last.costs = Collected([1.0], lambda: bucket.leave(last))
    assert bucket.serve(START + 2.0) == []
    assert not last.open


# -- other limits ---------------------------------------------------------------------------------------------------------------------


def test_what_was_used_stays_used_when_the_limits_change():
    """Fifty of sixty are gone: of a hundred fifty are left, of thirty none for a while."""
    bucket = limits((1.0, 60.0))
    claim = taken(bucket, 50.0)
    bucket.reconfigure([Quota(1.0, 100.0)], [0], START)
    assert bucket.levels(START) == [50.0]
    bucket.reconfigure([Quota(0.5, 30.0)], [0], START)
    assert bucket.levels(START) == [-20.0]
    assert bucket.wait([1.0], START) == 42.0
    bucket.refund(claim, START)
    assert bucket.levels(START) == [30.0]


def test_a_new_window_is_full_and_asks_nothing_of_those_who_are_there():
    """Neither of calls that run nor of those that wait, whose places are kept."""
    bucket = limits((1.0, 1.0))
    running, waiting = taken(bucket, 1.0), joined(bucket, 1.0)
    bucket.reconfigure([Quota(1.0, 7.0), Quota(1.0, 1.0)], [None, 0], START)
    assert bucket.levels(START) == [7.0, 0.0]
    assert (running.costs, waiting.costs) == ([0.0, 1.0], [0.0, 1.0])
    assert bucket.ask(waiting, START) == 1.0
    bucket.refund(running, START)
    assert bucket.levels(START) == [7.0, 1.0]


# -- pushback -------------------------------------------------------------------------------------------------------------------------


def test_a_pushback_halves_the_rate_and_time_raises_it_again():
    """By a twentieth of the configured rate every five seconds, up to all of it; half of what was saved up is lost."""
    bucket = limits((10.0, 100.0))
    claim = taken(bucket, 0.0)
    assert bucket.lower(claim, 0.0, START)
    assert (bucket.factor(START), bucket.levels(START)) == (0.5, [50.0])
    taken(bucket, 50.0)
    assert bucket.levels(START + 1.0) == [5.0]
    shares = [bucket.factor(START + RISE_INTERVAL * number) for number in range(12)]
    assert shares == pytest.approx([0.5 + 0.05 * min(number, 10) for number in range(12)])
    assert bucket.factor(START + 1e6) == 1.0
    assert bucket.levels(START + 1e6) == [100.0]


def test_answers_to_what_was_sent_before_lower_nothing_again():
    """Twenty calls that fail together are one pushback; the next one that is let in may be another."""
    bucket = limits((10.0, 100.0))
    claims = [taken(bucket, 1.0) for _ in range(20)]
    assert [bucket.lower(claim, 0.0, START) for claim in claims] == [True] + [False] * 19
    assert bucket.factor(START) == 0.5
    assert bucket.lower(taken(bucket, 1.0), 0.0, START)
    assert bucket.factor(START) == 0.25


def test_the_rate_never_falls_to_nothing():
    """A twentieth is left."""
    bucket = limits((10.0, 100.0))
    for _ in range(10):
        bucket.lower(taken(bucket, 0.0), 0.0, START)
    assert bucket.factor(START) == 0.05


def test_nothing_is_granted_in_a_pause_and_nothing_is_saved_up():
    """It ends exactly; an answer that asks for a shorter one does not shorten it, and the rate rises only after it."""
    bucket = limits((1.0, 4.0))
    claim = taken(bucket, 2.0)
    bucket.lower(claim, 8.0, START)
    bucket.lower(claim, 2.0, START + 1.0)
    assert bucket.wait([1.0], START + 1.0) == 7.0
    assert not bucket.take(Claim([1.0]), START + 7.9)
    assert bucket.levels(START + 7.9) == [2.0]
    assert bucket.factor(START + 8.0 + RISE_INTERVAL - 0.1) == 0.5
    assert bucket.factor(START + 8.0 + RISE_INTERVAL) == 0.55
    assert not claim.waiting


def test_those_who_wait_are_told_when_after_a_pushback():
    """With the rises that come meanwhile."""
    bucket = limits((1.0, 4.0))
    claim = taken(bucket, 4.0)
    first, second = joined(bucket, 1.0), joined(bucket, 1.0)
    assert (bucket.ask(first, START), bucket.ask(second, START)) == (1.0, 2.0)
    bucket.lower(claim, 0.0, START)
    # Half a unit a second, 0.55 from the fifth second on.
    assert (bucket.ask(first, START), bucket.ask(second, START)) == (2.0, 4.0)
    assert bucket.wait([1.0], START) == pytest.approx(5.0 + 0.5 / 0.55)


def test_a_limit_that_is_not_to_adapt_any_more_is_what_is_configured():
    """At once, and what was used stays used."""
    bucket = limits((1.0, 4.0))
    claim = taken(bucket, 4.0)
    bucket.lower(claim, 0.0, START)
    bucket.reconfigure([Quota(1.0, 4.0)], [0], START, steady=True)
    assert bucket.factor(START) == 1.0
    assert bucket.levels(START + 1.0) == [1.0]


# -- after a while in which nobody asked ----------------------------------------------------------------------------------------------


def test_time_has_passed_whatever_is_asked_or_told_first():
    """Each of these finds the bucket as full as it has become."""
    asked = limits((1.0, 2.0))
    taken(asked, 2.0)
    assert asked.wait([1.0], START + 0.5) == 0.5
    forced = limits((1.0, 10.0))
    taken(forced, 5.0)
    forced.force(Claim([3.0]), START + 10.0)
    assert forced.levels(START + 10.0) == [7.0]
    owed = limits((1.0, 10.0))
    owed.settle(taken(owed, 4.0), 0, 8.0, START + 10.0)
    assert owed.levels(START + 10.0) == [6.0]
    lowered = limits((10.0, 100.0))
    lowered.lower(taken(lowered, 100.0), 0.0, START + 10.0)
    assert lowered.levels(START + 10.0) == [50.0]
    changed = limits((1.0, 60.0))
    taken(changed, 50.0)
    changed.reconfigure([Quota(0.5, 60.0)], [0], START + 20.0)
    assert changed.levels(START + 20.0) == [30.0]


def test_the_first_in_line_is_told_how_long_it_still_takes():
    """Also when nobody has looked since he came."""
    bucket = limits((1.0, 1.0))
    taken(bucket, 1.0)
    first = joined(bucket, 1.0)
    assert bucket.ask(first, START + 0.25) == 0.75


def test_what_refills_behind_the_line_is_there_for_those_who_come():
    """The one in line could have been served long ago."""
    bucket = limits((1.0, 4.0))
    taken(bucket, 4.0)
    joined(bucket, 1.0)
    assert bucket.wait([2.0], START + 5.0) == 0.0
    assert bucket.wait([4.0], START + 5.0) == 0.0


def test_states_of_a_claim_are_true_or_false():
    """Made, in line, out of it, granted, closed."""
    bucket = limits((1.0, 1.0))
    claim = Claim([1.0])
    assert (claim.waiting, claim.open) == (False, False)
    running = taken(bucket, 1.0)
    assert (running.waiting, running.open) == (False, True)
    bucket.join(claim, START)
    assert (claim.waiting, claim.open) == (True, False)
    bucket.leave(claim)
    assert (claim.waiting, claim.open) == (False, False)
    bucket.close(running)
    assert (running.waiting, running.open) == (False, False)


def test_a_pause_of_just_the_slack_is_none():
    """A microsecond is in time, for those who come and for those in line."""
    bucket = Limits([Quota(1.0, 2.0)], 0.0)
    claim = Claim([0.0])
    assert bucket.take(claim, 0.0)
    bucket.lower(claim, SLACK, 0.0)
    assert bucket.take(Claim([0.0]), 0.0)
    waiting = Claim([0.0])
    bucket.join(waiting, 0.0)
    assert bucket.serve(0.0) == [waiting]


def test_a_rate_that_has_risen_is_not_raised_for_ever():
    """Ten rises of a twentieth later there is none to come, and no time is ever gone through in steps again."""
    bucket = limits((1.0, 4.0))
    bucket.lower(taken(bucket, 0.0), 0.0, START)
    assert bucket.factor(START + 10 * RISE_INTERVAL - 1.0) < 1.0
    assert bucket._base.rises_at == START + 10 * RISE_INTERVAL
    assert bucket.factor(START + 10 * RISE_INTERVAL) == 1.0
    assert bucket._base.rises_at == float("inf")


def test_a_lowered_rate_stays_lowered_when_the_limits_change():
    """And rises as it would have."""
    bucket = limits((10.0, 100.0))
    bucket.lower(taken(bucket, 100.0), 0.0, START)
    bucket.reconfigure([Quota(20.0, 100.0)], [0], START)
    assert bucket.levels(START + 1.0) == [10.0]
    assert bucket.factor(START + RISE_INTERVAL) == 0.55


def test_all_who_run_are_charged_by_the_new_windows():
    """From the youngest to the oldest."""
    bucket = limits((1.0, 10.0), (1.0, 20.0))
    claims = [taken(bucket, 1.0 + number, 2.0) for number in range(3)]
    bucket.reconfigure([Quota(1.0, 20.0), Quota(1.0, 5.0), Quota(1.0, 10.0)], [1, None, 0], START)
    assert [claim.costs for claim in claims] == [[2.0, 0.0, 1.0], [2.0, 0.0, 2.0], [2.0, 0.0, 3.0]]
    assert bucket.levels(START) == [14.0, 5.0, 4.0]


# -- what is given back, from whom, and past whom -------------------------------------------------------------------------------------


def test_what_is_given_back_once_is_not_given_back_again():
    """The bucket lacked 0.5 at its fullest between two grants and 4 since the second: what the first gives back, the second cannot."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 4.0)
    other = taken(bucket, 5.0, now=START + 3.5)
    assert bucket.levels(START + 5.0) == [6.0]
    bucket.settle(claim, 0, 1.0, START + 5.0)
    assert bucket.levels(START + 5.0) == [6.5]
    bucket.settle(claim, 0, 0.0, START + 5.0)
    assert bucket.levels(START + 5.0) == [6.5]
    bucket.settle(other, 0, 0.0, START + 5.0)
    assert bucket.levels(START + 5.0) == [10.0]


def test_what_a_pushback_has_spilt_is_not_given_back():
    """A bucket that lacks nothing of its smaller share would have run over."""
    bucket = limits((10.0, 100.0))
    claim = taken(bucket, 30.0)
    bucket.lower(claim, 0.0, START)
    assert bucket.levels(START) == [50.0]
    bucket.refund(claim, START)
    assert bucket.levels(START) == [50.0]


def test_what_a_pushback_has_not_spilt_is_given_back():
    """It lacked 10 of its smaller share."""
    bucket = limits((10.0, 100.0))
    claim = taken(bucket, 60.0)
    bucket.lower(claim, 0.0, START)
    bucket.refund(claim, START)
    assert bucket.levels(START) == [50.0]


@pytest.mark.parametrize("closed", [(), (1,), (2,), (1, 2), (2, 1)])
def test_a_bucket_that_was_full_meanwhile_gives_nothing_back_whoever_has_ended(closed):
    """What was seen while others were open, or after they have ended, counts for the one before them."""
    bucket = limits((1.0, 10.0))
    claims = [taken(bucket, 4.0), taken(bucket, 0.0), taken(bucket, 0.0)]
    for number in closed:
        bucket.close(claims[number])
    assert bucket.levels(START + 4.0) == [10.0]
    taken(bucket, 5.0, now=START + 4.0)
    bucket.refund(claims[0], START + 4.0)
    assert bucket.levels(START + 4.0) == [5.0]


def test_the_least_room_of_one_that_has_ended_counts_for_the_one_before_it():
    """It saw the bucket full, and ended before the other was settled."""
    bucket = limits((1.0, 10.0))
    claim = taken(bucket, 4.0)
    other = taken(bucket, 1.0, now=START + 2.0)
    assert bucket.levels(START + 9.0) == [10.0]
    bucket.close(other)
    taken(bucket, 6.0, now=START + 9.0)
    bucket.refund(claim, START + 9.0)
    assert bucket.levels(START + 9.0) == [4.0]


# -- calls that are counted one by one --------------------------------------------------------------------------------------------------


def counted(rate: float, burst: float) -> tuple[Limits[Claim], Callable[[float], bool]]:
    """A bucket of which calls take 1, and the function that takes it."""
    bucket = limits((rate, burst))
    bucket.counts = True
    return bucket, bucket.tally(lambda: None, lambda: None)


def test_calls_that_are_counted_refill_at_the_rate_and_up_to_the_burst():
    """A quarter of a second at two a second is a half; a refused call takes nothing."""
    bucket, take = counted(2.0, 4.0)
    assert [take(START) for _ in range(5)] == [True] * 4 + [False]
    assert not take(START + 0.25)
    assert bucket.levels(START + 0.25) == [0.5]
    assert take(START + 0.5)
    assert bucket.levels(START + 0.5) == [0.0]
    assert take(START + 1_000.0)
    assert bucket.levels(START + 1_000.0) == [3.0]


def test_counting_calls_has_to_be_asked_for():
    """By default they go the long way."""
    bucket = limits((1.0, 4.0))
    assert bucket.counts is False
    assert bucket.tally(lambda: None, lambda: None)(START) is False


def test_a_call_that_is_counted_does_not_overtake():
    """Whoever stands in line goes first."""
    bucket, take = counted(1.0, 2.0)
    taken(bucket, 2.0)
    joined(bucket, 2.0)
    assert not take(START + 1.5)


def test_a_call_that_is_counted_notes_how_full_the_bucket_was():
    """What a claim before it gives back would have run over."""
    bucket, take = counted(1.0, 10.0)
    claim = taken(bucket, 1.0)
    assert take(START + 1.0)
    bucket.refund(claim, START + 1.0)
    assert bucket.levels(START + 1.0) == [9.0]


def test_a_call_that_is_counted_finds_the_rate_risen():
    """Five seconds at five a second, and five at five and a half."""
    bucket, take = counted(10.0, 100.0)
    claim = taken(bucket, 100.0)
    bucket.lower(claim, 0.0, START)
    bucket.close(claim)
    assert take(START + 10.0)
    assert bucket.levels(START + 10.0) == [pytest.approx(51.5)]
