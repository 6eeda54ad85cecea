"""Tokens that show that a page of ours was read by whoever sends a request from it.

A token is for one person at one service, for some hours, and needs no memory: a time, and an HMAC over it and both names. All workers of
a service must share the secret, for a page is given its token by one of them and sends it to another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from somaresil.safefile import read_plain

if TYPE_CHECKING:
    from pathlib import Path

    from somaresil.typing import Clock

__all__ = ["SHORTEST_SECRET", "Tokens"]

SHORTEST_SECRET: Final = 32
_LIFE: Final = 12 * 3600.0
_LONGEST_TOKEN: Final = 120
_KEY_FILE: Final = "csrf.key"
_KEY_BYTES: Final = 32


class Tokens:
    """Gives them and knows them."""

    def __init__(self, service: str, clock: Clock, *, secret: str | None = None, folder: Path | None = None) -> None:
        """``secret`` None: one that is kept in the ``folder`` of the workers, or without a folder one that this process has alone."""
        self._service = service
        self._clock = clock
        self._folder = folder
        self._lock = threading.Lock()
        self._key = None if secret is None else hashlib.sha256(b"somaresil dashboard\0" + secret.encode()).digest()

    def give(self, name: str) -> str:
        """A token for somebody. Raises ``OSError`` or ``ValueError`` when the folder cannot be used."""
        until = str(int(self._clock.time() + _LIFE))
        return f"{until}.{self._sign(until, name)}"

    def knows(self, token: str | None, name: str) -> bool:
        """Whether it was given to somebody of that name, not too long ago. Raises as :meth:`give` does."""
        until, _, signature = (token or "").partition(".")
        if len(token or "") > _LONGEST_TOKEN or not until.isascii() or not until.isdigit():
            return False
        good = hmac.compare_digest(self._sign(until, name).encode(), signature.encode("utf-8", "replace"))
        return good and self._clock.time() < int(until)

    def _sign(self, until: str, name: str) -> str:
        digest = hmac.digest(self._secret(), f"{self._service}\0{until}\0{name}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _secret(self) -> bytes:
        if self._key is None:
            with self._lock:
                if self._key is None:
                    self._key = secrets.token_bytes(_KEY_BYTES) if self._folder is None else _shared(self._folder)
        return self._key


def _shared(folder: Path) -> bytes:
    """The secret in the folder. The first worker makes it, in one step, so that nobody reads a half of it."""
    path = folder / _KEY_FILE
    folder.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        draft = folder / f".{_KEY_FILE}.{os.getpid()}"
        with suppress(FileNotFoundError):
            draft.unlink()
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    found = read_plain(path, _KEY_BYTES)
    if len(found) != _KEY_BYTES:
        raise ValueError(f"{path} holds no secret of {_KEY_BYTES} bytes; remove it, and another one is made")
    return found
