"""Files that are replaced in one step, and that are read without trusting whoever else may write there."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_plain", "replace_with"]

_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def replace_with(path: Path, data: bytes) -> None:
    """Put ``data`` there in one step, on the disk. Raises ``OSError`` when that is not possible; then what was there is there still."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def read_plain(path: Path, largest: int) -> bytes:
    """What a file holds. Raises ``FileNotFoundError`` for none, ``ValueError`` or another ``OSError`` for one that must not be used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError as refused:
        if refused.errno == errno.ELOOP:
            raise ValueError("it is a symbolic link") from refused
        raise
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no plain file")
        _check_owner(found)
        if found.st_size > largest:
            raise ValueError(f"it has more than {largest} bytes")
        return file.read(largest + 1)


def _check_owner(found: os.stat_result) -> None:
    """Raise ``ValueError`` for what somebody else could have made up: root reads what is anybody's, others what is theirs."""
    if hasattr(os, "geteuid") and os.geteuid() not in {0, found.st_uid}:
        raise ValueError("it belongs to another user")
    if found.st_mode & 0o022:
        raise ValueError("others may write to it")
