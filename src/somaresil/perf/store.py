"""A store of results in a folder, which may lie in a repository.

Every recording is a file of its own, ``2026-11/20261127T191743Z-0123456789ab-5f0c….jsonl``, with a line of JSON a series. Its name holds
when and of which commit, and a digest of what is in it: two branches never write to the same file, so merging them never conflicts, and
recording the same result twice writes it once. Each line stands for itself: files may be concatenated, sorted and kept in git notes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.errors import ConfigurationError, Problem
from somaresil.perf.read import read_results
from somaresil.perf.read.node import refusal
from somaresil.perf.read.tables import lines_of
from somaresil.safefile import replace_with

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from somaresil.perf.machine import Machine
    from somaresil.perf.samples import RunResult

__all__ = ["MOST_FILES", "Point", "ResultStore", "history_of"]

MOST_FILES: Final = 20_000
"""Recordings in a folder. Who has more keeps the old ones elsewhere."""
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a history: the median of a recording."""

    value: float
    at: float
    """Seconds since 1970."""
    commit: str | None
    machine: Machine | None
    count: int
    """Of how many values."""


class ResultStore:
    """Results in a folder; it is made when something is recorded."""

    __slots__ = ("_folder",)

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """``folder`` is relative to the working directory."""
        self._folder = Path(folder)

    def add(self, result: RunResult) -> Path:
        """Record a result, and say where.

        Raises :class:`~somaresil.errors.ConfigurationError` when its time is not known or it cannot be written.
        """
        stamp = result.when
        if result.at is None or not stamp:
            raise refusal(f"{result.source}: at", result.at, "a time", "a history has an order")
        text = "".join(f"{line}\n" for line in lines_of(result))
        digest = hashlib.sha256(text.encode()).hexdigest()[:_SHORT]
        name = f"{stamp.replace('-', '').replace(':', '')}-{(result.commit or 'none')[:_SHORT]}-{digest}.jsonl"
        path = self._folder / stamp[:7] / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                replace_with(path, text.encode())
                # Others may read what is in a repository.
                path.chmod(0o644)
        except OSError as failed:
            raise refusal(str(path), "a recording", "a place that can be written to", failed.strerror or type(failed).__name__) from None
        return path

    def find(self, commit: str) -> tuple[RunResult, ...]:
        """The recordings of a commit (its full hash), oldest first. Raises :class:`~somaresil.errors.ConfigurationError` as :meth:`all`."""
        found = [path for path in self._files() if path.name.split("-")[1:2] == [commit[:_SHORT]]]
        return tuple(result for result in _read(found) if result.commit == commit)

    def all(self) -> tuple[RunResult, ...]:
        """Every recording, oldest first.

        Raises :class:`~somaresil.errors.ConfigurationError` for more than :data:`MOST_FILES`, and for those that cannot be read.
        """
        return _read(self._files())

    def _files(self) -> list[Path]:
        found = []
        for path in self._folder.glob("*/*.jsonl"):
            found.append(path)
            if len(found) > MOST_FILES:
                raise refusal(str(self._folder), "more files", f"at most {MOST_FILES} recordings")
        return sorted(found, key=lambda path: path.name)


def _read(paths: list[Path]) -> tuple[RunResult, ...]:
    found: list[RunResult] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            found += read_results(path, "somaresil")
        except ConfigurationError as wrong:
            problems += wrong.problems
    if problems:
        raise ConfigurationError(problems[:20])
    return tuple(found)


def history_of(results: tuple[RunResult, ...], order: Mapping[str, int] | None = None) -> dict[tuple[str, str], tuple[Point, ...]]:
    """The history of each series, oldest first.

    With ``order`` (commit to place) recordings of other commits are left out, and the rest stand in the order of their commits: a commit
    that was measured again later is no news.
    """
    found: dict[tuple[str, str], list[tuple[int, Point]]] = {}
    for result in results:
        place = 0 if order is None else order.get(result.commit or "", -1)
        if place < 0 or result.at is None:
            continue
        for each in result.series:
            ordered = sorted(each.values)
            middle = len(ordered) // 2
            value = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
            point = Point(value, result.at, result.commit, result.machine, len(ordered))
            found.setdefault(each.key, []).append((place, point))
    return {key: tuple(point for _, point in sorted(points, key=_place)) for key, points in sorted(found.items())}


def _place(entry: tuple[int, Point]) -> tuple[int, float]:
    return entry[0], entry[1].at
