"""What is true of any two samples: who is first, in which unit, and with which clock they were measured changes no answer."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil.model.sketch import Sketch
from somaresil.perf import BudgetStatus, Change, Measured, PerformanceBudget, RegressionDetector

SAMPLE = st.lists(st.floats(0.5, 2.0).map(lambda value: round(value, 3)), min_size=5, max_size=30)
ANYTHING = st.lists(st.floats() | st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf]), max_size=15)
DETECTORS = st.sampled_from(
    [
        RegressionDetector(),
        RegressionDetector(alpha=0.05, minimum_effect=0.0),
        RegressionDetector(ordered=False),
        RegressionDetector(quantile=0.8),
    ]
)
OPPOSITE = {Change.REGRESSED: Change.IMPROVED, Change.IMPROVED: Change.REGRESSED}


@given(SAMPLE, SAMPLE, DETECTORS, st.sampled_from([1.0, 1.5, 4.0]), st.sampled_from([0.125, 1024.0]))
def test_the_unit_changes_no_answer(x, y, detector, factor, scale):
    """Seconds or milliseconds: the same change, ratio, interval and p-value."""
    y = [value * factor for value in y]
    found, scaled = detector.compare(x, y), detector.compare([v * scale for v in x], [v * scale for v in y])
    assert (scaled.change, scaled.p_value, scaled.needed) == (found.change, found.p_value, found.needed)
    for one, other in ((scaled.ratio, found.ratio), (scaled.low, found.low), (scaled.high, found.high)):
        assert (one is None) is (other is None)
        assert one is None or one == pytest.approx(other, rel=1e-9)


@given(SAMPLE, SAMPLE, DETECTORS, st.sampled_from([1.0, 1.5, 4.0]))
def test_swapped_samples_and_directions_turn_the_answer_over(x, y, detector, factor):
    """What is slower than the other is what the other is faster than; less latency is more throughput."""
    y = [value * factor for value in y]
    found = detector.compare(x, y)
    swapped = detector.compare(y, x)
    assert (swapped.p_value is None) is (found.p_value is None)
    assert found.p_value is None or swapped.p_value == pytest.approx(found.p_value, rel=1e-9)
    assert swapped.autocorrelation == pytest.approx(found.autocorrelation, abs=1e-12)
    opposite = OPPOSITE.get(found.change, found.change)
    assert detector.compare(x, y, better="higher").change is opposite
    if found.ratio is not None and swapped.ratio is not None:
        assert swapped.ratio == pytest.approx(1.0 / found.ratio, rel=1e-9)
    # Which of two equal ratios an end of the interval falls on may differ; that one is a regression and the other none, never the reverse.
    assert not (found.change is Change.REGRESSED and swapped.change is Change.REGRESSED)
    assert not (found.change is Change.IMPROVED and swapped.change is Change.IMPROVED)


@given(SAMPLE, SAMPLE, st.integers(0, 20))
def test_more_of_a_difference_is_never_less_of_an_answer(x, y, steps):
    """Where a sample is a regression it still is when all of it is slower."""
    detector = RegressionDetector(ordered=False)
    found = detector.compare(x, [value * 1.6 for value in y])
    slower = detector.compare(x, [value * 1.6 * (1.0 + steps / 10.0) for value in y])
    if found.change is Change.REGRESSED:
        assert slower.change is Change.REGRESSED
    if found.p_value is not None:
        assert slower.low >= found.low * (1 - 1e-9)


@given(SAMPLE, DETECTORS)
def test_a_sample_does_not_differ_from_itself(x, detector):
    """In any detector."""
    found = detector.compare(x, x)
    assert found.change in {Change.UNCHANGED, Change.UNKNOWN}
    assert found.ratio in {1.0, None}


@given(ANYTHING, ANYTHING, DETECTORS)
def test_anything_gets_an_answer_and_nothing_is_good_that_is_not_known(x, y, detector):
    """No value raises. NaN, infinity and what is negative, empty or too few is unknown with a reason."""
    found = detector.compare(x, y)
    assert found.reason
    wrong = not x or not y or any(not math.isfinite(value) or value < 0.0 for value in x + y)
    assert not wrong or found.change is Change.UNKNOWN
    history = detector.history(x * 3)
    assert history.reason
    if any(not math.isfinite(value) for value in x) or not x:
        assert history.change is Change.UNKNOWN


@given(st.lists(st.floats(0.0, 1e300), min_size=5, max_size=12), st.lists(st.floats(0.0, 1e300), min_size=5, max_size=12), DETECTORS)
def test_no_size_of_the_values_is_a_surprise(x, y, detector):
    """Zeros, the tiny and the vast: an answer, in which nothing is NaN or infinite."""
    found = detector.compare(x, y)
    assert all(value is None or math.isfinite(value) for value in (found.low, found.high, found.ratio, found.p_value))
    assert detector.history(x * 3).reason


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0.001, 10.0), max_size=80), min_size=1, max_size=4), st.sampled_from([5.0, 120.0, 900.0, 3000.0]))
def test_a_budget_over_merged_sketches_is_that_over_all_values(parts, limit):
    """Except where a value lies in the bucket of the limit, of which it is not known on which side it is."""
    budget = PerformanceBudget("/a", p50_ms=limit, p95_ms=2 * limit)
    merged = Sketch()
    for part in parts:
        merged.merge(Sketch(part))
    values = [value for part in parts for value in part]
    exact = budget.check(Measured("/a", latencies=values)).checks
    rough = budget.check(Measured("/a", latencies=merged)).checks
    for one, other in zip(exact, rough, strict=True):
        assert other.status in {one.status, BudgetStatus.UNKNOWN}
        assert other.count == one.count == len(values)


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=200), st.floats(1.0, 12_000.0), st.floats(1.0, 5.0))
def test_a_wider_budget_is_kept_where_a_narrower_one_is(values, limit, factor):
    """And broken only where the narrower one is."""
    order = [BudgetStatus.BROKEN, BudgetStatus.UNKNOWN, BudgetStatus.KEPT]
    narrow, wide = (PerformanceBudget("/a", p95_ms=each).check(Measured("/a", latencies=values)).status for each in (limit, limit * factor))
    assert order.index(narrow) <= order.index(wide)
