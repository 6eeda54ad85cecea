"""What the order of values alone says: about the tail of one sample beside another, and about a quantile of one sample.

Sources:

- the tail: S. Rosenbaum, "Tables for a nonparametric test of location", Annals of Mathematical Statistics 25 (1954), and, with some
  values of the other sample allowed above, the exceedances of E. J. Gumbel and H. von Schelling, "The distribution of the number of
  exceedances", Annals of Mathematical Statistics 21 (1950). At least ``r`` of the ``n`` values of the first sample lie above all but ``a``
  of the ``m`` of the second just when no more than ``a`` of the ``r + a`` largest are of the second, which is hypergeometric;
- the interval of a quantile between two values of the sample: H. A. David and H. N. Nagaraja, "Order Statistics" (3rd edition, 2003),
  section 7.1. The number of values up to the quantile is binomial, whatever the distribution of the values is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from somaresil.model.proportion import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["exceedance", "quantile_ranks", "quantile_test"]

_EXACT_VARIANCE: Final = 2500.0
"""Up to this variance of the binomial distribution its terms are summed; beyond, the normal one is used, with ranks to spare."""
_DEVIATIONS: Final = 40
_COUNTED: Final = 400
"""Up to so many values the ways to deal them are counted in whole numbers; beyond, their logarithms are added, good to nine digits."""


def exceedance(x: Sequence[float], y: Sequence[float], *, spared: int = 0) -> tuple[int, float]:
    """How many values of ``x`` lie above all of ``y`` but the ``spared`` largest, and how likely so many or more are by chance.

    Values that are tied with the bound do not lie above it, so the probability is never too small. ``0 <= spared < len(y)``.
    """
    n, m = len(x), len(y)
    if not 0 <= spared < m:
        raise ValueError(f"{spared} of {m} values cannot be spared")
    above = n - bisect_right(sorted(x), sorted(y)[m - 1 - spared])
    if not above:
        return 0, 1.0
    largest = above + spared
    if n + m <= _COUNTED:
        ways = sum(math.comb(m, i) * math.comb(n, largest - i) for i in range(spared + 1))
        return above, ways / math.comb(n + m, largest)
    every = _log_comb(n + m, largest)
    shares = (_log_comb(m, i) + _log_comb(n, largest - i) - every for i in range(max(0, largest - n), spared + 1))
    return above, min(1.0, math.fsum(map(math.exp, shares)))


def _log_comb(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)


@lru_cache(maxsize=256)
def quantile_ranks(count: int, quantile: float, confidence: float) -> tuple[int, int] | None:
    """The ranks (1 is the least value) between whose values the quantile lies with at least this confidence.

    Each end misses it with at most half of what is left. None: there are too few values to have both ends.
    """
    if count < 0 or not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies above 0 and below 1, of 0 or more values; not {quantile!r} of {count!r}")
    z = normal_quantile(confidence)  # it refuses a confidence that is none
    if not count:
        return None
    mean = count * quantile
    deviation = math.sqrt(mean * (1.0 - quantile))
    if deviation * deviation <= _EXACT_VARIANCE:
        low, high = _binomial_ranks(count, quantile, (1.0 - confidence) / 2.0)
    else:
        # What skewness moves a quantile by is at most (z^2 - 1) / 6 (the first term of Cornish and Fisher).
        spare = 1.0 + z * z / 6.0
        low, high = math.floor(mean - z * deviation - spare), math.ceil(mean + z * deviation + spare) + 1
    return (low, high) if 1 <= low <= high <= count else None


def _binomial_ranks(count: int, quantile: float, tail: float) -> tuple[int, int]:
    """The largest rank below which the quantile is too seldom, and the least above which it is."""
    mean = count * quantile
    reach = _DEVIATIONS * (1.0 + math.sqrt(mean * (1.0 - quantile)))
    first, last = max(0, math.floor(mean - reach)), min(count, math.ceil(mean + reach))
    logs = math.log(quantile), math.log1p(-quantile)

    def share(hits: int) -> float:
        return math.exp(_log_comb(count, hits) + hits * logs[0] + (count - hits) * logs[1])

    low, seen = first, share(first)
    while seen <= tail:
        low += 1
        seen += share(low)
    high, seen = last, share(last)
    while seen <= tail:
        high -= 1
        seen += share(high)
    return low, high + 1


def quantile_test(x: Sequence[float], y: Sequence[float], quantile: float) -> float:
    """How likely the values above the quantile of both samples together are dealt as unevenly as they are, two-sided, by chance.

    The test of A. M. Mood ("Introduction to the Theory of Statistics", 1950, section 16.5, for the median) with the probabilities of
    the hypergeometric distribution, twice the smaller of both sides. It asks about one place of the distributions, and so sees a longer
    tail that a test of all ranks does not. ``0 < quantile < 1``; both samples have a value at least.
    """
    n, m = len(x), len(y)
    if not n or not m or not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies above 0 and below 1, of two samples with values; not {quantile!r} of {n} and {m}")
    pooled = sorted((*x, *y))
    bound = pooled[min(n + m - 1, max(0, math.ceil(quantile * (n + m)) - 1))]
    above = sum(value > bound for value in x)
    together = n + m - bisect_right(pooled, bound)
    every = _log_comb(n + m, together)

    def share(first: int, last: int) -> float:
        ways = (_log_comb(n, i) + _log_comb(m, together - i) - every for i in range(first, last + 1))
        return math.fsum(map(math.exp, ways))

    least, most = max(0, together - m), min(n, together)
    return min(1.0, 2.0 * min(share(least, above), share(above, most)))
