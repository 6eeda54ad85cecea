"""The detector of regressions: two samples beside each other, a history, or a budget, each with an answer that may be "unknown".

Two samples differ when a test says so *and* the interval of the ratio of their quantiles lies beyond the effect that counts. Either alone
misleads: with many values every triviality is significant, and with few a large ratio is chance. The test is that of Mann and Whitney for
the median (:func:`somaresil.model.ranks.rank_test`, exact with ties for small samples) and that of Mood for other quantiles; the interval
is the exact bootstrap (:func:`somaresil.model.bootstrap.bootstrap_ratio`) at a confidence of ``1 - alpha``.

| answer | meaning |
|---|---|
| regressed | worse, by more than counts, and not by chance |
| improved | better, likewise |
| unchanged | no difference that counts can be shown; the interval says how large one may still be |
| unknown | whatever the values are, so few could not show one; or they are no values |

Values that were measured one after another resemble their neighbours: slow noise moves a whole sample, and a test that takes its values for
independent calls that a difference. So what neighbours have in common is estimated, and both p-value and interval are weakened by it
(:mod:`somaresil.model.dependence`). It takes some fifty values a side to estimate it well; with ten it is halfway. Where values stand in
no order of time, ``ordered=False`` says so.

An effect is a factor in both directions: with ``minimum_effect=0.05`` a latency is worse from 1.05 times on, a throughput below 1 / 1.05
times. So swapping the samples turns the answer over, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.model.bootstrap import LARGEST, bootstrap_ratio, quantile_of
from somaresil.model.changepoints import MOST, change_points, fewest_points
from somaresil.model.dependence import autocorrelation, stretch, weakened
from somaresil.model.multiple import benjamini_hochberg, holm
from somaresil.model.orderstats import quantile_test
from somaresil.model.ranks import MOST_VALUES, rank_test
from somaresil.model.samplesize import can_decide, fewest_values, values_for_width

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.model.changepoints import ChangePoint
    from somaresil.perf.budget import BudgetReport, Measured, PerformanceBudget

__all__ = ["Change", "Comparison", "History", "RegressionDetector", "overall"]

BETTER: Final = ("lower", "higher")
_MEDIAN: Final = 0.5
_HIGHEST_LOGARITHM: Final = 700.0
_MOST_NEEDED: Final = 100_000_000


class Change(StrEnum):
    """What became of a measurement."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"


def overall(changes: Iterable[Change]) -> Change:
    """One answer for several: regressed when one is, else unknown when one is (or there is none), else improved when one is."""
    seen = set(changes)
    return next((each for each in (Change.REGRESSED, Change.UNKNOWN, Change.IMPROVED, Change.UNCHANGED) if each in seen), Change.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two samples beside each other, and what follows."""

    name: str
    change: Change
    reason: str
    better: str
    """``lower`` or ``higher``."""
    quantile: float
    baseline_count: int
    current_count: int
    baseline: float | None = None
    """The quantile of the baseline, in the unit of its values."""
    current: float | None = None
    ratio: float | None = None
    """``current / baseline``. None: the baseline is zero."""
    low: float | None = None
    """The true ratio is at least this, and at most :attr:`high`, with a confidence of ``1 - alpha``. None: no end can be told."""
    high: float | None = None
    p_value: float | None = None
    """How often samples of one distribution differ so much, two-sided. It is not how likely a regression is."""
    adjusted_p_value: float | None = None
    """The same, for as many comparisons as were made together."""
    exact: bool | None = None
    """Whether the p-value was counted, and nothing in it comes from the normal distribution."""
    autocorrelation: float = 0.0
    """What neighbours have in common, 0 to 0.9, as far as more than chance was seen; the p-value and the interval are weakened by it."""
    needed: int | None = None
    """Values a side: unknown: at least so many, to be able to decide; unchanged: about so many, to tell an effect that counts from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The changes of level in a history, and what the last of them means."""

    name: str
    change: Change
    reason: str
    better: str
    count: int
    changes: tuple[ChangePoint, ...] = ()
    """All of them, first to last, older ones that were not asked about too."""
    needed: int | None = None
    """Unknown: a history has at least so many values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionDetector:
    """Says whether something became slower (or larger, or less), by more than counts and not by chance.

    It keeps nothing and draws nothing: the same values have the same answer. Raises ``ConfigurationError`` with everything that is wrong.
    """

    minimum_effect: float = 0.05
    """The least effect that counts, as a factor less 1."""
    alpha: float = 0.01
    """How often a difference may be seen where none is: for a comparison, for all that are made together, or for a history."""
    quantile: float = 0.5
    """Which quantile is compared."""
    adjust: str = "holm"
    """For comparisons made together: ``holm`` (no false alarm among them), ``benjamini_hochberg`` (few among the alarms), ``none``."""
    minimum_points: int = 5
    """Values of a history before and after a change."""
    ordered: bool = True
    """Whether the values of samples stand in the order in which they were measured. Sorted ones resemble their neighbours by nothing
    else."""
    undecided: str = "unknown"
    """What becomes of a budget whose limit lies inside of the interval: ``unknown``, or judged by the ``estimate``."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("RegressionDetector")
        check.number("minimum_effect", self.minimum_effect, minimum=0.0, maximum=1000.0)
        check.number("alpha", self.alpha, minimum=1e-6, maximum=0.5)
        check.number("quantile", self.quantile, minimum=0.001, maximum=0.999)
        check.one_of("adjust", self.adjust, ("holm", "benjamini_hochberg", "none"))
        check.count("minimum_points", self.minimum_points, minimum=3, maximum=MOST // 2)
        check.type("ordered", self.ordered, bool, "True or False")
        check.one_of("undecided", self.undecided, ("unknown", "estimate"))
        check.finish()

    def compare(self, baseline: Sequence[float], current: Sequence[float], *, better: str = "lower", name: str = "") -> Comparison:
        """Whether ``current`` is worse than ``baseline``, or better. Values that are no values make it unknown; nothing is dropped.

        Of more than 10,000 values a side every second, third ... is used, in their order. Raises ``ConfigurationError`` for another
        ``better``.
        """
        _check_better(better)
        return self._decided(self._measured(baseline, current, better, name))

    def compare_all(
        self, samples: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, better: str | Mapping[str, str] = "lower"
    ) -> tuple[Comparison, ...]:
        """Compare several pairs (baseline, current) at once, with p-values adjusted for how many there are.

        ``better`` is one for all, or by name, ``lower`` where a name is missing.
        """
        ways = {name: better.get(name, "lower") if isinstance(better, Mapping) else better for name in samples}
        for way in ways.values():
            _check_better(way)
        found = [self._measured(*pair, ways[name], name) for name, pair in samples.items()]
        tested = [each.p_value for each in found if each.p_value is not None]
        if self.adjust != "none":
            tested = holm(tested) if self.adjust == "holm" else benjamini_hochberg(tested)
        adjusted = iter(tested)
        return tuple(self._decided(each if each.p_value is None else replace(each, adjusted_p_value=next(adjusted))) for each in found)

    def history(self, values: Sequence[float], *, better: str = "lower", recent: int | None = None, name: str = "") -> History:
        """Whether the level of a history has changed, oldest value first. The last change decides.

        With ``recent`` only changes within so many last values do: older ones are known already. A change in the last ``minimum_points -
        1`` values cannot be seen yet. Of more than 10,000 values the last are used. Raises ``ConfigurationError`` for options that are
        none.
        """
        _check_better(better)
        check = Checker("RegressionDetector.history")
        check.count("recent", recent, optional=True)
        check.finish()
        seen = values[-MOST:]
        blank = History(name=name, change=Change.UNKNOWN, reason="", better=better, count=len(seen))
        wrong = _wrong(seen, "the history", negative=True)
        if wrong:
            return replace(blank, reason=wrong)
        needed = fewest_points(self.alpha, self.minimum_points)
        if len(seen) < needed:
            return replace(blank, reason=f"{len(seen)} values, and a change can be shown from {needed} on", needed=needed)
        found = change_points(seen, alpha=self.alpha, minimum_points=self.minimum_points, minimum_effect=self.minimum_effect)
        asked = [each for each in found if recent is None or each.index >= len(seen) - recent]
        if not asked:
            older = f"; {len(found)} older" if found else ""
            return replace(blank, change=Change.UNCHANGED, reason=f"no change of level can be shown{older}", changes=found)
        last = asked[-1]
        worse = (last.after > last.before) == (better == "lower")
        reason = f"{_moved(last)} from value {last.index} on, p {last.p_value:.2g}, {last.points_after} values since"
        return replace(blank, change=Change.REGRESSED if worse else Change.IMPROVED, reason=reason, changes=found)

    def check(self, budget: PerformanceBudget, measured: Measured) -> BudgetReport:
        """Whether a budget is kept, with a confidence of ``1 - alpha`` (:meth:`somaresil.perf.budget.PerformanceBudget.check`)."""
        return budget.check(measured, confidence=1.0 - self.alpha, undecided=self.undecided)

    def _measured(self, baseline: Sequence[float], current: Sequence[float], better: str, name: str) -> Comparison:
        """Everything but the answer; unknown with a reason where there is nothing to test."""
        before, after = _thinned(baseline), _thinned(current)
        blank = Comparison(
            name=name,
            change=Change.UNKNOWN,
            reason="",
            better=better,
            quantile=self.quantile,
            baseline_count=len(before),
            current_count=len(after),
        )
        wrong = _wrong(before, "the baseline") or _wrong(after, "the current sample")
        if wrong:
            return replace(blank, reason=wrong)
        needed = self._fewest()
        if not self._can_decide(len(before), len(after)):
            reason = f"{len(before)} and {len(after)} values cannot decide at {self.alpha:g}: {needed} a side can"
            return replace(blank, reason=reason, needed=needed)
        common = autocorrelation(before, after) if self.ordered else 0.0
        blank, factor = replace(blank, autocorrelation=common), stretch(common)
        if common and self.quantile == _MEDIAN and not can_decide(len(before), len(after), self.alpha, factor):
            needed = fewest_values(self.alpha, factor)
            reason = f"neighbours resemble each other ({common:.2g}): {len(before)} and {len(after)} values of this kind cannot decide"
            return replace(blank, reason=f"{reason}, {needed} a side can", needed=needed)
        middles = quantile_of(sorted(before), self.quantile), quantile_of(sorted(after), self.quantile)
        ratio = middles[1] / middles[0] if middles[0] else 1.0 if not middles[1] else None
        low, high = bootstrap_ratio(after, before, self.quantile, 1.0 - self.alpha)
        if ratio:
            low, high = _stretched(low, ratio, factor), _stretched(high, ratio, factor)
        if self.quantile == _MEDIAN:
            test = rank_test(after, before)
            p_value, exact = weakened(test.p_value, factor), test.exact
        else:
            p_value, exact = weakened(quantile_test(after, before, self.quantile), factor), True
        return replace(
            blank,
            baseline=middles[0],
            current=middles[1],
            ratio=ratio,
            low=low,
            high=high if math.isfinite(high) else None,
            p_value=p_value,
            adjusted_p_value=p_value,
            exact=exact and not common,
        )

    def _decided(self, found: Comparison) -> Comparison:
        p_value, low = found.adjusted_p_value, found.low
        if p_value is None or low is None:
            return found
        margin, high = 1.0 + self.minimum_effect, math.inf if found.high is None else found.high
        shown = p_value <= self.alpha
        text = f"{_times(found.ratio)} times ({_times(low)} to {_times(high)}), p {p_value:.2g}"
        if found.autocorrelation:
            text += f", neighbours resemble each other ({found.autocorrelation:.2g})"
        if shown and (low > margin or high < 1.0 / margin):
            worse = (low > margin) == (found.better == "lower")
            word = "higher" if low > margin else "lower"
            known = low if math.isfinite(low) else None
            return replace(found, change=Change.REGRESSED if worse else Change.IMPROVED, reason=f"{word}: {text}", low=known)
        if shown and not found.baseline:
            return replace(found, reason=f"it differs, and the ratio to a baseline of zero says nothing: {text}")
        if low >= 1.0 / margin and high <= margin:
            kind = "it differs by less than counts" if shown and (low > 1.0 or high < 1.0) else "the same within what counts"
            return replace(found, change=Change.UNCHANGED, reason=f"{kind}: {text}")
        needed = self._needed(found, low, high)
        kind = "it differs, perhaps by less than counts" if shown else "no difference can be shown"
        more = "" if needed is None else f"; about {needed} values a side would tell a factor of {margin:g} from none"
        return replace(found, change=Change.UNCHANGED, reason=f"{kind}: {text}{more}", needed=needed)

    def _needed(self, found: Comparison, low: float, high: float) -> int | None:
        if not self.minimum_effect or low <= 0.0 or not math.isfinite(high):
            return None
        fewer = min(found.baseline_count, found.current_count)
        needed = values_for_width(fewer, math.log(high / low) / 2.0, math.log1p(self.minimum_effect))
        return needed if fewer < needed <= _MOST_NEEDED else None

    def _can_decide(self, n: int, m: int) -> bool:
        if self.quantile == _MEDIAN:
            return can_decide(n, m, self.alpha)
        if not n or not m:
            return False
        # The clearest that a test of one place can see: all that lie beyond it, or all that do not, are of one side, whichever.
        beyond = n + m - math.ceil(self.quantile * (n + m))
        rarer = min(beyond, n + m - beyond)
        every = math.comb(n + m, rarer)
        return all(2 * math.comb(side, min(side, rarer)) / every <= self.alpha for side in (n, m))

    def _fewest(self) -> int:
        if self.quantile == _MEDIAN:
            return fewest_values(self.alpha)
        count = 1
        while not self._can_decide(count, count):
            count += 1
        return count


def _stretched(end: float, ratio: float, factor: float) -> float:
    """The end of an interval, this many times as far from the ratio; farness is that of logarithms."""
    if factor == 1.0 or end <= 0.0 or math.isinf(end):
        return end
    middle = math.log(ratio)
    return math.exp(min(middle + factor * (math.log(end) - middle), _HIGHEST_LOGARITHM))


def _check_better(better: str) -> None:
    check = Checker("RegressionDetector")
    check.one_of("better", better, BETTER)
    check.finish()


def _thinned(values: Sequence[float]) -> Sequence[float]:
    stride = -(-len(values) // MOST_VALUES)
    return values[::stride] if stride > 1 else values


def _wrong(values: Sequence[float], side: str, *, negative: bool = False) -> str:
    """What is wrong with the values, or nothing."""
    if not len(values):
        return f"{side} is empty"
    for place, value in enumerate(values):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return f"value {place} of {side} is {value!r}, which is no finite number"
        if value < 0.0 and not negative:
            return f"value {place} of {side} is {value!r}, and a ratio to what is below zero says nothing"
        if abs(value) > LARGEST or (0.0 < abs(value) < 1.0 / LARGEST and not negative):
            return f"value {place} of {side} is {value!r}, which is beyond what is compared: {1.0 / LARGEST:g} to {LARGEST:g}"
    return ""


def _times(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.4g}"


def _moved(change: ChangePoint) -> str:
    size = "" if change.ratio is None else f", {change.ratio:.4g} times"
    return f"from {change.before:.6g} to {change.after:.6g}{size}"
