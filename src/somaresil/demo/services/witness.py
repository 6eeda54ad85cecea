"""Who was struck, and who answered instead: told by the events of the gateway, kept by request.

The counts of the guards say how many touched calls ended well. They do not say for whom: the witness notes the request on whose behalf
each touched call was made, so that the load generator can look up what *it* saw of that request. Two books, kept apart, must agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextvars import ContextVar
from typing import TYPE_CHECKING

from somaresil.events import CallEnded, FallbackUsed
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from somaresil.resilience import Resilience

__all__ = ["Witness"]


class Witness:
    """Listens to one process."""

    def __init__(self, resilience: Resilience) -> None:
        """Begin to listen."""
        self.touched_by_request: Counter[str] = Counter()
        """Calls that an experiment touched, by the request for which they were made."""
        self.touched_by_ending: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """The same calls by guard, and by who answered: ``dependency``, ``fallback`` or nobody (``failed``)."""
        self.fallbacks: Counter[str] = Counter()
        """Answers of the fallbacks, whatever made them necessary."""
        self._request: ContextVar[str] = ContextVar("request", default="")
        self._fell_back: ContextVar[frozenset[str]] = ContextVar("fell_back", default=frozenset())
        resilience.on(self._used, FallbackUsed)
        resilience.on(self._ended, CallEnded)

    def begin(self, request: str) -> None:
        """From here on this task works on ``request``."""
        self._request.set(request)
        self._fell_back.set(frozenset())

    def degraded(self, guard: str) -> bool:
        """Whether the fallback of ``guard`` has answered for the request of this task."""
        return guard in self._fell_back.get()

    def _used(self, event: FallbackUsed) -> None:
        self.fallbacks[event.guard] += 1
        self._fell_back.set(self._fell_back.get() | {event.guard})

    def _ended(self, event: CallEnded) -> None:
        if not event.injected:
            return
        if event.outcome != Outcome.GOOD:
            ending = "failed"
        elif self.degraded(event.guard):
            ending = "fallback"
        else:
            ending = "dependency"
        self.touched_by_ending[event.guard][ending] += 1
        request = self._request.get()
        if request:
            self.touched_by_request[request] += 1
