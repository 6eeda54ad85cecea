"""Configuration files as plain data, with the line on which each value stands.

A file is not trusted to be small, flat or well-behaved: size and depth are bounded before anything is built from it, YAML is read by its
safe loader and without aliases (a few of them can stand for more than any memory holds), and a name that stands twice is a problem. TOML
needs nothing; YAML needs PyYAML: ``pip install "somaresil[yaml]"``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from somaresil.config import Checker

__all__ = ["DEEPEST", "LARGEST", "Document", "deeper_than", "document_from_text", "document_of", "documents_from_text", "documents_of"]

LARGEST: Final = 262_144
"""Bytes in a file."""
DEEPEST: Final = 10
"""Mappings and lists within one another."""
_PROJECT: Final = "pyproject.toml"
"""A file in which only the table ``tool.somaresil`` is ours."""


@dataclass(frozen=True, slots=True)
class Document:
    """What was read, and from where."""

    name: str
    """The path as it was given; empty for a mapping."""
    data: Mapping[str, Any]
    line_of: Callable[[tuple[str, ...]], int | None] = field(default=lambda _: None)
    """The line of the value at a path, or of the nearest thing around it that is known."""

    def where(self, path: tuple[str, ...], shown: str) -> str:
        """How a problem at ``path``, which reads as ``shown``, is named."""
        line = self.line_of(path)
        place = f"{self.name}:{line}" if line is not None else self.name
        return f"{place}: {shown}" if place else shown


def document_of(source: str | os.PathLike[str] | Mapping[str, Any], check: Checker) -> Document | None:
    """Read a file by its ending, ``.toml``, ``.yaml`` or ``.yml``, or take a mapping; None, and a problem, when that is not possible."""
    if isinstance(source, Mapping):
        if deeper_than(source, DEEPEST):
            check.problem("settings", source, f"at most {DEEPEST} mappings within one another")
            return None
        return Document("", source)
    path = Path(source)
    name = str(source)
    if path.suffix.lower() not in _PARSERS:
        check.problem(name, path.suffix, f"a file that ends in {', '.join(_PARSERS)}")
        return None
    text = _text(path, name, check)
    return None if text is None else document_from_text(text, path.suffix.lower(), name, check)


def document_from_text(text: str, ending: str, name: str, check: Checker) -> Document | None:
    """Read text in the language that files with this ``ending`` have; ``name`` says in problems where it is from."""
    if len(text.encode("utf-8", "replace")) > LARGEST:
        check.problem(name, "its size", f"at most {LARGEST} bytes")
        return None
    try:
        return _PARSERS[ending](text, name, check)
    except RecursionError:
        check.problem(name, "its depth", f"at most {DEEPEST} tables, mappings and lists within one another")
    except ValueError as broken:
        check.problem(name, ending, "what can be read", str(broken)[:200])
    return None


def documents_of(source: str | os.PathLike[str], check: Checker, *, most: int = 200) -> tuple[Document, ...]:
    """Read a file of YAML with up to ``most`` documents in it; none, and problems, where that is not possible."""
    path, name = Path(source), str(source)
    if path.suffix.lower() not in {".yaml", ".yml"}:
        check.problem(name, path.suffix, "a file that ends in .yaml, .yml")
        return ()
    text = _text(path, name, check)
    return () if text is None else documents_from_text(text, name, check, most=most)


def documents_from_text(text: str, name: str, check: Checker, *, most: int = 200) -> tuple[Document, ...]:
    """Read text that holds several documents; empty ones are left out."""
    if len(text.encode("utf-8", "replace")) > LARGEST:
        check.problem(name, "its size", f"at most {LARGEST} bytes")
        return ()
    try:
        return tuple(_yaml_documents(text, name, check, most))
    except RecursionError:
        check.problem(name, "its depth", f"at most {DEEPEST} mappings and lists within one another")
    except ValueError as broken:
        check.problem(name, "its text", "what can be read", str(broken)[:200])
    return ()


def deeper_than(data: object, most: int) -> bool:
    """Whether mappings and lists stand more than ``most`` within one another. One that holds itself does."""
    level: list[Any] = [data]
    for _ in range(most):
        level = [below for each in level for below in _inside(each)][: LARGEST + 1]
        if not level:
            return False
    return any(isinstance(each, Mapping | list | tuple) for each in level)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _text(path: Path, name: str, check: Checker) -> str | None:
    try:
        if not path.is_file():
            # A pipe would be waited for, and a folder cannot be read.
            check.problem(name, "no file" if not path.exists() else "no plain file", "a file that can be read")
            return None
        with path.open("rb") as file:
            read = file.read(LARGEST + 1)
        if len(read) > LARGEST:
            check.problem(name, "its size", f"at most {LARGEST} bytes")
            return None
        return read.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        check.problem(name, "its text", "UTF-8", f"byte {broken.start} is none")
    except (OSError, ValueError) as broken:
        check.problem(name, type(broken).__name__, "a file that can be read", str(broken)[:200])
    return None


# -- TOML ---------------------------------------------------------------------------------------------------------------------------------


def _toml(text: str, name: str, check: Checker) -> Document | None:
    # It says the line of what is no TOML by itself.
    data = tomllib.loads(text)
    if deeper_than(data, DEEPEST):
        check.problem(name, "its depth", f"at most {DEEPEST} tables and lists within one another")
        return None
    lines: dict[tuple[str, ...], int] = {}

    def line_of(path: tuple[str, ...]) -> int | None:
        # Only a file with problems pays for this.
        if not lines:
            for found, number in _toml_lines(text):
                for length in range(len(found), 0, -1):
                    lines.setdefault(found[:length], number)
        return _nearest(lines, path)

    if Path(name).name == _PROJECT:
        # What others keep there is theirs.
        tool = data.get("tool", {})
        own = tool.get("somaresil", {}) if isinstance(tool, dict) else {}
        if not isinstance(own, dict):
            check.problem(f"{name}: tool.somaresil", own, "a table")
            return None
        return Document(name, own, lambda path: line_of(("tool", "somaresil", *path)))
    return Document(name, data, line_of)


def _toml_lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The lines of tables and keys, as far as each stands on a line of its own: tomllib does not tell them."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found: Any = tomllib.loads(line)
        except ValueError:
            # A part of something that goes over several lines; what is around it is near enough.
            continue
        heading = line.lstrip().startswith("[")
        path: tuple[str, ...] = ()
        while isinstance(found, dict) and len(found) == 1:
            ((key, found),) = found.items()
            path = (*path, key)
            if not heading:
                yield (*table, *path), number
        if heading:
            table = path
            yield path, number


# -- YAML ---------------------------------------------------------------------------------------------------------------------------------


def _yaml(text: str, name: str, check: Checker) -> Document | None:
    before = len(check.problems)
    found = _yaml_documents(text, name, check, 1)
    if not found and len(check.problems) == before:
        return Document(name, {})
    return found[0] if found else None


def _yaml_documents(text: str, name: str, check: Checker, most: int) -> list[Document]:
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        check.problem(name, "YAML", "PyYAML to read it", 'pip install "somaresil[yaml]", or write TOML')
        return []
    found: list[Document] = []
    try:
        if not _harmless(yaml, text, name, check, most):
            return []
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            reader = _Reader(yaml, name, check)
            data = None if node is None else reader.value(node, ())
            if isinstance(data, dict):
                found.append(Document(name, data, partial(_nearest, reader.lines)))
            elif node is not None and (data is not None or node.value):
                check.problem(name if most == 1 else f"{name}:{node.start_mark.line + 1}", data, "a mapping")
    except yaml.YAMLError as broken:
        mark = getattr(broken, "problem_mark", None)
        place = name if mark is None else f"{name}:{mark.line + 1}"
        check.problem(place, "its text", "YAML", str(getattr(broken, "problem", None) or broken)[:200])
        return []
    return found


def _harmless(yaml: Any, text: str, name: str, check: Checker, most: int) -> bool:
    """Whether it can be built at all: looked at event by event, of which none holds another."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{name}:{event.start_mark.line + 1}"
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            check.problem(place, "its depth", f"at most {DEEPEST} mappings and lists within one another")
            return False
        if isinstance(event, yaml.AliasEvent):
            check.problem(place, f"*{event.anchor}", "no aliases", "write it out")
            return False
        if documents > most:
            given, allowed = ("a second document", "one document") if most == 1 else (f"document {documents}", f"at most {most} documents")
            check.problem(place, given, allowed)
            return False
    return True


class _Reader:
    """Builds plain values from YAML nodes and remembers their lines. Keys are kept as they are written: ``on`` is no truth value there."""

    def __init__(self, yaml: Any, name: str, check: Checker) -> None:
        self._yaml = yaml
        self._scalars = yaml.SafeLoader("")
        self._name = name
        self._check = check
        self.lines: dict[tuple[str, ...], int] = {}

    def value(self, node: Any, path: tuple[str, ...]) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if isinstance(node, self._yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, self._yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(each, (*path, str(number))) for number, each in enumerate(node.value)]
        # Raises for every tag that the safe loader does not know.
        return self._scalars.construct_object(node, deep=True)

    def _mapping(self, node: Any, path: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, below in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, self._yaml.ScalarNode):
                self._check.problem(f"{self._name}:{line}", "a key", "a plain name as key")
                continue
            name = str(key.value)
            if name in found:
                self._check.problem(f"{self._name}:{line}: {'.'.join((*path, name))}", name, "each name once", "it stands there twice")
            self.lines[*path, name] = line
            found[name] = self.value(below, (*path, name))
        return found


def _nearest(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int | None:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path) if path else None


_PARSERS: Final[Mapping[str, Callable[[str, str, Any], Document | None]]] = {".toml": _toml, ".yaml": _yaml, ".yml": _yaml}
