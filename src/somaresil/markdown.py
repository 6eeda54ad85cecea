"""Text and tables for Markdown, in which nothing that came from outside means anything: a name must not become a link or a mention."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["plain", "table"]

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~&:@-])")


def plain(value: Any) -> str:
    """Text that means nothing to Markdown, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return _SPECIAL.sub(r"\\\1", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table with an empty one behind it; none without rows."""
    listed = [*rows]
    if not listed:
        return []
    body = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in listed]
    return [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|", *body, ""]
