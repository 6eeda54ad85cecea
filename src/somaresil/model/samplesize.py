"""How many values are needed: to be able to decide at all, and to see a change of a given size.

With ``n`` and ``m`` values the least p-value that an exact rank test can have is ``2 / comb(n + m, n)``: that all values of one side lie
beyond all of the other. Where this is above alpha, no data whatsoever could decide, and that is not the same as having found nothing.

The width of an interval falls with the root of the number of values. So the number at which it is as wide as the change that counts follows
from the width it has now; it is an estimate, as good as the spread that was seen.
"""

from __future__ import annotations

import math
from typing import Final

from somaresil.model.dependence import weakened
from somaresil.model.orderstats import quantile_ranks

__all__ = ["can_decide", "fewest_for_quantile", "fewest_values", "values_for_width"]

_MOST: Final = 1_000_000_000
_MOST_FACTOR: Final = 10.0


def can_decide(n: int, m: int, alpha: float, factor: float = 1.0) -> bool:
    """Whether samples of these sizes can be told apart by ranks at level ``alpha``, two-sided, if they lie fully apart.

    ``factor`` is by how much p-values are weakened, because neighbours resemble each other (:func:`somaresil.model.dependence.stretch`).
    """
    return n > 0 and m > 0 and weakened(2 / math.comb(n + m, n), factor) <= alpha


def fewest_values(alpha: float, factor: float = 1.0) -> int:
    """How many values each side needs at least: 4 at 0.05, 5 at 0.01, 6 at 0.005; more where neighbours resemble each other."""
    if not 0.0 < alpha < 1.0 or not 1.0 <= factor <= _MOST_FACTOR:
        raise ValueError(f"a level lies above 0 and below 1, and a factor from 1 to {_MOST_FACTOR:g}; not at {alpha!r} and {factor!r}")
    count = 1
    while not can_decide(count, count, alpha, factor):
        count += 1
    return count


def fewest_for_quantile(quantile: float, confidence: float) -> int:
    """How many values there are at least between which a quantile lies with this confidence, both ends of them."""
    high = 1
    while quantile_ranks(high, quantile, confidence) is None:
        high *= 2
        if high > _MOST:
            raise ValueError(f"no sample has enough values for a quantile of {quantile!r} at {confidence!r}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if quantile_ranks(middle, quantile, confidence) is None:
            low = middle
        else:
            high = middle
    return high


def values_for_width(count: int, width: float, wanted: float) -> int:
    """About how many values give an interval of width ``wanted``, when ``count`` gave ``width``. Widths are above zero."""
    if count < 1 or not 0.0 < wanted < math.inf or not 0.0 <= width < math.inf:
        raise ValueError(f"{count!r} values, width {width!r}, wanted {wanted!r}: expected numbers above zero")
    return max(1, math.ceil(count * (width / wanted) ** 2))
