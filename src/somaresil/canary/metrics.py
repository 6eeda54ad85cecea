"""What a judge is asked: metrics and how each is to be judged, and the values of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from somaresil.config import Checker
from somaresil.model.ranks import MOST_VALUES

__all__ = ["Direction", "Effect", "JudgeConfig", "MetricConfig", "MetricSet", "NanStrategy", "Outliers"]

LONGEST_TEXT: Final = 200
"""Characters in a name of a metric, a group or a set."""
MOST_METRICS: Final = 1000
MOST_GROUPS: Final = 20
"""Groups of one metric."""
MOST_WEIGHTS: Final = 200
"""Groups of all metrics together."""
UNGROUPED: Final = "ungrouped"
"""The group of metrics that name none."""
_HUNDRED: Final = 100.0
_ROUNDING: Final = 1e-6
_LARGEST_RATIO: Final = 1e9


class Direction(StrEnum):
    """In which direction a metric must not move."""

    INCREASE = "increase"
    DECREASE = "decrease"
    EITHER = "either"


class NanStrategy(StrEnum):
    """What NaN is taken for: no value, or 0 (as for a count that nobody reported)."""

    REMOVE = "remove"
    ZERO = "zero"


class Outliers(StrEnum):
    """What becomes of values far outside: they are kept, or removed before the shift is estimated. The tail test sees them all."""

    KEEP = "keep"
    REMOVE = "remove"


class Effect(StrEnum):
    """How the size of a difference is told: by the ratio of the means, or by how likely a value of the experiment is the larger one."""

    MEAN_RATIO = "mean_ratio"
    COMMON_LANGUAGE = "common_language"


_NEUTRAL: Final = {Effect.MEAN_RATIO: 1.0, Effect.COMMON_LANGUAGE: 0.5}
_LARGEST: Final = {Effect.MEAN_RATIO: _LARGEST_RATIO, Effect.COMMON_LANGUAGE: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricConfig:
    """How one metric is judged. Raises ``ConfigurationError`` with everything that is wrong.

    - ``direction``: what must not happen: ``"increase"``, ``"decrease"`` or ``"either"``;
    - ``critical``: if it fails or has no data, the whole score is 0;
    - ``must_have_data``: without data it fails; otherwise it is left out of the score;
    - ``muted``: it is judged and reported, and does not count;
    - ``nan_strategy``: NaN is removed, or taken for 0 (``"zero"``), and so is a whole side that is empty while the other is not. When
      both are empty nothing is known of it either way, and then it is not critical;
    - ``outliers``: kept, or removed outside of ``outlier_factor`` interquartile ranges from the quartiles (fences that are never inside
      of the 1st and the 99th percentile, so small samples lose nothing);
    - ``effect`` with ``allowed_increase`` and ``allowed_decrease``: a difference is held against the experiment only when the effect is at
      least, or at most, this. None: 1.0 for the ratio of means, 0.5 for the common-language effect, which holds any difference against it;
    - ``critical_increase``, ``critical_decrease``: a critical metric that is high or low takes the whole score only by an effect of at
      least, or at most, this. None: by any that is held against it;
    - ``min_values``: with fewer values on a side there is no data. Five a side are the fewest of which a rank test can say anything with
      98 % confidence.
    """

    name: str
    groups: tuple[str, ...] = ()
    direction: Direction | str = "either"
    critical: bool = False
    must_have_data: bool = False
    muted: bool = False
    nan_strategy: NanStrategy | str = "remove"
    outliers: Outliers | str = "keep"
    outlier_factor: float = 3.0
    effect: Effect | str = "mean_ratio"
    allowed_increase: float | None = None
    allowed_decrease: float | None = None
    critical_increase: float | None = None
    critical_decrease: float | None = None
    min_values: int = 5

    def __post_init__(self) -> None:
        """Check and normalise."""
        check = Checker("MetricConfig")
        text(check, "name", self.name)
        groups = texts(check, "groups", self.groups) or (UNGROUPED,)
        effect = check.one_of("effect", self.effect, tuple(Effect))
        for name in ("critical", "must_have_data", "muted"):
            check.type(name, getattr(self, name), bool, "True or False")
        increase, decrease = self._thresholds(check, effect)
        _put(
            self,
            groups=groups,
            direction=check.one_of("direction", self.direction, tuple(Direction)),
            nan_strategy=check.one_of("nan_strategy", self.nan_strategy, tuple(NanStrategy)),
            outliers=check.one_of("outliers", self.outliers, tuple(Outliers)),
            outlier_factor=check.number("outlier_factor", self.outlier_factor, minimum=0.0, maximum=_LARGEST_RATIO),
            effect=effect,
            allowed_increase=increase,
            allowed_decrease=decrease,
            min_values=check.count("min_values", self.min_values, maximum=MOST_VALUES),
        )
        check.finish()

    def _thresholds(self, check: Checker, effect: Effect) -> tuple[float, float]:
        neutral, largest = _NEUTRAL[effect], _LARGEST[effect]
        increase = decrease = neutral
        if self.allowed_increase is not None:
            increase = check.number("allowed_increase", self.allowed_increase, minimum=neutral, maximum=largest)
        if self.allowed_decrease is not None:
            decrease = check.number("allowed_decrease", self.allowed_decrease, minimum=0.0, maximum=neutral)
        for name in ("critical_increase", "critical_decrease"):
            if getattr(self, name) is not None and not self.critical:
                check.problem(name, getattr(self, name), "None for a metric that is not critical", "set critical=True")
        if self.critical_increase is not None:
            _put(self, critical_increase=check.number("critical_increase", self.critical_increase, minimum=increase, maximum=largest))
        if self.critical_decrease is not None:
            _put(self, critical_decrease=check.number("critical_decrease", self.critical_decrease, minimum=0.0, maximum=decrease))
        return increase, decrease


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """What is judged, and what the score must be. Raises ``ConfigurationError`` with everything that is wrong.

    - ``group_weights``: in percent; groups that have none share what is left to 100 equally;
    - ``pass_score``, ``marginal_score``: the least scores, of 100, that pass and that are marginal;
    - ``tolerance``: a shift counts when its interval lies beyond this share of its estimate;
    - ``confidence``: of the interval and, by its complement, of the tail test;
    - ``tail_test``: whether a part of the values far outside fails a metric although most of them are as before.
    """

    metrics: tuple[MetricConfig, ...]
    group_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    pass_score: float = 95.0
    marginal_score: float = 75.0
    tolerance: float = 0.25
    confidence: float = 0.98
    tail_test: bool = True

    def __post_init__(self) -> None:
        """Check and normalise."""
        check = Checker("JudgeConfig")
        metrics = tuple(check.type("metrics", self.metrics, (tuple, list), "a list of MetricConfig"))
        if not 1 <= len(metrics) <= MOST_METRICS:
            check.problem("metrics", len(metrics), f"1 to {MOST_METRICS} metrics")
        seen: set[str] = set()
        for place, metric in enumerate(metrics):
            if not isinstance(metric, MetricConfig):
                check.problem(f"metrics[{place}]", metric, "a MetricConfig")
            elif metric.name in seen:
                check.problem(f"metrics[{place}].name", metric.name, "a name that no other metric has")
            else:
                seen.add(metric.name)
        sound = len(check.problems)
        passing = check.number("pass_score", self.pass_score, minimum=0.0, maximum=_HUNDRED)
        if not passing:
            check.problem("pass_score", self.pass_score, "a score above 0", "whatever the canary did would pass")
        # A pass_score that is wrong says nothing about the other.
        highest = passing if len(check.problems) == sound else _HUNDRED
        _put(
            self,
            metrics=metrics,
            group_weights=self._weights(check, [each for each in metrics if isinstance(each, MetricConfig)]),
            pass_score=passing,
            marginal_score=check.number("marginal_score", self.marginal_score, minimum=0.0, maximum=highest),
            tolerance=check.number("tolerance", self.tolerance, minimum=0.0, maximum=1.0),
            confidence=check.number("confidence", self.confidence, minimum=0.5, maximum=0.9999),
            tail_test=check.type("tail_test", self.tail_test, bool, "True or False"),
        )
        check.finish()

    def _weights(self, check: Checker, metrics: list[MetricConfig]) -> dict[str, float]:
        """The weight of every group; what is not given is shared out."""
        if not isinstance(self.group_weights, Mapping):
            check.problem("group_weights", self.group_weights, "weights by group")
            return {}
        groups = list(dict.fromkeys(group for metric in metrics for group in metric.groups))
        for name, many in (("metrics", len(groups)), ("group_weights", len(self.group_weights))):
            if many > MOST_WEIGHTS:
                check.problem(name, f"{many} groups", f"up to {MOST_WEIGHTS} groups together")
                return {}
        given: dict[str, float] = {}
        for name, weight in self.group_weights.items():
            path = f"group_weights[{str(name)[:LONGEST_TEXT]!r}]"
            if name not in groups:
                check.problem(path, weight, "the weight of a group that a metric names", ", ".join(groups)[:LONGEST_TEXT])
            given[name] = check.number(path, weight, minimum=0.0, maximum=_HUNDRED)
        total = sum(given.values())
        missing = [group for group in groups if group not in given]
        if total > _HUNDRED + _ROUNDING or (given and not missing and total < _HUNDRED - _ROUNDING):
            check.problem("group_weights", total, "weights that add up to 100")
        elif missing and total > _HUNDRED - _ROUNDING:
            check.problem("group_weights", total, f"something left for {', '.join(missing)[:LONGEST_TEXT]}", "it would not count at all")
        return {group: given.get(group, (_HUNDRED - total) / max(1, len(missing))) for group in groups}


@dataclass(frozen=True, slots=True)
class MetricSet:
    """The values of one metric on both sides, for example one a minute. Their numbers may differ: they are not paired.

    NaN and infinity may be among them: the judge has an answer to each. A metric may have several sets (one a region, say), told apart by
    ``id``, which is the name of the metric unless given. At most 10,000 values a side.
    """

    metric: str
    control: Sequence[float]
    experiment: Sequence[float]
    id: str = ""

    def __post_init__(self) -> None:
        """Check and normalise."""
        check = Checker("MetricSet")
        text(check, "metric", self.metric)
        identity = self.id or self.metric
        if self.id:
            text(check, "id", self.id)
        _put(
            self,
            id=identity,
            control=numbers(check, "control", self.control),
            experiment=numbers(check, "experiment", self.experiment),
        )
        check.finish()


def text(check: Checker, name: str, value: object) -> str:
    """A name as people write them: 1 to 200 printable characters."""
    if isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable() and value.strip():
        return value
    check.problem(name, value if not isinstance(value, str) else value[:LONGEST_TEXT], f"1 to {LONGEST_TEXT} printable characters")
    return "unnamed"


def texts(check: Checker, name: str, value: object) -> tuple[str, ...]:
    """Up to 20 names, each once."""
    if not isinstance(value, (tuple, list)) or len(value) > MOST_GROUPS:
        check.problem(name, value, f"a list of up to {MOST_GROUPS} names")
        return ()
    return tuple(dict.fromkeys(text(check, f"{name}[{place}]", each) for place, each in enumerate(value)))


def numbers(check: Checker, name: str, value: object) -> tuple[float, ...]:
    """Numbers, NaN and infinity among them."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        check.problem(name, value, "a list of numbers")
        return ()
    if len(value) > MOST_VALUES:
        check.problem(name, f"{len(value)} values", f"up to {MOST_VALUES} values")
        return ()
    found: list[float] = []
    for place, each in enumerate(value):
        number = _number(each)
        if number is None:
            check.problem(f"{name}[{place}]", each, "a number")
            break  # one of ten thousand says enough
        found.append(number)
    return tuple(found)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _put(target: object, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(target, name, value)
