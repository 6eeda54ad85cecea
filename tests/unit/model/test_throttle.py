"""Adaptive throttling: the formula of the SRE book over a window, held against counting by hand."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.throttle import Requests, Throttling

START = 1000.0


def seen(requests: int, accepts: int) -> Throttling:
    """So many requests at 1000."""
    model = Throttling(120.0, START)
    for number in range(requests):
        model.note(START, accepted=number < accepts)
    return model


@pytest.mark.parametrize(
    ("requests", "accepts", "likely"),
    [
        (0, 0, 0.0),
        (1, 0, 1 / 2),
        (9, 0, 9 / 10),
        (100, 50, 0.0),
        (100, 49, 2 / 101),
        (100, 25, 50 / 101),
        (100, 0, 100 / 101),
        (100, 100, 0.0),
    ],
)
def test_the_formula_is_that_of_the_book(requests, accepts, likely):
    """max(0, (requests - 2 * accepts) / (requests + 1))."""
    model = seen(requests, accepts)
    assert model.probability(START, k=2.0, ceiling=1.0, minimum=0) == pytest.approx(likely)
    assert model.look(START) == Requests(requests, accepts)


def test_a_higher_k_waits_longer_before_it_refuses():
    """With three requests an accept nothing is refused while a third is accepted."""
    assert seen(99, 33).probability(START, k=3.0, ceiling=1.0, minimum=0) == 0.0
    assert seen(99, 33).probability(START, k=2.0, ceiling=1.0, minimum=0) == 0.33


def test_never_more_than_the_ceiling_is_refused_and_nothing_below_the_minimum():
    """The rest finds out when the backend has recovered; a single failure is no overload."""
    assert seen(100, 0).probability(START, k=2.0, ceiling=0.9, minimum=0) == 0.9
    assert seen(9, 0).probability(START, k=2.0, ceiling=0.9, minimum=10) == 0.0
    assert seen(10, 0).probability(START, k=2.0, ceiling=1.0, minimum=10) == 10 / 11


def test_what_is_older_than_the_window_does_not_count():
    """Seen from the first boundary in the window: a slot of four seconds may be missing, and nothing more is there."""
    model = seen(10, 0)
    model.note(START + 60.0, accepted=True)
    assert model.look(START + 115.0) == Requests(11, 1)
    assert model.look(START + 120.0) == Requests(1, 1)
    assert model.look(START + 1e7) == Requests(0, 0)
    assert model.probability(START + 1e7, k=2.0, ceiling=0.9, minimum=0) == 0.0


@given(
    window=st.sampled_from([30.0, 120.0]),
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 3.0, 29.0, 61.0, 500.0]), st.booleans()), max_size=60),
)
def test_the_window_is_a_recount(window, steps):
    """Requests and accepts are those since a boundary that is at most a slot younger than the window."""
    model, now, log = Throttling(window, START), START, []
    for pause, accepted in steps:
        now += pause
        model.note(now, accepted=accepted)
        log.append((now, accepted))
        # The slot of now and the twenty-nine before it.
        since = (now // (window / 30) - 29) * (window / 30)
        assert now - window < since <= now - window * 29 / 30
        young = [accepted for at, accepted in log if at >= since]
        assert model.look(now) == Requests(len(young), sum(young))


def test_memory_does_not_grow():
    """A window holds counts, not requests."""

    def size(model: Throttling) -> int:
        return sum(sys.getsizeof(getattr(model, name)) for name in Throttling.__slots__) + sys.getsizeof(model._ring._marks)

    few, many = seen(1, 0), seen(20_000, 10_000)
    many.look(START + 1e6)
    assert size(many) <= size(few) + 64


def test_the_chance_is_that_of_the_window_as_it_is_now():
    """What is too old is left out of requests and of accepts, also when nobody has looked meanwhile."""
    model = seen(100, 40)
    for number in range(10):
        model.note(START + 60.0, accepted=number < 2)
    assert model.probability(START + 60.0, k=2.0, ceiling=1.0, minimum=0) == 26 / 111
    assert model.probability(START + 125.0, k=2.0, ceiling=1.0, minimum=0) == 6 / 11
    assert model.probability(START + 1e6, k=2.0, ceiling=1.0, minimum=0) == 0.0


def test_a_window_takes_half_a_kilobyte():
    """Two numbers of eight bytes for each of its slots."""
    assert seen(0, 0)._ring.slots * 2 * 8 == 512
