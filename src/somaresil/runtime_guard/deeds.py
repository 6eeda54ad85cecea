"""What audit events of Python ask for, by the rule that they fall under. See the table of audit events in Python's documentation."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.chaos.network.targets import address_of
from somaresil.runtime_guard.allowed import place_of
from somaresil.runtime_guard.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DEEDS", "WRITING", "Deed"]

WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
"""Flags of files that may be changed by who opens them."""
_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_SHELL: Final = "/bin/sh"


class Deed(NamedTuple):
    """Something that is about to be done."""

    rule: Rule
    subject: str
    """The program, host, file or library."""
    port: int | None = None
    """Of a host, where it is known."""
    path: str | None = None
    """Of a program: the ``PATH`` in which it is looked for."""


def _popen(executable: Any, arguments: Any, _: Any, environment: Any) -> Iterator[Deed]:
    program = executable
    if program is None:
        program = arguments if isinstance(arguments, str | bytes | os.PathLike) else arguments[0]
    yield Deed(Rule.PROCESSES, os.fsdecode(program), path=_path(environment))


def _path(environment: Any) -> str | None:
    """The ``PATH`` of what is started; None: that of this process."""
    if not isinstance(environment, dict):
        return None
    found = environment.get("PATH", environment.get(b"PATH"))
    return None if found is None else os.fsdecode(found)


def _system(_: Any) -> Iterator[Deed]:
    yield Deed(Rule.PROCESSES, _SHELL)


def _exec(path: Any, _: Any, environment: Any = None) -> Iterator[Deed]:
    if not isinstance(path, int):
        yield Deed(Rule.PROCESSES, os.fsdecode(path), path=_path(environment))


def _pty(arguments: Any) -> Iterator[Deed]:
    yield Deed(Rule.PROCESSES, os.fsdecode(arguments if isinstance(arguments, str | bytes) else arguments[0]))


def _connect(connection: Any, address: Any) -> Iterator[Deed]:
    # Anything else is of this machine: files of the system, its kernel.
    if getattr(connection, "family", None) not in _INTERNET or not isinstance(address, tuple) or len(address) < 2:  # noqa: PLR2004 - host and port
        return
    host, port = address[0], address[1]
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if isinstance(host, str) and isinstance(port, int):
        yield Deed(Rule.HOSTS, host, port)


def _look_up(host: Any, port: Any = None, *_: Any) -> Iterator[Deed]:
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    # Whoever asks with an address is seen when he connects.
    if isinstance(host, str) and host and address_of(host) is None:
        yield Deed(Rule.HOSTS, host, _port(port))


def _port(port: Any) -> int | None:
    if isinstance(port, str | bytes):
        port = int(port) if port.isdigit() else None
    return port if isinstance(port, int) and port > 0 else None


def _open(path: Any, _: Any, flags: Any) -> Iterator[Deed]:
    # A descriptor was opened before, and looked at then.
    if not isinstance(path, int) and isinstance(flags, int) and flags & WRITING:
        yield Deed(Rule.WRITES, place_of(path))


def _changed(path: Any, *rest: Any) -> Iterator[Deed]:
    if not isinstance(path, int):
        yield Deed(Rule.WRITES, place_of(path, _descriptor(rest)))


def _timed(path: Any, _: Any, __: Any, folder: Any = -1) -> Iterator[Deed]:
    yield from _changed(path, folder)


def _labelled(path: Any, *_: Any) -> Iterator[Deed]:
    yield from _changed(path)


def _entry(path: Any, *rest: Any) -> Iterator[Deed]:
    """A name in a folder comes or goes; what it stands for stays as it is."""
    yield Deed(Rule.WRITES, place_of(path, _descriptor(rest), follow=False))


def _descriptor(rest: tuple[Any, ...]) -> int | None:
    return rest[-1] if rest and isinstance(rest[-1], int) else None


def _truncated(path: Any, _: Any) -> Iterator[Deed]:
    if not isinstance(path, int):
        yield Deed(Rule.WRITES, place_of(path))


def _moved(source: Any, target: Any, from_folder: Any = -1, to_folder: Any = -1) -> Iterator[Deed]:
    yield Deed(Rule.WRITES, place_of(source, from_folder, follow=False))
    yield Deed(Rule.WRITES, place_of(target, to_folder, follow=False))


def _linked(_: Any, target: Any, *folders: Any) -> Iterator[Deed]:
    yield Deed(Rule.WRITES, place_of(target, _descriptor(folders), follow=False))


def _database(database: Any) -> Iterator[Deed]:
    name = os.fsdecode(database) if isinstance(database, str | bytes | os.PathLike) else ""
    if name.startswith("file:"):
        from urllib.parse import parse_qs, unquote, urlsplit

        parts = urlsplit(name)
        options = parse_qs(parts.query)
        name = "" if options.get("mode", [""])[-1] in {"ro", "memory"} or "immutable" in options else unquote(parts.path)
    # Without a name it is in memory, or in a file that is gone before anybody sees it.
    if name and name != ":memory:":
        yield Deed(Rule.WRITES, place_of(name))


def _imported(_: Any, file: Any, *__: Any) -> Iterator[Deed]:
    # Only what is a library has a file here; modules of Python have none yet.
    if isinstance(file, str):
        yield Deed(Rule.NATIVE, file)


def _loaded(library: Any) -> Iterator[Deed]:
    if library:
        yield Deed(Rule.NATIVE, os.fsdecode(library))


DEEDS: Final[dict[str, tuple[Rule, Callable[..., Iterator[Deed]]]]] = {
    "subprocess.Popen": (Rule.PROCESSES, _popen),
    "os.system": (Rule.PROCESSES, _system),
    "os.exec": (Rule.PROCESSES, _exec),
    "os.posix_spawn": (Rule.PROCESSES, _exec),
    "pty.spawn": (Rule.PROCESSES, _pty),
    "socket.connect": (Rule.HOSTS, _connect),
    "socket.sendto": (Rule.HOSTS, _connect),
    "socket.sendmsg": (Rule.HOSTS, _connect),
    "socket.getaddrinfo": (Rule.HOSTS, _look_up),
    "socket.gethostbyname": (Rule.HOSTS, _look_up),
    "open": (Rule.WRITES, _open),
    "os.truncate": (Rule.WRITES, _truncated),
    "os.rename": (Rule.WRITES, _moved),
    "os.link": (Rule.WRITES, _linked),
    "os.symlink": (Rule.WRITES, _linked),
    "os.remove": (Rule.WRITES, _entry),
    "os.rmdir": (Rule.WRITES, _entry),
    "os.mkdir": (Rule.WRITES, _entry),
    "os.chmod": (Rule.WRITES, _changed),
    "os.chown": (Rule.WRITES, _changed),
    "os.utime": (Rule.WRITES, _timed),
    "os.setxattr": (Rule.WRITES, _labelled),
    "os.removexattr": (Rule.WRITES, _labelled),
    "sqlite3.connect": (Rule.WRITES, _database),
    "import": (Rule.NATIVE, _imported),
    "ctypes.dlopen": (Rule.NATIVE, _loaded),
}
"""By the name of the audit event: its rule, and what its arguments say."""
