"""Shares, and how sure one may be of them: intervals for one share and for the difference of two.

A share of 20 out of 20 does not show that everything recovers: with 95 % confidence it shows that more than 83.9 % do. What is compared
with a promise is therefore the lower end of an interval, never the share itself.

Sources:

- one share: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
  Association 22 (1927). With p = x / n and z the two-sided quantile of the normal distribution, the interval is
  ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``. It holds at 0 and at n, where the usual one has no width;
- the difference of two: R. G. Newcombe, "Interval estimation for the difference between independent proportions: comparison of eleven
  methods", Statistics in Medicine 17 (1998), method 10: the Wilson intervals (l, u) of both, put together as
  ``d - sqrt((p1 - l1)^2 + (u2 - p2)^2)`` and ``d + sqrt((u1 - p1)^2 + (p2 - l2)^2)``;
- the test: the pooled two-proportion z-test, ``z = (p1 - p2) / sqrt(p(1-p)(1/n1 + 1/n2))`` with p = (x1 + x2) / (n1 + n2), its
  p-value two-sided. It is an approximation, and a poor one when fewer than five good or bad ends are expected on a side.

Promises: no data is None; intervals lie within [0, 1], or [-1, 1] for differences, and contain the share that was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Difference", "Distribution", "difference", "distribution", "normal_quantile", "wilson"]

_HALVINGS: Final = 200
_FARTHEST: Final = 40.0
"""Standard deviations: nothing that a float can say lies beyond."""
_EXPECTED: Final = 5.0
"""Of each kind on each side, for the normal distribution to be a fair stand-in (the rule of Cochran, 1954)."""


@lru_cache(maxsize=64)
def normal_quantile(confidence: float) -> float:
    """How many standard deviations to each side hold this share of a normal distribution: 0.95 -> 1.95996. 0 < confidence < 1."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence lies above 0 and below 1, not at {confidence!r}")
    low, high = 0.0, _FARTHEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if math.erf(middle / math.sqrt(2.0)) < confidence:
            low = middle
        else:
            high = middle
    return high


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of Wilson for a share of ``hits`` out of ``trials``; None without trials."""
    _check(hits, trials)
    if not trials:
        return None
    z = normal_quantile(confidence)
    share, square = hits / trials, z * z / trials
    centre = share + square / 2.0
    width = z * math.sqrt(share * (1.0 - share) / trials + square / (4.0 * trials))
    scale = 1.0 + square
    # At the ends the formula gives exactly 0 and 1; rounding must not lift the bound above a share that was seen.
    low = 0.0 if not hits else min(share, max(0.0, (centre - width) / scale))
    high = 1.0 if hits == trials else max(share, min(1.0, (centre + width) / scale))
    return low, high


@dataclass(frozen=True, slots=True)
class Difference:
    """The share of a first group less that of a second, its interval, and what the test says of "there is no difference"."""

    value: float
    low: float
    high: float
    z: float | None
    """None: neither group has both kinds of ends, and there is nothing to test."""
    p_value: float | None
    fair: bool
    """Whether enough ends of each kind were to be expected in both groups for z and p-value to be trusted."""


def difference(hits: int, trials: int, other_hits: int, other_trials: int, confidence: float = 0.95) -> Difference | None:
    """How the share of the first group differs from that of the second; None when one of them has no trials."""
    own, other = wilson(hits, trials, confidence), wilson(other_hits, other_trials, confidence)
    if own is None or other is None:
        return None
    first, second = hits / trials, other_hits / other_trials
    value = first - second
    low = value - math.hypot(first - own[0], other[1] - second)
    high = value + math.hypot(own[1] - first, second - other[0])
    pooled = (hits + other_hits) / (trials + other_trials)
    deviation = math.sqrt(pooled * (1.0 - pooled) * (1.0 / trials + 1.0 / other_trials))
    z = value / deviation if deviation else None
    return Difference(
        value=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        z=z,
        p_value=None if z is None else math.erfc(abs(z) / math.sqrt(2.0)),
        fair=min(pooled, 1.0 - pooled) * min(trials, other_trials) >= _EXPECTED,
    )


@dataclass(frozen=True, slots=True)
class Distribution:
    """Some durations in seconds, in short. Percentiles are those of the nearest rank: values that were seen."""

    count: int
    least: float
    mean: float
    p50: float
    p90: float
    p95: float
    most: float


def distribution(values: Sequence[float]) -> Distribution | None:
    """The distribution of ``values``; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    mean = min(max(math.fsum(ordered) / len(ordered), ordered[0]), ordered[-1])
    return Distribution(len(ordered), ordered[0], mean, rank(0.5), rank(0.9), rank(0.95), ordered[-1])


def _check(hits: int, trials: int) -> None:
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits out of {trials} trials: expected 0 <= hits <= trials")
