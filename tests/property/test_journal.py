"""Whatever a journal holds it can be read, and it does not matter in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from somaresil.slo.records import Deployment, Hour, line, read_lines

small = st.integers(0, 3)
hours = st.builds(
    Hour,
    small.map(float),
    st.just("s"),
    st.sampled_from("ab"),
    st.sampled_from("12"),
    st.just("up"),
    st.sampled_from([99.0, 99.9]),
    small.map(lambda n: n * 3600),
    small,
    small,
    small,
)
deployments = st.builds(
    Deployment,
    small.map(float),
    st.just("s"),
    st.sampled_from("12"),
    small.map(float),
    st.none() | st.sampled_from("ab"),
    st.none() | st.booleans(),
)


@given(st.binary())
def test_no_bytes_make_reading_raise(raw):
    """Every line is either read or counted."""
    found = read_lines(raw.split(b"\n"))
    assert found.unreadable == sum(bool(each.strip()) for each in raw.split(b"\n"))


@given(st.lists(hours | deployments), st.data())
def test_a_line_with_changed_bytes_does_not_make_reading_raise(records, data):
    """What looks like a record need not be one."""
    raw = bytearray(b"".join(line(record) for record in records))
    for place in data.draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=5)) if raw else ():
        raw[place] = data.draw(st.integers(0, 255))
    read_lines(bytes(raw).split(b"\n"))


@given(st.lists(hours | deployments), st.randoms())
def test_the_order_of_lines_does_not_matter(records, random):
    """Journals of several instances are merged by adding their lines."""
    lines = [line(record) for record in records]
    mixed = [*lines, *lines]
    random.shuffle(mixed)
    assert read_lines(mixed) == read_lines(lines)
