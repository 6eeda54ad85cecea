"""Figures in tables: CSV with a row a value, range queries of Prometheus, and our own lines of JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final

from somaresil.perf.machine import Machine
from somaresil.perf.read.benchmarks import commit_of
from somaresil.perf.read.node import Node, gather, parse_json, refusal
from somaresil.perf.samples import BETTER, MOST_VALUES, RunResult, Series, base_unit, better_of, unit_hint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.perf.samples import Better

__all__ = ["FORMAT", "lines_of", "own_lines", "prometheus", "table"]

FORMAT: Final = "somaresil-perf/1"
"""What each of our lines begins with; another number is another format."""
_COLUMNS: Final = ("name", "value", "unit", "metric", "better")
_SUFFIXES: Final = {"_seconds": "seconds", "_bytes": "bytes", "_ratio": "ratio", "_total": "count", "_count": "count"}
_PAIR: Final = 2


def table(text: str, source: str) -> RunResult:
    """CSV with a row a value: the columns ``name``, ``value``, ``unit``, and perhaps ``metric`` and ``better``."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, listed = rows.fieldnames or [], list(rows)
    except csv.Error as broken:
        raise refusal(source, "its text", "CSV", str(broken)) from None
    missing = [name for name in _COLUMNS[:3] if name not in columns]
    unknown = [name for name in columns if name not in _COLUMNS]
    if missing or unknown or len(set(columns)) != len(columns):
        raise refusal(f"{source}:1", ", ".join(columns)[:80], f"the columns {', '.join(_COLUMNS[:3])}, and perhaps metric and better")
    if not listed:
        raise refusal(source, "no rows", "at least one value", "an empty result proves nothing")
    found: dict[tuple[str, str], tuple[str, Better, list[float]]] = {}

    def read(row: tuple[int, dict[Any, Any]]) -> Iterator[Series]:
        line, cells = row
        where = f"{source}:{line}"
        # Cells too many stand under no name, cells too few hold nothing.
        if None in cells or None in cells.values():
            raise refusal(where, "cells", f"one for each of {len(columns)} columns")
        unit = cells["unit"].strip()
        known = base_unit(unit)
        if known is None:
            raise refusal(
                f"{where}: unit",
                unit,
                "a unit such as seconds, ms, bytes, ratio, %, rps, count",
                unit_hint(unit) if unit else "it has none",
            )
        metric = cells.get("metric", "").strip() or "duration"
        better = cells.get("better", "").strip() or better_of(metric)
        if better not in BETTER:
            raise refusal(f"{where}: better", better, "lower or higher")
        try:
            value: float | str = float(cells["value"])
        except ValueError:
            value = cells["value"]
        number = Node(value, f"{where}: value").number() * known[1]
        before = found.setdefault((cells["name"], metric), (known[0], better, []))
        if before[:2] != (known[0], better):
            raise refusal(f"{where}: unit", f"{unit}, {better} is better", f"{before[0]}, {before[1]} is better, as in the rows before")
        before[2].append(number)
        yield from ()

    gather(enumerate(listed, start=2), read)
    series = [Series(name, unit, tuple(values), better, metric) for (name, metric), (unit, better, values) in found.items()]
    return RunResult(tuple(series), source, form="csv")


def prometheus(root: Node, source: str, *, unit: str | None = None, metric: str = "value") -> RunResult:
    """The answer to a range query. The unit is the one given, or the one in which the name of the metric ends."""
    if root["status"].value != "success":
        raise refusal(root["status"].path, root["status"].value, "success", "the server has refused the query")
    data = root["data"]
    if data["resultType"].value != "matrix":
        raise refusal(data["resultType"].path, data["resultType"].value, "matrix", "the answer to /api/v1/query_range")
    last: list[float] = []

    def read(result: Node) -> Iterator[Series]:
        labels = {str(key): str(value) for key, value in result["metric"].mapping().items()}
        name = labels.pop("__name__", "")
        suffix = next((base for end, base in _SUFFIXES.items() if name.endswith(end)), None)
        known = (suffix, 1.0) if unit is None and suffix is not None else base_unit(unit or "")
        if known is None:
            raise refusal(f"{result.path}.unit", unit, "a unit", "the name of the metric does not end in one; give --unit")
        shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        values: list[float] = []
        for point in result["values"].each():
            pair = point.each()
            if len(pair) != _PAIR:
                raise refusal(point.path, point.value, "a time and a value")
            last.append(pair[0].number())
            values.append(_quoted(pair[1]) * known[1])
        yield Series(f"{name}{{{shown}}}" if shown else name or source, known[0], tuple(values), better_of(metric), metric)

    series = gather(data["result"].each(), read)
    warnings = root.find("warnings")
    notes = ("the server says that something is missing",) if warnings is not None else ()
    return RunResult(series, source, at=max(last, default=None), form="prometheus", notes=notes)


def _quoted(node: Node) -> float:
    text = node.text()
    try:
        value: float | str = float(text)
    except ValueError:
        value = text
    return Node(value, node.path).number()


def lines_of(result: RunResult) -> Iterator[str]:
    """A result as lines of JSON that each stand for themselves, in any order and in any file."""
    machine = result.machine
    head = {
        "format": FORMAT,
        "commit": result.commit,
        "at": result.at,
        "machine": None if machine is None else {"cpu": machine.cpu, "cores": machine.cores, "python": machine.python, "os": machine.os},
        "source": result.source,
        "form": result.form,
        "notes": list(result.notes),
    }
    for each in result.series:
        body = {"name": each.name, "metric": each.metric, "unit": each.unit, "better": each.better, "rounding": each.rounding}
        yield json.dumps({**head, **body, "values": list(each.values)}, separators=(",", ":"), ensure_ascii=False)


def own_lines(text: str, source: str) -> tuple[RunResult, ...]:
    """The results in lines of ours, in the order in which each is first seen."""
    found: dict[str, tuple[dict[str, Any], list[Series]]] = {}

    def read(row: tuple[int, str]) -> Iterator[Series]:
        number, line = row
        if not line.strip():
            return
        where = f"{source}:{number}"
        node = Node(parse_json(line, where), where)
        if node["format"].value != FORMAT:
            raise refusal(node["format"].path, node["format"].value, FORMAT, "it was written by another version")
        series = _series(node)
        head = {
            "commit": _commit(node),
            "at": None if (at := node.find("at")) is None else at.number(),
            "machine": None if (machine := node.find("machine")) is None else _machine(machine),
            "source": node["source"].text(),
            "form": node["form"].text(),
            "notes": () if not (notes := node["notes"]).value else tuple(each.text() for each in notes.each()),
        }
        found.setdefault(repr(head), (head, []))[1].append(series)
        yield from ()

    gather(enumerate(text.splitlines(), start=1), read)
    if not found:
        raise refusal(source, "nothing", "at least one series", "an empty result proves nothing")
    return tuple(RunResult(tuple(series), **head) for head, series in found.values())


def _series(node: Node) -> Series:
    better = node["better"].text()
    if better not in BETTER:
        raise refusal(node["better"].path, better, "lower or higher")
    values = node["values"]
    if isinstance(values.value, list) and len(values.value) > MOST_VALUES:
        raise refusal(values.path, len(values.value), f"at most {MOST_VALUES} values")
    return Series(
        node["name"].text(), node["unit"].text(), tuple(values.numbers()), better, node["metric"].text(), node["rounding"].number()
    )


def _commit(node: Node) -> str | None:
    found = node.find("commit")
    if found is None:
        return None
    commit = commit_of(found.value)
    if commit is None:
        raise refusal(found.path, found.value, "the full hash of a commit, or null")
    return commit


def _machine(node: Node) -> Machine:
    cores = node["cores"].number()
    return Machine(node["cpu"].text(), int(min(cores, 1e6)), node["python"].text(), node["os"].text())
