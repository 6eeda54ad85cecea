"""Who is told what happened: plain functions, added and dropped at any time.

An event is built only when somebody listens for its kind, and a listener that raises is reported once and dropped; it never changes an
outcome (trio's ``Instruments`` behave like this; pybreaker's listeners can keep a circuit from ever opening).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from somaresil.events import DefectFound

if TYPE_CHECKING:
    from somaresil.events import Event

__all__ = ["Listener", "Listeners"]

_log = logging.getLogger("somaresil")
_log.addHandler(logging.NullHandler())

Listener = Callable[[Any], object]
"""A function that takes an event. What it returns is not looked at."""


_MOST_PLACES = 256
_ELSEWHERE = "_other"


class _Entry(NamedTuple):
    listener: Listener
    kinds: tuple[type, ...] | None
    last: bool


class Listeners:
    """Who wants to know what. Adding and dropping is rare and takes a lock; asking and telling read one tuple."""

    def __init__(self) -> None:
        """Start with nobody listening."""
        self._lock = threading.RLock()
        self._entries: tuple[_Entry, ...] = ()
        self._wanted: frozenset[type] | None = frozenset()
        self._defects: dict[str, int] = {}
        self._lost: dict[str, bool] = {}

    def add(self, listener: Listener, *kinds: type, last: bool = False) -> Callable[[], None]:
        """Call ``listener`` with every event of ``kinds`` (of every kind when none is named); returns a function that ends it.

        ``last`` puts it behind all that are added later: what such a listener tells in turn follows what it was told.
        """
        entry = _Entry(listener, kinds or None, last)
        with self._lock:
            self._keep(*self._entries, entry)

        def remove() -> None:
            with self._lock:
                self._keep(*(e for e in self._entries if e is not entry))

        return remove

    def wants(self, kind: type) -> bool:
        """Whether anybody listens for this kind: ask before building the event."""
        wanted = self._wanted
        return wanted is None or kind in wanted

    def emit(self, event: Event) -> None:
        """Tell everybody who wants this kind. Call it with no lock held. Never raises an ``Exception``."""
        kind = type(event)
        for entry in self._entries:
            if entry.kinds is None or kind in entry.kinds:
                try:
                    entry.listener(event)
                except Exception as error:  # noqa: BLE001 - a listener never changes an outcome
                    with self._lock:
                        self._keep(*(e for e in self._entries if e is not entry))
                    self.defect(f"listener {_name_of(entry.listener)}", error, getattr(event, "at", 0.0), "it was dropped")

    def _keep(self, *entries: _Entry) -> None:
        """These and no others, from now on. The kinds are gathered here, so that :meth:`wants` is one look; None stands for every kind."""
        named = [entry.kinds for entry in entries]
        self._entries = tuple(sorted(entries, key=lambda entry: entry.last))
        self._wanted = None if None in named else frozenset(kind for kinds in named if kinds is not None for kind in kinds)

    def defect(self, where: str, error: BaseException, at: float = 0.0, consequence: str = "the call went on without it") -> None:
        """Report something that raised where nothing may raise: once for each place, in the log and as an event."""
        with self._lock:
            # Bounded by the number of places in the code; hooks of users are named by qualified name, and 256 is plenty.
            if where in self._defects:
                self._defects[where] += 1
                return
            if len(self._defects) >= _MOST_PLACES:
                self._defects[_ELSEWHERE] = self._defects.get(_ELSEWHERE, 0) + 1
                return
            self._defects[where] = 1
        _log.error("%s raised %s; %s", where, type(error).__qualname__, consequence, exc_info=error)
        if self.wants(DefectFound):
            self.emit(DefectFound(where, at, type(error).__qualname__))

    def defects(self) -> dict[str, int]:
        """How often something raised where nothing may raise, by the place; what more than 256 places did is under ``_other``."""
        with self._lock:
            return dict(self._defects)

    def lost(self, backend: str) -> None:
        """Note that a backend of shared state cannot be reached; whoever notices tells :class:`SharedStateLost` too, once."""
        with self._lock:
            self._lost[backend] = True

    def reached(self, backend: str) -> None:
        """Note that it can be. Cheap when nobody has lost it."""
        if self._lost.get(backend):
            with self._lock:
                self._lost[backend] = False

    def lost_backends(self) -> dict[str, bool]:
        """Backends that were lost once, and whether they still are."""
        with self._lock:
            return dict(self._lost)


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
