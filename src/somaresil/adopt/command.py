"""What ``somaresil init`` does: find the file, show the change, ask, write."""

from __future__ import annotations

import difflib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.adopt.edit import AdoptionError, AlreadyThere, adopted, service_name

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]

ADDED, SHOWN, IMPOSSIBLE = 0, 1, 2
"""Exit codes."""
_LARGEST: Final = 2_000_000
_MAKES: Final = ("FastAPI(", "Starlette(", "get_asgi_application(")
_SKIPPED: Final = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages", "venv", "env", "tests", "test"})


def run(arguments: argparse.Namespace) -> int:
    """Do it. Returns the exit code."""
    path = Path(arguments.path)
    try:
        path = _find(path)
        before = _read(path)
        service = arguments.service or service_name(path.resolve().parent.name)
        after = adopted(before, service=service, app=arguments.app)
    except AlreadyThere:
        _say(arguments, f"{path}: the middleware is there already", path, "already there", [])
        return ADDED
    except (AdoptionError, OSError) as unknown:
        print(f"somaresil init: {unknown}", file=sys.stderr)
        return IMPOSSIBLE
    lines = [*difflib.unified_diff(before.splitlines(), after.splitlines(), str(path), f"{path} with somaresil", lineterm="", n=2)]
    if not arguments.json:
        print("\n".join(lines))
    if arguments.dry_run or not (arguments.yes or (not arguments.json and _asked())):
        _say(arguments, "nothing was changed", path, "shown", lines)
        return SHOWN
    try:
        _write(path, after)
    except OSError as refused:
        print(f"somaresil init: {path}: {refused}; nothing was changed", file=sys.stderr)
        return IMPOSSIBLE
    said = f"{path} was changed. Next: guard what it calls (somaresil doctor says where), and see docs/guides/getting-started.md"
    _say(arguments, said, path, "added", lines)
    return ADDED


def _say(arguments: argparse.Namespace, text: str, path: Path, result: str, lines: list[str]) -> None:
    print(json.dumps({"file": str(path), "result": result, "diff": lines}, indent=2) if arguments.json else text)


def _find(given: Path) -> Path:
    if given.is_file():
        return given
    if not given.is_dir():
        raise AdoptionError(f"{given}: there is no such file or folder")
    found = []
    for folder, folders, files in os.walk(given):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in _SKIPPED)
        for name in sorted(files):
            path = Path(folder) / name
            if name.endswith(".py") and not name.startswith("test_") and _makes_an_app(path):
                found.append(path)
    if not found:
        raise AdoptionError(f"{given}: no file in it makes a FastAPI, Starlette or Django ASGI app")
    if len(found) > 1:
        raise AdoptionError(f"several files make an app, name one of them: {', '.join(map(str, found[:10]))}")
    return found[0]


def _makes_an_app(path: Path) -> bool:
    try:
        return path.stat().st_size <= _LARGEST and any(word in path.read_text(encoding="utf-8") for word in _MAKES)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise AdoptionError(f"{path}: more than {_LARGEST} bytes")
    try:
        # As it is: line ends too.
        return path.read_bytes().decode("utf-8")
    except ValueError:
        raise AdoptionError(f"{path}: it is no UTF-8") from None


def _asked() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input("add it? [y/N] ").strip().lower() in {"y", "yes"}
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; it keeps its mode. A link stays, and what it leads to is replaced."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
