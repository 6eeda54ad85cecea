"""What a pipeline can come to: the longest that a call takes, and the most calls of its dependency that it makes.

Bounds, not predictions: every attempt takes as long as it may and fails, every pause is drawn at its longest. A policy in shadow mode
limits nothing and repeats nothing, so it counts as absent.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from somaresil.model.backoff import exponential
from somaresil.policy.retry import _FIRST_WAIT, _LONGEST_WAIT

if TYPE_CHECKING:
    from somaresil.guard.options import GuardOptions

__all__ = ["amplification", "attempt_limit", "longest_line", "pauses", "working", "worst_case"]


def working(options: GuardOptions, name: str) -> Any:
    """The options of one policy when it does what it says; None when there is none, or none in earnest."""
    policy = getattr(options, name, None)
    return None if getattr(policy, "shadow", False) else policy


def attempt_limit(options: GuardOptions) -> float | None:
    """Seconds that one attempt may take once it is let through; None: no limit."""
    total: float | None = getattr(working(options, "timeout"), "total", None)
    return total


def longest_line(options: GuardOptions) -> float:
    """Seconds that one attempt may wait until it is let through: the ``max_wait`` of every policy that has one, added up."""
    waits = [getattr(working(options, field.name), "max_wait", None) for field in fields(options)]
    return sum(float(wait) for wait in waits if isinstance(wait, int | float))


def pauses(options: GuardOptions, *, asked: bool = False) -> float | None:
    """Seconds between the attempts of a call, all together; None: a function says it.

    ``asked``: each failing answer asks for the longest pause that it may ask for (``Retry-After``).
    """
    retry = working(options, "retry")
    if retry is None or retry.attempts == 1:
        return 0.0
    if callable(retry.wait):
        return None
    more: int = retry.attempts - 1
    longest = float(retry.max_retry_after or 0.0) if asked else 0.0
    if retry.wait is not None:
        return max(float(retry.wait), longest) * more
    # The usual draw comes on top of what the answer asks for.
    return sum(exponential(n, base=_FIRST_WAIT, maximum=_LONGEST_WAIT) + longest for n in range(1, more + 1))


def worst_case(options: GuardOptions, *, asked: bool = False) -> float | None:
    """Seconds that a call takes at most, without the time of its fallback; None: nothing bounds it.

    A plain function is not interrupted by its timeout, unless ``abandon=True``: for such a call it is no bound.
    """
    limit = attempt_limit(options)
    if limit is None:
        return None
    once = longest_line(options) + limit
    retry, between = working(options, "retry"), pauses(options, asked=asked)
    tries = 1 if retry is None else retry.attempts
    bounds = [] if between is None else [tries * once + between]
    if retry is not None and retry.max_elapsed is not None:
        # No attempt begins later than that.
        bounds.append(float(retry.max_elapsed) + once)
    if not bounds:
        return None
    inside = min(bounds)
    # A further attempt begins while the one before it runs, and takes all the policies inside anew.
    return inside + _hedges(options) * min(inside, _hedge_delay(options) or inside)


def amplification(options: GuardOptions) -> int:
    """How many calls of the dependency one call makes at most."""
    retry = working(options, "retry")
    return (1 if retry is None else int(retry.attempts)) * (1 + _hedges(options))


def _hedges(options: GuardOptions) -> int:
    """How many further calls a hedge starts at most."""
    hedge = working(options, "hedge")
    return 0 if hedge is None else int(getattr(hedge, "max_hedges", 1))


def _hedge_delay(options: GuardOptions) -> float | None:
    """Seconds after which a hedge starts the next of them; None: that is measured."""
    hedge = working(options, "hedge")
    delay = None if getattr(hedge, "quantile", None) is not None else getattr(hedge, "delay", None)
    return float(delay) if isinstance(delay, int | float) else None
