"""Events as flat, short, harmless values: what a log line or a span may carry."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from somaresil.events import Event

__all__ = ["LONGEST", "facts", "harmless"]

LONGEST: Final = 200
"""Characters in a value."""


def harmless(text: str, longest: int = LONGEST) -> str:
    r"""``text`` on one line, with everything that could steer a terminal or forge a line written as an escape, and cut to ``longest``.

    Line breaks, ESC and the other control characters, marks that turn the direction of writing (Unicode TR 36, section 3.1), separators
    and lone surrogates become ``\n``, ``\x1b``, ``\u202e`` …; a backslash is doubled, so that nobody can write such an escape himself.
    """
    if len(text) <= longest and text.isprintable() and "\\" not in text:
        return text
    pieces: list[str] = []
    room = longest
    for character in text:
        piece = character if character.isprintable() and character != "\\" else character.encode("unicode_escape").decode("ascii")
        room -= len(piece)
        if room < 0:
            # An escape is never cut in the middle: half of one is another character.
            while pieces and sum(map(len, pieces)) > longest - 1:
                pieces.pop()
            return "".join(pieces) + "…"
        pieces.append(piece)
    return "".join(pieces)


def facts(event: Event) -> dict[str, str | int | float | bool]:
    """What an event says, by the names of its fields, without those that say nothing.

    Never arguments, headers or bodies, for events have none. ``last_error`` is cut to the type of the error: what follows is a message, and
    messages carry what somebody typed.
    """
    found: dict[str, str | int | float | bool] = {}
    for field in fields(event):
        value: Any = getattr(event, field.name)
        if value is None or field.name == "at":
            continue
        if field.name == "last_error":
            value = str(value).partition(":")[0]
        if isinstance(value, bool | int | float):
            found[field.name] = value
        else:
            found[field.name] = harmless("; ".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return found
