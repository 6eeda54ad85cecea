"""What objectives cannot be: each refused with its path, its value and what is allowed, or overflowing as documented."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError
from somaresil.slo.groups import OTHER
from somaresil.slo.rules import RuleOptions, compile_rules
from tests.unit.slo.kit import DAY, HOUR, availability, good, process

DAYS = timedelta(days=30)
PERIOD = "a timedelta from 5 minutes to 90 days"
TARGET = "a number > 0 and < 100"
SLICES = "10, 20, 30, 50, 60, 100, 150 or 300 seconds"


def refused(call):
    with pytest.raises(ConfigurationError) as caught:
        call()
    return [(problem.path, problem.value, problem.allowed) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("options", "path", "value", "allowed"),
    [
        *(({"target_percentage": target}, "target_percentage", target, TARGET) for target in (0, 100, -5, 100.01, float("inf"), "99.9")),
        *(({"measurement_window": window}, "measurement_window", window, PERIOD) for window in (timedelta(0), timedelta(days=91), DAY)),
        ({"measurement_window": None, "calendar": "decade"}, "calendar", "decade", "'day' | 'week' | 'month' | 'quarter' | 'year'"),
        ({"calendar": "month"}, "measurement_window", DAYS, "None with calendar"),
        ({"budgeting": "occurences"}, "budgeting", "occurences", "'occurrences' | 'timeslices' | 'ratio_timeslices'"),
        ({"budgeting": "ratio_timeslices", "time_slice_window": 7.0}, "time_slice_window", 7.0, SLICES),
        ({"budgeting": "ratio_timeslices", "time_slice_window": 600.0}, "time_slice_window", 600.0, SLICES),
        ({"latency": 0.0}, "latency", 0.0, "seconds > 0 and <= 7776000, or None"),
        ({"latency": "2s"}, "latency", "2s", "seconds > 0 and <= 7776000, or None"),
        ({"max_groups": 1_001, "group_by": "tenant"}, "max_groups", 1_001, "a whole number >= 1 and <= 1000"),
    ],
)
def test_a_definition_that_cannot_be_kept_is_refused(options, path, value, allowed):
    """With where it stands, what was found there, and what would be accepted."""
    given = {"target_percentage": 99.0, "measurement_window": DAYS, **options}
    found = refused(lambda: SLO("x", **given))
    assert (f"SLO('x').{path}", value, allowed) in found


def test_an_unknown_way_of_budgeting_is_guessed():
    """A typing mistake is told what it was meant to be."""
    with pytest.raises(ConfigurationError, match=r"did you mean 'occurrences'\?"):
        SLO("x", 99.0, DAYS, budgeting="occurences")


@pytest.mark.parametrize("window", [299.0, 90 * DAY + 1.0])
def test_a_window_that_the_rings_cannot_hold_is_refused(window):
    """An answer for it would be one for another window."""
    resilience, _ = process(availability())
    ((path, value, allowed),) = refused(lambda: resilience.slos.counts("up", window))
    assert (path, value) == ("slos.window", window)
    assert "300" in allowed


def test_a_latency_that_is_no_bucket_is_refused():
    """It could only be guessed at: the objective is to be known before what records for it."""
    resilience, _ = process()
    guard = resilience.guard("x")
    resilience.slos.add(SLO("odd", 95.0, DAYS, latency=0.777))
    ((path, value, allowed),) = refused(lambda: resilience.slos.attach("odd", guard.recorder))
    assert (path, value) == ("SLO('odd').latency", 0.777)
    assert "one of the bounds" in allowed
    # The other way round it is a bound.
    assert 0.777 in resilience.guard("y", slo="odd").recorder.bounds


def test_a_latency_that_is_no_bucket_of_the_histograms_is_refused_in_rules():
    """A quantile could not show it."""
    options = RuleOptions(buckets=(0.1, 1.0), retention=timedelta(days=40))
    ((path, value, allowed),) = refused(lambda: compile_rules([SLO("odd", 99.0, DAYS, latency=0.777)], options))
    assert (path, value) == ("slos.odd.latency", 0.777)
    assert "0.1" in allowed


def test_two_objectives_of_one_name_with_different_definitions_are_refused():
    """All of them at once, and none is taken; the same one again changes nothing."""
    resilience, _ = process(availability("a"), availability("b"))
    new = availability("c")
    found = refused(lambda: resilience.slos.add(availability("a", 95.0), new, availability("b", days=7), availability("a")))
    assert [(path, allowed) for path, _, allowed in found] == [(f"slos.add.{name}", "a name that is not taken") for name in ("a", "b")]
    assert [value for _, value, _ in found] == [availability("a", 95.0), availability("b", days=7)]
    assert resilience.slos.names == ("a", "b")
    resilience.slos.add(availability("a"), new)
    assert resilience.slos.names == ("a", "b", "c")


def test_two_of_one_name_in_one_call_are_refused_too():
    """The first one counts as known."""
    resilience, _ = process()
    assert refused(lambda: resilience.slos.add(availability("a"), availability("a", 95.0)))
    assert resilience.slos.names == ()


def test_label_values_beyond_the_cap_are_counted_together():
    """Nothing is lost: the whole has all of them, and so have the groups with ``_other``."""
    resilience, clock = process(availability(group_by="who", max_groups=3))
    guard = resilience.guard("x", slo="up")

    @guard
    def serve(who):
        return who

    for number in range(500):
        serve(f"client{number % 50}")
        clock.advance(0.5)
    names = resilience.slos.groups("up")
    assert names == ("client0", "client1", "client2", OTHER)
    counts = {name: resilience.slos.counts("up", HOUR, group=name) for name in names}
    assert counts == {"client0": (10, 0), "client1": (10, 0), "client2": (10, 0), OTHER: (470, 0)}
    assert resilience.slos.counts("up", HOUR) == (500, 0)


def test_a_group_that_was_not_seen_is_an_error_with_those_that_were():
    """Not zero events: that would be an answer."""
    resilience, _ = process(availability(group_by="who"))
    guard = resilience.guard("x", slo="up")
    good(guard)
    ((path, value, allowed),) = refused(lambda: resilience.slos.counts("up", HOUR, group="nobody"))
    assert (path, value) == ("slos.up.group", "nobody")
    assert OTHER in allowed
