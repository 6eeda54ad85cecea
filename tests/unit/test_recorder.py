"""The recorder: exact counts, whoever counts, and views that are rolled in time."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import Outcome
from somaresil.recorder import Counts, Recorder
from somaresil.switch import Switch
from tests.behaviour.kit import together

BOUNDS = (0.1, 1.0, 2.0)


def made() -> Recorder:
    return Recorder(Switch(), BOUNDS)


class View:
    """A view with boundaries every ten seconds, that says when it was rolled."""

    def __init__(self, then=lambda: None) -> None:
        self.due = 10.0
        self.rolled: list[float] = []
        self.then = then

    def roll(self, now: float) -> None:
        self.rolled.append(now)
        self.due = now // 10 * 10 + 10
        self.then()


def test_a_new_recorder_has_counted_nothing():
    """Good is there from the beginning, as zeros."""
    assert made().counts() == Counts(BOUNDS, {(Outcome.GOOD, False): [0, 0, 0, 0]})


@pytest.mark.parametrize(("elapsed", "bucket"), [(-1.0, 0), (0.0, 0), (0.1, 0), (0.11, 1), (1.0, 1), (2.0, 2), (2.000001, 3), (1e9, 3)])
def test_a_bound_belongs_to_its_bucket(elapsed, bucket):
    """As in Prometheus; what is above the last bound has a bucket of its own. The same for quiet calls and others."""
    recorder = made()
    recorder.count_quiet(elapsed)
    recorder.add(Outcome.BAD, elapsed)
    expected = [int(number == bucket) for number in range(4)]
    assert recorder.counts().cells == {(Outcome.GOOD, False): expected, (Outcome.BAD, False): expected}


def test_reading_does_not_change_what_is_read():
    """However often, and from whichever side: a counter that is read by bumping it is corrected by the number of readings."""
    recorder = made()
    for reading in range(5):
        recorder.count_quiet(0.5)
        next(recorder.refusals)
        assert recorder.quiet_counts() == [0, reading + 1, 0, 0]
        assert recorder.counts().total(Outcome.GOOD) == reading + 1
        assert recorder.counts().total(Outcome.REJECTED) == reading + 1


def test_a_late_counter_of_refusals_begins_at_zero():
    """It is made when a breaker first opens, after any number of readings."""
    recorder = made()
    for _ in range(3):
        recorder.counts()
    assert (Outcome.REJECTED, False) not in recorder.counts().cells
    refusals = recorder.refusals
    assert refusals is recorder.refusals
    assert recorder.counts().total(Outcome.REJECTED) == 0
    next(refusals)
    assert recorder.counts().cells[Outcome.REJECTED, False] == [1, 0, 0, 0]


def test_refusals_are_added_to_other_rejections():
    """In the first bucket, for no time passes."""
    recorder = made()
    recorder.add(Outcome.REJECTED, 1.5)
    next(recorder.refusals)
    assert recorder.counts().cells[Outcome.REJECTED, False] == [1, 0, 1, 0]


def test_good_calls_of_both_kinds_are_one_number():
    """Those that were counted quietly and those that were not."""
    recorder = made()
    recorder.count_quiet(0.05)
    recorder.add(Outcome.GOOD, 1.5)
    assert recorder.counts().cells[Outcome.GOOD, False] == [1, 0, 1, 0]
    assert recorder.quiet_counts() == [1, 0, 0, 0]


def test_totals_and_histograms_choose_what_they_count():
    """By outcome, by mark, or everything."""
    recorder = made()
    recorder.count_quiet(0.05)
    recorder.add(Outcome.BAD, 0.05)
    recorder.add(Outcome.BAD, 1.5, True)
    recorder.add(Outcome.GOOD, 5.0, True)
    counts = recorder.counts()
    assert counts.total() == 4
    assert counts.total(Outcome.BAD) == 2
    assert counts.total(Outcome.BAD, Outcome.GOOD, injected=False) == 2
    assert counts.total(injected=True) == 2
    assert counts.total(Outcome.ABANDONED) == 0
    assert counts.histogram() == [2, 0, 1, 1]
    assert counts.histogram(Outcome.BAD) == [1, 0, 1, 0]


def test_counts_of_many_threads_are_exact():
    """Quiet calls, refusals and others, while somebody reads all the time."""
    recorder = made()
    refusals = recorder.refusals

    def count(number):
        if number == 0:
            return [recorder.counts().total() for _ in range(200)]
        for _ in range(4_000):
            recorder.count_quiet(0.5)
            next(refusals)
            recorder.add(Outcome.BAD, 0.5)
        return None

    readings = together(5, count)[0]
    assert readings == sorted(readings)
    assert recorder.counts().cells == {
        (Outcome.GOOD, False): [0, 16_000, 0, 0],
        (Outcome.REJECTED, False): [16_000, 0, 0, 0],
        (Outcome.BAD, False): [0, 16_000, 0, 0],
    }


def test_a_view_is_rolled_when_a_boundary_is_passed():
    """Not before it, once for each call to settle after it; the switch knows the nearest boundary of all views."""
    recorder, early, late = made(), View(), View()
    late.due = 100.0
    recorder.attach(early)
    recorder.attach(late)
    assert recorder.switch.due == float("-inf")
    recorder.settle(3.0)
    assert (early.rolled, late.rolled, recorder.switch.due) == ([], [], 10.0)
    recorder.settle(10.0)
    assert (early.rolled, late.rolled, recorder.switch.due) == ([10.0], [], 20.0)
    recorder.settle(250.0)
    assert (early.rolled, late.rolled, recorder.switch.due) == ([10.0, 250.0], [250.0], 260.0)


def test_without_views_nothing_is_ever_due():
    """A quiet call then never has to settle anything."""
    recorder, view = made(), View()
    recorder.settle(5.0)
    assert recorder.switch.due == float("inf")
    recorder.attach(view)
    recorder.detach(view)
    recorder.settle(50.0)
    assert view.rolled == []
    assert recorder.switch.due == float("inf")


def test_a_view_that_is_attached_while_others_are_rolled_is_not_forgotten():
    """Its boundaries are looked at by the next call."""
    recorder, newcomer = made(), View()
    recorder.attach(View(then=lambda: recorder.attach(newcomer)))
    recorder.settle(10.0)
    assert recorder.switch.due == float("-inf")


def test_a_view_may_watch_a_bucket():
    """Its own iterator is bumped in place of the counter, until the counter is put back."""
    recorder, seen = made(), []

    def watch():
        while True:
            seen.append(1)
            yield

    recorder.cells[1] = watch()
    recorder.count_quiet(0.5)
    recorder.cells[1] = recorder.quiet_counters[1]
    recorder.count_quiet(0.5)
    assert seen == [1]
    assert recorder.quiet_counts() == [0, 1, 0, 0]


@given(
    st.lists(
        st.tuples(st.sampled_from([*Outcome, "quiet", "refused", "source", "read"]), st.sampled_from([0.01, 0.3, 2.0, 7.0]), st.booleans())
    ),
    st.sampled_from([None, 0.3, 2.0]),
)
def test_what_objectives_ask_for_are_the_sums_of_the_cells(told, limit):
    """Whatever was counted in whichever way, and however often it was read."""
    recorder = Recorder(Switch(), (0.1, 0.3, 2.0, 5.0))
    elsewhere = [0] * 5
    recorder.include(lambda: elsewhere)
    for what, seconds, injected in told:
        if what == "quiet":
            recorder.count_quiet(seconds)
        elif what == "refused":
            next(recorder.refusals)
        elif what == "source":
            elsewhere[bisect_left(recorder.bounds, seconds)] += 1
        elif what == "read":
            recorder.tally()
        else:
            recorder.add(what, seconds, injected)
    until = None if limit is None else recorder.bounds.index(limit) + 1
    counts, expected = recorder.counts(), [0, 0, 0, 0]
    for (outcome, injected), cell in counts.cells.items():
        if outcome is Outcome.GOOD:
            expected[2 * injected] += sum(cell[:until])
            expected[2 * injected + 1] += sum(cell) - sum(cell[:until])
        elif outcome in {Outcome.BAD, Outcome.REJECTED}:
            expected[2 * injected + 1] += sum(cell)
    assert recorder.tally(until) == tuple(expected)
    assert recorder.counts() == counts


def test_what_was_summed_is_not_kept_when_a_call_was_added_meanwhile():
    """The lock is reentrant: whoever ends a forgotten stream in the middle of a reading counts, and the next reading knows it."""
    recorder = Recorder(Switch(), (0.1,))
    recorder.add(Outcome.BAD, 0.0)

    class Interrupted(dict):
        def items(self):
            found = [*super().items()]
            recorder.add(Outcome.BAD, 0.0)
            return [(key, [*cell]) for key, cell in found]

    recorder._other, plain = Interrupted(recorder._other), recorder._other
    recorder.tally()
    recorder._other = plain
    assert recorder.tally() == (0, 2, 0, 0)


@pytest.mark.parametrize("until", [None, 1])
def test_what_was_summed_is_summed_anew_after_each_call(until):
    """However often it was looked at in between."""
    recorder = Recorder(Switch(), (0.1,))
    for number in range(1, 5):
        recorder.add(Outcome.BAD, 0.0)
        assert recorder.tally(until) == recorder.tally(until) == (0, number, 0, 0)
