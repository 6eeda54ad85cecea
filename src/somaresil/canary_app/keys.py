"""Who a request is from, as far as that decides which app it comes to: a header, a cookie of the app, or a cookie of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["CanaryCookie", "Giving", "reader_of"]

LONGEST: Final = 256
"""Bytes of a header or a cookie that count."""
_LENGTH: Final = 16
_BETWEEN: Final = b"; "
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")
_WEEK: Final = 7 * 86_400
_SAME_SITE: Final = ("lax", "strict", "none")
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


@dataclass(frozen=True, slots=True)
class CanaryCookie:
    """A cookie of the canary's own, which those get who bring none: 16 digits and letters by chance, which say nothing of anybody.

    It is always ``HttpOnly``; what else may come in it is no key. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    name: str = "somaresil_canary"
    path: str = "/"
    same_site: Literal["lax", "strict", "none"] = "lax"
    secure: bool | None = None
    """None: when the request came by https."""
    max_age: int | None = _WEEK
    """Seconds for which a browser keeps it; None: until it is closed."""

    def __post_init__(self) -> None:
        """Check everything: it becomes a header of every first answer."""
        check = Checker("CanaryCookie")
        if not isinstance(self.name, str) or len(self.name) > LONGEST or _TOKEN.fullmatch(self.name) is None:
            check.problem("name", self.name, "the name of a cookie: letters, digits and - _ . among others, no space, no =")
        if not isinstance(self.path, str) or len(self.path) > LONGEST or _PATH.fullmatch(self.path) is None:
            check.problem("path", self.path, "a path that begins with a slash")
        check.one_of("same_site", self.same_site, _SAME_SITE)
        if self.secure is not None:
            check.type("secure", self.secure, bool, "True, False or None")
        if self.same_site == "none" and self.secure is False:
            check.problem("secure", self.secure, "True or None with same_site='none'", "browsers refuse it otherwise")
        if self.max_age is not None:
            check.count("max_age", self.max_age, minimum=1, maximum=400 * 86_400)
        check.finish()

    def header(self, token: str, *, encrypted: bool) -> tuple[bytes, bytes]:
        """The header that sets it."""
        parts = [f"{self.name}={token}", f"Path={self.path}", f"SameSite={self.same_site.capitalize()}", "HttpOnly"]
        if self.max_age is not None:
            parts.append(f"Max-Age={self.max_age}")
        if encrypted if self.secure is None else self.secure:
            parts.append("Secure")
        return b"set-cookie", "; ".join(parts).encode("ascii")


def _cookie_of(scope: Scope, start: bytes) -> bytes | None:
    """The value of the first cookie that begins with ``start``, its name and ``=``; None: there is none."""
    for header, value in scope["headers"]:
        # HTTP/2 may bring several.
        if header == b"cookie":
            at = value.find(start)
            while at >= 0:
                # Not the end of another name.
                if not at or value[at - 1] in _BETWEEN:
                    end = value.find(b";", at)
                    found: bytes = value[at + len(start) :] if end < 0 else value[at + len(start) : end]
                    return found
                at = value.find(start, at + 1)
    return None


def _ours(name: bytes) -> Callable[[Scope], str | None]:
    """Reads a cookie of ours; what nobody has given is none."""
    start = name + b"="

    def read(scope: Scope) -> str | None:
        value = _cookie_of(scope, start)
        # Digits and letters, so that nothing strange is kept; whether we have given it nobody can say.
        return value.decode("ascii") if value is not None and len(value) == _LENGTH and value.isalnum() else None

    return read


def reader_of(key: str | CanaryCookie | Callable[[Scope], object] | None, check: Checker) -> Callable[[Scope], object] | None:
    """A function that reads the key of a request; None: by chance."""
    if key is None:
        return None
    if isinstance(key, CanaryCookie):
        return _ours(key.name.encode("ascii"))
    if isinstance(key, str):
        kind, _, name = key.partition(":")
        if kind in {"header", "cookie"} and _TOKEN.fullmatch(name):
            if kind == "cookie":
                start = name.encode("ascii") + b"="
                return lambda scope: _text(_cookie_of(scope, start))
            wanted = name.lower().encode("ascii")
            return lambda scope: _header_of(scope, wanted)
    elif callable(key):
        return key
    allowed = "'header:NAME', 'cookie:NAME', CanaryCookie(), a function of the scope, or None"
    check.problem("key", key, allowed, "an argument has no name here" if isinstance(key, str) else "")
    return None


def _header_of(scope: Scope, name: bytes) -> str | None:
    for header, value in scope["headers"]:
        if header == name:
            return _text(value)
    return None


def _text(value: bytes | None) -> str | None:
    # An empty one is nobody's.
    return (value if len(value) <= LONGEST else value[:LONGEST]).decode("latin-1") if value else None


class Giving:
    """A ``send`` that gives a cookie with the beginning of the answer."""

    __slots__ = ("_header", "_report", "_send")

    def __init__(self, send: Send, header: tuple[bytes, bytes], report: Callable[[str, Exception], None]) -> None:
        self._send = send
        self._header = header
        self._report = report

    async def send(self, message: Message) -> None:
        """Pass it on."""
        try:
            if message["type"] in _STARTS:
                message = {**message, "headers": [*(message.get("headers") or ()), self._header]}
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._report("giving a cookie", defect)
        await self._send(message)
