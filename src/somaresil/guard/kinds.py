"""What each option can hold, read from its annotation, so that an option that is new needs no line anywhere else.

Options classes are dataclasses with annotations as text: ``float | timedelta | None`` can be written in a file, ``Any`` and ``Callable``
can hold code, ``Retry | None`` holds an options object.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Kind", "kinds_of"]

_PLAIN: Final = frozenset({"int", "float", "bool", "str", "timedelta", "None"})
_HOLDERS: Final = frozenset({"tuple", "list", "frozenset", "set", "Sequence", "Iterable", "Mapping", "dict"})


@dataclass(frozen=True, slots=True)
class Kind:
    """What one option can hold."""

    nested: tuple[type, ...] = ()
    """Options classes; a mapping names some of their fields."""
    number: bool = False
    truth: bool = False
    duration: bool = False
    text: bool = False
    optional: bool = False
    """Whether None is among them."""
    code: bool = False
    """Whether a function, a class or an object can be among them: what no file can hold."""


@lru_cache(maxsize=128)
def kinds_of(owner: type) -> Mapping[str, Kind]:
    """The kind of each field of an options class that its constructor takes, in its order. Classes are few, and asked often."""
    return MappingProxyType({field.name: _kind(owner, field.type) for field in fields(owner) if field.init})


def _kind(owner: type, annotation: object) -> Kind:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", None) or str(annotation)
    alternatives = list(_split(text, "|"))
    heads = {alternative.partition("[")[0] for alternative in alternatives}
    found = {head: _named(owner, head) for head in heads - _PLAIN - _HOLDERS - {"Literal"}}
    nested = tuple(found[name] for name in alternatives if name in found and is_dataclass(found[name]))
    words = {name for name, value in found.items() if isinstance(value, type) and issubclass(value, Enum)}
    inner = [part for name in alternatives if name.partition("[")[0] in _HOLDERS for part in _split(name.partition("[")[2][:-1], ",")]
    return Kind(
        nested=nested,
        number=bool(heads & {"int", "float"}),
        truth="bool" in heads,
        duration="timedelta" in heads,
        text=bool(heads & {"str", "Literal"} or words),
        optional="None" in heads,
        code=bool(found.keys() - words - {name for name in found if is_dataclass(found[name])})
        or any(_kind(owner, part).code for part in inner if part not in {"...", ""}),
    )


def _named(owner: type, name: str) -> Any:
    """What a name in an annotation means where its class, or the class that it inherits the field from, was written; None: nothing."""
    for base in owner.__mro__:
        found = getattr(sys.modules.get(base.__module__), name, None)
        if found is not None:
            return found
    return None


def _split(text: str, mark: str) -> Iterator[str]:
    """The parts of an annotation between marks that stand in no brackets."""
    depth, part = 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == mark and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += character
    yield part.strip()
