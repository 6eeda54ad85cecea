"""A judge of metrics of two versions, in the manner of Kayenta: every metric is classified, every group scored, and the score says it.

A metric is *high* when the interval of its shift (:func:`somaresil.model.ranks.shift`) lies above ``tolerance`` times the estimate, and the
effect is at least what is allowed; *low* the other way round. Two things differ from Kayenta, on purpose:

- **the tail test**: where seven calls of ten take a hundred times as long and three are as before, the interval of the shift still reaches
  down to 0, and Kayenta passes it. Here so many values beyond nearly all of the other side fail the metric by themselves
  (:func:`somaresil.model.orderstats.exceedance`, beyond all values but none, a tenth and a quarter of them, all three together no more
  often wrong than ``confidence`` leaves);
- the ends of the interval are found to a millionth of the range of the values where that is finer than the 1e-4 of Kayenta, which is
  more than most error ratios are.

What is no ordinary series has an answer, and none of these is a pass by accident:

| series | answer |
|---|---|
| a side is empty, or has fewer than ``min_values`` | nodata; fails when ``must_have_data`` or ``critical`` |
| a side is empty, ``nan_strategy="zero"`` | as many zeros as the other side has values; nodata, and not critical, when both are |
| NaN | removed or 0, by ``nan_strategy``; nodata when nothing is left |
| infinity, or values beyond 1e150 | error, which fails |
| the same values on both sides, or one and the same value throughout | pass |
| both sides constant, with different values | high or low by the difference, if the effect says so |
| other numbers of values on the two sides | judged: the values are not paired |
| a metric that no set was given for | as if both sides were empty |
| half of the metrics or more, or groups of half of the weight, without data | score 0, fail |
| every metric muted | score 0, fail |
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from somaresil.canary.metrics import Direction, Effect, JudgeConfig, MetricConfig, MetricSet, NanStrategy, Outliers
from somaresil.config import Checker, did_you_mean
from somaresil.model import ranks
from somaresil.model.orderstats import exceedance

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Classification", "GroupScore", "Judgement", "MetricResult", "Score", "Summary", "classify", "judge"]

_LARGEST: Final = 1e150
_FINER: Final = 1e-6
"""Of the range of the values: how exactly the interval of the shift is found."""
_EXACT_PAIRS: Final = 400
"""Up to 20 values a side p-values are exact: nothing is decided by them, and a thousand metrics must not cost a minute."""
_SPARED: Final = (0, 10, 4)
"""For the tail test: none of the other side are spared, a tenth, and a quarter."""


class Classification(StrEnum):
    """What became of one metric."""

    PASS = "pass"  # noqa: S105 - no secret
    HIGH = "high"
    LOW = "low"
    NODATA = "nodata"
    ERROR = "error"


class Score(StrEnum):
    """What the summary score means."""

    PASS = "pass"  # noqa: S105 - no secret
    MARGINAL = "marginal"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Summary:
    """One side of a metric, after NaN and outliers. ``deviation`` is that of a sample (n - 1), 0 for a single value."""

    count: int
    least: float
    most: float
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What became of one set of values, and why."""

    metric: str
    id: str
    classification: Classification
    reason: str
    groups: tuple[str, ...]
    critical: bool
    """Whether it takes the whole score down if it failed."""
    must_have_data: bool
    muted: bool
    effect: float | None = None
    """The ratio of means or the common-language effect. None: there is none, and the interval decides alone."""
    shift: ranks.Shift | None = None
    p_value: float | None = None
    """Two-sided, of the test of Mann and Whitney: for the reader; nothing is decided by it."""
    control: Summary | None = None
    experiment: Summary | None = None

    @property
    def failed(self) -> bool:
        """Whether it counts against the experiment."""
        if self.classification is Classification.NODATA:
            return self.must_have_data or self.critical
        return self.classification is not Classification.PASS

    @property
    def counted(self) -> bool:
        """Whether it counts at all, for or against."""
        return not self.muted and (self.failed or self.classification is Classification.PASS)


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Which share of the metrics of a group passed, in percent. None: none of them had data."""

    name: str
    weight: float
    score: float | None
    passed: int
    counted: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """The score of a canary, from 0 to 100, what it means, and what it was made of."""

    score: float
    classification: Score
    reason: str
    results: tuple[MetricResult, ...]
    groups: tuple[GroupScore, ...]


def judge(config: JudgeConfig, sets: Sequence[MetricSet]) -> Judgement:
    """Judge every metric of ``config`` on its sets. Raises ``ConfigurationError`` for sets of unknown metrics and ids given twice."""
    names = [metric.name for metric in config.metrics]
    check = Checker("sets")
    seen: set[str] = set()
    for place, each in enumerate(sets):
        if not isinstance(each, MetricSet):
            check.problem(f"[{place}]", each, "a MetricSet")
            continue
        if each.metric not in names:
            check.problem(f"[{place}].metric", each.metric, "a metric of the configuration", did_you_mean(each.metric, names))
        if each.id in seen:
            check.problem(f"[{place}].id", each.id, "an id that no other set has", "sets of one metric are told apart by their ids")
        seen.add(each.id)
    check.finish()
    results: list[MetricResult] = []
    for metric in config.metrics:
        own = [each for each in sets if each.metric == metric.name]
        results += [classify(metric, each, config) for each in own] or [_missing(metric)]
    return _scored(config, tuple(results))


def classify(metric: MetricConfig, values: MetricSet, config: JudgeConfig) -> MetricResult:
    """What became of one metric. A set that cannot be judged is an *error*, which fails; it raises nothing."""
    nothing = replace(_missing(metric), id=values.id)
    if values.control or values.experiment:
        nothing = replace(nothing, critical=metric.critical)
    try:
        sides = {name: _cleaned(metric, series) for name, series in (("control", values.control), ("experiment", values.experiment))}
        for name, series in sides.items():
            if any(abs(value) > _LARGEST for value in series):
                reason = f"the {name} has values that are infinite or beyond {_LARGEST:g}"
                return replace(nothing, classification=Classification.ERROR, reason=reason)
        if metric.nan_strategy is NanStrategy.ZERO:
            most = max(map(len, sides.values()))
            sides = {name: series or [0.0] * most for name, series in sides.items()}
        for name, series in sides.items():
            if len(series) < metric.min_values:
                return replace(nothing, reason=f"the {name} has {len(series)} values, and {metric.min_values} are needed")
        return _compared(metric, nothing, sides["control"], sides["experiment"], config)
    except (ArithmeticError, ValueError) as defect:
        return replace(nothing, classification=Classification.ERROR, reason=f"it could not be judged: {defect}")


def _missing(metric: MetricConfig) -> MetricResult:
    """Nothing on either side. Of what is counted only when it happens, that is no reason to stop everything."""
    return MetricResult(
        metric=metric.name,
        id=metric.name,
        classification=Classification.NODATA,
        reason="no values were given",
        groups=metric.groups,
        critical=metric.critical and metric.nan_strategy is not NanStrategy.ZERO,
        must_have_data=metric.must_have_data,
        muted=metric.muted,
    )


def _cleaned(metric: MetricConfig, series: Sequence[float]) -> list[float]:
    if metric.nan_strategy is NanStrategy.ZERO:
        return [0.0 if math.isnan(value) else value for value in series]
    return [value for value in series if not math.isnan(value)]


def _compared(
    metric: MetricConfig, nothing: MetricResult, control: list[float], experiment: list[float], config: JudgeConfig
) -> MetricResult:
    before, after = control, experiment
    if metric.outliers is Outliers.REMOVE:
        before, after = (_without_outliers(series, metric.outlier_factor) for series in (control, experiment))
    measure = ranks.mean_ratio if metric.effect is Effect.MEAN_RATIO else ranks.common_language
    result = replace(nothing, control=_summary(before), experiment=_summary(after), effect=measure(after, before))
    if Counter(control) == Counter(experiment) or len({*control, *experiment}) == 1:
        return replace(result, classification=Classification.PASS, reason="both sides have the same values")
    moved = ranks.shift(after, before, config.confidence, tolerance=_fineness(after, before))
    result = replace(result, shift=moved, p_value=ranks.rank_test(after, before, exact=len(after) * len(before) <= _EXACT_PAIRS).p_value)
    limit = config.tolerance * abs(moved.estimate)
    found, why, effect = Classification.PASS, "", result.effect
    if moved.low > limit and _watched(metric, Direction.INCREASE) and _matters(metric, effect, Direction.INCREASE):
        found, why = Classification.HIGH, f"it is higher by {moved.estimate:.6g} ({moved.low:.6g} to {moved.high:.6g})"
    elif moved.high < -limit and _watched(metric, Direction.DECREASE) and _matters(metric, effect, Direction.DECREASE):
        found, why = Classification.LOW, f"it is lower by {-moved.estimate:.6g} ({-moved.high:.6g} to {-moved.low:.6g})"
    elif config.tail_test:
        # All values, outliers too: a few of them do not fail a metric, and a tail is made of nothing else.
        found, why, effect = _tails(metric, control, experiment, config)
    if found is Classification.PASS:
        within = f"the shift is {moved.estimate:.6g} ({moved.low:.6g} to {moved.high:.6g})"
        return replace(result, classification=found, reason=f"no difference that counts: {within}")
    why += "" if effect is None else f", effect {effect:.6g}"
    return replace(result, classification=found, reason=why, effect=effect, critical=_fatal(metric, effect, found))


def _fineness(after: list[float], before: list[float]) -> float:
    span = max(max(after) - min(before), max(before) - min(after))
    return min(ranks.ROOT_TOLERANCE, _FINER * span)


def _watched(metric: MetricConfig, direction: Direction) -> bool:
    return metric.direction in {direction, Direction.EITHER}


def _matters(metric: MetricConfig, effect: float | None, direction: Direction) -> bool:
    """Whether the effect is as large as what is not allowed. One that is not known excuses nothing."""
    if effect is None or metric.allowed_increase is None or metric.allowed_decrease is None:
        return True
    return effect >= metric.allowed_increase if direction is Direction.INCREASE else effect <= metric.allowed_decrease


def _fatal(metric: MetricConfig, effect: float | None, found: Classification) -> bool:
    """Whether this failure takes the whole score. An effect that is not known is no excuse here either."""
    limit = metric.critical_increase if found is Classification.HIGH else metric.critical_decrease
    if not metric.critical or effect is None or limit is None:
        return metric.critical
    return effect >= limit if found is Classification.HIGH else effect <= limit


def _tails(
    metric: MetricConfig, control: list[float], experiment: list[float], config: JudgeConfig
) -> tuple[Classification, str, float | None]:
    """Whether too many values lie beyond nearly all of the control, by an effect that counts."""
    spared = sorted({0 if not part else len(control) // part for part in _SPARED})
    alpha = (1.0 - config.confidence) / 2.0 / len(spared)
    for direction, sign, found in ((Direction.INCREASE, 1.0, Classification.HIGH), (Direction.DECREASE, -1.0, Classification.LOW)):
        if not _watched(metric, direction):
            continue
        before, after = (sorted(side, key=sign.__mul__) for side in (control, experiment))
        for spare in spared:
            beyond, chance = exceedance([sign * value for value in after], [sign * value for value in before], spared=spare)
            effect = _effect_without(metric, before, after, spare)
            if chance < alpha and _matters(metric, effect, direction):
                word = "above" if sign > 0 else "below"
                rest = "all of the control" if not spare else f"all but {spare} of the {len(control)} of the control"
                return found, f"{beyond} of its {len(experiment)} values lie {word} {rest} (by chance: {chance:.2g})", effect
    return Classification.PASS, "", None


def _effect_without(metric: MetricConfig, before: list[float], after: list[float], spare: int) -> float | None:
    """The effect in a tail. Means leave out the share that is spared, on both sides: the outlier of a control would excuse everything."""
    if metric.effect is Effect.COMMON_LANGUAGE:
        return ranks.common_language(after, before)
    return ranks.mean_ratio(after[: len(after) - spare * len(after) // len(before)], before[: len(before) - spare])


def _without_outliers(series: list[float], factor: float) -> list[float]:
    ordered = sorted(series)
    lower, upper = _percentile(ordered, 0.25), _percentile(ordered, 0.75)
    width = factor * (upper - lower)
    least, most = min(lower - width, _percentile(ordered, 0.01)), max(upper + width, _percentile(ordered, 0.99))
    return [value for value in series if least <= value <= most]


def _percentile(ordered: list[float], share: float) -> float:
    """At place ``share (n + 1)``, between two values in proportion, as Kayenta's library has it."""
    place = min(max(share * (len(ordered) + 1), 1.0), float(len(ordered)))
    below = math.floor(place)
    low, high = ordered[below - 1], ordered[min(below, len(ordered) - 1)]
    return low + (place - below) * (high - low)


def _summary(series: list[float]) -> Summary:
    count = len(series)
    mean = min(max(math.fsum(series) / count, min(series)), max(series))
    spread = math.hypot(*(value - mean for value in series)) / math.sqrt(count - 1) if count > 1 else 0.0
    return Summary(count=count, least=min(series), most=max(series), mean=mean, deviation=spread)


def _scored(config: JudgeConfig, results: tuple[MetricResult, ...]) -> Judgement:
    live = [each for each in results if not each.muted]
    groups = tuple(
        _group(name, config.group_weights[name], members)
        for name in config.group_weights
        if (members := [each for each in live if name in each.groups])
    )

    def said(score: float, meaning: Score, reason: str) -> Judgement:
        return Judgement(score=score, classification=meaning, reason=reason, results=results, groups=groups)

    fatal = [each for each in live if each.critical and each.failed]
    if fatal:
        named = ", ".join(f"{each.id} is {each.classification.value}" for each in fatal[:3])
        return said(0.0, Score.FAIL, f"critical metrics failed: {named}{' and others' if len(fatal) > 3 else ''}")  # noqa: PLR2004
    if not live:
        return said(0.0, Score.FAIL, "nothing was judged: every metric is muted")
    empty = len(live) - sum(each.counted for each in live)
    if 2 * empty >= len(live):
        return said(0.0, Score.FAIL, f"{empty} of {len(live)} metrics have no data")
    weight = math.fsum(each.weight for each in groups)
    known = math.fsum(each.weight for each in groups if each.score is not None)
    if 2.0 * known <= weight:
        return said(0.0, Score.FAIL, f"groups with {weight - known:g} of {weight:g} % of the weight have no data")
    score = round(math.fsum(each.weight * each.score for each in groups if each.score is not None) / known, 2)
    failed = [each.id for each in live if each.failed]
    detail = f"; failed: {', '.join(failed[:5])}{' and others' if len(failed) > 5 else ''}" if failed else ""  # noqa: PLR2004
    if score >= config.pass_score:
        return said(score, Score.PASS, f"score {score:g} reaches {config.pass_score:g}{detail}")
    if score >= config.marginal_score:
        return said(score, Score.MARGINAL, f"score {score:g} is below {config.pass_score:g}, not below {config.marginal_score:g}{detail}")
    return said(score, Score.FAIL, f"score {score:g} is below {config.marginal_score:g}{detail}")


def _group(name: str, weight: float, members: list[MetricResult]) -> GroupScore:
    counted = [each for each in members if each.counted]
    passed = sum(not each.failed for each in counted)
    return GroupScore(
        name=name, weight=weight, score=100.0 * passed / len(counted) if counted else None, passed=passed, counted=len(counted)
    )
