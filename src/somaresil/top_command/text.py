"""Text in cells of a terminal: what is harmless, how wide it is, tables that fit, small drawings.

Whatever comes from a service is shown by :func:`shown`: on one line, with everything that could steer a terminal written as an escape.
"""

from __future__ import annotations

import math
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.eventtext import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ASCII",
    "UNICODE",
    "Column",
    "Glyphs",
    "Line",
    "Span",
    "cells",
    "cut",
    "duration",
    "fitted",
    "number",
    "percent",
    "rate",
    "shaded",
    "shown",
    "spark",
    "table",
    "width_of",
    "wrapped",
]

_DOUBLE: Final = frozenset("WF")
_MARKS: Final = frozenset({"Mn", "Me"})
_MOST_MARKS: Final = 2
"""Marks above one another that are drawn: any number of them would run over the lines around."""
_GAP: Final = 2


class Glyphs(NamedTuple):
    """What drawings are made of."""

    bars: str
    """From the lowest to the highest."""
    shades: str
    """From nothing to the most."""
    more: str
    dot: str
    chosen: str


UNICODE: Final = Glyphs("▁▂▃▄▅▆▇█", " ░▒▓█", "…", "·", "▸")
ASCII: Final = Glyphs("_.:-=+*#", " .:*#", "~", "-", ">")
"""For terminals that can show nothing else."""


class Span(NamedTuple):
    """Some text in one style: ``good``, ``warn``, ``bad``, ``dim``, ``head``, ``mark`` (a fault was injected), or none."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def shown(value: object, longest: int = 200) -> str:
    """Anything, as harmless text of so many characters at most."""
    text = value if isinstance(value, str) else str(value)
    if len(text) <= longest and text.isascii() and text.isprintable() and "\\" not in text:
        return text
    text = harmless(text, longest)
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in _MARKS else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def width_of(character: str) -> int:
    """Cells of one character."""
    if character < "\u0300":
        return 1
    if unicodedata.category(character) in _MARKS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _DOUBLE else 1


def cells(text: str) -> int:
    """Cells of a text."""
    return len(text) if text.isascii() else sum(map(width_of, text))


def cut(text: str, width: int, more: str = UNICODE.more) -> str:
    """As much of a text as fits, with a mark at its end when that is not all."""
    if cells(text) <= width:
        return text
    kept, room = [], width - 1
    for character in text:
        room -= width_of(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + more if width > 0 else ""


def _padded(span: Span, width: int, more: str, *, right: bool) -> Span:
    text = cut(span.text, width, more)
    room = " " * (width - cells(text))
    return Span(room + text if right else text + room, span.style)


def fitted(line: Iterable[Span], width: int, more: str = UNICODE.more) -> Line:
    """As much of a line as fits."""
    kept: list[Span] = []
    for span in line:
        room = width - sum(cells(each.text) for each in kept)
        text = cut(span.text, room, more)
        if text:
            kept.append(Span(text, span.style))
        if text != span.text:
            break
    return tuple(kept)


def wrapped(spans: Iterable[Span], width: int, more: str = UNICODE.more, gap: str = "   ") -> list[Line]:
    """Pieces one after the other, on as many lines as that takes."""
    lines: list[list[Span]] = [[]]
    used = 0
    for span in spans:
        wide = cells(span.text)
        if lines[-1] and used + len(gap) + wide > width:
            lines.append([])
            used = 0
        if lines[-1]:
            lines[-1].append(Span(gap))
            used += len(gap)
        lines[-1].append(span)
        used += wide
    return [fitted(line, width, more) for line in lines if line]


class Column(NamedTuple):
    """A column of a table."""

    head: str
    rank: int = 0
    """Columns of the highest rank go first where there is no room; those of rank 0 stay."""
    right: bool = True
    least: int = 0
    """The fewest cells that it can be cut to; 0: it is not cut."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Span]], width: int, more: str = UNICODE.more) -> list[Line]:
    """The head and the rows, none wider than ``width``; a row has a span for each column."""
    natural = [max([cells(column.head), *(cells(row[place].text) for row in rows)]) for place, column in enumerate(columns)]
    least = [min(wide, column.least) if column.least else wide for wide, column in zip(natural, columns, strict=True)]
    chosen = list(range(len(columns)))

    def needed(widths: Sequence[int]) -> int:
        return sum(widths[place] for place in chosen) + _GAP * (len(chosen) - 1)

    while needed(least) > width:
        last = max(chosen, key=lambda place: (columns[place].rank, place))
        if columns[last].rank == 0:
            break
        chosen.remove(last)
    room = max(0, width - needed(least))
    widths = {}
    for place in chosen:
        grown = min(room, natural[place] - least[place])
        room -= grown
        widths[place] = least[place] + grown
    lines = []
    for row in [[Span(column.head, "dim") for column in columns], *rows]:
        spans: list[Span] = []
        for place in chosen:
            if spans:
                spans.append(Span(" " * _GAP))
            spans.append(_padded(row[place], widths[place], more, right=columns[place].right))
        lines.append(fitted(spans, width, more))
    return lines


def spark(values: Sequence[float | None], width: int, glyphs: Glyphs = UNICODE) -> str:
    """The last ``width`` values as a row of bars; nothing is drawn for what is not known."""
    last = list(islice(values, max(0, len(values) - width), None))
    top = max((value for value in last if value is not None), default=0.0)
    bars = glyphs.bars
    drawn = []
    for value in last:
        if value is None:
            drawn.append(" ")
        elif value <= 0.0 or top <= 0.0:
            drawn.append(bars[0])
        else:
            drawn.append(bars[min(len(bars) - 1, 1 + int(value / top * (len(bars) - 1.001)))])
    return "".join(drawn).rjust(width)


def shaded(values: Sequence[float | None], top: float, glyphs: Glyphs = UNICODE) -> str:
    """Each value as a shade, by the logarithm: single slow calls are to be seen beside thousands of quick ones."""
    shades = glyphs.shades
    drawn = []
    for value in values:
        if value is None or value <= 0.0 or top <= 0.0:
            drawn.append(shades[0])
        else:
            share = math.log1p(min(value, top)) / math.log1p(top)
            drawn.append(shades[min(len(shades) - 1, 1 + int(share * (len(shades) - 1.001)))])
    return "".join(drawn)


def number(value: Any, digits: int = 2) -> str:
    """A figure; ``-``: it is not known."""
    if value is None:
        return "-"
    if abs(value) >= 1e6:  # noqa: PLR2004 - as a reader would
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if isinstance(value, float) and value != int(value) else f"{int(value)}"


def rate(value: float | None) -> str:
    """So many a second."""
    return "-" if value is None else f"{value:.1f}" if abs(value) < 1e6 else f"{value:.3g}"  # noqa: PLR2004


def percent(value: float | None) -> str:
    """A share of 0 to 1, as exactly as small ones need."""
    if value is None:
        return "-"
    share = value * 100.0
    if abs(share) >= 1e6:  # noqa: PLR2004
        return f"{share:.3g}%"
    return f"{share:.0f}%" if share == 0.0 or abs(share) >= 10.0 else f"{share:.1f}%" if abs(share) >= 0.1 else f"{share:.2g}%"  # noqa: PLR2004


_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float | None) -> str:
    """Seconds in the unit in which one would say them."""
    if seconds is None:
        return "-"
    if abs(seconds) < 1.0:
        return "0 s" if seconds == 0.0 else f"{seconds * 1000.0:.0f} ms"
    for size, unit in _UNITS:
        if abs(seconds) >= size * (2.0 if size > 1.0 else 1.0):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
