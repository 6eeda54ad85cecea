"""Ledgers: good and bad by slots of the epoch, added up, cut, and read as windows; every value counted by hand."""

from __future__ import annotations

from array import array
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.ledger import EMPTY, EMPTY_TRACK, Ledger, Track, covered, joined
from somaresil.model.window import SLO_TIERS, RingSet

DAY = 86_400.0


def track(start, good, bad):
    """A track of what happened in each slot."""
    return Track(start, array("q", accumulate(good)), array("q", accumulate(bad)))


def slots(of):
    """What happened in each slot, by its number, where anything did."""
    found = {}
    before = (0, 0)
    for number, marks in enumerate(zip(of.good, of.bad, strict=True), of.start):
        if marks != before:
            found[number] = (marks[0] - before[0], marks[1] - before[1])
        before = marks
    return found


# -- one track --------------------------------------------------------------------------------------------------------------------------


def test_what_happened_since_a_slot_is_a_subtraction():
    """All of it before the first, nothing behind the last."""
    made = track(10, [1, 2, 4], [0, 8, 16])
    assert made.totals == (7, 24)
    assert [made.since(slot) for slot in (0, 9, 10, 11, 12, 13, 14, 99)] == [
        (7, 24),
        (7, 24),
        (7, 24),
        (6, 24),
        (4, 16),
        (0, 0),
        (0, 0),
        (0, 0),
    ]


def test_an_empty_track_holds_nothing_whatever_is_asked():
    """And so does what is cut out of it."""
    assert EMPTY_TRACK.totals == (0, 0)
    assert [EMPTY_TRACK.since(slot) for slot in (-5, 0, 1, 5)] == [(0, 0)] * 4
    assert EMPTY_TRACK.trimmed() == EMPTY_TRACK
    assert EMPTY_TRACK.between(0, 9) == EMPTY_TRACK
    assert EMPTY_TRACK.sound


@pytest.mark.parametrize(
    ("good", "bad", "start", "kept"),
    [
        ([0, 0, 3, 0, 0], [0, 0, 0, 0, 0], 102, 1),
        ([0, 0, 0, 0, 0], [0, 0, 3, 0, 0], 102, 1),
        ([0, 1, 0, 0, 0], [0, 0, 0, 2, 0], 101, 3),
        ([0, 0, 0, 2, 0], [0, 1, 0, 0, 0], 101, 3),
        ([5, 0, 0, 0, 6], [0, 0, 0, 0, 0], 100, 5),
        ([0, 0, 0, 0, 0], [5, 0, 0, 0, 6], 100, 5),
    ],
)
def test_trimming_leaves_the_slots_from_the_first_to_the_last_event(good, bad, start, kept):
    """Of either kind: what happened is the same."""
    made = track(100, good, bad)
    trimmed = made.trimmed()
    assert (trimmed.start, len(trimmed.good), len(trimmed.bad)) == (start, kept, kept)
    assert slots(trimmed) == slots(made)


def test_a_track_in_which_nothing_happened_is_the_empty_one():
    """However many slots it has."""
    assert track(7, [0, 0, 0], [0, 0, 0]).trimmed() == EMPTY_TRACK


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8),
    st.integers(-3, 12),
    st.integers(-3, 12),
)
def test_between_two_slots_lies_what_happened_there(happened, oldest, newest):
    """And nothing else; a window without slots is empty."""
    made = track(2, *zip(*happened, strict=True))
    cut = made.between(oldest, newest)
    assert slots(cut) == {number: what for number, what in slots(made).items() if oldest <= number <= newest}
    assert cut.sound


def test_a_track_within_the_bounds_is_given_as_it_is():
    """Without a copy, when both ends lie inside."""
    made = track(5, [1, 1, 1], [0, 0, 0])
    assert made.between(5, 7) is made
    assert made.between(0, 99) is made
    assert (made.between(6, 7).start, list(made.between(6, 7).good)) == (6, [1, 2])
    assert (made.between(5, 6).start, list(made.between(5, 6).good)) == (5, [1, 2])
    assert made.between(8, 9) is EMPTY_TRACK
    assert made.between(1, 4) is EMPTY_TRACK
    assert made.between(7, 6) is EMPTY_TRACK


def test_an_empty_track_adds_nothing():
    """From either side, and the other one is given as it is."""
    made = track(5, [1, 1], [0, 2])
    assert made.plus(EMPTY_TRACK) is made
    assert EMPTY_TRACK.plus(made) is made


@pytest.mark.parametrize(
    ("start", "good", "bad"),
    [
        (3, [1, 2], [4, 0]),
        (4, [1, 2, 3, 4], [0, 0, 0, 1]),
        (5, [1, 2], [3, 4]),
        (6, [7], [7]),
        (8, [1, 2], [3, 4]),
        (9, [1, 2], [3, 4]),
        (20, [1, 2], [3, 4]),
        (0, [1], [1]),
    ],
)
def test_two_tracks_together_are_what_happened_in_each_slot_of_either(start, good, bad):
    """Apart, touching, overlapping, one within the other; in any order, and with exactly the slots from the first to the last."""
    one, other = track(5, [1, 0, 2], [0, 5, 0]), track(start, good, bad)
    expected = slots(one)
    for number, (more_good, more_bad) in slots(other).items():
        before = expected.get(number, (0, 0))
        expected[number] = (before[0] + more_good, before[1] + more_bad)
    for whole in (one.plus(other), other.plus(one)):
        assert slots(whole) == expected
        assert whole.start == min(5, start)
        assert len(whole.good) == len(whole.bad) == max(8, start + len(good)) - whole.start
        assert whole.sound


@pytest.mark.parametrize(
    ("good", "bad", "sound"),
    [
        ([], [], True),
        ([0], [0], True),
        ([1, 1, 2], [0, 3, 3], True),
        ([1, 2], [1], False),
        ([1], [1, 2], False),
        ([-1, 2], [0, 0], False),
        ([0, 0], [-1, 2], False),
        ([3, 2], [0, 0], False),
        ([0, 0], [3, 2], False),
    ],
)
def test_marks_are_as_many_of_both_kinds_from_none_on_and_never_go_back(good, bad, sound):
    """What somebody else has written down is looked at before it is believed."""
    assert Track(0, array("q", good), array("q", bad)).sound is sound


# -- a ledger ---------------------------------------------------------------------------------------------------------------------------


def ledger(*tracks, seen=()):
    """A ledger with these tracks, and empty ones for the rest."""
    return Ledger((*tracks, *EMPTY.tracks[len(tracks) :]), seen)


def test_a_ledger_knows_what_the_rings_knew():
    """For every tier, with the events in the slots in which they happened, without empty ends."""
    start = 1_000_000_800.0
    rings = RingSet(start)
    rings.roll(start + 20.0, [3, 1])
    rings.roll(start + 3_700.0, [3, 4])
    made = Ledger.of(rings.history([5, 4]), ((start + 5.0, start + 9.0), (start, start + 5.0)))
    assert made.seen == ((start, start + 9.0),)
    fine, middle, coarse = 100_000_080, 3_333_336, 277_778
    assert [slots(each) for each in made.tracks] == [
        {fine: (3, 1), fine + 2: (0, 3), fine + 370: (2, 0)},
        {middle: (3, 4), middle + 12: (2, 0)},
        {coarse: (3, 4), coarse + 1: (2, 0)},
    ]
    assert [each.start for each in made.tracks] == [fine, middle, coarse]
    assert made.totals == (5, 4)
    assert len(made.tracks) == len(SLO_TIERS)


def test_a_window_is_read_from_the_finest_track_that_reaches_back():
    """Two hours in slots of 10 s, three days in slots of 5 minutes, the rest by the hour, each told apart by its count."""
    now = 100 * DAY
    fine, middle, coarse = (
        track(int(now // tier.resolution), [each], [each + 1]) for tier, each in zip(SLO_TIERS, (1, 10, 100), strict=True)
    )
    made = Ledger((fine, middle, coarse))
    assert made.within(now, 300.0) == (1, 2)
    assert made.within(now, 7_200.0) == (1, 2)
    assert made.within(now, 7_209.0) == (1, 2)
    assert made.within(now, 7_210.0) == (10, 11)
    assert made.within(now, 3 * DAY) == (10, 11)
    assert made.within(now, 3 * DAY + 299.0) == (10, 11)
    assert made.within(now, 3 * DAY + 300.0) == (100, 101)
    assert made.within(now, 90 * DAY) == (100, 101)
    assert made.within(now, 400 * DAY) == (100, 101)
    assert made.totals == (100, 101)


def test_a_window_begins_with_its_first_whole_slot():
    """A slot that begins before the window is left out, one that begins with it is not."""
    made = ledger(track(1_000, [1, 2, 4], [0, 0, 0]))
    now = 10_029.0
    assert made.within(now, 29.0) == (7, 0)
    assert made.within(now, 28.0) == (6, 0)
    assert made.within(now, 19.0) == (6, 0)
    assert made.within(now, 18.0) == (4, 0)
    assert made.within(now, 9.0) == (4, 0)
    assert made.within(now, 8.0) == (0, 0)


def test_the_longest_windows_begin_with_their_first_whole_hour():
    """The last track answers what no other reaches back to."""
    hour = 50_000
    made = Ledger((EMPTY_TRACK, EMPTY_TRACK, track(hour, [1, 2, 4], [8, 0, 0])))
    now = (hour + 2_200) * 3_600.0
    assert made.within(now, 2_200 * 3_600.0) == (7, 8)
    assert made.within(now, 2_200 * 3_600.0 - 1.0) == (6, 0)
    assert made.within(now, 2_199 * 3_600.0) == (6, 0)
    assert made.within(now, 2_198 * 3_600.0) == (4, 0)


def test_two_ledgers_together_add_their_tracks_and_join_what_was_seen():
    """Tier by tier."""
    one = Ledger(tuple(track(5, [each], [0]) for each in (1, 2, 3)), ((0.0, 10.0),))
    other = Ledger(tuple(track(5, [0], [each]) for each in (4, 5, 6)), ((20.0, 30.0), (5.0, 15.0)))
    whole = one.plus(other)
    assert [each.totals for each in whole.tracks] == [(1, 4), (2, 5), (3, 6)]
    assert whole.seen == ((0.0, 15.0), (20.0, 30.0))


def test_a_ledger_of_other_tiers_is_refused():
    """Whoever reads, adds or cuts it would take one resolution for another."""
    short = Ledger((EMPTY_TRACK, EMPTY_TRACK))
    for use in (lambda: short.within(90 * DAY, 80 * DAY), lambda: short.plus(EMPTY), lambda: short.known_at(90 * DAY)):
        with pytest.raises(ValueError, match="zip"):
            use()


def test_times_before_the_epoch_are_times_like_others():
    """A clock that somebody has made may begin anywhere."""
    now = -5.0
    assert ledger(track(-1, [1], [0])).within(now, 5.0) == (1, 0)
    assert Ledger((track(-1, [1], [0]), EMPTY_TRACK, track(-1, [4], [0]))).within(now, 7_204.0) == (1, 0)
    assert Ledger((track(-1, [1], [0]), EMPTY_TRACK, track(-1, [4], [0]))).within(now, 7_205.0) == (1, 0)
    kept = ledger(track(-722, [1] * 724, [0] * 724)).known_at(now).tracks[0]
    assert (kept.start, len(kept.good)) == (-721, 721)
    assert len(ledger(track(-722, [1] * 724, [0] * 724)).known_at(now, 4.0).tracks[0].good) == 721
    assert len(ledger(track(-722, [1] * 724, [0] * 724)).known_at(now, 5.0).tracks[0].good) == 722


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_too_old_or_in_the_future_is_not_known(place):
    """The oldest slot that a ring has is kept and the one before it is not; the current one is kept, and later ones within the leeway."""
    tier, now = SLO_TIERS[place], 200 * DAY + 1.0
    current = int(now // tier.resolution)
    oldest = current - tier.slots + 1
    numbers = (oldest - 1, oldest, current, current + 1, current + 2)
    found = EMPTY
    for number in numbers:
        tracks = [EMPTY_TRACK] * 3
        tracks[place] = track(number, [1], [0])
        found = found.plus(Ledger(tuple(tracks)))
    assert sorted(slots(found.known_at(now).tracks[place])) == [oldest, current]
    assert sorted(slots(found.known_at(now, float(tier.resolution)).tracks[place])) == [oldest, current, current + 1]
    assert sorted(slots(found.known_at(now, 2.0 * tier.resolution).tracks[place])) == [oldest, current, current + 1, current + 2]


def test_what_was_seen_is_cut_to_the_last_90_days():
    """At both ends; what only touches them is nothing."""
    now = 200 * DAY
    horizon = now - 90 * DAY
    seen = (
        (horizon - 20.0, horizon - 10.0),
        (horizon - 5.0, horizon),
        (horizon - 1.0, horizon + 1.0),
        (now - 10.0, now - 5.0),
        (now - 1.0, now + 60.0),
        (now, now + 60.0),
        (now + 70.0, now + 80.0),
    )
    assert Ledger(EMPTY.tracks, seen).known_at(now, 60.0).seen == ((horizon, horizon + 1.0), (now - 10.0, now - 5.0), (now - 1.0, now))


# -- stretches of time ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], ()),
        ([(1.0, 2.0)], ((1.0, 2.0),)),
        ([(3.0, 4.0), (1.0, 2.0)], ((1.0, 2.0), (3.0, 4.0))),
        ([(1.0, 2.0), (2.0, 3.0)], ((1.0, 3.0),)),
        ([(1.0, 5.0), (2.0, 3.0)], ((1.0, 5.0),)),
        ([(1.0, 5.0), (2.0, 7.0), (6.0, 8.0)], ((1.0, 8.0),)),
        ([(1.0, 1.0)], ()),
        ([(2.0, 1.0)], ()),
    ],
)
def test_stretches_that_touch_or_overlap_are_one(spans, expected):
    """In order; without length they are none."""
    assert joined(spans) == expected


def test_of_too_many_stretches_the_shortest_are_forgotten():
    """The rest stays in order; as many as there may be are all kept."""
    spans = [(0.0, 3.0), (10.0, 11.0), (20.0, 24.0), (30.0, 32.0)]
    assert joined(spans, 4) == tuple(spans)
    assert joined(spans, 3) == ((0.0, 3.0), (20.0, 24.0), (30.0, 32.0))
    assert joined(spans, 1) == ((20.0, 24.0),)


@pytest.mark.parametrize(
    ("spans", "begin", "end", "share"),
    [
        ([], 0.0, 10.0, 0.0),
        ([(0.0, 10.0)], 0.0, 10.0, 1.0),
        ([(-5.0, 15.0)], 0.0, 10.0, 1.0),
        ([(2.0, 4.0)], 0.0, 10.0, 0.2),
        ([(-5.0, 1.0), (8.0, 99.0)], 0.0, 10.0, 0.3),
        ([(2.0, 4.0), (3.0, 5.0)], 0.0, 10.0, 0.3),
        ([(-5.0, 0.0), (10.0, 15.0)], 0.0, 10.0, 0.0),
        ([(-5.0, -2.0), (12.0, 15.0)], 0.0, 10.0, 0.0),
        ([(4.0, 6.0)], 4.0, 12.0, 0.25),
        ([(0.0, 10.0)], 5.0, 5.0, 0.0),
        ([(0.0, 10.0)], 6.0, 5.0, 0.0),
        ([(0.0, 10.0)], 5.0, 5.5, 1.0),
    ],
)
def test_the_share_of_a_time_that_was_seen(spans, begin, end, share):
    """What was seen twice counts once, and no time has no share."""
    assert covered(spans, begin, end) == pytest.approx(share, abs=1e-12)


def test_no_more_than_all_of_a_time_is_seen():
    """The sum of many floats may lie above the whole."""
    edges = [place / 10.0 for place in range(11)]
    spans = list(pairwise(edges))
    assert covered(spans, 0.0, 1.0) == 1.0


def test_rounding_makes_no_share_of_more_than_all():
    """Two stretches with next to nothing between them."""
    assert covered([(0.9, 1.2), (1.2000000000000002, 9.399999999999999)], 0.9, 9.399999999999999) == 1.0
