"""Errors of aiohttp, as it makes them, for plans that name them."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

__all__ = ["make"]

_TEXT = "fault injected by a chaos experiment"
_URL = URL("http://injected.invalid/")
_KEY = {"host": "injected.invalid", "port": 80, "is_ssl": False, "ssl": True}


def make(name: str) -> Exception:
    """The error of this name; with a number behind it the answer of a server with that status."""
    word, _, status = name.partition(".")
    if status:
        headers: CIMultiDict[str] = CIMultiDict()
        info = aiohttp.RequestInfo(_URL, "GET", CIMultiDictProxy(headers), _URL)
        return aiohttp.ClientResponseError(info, (), status=int(status), message=_TEXT)
    if word == "ClientConnectorError":
        # Its releases differ in what they keep of a connection.
        given: dict[str, Any] = {part: _KEY.get(part) for part in ConnectionKey.__annotations__}
        return aiohttp.ClientConnectorError(ConnectionKey(**given), OSError(111, _TEXT))
    kind: type[Exception] = getattr(aiohttp, word)
    return kind(_TEXT)
