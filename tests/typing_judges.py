"""Asks ty and pyrefly about ``tests/typing``: every line that is marked as wrong must be an error for both, and no other line may be one.

The marks are those that mypy and pyright read; these two do not know one another's codes, so their findings are compared by line.
Run by ``nox -s types``: ``python tests/typing_judges.py``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = "tests/typing"
MARK: Final = "# type: ignore"
FOUND: Final = re.compile(r"^(?:ERROR |error )?(tests/typing/\w+\.py):(\d+)")
BLIND: Final = {"ty": ("most_viewer=1",)}
"""Lines on which a checker sees nothing, by what stands on them: ty takes any name where a TypedDict is unpacked."""
FEWEST: Final = 50
"""Marks that there are at the least: a folder that was not read has none."""


def commands(python: str) -> dict[str, list[str]]:
    """How each is asked, by name; both look at the Python that runs this."""
    scripts = Path(python).parent
    return {
        "ty": [str(scripts / "ty"), "check", "--python", python, "--output-format", "concise", FOLDER],
        # Its own marks alone: it would take those of the others for its own.
        "pyrefly": [
            *(str(scripts / "pyrefly"), "check", "--preset", "strict", "--enabled-ignores", "pyrefly"),
            *("--python-interpreter-path", python, "--output-format", "min-text"),
            *(str(path.relative_to(ROOT)) for path in sorted((ROOT / FOLDER).glob("*.py"))),
        ],
    }


def marked() -> dict[tuple[str, int], str]:
    """The lines that must be errors."""
    return {
        (f"{FOLDER}/{path.name}", number): line.strip()
        for path in sorted((ROOT / FOLDER).glob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MARK in line
    }


def findings(said: str) -> dict[tuple[str, int], str]:
    """The errors that a checker tells of, by file and line."""
    return {(match[1], int(match[2])): line for line in said.splitlines() if (match := FOUND.match(line))}


def judge(name: str, said: str, marks: dict[tuple[str, int], str]) -> list[str]:
    """What is wrong with what a checker says."""
    found = findings(said)
    blind = BLIND.get(name, ())
    unseen = [place for place, line in marks.items() if place not in found and not any(part in line for part in blind)]
    return [
        *(f"{name}: {line}" for place, line in found.items() if place not in marks),
        *(f"{name}: nothing wrong at {file}:{number}: {marks[file, number]}" for file, number in unseen),
    ]


def main() -> int:
    """Ask both, print what is wrong, and give the exit code."""
    marks = marked()
    if len(marks) < FEWEST:
        print(f"only {len(marks)} lines of {FOLDER} are marked")
        return 2
    wrong = []
    for name, command in commands(sys.executable).items():
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        problems = judge(name, done.stdout + done.stderr, marks)
        print(f"{name}: {len(marks)} lines are wrong on purpose; {len(problems)} problems")
        wrong += problems
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
