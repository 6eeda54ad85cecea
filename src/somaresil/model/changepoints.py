"""Where a history of measurements changed its level, with p-values that mean what they say, also where neighbours resemble each other.

What is asked of a stretch of ``m`` values is whether one step lies in it. Both answers are fitted, with autocorrelated noise in either:

    no step:   y[t] = c + phi y[t-1] + noise
    a step:    y[t] = c + d (t >= k) + phi y[t-1] + noise,     for the best k

and compared by the likelihood ratio ``L = (m - 1) log(RSS without / RSS with)``. Each phi is estimated under its own hypothesis, between 0
and 0.95: estimated without the step, a step would pass for autocorrelation and hide; estimated with it alone, slow noise would pass for a
step. The values are replaced by the normal scores of their ranks first, so one outlier is one rank, and what the noise is distributed
like does not matter: of independent values every order is as likely as any other, and L depends on the order alone. But ranks do not know
how far two levels are apart, and in a short history a step that anybody sees is not clear by them. So distances from the median, none
above eight standard deviations, are asked as well; the smaller of both p-values counts, adjusted for two questions.

How often L is as large without any step was counted, in orders drawn at random and in autocorrelated series (phi 0, 0.3, 0.5 and 0.7) of
each length; the tables hold the worst of them. A p-value is read from there, times the number of stretches that were searched
(Bonferroni), and is never below ``2 / comb(m, k)``, the share of orders that part the values as clearly as possible. There is no chance
in it: the same history gives the same answer. ``benchmarks/detector_truth.py`` counts its false alarms.

The search is binary: the whole is asked, and halves, quarters and so on that overlap by half, since two changes that cancel one another
are invisible from afar. The most convincing step splits the history, and both parts are searched in the same way. At the end each change is
asked again between its neighbours, and the least convincing is dropped until all hold and are large enough.

Sources: D. W. K. Andrews, "Tests for parameter instability and structural change with unknown change point", Econometrica 61 (1993), for
the largest of the statistics of all splits; D. S. Matteson and N. A. James, "A nonparametric approach for multiple change point analysis
of multivariate data", Journal of the American Statistical Association 109 (2014), for hierarchical division with permutations; S. Kovács
and others, "Seeded binary segmentation", Biometrika 110 (2023), for the stretches; M. Fleming and others, "Hunter: using change point
detection to hunt for performance regressions", ICPE 2023, for the last round.

Not promised: a slow drift is no step, and is reported as some steps or none; noise with a memory longer than that of phi 0.8 (a random
walk, seasons) raises false alarms.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from somaresil.model.proportion import normal_quantile
from somaresil.model.ranks import normal_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["FEWEST", "LARGEST", "MOST", "ChangePoint", "change_points", "fewest_points"]

FEWEST: Final = 12
"""In fewer values than this no step is looked for: the table begins here."""
MOST: Final = 10_000
"""Values of a history."""
LARGEST: Final = 1e150
"""Values beyond this have no difference that a float could hold."""
_SHORTEST_WINDOW: Final = 24
_LEAST_SIDE: Final = 3
_HIGHEST_PHI: Final = 0.95
_ROUNDS: Final = 100
_NOTHING: Final = 1e-9
"""A residual below this share of the whole is rounding."""

_CHANCES: Final = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
_REACHED: Final = {
    12: (5.18, 7.8, 9.0, 9.98, 11.12, 12.05, 13.25, 15.7, 17.64, 19.95),
    16: (5.46, 8.07, 9.43, 10.52, 11.71, 12.51, 13.24, 14.16, 14.81, 15.59),
    24: (5.52, 8.23, 9.78, 11.12, 12.67, 13.77, 14.75, 15.93, 16.75, 17.48),
    32: (5.43, 8.16, 9.79, 11.27, 13.11, 14.46, 15.6, 17.17, 18.23, 19.46),
    48: (5.31, 8.09, 9.8, 11.37, 13.42, 14.75, 16.15, 17.69, 19.01, 20.45),
    96: (5.1, 7.77, 9.45, 11.0, 13.07, 14.66, 16.19, 18.13, 19.4, 20.83),
    192: (5.07, 7.63, 9.3, 10.78, 12.93, 14.47, 15.76, 17.92, 19.18, 20.84),
    384: (5.1, 7.56, 9.2, 10.68, 12.47, 13.92, 15.52, 17.42, 19.27, 20.84),
}
"""For each length, what L reaches by chance in these shares of series without a step: counted in 14,000 to 200,000 series each."""
_REACHED_BY_DISTANCE: Final = {
    12: (5.36, 9.18, 12.17, 14.98, 18.77, 22.18, 26.15, 33.21, 36.1, 40.96),
    16: (5.6, 9.56, 12.68, 16.0, 20.64, 24.46, 29.26, 36.37, 40.36, 43.8),
    24: (5.53, 9.8, 12.99, 16.75, 22.44, 27.0, 32.16, 39.83, 45.04, 47.34),
    32: (5.39, 9.67, 13.21, 17.09, 23.72, 28.94, 35.43, 40.65, 44.85, 47.35),
    48: (5.19, 9.35, 13.04, 17.25, 23.92, 29.17, 35.66, 41.68, 46.96, 51.13),
    96: (4.95, 8.75, 12.3, 16.67, 23.26, 28.86, 35.2, 45.93, 53.23, 55.23),
}
"""The same of distances in place of ranks, the worst of normal noise, of Student's with three degrees of freedom, and of log-normal."""
_OF_RANKS: Final = 0.8
"""Of the error that is allowed: ranks take most of it, since a step that only distances show is far beyond any doubt."""
_HOPEFUL: Final = 0.4
"""Where ranks show less than this, distances are not looked at: a clear step shows in both."""
_MAD: Final = 1.4826
_FARTHEST: Final = 8.0
_CONFIDENCE: Final = 0.95
_DECAY: Final = 0.43
"""Beyond the table the logarithm of the p-value falls by this for each unit of L; it comes to be 1/2 far out."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A step from one level to another."""

    index: int
    """The place of the first value of the new level; the first value of the history has place 0."""
    p_value: float
    """How often a history of this length without a step shows one that is as clear, adjusted for all that was searched."""
    before: float
    """The median since the change before this one, or since the beginning."""
    after: float
    """The median until the next change, or the end."""
    points_before: int
    points_after: int
    autocorrelation: float
    """How much of the distance from its level a value passes on to the next, 0 to 0.95, as estimated around this change."""
    ratio: float | None
    """``after / before``. None: not both are above zero."""
    low: float | None
    """The ratio is at least this, with 95 % confidence, and at most :attr:`high`. Autocorrelation widens the interval. None: too few
    values."""
    high: float | None


@dataclass(slots=True)
class _Found:
    index: int
    p_value: float
    phi: float


def fewest_points(alpha: float = 0.01, minimum_points: int = 5) -> int:
    """How many values a history has at least for a step to be shown at this level with so many values on each side."""
    count = max(FEWEST, 2 * max(minimum_points, _LEAST_SIDE))
    while 2 / math.comb(count, count // 2) > alpha:
        count += 1
    return count


def change_points(
    values: Sequence[float], *, alpha: float = 0.01, minimum_points: int = 5, minimum_effect: float = 0.0
) -> tuple[ChangePoint, ...]:
    """The changes of level in ``values``, first to last, each with a p-value of at most ``alpha``.

    A history without a change has one reported with a probability of about ``alpha`` at most. There are ``minimum_points`` values (3 or
    more) on each side of a change: a change in the last few is not reported before there are so many. With ``minimum_effect`` 0.05 both
    levels differ by a factor of 1.05 at least; where a level is not above zero, there is no such factor, and any step counts.

    Raises ``ValueError`` for NaN, infinity, values beyond :data:`LARGEST`, more than :data:`MOST` values, and options that are none. A
    history that is too short (:func:`fewest_points`) has no changes: who calls asks for its length first.
    """
    if not all(-LARGEST <= value <= LARGEST for value in values):
        raise ValueError(f"a history has values that are no finite numbers, or beyond {LARGEST:g}")
    if len(values) > MOST:
        raise ValueError(f"a history has {len(values)} values, more than {MOST}")
    if not 0.0 < alpha < 1.0 or minimum_points < _LEAST_SIDE or not 0.0 <= minimum_effect < math.inf:
        raise ValueError(f"expected 0 < alpha < 1, minimum_points >= {_LEAST_SIDE} and minimum_effect >= 0")
    found: list[_Found] = []
    parts = [(0, len(values))]
    while parts:
        start, end = parts.pop()
        best = _clearest(values[start:end], minimum_points, alpha)
        if best is None or best.p_value > alpha:
            continue
        best.index += start
        found.append(best)
        parts += [(start, best.index), (best.index, end)]
    found.sort(key=lambda change: change.index)
    return _confirmed(values, found, alpha, minimum_points, minimum_effect)


def _clearest(values: Sequence[float], side: int, alpha: float) -> _Found | None:
    """The most convincing step in the whole or one of its windows; its p-value is adjusted for all of them."""
    best: _Found | None = None
    for start, end, searched in _windows(len(values)):
        found = _step(values[start:end], side, alpha / searched)
        if found is None:
            continue
        p_value = min(1.0, found.p_value * searched)
        if best is None or p_value < best.p_value:
            best = _Found(found.index + start, p_value, found.phi)
    return best


def _windows(count: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, number of searches to adjust for). The whole takes half of the error that is allowed, all windows the other half."""
    layers = [parts for parts in (2, 4, 8, 16, 32, 64, 128, 256) if count // parts >= _SHORTEST_WINDOW]
    yield 0, count, 2 if layers else 1
    windows = sum(2 * parts - 1 for parts in layers)
    for parts in layers:
        for place in range(2 * parts - 1):
            yield place * count // (2 * parts), (place + 2) * count // (2 * parts), 2 * windows


def _step(values: Sequence[float], side: int, level: float) -> _Found | None:
    """The best place of one step, and how often so clear a one is seen by chance. None: too short, or one value throughout.

    A step too near to an end is not moved to where it would be allowed: what lies beyond it is set aside until it has grown.
    """
    start, end = 0, len(values)
    while end - start >= max(FEWEST, 2 * side):
        stretch = values[start:end]
        scores = normal_scores(stretch)
        if scores is None:
            return None
        likelihood, index, phi = _likeliest(scores)
        p_value = _chance(likelihood, len(stretch), _REACHED) / _OF_RANKS
        if level < p_value <= _HOPEFUL and (distances := _distances(stretch)) is not None:
            likelihood, other, other_phi = _likeliest(distances)
            other_p_value = _chance(likelihood, len(stretch), _REACHED_BY_DISTANCE) / (1.0 - _OF_RANKS)
            if other_p_value < p_value:
                p_value, index, phi = other_p_value, other, other_phi
        p_value = min(1.0, max(p_value, 2 / math.comb(len(stretch), index)))
        if p_value <= level:
            index = _placed(stretch, index)
        if index < side:
            start += index
        elif end - start - index < side:
            end = start + index
        else:
            return _Found(start + index, p_value, phi)
    return None


def _distances(values: Sequence[float]) -> list[float] | None:
    """The distances from the median, in standard deviations by the median distance, none above 8. None: half of the values are equal."""
    middle = _median(sorted(values))
    unit = _MAD * _median(sorted(abs(value - middle) for value in values))
    if not unit:
        return None
    return [min(max((value - middle) / unit, -_FARTHEST), _FARTHEST) for value in values]


def _placed(values: Sequence[float], index: int) -> int:
    """The place of a step, by the values themselves: of ranks, the largest value before a step is as near as its neighbour behind it.

    Where values count from -1 (as far below the first level as the second is above it) to 2, the place is that which leaves the least on
    the wrong side; values farther out count as these.
    """
    before, after = _median(sorted(values[:index])), _median(sorted(values[index:]))
    if before == after:
        return index
    height = after - before
    beyond = accumulate(min(max((value - before) / height, -1.0), 2.0) - 0.5 for value in values[:-1])
    return min(enumerate(beyond, start=1), key=lambda each: (each[1], abs(each[0] - index)))[0]


def _likeliest(scores: Sequence[float]) -> tuple[float, int, float]:
    """L, the place of the step, and phi with it."""
    pairs = len(scores) - 1
    mean, mean_before = math.fsum(scores[1:]) / pairs, math.fsum(scores[:-1]) / pairs
    own = [score - mean for score in scores[1:]]
    lagged = [score - mean_before for score in scores[:-1]]
    own_own = math.fsum(score * score for score in own)
    own_lagged = math.fsum(map(float.__mul__, own, lagged))
    lagged_lagged = math.fsum(score * score for score in lagged)
    without, _ = _residual(own_own, own_lagged, lagged_lagged)
    best, place = math.inf, _LEAST_SIDE
    for k, (sum_own, sum_lagged) in enumerate(zip(accumulate(own), accumulate(lagged), strict=True), start=1):
        if k < _LEAST_SIDE - 1 or k > pairs - _LEAST_SIDE:
            continue
        weight = pairs / (k * (pairs - k))
        taken = sum_own * weight
        left = own_own - sum_own * taken
        cross = own_lagged - sum_lagged * taken
        if cross > 0.0:
            spread = lagged_lagged - sum_lagged * sum_lagged * weight
            left = left - cross * cross / spread if cross < _HIGHEST_PHI * spread else _residual(left, cross, spread)[0]
        if left < best:
            best, place = left, k
    weight = pairs / (place * (pairs - place))
    sums = math.fsum(own[:place]), math.fsum(lagged[:place])
    phi = _residual(own_own - sums[0] ** 2 * weight, own_lagged - sums[0] * sums[1] * weight, lagged_lagged - sums[1] ** 2 * weight)[1]
    if without <= _NOTHING * own_own:
        return 0.0, place + 1, phi
    return (math.inf if best <= _NOTHING * own_own else pairs * math.log(max(1.0, without / best))), place + 1, phi


def _residual(own: float, cross: float, lagged: float) -> tuple[float, float]:
    """What is left of the sum of squares by the best phi, and that phi."""
    phi = min(max(cross / lagged, 0.0), _HIGHEST_PHI) if lagged > 0.0 else 0.0
    return own - 2.0 * phi * cross + phi * phi * lagged, phi


def _chance(likelihood: float, count: int, table: Mapping[int, Sequence[float]]) -> float:
    """How often L is so large without a step: the larger of what the two lengths around this one say."""
    lengths = tuple(table)
    place = bisect_right(lengths, count)
    return max(_chance_at(likelihood, table[length]) for length in lengths[place - 1 : place + 1])


def _chance_at(likelihood: float, reached: Sequence[float]) -> float:
    place = bisect_left(reached, likelihood)
    if place == len(reached):
        return _CHANCES[-1] * math.exp(-_DECAY * (likelihood - reached[-1]))
    low, above = (reached[place - 1], _CHANCES[place - 1]) if place else (0.0, 1.0)
    share = (likelihood - low) / (reached[place] - low)
    return float(above * (_CHANCES[place] / above) ** share)


def _confirmed(values: Sequence[float], found: list[_Found], alpha: float, side: int, effect: float) -> tuple[ChangePoint, ...]:
    """Each change between its neighbours: placed again, and the weakest dropped until all hold."""
    least = math.log1p(effect)
    for _ in range(_ROUNDS):
        bounds = [0, *(change.index for change in found), len(values)]
        for number, change in enumerate(found):
            start, end = bounds[number], bounds[number + 2]
            again = _step(values[start:end], side, alpha)
            if again is None:
                change.p_value = 1.0
            else:
                change.index, change.phi = start + again.index, again.phi
                change.p_value = max(change.p_value, again.p_value)
                bounds[number + 1] = change.index
        weakest = max(found, key=lambda change: change.p_value, default=None)
        if weakest is not None and weakest.p_value > alpha:
            found.remove(weakest)
            continue
        told = _told(values, found)
        sizes = [math.inf if change.ratio is None else abs(math.log(change.ratio)) for change in told]
        if all(size >= least for size in sizes):
            return told
        del found[sizes.index(min(sizes))]
    return _told(values, found)


def _told(values: Sequence[float], found: list[_Found]) -> tuple[ChangePoint, ...]:
    bounds = [0, *(change.index for change in found), len(values)]
    levels = [sorted(values[start:end]) for start, end in pairwise(bounds)]
    return tuple(_change(change, *sides) for change, sides in zip(found, pairwise(levels), strict=True))


def _change(found: _Found, before: list[float], after: list[float]) -> ChangePoint:
    middles = _median(before), _median(after)
    ratio = middles[1] / middles[0] if min(middles) > 0.0 else None
    own, other = _median_bounds(after, found.phi), _median_bounds(before, found.phi)
    sure = ratio is not None and own is not None and other is not None and other[0] > 0.0
    return ChangePoint(
        index=found.index,
        p_value=found.p_value,
        before=middles[0],
        after=middles[1],
        points_before=len(before),
        points_after=len(after),
        autocorrelation=found.phi,
        ratio=ratio,
        low=own[0] / other[1] if sure and own and other else None,
        high=own[1] / other[0] if sure and own and other else None,
    )


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else ordered[half - 1] + (ordered[half] - ordered[half - 1]) / 2.0


def _median_bounds(ordered: list[float], phi: float) -> tuple[float, float] | None:
    """Two values with the median between them; fewer values count as autocorrelation takes from their number (Bartlett, 1935)."""
    count = len(ordered)
    reach = normal_quantile(math.sqrt(_CONFIDENCE)) / 2.0 * math.sqrt(count * (1.0 + phi) / (1.0 - phi)) + 0.5
    low, high = math.floor(count / 2.0 - reach), math.ceil(count / 2.0 + reach)
    return (ordered[low], ordered[high]) if low >= 0 and high < count else None
