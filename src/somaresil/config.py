"""Configuration checking: every problem of a configuration is reported at once, before anything runs.

Whoever writes a configuration should not have to run it five times to find five mistakes. A ``Checker`` collects one
``Problem`` (path, value, what is allowed, a hint) for each wrong value and raises a single ``ConfigurationError`` at the end::

    check = Checker("CircuitBreaker")
    self.failure_rate = check.ratio("failure_rate", failure_rate, allow_zero=False)
    self.window = check.seconds("window", window)
    check.finish()

Promises:

- A check never raises; only ``Checker.finish`` does, and only when something was wrong.
- A check returns the normalised value (seconds as ``float``, for instance). For a wrong value it returns a value that
  would have been allowed, so that the constructor can go on and find the other problems.
- Durations are seconds. They are given as a number or as a ``timedelta``, never as text.
- ``True`` is not a number here: ``Retry(attempts=True)`` is a mistake, not one attempt.
- NaN and infinity are never allowed: they compare falsely and would switch a limit off in silence.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast, overload

from somaresil.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Sequence

__all__ = ["Checker", "did_you_mean", "to_seconds"]

T = TypeVar("T")

LONGEST_NAME: Final = 120
"""Characters in a name. Names become metric labels and log fields, so they are kept short."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.:/{}-]+")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:/{}*?\[\]!-]+")


class Checker:
    """Collects the problems of one configuration object.

    ``prefix`` says where the values stand, for example ``"Retry"`` or ``"guards.checkout.retry"``; it starts every path.
    """

    __slots__ = ("_prefix", "_problems")

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._problems: list[Problem] = []

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found so far, in the order of the checks, children included."""
        return tuple(self._problems)

    def child(self, prefix: str) -> Checker:
        """A checker for a nested part: its paths start with ours, and its problems are added to ours."""
        nested = Checker(self._path(prefix))
        nested._problems = self._problems
        return nested

    def problem(self, name: str, value: object, allowed: str, hint: str = "") -> None:
        """Note a problem that no other method describes."""
        self._problems.append(Problem(self._path(name), value, allowed, hint))

    def finish(self) -> None:
        """Raise ``ConfigurationError`` with all problems; return quietly when there is none."""
        if self._problems:
            raise ConfigurationError(self._problems)

    def ratio(self, name: str, value: object, *, allow_zero: bool = True) -> float:
        """A share in [0, 1], or in (0, 1] when zero would make no sense."""
        number = _finite(value)
        if number is not None and 0.0 <= number <= 1.0 and (allow_zero or number > 0.0):
            return number
        self.problem(name, value, f"a ratio in {'[' if allow_zero else '('}0, 1]", _hint_for_ratio(value, number))
        return 1.0

    def number(self, name: str, value: object, *, minimum: float, maximum: float | None = None, exclusive: bool = False) -> float:
        """A finite number from ``minimum`` to ``maximum``; ``exclusive`` leaves both ends out (a percentage between 0 and 100)."""
        number = _finite(value)
        if number is not None and _within(number, minimum, maximum, open_below=exclusive, open_above=exclusive):
            return number
        allowed = "a number " + _limits(minimum, maximum, open_below=exclusive, open_above=exclusive)
        self.problem(name, value, allowed, _hint_for_text(value))
        return _between(minimum, maximum)

    @overload
    def seconds(
        self,
        name: str,
        value: object,
        *,
        optional: Literal[False] = False,
        minimum: float = 0.0,
        exclusive: bool = True,
        maximum: float | None = None,
    ) -> float: ...

    @overload
    def seconds(
        self, name: str, value: object, *, optional: bool, minimum: float = 0.0, exclusive: bool = True, maximum: float | None = None
    ) -> float | None: ...

    def seconds(
        self,
        name: str,
        value: object,
        *,
        optional: bool = False,
        minimum: float = 0.0,
        exclusive: bool = True,
        maximum: float | None = None,
    ) -> float | None:
        """A duration in seconds, given as a number or a ``timedelta``; ``None`` too when ``optional``.

        ``exclusive`` leaves ``minimum`` itself out; ``maximum`` always belongs to the range.
        """
        if value is None and optional:
            return None
        duration = value.total_seconds() if isinstance(value, timedelta) else _finite(value)
        if duration is not None and _within(duration, minimum, maximum, open_below=exclusive, open_above=False):
            return duration
        allowed = "seconds " + _limits(minimum, maximum, open_below=exclusive, open_above=False)
        self.problem(name, value, _or_none(allowed, optional), _hint_for_text(value))
        return _between(minimum, maximum)

    @overload
    def count(self, name: str, value: object, *, minimum: int = 1, maximum: int | None = None, optional: Literal[False] = False) -> int: ...

    @overload
    def count(self, name: str, value: object, *, minimum: int = 1, maximum: int | None = None, optional: bool) -> int | None: ...

    def count(self, name: str, value: object, *, minimum: int = 1, maximum: int | None = None, optional: bool = False) -> int | None:
        """A whole number from ``minimum`` to ``maximum``, both included; ``None`` too when ``optional``. ``3.0`` is not whole here."""
        if value is None and optional:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value and (maximum is None or value <= maximum):
            return value
        allowed = "a whole number " + _limits(minimum, maximum, open_below=False, open_above=False)
        self.problem(name, value, _or_none(allowed, optional), _hint_for_text(value))
        return minimum

    def one_of(self, name: str, value: object, choices: Sequence[T]) -> T:
        """One of ``choices`` (at least one); the choice itself is returned, so the text of a ``StrEnum`` becomes its member."""
        for choice in choices:
            if value is choice or value == choice:
                return choice
        self.problem(name, value, " | ".join(_shown(choice) for choice in choices), did_you_mean(value, choices))
        return choices[0]

    def name(self, name: str, value: object) -> str:
        """A name that is safe as a metric label and a log field: 1 to 120 characters of ``A-Z a-z 0-9 _ . : / { } -``."""
        return self._text(name, value, _NAME, "a name of 1 to 120 characters from A-Z a-z 0-9 _ . : / { } -")

    def pattern(self, name: str, value: object) -> str:
        """A name in which ``*``, ``?`` and ``[...]`` stand for other characters (see ``somaresil.model.selector.matches``)."""
        return self._text(name, value, _PATTERN, "a name pattern of 1 to 120 characters from A-Z a-z 0-9 _ . : / { } - * ? [ ] !")

    def _text(self, name: str, value: object, form: re.Pattern[str], allowed: str) -> str:
        if isinstance(value, str) and len(value) <= LONGEST_NAME and form.fullmatch(value):
            return value
        self.problem(name, value, allowed, _hint_for_name(value, form))
        return "unnamed"

    def _path(self, name: str) -> str:
        return ".".join(part for part in (self._prefix, name) if part)

    # Last, because from here on the bare word ``type`` inside this class means the method.
    def type(self, name: str, value: object, types: builtins.type[T] | tuple[builtins.type[T], ...], allowed: str) -> T:
        """An instance of one of ``types``, which ``allowed`` describes in words. A wrong value comes back as it is."""
        if not isinstance(value, types):
            self.problem(name, value, allowed)
        return cast("T", value)


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """``"did you mean 'x'?"`` for the choice that reads most like ``value``, or ``""`` when none is near. Case does not count."""
    from difflib import get_close_matches  # only a wrong configuration needs it, so not every import pays for it

    by_text = {str(_plain(choice)).casefold(): choice for choice in choices}
    near = get_close_matches(str(_plain(value)).casefold(), by_text, n=1)
    return f"did you mean {_shown(by_text[near[0]])}?" if near else ""


def to_seconds(value: float | timedelta) -> float:
    """Seconds as a float, from a number of seconds or a ``timedelta``.

    Raises ``TypeError`` for anything else (text and ``bool`` too) and ``ValueError`` for NaN, infinity and numbers too large for a float.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected seconds as a number or a timedelta, not {type(value).__name__}")
    number = _finite(value)
    if number is None:
        raise ValueError(f"expected a finite number of seconds, not {value!r}")
    return number


def _finite(value: object) -> float | None:
    """The value as a float when it is a finite ``int`` or ``float``, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _within(number: float, minimum: float, maximum: float | None, *, open_below: bool, open_above: bool) -> bool:
    above = number > minimum if open_below else number >= minimum
    below = maximum is None or (number < maximum if open_above else number <= maximum)
    return above and below


def _between(minimum: float, maximum: float | None) -> float:
    """Some number that lies inside the limits, whichever of their ends are open."""
    return minimum + 1.0 if maximum is None else (minimum + maximum) / 2


def _limits(minimum: float, maximum: float | None, *, open_below: bool, open_above: bool) -> str:
    # 15 digits: every limit that somebody wrote is printed in full (1000000, not 1e+06)
    below = f"{'>' if open_below else '>='} {minimum:.15g}"
    return below if maximum is None else f"{below} and {'<' if open_above else '<='} {maximum:.15g}"


def _or_none(allowed: str, optional: bool) -> str:  # noqa: FBT001 - one flag of a private helper
    return f"{allowed}, or None" if optional else allowed


def _hint_for_ratio(value: object, number: float | None) -> str:
    if number is not None and 1.0 < number <= 100.0:  # noqa: PLR2004 - it looks like a percentage
        return f"{number:g} % is {number / 100:g}"
    return _hint_for_text(value)


def _hint_for_text(value: object) -> str:
    return "text is not converted; give the number itself" if isinstance(value, str) else ""


def _hint_for_name(value: object, form: re.Pattern[str]) -> str:
    if not isinstance(value, str):
        return f"it is a {type(value).__name__}, not text"
    if len(value) > LONGEST_NAME:
        return f"it has {len(value)} characters"
    strange = next((character for character in value if not form.fullmatch(character)), None)
    return "it is empty" if strange is None else f"{strange!r} is not allowed"


def _plain(choice: object) -> object:
    """What a user writes for a choice: the value of an enum member, otherwise the choice itself."""
    return choice.value if isinstance(choice, Enum) else choice


def _shown(choice: object) -> str:
    return repr(_plain(choice))
