"""Who is ejected and for how long, held against the rules of Envoy and a plain recount."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from somaresil.model.ejection import Cause, Change, Outliers, Rules

RULES = Rules(
    consecutive_failures=3,
    success_rate_factor=1.9,
    minimum_endpoints=5,
    minimum_calls=10,
    latency_factor=10.0,
    latency_calls=5,
    interval=10.0,
    base=30.0,
    maximum=90.0,
    max_ejected=0.5,
)


def pool(*names: str, **changes: object) -> Outliers:
    """Some endpoints at time 0."""
    made = Outliers(replace(RULES, **changes), 0.0)
    for name in names:
        made.add(name, 0.0)
    return made


def fail(outliers: Outliers, name: str, times: int, now: float = 1.0) -> Change | None:
    """So many failures in a row; what the last one led to."""
    change = None
    for _ in range(times):
        change = outliers.note(name, outliers.members[name].era, failed=True, seconds=0.0, now=now)
    return change


def answer(outliers: Outliers, name: str, good: int, bad: int = 0, seconds: float = 1.0) -> None:
    """So many answers, never enough failures in a row to matter."""
    for number in range(good + bad):
        outliers.note(name, outliers.members[name].era, failed=number % 2 == 1 and number // 2 < bad, seconds=seconds, now=1.0)


# -- failures in a row ------------------------------------------------------------------------------------------------------------------


def test_failures_in_a_row_eject():
    """The third of them, for the base duration; a success in between begins the count anew."""
    outliers = pool("a", "b")
    assert fail(outliers, "a", 2) is None
    outliers.note("a", 0, failed=False, seconds=0.1, now=1.0)
    assert fail(outliers, "a", 2) is None
    assert fail(outliers, "a", 1) == Change("a", Cause.CONSECUTIVE_FAILURES, 30.0)
    assert outliers.members["a"].ejected_until == 31.0
    assert (outliers.ejected, outliers.allowed) == (1, 1)


def test_a_sign_that_is_off_is_not_looked_at():
    """None switches each of them off."""
    outliers = pool(*"abcdef", consecutive_failures=None, success_rate_factor=None, latency_factor=None)
    assert fail(outliers, "a", 100) is None
    for name in "bcdef":
        answer(outliers, name, 100)
    assert outliers.turn(10.0) == []


def test_an_answer_to_a_call_from_before_the_ejection_is_no_news():
    """Nor is one from while it was out: time alone brings it back, and what it says then is new."""
    outliers = pool("a", "b")
    fail(outliers, "a", 3)
    outliers.note("a", 0, failed=False, seconds=0.1, now=2.0)
    outliers.note("a", 1, failed=False, seconds=0.1, now=2.0)
    assert outliers.members["a"].ejected_until == 31.0
    assert outliers.turn(31.0) == [Change("a")]
    for era in (0, 1):
        outliers.note("a", era, failed=True, seconds=0.0, now=32.0)
    assert outliers.members["a"].consecutive == 0
    assert outliers.note("nobody", 0, failed=True, seconds=0.0, now=32.0) is None


# -- how long ---------------------------------------------------------------------------------------------------------------------------


def test_each_ejection_in_a_row_lasts_longer_up_to_the_maximum():
    """Base times the number of them."""
    outliers, now, durations = pool("a", "b"), 1.0, []
    for _ in range(5):
        change = fail(outliers, "a", 3, now)
        assert change is not None
        durations.append(change.duration)
        now += change.duration
        assert Change("a") in outliers.turn(now)
    assert durations == [30.0, 60.0, 90.0, 90.0, 90.0]


def test_the_base_counts_when_the_maximum_is_below_it():
    """As in Envoy."""
    change = fail(pool("a", "b", maximum=10.0), "a", 3)
    assert change is not None
    assert change.duration == 30.0


@pytest.mark.parametrize(("well", "expected"), [(9.0, 90.0), (15.0, 60.0), (20.0, 30.0), (500.0, 30.0)])
def test_whole_intervals_in_which_it_is_in_shorten_the_next_ejection(well, expected):
    """One of two ejections is forgiven an interval; the rest of the one in which it came back is none."""
    outliers = pool("a", "b")
    fail(outliers, "a", 3, 0.0)
    outliers.turn(30.0)
    fail(outliers, "a", 3, 30.0)
    outliers.turn(90.0)
    outliers.turn(90.0 + well)
    change = fail(outliers, "a", 3, 90.0 + well)
    assert change is not None
    assert change.duration == expected


# -- the others -------------------------------------------------------------------------------------------------------------------------


def test_a_success_rate_far_below_the_mean_ejects():
    """Of five with enough calls, the one that fails half of them; at the end of the interval."""
    outliers = pool(*"abcde")
    for name in "abcd":
        answer(outliers, name, 20)
    answer(outliers, "e", 10, 10)
    assert outliers.turn(9.9) == []
    assert outliers.turn(10.0) == [Change("e", Cause.SUCCESS_RATE, 30.0)]


@pytest.mark.parametrize("others", ["abc", "abcd"])
def test_success_rates_are_compared_among_enough_endpoints_with_enough_calls(others):
    """Four are too few, and so are five of which one has hardly any."""
    outliers = pool(*others, "e")
    for name in others:
        answer(outliers, name, 9 if name == "d" else 20)
    answer(outliers, "e", 10, 10)
    assert outliers.turn(10.0) == []


def test_one_unlucky_call_is_no_outlier():
    """Where nobody else fails at all, one in forty is beyond any number of deviations, and nothing to leave for."""
    outliers = pool(*"abcde")
    for name in "abcd":
        answer(outliers, name, 40)
    answer(outliers, "e", 39, 1)
    assert outliers.turn(10.0) == []


def test_a_latency_far_above_the_others_ejects():
    """Ten times the median of at least two others; of two endpoints nobody can say which is the odd one."""
    for names, ejected in (("abc", True), ("ab", False)):
        outliers = pool(*names)
        for name in names:
            answer(outliers, name, 5, seconds=10.1 if name == "b" else 1.0)
        assert outliers.turn(10.0) == ([Change("b", Cause.LATENCY, 30.0)] if ejected else [])


def test_a_few_answers_are_no_average():
    """Nor are failures: how long they took says nothing."""
    outliers = pool(*"abc", consecutive_failures=None)
    for name in "ac":
        answer(outliers, name, 5)
    answer(outliers, "b", 4, seconds=100.0)
    fail(outliers, "b", 10)
    assert outliers.turn(10.0) == []


def test_each_interval_is_judged_by_itself():
    """What was counted in one does not count in the next."""
    outliers = pool(*"abcde")
    for name in "abcd":
        answer(outliers, name, 20)
    answer(outliers, "e", 4, 4)
    outliers.turn(10.0)
    answer(outliers, "e", 4, 4)
    assert outliers.turn(20.0) == []
    assert outliers.due == 30.0
    outliers.turn(75.0)
    assert outliers.due == 80.0


def test_the_worst_go_first_when_not_all_may_go():
    """Of two that fail, the one that fails more."""
    outliers = pool(*"abcde", success_rate_factor=0.5, max_ejected=0.2)
    for name in "abc":
        answer(outliers, name, 20)
    answer(outliers, "d", 14, 6)
    answer(outliers, "e", 10, 10)
    assert [change.name for change in outliers.turn(10.0)] == ["e"]


# -- how many ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "share", "most"), [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.1, 1), (10, 0.3, 3), (4, 0.0, 1), (3, 1.0, 3)]
)
def test_no_more_than_the_share_go_and_one_always_may(size, share, most):
    """Whoever fails when enough are out stays in."""
    names = [f"n{number}" for number in range(size)]
    outliers = pool(*names, max_ejected=share)
    for name in names:
        fail(outliers, name, 5)
    assert outliers.ejected == most


def test_when_an_endpoint_leaves_too_many_may_be_out():
    """Those that would come back first come back at once."""
    outliers = pool(*"abcd")
    fail(outliers, "a", 3, 1.0)
    fail(outliers, "b", 3, 2.0)
    assert outliers.remove("c", 5.0) == [Change("a")]
    assert outliers.remove("b", 5.0) == []
    assert outliers.ejected == 0


def test_other_rules_count_from_now_on():
    """A shorter interval ends sooner, and a smaller share brings back whoever is too many."""
    outliers = pool(*"abcd")
    fail(outliers, "a", 3, 1.0)
    fail(outliers, "b", 3, 2.0)
    assert outliers.reconfigure(replace(RULES, interval=1.0, max_ejected=0.25), 5.0) == [Change("a")]
    assert outliers.due == 6.0


class Machine(RuleBasedStateMachine):
    """Endpoints that come, answer, fail and go, beside a list of everything that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.outliers = Outliers(replace(RULES, success_rate_factor=None, latency_factor=None, interval=7.0), 0.0)
        self.said: dict[str, list[bool]] = {}
        self.until: dict[str, float | None] = {}
        self.added = 0

    def believe(self, changes: list[Change]) -> None:
        """Take what the model says has changed."""
        for change in changes:
            self.said[change.name] = []
            self.until[change.name] = self.now + change.duration if change.cause else None

    @rule()
    def add(self) -> None:
        name = f"n{self.added}"
        self.added += 1
        self.outliers.add(name, self.now)
        self.said[name], self.until[name] = [], None

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.said)))
        del self.said[name], self.until[name]
        self.believe(self.outliers.remove(name, self.now))

    @precondition(lambda self: self.said)
    @rule(data=st.data(), failed=st.lists(st.booleans(), min_size=1, max_size=6))
    def note(self, data: st.DataObject, failed: list[bool]) -> None:
        name = data.draw(st.sampled_from(sorted(self.said)))
        for one in failed:
            was_in = self.until[name] is None
            if was_in:
                self.said[name].append(one)
            row = self.said[name][-3:]
            due = was_in and len(row) == 3 and all(row) and sum(u is not None for u in self.until.values()) < self.outliers.allowed
            change = self.outliers.note(name, self.outliers.members[name].era, failed=one, seconds=0.1, now=self.now)
            assert (change is not None) is due
            self.believe([change] if change else [])

    @rule(seconds=st.floats(0.0, 60.0))
    def turn(self, seconds: float) -> None:
        self.now += seconds
        changes = self.outliers.turn(self.now)
        assert {change.name for change in changes} == {n for n, until in self.until.items() if until is not None and until <= self.now}
        self.believe(changes)

    @invariant()
    def the_model_agrees(self) -> None:
        for name, until in self.until.items():
            assert self.outliers.members[name].ejected_until == until

    @invariant()
    def never_too_many_are_out(self) -> None:
        assert self.outliers.ejected <= max(1, math.floor(0.5 * len(self.said)))


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


def test_every_coming_and_going_is_an_era():
    """An answer to a call of an earlier one says nothing."""
    outliers = Outliers(RULES, 0.0)
    health = outliers.add("a", 0.0)
    assert health is outliers.members["a"]
    assert health.era == 0
    fail(outliers, "a", 3)
    assert health.era == 1
    outliers.turn(31.0)
    assert (health.era, health.since) == (2, 31.0)


def test_what_was_counted_before_an_ejection_does_not_count_after_it():
    """Also when it comes back within the same interval."""
    outliers = pool(*"abc", interval=1_000.0)
    answer(outliers, "a", 40, seconds=100.0)
    fail(outliers, "a", 3, 2.0)
    outliers.turn(32.0)
    assert (outliers.members["a"].good, outliers.members["a"].bad, outliers.members["a"].seconds) == (0, 0, 0.0)


@pytest.mark.parametrize(("bad", "ejected"), [(2, False), (3, True)])
def test_the_difference_has_to_be_more_than_the_least_one(bad, ejected):
    """Of fifty that one endpoint of eleven has answered: the mean is 0.9964 or 0.9945, and less than 0.05 below it is chance."""
    names = [f"n{number}" for number in range(11)]
    outliers = pool(*names, success_rate_factor=0.1, latency_factor=None)
    for name in names[:-1]:
        answer(outliers, name, 50)
    answer(outliers, names[-1], 50 - bad, bad)
    assert [change.name for change in outliers.turn(10.0)] == ([names[-1]] if ejected else [])


def test_just_enough_calls_are_enough():
    """Ten are asked for."""
    outliers = pool(*"abcde", latency_factor=None)
    for name in "abcd":
        answer(outliers, name, 10)
    answer(outliers, "e", 5, 5)
    assert outliers.turn(10.0) == [Change("e", Cause.SUCCESS_RATE, 30.0)]


@pytest.mark.parametrize(
    ("others", "seconds", "slow"),
    [(1.0, 10.0, False), (1.0, 10.5, True), (0.0625, 0.625, False), (0.0625, 0.75, True), (0.0, 1.0, False)],
)
def test_a_latency_is_compared_in_multiples_of_the_others(others, seconds, slow):
    """More than ten times the median, whatever the unit and however many answers there are; of nothing there is no multiple."""
    outliers = pool(*"abcd")
    for name, count in (("a", 5), ("c", 64), ("d", 128)):
        answer(outliers, name, count, seconds=others)
    answer(outliers, "b", 32, seconds=seconds)
    assert [change.name for change in outliers.turn(10.0)] == (["b"] if slow else [])


def test_the_slowest_goes_first_when_not_all_may_go():
    """Of two that are slow."""
    for order in ("abcdef", "abcdfe"):
        outliers = pool(*order, max_ejected=0.2)
        for name in "abcd":
            answer(outliers, name, 8)
        answer(outliers, "e", 8, seconds=20.0)
        answer(outliers, "f", 8, seconds=40.0)
        assert [change.name for change in outliers.turn(10.0)] == ["f"]


def test_who_would_be_ejected_is_said_once_for_each_row_of_failures():
    """In shadow nobody goes, and the count begins anew."""
    outliers = pool("a", "b", shadow=True)
    for _ in range(2):
        assert fail(outliers, "a", 2) is None
        assert fail(outliers, "a", 1) == Change("a", Cause.CONSECUTIVE_FAILURES, 30.0)
    assert (outliers.ejected, outliers.members["a"].era) == (0, 0)


def test_nobody_comes_back_early_while_not_too_many_are_out():
    """One of three may be."""
    outliers = pool(*"abcd")
    fail(outliers, "a", 3)
    assert outliers.remove("d", 2.0) == []
    assert outliers.reconfigure(replace(RULES, max_ejected=0.4), 2.0) == []
    assert outliers.ejected == 1
