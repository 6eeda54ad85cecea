"""What counts as what: a classifier made of exception types and predicates, for the usual cases.

    classify = Classify(
        ignored=ValidationError,
        good=NotFound,
        fatal=(AuthenticationError, lambda error: getattr(error, "code", None) == "insufficient_quota"),
        bad_result=lambda response: response.status_code >= 500,
    )

Each error is looked up in the order fatal, ignored, good, bad, and the first that names it decides. A predicate that raises is reported
once, and the usual rule judges that call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.outcome import Fatal, Outcome

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Classify"]

Rule = type[BaseException] | Callable[[Any], object]
Rules = Rule | Iterable[Rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify:
    """A classifier for ``guard(classify=...)``. An error is named by its type, by a predicate on it, or by several of these.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    bad: Rules = Exception
    """Failures. An error that nothing names says nothing about the dependency: it is ignored."""
    good: Rules = ()
    """Errors that are answers: a 404 is one."""
    ignored: Rules = ()
    """Errors that say nothing about the dependency: a mistake of the caller."""
    fatal: Rules = ()
    """Failures after which further calls are pointless: the circuit opens at once."""
    bad_result: Callable[[Any], object] | None = None
    """A predicate on what was returned: true means that it is a failure."""
    fatal_result: Callable[[Any], object] | None = None
    """The same, for what opens the circuit at once."""
    fatal_duration: float | timedelta | None = None
    """Seconds for which something fatal opens it; None: as long as any opening, or as the answer asks."""

    def __post_init__(self) -> None:
        """Check everything, keep rules as tuples and seconds as a float."""
        check = Checker("Classify")
        for name in _ABOUT_ERRORS:
            object.__setattr__(self, name, _rules(check, name, getattr(self, name)))
        for name in ("bad_result", "fatal_result"):
            predicate = getattr(self, name)
            if predicate is not None and (not callable(predicate) or isinstance(predicate, type) or _suspends(predicate)):
                check.problem(name, predicate, "a plain function of the result")
        duration = check.seconds("fatal_duration", self.fatal_duration, optional=True)
        object.__setattr__(self, "fatal_duration", duration)
        check.finish()

    @property
    def judges_results(self) -> bool:
        """Whether it looks at what is returned. Where it does not, good calls stay on the quiet path."""
        return self.bad_result is not None or self.fatal_result is not None

    def __call__(self, result: object, error: BaseException | None) -> Outcome | Fatal | None:
        """How this end counts; None: as usual."""
        if error is None:
            if self.fatal_result is not None and self.fatal_result(result):
                return Fatal(self.fatal_duration)
            return Outcome.BAD if self.bad_result is not None and self.bad_result(result) else None
        for name in _ABOUT_ERRORS:
            if any(isinstance(error, rule) if isinstance(rule, type) else rule(error) for rule in getattr(self, name)):
                return Fatal(self.fatal_duration) if name == "fatal" else Outcome(name)
        return Outcome.IGNORED


_ABOUT_ERRORS = ("fatal", "ignored", "good", "bad")
"""In the order in which they are asked."""


def _rules(check: Checker, name: str, given: Any) -> tuple[Rule, ...]:
    rules: tuple[Any, ...] = (given,)
    if isinstance(given, Iterable) and not isinstance(given, str) and not callable(given):
        rules = tuple(given)
    for rule in rules:
        if isinstance(rule, type) and not issubclass(rule, Exception):
            check.problem(name, rule, "subclasses of Exception", "cancellation and exit are nobody's verdict")
        elif not callable(rule) or _suspends(rule):
            check.problem(name, rule, "exception types, plain predicates on the exception, or several of these")
    return rules


def _suspends(rule: object) -> bool:
    """Whether calling it gives a coroutine: nobody awaits it, and it is always true."""
    return inspect.iscoroutinefunction(rule) or inspect.iscoroutinefunction(getattr(type(rule), "__call__", None))  # noqa: B004
