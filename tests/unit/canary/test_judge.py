import math
import random
import time

import pytest

from somaresil.canary.judge import Classification, Score, classify, judge
from somaresil.canary.metrics import JudgeConfig, MetricConfig, MetricSet
from somaresil.errors import ConfigurationError

EVEN = [float(value) for value in (9, 10, 11, 10, 9, 12, 10, 11, 9, 10)]
DOUBLE = [2 * value for value in EVEN]


def one(control, experiment, *, config=None, **options):
    """Give what became of one metric."""
    metric = MetricConfig(name="m", **options)
    return classify(metric, MetricSet("m", control, experiment), JudgeConfig(metrics=(metric,), **(config or {})))


def many(outcomes, **options):
    """Judge metrics that pass (p), are high (h), have no data (n), or are missing (-): ``{"name": ("p", {...})}``."""
    series = {"p": EVEN, "h": DOUBLE, "n": []}
    metrics = tuple(MetricConfig(name=name, **settings) for name, (_, settings) in outcomes.items())
    sets = [MetricSet(name, EVEN, series[kind]) for name, (kind, _) in outcomes.items() if kind != "-"]
    return judge(JudgeConfig(metrics=metrics, **options), sets)


def test_a_metric_that_doubled_is_high_and_one_that_halved_is_low():
    """With the interval and the effect in the reason."""
    high, low = one(EVEN, DOUBLE), one(DOUBLE, EVEN)
    assert (high.classification, low.classification) == (Classification.HIGH, Classification.LOW)
    assert high.reason.startswith("it is higher by 10")
    assert high.effect == pytest.approx(2.0)
    assert low.effect == pytest.approx(0.5)
    assert high.failed
    assert high.p_value < 0.001


@pytest.mark.parametrize(
    ("direction", "high", "low"), [("increase", "high", "pass"), ("decrease", "pass", "low"), ("either", "high", "low")]
)
def test_only_the_direction_that_is_watched_fails(direction, high, low):
    """Fewer errors are no failure."""
    assert one(EVEN, DOUBLE, direction=direction).classification == high
    assert one(DOUBLE, EVEN, direction=direction).classification == low


def test_a_part_of_the_values_far_outside_does_not_pass():
    """The known miss of Kayenta: seven of ten a hundred times as large, three as before."""
    control, experiment = [1.0] * 10, [100.0] * 7 + [1.0] * 3
    result = one(control, experiment)
    assert result.classification is Classification.HIGH
    assert result.reason == "7 of its 10 values lie above all of the control (by chance: 0.0015), effect 70.3"
    assert one(control, experiment, config={"tail_test": False}).classification is Classification.PASS
    assert one(control, experiment, direction="decrease").classification is Classification.PASS


def test_a_part_of_the_values_fallen_to_nothing_does_not_pass():
    """The same below: throughput of seven of ten is gone."""
    assert one([100.0] * 10, [1.0] * 7 + [100.0] * 3).classification is Classification.LOW


def test_an_outlier_of_the_control_does_not_hide_a_tail():
    """One bad minute of the baseline makes its mean larger than that of a canary of which twelve of twenty values are far outside."""
    control = [1.0 + place / 100 for place in range(19)] + [5000.0]
    result = one(control, [100.0] * 12 + [1.0, 1.05, 1.03, 1.02] * 2)
    assert result.classification is Classification.HIGH
    assert result.reason.startswith("12 of its 20 values lie above all but 2 of the 20 of the control")


def test_three_of_ten_values_far_outside_are_found_with_thirty_values():
    """In at least seven of ten trials, where the shift alone finds one or two."""
    draw = random.Random(41)

    def values(share):
        return [(100 if draw.random() < share else 1) * draw.uniform(0.9, 1.1) for _ in range(30)]

    trials = [(values(0.0), values(0.3)) for _ in range(300)]
    assert sum(one(*trial).failed for trial in trials) >= 210
    assert sum(one(*trial, config={"tail_test": False}).failed for trial in trials) <= 60


def test_removing_outliers_does_not_remove_a_tail():
    """Three of a hundred values far outside are removed before the shift is estimated; thirty of two hundred are a tail and fail."""
    control = [10.0 + place % 7 for place in range(200)]
    one_out = one(control, [*control[:-1], 1e6], outliers="remove")
    assert (one_out.classification, one_out.experiment.count, one_out.control.count) == (Classification.PASS, 199, 200)
    tail = one(control, [*control[:-30], *[1e6] * 30], outliers="remove")
    assert tail.classification is Classification.HIGH


def test_small_samples_lose_no_outliers():
    """The fences never lie inside of the first and last percentile, which of few values are the ends."""
    assert one(EVEN, [*EVEN[:-1], 1e6], outliers="remove").experiment.count == 10


def test_what_is_allowed_does_not_fail():
    """Ten percent more of everything, and twenty are allowed."""
    tenth = [value * 1.1 + 3 for value in range(100, 120)]
    before = [float(value) for value in range(100, 120)]
    assert one(before, tenth).classification is Classification.HIGH
    assert one(before, tenth, allowed_increase=1.2).classification is Classification.PASS
    assert one(tenth, before, allowed_decrease=0.8).classification is Classification.PASS


def test_a_critical_metric_takes_the_score_from_a_critical_effect_on():
    """Twice as much is critical from 1.8 on, not from 3 on; it fails either way. Without a threshold and without a ratio it is critical."""
    assert one(EVEN, DOUBLE, critical=True, critical_increase=1.8).critical
    mild = one(EVEN, DOUBLE, critical=True, critical_increase=3)
    assert (mild.failed, mild.critical) == (True, False)
    assert one(DOUBLE, EVEN, critical=True, critical_decrease=0.6).critical
    assert not one(DOUBLE, EVEN, critical=True, critical_decrease=0.3).critical
    assert one(EVEN, DOUBLE, critical=True).critical
    assert one([0.0] * 10, EVEN, critical=True, critical_increase=3).critical
    assert not one(EVEN, DOUBLE).critical


def test_the_same_values_have_the_effect_of_none():
    """A ratio of one, and half of the pairs."""
    assert one(EVEN, EVEN).effect == 1.0
    assert one(EVEN, EVEN, effect="common_language").effect == 0.5


def test_the_common_language_effect_is_the_share_of_pairs():
    """Every doubled value is larger than every other: 1."""
    assert one(EVEN, DOUBLE, effect="common_language").effect == 1.0
    assert one(EVEN, DOUBLE, effect="common_language", allowed_increase=1.0).classification is Classification.HIGH


def test_without_a_ratio_the_interval_decides_alone():
    """Errors where there were none, and values below zero, have no ratio, and that excuses nothing."""
    none = one([0.0] * 10, [5.0, 6.0, 7.0, 6.0, 5.0, 6.0, 7.0, 5.0, 6.0, 5.0], allowed_increase=100)
    assert (none.classification, none.effect) == (Classification.HIGH, None)
    negative = one([-value for value in DOUBLE], [-value for value in EVEN])
    assert (negative.classification, negative.effect) == (Classification.HIGH, None)


def test_tiny_values_are_judged_as_large_ones():
    """Ratios of errors of a few in a million."""
    small = [[value * 1e-7 for value in series] for series in (EVEN, DOUBLE)]
    assert one(*small).classification is Classification.HIGH
    assert one(small[1], small[0]).classification is Classification.LOW


@pytest.mark.parametrize(
    ("control", "experiment", "expected", "words"),
    [
        ([], [], "nodata", "the control has 0 values"),
        (EVEN, [], "nodata", "the experiment has 0 values"),
        ([], EVEN, "nodata", "the control has 0 values"),
        (EVEN, [1.0] * 4, "nodata", "and 5 are needed"),
        (EVEN, [math.nan] * 10, "nodata", "the experiment has 0 values"),
        (EVEN, [math.nan, *EVEN], "pass", "same values"),
        (EVEN, [math.inf, *EVEN], "error", "the experiment has values that are infinite"),
        ([-math.inf, *EVEN], EVEN, "error", "the control has values that are infinite"),
        (EVEN, [1e200, *EVEN], "error", "beyond 1e+150"),
        ([3.0] * 10, [3.0] * 20, "pass", "same values"),
        (EVEN, EVEN[::-1], "pass", "same values"),
        ([3.0] * 10, [4.0] * 10, "high", "it is higher by 1"),
        ([3.0] * 10, [2.0] * 10, "low", "it is lower by 1"),
        ([0.0] * 10, [0.0] * 10, "pass", "same values"),
        (EVEN, EVEN * 3, "pass", "no difference that counts"),
        (EVEN, DOUBLE * 3, "high", "it is higher"),
        ([1e149] * 5, [-1e149] * 5, "low", "it is lower"),
        ([5e-324] * 5, [1e-323] * 5, "high", "it is higher"),
    ],
)
def test_no_ordinary_series_is_passed_by_accident(control, experiment, expected, words):
    """Each answer of the table in the module, with its reason."""
    result = one(control, experiment)
    assert result.classification == expected
    assert words in result.reason


def test_nan_can_be_taken_for_zero():
    """A count of errors that nobody reported."""
    silent = [math.nan] * 10
    assert one([0.0] * 10, silent, nan_strategy="zero").classification is Classification.PASS
    assert one([5.0, 6.0, 5.0, 7.0, 5.0], silent, nan_strategy="zero").classification is Classification.LOW
    assert one([], EVEN, nan_strategy="zero").classification is Classification.HIGH
    assert one(EVEN, [], nan_strategy="zero").classification is Classification.LOW
    assert one([], [0.0] * 5, nan_strategy="zero").classification is Classification.PASS
    assert one([], [3.0] * 4, nan_strategy="zero", critical=True).failed
    assert one([], [], nan_strategy="zero").classification is Classification.NODATA


def test_all_good_scores_one_hundred():
    """And passes."""
    judgement = many({"a": ("p", {}), "b": ("p", {})})
    assert (judgement.score, judgement.classification) == (100.0, Score.PASS)


def test_groups_are_scored_and_weighted():
    """A group of weight 80 with one of two, one of weight 20 with all: 60; the reason names who failed."""
    group = {"a": ("h", {"groups": ("x",)}), "b": ("p", {"groups": ("x",)}), "c": ("p", {"groups": ("y",)})}
    judgement = many(group, group_weights={"x": 80, "y": 20}, marginal_score=50)
    assert judgement.score == 60.0
    assert [(each.name, each.weight, each.score) for each in judgement.groups] == [("x", 80.0, 50.0), ("y", 20.0, 100.0)]
    assert judgement.classification is Score.MARGINAL
    assert judgement.reason == "score 60 is below 95, not below 50; failed: a"


def test_scores_have_two_digits():
    """Two of three."""
    assert many({"a": ("h", {}), "b": ("p", {}), "c": ("p", {})}).score == 66.67


def test_equal_thirds_of_the_weight_make_a_whole():
    """Rounding loses nothing of three groups that pass."""
    assert many({name: ("p", {"groups": (name,)}) for name in "abc"}, pass_score=100).classification is Score.PASS


def test_a_critical_metric_takes_the_whole_score():
    """Nineteen pass, one that is critical does not."""
    outcomes = {f"m{place}": ("p", {}) for place in range(19)} | {"errors": ("h", {"critical": True})}
    judgement = many(outcomes, marginal_score=0)
    assert (judgement.score, judgement.classification) == (0.0, Score.FAIL)
    assert judgement.reason == "critical metrics failed: errors is high"


def test_a_metric_without_data_is_left_out_unless_it_must_have_some():
    """Two of three have data and pass; the third fails when it must have data."""
    lenient = many({"a": ("p", {}), "b": ("p", {}), "c": ("-", {})})
    assert lenient.score == 100.0
    assert lenient.groups[0].counted == 2
    strict = many({"a": ("p", {}), "b": ("p", {}), "c": ("-", {"must_have_data": True})})
    assert strict.score == 66.67


@pytest.mark.parametrize("kind", ["n", "-"])
def test_a_critical_metric_without_data_stops_the_canary(kind):
    """Unless it counts what happens (``zero``), and nothing happened on either side: then it is left out."""
    blind = many({"a": ("p", {}), "b": ("p", {}), "c": (kind, {"critical": True})})
    assert (blind.score, blind.reason) == (0.0, "critical metrics failed: c is nodata")
    metrics = tuple(MetricConfig(name=name, critical=name == "c", nan_strategy="zero") for name in "abc")
    sets = [MetricSet("a", EVEN, EVEN), MetricSet("b", EVEN, EVEN)] + ([MetricSet("c", [], [])] if kind == "n" else [])
    assert judge(JudgeConfig(metrics=metrics), sets).score == 100.0


@pytest.mark.parametrize("kinds", ["-", "n", "pn", "pnn", "ppnn"])
def test_half_of_the_metrics_without_data_are_no_pass(kinds):
    """Whatever the others did."""
    judgement = many({f"m{place}": (kind, {}) for place, kind in enumerate(kinds)}, marginal_score=0)
    assert (judgement.score, judgement.classification) == (0.0, Score.FAIL)
    assert "have no data" in judgement.reason


def test_groups_of_half_the_weight_without_data_are_no_pass():
    """One metric of five has none, and half of the weight hangs on it."""
    outcomes = {f"m{place}": ("p", {"groups": ("light",)}) for place in range(4)} | {"slo": ("-", {"groups": ("heavy",)})}
    judgement = many(outcomes, group_weights={"heavy": 50})
    assert judgement.classification is Score.FAIL
    assert judgement.reason == "groups with 50 of 100 % of the weight have no data"
    assert many(outcomes, group_weights={"heavy": 40}).classification is Score.PASS


def test_muted_metrics_are_reported_and_do_not_count():
    """A muted failure, even a critical one, changes nothing; when all are muted nothing was judged, and that is no pass."""
    judgement = many({"a": ("p", {}), "b": ("h", {"muted": True, "critical": True})})
    assert judgement.score == 100.0
    assert judgement.results[1].classification is Classification.HIGH
    silent = many({"a": ("p", {"muted": True})})
    assert (silent.classification, silent.reason) == (Score.FAIL, "nothing was judged: every metric is muted")


def test_an_error_fails():
    """Infinity in one of two metrics: half of the score."""
    metrics = (MetricConfig(name="a"), MetricConfig(name="b"))
    judgement = judge(JudgeConfig(metrics=metrics), [MetricSet("a", EVEN, EVEN), MetricSet("b", EVEN, [math.inf] * 10)])
    assert judgement.score == 50.0


def test_a_metric_of_several_sets_is_judged_on_each():
    """Two regions of one metric, told apart by their ids."""
    config = JudgeConfig(metrics=(MetricConfig(name="a"),))
    judgement = judge(config, [MetricSet("a", EVEN, EVEN, "eu"), MetricSet("a", EVEN, DOUBLE, "us")])
    assert [(each.id, each.failed) for each in judgement.results] == [("eu", False), ("us", True)]
    assert judgement.score == 50.0


def test_sets_that_belong_nowhere_are_refused():
    """Unknown metrics, ids given twice, and what is no set, at once and with what was meant."""
    config = JudgeConfig(metrics=(MetricConfig(name="errors"),))
    sets = [MetricSet("error", EVEN, EVEN), MetricSet("errors", EVEN, EVEN), MetricSet("errors", EVEN, EVEN), None]
    with pytest.raises(ConfigurationError) as caught:
        judge(config, sets)
    assert [problem.path for problem in caught.value.problems] == ["sets.[0].metric", "sets.[2].id", "sets.[3]"]
    assert "did you mean 'errors'" in str(caught.value)


def test_equal_versions_seldom_fail():
    """Of 1,000 pairs from one distribution, interval and tail test together fail no more than their 4 %, and a little for chance."""
    draw = random.Random(21)
    failed = sum(
        one(*([draw.lognormvariate(0, 1) for _ in range(20)] for _ in "ab"), config={"tolerance": 0.0}).failed for _ in range(1000)
    )
    assert failed <= 55


def test_the_largest_series_are_judged_in_seconds():
    """Ten thousand values a side, all different, every test of them: a bound against a cost that grows with the pairs."""
    draw = random.Random(22)
    series = [[draw.random() for _ in range(10_000)] for _ in "ab"]
    began = time.process_time()
    assert one(*series).classification is Classification.PASS
    assert time.process_time() - began < 10
