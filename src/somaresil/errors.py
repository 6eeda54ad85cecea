"""The errors of somaresil, and whose fault each of them is.

::

    SomaresilError
    ├── ConfigurationError      the programmer's: every problem found, each with path, value and what is allowed
    ├── Rejected                nobody's call was made: a policy refused to try
    │   ├── CircuitOpen         the breaker of the guard is open, or its probes are taken
    │   ├── BulkheadFull        every slot is busy and the waiting line is full, or waiting took too long
    │   ├── RateLimited         more calls than agreed
    │   ├── LoadShed            less important work makes room
    │   ├── NoEndpoint          every endpoint of a pool refused, or none of them is well
    │   └── DeadlineExceeded    the caller has given up already
    ├── CallTimedOut            the dependency's: no answer in time (also a TimeoutError)
    ├── ViolationBlocked        the code's: a rule of the runtime guard does not allow it (also a PermissionError)
    └── InjectedFault           ours, on purpose: an experiment is running
        └── InjectedAnswer      in the words of a server: a status, a code, when to come back

Every rejection is a new object: a shared exception collects the traceback of each caller that sees it, without end.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BulkheadFull",
    "CallTimedOut",
    "CircuitOpen",
    "ConfigurationError",
    "DeadlineExceeded",
    "InjectedAnswer",
    "InjectedFault",
    "LoadShed",
    "NoEndpoint",
    "PipelineWarning",
    "Problem",
    "RateLimited",
    "Rejected",
    "SomaresilError",
    "ViolationBlocked",
]


class SomaresilError(Exception):
    """Base of every error that somaresil raises of its own."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    ``path`` says where it was set (``guard('llm.invoke').breaker.failure_rate``), ``value`` what was found there,
    ``allowed`` what would be accepted, ``hint`` what to do.
    """

    path: str
    value: object
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        """One line: path, value, what is allowed, hint."""
        line = f"{self.path} = {brief(self.value)}: expected {self.allowed}"
        return f"{line} ({self.hint})" if self.hint else line


class ConfigurationError(SomaresilError, ValueError):
    """Something was set up wrongly; nothing was changed or armed. ``problems`` lists everything that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems as a tuple."""
        super().__init__(tuple(problems))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem found, in the order in which it was found."""
        found: tuple[Problem, ...] = self.args[0]
        return found

    def __str__(self) -> str:
        """A heading, then one line a problem."""
        count = len(self.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} in the configuration"
        return "\n  ".join([heading, *map(str, self.problems)])


class PipelineWarning(UserWarning):
    """A guard was made whose policies are right by themselves and surely wrong together. ``Resilience(strict=True)`` makes it an error."""


class Rejected(SomaresilError):
    """A policy refused the call; the guarded function was not called.

    ``guard`` is the name of the guard, ``retry_after`` the seconds after which a new try makes sense (None: not known),
    ``detail`` what was measured, ``last_error`` type and message of the error behind it, as text (an exception object
    would keep its frames alive for as long as the circuit is open), ``injected`` whether an experiment caused it.
    """

    # A rejection must stay cheap: the circuit is open because somebody is in trouble already. Slots save a dictionary and a fifth of the
    # time, and no super().__init__ is called, since BaseException.__new__ has kept the arguments.
    __slots__ = ("detail", "guard", "injected", "last_error", "retry_after")
    reason: ClassVar[str] = "rejected"

    def __init__(
        self,
        guard: str,
        retry_after: float | None = None,
        detail: str = "",
        last_error: str | None = None,
        injected: bool = False,  # noqa: FBT001, FBT002 - positional: keywords cost time
    ) -> None:
        """Keep what is known; the text is made only when somebody reads it."""
        self.guard = guard
        self.retry_after = retry_after
        self.detail = detail
        self.last_error = last_error
        self.injected = injected

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy everything, notes included, however it was given."""
        given = (self.guard, self.retry_after, self.detail, self.last_error, self.injected)
        return type(self), given, self.__dict__ or None

    def __str__(self) -> str:
        """What happened, why, and when to come back."""
        parts = [f"guard {self.guard!r} rejected the call: {self.reason}"]
        if self.detail:
            parts.append(self.detail)
        if self.last_error:
            parts.append(f"last error {self.last_error}")
        if self.retry_after is not None:
            parts.append(f"retry after {self.retry_after:.3g} s")
        if self.injected:
            parts.append("caused by a chaos experiment")
        return "; ".join(parts)


class CircuitOpen(Rejected):
    """The breaker is open, or half-open with every probe taken."""

    reason = "circuit open"


class BulkheadFull(Rejected):
    """Every slot of the bulkhead is busy."""

    reason = "bulkhead full"


class RateLimited(Rejected):
    """The rate limit is used up."""

    reason = "rate limited"


class LoadShed(Rejected):
    """The call gave way to more important work."""

    reason = "load shed"


class NoEndpoint(Rejected):
    """Every endpoint of a pool refused the call, or none of them is well; ``retry_after`` is the soonest of theirs."""

    reason = "no endpoint"


class DeadlineExceeded(Rejected):
    """The deadline of the request had passed before the call began."""

    reason = "deadline exceeded"


class CallTimedOut(SomaresilError, TimeoutError):
    """No answer within ``limit`` seconds; ``phase`` says which limit: ``total``, ``first_item``, ``idle`` or ``deadline``."""

    def __init__(self, guard: str, limit: float, phase: str = "total") -> None:
        """Keep guard, limit and phase."""
        super().__init__(guard, limit, phase)
        self.guard = guard
        self.limit = limit
        self.phase = phase

    def __str__(self) -> str:
        """Which guard waited how long for what."""
        if self.phase == "deadline":
            return f"{self.guard!r} was cut off by a deadline after {self.limit:.3g} s"
        return f"guard {self.guard!r} timed out: no {_PHASES.get(self.phase, self.phase)} within {self.limit:.3g} s"


class ViolationBlocked(SomaresilError, PermissionError):
    """A rule of the runtime guard does not allow what was about to be done, and refuses it; ``errno`` is ``EACCES``."""

    def __init__(self, rule: str, subject: str) -> None:
        """Keep the rule and what it was about."""
        super().__init__(errno.EACCES, f"no list of the rule {rule!r} allows it", subject)
        self.rule = rule
        self.subject = subject

    def __reduce__(self) -> tuple[Any, ...]:
        """Be made anew from the same two."""
        return type(self), (self.rule, self.subject)

    def __str__(self) -> str:
        """Which rule refused what."""
        return f"the runtime guard refused {brief(self.subject)}: it is not in the list {self.rule!r} of RuntimeRules"


_PHASES = {"total": "answer", "first_item": "first item", "idle": "next item"}


class InjectedFault(SomaresilError):
    """The error that an experiment raises when it was not told to raise a client's own."""

    def __init__(self, component: str, experiment: str) -> None:
        """Keep component and experiment id."""
        super().__init__(component, experiment)
        self.component = component
        self.experiment = experiment

    def __str__(self) -> str:
        """Name the component and the experiment, so that nobody hunts a ghost."""
        return f"fault injected into {self.component!r} by chaos experiment {self.experiment}"


class InjectedAnswer(InjectedFault):
    """An injected fault that says what a server would: what a retry reads off the errors of HTTP clients, it can read off this one."""

    def __init__(
        self, component: str, experiment: str, status_code: int, code: str | None = None, retry_after: float | None = None
    ) -> None:
        """Keep everything; ``retry_after`` in seconds."""
        super().__init__(component, experiment)
        self.args = (component, experiment, status_code, code, retry_after)
        self.status_code = status_code
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        """With the status."""
        return f"{super().__str__()}: status {self.status_code}{f' ({self.code})' if self.code else ''}"


def describe(error: BaseException) -> str:
    """Type and message of an error in at most 200 characters on one line; never raises."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ of somebody's exception is not our failure
        text = "(its text cannot be read)"
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:400]).split())
    return (f"{name}: {text}" if text else name)[:200]


_LONGEST_VALUE = 80


def brief(value: object) -> str:
    """A value as a person would read it, in at most 80 characters; never raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown is a problem to be told all the same
        return f"<a {type(value).__name__} that cannot be shown>"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
