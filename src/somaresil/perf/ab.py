"""Two versions measured in pairs: in one job, one after the other, in an order drawn by lot.

What disturbs a machine disturbs both halves of a pair. So pairs, not samples, are compared: the ratio within each, by signed ranks
(:mod:`somaresil.model.signedrank`), which a disturbed pair can pull no further than any other. Half of the pairs begin with one version
and half with the other: whatever the second run of a pair has from the first (warm files, a hot processor) both have equally often.

More pairs are measured until the answer is clear. Each look costs: the errors that are allowed are shared out among all looks that may be
taken, by how many pairs each has, and among all figures that are compared. So looking more often never makes a false alarm more likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.model.signedrank import MOST, bounds, center, fewest_pairs, p_value
from somaresil.perf.detector import Change, Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from somaresil.chance import Chance
    from somaresil.perf.samples import Series

__all__ = ["PairedTest"]

_CLEAR: Final = (Change.REGRESSED, Change.IMPROVED)
_MOST_NEEDED: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Says whether the second version of each pair is worse, by more than counts and not by chance.

    Raises :class:`~somaresil.errors.ConfigurationError` with everything that is wrong.
    """

    minimum_effect: float = 0.02
    """The least effect that counts, as a factor less 1; the ratio is shown to lie beyond it, not only to be measured there."""
    alpha: float = 0.05
    """How often two equal versions may be told apart, over all looks and all figures."""
    fewest: int = 20
    """Pairs before the first look."""
    most: int = 320
    """Pairs at which it ends in any case; each look has twice as many as the one before."""

    def __post_init__(self) -> None:
        check = Checker("PairedTest")
        check.number("minimum_effect", self.minimum_effect, minimum=0.0, maximum=1000.0)
        check.number("alpha", self.alpha, minimum=1e-6, maximum=0.5)
        fewest = check.count("fewest", self.fewest, minimum=2, maximum=MOST)
        check.count("most", self.most, minimum=fewest, maximum=MOST)
        check.finish()

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many pairs the result is looked at."""
        found = []
        pairs = self.fewest
        while pairs < self.most:
            found.append(pairs)
            pairs *= 2
        return (*found, self.most)

    def current_first(self, pair: int, chance: Chance) -> bool:
        """Whether this pair begins with the current version: one of two neighbours does, drawn by lot."""
        swapped = chance.draw("pair", "", pair // 2) < 0.5  # noqa: PLR2004 - a fair coin
        return swapped == (pair % 2 == 0)

    def compare(self, baseline: Mapping[tuple[str, str], Series], current: Mapping[tuple[str, str], Series]) -> tuple[Comparison, ...]:
        """What the pairs measured so far say of each figure; the values of a series stand in the order of the pairs.

        Raises :class:`~somaresil.errors.ConfigurationError` when a series is not in both, or has not one value a pair.
        """
        check = Checker("pairs")
        for key in sorted({*baseline, *current}):
            before, after = baseline.get(key), current.get(key)
            if before is None or after is None:
                check.problem(f"{key[0]} ({key[1]})", "baseline" if after is None else "current", "a figure of both versions")
            elif len(before.values) != len(after.values):
                check.problem(f"{key[0]} ({key[1]})", f"{len(before.values)} and {len(after.values)} values", "one for each pair")
        check.finish()
        figures = len(baseline)
        return tuple(
            self._compared(baseline[key], current[key], self._level(len(baseline[key].values), figures)) for key in sorted(baseline)
        )

    def needed(self, figures: int) -> int:
        """How many pairs the last look has at least, for it to be able to say anything of so many figures."""
        return fewest_pairs(self._level(self.most, figures))

    def _level(self, pairs: int, figures: int) -> float:
        """The share of the errors that one side of one figure may have at this look."""
        return self.alpha / 2.0 * min(pairs, self.most) / sum(self.looks) / max(1, figures)

    def clear(self, found: Sequence[Comparison]) -> bool:
        """Whether more pairs would change nothing: every figure is shown to be worse, better, or the same within what counts."""
        edge = 1.0 + self.minimum_effect
        return all(
            each.change in _CLEAR or (each.low is not None and each.high is not None and each.low >= 1.0 / edge and each.high <= edge)
            for each in found
        )

    def _compared(self, before: Series, after: Series, level: float) -> Comparison:
        blank = Comparison(
            name=f"{before.name} ({before.metric})",
            change=Change.UNKNOWN,
            reason="",
            better=before.better,
            quantile=0.5,
            baseline_count=len(before.values),
            current_count=len(after.values),
        )
        if before.values == after.values:
            value, count = _median(before.values), len(before.values)
            reason = f"the same value in each of {count} pairs"
            return replace(blank, change=Change.UNCHANGED, baseline=value, current=value, ratio=1.0, low=1.0, high=1.0, reason=reason)
        if not all(before.values) or not all(after.values):
            return replace(blank, reason="a value is 0: the ratio of a pair says nothing")
        needed = fewest_pairs(level)
        if len(before.values) < needed:
            return replace(blank, reason=f"{len(before.values)} pairs cannot decide: {needed} can", needed=needed)
        logs = [math.log(second) - math.log(first) for first, second in zip(before.values, after.values, strict=True)]
        ratio, (least, most) = math.exp(center(logs)), bounds(logs, level)
        low, high, chance = math.exp(least), math.exp(most), p_value(logs)
        found = replace(
            blank,
            baseline=_median(before.values),
            current=_median(after.values),
            ratio=ratio,
            low=low,
            high=high,
            p_value=chance,
            adjusted_p_value=min(1.0, chance * self.alpha / 2.0 / level),
            exact=None,
        )
        return self._decided(found, most - least)

    def _decided(self, found: Comparison, width: float) -> Comparison:
        low, high, edge = found.low or 0.0, found.high or 0.0, 1.0 + self.minimum_effect
        text = f"{found.ratio:.4g} times ({low:.4g} to {high:.4g}), p {found.adjusted_p_value:.2g}, {found.baseline_count} pairs"
        if low > edge or high < 1.0 / edge:
            worse = (low > edge) == (found.better == "lower")
            return replace(
                found,
                change=Change.REGRESSED if worse else Change.IMPROVED,
                reason=f"{'higher' if low > edge else 'lower'}: {text}",
            )
        if low >= 1.0 / edge and high <= edge:
            return replace(found, change=Change.UNCHANGED, reason=f"the same within what counts: {text}")
        kind = "it differs, perhaps by less than counts" if low > 1.0 or high < 1.0 else "no difference can be shown"
        needed = math.ceil(found.baseline_count * (width / 2.0 / math.log(edge)) ** 2) if self.minimum_effect else None
        if needed is None or not found.baseline_count < needed <= _MOST_NEEDED:
            return replace(found, change=Change.UNCHANGED, reason=f"{kind}: {text}")
        more = f"; about {needed} pairs would tell a factor of {edge:g} from none"
        return replace(found, change=Change.UNCHANGED, reason=f"{kind}: {text}{more}", needed=needed)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
