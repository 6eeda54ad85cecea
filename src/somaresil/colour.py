"""Whether what is printed has colours: decided here for every command, and nowhere else.

The first of these that says something decides:

1. ``--color always`` or ``--color never`` (``auto`` says nothing);
2. ``NO_COLOR``, with anything in it: none (https://no-color.org);
3. ``FORCE_COLOR``, with anything in it: colours (https://force-color.org);
4. a terminal has colours, a pipe, a file and a terminal that can do nothing (``TERM=dumb``) have none.

Colours are one thing and a drawing that changes in place is another: the latter is for terminals alone, whatever is said about colours.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TextIO

__all__ = ["CHOICES", "add_option", "chosen", "for_console", "is_terminal", "wanted"]

CHOICES: Final = ("auto", "always", "never")
_DUMB: Final = frozenset({"dumb", "unknown"})
_choice: ContextVar[str] = ContextVar("somaresil_colour", default="auto")


def add_option(parser: Any) -> None:
    """Give a command that prints colours the option ``--color``."""
    parser.add_argument(
        "--color",
        choices=CHOICES,
        default="auto",
        help="colours: auto asks NO_COLOR, then FORCE_COLOR, then whether it is a terminal (default: %(default)s)",
    )


@contextmanager
def chosen(choice: str) -> Generator[None]:
    """What ``--color`` says, for as long as a command runs."""
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it, on something that can draw. Only Windows has terminals that do not say in ``TERM`` what they are."""
    kind = os.environ.get("TERM") or ("" if os.name == "nt" else "dumb")
    return stream.isatty() and kind not in _DUMB


def wanted(stream: TextIO) -> bool:
    """Whether what is written to ``stream`` has colours."""
    choice = _choice.get()
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def for_console(stream: TextIO) -> dict[str, Any]:
    """The arguments with which a ``Console`` of rich writes to ``stream`` as is decided here: it would ask the environment by itself."""
    terminal, coloured = is_terminal(stream), wanted(stream)
    # Without a system of colours nothing is styled, also not by bold letters: so a pipe gets no escape. A terminal may have these.
    system = "auto" if terminal else "standard" if coloured else None
    return {"file": stream, "force_terminal": terminal, "no_color": not coloured, "color_system": system}
