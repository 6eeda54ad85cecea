"""The kill switch of a host: a small file that every process of a service looks at while it has an experiment armed.

    python -c "from somaresil.chaos.killswitch import stop_host; stop_host('gateway')"

The file is 128 bytes of text at fixed places, so that a shell can read it and throw it::

    somaresil-switch 1
    stop 00000000000000000000
    lever released
    by (64 characters, padded with spaces)

The 20 digits from byte 24 on are the *stamp*: nanoseconds since the epoch of the last stop. Any other stamp than the one that was there
when an experiment was armed ends it, so a stop that is written twice or read half is a stop all the same. The 8 characters from byte 51 on
are the *lever* (AWS FIS calls it that): ``released``, or ``engaged `` while everything has to be stopped and nothing may start. Whatever
else stands there, or a file that is not ours, starts nothing and stops nothing: new experiments are refused, running ones end by their
leases.

The file is read, not mapped: whoever truncates a file that is mapped kills every process that looks at it (``SIGBUS``).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import quote

from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "OFF",
    "SAFELY",
    "SWITCH_VARIABLE",
    "HostSwitch",
    "Reading",
    "SharedSwitch",
    "check_file",
    "check_folder",
    "disengage_host",
    "engage_host",
    "host_switch",
    "read_host",
    "stop_host",
]

SWITCH_VARIABLE: Final = "SOMARESIL_CHAOS_SWITCH"
"""The environment variable with the path of the file, or ``off``."""
OFF: Final = "off"

_MAGIC: Final = b"somaresil-switch 1\n"
_STAMP: Final = slice(24, 44)
_LEVER: Final = slice(51, 59)
_BY: Final = slice(63, 127)
_SIZE: Final = 128
_RELEASED: Final = b"released"
_ENGAGED: Final = b"engaged "
_NOBODY: Final = b" " * (_BY.stop - _BY.start)
_EMPTY: Final = _MAGIC + b"stop " + b"0" * 20 + b"\nlever " + _RELEASED + b"\nby " + _NOBODY + b"\n"
_LONGEST_FILE: Final = 150
_NO_MORE_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class Reading(NamedTuple):
    """What a switch says."""

    stamp: int = 0
    """Which stop was the last one; another number is another stop."""
    engaged: bool = False
    """Whether the safety lever is engaged."""
    by: str = ""
    """Who moved the lever last, and why."""


class SharedSwitch(Protocol):
    """A kill switch that several processes share."""

    @property
    def where(self) -> str:
        """What to call it: a path, or a server without its password."""
        ...

    def prepare(self) -> None:
        """Called before an experiment is armed. Raises ``OSError`` when it cannot be thrown, and then nothing is armed."""
        ...

    def read(self) -> Reading:
        """What it says. Quick. Raises ``OSError`` when nobody knows."""
        ...

    def throw(self, by: str = "") -> None:
        """Stop everything everywhere. Raises ``OSError`` when that cannot be said."""
        ...

    def move_lever(self, engaged: bool, by: str = "") -> None:  # noqa: FBT001 - a position
        """Engage or release the lever; engaging it stops everything as well. Raises ``OSError``."""
        ...


class HostSwitch:
    """The files of one service. There is one in each place where an operator may look; any of them stops everything.

    Safe from any thread, in signal handlers and after a fork.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Nothing is opened."""
        self._files = tuple(_File(Path(path)) for path in paths)
        self.where = " and ".join(str(file.path) for file in self._files)

    def __repr__(self) -> str:
        """Where it is."""
        return f"<HostSwitch {self.where}>"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, whether they are there or not."""
        return tuple(file.path for file in self._files)

    def prepare(self) -> None:
        """Make the files that are not there, so that nobody else can take their place. Raises ``OSError`` when there is none at the end."""
        self._each(_File.make)

    def read(self) -> Reading:
        """What the files say together. Raises ``OSError`` when one that is there cannot be read, or is not to be trusted."""
        readings = [file.read() for file in self._files]
        engaged = [reading for reading in readings if reading.engaged]
        # Stamps are added: another sum is another stop in one of them.
        return Reading(sum(reading.stamp for reading in readings), bool(engaged), engaged[0].by if engaged else "")

    def throw(self, by: str = "") -> None:  # noqa: ARG002 - who threw it stands in the audit log
        """Stop every experiment of every process that looks at one of the files."""
        stamp = time.time_ns()
        self._each(lambda file: file.write(stamp=stamp))

    def move_lever(self, engaged: bool, by: str = "") -> None:  # noqa: FBT001
        """Engage or release the lever in every file."""
        stamp = time.time_ns() if engaged else None
        self._each(lambda file: file.write(stamp=stamp, engaged=engaged, by=by), all_of_them=not engaged)

    def close(self) -> None:
        """Give the descriptors back; reading opens them again."""
        for file in self._files:
            file.close()

    def _each(self, do: Callable[[_File], object], *, all_of_them: bool = False) -> None:
        """Do it with each file; one is enough, but none that is there may be passed over."""
        done, failed = 0, None
        for file in self._files:
            try:
                do(file)
                done += 1
            except OSError as error:
                failed = error if failed is None or file.path.exists() else failed
        if failed is not None and (not done or all_of_them):
            raise failed


class _File:
    """One file, by its path: it may be deleted and made again at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, int, int] | None = None
        """Descriptor, device and inode. It is kept open: an experiment may have taken all descriptors away."""

    def read(self) -> Reading:
        try:
            found = self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self.close()
            return Reading()
        opened = self._opened
        if opened is None or opened[1:] != (found.st_dev, found.st_ino) or not _is_still(opened):
            self.close()
            try:
                opened = self._open()
            except OSError as error:
                if error.errno not in _NO_MORE_FILES:
                    raise
                # Somebody has put another file here while there are no descriptors to be had: that is said to be a stop, to be sure.
                return Reading(found.st_mtime_ns or 1)
        return _parse(os.pread(opened[0], _SIZE + 1, 0), self.path)

    def write(self, *, stamp: int | None = None, engaged: bool | None = None, by: str = "") -> None:
        """Change what is given and leave the rest alone: two processes may write at once, and neither may undo the other."""
        self.make()
        descriptor = os.open(self.path, os.O_RDWR | SAFELY)
        try:
            check_file(os.fstat(descriptor), self.path)
            text = os.pread(descriptor, _SIZE + 1, 0)
            try:
                before = _parse(text, self.path)
            except OSError:
                if text[: len(_MAGIC)] != _MAGIC[: len(text)]:
                    # It never was one. Whose it is, and what for, is not for us to say.
                    raise
                # Half of one: made whole. Its lever is what it is to be anyway, or nobody can say what it was.
                before = Reading()
                os.pwrite(descriptor, _EMPTY, 0)
                os.ftruncate(descriptor, _SIZE)
            if engaged is not None:
                said = "".join(character if character.isprintable() else " " for character in by).encode("ascii", "replace")
                os.pwrite(descriptor, said[: len(_NOBODY)].ljust(len(_NOBODY)), _BY.start)
                os.pwrite(descriptor, _ENGAGED if engaged else _RELEASED, _LEVER.start)
            if stamp is not None:
                os.pwrite(descriptor, b"%020d" % max(stamp, before.stamp + 1), _STAMP.start)
            if engaged is not None:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make(self) -> None:
        """Make it, whole or not at all."""
        folder = self.path.parent
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        check_folder(folder)
        if self.path.is_symlink() or self.path.exists():
            check_file(self.path.lstat(), self.path)
            return
        draft = folder / f".{self.path.name[:_LONGEST_FILE]}.{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # whatever the umask says: what root has made, others must be able to read
            os.write(descriptor, _EMPTY)
        finally:
            os.close(descriptor)
        try:
            with suppress(FileExistsError):
                os.link(draft, self.path)
        finally:
            draft.unlink()

    def close(self) -> None:
        opened, self._opened = self._opened, None
        # A process may have closed all of its descriptors, and opened something else under our number.
        if opened is not None and _is_still(opened):
            os.close(opened[0])

    def _open(self) -> tuple[int, int, int]:
        check_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_RDONLY | SAFELY)
        try:
            found = os.fstat(descriptor)
            check_file(found, self.path)
        except BaseException:
            os.close(descriptor)
            raise
        opened = descriptor, found.st_dev, found.st_ino
        # A signal handler may have opened it in between.
        self.close()
        self._opened = opened
        return opened


SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


def _is_still(opened: tuple[int, int, int]) -> bool:
    try:
        found = os.fstat(opened[0])
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == opened[1:]


def _parse(text: bytes, path: Path) -> Reading:
    stamp, lever = text[_STAMP], text[_LEVER]
    if len(text) != _SIZE or not text.startswith(_MAGIC) or not stamp.isdigit() or lever not in {_RELEASED, _ENGAGED}:
        raise OSError(errno.EINVAL, "it is not the file of a kill switch, or half of one; stop_host() makes that whole", str(path))
    return Reading(int(stamp), lever == _ENGAGED, text[_BY].decode("ascii", "replace").strip())


def check_file(found: os.stat_result, path: Path) -> None:
    """Raise ``OSError`` when an opened file is no plain one, or others could have made it."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    if found.st_uid not in {os.geteuid(), 0}:
        raise PermissionError(errno.EACCES, "it belongs to somebody else", str(path))
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(errno.EACCES, "others may write to it", str(path))


def check_folder(folder: Path) -> None:
    """Raise ``OSError`` when it is no folder of ours, or others could put files in the place of ours."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "it is no folder", str(folder))
    if found.st_uid not in {os.geteuid(), 0}:
        raise PermissionError(errno.EACCES, "it belongs to somebody else", str(folder))
    if found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(errno.EACCES, "others may write to it", str(folder))


# -- where it is ------------------------------------------------------------------------------------------------------------------------


def host_switch(service: str, path: str | os.PathLike[str] | None = None) -> HostSwitch | None:
    """The switch of a service; None: it is off.

    ``path`` None: what ``SOMARESIL_CHAOS_SWITCH`` says, and without that the usual places of the user, which are
    ``$XDG_RUNTIME_DIR/somaresil`` and ``somaresil-<uid>`` in the folder for temporary files: a service may not have the variables that the
    shell of an operator has. Processes of another user are reached as that user (``sudo -u``), or by a path in a folder of root's. A
    platform without ``pread`` has no switch.
    """
    if not hasattr(os, "pread"):
        return None
    if path is None:
        path = os.environ.get(SWITCH_VARIABLE) or None
    if path is not None:
        return None if str(path).casefold() == OFF else HostSwitch([path])
    name = quote(service, safe="")
    if len(name) > _LONGEST_FILE:
        name = f"{name[:_LONGEST_FILE]}-{blake2b(service.encode(), digest_size=8).hexdigest()}"
    return HostSwitch(folder / f"{name}.switch" for folder in _folders())


def _folders() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    found = [Path(runtime) / "somaresil"] if runtime.startswith("/") and Path(runtime).is_dir() else []
    return [*found, Path(tempfile.gettempdir()) / f"somaresil-{os.geteuid()}"]


def stop_host(service: str, *, path: str | os.PathLike[str] | None = None) -> HostSwitch:
    """End every experiment of every process of ``service`` on this host, within a second, without any of those processes.

    What may be started afterwards may be started again; :func:`engage_host` forbids that too. ``path`` as in
    :func:`host_switch`. Raises :class:`~somaresil.errors.ConfigurationError` when the switch is off, ``OSError`` when it cannot be thrown.
    """
    switch = _there(service, path)
    switch.throw()
    return switch


def engage_host(service: str, by: str = "", *, path: str | os.PathLike[str] | None = None) -> HostSwitch:
    """As :func:`stop_host`, and nothing may start until :func:`disengage_host`: what the file says outlives processes."""
    switch = _there(service, path)
    switch.move_lever(True, by)  # noqa: FBT003 - a position
    return switch


def disengage_host(service: str, by: str = "", *, path: str | os.PathLike[str] | None = None) -> HostSwitch:
    """Let experiments start again. What was stopped stays so."""
    switch = _there(service, path)
    switch.move_lever(False, by)  # noqa: FBT003 - a position
    return switch


def read_host(service: str, *, path: str | os.PathLike[str] | None = None) -> Reading:
    """What the switch of a service says. Raises ``OSError`` when it cannot be read."""
    switch = _there(service, path)
    try:
        return switch.read()
    finally:
        switch.close()


def _there(service: str, path: str | os.PathLike[str] | None) -> HostSwitch:
    check = Checker("switch")
    check.name("service", service)
    switch = host_switch(service, path) if not check.problems else None
    if switch is None and not check.problems:
        check.problem(SWITCH_VARIABLE, OFF, "a path, or nothing", "the kill switch of the host is off here")
    check.finish()
    if switch is None:
        raise OSError(errno.ENOENT, "no switch")
    return switch
