"""What a tool has written, walked through with the place of each value in hand: what is not as it should be is named with its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.perf.samples import Series

__all__ = ["MOST_PROBLEMS", "Node", "gather", "parse_json", "refusal"]

MOST_PROBLEMS: Final = 20
"""Problems of one file that are told; who has more has another problem."""
_LARGEST: Final = 1e300


def refusal(path: str, value: object, allowed: str, hint: str = "") -> ConfigurationError:
    """The error for one problem."""
    return ConfigurationError([Problem(path, value, allowed, hint)])


class Node:
    """A value of a document, and where it stands. Every method raises :class:`~somaresil.errors.ConfigurationError` for another type."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str) -> Node:
        """What stands there under a name."""
        found = self.find(key)
        if found is None:
            raise refusal(self._below(key), "nothing", "a value", "it is not there")
        return found

    def find(self, key: str) -> Node | None:
        """What stands there under a name; None when nothing, or null, does."""
        value = self.mapping().get(key)
        return None if value is None else Node(value, self._below(key))

    def mapping(self) -> dict[str, Any]:
        """It is an object of JSON."""
        if not isinstance(self.value, dict):
            raise refusal(self.path, self.value, "an object")
        return self.value

    def items(self) -> list[tuple[str, Node]]:
        """The members of an object."""
        return [(key, Node(value, self._below(key))) for key, value in self.mapping().items()]

    def each(self) -> list[Node]:
        """The elements of a list that has some."""
        if not isinstance(self.value, list):
            raise refusal(self.path, self.value, "a list")
        if not self.value:
            raise refusal(self.path, self.value, "a list that is not empty", "an empty result proves nothing")
        return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(self.value)]

    def number(self) -> float:
        """A finite number of at least 0."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= _LARGEST:
            raise refusal(self.path, value, "a finite number >= 0")
        return float(value)

    def numbers(self) -> list[float]:
        """A list of such numbers that is not empty."""
        return [each.number() for each in self.each()]

    def text(self) -> str:
        """A text."""
        if not isinstance(self.value, str):
            raise refusal(self.path, self.value, "a text")
        return self.value

    def _below(self, key: str) -> str:
        # A key is whatever somebody has named a benchmark: on one line, and short.
        shown = key if key.isidentifier() else json.dumps(key[:60])
        return f"{self.path}{'.' if ': ' in self.path else ': '}{shown}"


def parse_json(text: str, path: str) -> Any:
    """JSON, in which no name may stand twice in one object. Raises :class:`~somaresil.errors.ConfigurationError` for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise refusal(path, "its depth", "JSON that is not nested without end") from None
    except ValueError as broken:
        raise refusal(path, text[:40], "JSON", " ".join(str(broken).split())[:200]) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{double[:60]!r} stands twice in one object")
    return found


def gather(items: Iterable[Any], read: Callable[[Any], Iterable[Series]]) -> tuple[Series, ...]:
    """The series of every item, or the problems of all of them, up to :data:`MOST_PROBLEMS`."""
    found: list[Series] = []
    problems: list[Problem] = []
    for item in items:
        try:
            found += read(item)
        except ConfigurationError as wrong:
            problems += wrong.problems
            if len(problems) >= MOST_PROBLEMS:
                break
    if problems:
        raise ConfigurationError(problems[:MOST_PROBLEMS])
    return tuple(found)
