"""Where new connections of Python pass: patched only while a partition is armed, and put back without taking anybody else's patch away.

All of Python ends in ``socket.socket.connect`` or ``connect_ex``: blocking clients, asyncio, trio, ``ssl``. uvloop has a way of its
own. C libraries (libpq, gRPC) pass nothing here.

A patch that others have wrapped meanwhile cannot be taken out of their chain. It stays where it is, does nothing, and is used again the
next time if it still fires (setting the attribute back would drop the others: measured with tracing that was installed later).
"""

from __future__ import annotations

import _socket
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.network.board import LOCK
from somaresil.chaos.network.names import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "LOOKUPS",
    "PROBE",
    "Fired",
    "HookLostError",
    "Lookups",
    "Patch",
    "connect_patches",
    "remember_names",
    "socket_class",
    "uvloop_patches",
]


class Fired(BaseException):
    """A hook has seen the probe. No ``Exception``: whoever lies between must not take it for an error of a connection."""


class HookLostError(RuntimeError):
    """A hook was put in place and does not fire, so nothing would be struck."""


class _Probe(tuple[Any, ...]):
    """An address that no hook lets through: nowhere, so that what fails to see it is refused at once."""

    __slots__ = ()


PROBE: Final = _Probe(("127.0.0.1", 0))
_ABSENT: Final = object()


class _Cell:
    """Whether one patch does something."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = True


class Patch:
    """One attribute of a class or module that is replaced for a time."""

    def __init__(
        self, owner: Any, name: str, make: Callable[[Callable[..., Any], _Cell], Callable[..., Any]], trial: Callable[[], object]
    ) -> None:
        """``make`` makes the replacement from what was there; ``trial`` calls the attribute with :data:`PROBE`."""
        self._owner = owner
        self._name = name
        self._make = make
        self._trial = trial
        self._cell = _Cell()
        self._ours: Callable[..., Any] | None = None
        self._before: Any = _ABSENT

    @property
    def installed(self) -> bool:
        """Whether it is meant to fire."""
        return self._ours is not None and self._cell.on

    def install(self) -> None:
        """Put it in place, unless it is. Raises :class:`HookLostError` when it does not fire, and has changed nothing then."""
        with LOCK:
            if self._ours is not None:
                self._cell.on = True
                if self.fires():
                    return
                self._cell.on = False
            self._cell = _Cell()
            self._before = vars(self._owner).get(self._name, _ABSENT)
            self._ours = self._make(getattr(self._owner, self._name), self._cell)
            setattr(self._owner, self._name, self._ours)
            if not self.fires():
                self.remove()
                raise HookLostError(f"the hook on {self._owner.__name__}.{self._name} does not fire")

    def remove(self) -> None:
        """Put back what was there; below a patch of somebody else it stays, and does nothing."""
        with LOCK:
            self._cell.on = False
            if self._ours is None or vars(self._owner).get(self._name) is not self._ours:
                return
            if self._before is _ABSENT:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._before)
            self._ours, self._before = None, _ABSENT

    def fires(self) -> bool:
        """Whether a call of the attribute comes by."""
        try:
            self._trial()
        except Fired:
            return True
        except Exception:  # noqa: BLE001 - whoever stands before it has refused the probe
            return False
        return False


def socket_class() -> Any:
    """The class that all sockets come from, whatever ``socket.socket`` is by now (pytest-socket puts a class of its own there)."""
    return next(kind for kind in socket.socket.__mro__ if _socket.socket in kind.__bases__)


def connect_patches(judge: Callable[[Any, Any], Any]) -> list[Patch]:
    """Patches of ``connect`` and ``connect_ex``. ``judge`` is given socket and address, and gives the address to connect to, or raises."""

    def connecting(previous: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
        def connect(self: Any, address: Any, /) -> Any:
            if cell.on:
                if address is PROBE:
                    raise Fired
                address = judge(self, address)
            return previous(self, address)

        return connect

    def trying(previous: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
        def connect_ex(self: Any, address: Any, /) -> Any:
            if cell.on:
                if address is PROBE:
                    raise Fired
                try:
                    address = judge(self, address)
                except ConnectionRefusedError as refused:
                    return refused.errno
            return previous(self, address)

        return connect_ex

    owner = socket_class()
    return [
        Patch(owner, "connect", connecting, lambda: _try(owner, "connect")),
        Patch(owner, "connect_ex", trying, lambda: _try(owner, "connect_ex")),
    ]


def _try(owner: Any, name: str) -> None:
    # A socket that was never opened: a process that is out of descriptors must not seem to be out of hooks.
    getattr(owner.__new__(owner), name)(PROBE)


def uvloop_patches(through: Callable[..., Any]) -> list[Patch]:
    """Patches of the loop of uvloop, if somebody has imported it. ``through(previous, loop, factory, host, port, options)`` connects."""
    loops = getattr(sys.modules.get("uvloop"), "Loop", None)
    if loops is None:
        return []

    def connecting(previous: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
        def create_connection(self: Any, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            if cell.on:
                if protocol_factory is PROBE:
                    raise Fired
                if host is not None and options.get("sock") is None:
                    return through(previous, self, protocol_factory, host, port, options)
            return previous(self, protocol_factory, host, port, **options)

        return create_connection

    def looking_up(previous: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
        def getaddrinfo(self: Any, host: Any, port: Any, **options: Any) -> Any:
            if cell.on and host is PROBE:
                raise Fired
            found = previous(self, host, port, **options)
            return _learning(host, found) if cell.on else found

        return getaddrinfo

    return [
        Patch(loops, "create_connection", connecting, lambda: loops.create_connection(None, PROBE)),
        Patch(loops, "getaddrinfo", looking_up, lambda: loops.getaddrinfo(None, PROBE, 0)),
    ]


async def _learning(host: Any, found: Any) -> Any:
    infos = await found
    _learn(host, infos)
    return infos


def _learn(host: Any, infos: Sequence[Any]) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if isinstance(name, str) and name:
        NAMES.learn(name, [info[4][0] for info in infos if info[0] in {socket.AF_INET, socket.AF_INET6}])


class Lookups:
    """The patch of ``socket.getaddrinfo``: in place while somebody needs to know names. asyncio and trio look names up by it too."""

    def __init__(self) -> None:
        """Not in place."""
        self._users = 0
        self._patch = Patch(socket, "getaddrinfo", _looking_up, lambda: socket.getaddrinfo(PROBE, 0))  # type: ignore[arg-type]

    def hold(self) -> None:
        """Have names learnt until :meth:`release` is called as often. Raises :class:`HookLostError`."""
        with LOCK:
            self._patch.install()
            self._users += 1

    def release(self) -> None:
        """Learn no more when nobody else needs it, and forget."""
        with LOCK:
            self._users -= 1
            if not self._users:
                self._patch.remove()
                NAMES.forget()

    def keep(self) -> None:
        """Have names learnt for good."""
        with LOCK:
            if not getattr(self, "_kept", False):
                self._kept = True
                self.hold()

    @property
    def held(self) -> bool:
        """Whether names are learnt."""
        return self._users > 0

    def check(self) -> None:
        """See that it fires, and put it in place again where somebody has taken it away."""
        with LOCK:
            if self._users:
                self._patch.install()


def _looking_up(previous: Callable[..., Any], cell: _Cell) -> Callable[..., Any]:
    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002 - the name of the original
        if cell.on and host is PROBE:
            raise Fired
        found = previous(host, port, family, type, proto, flags)
        if cell.on:
            _learn(host, found)
        return found

    return getaddrinfo


LOOKUPS: Final = Lookups()


def remember_names() -> None:
    """Learn names from now on, and not only while a partition by name is armed. Call it at the start of a service, once or more often.

    Without it a *pattern* over names (``*.internal``) cannot reach connections that were opened before the partition. It costs each
    lookup of a name some microseconds.
    """
    LOOKUPS.keep()
