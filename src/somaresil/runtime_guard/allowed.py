"""What a list allows: programs, peers, folders, native code. Each is made once and asked often."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.targets import NetTarget, address_of, plain_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PYTHON", "Folders", "Native", "Peers", "Programs", "place_of"]

PYTHON: Final = "python"
"""In lists of programs the interpreter that runs this, in lists of native code what belongs to it and to the packages it imports."""
_HARMLESS: Final = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/stdin", "/dev/stdout", "/dev/stderr"})
"""Where nothing is kept."""
_OWN_PORTS: Final = ("/dev/pts/", "/dev/fd/", "/proc/self/fd/")
_ANY_PORT: Final = -1


class Programs:
    """Programs that may be started, by the file that runs in the end."""

    __slots__ = ("files",)

    def __init__(self, listed: Iterable[str]) -> None:
        """Names are looked up in ``PATH`` now: what is put there later is another program. What is not there is allowed nowhere."""
        self.files = frozenset(file for name in listed if (file := self._file(name)) is not None)

    @staticmethod
    def _file(name: str, path: str | None = None) -> str | None:
        if name == PYTHON and sys.executable:
            return os.path.realpath(sys.executable)
        found = name if os.sep in name else shutil.which(name, path=path)
        return None if found is None else os.path.realpath(found)

    def allow(self, program: str, path: str | None) -> bool:
        """Whether this program may be started; ``path``: the ``PATH`` in which it will be looked for."""
        found = program if os.sep in program else shutil.which(program, path=path)
        # What cannot be found will not run; whoever starts it is told so by the system.
        return found is None or os.path.realpath(found) in self.files


class Peers:
    """Hosts that may be spoken to. Loopback always may: it is this machine."""

    __slots__ = ("_targets", "by_name")

    def __init__(self, targets: Sequence[NetTarget]) -> None:
        self._targets = tuple(targets)
        self.by_name = any(target.by_name for target in targets)
        """Whether names have to be known to tell."""

    def allow(self, host: str, port: int | None) -> bool:
        """Whether this name may be looked up, or this address be connected to; None: the port is not known yet."""
        address = address_of(host)
        if address is not None and address.is_loopback:
            return True
        name = plain_host(host)
        if address is None and (not name or name == "localhost" or name.endswith(".localhost")):
            return True
        names = (name,) if address is None else NAMES.of(address)
        return any(target.matches(address, names, target.low if port is None else port) for target in self._targets)


class Folders:
    """Folders in and below which something may be written."""

    __slots__ = ("_roots",)

    def __init__(self, roots: Iterable[str]) -> None:
        """Links in the roots themselves are followed now."""
        self._roots = tuple(sorted({os.path.realpath(root) for root in roots}))

    def allow(self, path: str) -> bool:
        """Whether this file, links on the way already followed, is in one of them."""
        return path in _HARMLESS or path.startswith(_OWN_PORTS) or any(_within(path, root) for root in self._roots)


class Native:
    """Libraries that may be loaded: from folders, or by a name that the system's linker looks up."""

    __slots__ = ("_folders", "_names")

    def __init__(self, listed: Iterable[str]) -> None:
        """Whatever has no slash in it is a name or a shell-style pattern over names; ``python`` is what belongs to this interpreter."""
        roots, names = [], []
        for entry in listed:
            if entry == PYTHON:
                roots += _of_python()
            elif os.sep in entry:
                roots.append(entry)
            else:
                names.append(entry)
        self._folders = tuple(sorted({os.path.realpath(root) for root in roots}))
        self._names = tuple(names)

    def allow(self, library: str) -> bool:
        """Whether this file or name may be loaded."""
        if os.sep not in library:
            return any(fnmatchcase(library, name) for name in self._names)
        path = os.path.realpath(library)
        return any(_within(path, root) for root in self._folders)


def _of_python() -> list[str]:
    """Folders of this interpreter and of what is installed for it, and where Python looked for modules when this was asked."""
    paths = sysconfig.get_paths()
    known = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths]
    return [*known, sys.prefix, sys.base_prefix]


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


def place_of(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], folder: int | None = None, *, follow: bool = True) -> str:
    """The file that is meant in the end.

    ``folder``: the descriptor of the folder that a relative path begins at. ``follow``: also when its last part is a link.
    """
    text = os.fsdecode(path)
    if folder is not None and folder >= 0 and not text.startswith(os.sep):
        text = f"{os.path.realpath(f'/proc/self/fd/{folder}')}{os.sep}{text}"
    parent, name = os.path.split(text.rstrip(os.sep))
    if follow or name in {"", ".", ".."}:
        return os.path.realpath(text)
    return f"{os.path.realpath(parent).rstrip(os.sep)}{os.sep}{name}"
