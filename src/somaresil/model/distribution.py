"""Quantiles of distributions: the inverse of a distribution function at a draw ``u`` in [0, 1).

Inverse transform sampling (Devroye, "Non-Uniform Random Variate Generation", 1986, section II.2): a uniform draw becomes a draw from the
distribution, and a higher draw never gives less.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["empirical", "interpolated", "lognormal", "pareto", "uniform"]


def uniform(u: float, low: float, high: float) -> float:
    """``low + u (high - low)``."""
    return min(high, low + u * (high - low))


def lognormal(u: float, median: float, sigma: float) -> float:
    """``median * exp(sigma * z(u))``; ``z`` is the quantile of the normal distribution (Wichura, algorithm AS 241, 1988)."""
    from statistics import NormalDist  # only whoever uses this shape pays for the import

    return median * math.exp(sigma * NormalDist().inv_cdf(u)) if u > 0.0 else 0.0


def pareto(u: float, scale: float, alpha: float) -> float:
    """``scale * (1 - u) ** (-1 / alpha)`` (type I); infinity where that is more than a float can be."""
    try:
        return float(scale * (1.0 - u) ** (-1.0 / alpha))
    except OverflowError:
        return math.inf


def interpolated(u: float, shares: Sequence[float], values: Sequence[float]) -> float:
    """On the straight lines between points (share, value) in rising order, from (0, 0) to the first, level after the last."""
    place = bisect_right(shares, u)
    if place == len(shares):
        return values[-1]
    low, below = (shares[place - 1], values[place - 1]) if place else (0.0, 0.0)
    above = values[place]
    return min(above, below + (above - below) * (u - low) / (shares[place] - low))


def empirical(u: float, samples: Sequence[float]) -> float:
    """The sample at place ``floor(u n)``; ``samples`` are in rising order."""
    return samples[min(int(u * len(samples)), len(samples) - 1)]
