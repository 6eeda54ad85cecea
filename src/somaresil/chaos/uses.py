"""How often a request plan was used on this host, whichever process it came to: four workers take a single use once, and not four times.

Each plan has a file in a folder beside the kill switch of the host, with one byte for each use. To append is atomic, and where the byte
went says which use it was: no lock, nothing to wait for, nothing that a process which is killed could leave behind. A file lives as long
as any plan may, from its last use on. Without a switch of the host (``SOMARESIL_CHAOS_SWITCH=off``, or a platform without one) each
process counts for itself.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.chaos.killswitch import SAFELY, check_file, check_folder
from somaresil.chaos.token import LONGEST, PlanRefused

if TYPE_CHECKING:
    from somaresil.chaos.killswitch import HostSwitch

__all__ = ["HostUses"]

_SWEEP_EVERY: Final = 60.0
_LEEWAY: Final = 600.0
"""Seconds for which a file is kept beyond the longest plan: clocks are set."""
MOST: Final = 10_000
"""Files in the folder. Who can have more signed plans made in a day than that has the keys."""


class HostUses:
    """The uses of the plans of one service on this host. Safe to use from any thread and after a fork."""

    def __init__(self, switch: HostSwitch) -> None:
        """Nothing is made."""
        self.switch = switch
        # The last place is the one that all processes of a user have, whatever variables they were given.
        path = switch.paths[-1]
        self.folder = path.with_name(f"{path.name}.uses")
        self._lock = threading.RLock()
        self._swept = float("-inf")
        self._files = 0

    def use(self, nonce: str, most: int, now: float) -> int:
        """Count one use at wall time ``now``, and give its number, from 1.

        Raises :class:`PlanRefused` (``replayed``) after ``most`` uses, (``crowded``) when that cannot be written down: who cannot count
        uses takes none.
        """
        try:
            self._ready(now)
            return self._used(self.folder / blake2b(nonce.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(), most)
        except OSError:
            raise PlanRefused("crowded") from None

    def _used(self, path: Path, most: int) -> int:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | SAFELY)
        except FileNotFoundError:
            if self._files >= MOST:
                raise PlanRefused("crowded") from None
            self._files += 1
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFELY, 0o600)
        try:
            found = os.fstat(descriptor)
            check_file(found, path)
            # Looked at first, so that whoever comes a million times makes no file of a million bytes.
            if found.st_size >= most:
                raise PlanRefused("replayed")
            os.write(descriptor, b".")
            number = os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)
        if number > most:
            raise PlanRefused("replayed")
        return number

    def _ready(self, now: float) -> None:
        """See to it that the folder is there and ours, and clear away what no plan can come back to."""
        with self._lock:
            # A clock that was set back must not keep it from being done for years.
            if 0.0 <= now - self._swept < _SWEEP_EVERY:
                return
            self._swept = now
            for folder in (self.folder.parent, self.folder):
                with suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                check_folder(folder)
            files = 0
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_mtime + LONGEST + _LEEWAY < now:
                            Path(entry.path).unlink()
                        else:
                            files += 1
            self._files = files
