"""Columns of five seconds: what is known, what is not, and that it stays small."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.dashboard import columns as columns_of
from somaresil.dashboard.history import COLUMNS, HEAD, MOST_RINGS, STEP, WINDOW, Curve, History, row_of
from somaresil.outcome import Outcome
from somaresil.recorder import Counts

BOUNDS = (0.1, 1.0)
START = 1_700_000_000.0


class Service:
    """One guard whose calls are counted by hand, and a history that looks at it."""

    def __init__(self):
        self.history = History()
        self.wall, self.monotonic = START, 50.0
        self.row = [0] * (HEAD + len(BOUNDS) + 1)
        self.look()

    def look(self):
        self.history.sample(self.wall, self.monotonic, [("g:a", BOUNDS, list(self.row))])

    def pass_time(self, seconds, *, slept=0.0):
        self.wall += seconds + slept
        self.monotonic += seconds + slept
        self.look()

    def call(self, times=1):
        self.row[0] += times
        self.row[HEAD] += times

    def calls(self):
        return columns_of.series(self.history.columns(["g:a"]))["g:a"]["calls"]

    def recent(self):
        return sum(self.history.recent("g:a", list(self.row))[:HEAD])


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=150))
def test_columns_hold_what_was_counted_in_them(calls):
    """The newest last; older than ten minutes is forgotten; what is recent is the last minute. 16 bits are no limit."""
    service = Service()
    for number in calls:
        service.call(number)
        service.pass_time(STEP)
    shown = service.calls()
    assert len(shown) == COLUMNS
    told = calls[-COLUMNS:]
    assert shown == [None] * (COLUMNS - len(told)) + told
    service.call(3)
    assert service.recent() == sum(calls[-WINDOW:]) + 3


def test_time_in_which_the_process_slept_is_not_known():
    """Calls that came between two looks that are far apart belong nowhere; the gap is None and not 0."""
    service = Service()
    for _ in range(3):
        service.call(2)
        service.pass_time(STEP)
    service.call(100)
    service.pass_time(STEP, slept=2 * STEP)
    service.call(5)
    service.pass_time(STEP)
    service.call(7)
    service.pass_time(STEP)
    assert service.calls()[-7:] == [2, 2, 2, None, None, None, 5, 7][-7:]
    assert service.recent() == 6 + 12
    assert service.history.seconds(service.wall) == 5 * STEP


def test_who_looks_late_does_not_know_what_belongs_where():
    """More than two seconds after a column ended neither that one nor the next is known."""
    service = Service()
    service.pass_time(STEP)
    service.call(9)
    service.pass_time(STEP + 3.0)
    service.call(1)
    service.pass_time(STEP - 3.0)
    service.call(4)
    service.pass_time(STEP)
    assert service.calls()[-4:] == [0, None, None, 4]


@pytest.mark.parametrize("step", [3_600.0, -3_600.0, 30.0, -2.0])
def test_a_clock_that_is_set_makes_the_past_unknown(step):
    """Columns lie on the wall clock; when that jumps nobody knows where the old ones are, and counting goes on."""
    service = Service()
    for _ in range(5):
        service.call(2)
        service.pass_time(STEP)
    service.wall += step
    service.pass_time(STEP)
    assert {*service.calls()} == {None}
    service.pass_time(STEP - service.wall % STEP)
    service.call(3)
    service.pass_time(STEP)
    assert service.calls()[-1] == 3
    assert service.recent() == 3


def test_a_guard_that_is_made_later_and_one_that_is_gone():
    """All of a new one belongs to the column in which it was made; one that is gone is forgotten."""
    history = History()
    nothing, one = [0] * (HEAD + 3), [1, 0, 0, 0, 0, 0, 1, 0, 0]
    history.sample(START, 0.0, [("g:a", BOUNDS, nothing)])
    assert sum(history.recent("g:b", one)) == 2
    history.sample(START + STEP, STEP, [("g:a", BOUNDS, nothing), ("g:b", BOUNDS, one)])
    assert columns_of.series(history.columns(["g:a", "g:b"]))["g:b"]["calls"][-1] == 1
    history.sample(START + 2 * STEP, 2 * STEP, [("g:a", BOUNDS, nothing)])
    assert history.columns(["g:b"])["tracks"] == {}


def test_a_thousand_busy_guards_fit_in_ten_megabytes():
    """And more than that have no more: the quietest have no history, and say so."""
    history = History()
    width = HEAD + 15
    names = [f"g:{number}" for number in range(MOST_RINGS + 50)]
    bounds = tuple(float(number) for number in range(1, 15))
    for column in range(4):
        rows = [(name, bounds, [(column + 1) * (number + 1)] * width) for number, name in enumerate(names)]
        history.sample(START + column * STEP, column * STEP, rows)
    assert history.bytes() < 10_000_000
    assert history.recent(names[0], [4] * width) is None
    assert history.recent(names[-1], rows[-1][2]) is not None
    assert len(history.columns([names[0]])["tracks"][names[0]]["rows"]) == 0
    assert len(history.columns([names[-1]])["tracks"][names[-1]]["rows"]) == COLUMNS * width


def test_guards_that_nobody_calls_have_no_ring():
    """Nor have those that nobody has called for ten minutes."""
    service = Service()
    empty = service.history.bytes()
    service.call()
    service.pass_time(STEP)
    assert service.history.bytes() > empty
    for _ in range(COLUMNS + 1):
        service.pass_time(STEP)
    assert service.history.bytes() == empty
    assert service.calls() == [0] * COLUMNS


def test_a_row_has_outcomes_and_the_buckets_of_those_that_ended():
    """Refused and abandoned calls have no latency that anybody asks for."""
    cells = {
        (Outcome.GOOD, False): [1, 2, 3],
        (Outcome.GOOD, True): [0, 1, 0],
        (Outcome.BAD, True): [0, 0, 4],
        (Outcome.REJECTED, False): [9, 0, 0],
        (Outcome.ABANDONED, False): [0, 5, 0],
    }
    assert row_of(Counts(BOUNDS, cells)) == [7, 4, 9, 5, 0, 5, 1, 3, 7]


def test_a_curve_is_thinned_and_not_cut():
    """However long it grows it begins where it began, and has at most so many moments."""
    curve = Curve(most=10)
    for moment in range(100):
        curve.note(float(moment), {"e": float(moment)}, apart=1.0)
    at, values = curve.read()
    assert len(at) <= 10
    assert at[0] == 0.0
    assert at[-1] >= 80.0
    assert values == {"e": at}


def test_rows_come_back_as_they_were_sent():
    """And what is no such text is refused."""
    rows = array("I", range(COLUMNS * 4))
    sent = columns_of.packed({"index": 1, "known": [], "tracks": {"g:a": {"bounds": (), "rows": rows}}})["tracks"]["g:a"]["rows"]
    assert columns_of.unpacked(sent, 4) == rows
    for wrong in ("!", "AAAA", sent[:-4]):
        with pytest.raises(ValueError):
            columns_of.unpacked(wrong, 4)
