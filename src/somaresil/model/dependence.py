"""What neighbours have in common: values that were measured one after another are seldom independent of one another.

A test that takes them for independent finds differences where slow noise has moved both its samples. Of ``n`` values with autocorrelation
``r`` from one to the next the mean varies as that of ``n (1 - r) / (1 + r)`` independent ones does (M. S. Bartlett, "Some aspects of the
time-correlation problem in regard to tests of significance", Journal of the Royal Statistical Society 98, 1935). So a distance in
standard deviations is smaller by the root of that factor, and an interval wider.

``r`` is estimated from the normal scores of the values of each sample by itself, so that a difference of the samples is no
autocorrelation and an outlier is one rank, and corrected for the bias of short series, ``(1 + 3 r) / n`` (M. G. Kendall, "Note on bias in
the estimation of autocorrelation", Biometrika 41, 1954). Where chance explains it, it is taken as none.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from somaresil.model.ranks import normal_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["autocorrelation", "stretch", "weakened"]

_CHANCE: Final = 1.645
"""Standard deviations: one in twenty independent series is taken for one that is not."""
_HIGHEST: Final = 0.9
_FARTHEST: Final = 38.0
_HALVINGS: Final = 60
_ROOT: Final = math.sqrt(2.0)


def autocorrelation(*samples: Sequence[float]) -> float:
    """How much of its distance from the level a value passes on to the next, 0 to 0.9; 0 where no more than chance was seen.

    The values of each sample stand in the order in which they were measured.
    """
    products, squares, count, used = 0.0, 0.0, 0, 0
    for sample in samples:
        scores = normal_scores(sample) if sample else None
        if scores is not None:
            products += math.fsum(before * after for before, after in pairwise(scores))
            squares += math.fsum(score * score for score in scores)
            count += len(scores)
            used += 1
    if not squares:
        return 0.0
    seen = products / squares
    # Without any, 1 / n less than 0 is seen; with some, yet less. Each sample has this bias by itself.
    if seen + used / count <= _CHANCE / math.sqrt(count):
        return 0.0
    return min(seen + (1.0 + 3.0 * seen) * used / count, _HIGHEST) if seen > 0.0 else 0.0


def stretch(correlation: float) -> float:
    """By how much intervals are wider than those of independent values: the root of ``(1 + r) / (1 - r)``."""
    return math.sqrt((1.0 + correlation) / (1.0 - correlation))


def weakened(p_value: float, factor: float) -> float:
    """The two-sided p-value of a distance in standard deviations that is smaller by this factor (1 or more)."""
    if factor <= 1.0 or p_value >= 1.0:
        return p_value
    low, high = 0.0, _FARTHEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if math.erfc(middle / _ROOT) > p_value:
            low = middle
        else:
            high = middle
    return math.erfc(high / factor / _ROOT)
