"""The TCP connections of this process, whoever opened them: Python, uvloop, libpq, gRPC. Linux, and no privilege is needed.

``/proc/self/fd`` lists them. What is done to one is done to a duplicate of its descriptor, after looking at the peer of the duplicate: if
its owner closes it meanwhile and the number is used again, nothing of anybody else's is touched.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.chaos.network.targets import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from somaresil.chaos.network.targets import Address

__all__ = ["Connection", "connections", "held", "held_inode", "inodes", "listening_ports", "news", "reset", "unavailable"]

_FOLDER: Final = "/proc/self/fd"
_LONGEST: Final = 128
_AF_UNSPEC: Final = 0
_MPTCP: Final = 262
_SHORTEST: Final = 4


class Connection(NamedTuple):
    """One connection that is established."""

    fd: int
    inode: int
    """Which socket it is, whatever number it has."""
    peer: Address
    port: int
    local_port: int


def unavailable() -> str:
    """Why connections cannot be found here; empty when they can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no {_FOLDER}"
    try:
        os.listdir(_FOLDER)  # noqa: PTH208 - only whether it can be read
        _libc()
    except (OSError, ImportError, AttributeError) as reason:
        return str(reason)
    return ""


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def listening_ports() -> frozenset[int]:
    """The ports at which this process lets others in."""
    found: set[int] = set()
    for fd, _ in inodes():
        if _option(fd, socket.SO_ACCEPTCONN) == 1:
            place = _name(_libc().getsockname, fd)
            if place is not None:
                found.add(place[1])
    return frozenset(found)


def connections() -> Iterator[Connection]:
    """The connections that are established now, those that others have opened to us too."""
    for fd, _ in inodes():
        found = _connection(fd)
        if found is not None:
            yield found


def news(known: set[int]) -> tuple[list[Connection], frozenset[int]]:
    """The connections that are established now, and the ports that are listened at, by sockets whose inode is not ``known`` yet.

    Those are known from now on, and so are sockets that can never be one. One that is known costs a tenth of what it costs
    :func:`connections`, so this can be asked often.
    """
    found: list[Connection] = []
    ports: set[int] = set()
    for fd, inode in inodes():
        if inode in known:
            continue
        connection = _connection(fd)
        if connection is not None:
            found.append(connection)
        elif _option(fd, socket.SO_ACCEPTCONN) == 1:
            place = _name(_libc().getsockname, fd)
            ports.update(() if place is None else (place[1],))
        elif _is_tcp(fd):
            # It is not connected yet, and may be the next time.
            continue
        known.add(inode)
    return found, frozenset(ports)


@contextmanager
def held(connection: Connection) -> Generator[int | None]:
    """A descriptor of this very connection, whatever becomes of its own; None: it is gone."""
    try:
        fd = os.dup(connection.fd)
    except OSError:
        yield None
        return
    try:
        there = _connection(fd)
        same = there is not None and there[1:] == connection[1:]
        yield fd if same else None
    finally:
        os.close(fd)


@contextmanager
def held_inode(fd: int, inode: int) -> Generator[int | None]:
    """A descriptor of this very socket; None: it is gone."""
    try:
        own = os.dup(fd)
    except OSError:
        yield None
        return
    try:
        yield own if os.fstat(own).st_ino == inode else None
    finally:
        os.close(own)


def inodes() -> Iterator[tuple[int, int]]:
    """Every socket, whatever its state: descriptor and inode."""
    for name in os.listdir(_FOLDER):  # noqa: PTH208 - a path for each descriptor would cost more than all the rest
        fd = int(name)
        try:
            found = os.fstat(fd)
        except OSError:
            continue  # closed meanwhile
        if stat.S_ISSOCK(found.st_mode):
            yield fd, found.st_ino


def reset(fd: int) -> bool:
    """End a connection as a broken one ends: the peer gets a reset, and so does whoever reads or writes here. False: it had ended."""
    nowhere = _AF_UNSPEC.to_bytes(2, sys.byteorder) + bytes(14)
    failed: int = _libc().connect(fd, nowhere, len(nowhere))
    return not failed


def _connection(fd: int) -> Connection | None:
    libc = _libc()
    peer = _name(libc.getpeername, fd)
    if peer is None or peer[0] is None or not _is_tcp(fd):
        return None
    local = _name(libc.getsockname, fd)
    try:
        return Connection(fd, os.fstat(fd).st_ino, peer[0], peer[1], 0 if local is None else local[1])
    except OSError:
        return None


def _is_tcp(fd: int) -> bool:
    return _option(fd, socket.SO_TYPE) == socket.SOCK_STREAM and _option(fd, socket.SO_PROTOCOL) in {socket.IPPROTO_TCP, _MPTCP}


def _option(fd: int, option: int) -> int:
    value, size = ctypes.c_int(-1), ctypes.c_uint(ctypes.sizeof(ctypes.c_int))
    failed = _libc().getsockopt(fd, socket.SOL_SOCKET, option, ctypes.byref(value), ctypes.byref(size))
    return -1 if failed else value.value


def _name(function: Callable[..., int], fd: int) -> tuple[Address, int] | None:
    raw, size = ctypes.create_string_buffer(_LONGEST), ctypes.c_uint(_LONGEST)
    if function(fd, raw, ctypes.byref(size)) or size.value < _SHORTEST:
        return None
    name = raw.raw
    family, port = int.from_bytes(name[:2], sys.byteorder), int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        address = address_of(socket.inet_ntop(socket.AF_INET, name[4:8]))
    elif family == socket.AF_INET6:
        address = address_of(socket.inet_ntop(socket.AF_INET6, name[8:24]))
    else:
        return None
    return None if address is None else (address, port)
