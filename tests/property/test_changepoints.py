"""What changes nothing about a history, and figures of others for the same arithmetic."""

import math
import random
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from somaresil.model.beta import at_least, binomial_at_least, incomplete_beta
from somaresil.model.bootstrap import bootstrap_ratio, ratio_bounds
from somaresil.model.changepoints import _likeliest, change_points
from somaresil.model.multiple import benjamini_hochberg, holm
from somaresil.model.orderstats import quantile_test
from somaresil.model.ranks import normal_scores
from somaresil.model.sketch import Sketch

VALUES = st.lists(st.integers(1, 400), min_size=12, max_size=80)
SAMPLE = st.lists(st.integers(1, 200), min_size=1, max_size=40)
POSITIVE = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=60)
P_VALUES = st.lists(st.floats(0.0, 1.0), max_size=30)


@pytest.fixture(scope="module")
def stats():
    """Give scipy's statistics."""
    return pytest.importorskip("scipy.stats", reason="scipy is not installed: it is the oracle of this test")


def stepped(values, place, factor):
    """Multiply what comes from a place on."""
    return [value * factor if at >= place else value for at, value in enumerate(values)]


@given(VALUES, st.integers(0, 80), st.sampled_from([1, 2, 8]), st.sampled_from([0.125, 2.0, 1024.0]), st.integers(0, 1000))
def test_scale_and_shift_move_no_change(values, place, factor, scale, moved):
    """Only the levels are others; the p-values and places are the same, and a shift upwards leaves ratios nearer to 1."""
    history = stepped(values, place, factor)
    found = change_points(history, alpha=0.2)
    scaled = change_points([value * scale for value in history], alpha=0.2)
    assert [(each.index, each.p_value, each.ratio) for each in scaled] == [(each.index, each.p_value, each.ratio) for each in found]
    shifted = change_points([value + moved for value in history], alpha=0.2)
    assert [(each.index, each.p_value) for each in shifted] == [(each.index, each.p_value) for each in found]
    assert all(abs(math.log(one.ratio)) <= abs(math.log(other.ratio)) + 1e-12 for one, other in zip(shifted, found, strict=True))


@given(VALUES, st.integers(0, 80), st.sampled_from([1, 2, 8]))
def test_a_history_upside_down_has_the_same_changes(values, place, factor):
    """At the same places, the other way round."""
    history = stepped(values, place, factor)
    found = change_points(history, alpha=0.2)
    upside_down = change_points([10_000.0 - value for value in history], alpha=0.2)
    assert [each.index for each in upside_down] == [each.index for each in found]
    assert all((one.after > one.before) == (other.after < other.before) for one, other in zip(found, upside_down, strict=True))


@given(VALUES)
def test_any_rising_function_of_the_values_leaves_the_likelihood(values):
    """Ranks are all that is looked at."""
    assume(len(set(values)) > 1)
    assert _likeliest(normal_scores([math.exp(value / 50.0) for value in values])) == _likeliest(normal_scores(values))


@given(VALUES, st.integers(3, 10))
def test_what_is_reported_is_what_was_asked_for(values, side):
    """P-values within the level, sides long enough, places that rise, and medians of what stands between."""
    found = change_points(values, alpha=0.3, minimum_points=side)
    bounds = [0, *(each.index for each in found), len(values)]
    assert all(after - before >= side for before, after in pairwise(bounds)) or not found
    assert all(each.p_value <= 0.3 for each in found)
    for each, (start, middle), (_, end) in zip(found, pairwise(bounds), list(pairwise(bounds))[1:], strict=False):
        assert each.before == median(values[start:middle])
        assert (each.points_before, each.points_after) == (middle - start, end - middle)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(20, 80), st.sampled_from([1.3, 1.5, 2.0, 10.0]))
def test_larger_steps_are_no_less_clear(seed, place, factor):
    """The p-value of the clearest step does not rise with the size of the step, by more than the place it is put at makes."""
    chance = random.Random(seed)
    noise = [chance.lognormvariate(0.0, 0.05) for _ in range(100)]
    found = change_points(stepped(noise, place, factor))
    assert any(abs(each.index - place) <= 1 for each in found)
    larger = change_points(stepped(noise, place, factor * 10))
    assert min(each.p_value for each in larger) <= min(each.p_value for each in found) * 1.0001


@given(st.lists(st.integers(0, 20) | st.floats(-5, 5), min_size=2, max_size=60))
def test_normal_scores_are_those_of_scipy(stats, values):
    """Of the middle ranks, less one half, over their number."""
    scores = normal_scores(values)
    if len(set(values)) == 1:
        assert scores is None
        return
    expected = stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values))
    assert scores == pytest.approx(list(expected), rel=1e-12, abs=1e-12)


@given(st.floats(1e-6, 1.0 - 1e-6), st.floats(0.05, 3000.0), st.floats(0.05, 3000.0))
def test_the_beta_function_is_that_of_scipy(stats, x, a, b):
    assert incomplete_beta(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-7, abs=1e-12)


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0.001, 0.999), st.sampled_from([0.9, 0.95, 0.999]))
def test_binomial_tails_and_limits_are_those_of_scipy(stats, hits, trials, share, confidence):
    assume(hits <= trials)
    assert binomial_at_least(hits, trials, share) == pytest.approx(stats.binom.sf(hits - 1, trials, share), rel=1e-8, abs=1e-12)
    expected = stats.beta.ppf(1.0 - confidence, hits, trials - hits + 1) if hits else 0.0
    assert at_least(hits, trials, confidence) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@given(P_VALUES)
def test_adjusted_p_values_are_those_of_scipy_and_the_definition(stats, p_values):
    adjusted = benjamini_hochberg(p_values)
    if p_values:
        assert adjusted == pytest.approx(list(stats.false_discovery_control(p_values)), rel=1e-12, abs=1e-300)
    # By the definition: refused at alpha are those whose j-th smallest, and all before it, are at most alpha / (count - j).
    for alpha in (0.01, 0.05, 0.3):
        refused = set()
        for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - place) > alpha:
                break
            refused.add(index)
        assert {index for index, p in enumerate(holm(p_values)) if p <= alpha} == refused
    for each in (holm(p_values), adjusted):
        assert all(before <= after <= 1.0 for before, after in zip(p_values, each, strict=True))


@given(SAMPLE, SAMPLE, st.sampled_from([0.5, 0.9, 0.99]))
def test_the_quantile_test_is_that_of_scipy(stats, x, y, quantile):
    """The hypergeometric distribution of the values above the quantile of both; the sides may be swapped."""
    pooled = sorted(x + y)
    bound = pooled[math.ceil(quantile * len(pooled)) - 1]
    above, together = sum(value > bound for value in x), sum(value > bound for value in pooled)
    less = stats.hypergeom.cdf(above, len(pooled), together, len(x))
    greater = stats.hypergeom.sf(above - 1, len(pooled), together, len(x))
    assert quantile_test(x, y, quantile) == pytest.approx(min(1.0, 2.0 * min(less, greater)), rel=1e-8)
    assert quantile_test(y, x, quantile) == pytest.approx(quantile_test(x, y, quantile), rel=1e-9)


@given(SAMPLE, SAMPLE, st.sampled_from([0.5, 0.9]), st.sampled_from([0.125, 2.0, 1024.0]))
def test_intervals_of_ratios_keep_to_scale(x, y, quantile, scale):
    """A scale of both changes nothing, a scale of one scales the interval; swapped sides turn it over, but for ties of its levels."""
    low, high = bootstrap_ratio(x, y, quantile)
    assert bootstrap_ratio([v * scale for v in x], [v * scale for v in y], quantile) == pytest.approx((low, high), rel=1e-12)
    assert bootstrap_ratio([v * scale for v in x], y, quantile) == pytest.approx((low * scale, high * scale), rel=1e-12)
    assert min(x) / max(y) * (1 - 1e-12) <= low <= high <= max(x) / min(y) * (1 + 1e-12)
    bounds = ratio_bounds(x, y, quantile)
    if bounds is not None:
        swapped = ratio_bounds(y, x, quantile)
        assert swapped == pytest.approx((1.0 / bounds[1], 1.0 / bounds[0]), rel=1e-12)
    wider = bootstrap_ratio(x, y, quantile, 0.99)
    assert wider[0] <= low <= high <= wider[1]


@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(5, 40))
def test_swapped_sides_turn_the_interval_over(seed, n, m):
    """Values without ties; what is left is which of two neighbours a level falls on."""
    chance = random.Random(seed)
    x, y = ([chance.lognormvariate(0.0, 0.4) for _ in range(count)] for count in (n, m))
    low, high = bootstrap_ratio(x, y)
    assert bootstrap_ratio(y, x) == pytest.approx((1.0 / high, 1.0 / low), rel=1e-9)


@given(st.lists(POSITIVE, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merged_sketches_are_the_sketch_of_all_values(parts, chance):
    """Equal, in any order and grouping, also by way of JSON."""
    whole = Sketch(value for part in parts for value in part)
    sketches = [Sketch.load(Sketch(part).dump()) for part in parts]
    while len(sketches) > 1:
        chance.shuffle(sketches)
        sketches[0].merge(sketches.pop())
    assert sketches[0].dump() == whole.dump()


@given(POSITIVE, st.floats(0.0, 1.0), st.sampled_from([0.01, 0.05]))
def test_quantiles_of_sketches_are_within_their_error(values, q, error):
    sketch, ordered = Sketch(values, error=error), sorted(values)
    assert sketch.quantile(q) == pytest.approx(ordered[max(1, math.ceil(q * len(values))) - 1], rel=error * (1 + 1e-9))
    assert sketch.quantile(q / 2) <= sketch.quantile(q)
    surely, maybe = sketch.more_than(ordered[len(ordered) // 2])
    assert surely <= sum(value > ordered[len(ordered) // 2] for value in values) <= maybe
