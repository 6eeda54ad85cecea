"""Many tests at once: p-values that are adjusted for how many questions were asked.

Sources: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979): the probability
that *any* adjusted p-value of a true hypothesis is at most alpha is at most alpha, whatever the tests have to do with one another.
Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate: a practical and powerful approach to multiple testing", Journal of the
Royal Statistical Society B 57 (1995): of those that are refused at alpha at most a share of alpha is expected to be true, for tests that
are independent or depend on one another positively (Benjamini and Yekutieli, Annals of Statistics 29, 2001).

Promises: results stand in the order of what was given, are at least what was given and at most 1, and keep its order.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that one false alarm among all of them is as unlikely as the level says."""
    order = _order(p_values)
    count = len(order)
    rising = accumulate((min(1.0, (count - place) * p_values[index]) for place, index in enumerate(order)), max)
    return _back(order, list(rising))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted so that the level is the share of false alarms among all alarms that is expected."""
    order = _order(p_values)[::-1]
    count = len(order)
    falling = accumulate((min(1.0, count / (count - place) * p_values[index]) for place, index in enumerate(order)), min)
    return _back(order, list(falling))


def _order(p_values: Sequence[float]) -> list[int]:
    wrong = [p for p in p_values if not 0.0 <= p <= 1.0]
    if wrong:
        raise ValueError(f"a p-value lies from 0 to 1, not at {wrong[0]!r}")
    return sorted(range(len(p_values)), key=p_values.__getitem__)


def _back(order: Sequence[int], values: Sequence[float]) -> list[float]:
    found = [1.0] * len(order)
    for index, value in zip(order, values, strict=True):
        found[index] = value
    return found
