"""Proof that nothing went past a partition: whatever this process connected to, by whatever library.

Three witnesses: the interpreter tells of every connect of Python, also of one that no patch sees (``sys.addaudithook``); the partition
tells of connections that it found open after its beginning and that no hook had seen, which C libraries had made; and at the end the
descriptors of the process are looked through. Partitions of a share of the connections prove nothing and are not looked at.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from somaresil.chaos.network import sockets
from somaresil.chaos.network.board import BOARD, LOCK
from somaresil.chaos.network.cut import telling
from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.targets import address_of, plain_host
from somaresil.chaos.network.wires import WIRES
from somaresil.config import Checker
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from types import TracebackType

    from somaresil.chaos.network.cut import Cut

__all__ = ["Leak", "LeakDetector", "no_leaks"]

_MOST: Final = 1_000


class Leak(NamedTuple):
    """A connection that went past a partition."""

    target: str
    """The target of the partition."""
    host: str
    port: int
    seen: str
    """``connect`` (Python asked for it), ``opened`` (found while the partition lasted) or ``open`` (found at a look)."""


class LeakDetector:
    """Looks on between ``with`` and its end; :attr:`leaks` are what it has seen.

    It sees the partitions of one :class:`~somaresil.resilience.Resilience`, in all threads, and slows every audited event of the process
    down by some tenths of a microsecond, for good: hooks of that kind cannot be taken away. Connections of C libraries are seen on Linux
    alone.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Not looking yet."""
        check = Checker("LeakDetector")
        check.type("resilience", resilience, Resilience, "a Resilience")
        check.finish()
        self._chaos = resilience.chaos
        self._leaks: dict[Leak, None] = {}

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """What went past partitions so far, each once, at most 1,000."""
        return tuple(self._leaks)

    @property
    def problem(self) -> str | None:
        """What to say about them; None: there are none."""
        if not self._leaks:
            return None
        told = "\n".join(f"  {leak.host}:{leak.port} past {leak.target} ({leak.seen})" for leak in self.leaks)
        return f"{len(self.leaks)} connections went past a partition:\n{told}"

    def look(self) -> None:
        """Look through the connections that are open now. Done at the end too."""
        if sockets.unavailable():
            return
        listening = sockets.listening_ports()
        for each in sockets.connections():
            cut = WIRES.passes([each.peer], NAMES.of(each.peer), each.port, each.inode)
            if cut is not None and each.local_port not in listening and not _in_a_sink(each.port):
                self.note(cut, str(each.peer), each.port, "open")

    def note(self, cut: Cut, host: str, port: int, seen: str = "opened") -> None:
        """Add one."""
        if len(self._leaks) < _MOST and any(run is cut.run for run in self._chaos.history):
            self._leaks[Leak(cut.run.config.target_component, host, port, seen)] = None

    def __enter__(self) -> Self:
        _listen()
        with LOCK:
            _detectors.append(self)
            BOARD.witnesses = (*BOARD.witnesses, self.note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, at: TracebackType | None = None
    ) -> None:
        try:
            self.look()
        finally:
            with LOCK:
                _detectors.remove(self)
                BOARD.witnesses = tuple(other for other in BOARD.witnesses if other != self.note)


class no_leaks(LeakDetector):  # noqa: N801 - used as a function, like pytest.raises
    """A :class:`LeakDetector` that raises :class:`AssertionError` at the end of its block when there were leaks."""

    def __exit__(
        self, kind: type[BaseException] | None = None, error: BaseException | None = None, at: TracebackType | None = None
    ) -> None:
        super().__exit__(kind, error, at)
        if error is None and (problem := self.problem) is not None:
            raise AssertionError(problem)


_detectors: list[LeakDetector] = []
_listening = False


def _listen() -> None:
    global _listening  # noqa: PLW0603 - once for the process
    with LOCK:
        if not _listening:
            _listening = True
            sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    """The interpreter tells of everything; what is raised here would be raised there."""
    if event != "socket.connect" or not _detectors or not BOARD.cuts or telling():
        return
    try:
        sock, address = arguments
        if not isinstance(address, tuple) or len(address) < 2:  # noqa: PLR2004 - host and port
            return
        host, port = str(address[0]), int(address[1])
        literal = address_of(host)
        if _in_a_sink(port) and literal is not None and literal.is_loopback:
            return
        names, addresses = ((plain_host(host),), NAMES.addresses(host)) if literal is None else (NAMES.of(literal), [literal])
        cut = WIRES.passes(addresses, names, port, os.fstat(sock.fileno()).st_ino)
        if cut is not None:
            for detector in tuple(_detectors):
                detector.note(cut, host, port, "connect")
    except Exception:  # noqa: BLE001, S110 - who looks on changes nothing
        pass


def _in_a_sink(port: int) -> bool:
    return any(cut.sink is not None and port in cut.sink.ports for cut in BOARD.cuts)
