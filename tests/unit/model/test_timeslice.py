"""Slices of time, judged when they are over, and the weighted mean of several ratios."""

from __future__ import annotations

import pytest

from somaresil.model.timeslice import PARTS, Slicer, weighted


def test_slices_lie_on_multiples_of_their_length():
    """Wherever it began; a slice that ends now is over, and the next one runs."""
    assert Slicer(60.0, 0.9, 30.0).end == 60.0
    assert Slicer(60.0, 0.9, 60.0).end == 120.0
    assert Slicer(60.0, 0.9, -30.0).end == 0.0
    made = Slicer(60.0, 0.9, 30.0)
    made.close(1, 0, 60.0)
    assert made.end == 120.0
    made.close(1, 0, 1_234.0)
    assert made.end == 1_260.0
    assert made.length == 60.0


@pytest.mark.parametrize(("good", "bad", "counted"), [(9, 1, (1, 0)), (89, 11, (0, 1)), (0, 1, (0, 1)), (1, 0, (1, 0)), (0, 0, (0, 0))])
def test_a_slice_is_good_from_its_target_on(good, bad, counted):
    """Nine of ten at 0.9 is at the target; without traffic it is neither."""
    made = Slicer(60.0, 0.9, 0.0)
    made.close(good, bad, 60.0)
    assert (made.good, made.bad, made.unit) == (*counted, 1)


def test_the_target_is_the_decimal_that_it_prints_as():
    """Seven of ten are 0.7, though the float 0.7 lies below it, and 0.1 of ten lies not below the float above it."""
    for tenths in range(1, 10):
        made = Slicer(1.0, tenths / 10, 0.0)
        made.close(tenths, 10 - tenths, 1.0)
        assert (made.good, made.bad) == (1, 0)


def test_each_slice_counts_what_came_since_the_last_one():
    """Totals go on, slices do not: a good one, one without traffic, a bad one."""
    made = Slicer(10.0, 0.5, 0.0)
    made.close(8, 2, 10.0)
    made.close(8, 2, 20.0)
    assert (made.good, made.bad) == (1, 0)
    made.close(9, 6, 30.0)
    assert (made.good, made.bad) == (1, 1)
    made.close(13, 6, 40.0)
    assert (made.good, made.bad) == (2, 1)


def test_without_a_target_a_slice_counts_by_its_ratio():
    """In millionths, rounded to the nearest: a quiet minute weighs as much as a busy one."""
    made = Slicer(60.0, None, 0.0)
    assert made.unit == PARTS == 1_000_000
    made.close(1, 2, 60.0)
    assert (made.good, made.bad) == (333_333, 666_667)
    made.close(3_001, 1_002, 120.0)
    assert (made.good, made.bad) == (333_333 + 750_000, 666_667 + 250_000)


def test_a_mean_is_weighted_and_leaves_out_what_has_no_events():
    """One part in four bad at weight 3, all bad at weight 1: 7 of 16; exact to a billionth."""
    assert weighted([(3.0, 3, 1), (1.0, 0, 5)]) == (562_500_000, 437_500_000)
    assert weighted([(3.0, 3, 1), (1.0, 0, 5), (100.0, 0, 0)]) == (562_500_000, 437_500_000)
    assert weighted([(0.1, 2, 1)]) == (666_666_667, 333_333_333)
    assert weighted([(1.0, 1, 0)]) == (1_000_000_000, 0)
    assert weighted([(1.0, 0, 1)]) == (0, 1_000_000_000)
    assert weighted([(5.0, 0, 0)]) == weighted([]) == (0, 0)
