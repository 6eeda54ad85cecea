"""The Universal Scalability Law: known parts are found again, and nothing is made up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.scalability import Scalability, fit

LEVELS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@given(
    st.floats(min_value=1.0, max_value=1e4),
    st.floats(min_value=0.0, max_value=0.5),
    st.floats(min_value=0.0, max_value=0.01),
)
def test_the_parts_of_a_law_are_found_again(rate, contention, coherency):
    """Points that lie on a law lead back to it."""
    law = Scalability(rate, contention, coherency, 1.0)
    found = fit([(n, law.throughput(n)) for n in LEVELS])
    assert found.rate == pytest.approx(rate, rel=1e-4)
    assert found.contention == pytest.approx(contention, abs=1e-5)
    assert found.coherency == pytest.approx(coherency, abs=1e-6)


def test_the_best_concurrency_is_where_throughput_is_highest():
    """A neighbour on either side has less."""
    law = Scalability(100.0, 0.05, 0.001, 1.0)
    best = law.best_concurrency
    assert law.throughput(best) == law.limit
    assert law.throughput(best * 0.9) < law.limit > law.throughput(best * 1.1)


def test_without_coherency_the_limit_is_that_of_the_line():
    """A server with contention alone never gets worse, and never better than rate / contention (Amdahl)."""
    law = fit([(n, Scalability(50.0, 0.1, 0.0, 1.0).throughput(n)) for n in LEVELS])
    assert law.best_concurrency is None or law.best_concurrency > 1000
    assert law.limit == pytest.approx(500.0, rel=0.01)


def test_a_line_has_no_limit():
    """Where throughput grows with the load there is nothing to say of its end."""
    assert Scalability(5.0, 0.0, 0.0, 1.0).limit is None


@pytest.mark.parametrize(
    "points", [[], [(1.0, 5.0)], [(1.0, 5.0), (2.0, 9.0)], [(1.0, 5.0)] * 9, [(0.0, 1.0), (1.0, -1.0), (2.0, 3.0), (3.0, 0.0)]]
)
def test_too_little_leads_to_no_law(points):
    """Three different concurrencies are the least."""
    assert fit(points) is None


def test_the_best_concurrency_and_the_limit_by_hand():
    """The root of 0.75 over 0.03 is 5: there throughput is 500 over 1 + 0.25 * 4 + 0.03 * 20."""
    law = Scalability(100.0, 0.25, 0.03, 1.0)
    assert law.best_concurrency == pytest.approx(5.0)
    assert law.limit == pytest.approx(500.0 / 2.6)
    assert law.throughput(1.0) == 100.0
    assert law.throughput(2.0) == pytest.approx(200.0 / 1.31)


@pytest.mark.parametrize(
    ("contention", "coherency", "best", "limit"),
    [
        (0.1, 0.0, None, 500.0),
        (1.0, 0.1, None, 50.0),
        (1.5, 0.1, None, 50.0 / 1.5),
        (0.5, 9.0, 1.0, 50.0),
        (0.0, 0.0, None, None),
        (0.0, 0.01, 10.0, None),
    ],
)
def test_laws_at_their_edges(contention, coherency, best, limit):
    """Without coherency, or with contention of one and more, there is no best place; and one alone is the least there is."""
    law = Scalability(50.0, contention, coherency, 1.0)
    assert law.best_concurrency == (None if best is None else pytest.approx(best))
    assert law.limit == pytest.approx(law.throughput(10.0) if best == 10.0 else limit)


def test_no_part_of_a_law_is_below_zero():
    """Throughput that grows faster than the load, or falls and rises again, is fitted by what comes nearest."""
    faster = fit([(1.0, 10.0), (2.0, 22.0), (4.0, 48.0), (8.0, 100.0)])
    assert (faster.contention, faster.coherency) == (0.0, 0.0)
    assert 10.0 < faster.rate < 12.5
    amdahl = fit([(n, Scalability(10.0, 0.2, 0.0, 1.0).throughput(n) * (1.0 + 0.001 * (n > 4))) for n in (1.0, 2.0, 4.0, 8.0, 16.0)])
    assert amdahl.coherency == 0.0
    assert amdahl.contention == pytest.approx(0.2, rel=0.02)
    later = fit([(n, Scalability(10.0, 0.0, 0.02, 1.0).throughput(n) * (1.0 + 0.01 * (n == 4.0))) for n in (1.0, 2.0, 4.0, 8.0, 16.0)])
    assert later.contention == 0.0
    assert later.coherency == pytest.approx(0.02, rel=0.01)


def test_a_constant_throughput_is_explained():
    """There is no variance, and nothing to explain of it."""
    law = fit([(1.0, 5.0), (2.0, 5.0), (4.0, 5.0)])
    assert law.contention == pytest.approx(1.0)
    assert law.explained == 1.0
    assert law.rate == pytest.approx(5.0)


def test_how_much_is_explained_is_what_is_not_missed():
    """One less the sum of squares that the law misses over that around the mean."""
    points = [(1.0, 10.0), (2.0, 18.0), (4.0, 33.0), (8.0, 45.0), (16.0, 60.0)]
    law = fit(points)
    mean = sum(x for _, x in points) / 5
    missed = sum((x - law.throughput(n)) ** 2 for n, x in points)
    assert law.explained == pytest.approx(1.0 - missed / sum((x - mean) ** 2 for _, x in points))
    assert 0.95 < law.explained < 1.0


def test_relative_errors_are_the_least_they_can_be():
    """No law beside the fitted one comes nearer to the points, each by its own throughput at that concurrency."""
    points = [(1.0, 10.0), (2.0, 18.0), (4.0, 33.0), (8.0, 45.0), (16.0, 60.0)]

    def wrong(rate, contention, coherency):
        return sum((1.0 - x / Scalability(rate, contention, coherency, 1.0).throughput(n)) ** 2 for n, x in points)

    law = fit(points)
    least = wrong(law.rate, law.contention, law.coherency)
    for factor in (0.999, 1.001):
        assert wrong(law.rate * factor, law.contention, law.coherency) > least
        assert wrong(law.rate, law.contention * factor, law.coherency) > least
        assert wrong(law.rate, law.contention, law.coherency * factor if law.coherency else 1e-5) > least


def test_pairs_that_say_nothing_are_left_out():
    """Neither zero, nor infinite, nor no number, on either side."""
    good = [(n, Scalability(10.0, 0.1, 0.01, 1.0).throughput(n)) for n in LEVELS]
    bad = [(0.0, 5.0), (-1.0, 5.0), (math.inf, 5.0), (math.nan, 5.0), (3.0, 0.0), (3.0, -1.0), (3.0, math.inf), (3.0, math.nan)]
    assert fit(good + bad) == fit(good)


def test_concurrencies_that_are_next_to_each_other_are_three():
    """The parts may be told apart or not, but there is a law."""
    assert fit([(1.0, 5.0), (1.0, 5.0), (2.0, 9.0), (3.0, 12.0)]) is not None
