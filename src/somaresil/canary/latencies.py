"""A judge of the latencies of two versions by what their recorders counted: quantiles, each with an interval.

The interval of a quantile lies between two values of the sample whose ranks the binomial distribution gives
(:func:`somaresil.model.orderstats.quantile_ranks`); of a value only its bucket is known, so the interval is widened to the ends of its
buckets. The experiment is *high* when the whole interval lies above that of the control, times what is allowed. So a difference that the
buckets cannot show is none, and the bounds of the two sides may differ. However many quantiles are asked for, a difference is seen where
none is no more often than ``confidence`` leaves.

Too few calls for an interval are *nodata*: at the defaults 0.99 needs 637 calls a side. So are quantiles above the last bound,
since nobody knows how far above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from somaresil.canary.judge import Classification
from somaresil.canary.metrics import Direction
from somaresil.config import Checker
from somaresil.model.orderstats import quantile_ranks

if TYPE_CHECKING:
    from somaresil.outcome import Outcome
    from somaresil.recorder import Counts

__all__ = ["Interval", "Latencies", "LatencyJudgement", "QuantileResult", "judge_latencies"]

QUANTILES: Final = (0.5, 0.95, 0.99)
_MOST_BUCKETS: Final = 10_000
_MOST_QUANTILES: Final = 20
_MOST_CALLS: Final = 2**53
_LARGEST_RATIO: Final = 1e9
_WORST: Final = (Classification.HIGH, Classification.LOW, Classification.NODATA)


@dataclass(frozen=True, slots=True)
class Latencies:
    """How many calls ended in each bucket: ``bounds`` in seconds, ascending, and one count more, of what took longer than the last.

    A call belongs to the first bucket whose bound is not below its latency. Raises ``ConfigurationError`` with everything that is wrong.
    """

    bounds: Sequence[float]
    counts: Sequence[int]

    def __post_init__(self) -> None:
        """Check and normalise."""
        check = Checker("Latencies")
        bounds, counts = _listed(check, "bounds", self.bounds), _listed(check, "counts", self.counts)
        ends = [check.number(f"bounds[{place}]", bound, minimum=0.0) for place, bound in enumerate(bounds)]
        numbers = [check.count(f"counts[{place}]", count, minimum=0, maximum=_MOST_CALLS) for place, count in enumerate(counts)]
        if any(low >= high for low, high in pairwise(ends)):
            check.problem("bounds", f"{len(bounds)} bounds", "bounds that rise")
        if len(counts) != len(bounds) + 1:
            check.problem("counts", f"{len(counts)} counts", f"{len(bounds) + 1} counts, one more than bounds")
        check.finish()
        object.__setattr__(self, "bounds", tuple(ends))
        object.__setattr__(self, "counts", tuple(numbers))

    @classmethod
    def of(cls, reading: Counts, *outcomes: Outcome) -> Latencies:
        """What a recorder counted, of calls with one of ``outcomes``; any when none is named."""
        return cls(reading.bounds, reading.histogram(*outcomes))

    @property
    def total(self) -> int:
        """How many calls there are."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds between which a quantile lies: above ``low``, up to ``high``, which is infinite beyond the last bound."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class QuantileResult:
    """What became of one quantile. An interval is None where there are too few calls."""

    quantile: float
    classification: Classification
    reason: str
    control: Interval | None
    experiment: Interval | None


@dataclass(frozen=True, slots=True)
class LatencyJudgement:
    """The worst of the quantiles: one that is high or low, else one without data, else a pass."""

    classification: Classification
    reason: str
    quantiles: tuple[QuantileResult, ...]


def judge_latencies(
    control: Latencies,
    experiment: Latencies,
    *,
    quantiles: Sequence[float] = QUANTILES,
    direction: Direction | str = Direction.INCREASE,
    allowed_increase: float = 1.0,
    allowed_decrease: float = 1.0,
    confidence: float = 0.98,
) -> LatencyJudgement:
    """Whether the quantiles of ``experiment`` differ from those of ``control`` by more than these factors.

    A pass says that no difference was shown by enough calls. Raises ``ConfigurationError`` for arguments that are none.
    """
    check = Checker("judge_latencies")
    for name, side in (("control", control), ("experiment", experiment)):
        check.type(name, side, Latencies, "Latencies")
    asked = _listed(check, "quantiles", quantiles)
    if not 1 <= len(asked) <= _MOST_QUANTILES:
        check.problem("quantiles", f"{len(asked)} quantiles", f"1 to {_MOST_QUANTILES} quantiles")
    shares = [check.number(f"quantiles[{place}]", each, minimum=0.0, maximum=1.0, exclusive=True) for place, each in enumerate(asked)]
    way = check.one_of("direction", direction, tuple(Direction))
    more = check.number("allowed_increase", allowed_increase, minimum=1.0, maximum=_LARGEST_RATIO)
    less = check.number("allowed_decrease", allowed_decrease, minimum=0.0, maximum=1.0)
    sure = check.number("confidence", confidence, minimum=0.5, maximum=0.9999)
    check.finish()
    # Each interval may miss on two sides, and a difference is seen wrongly only when one of the two misses.
    each_sure = 1.0 - (1.0 - sure) / (2.0 * len(shares))
    results = tuple(
        _compared(share, _interval(control, share, each_sure), _interval(experiment, share, each_sure), way, (less, more))
        for share in shares
    )
    for kind in _WORST:
        for result in results:
            if result.classification is kind:
                return LatencyJudgement(kind, result.reason, results)
    return LatencyJudgement(Classification.PASS, "no difference was shown at any quantile", results)


def _interval(side: Latencies, quantile: float, confidence: float) -> Interval | None:
    found = quantile_ranks(side.total, quantile, confidence)
    if found is None:
        return None
    ends = (0.0, *side.bounds, math.inf)
    places = [next(place for place, seen in enumerate(accumulate(side.counts)) if seen >= rank) for rank in found]
    return Interval(low=ends[places[0]], high=ends[places[1] + 1])


def _compared(
    quantile: float, control: Interval | None, experiment: Interval | None, way: Direction, allowed: tuple[float, float]
) -> QuantileResult:
    def said(kind: Classification, reason: str) -> QuantileResult:
        return QuantileResult(quantile, kind, f"quantile {quantile:g}: {reason}", control, experiment)

    if control is None or experiment is None:
        side = "control" if control is None else "experiment"
        return said(Classification.NODATA, f"the {side} has too few calls for an interval")
    less, more = allowed
    shown = f"{experiment.low:g} to {experiment.high:g} s beside {control.low:g} to {control.high:g} s"
    # A value lies above the lower end of its bucket and up to the upper one, so equal ends are a difference.
    if way is not Direction.DECREASE and experiment.low >= control.high * more:
        return said(Classification.HIGH, f"it is higher, {shown}")
    if way is not Direction.INCREASE and experiment.high <= control.low * less:
        return said(Classification.LOW, f"it is lower, {shown}")
    blind = (math.isinf(control.high) and way is not Direction.DECREASE) or (math.isinf(experiment.high) and way is not Direction.INCREASE)
    if blind:
        return said(Classification.NODATA, f"it may lie above the last bound, {shown}")
    return said(Classification.PASS, f"no difference was shown, {shown}")


def _listed(check: Checker, name: str, value: object) -> tuple[object, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        check.problem(name, value, "a list of numbers")
        return ()
    if len(value) > _MOST_BUCKETS:
        check.problem(name, f"{len(value)} numbers", f"up to {_MOST_BUCKETS} numbers")
        return ()
    return tuple(value)
