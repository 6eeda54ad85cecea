"""Which of several endpoints gets the next call. Pure arithmetic: the time, the draws and what is known of the endpoints are arguments.

Where the rules come from:

- Two endpoints are drawn and the better one is taken: Michael Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
  TPDS, 2001. What is compared is latency times load, the latency being a moving average that rises at once and falls slowly, as the
  "peak EWMA" balancer of Finagle has it.
- Priority levels, overprovisioning, the panic threshold and slow start follow Envoy ("Priority levels", "Panic threshold", "Slow start
  mode" in its architecture overview).
- Keys stick by weighted rendezvous hashing (Thaler and Ravishankar, IEEE/ACM ToN, 1998; the weights by Schindelhauer and Schomaker, SPAA
  2005) with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018).

Who is thrown out of the pool for a while is decided in :mod:`somaresil.model.ejection`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CLEARLY",
    "LEAST_SHARE",
    "Candidate",
    "PeakEwma",
    "Spread",
    "bounded",
    "choose",
    "halves",
    "level_of",
    "rendezvous",
    "slow_start",
    "spread",
]

CLEARLY: Final = 1.25
"""By which factor one score must be better than another to win over the draw. Latencies are never equal; without this the endpoint that is
one per cent faster would take every call that it is drawn for."""

LEAST_SHARE: Final = 0.1
"""The share of its weight with which an endpoint begins its slow start, as in Envoy."""


class PeakEwma:
    """The latency of one endpoint in seconds: up at once, down by and by, and forgotten with time.

    A good answer that took longer than the average becomes the average; a shorter one pulls it down with weight ``1 - exp(-t / decay)``
    after ``t`` seconds, and with a tenth at least: answers are evidence, however fast they come. Read, it has decayed by
    ``exp(-t / decay)`` since the last answer: an endpoint that gets no calls because it was slow gets one again, ``decay`` times the
    logarithm of how much slower it was later.
    """

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        """Know nothing."""
        self._value: float | None = None
        self._at = 0.0

    def read(self, now: float, decay: float) -> float | None:
        """The average now; None: nothing is known."""
        return None if self._value is None else self._value * _faded(now - self._at, decay)

    def observe(self, seconds: float, now: float, decay: float) -> None:
        """A good answer took so long."""
        value = self._value
        if value is not None and seconds < value:
            seconds += (value - seconds) * min(_faded(now - self._at, decay), _KEPT)
        self._value, self._at = seconds, now

    def at_least(self, seconds: float, now: float, decay: float) -> None:
        """There was no good answer after so long. That can only make it look slower: an endpoint that fails fast is not a fast one."""
        known = self.read(now, decay)
        if known is not None and seconds > known:
            self._value, self._at = seconds, now

    def forget(self) -> None:
        """Know nothing: what it was before it went away says little about what it is now."""
        self._value = None


_KEPT: Final = 0.9


def _faded(seconds: float, decay: float) -> float:
    return math.exp(-max(0.0, seconds) / decay)


def slow_start(since: float | None, now: float, window: float) -> float:
    """The share of its weight that an endpoint has when it came (back) at ``since``: from a tenth to all of it over ``window`` seconds.

    Envoy's formula with aggression 1; None or no window: all of it.
    """
    if since is None or window <= 0.0:
        return 1.0
    return min(1.0, max(LEAST_SHARE, (now - since) / window))


class Candidate(NamedTuple):
    """An endpoint that may be taken."""

    weight: float
    """Its weight now, slow start included; > 0."""
    latency: float | None
    """In seconds; None: not known."""
    in_flight: int
    starting: bool = False
    """Whether it is in its slow start: then it is taken only when it is drawn first, so it never gets more than its share."""
    waited: float = 0.0
    """How long those calls have waited for their answer, on average: its latency is no less, which shows before the first one answers."""


def halves(u: float) -> tuple[float, float]:
    """Two draws in [0, 1) out of one, with half of its digits each."""
    high = math.floor(u * _HALF)
    return high / _HALF, u * _HALF - high


_HALF: Final = float(2**26)


def choose(candidates: Sequence[Candidate], u: float, v: float) -> int:
    """The position of the endpoint to take out of at least one: the better of two that are drawn by weight, by the draws ``u`` and ``v``.

    The score is latency x (1 + in flight / weight), the weight being relative to the average of the candidates. Weight stands in the draw
    and beside the calls in flight, not below the latency: an idle pool is shared out by weight, a busy one has as much in flight for each
    unit of it, and twice the weight does not pass for half the latency. The first drawn is taken unless the second is clearly better. A
    latency that is not known is taken for that of the one in the middle.
    """
    weights = [candidate.weight for candidate in candidates]
    first = _drawn(weights, u)
    mean = sum(weights) / len(weights)
    challengers = [0.0 if position == first or one.starting else one.weight for position, one in enumerate(candidates)]
    if not any(challengers):
        return first
    second = _drawn(challengers, v)
    known = sorted(one.latency for one in candidates if one.latency is not None)
    usual = known[len(known) // 2] if known else 1.0
    holder, challenger = (_score(candidates[position], mean, usual) for position in (first, second))
    return second if challenger * CLEARLY < holder else first


def _score(one: Candidate, mean: float, usual: float) -> float:
    return max(usual if one.latency is None else one.latency, one.waited) * (1.0 + one.in_flight * mean / one.weight)


def _drawn(weights: Sequence[float], u: float) -> int:
    left = u * sum(weights)
    last = 0
    for position, weight in enumerate(weights):
        if weight > 0.0:
            last = position
            left -= weight
            if left < 0.0:
                return position
    # Sums of floats are off by a little: what is left over belongs to the last.
    return last


class Spread(NamedTuple):
    """How calls are spread over the levels."""

    loads: tuple[float, ...]
    """The share of each level; they add up to 1."""
    panics: tuple[bool, ...]
    """Which levels balance over all their endpoints, whatever is known of them."""


def spread(levels: Sequence[tuple[int, int]], overprovisioning: float, panic_threshold: float) -> Spread:
    """Envoy's priority levels, for (healthy, all) endpoints of each level, the most wanted first; no level is empty.

    A level can bear ``overprovisioning`` times its healthy share, at most all; what it cannot bear goes to the next. Only when all of them
    together cannot bear everything does a level whose healthy share is below ``panic_threshold`` panic: then the few that are left would be
    killed by the load of the others. When nobody is healthy, everything goes to the first level.
    """
    if levels[0][0] == levels[0][1]:
        # So it is nearly always.
        return Spread((1.0,) + (0.0,) * (len(levels) - 1), (False,) * len(levels))
    health = [min(1.0, overprovisioning * healthy / total) for healthy, total in levels]
    borne = sum(health)
    if borne <= 0.0:
        return Spread((1.0,) + (0.0,) * (len(levels) - 1), (panic_threshold > 0.0,) * len(levels))
    enough = borne >= 1.0 - _TINY
    left, loads = 1.0, list[float]()
    for share in health:
        loads.append(max(0.0, min(left, share / min(1.0, borne))))
        left -= loads[-1]
    return Spread(tuple(loads), tuple(not enough and healthy / total < panic_threshold for healthy, total in levels))


_TINY: Final = 1e-9


def level_of(loads: Sequence[float], u: float) -> int:
    """The level of a call, by the draw ``u``."""
    return _drawn(loads, u)


def rendezvous(weights: Sequence[float], draws: Sequence[float]) -> list[int]:
    """The positions of the endpoints, the one first where a key belongs; ``draws`` are its hashes with each of them, in [0, 1).

    Each endpoint gets keys in proportion to its weight. When one leaves, only its own keys move; when its weight grows, keys move to it
    alone.
    """
    return sorted(range(len(weights)), key=lambda position: -math.log(max(draws[position], _LEAST_DRAW)) / weights[position])


_LEAST_DRAW: Final = 2.0**-54


def bounded(order: Sequence[int], in_flight: Sequence[int], weights: Sequence[float], factor: float) -> int:
    """The first position in ``order`` that has less than ``factor`` (> 1) times its share of the calls in flight, this one included."""
    total, unit = sum(in_flight) + 1, sum(weights)
    for position in order:
        if in_flight[position] < math.ceil(factor * total * weights[position] / unit):
            return position
    return order[0]
