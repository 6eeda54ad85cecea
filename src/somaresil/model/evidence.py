"""Evidence about a candidate beside a control that may be looked at as often as one likes: e-processes over bad events.

A ratio with an interval is valid once, at a time that was fixed beforehand. Who looks every hundred requests and rolls back at the first
"significant" difference rolls back every sixth good candidate at a nominal 1 %. An e-process is a bet against the null hypothesis that
starts at 1 and cannot be expected to grow while that is true; the probability that it *ever* reaches ``1 / alpha`` is at most ``alpha``
(Ville, "Étude critique de la notion de collectif", 1939; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 38, 2023). So it may be read at any moment, and the first moment at which it is convincing
counts.

Only bad events are looked at. Each request went to the candidate with a probability, its *weight*, that was known before; when both are
equally bad, a bad event is the candidate's with just that probability, whatever the rate of bad events is, and however it changes. With a
*risk ratio* ``r`` (the candidate's probability of a bad event over the control's) it is the candidate's with

    theta(w, r) = w r / (w r + 1 - w).

The likelihoods for a grid of alternatives over that of the null, averaged, are the e-value. Weights may change with every request, as long
as what they are is decided before it: ramps are legal. What must hold is that a request goes to either side by chance alone. Where one
user keeps to one side, his bad events are no independent ones: count only his first.

Sums of logarithms of replicas add up, so evidence of a fleet is a sum of as many numbers as the grid has, in any order.

Pure: nothing here knows time or chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from somaresil.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BETTER", "HIGHEST", "WORSE", "Bet", "against_objective", "candidate_share", "e_value"]

WORSE: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""Risk ratios that a bet against "no worse" is spread over: from a quarter more to a candidate that fails always."""
BETTER: Final = (0.25, 0.5, 0.75, 1.0)
"""Risk ratios that a bet against "much worse" is spread over."""
HIGHEST: Final = 700.0
"""Logarithms above this are this: e to the 710th is no float any more, and nobody asks for more certainty."""


def candidate_share(weight: float, ratio: float) -> float:
    """Probability that a bad event is the candidate's: it has ``weight`` of the requests, and ``ratio`` times the control's risk."""
    return weight * ratio / (weight * ratio + 1.0 - weight)


def e_value(logs: Sequence[float]) -> float:
    """The mean of the exponentials of ``logs``, without overflow: at most e to the power of :data:`HIGHEST`."""
    top = max(logs)
    return math.exp(min(top, HIGHEST)) * sum(math.exp(log - top) for log in logs) / len(logs)


class Bet:
    """A bet that the candidate's risk ratio is among ``ratios``, and not ``null``.

    With ``null=1`` and ratios above it the bet wins when the candidate is worse; it is valid against every ratio up to 1. With ``null=2``
    and ratios below, it wins when the candidate is surely not twice as bad; it is valid against every ratio from 2 on. Not safe to use
    from several threads at once.

    Raises :class:`~somaresil.errors.ConfigurationError` for ratios that lie on both sides of ``null``: it would be valid against nothing.
    """

    __slots__ = ("logs", "null", "ratios")

    def __init__(self, null: float, ratios: Sequence[float], logs: Sequence[float] | None = None) -> None:
        """Nothing was seen; or ``logs`` say what was, from :attr:`logs` of another one."""
        problems = _problems(null, ratios, logs)
        if problems:
            raise ConfigurationError(problems)
        self.null = null
        self.ratios = tuple(ratios)
        self.logs = [0.0] * len(self.ratios) if logs is None else [float(log) for log in logs]
        """For each ratio, how much likelier than under the null hypothesis it makes what was seen, as a logarithm."""

    def bad(self, weight: float, *, candidate: bool, times: int = 1) -> None:
        """A bad event, of the candidate or of the control, when the candidate got ``weight`` (0 to 1) of the requests.

        ``times``: so many of them. ``weight`` may also be the share that the candidate had of the events of an interval, which is known
        only at its end: see below.

        Of ``m`` events of the candidate and ``n`` of the control, each bad by itself with a probability of its own, the bet is expected to
        become at most ``exp((p m (a - 1) + q n (b - 1)))``, where ``p`` and ``q`` are the mean probabilities of either side, ``a`` and
        ``b`` what a bad event of either multiplies it by (``1 + x <= exp(x)`` for each factor). With ``w = m / (m + n)`` that exponent is
        0 for ``p / q`` equal to ``null``, and negative beyond it: the bet stays valid. What it needs is that how many events there are
        does not depend on which of them are bad.

        With one side alone nothing can be compared, so at a weight of 0 or 1 it says nothing.
        """
        if not 0.0 < weight < 1.0:
            return
        expected = candidate_share(weight, self.null)
        for place, ratio in enumerate(self.ratios):
            share = candidate_share(weight, ratio)
            self.logs[place] += times * (math.log(share / expected) if candidate else math.log((1.0 - share) / (1.0 - expected)))

    @property
    def e(self) -> float:
        """The evidence: ``e >= 1 / alpha`` may be acted upon at level ``alpha``, whenever it is seen."""
        return e_value(self.logs)

    def add(self, logs: Iterable[float]) -> None:
        """Add what another replica has seen. Raises ``ValueError`` when it has bet on other ratios."""
        self.logs = [one + other for one, other in zip(self.logs, logs, strict=True)]


def against_objective(good: int, bad: int, allowed: float, ratios: Sequence[float] = WORSE) -> float:
    """Evidence that more than ``allowed`` (a ratio) of the candidate's own events are bad, by the same bet with a rate that is known.

    Of counts alone, so replicas add up and nothing has to be kept. A rate of ``ratio * allowed`` is taken as 1 from there on, but for a
    millionth: one good event must not end the bet for ever.
    """
    return e_value([bad * math.log(rate / allowed) + good * math.log((1.0 - rate) / (1.0 - allowed)) for rate in _rates(allowed, ratios)])


def _rates(allowed: float, ratios: Sequence[float]) -> list[float]:
    return [min(ratio * allowed, 1.0 - 1e-6) for ratio in ratios if ratio * allowed > allowed]


def _problems(null: float, ratios: Sequence[float], logs: Sequence[float] | None) -> list[Problem]:
    found = []
    if not (math.isfinite(null) and null > 0.0):
        found.append(Problem("Bet.null", null, "a ratio above 0", ""))
    sides = {ratio > null for ratio in ratios}
    if not ratios or not all(math.isfinite(ratio) and ratio > 0.0 for ratio in ratios):
        found.append(Problem("Bet.ratios", tuple(ratios), "ratios above 0, one at least", ""))
    elif len(sides) > 1 or null in ratios:
        found.append(Problem("Bet.ratios", tuple(ratios), f"all above {null:g}, or all below", "it would be valid against nothing"))
    if logs is not None and (len(logs) != len(ratios) or not all(math.isfinite(log) for log in logs)):
        found.append(Problem("Bet.logs", tuple(logs), f"{len(ratios)} finite numbers", ""))
    return found
