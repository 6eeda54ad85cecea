"""Where a request comes from that changes something: this site, one that is allowed, or a page of another one.

A browser says ``Origin`` with every POST, and ``Sec-Fetch-Site`` where the address is one of HTTPS; no page can set either. The second is
believed first: behind a proxy that ends TLS, ``Origin`` says https where this process sees http.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import Problem
from somaresil.mounted.wire import Refused, problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.config import Checker
    from somaresil.mounted.request import Request

__all__ = ["Senders"]

_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]{1,255}")
_DEFAULT_PORT: Final = {"http": ":80", "https": ":443"}


class Senders:
    """Refuses what a page of another site may have made a browser send."""

    def __init__(self, origins: Iterable[str], check: Checker) -> None:
        """``origins`` are those of other sites whose pages may; problems go to ``check``."""
        listed: list[Any] = [origins] if isinstance(origins, str) else list(origins)
        for origin in listed:
            if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
                check.problem("origins", origin, "origins such as https://ops.example", "no path, no wildcard, no slash at the end")
        self._origins = frozenset(_normal(origin) for origin in listed if isinstance(origin, str))

    def check(self, request: Request) -> None:
        """Raise :class:`~somaresil.mounted.wire.Refused` with 403 unless it comes from here, from a listed site or from no browser."""
        origin, site = request.header("origin"), request.header("sec-fetch-site")
        if origin is None:
            if request.header("authorization") is None or site not in {None, "same-origin", "none"}:
                raise Refused(problem(403, "without an Origin it needs an Authorization header, and may not come from another site"))
            return
        if site == "same-origin" and origin != "null":
            return
        here = _normal(f"{request.scope.get('scheme', 'http')}://{request.header('host')}")
        if _normal(origin) not in self._origins | {here}:
            raise Refused(
                problem(403, "it comes from a page of another site", [Problem("origin", origin, "this site, or one of origins=")])
            )


def _normal(origin: str) -> str:
    """An origin as all of them are compared: small letters, no port that goes without saying."""
    origin = origin.lower()
    return origin.removesuffix(_DEFAULT_PORT.get(origin.partition("://")[0], " "))
