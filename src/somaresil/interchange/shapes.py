"""What a foreign document must look like, as data: which names, which of them are needed, which kind of value each has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.config import did_you_mean

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.settings.files import Document

__all__ = ["ANYTHING", "FLAG", "NAMES_TO_TEXTS", "Anything", "Flag", "Listing", "Number", "OneOf", "Place", "Shape", "Table", "Text"]

_LARGEST: Final = 1e15
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: in which document, and there under which path."""

    document: Document
    label: str
    path: tuple[str, ...]
    check: Checker

    def at(self, *keys: str | int) -> Place:
        """Something below."""
        return Place(self.document, self.label, (*self.path, *map(str, keys)), self.check)

    @property
    def shown(self) -> str:
        """``file.yaml:12: SLO foo: spec.timeWindow.0``."""
        path = ".".join(repr(part) if "." in part else part for part in self.path)
        return self.document.where(self.path, f"{self.label}: {path}" if path else self.label)

    def problem(self, value: object, allowed: str, hint: str = "") -> None:
        """Note what is wrong here."""
        self.check.problem(self.shown, value, allowed, hint)


class Shape(Protocol):
    """A kind of value."""

    def look(self, place: Place, value: Any) -> None:
        """Note everything that is wrong with a value."""
        ...


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever YAML holds."""

    def look(self, place: Place, value: Any) -> None:
        """Nothing is wrong with it."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def look(self, place: Place, value: Any) -> None:
        """It is one of them."""
        if not isinstance(value, bool):
            place.problem(value, "true or false")


@dataclass(frozen=True, slots=True)
class Text:
    """A text: one of ``choices``, or one that ``pattern`` fits. With ``stamp`` YAML may have made a date of it."""

    longest: int = 1_050
    choices: tuple[str, ...] = ()
    pattern: str = ""
    allowed: str = ""
    empty: bool = False
    stamp: bool = False

    def look(self, place: Place, value: Any) -> None:
        """It is a text, and such a one."""
        if self.stamp and isinstance(value, date):
            return
        if not isinstance(value, str):
            place.problem(value, self.allowed or "a text", "in quotes" if isinstance(value, int | float) else "")
        elif self.choices:
            if value not in self.choices:
                place.problem(value, " | ".join(self.choices), did_you_mean(value, self.choices))
        elif _SURROGATE.search(value):
            place.problem(value, "text that can be written")
        elif len(value) > self.longest or not (value or self.empty):
            place.problem(value if not value else f"{len(value)} characters", f"{0 if self.empty else 1} to {self.longest} characters")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            place.problem(value, self.allowed)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from ``least`` to ``most``; ``open_below`` and ``open_above`` leave the ends out."""

    least: float = -_LARGEST
    most: float = _LARGEST
    open_below: bool = False
    open_above: bool = False

    def look(self, place: Place, value: Any) -> None:
        """It is one, and within."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (isinstance(value, float) and not math.isfinite(value)):
            place.problem(value, "a number", "without quotes, and with a point before an exponent" if isinstance(value, str) else "")
        elif not (
            (value > self.least if self.open_below else value >= self.least)
            and (value < self.most if self.open_above else value <= self.most)
        ):
            below, above = ">" if self.open_below else ">=", "<" if self.open_above else "<="
            place.problem(value, f"a number {below} {self.least:.15g} and {above} {self.most:.15g}")


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value of the first kind when it is a number, else of the second."""

    number: Shape
    other: Shape

    def look(self, place: Place, value: Any) -> None:
        """It is one of both."""
        (self.number if isinstance(value, int | float) and not isinstance(value, bool) else self.other).look(place, value)


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of ``least`` to ``most`` values of a kind."""

    of: Shape
    least: int = 0
    most: int = 1_000

    def look(self, place: Place, value: Any) -> None:
        """It is a list, and so are its values."""
        if not isinstance(value, list):
            place.problem(value, "a list")
            return
        if not self.least <= len(value) <= self.most:
            many = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
            place.problem(f"{len(value)} items", f"a list of {many}")
        for number, each in enumerate(value[: self.most]):
            self.of.look(place.at(number), each)


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping with these names; those in ``needed`` must be there. ``rest``: the kind of values under any other name; None: none."""

    fields: Mapping[str, Shape] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    rest: Shape | None = None

    def look(self, place: Place, value: Any) -> None:
        """It is a mapping, and so are its values."""
        if not isinstance(value, Mapping):
            place.problem(value, "a mapping")
            return
        for name in self.needed:
            if value.get(name) is None:
                place.problem(None, f"a value for {name}", "it has no default")
        for name, below in value.items():
            shape = self.fields.get(name, self.rest)
            if shape is None:
                place.at(name).problem(below, f"one of {', '.join(self.fields)}", did_you_mean(name, self.fields))
            elif below is not None:
                # What is there and empty is as good as not there: that is how templates leave it.
                shape.look(place.at(name), below)


ANYTHING: Final = Anything()
FLAG: Final = Flag()
NAMES_TO_TEXTS: Final = Table(rest=Text(empty=True, longest=4_000))
