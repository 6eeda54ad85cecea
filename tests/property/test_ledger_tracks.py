"""Tracks of slots: adding two of them, held against adding what happened in each slot."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.ledger import Track

slots = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)
tracks = st.tuples(st.integers(0, 30), slots)


def track_of(start, happened):
    return Track(start, *(array("q", accumulate(column)) for column in zip(*happened, strict=True)))


@given(tracks, tracks)
def test_two_tracks_together_are_what_happened_in_each_slot(one, other):
    """Wherever they begin and end: apart, touching, overlapping, one within the other."""
    whole = track_of(*one).plus(track_of(*other))
    good, bad = Counter(), Counter()
    for start, happened in (one, other):
        for slot, (more_good, more_bad) in enumerate(happened, start):
            good[slot] += more_good
            bad[slot] += more_bad
    first = min(one[0], other[0])
    last = max(start + len(happened) for start, happened in (one, other))
    assert whole.start == first
    assert list(whole.good) == list(accumulate(good[slot] for slot in range(first, last)))
    assert list(whole.bad) == list(accumulate(bad[slot] for slot in range(first, last)))
    assert whole.sound
