"""Why a circuit is open: the figure that was seen beside the threshold that it reached."""

from __future__ import annotations

from dataclasses import replace

import pytest

from somaresil.model.breaker import NOTHING_SEEN, Tally, Trigger
from somaresil.model.why import why
from tests.unit.model.test_breaker import PLAIN

SLOW = replace(PLAIN, failure_rate=None, slow_call_rate=0.5, slow_call_duration=2.0)


@pytest.mark.parametrize(
    ("changes", "tally", "text"),
    [
        ({}, Tally(20, 12, 0, 1), "12 of 20 calls failed in 30 s (60 % >= 50 %)"),
        ({"window": 0.25}, Tally(3, 2, 3, 1), "2 of 3 calls failed in 0.25 s (66.7 % >= 50 %)"),
        ({"window_calls": 100, "failure_rate": 0.07}, Tally(100, 7, 0, 1), "7 of the last 100 calls failed (7 % >= 7 %)"),
        ({"consecutive_failures": 5}, Tally(9, 6, 0, 5), "6 of 9 calls failed in 30 s, 5 in a row (>= 5)"),
        ({"consecutive_failures": 5, "window_calls": 8}, Tally(8, 6, 0, 6), "6 of the last 8 calls failed, 6 in a row (>= 5)"),
        ({"consecutive_failures": 5}, Tally(9, 6, 0, 4), "6 of 9 calls failed in 30 s (66.7 % >= 50 %)"),
    ],
)
def test_failures_over_a_threshold(changes, tally, text):
    """How many of how many, within what, and which limit that is."""
    assert why(Trigger.EXCEEDED, tally, replace(PLAIN, **changes)) == text


@pytest.mark.parametrize(
    ("changes", "tally", "text"),
    [
        ({}, Tally(4, 1, 3, 1), "3 of 4 calls took longer than 2 s in 30 s (75 % >= 50 %)"),
        ({"window_calls": 10}, Tally(10, 1, 5, 1), "5 of the last 10 calls took longer than 2 s (50 % >= 50 %)"),
        ({"failure_rate": 0.9}, Tally(4, 1, 3, 1), "3 of 4 calls took longer than 2 s in 30 s (75 % >= 50 %)"),
        ({"failure_rate": 0.25}, Tally(4, 1, 3, 1), "1 of 4 calls failed in 30 s (25 % >= 25 %)"),
    ],
)
def test_slow_calls_over_a_threshold(changes, tally, text):
    """Failures come first when both are over theirs."""
    assert why(Trigger.EXCEEDED, tally, replace(SLOW, **changes)) == text


@pytest.mark.parametrize(
    ("limits", "tally", "text"),
    [
        (PLAIN, Tally(2, 2, 0, 0), "2 of 3 probes failed (66.7 % >= 50 %)"),
        (replace(PLAIN, half_open_calls=1), Tally(1, 1, 0, 0), "1 of 1 probe failed (100 % >= 50 %)"),
        (replace(PLAIN, failure_rate=None, consecutive_failures=4), Tally(2, 1, 0, 0), "1 of 3 probes failed"),
        (SLOW, Tally(2, 0, 2, 0), "2 of 3 probes took longer than 2 s (66.7 % >= 50 %)"),
        (replace(SLOW, failure_rate=0.9), Tally(2, 1, 2, 0), "2 of 3 probes took longer than 2 s (66.7 % >= 50 %)"),
    ],
)
def test_probes_that_did_not_go_well(limits, tally, text):
    """Of as many as decide, whether or not all of them have answered."""
    assert why(Trigger.RELAPSED, tally, limits) == text


def test_what_needs_no_figure():
    """One call, or one person, is enough."""
    said = {trigger: why(trigger, NOTHING_SEEN, PLAIN) for trigger in (Trigger.FATAL, Trigger.TRIP, Trigger.FORCE_OPEN, Trigger.RESET)}
    assert said == {
        Trigger.FATAL: "a call ended in a way that makes further calls pointless",
        Trigger.TRIP: "tripped for a while",
        Trigger.FORCE_OPEN: "forced open by an operator",
        Trigger.RESET: "reset",
    }


def test_a_circuit_that_another_process_opened_says_so():
    """And whatever has no words of its own says its name."""
    assert why(Trigger.FLEET_OPENED, NOTHING_SEEN, PLAIN) == "opened in another process"
    assert why(Trigger.ELAPSED, NOTHING_SEEN, PLAIN) == "elapsed"


def test_a_duration_that_is_not_known_is_none():
    """And a share is named only where its limit is reached."""
    unknown = replace(SLOW, slow_call_duration=None)
    assert why(Trigger.EXCEEDED, Tally(4, 1, 3, 1), unknown) == "3 of 4 calls took longer than 0 s in 30 s (75 % >= 50 %)"
    assert why(Trigger.EXCEEDED, Tally(4, 0, 1, 1), SLOW) == "1 of 4 calls took longer than 2 s in 30 s"
    assert why(Trigger.RELAPSED, Tally(3, 0, 1, 0), unknown) == "1 of 3 probes took longer than 0 s"
    assert why(Trigger.RELAPSED, Tally(3, 0, 0, 0), replace(PLAIN, failure_rate=None)) == "0 of 3 probes took longer than 0 s"
