"""Columns of several processes as one, and what is plotted of them. Pure."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from bisect import bisect_left
from functools import reduce
from itertools import chain
from operator import add
from typing import TYPE_CHECKING, Any

from somaresil.dashboard.history import COLUMNS, HEAD, INJECTED, STEP
from somaresil.model.histogram import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["begins", "common", "heat", "merged", "narrowed", "packed", "series", "shortened", "together", "unpacked"]


def common(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """The bounds that both have."""
    return one if one == other else tuple(sorted({*one} & {*other}))


def narrowed(row: Sequence[int], bounds: tuple[float, ...], kept: tuple[float, ...]) -> list[int]:
    """A row with fewer buckets: ``kept`` are some of its ``bounds``."""
    buckets = [0] * (len(kept) + 1)
    for bound, count in zip((*bounds, math.inf), row[HEAD:], strict=True):
        buckets[bisect_left(kept, bound)] += count
    return [*row[:HEAD], *buckets]


def shortened(seconds: float | None) -> float | None:
    """To the microsecond."""
    return None if seconds is None else round(seconds, 6)


def packed(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for JSON: rows as text."""
    tracks = {name: {"bounds": list(track["bounds"]), "rows": _text(track["rows"])} for name, track in columns["tracks"].items()}
    return {**columns, "tracks": tracks}


def _text(rows: array[int]) -> str:
    if sys.byteorder != "little":
        rows = array("I", rows)
        rows.byteswap()
    return base64.b64encode(rows.tobytes()).decode("ascii")


def unpacked(text: str, width: int) -> array[int]:
    """The rows of :func:`packed`. Raises ``ValueError`` for what is none."""
    data = base64.b64decode(text, validate=True)
    if len(data) not in {0, 4 * COLUMNS * width}:
        raise ValueError(f"{len(data)} bytes")
    rows = array("I")
    rows.frombytes(data)
    if sys.byteorder != "little":
        rows.byteswap()
    return rows


def merged(columns: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """All columns as one; None: there are none."""
    found: list[Any] = [*columns]
    return reduce(together, found) if found else None


def together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two of them as one, where they lie on the clock."""
    index = max(one["index"], other["index"])
    known = list(map(max, _moved(one["known"], index - one["index"], 1), _moved(other["known"], index - other["index"], 1)))
    tracks: dict[str, Any] = {}
    for name in one["tracks"].keys() | other["tracks"].keys():
        both = [(each["tracks"][name], index - each["index"]) for each in (one, other) if name in each["tracks"]]
        bounds = reduce(common, (track["bounds"] for track, _ in both))
        rows = [_moved(_narrowed(track, bounds), by, HEAD + len(bounds) + 1) for track, by in both]
        whole = [each for each in rows if len(each)]
        tracks[name] = {"bounds": bounds, "rows": reduce(_plus, whole) if whole else array("I")}
    return {"index": index, "known": known, "tracks": tracks}


def _plus(one: array[int], other: array[int]) -> array[int]:
    try:
        return array("I", map(add, one, other))
    except OverflowError:
        return array("I", [min(a + b, 0xFFFFFFFF) for a, b in zip(one, other, strict=True)])


def _moved(values: Any, by: int, width: int) -> Any:
    """Columns as they are ``by`` columns later."""
    if not by or not len(values):
        return values
    by = min(by, COLUMNS)
    return values[by * width :] + type(values)(*_zeros(values, by * width))


def _zeros(values: Any, number: int) -> tuple[Any, ...]:
    return ([0] * number,) if isinstance(values, list) else (values.typecode, bytes(values.itemsize * number))


def _narrowed(track: Mapping[str, Any], bounds: tuple[float, ...]) -> array[int]:
    rows: array[int] = track["rows"]
    if track["bounds"] == bounds or not len(rows):
        return rows
    width = HEAD + len(track["bounds"]) + 1
    return array("I", chain.from_iterable(narrowed(rows[at : at + width], track["bounds"], bounds) for at in range(0, len(rows), width)))


def series(columns: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What is plotted over time, by the name of the columns; None where it is not known."""
    if columns is None:
        return {}
    return {name: _series(track, columns["known"]) for name, track in columns["tracks"].items()}


def _series(track: Mapping[str, Any], known: Sequence[int]) -> dict[str, Any]:
    bounds, rows = track["bounds"], track["rows"]
    if not len(rows):
        zeros = [0 if there else None for there in known]
        return {"calls": zeros, "bad": zeros, "rejected": zeros, "injected": zeros, "p95": [None] * len(known)}
    width = HEAD + len(bounds) + 1
    found: dict[str, list[Any]] = {"calls": [], "bad": [], "rejected": [], "injected": [], "p95": []}
    for column, there in enumerate(known):
        row = rows[column * width : (column + 1) * width]
        if not there:
            for values in found.values():
                values.append(None)
            continue
        found["calls"].append(sum(row[:INJECTED]))
        found["bad"].append(row[1])
        found["rejected"].append(row[2])
        found["injected"].append(row[INJECTED])
        found["p95"].append(shortened(quantile(bounds, row[HEAD:], 0.95)) if row[0] or row[1] else None)
    return found


def heat(columns: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """Calls of one guard by column and latency bucket; a column is None where it is not known."""
    if columns is None or name not in columns["tracks"]:
        return None
    track = columns["tracks"][name]
    width, rows, buckets = HEAD + len(track["bounds"]) + 1, track["rows"], len(track["bounds"]) + 1
    cells = [
        (list(rows[at * width + HEAD : (at + 1) * width]) if len(rows) else [0] * buckets) if there else None
        for at, there in enumerate(columns["known"])
    ]
    return {"bounds": list(track["bounds"]), "columns": begins(columns["index"]), "cells": cells}


def begins(index: int) -> list[float]:
    """When each of the columns before ``index`` began, in seconds since the epoch."""
    return [column * STEP for column in range(index - COLUMNS, index)]
