"""How long to wait: exponential delays with a ceiling, and jitter to keep clients from moving in step.

Without jitter, everyone who failed together comes back together. The two ways of spreading a delay, *full* and *equal* jitter, and the
measurement that favours full jitter are those of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

All delays are seconds. ``u`` is a draw in [0, 1) made by the caller; nothing in here is random. Delays never overflow: attempt 10**9 simply
has the longest delay.
"""

from __future__ import annotations

__all__ = ["equal_jitter", "exponential", "full_jitter", "opening_duration"]


def exponential(attempt: int, *, base: float, factor: float = 2.0, maximum: float) -> float:
    """The delay of the given attempt, counted from 1: ``min(base * factor ** (attempt - 1), maximum)`` seconds.

    Attempts below 1 count as the first: a model that is asked at a wrong moment must not make a wait shorter than its base.
    """
    try:
        delay = base * float(factor) ** max(attempt - 1, 0)
    except OverflowError:
        delay = maximum if base > 0.0 else 0.0
    return min(delay, maximum)


def full_jitter(delay: float, u: float) -> float:
    """A delay anywhere in [0, delay): the widest spread, and on average half the wait."""
    return delay * u


def equal_jitter(delay: float, u: float) -> float:
    """A delay in [delay / 2, delay): half of it is kept, for callers that must not return at once."""
    return delay / 2 + delay / 2 * u


def opening_duration(opening: int, *, open_duration: float, factor: float, maximum: float, jitter: float, u: float) -> float:
    """How long a breaker stays open at its ``opening``-th opening in a row, counted from 1, in seconds.

    The k-th opening lasts ``min(open_duration * factor ** (k - 1), maximum)``, lengthened or shortened by at most the share ``jitter`` in
    [0, 1] of it. The jitter comes after the ceiling, because at the ceiling replicas need spreading most; so the longest opening is
    ``maximum * (1 + jitter)``.

    Draw ``u`` once for each opening and keep the result. Drawing again at every look at the clock lets the shortest draw win, and the
    spread collapses to its lower end.
    """
    duration = exponential(opening, base=open_duration, factor=factor, maximum=maximum)
    return duration * (1.0 - jitter + 2.0 * jitter * u)
