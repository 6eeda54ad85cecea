"""Latency buckets: where their bounds lie, and what may be said from their counts.

A histogram is a pair of ``bounds`` (upper bounds in seconds, ascending) and ``counts`` (one for each bucket, *not* cumulative, and one more
at the end for everything above the last bound). A value that equals a bound belongs to that bound's bucket, as with Prometheus' ``le``.

The share of calls within a bound is exact; a quantile is an estimate by the rule of Prometheus' ``histogram_quantile``, so that both
say the same number. Therefore every latency objective gets a bound of its own (``merge_bounds``): a "95 % within 2 s" must be counted,
not estimated.

Sources: OpenTelemetry semantic conventions, ``http.server.request.duration`` (bounds); Prometheus documentation of ``histogram_quantile``
(interpolation).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DEFAULT_BOUNDS", "add", "bucket_of", "index_of_bound", "merge_bounds", "quantile", "quantiles", "share_at_most"]

DEFAULT_BOUNDS: Final[tuple[float, ...]] = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds. The bounds OpenTelemetry recommends for the duration of HTTP requests."""


def merge_bounds(*thresholds: float, base: Iterable[float] = DEFAULT_BOUNDS) -> tuple[float, ...]:
    """The base bounds and every threshold exactly, ascending, each once. All are finite seconds above zero."""
    bounds = sorted({float(bound) for bound in (*base, *thresholds)})
    wrong = [bound for bound in bounds if not (bound > 0.0 and math.isfinite(bound))]
    if wrong:
        raise ValueError(f"a bucket bound is a finite number of seconds above zero, not {wrong[0]!r}")
    return tuple(bounds)


def bucket_of(bounds: Sequence[float], value: float) -> int:
    """The index of the bucket that counts ``value``; ``len(bounds)`` is the bucket above the last bound."""
    return bisect_left(bounds, value)


def index_of_bound(bounds: Sequence[float], threshold: float) -> int:
    """The index of the bucket that ends exactly at ``threshold``; ``ValueError`` when no bound does.

    Falling back to a neighbouring bound would answer another question than the one that was asked.
    """
    index = bisect_left(bounds, threshold)
    if index == len(bounds) or bounds[index] != threshold:
        raise ValueError(f"{threshold!r} is not a bucket bound; the bounds are {tuple(bounds)!r}")
    return index


def share_at_most(bounds: Sequence[float], counts: Sequence[int], threshold: float) -> float | None:
    """The exact share of values <= ``threshold``, which must be a bound. None when nothing was counted."""
    _check_lengths(bounds, counts)
    within = sum(counts[: index_of_bound(bounds, threshold) + 1])
    total = sum(counts)
    return within / total if total else None


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """The estimated q-quantile in seconds, 0 < q <= 1. None when nothing was counted, or when there is no bound at all.

    The values of a bucket are taken as spread evenly over it, the first bucket as starting at 0. A quantile that falls above the last
    bound is reported as that bound: "at least 10 s" is the most the counts can say.
    """
    return quantiles(bounds, counts, (q,))[0]


def quantiles(bounds: Sequence[float], counts: Sequence[int], qs: Iterable[float]) -> list[float | None]:
    """:func:`quantile` of each of ``qs``, for little more than the price of one."""
    _check_lengths(bounds, counts)
    cumulative = list(accumulate(counts))
    found: list[float | None] = []
    for q in qs:
        if not 0.0 < q <= 1.0:
            raise ValueError(f"a quantile lies above 0 and at most at 1, not at {q!r}")
        if not bounds or not cumulative[-1]:
            found.append(None)
            continue
        rank = q * cumulative[-1]
        bucket = bisect_left(cumulative, rank)
        if bucket >= len(bounds):
            found.append(bounds[-1])
            continue
        below, lower = (cumulative[bucket - 1], bounds[bucket - 1]) if bucket else (0, 0.0)
        found.append(lower + (bounds[bucket] - lower) * ((rank - below) / counts[bucket]))
    return found


def add(counts: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    """The counts of two histograms with the same bounds, added bucket by bucket. Averaging their quantiles instead would be wrong."""
    return tuple(one + other for one, other in zip(counts, others, strict=True))


def _check_lengths(bounds: Sequence[float], counts: Sequence[int]) -> None:
    if len(counts) != len(bounds) + 1:
        raise ValueError(f"{len(bounds)} bounds need {len(bounds) + 1} counts, not {len(counts)}")
