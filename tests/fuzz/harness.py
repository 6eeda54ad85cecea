"""What a target of the fuzzer is, and how targets are found.

A target takes bytes and gives them to parsers. What a parser says that it raises is a refusal; anything else that comes out is a defect.
Targets are plain functions, so that they run without atheris as well: over the seeds in ``corpus/``, as tests.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
MODULES: Final = tuple(sorted(path.stem for path in (HERE / "targets").glob("[a-z]*.py")))
"""Modules of targets; the fuzzer imports the one that it needs."""


class Unfit(Exception):
    """The input has not even the form in which it reaches the parser: somebody else has refused it before."""


@dataclass(frozen=True)
class Target:
    """A function that is fuzzed."""

    name: str
    run: Callable[[bytes], None]
    parsers: tuple[str, ...]
    """What it tries: ``module:name`` of functions, without ``somaresil.``. A test sees to it that the seeds reach each of them."""
    weight: int
    """Its share of the executions: slow parsers have a small one."""
    module: str


TARGETS: Final[dict[str, Target]] = {}


def target(*parsers: str, raises: tuple[type[Exception], ...] = (), weight: int = 4) -> Callable[[Callable[[bytes], None]], Target]:
    """Make a function a target. ``raises``: what its parsers say that they raise; nothing else may come out."""

    def made(function: Callable[[bytes], None]) -> Target:
        @wraps(function)
        def run(data: bytes) -> None:
            try:
                function(data)
            except Unfit:
                return
            except raises as refused:
                if isinstance(refused, ConfigurationError):
                    expect(refused.problems, "a problem that is told")
                str(refused).encode("utf-8", "backslashreplace")

        name = function.__name__
        expect(name not in TARGETS, f"one target called {name}")
        found = TARGETS[name] = Target(name, run, parsers, weight, function.__module__.rpartition(".")[2])
        return found

    return made


def load(*modules: str) -> dict[str, Target]:
    """Import modules of targets, by default all, and give what is known then."""
    for module in modules or MODULES:
        importlib.import_module(f"tests.fuzz.targets.{module}")
    return TARGETS


def expect(holds: object, what: str) -> None:
    """Fail unless it holds; ``assert`` would be silent with ``-O``."""
    if not holds:
        raise AssertionError(what)


def text_of(data: bytes) -> str:
    """The text of a file that was read."""
    return data.decode("utf-8", "replace")


def value_of(data: bytes) -> Any:
    """The value that a document of JSON has: most formats are read by others into such values first. Raises ``Unfit`` for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Unfit from None


def mapping_of(data: bytes) -> dict[str, Any]:
    """The same, when only mappings reach the parser."""
    found = value_of(data)
    if not isinstance(found, dict):
        raise Unfit
    return found


def seeds_of(name: str) -> list[Path]:
    """The files that a target begins with."""
    return sorted((CORPUS / name).iterdir())
