"""The public interface as text, one line a name: what it takes, with annotations and defaults.

``python tests/public_api.py`` writes it anew, and compares when it is given a file. Public is what the reference shows
(``docs/reference``), without names that begin with an underscore. It is read from the sources, not imported: the same text on every
Python. A line that is gone or is another one breaks somebody; a line more does not.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
SNAPSHOT: Final = ROOT / "tests" / "public-api.txt"
_PARTS: Final = re.compile(r", (?=(?:\[\w+\] )?\*{0,2}\w+: )")


def shown() -> list[str]:
    """The modules and classes that the reference shows."""
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return sorted({name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)})


def lines(package: Any, names: list[str]) -> list[str]:
    """One line for each public thing below these names of a package that griffe has loaded."""
    prefix = f"{package.path}."
    return sorted({line for name in names for line in _below(package[name.removeprefix(prefix)])})


def _below(found: Any) -> Iterator[str]:
    if found.is_alias:
        return
    if found.is_module:
        for member in found.members.values():
            if not member.is_alias and member.is_public and not member.is_module:
                yield from _below(member)
        return
    yield _line(found)
    if found.is_class:
        for name, member in found.members.items():
            if not member.is_alias and (name == "__init__" or not name.startswith("_")):
                yield from _below(member)


def _line(found: Any) -> str:
    if found.is_function:
        parameters = ", ".join(_parameter(one) for one in found.parameters if one.name not in {"self", "cls"})
        marks = "".join(f"{label} " for label in ("async", "staticmethod", "classmethod", "property") if label in found.labels)
        return f"{found.path}({parameters}) -> {marks}{found.returns}"
    if found.is_class:
        return f"{found.path}: class({', '.join(str(base) for base in found.bases)})"
    value = "" if found.value is None else f" = {found.value}"
    return f"{found.path}: {found.annotation or found.kind.value}{value}".replace("\n", " ")


def _parameter(one: Any) -> str:
    stars = {"variadic positional": "*", "variadic keyword": "**"}.get(one.kind.value, "")
    kind = {"keyword-only": "[keyword] ", "positional-only": "[position] "}.get(one.kind.value, "")
    default = "" if one.default is None or stars else f" = {one.default}"
    return f"{kind}{stars}{one.name}: {one.annotation}{default}".replace("\n", " ")


def current() -> str:
    """The interface as it is."""
    package = griffe.load("somaresil", search_paths=[ROOT / "src"], resolve_aliases=False)
    top = [f"somaresil.{name}" for name in package.exports or ()]
    return "\n".join([*sorted(map(str, top)), *lines(package, shown())]) + "\n"


def broken(before: str, after: str) -> list[str]:
    """What of the interface before is not in the one after. A parameter more that need not be given breaks nobody."""
    there = set(after.splitlines())
    by_name = {line.partition("(")[0]: line for line in there}
    return [line for line in before.splitlines() if line not in there and not _extends(by_name.get(line.partition("(")[0], ""), line)]


def _extends(after: str, before: str) -> bool:
    """Whether a function is the one before with parameters by keyword that have a default, at the end or among those."""
    heads = [line.partition("(")[2].rpartition(") -> ") for line in (after, before)]
    if not all(arrow for _, arrow, _ in heads) or heads[0][2] != heads[1][2]:
        return False
    now, was = (_PARTS.split(inside) if inside else [] for inside, _, _ in heads)
    rest = iter(now)
    more = [part for part in now if part not in was]
    return all(part in rest for part in was) and all(part.startswith("[keyword] ") and " = " in part for part in more)


def main(arguments: list[str]) -> int:
    """Write the text, or compare the interface with a text of it: 1 when something is gone or is another one."""
    now = current()
    if not arguments:
        SNAPSHOT.write_text(now, encoding="utf-8")
        return 0
    gone = broken(Path(arguments[0]).read_text(encoding="utf-8"), now)
    for line in gone:
        sys.stdout.write(f"gone, or another one: {line}\n")
    sys.stdout.write(f"{len(gone)} of the names before are gone or others\n")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
