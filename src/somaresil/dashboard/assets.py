"""The files of the page: read once from the package, served from memory, known by name.

The names are a table, so no path leads out of it. Each file has a strong ETag, the digest of what is in it, and where that is smaller a
compressed twin with an ETag of its own. Nobody may ask for a part of one: files are small, and reading ranges has brought servers down.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.mounted.wire import Answer

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from somaresil.mounted.request import Request

__all__ = ["PAGE", "Assets", "takes_gzip"]

PAGE: Final = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
            b"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""What the page may do: run its own scripts, which make no markup of text, ask its own site, and be shown in no frame."""

_KEPT: Final = (b"cache-control", b"private, no-cache")
"""Browsers keep a file, and ask each time whether it is still the same; nobody else keeps it."""
_TYPES: Final = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".md": b"text/plain; charset=utf-8",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
"""Files of other kinds are not served."""
_DEEPEST: Final = 4
_SMALLEST: Final = 256
"""Bytes below which compressing gains nothing."""


class _Asset(NamedTuple):
    media: bytes
    body: bytes
    tag: str
    packed: bytes | None
    packed_tag: str


class Assets:
    """The files in one folder and those below it, by name: ``app.js``, ``views/overview.js``."""

    def __init__(self, folder: Traversable | None = None) -> None:
        """Read them all; None: those of the package."""
        self._known: dict[str, _Asset] = {}
        self._read(files("somaresil.dashboard").joinpath("static") if folder is None else folder, "", _DEEPEST)

    @property
    def names(self) -> tuple[str, ...]:
        """What there is."""
        return tuple(sorted(self._known))

    def answer(self, name: str, request: Request) -> Answer | None:
        """The file, or that it has not changed; None: there is none of that name."""
        asset = self._known.get(name)
        if asset is None:
            return None
        packs = asset.packed is not None and takes_gzip(request)
        tag = asset.packed_tag if packs else asset.tag
        headers = [(b"etag", tag.encode()), _KEPT, (b"vary", b"accept-encoding")]
        if _has(request.header("if-none-match"), tag):
            return Answer(304, headers=headers, safe=PAGE)
        if packs:
            headers.append((b"content-encoding", b"gzip"))
        return Answer(200, asset.packed if packs else asset.body, headers=headers, media=asset.media, safe=PAGE)

    def _read(self, folder: Traversable, before: str, left: int) -> None:
        if not folder.is_dir() or not left:
            return
        for found in folder.iterdir():
            name = f"{before}{found.name}"
            if found.is_dir():
                self._read(found, f"{name}/", left - 1)
                continue
            media = _TYPES.get(name[name.rfind(".") :])
            if media is not None:
                self._known[name] = _asset(media, found.read_bytes())


def _asset(media: bytes, body: bytes) -> _Asset:
    digest = hashlib.sha256(body).hexdigest()[:32]
    # Without a time stamp, so that the same file is the same everywhere.
    packed = gzip.compress(body, 9, mtime=0) if len(body) >= _SMALLEST else body
    smaller = len(packed) < len(body)
    return _Asset(media, body, f'"{digest}"', packed if smaller else None, f'"{digest}-gzip"')


def takes_gzip(request: Request) -> bool:
    """Whether an answer may be compressed: gzip is named, and not with a weight of nothing."""
    for part in (request.header("accept-encoding") or "").split(","):
        name, _, weight = part.partition(";")
        if name.strip().lower() == "gzip":
            return weight.replace(" ", "").rstrip("0") not in {"q=", "q=0."}
    return False


def _has(given: str | None, tag: str) -> bool:
    """Whether the client has what ``tag`` stands for (RFC 9110, section 13.1.2: weak and strong ones compare equal)."""
    return given is not None and any(each.strip().removeprefix("W/") in {tag, "*"} for each in given.split(","))
