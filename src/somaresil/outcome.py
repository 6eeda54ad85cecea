"""How a call ended, in five words that mean the same everywhere: records, events, metrics, budgets.

- ``good``: an answer that counts as an answer.
- ``bad``: an error, a timeout, a broken stream, or a result that the guard's ``classify`` calls bad.
- ``rejected``: a policy of the guard refused; the dependency was not called.
- ``abandoned``: the caller went away (cancellation, ``GeneratorExit``, ``KeyboardInterrupt``, ``SystemExit``). Nothing is known about the
  dependency, so nobody is blamed: Polly closes a circuit on a cancelled probe, pybreaker opens one.
- ``ignored``: the guard's ``classify`` says that this end says nothing about the dependency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from somaresil.config import Checker
from somaresil.errors import Rejected

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Classifier", "Fatal", "Outcome", "outcome_of"]


class Outcome(StrEnum):
    """How a call ended."""

    # The hash of Enum is a Python function, and counts are kept by outcome. Equality is that of str anyway.
    __hash__ = str.__hash__

    GOOD = "good"
    BAD = "bad"
    REJECTED = "rejected"
    ABANDONED = "abandoned"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Fatal:
    """What a classifier answers about an end that is bad, and after which further calls are pointless: the circuit opens at once.

    A key that was revoked, a quota that is used up. Without a breaker it is a bad end like any other.
    """

    duration: float | timedelta | None = None
    """Seconds for which it opens, no more and no less; None: as long as any opening, or as the answer asks (``Retry-After``)."""

    def __post_init__(self) -> None:
        """Check the duration, keep seconds as a float."""
        check = Checker("Fatal")
        object.__setattr__(self, "duration", check.seconds("duration", self.duration, optional=True))
        check.finish()


Classifier = Callable[[object, BaseException | None], "Outcome | Fatal | None"]
"""What users may hand to a guard: ``classify(result, error)``, one of the two is None. None as the answer means: judge as usual."""


def outcome_of(guard: str, error: BaseException | None) -> Outcome:
    """The usual judgement: no error is good, an ``Exception`` bad, any other ``BaseException`` abandoned.

    A rejection by ``guard`` itself is rejected. A rejection that comes out of a *nested* guard is an error of this guard's callee: bad.
    """
    if error is None:
        return Outcome.GOOD
    if not isinstance(error, Exception):
        return Outcome.ABANDONED
    if isinstance(error, Rejected) and error.guard == guard:
        return Outcome.REJECTED
    return Outcome.BAD
