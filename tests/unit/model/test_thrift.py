"""What may be spent shrinks with the error budget, and grows again in steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.thrift import LEAST, Thrift


@pytest.mark.parametrize(
    ("remaining", "scale"), [(None, 1.0), (1.0, 1.0), (0.5, 1.0), (0.25, 0.55), (0.0, LEAST), (-3.0, LEAST), (7.0, 1.0)]
)
def test_from_half_of_the_budget_on_it_falls_to_a_tenth(remaining, scale):
    """Evenly, and no further; nothing known changes nothing."""
    assert Thrift().see(remaining) == pytest.approx(scale)


def test_down_at_once_and_up_in_steps():
    """A budget at the edge does not make it flutter."""
    thrift = Thrift()
    assert thrift.see(0.25) == pytest.approx(0.55)
    assert thrift.see(0.28) == pytest.approx(0.55)
    assert thrift.see(0.24) == pytest.approx(0.532)
    assert thrift.see(0.30) == pytest.approx(0.64)
    assert thrift.see(0.49) == pytest.approx(0.982)
    assert thrift.see(0.5) == 1.0


@given(st.lists(st.none() | st.floats(-10.0, 10.0), max_size=30))
def test_it_stays_in_its_bounds_and_near_what_is_left(history):
    """Whatever is seen: from a tenth to one, never above what the last look allows, and less than a step below it."""
    thrift = Thrift()
    for remaining in history:
        scale = thrift.see(remaining)
        assert LEAST <= scale <= 1.0
        if remaining is not None:
            wanted = LEAST + (1.0 - LEAST) * min(1.0, max(0.0, remaining / 0.5))
            assert wanted - 0.1 < scale <= wanted + 1e-12
