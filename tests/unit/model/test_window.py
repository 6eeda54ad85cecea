"""Windows by prefix sums and by positions, held against counting by hand."""

from __future__ import annotations

import math
from array import array
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.window import SLO_TIERS, CountWindow, PrefixRing, RingSet, Tier

DAY = 86_400.0
EPOCH = 1_700_000_000.0


def arrays(thing: object, seen: set[int] | None = None) -> list[array[int]]:
    """Every array that an object of the window module holds, directly or not."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, array):
        return [thing]
    parts: list[object] = list(thing) if isinstance(thing, list | tuple) else []
    parts += [getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)]
    return [found for part in parts for found in arrays(part, seen)]


class Log:
    """What a ring is held against: every event with its time, and windows by counting them."""

    def __init__(self, start: float, columns: int) -> None:
        self.now = start
        self.totals = [0] * columns
        self.events: list[tuple[float, int]] = []

    def add(self, column: int) -> None:
        self.totals[column] += 1
        self.events.append((self.now, column))

    def since(self, since: float) -> list[int]:
        return [sum(1 for at, column in self.events if column == wanted and at >= since) for wanted in range(len(self.totals))]


# -- one ring ---------------------------------------------------------------------------------------------------------------------------


def test_a_new_ring_is_due_at_the_next_boundary():
    """Boundaries are multiples of the resolution, not of the time of making."""
    ring = PrefixRing(10.0, 4, 1, 27.0)
    assert (ring.resolution, ring.slots, ring.due) == (10.0, 4, 30.0)
    assert PrefixRing(10.0, 4, 1, 30.0).due == 40.0


def test_boundaries_below_zero_are_boundaries_like_others():
    """A monotonic clock may begin anywhere."""
    ring = PrefixRing(10.0, 4, 1, -13.0)
    assert ring.due == -10.0
    ring.roll(-10.0, [2])
    assert ring.due == 0.0
    ring.roll(-3.0, [5])
    assert ring.due == 0.0
    assert ring.within(-10.0, [5]) == [3]


def test_totals_may_lie_below_zero():
    """Only differences count: a view may take off what was there before it."""
    ring = PrefixRing(10.0, 4, 1, 0.0)
    ring.roll(10.0, [-7])
    assert ring.within(10.0, [-5]) == [2]


def test_a_ring_is_due_again_after_each_roll():
    """At the boundary behind the time that it was rolled to."""
    ring = PrefixRing(10.0, 4, 1, 0.0)
    ring.roll(9.75, [0])
    assert ring.due == 10.0
    ring.roll(10.0, [0])
    assert ring.due == 20.0
    ring.roll(57.0, [0])
    assert ring.due == 60.0


def test_rolling_back_or_twice_changes_nothing():
    """Another thread may have rolled already."""
    ring = PrefixRing(10.0, 4, 1, 0.0)
    ring.roll(20.0, [5])
    ring.roll(20.0, [7])
    ring.roll(13.0, [9])
    assert ring.due == 30.0
    assert ring.within(20.0, [9]) == [4]


def test_a_window_is_what_happened_since_its_first_boundary():
    """Totals now, minus totals at the first boundary at or behind the beginning of the window."""
    ring = PrefixRing(10.0, 8, 2, 0.0)
    for now, totals in ((10.0, [1, 10]), (20.0, [3, 30]), (30.0, [6, 60])):
        ring.roll(now, totals)
    now = [10, 100]
    assert ring.within(10.0, now) == [9, 90]
    assert ring.within(10.25, now) == [7, 70]
    assert ring.within(20.0, now) == [7, 70]
    assert ring.within(30.0, now) == [4, 40]


def test_everything_is_inside_a_window_that_began_before_the_ring():
    """Nothing is known to be older, so the totals are the answer; also within the slot of the beginning."""
    ring = PrefixRing(10.0, 8, 1, 25.0)
    ring.roll(30.0, [4])
    assert ring.within(-100.0, [9]) == [9]
    assert ring.within(15.0, [9]) == [9]
    assert ring.within(20.0, [9]) == [9]
    assert ring.within(20.25, [9]) == [5]


def test_a_window_that_began_with_the_ring_holds_everything_even_after_a_turn():
    """The beginning is known for ever: there was nothing before it."""
    ring = PrefixRing(10.0, 2, 1, 20.0)
    for boundary in (30.0, 40.0, 50.0, 60.0):
        ring.roll(boundary, [int(boundary) // 10])
    assert ring.within(20.0, [9]) == [9]
    assert ring.within(20.25, [9]) == [4]


def test_a_window_shorter_than_a_slot_is_empty():
    """It looks at less than asked for, never at more."""
    ring = PrefixRing(10.0, 8, 2, 0.0)
    ring.roll(10.0, [4, 1])
    assert ring.within(10.25, [9, 9]) == [0, 0]
    assert ring.within(20.0, [9, 9]) == [0, 0]
    assert ring.within(10.0, [9, 9]) == [5, 8]


def test_a_window_longer_than_the_ring_is_as_long_as_the_ring():
    """It answers from the oldest boundary that it still knows."""
    ring = PrefixRing(1.0, 4, 1, 0.0)
    for second in range(1, 11):
        ring.roll(float(second), [second])
    # Boundaries 7, 8, 9 and 10 are known.
    assert ring.within(2.0, [20]) == [13]
    assert ring.within(6.0, [20]) == [13]
    assert ring.within(7.0, [20]) == [13]
    assert ring.within(8.0, [20]) == [12]


def test_how_far_back_a_ring_reaches():
    """As many boundaries as it has slots, the current one included."""
    ring = PrefixRing(1.0, 4, 1, 0.0)
    ring.roll(10.0, [0])
    assert ring.forgotten == 6.0
    assert ring.within(6.25, [5]) == ring.within(7.0, [5]) == [5]


@pytest.mark.parametrize("idle", [1, 3, 4, 5, 7, 8, 9, 12, 100, 1_000_001])
def test_idle_slots_are_empty_after_any_gap(idle):
    """Odd and even multiples of the ring's length included: what was there before is never seen again."""
    ring = PrefixRing(1.0, 4, 1, 0.0)
    ring.roll(1.0, [5])
    now = 1.0 + idle
    ring.roll(now, [8])
    for back in range(4):
        since = now - back
        assert ring.within(since, [8]) == [8 if since <= 0.0 else 3 if since <= 1.0 else 0]


def test_rolling_a_long_gap_costs_one_turn_of_the_ring():
    """A year without calls is not a loop over a year."""

    class Totals(list):
        asked = 0

        def __iter__(self):
            Totals.asked += 1
            return super().__iter__()

    ring = PrefixRing(1.0, 8, 1, 0.0)
    ring.roll(3e7, Totals([1]))
    assert Totals.asked <= 8


def test_the_wrong_number_of_totals_is_refused():
    """A forgotten counter must not be read as a zero."""
    ring = PrefixRing(1.0, 4, 2, 0.0)
    for wrong in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match="totals for a ring of 2 columns"):
            ring.roll(1.0, wrong)
    ring.roll(1.0, [1, 2])
    for wrong in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match="totals for a ring of 2 columns"):
            ring.within(1.0, wrong)


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 1.0, 2.0, 3.75, 4.0, 8.0, 15.5, 16.0, 31.0, 32.0, 64.25]), st.integers(0, 2)), max_size=40
)


@given(
    start=st.sampled_from([-40.0, 0.0, 3.5, EPOCH]),
    resolution=st.sampled_from([0.5, 1.0, 2.0]),
    slots=st.integers(2, 9),
    steps=steps,
    lengths=st.lists(st.floats(0.25, 20.0).map(lambda length: round(length * 4) / 4), min_size=1, max_size=3),
)
def test_a_ring_agrees_with_counting(start, resolution, slots, steps, lengths):
    """After any history, a window equals the events since its first boundary, counted one by one: the edge is off by less than one slot."""
    ring = PrefixRing(resolution, slots, 2, start)
    log = Log(start, 2)
    for gap, column in steps:
        log.now += gap
        if log.now >= ring.due:
            ring.roll(log.now, log.totals)
        if column < 2:
            log.add(column)
        assert log.now < ring.due
        assert ring.due - log.now <= resolution
        for length in lengths:
            since = log.now - length
            edge = math.ceil(since / resolution) * resolution
            if edge > start and since <= ring.forgotten:
                # It knows the last boundaries only: the answer is that of the longest window it has.
                since = edge = (math.floor(log.now / resolution) - slots + 1) * resolution
            assert edge - since < resolution
            assert ring.within(since, log.totals) == log.since(edge)


# -- several rings ----------------------------------------------------------------------------------------------------------------------


def test_the_tiers_of_objectives_are_pinned():
    """10 seconds for 2 hours, 5 minutes for 3 days, 1 hour for 90 days; one slot more, so that those windows themselves fit."""
    assert [(tier.resolution * (tier.slots - 1), tier.resolution) for tier in SLO_TIERS] == [
        (2 * 3600, 10),
        (3 * DAY, 300),
        (90 * DAY, 3600),
    ]


def test_the_rings_of_an_objective_take_less_than_65_kilobytes():
    """Good and bad in all three tiers, by the size of the arrays."""
    found = arrays(RingSet(EPOCH))
    assert sum(len(marks) for marks in found) == 2 * (721 + 865 + 2161)
    assert sum(len(marks) * marks.itemsize for marks in found) < 65_000


def test_a_ring_set_is_due_with_its_finest_ring():
    """The coarser boundaries lie on the finer ones."""
    rings = RingSet(EPOCH + 1.0)
    assert rings.started == EPOCH + 1.0
    assert rings.due == EPOCH + 10.0
    rings.roll(EPOCH + 42.0, [0, 0])
    assert rings.due == EPOCH + 50.0


def test_the_longest_window_is_that_of_the_coarsest_ring():
    """90 days."""
    assert RingSet(EPOCH).longest == 90 * DAY
    assert RingSet(EPOCH, 1, [Tier(1, 4), Tier(5, 3)]).longest == 10


def test_before_a_window_is_full_everything_is_in_it():
    """The ring set began inside the window."""
    rings = RingSet(EPOCH)
    rings.roll(EPOCH + 600.0, [5, 1])
    assert rings.within(EPOCH + 600.0, 600.0, [9, 2]) == [9, 2]
    assert rings.within(EPOCH + 600.0, 601.0, [9, 2]) == [9, 2]
    assert rings.within(EPOCH + 600.0, 599.0, [9, 2]) == [4, 1]
    assert rings.within(EPOCH + 600.0, 0.0, [9, 2]) == [4, 1]


def test_a_window_as_long_as_the_life_of_the_rings_holds_everything():
    """They need not have begun at a boundary."""
    rings = RingSet(EPOCH + 3.0)
    rings.roll(EPOCH + 63.0, [5, 1])
    assert rings.within(EPOCH + 63.0, 60.0, [9, 2]) == [9, 2]
    assert rings.within(EPOCH + 63.0, 59.0, [9, 2]) == [4, 1]


def test_a_window_is_read_from_the_finest_ring_that_reaches():
    """Short windows finely, long ones coarsely, and the longest from the last ring whatever is asked for."""
    rings = RingSet(0.0, 1, [Tier(1, 4), Tier(5, 3)])
    for second in range(1, 41):
        rings.roll(float(second), [second])
    # 1 s: boundaries 37 to 40. 5 s: boundaries 30, 35 and 40.
    assert rings.within(40.0, 3.0, [100]) == [63]
    assert rings.within(40.0, 3.75, [100]) == [63]
    assert rings.within(40.0, 4.0, [100]) == [60]
    assert rings.within(40.0, 5.0, [100]) == [65]
    assert rings.within(40.0, 10.0, [100]) == [70]
    assert rings.within(40.0, 11.0, [100]) == [70]
    assert rings.within(40.0, 39.0, [100]) == [70]


weeks = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, 9.5, 10.0, 61.25, 300.0, 1800.0, 3600.0, 7200.0, 10_000.0, DAY, 3 * DAY, 9 * DAY, 45 * DAY, 181 * DAY]),
        st.integers(0, 1),
    ),
    max_size=40,
)


@given(offset=st.sampled_from([0.0, 3.25, 1799.5]), weeks=weeks)
def test_windows_from_five_minutes_to_90_days_agree_with_counting(offset, weeks):
    """With the tiers of objectives the edge is off by at most one slot of the ring that answers: under 1/30 of the window."""
    start = EPOCH + offset
    rings = RingSet(start)
    log = Log(start, 2)
    for gap, column in weeks:
        log.now += gap
        if log.now >= rings.due:
            rings.roll(log.now, log.totals)
        log.add(column)
    for window, slot in (
        (300.0, 10.0),
        (3600.0, 10.0),
        (6 * 3600.0, 300.0),
        (DAY, 300.0),
        (3 * DAY, 3600.0),
        (30 * DAY, 3600.0),
        (90 * DAY, 3600.0),
    ):
        assert slot <= window / 30
        found = rings.within(log.now, window, log.totals)
        assert log.since(log.now - window + slot) <= found
        assert found <= log.since(log.now - window)


def test_the_edge_of_90_days_is_exact_at_a_full_hour():
    """All hours of the window and no other; a boundary belongs to the hour that it begins."""
    start = EPOCH - EPOCH % 3600
    rings = RingSet(start)
    totals = [0, 0]
    for hour in range(1, 24 * 91):
        totals[0] += 1
        rings.roll(start + 3600.0 * hour, totals)
    now = start + 3600.0 * (24 * 91 - 1)
    assert rings.within(now, 90 * DAY, totals) == [24 * 90, 0]
    assert rings.within(now, 90 * DAY - 3600, totals) == [24 * 90 - 1, 0]
    assert rings.within(now, 89 * DAY, totals) == [24 * 89, 0]


# -- the last so many calls -------------------------------------------------------------------------------------------------------------


def test_an_empty_count_window_has_seen_nothing():
    """No call, no failure, nothing slow."""
    window = CountWindow(3)
    assert window.size == 3
    assert window.tally(0) == (0, 0, 0)


def test_successes_are_known_by_their_positions_alone():
    """Five calls were counted, the third failed, the fifth was slow: a window of three holds both."""
    window = CountWindow(3)
    window.note(3, failed=True, slow=False)
    window.note(5, failed=False, slow=True)
    assert window.tally(5) == (3, 1, 1)
    assert window.tally(6) == (3, 0, 1)
    assert window.tally(7) == (3, 0, 1)
    assert window.tally(8) == (3, 0, 0)


def test_fewer_calls_than_the_size_are_all_inside():
    """The first call is still there when the window is just full, and gone one call later."""
    window = CountWindow(3)
    window.note(1, failed=True, slow=True)
    assert window.tally(2) == (2, 1, 1)
    assert window.tally(3) == (3, 1, 1)
    assert window.tally(4) == (3, 0, 0)


def test_clearing_forgets_both_kinds():
    """Positions start anew."""
    window = CountWindow(3)
    window.note(1, failed=True, slow=True)
    window.clear()
    assert window.tally(1) == (1, 0, 0)


def test_a_count_window_holds_no_more_than_its_size():
    """However long everything fails."""
    window = CountWindow(4)
    for position in range(1, 1001):
        window.note(position, failed=True, slow=True)
    kept = [len(marks) for marks in (getattr(window, name) for name in CountWindow.__slots__) if hasattr(marks, "__len__")]
    assert kept == [4, 4]
    assert window.tally(1000) == (4, 4, 4)


@given(size=st.integers(1, 8), calls=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=40))
def test_a_count_window_agrees_with_counting(size, calls):
    """After any calls, looked at often or seldom, it shows what the last ones were."""
    window = CountWindow(size)
    for position, (failed, slow, look) in enumerate(calls, start=1):
        window.note(position, failed=failed, slow=slow)
        if look or position == len(calls):
            last = calls[max(0, position - size) : position]
            assert window.tally(position) == (len(last), sum(call[0] for call in last), sum(call[1] for call in last))


asked = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.25, 1.0, 2.5, 9.75, 10.0, 290.0, 300.0, 3_599.5, 7_200.0, 90_000.0]),
        st.integers(0, 3),
        st.sampled_from([10.0, 300.0, 301.5, 3_600.0, 7_200.0, 7_205.0, 7_209.75, 21_600.0, 259_301.0, 30 * DAY]),
    ),
    max_size=60,
)


@given(asked, st.integers(0, 40))
def test_asking_again_gives_what_asking_for_the_first_time_does(history, start):
    """Whatever was asked before, and however often: one set is asked all along, and of the other a copy that nobody has asked."""
    now = 1_700_000_000.0 + start / 4
    rings, fresh = RingSet(now), RingSet(now)
    good = bad = 0
    for gap, more, window in history:
        now += gap
        for each in (rings, fresh):
            each.roll(now, (good, bad))
        good, bad = good + more, bad + more // 2
        for seconds in (window, 3_600.0, window):
            assert rings.within(now, seconds, (good, bad)) == deepcopy(fresh).within(now, seconds, (good, bad))


@pytest.mark.parametrize("window", [7_190.0, 7_205.0, 7_212.0, 7_217.5, 259_212.0])
def test_a_window_that_comes_into_the_reach_of_a_finer_ring_is_read_from_it(window):
    """Also when it was asked a moment ago, and read from a coarser one."""
    rings = RingSet(EPOCH)
    for turn in range(1, 30_000):
        rings.roll(EPOCH + turn * 10.0, (turn, 0))
    fresh = deepcopy(rings)
    for quarter in range(40):
        now = EPOCH + 299_990.0 + quarter / 4
        assert rings.within(now, window, (30_000, 0)) == deepcopy(fresh).within(now, window, (30_000, 0)), quarter


# -- what is remembered, told and followed ----------------------------------------------------------------------------------------------


def test_a_new_ring_has_forgotten_what_its_slots_do_not_reach():
    """Boundaries 20, 10, 0 and -10 are those it would know."""
    assert PrefixRing(10.0, 4, 1, 27.0).forgotten == -20.0


def test_before_its_boundary_a_ring_does_not_even_look():
    """Nothing is noted within a slot."""
    ring = PrefixRing(10.0, 4, 2, 0.0)
    ring.roll(9.0, ())
    assert ring.due == 10.0


def test_any_number_of_columns_is_counted():
    """One, two and three."""
    for columns in (1, 2, 3):
        ring = PrefixRing(10.0, 4, columns, 0.0)
        ring.roll(10.0, list(range(1, columns + 1)))
        assert ring.within(10.0, [10] * columns) == [9, 8, 7][:columns]


@pytest.mark.parametrize(("since", "boundary"), [(0.0, 0.0), (0.25, 10.0), (10.0, 10.0), (19.75, 20.0), (-0.25, 0.0), (-10.0, -10.0)])
def test_the_first_boundary_at_or_behind_a_time(since, boundary):
    """A boundary is its own."""
    assert PrefixRing(10.0, 4, 1, 0.0).ceiling(since) == boundary


def squares(at):
    """Two totals that grow by themselves."""
    return [int(at * at), int(at)]


@pytest.mark.parametrize("start", [0.0, 3.5, -7.0])
@pytest.mark.parametrize("steps", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [2.5, 2.75, 9.0], [40.0], [3.0, 1.0, 3.25, 41.0, 40.0]])
def test_totals_that_grow_by_themselves_are_noted_as_they_were_at_each_boundary(start, steps):
    """As if the ring had been rolled at every one of them; going back changes nothing."""
    along, rolled, now = PrefixRing(1.0, 4, 2, start), PrefixRing(1.0, 4, 2, start), start
    for step in steps:
        along.roll_along(start + step, squares)
        for boundary in range(math.floor(now) + 1, math.floor(start + step) + 1):
            rolled.roll(float(boundary), squares(boundary))
        now = max(now, start + step)
        assert (along.due, along.forgotten) == (rolled.due, rolled.forgotten)
        assert along.forgotten == math.floor(now) - 4
        for back in range(8):
            assert along.within(now - back, squares(now)) == rolled.within(now - back, squares(now))


def test_only_boundaries_that_are_kept_are_asked_for():
    """After a year without a call four totals are, in order."""
    ring, asked = PrefixRing(10.0, 4, 1, 0.0), []
    ring.roll_along(3e7, lambda at: [asked.append(at) or 0])
    assert asked == [3e7 - 30.0, 3e7 - 20.0, 3e7 - 10.0, 3e7]
    ring.roll_along(3e7 + 10.0, lambda at: [asked.append(at) or 0])
    assert asked[4:] == [3e7 + 10.0]
    assert ring.forgotten == 3e7 - 30.0


def test_too_few_or_too_many_totals_of_a_boundary_are_refused():
    """A forgotten counter must not be read as a zero."""
    for wrong in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match="zip"):
            PrefixRing(10.0, 4, 2, 0.0).roll_along(10.0, lambda at, wrong=wrong: wrong)


def test_all_rings_follow_totals_that_grow_by_themselves():
    """At the boundary itself, and not before."""
    rings = RingSet(0.0, 2, [Tier(1, 4), Tier(5, 3)])
    rings.roll_along(0.75, lambda at: pytest.fail("no boundary has passed"))
    rings.roll_along(1.0, squares)
    assert rings.due == 2.0
    rings.roll_along(23.0, squares)
    assert rings.due == 24.0
    assert rings.within(23.0, 2.0, squares(23.0)) == [23 * 23 - 21 * 21, 2]
    assert rings.within(23.0, 8.0, squares(23.0)) == [23 * 23 - 15 * 15, 8]


@pytest.mark.parametrize("start", [0.0, 2.5])
@pytest.mark.parametrize("last", range(13))
def test_a_history_tells_what_happened_up_to_the_end_of_each_slot_that_is_known(start, last):
    """From the oldest on, which begins at nothing; before the ring has turned that is the slot of its beginning."""
    ring, totals, happened = PrefixRing(1.0, 4, 2, start), [0, 0], {}
    first = int(start)
    for slot in range(first, first + last + 1):
        ring.roll(float(slot), totals)
        happened[slot] = (slot + 1, slot % 3)
        totals = [total + more for total, more in zip(totals, happened[slot], strict=True)]
    oldest, columns = ring.history(totals)
    slots = sorted(happened)[-4:]
    assert oldest == slots[0]
    for column, marks in enumerate(columns):
        assert list(marks) == [sum(happened[slot][column] for slot in slots[: count + 1]) for count in range(len(slots))]
    assert len(columns) == 2


def test_the_history_of_a_set_is_that_of_each_ring():
    """By its resolution."""
    rings = RingSet(0.0, 1, [Tier(1, 4), Tier(5, 3)])
    rings.roll(1.0, [3])
    assert {resolution: (first, [list(marks) for marks in columns]) for resolution, (first, columns) in rings.history([5]).items()} == {
        1: (0, [[3, 5]]),
        5: (0, [[5]]),
    }


def test_a_set_may_have_one_ring():
    """It answers everything then."""
    rings = RingSet(0.0, 1, [Tier(1, 4)])
    for second in range(1, 9):
        rings.roll(float(second), [second])
    assert [rings.within(8.0, seconds, [10]) for seconds in (1.0, 3.0, 5.0, 20.0)] == [[3], [5], [5], [10]]


@pytest.fixture
def lookups(monkeypatch):
    """The beginnings of the windows that were looked up in a ring."""
    seen = []
    within = PrefixRing.within

    def counted(ring, since, totals):
        seen.append(since)
        return within(ring, since, totals)

    monkeypatch.setattr(PrefixRing, "within", counted)
    return seen


def test_a_window_that_is_asked_for_again_is_not_looked_up_again(lookups):
    """Until the next boundary of the finest ring, or until its beginning passes the boundary that it was read from."""
    rings = RingSet(0.0)
    for boundary in (10.0, 20.0, 30.0, 40.0):
        rings.roll(boundary, [int(boundary) * 100_000, 7])
    assert rings.within(42.0, 15.0, [5_000_000, 8]) == [2_000_000, 1]
    assert rings.within(43.0, 15.0, [5_000_001, 8]) == [2_000_001, 1]
    assert rings.within(45.0, 15.0, [5_000_002, 9]) == [2_000_002, 2]
    assert lookups == [27.0]
    assert rings.within(46.0, 15.0, [5_000_002, 9]) == [1_000_002, 2]
    assert lookups == [27.0, 31.0]
    rings.roll(50.0, [5_000_003, 9])
    assert rings.within(50.0, 15.0, [5_000_003, 9]) == [1_000_003, 2]
    assert lookups == [27.0, 31.0, 35.0]


def test_a_clock_that_goes_back_to_a_boundary_sees_what_began_there():
    """What is remembered holds behind the boundary before, and not at it."""
    rings = RingSet(0.0)
    rings.roll(10.0, [1, 0])
    rings.roll(20.0, [3, 0])
    assert rings.within(25.0, 10.0, [9, 0]) == [6, 0]
    assert rings.within(20.0, 10.0, [9, 0]) == [8, 0]


def test_a_window_within_a_slot_stays_empty_whatever_happens_in_it():
    """Nothing is remembered of it that could be subtracted later."""
    rings = RingSet(0.0)
    rings.roll(10.0, [1, 0])
    rings.roll(20.0, [3, 0])
    assert rings.within(27.0, 5.0, [9, 9]) == [0, 0]
    assert rings.within(28.0, 5.0, [14, 9]) == [0, 0]
    assert rings.within(21.0, 5.0, [14, 9]) == [11, 9]
    assert rings.within(29.0, 5.0, [15, 9]) == [0, 0]


def test_no_more_than_eight_windows_are_remembered(lookups):
    """Of calendar periods each is another one."""
    rings = RingSet(0.0)
    rings.roll(500.0, [1, 0])
    for _ in range(2):
        for seconds in range(20):
            rings.within(505.0, 100.0 + seconds, [1, 0])
    assert len(lookups) == 2 * 20 - 8
