"""Paired measurements compared by ranks: by how much do the second ones differ from the first, and how sure is that?

Sources:

- the test: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945). T is the sum of the ranks, by size, of
  the differences above zero;
- estimate and bounds: J. W. Tukey's averages of all pairs of differences, each with itself too. T counts those above zero, so the test
  refuses a shift exactly when too few averages lie on one side of it; the estimate is their median (J. L. Hodges and E. L. Lehmann,
  "Estimates of location based on rank tests", Annals of Mathematical Statistics 34, 1963);
- the distribution of T when differences are symmetric around zero: each rank counts or does not, so the ways to reach a sum are the
  coefficients of the product of ``1 + x^k``; above :data:`EXACT` differences the normal distribution with mean ``n (n + 1) / 4``,
  variance ``n (n + 1) (2 n + 1) / 24`` and a correction for continuity of 1/2.

Differences of two measurements whose order was drawn by lot are symmetric around zero when both measure the same: that, and that pairs do
not know one another, is all that is assumed. Equal differences make bounds wider, never narrower, than they could be.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from somaresil.model.proportion import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXACT", "MOST", "bounds", "center", "fewest_pairs", "p_value"]

EXACT: Final = 64
"""Up to so many differences chances are counted."""
MOST: Final = 2_000
"""Differences: their averages of pairs are two million, which takes about a second."""


def averages(differences: Sequence[float]) -> list[float]:
    """The averages of all pairs of differences, each with itself too, in rising order.

    Raises ``ValueError`` for none, more than :data:`MOST`, and what is no finite number.
    """
    if not 1 <= len(differences) <= MOST:
        raise ValueError(f"{len(differences)} differences: expected 1 to {MOST}")
    if not all(map(math.isfinite, differences)):
        raise ValueError("differences that are no finite numbers")
    return sorted((differences[i] + differences[j]) / 2.0 for i in range(len(differences)) for j in range(i, len(differences)))


def center(differences: Sequence[float]) -> float:
    """The median of the averages: by how much, in the middle, the second measurement is larger."""
    ordered = averages(differences)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0


def bounds(differences: Sequence[float], alpha: float) -> tuple[float, float]:
    """The true difference is at least the first and at most the second, each wrong with a chance of at most ``alpha``.

    Infinite where so few differences cannot say it (:func:`fewest_pairs`). Raises ``ValueError`` as :func:`averages` does.
    """
    ordered = averages(differences)
    place = _refused(len(differences), alpha)
    return (ordered[place - 1], ordered[-place]) if place else (-math.inf, math.inf)


def p_value(differences: Sequence[float]) -> float:
    """How often differences without a shift lie so much on one side, two-sided; zeros speak for either side as half."""
    sums = averages(differences)
    above = sum(value > 0.0 for value in sums) + sum(value == 0.0 for value in sums) / 2.0
    fewer = min(above, len(sums) - above)
    return min(1.0, 2.0 * _at_most(len(differences), math.floor(fewer + 0.5)))


def fewest_pairs(alpha: float) -> int:
    """How many pairs can say something at this level at all."""
    return max(1, math.ceil(-math.log2(alpha)))


def _refused(count: int, alpha: float) -> int:
    """The largest k for which fewer than k averages on one side are seen with a chance of at most ``alpha``; 0: none."""
    most = count * (count + 1) // 2
    if count > EXACT:
        deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24.0)
        return max(0, math.floor(most / 2.0 - 0.5 - normal_quantile(1.0 - 2.0 * alpha) * deviation) + 1) if alpha < 0.5 else most // 2  # noqa: PLR2004
    allowed = alpha * 2.0**count
    ways, place, seen = _ways(count), 0, 0
    while seen + ways[place] <= allowed and place < most // 2:
        seen += ways[place]
        place += 1
    return place


def _at_most(count: int, total: int) -> float:
    """How likely a sum of ranks of at most ``total`` is."""
    if count > EXACT:
        deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24.0)
        return math.erfc((count * (count + 1) / 4.0 - total - 0.5) / (deviation * math.sqrt(2.0))) / 2.0
    return sum(_ways(count)[: total + 1]) / 2.0**count


@lru_cache(maxsize=EXACT)
def _ways(count: int) -> tuple[int, ...]:
    """In how many of ``2 ** count`` ways each sum of ranks arises."""
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(rank * (rank + 1) // 2, rank - 1, -1):
            ways[total] += ways[total - rank]
    return tuple(ways)
