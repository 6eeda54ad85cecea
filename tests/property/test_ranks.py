"""The arithmetic of ranks against scipy, against listing every case, and under changes that must not matter."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from somaresil.canary import kayenta
from somaresil.canary.judge import Classification, classify
from somaresil.canary.metrics import JudgeConfig, MetricConfig, MetricSet
from somaresil.errors import ConfigurationError
from somaresil.model import ranks
from somaresil.model.orderstats import exceedance, quantile_ranks
from somaresil.model.proportion import normal_quantile

FEW = st.lists(st.integers(0, 5), min_size=1, max_size=6)
SAMPLE = st.lists(st.integers(-50, 50), min_size=1, max_size=40)
APART = st.lists(st.integers(-1000, 1000), min_size=1, max_size=25)
SERIES = st.lists(st.floats() | st.sampled_from([0.0, 1.0, 2.0, math.nan]), max_size=25)
PLAIN = MetricConfig(name="m")
CONFIG = JudgeConfig(metrics=(PLAIN,))


@pytest.fixture(scope="module")
def stats():
    """Give scipy's statistics."""
    return pytest.importorskip("scipy.stats", reason="scipy is not installed: it is the oracle of this test")


def doubled(x, y):
    """Twice the U of a sample, pair by pair."""
    return sum((a > b) * 2 + (a == b) for a in x for b in y)


@given(FEW, FEW)
def test_exact_p_values_are_those_of_every_deal(x, y):
    """Every way to deal the pooled values, ties and all."""
    pooled, seen = x + y, doubled(x, y)
    deals = []
    for chosen in itertools.combinations(range(len(pooled)), len(x)):
        first = [pooled[place] for place in chosen]
        second = [value for place, value in enumerate(pooled) if place not in chosen]
        deals.append(doubled(first, second))
    found = ranks.rank_test(x, y)
    less, greater = (sum(map(of, deals)) / len(deals) for of in (seen.__ge__, seen.__le__))
    assert (found.u, found.exact) == (seen / 2, True)
    assert (found.p_less, found.p_greater) == pytest.approx((less, greater), rel=1e-12)
    assert found.p_value == pytest.approx(min(1.0, 2 * min(less, greater)), rel=1e-12)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=2, max_size=50, unique=True), st.data())
def test_exact_p_values_without_ties_are_those_of_scipy(stats, values, data):
    """Whatever the sizes of the two samples."""
    size = data.draw(st.integers(1, len(values) - 1))
    x, y = values[:size], values[size:]
    found = ranks.rank_test(x, y)
    for alternative, own in (("two-sided", found.p_value), ("greater", found.p_greater), ("less", found.p_less)):
        assert own == pytest.approx(stats.mannwhitneyu(x, y, alternative=alternative, method="exact").pvalue, rel=1e-9)


@given(SAMPLE, SAMPLE)
def test_p_values_of_large_samples_are_those_of_scipy(stats, x, y):
    """With ties, which scipy corrects in the same way."""
    assume(len({*x, *y}) > 1)
    found = ranks.rank_test(x, y, exact=False)
    for alternative, own in (("two-sided", found.p_value), ("greater", found.p_greater), ("less", found.p_less)):
        oracle = stats.mannwhitneyu(x, y, alternative=alternative, method="asymptotic").pvalue
        assert own == pytest.approx(oracle, rel=1e-9, abs=1e-15)


@given(SAMPLE, SAMPLE, st.booleans(), st.integers(-100, 100), st.sampled_from([0.125, 0.5, 2, 1024]), st.randoms(use_true_random=False))
def test_what_does_not_change_the_order_does_not_change_the_test(x, y, exact, moved, factor, chance):
    """Swapped sides swap the one-sided p-values; shift, scale and order of the values change nothing."""
    found = ranks.rank_test(x, y, exact=exact)
    swapped = ranks.rank_test(y, x, exact=exact)
    assert (swapped.p_less, swapped.p_greater, swapped.p_value) == pytest.approx((found.p_greater, found.p_less, found.p_value), rel=1e-12)
    assert swapped.u == len(x) * len(y) - found.u
    changed = [[(value + moved) * factor for value in chance.sample(side, len(side))] for side in (x, y)]
    assert ranks.rank_test(*changed, exact=exact) == found
    assert ranks.cliffs_delta(x, y) == pytest.approx(2 * ranks.common_language(x, y) - 1)
    assert ranks.cliffs_delta(x, y) == -ranks.cliffs_delta(y, x)


@given(APART, APART, st.sampled_from([0.5, 0.9, 0.98, 0.999]))
def test_the_interval_holds_just_the_shifts_that_are_not_refused(x, y, confidence):
    """Each end is the difference of two values at which the corrected z crosses its quantile, found by going through all of them."""
    found = ranks.shift(x, y, confidence)
    differences = sorted({a - b for a in x for b in y})
    least, most = differences[0], differences[-1]
    assert least <= found.low <= found.estimate <= found.high <= most
    assume(least < most)
    n, m = len(x), len(y)
    ties = sum(side.count(value) ** 3 - side.count(value) for side in (x, y) for value in set(side))
    deviation = math.sqrt(n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1))))

    def z(mu):
        distance = (doubled([a - mu for a in x], y) - n * m) / 2
        return (distance - math.copysign(0.5, distance)) / deviation if distance else 0.0

    quantile, near = normal_quantile(confidence), 2 * ranks.ROOT_TOLERANCE
    # Between whole numbers nothing is tied across the samples, and z falls step by step; every end lies near a whole one.
    if found.low > least + near:
        assert z(found.low - near) >= quantile
        assert z(found.low + near) <= quantile
    if found.high < most - near:
        assert z(found.high + near) <= -quantile
        assert z(found.high - near) >= -quantile


@given(FEW, FEW, st.integers(-3, 3))
def test_the_z_of_a_shift_is_that_of_the_test_of_the_shifted_sample(x, y, mu):
    """Ties across the samples correct its deviation as well; most values here are tied."""
    found = ranks.rank_test([value - mu for value in x], y, exact=False)
    z = ranks._z_of_shift(sorted(x), sorted(y))(float(mu))
    assert math.erfc(abs(z) / math.sqrt(2)) == pytest.approx(found.p_value, rel=1e-12)


@given(APART, APART, st.integers(-1000, 1000))
def test_a_sample_that_is_moved_moves_its_interval(x, y, moved):
    """Ends that were found within the tolerance stay within it."""
    before, after = ranks.shift(x, y), ranks.shift([value + moved for value in x], y)
    assert after.low - before.low == pytest.approx(moved, abs=3 * ranks.ROOT_TOLERANCE)
    assert after.high - before.high == pytest.approx(moved, abs=3 * ranks.ROOT_TOLERANCE)


@given(FEW, FEW, st.integers(0, 5))
def test_the_chance_of_a_tail_is_never_too_small(x, y, spared):
    """Of all deals of values that are all different, so many as were seen lie beyond in just this share."""
    assume(spared < len(y))
    above, chance = exceedance(x, y, spared=spared)
    assert above == sum(value > sorted(y)[len(y) - 1 - spared] for value in x)
    total = len(x) + len(y)
    deals = [set(chosen) for chosen in itertools.combinations(range(total), len(x))]
    reached = 0
    for first in deals:
        bound = sorted(set(range(total)) - first)[len(y) - 1 - spared]
        reached += sum(place > bound for place in first) >= above
    assert chance == pytest.approx(reached / len(deals), rel=1e-12)


@given(st.integers(201, 3000), st.integers(201, 3000), st.data())
def test_the_chance_of_a_tail_in_large_samples_is_that_of_scipy(stats, n, m, data):
    """The hypergeometric distribution."""
    spared, above = data.draw(st.integers(0, m // 4)), data.draw(st.integers(1, n))
    x = [2.0] * above + [0.0] * (n - above)
    y = [3.0] * spared + [1.0] * (m - spared)
    seen, chance = exceedance(x, y, spared=spared)
    assert seen == above
    assert chance == pytest.approx(stats.hypergeom.cdf(spared, n + m, m, above + spared), rel=1e-6, abs=1e-250)


@given(st.integers(1, 20_000), st.floats(0.01, 0.995), st.sampled_from([0.8, 0.98, 0.999]))
def test_ranks_of_a_quantile_miss_it_no_more_often_than_said(stats, count, quantile, confidence):
    """By the binomial distribution of scipy; and one rank closer would."""
    found, tail = quantile_ranks(count, quantile, confidence), (1 - confidence) / 2
    if found is None:
        assert max(stats.binom.cdf(0, count, quantile), stats.binom.sf(count - 1, count, quantile)) > tail * (1 - 1e-6)
        return
    low, high = found
    assert stats.binom.cdf(low - 1, count, quantile) <= tail * (1 + 1e-6)
    assert stats.binom.sf(high - 1, count, quantile) <= tail * (1 + 1e-6)
    if count * quantile * (1 - quantile) <= 2500:
        assert stats.binom.cdf(low, count, quantile) > tail * (1 - 1e-6)
        assert stats.binom.sf(high - 2, count, quantile) > tail * (1 - 1e-6)


@given(
    SERIES,
    SERIES,
    st.sampled_from(["remove", "zero"]),
    st.sampled_from(["keep", "remove"]),
    st.sampled_from(["mean_ratio", "common_language"]),
)
def test_any_series_gets_an_answer_and_none_passes_without_data(control, experiment, nan_strategy, outliers, effect):
    """Infinity never passes, nor does a side with fewer than five numbers, of which some may be taken for zeros."""
    metric = MetricConfig(name="m", nan_strategy=nan_strategy, outliers=outliers, effect=effect)
    result = classify(metric, MetricSet("m", control, experiment), JudgeConfig(metrics=(metric,)))
    assert result.reason
    sides = [[value for value in side if nan_strategy == "zero" or not math.isnan(value)] for side in (control, experiment)]
    if nan_strategy == "zero":
        sides = [side or [0.0] * max(map(len, sides)) for side in sides]
    if any(math.isinf(value) for side in sides for value in side):
        assert result.classification is Classification.ERROR
    elif min(map(len, sides)) < 5:
        assert result.classification in (Classification.NODATA, Classification.ERROR)


@given(
    st.lists(st.integers(1, 60), min_size=5, max_size=20),
    st.lists(st.integers(1, 60), min_size=5, max_size=20),
    st.randoms(use_true_random=False),
)
def test_order_of_the_values_does_not_matter_to_the_judge(control, experiment, chance):
    """The values are not paired."""
    before = classify(PLAIN, MetricSet("m", control, experiment), CONFIG)
    mixed = [chance.sample(side, len(side)) for side in (control, experiment)]
    assert classify(PLAIN, MetricSet("m", *mixed), CONFIG).classification is before.classification


@given(st.lists(st.integers(1, 60), min_size=5, max_size=20))
def test_a_version_far_above_or_below_never_passes(control):
    """Every value beyond every value of the control by more than they vary."""
    far = 10 * max(control)
    assert classify(PLAIN, MetricSet("m", control, [value + far for value in control]), CONFIG).classification is Classification.HIGH
    assert classify(PLAIN, MetricSet("m", [value + far for value in control], control), CONFIG).classification is Classification.LOW


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.data())
def test_any_body_is_answered_or_refused(data):
    """A good body with anything in the place of any of its parts: a result, or problems; never another error."""
    part = {"direction": "increase", "critical": True, "effectSize": {"allowedIncrease": 1.5}, "outliers": {"strategy": "remove"}}
    whole = {
        "canaryConfig": {
            "metrics": [{"name": "m", "groups": ["g"], "analysisConfigurations": {"canary": part}}],
            "classifier": {"groupWeights": {"g": 100}},
            "judge": {"judgeConfigurations": {}},
        },
        "scoreThresholds": {"pass": 95, "marginal": 75},
        "metricSetPairList": [{"name": "m", "id": "1", "tags": {"a": "b"}, "values": {"control": [1] * 6, "experiment": [2] * 6}}],
    }
    place = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    try:
        said = kayenta.answer(whole)
    except ConfigurationError:
        return
    assert 0.0 <= said["score"]["score"] <= 100.0
    assert said["score"]["classification"] == "Fail" or any(each["classification"] == "Pass" for each in said["results"])
