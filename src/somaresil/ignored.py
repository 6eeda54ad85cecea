"""Headers that were not understood: ignored, so that nobody is hurt by what somebody else sends, and counted, so that it shows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Ignored"]

_MOST: Final = 32


class Ignored:
    """How often each header was ignored. Names come from the code, never from a request."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}

    def note(self, header: str) -> None:
        """``header`` had a value that cannot be read."""
        with self._lock:
            if header in self._counts or len(self._counts) < _MOST:
                self._counts[header] = self._counts.get(header, 0) + 1

    def counts(self) -> Mapping[str, int]:
        """How often, by header."""
        with self._lock:
            return dict(self._counts)
