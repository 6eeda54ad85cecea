"""Two samples compared by ranks: is one larger than the other, by how much, and how sure is that?

Sources:

- the test: H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
  Annals of Mathematical Statistics 18 (1947). U counts the pairs in which the first sample is larger, a tie as half a pair;
- exact p-values given the ties that were seen: every way to deal the pooled values to the two samples is as likely as any other. The ways
  are counted group by group of equal values, not listed: ``j`` of ``t`` equal values go to the first sample in ``comb(t, j)`` ways and
  add ``j`` times the values of the second sample that lie below, and ``j (t - j) / 2`` for the ties;
- p-values of large samples: the normal distribution with mean ``nm / 2``, variance
  ``nm / 12 ((n + m + 1) - sum(t^3 - t) / ((n + m)(n + m - 1)))`` and a correction for continuity of 1/2;
- the shift: J. L. Hodges and E. L. Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34 (1963). The
  interval holds the shifts that the test does not refuse. Its ends are found as Kayenta and R (``wilcox.test``) find them: the zeros of
  the corrected z by the method of R. P. Brent, "Algorithms for Minimization without Derivatives" (1973), chapter 4, on
  ``[min x - max y, max x - min y]``, up to a tolerance of 1e-4;
- effect sizes: K. O. McGraw and S. P. Wong, "A common language effect size statistic", Psychological Bulletin 111 (1992), and N. Cliff,
  "Dominance statistics", Psychological Bulletin 114 (1993);
- normal scores: B. L. van der Waerden, "Order tests for the two-sample problem and their power", Indagationes Mathematicae 14 (1952).

Promises: the cost is bounded (:data:`EXACT_PAIRS`, :data:`MOST_VALUES`). Empty samples, samples that are too large, NaN and infinity are a
``ValueError``: who calls decides what they mean. Two constant samples have a known shift, and two equal ones are never told apart.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from somaresil.model.proportion import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "EXACT_PAIRS",
    "MOST_VALUES",
    "ROOT_TOLERANCE",
    "RankTest",
    "Shift",
    "cliffs_delta",
    "common_language",
    "mean_ratio",
    "normal_scores",
    "rank_test",
    "shift",
]

EXACT_PAIRS: Final = 2500
"""P-values are exact up to this many pairs, 50 values a side. That takes at most about a tenth of a second."""
MOST_VALUES: Final = 10_000
"""Values a sample. An interval for two samples of this size takes some tenths of a second."""
ROOT_TOLERANCE: Final = 1e-4
"""How far from its true place Kayenta lets an end of an interval lie, in the unit of the values."""
_STEPS: Final = 1000
_ALMOST: Final = 0.75


@dataclass(frozen=True, slots=True)
class RankTest:
    """What the test of Mann and Whitney says of "both samples come from the same distribution"."""

    u: float
    """Pairs in which the first sample is larger, ties as halves: from 0 to ``n m``."""
    p_value: float
    """Two-sided: twice the smaller of the other two, at most 1."""
    p_greater: float
    """How likely a U of this size or a larger one is."""
    p_less: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Shift:
    """How much larger the first sample is than the second: the estimate of Hodges and Lehmann, and an interval."""

    estimate: float
    low: float
    high: float


def rank_test(x: Sequence[float], y: Sequence[float], *, exact: bool | None = None) -> RankTest:
    """The test of Mann and Whitney; exact up to :data:`EXACT_PAIRS` pairs unless ``exact`` says which form is wanted.

    Raises ``ValueError`` for values that cannot be ranked, and when ``exact=True`` is asked of more pairs than are counted.
    """
    first, second = _sorted(x), _sorted(y)
    n, m = len(first), len(second)
    if exact and n * m > EXACT_PAIRS:
        raise ValueError(f"{n} by {m} values are {n * m} pairs: exact p-values are counted up to {EXACT_PAIRS}")
    doubled = _doubled_u(first, second)
    sizes = [size for _, size in sorted(Counter(first + second).items())]
    counted = n * m <= EXACT_PAIRS if exact is None else exact
    less, greater = _exactly(doubled, sizes, n, m) if counted else _nearly(doubled / 2.0, _deviation(_tie_sum(sizes), n, m), n * m / 2.0)
    return RankTest(u=doubled / 2.0, p_value=min(1.0, 2.0 * min(less, greater)), p_greater=greater, p_less=less, exact=counted)


def shift(x: Sequence[float], y: Sequence[float], confidence: float = 0.98, *, tolerance: float = ROOT_TOLERANCE) -> Shift:
    """How much larger ``x`` is than ``y``, with an interval that holds the true shift with this confidence in large samples.

    Where samples are so small that no shift could be refused, the interval ends at the least or the largest difference of two values. With
    two constant samples it has no width. ``tolerance`` is how exactly the ends are found, in the unit of the values.
    """
    first, second = _sorted(x), _sorted(y)
    quantile = normal_quantile(confidence)
    least, most = first[0] - second[-1], first[-1] - second[0]
    if not math.isfinite(least) or not math.isfinite(most):
        raise ValueError("the values are too far apart for their difference to be a number")
    if least == most:
        return Shift(estimate=least, low=least, high=least)
    z = _z_of_shift(first, second)
    at_least, at_most = z(least), z(most)

    def bound(aim: float) -> float:
        below, above = at_least - aim, at_most - aim
        if below <= 0.0:
            return least
        if above >= 0.0:
            return most
        return _zero(lambda mu: z(mu) - aim, (least, below), (most, above), tolerance)

    # The zeros are found one by one, each within the tolerance; their order must not depend on that.
    low, estimate, high = sorted((bound(quantile), bound(0.0), bound(-quantile)))
    return Shift(estimate=estimate, low=low, high=high)


def common_language(x: Sequence[float], y: Sequence[float]) -> float:
    """How likely a value of ``x`` is larger than one of ``y``, a tie as half: 0.5 when neither is."""
    return _doubled_u(_sorted(x), _sorted(y)) / (2.0 * len(x) * len(y))


def cliffs_delta(x: Sequence[float], y: Sequence[float]) -> float:
    """How much more often a value of ``x`` is larger than one of ``y`` than the other way round: from -1 to 1."""
    pairs = len(x) * len(y)
    return (_doubled_u(_sorted(x), _sorted(y)) - pairs) / pairs


def mean_ratio(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The mean of ``x`` divided by that of ``y``. None when it would say nothing: with a mean of zero below, or a negative one."""
    above, below = (math.fsum(_sorted(each)) / len(each) for each in (x, y))
    if above < 0.0 or below <= 0.0:
        return None
    ratio = above / below
    return ratio if math.isfinite(ratio) else None


def normal_scores(values: Sequence[float]) -> list[float] | None:
    """The quantiles of the normal distribution at the ranks, less one half, over their number; equal values have that of their middle rank.

    None: all are equal, and a scale there is not.
    """
    ordered = sorted(values)
    if ordered[0] == ordered[-1]:
        return None
    quantiles = _half_quantiles(len(ordered))
    score: dict[float, float] = {}
    below = 0
    for value, group in groupby(ordered):
        size = sum(1 for _ in group)
        score[value] = quantiles[2 * below + size]
        below += size
    return [score[value] for value in values]


@lru_cache(maxsize=128)
def _half_quantiles(count: int) -> tuple[float, ...]:
    """Of the normal distribution at 0 (not used), 1, 2 ... halves of ``1 / count``."""
    from statistics import NormalDist  # only whoever looks at a history pays for the import

    inverse = NormalDist().inv_cdf
    upper = [inverse(half / (2.0 * count)) for half in range(count + 1, 2 * count)]
    # Mirrored, so that a series upside down has the same scores with the other sign.
    return (0.0, *(-score for score in reversed(upper)), 0.0, *upper)


def _sorted(values: Iterable[float]) -> list[float]:
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a sample is empty")
    if len(ordered) > MOST_VALUES:
        raise ValueError(f"a sample has {len(ordered)} values, more than {MOST_VALUES}")
    if not all(map(math.isfinite, ordered)):
        raise ValueError("a sample has values that are no finite numbers")
    return ordered


def _doubled_u(first: list[float], second: list[float]) -> int:
    return sum(bisect_left(second, value) + bisect_right(second, value) for value in first)


def _exactly(doubled: int, sizes: Sequence[int], n: int, m: int) -> tuple[float, float]:
    """P(U <= seen) and P(U >= seen)."""
    if n > m:  # the work grows with the square of the first sample
        greater, less = _exactly(2 * n * m - doubled, sizes, m, n)
        return less, greater
    total = math.comb(n + m, n)
    # The counts of all values of U stand side by side in one long integer: the arithmetic of Python adds thousands of them at once.
    width = total.bit_length() + 1
    unit = 1 if len(sizes) < n + m else 2  # without ties there are no halves
    ways = _ways(sizes, n, m, unit, width)

    def at_most(steps: int) -> int:
        # A number is equal to the sum of its digits modulo (base - 1), and no sum is larger than the total.
        return (ways & ((1 << (steps * width)) - 1)) % ((1 << width) - 1) if steps > 0 else 0

    below = doubled // unit
    return at_most(below + 1) / total, (total - at_most(below)) / total


def _ways(sizes: Sequence[int], n: int, m: int, unit: int, width: int) -> int:
    """In how many ways each value of 2U arises, as digits of ``width`` bits; one digit for each ``unit`` of it."""
    ways = [1] + [0] * n
    before = 0
    for size in sizes:
        after = [0] * (n + 1)
        for k in range(max(0, before - m), min(n, before) + 1):
            below = before - k
            for j in range(max(0, size - m + below), min(size, n - k) + 1):
                gained = j * (2 * below + size - j)
                after[k + j] += math.comb(size, j) * ways[k] << gained // unit * width
        ways, before = after, before + size
    return ways[n]


def _nearly(u: float, deviation: float, mean: float) -> tuple[float, float]:
    if not deviation:
        return 1.0, 1.0
    scale = deviation * math.sqrt(2.0)
    return math.erfc((mean - u - 0.5) / scale) / 2.0, math.erfc((u - mean - 0.5) / scale) / 2.0


def _tie_sum(sizes: Iterable[int]) -> int:
    return sum(size**3 - size for size in sizes)


def _deviation(ties: int, n: int, m: int) -> float:
    every = n + m
    # Whole numbers as long as possible: where all values are equal, nothing may be left by rounding.
    return math.sqrt(n * m * (every**3 - every - ties) / (12.0 * every * (every - 1)))


def _z_of_shift(first: list[float], second: list[float]) -> Callable[[float], float]:
    """The corrected z of "``first`` is larger by mu", as a function of mu."""
    n, m = len(first), len(second)
    groups = sorted(Counter(first).items())
    own = _tie_sum(size for _, size in groups) + _tie_sum(Counter(second).values())

    def z(mu: float) -> float:
        doubled, ties = 0, own
        for value, size in groups:
            left, right = bisect_left(second, value - mu), bisect_right(second, value - mu)
            doubled += size * (left + right)
            if right > left:
                met = right - left
                ties += _tie_sum((met + size,)) - _tie_sum((met, size))
        distance = (doubled - n * m) / 2.0
        deviation = _deviation(ties, n, m)
        return (distance - math.copysign(0.5, distance)) / deviation if distance and deviation else 0.0

    return z


def _zero(function: Callable[[float], float], start: tuple[float, float], end: tuple[float, float], tolerance: float) -> float:
    """Where ``function`` changes its sign between two points (place, value), by the method of Brent."""
    (last, at_last), (best, at_best) = start, end
    other, at_other = start
    for _ in range(_STEPS):
        before = best - last
        if abs(at_other) < abs(at_best):
            last, best, other = best, other, best
            at_last, at_best, at_other = at_best, at_other, at_best
        near = 2.0 * sys.float_info.epsilon * abs(best) + tolerance / 2.0
        half = (other - best) / 2.0
        if abs(half) <= near or at_best == 0.0:
            return best
        step = half
        if abs(before) >= near and abs(at_last) > abs(at_best):
            step = _interpolated((last, at_last), (best, at_best), (other, at_other), before, near)
        last, at_last = best, at_best
        best += step if abs(step) >= near else math.copysign(near, step)
        at_best = function(best)
        if at_best * at_other > 0.0:
            other, at_other = last, at_last
    return best


def _interpolated(last: tuple[float, float], best: tuple[float, float], other: tuple[float, float], before: float, near: float) -> float:
    """The step to the zero of a line or an inverse parabola through the points; half the way when that leads astray."""
    gap = other[0] - best[0]
    share = best[1] / last[1]
    if last[0] == other[0]:
        above, below = gap * share, 1.0 - share
    else:
        first, second = last[1] / other[1], best[1] / other[1]
        above = share * (gap * first * (first - second) - (best[0] - last[0]) * (second - 1.0))
        below = (first - 1.0) * (second - 1.0) * (share - 1.0)
    above, below = (above, -below) if above > 0.0 else (-above, below)
    inside = above < _ALMOST * gap * below - abs(near * below) / 2.0 and above < abs(before * below / 2.0)
    return above / below if inside else gap / 2.0
