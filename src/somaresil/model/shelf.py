"""A bounded store that forgets what was let go longest ago, and never what somebody holds.

A least-recently-used cache forgets by age alone, and what it forgets may be what matters: nopanic's ``keyed`` forgets an open breaker, and
whoever has opened it may call on as if nothing had been. Here an entry is *held* from the moment it is put until it is let go, and only
those that were let go make room.

Pure: not safe to share; whoever owns it holds a lock around each method.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

__all__ = ["Shelf"]

_K = TypeVar("_K", bound="Hashable")
_V = TypeVar("_V")


class Shelf(Generic[_K, _V]):
    """At most ``size`` entries. Every method but :meth:`values` takes a constant time, on average over many calls."""

    __slots__ = ("_held", "_loose", "size")

    def __init__(self, size: int) -> None:
        """Empty."""
        self.size = size
        self._held: dict[_K, _V] = {}
        self._loose: OrderedDict[_K, _V] = OrderedDict()
        """Those that were let go, the longest ago first."""

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._held) + len(self._loose)

    def get(self, key: _K) -> _V | None:
        """The entry of ``key``; None: there is none."""
        found = self._held.get(key)
        return self._loose.get(key) if found is None else found

    def hold(self, key: _K) -> None:
        """Keep the entry of ``key``, if it is there, until it is let go."""
        if key in self._loose:
            self._held[key] = self._loose.pop(key)

    def let_go(self, key: _K) -> None:
        """The entry of ``key``, if it is there, may be forgotten: after all that were let go before it."""
        if key in self._held:
            self._loose[key] = self._held.pop(key)

    def make_room(self, matters: Callable[[_V], bool]) -> bool:
        """Forget entries that were let go until one more fits; False: too many are held.

        An entry that ``matters`` although it was let go is held from now on.
        """
        while len(self) >= self.size and self._loose:
            key, entry = self._loose.popitem(last=False)
            if matters(entry):
                self._held[key] = entry
        return len(self) < self.size

    def put(self, key: _K, entry: _V) -> None:
        """Add an entry, held. Call :meth:`make_room` first."""
        self._held[key] = entry

    def values(self) -> Iterator[_V]:
        """All entries."""
        yield from self._held.values()
        yield from self._loose.values()
