"""What a call looks at before and after: one flag, one era, one time. Nothing else is read while nothing is wrong.

``quiet`` is true while nobody has a reason to look at the call: breaker closed, nothing armed, no limit that needs a say. Each part of a
guard holds it down under its own name and lets go again, so nobody has to know the others.
"""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["Switch"]

_NOBODY: Final[frozenset[str]] = frozenset()
"""The reasons of every quiet guard: an empty set of its own would take 216 bytes in each."""


class Switch:
    """The hot fields of one guard."""

    __slots__ = ("_bypassed", "_lock", "_reasons", "due", "era", "express", "quiet")

    def __init__(self) -> None:
        """Quiet, in era 1, with bookkeeping due at the first call."""
        self.quiet = True
        self.express = False
        """Whether nobody needs to look at a call but those that can be passed in one step each."""
        self.era = 1
        """The era of the breaker: compare before and after."""
        self.due = float("-inf")
        """Monotonic time from which a finished call must settle the books before it is counted."""
        self._lock = threading.RLock()
        self._reasons = _NOBODY
        self._bypassed = _NOBODY

    @property
    def reasons(self) -> frozenset[str]:
        """Who needs to look at each call at the moment; empty when quiet."""
        return self._reasons

    def hold(self, reason: str, held: bool = True) -> None:  # noqa: FBT001, FBT002 - reads as `hold("breaker", state != CLOSED)`
        """Take the quiet path away for ``reason``, or give it back as far as this reason goes."""
        with self._lock:
            self._reasons = (self._reasons | {reason} if held else self._reasons - {reason}) or _NOBODY
            self._set()

    def bypass(self, reasons: frozenset[str]) -> None:
        """From now on these reasons keep nobody from the express path."""
        with self._lock:
            self._bypassed = reasons or _NOBODY
            self._set()

    def _set(self) -> None:
        self.quiet = not self._reasons
        self.express = bool(self._reasons) and self._reasons <= self._bypassed
