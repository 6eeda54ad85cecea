"""Windows over the events of an objective, held against a log of every single event."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from somaresil import SLO, ManualClock, Outcome, Resilience

HOUR = 3_600.0
DAY = 86_400.0
SHORTEST, LONGEST = 300.0, 90 * DAY
LIMIT = 2.0

# Quarters of a second are exact in binary, so the log and the rings speak of the same moments.
gaps = st.one_of(
    st.integers(0, 60).map(lambda quarters: quarters / 4),
    st.sampled_from([10.0, 299.75, 300.0, HOUR - 0.25, HOUR, 2 * HOUR, DAY, 3 * DAY]),
    st.floats(0.0, 20 * DAY).map(lambda seconds: round(seconds * 4) / 4),
)
durations = st.sampled_from([0.0, 0.25, 1.75, LIMIT, 2.25, 30.0, 700.0])
ends = st.sampled_from(["good", "good", "good", "bad", "ignored", "other guard"])
histories = st.lists(st.tuples(gaps, durations, ends), max_size=60)
windows = st.one_of(
    st.sampled_from([SHORTEST, 1800.0, HOUR, 2 * HOUR, 6 * HOUR, DAY, 3 * DAY, 7 * DAY, 30 * DAY, LONGEST]),
    st.floats(SHORTEST, LONGEST).map(lambda seconds: round(seconds * 4) / 4),
)


def slot_of(window: float) -> float:
    """The coarsest slot that a window of this length may be read from: the finest ring that reaches back far enough."""
    return 10.0 if window < 2 * HOUR else 300.0 if window < 3 * DAY else HOUR


class Log:
    """Every event: when it was counted, and whether it was good."""

    def __init__(self) -> None:
        self.times: dict[bool, list[float]] = {True: [], False: []}

    def add(self, at: float, *, good: bool) -> None:
        self.times[good].append(at)

    def since(self, moment: float) -> tuple[int, int]:
        return tuple(len(times) - bisect_left(times, moment) for times in (self.times[True], self.times[False]))


@given(history=histories, lengths=st.lists(windows, min_size=1, max_size=4), look_after=gaps, start=st.integers(0, 14_400))
def test_every_window_agrees_with_a_log_of_every_event(history, lengths, look_after, start):
    """For availability and for latency, any window from 5 minutes to 90 days misses at most what lies in one slot at its far edge."""
    clock = ManualClock(monotonic=1_000_000.0 + start / 4, time=1_700_000_000.0 + start / 4)
    resilience = Resilience("property", clock=clock, seed=0)
    resilience.slos.add(SLO("up", 99.0, timedelta(days=30)), SLO("fast", 95.0, timedelta(days=7), latency=LIMIT))
    guard = resilience.guard("a", slo=["up", "fast"])
    other = resilience.guard("b", slo=["fast", "up"])
    ignoring = resilience.guard("c", slo=["up", "fast"], classify=lambda result, error: Outcome.IGNORED)
    logs = {"up": Log(), "fast": Log()}

    def fail(seconds):
        clock.advance(seconds)
        raise LookupError

    for gap, seconds, end in history:
        clock.advance(gap)
        if end == "bad":
            with suppress(LookupError):
                guard.call(fail, seconds)
        else:
            {"good": guard, "ignored": ignoring, "other guard": other}[end].call(clock.advance, seconds)
        if end != "ignored":
            logs["up"].add(clock.monotonic(), good=end != "bad")
            logs["fast"].add(clock.monotonic(), good=end != "bad" and seconds <= LIMIT)
    clock.advance(look_after)

    now = clock.monotonic()
    for name, log in logs.items():
        assert resilience.slos.series(name).totals() == log.since(0.0)
        for length in lengths:
            found = resilience.slos.counts(name, length)
            most, least = log.since(now - length), log.since(now - length + slot_of(length))
            assert least[0] <= found[0] <= most[0]
            assert least[1] <= found[1] <= most[1]


@given(history=histories, length=windows)
def test_reading_in_between_changes_no_answer(history, length):
    """However often somebody looks, in whichever windows, the last answer is the same."""
    answers = []
    for looks in (False, True):
        clock = ManualClock()
        resilience = Resilience("property", clock=clock, seed=0)
        resilience.slos.add(SLO("up", 99.0, timedelta(days=30)))
        guard = resilience.guard("a", slo="up")
        for gap, seconds, _ in history:
            clock.advance(gap)
            guard.call(clock.advance, seconds)
            if looks:
                resilience.slos.error_budget("up")
                resilience.slos.counts("up", length)
        answers.append(resilience.slos.counts("up", length))
    assert answers[0] == answers[1]
