"""What stands behind the question mark, and in ``Last-Event-ID``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from somaresil.config import did_you_mean
from somaresil.errors import Problem
from somaresil.mounted.wire import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from somaresil.mounted.request import Request

__all__ = ["identity", "parameters", "whole"]

_LONGEST_IDENTITY: Final = 20
"""Digits of the id of an event."""
_MOST_DIGITS: Final = 9
_MOST_FIELDS: Final = 20


def parameters(request: Request, known: Sequence[str]) -> dict[str, str]:
    """What stands behind the question mark. Raises :class:`Refused` for what nobody knows, and for what stands there twice."""
    try:
        given = parse_qsl(request.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refused(problem(400, "that is no query that is read here")) from None
    names = [name for name, _ in given]
    found = [Problem(name, value, " | ".join(known), did_you_mean(name, known)) for name, value in given if name not in known]
    found += [Problem(name, names.count(name), "once") for name in known if names.count(name) > 1]
    if found:
        raise Refused(problem(400, "the query is not understood", found))
    return dict(given)


def whole(asked: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """A number among them; None: it is not given. Raises :class:`Refused` for what is none in these bounds."""
    given = asked.get(name)
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > _MOST_DIGITS or not least <= int(given) <= most:
        raise Refused(problem(400, "the query is not understood", [Problem(name, given, f"a whole number from {least} to {most}")]))
    return int(given)


def identity(given: str | None, *, strict: bool = True) -> int | None:
    """The id of an event; None: there is none. One that nobody can have given is refused, or with ``strict`` off as good as none."""
    if not given:
        return None
    if given.isascii() and given.isdigit() and len(given) <= _LONGEST_IDENTITY:
        return int(given)
    if not strict:
        return None
    raise Refused(problem(400, "the query is not understood", [Problem("after", given, "the id of an event")]))
