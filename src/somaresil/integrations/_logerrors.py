"""Errors in log lines: their types, where they were raised, and their messages only for who asks for these.

A message of an exception holds what its library has put there: the statement with its values, the address with its password. A stack holds
the lines of the code. Both are bounded: recursion makes stacks of a thousand frames, and groups of exceptions hold others.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

from somaresil.integrations._logvalues import bounded, type_name

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["message_of_error", "stack_of"]

_MOST_ERRORS: Final = 8
"""Errors of a chain and a group that are told."""
_MOST_FRAMES: Final = 30
"""Frames of an error; the innermost."""
_LONGEST_MESSAGE: Final = 500
_BECAUSE: Final = "because of"
_WHILE: Final = "while handling"
_WITH: Final = "with"


def message_of_error(error: BaseException) -> str:
    """What it says of itself. Never raises."""
    try:
        return bounded(str(error), _LONGEST_MESSAGE)
    except Exception:  # noqa: BLE001 - a broken __str__ of somebody's exception is not our failure
        return "(its text cannot be read)"


def stack_of(error: BaseException, longest: int, *, messages: bool) -> str:
    """The error, and those behind it, each with its frames: the one that was raised last comes first. At most ``longest`` characters."""
    told: list[str] = []
    waiting: list[tuple[str, BaseException]] = [("", error)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_ERRORS:
        relation, found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        said = f": {message_of_error(found)}" if messages else ""
        told.append(f"{relation}{' ' if relation else ''}{type_name(found)}{said}")
        told += _frames(found.__traceback__)
        if found.__cause__ is not None:
            waiting.append((_BECAUSE, found.__cause__))
        elif found.__context__ is not None and not found.__suppress_context__:
            waiting.append((_WHILE, found.__context__))
        if isinstance(found, BaseExceptionGroup):
            waiting += [(_WITH, part) for part in found.exceptions[:_MOST_ERRORS]]
    return bounded("\n".join(told), longest)


def _frames(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace, limit=-_MOST_FRAMES)
    return [f"  {frame.filename}:{frame.lineno} in {frame.name}{f': {frame.line}' if frame.line else ''}" for frame in frames]
