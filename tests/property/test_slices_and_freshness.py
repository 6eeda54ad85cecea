"""Slices, freshness and calendar periods, held against a reference that looks at every single event."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from datetime import datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from somaresil import SLO, ManualClock, Resilience
from somaresil.model.timeslice import PARTS, weighted
from somaresil.slo.calendar import bounds

START = 1_700_000_100  # a multiple of 300
gaps = st.one_of(st.integers(0, 40), st.sampled_from([59, 60, 61, 299, 300, 3_600, 7_300, 90_000]))
histories = st.lists(st.tuples(gaps, st.booleans()), max_size=40)


@given(
    history=histories,
    rest=gaps,
    length=st.sampled_from([10, 60, 150, 300]),
    target=st.sampled_from([None, 0.5, 2 / 3, 1.0]),
    window=st.sampled_from([300, 600, 3_600, 7_200]),
)
def test_slices_equal_a_recount(history, rest, length, target, window):
    """Of every slice that lies in the window and is over, with traffic in it; nothing else counts."""
    clock = ManualClock(monotonic=0.0, time=float(START))
    way = "ratio_timeslices" if target is None else "timeslices"
    resilience = Resilience("property", clock=clock, seed=0)
    resilience.slos.add(
        SLO("up", 90.0, timedelta(days=7), budgeting=way, time_slice_window=length, time_slice_target=target),
    )
    guard = resilience.guard("x", slo="up")
    slices = defaultdict(lambda: [0, 0])
    now = START
    for gap, fine in history:
        clock.advance(gap)
        now += gap
        with suppress(ZeroDivisionError):
            guard.call(lambda fine=fine: 1 / fine)
        slices[now // length][not fine] += 1
    clock.advance(rest)
    now += rest
    edge = -(-(now - window) // 10) * 10
    good = bad = 0
    unit = PARTS if target is None else 1
    for number, (fine, broken) in slices.items():
        end = (number + 1) * length
        if end <= now and (end > edge or now - window <= START):
            ratio = Fraction(fine, fine + broken)
            part = round(ratio * PARTS) if target is None else int(ratio >= Fraction(str(target)))
            good, bad = good + part, bad + unit - part
    assert resilience.slos.counts("up", window) == (good, bad)


@given(refreshed=st.lists(gaps, max_size=20), rest=gaps, limit=st.sampled_from([10, 25, 60, 600]), looks=st.booleans())
def test_checks_of_freshness_equal_a_recount(refreshed, rest, limit, looks):
    """One at every 10 seconds, good when the last refreshment was no longer ago than the limit."""
    clock = ManualClock(monotonic=0.0, time=float(START))
    resilience = Resilience("property", clock=clock, seed=0)
    resilience.slos.add(SLO("fresh", 90.0, timedelta(days=7), freshness=limit))
    times, now = [], START
    for gap in refreshed:
        clock.advance(gap)
        now += gap
        resilience.slos.refreshed("fresh")
        times.append(now)
        if looks:
            resilience.slos.counts("fresh", 300)
    clock.advance(rest)
    now += rest
    verdicts = {}
    for check in range(START + 10, now + 1, 10):
        before = [time for time in times if time < check]
        if before:
            verdicts[check] = check - before[-1] <= limit
        elif check > START + limit:
            verdicts[check] = False
    found = resilience.slos.series("fresh").totals()
    assert found == (sum(verdicts.values()), len(verdicts) - sum(verdicts.values()))
    edge = -(-(now - 3_600) // 10) * 10
    recent = [fine for check, fine in verdicts.items() if check > edge or now - 3_600 <= START]
    assert resilience.slos.counts("fresh", 3_600) == (sum(recent), len(recent) - sum(recent))


zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]
)


@given(where=zones, unit=st.sampled_from(["day", "week", "month", "quarter", "year"]), now=st.integers(946_684_800, 2_208_988_800))
def test_calendar_periods_hold_their_moment_and_adjoin(where, unit, now):
    """Every moment lies in its period, periods follow one another without gap, and clocks show midnight when one begins."""
    begin, end = bounds(unit, where, now)
    assert begin <= now < end
    assert bounds(unit, where, begin) == (begin, end)
    assert bounds(unit, where, end)[0] == end
    assert bounds(unit, where, begin - 1)[1] == begin
    here = datetime.fromtimestamp(begin, ZoneInfo(where))
    assert here.hour in {0, 1}  # 1 where clocks skip midnight
    assert here.minute == 0


parts = st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 10_000), st.integers(0, 10_000)), max_size=6)


@given(parts=parts)
def test_a_composite_lies_between_its_parts(parts):
    """Its ratio is the weighted mean of those that have events."""
    good, bad = weighted(parts)
    known = [(weight, b / (g + b)) for weight, g, b in parts if g + b]
    if not known:
        assert (good, bad) == (0, 0)
        return
    mean = sum(weight * ratio for weight, ratio in known) / sum(weight for weight, _ in known)
    assert abs(bad / (good + bad) - mean) < 1e-6
