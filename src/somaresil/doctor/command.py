"""What ``somaresil doctor`` does: read a project, ask each rule, print what they say."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.doctor.deployment import is_about_starting, look_at_workers
from somaresil.doctor.findings import CODES, Finding
from somaresil.doctor.outbound import GUARDED_BY, look_for_calls, look_for_timeouts
from somaresil.doctor.shape import look_at_guards, look_at_middleware, look_at_objectives
from somaresil.doctor.source import Source
from somaresil.eventtext import harmless

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["Project", "examine", "read_project", "run"]

GOOD, FOUND, IMPOSSIBLE = 0, 1, 2
"""Exit codes."""
_LARGEST: Final = 2_000_000
_MOST_FILES: Final = 50_000
_SKIPPED: Final = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env"})
_TESTS: Final = frozenset({"test", "tests", "testing"})


@dataclass(slots=True)
class Project:
    """What was read."""

    sources: list[Source] = field(default_factory=list)
    starting: dict[Path, str] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Files that could not be read, and why: what is in them is not known."""


def read_project(paths: Sequence[str], *, tests: bool = False) -> Project:
    """Read files and folders. Raises ``ValueError`` for a path that is not there, and for more files than a service has."""
    project = Project()
    for path in _files(paths, tests=tests):
        python = path.suffix == ".py"
        starting = is_about_starting(path)
        if not python and not starting:
            continue
        try:
            text = _text(path)
            if starting:
                project.starting[path] = text
            if python:
                project.sources.append(Source(path, text))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as broken:
            if python:
                project.unreadable[path] = f"{type(broken).__name__}: {str(broken)[:200]}"
    return project


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    return path.read_text(encoding="utf-8-sig")


def _files(paths: Sequence[str], *, tests: bool) -> Iterator[Path]:
    count = 0
    for name in paths:
        given = Path(name)
        if not given.exists():
            raise ValueError(f"{name}: there is no such file or folder")
        if given.is_file():
            yield given
            continue
        for folder, folders, files in os.walk(given):
            folders[:] = sorted(
                each for each in folders if not each.startswith(".") and each not in _SKIPPED and (tests or each not in _TESTS)
            )
            for each in sorted(files):
                if not tests and (each.startswith("test_") or each == "conftest.py"):
                    continue
                count += 1
                if count > _MOST_FILES:
                    raise ValueError(f"more than {_MOST_FILES} files: name the folder of the service")
                yield Path(folder) / each


def examine(project: Project) -> list[Finding]:
    """Everything that was found, in the order of the files."""
    sources = project.sources
    guarded = frozenset(library for source in sources for hook, library in GUARDED_BY.items() if source.imports(hook))
    found: list[Finding] = []
    for source in sources:
        found += look_for_calls(source, guarded)
        found += look_for_timeouts(source)
        found += look_at_guards(source)
    found += look_at_middleware(sources)
    found += look_at_objectives(sources)
    uses = any(source.imports("somaresil") for source in sources)
    exports = any(source.imports("somaresil.integrations.prometheus") for source in sources)
    found += look_at_workers(project.starting, exports=exports, objectives=uses)
    ignores = {source.path: source for source in sources}
    return sorted(each for each in found if each.path not in ignores or not ignores[each.path].ignores(each.line, each.code))


def run(arguments: argparse.Namespace) -> int:
    """Do it and print it. Returns the exit code."""
    if arguments.codes:
        for code, about in CODES.items():
            print(f"{code}  {about.level:<8} {about.title}: {about.advice}")
        return GOOD
    unknown = [code for code in (*arguments.select, *arguments.ignore) if not any(each.startswith(code) for each in CODES)]
    if unknown:
        print(f"somaresil doctor: {unknown[0]}: no code begins so ({', '.join(CODES)})", file=sys.stderr)
        return IMPOSSIBLE
    try:
        project = read_project(arguments.paths, tests=arguments.tests)
    except (OSError, ValueError) as wrong:
        print(f"somaresil doctor: {wrong}", file=sys.stderr)
        return IMPOSSIBLE
    found = [each for each in examine(project) if _wanted(each.code, arguments.select, arguments.ignore)]
    if arguments.json:
        print(json.dumps(_data(project, found), indent=2))
    else:
        _print(project, found)
    if project.unreadable:
        return IMPOSSIBLE
    return FOUND if any(each.level != "info" for each in found) else GOOD


def _wanted(code: str, select: Sequence[str], ignore: Sequence[str]) -> bool:
    return (not select or code.startswith(tuple(select))) and not (ignore and code.startswith(tuple(ignore)))


def _data(project: Project, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "version": 1,
        "files": len(project.sources),
        "findings": [
            {
                "path": str(each.path),
                "line": each.line,
                "column": each.column,
                "code": each.code,
                "level": each.level,
                "title": CODES[each.code].title,
                "detail": each.detail,
                "advice": CODES[each.code].advice,
            }
            for each in found
        ],
        "unreadable": [{"path": str(path), "why": why} for path, why in project.unreadable.items()],
    }


def _print(project: Project, found: Sequence[Finding]) -> None:
    for each in found:
        detail = f": {harmless(each.detail, 120)}" if each.detail else ""
        print(f"{harmless(str(each.path), 300)}:{each.line}:{each.column}: {each.code} {each.level}: {CODES[each.code].title}{detail}")
    for path, why in project.unreadable.items():
        print(f"{harmless(str(path), 300)}: cannot be read: {harmless(why, 300)}")
    told = sorted({each.code for each in found})
    if told:
        print()
    for code in told:
        print(f"{code}: {CODES[code].advice}")
    serious = sum(each.level != "info" for each in found)
    print(f"{len(project.sources)} files: {serious} found, {len(found) - serious} notes")
