"""Buckets hold what they say, and quantiles follow Prometheus' rule."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.model.histogram import DEFAULT_BOUNDS, add, bucket_of, index_of_bound, merge_bounds, quantile, share_at_most

positive = st.floats(1e-6, 1e6)
thresholds = st.lists(positive, max_size=8)
values = st.lists(st.one_of(st.floats(0.0, 20.0), st.sampled_from(DEFAULT_BOUNDS)), min_size=1, max_size=60)
quantiles = st.floats(0.0, 1.0, exclude_min=True)


def counted(bounds, observed):
    """Counts by the definition: a value belongs to the first bound that is not below it."""
    counts = [0] * (len(bounds) + 1)
    for value in observed:
        counts[next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    return counts


def prometheus_quantile(bounds, counts, q):
    """The documented rule, written over cumulative ``le`` buckets the way a scrape shows them."""
    le = {bound: sum(counts[: i + 1]) for i, bound in enumerate(bounds)} | {math.inf: sum(counts)}
    rank = q * le[math.inf]
    lower, below = 0.0, 0
    for upper, cumulative in le.items():
        if cumulative >= rank:
            return bounds[-1] if upper == math.inf else lower + (upper - lower) * ((rank - below) / (cumulative - below))
        lower, below = upper, cumulative
    raise AssertionError


@given(thresholds)
def test_merged_bounds_are_sorted_unique_and_contain_every_threshold(extra):
    """Every threshold is a bound exactly, and no base bound is lost."""
    bounds = merge_bounds(*extra)
    assert all(before < after for before, after in pairwise(bounds))
    assert set(bounds) == set(DEFAULT_BOUNDS) | set(extra)


def test_bounds_are_floats_and_the_base_can_be_replaced():
    """Whole seconds become floats; an empty base leaves the thresholds alone."""
    assert repr(merge_bounds(2, 1, 2, base=())) == "(1.0, 2.0)"
    assert merge_bounds() == DEFAULT_BOUNDS
    assert merge_bounds(2.0)[10] == 2.0


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_that_is_no_positive_number_is_refused(wrong):
    """Zero, negative and non-finite bounds would make buckets that mean nothing."""
    with pytest.raises(ValueError, match="bucket bound"):
        merge_bounds(wrong)


@given(values)
def test_each_value_belongs_to_the_first_bound_not_below_it(observed):
    """The index rule agrees with a naive search, at the bounds as well."""
    counts = [0] * (len(DEFAULT_BOUNDS) + 1)
    for value in observed:
        counts[bucket_of(DEFAULT_BOUNDS, value)] += 1
    assert counts == counted(DEFAULT_BOUNDS, observed)


@given(thresholds.filter(bool))
def test_the_index_of_a_bound_is_the_bucket_that_ends_there(extra):
    """Every merged threshold is found, and a value equal to it is counted in its bucket."""
    bounds = merge_bounds(*extra)
    for threshold in extra:
        index = index_of_bound(bounds, threshold)
        assert bounds[index] == threshold
        assert bucket_of(bounds, threshold) == index


@pytest.mark.parametrize("threshold", [0.001, 2.0, 11.0, math.inf])
def test_a_threshold_that_is_no_bound_is_refused(threshold):
    """No neighbouring bound is taken instead: 2 s is not among the default bounds."""
    with pytest.raises(ValueError, match="not a bucket bound"):
        index_of_bound(DEFAULT_BOUNDS, threshold)


@given(values, positive)
def test_the_share_within_a_threshold_is_exact(observed, threshold):
    """It equals a recount of the values themselves."""
    bounds = merge_bounds(threshold)
    share = share_at_most(bounds, counted(bounds, observed), threshold)
    assert share == sum(value <= threshold for value in observed) / len(observed)


def test_nothing_counted_is_no_data():
    """Neither a share nor a quantile exists without values, nor a quantile without bounds."""
    assert share_at_most((1.0,), (0, 0), 1.0) is None
    assert quantile((1.0,), (0, 0), 0.5) is None
    assert quantile((), (5,), 0.5) is None


@given(values, quantiles)
def test_quantiles_equal_prometheus(observed, q):
    """The estimate is the one of histogram_quantile over the same buckets."""
    counts = counted(DEFAULT_BOUNDS, observed)
    assert quantile(DEFAULT_BOUNDS, counts, q) == prometheus_quantile(DEFAULT_BOUNDS, counts, q)


@given(values, quantiles)
def test_a_quantile_lies_in_the_bucket_of_the_value_with_that_rank(observed, q):
    """Sorting the values and taking the one at the rank leads to the same bucket; above the last bound that bound is reported."""
    counts = counted(DEFAULT_BOUNDS, observed)
    naive = sorted(observed)[max(math.ceil(q * len(observed)), 1) - 1]
    bucket = bucket_of(DEFAULT_BOUNDS, naive)
    estimate = quantile(DEFAULT_BOUNDS, counts, q)
    if bucket == len(DEFAULT_BOUNDS):
        assert estimate == DEFAULT_BOUNDS[-1]
    else:
        lower = DEFAULT_BOUNDS[bucket - 1] if bucket else 0.0
        assert lower <= estimate <= DEFAULT_BOUNDS[bucket] * (1 + 1e-12)


@given(values, st.lists(quantiles, min_size=2, max_size=5))
def test_quantiles_grow_with_q(observed, qs):
    """A higher quantile is never smaller."""
    counts = counted(DEFAULT_BOUNDS, observed)
    series = [quantile(DEFAULT_BOUNDS, counts, q) for q in sorted(qs)]
    assert all(before <= after * (1 + 1e-12) for before, after in pairwise(series))


def test_a_quantile_is_interpolated_within_its_bucket():
    """Ten values between 1 s and 2 s put the median of all at 1.5 s."""
    assert quantile((1.0, 2.0), (0, 10, 0), 0.5) == 1.5
    assert quantile((1.0, 2.0), (10, 0, 0), 0.5) == 0.5
    assert quantile((1.0, 2.0), (0, 0, 10), 0.5) == 2.0


@pytest.mark.parametrize("q", [0.0, -0.1, 1.1, 95, math.nan])
def test_a_quantile_outside_its_range_is_refused(q):
    """95 is not taken for 0.95."""
    with pytest.raises(ValueError, match="quantile"):
        quantile((1.0,), (1, 0), q)


@pytest.mark.parametrize("counts", [(), (1,), (1, 2, 3)])
def test_counts_that_do_not_fit_the_bounds_are_refused(counts):
    """Each bucket and the one above the last bound need a count."""
    with pytest.raises(ValueError, match="1 bounds need 2 counts"):
        quantile((1.0,), counts, 0.5)
    with pytest.raises(ValueError, match="1 bounds need 2 counts"):
        share_at_most((1.0,), counts, 1.0)


@given(values, values)
def test_adding_histograms_counts_all_their_values(some, others):
    """The sum of two histograms is the histogram of all values."""
    assert add(counted(DEFAULT_BOUNDS, some), counted(DEFAULT_BOUNDS, others)) == tuple(counted(DEFAULT_BOUNDS, some + others))


def test_histograms_with_different_bounds_cannot_be_added():
    """Counts of different lengths are refused."""
    with pytest.raises(ValueError):
        add((1, 2), (1, 2, 3))


def test_an_empty_base_leaves_no_bounds():
    """And a base of its own is checked as thresholds are."""
    assert merge_bounds(base=()) == ()
    with pytest.raises(ValueError, match="bucket bound"):
        merge_bounds(1.0, base=(0.0,))


def test_counts_have_to_fit_the_bounds():
    """One more than there are bounds."""
    for counts in ((1, 2), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="2 bounds need 3 counts"):
            quantile((1.0, 2.0), counts, 0.5)
        with pytest.raises(ValueError, match="2 bounds need 3 counts"):
            share_at_most((1.0, 2.0), counts, 1.0)


@pytest.mark.parametrize("q", [0.0, -0.5, 1.1, math.nan])
def test_what_is_no_quantile_is_refused(q):
    with pytest.raises(ValueError, match="a quantile lies above 0"):
        quantile((1.0,), (1, 0), q)


def test_a_quantile_at_an_edge_of_a_bucket_is_its_bound():
    """Two of four are in the first bucket, and all are below the second bound."""
    assert [quantile((1.0, 2.0), (2, 2, 0), q) for q in (0.25, 0.5, 0.75, 1.0)] == [0.5, 1.0, 1.5, 2.0]
    assert quantile((1.0, 2.0), (2, 0, 2), 0.75) == 2.0
