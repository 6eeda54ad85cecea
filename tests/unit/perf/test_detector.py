import math
import random

import pytest

from somaresil.errors import ConfigurationError
from somaresil.perf import Change, RegressionDetector, overall
from somaresil.perf.budget import BudgetStatus, Measured, PerformanceBudget

DETECTOR = RegressionDetector()


def noise(seed, factor=1.0, count=30, sigma=0.05, phi=0.0):
    """Give log-normal values around a factor; with phi each resembles the one before it."""
    chance, values, drift = random.Random(seed), [], 0.0
    for _ in range(count):
        drift = phi * drift + chance.gauss(0.0, sigma)
        values.append(factor * math.exp(drift))
    return values


@pytest.mark.parametrize(
    ("factor", "better", "change"),
    [
        (1.3, "lower", Change.REGRESSED),
        (0.7, "lower", Change.IMPROVED),
        (1.3, "higher", Change.IMPROVED),
        (0.7, "higher", Change.REGRESSED),
        (1.0, "lower", Change.UNCHANGED),
        (1.0, "higher", Change.UNCHANGED),
    ],
)
def test_a_clear_difference_has_a_direction(factor, better, change):
    """Slower is worse, and less throughput is; the evidence comes with it."""
    found = DETECTOR.compare(noise(1), noise(2, factor), better=better, name="m")
    assert (found.name, found.change, found.better) == ("m", change, better)
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(factor, rel=0.05) == found.current / found.baseline
    assert (found.baseline_count, found.current_count, found.exact) == (30, 30, True)
    assert (found.p_value <= 0.01) is (change is not Change.UNCHANGED)


def test_significant_and_small_is_no_regression():
    """Of 2,000 values a side a percent is significant, and counts when it is asked for."""
    before, after = noise(1, count=2000), noise(2, 1.02, count=2000)
    found = DETECTOR.compare(before, after)
    assert (found.change, found.p_value < 1e-6) == (Change.UNCHANGED, True)
    assert "less than counts" in found.reason
    assert RegressionDetector(minimum_effect=0.005).compare(before, after).change is Change.REGRESSED


def test_large_and_by_chance_is_no_regression():
    """Wild values with a ratio of medians far from 1: nothing is shown, and how many values would show it is said."""
    before, after = noise(5, count=8, sigma=2.0), noise(6, count=8, sigma=2.0)
    found = DETECTOR.compare(before, after)
    assert abs(math.log(found.ratio)) > math.log(1.05)
    assert found.change is Change.UNCHANGED
    assert "no difference can be shown" in found.reason
    assert found.needed > 1000
    assert f"about {found.needed} values" in found.reason


def test_equal_is_said_as_such():
    """An interval within what counts is more than no difference shown; equal constants are equal."""
    assert "the same within what counts" in DETECTOR.compare(noise(1, count=400), noise(2, count=400)).reason
    found = DETECTOR.compare([0.25] * 10, [0.25] * 10)
    assert (found.change, found.ratio, found.low, found.high, found.p_value) == (Change.UNCHANGED, 1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(("n", "m", "alpha", "needed"), [(4, 4, 0.01, 5), (1, 3, 0.05, 4), (2, 5, 0.01, 5), (9, 9, 1e-6, 12)])
def test_too_few_values_are_unknown_however_far_apart(n, m, alpha, needed):
    """And it is said how many suffice: with so many a side the same distance is a regression."""
    detector = RegressionDetector(alpha=alpha)
    found = detector.compare([1.0] * n, [100.0] * m)
    assert (found.change, found.needed, found.p_value) == (Change.UNKNOWN, needed, None)
    assert f"{n} and {m} values" in found.reason
    assert detector.compare([1.0] * needed, [100.0] * needed).change is Change.REGRESSED


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "empty"),
        ([1.0] * 9 + [math.nan], "value 9"),
        ([math.inf] + [1.0] * 9, "value 0"),
        ([1.0, "2", *[1.0] * 9], "value 1"),
        ([1.0, True, *[1.0] * 9], "value 1"),
        ([1.0, None, *[1.0] * 9], "value 1"),
        ([-1.0] + [1.0] * 9, "below zero"),
        ([1.0] * 9 + [1e200], "value 9"),
        ([1.0] * 9 + [5e-324], "value 9"),
    ],
)
def test_what_is_no_measurement_is_unknown_and_named(values, said):
    """On either side; it is never dropped in silence."""
    for pair, side in (((values, noise(1)), "baseline"), ((noise(1), values), "current sample")):
        found = DETECTOR.compare(*pair)
        assert found.change is Change.UNKNOWN
        assert said in found.reason
        assert side in found.reason


def test_a_baseline_of_zero_has_no_ratio():
    """From nothing to something is worse when less is better; nothing on both sides is the same."""
    found = DETECTOR.compare([0.0] * 10, [1.0] * 10)
    assert (found.change, found.ratio, found.low, found.high) == (Change.REGRESSED, None, None, None)
    assert DETECTOR.compare([1.0] * 10, [0.0] * 10).change is Change.IMPROVED
    assert DETECTOR.compare([0.0] * 10, [0.0] * 10).change is Change.UNCHANGED
    mixed = DETECTOR.compare([0.0] * 16 + [1.0] * 4, [0.0] * 5 + [1.0] * 15)
    assert mixed.change in {Change.UNKNOWN, Change.UNCHANGED}


def test_slow_noise_is_no_regression():
    """Of a hundred pairs of samples that drift, a test that takes their values for independent sees one in twelve change, or more."""
    plain = RegressionDetector(minimum_effect=0.0, ordered=False)
    detector = RegressionDetector(minimum_effect=0.0)
    pairs = [(noise(seed, count=60, phi=0.6), noise(seed + 1000, count=60, phi=0.6)) for seed in range(100)]
    alarms = {each: sum(each.compare(*pair).change is not Change.UNCHANGED for pair in pairs) for each in (plain, detector)}
    assert alarms[plain] >= 8
    assert alarms[detector] <= 4
    found = detector.compare(*pairs[0])
    assert 0.3 < found.autocorrelation < 0.9
    assert "neighbours" in found.reason
    assert not found.exact


def test_few_values_that_resemble_their_neighbours_cannot_decide():
    """Sorted samples look like that; who knows that the order means nothing says so."""
    before, after = sorted(noise(1, count=8)), sorted(noise(2, 2.0, count=8))
    found = DETECTOR.compare(before, after)
    assert (found.change, found.needed > 8) == (Change.UNKNOWN, True)
    assert "neighbours" in found.reason
    assert RegressionDetector(ordered=False).compare(before, after).change is Change.REGRESSED


def test_a_longer_tail_is_seen_where_it_is_asked_about():
    """One value in ten is ten times as long: the median knows nothing of it."""
    before = noise(1, count=400)
    after = [value * (10.0 if place % 10 == 0 else 1.0) for place, value in enumerate(noise(2, count=400))]
    assert DETECTOR.compare(before, after).change is Change.UNCHANGED
    found = RegressionDetector(quantile=0.95).compare(before, after)
    assert found.change is Change.REGRESSED
    assert found.ratio > 5


def test_a_quantile_needs_values_beyond_it():
    """With 0.99 some four hundred a side, and so many are enough for the clearest case."""
    detector = RegressionDetector(quantile=0.99)
    found = detector.compare(noise(1, count=100), noise(2, 100.0, count=100))
    assert found.change is Change.UNKNOWN
    assert 300 <= found.needed <= 500
    assert detector.compare(noise(1, count=found.needed), noise(2, 100.0, count=found.needed)).change is Change.REGRESSED


def test_many_values_are_thinned_in_their_order():
    """Every third of 30,000 is used."""
    found = DETECTOR.compare(noise(1, count=100), [value % 7 + 1.0 for value in range(25_000)])
    assert found.current_count == 8334


def test_comparisons_made_together_are_adjusted():
    """A p-value that is good enough alone is not among twenty; a clear regression stays one."""
    chance = random.Random(3)
    samples = {f"m{number}": (noise(chance.random()), noise(chance.random())) for number in range(19)}
    samples["slow"] = (noise(1), noise(2, 1.5))
    samples["gone"] = ([], noise(1))
    found = {each.name: each for each in DETECTOR.compare_all(samples)}
    assert list(found) == list(samples)
    assert found["slow"].change is Change.REGRESSED
    assert found["slow"].adjusted_p_value == pytest.approx(20 * found["slow"].p_value)
    assert (found["gone"].change, found["gone"].adjusted_p_value) == (Change.UNKNOWN, None)
    assert [each.name for each in found.values() if each.change not in {Change.UNCHANGED, Change.UNKNOWN}] == ["slow"]
    fewer = {each.name: each for each in RegressionDetector(adjust="benjamini_hochberg").compare_all(samples)}
    assert all(fewer[name].adjusted_p_value <= found[name].adjusted_p_value for name in samples if name != "gone")
    plain = RegressionDetector(adjust="none").compare_all(samples)
    assert all(each.adjusted_p_value == each.p_value for each in plain)


def test_each_of_several_has_its_own_direction():
    samples = {"latency": (noise(1), noise(2, 1.5)), "throughput": (noise(3), noise(4, 1.5))}
    changes = [each.change for each in DETECTOR.compare_all(samples, better={"throughput": "higher"})]
    assert changes == [Change.REGRESSED, Change.IMPROVED]
    assert DETECTOR.compare_all({}) == ()


def test_the_worst_of_several_answers_is_the_answer():
    """Unknown is not good: it stands above improved and unchanged."""
    assert overall([Change.UNCHANGED, Change.REGRESSED, Change.UNKNOWN]) is Change.REGRESSED
    assert overall([Change.UNCHANGED, Change.IMPROVED, Change.UNKNOWN]) is Change.UNKNOWN
    assert overall([Change.UNCHANGED, Change.IMPROVED]) is Change.IMPROVED
    assert overall([Change.UNCHANGED]) is Change.UNCHANGED
    assert overall([]) is Change.UNKNOWN


def test_the_last_change_of_a_history_decides():
    """Up is worse for a latency and better for a throughput; going back up after an improvement is a regression."""
    history = noise(1, count=60) + noise(2, 0.7, count=30) + noise(3, 1.0, count=30)
    found = DETECTOR.history(history, name="p95")
    assert (found.name, found.change, found.count, len(found.changes)) == ("p95", Change.REGRESSED, 120, 2)
    assert found.changes[-1].ratio == pytest.approx(1 / 0.7, rel=0.06)
    assert "from value" in found.reason
    assert DETECTOR.history(history, better="higher").change is Change.IMPROVED


def test_old_changes_may_be_known_already():
    """With recent=20 the step 40 values ago is listed and decides nothing."""
    history = noise(1, count=60) + noise(2, 1.3, count=40)
    assert DETECTOR.history(history, recent=45).change is Change.REGRESSED
    found = DETECTOR.history(history, recent=20)
    assert (found.change, len(found.changes)) == (Change.UNCHANGED, 1)
    assert "1 older" in found.reason


def test_flat_and_short_and_broken_histories():
    """Unchanged, unknown with how many are needed, and unknown with the place of what is no number."""
    assert DETECTOR.history(noise(1, count=100)).change is Change.UNCHANGED
    assert DETECTOR.history([1.0] * 50).change is Change.UNCHANGED
    short = DETECTOR.history([1.0] * 11)
    assert (short.change, short.needed) == (Change.UNKNOWN, 12)
    broken = DETECTOR.history([*noise(1, count=50), math.nan])
    assert (broken.change, "value 50 of the history is nan" in broken.reason) == (Change.UNKNOWN, True)
    assert DETECTOR.history([]).change is Change.UNKNOWN


def test_small_steps_of_a_history_are_none():
    history = noise(1, count=100, sigma=0.005) + noise(2, 1.03, count=100, sigma=0.005)
    assert DETECTOR.history(history).change is Change.UNCHANGED
    assert RegressionDetector(minimum_effect=0.01).history(history).change is Change.REGRESSED


def test_a_long_history_is_looked_at_from_its_end():
    found = DETECTOR.history([9.0] * 500 + noise(1, count=10_000))
    assert (found.count, found.change) == (10_000, Change.UNCHANGED)


def test_a_budget_is_checked_at_the_same_level():
    """The detector's alpha is the budget's confidence."""
    budget = PerformanceBudget("/a", p50_ms=100)
    measured = Measured("/a", latencies=[0.05] * 9 + [0.2])
    assert DETECTOR.check(budget, measured).status is BudgetStatus.UNKNOWN
    assert RegressionDetector(alpha=0.05).check(budget, measured).status is BudgetStatus.KEPT
    assert RegressionDetector(undecided="estimate").check(budget, measured).status is BudgetStatus.KEPT


@pytest.mark.parametrize(
    "options",
    [
        {"minimum_effect": -0.1},
        {"minimum_effect": math.nan},
        {"alpha": 0.0},
        {"alpha": 0.9},
        {"quantile": 1.0},
        {"quantile": "p95"},
        {"adjust": "holms"},
        {"minimum_points": 2},
        {"ordered": 1},
        {"undecided": "maybe"},
    ],
)
def test_options_that_are_none_are_refused(options):
    with pytest.raises(ConfigurationError) as caught:
        RegressionDetector(**options)
    assert [problem.path for problem in caught.value.problems] == [f"RegressionDetector.{name}" for name in options]


def test_all_wrong_options_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        RegressionDetector(alpha=2, quantile=2, adjust="x")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: DETECTOR.compare([1.0], [1.0], better="faster"),
        lambda: DETECTOR.compare_all({"a": ([1.0], [1.0])}, better={"a": "up"}),
        lambda: DETECTOR.history([1.0], better="less"),
        lambda: DETECTOR.history([1.0], recent=0),
        lambda: DETECTOR.history([1.0], recent=1.5),
    ],
)
def test_words_that_are_none_are_refused(call):
    with pytest.raises(ConfigurationError):
        call()
