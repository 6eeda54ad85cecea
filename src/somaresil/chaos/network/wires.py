"""All partitions of this process together: which of them a connection meets, and what is done to it.

New connections of Python are struck where they are made. Those that exist, and those that C libraries make, are found among the descriptors
of the process: once when a partition begins, and again every now and then while it lasts, by one thread that ends with the last partition.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.network import filters, sockets
from somaresil.chaos.network.board import BOARD, LOCK
from somaresil.chaos.network.cut import BLACKHOLE, Cut, telling
from somaresil.chaos.network.hooks import LOOKUPS, HookLostError, Patch, connect_patches, uvloop_patches
from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.sink import Sink
from somaresil.chaos.network.targets import address_of, plain_host

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable, Sequence

    from somaresil.chaos.network.targets import Address

__all__ = ["WIRES", "Wires"]

_SHORTEST: Final = 0.001
"""Seconds between two looks for connections that nobody has told of, at least."""
_SHARE: Final = 20.0
"""Each kind of look, at what is new and at everything, takes at most one part in so many of the time."""
_ALL_AGAIN: Final = 0.25
"""Seconds after which all connections are looked at again, though none is new."""
_LOOKUP: Final = 0.25
"""Seconds for which the beginning of a partition waits for the addresses of its name; what exists is struck when they are known."""


class _Found:
    """What a connection meets."""

    __slots__ = ("loss", "struck")

    def __init__(self) -> None:
        self.struck: Cut | None = None
        self.loss: list[Cut] = []


class Wires:
    """The process, as far as partitions are concerned. There is one."""

    def __init__(self) -> None:
        """Nothing armed, nothing patched, no thread."""
        self._patches = connect_patches(self._connecting)
        self._uvloop: list[Patch] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._listening: frozenset[int] = frozenset()
        self._sees = False
        """Whether connections that exist can be found; where not, nobody forgets what is noted about them."""
        self._lost: dict[int, dict[Cut, float]] = {}
        """Sockets with a filter of ours, by inode, and which partitions want how much lost."""

    # -- beginning and end --------------------------------------------------------------------------------------------------------------

    def add(self, cut: Cut) -> Callable[[], None]:
        """Begin a partition, and give what ends it. Raises ``OSError`` or :class:`HookLostError`, and leaves nothing behind then."""
        cut.sink = Sink() if cut.mode == BLACKHOLE else None
        try:
            with LOCK:
                if cut.target.by_name:
                    LOOKUPS.hold()
                try:
                    self._install()
                except BaseException:
                    self._leave(cut)
                    raise
                self._refresh_listening()
                BOARD.cuts = (*BOARD.cuts, cut)
        except BaseException:
            if cut.sink is not None:
                cut.sink.close()
            raise
        try:
            self._strike_existing(cut)
            self._start_looking()
        except BaseException:
            self.remove(cut)
            raise
        return lambda: self.remove(cut)

    def remove(self, cut: Cut) -> None:
        """End a partition: from any thread, once or more often."""
        with LOCK:
            if cut not in BOARD.cuts:
                return
            BOARD.cuts = tuple(other for other in BOARD.cuts if other is not cut)
            self._leave(cut)
            if not BOARD.cuts:
                self._stop.set()
            if cut.sink is not None:
                cut.sink.close()
            if cut.pid != os.getpid():
                # The sockets of a fork are those of its parent, whose partition goes on.
                self._lost.clear()
                self._stop, self._thread = threading.Event(), None
                return
            healed = [inode for inode, wants in self._lost.items() if wants.pop(cut, None) is not None]
        if healed:
            self._heal(frozenset(healed))

    def _install(self) -> None:
        for patch in self._patches:
            patch.install()
        if not self._uvloop:
            self._uvloop = uvloop_patches(self._through_uvloop)
        for patch in self._uvloop:
            patch.install()

    def _leave(self, cut: Cut) -> None:
        """Take away what no other partition needs."""
        if cut.target.by_name:
            LOOKUPS.release()
        if not BOARD.cuts:
            for patch in (*self._patches, *self._uvloop):
                patch.remove()

    def _strike_existing(self, cut: Cut) -> None:
        name = cut.target.exact_name
        if name is None:
            self.look([cut])
            return
        # A name server that does not answer must hold nobody up, least of all an event loop.
        known = threading.Event()
        threading.Thread(target=self._look_up, args=(cut, name, known), name="somaresil-partition-names", daemon=True).start()
        known.wait(_LOOKUP)

    def _look_up(self, cut: Cut, name: str, known: threading.Event) -> None:
        try:
            with suppress(OSError, UnicodeError):
                # The hook learns what is found.
                socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            if cut in BOARD.cuts:
                self.look([cut])
        except Exception as defect:  # noqa: BLE001 - nobody is there to catch it
            cut.defect("connections of its name", defect, "connections that were open stay open")
        finally:
            known.set()

    # -- new connections ----------------------------------------------------------------------------------------------------------------

    def _connecting(self, sock: _socket.socket, address: Any) -> Any:
        """Where this socket is to connect. Raises ``ConnectionRefusedError`` when it is struck so."""
        cuts = BOARD.cuts
        if not cuts or telling():
            return address
        if type(address) is _Decided:
            return tuple(address)
        try:
            if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6}:
                return address
            host, port = address[0], address[1]
            literal = address_of(host)
            names, addresses = (NAMES.of(literal), [literal]) if literal is not None else ((plain_host(host),), _resolved(cuts, host, port))
            found = self._meet(cuts, addresses, names, port)
            if found.struck is None:
                self._note(cuts, sock.fileno())
                for cut in found.loss:
                    self._lose(sock.fileno(), cut)
                return address
            sink = found.struck.sink
            if sink is not None:
                return sink.place(sock)
        except Exception as defect:  # noqa: BLE001 - the engine fails open
            cuts[0].defect("a new connection", defect)
            return address
        raise _refused()

    def _through_uvloop(self, previous: Any, loop: Any, factory: Any, host: Any, port: Any, options: dict[str, Any]) -> Any:
        return self._connect_uvloop(previous, loop, factory, host, port, options)

    async def _connect_uvloop(self, previous: Any, loop: Any, factory: Any, host: Any, port: Any, options: dict[str, Any]) -> Any:
        """``create_connection`` of uvloop, which makes its sockets itself."""
        cuts = BOARD.cuts
        found = _Found()
        sock: Any = None
        try:
            if cuts and not telling():
                found = await self._meet_by_name(cuts, loop, host, int(port))
        except (ValueError, TypeError, OSError):
            found = _Found()  # uvloop itself says what is wrong with it
        except Exception as defect:  # noqa: BLE001 - the engine fails open
            cuts[0].defect("a new connection", defect)
        if found.struck is not None:
            sink = found.struck.sink
            if sink is None:
                raise _refused()
            options = _named(options, host)
            host, port = sink.place4()
            options.pop("family", None)
        elif found.loss:
            # The filter has to be there before the first packet, so the socket is ours.
            sock = await self._lossy_socket(loop, host, int(port), found.loss)
        if sock is not None:
            return await previous(loop, factory, None, None, **{**_without_place(_named(options, host)), "sock": sock})
        made = await previous(loop, factory, host, port, **options)
        with suppress(Exception):
            self._note(cuts, made[0].get_extra_info("socket").fileno())
        return made

    async def _meet_by_name(self, cuts: tuple[Cut, ...], loop: Any, host: Any, port: int) -> _Found:
        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        literal = address_of(name)
        if literal is not None:
            return self._meet(cuts, [literal], NAMES.of(literal), port)
        addresses: list[Address] = []
        if any(cut.target.network is not None for cut in cuts):
            infos = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            addresses = _addresses(infos)
        return self._meet(cuts, addresses, (plain_host(name),), port)

    async def _lossy_socket(self, loop: Any, host: Any, port: int, cuts: Iterable[Cut]) -> Any:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = infos[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)  # noqa: FBT003 - the signature of sockets
            self._note(BOARD.cuts, sock.fileno())
            for cut in cuts:
                self._lose(sock.fileno(), cut)
            await loop.sock_connect(sock, _Decided(address))
        except BaseException:
            sock.close()
            raise
        return sock

    def _meet(self, cuts: Iterable[Cut], addresses: Sequence[Address], names: Sequence[str], port: int) -> _Found:
        """What becomes of a new connection: struck by the first partition that takes it, or else lossy by those that do."""
        found = _Found()
        meant = [cut for cut in cuts if cut.matches(addresses, names, port) and not self._spares(cut, addresses, port)]
        for cut in meant:
            if cut.loss is None and cut.takes():
                found.struck = cut
                return found
        found.loss = [cut for cut in meant if cut.loss is not None and cut.takes()]
        return found

    def _spares(self, cut: Cut, addresses: Iterable[Address], port: int) -> bool:
        """Whether this is a port of our own that the target does not name: what probes and controls this process comes in there."""
        if port not in self._listening or (cut.target.exact_port and cut.target.names_loopback):
            return False
        return any(_is_ours(address) for address in addresses)

    def _note(self, cuts: Iterable[Cut], fd: int) -> None:
        """This socket has been decided about."""
        if fd >= 0 and self._sees:
            inode = os.fstat(fd).st_ino
            for cut in cuts:
                cut.seen.add(inode)

    # -- connections that exist -----------------------------------------------------------------------------------------------------------

    def look(self, cuts: Iterable[Cut], *, again: bool = False) -> set[int]:
        """Strike what is connected to where it should not be; ``again``: what was not there when the partition began.

        Returns the sockets that it has looked at, by inode.
        """
        if sockets.unavailable():
            return set()
        chosen = [cut for cut in cuts if cut.run.live]
        self._refresh_listening()
        there = self._judge(sockets.connections(), chosen, late=again)
        self._forget_gone(chosen, there)
        return there

    def _look_at_news(self, cuts: Iterable[Cut], known: set[int]) -> None:
        """The same for connections that no look has decided about."""
        found, ports = sockets.news(known)
        self._listening |= ports
        self._judge(found, [cut for cut in cuts if cut.run.live], late=True)

    def _judge(self, connections: Iterable[sockets.Connection], cuts: Iterable[Cut], *, late: bool) -> set[int]:
        there: set[int] = set()
        for connection in connections:
            there.add(connection.inode)
            if connection.local_port in self._listening or any(
                cut.sink is not None and connection.port in cut.sink.ports for cut in BOARD.cuts
            ):
                # Others have called us, or it waits in a sink.
                continue
            names = NAMES.of(connection.peer)
            for cut in cuts:
                if connection.inode in cut.seen or not cut.matches([connection.peer], names, connection.port):
                    continue
                if not self._spares(cut, [connection.peer], connection.port):
                    cut.seen.add(connection.inode)
                    self._strike(connection, cut, late=late)
        return there

    def _strike(self, connection: sockets.Connection, cut: Cut, *, late: bool) -> None:
        with sockets.held(connection) as fd:
            if fd is None or not cut.takes():
                return
            if late and cut.whole:
                # No hook has seen it: it was open for a moment.
                for witness in BOARD.witnesses:
                    witness(cut, str(connection.peer), connection.port)
            if cut.loss is None:
                sockets.reset(fd)
            else:
                self._lose(fd, cut)

    def _forget_gone(self, cuts: Iterable[Cut], there: set[int]) -> None:
        """Keep what is known of sockets that exist; those that are only connecting are asked for one by one."""
        known = set().union(*(cut.seen for cut in cuts), self._lost)
        gone = known - there
        if gone:
            gone -= {inode for _, inode in sockets.inodes()}
        with LOCK:
            for inode in gone:
                self._lost.pop(inode, None)
                for cut in cuts:
                    cut.seen.discard(inode)

    def passes(self, addresses: Sequence[Address], names: Sequence[str], port: int, inode: int) -> Cut | None:
        """The partition that a connection from this socket goes past though it should be cut off: for whoever looks for leaks."""
        for cut in BOARD.cuts:
            if not (cut.whole and cut.run.live and cut.matches(addresses, names, port)) or self._spares(cut, addresses, port):
                continue
            if cut.loss is None or cut not in self._lost.get(inode, {}):
                return cut
        return None

    # -- filters --------------------------------------------------------------------------------------------------------------------------

    def _lose(self, fd: int, cut: Cut) -> None:
        """Have this socket lose what the partition wants lost. A filter of somebody else is left alone, and the socket with it."""
        inode = os.fstat(fd).st_ino
        with LOCK:
            wants = self._lost.get(inode)
            if wants is None and filters.has_filter(fd):
                return
            wants = {**(wants or {}), cut: cut.loss or 0.0}
            filters.attach(fd, max(wants.values()))
            self._lost[inode] = wants

    def _heal(self, inodes: frozenset[int]) -> None:
        for fd, inode in list(sockets.inodes()):
            if inode not in inodes:
                continue
            with sockets.held_inode(fd, inode) as same, suppress(OSError):
                if same is None:
                    continue
                with LOCK:
                    wants = self._lost.get(inode)
                    if wants:
                        filters.attach(same, max(wants.values()))
                    else:
                        filters.detach(same)
        with LOCK:
            for inode in inodes:
                if not self._lost.get(inode):
                    self._lost.pop(inode, None)

    # -- looking again --------------------------------------------------------------------------------------------------------------------

    def _start_looking(self) -> None:
        with LOCK:
            if BOARD.cuts and (self._thread is None or not self._thread.is_alive() or self._stop.is_set()):
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._look_again, args=(self._stop,), name="somaresil-partition", daemon=True)
                self._thread.start()

    def _look_again(self, stop: threading.Event) -> None:
        pause, due, known, of = _SHORTEST, 0.0, set[int](), (BOARD.cuts, NAMES.news)
        while not stop.wait(pause):
            cuts = BOARD.cuts
            began = time.monotonic()
            try:
                self._check_hooks()
                if not sockets.unavailable():
                    if began < due and of == (cuts, NAMES.news):
                        self._look_at_news(cuts, known)
                    else:
                        # All of them are news to another partition, and when an address has another name.
                        of, known = (cuts, NAMES.news), self.look(cuts, again=True)
                        now = time.monotonic()
                        due, began = now + max(_ALL_AGAIN, _SHARE * (now - began)), now
            except HookLostError as lost:
                for cut in cuts:
                    cut.defect("its hook", lost, "the experiment has failed")
                    cut.run.end("failed")
            except Exception as defect:  # noqa: BLE001 - one bad look must not end the looking
                if cuts:
                    cuts[0].defect("connections that exist", defect, "they were left alone")
            pause = max(_SHORTEST, _SHARE * (time.monotonic() - began))

    def _check_hooks(self) -> None:
        """Hooks that somebody has taken away are put in place again, and uvloop may have been imported meanwhile."""
        with LOCK:
            if BOARD.cuts:
                self._install()
                LOOKUPS.check()

    def _refresh_listening(self) -> None:
        self._sees = not sockets.unavailable()
        if self._sees:
            self._listening = sockets.listening_ports()


class _Decided(tuple[Any, ...]):
    """An address that has been decided about."""

    __slots__ = ()


def _resolved(cuts: Iterable[Cut], host: Any, port: Any) -> list[Address]:
    """The addresses of a name that was given to ``connect`` itself, when somebody has to know them."""
    if not any(cut.target.network is not None for cut in cuts):
        return []
    return _addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _addresses(infos: Iterable[Any]) -> list[Address]:
    return [address for info in infos if (address := address_of(str(info[4][0]))) is not None]


def _is_ours(address: Address) -> bool:
    """Whether an address is one of this machine: only then can something be bound to it."""
    if address.is_loopback:
        return True
    import _socket

    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    trial = _socket.socket(family, socket.SOCK_STREAM)
    try:
        trial.bind((str(address), 0))
    except OSError:
        return False
    finally:
        trial.close()
    return True


def _refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _named(options: dict[str, Any], host: Any) -> dict[str, Any]:
    """Options by which a certificate is still compared with the host that was meant."""
    return {**options, "server_hostname": options.get("server_hostname") or host} if options.get("ssl") else dict(options)


def _without_place(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in options.items() if name not in {"family", "proto", "flags", "local_addr", "happy_eyeballs_delay"}
    }


WIRES: Final = Wires()
"""The wires of this process."""
