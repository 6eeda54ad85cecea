"""Kayenta's own words: what it sends to a remote judge (``POST /judge``), and the ``CanaryJudgeResult`` that it reads back.

Kayenta can be told to leave judging to another service. It sends ``canaryConfig``, ``scoreThresholds`` and ``metricSetPairList``; what of
them matters to a judge is read here, and the rest (queries, scopes, templates) is passed over. Within ``analysisConfigurations.canary``
nothing is: a word that is not known there might have been the one that stops a bad canary.

Three answers differ from those of Kayenta's own judge, each to the safe side: the tail test (see :mod:`somaresil.canary.judge`;
``judgeConfigurations.tailTest`` puts it off); a metric with ``nanStrategy: replace`` and an empty side, which Kayenta passes whatever the
other side is, has zeros there; and a group without data, which Kayenta scores 100, is left out.

Everything that is wrong is told at once with its path, by ``ConfigurationError``; nothing of a body that is wrong is judged. NaN and
infinity come as Kayenta writes them, as words (``"NaN"``) or as numbers that JSON does not have; they are never written.

Limits: 8 MiB of text, 1,000 metrics, 2,000 pairs, 10,000 values a side and 200,000 together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from somaresil.canary.judge import Classification, Judgement, MetricResult, Score, Summary, judge
from somaresil.canary.metrics import MOST_METRICS, JudgeConfig, MetricConfig, MetricSet, text, texts
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError, Problem
from somaresil.model.ranks import MOST_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["JUDGE_NAME", "MOST_BYTES", "MOST_PAIRS", "MOST_TOGETHER", "Request", "answer", "parse", "read", "write"]

T = TypeVar("T")

JUDGE_NAME: Final = "somaresil"
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_PAIRS: Final = 2000
MOST_TOGETHER: Final = 200_000
_MOST_PROBLEMS: Final = 50
_MOST_TAGS: Final = 50
_MOST_CHOICES: Final = 100
_LONGEST_HINTED: Final = 200

_ABSENT: Final[Mapping[str, object]] = {}
_CANARY_KEYS: Final = ("critical", "direction", "effectSize", "mustHaveData", "muted", "nanStrategy", "outliers")
_EFFECT_KEYS: Final = ("allowedDecrease", "allowedIncrease", "criticalDecrease", "criticalIncrease", "measure")
_OUTLIER_KEYS: Final = ("outlierFactor", "strategy")
_NAN: Final = {"remove": "remove", "replace": "zero"}
_MEASURES: Final = {"meanRatio": "mean_ratio", "cles": "common_language"}
_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_METRIC: Final = {
    Classification.PASS: "Pass",
    Classification.HIGH: "High",
    Classification.LOW: "Low",
    Classification.NODATA: "Nodata",
    Classification.ERROR: "Error",
}
_SCORE: Final = {Score.PASS: "Pass", Score.MARGINAL: "Marginal", Score.FAIL: "Fail"}


@dataclass(frozen=True, slots=True)
class Request:
    """A body of ``POST /judge``, in our words. ``tags`` are those of each pair by its id, to be sent back."""

    config: JudgeConfig
    sets: tuple[MetricSet, ...]
    tags: Mapping[str, Mapping[str, str]]


def answer(body: object) -> dict[str, Any]:
    """Judge a parsed body, and say so in Kayenta's words. Raises ``ConfigurationError`` for a body that is wrong."""
    request = read(body)
    return write(judge(request.config, request.sets), request.tags)


def parse(raw: bytes) -> object:
    """The body of a request as Python has it. Raises ``ConfigurationError`` when it is too long or no JSON."""
    problem: Problem
    if len(raw) > MOST_BYTES:
        problem = Problem("body", f"{len(raw)} bytes", f"up to {MOST_BYTES} bytes")
    else:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as defect:
            problem = Problem("body", type(defect).__name__, "JSON")
    raise ConfigurationError([problem])


def read(body: object) -> Request:
    """Read a parsed body. Raises ``ConfigurationError`` with the first fifty things that are wrong."""
    check = Checker()
    whole = _object(check, "body", body)
    config = _config(check, whole)
    sets, tags = _sets(check, whole.get("metricSetPairList"), config)
    if check.problems or config is None:
        raise ConfigurationError(check.problems[:_MOST_PROBLEMS])
    return Request(config, sets, tags)


def write(judgement: Judgement, tags: Mapping[str, Mapping[str, str]] = {}) -> dict[str, Any]:
    """A ``CanaryJudgeResult``. It has no NaN, no infinity and no null."""
    return {
        "judgeName": JUDGE_NAME,
        "results": [_result(each, tags.get(each.id, {})) for each in judgement.results],
        "groupScores": [
            {
                "name": each.name,
                "score": 0.0 if each.score is None else round(each.score, 2),
                "classification": "Nodata" if each.score is None else "",
                "classificationReason": f"{each.passed} of {each.counted} metrics passed",
            }
            for each in judgement.groups
        ],
        "score": {
            "score": judgement.score,
            "classification": _SCORE[judgement.classification],
            "classificationReason": judgement.reason,
        },
    }


def _result(result: MetricResult, tags: Mapping[str, str]) -> dict[str, Any]:
    kind = _METRIC[result.classification]
    if result.classification is Classification.NODATA and result.must_have_data and not result.critical:
        kind = "NodataFailMetric"
    return {
        "name": result.metric,
        "id": result.id,
        "tags": dict(tags),
        "classification": kind,
        "classificationReason": result.reason,
        "groups": list(result.groups),
        "experimentMetadata": {"stats": _stats(result.experiment)},
        "controlMetadata": {"stats": _stats(result.control)},
        "resultMetadata": {} if result.effect is None else {"ratio": result.effect},
        "critical": result.critical,
        "muted": result.muted,
    }


def _stats(side: Summary | None) -> dict[str, Any]:
    if side is None:
        return {"count": 0}
    return {"count": side.count, "mean": side.mean, "min": side.least, "max": side.most, "std": side.deviation}


def _config(check: Checker, whole: Mapping[str, object]) -> JudgeConfig | None:
    canary = _object(check, "canaryConfig", whole.get("canaryConfig"))
    thresholds = _object(check, "scoreThresholds", whole.get("scoreThresholds"))
    listed = _list(check, "canaryConfig.metrics", canary.get("metrics"), MOST_METRICS)
    metrics = [_metric(check, f"canaryConfig.metrics[{place}]", each) for place, each in enumerate(listed)]
    own = _object(check, "canaryConfig.judge", canary.get("judge"), optional=True)
    settings = _object(check, "canaryConfig.judge.judgeConfigurations", own.get("judgeConfigurations"), optional=True)
    classifier = _object(check, "canaryConfig.classifier", canary.get("classifier"), optional=True)
    weights = _object(check, "canaryConfig.classifier.groupWeights", classifier.get("groupWeights"), optional=True)
    return _made(
        check,
        {
            "metrics": "canaryConfig.metrics",
            "group_weights": "canaryConfig.classifier.groupWeights",
            "pass_score": "scoreThresholds.pass",
            "marginal_score": "scoreThresholds.marginal",
            "tail_test": "canaryConfig.judge.judgeConfigurations.tailTest",
        },
        JudgeConfig,
        metrics=tuple(each for each in metrics if each is not None),
        group_weights=weights,
        pass_score=thresholds.get("pass"),
        marginal_score=thresholds.get("marginal"),
        tail_test=settings.get("tailTest", True),
    )


def _metric(check: Checker, path: str, value: object) -> MetricConfig | None:
    metric = _object(check, path, value)
    analysis = _object(check, f"{path}.analysisConfigurations", metric.get("analysisConfigurations"), optional=True)
    inner = f"{path}.analysisConfigurations.canary"
    canary = _object(check, inner, analysis.get("canary"), optional=True, keys=_CANARY_KEYS)
    effect = _object(check, f"{inner}.effectSize", canary.get("effectSize"), optional=True, keys=_EFFECT_KEYS)
    outliers = _object(check, f"{inner}.outliers", canary.get("outliers"), optional=True, keys=_OUTLIER_KEYS)
    direction = canary.get("direction")
    measure = effect.get("measure")
    return _made(
        check,
        {
            "name": f"{path}.name",
            "groups": f"{path}.groups",
            "direction": f"{inner}.direction",
            "critical": f"{inner}.critical",
            "must_have_data": f"{inner}.mustHaveData",
            "muted": f"{inner}.muted",
            "outliers": f"{inner}.outliers.strategy",
            "outlier_factor": f"{inner}.outliers.outlierFactor",
            "allowed_increase": f"{inner}.effectSize.allowedIncrease",
            "allowed_decrease": f"{inner}.effectSize.allowedDecrease",
            "critical_increase": f"{inner}.effectSize.criticalIncrease",
            "critical_decrease": f"{inner}.effectSize.criticalDecrease",
        },
        MetricConfig,
        name=metric.get("name"),
        groups=texts(check, f"{path}.groups", metric.get("groups") or ()),
        direction="either" if direction is None else str(_brief(direction)).casefold(),
        critical=_flag(canary, "critical"),
        must_have_data=_flag(canary, "mustHaveData"),
        muted=_flag(canary, "muted"),
        nan_strategy=_NAN[check.one_of(f"{inner}.nanStrategy", _brief(canary.get("nanStrategy") or "remove"), tuple(_NAN))],
        outliers=_brief(outliers.get("strategy") or "keep"),
        outlier_factor=3.0 if outliers.get("outlierFactor") is None else outliers["outlierFactor"],
        effect=_MEASURES[check.one_of(f"{inner}.effectSize.measure", _brief(measure or "meanRatio"), tuple(_MEASURES))],
        allowed_increase=effect.get("allowedIncrease"),
        allowed_decrease=effect.get("allowedDecrease"),
        # Kayenta sends them with metrics that are not critical, and then they mean nothing.
        critical_increase=effect.get("criticalIncrease") if canary.get("critical") else None,
        critical_decrease=effect.get("criticalDecrease") if canary.get("critical") else None,
        min_values=1,  # Kayenta knows no other; what few values show is told by its reason
    )


def _made(check: Checker, paths: Mapping[str, str], build: Callable[..., T], **options: object) -> T | None:
    """What ``build`` makes of the options; None, with its problems at their places in the body, when they are wrong."""
    try:
        return build(**options)
    except ConfigurationError as wrong:
        for each in wrong.problems:
            name = each.path.partition(".")[2]
            first = name.partition("[")[0].partition(".")[0]
            check.problem(paths.get(first, first) + name[len(first) :], each.value, each.allowed, each.hint)
        return None


def _sets(check: Checker, value: object, config: JudgeConfig | None) -> tuple[tuple[MetricSet, ...], dict[str, Mapping[str, str]]]:
    known = None if config is None else [metric.name for metric in config.metrics]
    found: list[MetricSet] = []
    tags: dict[str, Mapping[str, str]] = {}
    together = 0
    for place, each in enumerate(_list(check, "metricSetPairList", value, MOST_PAIRS)):
        path = f"metricSetPairList[{place}]"
        pair = _object(check, path, each)
        name = text(check, f"{path}.name", pair.get("name"))
        identity = name if pair.get("id") is None else text(check, f"{path}.id", pair["id"])
        if known is not None and name not in known:
            check.problem(f"{path}.name", name, "the name of a metric in canaryConfig.metrics", _near(check, name, known))
        if identity in tags:
            check.problem(f"{path}.id", identity, "an id that no other pair has")
        values = _object(check, f"{path}.values", pair.get("values"))
        sides = [_values(check, f"{path}.values.{side}", values.get(side)) for side in ("control", "experiment")]
        together += sum(map(len, sides))
        if together > MOST_TOGETHER:
            check.problem("metricSetPairList", f"more than {MOST_TOGETHER} values", f"up to {MOST_TOGETHER} values together")
            break
        tags[identity] = _tags(check, f"{path}.tags", pair.get("tags"))
        found.append(MetricSet(metric=name, control=sides[0], experiment=sides[1], id=identity))
    return tuple(found), tags


def _values(check: Checker, path: str, value: object) -> list[float]:
    """Numbers, and what Kayenta writes for those that JSON has no word for. None is a value that is not there: NaN."""
    read_values: list[float] = []
    for place, each in enumerate(_list(check, path, value, MOST_VALUES)):
        if each is None:
            number: float | None = math.nan
        elif isinstance(each, str):
            number = _WORDS.get(each)
        elif isinstance(each, (int, float)) and not isinstance(each, bool):
            number = _float(each)
        else:
            number = None
        if number is None:
            check.problem(f"{path}[{place}]", each[:_MOST_TAGS] if isinstance(each, str) else each, 'a number, "NaN", "Infinity", null')
            break
        read_values.append(number)
    return read_values


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _tags(check: Checker, path: str, value: object) -> dict[str, str]:
    given = _object(check, path, value, optional=True)
    if len(given) > _MOST_TAGS:
        check.problem(path, f"{len(given)} tags", f"up to {_MOST_TAGS} tags")
        return {}
    return {text(check, path, name): text(check, f"{path}.{name[:_MOST_TAGS]}", tag) for name, tag in given.items()}


def _object(check: Checker, path: str, value: object, *, optional: bool = False, keys: Sequence[str] | None = None) -> Mapping[str, object]:
    if value is None and optional:
        return _ABSENT
    if not isinstance(value, Mapping):
        check.problem(path, _brief(value), "a JSON object")
        return _ABSENT
    given = cast("Mapping[str, object]", value)
    if keys is not None:
        for name in list(given)[:_MOST_TAGS]:
            if name not in keys:
                check.problem(f"{path}.{str(name)[:_MOST_TAGS]}", _brief(given[name]), " | ".join(keys), _near(check, name, keys))
    return given


def _list(check: Checker, path: str, value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list):
        check.problem(path, _brief(value), "a JSON array")
        return ()
    if len(value) > most:
        check.problem(path, f"{len(value)} elements", f"up to {most} elements")
        return ()
    return cast("list[object]", value)


def _near(check: Checker, name: str, choices: Sequence[str]) -> str:
    """What was meant, perhaps; a body with many mistakes, long names or many choices does not get the work done."""
    if len(check.problems) > _MOST_PROBLEMS or len(name) > _LONGEST_HINTED or len(choices) > _MOST_CHOICES:
        return ""
    return did_you_mean(name, choices)


def _flag(given: Mapping[str, object], name: str) -> object:
    found = given.get(name)
    return False if found is None else found


def _brief(value: object) -> object:
    return value[:_MOST_TAGS] if isinstance(value, str) else value if isinstance(value, (int, float, bool)) else type(value).__name__
