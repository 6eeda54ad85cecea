"""Errors of httpx, as it makes them, for plans that name them."""

from __future__ import annotations

import httpx

__all__ = ["make"]

_TEXT = "fault injected by a chaos experiment"


def make(name: str) -> Exception:
    """The error of this name; with a number behind it the answer of a server with that status."""
    word, _, status = name.partition(".")
    request = httpx.Request("GET", "http://injected.invalid/")
    if status:
        return httpx.HTTPStatusError(_TEXT, request=request, response=httpx.Response(int(status), request=request))
    kind: type[httpx.TransportError] = getattr(httpx, word)
    return kind(_TEXT, request=request)
