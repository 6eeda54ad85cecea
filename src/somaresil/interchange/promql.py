"""Queries of others, made ready for any window: PromQL with ``{{.window}}`` where the window goes.

Nothing is parsed beyond what is understood surely: a selector of one counter, a sum of one, and increases with a range written out.
"""

from __future__ import annotations

import re
from typing import Final

from somaresil.slo.rules.source import LONGEST_QUERY, uncommented

__all__ = ["WINDOW", "increase", "over_time", "ranged", "rates_of", "selector", "whole"]

WINDOW: Final = "{{.window}}"
_PLACE: Final = re.compile(r"\{\{\s*\.window\s*\}\}")
_TEXTS: Final = r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`"""
_QUOTED: Final = re.compile(_TEXTS)
_SELECTOR: Final = re.compile(
    rf"(?P<series>[a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{{(?:[^\"'`{{}}]|{_TEXTS})*\}})?|\{{(?:[^\"'`{{}}]|{_TEXTS})*\}})(?P<offset>\s+offset\s+-?[0-9]+[a-z0-9]*)?"
)
_BY: Final = r"(?:by|without)\s*\([\w\s,]*\)"
_SUMS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (rf"sum\s*\((?P<inner>.*)\)\s*{_BY}", rf"sum\s*(?:{_BY}\s*)?\((?P<inner>.*)\)", r"\((?P<inner>.*)\)")
)
"""Grouped behind, grouped before or not at all, and in brackets alone."""
_RANGE: Final = re.compile(r"\[(?P<range>[^\]]*)\]")
_CALL: Final = re.compile(r"\b(?P<call>rate|increase)\s*\([^()\[\]]+\[(?P<range>[^\]:]+)\]\s*(?:offset\s+\w+\s*)?\)")
_FUNCTIONS: Final = re.compile(r"\b(?P<call>i?rate|increase|\w+_over_time)\s*\(|(?<![\w:])(?P<recorded>[a-zA-Z_:][\w:]*)\{\{")


def whole(query: str) -> str | None:
    """The query without comments, if it is one whole expression of bounded length; else None."""
    if len(query) > LONGEST_QUERY:
        return None
    return uncommented(query) or None


def has_window(query: str) -> bool:
    """Whether it has a place for the window."""
    return _PLACE.search(query) is not None


def _masked(query: str) -> str:
    """The same with what stands in quotes blanked out, so that places stay where they are."""
    return _QUOTED.sub(lambda text: "'" + "x" * (len(text[0]) - 2) + "'", query)


def selector(query: str) -> tuple[str, str] | None:
    """The series of a selector, or of a sum over one, and its offset; None: it is something else."""
    text = query.strip()
    for _ in range(8):
        found = _SELECTOR.fullmatch(text)
        if found is not None:
            return found["series"].strip(), found["offset"] or ""
        around = [found for pattern in _SUMS if (found := pattern.fullmatch(text)) and uncommented(found["inner"]) is not None]
        if not around:
            return None
        text = around[0]["inner"].strip()
    return None


def increase(series: tuple[str, str]) -> str:
    """How much a counter grew."""
    return over_time("increase", series)


def over_time(function: str, series: tuple[str, str]) -> str:
    """A function of a range over a selector."""
    name, offset = series
    return f"sum({function}({name}[{WINDOW}]{offset}))"


def ranged(query: str) -> str | None:
    """The query with the place for the window instead of the ranges of its rates and increases; None where it has other ranges."""
    masked = _masked(query)
    ranges = list(_RANGE.finditer(masked))
    calls = list(_CALL.finditer(masked))
    if not ranges or {found.span("range") for found in ranges} != {found.span("range") for found in calls}:
        return None
    if len({found["range"].strip() for found in ranges}) > 1 or "{{" in query:
        return None
    text = query
    for found in reversed(ranges):
        begin, end = found.span("range")
        text = text[:begin] + WINDOW + text[end:]
    return text


def rates_of(*queries: str) -> bool | None:
    """Whether the queries give rates (True) or counts (False); None: some the one and some the other, or nobody can tell."""
    kinds: set[bool] = set()
    for query in queries:
        found = list(_FUNCTIONS.finditer(_masked(query)))
        kinds |= {"rate" in (each["call"] or each["recorded"] or "") for each in found}
        if not found:
            return None
    return kinds.pop() if len(kinds) == 1 else None
