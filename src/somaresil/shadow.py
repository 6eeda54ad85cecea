"""Shadow mode: what a policy would have done, counted and told, and not done.

A limit that nobody has tried is a guess. A policy with ``shadow=True`` decides about real calls as it would in earnest, and the only thing
that comes of it is a count and a :class:`~somaresil.events.ShadowDecision`; what it would have refused goes on without its leave.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from somaresil.events import ShadowDecision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["Shadow"]


class Shadow:
    """The decisions of one guard that were not carried out, counted by policy and kind. Both are words of the code, so they are few."""

    __slots__ = ("_clock", "_counts", "_guard", "_listeners", "_lock")

    def __init__(self, guard: str, clock: Clock, listeners: Listeners) -> None:
        """Nothing decided yet."""
        self._guard = guard
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._counts: dict[tuple[str, str], int] | None = None

    def note(self, policy: str, decision: str, detail: str = "") -> None:
        """``policy`` would have taken this ``decision``. Never raises.

        A decision is ``reject``, ``open``, ``time_out``, ``retry``, ``hedge`` or ``eject``.
        """
        with self._lock:
            if self._counts is None:
                self._counts = {}
            self._counts[policy, decision] = self._counts.get((policy, decision), 0) + 1
        if self._listeners.wants(ShadowDecision):
            self._listeners.emit(ShadowDecision(self._guard, self._clock.time(), policy, decision, detail))

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How often each policy would have taken each decision."""
        with self._lock:
            return dict(self._counts or {})
