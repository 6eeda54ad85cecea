"""Server-sent events in pieces of any size."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.load.sse import LARGEST, Event, EventReader

TEXT = b"\xef\xbb\xbf: comment\r\ndata: one\r\n\r\nevent: done\ndata:two\ndata: three\n\nid: 7\n\ndata\r\rretry: 5\ndata:  spaced\n\n"
EVENTS = [Event("message", "one"), Event("done", "two\nthree"), Event("message", "", "7"), Event("message", " spaced", "7")]


def read(pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_how_a_stream_is_cut_into_pieces_does_not_matter(cuts):
    """The same events come out of any pieces, with every kind of line break, also when one is cut in two."""
    places = [0, *sorted(cuts), len(TEXT)]
    assert read([TEXT[begin:end] for begin, end in pairwise(places)]) == EVENTS


@given(st.binary(max_size=300))
def test_any_bytes_are_read(data):
    """What a hostile service sends is no reason to fall over."""
    read([data])


def test_an_event_that_never_ends_is_refused():
    """Neither a line nor an event fills the memory."""
    with pytest.raises(ValueError, match="more than"):
        read([b"data: " + b"x" * (LARGEST + 10)])
    with pytest.raises(ValueError, match="more than"):
        read([b"data: " + b"x" * 1000 + b"\n"] * 2000)


def test_a_long_event_in_small_pieces_is_read_in_little_time():
    """What has come is not looked through again with every piece: a few megabytes in pieces of some hundred bytes are nothing."""
    reader = EventReader(largest=8_000_000)
    piece = b"x" * 500
    assert reader.feed(b"data: ") == []
    assert all(reader.feed(piece) == [] for _ in range(4_000))
    assert [len(event.data) for event in reader.feed(b"\n\n")] == [2_000_000]
    with pytest.raises(ValueError, match="more than 8000000"):
        [reader.feed(b"data" * 1_000_000) for _ in range(3)]
