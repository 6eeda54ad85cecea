"""A place on this machine that swallows connections: a listener whose queue is full, so the kernel drops what asks to be let in.

Whoever connects to it waits as for a host that is gone: until his own timeout, in his own way, whether he blocks or polls. Nothing sleeps
and nothing has to be woken. When the sink is closed, those who still wait are refused at their next attempt, a second or more after the
first.
"""

from __future__ import annotations

import _socket
import select
import socket
from contextlib import suppress
from typing import Final

__all__ = ["Sink"]

_FILL: Final = 4
_SETTLED: Final = 0.02


class Sink:
    """One such place, for IPv4 and, where the machine has it, IPv6."""

    def __init__(self) -> None:
        """Open it. Raises ``OSError`` when this kernel lets somebody in although the queue is full."""
        self._sockets: list[_socket.socket] = []
        self.ports: frozenset[int] = frozenset()
        self._places: dict[int, tuple[str, int]] = {}
        try:
            self._open(socket.AF_INET, "127.0.0.1")
            with suppress(OSError):
                self._open(socket.AF_INET6, "::1")
            self._see_that_it_is_full()
        except BaseException:
            self.close()
            raise

    def place(self, sock: _socket.socket) -> tuple[str, int]:
        """Where to connect this socket."""
        if sock.family == socket.AF_INET:
            return self._places[socket.AF_INET]
        found = self._places.get(socket.AF_INET6)
        # Mapped, for a machine without an IPv6 loopback.
        return found if found is not None else ("::ffff:127.0.0.1", self._places[socket.AF_INET][1])

    def place4(self) -> tuple[str, int]:
        """Where whoever makes his own socket is to connect."""
        return self._places[socket.AF_INET]

    def close(self) -> None:
        """Close it, once or more often."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.close()

    def _open(self, family: int, host: str) -> None:
        # Not socket.socket: that may be somebody's own class by now, and our hooks are on it.
        listener = _socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(listener)
        listener.bind((host, 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(_FILL):
            self._knock(family, host, port)
        self._places[family] = (host, port)
        self.ports |= {port}

    def _knock(self, family: int, host: str, port: int) -> _socket.socket:
        knocking = _socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(knocking)
        knocking.setblocking(False)  # noqa: FBT003 - the signature of sockets
        knocking.connect_ex((host, port))
        return knocking

    def _see_that_it_is_full(self) -> None:
        waiting = [self._knock(family, *place) for family, place in self._places.items()]
        poll = select.poll()
        for each in waiting:
            poll.register(each.fileno(), select.POLLOUT)
        if poll.poll(_SETTLED * 1000):
            raise OSError("a full accept queue does not keep connections out on this system")
