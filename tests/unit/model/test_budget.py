"""Retry budget: no more further attempts than a share of the calls of late, and a few anyway."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from somaresil.model.budget import Allowance


def test_a_share_of_the_calls_is_allowed():
    """A hundred calls at one moment and a fifth: twenty attempts, and not one more."""
    allowance = Allowance(0.2, 0.0, 10.0, 0.0)
    assert sum(allowance.take(0.0, 100) for _ in range(50)) == 20


@pytest.mark.parametrize("seconds", [0.001, 5.0, 10.0, 20.0])
def test_calls_since_the_last_look_have_come_evenly(seconds):
    """A hundred of them over one window of ten seconds count 100 (1 - 1/e)."""
    passed = seconds / 10.0
    assert Allowance(0.5, 0.0, 10.0, 0.0).left(seconds, 100) == pytest.approx(50.0 * (1.0 - math.exp(-passed)) / passed)


def test_some_are_allowed_whatever_the_traffic():
    """Two a second over ten seconds."""
    allowance = Allowance(0.2, 2.0, 10.0, 0.0)
    assert sum(allowance.take(0.0, 0) for _ in range(50)) == 20


def test_what_is_long_past_allows_nothing_and_costs_nothing():
    """After many windows both the calls and the attempts are forgotten."""
    allowance = Allowance(0.2, 0.1, 10.0, 0.0)
    assert [allowance.take(0.0, 1_000) for _ in range(201)][-2:] == [True, True]
    assert allowance.left(1_000.0, 1_000) == pytest.approx(1.0)


def test_calls_before_it_was_asked_to_count_are_none_of_late():
    """Whoever joins with a million calls brings no right to retry."""
    allowance = Allowance(0.2, 0.0, 10.0, 0.0)
    allowance.joined(5.0, 1_000_000)
    assert not allowance.take(5.0, 1_000_000)
    assert allowance.take(5.0, 1_000_005)


def test_an_attempt_that_is_not_made_is_given_back():
    """And never more than were taken."""
    allowance = Allowance(0.0, 0.1, 10.0, 0.0)
    assert allowance.take(0.0, 0)
    assert not allowance.take(0.0, 0)
    allowance.give_back()
    allowance.give_back()
    assert allowance.take(0.0, 0)
    assert not allowance.take(0.0, 0)


def test_what_is_left_is_what_is_allowed_less_what_was_taken():
    """One attempt given back is one, and no more than is allowed is ever left."""
    allowance = Allowance(0.0, 0.5, 10.0, 0.0)
    assert [allowance.take(0.0, 0) for _ in range(3)] == [True, True, True]
    assert allowance.left(0.0, 0) == 2.0
    allowance.give_back()
    assert allowance.left(0.0, 0) == 3.0
    assert allowance.left(0.0, 0, 0.2) == 0.0


def test_it_shrinks_as_it_is_told():
    """At half the scale half is allowed, at none nothing."""
    allowance = Allowance(0.2, 0.0, 10.0, 0.0)
    assert (allowance.left(0.0, 100, 1.0), allowance.left(0.0, 100, 0.5), allowance.left(0.0, 100, 0.0)) == (20.0, 10.0, 0.0)


@given(rate=st.floats(1.0, 500.0), ratio=st.floats(0.01, 1.0), window=st.floats(1.0, 60.0))
def test_under_steady_traffic_where_all_fails_the_share_is_kept(rate, ratio, window):
    """At any time the attempts per call are the ratio, within what one attempt more or less makes."""
    allowance = Allowance(ratio, 0.0, window, 0.0)
    steps = 400
    step = 20.0 * window / steps
    granted = calls = 0
    for number in range(1, steps + 1):
        before, calls = calls, int(rate * step * number)
        taken = 0
        while taken < calls - before and allowance.take(number * step, calls):
            taken += 1
        granted += taken
        assert granted <= ratio * calls + 1.0


class Budget(RuleBasedStateMachine):
    """Against a list of every call and every attempt, each weighed by its age."""

    @initialize(ratio=st.floats(0.0, 1.0), floor=st.floats(0.0, 3.0), window=st.floats(0.5, 60.0))
    def begin(self, ratio, floor, window):
        self.model = Allowance(ratio, floor, window, 0.0)
        self.ratio, self.floor, self.window = ratio, floor, window
        self.now = 0.0
        self.calls: list[tuple[float, float, int]] = []
        self.attempts: list[float] = []
        self.total = 0
        self.looked = 0.0

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds):
        self.now += seconds

    @rule(calls=st.integers(0, 1_000), scale=st.floats(0.0, 1.0))
    def ask(self, calls, scale):
        self.total += calls
        self.calls.append((self.looked, self.now, calls))
        self.looked = self.now
        allowed = scale * (self.ratio * self._weight_of_calls() + self.floor * self.window)
        spent = sum(math.exp((at - self.now) / self.window) for at in self.attempts)
        taken = self.model.take(self.now, self.total, scale)
        if abs(allowed - spent - 1.0) > 1e-6 * max(1.0, allowed):
            assert taken is (spent + 1.0 <= allowed)
        if taken:
            self.attempts.append(self.now)

    def _weight_of_calls(self):
        weight = 0.0
        for since, until, calls in self.calls:
            passed = (until - since) / self.window
            weight += calls * math.exp((until - self.now) / self.window) * ((1.0 - math.exp(-passed)) / passed if passed else 1.0)
        return weight

    @invariant()
    def nothing_is_negative(self):
        if hasattr(self, "model"):
            assert self.model.left(self.looked, self.total) >= 0.0


TestBudget = Budget.TestCase
