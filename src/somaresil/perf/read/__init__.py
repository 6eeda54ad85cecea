"""Files of measurements, of whichever tool: what they say as one kind of result, or every problem with its place.

=================  ==================================================================
``pytest-benchmark``  ``--benchmark-json`` (with ``--benchmark-save-data`` each round)
``pyperf``            ``-o FILE``
``hyperfine``         ``--export-json``
``locust``            ``PREFIX_stats.csv``, ``--json``
``k6``                ``handleSummary``, ``--summary-export``, ``--out json``
``oha``               ``--json``, ``--output-format json``
``wrk``               what it prints
``load``              the report of ``somaresil load run`` as JSON
``prometheus``        the answer of ``/api/v1/query_range``
``csv``               a row a value: name, value, unit, metric, better
``somaresil``         the lines of the store
=================  ==================================================================

A file is not trusted: its size is bounded, whatever is missing, not finite or of an unknown version is named, and nothing is guessed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.config import did_you_mean
from somaresil.errors import ConfigurationError, Problem
from somaresil.perf.read import benchmarks, load, tables
from somaresil.perf.read.node import Node, parse_json, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.perf.samples import RunResult

__all__ = ["FORMS", "LARGEST", "read_results", "read_text"]

LARGEST: Final = 32 * 1024 * 1024
"""Bytes in a file."""
FORMS: Final = ("pytest-benchmark", "pyperf", "hyperfine", "locust", "k6", "oha", "wrk", "load", "prometheus", "csv", "somaresil")
_OPEN: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_JSON: Final[dict[str, Callable[[Node, str], RunResult]]] = {
    "pytest-benchmark": benchmarks.pytest_benchmark,
    "pyperf": benchmarks.pyperf,
    "hyperfine": benchmarks.hyperfine,
    "locust": load.locust_json,
    "k6": load.k6,
    "oha": load.oha,
    "load": load.own_load,
}


def read_results(
    path: str | os.PathLike[str], form: str | None = None, *, name: str | None = None, unit: str | None = None
) -> tuple[RunResult, ...]:
    """The results in a file; one, or several when they are lines of the store.

    ``form`` says who has written it (one of :data:`FORMS`); without it, that is found out. ``name`` takes the place of the name of each
    series when the file holds one thing; ``unit`` is that of the answer of a range query. Raises
    :class:`~somaresil.errors.ConfigurationError` for everything that is wrong with it, a file that cannot be read included.
    """
    shown = os.fspath(path)
    return read_text(_read(shown), shown, form, name=name, unit=unit)


def read_text(
    text: str, source: str, form: str | None = None, *, name: str | None = None, unit: str | None = None
) -> tuple[RunResult, ...]:
    """The results in a text; ``source`` says in problems where it is from. Raises as :func:`read_results` does."""
    if form is not None and form not in FORMS:
        raise refusal("form", form, ", ".join(FORMS), did_you_mean(form, FORMS))
    if not text.strip():
        raise refusal(source, "nothing", "results", "the file is empty")
    try:
        found = _parsed(text, source, form, unit)
    except ConfigurationError as wrong:
        # Of a series or a result itself: they do not know their file.
        raise ConfigurationError(
            [
                each if source in each.path else Problem(f"{source}: {each.path}", each.value, each.allowed, each.hint)
                for each in wrong.problems
            ]
        ) from None
    return found if name is None else tuple(_renamed(result, name) for result in found)


def _parsed(text: str, source: str, form: str | None, unit: str | None) -> tuple[RunResult, ...]:
    start = text.lstrip()[:1]
    first = text.lstrip().partition("\n")[0]
    if form is None and start not in {"{", "["}:
        form = _form_of_text(first, source)
    if form == "wrk":
        return (load.wrk(text, source),)
    if form == "csv":
        return (tables.table(text, source),)
    if form == "locust" and start not in {"{", "["}:
        return (load.locust_csv(text, source),)
    if form == "somaresil" or (form is None and first.startswith('{"format":')):
        return tables.own_lines(text, source)
    if form in {None, "k6"} and load.is_k6_line(first):
        return (load.k6_lines(text, source),)
    root = Node(parse_json(text, source), source)
    chosen = form or _form_of(root)
    if chosen == "prometheus":
        return (tables.prometheus(root, source, unit=unit),)
    return (_JSON[chosen](root, source),)


def _form_of_text(first: str, source: str) -> str:
    columns = first.strip().split(",")
    if columns[:2] == ["Type", "Name"] or columns[:2] == ["Timestamp", "User Count"]:
        return "locust"
    if first.startswith("Running "):
        return "wrk"
    if "name" in columns or "value" in columns:
        return "csv"
    raise refusal(source, first[:60], f"a file of {', '.join(FORMS)}", "its format is not known; say it if you know it")


def _form_of(root: Node) -> str:
    value = root.value
    if isinstance(value, list) and value and all(isinstance(each, dict) and "response_times" in each for each in value):
        return "locust"
    keys = set(value) if isinstance(value, dict) else set()
    for form, needed in (
        ("pytest-benchmark", {"machine_info", "benchmarks"}),
        ("pyperf", {"benchmarks", "version"}),
        ("hyperfine", {"results"}),
        ("load", {"scenario", "requests", "generator"}),
        ("k6", {"metrics"}),
        ("oha", {"summary", "latencyPercentiles"}),
        ("prometheus", {"status"}),
    ):
        if needed <= keys:
            return form
    shown = ", ".join(sorted(map(str, keys)))[:60] or type(value).__name__
    raise refusal(root.path, shown, f"a file of {', '.join(FORMS)}", "its format is not known; say it if you know it")


def _renamed(result: RunResult, name: str) -> RunResult:
    if len({each.name for each in result.series}) > 1:
        raise refusal(
            result.source, f"{len({each.name for each in result.series})} names", "results of one thing", "they cannot all have one name"
        )
    return replace(result, series=tuple(replace(each, name=name) for each in result.series))


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, _OPEN)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise refusal(path, "no plain file", "a file")
            if found.st_size > LARGEST:
                raise refusal(path, f"{found.st_size} bytes", f"at most {LARGEST} bytes")
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as failed:
        if isinstance(failed, ConfigurationError):
            raise
        words = failed.strerror if isinstance(failed, OSError) else None
        raise refusal(
            path, "no file" if not Path(path).exists() else "a file", "a file that can be read", words or type(failed).__name__
        ) from None
    if len(data) > LARGEST:
        raise refusal(path, f"more than {LARGEST} bytes", f"at most {LARGEST} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        raise refusal(path, data[broken.start : broken.start + 8], "UTF-8", f"not so at byte {broken.start}") from None
