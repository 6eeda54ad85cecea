"""The Universal Scalability Law: known parts are found again, and nothing is made up."""

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
