"""How a service is started: more than one worker, and what they have to share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from somaresil.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["is_about_starting", "look_at_workers"]

_NAMES: Final = re.compile(
    r"(Dockerfile.*|Containerfile.*|Procfile|.*\.Dockerfile|(docker-)?compose.*\.ya?ml|gunicorn.*\.py|.*\.service|.*\.sh|.*\.ya?ml|Makefile)"
)
_WORKERS: Final = re.compile(
    r"""(?:gunicorn|uvicorn|hypercorn|granian)\b[^\n]*?(?:\s-w|--workers)["',=\s\]\[]+(\d+)|^\s*workers\s*=\s*(\d+)|WEB_CONCURRENCY["']?\s*[:=]\s*["']?(\d+)""",
    re.MULTILINE,
)


def is_about_starting(path: Path) -> bool:
    """Whether a file of this name may say how a service is started."""
    return _NAMES.fullmatch(path.name) is not None


def look_at_workers(files: Mapping[Path, str], *, exports: bool, objectives: bool) -> Iterator[Finding]:
    """Several workers that share neither metrics nor objectives. ``exports``: the project exports metrics; ``objectives``: it has some."""
    together = "\n".join(files.values())
    for path, text in files.items():
        for found in _WORKERS.finditer(text):
            count = int(next(group for group in found.groups() if group is not None)[:6])
            if count < 2:  # noqa: PLR2004 - several
                continue
            line = text.count("\n", 0, found.start()) + 1 + (found[0].startswith("\n"))
            if exports and "PROMETHEUS_MULTIPROC_DIR" not in together:
                yield Finding(path, line, 1, "SR501", f"{count} workers")
            if objectives and "SOMARESIL_SLO_SNAPSHOT" not in together:
                yield Finding(path, line, 1, "SR502", f"{count} workers")
