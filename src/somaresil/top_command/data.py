"""What comes from a service, read without trust: whatever stands where a number or a list should be, nothing is raised here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["listed", "mapped", "real", "series", "text", "texts", "whole"]


def real(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int:
    """A count; 0 for what is none."""
    found = real(value)
    return 0 if found is None else int(found)


def text(value: Any) -> str:
    """A text; empty for what is none."""
    return value if isinstance(value, str) else ""


def mapped(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def series(value: Any) -> list[float | None]:
    """The numbers of a list, with None for what is none."""
    return [real(each) for each in value] if isinstance(value, list) else []


def texts(value: Any) -> list[Any]:
    """What is in a list; what is none is one."""
    return [each for each in value if each is not None] if isinstance(value, list) else [value] if value else []
