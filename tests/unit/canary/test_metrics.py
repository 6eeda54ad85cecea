import math

import pytest

from somaresil.canary.metrics import Direction, JudgeConfig, MetricConfig, MetricSet
from somaresil.errors import ConfigurationError


def paths(caught):
    return {problem.path for problem in caught.value.problems}


def test_everything_wrong_with_a_metric_is_told_at_once():
    """One error, a path for each."""
    with pytest.raises(ConfigurationError) as caught:
        MetricConfig(
            name="",
            groups=("a", "\n"),
            direction="up",
            critical="yes",
            nan_strategy="drop",
            outliers="hide",
            outlier_factor=math.nan,
            effect="ratio",
            allowed_increase=0.9,
            allowed_decrease=1.1,
            min_values=0,
        )
    names = "name groups[1] direction critical nan_strategy outliers outlier_factor effect allowed_increase allowed_decrease min_values"
    assert paths(caught) == {f"MetricConfig.{name}" for name in names.split()}


def test_words_become_members():
    """What is compared by identity later is the member."""
    assert MetricConfig(name="errors", direction="increase").direction is Direction.INCREASE


def test_a_critical_effect_is_no_smaller_than_an_allowed_one():
    """Otherwise what is allowed would be critical."""
    with pytest.raises(ConfigurationError) as caught:
        MetricConfig(name="m", critical=True, allowed_increase=1.5, critical_increase=1.2, allowed_decrease=0.5, critical_decrease=0.8)
    assert paths(caught) == {"MetricConfig.critical_increase", "MetricConfig.critical_decrease"}


def test_a_critical_effect_of_what_is_not_critical_is_refused():
    """It would do nothing, and somebody relies on it."""
    with pytest.raises(ConfigurationError) as caught:
        MetricConfig(name="m", critical_increase=2)
    assert paths(caught) == {"MetricConfig.critical_increase"}


def test_the_common_language_effect_has_its_own_thresholds():
    """It lies between 0 and 1, and 0.5 is no effect."""
    metric = MetricConfig(name="m", effect="common_language")
    assert (metric.allowed_increase, metric.allowed_decrease) == (0.5, 0.5)
    with pytest.raises(ConfigurationError):
        MetricConfig(name="m", effect="common_language", allowed_increase=1.2)


def test_groups_without_weights_share_what_is_left():
    """60 is given, two groups share 40."""
    metrics = tuple(MetricConfig(name=name, groups=(name,)) for name in "abc")
    assert JudgeConfig(metrics=metrics, group_weights={"a": 60}).group_weights == {"a": 60.0, "b": 20.0, "c": 20.0}


@pytest.mark.parametrize(
    "weights",
    [{"a": 60, "b": 60}, {"a": 60, "b": 30}, {"a": 100}, {"a": 50, "z": 50}, {"a": -1}, {"a": math.nan}, {"a": "50"}, 7, {1: 3}],
    ids=["over 100", "under 100", "nothing left", "unknown group", "negative", "NaN", "text", "no mapping", "no name"],
)
def test_weights_under_which_something_would_not_count_are_refused(weights):
    """Whatever it is, its path says group_weights."""
    metrics = tuple(MetricConfig(name=name, groups=(name,)) for name in "ab")
    with pytest.raises(ConfigurationError) as caught:
        JudgeConfig(metrics=metrics, group_weights=weights)
    assert all("group_weights" in path for path in paths(caught))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"metrics": ()}, "metrics"),
        ({"metrics": "cpu"}, "metrics"),
        ({"metrics": (MetricConfig(name="a"), MetricConfig(name="a"))}, "metrics[1].name"),
        ({"metrics": ("a",)}, "metrics[0]"),
        ({"pass_score": 0}, "pass_score"),
        ({"pass_score": 70, "marginal_score": 75}, "marginal_score"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"confidence": 1.0}, "confidence"),
        ({"tail_test": None}, "tail_test"),
        ({"metrics": tuple(MetricConfig(name=f"m{i}", groups=tuple(f"g{i}.{j}" for j in range(20))) for i in range(11))}, "metrics"),
    ],
)
def test_what_no_score_can_be_made_of_is_refused(options, wrong):
    """Each at its path."""
    with pytest.raises(ConfigurationError) as caught:
        JudgeConfig(**{"metrics": (MetricConfig(name="a"),), **options})
    assert f"JudgeConfig.{wrong}" in paths(caught)


def test_values_are_kept_as_floats_with_what_is_no_number_among_them():
    """NaN and infinity are for the judge to answer."""
    values = MetricSet("m", [1, math.inf], (2.0, math.nan))
    assert values.control == (1.0, math.inf)
    assert math.isnan(values.experiment[1])
    assert values.id == "m"


@pytest.mark.parametrize("series", ["12", None, {1: 2}, [True], ["1"], [None], [10**400], [1.0] * 10_001, {1.0}])
def test_what_are_no_values_is_refused(series):
    """Text, None, flags, sets, numbers beyond floats, and too many."""
    with pytest.raises(ConfigurationError) as caught:
        MetricSet("m", [1.0], series)
    assert all(path.startswith("MetricSet.experiment") for path in paths(caught))
