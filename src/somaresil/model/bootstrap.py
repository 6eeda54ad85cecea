"""How sure a ratio of two quantiles is: the bootstrap, without drawing.

Of a bootstrap sample (as many values as were seen, drawn from them with replacement) the ``r``-th smallest is at most the ``j``-th value
that was seen just when ``r`` or more of ``n`` draws fell among the first ``j``. So the bootstrap distribution of a quantile is a binomial
tail, known exactly, and that of the ratio of two independent quantiles follows by adding up. There is no seed, no number of resamples,
and no noise of either: it is what endless resampling would come to.

Sources: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979), section 3 (the median); A. D. Hutson
and M. D. Ernst, "The exact bootstrap mean and variance of an L-estimator", Journal of the Royal Statistical Society B 62 (2000). The
interval is the percentile one: quantiles commute with every rising transformation, and so does it.

How often such an interval holds the true ratio is measured by ``benchmarks/detector_truth.py``: with equal samples no less often than is
asked as long as some values lie beyond the quantile. Where a side has fewer than two there, no resample knows what lies beyond the
largest value; :func:`ratio_bounds` holds at least as often as is asked for any distribution, by two intervals between order statistics,
and is wider.

Promises: a scale of both samples changes nothing, a scale of one scales the interval. Values are finite and not negative
(``ValueError``); a ratio to zero is infinite.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from somaresil.model.beta import incomplete_beta
from somaresil.model.orderstats import quantile_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["LARGEST", "bootstrap_ratio", "quantile_of", "ratio_bounds"]

LARGEST: Final = 1e150
"""Values above this, and above zero but below its inverse, have no ratio that a float could hold."""
_DEVIATIONS: Final = 8.0
"""Beyond so many standard deviations no rank has a share that a float would notice."""
_HALVINGS: Final = 48
_MEDIAN: Final = 0.5
_CLOSE: Final = 1e-12


def quantile_of(ordered: Sequence[float], quantile: float) -> float:
    """The quantile of values in rising order: the value of the nearest rank, for the median of an even number the mean of two."""
    low, high = _places(len(ordered), quantile)
    return ordered[low - 1] + (ordered[high - 1] - ordered[low - 1]) / 2.0


def bootstrap_ratio(x: Sequence[float], y: Sequence[float], quantile: float = 0.5, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the quantile of ``x`` divided by that of ``y``: the percentiles of its bootstrap distribution."""
    first, second = _sorted(x), _sorted(y)
    _check(quantile, confidence)
    reached = [0.0, *accumulate(_weights(len(first), quantile))]
    pieces = [piece for piece in zip(second, _weights(len(second), quantile), strict=True) if piece[1] > 0.0]

    def at_most(ratio: float) -> float:
        """P(X* <= ratio Y*)."""
        return math.fsum(weight * reached[bisect_right(first, ratio * value)] for value, weight in pieces)

    tail = (1.0 - confidence) / 2.0
    return _inverse(at_most, tail, first, second), _inverse(at_most, 1.0 - tail, first, second)


def ratio_bounds(x: Sequence[float], y: Sequence[float], quantile: float = 0.5, confidence: float = 0.95) -> tuple[float, float] | None:
    """An interval for the ratio of two quantiles that holds it *at least* as often as ``confidence`` says, for any distribution.

    Each quantile lies between two values of its sample (:func:`somaresil.model.orderstats.quantile_ranks`), and both do so together as
    often as is asked. None: a side has too few values.
    """
    first, second = _sorted(x), _sorted(y)
    _check(quantile, confidence)
    # Both miss independently of one another, so each may miss a little more than half of what is left.
    each = math.sqrt(confidence)
    own, other = quantile_ranks(len(first), quantile, each), quantile_ranks(len(second), quantile, each)
    if own is None or other is None:
        return None
    return _divided(first[own[0] - 1], second[other[1] - 1]), _divided(first[own[1] - 1], second[other[0] - 1])


def _inverse(at_most: Callable[[float], float], aim: float, first: Sequence[float], second: Sequence[float]) -> float:
    """The least ratio that is reached with probability ``aim``: one of the ratios of two values, or infinity."""
    if at_most(0.0) >= aim:
        return 0.0
    above, below = next((value for value in first if value > 0.0), 0.0), next((value for value in second if value > 0.0), 0.0)
    if not above or not below:
        return math.inf
    low, high = math.log(above) - math.log(second[-1]) - 1.0, math.log(first[-1]) - math.log(below) + 1.0
    if at_most(math.exp(high)) < aim:
        return math.inf
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if at_most(math.exp(middle)) >= aim:
            high = middle
        else:
            low = middle
    # So narrow, it holds one ratio (or some that are equal but for rounding): that one is the end, not a number beside it.
    for value in second:
        place = bisect_right(first, math.exp(low) * value)
        if place < len(first) and 0.0 < first[place] <= math.exp(high) * value:
            return first[place] / value
    return math.exp(high)


def _weights(count: int, quantile: float) -> list[float]:
    """How likely each of the values in rising order is to be the quantile of a bootstrap sample."""
    low, high = _places(count, quantile)
    weights = list(_rank_weights(count, low))
    return weights if low == high else [(one + other) / 2.0 for one, other in zip(weights, _rank_weights(count, high), strict=True)]


@lru_cache(maxsize=64)
def _rank_weights(count: int, rank: int) -> tuple[float, ...]:
    reach = _DEVIATIONS * (1.0 + math.sqrt(rank * (count - rank) / count))
    reached = [
        0.0 if place < rank - reach else 1.0 if place > rank + reach else incomplete_beta(place / count, rank, count - rank + 1.0)
        for place in range(count + 1)
    ]
    return tuple(max(0.0, after - before) for before, after in pairwise(reached))


def _places(count: int, quantile: float) -> tuple[int, int]:
    exact = quantile * count
    near = round(exact)
    if abs(exact - near) > _CLOSE * count:
        rank = max(1, math.ceil(exact))
        return rank, rank
    return (max(1, near), min(count, near + 1)) if quantile == _MEDIAN else (max(1, near), max(1, near))


def _divided(above: float, below: float) -> float:
    return above / below if below else math.inf if above else 0.0


def _sorted(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a sample is empty")
    if not all(map(math.isfinite, ordered)) or ordered[0] < 0.0:
        raise ValueError("a sample has values that are no finite numbers from zero on")
    if ordered[-1] > LARGEST or next((value for value in ordered if value > 0.0), 1.0) < 1.0 / LARGEST:
        raise ValueError(f"a sample has values beyond {LARGEST:g}, or so near to zero: their ratio is no number")
    return ordered


def _check(quantile: float, confidence: float) -> None:
    if not 0.0 < quantile < 1.0 or not 0.0 < confidence < 1.0:
        raise ValueError(f"a quantile and a confidence lie above 0 and below 1, not at {quantile!r} and {confidence!r}")
