"""Every kind of objective: what is an event, what counts, and what is left, each against figures worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from somaresil import SLO, ConfigurationError, ManualClock
from tests.unit.slo.kit import DAY, HOUR, availability, bad, good, process, recovery

WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"first_item": 1.0, "idle": 1.0}, "idle"),
        ({"completion": True, "latency": 1.0}, "completion"),
        ({"good_when": print, "freshness": 60.0}, "good_when"),
        ({"good_when": "no"}, "good_when"),
        ({"freshness": 5.0}, "freshness"),
        ({"latency": 91 * DAY}, "latency"),
        ({"parts": {"a": 0}}, "parts.a"),
        ({"parts": {"a": -1.0}}, "parts.a"),
        ({"parts": ["a"]}, "parts"),
        ({"parts": {"a": 1}, "group_by": "tenant"}, "group_by"),
        ({"budgeting": "timeslice"}, "budgeting"),
        ({"budgeting": "timeslices", "time_slice_target": 0.9}, "time_slice_window"),
        ({"budgeting": "timeslices", "time_slice_window": 60}, "time_slice_target"),
        ({"budgeting": "timeslices", "time_slice_window": 60, "time_slice_target": 90}, "time_slice_target"),
        ({"budgeting": "ratio_timeslices", "time_slice_window": 70}, "time_slice_window"),
        ({"budgeting": "ratio_timeslices", "time_slice_window": 60, "time_slice_target": 0.9}, "time_slice_target"),
        ({"time_slice_window": 60}, "time_slice_window"),
        ({"recovery": 60, "budgeting": "ratio_timeslices", "time_slice_window": 60}, "budgeting"),
        ({"calendar": "month"}, "measurement_window"),
        ({"time_zone": "Europe/Berlin"}, "time_zone"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": None}, "time_zone"),
        ({"group_by": "two words"}, "group_by"),
        ({"group_by": "tenant", "max_groups": 0}, "max_groups"),
        ({"injected": "ignore"}, "injected"),
        ({"injected": "separate"}, "chaos_budget_percentage"),
        ({"chaos_budget_percentage": 1.0}, "chaos_budget_percentage"),
        ({"injected": "separate", "chaos_budget_percentage": 100}, "chaos_budget_percentage"),
        ({"freshness": 60, "injected": "exclude"}, "injected"),
    ],
)
def test_what_does_not_go_together_is_refused(options, path):
    """With path, value and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        SLO("x", 99.0, WEEK, **options)
    assert f"SLO('x').{path}" in [problem.path for problem in caught.value.problems]
    assert all(problem.allowed for problem in caught.value.problems)


def sliced(way: str = "timeslices", target: float | None = 0.9, window: float = 60.0) -> SLO:
    """An objective over slices."""
    return SLO("up", 90.0, WEEK, budgeting=way, time_slice_window=window, time_slice_target=target)


def minutes(resilience, clock, history) -> None:
    """Live through minutes with so many good and bad calls each, and one more that is not over."""
    guard = resilience.guard("x", slo="up")
    for goods, bads in history:
        good(guard, goods)
        bad(guard, bads)
        clock.advance(60.0)
    bad(guard)


HISTORY = [(9, 1), (8, 2), (0, 0), (0, 0), (0, 1), (100, 0)]


def test_slices_are_good_from_their_target_on():
    """Good at exactly the target, bad below; one without traffic is neither; one that lasts is not judged yet."""
    resilience, clock = process(sliced(), clock=ManualClock(monotonic=0.0, time=1_700_000_040.0))
    minutes(resilience, clock, HISTORY)
    budget = resilience.slos.error_budget("up")
    assert (budget.good, budget.bad, budget.idle_slices) == (2, 2, 2)
    assert budget.consumed == 0.5
    assert resilience.slos.series("up").slices() == (2, 2)
    assert resilience.slos.series("up").totals() == (117, 5)  # events, for Prometheus


def test_the_mean_of_ratios_does_not_look_at_traffic():
    """A minute with one call weighs as much as one with a hundred."""
    resilience, clock = process(sliced("ratio_timeslices", None), clock=ManualClock(monotonic=0.0, time=1_700_000_040.0))
    minutes(resilience, clock, HISTORY)
    budget = resilience.slos.error_budget("up")
    assert budget.consumed == pytest.approx((0.1 + 0.2 + 1.0 + 0.0) / 4)
    assert (budget.good, budget.bad) == (3, 1)  # 2.7 and 1.3, for people


def test_windows_of_slices_slide():
    """Slices leave a window as events do."""
    resilience, clock = process(sliced(), clock=ManualClock(monotonic=0.0, time=1_700_000_100.0))
    minutes(resilience, clock, [(0, 1)] * 5 + [(1, 0)] * 5)
    assert resilience.slos.counts("up", 300) == (5, 0)
    assert resilience.slos.counts("up", 360) == (5, 1)
    assert resilience.slos.counts("up", HOUR) == (5, 5)
    clock.advance(600)
    assert resilience.slos.counts("up", 300) == (0, 0)


def at(text: str, where: str) -> float:
    """Give the moment at which clocks there show this."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(where)).timestamp()


def test_a_calendar_month_begins_anew_and_the_one_before_is_remembered():
    """In Berlin, across the night in which summer time ends."""
    clock = ManualClock(monotonic=0.0, time=at("2026-10-20T12:00", "Europe/Berlin"))
    resilience, _ = process(SLO("up", 99.0, calendar="month", time_zone="Europe/Berlin"), clock=clock)
    guard = resilience.guard("x", slo="up")
    good(guard, 90)
    bad(guard, 10)
    clock.advance(at("2026-10-31T23:59:50", "Europe/Berlin") - clock.time())
    assert resilience.slos.error_budget("up").bad == 10
    clock.advance(10)
    empty = resilience.slos.error_budget("up")
    assert (empty.good, empty.bad, empty.consumed, empty.coverage) == (0, 0, None, 0.0)
    assert empty.begins_at == at("2026-11-01T00:00", "Europe/Berlin")
    good(guard, 3)
    clock.advance(DAY)
    budget = resilience.slos.error_budget("up")
    assert (budget.good, budget.bad) == (3, 0)
    assert budget.coverage == pytest.approx(1 / 30)
    before = resilience.slos.previous_error_budget("up")
    assert (before.good, before.bad) == (90, 10)
    assert before.begins_at == at("2026-10-01T00:00", "Europe/Berlin")
    assert before.coverage == pytest.approx((11.5 * DAY + HOUR) / (31 * DAY + HOUR), rel=1e-3)


@pytest.mark.parametrize(("unit", "longest"), [("quarter", 92), ("year", 366)])
def test_long_calendar_periods_are_held(unit, longest):
    """Also the one before, at six hours."""
    clock = ManualClock(monotonic=0.0, time=at("2026-01-01T00:00", "UTC"))
    resilience, _ = process(SLO("up", 99.0, calendar=unit), clock=clock)
    guard = resilience.guard("x", slo="up")
    bad(guard, 7)
    clock.advance((longest - 1) * DAY)
    good(guard, 5)
    clock.advance(DAY)
    good(guard, 1)
    found = [resilience.slos.error_budget("up"), resilience.slos.previous_error_budget("up")]
    assert sum(budget.bad for budget in found) == 7
    assert sum(budget.good for budget in found) == 6
    assert datetime.fromtimestamp(found[0].begins_at, UTC).month in {1, 4}


def test_a_rolling_window_has_none_before_it():
    """And says so."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError, match="a calendar period"):
        resilience.slos.previous_error_budget("up")


def test_a_composite_is_the_mean_of_its_parts():
    """By weight; a part without events is left out; the gate wants every part to be fed."""
    whole = SLO("whole", 90.0, WEEK, parts={"a": 3, "b": 1, "c": 6})
    resilience, _ = process(whole, availability("a"), availability("b"), availability("c"))
    one, other = resilience.guard("one", slo="a"), resilience.guard("other", slo="b")
    good(one, 9)
    bad(one, 1)
    bad(other, 2)
    budget = resilience.slos.error_budget("whole")
    assert budget.consumed == pytest.approx((3 * 0.1 + 1 * 1.0) / 4)
    assert (budget.good, budget.bad) == (9, 3)
    assert resilience.slos.burn_rate("whole") == pytest.approx(3.25)
    assert [condition.long_burn for condition in resilience.slos.conditions("whole")] == [None, None], "nobody feeds a part of it"
    assert resilience.slos.verdict("whole").decision == "unknown"
    good(resilience.guard("third", slo="c"), 10)
    assert [condition.long_burn for condition in resilience.slos.conditions("whole")] == pytest.approx([1.3, 1.3])
    assert resilience.slos.verdict("whole").decision == "block"


def test_composites_of_composites_without_circles():
    """A part may be one itself; what is part of itself, or unknown, is refused, and then nothing was added."""
    resilience, _ = process(availability("a"))
    with pytest.raises(ConfigurationError, match="no part itself"):
        resilience.slos.add(SLO("p", 90.0, WEEK, parts={"q": 1}), SLO("q", 90.0, WEEK, parts={"p": 1, "a": 1}))
    with pytest.raises(ConfigurationError, match="did you mean 'a'"):
        resilience.slos.add(SLO("p", 90.0, WEEK, parts={"A": 1}))
    assert resilience.slos.names == ("a",)
    resilience.slos.add(SLO("p", 90.0, WEEK, parts={"q": 1, "a": 1}), SLO("q", 90.0, WEEK, parts={"a": 1}))
    bad(resilience.guard("x", slo="a"))
    assert resilience.slos.error_budget("p").consumed == 1.0
    bad(resilience.guard("y", slo="p"))
    assert resilience.slos.series("a").totals() == (0, 2), "a composite stands for its parts, each of them once"


def fresh() -> SLO:
    """Something that is to be refreshed every minute."""
    return SLO("index", 90.0, WEEK, freshness=60.0)


def test_freshness_is_checked_by_time():
    """Good for a minute after each refreshment, bad from then on; before the first one nobody knows, for a minute."""
    clock = ManualClock(monotonic=0.0, time=1_700_000_000.0)
    resilience, _ = process(fresh(), clock=clock)
    clock.advance(60)
    assert resilience.slos.series("index").totals() == (0, 0)
    clock.advance(20)
    assert resilience.slos.series("index").totals() == (0, 2)
    resilience.slos.refreshed("index")
    clock.advance(60)
    assert resilience.slos.series("index").totals() == (6, 2)
    clock.advance(3 * DAY)
    assert resilience.slos.counts("index", HOUR) == (0, 360)
    assert resilience.slos.series("index").totals() == (6, 2 + 3 * 8_640)
    resilience.slos.refreshed("index")
    clock.advance(30)
    assert resilience.slos.counts("index", 300) == (3, 27)
    with pytest.raises(ConfigurationError):
        resilience.slos.add(availability())
        resilience.slos.refreshed("up")


def test_a_recovery_objective_has_no_chaos_budget():
    """An incident is no share of the traffic."""
    with pytest.raises(ConfigurationError, match="recovery"):
        recovery(injected="separate", chaos_budget_percentage=1.0)
