"""What the command asks of git: which commit a name means, in which order commits stand, a checkout for a while, notes.

Hooks of the repository are not run, nothing is asked on the terminal, and a name that begins with ``-`` is no option.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.perf.read.node import refusal

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["NOTES", "Repository"]

NOTES: Final = "refs/notes/somaresil-perf"
_SECONDS: Final = 300.0
_LONGEST: Final = 300


class Repository:
    """The repository around a folder. Every method raises :class:`~somaresil.errors.ConfigurationError` for what git refuses."""

    __slots__ = ("_folder", "_git")

    def __init__(self, folder: Path) -> None:
        """Nothing is asked of git before it is needed."""
        self._folder = folder
        self._git = shutil.which("git")

    def commit_of(self, name: str) -> str:
        """The full hash of the commit that a name means."""
        return self._asked(name, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()

    def is_dirty(self) -> bool:
        """Whether tracked files differ from the commit that is checked out."""
        return bool(self._asked("the working tree", "status", "--porcelain", "--untracked-files=no").strip())

    def order(self, name: str = "HEAD") -> dict[str, int]:
        """The place of each commit that led to this one, oldest first."""
        listed = self._asked(name, "rev-list", "--topo-order", "--reverse", "--end-of-options", name, "--").split()
        return {commit: place for place, commit in enumerate(listed)}

    def note_of(self, commit: str) -> str:
        """The lines that :meth:`add_note` has put there; empty without any."""
        return self._asked(commit, "notes", "--ref", NOTES, "show", commit) if commit in self.noted() else ""

    def noted(self) -> tuple[str, ...]:
        """The commits that have such a note."""
        return tuple(sorted(self._asked("notes", "notes", "--ref", NOTES, "list").split()[1::2]))

    def add_note(self, commit: str, text: str) -> None:
        """Add lines to the note of a commit; lines that are there already are not written again."""
        there = [line for line in self.note_of(commit).splitlines() if line.strip()]
        lines = [*there, *(line for line in text.splitlines() if line not in there)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "note"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            self._asked(commit, "notes", "--ref", NOTES, "add", "--force", "--file", str(path), commit)

    @contextmanager
    def worktree(self, commit: str) -> Generator[Path]:
        """A checkout of a commit, gone again afterwards. What stands at the same place in it as the working directory is given."""
        inside = self._asked("the working directory", "rev-parse", "--show-prefix").strip()
        with tempfile.TemporaryDirectory(prefix="somaresil-perf-") as outer:
            path = Path(outer) / commit[:12]
            self._asked(commit, "worktree", "add", "--detach", "--quiet", str(path), commit)
            try:
                folder = path / inside
                if not folder.is_dir():
                    raise refusal(commit[:12], inside, "a commit that has this folder")
                yield folder
            finally:
                self._asked(commit, "worktree", "remove", "--force", str(path))

    def _asked(self, about: str, *words: str) -> str:
        if self._git is None:
            raise refusal("git", "no program", "git in the path")
        command = [self._git, "-C", str(self._folder), "-c", f"core.hooksPath={os.devnull}", *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as failed:
            raise refusal("git", about, "an answer of git", type(failed).__name__) from None
        if done.returncode:
            said = " ".join(done.stderr.split())[:_LONGEST]
            raise refusal(
                "git", about, "a file of results, or a commit, branch or tag of this repository", said or f"git {words[0]} refuses"
            )
        return done.stdout
