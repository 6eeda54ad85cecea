"""Counts that are written, read and added: whatever bytes come, whatever order, the sum is the sum."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from functools import reduce
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.ledger import EMPTY, Ledger, covered, joined
from somaresil.model.window import SLO_TIERS, RingSet
from somaresil.slo.sheet import MAGIC, Entry, Sheet, decode, encode

START = 1_700_000_000.0
HOUR, DAY = 3_600.0, 86_400.0

gaps = st.one_of(st.floats(0.0, 60.0), st.sampled_from([10.0, 300.0, HOUR, 2 * HOUR, 3 * DAY]), st.floats(0.0, 20 * DAY))
lives = st.lists(st.tuples(gaps, st.integers(0, 50), st.integers(0, 50)), max_size=20)
windows = st.floats(300.0, 90 * DAY)


def life(history, begin=START):
    """The ledger of one process with such a history, its rings at the end, and when that is."""
    now, good, bad = begin, 0, 0
    rings = RingSet(now)
    for gap, more_good, more_bad in history:
        now += gap
        rings.roll(now, (good, bad))
        good, bad = good + more_good, bad + more_bad
    rings.roll(now, (good, bad))
    return Ledger.of(rings.history((good, bad)), ((begin, now),)), rings, (good, bad), now


@given(lives, windows, gaps)
def test_a_ledger_answers_as_the_rings_did(history, window, later):
    """For every window, at once and later."""
    ledger, rings, totals, now = life(history)
    assert ledger.within(now, 120 * DAY) == tuple(rings.history(totals)[3600][1][c][-1] for c in (0, 1))
    # A ring that has begun within the window gives everything; a ledger looks at the boundary like any other.
    for at in (now, now + later):
        if at - window > START:
            rings.roll(at, totals)
            assert ledger.within(at, window) == tuple(rings.within(at, window, totals))


@given(
    st.lists(st.tuples(lives, st.integers(0, 40).map(lambda days: START + days * DAY / 3)), min_size=1, max_size=5), st.randoms(), windows
)
def test_adding_is_a_sum_in_any_order(processes, chance, window):
    """Slot by slot, for every window."""
    made = [life(history, begin) for history, begin in processes]
    ledgers = [each[0] for each in made]
    now = max(each[3] for each in made)
    expected = tuple(map(sum, zip(*(ledger.within(now, window) for ledger in ledgers), strict=True)))
    whole = reduce(Ledger.plus, ledgers, EMPTY)
    chance.shuffle(ledgers)
    again = reduce(Ledger.plus, ledgers, EMPTY)
    assert whole.within(now, window) == again.within(now, window) == expected
    assert [(track.trimmed()) for track in whole.tracks] == [track.trimmed() for track in again.tracks]
    assert whole.seen == again.seen
    assert whole.totals == tuple(map(sum, zip(*(ledger.totals for ledger in ledgers), strict=True)))


@given(lives, lives, st.floats(-30 * DAY, 120 * DAY), windows)
def test_what_is_cut_off_was_too_old_or_yet_to_come(history, other, later, window):
    """What is known at a moment answers every window of it as before, less what lies in the future."""
    ledger = life(history)[0].plus(life(other)[0])
    now = START + later
    known = ledger.known_at(now)
    for track, tier in zip(known.tracks, SLO_TIERS, strict=True):
        assert not any(track.since(int(now // tier.resolution) + 1))
        assert track.sound
    everything, future = ledger.within(now, window), None
    for track, tier in zip(ledger.tracks, SLO_TIERS, strict=True):
        if -int(-(now - window) // tier.resolution) > int(now // tier.resolution) - tier.slots:
            future = track.since(int(now // tier.resolution) + 1)
            break
    if future is not None:
        assert known.within(now, window) == (everything[0] - future[0], everything[1] - future[1])


def sheet(ledger, **given):
    fields = {"service": "s", "host": "h", "pid": 1, "started": START, "at": START, "live": True, "entries": {"up": Entry("x", ledger)}}
    return Sheet(**{**fields, **given})


@given(lives, lives)
def test_what_is_written_is_read(history, other):
    """Every count, slot and time."""
    ledger, _, _, now = life(history)
    both = ledger.plus(life(other)[0]).known_at(now)
    for written in (sheet(ledger), sheet(both, folded=("slo_1-1.bin",), generation=3)):
        found = decode(encode(written))
        assert found == written
        assert [track.sound for track in found.entries["up"].ledger.tracks] == [True] * 3


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda data: MAGIC + data))
def test_no_bytes_raise_anything_but_what_is_promised(data):
    """Whatever stands in a file."""
    with suppress(ValueError):
        decode(data)


def sealed(header, counts):
    whole = MAGIC + struct.pack("<I", len(header)) + header + counts
    return whole + blake2b(whole, digest_size=16).digest()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)


@given(
    key=st.sampled_from(["service", "host", "pid", "started", "at", "live", "folded", "generation", "objectives"]),
    value=anything,
    counts=st.binary(max_size=64),
)
def test_no_header_with_a_right_checksum_raises_anything_else(key, value, counts):
    """Who can make a checksum can write anything: it is refused, or it is a file."""
    header = {"service": "s", "host": "h", "pid": 1, "started": 1, "at": 1, "live": True, "folded": [], "generation": 0, "objectives": []}
    with suppress(ValueError):
        decode(sealed(json.dumps({**header, key: value}).encode(), counts))


@given(
    shapes=st.lists(st.lists(st.integers(-2, 10), min_size=2, max_size=2), min_size=3, max_size=3),
    counts=st.binary(max_size=200),
    seen=anything,
)
def test_counts_that_no_process_leaves_behind_are_refused(shapes, counts, seen):
    """What is read never goes back, is never negative, and has as many good as bad."""
    header = {"service": "s", "host": "h", "pid": 1, "started": 1, "at": 1, "live": True, "folded": [], "generation": 0}
    header["objectives"] = [["up", "x", shapes, seen]]
    with suppress(ValueError):
        ledger = decode(sealed(json.dumps(header).encode(), counts)).entries["up"].ledger
        assert all(track.sound for track in ledger.tracks)
        assert all(0 <= number <= 2**53 for number in ledger.totals)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"nul", b"[" * 100_000, b'{"service":"' + b"x" * 100])
def test_a_header_that_is_none_is_refused(header):
    with pytest.raises(ValueError, match="header"):
        decode(sealed(header, b""))


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12)


@given(spans, st.integers(0, 50), st.integers(0, 50))
def test_coverage_is_the_share_of_moments_that_somebody_saw(stretches, begin, end):
    """Counted moment by moment; overlapping ones count once."""
    watched = {moment for first, last in stretches for moment in range(first, last)}
    inside = [moment for moment in range(begin, end) if moment in watched]
    expected = len(inside) / (end - begin) if end > begin else 0.0
    assert covered(stretches, begin, end) == pytest.approx(expected)
    found = joined(stretches)
    assert all(first[1] < second[0] for first, second in pairwise(found))


@given(spans, st.integers(1, 5))
def test_what_is_forgotten_makes_coverage_smaller_and_never_larger(stretches, most):
    """Of too many stretches the shortest go."""
    found = joined(stretches, most)
    assert len(found) <= most
    assert set(found) <= set(joined(stretches))
