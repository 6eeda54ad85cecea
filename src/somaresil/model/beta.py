"""The regularised incomplete beta function, and what it says about counts.

Sources: the continued fraction of the function is formula 26.5.8 of M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions"
(1964), evaluated by the recurrence of its convergents; the binomial tail is 26.5.24 there. The interval of a share that holds whatever the
share is: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26
(1934).

Promises: results lie in [0, 1] and do not fall when ``x`` rises, but for rounding of about 1e-13.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["at_least", "binomial_at_least", "incomplete_beta"]

_TERMS: Final = 20_000
_HALVINGS: Final = 60
_CLOSE: Final = 1e-15


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b): how likely a value of the beta distribution is at most ``x``. ``a`` and ``b`` are above zero."""
    if not (a > 0.0 and b > 0.0):
        raise ValueError(f"a beta distribution has parameters above zero, not {a!r} and {b!r}")
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return min(1.0, math.exp(scale) / a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    above, next_above, below = 0.0, 1.0, 1.0  # each convergent is scaled so that the newest denominator is 1
    value = 1.0
    for k in range(1, _TERMS):
        m = k // 2
        at = a + 2 * m
        step = -(a + m) * (a + b + m) * x / (at * (at + 1.0)) if k % 2 else m * (b - m) * x / ((at - 1.0) * at)
        above, next_above = next_above, next_above + step * above
        newest = 1.0 + step * below
        if newest == 0.0:
            newest = _CLOSE
        above, next_above, below = above / newest, next_above / newest, 1.0 / newest
        if abs(next_above - value) <= _CLOSE * abs(next_above):
            return next_above
        value = next_above
    return value


def binomial_at_least(hits: int, trials: int, share: float) -> float:
    """How likely ``hits`` or more of ``trials`` are when each hits with probability ``share``."""
    if not 0 <= hits <= trials or not 0.0 <= share <= 1.0:
        raise ValueError(f"{hits} hits out of {trials} trials at {share!r}: expected 0 <= hits <= trials and a share from 0 to 1")
    return incomplete_beta(share, hits, trials - hits + 1.0) if hits else 1.0


def at_least(hits: int, trials: int, confidence: float) -> float:
    """The least share that is not refused by ``hits`` out of ``trials``: the lower limit of Clopper and Pearson, one-sided.

    The upper limit is ``1 - at_least(trials - hits, trials, confidence)``.
    """
    if not 0 <= hits <= trials or not 0.0 < confidence < 1.0:
        raise ValueError(f"{hits} hits out of {trials} trials at confidence {confidence!r}")
    if not hits:
        return 0.0
    low, high = 0.0, hits / trials
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if binomial_at_least(hits, trials, middle) < 1.0 - confidence:
            low = middle
        else:
            high = middle
    return low
