"""The limit of a dependency, from how long it takes: the two steps, windows, drops, dips, and that the baseline does not drift."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from somaresil.model.concurrency import Estimator, Tuning, gradient_step, vegas_step

both = pytest.mark.parametrize("algorithm", ["gradient", "vegas"])


class Line:
    """A dependency that does ``capacity`` calls in ``base`` seconds, asked for more than it can do; one window at a time."""

    def __init__(self, capacity: float, base: float = 0.25, **tuning) -> None:
        self.capacity = capacity
        self.base = base
        self.model = Estimator(Tuning(**tuning))
        self.now = 1_000.0

    def takes(self, inside: int) -> float:
        """What an answer takes with so many calls inside (Little's law)."""
        return self.base * max(1.0, inside / self.capacity)

    def window(self, wanted: int = 10_000, drops: int = 0) -> float:
        """Live through one window with as many calls inside as may be; what an answer took."""
        inside = min(wanted, self.model.limit)
        seconds = self.takes(inside)
        begun = self.model._begun
        for _ in range(2_000):
            self.now += max(seconds / 4.0, 0.3)
            for number in range(5):
                take = self.model.drop if number < drops else self.model.sample
                take(seconds, self.now, inside)
            if begun is not None and self.model._begun != begun:
                return seconds
            begun = self.model._begun
        raise AssertionError("the window never ends")

    def windows(self, count: int, **options) -> None:
        """Live through several."""
        for _ in range(count):
            self.window(**options)


# -- steps ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "seconds", "queue", "expected"),
    [
        (100.0, 1.0, None, 102.0),  # no waiting: room for a queue of the root of 100, of which a fifth is taken
        (100.0, 1.5, None, 102.0),  # within the tolerance
        (100.0, 2.0, None, 97.0),  # three quarters, and the queue
        (100.0, 3.0, None, 92.0),  # half
        (100.0, 300.0, None, 92.0),  # never less than half
        (100.0, 0.1, None, 102.0),  # never more than all
        (100.0, 3.0, 0, 90.0),
        (100.0, 1.0, 4, 100.8),
        (100.0, 0.0, None, 102.0),  # a clock too coarse for so quick an answer
    ],
)
def test_the_gradient_follows_the_ratio_of_times(limit, seconds, queue, expected):
    """The limit is scaled by 1.5 times the baseline over what answers take now, between a half and one, plus the queue."""
    assert gradient_step(limit, 1.0, seconds, Tuning(queue=queue)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("limit", "seconds", "expected"),
    [
        (100.0, 1.0, 112.0),  # nobody waits: six units of log10(100)
        (100.0, 0.5, 112.0),
        (100.0, 1.02, 112.0),  # two wait: one unit
        (100.0, 1.04, 102.0),  # four: below three units
        (100.0, 1.08, 100.0),  # eight: between three and six
        (100.0, 1.2, 98.0),  # seventeen
        (1.0, 1.0, 7.0),  # a unit is at least one, or a limit of one would stay for ever
        (5.0, 5.0, 5.0),
        (10.0, 10.0, 9.0),
        (10.0, 1 / 0.75, 10.0),  # three: no longer below three units
        (10.0, 1 / 0.45, 10.0),  # six: not yet above six
        (10.0, 1 / 0.35, 9.0),  # seven
    ],
)
def test_vegas_keeps_the_number_of_waiting_calls_between_two_bounds(limit, seconds, expected):
    """Alpha is three and beta six times the logarithm of the limit."""
    assert vegas_step(limit, 1.0, seconds) == pytest.approx(expected)


# -- windows --------------------------------------------------------------------------------------------------------------------------


@both
def test_no_step_before_the_window_has_its_calls_and_its_time(algorithm):
    """Nine calls in an hour are no window, nor are a thousand in a moment."""
    model = Estimator(Tuning(algorithm=algorithm))
    for number in range(9):
        assert not model.sample(0.1, number * 400.0, 20)
    assert model.baseline is None
    model.sample(0.1, 3_600.0, 20)
    assert model.baseline == pytest.approx(0.1)
    model = Estimator(Tuning(algorithm=algorithm))
    for _ in range(1_000):
        assert not model.sample(0.1, 50.0, 20)
    assert (model.limit, model.baseline) == (20, None)
    model.sample(0.1, 51.0, 20)
    assert model.baseline == pytest.approx(0.1)


def test_a_window_lasts_twice_the_baseline():
    """Calls that are slower than a window are seen whole."""
    line = Line(1_000.0, base=30.0)
    line.window()
    begun = line.now
    line.window()
    assert line.now - begun >= 30.0


def test_what_was_let_in_under_another_limit_is_no_sample():
    """Calls that end within a call's time after a step began before it."""
    line = Line(50.0)
    line.window()
    assert line.model.limit == 20
    line.window()
    assert line.model.limit > 20
    before = line.model.limit
    for _ in range(100):
        assert not line.model.sample(900.0, line.now + 0.2, 20)
    line.window()
    assert line.model.limit > before


@both
def test_the_limit_does_not_grow_while_it_is_not_used(algorithm):
    """With less than half of the calls inside nothing is learnt about more."""
    line = Line(1_000.0, algorithm=algorithm)
    line.windows(20, wanted=9)
    assert line.model.limit == 20
    line.windows(3, wanted=11)
    assert line.model.limit > 20


@both
def test_the_limit_stays_between_its_bounds(algorithm):
    """However good or bad it looks."""
    line = Line(10_000.0, algorithm=algorithm, maximum=50)
    line.windows(60)
    assert line.model.limit == 50
    line.capacity = 0.01
    line.model.tuning = Tuning(algorithm=algorithm, maximum=50, minimum=8)
    seen = []
    for _ in range(60):
        line.window()
        seen.append(line.model.limit)
    assert min(seen) == 8


# -- drops ----------------------------------------------------------------------------------------------------------------------------


def dropping(drops: int, calls: int, limit: int = 100) -> Estimator:
    """One window of so many calls, of which so many were dropped."""
    model = Estimator(Tuning(initial=limit, window=0.001))
    for number in range(calls):
        (model.drop if number < drops else model.sample)(0.1, 10.0 + number, limit)
    return model


@pytest.mark.parametrize(
    ("drops", "calls", "expected"),
    [(2, 10, 80), (3, 10, 70), (5, 10, 50), (10, 10, 50)],
)
def test_the_limit_falls_by_the_share_of_drops(drops, calls, expected):
    """A dependency that refuses what is too much is at its capacity then; never by more than half at once."""
    assert dropping(drops, calls).limit == expected


def test_nothing_is_waited_for_after_drops_when_nothing_has_answered():
    """How long calls take is not known then; the next ten that are dropped halve the limit again."""
    model = Estimator(Tuning(initial=100, window=0.001))
    changes = [model.drop(0.1, 10.0 + number / 1_000, 100) for number in range(20)]
    assert [number for number, changed in enumerate(changes) if changed] == [9, 19]
    assert model.limit == 25


@pytest.mark.parametrize("calls", [10, 11])
def test_one_drop_is_chance(calls):
    """Whatever its share; the window counts without it."""
    assert dropping(1, calls).limit >= 100


def test_a_hundredth_of_drops_is_chance():
    """A healthy dependency that times out now and then is not starved."""
    model = Estimator(Tuning(initial=100, window=10_000.0))
    for number in range(1_000):
        (model.drop if number < 10 else model.sample)(0.1, 10.0 + number / 1_000, 100)
    model.sample(0.1, 20_000.0, 100)
    assert model.limit > 100


def test_the_time_of_a_drop_is_no_sample():
    """How long we were willing to wait is not how long the dependency takes."""
    model = dropping(1, 10)
    model_of_good_ones = dropping(0, 9)
    model_of_good_ones.sample(0.1, 30.0, 100)
    assert model.baseline == model_of_good_ones.baseline == pytest.approx(0.1)


# -- the baseline ---------------------------------------------------------------------------------------------------------------------


@both
def test_an_hour_of_overload_does_not_move_the_baseline(algorithm):
    """Where an average over 600 windows, as Netflix' Gradient2 has it, has let in ten times what the dependency takes."""
    line = Line(50.0, algorithm=algorithm, maximum=1_000)
    limit, average = 20.0, 0.25
    for _ in range(3_600):
        line.window()
        seconds = line.takes(int(limit))
        average += 2.0 / 601.0 * (seconds - average)
        limit = min(1_000.0, gradient_step(limit, average, seconds, Tuning()))
    assert limit > 500
    assert line.model.baseline == pytest.approx(0.25, rel=0.02)
    assert 50 <= line.model.limit < 100


@both
@pytest.mark.parametrize("capacity", [2, 5, 30, 150])
def test_a_start_in_the_middle_of_overload_is_no_baseline(algorithm, capacity):
    """The first thing seen is a dependency with far too much to do; a dip finds out what it takes by itself."""
    line = Line(capacity, algorithm=algorithm, initial=200)
    assert line.takes(200) > 0.25
    line.windows(240)
    assert line.model.baseline == pytest.approx(0.25, rel=0.1)
    assert line.model.limit <= 2.2 * capacity + 6


@both
def test_a_dependency_that_takes_longer_now_is_believed(algorithm):
    """Three times as long with as much capacity: after a dip it has nearly the limit that it had."""
    line = Line(100.0, algorithm=algorithm)
    line.windows(100)
    settled = line.model.limit
    line.base = 0.75
    line.windows(12)
    assert line.model.baseline == pytest.approx(0.75, rel=0.05)
    assert line.model.limit > 0.5 * settled
    line.windows(60)
    assert line.model.limit > 0.9 * settled
    line.base = 0.25
    line.windows(60)
    assert line.model.baseline == pytest.approx(0.25, rel=0.05)


@both
def test_half_the_capacity_is_found_and_the_whole_again(algorithm):
    """The limit follows, the baseline stays."""
    line = Line(100.0, algorithm=algorithm)
    line.windows(100)
    whole = line.model.limit
    line.capacity = 50.0
    line.windows(60)
    assert line.model.limit < 0.65 * whole
    line.capacity = 100.0
    line.windows(60)
    assert line.model.limit > 0.9 * whole
    assert line.model.baseline == pytest.approx(0.25, rel=0.05)


def test_the_baseline_follows_slowly_while_nobody_waits_because_of_us():
    """A hundredth of the way a window: others may be the reason."""
    line = Line(1_000.0)
    line.windows(10, wanted=3)
    line.base = 0.5
    line.windows(10, wanted=3)
    assert 0.26 < line.model.baseline < 0.29


# -- dips -----------------------------------------------------------------------------------------------------------------------------


def until_dip(line: Line, most: int = 400) -> int:
    """Live until the limit is lowered for a moment; how many windows that took."""
    for count in range(1, most):
        line.window()
        if line.model.dipping:
            return count
    raise AssertionError("it never dips")


def finish_dip(line: Line) -> None:
    """Live until the limit is what it was found to be."""
    for _ in range(20):
        if not line.model.dipping:
            return
        line.window()
    raise AssertionError("it dips for ever")


def test_dips_let_in_half_and_become_rare_when_they_tell_nothing_new():
    """After 10 windows in use, 20, 40, 80, 160, and no rarer than that."""
    line = Line(30.0)
    assert until_dip(line) == 10
    inside = int(line.model._estimate)
    assert line.model.limit <= (inside + 1) // 2
    found = []
    for _ in range(6):
        finish_dip(line)
        found.append(until_dip(line))
    assert found == [20, 40, 80, 160, 160, 160]


def test_dips_come_soon_again_when_the_baseline_falls():
    """A dependency that has become quick may be quicker still than what is seen of it under load."""
    line = Line(50.0)
    line.windows(800)
    assert line.model._patience == 160
    line.base = 0.05
    assert until_dip(line) <= 40


def test_a_dip_goes_on_while_half_of_the_calls_are_twice_as_fast():
    """Then they are still waiting inside; it ends where it makes no difference."""
    line = Line(5.0, initial=160)
    line.model.baseline = line.model._anchor = line.model._smooth = 10.0
    line.model._patience = 1
    seen = []
    line.window()
    while line.model.dipping and len(seen) < 10:
        seen.append(line.model.limit)
        line.window()
    assert seen == [80, 40, 20, 10, 5, 2]
    assert line.model.baseline == pytest.approx(0.25)


def test_no_dip_goes_below_the_minimum():
    """Fewer than that were never allowed; at the minimum itself there is nothing to try, and what is seen there is the baseline."""
    line = Line(4.0, initial=20, minimum=16)
    for _ in range(60):
        line.window()
        assert line.model.limit >= 16
    assert line.model.baseline >= line.takes(16) * 0.99


def test_a_change_of_bounds_keeps_what_is_known():
    """The limit moves into them at once, and a dip ends."""
    line = Line(50.0)
    until_dip(line)
    known = line.model.baseline
    line.model.retune(Tuning(maximum=12, initial=5))
    assert (line.model.limit, line.model.dipping, line.model.baseline) == (12, False, known)


# -- against a plain reference --------------------------------------------------------------------------------------------------------


class Calls(RuleBasedStateMachine):
    """Any calls at any times, against a list of all that ended in the window."""

    def __init__(self) -> None:
        super().__init__()
        self.tuning = Tuning(minimum=2, initial=20, maximum=100, samples=4)
        self.model = Estimator(self.tuning)
        self.now = 100.0
        self.open: list[tuple[str, float]] = []
        self.ready: float | None = None
        self.begun = 0.0
        self.changes = 0

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 4.0, 60.0]), kind=st.sampled_from(["sample", "sample", "sample", "drop"]))
    def call(self, seconds, kind):
        """One ends."""
        before, baseline, inside = self.model.limit, self.model.baseline, self.model.limit
        if self.ready is None:
            self.ready = self.begun = self.now - seconds
        changed = getattr(self.model, kind)(seconds, self.now, inside)
        if self.now >= self.ready:
            self.open.append((kind, seconds))
        due = max(self.begun + self.tuning.window, self.ready + (baseline or 0.0))
        if len(self.open) < self.tuning.samples or self.now < due:
            assert not changed
            assert (self.model.limit, self.model.baseline) == (before, baseline)
            return
        drops = sum(kind == "drop" for kind, _ in self.open)
        share = drops / len(self.open)
        assert changed == (self.model.limit != before)
        if drops > 1 and share > 0.01:
            assert self.model.limit <= max(self.tuning.minimum, before)
            assert self.model.baseline == baseline
        elif baseline is None:
            taken = [seconds for kind, seconds in self.open if kind == "sample"]
            assert self.model.baseline == pytest.approx(sum(taken) / len(taken))
        self.open = []
        self.begun, self.ready = self.now, self.model._ready
        assert self.ready >= self.now

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.1, 10.0]))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    @precondition(lambda self: not self.model.dipping)
    @invariant()
    def bounds_hold(self):
        """Between the bounds, but for a dip."""
        assert self.tuning.minimum <= self.model.limit <= self.tuning.maximum

    @invariant()
    def nothing_is_out_of_order(self):
        """A baseline is a time, and a dip leaves something to let in."""
        assert self.model.limit >= 1
        assert self.model.baseline is None or (self.model.baseline >= 0.0 and math.isfinite(self.model.baseline))


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=60)


@settings(max_examples=12)
@given(
    algorithm=st.sampled_from(["gradient", "vegas"]),
    capacities=st.lists(st.sampled_from([1.0, 3.0, 20.0, 100.0, 500.0]), min_size=1, max_size=4),
    bases=st.lists(st.sampled_from([0.02, 0.25, 5.0]), min_size=1, max_size=3),
)
def test_no_history_leads_to_a_wrong_limit_that_stays(algorithm, capacities, bases):
    """After any changes of capacity and duration, 400 windows later the dependency is used and not flooded."""
    line = Line(50.0, algorithm=algorithm)
    for capacity in capacities:
        for base in bases:
            line.capacity, line.base = capacity, base
            line.windows(7)
    line.windows(400)
    finish_dip(line)
    assert line.model.limit >= min(200, 0.95 * line.capacity)
    assert line.model.limit <= 2.2 * line.capacity + 6


# -- window by window -----------------------------------------------------------------------------------------------------------------


class Fed:
    """An estimator of which each call is a window, so that all it goes by can be worked out by hand."""

    def __init__(self, **tuning) -> None:
        self.model = Estimator(Tuning(samples=1, window=0.0, **tuning))
        self.now = 0.0

    def feed(self, *answers: float, inside: int = 1_000) -> list[bool]:
        """Windows in which answers took so long; after which of them it dips."""
        dips = []
        for seconds in answers:
            self.now += 1_000.0
            self.model.sample(seconds, self.now, inside)
            dips.append(self.model.dipping)
        return dips


def test_the_first_call_may_be_a_window():
    """Where one is enough, and a window may be as short as it likes."""
    model = Estimator(Tuning(samples=1, window=0.0))
    model.sample(0.125, 5.0, 20)
    assert model.baseline == 0.125


def test_the_first_call_of_all_tells_how_much_of_the_limit_is_in_use():
    """As every other one does."""
    fed = Fed(algorithm="vegas")
    fed.feed(1.0, inside=20)
    assert fed.model.limit == 27


def test_half_of_the_limit_in_use_is_in_use():
    """Ten of twenty are, and Vegas takes a step of six units of the logarithm; nine are not."""
    fed = Fed(algorithm="vegas")
    fed.feed(1.0, 1.0, inside=9)
    assert fed.model.limit == 20
    fed.feed(1.0, inside=10)
    assert fed.model.limit == int(20 + 6 * math.log10(20)) == 27


def test_the_baseline_falls_with_a_short_average():
    """A fifth of the way a window; a fifth below the one that was found last makes dips frequent again."""
    fed = Fed(initial=200)
    fed.feed(2.0)
    fed.model._patience = 160
    seen = []
    for _ in range(3):
        fed.feed(1.0)
        seen.append((round(fed.model.baseline, 9), fed.model._patience))
    assert seen == [(1.8, 160), (1.64, 160), (1.512, 10)]


def test_two_drops_in_two_hundred_are_no_more_than_chance():
    """One per cent of drops is what a healthy dependency may have; a third of two hundred is more."""
    for drops, limit in ((2, 102), (3, 98)):
        model = Estimator(Tuning(initial=100, samples=200, window=0.0))
        for number in range(200):
            (model.drop if number < drops else model.sample)(0.5, 10.0 + number / 1_000, 100)
        assert model.limit == limit


def test_what_was_let_in_under_another_limit_is_waited_for():
    """No time when the limit has not changed, the time of an answer when it has, and twice that for a dip."""
    fed = Fed(initial=400, maximum=400)
    fed.feed(4.0)
    assert (fed.model.limit, fed.model._ready) == (400, fed.now)
    fed.feed(8.0)
    assert (fed.model.limit < 400, fed.model._ready) == (True, fed.now + 8.0)
    fed.model._patience = 1
    assert fed.feed(6.0) == [True]
    assert fed.model._ready == fed.now + 12.0


def test_answers_that_take_strangely_long_make_it_dip_soon():
    """The fifth in a row, and not one that takes just two and a half times as long; any other begins the count anew."""
    fed = Fed(initial=200)
    assert fed.feed(1.0, 3.0, 3.0, 2.5, 3.0, 3.0, 3.0, 3.0) == [False] * 8
    assert fed.feed(3.0) == [True]


def test_the_fifth_long_answer_in_a_row_and_no_earlier_one_makes_it_dip():
    """The answers before it were usual."""
    fed = Fed(initial=200)
    assert fed.feed(1.0, 1.0, 3.0, 3.0, 3.0, 3.0) == [False] * 6
    assert fed.feed(3.0) == [True]


@pytest.mark.parametrize(("between", "soon"), [(1.0, True), (2.0, True), (2.25, False)])
def test_it_does_not_dip_twice_for_the_same_reason(between, soon):
    """A dip that came of long answers is followed by another such one only when an answer took at most twice the baseline meanwhile."""
    fed = Fed(initial=200)
    assert fed.feed(1.0, 3.0, 3.0, 3.0, 3.0, 3.0)[-1]
    assert fed.feed(1.9) == [False]
    assert fed.model.baseline == 1.0
    assert fed.feed(3.0, 3.0, 3.0, 3.0, 3.0, 3.0) == [False] * 6
    assert fed.feed(between, 3.0, 3.0, 3.0, 3.0) == [False] * 5
    assert fed.feed(3.0) == [soon]


def test_what_is_usual_is_so_in_baselines_and_not_in_seconds():
    """At a baseline of half a second 1.25 s are unusual and no reason to look again."""
    fed = Fed(initial=200)
    fed.feed(0.5, 1.5, 1.5, 1.5, 1.5, 1.5)
    assert fed.feed(0.95) == [False]
    assert fed.model.baseline == 0.5
    assert fed.feed(1.125, 1.5, 1.5, 1.5, 1.5, 1.5) == [False] * 6


def test_a_dip_whose_turn_it_was_leaves_the_next_reason_new():
    """Long answers right after it make it dip soon."""
    fed = Fed(initial=200)
    assert fed.feed(*[1.0] * 10)[-1]
    fed.feed(1.0)
    assert fed.feed(3.0, 3.0, 3.0, 3.0, 3.0) == [False] * 4 + [True]


def test_long_answers_from_the_beginning_are_no_news():
    """Nothing usual has been seen under load: the dip waits for its turn."""
    fed = Fed(initial=200)
    fed.feed(1.0, inside=1)
    assert fed.feed(*[3.0] * 9) == [False] * 9
    assert fed.feed(3.0) == [True]


@pytest.mark.parametrize(("initial", "minimum", "dip"), [(21, 1, 10), (20, 10, 10), (21, 11, None), (3, 1, 1), (2, 1, 1)])
def test_a_dip_lets_in_half_in_whole_numbers_and_no_less_than_the_minimum(initial, minimum, dip):
    """The half is rounded down; where that is below the minimum there is no dip."""
    fed = Fed(initial=initial, minimum=minimum, maximum=initial)
    fed.model._patience = 1
    assert fed.feed(1.0) == [dip is not None]
    assert fed.model.limit == (initial if dip is None else dip)
    assert isinstance(fed.model.limit, int)


def test_at_the_minimum_the_short_average_is_the_baseline():
    """With the fewest calls there may be it is no faster than this."""
    fed = Fed(initial=5, minimum=5, maximum=5)
    fed.feed(1.0, *[2.0] * 8)
    assert fed.model.baseline == 1.0
    fed.feed(2.0)
    assert fed.model.baseline == pytest.approx(2.0 - 0.8**9)


def dipped(known: float, last: float, initial: int = 100) -> Fed:
    """In a dip, with that baseline, after answers that took so long."""
    fed = Fed(initial=initial)
    fed.feed(known)
    fed.model._patience = 1
    assert fed.feed(last) == [True]
    fed.model._patience = 10
    return fed


@pytest.mark.parametrize(
    ("known", "last", "seconds", "baseline", "patience"),
    [
        (1.0, 1.0, 0.85, 0.925, 20),  # no faster, and nearly what was known: the mean of both
        (0.5, 1.0, 0.8, 0.8, 10),  # just no faster, and news
        (0.5, 1.0, 0.79, 0.5, 20),  # somewhat faster: the quicker of both
        (5.0, 5.0, 6.0, 5.5, 20),  # a fifth is no news
        (5.0, 5.0, 6.5, 6.5, 10),  # more is
        (1.0, 1.0, 0.6, 0.6, 10),
        (0.0, 0.0, 0.0, 0.0, 20),  # a clock too coarse for so quick an answer
    ],
)
def test_what_a_dip_tells(known, last, seconds, baseline, patience):
    """From 0.8 times as long on it is not we who make it slow; what was learnt is the baseline, and how new that is decides on the next."""
    fed = dipped(known, last)
    assert fed.feed(seconds) == [False]
    assert (fed.model.baseline, fed.model._patience) == (pytest.approx(baseline), patience)


@pytest.mark.parametrize(("initial", "limits"), [(9, [5, 2, 1]), (6, [3, 1])])
def test_a_dip_is_halved_while_answers_take_0_55_times_as_long(initial, limits):
    """Down to one call; then it ends."""
    fed, seen, seconds = dipped(1.0, 1.0, initial), [], 1.0
    while fed.model.dipping and len(seen) < 5:
        seen.append(fed.model.limit)
        seconds *= 0.55
        fed.feed(seconds)
        assert fed.model.baseline == pytest.approx(seconds)
    assert seen == limits
