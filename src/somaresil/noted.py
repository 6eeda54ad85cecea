"""What happened without anybody being hurt by it, counted, so that it shows: headers that could not be read, rules that were not kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Noted"]

_MOST: Final = 32


class Noted:
    """How often each of a few things happened. Names come from the code, never from a request."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}

    def note(self, what: str) -> None:
        """It happened once more."""
        with self._lock:
            if what in self._counts or len(self._counts) < _MOST:
                self._counts[what] = self._counts.get(what, 0) + 1

    def counts(self) -> Mapping[str, int]:
        """How often, by name."""
        with self._lock:
            return dict(self._counts)
