"""How things are written in Prometheus' files: durations, numbers, strings, and YAML of the plainest kind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["duration", "exact_duration", "number", "page_of", "quoted", "template", "yaml"]

_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


def exact_duration(seconds: float) -> bool:
    """Whether it is a whole number of milliseconds, which is all that Prometheus can say."""
    return Decimal(str(seconds)) * 1_000 % 1 == 0


def duration(seconds: float) -> str:
    """A duration in its largest unit that is exact: ``5m``, ``30d``, ``90s``. To the millisecond."""
    milliseconds = int((Decimal(str(seconds)) * 1_000).to_integral_value(ROUND_HALF_UP))
    return next(f"{milliseconds // size}{unit}" for size, unit in _UNITS if milliseconds % size == 0)


def number(value: Decimal | int) -> str:
    """A decimal in full, without exponent or trailing zeros: 0.0144."""
    text = format(Decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def quoted(text: str) -> str:
    """As a string of PromQL, which has the escapes of Go."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in escaped) + '"'


def page_of(alert: str) -> str:
    """The page of an alert among the runbooks, without its ending: ``guard-breaker-open`` of ``GuardBreakerOpen``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", alert).lower()


def template(text: str) -> str:
    """Text that Prometheus' templates leave as it is."""
    return text.replace("{{", '{{"{{"}}')


def yaml(value: Mapping[str, Any]) -> str:
    """A mapping as YAML. Strings of several lines are blocks, others stand in quotes; keys are plain."""
    return "\n".join(_lines(value, 0)) + "\n"


def _lines(value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, Mapping):
        for key, below in value.items():
            if _flat(below):
                yield f"{indent}{key}: {_scalar(below, depth)}"
            else:
                yield f"{indent}{key}:"
                yield from _lines(below, depth + 1)
    else:
        for each in value:
            if _flat(each):
                yield f"{indent}- {_scalar(each, depth)}"
                continue
            first, *rest = _lines(each, depth + 1)
            yield f"{indent}- {first.lstrip()}"
            yield from rest


def _flat(value: Any) -> bool:
    return isinstance(value, str) or not isinstance(value, Mapping | Sequence) or not value


def _scalar(value: Any, depth: int) -> str:
    if isinstance(value, Mapping):
        return "{}"
    # A block keeps one line end at its end or none, and without more ado no blanks at its begin.
    body = value.removesuffix("\n") if isinstance(value, str) else ""
    lines = body.split("\n")
    if "\n" in body and body == body.strip() and all(line.isprintable() and line == line.rstrip() for line in lines):
        indent = "  " * (depth + 1)
        return ("|-\n" if body == value else "|\n") + "\n".join(f"{indent}{line}" if line else "" for line in lines)
    if isinstance(value, str) and value.isprintable() and '"' in value:
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, str):
        return '"' + "".join(_escaped(each) for each in value) + '"'
    # An exponent without a point would be read as text.
    return number(Decimal(str(value))) if isinstance(value, float) and math.isfinite(value) else json.dumps(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
