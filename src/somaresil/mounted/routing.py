"""Which resource of an app a request is about, and where the app is mounted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from somaresil.mounted.wire import Answer, Refused, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somaresil.chaos.engine import ChaosEngine
    from somaresil.config import Checker
    from somaresil.mounted.request import Request

__all__ = ["Roots", "Route", "resource"]

Route = tuple[re.Pattern[str], str, str]
"""What the whole path looks like, the method, and what it is called."""

_MOST_ROOTS: Final = 16
_WILDCARDS: Final = frozenset("*?[]")


def resource(routes: Sequence[Route], request: Request) -> tuple[str, str, tuple[str, ...]]:
    """Method, name and parts of the path. Raises :class:`~somaresil.mounted.wire.Refused` for what is not there, and answers OPTIONS."""
    found = [(route, match) for route in routes if (match := route[0].fullmatch(request.path))]
    if not found:
        raise Refused(problem(404, "there is no such resource"))
    methods = {route[1] for route, _ in found}
    allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
    if request.method == "OPTIONS":
        # No word about other origins: browsers take that for a no.
        raise Refused(Answer(204, headers=[(b"allow", allowed.encode())]))
    wanted = "GET" if request.method == "HEAD" else request.method
    for (_, method, name), match in found:
        if method == wanted:
            return method, name, match.groups()
    raise Refused(problem(405, f"{allowed} here", headers=[(b"allow", allowed.encode())]))


class Roots:
    """Keeps experiments on requests away from where an app is mounted."""

    def __init__(self, at: str, chaos: ChaosEngine, check: Checker) -> None:
        """``at`` is where it is said to be; problems go to ``check``."""
        self._chaos = chaos
        self._known: set[str] = set()
        if not isinstance(at, str) or not at.startswith("/") or not _WILDCARDS.isdisjoint(at):
            check.problem("at", at, "a path that begins with /", "where the app is mounted")

    def protect(self, root: str) -> None:
        """It is mounted there as well. Only who is known can say where that is."""
        root = root.rstrip("/")
        if root and root not in self._known and len(self._known) < _MOST_ROOTS and _WILDCARDS.isdisjoint(root):
            self._known.add(root)
            self._chaos.protect(root)
            self._chaos.protect(f"{root}/*")
